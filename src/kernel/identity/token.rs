//! A token as it came: split, sized, decoded; nothing of it may be believed yet but where to look for its key.
//!
//! The shape is checked before anybody looks for an issuer, so that what follows works on small, strict input
//! (attack classes T-01 to T-10, C-01, C-10). Claims stay inside until [`super::verify`] has checked the signature;
//! `jku`, `x5u`, `jwk` and `x5c` are never read. The exchange and every endpoint that takes a CI token begin here.
//! Source: RFC 7515, RFC 7519, RFC 8725.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    profile::{Algorithm, Profile},
    verify::{FaultKind, TokenFault},
};
use crate::kernel::{
    json::{Bounds, read_strict},
    secret::Secret,
};

/// A compact JWS (RFC 7515 section 7.1) whose shape is right and whose signature nobody has checked.
pub struct RawToken {
    pub(super) compact: Secret,
    pub(super) signed_bytes: usize,
    pub(super) payload: Map<String, Value>,
    kid: String,
    algorithm: Option<Algorithm>,
    unverified_issuer: String,
}

impl RawToken {
    /// Reads the text of an `Authorization: Bearer` header.
    ///
    /// # Errors
    ///
    /// [`TokenFault`] of the shape only, always [`FaultKind::Malformed`]: over 8 KiB, not three base64url parts,
    /// header or claims that are not strict JSON, `crit`, `b64`, `zip`, `cty`, a foreign `typ`, a `kid` that is
    /// missing or over 256 bytes, an `iss` that is not a string. An unknown `alg` is remembered, not refused: the
    /// issuer is checked before it.
    pub fn read(compact: Secret) -> Result<Self, TokenFault> {
        // Before any split: a megabyte of dots must cost nothing.
        if compact.len() > TOKEN_BYTES {
            return Err(malformed("too-long"));
        }
        let text = compact.expose_text().ok_or(malformed("not-text"))?;
        let (signed, signature) = text.rsplit_once('.').ok_or(malformed("parts"))?;
        let (header, payload) = signed.split_once('.').ok_or(malformed("parts"))?;
        if payload.contains('.') {
            return Err(malformed("parts"));
        }
        if header.len() > HEADER_BYTES.div_ceil(3) * 4 {
            return Err(malformed("header-too-long"));
        }
        let header = decode(header)?;
        let payload = decode(payload)?;
        decode(signature)?;
        if header.len() > HEADER_BYTES {
            return Err(malformed("header-too-long"));
        }
        let signed_bytes = signed.len();
        let (kid, algorithm) = read_header(&header)?;
        let payload = read_object(&payload, PAYLOAD, "claims")?;
        if payload.len() > CLAIMS {
            return Err(malformed("claims:too-many-nodes"));
        }
        let unverified_issuer =
            payload.get("iss").and_then(Value::as_str).ok_or(malformed("issuer-not-text"))?.to_owned();
        Ok(Self { compact, signed_bytes, payload, kid, algorithm, unverified_issuer })
    }

    /// The issuer that the token claims.
    pub fn unverified_issuer(&self) -> &str {
        &self.unverified_issuer
    }

    /// The key that the token claims: up to 256 bytes without control characters, empty where it claims none.
    pub fn unverified_kid(&self) -> &str {
        &self.kid
    }

    /// Checks that the token names its key: due after its algorithm, before a key is looked for.
    ///
    /// # Errors
    ///
    /// [`FaultKind::Malformed`] where it names none.
    pub fn check_kid(&self) -> Result<(), TokenFault> {
        if self.kid.is_empty() { Err(malformed("header-kid")) } else { Ok(()) }
    }

    /// The algorithm that the token claims, where it is one that we know.
    pub fn unverified_algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    /// Checks the claimed algorithm against the issuer's profile: due after the issuer is known and before a key is
    /// looked for.
    ///
    /// # Errors
    ///
    /// [`FaultKind::Algorithm`] for any that the profile does not list.
    pub fn check_algorithm(&self, profile: &Profile) -> Result<Algorithm, TokenFault> {
        self.algorithm
            .filter(|algorithm| profile.algorithms.contains(algorithm))
            .ok_or(TokenFault::new(FaultKind::Algorithm, "algorithm-not-of-profile"))
    }

    /// What was signed, and the signature as text.
    pub(super) fn signed_and_signature(&self) -> Option<(&[u8], &str)> {
        let (signed, rest) = self.compact.expose_text()?.split_at_checked(self.signed_bytes)?;
        Some((signed.as_bytes(), rest.strip_prefix('.')?))
    }
}

/// Reads `kid` and `alg`, and refuses what would change the meaning of the rest.
fn read_header(bytes: &[u8]) -> Result<(String, Option<Algorithm>), TokenFault> {
    let header = read_object(bytes, HEADER, "header")?;
    // RFC 7515 section 4.1.11: what is critical and not understood must be refused, and we understand nothing
    // critical. `b64` and `zip` change what the bytes mean, `cty` announces a nested token.
    for (name, reason) in
        [("b64", "header-b64"), ("crit", "header-crit"), ("cty", "header-cty"), ("zip", "header-zip")]
    {
        if header.contains_key(name) {
            return Err(malformed(reason));
        }
    }
    // RFC 8725 section 3.11: an access or logout token of the same issuer is not a job's identity.
    if header.get("typ").is_some_and(|typ| typ != "JWT") {
        return Err(malformed("header-typ"));
    }
    // An absent `kid` is no fault yet: issuer and algorithm come first, and `alg: none` usually comes without one.
    let kid = match header.get("kid") {
        None => "",
        Some(kid) => kid.as_str().filter(|kid| !kid.is_empty()).ok_or(malformed("header-kid"))?,
    };
    if kid.len() > KID_BYTES || kid.chars().any(char::is_control) {
        return Err(malformed("header-kid"));
    }
    let algorithm = header.get("alg").and_then(Value::as_str).ok_or(malformed("header-alg"))?;
    Ok((kid.to_owned(), Algorithm::parse(algorithm)))
}

fn read_object(bytes: &[u8], bounds: Bounds, part: &str) -> Result<Map<String, Value>, TokenFault> {
    match read_strict(bytes, bounds) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_)) => {
            Err(malformed_owned(format!("{part}:not-object")))
        }
        Err(fault) => Err(malformed_owned(format!("{part}:{fault}"))),
    }
}

/// Decodes base64url as RFC 7515 section 2 has it: no padding, no other alphabet, no stray bits, so that one
/// token has one spelling (attack class R-05).
fn decode(part: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("base64url"))
}

fn malformed(reason: &'static str) -> TokenFault {
    TokenFault::new(FaultKind::Malformed, reason)
}

fn malformed_owned(reason: String) -> TokenFault {
    TokenFault::new(FaultKind::Malformed, reason)
}

/// Contract, section 12. The largest tokens seen (GitLab with many groups) are about 6 KiB.
const TOKEN_BYTES: usize = 8 * 1024;

/// Attack class T-09: a header names an algorithm and a key, it carries nothing.
const HEADER_BYTES: usize = 1024;

/// Attack class T-06: issuers use UUIDs, thumbprints or short words.
const KID_BYTES: usize = 256;

/// Attack class C-10; real payloads have about 40.
const CLAIMS: usize = 256;

/// A header within [`HEADER_BYTES`] can hold an embedded `jwk`, which is read past.
const HEADER: Bounds = Bounds { depth: 8, nodes: 256, string_bytes: 1024 };

/// Attack class C-10.
const PAYLOAD: Bounds = Bounds { depth: 8, nodes: 1024, string_bytes: 2048 };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn encode(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn header() -> Value {
        json!({"alg": "RS256", "typ": "JWT", "kid": "k1"})
    }

    fn compact(header: &Value, payload: &str) -> String {
        format!(
            "{}.{}.{}",
            encode(header.to_string().as_bytes()),
            encode(payload.as_bytes()),
            encode(b"signature")
        )
    }

    fn valid() -> String {
        compact(&header(), r#"{"iss":"https://issuer.test"}"#)
    }

    fn read(text: impl Into<Vec<u8>>) -> Result<RawToken, String> {
        RawToken::read(Secret::new(text.into())).map_err(|fault| {
            assert_eq!(fault.kind, FaultKind::Malformed);
            fault.reason
        })
    }

    fn reason(text: impl Into<Vec<u8>>) -> String {
        read(text).err().unwrap_or_else(|| "accepted".to_owned())
    }

    #[test]
    fn reads_where_to_look_for_the_key_and_nothing_else() {
        let token = read(valid()).unwrap();
        assert_eq!(token.unverified_issuer(), "https://issuer.test");
        assert_eq!(token.unverified_kid(), "k1");
        assert_eq!(token.unverified_algorithm(), Some(Algorithm::Rs256));
        let (signed, signature) = token.signed_and_signature().unwrap();
        assert_eq!([signed, b".", signature.as_bytes()].concat(), valid().as_bytes());
    }

    #[test]
    fn typ_may_be_absent() {
        assert!(read(compact(&json!({"alg": "RS256", "kid": "k1"}), r#"{"iss":"x"}"#)).is_ok());
    }

    #[test]
    fn refuses_whatever_is_not_three_parts() {
        let valid = valid();
        let (signed, _) = valid.rsplit_once('.').unwrap();
        for text in ["", "x", signed, &format!("{valid}.AA"), &format!("{valid}.AA.AA"), "{\"payload\":\"\"}"]
        {
            assert_eq!(reason(text), "parts", "{text}");
        }
    }

    #[test]
    fn refuses_by_length_before_it_splits() {
        assert_eq!(reason(vec![b'.'; 10 << 20]), "too-long");
        assert_eq!(reason(vec![b'a'; 8 * 1024 + 1]), "too-long");
        assert_eq!(reason(vec![b'a'; 8 * 1024]), "parts");

        let mut wide = header();
        wide["x5c"] = json!("x".repeat(1000));
        assert_eq!(reason(compact(&wide, r#"{"iss":"x"}"#)), "header-too-long");
    }

    #[test]
    fn refuses_every_other_spelling_of_base64url() {
        let valid = valid();
        let parts: Vec<&str> = valid.split('.').collect();
        for part in 0..3 {
            for spoil in ["=", "==", " ", "\n", "+", "/", "\u{0661}", "\0"] {
                let mut spoiled: Vec<String> = parts.iter().map(|&part| part.to_owned()).collect();
                spoiled[part].push_str(spoil);
                assert_eq!(reason(spoiled.join(".")), "base64url", "part {part} with {spoil:?}");
            }
        }
        for text in [format!(" {valid}"), format!("{valid}\n"), format!("Bearer {valid}")] {
            assert_eq!(reason(text), "base64url");
        }
        // "AA" is one zero byte; "AB" is the same byte with stray bits.
        let (signed, _) = valid.rsplit_once('.').unwrap();
        assert!(read(format!("{signed}.AA")).is_ok());
        assert_eq!(reason(format!("{signed}.AB")), "base64url");
        assert_eq!(reason([valid.as_bytes(), b"\xff"].concat()), "not-text");
    }

    #[test]
    fn refuses_headers_that_change_the_meaning_of_the_rest() {
        let cases = [
            ("crit", json!(["exp2"]), "header-crit"),
            ("crit", json!([]), "header-crit"),
            ("crit", json!("x"), "header-crit"),
            ("b64", json!(false), "header-b64"),
            ("b64", json!(true), "header-b64"),
            ("zip", json!("DEF"), "header-zip"),
            ("cty", json!("JWT"), "header-cty"),
            ("typ", json!("at+jwt"), "header-typ"),
            ("typ", json!("logout+jwt"), "header-typ"),
            ("typ", json!("jwt"), "header-typ"),
            ("typ", json!(null), "header-typ"),
            ("typ", json!(["JWT"]), "header-typ"),
            ("kid", json!(null), "header-kid"),
            ("kid", json!(1), "header-kid"),
            ("kid", json!(["k1"]), "header-kid"),
            ("kid", json!(""), "header-kid"),
            ("kid", json!("k\r\n1"), "header-kid"),
            ("kid", json!("k".repeat(257)), "header-kid"),
            ("alg", json!(null), "header-alg"),
            ("alg", json!(["RS256"]), "header-alg"),
        ];
        for (name, value, expected) in cases {
            let mut spoiled = header();
            spoiled[name] = value.clone();
            assert_eq!(reason(compact(&spoiled, r#"{"iss":"x"}"#)), expected, "{name}: {value}");
        }
        let mut spoiled = header();
        spoiled.as_object_mut().unwrap().remove("alg");
        assert_eq!(reason(compact(&spoiled, r#"{"iss":"x"}"#)), "header-alg");
    }

    #[test]
    fn an_absent_kid_is_told_after_issuer_and_algorithm() {
        let mut spoiled = header();
        spoiled.as_object_mut().unwrap().remove("kid");
        let token = read(compact(&spoiled, r#"{"iss":"x"}"#)).unwrap_or_else(|fault| panic!("{fault:?}"));
        assert_eq!(token.check_kid().unwrap_err().reason, "header-kid");
    }

    #[test]
    fn reads_past_keys_that_the_token_brings_along() {
        let mut header = header();
        header["jku"] = json!("http://169.254.169.254/");
        header["x5u"] = json!("http://169.254.169.254/");
        header["jwk"] = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
        header["x5c"] = json!(["MIIB"]);
        assert!(read(compact(&header, r#"{"iss":"x"}"#)).is_ok());
    }

    #[test]
    fn remembers_an_unknown_algorithm_until_the_issuer_is_checked() {
        let github = Profile::by_name("github-actions").unwrap();
        for name in ["none", "None", "NONE", "nOnE", "", "HS256", "RS512", "ES256K", "rs256", "ES512"] {
            let mut spoiled = header();
            spoiled["alg"] = json!(name);
            let token = read(compact(&spoiled, r#"{"iss":"x"}"#)).unwrap();
            assert_eq!(token.unverified_algorithm(), None, "{name}");
            assert_eq!(token.check_algorithm(github).unwrap_err().kind, FaultKind::Algorithm);
        }
        assert_eq!(read(valid()).unwrap().check_algorithm(github), Ok(Algorithm::Rs256));
    }

    #[test]
    fn refuses_header_and_claims_that_are_not_strict_json() {
        let signature = encode(b"signature");
        let text = |header: &str, payload: &str| {
            format!("{}.{}.{signature}", encode(header.as_bytes()), encode(payload.as_bytes()))
        };
        let good_header = r#"{"alg":"RS256","kid":"k1"}"#;
        let good_payload = r#"{"iss":"x"}"#;
        assert_eq!(reason(text(good_header, good_payload)), "accepted");
        let deep = format!(r#"{{"iss":"x","a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        let many = format!(
            "{{\"iss\":\"x\",{}}}",
            (0..256).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(",")
        );
        let long = format!(r#"{{"iss":"x","a":"{}"}}"#, "x".repeat(2049));
        let cases = [
            (r#"{"alg":"RS256","alg":"none","kid":"k1"}"#, good_payload, "header:duplicate-key"),
            (r#"["alg"]"#, good_payload, "header:not-object"),
            ("", good_payload, "header:not-json"),
            (good_header, r#"{"iss":"x","iss":"y"}"#, "claims:duplicate-key"),
            (good_header, r#"{"iss":"x","a":{"b":1,"\u0062":2}}"#, "claims:duplicate-key"),
            (good_header, r#"{"iss":"x"} "#, "accepted"),
            (good_header, r#"{"iss":"x"}{}"#, "claims:trailing-bytes"),
            (good_header, r#"{"iss":"x","exp":NaN}"#, "claims:not-json"),
            (good_header, r#"{"iss":"x","a":"\ud800"}"#, "claims:not-json"),
            (good_header, &deep, "claims:too-deep"),
            (good_header, &many, "claims:too-many-nodes"),
            (good_header, &long, "claims:string-too-long"),
            (good_header, "[]", "claims:not-object"),
            (good_header, "{}", "issuer-not-text"),
            (good_header, r#"{"iss":["https://evil","https://issuer.test"]}"#, "issuer-not-text"),
            (good_header, r#"{"iss":1}"#, "issuer-not-text"),
        ];
        for (header, payload, expected) in cases {
            assert_eq!(reason(text(header, payload)), expected, "{header} {payload:.80}");
        }
    }

    #[test]
    fn compact_token_of_the_greatest_claims_is_bounded_by_its_length() {
        let many = (0..5_000).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(",");
        assert_eq!(reason(compact(&header(), &format!("{{\"iss\":\"x\",{many}}}"))), "too-long");
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_never_accepts_a_changed_spelling(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(bytes).is_err());
        }

        #[test]
        fn one_changed_byte_is_refused_or_read_as_other_text(at in 0_usize..100, byte in any::<u8>()) {
            let mut bytes = valid().into_bytes();
            let at = at % bytes.len();
            let was = bytes[at];
            bytes[at] = byte;
            if let Ok(token) = read(bytes) {
                prop_assert!(was == byte || token.compact.expose() != valid().as_bytes());
            }
        }
    }
}
