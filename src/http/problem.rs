//! The only map from a [`Code`] to what HTTP says: status, title, `WWW-Authenticate`, `Retry-After`, and the problem
//! document of RFC 9457.
//!
//! A verb answers with a [`Problem`] and goes no further; [`render`] writes the document at the outermost layer,
//! where the request's id is known. Nothing here decides what a caller may learn: that was decided at the refusal's
//! birth, in the broker.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    broker::error::{Code, Refused},
    kernel::id::RequestId,
};

/// The member that tells an owner which claims failed (design: section 3).
const FAILED_CLAIMS: &str = "failed_claims";

/// A refusal on its way out of a verb.
#[derive(Debug)]
pub(super) struct Problem {
    refused: Refused,
    status: StatusCode,
    members: Map<String, Value>,
}

impl Problem {
    /// A refusal by code.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Refused::new(code, detail).into()
    }

    /// A part of the request did not arrive in time. The contract has no code of its own for it, attack class B-07 has
    /// a status: the request is at fault, and HTTP says 408 (RFC 9110 section 15.5.9).
    pub(super) fn late(detail: &'static str) -> Self {
        Self::new(Code::RequestMalformed, detail).shown_as(StatusCode::REQUEST_TIMEOUT)
    }

    /// The same under a status for which the contract has no code of its own.
    pub(super) fn shown_as(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same with an extension member (RFC 9457 section 3.2).
    pub(super) fn with(mut self, member: &str, value: Value) -> Self {
        self.members.insert(member.to_owned(), value);
        self
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let (status, _) = shown_as(refused.code);
        let failed = refused.failed_claims.clone().map(|names| (FAILED_CLAIMS.to_owned(), names.into()));
        Self { refused, status, members: failed.into_iter().collect() }
    }
}

impl IntoResponse for Problem {
    /// A response without a body, to be written by [`render`].
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(Unwritten { refused: self.refused, members: self.members });
        response
    }
}

/// On a response: what it refuses is told in the words of OAuth (RFC 6749 section 5.2).
#[derive(Clone, Copy)]
pub(super) struct InOauth;

/// What [`render`] finds in a response's extensions.
#[derive(Clone)]
struct Unwritten {
    refused: Refused,
    members: Map<String, Value>,
}

/// The document's members in the contract's order.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

/// Writes the document of a refused request; any other response passes as it is.
pub(super) fn render(mut response: Response, request: Option<RequestId>) -> Response {
    let Some(Unwritten { refused, members }) = response.extensions_mut().remove() else { return response };
    let in_oauth = response.extensions_mut().remove::<InOauth>().is_some();
    let oauth = in_oauth.then(|| oauth_error(refused.code, response.status())).flatten();
    if let Some((status, _)) = oauth {
        *response.status_mut() = status;
    }
    let status = response.status();
    let retry_after_seconds = retry_after(status, &refused, request);
    let decision_id = refused.decision.map(|id| id.to_string());
    let request_id = if refused.decision.is_none() { request.map(|id| id.to_string()) } else { None };
    let code = refused.code.as_str();
    let (media_type, body) = match oauth {
        Some((_, error)) => {
            let error_description = described(&refused.detail);
            let mut document =
                json!({ "error": error, "error_description": error_description, "code": code });
            if let Value::Object(document) = &mut document {
                document.extend(decision_id.map(|id| ("decision_id".to_owned(), id.into())));
                document.extend(request_id.map(|id| ("request_id".to_owned(), id.into())));
                document.extend(retry_after_seconds.map(|at| ("retry_after_seconds".to_owned(), at.into())));
                document.extend(members);
            }
            (JSON, document.to_string().into_bytes())
        }
        None => {
            let document = Document {
                r#type: format!("urn:hallpass:problem:{code}"),
                title: shown_as(refused.code).1,
                status: status.as_u16(),
                detail: &refused.detail,
                code,
                decision_id,
                request_id,
                retry_after_seconds,
                members: &members,
            };
            (PROBLEM_JSON, serde_json::to_vec(&document).unwrap_or_default())
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.remove(header::CONTENT_LENGTH);
    if let Some(seconds) = retry_after_seconds {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, challenge(refused.code));
    }
    response.extensions_mut().insert(Told { code: refused.code, decision: refused.decision });
    *response.body_mut() = Body::from(body);
    response
}

/// What the log says of a refused request.
#[derive(Clone, Copy)]
pub(super) struct Told {
    pub(super) code: Code,
    pub(super) decision: Option<crate::kernel::id::DecisionId>,
}

/// When to come back: always said on 429 and 503, never elsewhere. Up to half as long again, and at least two seconds,
/// are added by lot, so that those who were refused together do not come back together (attack class O-05); but never
/// more than half a minute, since who waits for a limit's hour to roll on is told the very minute. The lot is the
/// random end of the request's id.
fn retry_after(status: StatusCode, refused: &Refused, request: Option<RequestId>) -> Option<u32> {
    let is_due = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let least = refused.retry_after_seconds.unwrap_or(1);
    let spread = (least / 2).clamp(2, MOST_SPREAD_SECONDS);
    let lot = request.map_or(0, lot_of) % spread.saturating_add(1);
    is_due.then(|| least.saturating_add(lot))
}

/// Enough for a few thousand to come one by one.
const MOST_SPREAD_SECONDS: u32 = 30;

fn lot_of(request: RequestId) -> u32 {
    let [.., a, b, c, d] = request.bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// RFC 6750 section 3.1: no error code where no token came.
fn challenge(code: Code) -> HeaderValue {
    if code == Code::TokenMissing {
        HeaderValue::from_static("Bearer")
    } else {
        HeaderValue::from_static("Bearer error=\"invalid_token\"")
    }
}

/// The contract's table (design: section 3) with a title for people.
fn shown_as(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::RequestMalformed => (StatusCode::BAD_REQUEST, "Malformed request"),
        Code::TokenAlgorithm => (StatusCode::UNAUTHORIZED, "Token algorithm not accepted"),
        Code::TokenAudience => (StatusCode::UNAUTHORIZED, "Token for another audience"),
        Code::TokenExpired => (StatusCode::UNAUTHORIZED, "Token expired"),
        Code::TokenIssuer => (StatusCode::UNAUTHORIZED, "Token issuer not trusted"),
        Code::TokenMalformed => (StatusCode::UNAUTHORIZED, "Malformed token"),
        Code::TokenMissing => (StatusCode::UNAUTHORIZED, "No token"),
        Code::TokenNotYetValid => (StatusCode::UNAUTHORIZED, "Token not yet valid"),
        Code::TokenSignature => (StatusCode::UNAUTHORIZED, "Token signature does not hold"),
        Code::TokenTooOld => (StatusCode::UNAUTHORIZED, "Token too old"),
        Code::AccessDenied => (StatusCode::FORBIDDEN, "Access denied"),
        Code::NotFound => (StatusCode::NOT_FOUND, "Not found"),
        Code::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
        Code::RequestInProgress => (StatusCode::CONFLICT, "Request in progress"),
        Code::TokenReplayed => (StatusCode::CONFLICT, "Token already used"),
        Code::RequestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Request too large"),
        Code::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type"),
        Code::IdempotencyMismatch => (StatusCode::UNPROCESSABLE_ENTITY, "Idempotency key reused"),
        Code::InputInvalid => (StatusCode::UNPROCESSABLE_ENTITY, "Input invalid"),
        Code::TtlOutOfRange => (StatusCode::UNPROCESSABLE_ENTITY, "TTL out of range"),
        Code::QuotaExceeded => (StatusCode::TOO_MANY_REQUESTS, "Quota exceeded"),
        Code::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "Rate limited"),
        Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
        Code::BackendFailed => (StatusCode::BAD_GATEWAY, "Backend failed"),
        Code::IssuerUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "Issuer unavailable"),
        Code::LedgerUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "Ledger unavailable"),
        Code::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "Not ready"),
        Code::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
        Code::BackendTimeout => (StatusCode::GATEWAY_TIMEOUT, "Backend timed out"),
    }
}

/// A refusal in the words of RFC 6749 section 5.2 and RFC 8693 section 2.2.2, and its status there; `None` where HTTP
/// itself is at fault, which is told as elsewhere. What may pass by itself keeps its status and its headers.
fn oauth_error(code: Code, status: StatusCode) -> Option<(StatusCode, &'static str)> {
    match code {
        Code::NotFound | Code::MethodNotAllowed | Code::RequestTooLarge | Code::UnsupportedMediaType => None,
        Code::AccessDenied => Some((StatusCode::BAD_REQUEST, "invalid_target")),
        Code::RequestMalformed => Some((status, "invalid_request")),
        Code::TokenAlgorithm
        | Code::TokenAudience
        | Code::TokenExpired
        | Code::TokenIssuer
        | Code::TokenMalformed
        | Code::TokenMissing
        | Code::TokenNotYetValid
        | Code::TokenReplayed
        | Code::TokenSignature
        | Code::TokenTooOld
        | Code::IdempotencyMismatch
        | Code::InputInvalid
        | Code::TtlOutOfRange => Some((StatusCode::BAD_REQUEST, "invalid_request")),
        Code::Internal => Some((status, "server_error")),
        Code::BackendFailed
        | Code::BackendTimeout
        | Code::IssuerUnavailable
        | Code::LedgerUnavailable
        | Code::NotReady
        | Code::Overloaded
        | Code::QuotaExceeded
        | Code::RateLimited
        | Code::RequestInProgress => Some((status, "temporarily_unavailable")),
    }
}

/// A sentence in the alphabet that `error_description` has (RFC 6749 section 5.2).
fn described(detail: &str) -> String {
    let told = |letter| match letter {
        '"' | '\\' => '\'',
        ' '..='~' => letter,
        _ => '?',
    };
    detail.chars().map(told).collect()
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::kernel::id::DecisionId;

    /// The contract's table, copied by hand from section 3 of the design.
    const CONTRACT: [(&str, u16); 29] = [
        ("token_missing", 401),
        ("token_malformed", 401),
        ("token_signature", 401),
        ("token_expired", 401),
        ("token_not_yet_valid", 401),
        ("token_audience", 401),
        ("token_issuer", 401),
        ("token_algorithm", 401),
        ("token_too_old", 401),
        ("access_denied", 403),
        ("request_malformed", 400),
        ("not_found", 404),
        ("method_not_allowed", 405),
        ("request_too_large", 413),
        ("unsupported_media_type", 415),
        ("internal", 500),
        ("token_replayed", 409),
        ("request_in_progress", 409),
        ("idempotency_mismatch", 422),
        ("ttl_out_of_range", 422),
        ("input_invalid", 422),
        ("rate_limited", 429),
        ("quota_exceeded", 429),
        ("backend_failed", 502),
        ("backend_timeout", 504),
        ("issuer_unavailable", 503),
        ("ledger_unavailable", 503),
        ("overloaded", 503),
        ("not_ready", 503),
    ];

    const CODES: [Code; 29] = [
        Code::AccessDenied,
        Code::BackendFailed,
        Code::BackendTimeout,
        Code::IdempotencyMismatch,
        Code::InputInvalid,
        Code::Internal,
        Code::IssuerUnavailable,
        Code::LedgerUnavailable,
        Code::MethodNotAllowed,
        Code::NotFound,
        Code::NotReady,
        Code::Overloaded,
        Code::QuotaExceeded,
        Code::RateLimited,
        Code::RequestInProgress,
        Code::RequestMalformed,
        Code::RequestTooLarge,
        Code::TokenAlgorithm,
        Code::TokenAudience,
        Code::TokenExpired,
        Code::TokenIssuer,
        Code::TokenMalformed,
        Code::TokenMissing,
        Code::TokenNotYetValid,
        Code::TokenReplayed,
        Code::TokenSignature,
        Code::TokenTooOld,
        Code::TtlOutOfRange,
        Code::UnsupportedMediaType,
    ];

    async fn document(problem: Problem) -> (Response<()>, String) {
        let request = RequestId::new(jiff::Timestamp::UNIX_EPOCH, [7; 10]);
        let (parts, body) = render(problem.into_response(), Some(request)).into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(parts, ()), String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_code_has_the_contracts_status_and_headers() {
        for code in CODES {
            let status = CONTRACT.iter().find(|(name, _)| *name == code.as_str()).unwrap().1;
            let (response, text) = document(Problem::new(code, "why")).await;
            let body: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(response.status().as_u16(), status, "{code:?}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(body["type"], format!("urn:hallpass:problem:{}", code.as_str()));
            assert_eq!(body["status"], status);
            assert_eq!(body["code"], code.as_str());
            assert_eq!(body["detail"], "why");
            assert!(!body["title"].as_str().unwrap().is_empty());
            let waits = status == 429 || status == 503;
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), waits, "{code:?}");
            assert_eq!(body.get("retry_after_seconds").is_some(), waits, "{code:?}");
            let challenge =
                response.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap());
            let expected = match (status, code) {
                (401, Code::TokenMissing) => Some("Bearer"),
                (401, _) => Some("Bearer error=\"invalid_token\""),
                _ => None,
            };
            assert_eq!(challenge, expected, "{code:?}");
        }
    }

    #[tokio::test]
    async fn names_the_decision_where_one_was_made_and_else_the_request() {
        let decision = DecisionId::new(jiff::Timestamp::UNIX_EPOCH, [9; 10]);
        let (_, decided) = document(Refused::new(Code::AccessDenied, "no").of(decision).into()).await;
        assert_eq!(
            decided,
            format!(
                r#"{{"type":"urn:hallpass:problem:access_denied","title":"Access denied","status":403,"detail":"no","code":"access_denied","decision_id":"{decision}"}}"#
            )
        );
        let (_, undecided) = document(Refused::new(Code::Overloaded, "busy").retry_after(3).into()).await;
        let body: Value = serde_json::from_str(&undecided).unwrap();
        assert!(body["request_id"].as_str().unwrap().starts_with("req_"));
        assert!((3..=5).contains(&body["retry_after_seconds"].as_u64().unwrap()), "{body}");
    }

    #[test]
    fn those_who_were_refused_together_do_not_come_back_together() {
        let seconds = |least: u32, lot: u8| {
            let request = RequestId::new(jiff::Timestamp::UNIX_EPOCH, [lot; 10]);
            let refused = Refused::new(Code::Overloaded, "why").retry_after(least);
            retry_after(StatusCode::SERVICE_UNAVAILABLE, &refused, Some(request)).unwrap()
        };
        for (least, most) in [(1, 3), (5, 7), (60, 90), (3_600, 3_630), (u32::MAX, u32::MAX)] {
            let all: std::collections::BTreeSet<u32> = (0..=255).map(|lot| seconds(least, lot)).collect();
            assert_eq!((all.first(), all.last()), (Some(&least), Some(&most)));
            assert!(all.len() > 2 || least == most, "{all:?}");
        }
        let without = Refused::new(Code::Overloaded, "why");
        assert_eq!(retry_after(StatusCode::TOO_MANY_REQUESTS, &without, None), Some(1));
        assert_eq!(retry_after(StatusCode::FORBIDDEN, &without, None), None);
    }

    #[tokio::test]
    async fn a_late_body_is_408_and_the_requests_fault() {
        let (response, text) = document(Problem::late("why")).await;
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        assert!(text.contains(r#""status":408,"#) && text.contains(r#""code":"request_malformed""#));
    }
}
