//! Spans of an exchange and of its steps, for builds that send them to a collector (feature `otel`). In any other build
//! nobody listens at their target, and a span costs the look at a flag.
//!
//! Names and attributes come from closed sets, as labels of metrics do: never a token, a secret, a claim, or a name that
//! a job or an admin chose. The log's line within a span has the ids under which the ledger knows more.

use tracing::{Span, field::Empty, info_span};

use super::{error::Refused, metrics::Permitted};
use crate::kernel::policy::target::Kind;

/// The target of every span. The log's lines have those of their modules.
pub const TARGET: &str = "span";

/// An exchange, from who asks to what it came to.
pub(super) fn exchange() -> Span {
    info_span!(target: TARGET, "exchange", hallpass.outcome = Empty)
}

/// Notes on the exchange's span what it came to, in the words of `hallpass_exchanges_total`.
pub(super) fn exchanged(outcome: Result<Permitted, &Refused>) {
    let outcome = match outcome {
        Ok(Permitted::Issued) => "issued",
        Ok(Permitted::DryRun) => "dry_run",
        Err(refused) => refused.code.as_str(),
    };
    Span::current().record("hallpass.outcome", outcome);
}

/// From the token's first byte to who the job is.
pub(super) fn verify() -> Span {
    info_span!(target: TARGET, "verify")
}

/// The policy's verdict.
pub(super) fn decide() -> Span {
    info_span!(target: TARGET, "decide")
}

/// INTENT made durable, where that is a step of its own.
pub(super) fn intent() -> Span {
    info_span!(target: TARGET, "intent")
}

/// The making of one credential of that kind.
pub(super) fn mint(kind: Kind) -> Span {
    info_span!(target: TARGET, "mint", hallpass.kind = kind.as_str())
}

/// What was made, or was not, made durable.
pub(super) fn record() -> Span {
    info_span!(target: TARGET, "record")
}
