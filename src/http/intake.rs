//! Takes a request's body in: its size, its time and its media type are bounded before anybody looks at it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http::{HeaderMap, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::problem::Problem;
use crate::broker::error::Code;

/// Reads a body of at most [`MAX_BODY_BYTES`] within [`BODY_DEADLINE`].
///
/// # Errors
///
/// 413 `request_too_large` by the declared length or while reading, 408 where it comes too slowly, 400 where it
/// breaks off.
pub(super) async fn read_body(body: Body) -> Result<Bytes, Problem> {
    refuse_declared_size(&body)?;
    let limited = Limited::new(body, MAX_BODY_BYTES);
    match tokio::time::timeout(BODY_DEADLINE, limited.collect()).await {
        Err(_) => Err(Problem::late("the body did not arrive in time")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(fault)) if fault.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::RequestMalformed, "the body broke off")),
    }
}

/// Refuses a body by the length that its head declares; a verb that reads none asks this too.
///
/// # Errors
///
/// 413 `request_too_large`.
pub(super) fn refuse_declared_size(body: &Body) -> Result<(), Problem> {
    let declared = body.size_hint().lower();
    if declared > MAX_BODY_BYTES as u64 { Err(too_large()) } else { Ok(()) }
}

/// A body that a verb may leave unread. What is left is read and thrown away before the answer goes: a socket that is
/// closed over unread bytes is reset, and the client would lose the answer that tells it why.
pub(super) struct Lent {
    body: Option<Body>,
    back: Arc<Mutex<Option<Body>>>,
}

/// Where a lent body comes back to.
pub(super) struct Lender(Arc<Mutex<Option<Body>>>);

/// Lends a body to a verb.
pub(super) fn lend(body: Body) -> (Body, Lender) {
    let back = Arc::new(Mutex::new(None));
    let lender = Lender(Arc::clone(&back));
    (Body::new(Lent { body: Some(body), back }), lender)
}

impl Lender {
    /// Reads what the verb left, within bounds; says whether that was all.
    pub(super) async fn settle(self) -> bool {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(body) = left.filter(|body| !body.is_end_stream()) else { return true };
        if body.size_hint().lower() > MAX_LEFT_BYTES as u64 {
            return false;
        }
        let read = tokio::time::timeout(LEFT_DEADLINE, Limited::new(body, MAX_LEFT_BYTES).collect()).await;
        matches!(read, Ok(Ok(_)))
    }

    /// Whether the verb left nothing.
    pub(super) fn is_settled(&self) -> bool {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        left.as_ref().is_none_or(HttpBody::is_end_stream)
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

/// Checks for `application/json`, with no parameter but `charset=utf-8` (RFC 8259 section 8.1), as it is: what was
/// encoded on the way is not decoded here, and must not be read as if it were plain (RFC 9110 section 8.4).
///
/// # Errors
///
/// 415 `unsupported_media_type`; 400 `request_malformed` for several headers, of which two readers could take two
/// (attack class B-05).
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    require(headers, "application/json")
}

/// The same for `application/x-www-form-urlencoded` (RFC 6749 appendix B: its text is UTF-8).
///
/// # Errors
///
/// As [`require_json`].
pub(super) fn require_form(headers: &HeaderMap) -> Result<(), Problem> {
    require(headers, "application/x-www-form-urlencoded")
}

fn require(headers: &HeaderMap, essence: &'static str) -> Result<(), Problem> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let fits = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().is_ok_and(|value| is_of_type(value, essence)),
        (None, _) => false,
        (Some(_), Some(_)) => {
            let detail = "there must be one Content-Type header, and there are several";
            return Err(Problem::new(Code::RequestMalformed, detail));
        }
    };
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new(Code::UnsupportedMediaType, "send the body without `Content-Encoding`"));
    }
    if fits {
        return Ok(());
    }
    Err(Problem::new(Code::UnsupportedMediaType, format!("send the body as `Content-Type: {essence}`")))
}

fn is_of_type(value: &str, essence: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    parts.next().unwrap_or_default().eq_ignore_ascii_case(essence)
        && parts.all(|parameter| {
            parameter.eq_ignore_ascii_case("charset=utf-8")
                || parameter.eq_ignore_ascii_case("charset=\"utf-8\"")
        })
}

fn too_large() -> Problem {
    Problem::new(Code::RequestTooLarge, "the body has more than 32 KiB")
}

/// The contract's cap (design: section 3).
const MAX_BODY_BYTES: usize = 32 * 1024;
/// A CI runner sends 32 KiB within one or two round trips; whoever needs longer is broken or means harm. Each slow
/// sender holds one of the in-flight places meanwhile, so the time is short (B-07).
const BODY_DEADLINE: Duration = Duration::from_secs(5);
/// What is read of a body that nobody wants: enough for a client that did not know the cap.
const MAX_LEFT_BYTES: usize = 256 * 1024;
const LEFT_DEADLINE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::is_of_type;

    fn is_json(value: &str) -> bool {
        is_of_type(value, "application/json")
    }

    #[test]
    fn json_is_json_with_no_parameter_but_utf_8() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/json",
            "application/json; charset=latin1",
            "application/problem+json",
            "application/json, text/plain",
            "application/jsonx",
            "application/json; boundary=x",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
