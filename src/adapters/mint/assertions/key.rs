//! One key that signs assertions, and its public half as a JWK.
//!
//! Sources: RFC 7518 sections 3.3, 3.4, 6.2, 6.3 (RS256, ES256 and their JWKs), RFC 7638 (thumbprint).

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::AssertionFault;
use crate::kernel::{
    assertion::{Algorithm, AssertionKey, Schedule},
    digest::Digest,
    secret::Secret,
};

/// The bytes of an ES256 signature: r and s, 32 each (RFC 7518 section 3.4).
const ES256_BYTES: usize = 64;

/// Makes a private key, PKCS#8, for whoever has no store to keep one.
///
/// # Errors
///
/// [`AssertionFault::Key`] where the operating system has no random bytes.
pub fn generate(algorithm: Algorithm) -> Result<Secret, AssertionFault> {
    match algorithm {
        Algorithm::Rs256 => {
            let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| AssertionFault::Key)?;
            let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| AssertionFault::Key)?;
            Ok(Secret::new(der.as_ref().to_vec()))
        }
        Algorithm::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
            let der = pair.and_then(|pair| pair.to_pkcs8v1()).map_err(|_| AssertionFault::Key)?;
            Ok(Secret::new(der.as_ref().to_vec()))
        }
    }
}

/// The public half of a private key, as a JWK with `kid`, `use` and `alg`.
///
/// # Errors
///
/// [`AssertionFault::Key`].
pub fn public_half(algorithm: Algorithm, pkcs8: &Secret) -> Result<Value, AssertionFault> {
    Ok(Pair::open(algorithm, pkcs8)?.jwk)
}

/// A key, with its private half where it may still sign.
pub(super) struct Key {
    /// What it signs with.
    pub(super) algorithm: Algorithm,
    /// Its number among those of its algorithm.
    pub(super) version: u64,
    /// Its dates.
    pub(super) schedule: Schedule,
    /// Its RFC 7638 thumbprint.
    pub(super) kid: String,
    /// Its public half.
    pub(super) jwk: Value,
    pair: Option<Private>,
}

enum Private {
    Rsa(KeyPair),
    Ec(EcdsaKeyPair),
}

/// A private half with its public one.
struct Pair {
    private: Private,
    jwk: Value,
}

impl Key {
    /// Opens a key of the store; none where it has nothing to show: a removed key of which only its dates are left.
    pub(super) fn open(stored: &AssertionKey) -> Result<Option<Self>, AssertionFault> {
        let AssertionKey { algorithm, version, schedule, .. } = *stored;
        let (pair, jwk) = match (&stored.private, &stored.public) {
            (Some(private), _) => {
                let Pair { private, jwk } = Pair::open(algorithm, private)?;
                (Some(private), jwk)
            }
            (None, Some(public)) => (None, serde_json::from_str(public).map_err(|_| AssertionFault::Key)?),
            (None, None) => return Ok(None),
        };
        let kid = jwk.get("kid").and_then(Value::as_str).ok_or(AssertionFault::Key)?.to_owned();
        Ok(Some(Self { algorithm, version, schedule, kid, jwk, pair }))
    }

    /// The bytes of its signatures; none where it cannot sign.
    pub(super) fn signature_bytes(&self) -> Option<usize> {
        self.pair.as_ref().map(|pair| match pair {
            Private::Rsa(pair) => pair.public_modulus_len(),
            Private::Ec(_) => ES256_BYTES,
        })
    }

    /// Signs. Of the digest, since that form asks for no source of randomness: PKCS#1 v1.5 takes none (RFC 8017 section
    /// 8.2), and for ECDSA the library has its own.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AssertionFault> {
        let digest = digest(&SHA256, message);
        match &self.pair {
            None => Err(AssertionFault::NoKey),
            Some(Private::Rsa(pair)) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(&RSA_PKCS1_SHA256, &digest, &mut signature)
                    .map_err(|_| AssertionFault::Signature)?;
                Ok(signature)
            }
            Some(Private::Ec(pair)) => {
                let signature = pair.sign_digest(&digest).map_err(|_| AssertionFault::Signature)?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }
}

impl Pair {
    fn open(algorithm: Algorithm, pkcs8: &Secret) -> Result<Self, AssertionFault> {
        match algorithm {
            Algorithm::Rs256 => {
                let pair = KeyPair::from_pkcs8(pkcs8.expose()).map_err(|_| AssertionFault::Key)?;
                let jwk = rsa_jwk(pair.public_key().as_ref()).ok_or(AssertionFault::Key)?;
                Ok(Self { private: Private::Rsa(pair), jwk })
            }
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose());
                let pair = pair.map_err(|_| AssertionFault::Key)?;
                let jwk = ec_jwk(pair.public_key().as_ref()).ok_or(AssertionFault::Key)?;
                Ok(Self { private: Private::Ec(pair), jwk })
            }
        }
    }
}

/// The JWK of a DER `RSAPublicKey`.
fn rsa_jwk(der: &[u8]) -> Option<Value> {
    let (modulus, exponent) = rsa_public_numbers(der)?;
    let (n, e) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
    let kid = thumbprint(&format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#));
    Some(json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e }))
}

/// The JWK of an uncompressed point on P-256 (SEC 1 section 2.3.3).
fn ec_jwk(point: &[u8]) -> Option<Value> {
    let coordinates = point.strip_prefix(&[4]).filter(|rest| rest.len() == 64)?;
    let (x, y) = coordinates.split_at_checked(32)?;
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let kid = thumbprint(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#));
    Some(json!({ "kty": "EC", "use": "sig", "alg": "ES256", "kid": kid, "crv": "P-256", "x": x, "y": y }))
}

/// RFC 7638: of the required members in the order of their names, without white space.
fn thumbprint(canonical: &str) -> String {
    URL_SAFE_NO_PAD.encode(Digest::of(canonical.as_bytes()).0)
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
    use super::*;

    #[test]
    fn der_that_is_cut_or_followed_by_more_is_refused() {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = pair.public_key().as_ref().to_vec();
        assert!(rsa_public_numbers(&der).is_some());
        assert!(rsa_public_numbers(&der[..der.len() - 1]).is_none());
        assert!(rsa_public_numbers(&[der, vec![0]].concat()).is_none());
    }

    #[test]
    fn a_point_of_another_form_is_no_key() {
        let good = [&[4_u8][..], &[7; 64]].concat();
        assert!(ec_jwk(&good).is_some());
        let compressed = [&[2_u8][..], &[7; 32]].concat();
        for point in [compressed, good[..64].to_vec(), [good, vec![0]].concat()] {
            assert!(ec_jwk(&point).is_none());
        }
    }

    #[test]
    fn a_key_of_one_algorithm_is_none_of_the_other() {
        let private = generate(Algorithm::Es256).unwrap();
        assert!(public_half(Algorithm::Es256, &private).is_ok());
        assert_eq!(public_half(Algorithm::Rs256, &private), Err(AssertionFault::Key));
    }
}
