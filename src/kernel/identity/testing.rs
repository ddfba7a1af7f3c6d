//! For tests: keys that sign, and the fixtures of full payloads. Real cryptography, no mocks.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::profile::Algorithm;

/// A key pair of a pretended issuer.
pub(crate) enum TestKey {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl TestKey {
    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(crate) fn one_of_each() -> [Self; 4] {
        [Self::ed25519(), Self::p256(), Self::p384(), Self::rsa()]
    }

    /// The algorithm that a JWK without `alg` means.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::EdDsa,
            Self::P256(_) => Algorithm::Es256,
            Self::P384(_) => Algorithm::Es384,
            Self::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// The public key as a JWK without `alg`.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let point = |pair: &EcdsaKeyPair, curve: &str, bytes: usize| {
            let point = pair.public_key().as_ref();
            json!({"kty": "EC", "kid": kid, "crv": curve, "x": encode(&point[1..=bytes]), "y": encode(&point[bytes + 1..])})
        };
        match self {
            Self::Ed25519(pair) => {
                json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
            Self::P256(pair) => point(pair, "P-256", 32),
            Self::P384(pair) => point(pair, "P-384", 48),
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({"kty": "RSA", "kid": kid, "use": "sig",
                    "n": encode(n.big_endian_without_leading_zero()),
                    "e": encode(e.big_endian_without_leading_zero())})
            }
        }
    }

    /// Signs `header.claims` with the key's usual algorithm, whatever the header says.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// The same, of any texts.
    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = match self {
            Self::Ed25519(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
            Self::P256(pair) | Self::P384(pair) => {
                pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
            }
            Self::Rsa(pair) => sign_rsa(pair, &RSA_PKCS1_SHA256, signed.as_bytes()),
        };
        format!("{signed}.{}", encode(&signature))
    }

    /// Signs with RSASSA-PSS.
    pub(crate) fn sign_pss(&self, header: &Value, claims: &Value) -> String {
        let Self::Rsa(pair) = self else { panic!("an RSA key") };
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        format!("{signed}.{}", encode(&sign_rsa(pair, &RSA_PSS_SHA256, signed.as_bytes())))
    }
}

fn sign_rsa(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding, signed: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), signed, &mut signature).unwrap();
    signature
}

/// Base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A fixture of a full payload, under `tests/fixtures/claims/`.
pub(crate) fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/claims/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
