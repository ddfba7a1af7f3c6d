//! Where keys come from: discovery, a `jwks_uri`, a file; and a file's date.

use std::{fs, os::unix::fs::PermissionsExt as _};

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use serde_json::json;

use super::{deploy, standing, trusting, until_told, until_well};
use crate::support::{
    AUDIENCE, Installation, eventually,
    hostile_issuer::{HostileIssuer, Reply},
    installation::{CANARY, finish},
    issuer::{KID, foreign_key, now, own_key, set, sign, valid_claims},
};

/// An issuer that only its key file speaks for.
const ELSEWHERE: &str = "https://ci.corp.invalid";

#[test]
fn keys_come_by_discovery_by_address_and_from_a_file() {
    let (discovered, pinned, filed) =
        (HostileIssuer::start(), HostileIssuer::start(), HostileIssuer::start());
    pinned.answer_discovery(Reply::Silence);
    let uri = format!(", jwks_uri: \"{}/somewhere/else\"", pinned.url);
    let file = ", jwks_file: keys.json, jwks_valid_until: 2099-12-31";
    let installation =
        trusting(&[("ci", &discovered, ""), ("pinned", &pinned, &uri), ("filed", &filed, file)], "");
    installation.write("keys.json", &json!({ "keys": [HostileIssuer::own_jwk()] }).to_string());
    for name in ["pinned", "filed"] {
        let grant = fs::read_to_string(installation.file("policies/grants/deploy.yaml")).unwrap();
        let grant = grant.replace("grant: deploy", &format!("grant: {name}"));
        installation.write(
            &format!("policies/grants/{name}.yaml"),
            &grant.replace("issuer: ci", &format!("issuer: {name}")),
        );
    }
    let server = installation.serve();
    for (grant, name, issuer) in
        [("deploy", "ci", &discovered), ("pinned", "pinned", &pinned), ("filed", "filed", &filed)]
    {
        until_well(&server, name);
        let ask = json!({ "grants": [{ "name": grant, "credentials": ["npm"] }] });
        let body = server.public.exchange(&issuer.token(), &ask).ok();
        assert_eq!(body["issuances"][0]["fields"]["value"], CANARY, "{name}");
    }
    let paths = |issuer: &HostileIssuer| -> Vec<String> {
        issuer.asked().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(paths(&discovered), ["/.well-known/openid-configuration", "/keys"]);
    assert_eq!(paths(&pinned), ["/somewhere/else"]);
    assert_eq!(filed.connections(), 0, "an issuer with a key file was asked");
}

#[test]
fn an_issuer_with_a_slash_at_its_end_is_another_than_the_one_without() {
    let issuer = HostileIssuer::start();
    let slashed = format!("{}/", issuer.url);
    issuer.answer_discovery(Reply::Json(json!({ "issuer": slashed, "jwks_uri": format!("{slashed}keys") })));
    let installation = trusting(&[("ci", &issuer, "")], "");
    for name in ["hallpass.yaml", "policies/issuers/ci.yaml"] {
        let text = fs::read_to_string(installation.file(name)).unwrap();
        installation.write(name, &text.replace(&issuer.url, &slashed));
    }
    let server = installation.serve();
    until_well(&server, "ci");
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": KID });
    deploy(&server, &sign(own_key(), &header, &valid_claims(&slashed))).ok();
    deploy(&server, &issuer.token()).problem(401, "token_issuer");
    assert!(issuer.asked()[0].starts_with("get /.well-known/openid-configuration "), "{:?}", issuer.asked());
}

/// An installation whose issuer `ci` has its keys in `keys.json`, good until that day.
fn on_disk(until: &str) -> Installation {
    let installation = Installation::new();
    installation.configure(&format!(
        "issuers:\n  ci: {{ url: \"{ELSEWHERE}\", profile: github-actions, jwks_file: keys.json, \
         jwks_valid_until: {until} }}\n"
    ));
    let policy = format!(
        "issuer: ci\nprofile: github-actions\nurl: {ELSEWHERE}\naudience: {AUDIENCE}\nmax_token_age: 10m\n"
    );
    installation.write("policies/issuers/ci.yaml", &policy);
    installation.write("keys.json", &json!({ "keys": [HostileIssuer::own_jwk()] }).to_string());
    installation
}

fn token() -> String {
    sign(own_key(), &json!({ "alg": "RS256", "typ": "JWT", "kid": KID }), &valid_claims(ELSEWHERE))
}

fn day(days_from_now: i64) -> String {
    let today = Timestamp::from_second(now()).unwrap().to_zoned(TimeZone::UTC).date();
    (today + days_from_now.days()).to_string()
}

#[test]
fn an_edited_key_file_is_picked_up_and_a_spoiled_one_is_not() {
    let installation = on_disk("2099-12-31");
    let server = installation.serve();
    until_well(&server, "ci");
    deploy(&server, &token()).ok();

    installation.write("keys.json", "{\"keys\":[");
    until_told(&server, "ci", "is not strict JSON");
    deploy(&server, &token()).ok();

    let mut next = foreign_key().jwk("next");
    set(&mut next, json!({ "use": "sig", "alg": "RS256" }));
    installation.write("keys.json", &json!({ "keys": [next] }).to_string());
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "next" });
    let token_of_next = || sign(foreign_key(), &header, &valid_claims(ELSEWHERE));
    eventually("the next key", || (deploy(&server, &token_of_next()).status == 200).then_some(()));
    deploy(&server, &token()).problem(401, "token_signature");
}

#[test]
fn a_key_file_past_its_date_serves_nobody_and_says_so_beforehand() {
    let soon = on_disk(&day(3));
    let server = soon.serve();
    let told = until_told(&server, "ci", &format!("good until {}", day(3)));
    assert_eq!(told["ready"], true, "{told}");
    deploy(&server, &token()).ok();
    assert!(server.logs().contains("set a later jwks_valid_until"), "the log says so too");
    let checked = finish(&mut soon.command(&["config", "check"]), "");
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(
        checked.status.success() && said.contains("the issuer `ci`: the keys in the file are good until"),
        "{said}"
    );

    // The day itself is included.
    let today = on_disk(&day(0)).serve();
    until_told(&today, "ci", "good until");

    let over = on_disk(&day(-1));
    let server = over.serve();
    let told = until_told(&server, "ci", "the date of the key file is over");
    assert_eq!(told["ready"], false, "{told}");
    let problem = deploy(&server, &token()).problem(503, "issuer_unavailable");
    // At most the cool-down, and the half of it that answers are spread over.
    assert!((1..=90).contains(&problem["retry_after_seconds"].as_u64().unwrap()), "{problem}");
    assert_eq!(server.entries("ISSUED").len(), 0);
}

#[test]
fn a_key_file_that_anybody_may_write_is_told() {
    let installation = on_disk("2099-12-31");
    fs::set_permissions(installation.file("keys.json"), fs::Permissions::from_mode(0o666)).unwrap();
    let server = installation.serve();
    until_told(&server, "ci", "anybody on this machine may write the key file");
    assert_eq!(standing(&server, "ci")["ready"], true);
}
