//! The head of a request, before anybody looks at what it asks: its size, and whether a proxy in front may have read
//! it in another way than hyper did (attack class B-07). hyper refuses by itself, with a bare 400, what is no HTTP.

use axum::extract::Request;
use http::{StatusCode, Uri, Version, header};

use super::problem::Problem;
use crate::broker::error::Code;

/// What is wrong with a head; nothing where it may be served.
pub(super) fn fault(request: &Request) -> Option<Problem> {
    size_fault(request).or_else(|| framing_fault(request)).or_else(|| host_fault(request))
}

/// 414 for a URI alone, 431 for all (RFC 6585 section 5). HTTP/2 sends less for the same head; what it stands for
/// counts.
fn size_fault(request: &Request) -> Option<Problem> {
    let uri_bytes = uri_bytes(request.uri());
    if uri_bytes > MAX_HEAD_BYTES {
        let problem = Problem::new(Code::RequestTooLarge, "the URI has more than 16 KiB");
        return Some(problem.shown_as(StatusCode::URI_TOO_LONG));
    }
    let headers = request.headers();
    // A line of HTTP/1.1 has four bytes beside name and value.
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let is_over = uri_bytes + lines.sum::<usize>() > MAX_HEAD_BYTES || headers.len() > MAX_HEADERS;
    is_over.then(|| {
        let problem =
            Problem::new(Code::RequestTooLarge, "the headers have more than 16 KiB, or are more than 100");
        problem.shown_as(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    })
}

fn uri_bytes(uri: &Uri) -> usize {
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    authority + uri.path_and_query().map_or(0, |path| path.as_str().len())
}

/// A body framed by more than `chunked` (RFC 9112 section 6.1). HTTP/2 has no such header; hyper refuses it.
fn framing_fault(request: &Request) -> Option<Problem> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_framed_once = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    (!is_framed_once).then(|| malformed("send no Transfer-Encoding but `chunked`"))
}

/// Hosts that are not one: several, none where HTTP/1.1 wants one (RFC 9112 section 3.2), or one in the target and
/// another beside it (RFC 9113 section 8.3.1).
fn host_fault(request: &Request) -> Option<Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, other) = (hosts.next(), hosts.next());
    let is_due = request.version() == Version::HTTP_11;
    let is_one = match (host, request.uri().authority()) {
        (None, _) => !is_due,
        (Some(host), Some(target)) => host.as_bytes().eq_ignore_ascii_case(target.as_str().as_bytes()),
        (Some(_), None) => true,
    };
    (!is_one || other.is_some())
        .then(|| malformed("send one Host header, the same as in the target if that has one"))
}

fn malformed(detail: &'static str) -> Problem {
    Problem::new(Code::RequestMalformed, detail)
}

/// The contract's cap on headers (design: section 3), the request's line included. hyper takes twice as much, so that
/// whoever sends somewhat more is told in a problem document.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// More than any client sends; hyper's own default, of which it takes twice as many for the same reason.
pub(super) const MAX_HEADERS: usize = 100;

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn good() -> http::request::Builder {
        Request::builder().uri("/v1/exchange").header("host", "hallpass.test")
    }

    fn status(request: http::request::Builder) -> Option<u16> {
        use axum::response::IntoResponse as _;
        let problem = fault(&request.body(Body::empty()).unwrap());
        problem.map(|problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn a_head_may_be_sixteen_kib_and_no_byte_more() {
        let left = MAX_HEAD_BYTES - "/v1/exchange".len() - "host: hallpass.test\r\n".len() - "x: \r\n".len();
        assert_eq!(status(good().header("x", "y".repeat(left))), None);
        assert_eq!(status(good().header("x", "y".repeat(left + 1))), Some(431));
        assert_eq!(status(good().uri(format!("/{}", "y".repeat(MAX_HEAD_BYTES)))), Some(414));
    }

    #[test]
    fn a_head_may_have_a_hundred_headers() {
        let with = |many: usize| (0..many).fold(good(), |head, _| head.header("x", "y"));
        assert_eq!(status(with(99)), None);
        assert_eq!(status(with(100)), Some(431));
    }

    #[test]
    fn there_is_one_host() {
        let target = |host: &str| good().uri("http://Hallpass.TEST/v1/exchange").header("x-host", host);
        assert_eq!(status(target("")), None, "the case of a host means nothing");
        assert_eq!(status(good().uri("http://other.test/v1/exchange")), Some(400));
        assert_eq!(status(good().header("host", "hallpass.test")), Some(400), "twice the same");
        let none = || Request::builder().uri("/");
        assert_eq!(status(none()), Some(400));
        assert_eq!(status(none().version(Version::HTTP_10)), None);
        let second = || Request::builder().uri("https://hallpass.test/").version(Version::HTTP_2);
        assert_eq!(status(second()), None);
        assert_eq!(status(second().header("host", "hallpass.test")), None);
        assert_eq!(status(second().header("host", "other.test")), Some(400));
    }

    #[test]
    fn a_body_is_framed_once() {
        let with = |codings: &[&str]| {
            status(codings.iter().fold(good(), |head, coding| head.header("transfer-encoding", *coding)))
        };
        assert_eq!(with(&["chunked"]), None);
        assert_eq!(with(&["Chunked"]), None);
        for bad in
            [&["gzip, chunked"][..], &["chunked, chunked"], &["chunked", "chunked"], &["xchunked"], &[" "]]
        {
            assert_eq!(with(bad), Some(400), "{bad:?}");
        }
    }
}
