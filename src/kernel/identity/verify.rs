//! Verification: the signature by the issuer's key, then our own strict reading of every registered claim, in the
//! contract's order.
//!
//! aws-lc answers one question, whether these bytes were signed by this key. No library reads a claim for us: the
//! validation of `jsonwebtoken`, for one, lets through a missing or listed `iss`, several audiences, `nbf` in the
//! future, fractional times and doubled claims (attack class T-12). Nothing here reads a clock. Source: RFC 7519
//! section 4.1, RFC 8725.

use std::{borrow::Cow, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::{
    JobIdentity,
    job::{TokenMark, has_control},
    keys::VerificationKey,
    profile::Profile,
    token::RawToken,
};
use crate::kernel::{digest::Digest, name::IssuerName};

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

/// A token whose signature, required claims, audience and times hold. Only [`verify`] and [`verify_holder`] make
/// one.
pub struct VerifiedToken {
    identity: JobIdentity,
}

impl TokenFault {
    /// A fault with its reason.
    pub fn new(kind: FaultKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, reason: reason.into().into_owned() }
    }
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
    token: RawToken,
    key: &VerificationKey,
    terms: &Terms<'_>,
    now: Timestamp,
) -> Result<VerifiedToken, Box<RefusedToken>> {
    let authentic = authenticate(token, key, terms).map_err(stranger)?;
    let checked = authentic
        .check_audience(terms)
        .and_then(|()| authentic.check_times(terms, now))
        .and_then(|()| authentic.check_age(terms, now));
    authentic.conclude(checked)
}

/// Checks the same but the age since `iat`: for the holder of an issuance, whose token has the right to look it up
/// and give it back as long as signature, audience and `exp` hold (contract: section 3).
///
/// # Errors
///
/// [`RefusedToken`] with the first fault.
pub fn verify_holder(
    token: RawToken,
    key: &VerificationKey,
    terms: &Terms<'_>,
    now: Timestamp,
) -> Result<VerifiedToken, Box<RefusedToken>> {
    let authentic = authenticate(token, key, terms).map_err(stranger)?;
    let checked = authentic
        .check_audience(terms)
        .and_then(|()| authentic.check_times(terms, now))
        .and_then(|()| authentic.check_life());
    authentic.conclude(checked)
}

/// A token whose signature and required claims hold; audience and times are not checked yet.
struct Authentic {
    identity: JobIdentity,
    audience: Vec<String>,
    exp: Timestamp,
    iat: Timestamp,
    nbf: Option<Timestamp>,
}

fn authenticate(
    mut token: RawToken,
    key: &VerificationKey,
    terms: &Terms<'_>,
) -> Result<Authentic, TokenFault> {
    let algorithm = token.check_algorithm(terms.profile)?;
    if key.algorithm() != algorithm || key.kid() != token.unverified_kid() {
        return Err(TokenFault::new(FaultKind::Signature, "key-of-another-name-or-algorithm"));
    }
    // Moved, since a copy of forty claims is eighty allocations; believed only below.
    let claims = std::mem::take(&mut token.payload);
    let signed = token.signed_and_signature().filter(|(signed, signature)| key.signed(signed, signature));
    let (signed, _) = signed.ok_or(TokenFault::new(FaultKind::Signature, "signature"))?;
    // The key was chosen by this very text, so it can differ only where a caller mixed up two issuers.
    if token.unverified_issuer() != terms.url {
        return Err(TokenFault::new(FaultKind::Issuer, "issuer"));
    }
    let audience = read_audience(&claims)?;
    let exp = read_time(&claims, "exp")?.ok_or(malformed("missing-claim:exp"))?;
    let iat = read_time(&claims, "iat")?.ok_or(malformed("missing-claim:iat"))?;
    let nbf = read_time(&claims, "nbf")?;
    let id = match read_jti(&claims, terms.profile)? {
        Some(jti) => Digest::of_parts(&[terms.url.as_bytes(), b"jti", jti.as_bytes()]),
        // Over the signed bytes and never the whole text: an ECDSA signature can be rewritten without the key
        // (attack class R-05).
        None => Digest::of_parts(&[terms.url.as_bytes(), b"signed", signed]),
    };
    let mark = TokenMark { id, iat, exp };
    let identity = JobIdentity::read(terms.issuer.clone(), terms.profile, claims, mark)?;
    Ok(Authentic { identity, audience, exp, iat, nbf })
}

impl Authentic {
    /// Exactly one audience, ours, byte for byte (RFC 8725 section 3.9).
    fn check_audience(&self, terms: &Terms<'_>) -> Result<(), TokenFault> {
        match self.audience.as_slice() {
            [audience] if audience == terms.audience => Ok(()),
            [_] => Err(TokenFault::new(FaultKind::Audience, "audience")),
            _ => Err(TokenFault::new(FaultKind::Audience, "audience-not-one")),
        }
    }

    /// now < exp + L, nbf <= now + L, iat <= now + L. No sum with a claim is formed: differences of two moments
    /// always fit, so that no value of `exp` can wrap.
    fn check_times(&self, terms: &Terms<'_>, now: Timestamp) -> Result<(), TokenFault> {
        let leeway = signed(terms.leeway);
        if now.duration_since(self.exp) >= leeway {
            return Err(TokenFault::new(FaultKind::Expired, "expired"));
        }
        if self.nbf.is_some_and(|nbf| nbf.duration_since(now) > leeway) {
            return Err(TokenFault::new(FaultKind::NotYetValid, "nbf"));
        }
        if self.iat.duration_since(now) > leeway {
            return Err(TokenFault::new(FaultKind::NotYetValid, "iat"));
        }
        // Attack class C-04: times that contradict each other by more than clocks can differ.
        let begins_after = |moment: Timestamp| moment.duration_since(self.exp) > leeway;
        if begins_after(self.iat) || self.nbf.is_some_and(begins_after) {
            return Err(malformed("times-contradict"));
        }
        Ok(())
    }

    fn check_age(&self, terms: &Terms<'_>, now: Timestamp) -> Result<(), TokenFault> {
        let greatest = signed(terms.max_token_age).saturating_add(signed(terms.leeway));
        if now.duration_since(self.iat) > greatest {
            return Err(TokenFault::new(FaultKind::TooOld, "age"));
        }
        self.check_life()
    }

    fn check_life(&self) -> Result<(), TokenFault> {
        if self.exp.duration_since(self.iat) > TOKEN_LIFE {
            return Err(TokenFault::new(FaultKind::TooOld, "life-over-24h"));
        }
        Ok(())
    }

    fn conclude(self, checked: Result<(), TokenFault>) -> Result<VerifiedToken, Box<RefusedToken>> {
        match checked {
            Ok(()) => Ok(VerifiedToken { identity: self.identity }),
            Err(fault) => Err(Box::new(RefusedToken { fault, authentic: Some(Box::new(self.identity)) })),
        }
    }
}

fn stranger(fault: TokenFault) -> Box<RefusedToken> {
    Box::new(RefusedToken { fault, authentic: None })
}

/// `aud`: a string, or an array of strings (RFC 7519 section 4.1.3).
fn read_audience(claims: &Map<String, Value>) -> Result<Vec<String>, TokenFault> {
    let one = |value: &Value| match value {
        Value::String(_) if has_control(value) => Err(malformed("control-characters:aud")),
        Value::String(audience) => Ok(audience.clone()),
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) => {
            Err(malformed("claim-type:aud"))
        }
    };
    match claims.get("aud") {
        None => Err(malformed("missing-claim:aud")),
        Some(Value::Array(items)) => items.iter().map(one).collect(),
        Some(value) => one(value).map(|audience| vec![audience]),
    }
}

/// A time: an integer of seconds since 1970. RFC 7519 would allow fractions; the contract does not.
fn read_time(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, TokenFault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_i64().ok_or_else(|| malformed(format!("claim-type:{name}")))?;
    Timestamp::from_second(seconds).map(Some).map_err(|_| malformed(format!("time-out-of-range:{name}")))
}

/// `jti`, 1 to 256 bytes; an empty one counts as absent (attack class R-04).
fn read_jti<'a>(claims: &'a Map<String, Value>, profile: &Profile) -> Result<Option<&'a str>, TokenFault> {
    let Some(value) = claims.get("jti").filter(|value| *value != "") else {
        return if profile.jti_always { Err(malformed("missing-claim:jti")) } else { Ok(None) };
    };
    let jti = value.as_str().filter(|jti| jti.len() <= JTI_BYTES).ok_or(malformed("claim-type:jti"))?;
    if has_control(value) {
        return Err(malformed("control-characters:jti"));
    }
    Ok(Some(jti))
}

fn malformed(reason: impl Into<Cow<'static, str>>) -> TokenFault {
    TokenFault::new(FaultKind::Malformed, reason)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// Contract, section 12; attack class C-05: no CI job's token needs to outlive a day.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// Attack class R-04; the longest seen are UUIDs with a prefix.
const JTI_BYTES: usize = 256;

#[cfg(test)]
mod tests;
