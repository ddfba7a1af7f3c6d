//! Issuers' public keys: JWK sets (RFC 7517) read strictly, bad keys left out, good ones kept.
//!
//! Each key is bound to exactly one algorithm when it is read, so that a token can never choose how its key is
//! used (attack classes T-02, T-03; RFC 8725 section 3.1). There is no HMAC here at all. Signatures are checked
//! by aws-lc with a key that is parsed once, when its set is read, and never for a token.

use std::{collections::HashMap, sync::Arc};

use aws_lc_rs::{
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::profile::Algorithm;
use crate::kernel::{
    digest::Digest,
    json::{Bounds, read_strict, write_canonical},
};

/// One usable public key, bound to exactly one algorithm.
pub struct VerificationKey {
    kid: String,
    algorithm: Algorithm,
    thumbprint: Digest,
    key: ParsedPublicKey,
}

/// The usable keys of one issuer.
pub struct KeySet {
    keys: HashMap<(String, Algorithm), Arc<VerificationKey>>,
    left_out: usize,
}

/// Why a whole set is refused; the one held before stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeySetFault(pub &'static str);

impl KeySet {
    /// Reads a JWK set of at most 64 keys, and keeps those that are sound and of one of the algorithms. Two
    /// different keys under one `kid` and one algorithm are both left out: a name that means two things means none.
    ///
    /// # Errors
    ///
    /// [`KeySetFault`] where it is not a JWK set, or holds no usable key.
    pub fn parse(bytes: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeySetFault> {
        let Ok(Value::Object(mut set)) = read_strict(bytes, SET) else {
            return Err(KeySetFault("the key set is not strict JSON"));
        };
        let Some(Value::Array(jwks)) = set.remove("keys") else {
            return Err(KeySetFault("the key set has no list of keys"));
        };
        if jwks.len() > KEYS {
            return Err(KeySetFault("the key set has more than 64 keys"));
        }
        let mut keys: HashMap<(String, Algorithm), Option<Arc<VerificationKey>>> = HashMap::new();
        for key in jwks.iter().filter_map(|jwk| read_key(jwk.as_object()?, algorithms)) {
            let place = keys.entry((key.kid.clone(), key.algorithm));
            place
                .and_modify(|held| {
                    if held.as_ref().is_none_or(|held| held.thumbprint != key.thumbprint) {
                        *held = None;
                    }
                })
                .or_insert_with(|| Some(Arc::new(key)));
        }
        let keys: HashMap<_, _> = keys.into_iter().filter_map(|(name, key)| Some((name, key?))).collect();
        if keys.is_empty() {
            return Err(KeySetFault("the key set has no usable key"));
        }
        let left_out = jwks.len().saturating_sub(keys.len());
        Ok(Self { keys, left_out })
    }

    /// The key of that id and algorithm.
    pub fn find(&self, kid: &str, algorithm: Algorithm) -> Option<Arc<VerificationKey>> {
        self.keys.get(&(kid.to_owned(), algorithm)).cloned()
    }

    /// The RFC 7638 thumbprints of the keys of that id, one an algorithm at most.
    pub fn thumbprints(&self, kid: &str) -> Vec<Digest> {
        let mut found: Vec<Digest> =
            self.keys.values().filter(|key| key.kid == kid).map(|key| key.thumbprint).collect();
        found.sort_unstable_by_key(|thumbprint| thumbprint.0);
        found.dedup();
        found
    }

    /// How many keys are usable; at least one.
    pub fn usable(&self) -> usize {
        self.keys.len()
    }

    /// How many keys of the set were left out, for the log.
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

impl VerificationKey {
    /// Its id in the issuer's set.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The one algorithm that it is used with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// RFC 7638 thumbprint (SHA-256): what a frozen key is known by under any name.
    pub fn thumbprint(&self) -> Digest {
        self.thumbprint
    }

    /// Whether the signature, as base64url without padding, is this key's over the bytes.
    pub(super) fn signed(&self, signed: &[u8], signature: &str) -> bool {
        decode(signature).is_some_and(|signature| self.key.verify_sig(signed, &signature).is_ok())
    }
}

/// Reads one JWK; `None` leaves it out.
fn read_key(jwk: &Map<String, Value>, algorithms: &[Algorithm]) -> Option<VerificationKey> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let kid = text("kid").filter(|kid| !kid.is_empty() && kid.len() <= KID_BYTES)?;
    // A private member beside the public ones: whoever reads the set can sign, so a signature proves nothing.
    if jwk.contains_key("d") || !is_for_signatures(jwk) {
        return None;
    }
    let material = match text("kty")? {
        "RSA" => rsa(text("n")?, text("e")?)?,
        "EC" => ec(text("crv")?, text("x")?, text("y")?)?,
        "OKP" => okp(text("crv")?, text("x")?)?,
        _ => return None,
    };
    let algorithm = match jwk.get("alg") {
        None => *material.algorithms.first()?,
        Some(name) => Algorithm::parse(name.as_str()?).filter(|named| material.algorithms.contains(named))?,
    };
    if !algorithms.contains(&algorithm) {
        return None;
    }
    let thumbprint = Digest::of(&write_canonical(&material.members).ok()?);
    let key = material.public.parse(algorithm)?;
    Some(VerificationKey { kid: kid.to_owned(), algorithm, thumbprint, key })
}

/// RFC 7517 sections 4.2 and 4.3: a key that says what it is for must say signatures.
fn is_for_signatures(jwk: &Map<String, Value>) -> bool {
    let used = jwk.get("use").is_none_or(|usage| usage == "sig");
    let operations = jwk.get("key_ops").is_none_or(|operations| {
        operations
            .as_array()
            .is_some_and(|operations| operations.iter().any(|operation| operation == "verify"))
    });
    used && operations
}

/// A sound public key.
struct Material {
    /// The members of its thumbprint (RFC 7638 section 3.2).
    members: Value,
    /// What it can be used with; the first where the JWK does not say.
    algorithms: &'static [Algorithm],
    public: Public,
}

/// A public key's bytes.
enum Public {
    /// An uncompressed point (SEC 1 section 2.3.3), or the 32 bytes of Ed25519.
    Point(Vec<u8>),
    Rsa(PublicKeyComponents<Vec<u8>>),
}

impl Public {
    /// The key for that algorithm alone; `None` where the two do not go together.
    fn parse(&self, algorithm: Algorithm) -> Option<ParsedPublicKey> {
        match (self, algorithm) {
            (Self::Point(point), Algorithm::Es256) => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point),
            (Self::Point(point), Algorithm::Es384) => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point),
            (Self::Point(point), Algorithm::EdDsa) => ParsedPublicKey::new(&ED25519, point),
            (Self::Rsa(key), Algorithm::Ps256) => key.to_parsed_public_key(&RSA_PSS_2048_8192_SHA256),
            (Self::Rsa(key), Algorithm::Rs256) => key.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256),
            (Self::Point(_), Algorithm::Ps256 | Algorithm::Rs256)
            | (Self::Rsa(_), Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa) => return None,
        }
        .ok()
    }
}

/// 2048 to 8192 bits, odd modulus, exponent odd and from 65537 to 32 bits: fewer are forgeable, more are a way to
/// make us work (attack class T-04). Leading zero bytes are not allowed (RFC 7518 section 6.3.1).
fn rsa(n: &str, e: &str) -> Option<Material> {
    let modulus = decode(n)?;
    let exponent = decode(e)?;
    let (first, last) = (modulus.first()?, modulus.last()?);
    let bits = (modulus.len() * 8).checked_sub(usize::try_from(first.leading_zeros()).ok()?)?;
    let exponent_first = *exponent.first()?;
    let exponent_value = (exponent.len() <= 4)
        .then(|| exponent.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))?;
    let sound = *first != 0
        && last % 2 == 1
        && (2048..=8192).contains(&bits)
        && exponent_first != 0
        && exponent_value % 2 == 1
        && exponent_value >= 65_537;
    sound.then(|| Material {
        members: json!({"e": e, "kty": "RSA", "n": n}),
        algorithms: &[Algorithm::Rs256, Algorithm::Ps256],
        public: Public::Rsa(PublicKeyComponents { n: modulus, e: exponent }),
    })
}

/// A point on its curve, both coordinates at full length (RFC 7518 section 6.2.1.2).
fn ec(curve: &str, x: &str, y: &str) -> Option<Material> {
    let (bytes, algorithms): (_, &'static [Algorithm]) = match curve {
        "P-256" => (32, &[Algorithm::Es256]),
        "P-384" => (48, &[Algorithm::Es384]),
        _ => return None,
    };
    let coordinates = (decode(x)?, decode(y)?);
    if coordinates.0.len() != bytes || coordinates.1.len() != bytes {
        return None;
    }
    let point = [&[4], coordinates.0.as_slice(), coordinates.1.as_slice()].concat();
    Some(Material {
        members: json!({"crv": curve, "kty": "EC", "x": x, "y": y}),
        algorithms,
        public: Public::Point(point),
    })
}

/// Ed25519 (RFC 8037 section 2).
fn okp(curve: &str, x: &str) -> Option<Material> {
    let public = decode(x)?;
    if curve != "Ed25519" || public.len() != 32 {
        return None;
    }
    Some(Material {
        members: json!({"crv": curve, "kty": "OKP", "x": x}),
        algorithms: &[Algorithm::EdDsa],
        public: Public::Point(public),
    })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Attack class K-05: the largest sets seen hold about ten.
const KEYS: usize = 64;

/// As in a token's header: a longer one could never be asked for.
const KID_BYTES: usize = 256;

/// Room for 64 keys with certificate chains.
const SET: Bounds = Bounds { depth: 8, nodes: 4096, string_bytes: 32 * 1024 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::identity::testing::TestKey;

    const ALL: &[Algorithm] =
        &[Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Ps256, Algorithm::Rs256];

    fn parse(keys: &[Value]) -> Result<KeySet, KeySetFault> {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes(), ALL)
    }

    fn is_usable(jwk: &Value) -> bool {
        parse(std::slice::from_ref(jwk)).is_ok()
    }

    fn with(jwk: &Value, name: &str, value: Value) -> Value {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    }

    #[test]
    fn binds_each_key_to_one_algorithm() {
        for key in TestKey::one_of_each() {
            let bare = key.jwk("k");
            let set = parse(std::slice::from_ref(&bare)).unwrap();
            for algorithm in ALL {
                assert_eq!(
                    set.find("k", *algorithm).is_some(),
                    *algorithm == key.algorithm(),
                    "{algorithm:?}"
                );
            }
            let named = with(&bare, "alg", json!(key.algorithm().as_str()));
            assert!(parse(&[named]).unwrap().find("k", key.algorithm()).is_some());
        }
        let pss = with(&TestKey::rsa().jwk("k"), "alg", json!("PS256"));
        let set = parse(&[pss]).unwrap();
        assert!(set.find("k", Algorithm::Ps256).is_some() && set.find("k", Algorithm::Rs256).is_none());
    }

    #[test]
    fn thumbprint_is_the_one_of_rfc_7638() {
        let jwk = json!({"kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"});
        let key = parse(&[jwk]).unwrap().find("2011-04-29", Algorithm::Rs256).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.encode(key.thumbprint().0), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn leaves_out_keys_that_are_not_for_these_signatures() {
        let rsa = TestKey::rsa().jwk("k");
        let ec = TestKey::p256().jwk("k");
        assert!(is_usable(&with(&with(&rsa, "use", json!("sig")), "key_ops", json!(["verify"]))));
        for (jwk, name, value) in [
            (&rsa, "use", json!("enc")),
            (&rsa, "use", json!(null)),
            (&rsa, "key_ops", json!(["encrypt"])),
            (&rsa, "key_ops", json!([])),
            (&rsa, "key_ops", json!("verify")),
            (&rsa, "alg", json!("RS512")),
            (&rsa, "alg", json!("HS256")),
            (&rsa, "alg", json!("none")),
            (&rsa, "alg", json!("ES256")),
            (&rsa, "alg", json!(null)),
            (&rsa, "kty", json!("oct")),
            (&rsa, "kty", json!("EC")),
            (&rsa, "kid", json!(7)),
            (&rsa, "kid", json!("")),
            (&rsa, "kid", json!("k".repeat(257))),
            (&rsa, "d", json!("AQAB")),
            (&ec, "alg", json!("ES384")),
            (&ec, "crv", json!("P-384")),
            (&ec, "crv", json!("secp256k1")),
            (&ec, "crv", json!("P-521")),
        ] {
            assert!(!is_usable(&with(jwk, name, value.clone())), "{name}: {value}");
        }
        assert!(!is_usable(&json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0"})));
        let mut nameless = rsa;
        nameless.as_object_mut().unwrap().remove("kid");
        assert!(!is_usable(&nameless));
    }

    #[test]
    fn leaves_out_weak_and_malformed_keys() {
        let rsa = TestKey::rsa().jwk("k");
        let modulus = |bytes: usize, last: u8| {
            let mut modulus = vec![0xc1; bytes];
            modulus[bytes - 1] = last;
            with(&rsa, "n", json!(URL_SAFE_NO_PAD.encode(modulus)))
        };
        assert!(is_usable(&modulus(256, 1)) && is_usable(&modulus(1024, 1)));
        assert!(!is_usable(&modulus(128, 1)), "RSA-1024");
        assert!(!is_usable(&modulus(255, 1)), "RSA-2040");
        assert!(!is_usable(&modulus(1025, 1)), "RSA-8200");
        assert!(!is_usable(&modulus(2048, 1)), "RSA-16384");
        assert!(!is_usable(&modulus(256, 2)), "even");
        assert!(!is_usable(&with(&rsa, "n", json!(URL_SAFE_NO_PAD.encode([0; 256])))), "zero");
        for exponent in ["", "AQ", "Aw", "AQAA", "AAEAAQ", "AQAAAAE", "AQAB=", "AR"] {
            assert!(!is_usable(&with(&rsa, "e", json!(exponent))), "e = {exponent}");
        }

        let ec = TestKey::p256().jwk("k");
        let other = TestKey::p256().jwk("k");
        assert!(!is_usable(&with(&ec, "y", other["y"].clone())), "off the curve");
        assert!(!is_usable(&with(&ec, "x", json!(URL_SAFE_NO_PAD.encode([0; 32])))), "off the curve");
        assert!(!is_usable(&with(&ec, "x", json!(URL_SAFE_NO_PAD.encode([1; 31])))), "short");
        let ed = TestKey::ed25519().jwk("k");
        assert!(!is_usable(&with(&ed, "x", json!(URL_SAFE_NO_PAD.encode([1; 31])))), "short");
        assert!(!is_usable(&with(&ed, "crv", json!("X25519"))));
    }

    #[test]
    fn keeps_good_keys_beside_bad_ones() {
        let good = TestKey::rsa().jwk("good");
        let bad = json!({"kty": "quantum", "kid": "bad"});
        let set = parse(&[bad, json!("not even an object"), good]).unwrap();
        assert!(set.find("good", Algorithm::Rs256).is_some());
        assert_eq!((set.usable(), set.left_out()), (1, 2));
    }

    #[test]
    fn refuses_sets_that_are_none() {
        let fault = |text: &str| KeySet::parse(text.as_bytes(), ALL).err().map(|fault| fault.0);
        assert_eq!(fault("<html>"), Some("the key set is not strict JSON"));
        assert_eq!(fault(r#"{"keys":[],"keys":[]}"#), Some("the key set is not strict JSON"));
        assert_eq!(fault("[]"), Some("the key set is not strict JSON"));
        assert_eq!(fault("{}"), Some("the key set has no list of keys"));
        assert_eq!(fault(r#"{"keys":[]}"#), Some("the key set has no usable key"));
        let jwk = TestKey::p256().jwk("k");
        assert_eq!(
            parse(&vec![jwk.clone(); 65]).err(),
            Some(KeySetFault("the key set has more than 64 keys"))
        );
        assert!(parse(&vec![jwk; 64]).is_ok());
    }

    #[test]
    fn one_name_for_keys_of_two_types_finds_the_one_of_the_algorithm() {
        let set = parse(&[TestKey::rsa().jwk("k"), TestKey::p256().jwk("k")]).unwrap();
        assert_eq!(set.find("k", Algorithm::Rs256).unwrap().algorithm(), Algorithm::Rs256);
        assert_eq!(set.find("k", Algorithm::Es256).unwrap().algorithm(), Algorithm::Es256);
        assert!(set.find("k", Algorithm::Es384).is_none());
    }

    #[test]
    fn one_name_for_two_keys_of_one_algorithm_means_neither() {
        let (one, two, third) = (TestKey::p256().jwk("k"), TestKey::p256().jwk("k"), TestKey::rsa().jwk("r"));
        let set = parse(&[one.clone(), two, one.clone(), third.clone()]).unwrap();
        assert!(set.find("k", Algorithm::Es256).is_none());
        assert!(parse(&[one.clone(), one, third]).unwrap().find("k", Algorithm::Es256).is_some());
    }

    /// What one signature costs, for the decision that `adapters::issuer_keys` states.
    #[test]
    #[ignore = "a measurement: cargo test --release --lib -- --ignored --nocapture verification_costs"]
    #[expect(clippy::print_stdout, reason = "it prints what it measured")]
    fn verification_costs() {
        const ROUNDS: u32 = 100;
        for (bytes, exponent) in [(256, "AQAB"), (512, "AQAB"), (1024, "AQAB"), (1024, "_____w")] {
            let mut modulus = vec![0xc1; bytes];
            modulus[bytes - 1] = 1;
            let jwk = json!({"kty": "RSA", "kid": "k", "n": URL_SAFE_NO_PAD.encode(modulus), "e": exponent});
            let key = parse(&[jwk]).unwrap().find("k", Algorithm::Rs256).unwrap();
            let signature = URL_SAFE_NO_PAD.encode(vec![0x5a; bytes]);
            let start = std::time::Instant::now();
            for _ in 0..ROUNDS {
                assert!(!key.signed(b"header.claims", &signature));
            }
            println!("RSA-{} e={exponent}: {:?}", bytes * 8, start.elapsed() / ROUNDS);
        }
    }

    #[test]
    fn keeps_only_algorithms_of_the_profile() {
        let set = json!({"keys": [TestKey::p256().jwk("e"), TestKey::rsa().jwk("r")]}).to_string();
        let set = KeySet::parse(set.as_bytes(), &[Algorithm::Rs256]).unwrap();
        assert!(set.find("e", Algorithm::Es256).is_none() && set.find("r", Algorithm::Rs256).is_some());
    }
}
