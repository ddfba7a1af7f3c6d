//! Keys that sign as CI systems do, and tokens put together from whatever parts a test wants.

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A private key of one of the types that issuers sign with.
pub(crate) enum Key {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(KeyPair),
}

impl Key {
    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    /// RSA of 2048 bits; making one takes a while.
    pub(crate) fn rsa() -> Self {
        Self::Rsa(KeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    /// A signature as RFC 7518 has it for this type of key: EdDSA, ES256, ES384, RS256.
    pub(crate) fn sign(&self, signed: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => pair.sign(signed).as_ref().to_vec(),
            Self::P256(pair) | Self::P384(pair) => {
                pair.sign(&SystemRandom::new(), signed).unwrap().as_ref().to_vec()
            }
            Self::Rsa(pair) => sign_rsa(pair, &RSA_PKCS1_SHA256, signed),
        }
    }

    /// PS256, by an RSA key.
    pub(crate) fn sign_pss(&self, signed: &[u8]) -> Vec<u8> {
        sign_rsa(self.pair(), &RSA_PSS_SHA256, signed)
    }

    /// The public key, without `alg` and `use`.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let ec = |pair: &EcdsaKeyPair, curve: &str| {
            let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
            json!({ "kty": "EC", "kid": kid, "crv": curve, "x": encode(x), "y": encode(y) })
        };
        match self {
            Self::Ed25519(pair) => {
                json!({ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) })
            }
            Self::P256(pair) => ec(pair, "P-256"),
            Self::P384(pair) => ec(pair, "P-384"),
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let [n, e] = [public.modulus(), public.exponent()]
                    .map(|integer| encode(integer.big_endian_without_leading_zero()));
                json!({ "kty": "RSA", "kid": kid, "n": n, "e": e })
            }
        }
    }

    /// Everything public that an RSA key could be written as, for whoever takes it for an HMAC key.
    pub(crate) fn public_encodings(&self) -> Vec<(&'static str, Vec<u8>)> {
        let public = self.pair().public_key();
        let spki: PublicKeyX509Der<'_> = public.as_der().unwrap();
        let pem = pem("PUBLIC KEY", spki.as_ref());
        vec![
            ("PEM", pem.clone().into_bytes()),
            ("PEM without its last newline", pem.trim_end().as_bytes().to_vec()),
            ("PEM of PKCS #1", pem_bytes("RSA PUBLIC KEY", public.as_ref())),
            ("DER", spki.as_ref().to_vec()),
            ("DER of PKCS #1", public.as_ref().to_vec()),
            ("modulus", public.modulus().big_endian_without_leading_zero().to_vec()),
            ("modulus as text", encode(public.modulus().big_endian_without_leading_zero()).into_bytes()),
            ("JWK", self.jwk("k").to_string().into_bytes()),
        ]
    }

    fn pair(&self) -> &KeyPair {
        let Self::Rsa(pair) = self else { panic!("an RSA key") };
        pair
    }
}

/// A compact JWS of any header and payload, signed by whatever `sign` answers.
pub(crate) fn compact(header: &str, payload: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    compact_bytes(header.as_bytes(), payload.as_bytes(), sign)
}

/// The same of bytes that need be no text.
pub(crate) fn compact_bytes(header: &[u8], payload: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(header), encode(payload));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", encode(&signature))
}

/// Base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sign_rsa(pair: &KeyPair, encoding: &'static dyn RsaEncoding, signed: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), signed, &mut signature).unwrap();
    signature
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn pem_bytes(label: &str, der: &[u8]) -> Vec<u8> {
    pem(label, der).into_bytes()
}
