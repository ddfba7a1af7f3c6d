//! Kind `oidc`: assertions that Hallpass signs itself, RS256, for one audience and at most 300 seconds, so that the
//! embedded default yields a credential that truly ends. Never for ourselves: such an assertion could be sent back
//! to us as somebody's token.
//!
//! Sources: RFC 7515 (compact JWS), RFC 7519 (claims), RFC 7518 section 6.3 and RFC 7638 (JWK and its thumbprint),
//! `OpenID` Connect Discovery 1.0 section 3.

use std::sync::Arc;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rsa::KeyPair,
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    broker::ports::{Answer, Field, MintFault, Minted, Minter, Order},
    kernel::{digest::Digest, policy::target::Target, secret::Secret},
};

/// The longest life of an assertion, in seconds (design: section 5).
const MAX_SECONDS: i64 = 300;

/// What signs assertions, and what others need to check them.
pub struct Assertions {
    issuer: String,
    pair: KeyPair,
    kid: String,
    modulus: String,
    exponent: String,
}

/// Why a key cannot sign assertions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssertionFault {
    /// The key is not an RSA key in PKCS#8.
    #[error("the assertion key is not an RSA key in PKCS#8")]
    Key,
    /// The signature could not be made.
    #[error("the assertion could not be signed")]
    Signature,
}

impl Assertions {
    /// Takes the signing key (PKCS#8); `issuer` is the `iss` of every assertion.
    ///
    /// # Errors
    ///
    /// [`AssertionFault::Key`].
    pub fn new(issuer: &str, pkcs8: &Secret) -> Result<Self, AssertionFault> {
        let pair = KeyPair::from_pkcs8(pkcs8.expose()).map_err(|_| AssertionFault::Key)?;
        let (modulus, exponent) =
            rsa_public_numbers(pair.public_key().as_ref()).ok_or(AssertionFault::Key)?;
        let (modulus, exponent) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
        // RFC 7638: the required members in the order of their names, without white space.
        let canonical = format!(r#"{{"e":"{exponent}","kty":"RSA","n":"{modulus}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(Digest::of(canonical.as_bytes()).0);
        Ok(Self { issuer: issuer.to_owned(), pair, kid, modulus, exponent })
    }

    /// The key's id: its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The `iss` of every assertion.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What `/.well-known/openid-configuration` answers.
    pub fn openid_configuration(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/.well-known/jwks.json", self.issuer.trim_end_matches('/')),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"],
        })
    }

    /// What `/.well-known/jwks.json` answers.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [{
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": self.modulus, "e": self.exponent,
        }] })
    }

    fn sign(&self, claims: &Value) -> Result<Secret, AssertionFault> {
        let header = json!({ "alg": "RS256", "kid": self.kid, "typ": "JWT" });
        let (header, claims) = (header.to_string(), claims.to_string());
        let signature_bytes = self.pair.public_modulus_len();
        // The whole length is set aside at once, so that no shorter copy is left behind.
        let mut token =
            String::with_capacity((header.len() + claims.len() + signature_bytes + 9) * 4 / 3 + 2);
        URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let mut signature = vec![0; signature_bytes];
        // Of the digest, since that form asks for no randomness; PKCS#1 v1.5 takes none (RFC 8017 section 8.2).
        let digest = digest(&SHA256, token.as_bytes());
        self.pair
            .sign_digest(&RSA_PKCS1_SHA256, &digest, &mut signature)
            .map_err(|_| AssertionFault::Signature)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(Secret::from_text(token))
    }
}

/// Makes assertions.
pub struct Oidc {
    assertions: Arc<Assertions>,
}

impl Oidc {
    /// Signs with that key.
    pub fn new(assertions: Arc<Assertions>) -> Self {
        Self { assertions }
    }

    fn assert(&self, order: &Order, audience: &str) -> Result<Minted, MintFault> {
        let failed = |reason| MintFault::Failed { reason, sealed_generation: None };
        let Assertions { issuer, kid, .. } = &*self.assertions;
        if audience.trim_end_matches('/') == issuer.trim_end_matches('/') {
            return Err(failed("audience-is-ourselves"));
        }
        let seconds = order.ttl.map_or(MAX_SECONDS, |ttl| {
            i64::try_from(ttl.as_secs()).map_or(MAX_SECONDS, |seconds| seconds.min(MAX_SECONDS))
        });
        let issued = order.now.as_second();
        let ends = issued.saturating_add(seconds);
        let expires_at = Timestamp::from_second(ends).map_err(|_| failed("no-such-time"))?;
        let claims = json!({
            "iss": issuer, "sub": format!("grant:{}", order.grant), "aud": audience,
            "iat": issued, "nbf": issued, "exp": ends, "jti": order.issuance.to_string(),
        });
        let token = self.assertions.sign(&claims).map_err(|_| failed("signature"))?;
        Ok(Minted {
            fields: vec![Field { name: "token".to_owned(), value: token, is_secret: true }],
            expires_at: Some(expires_at),
            sealed_generation: None,
            held: None,
            told: json!({ "audience": audience, "kid": kid }),
        })
    }
}

impl Minter for Oidc {
    fn fetch<'a>(
        &'a self,
        order: &'a Order,
        _token: Option<&'a Secret>,
    ) -> Answer<'a, Result<Minted, MintFault>> {
        Box::pin(async move {
            match &order.target {
                Target::Oidc { audience } => self.assert(order, audience),
                Target::Aws(_) | Target::Sealed { .. } | Target::Vault(_) => {
                    Err(MintFault::Failed { reason: "target-of-another-kind", sealed_generation: None })
                }
            }
        })
    }
}

/// Modulus and exponent of a DER `RSAPublicKey` (RFC 8017 appendix A.1.1), big-endian without leading zeros.
fn rsa_public_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, after) = der_value(der, 0x30)?;
    let (modulus, rest) = der_value(sequence, 0x02)?;
    let (exponent, end) = der_value(rest, 0x02)?;
    (after.is_empty() && end.is_empty()).then(|| (unsigned(modulus), unsigned(exponent)))
}

fn unsigned(integer: &[u8]) -> &[u8] {
    integer.strip_prefix(&[0]).unwrap_or(integer)
}

/// The content of the DER value with that tag at the front, and what follows it.
fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use std::{sync::OnceLock, time::Duration};

    use aws_lc_rs::{encoding::AsDer, rsa::KeySize};

    use super::*;
    use crate::{
        broker::ports::Subject,
        kernel::{
            id::{DecisionId, IssuanceId},
            name::{CredentialName, GrantName, SecretName},
        },
    };

    const ISSUER: &str = "https://hallpass.example.com";

    /// One key for all tests: making one takes most of a second in a debug build.
    fn assertions() -> Arc<Assertions> {
        static ONE: OnceLock<Arc<Assertions>> = OnceLock::new();
        let make = || {
            let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
            let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
            Arc::new(Assertions::new(ISSUER, &Secret::new(der.as_ref().to_vec())).unwrap())
        };
        Arc::clone(ONE.get_or_init(make))
    }

    fn order(ttl: Option<Duration>) -> Order {
        Order {
            issuance: IssuanceId::from_bytes([1; 16]),
            decision: DecisionId::from_bytes([2; 16]),
            input: None,
            subject: Subject::default(),
            grant: GrantName::parse("payments-prod").unwrap(),
            credential: CredentialName::parse("fulcio").unwrap(),
            target: Target::Oidc { audience: "sigstore".to_owned() },
            ttl,
            now: "2027-01-13T10:00:00.75Z".parse().unwrap(),
        }
    }

    async fn fetch(order: Order) -> Result<Minted, MintFault> {
        Oidc::new(assertions()).fetch(&order, None).await
    }

    #[tokio::test]
    async fn the_published_key_verifies_the_assertion_and_its_claims_are_the_contracts() {
        let minted = fetch(order(Some(Duration::from_secs(120)))).await.ok().unwrap();

        let token = minted.fields[0].value.expose_text().unwrap();
        let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_value(assertions().jwks()).unwrap();
        let key = jsonwebtoken::DecodingKey::from_jwk(&jwks.keys[0]).unwrap();
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
        rules.set_audience(&["sigstore"]);
        rules.validate_exp = false;
        let read = jsonwebtoken::decode::<Value>(token, &key, &rules).unwrap();
        assert_eq!(read.header.kid.as_deref(), Some(assertions().kid()));
        assert_eq!(read.header.typ.as_deref(), Some("JWT"));
        let issued = 1_799_834_400;
        assert_eq!(
            read.claims,
            json!({
                "iss": ISSUER, "sub": "grant:payments-prod", "aud": "sigstore", "iat": issued, "nbf": issued,
                "exp": issued + 120, "jti": IssuanceId::from_bytes([1; 16]).to_string(),
            })
        );
        assert_eq!(minted.expires_at, Some("2027-01-13T10:02:00Z".parse().unwrap()));
        assert_eq!((minted.fields[0].name.as_str(), minted.fields[0].is_secret), ("token", true));
        assert_eq!(minted.told, json!({ "audience": "sigstore", "kid": assertions().kid() }));
    }

    #[tokio::test]
    async fn lives_for_at_most_three_hundred_seconds() {
        for ttl in [None, Some(Duration::from_secs(3_600)), Some(Duration::MAX)] {
            let minted = fetch(order(ttl)).await.ok().unwrap();
            assert_eq!(minted.expires_at, Some("2027-01-13T10:05:00Z".parse().unwrap()));
        }
    }

    #[tokio::test]
    async fn is_never_made_for_ourselves_or_for_another_kind() {
        let ourselves = Target::Oidc { audience: format!("{ISSUER}/") };
        let other = Target::Sealed { secret: SecretName::parse("npm-token").unwrap() };
        for target in [ourselves, other] {
            assert!(fetch(Order { target, ..order(None) }).await.is_err());
        }
    }

    #[test]
    fn discovery_names_this_issuer_and_where_its_keys_are() {
        let document = assertions().openid_configuration();
        assert_eq!(document["issuer"], ISSUER);
        assert_eq!(document["jwks_uri"], "https://hallpass.example.com/.well-known/jwks.json");
    }

    #[test]
    fn der_that_is_cut_or_followed_by_more_is_refused() {
        let der = assertions().pair.public_key().as_ref().to_vec();
        assert!(rsa_public_numbers(&der).is_some());
        assert!(rsa_public_numbers(&der[..der.len() - 1]).is_none());
        assert!(rsa_public_numbers(&[der, vec![0]].concat()).is_none());
    }
}
