//! What STS's answers mean, and which of them are worth another try.
//!
//! The words are those of the service's model (`error.code`), some with the suffix `Exception` and some without. What
//! fails on the way of the assertion is in no CloudTrail of the customer's: the broker's own log is all there is.

use aws_sdk_sts::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};
use aws_smithy_runtime_api::http::Response;

use super::wire::WireFault;
use crate::{broker::ports::MintFault, kernel::id::IssuanceId};

/// Why one try gave nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The word of the ledger.
    pub(super) reason: &'static str,
    /// What helps.
    pub(super) retry: Retry,
    /// Whether a session may stand somewhere.
    pub(super) doubt: Doubt,
    /// What the service said, cut; for the log only.
    said: Option<String>,
    request_id: Option<String>,
}

/// Whether, and how, to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// After a pause, a few times.
    Backoff,
    /// Once, with a new assertion.
    FreshAssertion,
    /// Nothing will change by it.
    Never,
}

/// What is known of a session that nobody has: of all tries the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// None was made.
    None,
    /// The answer came, and was no answer.
    Lost,
    /// No answer came in time.
    Late,
}

impl Doubt {
    pub(super) fn fault(self, reason: &'static str) -> MintFault {
        match self {
            Self::None => MintFault::failed(reason),
            Self::Lost => MintFault::Lost { reason },
            Self::Late => MintFault::Timeout,
        }
    }
}

impl Fault {
    /// Nothing was made, and nothing changes by trying again.
    pub(super) fn certain(reason: &'static str) -> Self {
        Self::new(reason, Retry::Never, Doubt::None)
    }

    /// What came is no session.
    pub(super) fn lost(reason: &'static str) -> Self {
        Self::new(reason, Retry::Never, Doubt::Lost)
    }

    fn new(reason: &'static str, retry: Retry, doubt: Doubt) -> Self {
        Self { reason, retry, doubt, said: None, request_id: None }
    }

    /// Of a call that failed. `unsent` is the word for what never left.
    pub(super) fn of<E>(error: &SdkError<E, Response>, unsent: &'static str) -> Self
    where
        E: ProvideErrorMetadata,
    {
        match error {
            SdkError::ServiceError(answer) => {
                let meta = answer.err().meta();
                Self {
                    said: meta.message().map(cut),
                    request_id: meta.request_id().map(cut),
                    ..Self::of_answer(meta.code(), answer.raw().status().as_u16())
                }
            }
            SdkError::DispatchFailure(failure) => {
                match failure.as_connector_error().and_then(|error| WireFault::within(error)) {
                    Some(wire) => Self::of_wire(wire),
                    None => Self::certain(unsent),
                }
            }
            SdkError::TimeoutError(_) => Self::of_wire(WireFault::Late),
            SdkError::ResponseError(_) => Self::lost("answer-malformed"),
            SdkError::ConstructionFailure(_) => Self::certain(unsent),
            // The enum is the SDK's, and it may grow.
            _ => Self::lost("answer-malformed"),
        }
    }

    fn of_wire(wire: WireFault) -> Self {
        match wire {
            WireFault::Late => Self::new("answer-late", Retry::Backoff, Doubt::Late),
            WireFault::TooLarge => Self::lost("answer-too-large"),
            WireFault::Torn => Self::new("answer-lost", Retry::Backoff, Doubt::Lost),
            WireFault::Unconnected => Self::new("backend-unreachable", Retry::Backoff, Doubt::None),
        }
    }

    fn of_answer(code: Option<&str>, status: u16) -> Self {
        let code = code.map(|code| code.strip_suffix("Exception").unwrap_or(code));
        let (reason, retry) = match code.unwrap_or_default() {
            "AccessDenied" => ("access-denied", Retry::Never),
            "ExpiredToken" => ("assertion-expired", Retry::FreshAssertion),
            "ExpiredTokenId" | "InvalidClientTokenId" | "UnrecognizedClient" | "SignatureDoesNotMatch" => {
                ("credentials-refused", Retry::Never)
            }
            "IDPCommunicationError" => ("issuer-not-reached", Retry::Backoff),
            "IDPRejectedClaim" => ("claim-rejected", Retry::Never),
            "InvalidIdentityToken" => ("assertion-refused", Retry::FreshAssertion),
            "MalformedPolicyDocument" => ("session-policy-malformed", Retry::Never),
            "PackedPolicyTooLarge" => ("session-policy-too-large", Retry::Never),
            "RegionDisabled" => ("region-disabled", Retry::Never),
            "RequestLimitExceeded" | "SlowDown" | "Throttled" | "Throttling" | "TooManyRequests" => {
                ("throttled", Retry::Backoff)
            }
            "ServiceUnavailable" => ("backend-unavailable", Retry::Backoff),
            "InvalidParameterValue" | "ValidationError" => ("request-refused", Retry::Never),
            _ => return Self::of_status(status),
        };
        Self::new(reason, retry, Doubt::None)
    }

    /// Of an answer whose word is not known, or that has none.
    fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::certain("access-denied"),
            429 => Self::new("throttled", Retry::Backoff, Doubt::None),
            503 => Self::new("backend-unavailable", Retry::Backoff, Doubt::None),
            400..=499 => Self::certain("request-refused"),
            // It may have failed after the session was made.
            500..=599 => Self::new("backend-error", Retry::Backoff, Doubt::Lost),
            _ => Self::lost("answer-malformed"),
        }
    }

    /// The ledger's word, and what the service said.
    pub(super) fn into_parts(self) -> (&'static str, Option<String>) {
        (self.reason, self.said)
    }

    /// Once for every try.
    pub(super) fn tell(&self, backend: &str, issuance: IssuanceId, tries: u32) {
        tracing::warn!(
            backend.name = backend,
            issuance = issuance.to_string(),
            reason = self.reason,
            said = self.said.as_deref(),
            aws.request_id = self.request_id.as_deref(),
            tries,
            "AWS gave no session"
        );
    }
}

/// Somebody else's words: one line, and no more of them than a reader needs.
fn cut(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(MOST_SAID).collect()
}

const MOST_SAID: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_service_has_one_meaning_and_one_rule_for_trying_again() {
        use Retry::{Backoff, FreshAssertion, Never};
        for (code, status, reason, retry) in [
            ("IDPCommunicationError", 400, "issuer-not-reached", Backoff),
            ("InvalidIdentityToken", 400, "assertion-refused", FreshAssertion),
            ("InvalidIdentityTokenException", 400, "assertion-refused", FreshAssertion),
            ("ExpiredTokenException", 400, "assertion-expired", FreshAssertion),
            ("ExpiredToken", 400, "assertion-expired", FreshAssertion),
            ("IDPRejectedClaim", 403, "claim-rejected", Never),
            ("AccessDenied", 403, "access-denied", Never),
            ("PackedPolicyTooLarge", 400, "session-policy-too-large", Never),
            ("MalformedPolicyDocument", 400, "session-policy-malformed", Never),
            ("RegionDisabledException", 403, "region-disabled", Never),
            ("ValidationError", 400, "request-refused", Never),
            ("Throttling", 400, "throttled", Backoff),
            ("ThrottlingException", 400, "throttled", Backoff),
            ("ServiceUnavailable", 503, "backend-unavailable", Backoff),
        ] {
            let fault = Fault::of_answer(Some(code), status);
            assert_eq!((fault.reason, fault.retry, fault.doubt), (reason, retry, Doubt::None), "{code}");
        }
    }

    #[test]
    fn an_answer_without_a_word_is_read_by_its_status_and_a_server_error_leaves_a_doubt() {
        for (status, reason, retry, doubt) in [
            (400, "request-refused", Retry::Never, Doubt::None),
            (403, "access-denied", Retry::Never, Doubt::None),
            (429, "throttled", Retry::Backoff, Doubt::None),
            (500, "backend-error", Retry::Backoff, Doubt::Lost),
            (502, "backend-error", Retry::Backoff, Doubt::Lost),
            (503, "backend-unavailable", Retry::Backoff, Doubt::None),
            (504, "backend-error", Retry::Backoff, Doubt::Lost),
            (302, "answer-malformed", Retry::Never, Doubt::Lost),
        ] {
            for code in [None, Some("Unknown")] {
                let fault = Fault::of_answer(code, status);
                assert_eq!((fault.reason, fault.retry, fault.doubt), (reason, retry, doubt), "{status}");
            }
        }
    }

    #[test]
    fn the_worst_doubt_of_all_tries_counts() {
        assert_eq!(Doubt::None.max(Doubt::Lost).max(Doubt::None).fault("x"), MintFault::Lost { reason: "x" });
        assert_eq!(Doubt::Lost.max(Doubt::Late).fault("x"), MintFault::Timeout);
        assert_eq!(Doubt::None.fault("x"), MintFault::failed("x"));
    }

    #[test]
    fn somebody_elses_words_are_one_line_of_three_hundred_letters() {
        assert_eq!(cut("a\nb"), "a b");
        assert_eq!(cut(&"é".repeat(1_000)).chars().count(), 300);
    }
}
