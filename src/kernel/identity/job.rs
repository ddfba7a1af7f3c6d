//! The verified identity of one CI job: what policy decides on and what the ledger records.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::profile::Profile;
use crate::kernel::{digest::Digest, name::IssuerName};

/// The claims of a verified token that its profile marks usable in policy and that have the profile's type.
pub type Claims = Map<String, Value>;

/// Who is calling. Built by [`super::verify`] only, from a token whose signature, audience and times hold.
pub struct JobIdentity {
    pub(super) issuer: IssuerName,
    pub(super) profile: &'static Profile,
    pub(super) subject: String,
    pub(super) claims: Claims,
    pub(super) unusable: Vec<String>,
    pub(super) trigger: Trigger,
    pub(super) token: TokenMark,
}

/// What set the job off, as far as it matters to safety.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Runs code or text that a stranger may have written, with the project's own rights; the word is the
    /// contract's (`pull_request_target`, `workflow_run`, `issue_comment`, `fork`, `human_shell`).
    Dangerous(&'static str),
    /// An ordinary trigger.
    Ordinary,
    /// The profile knows triggers, and this token does not name one that it knows to be ordinary or dangerous.
    Unknown,
}

/// What is kept of a token: enough to recognise it again, never enough to use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenMark {
    /// Digest over the issuer's URL and `jti`, or over the issuer's URL and the signed bytes where the profile has
    /// no `jti`: the token id of the once-key.
    pub id: Digest,
    /// Issued at.
    pub iat: Timestamp,
    /// Expires at.
    pub exp: Timestamp,
}
