//! One valid token; each row spoils one thing.

use std::sync::{Arc, LazyLock};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;
use crate::kernel::{
    identity::{
        keys::KeySet,
        profile::Algorithm,
        testing::{TestKey, encode, fixture},
    },
    secret::Secret,
};

const GITHUB: &str = "https://token.actions.githubusercontent.com";
const AUDIENCE: &str = "https://hallpass.example.com";
const NOW: i64 = 1_790_000_010;

/// One RSA key for all tests: making one is slow in a debug build.
static KEY: LazyLock<TestKey> = LazyLock::new(TestKey::rsa);

fn key_of(jwk: &Value, algorithm: Algorithm) -> Arc<VerificationKey> {
    let set = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes(), &[algorithm]).unwrap();
    set.find("k1", algorithm).unwrap()
}

fn raw(text: String) -> RawToken {
    RawToken::read(Secret::from_text(text)).map_err(|fault| fault.reason).unwrap()
}

fn header() -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": "k1"})
}

/// The terms of the github fixture.
fn terms<'a>(issuer: &'a IssuerName, profile: &str, url: &'a str) -> Terms<'a> {
    Terms {
        issuer,
        url,
        profile: Profile::by_name(profile).unwrap(),
        audience: AUDIENCE,
        max_token_age: Duration::from_secs(600),
        leeway: Duration::from_secs(30),
    }
}

fn github_at(claims: &Value, now: Timestamp) -> Result<VerifiedToken, Box<RefusedToken>> {
    let name = IssuerName::parse("github").unwrap();
    let key = key_of(&KEY.jwk("k1"), Algorithm::Rs256);
    verify(raw(KEY.sign(&header(), claims)), &key, &terms(&name, "github-actions", GITHUB), now)
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn github(claims: &Value) -> Result<JobIdentity, (FaultKind, String)> {
    github_at(claims, now())
        .map(VerifiedToken::into_identity)
        .map_err(|refused| (refused.fault.kind, refused.fault.reason))
}

fn spoilt(name: &str, value: Value) -> Result<JobIdentity, (FaultKind, String)> {
    let mut claims = fixture("github-actions");
    claims[name] = value;
    github(&claims)
}

fn without(name: &str) -> Result<JobIdentity, (FaultKind, String)> {
    let mut claims = fixture("github-actions");
    claims.as_object_mut().unwrap().remove(name).unwrap();
    github(&claims)
}

fn kind(result: Result<JobIdentity, (FaultKind, String)>) -> Option<FaultKind> {
    result.err().map(|(kind, _)| kind)
}

#[test]
fn valid_token_proves_its_job() {
    let job = github(&fixture("github-actions")).unwrap();
    assert_eq!(job.project(), Some(("701", Some("acme/payments"))));
    assert_eq!(job.token().iat.as_second(), 1_790_000_000);
    assert_eq!(job.token().exp.as_second(), 1_790_000_300);
}

#[test]
fn valid_token_of_an_enterprise_issuer_proves_its_job() {
    let name = IssuerName::parse("acme").unwrap();
    let url = format!("{GITHUB}/acme-inc");
    let token = || raw(KEY.sign(&header(), &fixture("github-actions-enterprise")));
    let key = key_of(&KEY.jwk("k1"), Algorithm::Rs256);
    let job =
        verify(token(), &key, &terms(&name, "github-actions", &url), now()).map(VerifiedToken::into_identity);
    assert_eq!(job.map_err(|refused| refused.fault).ok().unwrap().claims()["enterprise_id"], "311");

    let refused = verify(token(), &key, &terms(&name, "github-actions", GITHUB), now()).err().unwrap();
    assert_eq!(refused.fault.kind, FaultKind::Issuer);
}

#[test]
fn every_algorithm_of_a_profile_verifies_with_its_own_key() {
    let name = IssuerName::parse("ci").unwrap();
    let terms = terms(&name, "generic", "https://ci.example.com/oidc");
    for test_key in TestKey::one_of_each() {
        let algorithm = test_key.algorithm();
        let key = key_of(&test_key.jwk("k1"), algorithm);
        let header = json!({"alg": algorithm.as_str(), "kid": "k1"});
        let token = test_key.sign(&header, &fixture("generic"));
        assert!(verify(raw(token.clone()), &key, &terms, now()).is_ok(), "{algorithm:?}");

        let mut bytes = token.into_bytes();
        let last = bytes.len() - 10;
        bytes[last] = if bytes[last] == b'A' { b'B' } else { b'A' };
        let refused = verify(raw(String::from_utf8(bytes).unwrap()), &key, &terms, now()).err().unwrap();
        assert_eq!(refused.fault.kind, FaultKind::Signature, "{algorithm:?}");
        assert!(refused.authentic.is_none());
    }
    let mut jwk = KEY.jwk("k1");
    jwk["alg"] = json!("PS256");
    let token = raw(KEY.sign_pss(&json!({"alg": "PS256", "kid": "k1"}), &fixture("generic")));
    assert!(verify(token, &key_of(&jwk, Algorithm::Ps256), &terms, now()).is_ok());
}

#[test]
fn refuses_signatures_that_are_not_of_this_key_and_algorithm() {
    let name = IssuerName::parse("ci").unwrap();
    let terms = terms(&name, "generic", "https://ci.example.com/oidc");
    let rs = key_of(&KEY.jwk("k1"), Algorithm::Rs256);
    let p256 = TestKey::p256();
    let p384 = TestKey::p384();
    let claims = fixture("generic");
    let signed = |key: &TestKey, alg: &str, kid: &str| key.sign(&json!({"alg": alg, "kid": kid}), &claims);
    let good = signed(&KEY, "RS256", "k1");
    let (body, signature) = good.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let with = |signature: &[u8]| format!("{body}.{}", encode(signature));
    let cases = [
        ("signed by another key", signed(&TestKey::rsa(), "RS256", "k1"), &rs),
        ("PS256 over an RS256 key", KEY.sign_pss(&json!({"alg": "PS256", "kid": "k1"}), &claims), &rs),
        ("PSS under RS256", KEY.sign_pss(&json!({"alg": "RS256", "kid": "k1"}), &claims), &rs),
        ("ES256 header over an RSA key", signed(&p256, "ES256", "k1"), &rs),
        (
            "ES256 header over a P-384 key",
            signed(&p384, "ES256", "k1"),
            &key_of(&p384.jwk("k1"), Algorithm::Es384),
        ),
        (
            "EdDSA header over a P-256 key",
            signed(&p256, "EdDSA", "k1"),
            &key_of(&p256.jwk("k1"), Algorithm::Es256),
        ),
        ("key of another name", signed(&KEY, "RS256", "k2"), &rs),
        ("empty signature", format!("{body}."), &rs),
        ("signature cut", with(&signature[1..]), &rs),
        ("signature longer", with(&[&[0], signature.as_slice()].concat()), &rs),
    ];
    for (what, token, key) in cases {
        let refused =
            verify(raw(token), key, &terms, now()).err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert_eq!(refused.fault.kind, FaultKind::Signature, "{what}");
        assert!(refused.authentic.is_none(), "{what}");
    }
}

#[test]
fn refuses_algorithms_that_are_not_of_the_profile_before_it_looks_at_the_signature() {
    let name = IssuerName::parse("github").unwrap();
    let key = key_of(&KEY.jwk("k1"), Algorithm::Rs256);
    for alg in ["none", "nOnE", "", "HS256", "ES256", "PS256", "RS512"] {
        let token = KEY.sign(&json!({"alg": alg, "kid": "k1"}), &fixture("github-actions"));
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        for token in [token, unsigned] {
            let refused =
                verify(raw(token), &key, &terms(&name, "github-actions", GITHUB), now()).err().unwrap();
            assert_eq!(refused.fault.kind, FaultKind::Algorithm, "{alg}");
        }
    }
}

#[test]
fn ecdsa_signature_must_have_its_fixed_length() {
    let name = IssuerName::parse("ci").unwrap();
    let terms = terms(&name, "generic", "https://ci.example.com/oidc");
    let test_key = TestKey::p256();
    let key = key_of(&test_key.jwk("k1"), Algorithm::Es256);
    let token = test_key.sign(&json!({"alg": "ES256", "kid": "k1"}), &fixture("generic"));
    let (body, _) = token.rsplit_once('.').unwrap();
    // DER of the smallest r and s, and nothing at all.
    for signature in [vec![0x30, 6, 2, 1, 1, 2, 1, 1], vec![0; 64], vec![1; 63], vec![1; 65]] {
        let refused =
            verify(raw(format!("{body}.{}", encode(&signature))), &key, &terms, now()).err().unwrap();
        assert_eq!(refused.fault.kind, FaultKind::Signature);
    }
}

#[test]
fn two_signatures_over_the_same_bytes_are_one_token() {
    let name = IssuerName::parse("ci").unwrap();
    let terms = terms(&name, "generic", "https://ci.example.com/oidc");
    let test_key = TestKey::p256();
    let key = key_of(&test_key.jwk("k1"), Algorithm::Es256);
    let mut claims = fixture("generic");
    claims.as_object_mut().unwrap().remove("jti").unwrap();
    let id = |claims: &Value| {
        let token = test_key.sign(&json!({"alg": "ES256", "kid": "k1"}), claims);
        let verified = verify(raw(token), &key, &terms, now());
        verified.map_err(|refused| refused.fault).ok().unwrap().into_identity().token().id
    };
    assert_eq!(id(&claims), id(&claims), "ECDSA signatures differ each time, the token does not");
    let first = id(&claims);
    claims["build_number"] = json!(4712);
    assert_ne!(first, id(&claims));
}

#[test]
fn token_id_is_of_issuer_and_jti() {
    let first = github(&fixture("github-actions")).unwrap();
    let second = spoilt("sha", json!("0000")).unwrap();
    assert_eq!(first.token().id, second.token().id, "same jti");
    assert_ne!(first.token().id, spoilt("jti", json!("other")).unwrap().token().id);

    let name = IssuerName::parse("ci").unwrap();
    let mut claims = fixture("generic");
    claims["jti"] = fixture("github-actions")["jti"].clone();
    let key = key_of(&KEY.jwk("k1"), Algorithm::Rs256);
    let other = verify(
        raw(KEY.sign(&header(), &claims)),
        &key,
        &terms(&name, "generic", "https://ci.example.com/oidc"),
        now(),
    );
    assert_ne!(
        first.token().id,
        other.map_err(|refused| refused.fault).ok().unwrap().into_identity().token().id
    );
}

#[test]
fn jti_is_there_where_the_profile_says_so() {
    assert_eq!(without("jti").err(), Some((FaultKind::Malformed, "missing-claim:jti".to_owned())));
    for value in [json!(""), json!(null), json!(7), json!(["x"]), json!("x".repeat(257)), json!("x\n")] {
        assert_eq!(kind(spoilt("jti", value.clone())), Some(FaultKind::Malformed), "{value}");
    }
    assert!(spoilt("jti", json!("x".repeat(256))).is_ok());

    let name = IssuerName::parse("ci").unwrap();
    let key = key_of(&KEY.jwk("k1"), Algorithm::Rs256);
    for (value, accepted) in
        [(json!(""), true), (json!("x"), true), (json!(7), false), (json!("x".repeat(257)), false)]
    {
        let mut claims = fixture("generic");
        claims["jti"] = value.clone();
        let token = raw(KEY.sign(&header(), &claims));
        let result = verify(token, &key, &terms(&name, "generic", "https://ci.example.com/oidc"), now());
        assert_eq!(result.is_ok(), accepted, "{value}");
    }
}

#[test]
fn audience_is_exactly_ours_and_alone() {
    assert!(spoilt("aud", json!([AUDIENCE])).is_ok());
    for value in [
        json!(""),
        json!([]),
        json!([""]),
        json!([AUDIENCE, "https://other"]),
        json!([AUDIENCE, AUDIENCE]),
        json!("https://hallpass.example.com/"),
        json!("HTTPS://HALLPASS.EXAMPLE.COM"),
        json!(" https://hallpass.example.com"),
        json!("https://github.com/acme"),
    ] {
        assert_eq!(kind(spoilt("aud", value.clone())), Some(FaultKind::Audience), "{value}");
    }
    assert_eq!(without("aud").err(), Some((FaultKind::Malformed, "missing-claim:aud".to_owned())));
    for value in [
        json!(null),
        json!(42),
        json!({}),
        json!([42]),
        json!([[AUDIENCE]]),
        json!("https://hallpass.example.com\u{0}"),
    ] {
        assert_eq!(kind(spoilt("aud", value.clone())), Some(FaultKind::Malformed), "{value}");
    }
}

#[test]
fn times_are_integers_that_can_be() {
    for name in ["exp", "iat", "nbf"] {
        for value in [
            json!("1790000300"),
            json!("never"),
            json!(true),
            json!(null),
            json!([1_790_000_300]),
            json!(1_790_000_300.9),
            json!(1e308),
            json!(i64::MAX),
            json!(i64::MIN),
            json!(u64::MAX),
        ] {
            assert_eq!(kind(spoilt(name, value.clone())), Some(FaultKind::Malformed), "{name}: {value}");
        }
    }
    for text in ["1790000300.0", "1.7900003e9", "-0"] {
        let claims =
            fixture("github-actions").to_string().replace("\"exp\":1790000300", &format!("\"exp\":{text}"));
        let name = IssuerName::parse("github").unwrap();
        let key = key_of(&KEY.jwk("k1"), Algorithm::Rs256);
        let token = raw(KEY.sign_text(&header().to_string(), &claims));
        let refused = verify(token, &key, &terms(&name, "github-actions", GITHUB), now()).err().unwrap();
        assert_eq!(refused.fault.reason, "claim-type:exp", "{text}");
    }
    for name in ["exp", "iat"] {
        assert_eq!(without(name).err(), Some((FaultKind::Malformed, format!("missing-claim:{name}"))));
    }
    assert!(without("nbf").is_ok());
}

#[test]
fn exp_holds_until_leeway_is_over() {
    let at = |seconds: i64, nanos: i32| {
        let mut claims = fixture("github-actions");
        claims["iat"] = json!(1_789_999_900);
        let now = Timestamp::new(1_790_000_300 + seconds, nanos).unwrap();
        github_at(&claims, now).err().map(|refused| refused.fault.kind)
    };
    assert_eq!(at(10, 0), None);
    assert_eq!(at(29, 999_999_999), None);
    assert_eq!(at(30, 0), Some(FaultKind::Expired));
    assert_eq!(at(31, 0), Some(FaultKind::Expired));
    for value in [json!(-1), json!(0), json!(NOW - 31)] {
        assert_eq!(kind(spoilt("exp", value.clone())), Some(FaultKind::Expired), "{value}");
    }
}

#[test]
fn nbf_and_iat_may_be_ahead_by_the_leeway() {
    for name in ["iat", "nbf"] {
        assert!(spoilt(name, json!(NOW + 5)).is_ok());
        assert!(spoilt(name, json!(NOW + 30)).is_ok());
        assert_eq!(kind(spoilt(name, json!(NOW + 31))), Some(FaultKind::NotYetValid), "{name}");
        assert_eq!(kind(spoilt(name, json!(NOW + 120))), Some(FaultKind::NotYetValid), "{name}");
    }
    assert!(spoilt("nbf", json!(NOW - 600)).is_ok());
    assert!(spoilt("nbf", json!(-1)).is_ok());
}

#[test]
fn times_that_contradict_by_more_than_clocks_differ_are_refused() {
    for name in ["iat", "nbf"] {
        let with = |exp: i64, moment: i64| {
            let mut claims = fixture("github-actions");
            claims["exp"] = json!(exp);
            claims[name] = json!(moment);
            kind(github(&claims))
        };
        assert_eq!(with(NOW - 10, NOW + 20), None, "{name}: within the leeway");
        assert_eq!(with(NOW - 10, NOW + 21), Some(FaultKind::Malformed), "{name}");
    }
}

#[test]
fn exp_may_be_past_by_the_leeway_whatever_iat_says() {
    assert!(spoilt("exp", json!(NOW - 10)).is_ok());
    assert_eq!(kind(spoilt("exp", json!(NOW - 30))), Some(FaultKind::Expired));
}

#[test]
fn old_and_long_lived_tokens_are_too_old() {
    let aged = |iat: i64, exp: i64| {
        let mut claims = fixture("github-actions");
        claims["iat"] = json!(iat);
        claims["exp"] = json!(exp);
        kind(github(&claims))
    };
    assert_eq!(aged(NOW - 630, NOW + 300), None);
    assert_eq!(aged(NOW - 631, NOW + 300), Some(FaultKind::TooOld));
    assert_eq!(aged(NOW - 1200, NOW + 2400), Some(FaultKind::TooOld));
    assert_eq!(aged(NOW, NOW + 86_400), None);
    assert_eq!(aged(NOW, NOW + 86_401), Some(FaultKind::TooOld));
    assert_eq!(aged(NOW, NOW + 31_536_000), Some(FaultKind::TooOld));
    assert_eq!(aged(-62_135_596_800, NOW + 300), Some(FaultKind::TooOld));
}

#[test]
fn age_does_not_apply_to_the_holder_but_all_else_does() {
    let holder = |claims: &Value| {
        let name = IssuerName::parse("github").unwrap();
        let key = key_of(&KEY.jwk("k1"), Algorithm::Rs256);
        verify_holder(raw(KEY.sign(&header(), claims)), &key, &terms(&name, "github-actions", GITHUB), now())
            .err()
            .map(|refused| refused.fault.kind)
    };
    let mut old = fixture("github-actions");
    old["iat"] = json!(NOW - 3600);
    assert_eq!(kind(github(&old)), Some(FaultKind::TooOld));
    assert_eq!(holder(&old), None);
    for (name, value, expected) in [
        ("aud", json!("https://other"), FaultKind::Audience),
        ("exp", json!(NOW - 31), FaultKind::Expired),
        ("nbf", json!(NOW + 31), FaultKind::NotYetValid),
        ("repository_id", json!(701), FaultKind::Malformed),
        ("iss", json!("https://evil.test"), FaultKind::Issuer),
    ] {
        let mut spoilt = old.clone();
        spoilt[name] = value;
        assert_eq!(holder(&spoilt), Some(expected), "{name}");
    }
}

#[test]
fn first_fault_of_the_contracts_order_wins() {
    // Spoil from the last check to the first; each new fault must hide the ones before.
    let mut claims = fixture("github-actions");
    claims["exp"] = json!(NOW + 100_000);
    assert_eq!(kind(github(&claims)), Some(FaultKind::TooOld));
    claims["nbf"] = json!(NOW + 31);
    assert_eq!(kind(github(&claims)), Some(FaultKind::NotYetValid));
    claims["exp"] = json!(NOW - 31);
    assert_eq!(kind(github(&claims)), Some(FaultKind::Expired));
    claims["aud"] = json!("https://other");
    assert_eq!(kind(github(&claims)), Some(FaultKind::Audience));
    claims["repository_id"] = json!(701);
    assert_eq!(kind(github(&claims)), Some(FaultKind::Malformed));
}

#[test]
fn refused_token_names_its_job_only_where_it_is_authentic() {
    let authentic = |name: &str, value: Value| {
        let mut claims = fixture("github-actions");
        claims[name] = value;
        let refused = github_at(&claims, now()).err().unwrap();
        refused.authentic.map(|job| job.project().unwrap().0.to_owned())
    };
    for (name, value) in [("aud", json!("x")), ("exp", json!(0)), ("nbf", json!(NOW + 99)), ("iat", json!(0))]
    {
        assert_eq!(authentic(name, value).as_deref(), Some("701"), "{name}");
    }
    for (name, value) in
        [("repository_id", json!(701)), ("jti", json!(7)), ("exp", json!("x")), ("iss", json!("x"))]
    {
        assert_eq!(authentic(name, value), None, "{name}");
    }
}

#[test]
fn issuer_is_compared_byte_for_byte() {
    for url in [
        "https://token.actions.githubusercontent.com/",
        "https://token.actions.githubusercontent.com/evil",
        "https://token.actions.githubusercontent.com?x",
        "https://token.actions.githubusercontent.com.evil.test",
        "https://token.actions.githubusercontent.com:443",
        "https://Token.actions.githubusercontent.com",
        "http://token.actions.githubusercontent.com",
        "token.actions.githubusercontent.com",
    ] {
        assert_eq!(kind(spoilt("iss", json!(url))), Some(FaultKind::Issuer), "{url}");
    }
}

#[test]
fn reasons_carry_no_value_of_the_token() {
    let mut claims = fixture("github-actions");
    for name in claims.clone().as_object().unwrap().keys().filter(|name| *name != "iss") {
        let was = claims[name].take();
        claims[name] = json!({"canary-7f3a": "canary-7f3a"});
        if let Err((_, reason)) = github(&claims) {
            assert!(!reason.contains("canary"), "{reason}");
        }
        claims[name] = was;
    }
}
