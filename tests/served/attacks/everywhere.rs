//! The same verdicts at every endpoint that takes a CI token: what the exchange refuses opens no other door.

use serde_json::{Value, json};

use super::{
    Arena, Case,
    arena::{header, header_with, signed_as},
};
use crate::{
    once::only,
    support::issuer::{foreign_key, now, sign},
};

#[test]
fn spoiled_tokens_are_refused_at_every_endpoint() {
    let mut arena = Arena::new();
    let job = arena.token_with(json!({}));
    let issued = arena.server().public.exchange(&job, &only("npm")).ok()["issuances"][0].clone();
    let path = format!("/v1/issuances/{}", issued["id"].as_str().unwrap());
    let endpoints =
        [("GET", "/v1/whoami"), ("GET", "/v1/grants"), ("GET", path.as_str()), ("DELETE", path.as_str())];

    for (method, path) in endpoints {
        for (code, case) in spoiled(&arena) {
            let answer = arena.server().public.call(method, path).bearer(&case.token).send();
            let case = Case { name: format!("{method} {path}, {}", case.name), ..case };
            arena.refused(&case, &answer, 401, code);
        }
    }

    let client = arena.server().public.clone();
    for path in ["/v1/whoami", "/v1/grants", path.as_str()] {
        client.get(path).bearer(&job).send().ok();
    }
    // The holder's right does not age, and ends with `exp` (section 3 of the contract): the same job, long after.
    let old = arena.token_with(json!({ "iat": now() - 3000 }));
    client.get(&path).bearer(&old).send().ok();
    client.get("/v1/whoami").bearer(&old).send().problem(401, "token_too_old");
    client.call("DELETE", &path).bearer(&old).send().ok();
}

#[test]
fn admins_doors_take_no_jobs_token() {
    let mut arena = Arena::new();
    let token = arena.token_with(json!({}));
    let server = arena.server();

    for path in [
        "/v1/ledger/entries",
        "/v1/ledger/entries/0",
        "/v1/ledger/entries/0/proof",
        "/v1/ledger/checkpoint",
        "/ledger/checkpoint",
        "/ledger/tile/0/000.p/1",
    ] {
        assert_eq!(server.admin.get(path).bearer(&token).send().status, 401, "{path}");
        assert_eq!(server.public.get(path).bearer(&token).send().status, 404, "{path} on the public side");
    }
    assert_eq!(server.admin.call("POST", "/v1/exchange").bearer(&token).json("{}").send().status, 404);
}

/// One token for each code of a token's faults.
fn spoiled(arena: &Arena) -> Vec<(&'static str, Case)> {
    let at = now();
    let with = |spoiled: Value| arena.token_with(spoiled);
    let two = with(json!({}));
    let two = two.rsplit_once('.').unwrap().0.to_owned();
    let none = signed_as(&header_with(json!({ "alg": "none" })), &arena.claims());
    let rows = [
        ("token_malformed", "two segments", two),
        (
            "token_malformed",
            "a critical header",
            signed_as(&header_with(json!({ "crit": ["x"] })), &arena.claims()),
        ),
        ("token_malformed", "no project", with(json!({ "repository_id": null }))),
        ("token_issuer", "another issuer", with(json!({ "iss": "https://evil.test" }))),
        ("token_algorithm", "none", none),
        ("token_signature", "another's key", sign(foreign_key(), &header(), &arena.claims())),
        ("token_audience", "another audience", with(json!({ "aud": "https://other.test" }))),
        ("token_expired", "expired", with(json!({ "iat": at - 400, "exp": at - 60 }))),
        ("token_not_yet_valid", "not yet", with(json!({ "nbf": at + 600 }))),
        ("token_too_old", "of more than a day", with(json!({ "exp": at + 90_000 }))),
    ];
    rows.map(|(code, name, token)| (code, Case::new(name, token))).into()
}
