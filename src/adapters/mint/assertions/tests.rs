//! What the signer signs with, and what it tells verifiers, at any time of a rotation.

use std::sync::OnceLock;

use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};

use super::*;
use crate::kernel::{id::IssuanceId, name::GrantName};

const ISSUER: &str = "https://hallpass.example.com";
const WAREHOUSE: &str = "https://warehouse.example.com";
const LEAD: Duration = Duration::from_secs(86_400);
const NOW: &str = "2027-01-13T10:00:00.75Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn settings() -> AssertionSettings {
    AssertionSettings {
        issuer: ISSUER.to_owned(),
        public_url: ISSUER.to_owned(),
        es256: BTreeSet::from([WAREHOUSE.to_owned()]),
    }
}

/// Made once for all tests: an RSA key takes most of a second in a debug build.
fn private(algorithm: Algorithm, version: u64) -> Secret {
    static RSA: OnceLock<[Secret; 2]> = OnceLock::new();
    static EC: OnceLock<[Secret; 2]> = OnceLock::new();
    let make = || [(); 2].map(|()| generate(algorithm).unwrap());
    let made = match algorithm {
        Algorithm::Rs256 => RSA.get_or_init(make),
        Algorithm::Es256 => EC.get_or_init(make),
    };
    Secret::new(made[usize::try_from(version).unwrap() - 1].expose().to_vec())
}

fn key(algorithm: Algorithm, version: u64, schedule: Schedule) -> AssertionKey {
    AssertionKey { algorithm, version, schedule, private: Some(private(algorithm, version)), public: None }
}

fn first_keys() -> Vec<AssertionKey> {
    let schedule = Schedule::first(at("2026-01-01T00:00:00Z"));
    Algorithm::ALL.map(|algorithm| key(algorithm, 1, schedule)).into()
}

fn signer() -> Assertions {
    Assertions::of_store(settings(), &first_keys(), at(NOW)).unwrap()
}

fn sign(signer: &Assertions, audience: &str, now: &str) -> Result<Assertion, AssertionFault> {
    let grant = GrantName::parse("payments-prod").unwrap();
    let issuance = IssuanceId::from_bytes([1; 16]);
    let life = Duration::from_secs(120);
    signer.sign(&Claims { audience, grant: &grant, issuance, now: at(now), life, aws: None })
}

/// The `kid` and the claims, by the published set alone.
fn verify(jwks: &Value, assertion: &Assertion, audience: &str) -> Option<(String, Value)> {
    let set: JwkSet = serde_json::from_value(jwks.clone()).unwrap();
    let token = assertion.token.expose_text().unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let key = DecodingKey::from_jwk(set.find(header.kid.as_deref()?)?).unwrap();
    let mut rules = Validation::new(header.alg);
    rules.set_audience(&[audience]);
    rules.set_issuer(&[ISSUER]);
    rules.validate_exp = false;
    let read = jsonwebtoken::decode::<Value>(token, &key, &rules).ok()?;
    assert_eq!(read.header.typ.as_deref(), Some("JWT"));
    Some((read.header.kid.unwrap(), read.claims))
}

#[test]
fn the_published_keys_verify_what_was_signed_each_audience_with_its_algorithm() {
    let signer = signer();
    for (audience, algorithm) in [("sigstore", "RS256"), (WAREHOUSE, "ES256")] {
        let assertion = sign(&signer, audience, NOW).unwrap();
        let (kid, claims) = verify(&signer.jwks(at(NOW)), &assertion, audience).unwrap();
        let algorithm = Algorithm::parse(algorithm).unwrap();
        assert_eq!(Some(kid), signer.kid(algorithm, at(NOW)));
        assert_eq!(claims["exp"], assertion.expires_at.as_second());
        assert_eq!(jsonwebtoken::decode_header(assertion.token.expose_text().unwrap()).unwrap().alg, {
            let name = algorithm.as_str();
            name.parse().unwrap()
        });
    }
}

#[test]
fn a_set_without_the_key_verifies_nothing() {
    let signer = signer();
    let assertion = sign(&signer, "sigstore", NOW).unwrap();
    let other = key(Algorithm::Rs256, 2, Schedule::first(at("2026-01-01T00:00:00Z")));
    let others = Assertions::of_store(settings(), &[other], at(NOW)).unwrap();
    assert!(verify(&others.jwks(at(NOW)), &assertion, "sigstore").is_none());
}

#[test]
fn the_new_key_is_told_a_day_before_it_signs_and_the_old_one_a_day_after() {
    let old = Schedule::first(at("2026-01-01T00:00:00Z"));
    let new = Schedule::after(at(NOW), LEAD);
    let keys = [key(Algorithm::Rs256, 1, old.followed_by(&new, LEAD)), key(Algorithm::Rs256, 2, new)];
    let of = |now: &str| Assertions::of_store(settings(), &keys, at(now)).unwrap();
    let kids = |now: &str| {
        let told = of(now).jwks(at(now));
        let kids = told["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
        kids.collect::<Vec<_>>()
    };
    let signed = |now: &str| sign(&of(now), "sigstore", now).unwrap().kid;
    let [first, second] = [1, 2].map(|version| {
        let public = public_half(Algorithm::Rs256, &private(Algorithm::Rs256, version)).unwrap();
        public["kid"].as_str().unwrap().to_owned()
    });

    assert_eq!(kids(NOW), [first.clone(), second.clone()]);
    assert_eq!(signed("2027-01-14T10:00:00Z"), first);
    assert_eq!(signed("2027-01-14T10:00:01Z"), second);
    assert_eq!(kids("2027-01-14T10:00:01Z"), [second.clone(), first.clone()]);
    assert_eq!(kids("2027-01-15T10:05:00Z"), [second.clone(), first]);
    assert_eq!(kids("2027-01-15T10:05:01Z"), [second]);
}

#[test]
fn a_retired_key_is_told_of_without_its_private_half_and_signs_nothing() {
    let old = Schedule::first(at("2026-01-01T00:00:00Z"));
    let retired = Schedule { retired_at: Some(at("2027-01-01T00:00:00Z")), ..old };
    let public = public_half(Algorithm::Rs256, &private(Algorithm::Rs256, 1)).unwrap();
    let stored =
        AssertionKey { private: None, public: Some(public.to_string()), ..key(Algorithm::Rs256, 1, retired) };
    let signer = Assertions::of_store(settings(), &[stored], at(NOW)).unwrap();

    assert_eq!(signer.jwks(at(NOW)), json!({ "keys": [public] }));
    assert_eq!(sign(&signer, "sigstore", NOW).err(), Some(AssertionFault::NoKey));
}

#[test]
fn keys_that_were_not_read_lately_sign_nothing() {
    let signer = signer();
    assert!(sign(&signer, "sigstore", "2027-01-13T10:01:00.75Z").is_ok());
    assert_eq!(sign(&signer, "sigstore", "2027-01-13T10:01:00.751Z").err(), Some(AssertionFault::Stale));

    signer.renew(&first_keys(), at("2027-01-13T10:01:00.751Z")).unwrap();
    assert!(sign(&signer, "sigstore", "2027-01-13T10:01:00.751Z").is_ok());
}

#[test]
fn a_withdrawn_key_signs_nothing_from_the_next_reading_on() {
    let signer = signer();
    let stolen = first_keys().remove(0);
    let gone = AssertionKey { schedule: stolen.schedule.withdrawn(at(NOW)), ..stolen };
    let next = key(Algorithm::Rs256, 2, Schedule::first(at(NOW)));

    assert!(signer.renew(&[gone, next], at(NOW)).unwrap());

    let assertion = sign(&signer, "sigstore", NOW).unwrap();
    assert_eq!(Some(assertion.kid), signer.kid(Algorithm::Rs256, at(NOW)));
    assert_eq!(signer.jwks(at(NOW))["keys"].as_array().unwrap().len(), 1);
    assert_eq!(sign(&signer, WAREHOUSE, NOW).err(), Some(AssertionFault::NoKey));
}

#[test]
fn is_never_signed_for_ourselves_under_any_of_our_names() {
    let elsewhere = AssertionSettings { issuer: "https://oidc.example.com/ci".to_owned(), ..settings() };
    let signer = Assertions::of_store(elsewhere, &first_keys(), at(NOW)).unwrap();
    for audience in [
        ISSUER,
        "https://hallpass.example.com/",
        "HTTPS://Hallpass.Example.Com",
        "https://oidc.example.com/ci",
        "https://OIDC.example.com/ci/",
    ] {
        assert_eq!(sign(&signer, audience, NOW).err(), Some(AssertionFault::Ourselves), "{audience}");
    }
}

#[test]
fn discovery_names_this_issuer_and_where_its_keys_are() {
    let document = signer().openid_configuration();
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(document["jwks_uri"], "https://hallpass.example.com/.well-known/jwks.json");
    assert_eq!(document["id_token_signing_alg_values_supported"], json!(["RS256", "ES256"]));
}

#[test]
fn is_the_issuer_at_its_own_url_only() {
    let signer = |issuer: &str| {
        let settings = AssertionSettings { issuer: issuer.to_owned(), ..settings() };
        Assertions::of_store(settings, &[], at(NOW)).unwrap()
    };
    assert!(signer("https://hallpass.example.com").is_issuer_at_public_url());
    assert!(signer("https://hallpass.example.com/").is_issuer_at_public_url());
    for issuer in
        ["https://oidc.example.com", "https://hallpass.example.com/ci", "https://HALLPASS.example.com"]
    {
        assert!(!signer(issuer).is_issuer_at_public_url(), "{issuer}");
    }
}
