//! Codes and refusals: what a caller is told. Whose fault it is, is said once, at birth.

use crate::{
    broker::{ambient::NoEntropy, ports::StoreFault},
    kernel::id::DecisionId,
};

/// The stable codes of the HTTP API (design: section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "each variant is its own word; the manual's table explains them")]
pub enum Code {
    AccessDenied,
    BackendFailed,
    BackendTimeout,
    IdempotencyMismatch,
    InputInvalid,
    Internal,
    IssuerUnavailable,
    LedgerUnavailable,
    MethodNotAllowed,
    NotFound,
    NotReady,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    RequestInProgress,
    RequestMalformed,
    RequestTooLarge,
    TokenAlgorithm,
    TokenAudience,
    TokenExpired,
    TokenIssuer,
    TokenMalformed,
    TokenMissing,
    TokenNotYetValid,
    TokenReplayed,
    TokenSignature,
    TokenTooOld,
    TtlOutOfRange,
    UnsupportedMediaType,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 29] = [
        Self::AccessDenied,
        Self::BackendFailed,
        Self::BackendTimeout,
        Self::IdempotencyMismatch,
        Self::InputInvalid,
        Self::Internal,
        Self::IssuerUnavailable,
        Self::LedgerUnavailable,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::NotReady,
        Self::Overloaded,
        Self::QuotaExceeded,
        Self::RateLimited,
        Self::RequestInProgress,
        Self::RequestMalformed,
        Self::RequestTooLarge,
        Self::TokenAlgorithm,
        Self::TokenAudience,
        Self::TokenExpired,
        Self::TokenIssuer,
        Self::TokenMalformed,
        Self::TokenMissing,
        Self::TokenNotYetValid,
        Self::TokenReplayed,
        Self::TokenSignature,
        Self::TokenTooOld,
        Self::TtlOutOfRange,
        Self::UnsupportedMediaType,
    ];

    /// The code's text, as in `code` and at the end of `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::BackendFailed => "backend_failed",
            Self::BackendTimeout => "backend_timeout",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::InputInvalid => "input_invalid",
            Self::Internal => "internal",
            Self::IssuerUnavailable => "issuer_unavailable",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound => "not_found",
            Self::NotReady => "not_ready",
            Self::Overloaded => "overloaded",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RateLimited => "rate_limited",
            Self::RequestInProgress => "request_in_progress",
            Self::RequestMalformed => "request_malformed",
            Self::RequestTooLarge => "request_too_large",
            Self::TokenAlgorithm => "token_algorithm",
            Self::TokenAudience => "token_audience",
            Self::TokenExpired => "token_expired",
            Self::TokenIssuer => "token_issuer",
            Self::TokenMalformed => "token_malformed",
            Self::TokenMissing => "token_missing",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenReplayed => "token_replayed",
            Self::TokenSignature => "token_signature",
            Self::TokenTooOld => "token_too_old",
            Self::TtlOutOfRange => "ttl_out_of_range",
            Self::UnsupportedMediaType => "unsupported_media_type",
        }
    }
}

/// What a caller is told when it does not get what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The code.
    pub code: Code,
    /// The decision, where one was made.
    pub decision: Option<DecisionId>,
    /// A sentence that says what to do; never anything about policy, never a value from the request.
    pub detail: String,
    /// When to come back, in seconds.
    pub retry_after_seconds: Option<u32>,
    /// Names of claims that failed, for a grant's own project where the grant says `disclose: owner`.
    pub failed_claims: Option<Vec<String>>,
}

impl Refused {
    /// A refusal without a decision.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, decision: None, detail: detail.into(), retry_after_seconds: None, failed_claims: None }
    }

    /// The same, of a decision.
    pub fn of(self, decision: DecisionId) -> Self {
        Self { decision: Some(decision), ..self }
    }

    /// The same, with a time to come back.
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }
}

impl From<StoreFault> for Refused {
    /// If the ledger cannot be written, nothing is minted and nothing is told (P1, P7, P8).
    fn from(_: StoreFault) -> Self {
        Self::new(
            Code::LedgerUnavailable,
            "the ledger cannot be written now, so nothing was issued; try again",
        )
        .retry_after(1)
    }
}

impl From<NoEntropy> for Refused {
    fn from(_: NoEntropy) -> Self {
        Self::new(Code::Internal, "something went wrong on our side; the operator's log has the request id")
    }
}
