//! Keys that no signature should count under (attack class T-04), published beside good ones by an issuer of the
//! `generic` profile, which takes every algorithm. The signatures are real wherever one can be made.

use aws_lc_rs::digest::{SHA256, digest};
use num_bigint::BigUint;
use serde_json::{Value, json};

use super::{deploy, trusting, until_well};
use crate::support::{
    hostile_issuer::HostileIssuer,
    issuer::{foreign_key, own_key, set, valid_claims},
    key::{Key, compact, encode},
};

/// Signs bytes, well or not.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A published key, and a token that it is said to have signed.
struct Published {
    what: &'static str,
    jwk: Value,
    alg: &'static str,
    sign: Sign,
}

fn published(
    what: &'static str,
    jwk: Value,
    alg: &'static str,
    sign: impl Fn(&[u8]) -> Vec<u8> + 'static,
) -> Published {
    Published { what, jwk, alg, sign: Box::new(sign) }
}

fn spoiled(mut jwk: Value, changes: Value) -> Value {
    set(&mut jwk, changes);
    jwk
}

#[test]
fn tokens_of_weak_and_unfit_keys_are_refused_beside_those_of_good_ones() {
    let issuer = HostileIssuer::start();
    let (good, bad) = (good_keys(), bad_keys());
    let mut jwks: Vec<Value> = good.iter().chain(&bad).map(|key| key.jwk.clone()).collect();
    // Two keys under one name, and things that are no keys at all.
    jwks.push(spoiled(foreign_key().jwk("twice"), json!({ "use": "sig" })));
    jwks.extend([json!(null), json!("key"), json!({}), json!({ "kty": "quantum", "kid": "quantum" })]);
    issuer.publish(jwks);
    let installation = trusting(&[("ci", &issuer, "")], "");
    let generic = |name: &str| {
        let text = std::fs::read_to_string(installation.file(name)).unwrap();
        installation.write(name, &text.replace("github-actions", "generic"));
    };
    generic("hallpass.yaml");
    generic("policies/issuers/ci.yaml");
    installation.write("policies/grants/deploy.yaml", GRANT);
    for other in ["lost", "other-team"] {
        std::fs::remove_file(installation.file(&format!("policies/grants/{other}.yaml"))).unwrap();
    }
    let server = installation.serve();
    until_well(&server, "ci");

    let token = |Published { what, alg, sign, .. }: &Published| {
        let header = json!({ "alg": alg, "typ": "JWT", "kid": what });
        compact(&header.to_string(), &valid_claims(&issuer.url).to_string(), sign)
    };
    for key in &bad {
        let answer = deploy(&server, &token(key));
        assert_eq!(answer.status, 401, "{}: {answer:?}", key.what);
        answer.problem(401, "token_signature");
    }
    for key in &good {
        assert_eq!(deploy(&server, &token(key)).status, 200, "{}", key.what);
    }
    assert_eq!(issuer.requests(), 2, "no token made it ask again");

    // What was counted is written down when the server stops. The key was not there: no signature was looked at.
    server.stop();
    let server = installation.serve();
    let summaries = server.entries("SUMMARY");
    let count: u64 = summaries.iter().map(|entry| entry["result"]["count"].as_u64().unwrap()).sum();
    assert_eq!(count, bad.len() as u64, "{summaries:?}");
    for entry in summaries {
        assert_eq!(entry["result"]["sample"], json!(["unknown-key"]), "{entry}");
    }
}

fn good_keys() -> Vec<Published> {
    let [ed, p256, p384, both] = [Key::ed25519(), Key::p256(), Key::p384(), Key::p256()];
    let own = |kid| own_key().jwk(kid);
    vec![
        published("RS256", own("RS256"), "RS256", |signed| own_key().sign(signed)),
        published("PS256", spoiled(own("PS256"), json!({ "alg": "PS256" })), "PS256", |signed| {
            own_key().sign_pss(signed)
        }),
        published("EdDSA", ed.jwk("EdDSA"), "EdDSA", move |signed| ed.sign(signed)),
        published("ES256", p256.jwk("ES256"), "ES256", move |signed| p256.sign(signed)),
        published("ES384", p384.jwk("ES384"), "ES384", move |signed| p384.sign(signed)),
        // One name for keys of two types: each signs with its own algorithm, and with no other.
        published("both", own("both"), "RS256", |signed| own_key().sign(signed)),
        published("both", both.jwk("both"), "ES256", move |signed| both.sign(signed)),
    ]
}

fn bad_keys() -> Vec<Published> {
    let own = |kid: &'static str, changes: Value| {
        published(kid, spoiled(own_key().jwk(kid), changes), "RS256", |signed| own_key().sign(signed))
    };
    let ec = |kid: &'static str, alg, changes: fn(&Key) -> Value| {
        let key = Key::p256();
        published(kid, spoiled(key.jwk(kid), changes(&key)), alg, move |signed| key.sign(signed))
    };
    let ed = Key::ed25519();
    vec![
        published("RSA-1024", weak_jwk(), "RS256", sign_weakly),
        own("RSA-16384", json!({ "n": encode(&[0xc1; 2048]) })),
        own("RSA-2040", json!({ "n": encode(&[0xc1; 255]) })),
        // Under e = 1 the padded digest is its own signature, which anybody can write.
        published("e=1", spoiled(own_key().jwk("e=1"), json!({ "e": "AQ" })), "RS256", |signed| {
            pad(signed, 256)
        }),
        own("e=3", json!({ "e": "Aw" })),
        own("e even", json!({ "e": "AQAA" })),
        own("e empty", json!({ "e": "" })),
        own("n even", json!({ "n": encode(&[0xc2; 256]) })),
        own("n zero", json!({ "n": encode(&[0; 256]) })),
        own("use enc", json!({ "use": "enc" })),
        own("key_ops encrypt", json!({ "key_ops": ["encrypt", "wrapKey"] })),
        own("key_ops none", json!({ "key_ops": [] })),
        own("alg RS512", json!({ "alg": "RS512" })),
        own("alg PS256", json!({ "alg": "PS256" })),
        own("alg ES256", json!({ "alg": "ES256" })),
        own("alg HS256", json!({ "alg": "HS256" })),
        own("alg none", json!({ "alg": "none" })),
        own("private", json!({ "d": "AQAB" })),
        own("twice", json!({})),
        own("kty EC", json!({ "kty": "EC" })),
        published(
            "oct",
            json!({ "kty": "oct", "kid": "oct", "k": encode(b"a secret that everybody reads"), "use": "sig" }),
            "RS256",
            |signed| own_key().sign(signed),
        ),
        ec("off the curve", "ES256", |_| json!({ "y": Key::p256().jwk("")["y"] })),
        ec("at infinity", "ES256", |_| json!({ "x": encode(&[0; 32]), "y": encode(&[0; 32]) })),
        ec("short point", "ES256", |_| json!({ "x": encode(&[1; 31]) })),
        ec("another curve", "ES256", |_| json!({ "crv": "P-384" })),
        ec("secp256k1", "ES256", |_| json!({ "crv": "secp256k1" })),
        ec("alg ES384", "ES256", |_| json!({ "alg": "ES384" })),
        published("X25519", spoiled(ed.jwk("X25519"), json!({ "crv": "X25519" })), "EdDSA", move |signed| {
            ed.sign(signed)
        }),
    ]
}

fn weak_jwk() -> Value {
    let n = BigUint::parse_bytes(MODULUS_1024, 16).unwrap();
    json!({ "kty": "RSA", "kid": "RSA-1024", "n": encode(&n.to_bytes_be()), "e": "AQAB" })
}

/// RS256 with a key that no library signs with any more.
fn sign_weakly(signed: &[u8]) -> Vec<u8> {
    let number = |digits| BigUint::parse_bytes(digits, 16).unwrap();
    let (n, d) = (number(MODULUS_1024), number(EXPONENT_1024));
    let padded = BigUint::from_bytes_be(&pad(signed, 128));
    let signature = padded.modpow(&d, &n);
    assert_eq!(signature.modpow(&BigUint::from(65_537_u32), &n), padded, "the signature holds");
    let bytes = signature.to_bytes_be();
    [vec![0; 128 - bytes.len()], bytes].concat()
}

/// EMSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 9.2).
fn pad(signed: &[u8], bytes: usize) -> Vec<u8> {
    let info = [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];
    let hash = digest(&SHA256, signed);
    let fill = vec![0xff; bytes - 3 - info.len() - hash.as_ref().len()];
    [[0, 1].as_slice(), &fill, &[0], &info, hash.as_ref()].concat()
}

/// A key made for this test alone.
const MODULUS_1024: &[u8] = b"bdeeb4de1f19c6c3d42a63ecd5a34472ab4324296426acf3ceb8be2f3f4bdc1b331959357cdc83aaa53f92e30b64e2db9063df547d7316fc549d0551331b583383939679c187655f931703dd7331f842f083450c90eb5d6f0db1564384916d150726bd2be381e05f414d30549af8592bb87b280f3ea27cfa93348be0dcb81a8b";
const EXPONENT_1024: &[u8] = b"6c39f91618e2b7401f45886b0bd15ccf7a8767b3ae3ddb8f91dbf38338ae215dde60335527310055dc93bd3f62deb9e62300c5e17f1a759e9318664f3eaff63168dd4e6c6bac3567897bdf0acc1355868fd4f04a937bfdd89fee506210d64f3759eb49aee23d6c0e5c7d2aa14a7cae51a9b23e176fffc01d2af1934013ccc31";

const GRANT: &str = r#"grant: deploy
description: What a deploy of payments needs
allow:
  - name: deploy-from-main
    issuer: ci
    match: { sub: "repo:acme@4216/payments@70155112:environment:production" }
credentials:
  npm:
    sealed: { secret: npm-token }
"#;
