//! Takes the bearer token out of a request: from the one place where it may stand, into a [`Secret`].
//!
//! The header is removed on the way, so that no log line, extension or later layer can meet it. A token in the query
//! string is refused and never used (attack class R-12; RFC 6750 section 5.3).

use http::{HeaderMap, Uri, header};

use super::problem::Problem;
use crate::{broker::error::Code, kernel::secret::Secret};

/// Takes the token of the one `Authorization` header.
///
/// # Errors
///
/// 401 `token_missing` where none came or the scheme is another (RFC 6750 section 3.1), 400 `request_malformed` for
/// several headers.
pub(super) fn take(headers: &mut HeaderMap) -> Result<Secret, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let text = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(_), Some(_)) => {
            headers.remove(header::AUTHORIZATION);
            return Err(Problem::new(
                Code::RequestMalformed,
                "there must be one Authorization header, and there are several",
            ));
        }
        (Some(value), None) => token_of(value.as_bytes()).map(|token| Secret::new(token.to_vec())),
    };
    headers.remove(header::AUTHORIZATION);
    text.ok_or_else(|| {
        Problem::new(Code::TokenMissing, "send the token in the header `Authorization: Bearer TOKEN`")
    })
}

/// Refuses a query string where the endpoint has none, with a word of its own for tokens.
///
/// # Errors
///
/// 400 `request_malformed`.
pub(super) fn refuse_query(uri: &Uri) -> Result<(), Problem> {
    let Some(query) = uri.query().filter(|query| !query.is_empty()) else { return Ok(()) };
    let detail = if holds_token(query) {
        "a token must never stand in a URL, where proxies log it; treat this one as leaked, and send tokens in the Authorization header"
    } else {
        "this endpoint takes no query parameters"
    };
    Err(Problem::new(Code::RequestMalformed, detail))
}

/// Whether a query string names a parameter that carries tokens elsewhere.
pub(super) fn holds_token(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        TOKEN_PARAMETERS.iter().any(|each| name.eq_ignore_ascii_case(each))
    })
}

/// The text after `Bearer` in any case and one space; what follows is judged as a token, spaces included.
fn token_of(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let token = rest.strip_prefix(b" ")?;
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}

const SCHEME: &[u8] = b"bearer";

/// RFC 6750 section 2.3, RFC 8693, and what people try.
const TOKEN_PARAMETERS: [&str; 7] =
    ["access_token", "authorization", "bearer", "id_token", "jwt", "subject_token", "token"];

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn takes_the_token_in_any_case_of_the_scheme_and_removes_the_header() {
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c"] {
            let mut headers = headers(&[value]);
            assert_eq!(take(&mut headers).ok().unwrap().expose(), b"a.b.c");
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn keeps_a_leading_space_for_the_reader_of_tokens_to_refuse() {
        assert_eq!(take(&mut headers(&["Bearer  a"])).ok().unwrap().expose(), b" a");
    }

    #[test]
    fn refuses_none_another_scheme_and_several() {
        let cases: [(&[&'static str], u16); 8] = [
            (&[], 401),
            (&[""], 401),
            (&["Bearer"], 401),
            (&["Bearer "], 401),
            (&["Bearera.b.c"], 401),
            (&["Basic YTpi"], 401),
            (&["a.b.c"], 401),
            (&["Bearer a", "Bearer a"], 400),
        ];
        for (values, status) in cases {
            let mut headers = headers(values);
            let problem = take(&mut headers).err().unwrap();
            assert_eq!(problem.into_response().status().as_u16(), status, "{values:?}");
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn knows_a_token_in_a_query() {
        for query in ["access_token=x", "a=b&TOKEN=x", "jwt"] {
            assert!(holds_token(query), "{query}");
        }
        assert!(!holds_token("q=token&cursor=i3"));
    }
}
