//! Hallpass as an OIDC issuer: what signs assertions, and the documents that others check them by. Which key signs is a
//! matter of the dates in the database; whoever holds a copy of them that is not fresh signs nothing.
//!
//! Sources: RFC 7515 (compact JWS), RFC 7517 (JWK set), `OpenID` Connect Discovery 1.0 sections 3 and 4.

mod key;

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::key::Key;
pub use self::key::{generate, public_half};
use crate::kernel::{
    assertion::{Algorithm, AssertionKey, Claims, KeyState, Schedule},
    secret::Secret,
};

/// How old a copy of the keys' dates may be. A rotation is known long before the new key signs, so this bounds only for
/// how long a key that was withdrawn can go on signing somewhere.
const MAX_AGE: Duration = Duration::from_secs(60);

/// What an operator says of the issuer.
#[derive(Clone, Debug)]
pub struct AssertionSettings {
    /// The `iss` of every assertion.
    pub issuer: String,
    /// The URL of the public listener; nothing is asserted to it.
    pub public_url: String,
    /// Audiences that get ES256 instead of RS256.
    pub es256: BTreeSet<String>,
}

/// What signs assertions, and what others need to check them.
pub struct Assertions {
    settings: AssertionSettings,
    keys: ArcSwap<Keys>,
}

/// An assertion.
pub struct Assertion {
    /// The compact JWS.
    pub token: Secret,
    /// The `kid` of the key that signed it.
    pub kid: String,
    /// Its `exp`.
    pub expires_at: Timestamp,
}

/// Why nothing was asserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssertionFault {
    /// The key is none of its algorithm, in PKCS#8.
    #[error("the assertion key is not of its algorithm in PKCS#8")]
    Key,
    /// No key of that algorithm may sign now.
    #[error("no assertion key of this algorithm may sign now")]
    NoKey,
    /// The audience is this broker.
    #[error("an assertion for ourselves could come back as somebody's token")]
    Ourselves,
    /// The signature could not be made.
    #[error("the assertion could not be signed")]
    Signature,
    /// The keys were not read from the database lately.
    #[error("the assertion keys were not read lately, so one of them may be withdrawn")]
    Stale,
    /// There is no such time.
    #[error("the assertion would end at no time that can be told")]
    Time,
}

impl AssertionFault {
    /// The word that the ledger knows it by.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Key => "assertion-key",
            Self::NoKey => "no-assertion-key",
            Self::Ourselves => "audience-is-ourselves",
            Self::Signature => "signature",
            Self::Stale => "assertion-keys-stale",
            Self::Time => "no-such-time",
        }
    }
}

/// The keys as they were read.
struct Keys {
    list: Vec<Key>,
    /// When; none where there is no database to read them from anew.
    read_at: Option<Timestamp>,
}

impl Assertions {
    /// Signs with the keys of a store, as they were read at that time.
    ///
    /// # Errors
    ///
    /// [`AssertionFault::Key`].
    pub fn of_store(
        settings: AssertionSettings,
        keys: &[AssertionKey],
        read_at: Timestamp,
    ) -> Result<Self, AssertionFault> {
        let keys = Keys { list: open_all(keys)?, read_at: Some(read_at) };
        Ok(Self { settings, keys: ArcSwap::from_pointee(keys) })
    }

    /// Signs with one RSA key for ever, PKCS#8; `issuer` is the `iss` of every assertion.
    ///
    /// # Errors
    ///
    /// [`AssertionFault::Key`].
    pub fn new(issuer: &str, pkcs8: &Secret) -> Result<Self, AssertionFault> {
        let settings = AssertionSettings {
            issuer: issuer.to_owned(),
            public_url: issuer.to_owned(),
            es256: BTreeSet::new(),
        };
        let private = Some(Secret::new(pkcs8.expose().to_vec()));
        let schedule = Schedule::first(Timestamp::MIN);
        let key = AssertionKey { algorithm: Algorithm::Rs256, version: 1, schedule, private, public: None };
        let keys = Keys { list: open_all(&[key])?, read_at: None };
        Ok(Self { settings, keys: ArcSwap::from_pointee(keys) })
    }

    /// Takes the keys as they were read at that time; answers whether verifiers are told of others than before.
    ///
    /// # Errors
    ///
    /// [`AssertionFault::Key`]; then it goes on with those it had.
    pub fn renew(&self, keys: &[AssertionKey], read_at: Timestamp) -> Result<bool, AssertionFault> {
        let before = self.jwks(read_at);
        self.keys.store(Arc::new(Keys { list: open_all(keys)?, read_at: Some(read_at) }));
        Ok(self.jwks(read_at) != before)
    }

    /// The `iss` of every assertion.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Whether the public listener's URL is the issuer's. Elsewhere it answers no discovery document: that one must name
    /// the URL that it was asked at (`OpenID` Connect Discovery 1.0 section 4.3).
    pub fn is_issuer_at_public_url(&self) -> bool {
        without_slash(&self.settings.issuer) == without_slash(&self.settings.public_url)
    }

    /// The algorithm of assertions for that audience.
    pub fn algorithm(&self, audience: &str) -> Algorithm {
        if self.settings.es256.contains(audience) { Algorithm::Es256 } else { Algorithm::Rs256 }
    }

    /// The `kid` of the key that signs at that time.
    pub fn kid(&self, algorithm: Algorithm, now: Timestamp) -> Option<String> {
        self.keys.load().signing(algorithm, now).map(|key| key.kid.clone())
    }

    /// What `/.well-known/openid-configuration` below the issuer's URL answers.
    pub fn openid_configuration(&self) -> Value {
        let issuer = &self.settings.issuer;
        json!({
            "issuer": issuer,
            "jwks_uri": format!("{}/.well-known/jwks.json", without_slash(issuer)),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": Algorithm::ALL.map(Algorithm::as_str),
            "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"],
        })
    }

    /// What `/.well-known/jwks.json` answers at that time: of each algorithm the key that signs stands first, for those
    /// who look no further.
    pub fn jwks(&self, now: Timestamp) -> Value {
        let keys = self.keys.load();
        let mut told: Vec<(&Key, KeyState)> =
            keys.list.iter().map(|key| (key, key.schedule.state(now))).collect();
        told.retain(|(_, state)| state.is_told());
        told.sort_by_key(|(key, state)| (key.algorithm, *state != KeyState::Active, Reverse(key.version)));
        json!({ "keys": told.into_iter().map(|(key, _)| &key.jwk).collect::<Vec<_>>() })
    }

    /// Signs an assertion.
    ///
    /// # Errors
    ///
    /// [`AssertionFault`].
    pub fn sign(&self, claims: &Claims<'_>) -> Result<Assertion, AssertionFault> {
        let AssertionSettings { issuer, public_url, .. } = &self.settings;
        if [issuer, public_url].into_iter().any(|ours| is_same_place(ours, claims.audience)) {
            return Err(AssertionFault::Ourselves);
        }
        let expires_at = claims.ends().ok_or(AssertionFault::Time)?;
        let keys = self.keys.load();
        if keys.read_at.is_some_and(|read_at| claims.now.duration_since(read_at).unsigned_abs() > MAX_AGE) {
            return Err(AssertionFault::Stale);
        }
        let key = keys.signing(self.algorithm(claims.audience), claims.now).ok_or(AssertionFault::NoKey)?;
        let token = compact(key, &claims.to_json(issuer, expires_at))?;
        Ok(Assertion { token, kid: key.kid.clone(), expires_at })
    }
}

impl Keys {
    /// The key that signs at that time: the newest of those that may.
    fn signing(&self, algorithm: Algorithm, now: Timestamp) -> Option<&Key> {
        let may_sign = |key: &&Key| key.algorithm == algorithm && key.schedule.state(now) == KeyState::Active;
        self.list.iter().filter(may_sign).max_by_key(|key| key.version)
    }
}

fn open_all(keys: &[AssertionKey]) -> Result<Vec<Key>, AssertionFault> {
    keys.iter().filter_map(|key| Key::open(key).transpose()).collect()
}

fn compact(key: &Key, claims: &Value) -> Result<Secret, AssertionFault> {
    let header = json!({ "alg": key.algorithm.as_str(), "kid": key.kid, "typ": "JWT" });
    let (header, claims) = (header.to_string(), claims.to_string());
    let signature_bytes = key.signature_bytes().ok_or(AssertionFault::NoKey)?;
    // The whole length is set aside at once, so that no shorter copy is left behind.
    let mut token = String::with_capacity((header.len() + claims.len() + signature_bytes + 9) * 4 / 3 + 2);
    URL_SAFE_NO_PAD.encode_string(header, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(Secret::from_text(token))
}

fn without_slash(url: &str) -> &str {
    url.trim_end_matches('/')
}

/// Whether both mean the same place to whoever is lenient: the case of a host's name and a slash at the end make none
/// another one.
fn is_same_place(ours: &str, theirs: &str) -> bool {
    without_slash(ours).eq_ignore_ascii_case(without_slash(theirs))
}

#[cfg(test)]
mod tests;
