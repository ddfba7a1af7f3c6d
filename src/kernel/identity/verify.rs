//! Verification: the signature by the issuer's key, then our own strict reading of every registered claim, in the
//! contract's order.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{JobIdentity, keys::VerificationKey, profile::Profile, token::RawToken};
use crate::kernel::name::IssuerName;

/// What a token must satisfy.
pub struct Terms<'a> {
    /// The issuer's name.
    pub issuer: &'a IssuerName,
    /// The issuer's URL.
    pub url: &'a str,
    /// Its profile.
    pub profile: &'static Profile,
    /// The one audience.
    pub audience: &'a str,
    /// The greatest age.
    pub max_token_age: Duration,
    /// L.
    pub leeway: Duration,
}

/// What is wrong with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFault {
    /// Which code the caller gets.
    pub kind: FaultKind,
    /// The precise reason: a stable kebab-case word, for the ledger, optionally with a claim's name
    /// (`missing-claim:repository_id`). Never a value from the token.
    pub reason: String,
}

/// The codes of token faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the code of the same name")]
pub enum FaultKind {
    Algorithm,
    Audience,
    Expired,
    Issuer,
    Malformed,
    NotYetValid,
    Signature,
    TooOld,
}

/// A token that was refused, with what is known of it.
pub struct RefusedToken {
    /// Why.
    pub fault: TokenFault,
    /// The identity, where signature and required claims held and only audience or time did not: it is authentic,
    /// so the ledger may name it.
    pub authentic: Option<Box<JobIdentity>>,
}

/// A token whose signature, required claims, audience and times hold. Only [`verify`] makes one.
pub struct VerifiedToken {
    identity: JobIdentity,
}

impl VerifiedToken {
    /// The job that it proves.
    pub fn into_identity(self) -> JobIdentity {
        self.identity
    }
}

/// Checks algorithm (against the profile), signature, required claims and types, audience, `exp`, `nbf` and `iat`,
/// age, in this order; the first fault wins. The token is consumed and wiped.
///
/// # Errors
///
/// [`RefusedToken`] with the first fault.
pub fn verify(
    _token: RawToken,
    _key: &VerificationKey,
    _terms: &Terms<'_>,
    _now: Timestamp,
) -> Result<VerifiedToken, Box<RefusedToken>> {
    todo!()
}

/// The claims of a payload, for tools that have no key (never for the exchange).
pub type UnverifiedClaims = Map<String, Value>;
