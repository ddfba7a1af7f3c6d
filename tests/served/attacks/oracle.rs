//! O, and P8: what a refusal tells by its words and its headers; by its time is `tests/timing.rs`. The five denials that
//! end probing (O-04) are with the replays.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Arena, Case,
    arena::{header_with, signed_as},
};
use crate::support::{
    Answer, Installation,
    issuer::{KID, foreign_key, sign},
    situations::{PERMITTED, SITUATIONS, install},
};

#[test]
fn o01_refusals_by_policy_are_equal_in_every_byte_but_the_decision() {
    let installation = Installation::new();
    install(&installation);
    let server = installation.serve();
    let issuer = &installation.issuer;
    let event = |name: &str| issuer.token_with(json!({ "event_name": name }));
    let tokens = [
        ("by the job itself", issuer.token()),
        ("by a dangerous trigger", event("pull_request_target")),
        ("by an unknown trigger", event("brand_new_event")),
        ("from another branch", issuer.token_with(json!({ "ref": "refs/heads/dev" }))),
        (
            "with claims of another type",
            issuer.token_with(json!({ "environment": 7, "event_name": ["push"] })),
        ),
        (
            "of another project",
            issuer.token_with(json!({ "repository_id": "999999", "repository": "acme/other" })),
        ),
        (
            "of another tenant",
            issuer.token_with(json!({ "repository_owner_id": "1", "repository_owner": "evil" })),
        ),
    ];
    let more = [
        ("one permitted and one not", r#"{"grants":["g-allowed","g-foreign"]}"#),
        ("one not and one permitted", r#"{"grants":["g-missing","g-allowed"]}"#),
        ("all credentials", r#"{"grants":["g-foreign"]}"#),
        ("a lifetime", r#"{"grants":[{"name":"g-foreign","ttl_seconds":1}]}"#),
        ("an input", r#"{"grants":[{"name":"g-foreign","inputs":{"npm":{"csr":"x"}}}]}"#),
        ("a dry run", r#"{"grants":["g-foreign"],"dry_run":true}"#),
        ("a reason", r#"{"grants":["g-foreign"],"reason":"please"}"#),
        ("eight grants", r#"{"grants":["a","b","c","d","e","f","g","h"]}"#),
    ];
    let ask =
        |token: &str, body: &str| server.public.call("POST", "/v1/exchange").bearer(token).json(body).send();
    let reference = seen(&ask(&issuer.token(), SITUATIONS[0].1));

    for (name, body) in SITUATIONS.iter().chain(&more) {
        assert_eq!(seen(&ask(&issuer.token(), body)), reference, "{name}");
    }
    for (name, token) in tokens.iter().skip(1) {
        assert_eq!(seen(&ask(token, SITUATIONS[2].1)), reference, "another project's, {name}");
        assert_eq!(seen(&ask(token, SITUATIONS[0].1)), reference, "no such grant, {name}");
    }
    assert_eq!(reference.0, 403);
    let reasons: BTreeSet<String> = server
        .entries("DENIED")
        .iter()
        .map(|entry| entry["result"]["reason"].as_str().unwrap().to_owned())
        .collect();
    let told = ["disabled", "guardrail", "lapsed", "no-rule", "no-such-credential", "no-such-grant"];
    assert!(told.iter().all(|reason| reasons.contains(*reason)), "the ledger tells them apart: {reasons:?}");
    assert_eq!(ask(&issuer.token(), PERMITTED).status, 200, "what is permitted is");
}

#[test]
fn o01_what_policy_would_say_changes_nothing_else_either() {
    let installation = Installation::new();
    install(&installation);
    let server = installation.serve();
    // Listed is what this token may use now: nothing that is disabled, lapsed or another's, by no name and no count.
    let body = server.public.get("/v1/grants").bearer(&installation.issuer.token()).send().ok();

    let names: Vec<&str> =
        body["grants"].as_array().unwrap().iter().map(|grant| grant["name"].as_str().unwrap()).collect();

    assert_eq!(names, ["deploy", "g-allowed", "lost"]);
    for method in ["GET", "DELETE"] {
        let call = |id: &str| {
            let path = format!("/v1/issuances/{id}");
            server.public.call(method, &path).bearer(&installation.issuer.token()).send()
        };
        let issued = server.only(&installation.issuer.token(), "npm");
        let foreign = installation.issuer.token_with(json!({ "run_id": "7" }));
        let path = format!("/v1/issuances/{}", issued["id"].as_str().unwrap());
        let others = server.public.call(method, &path).bearer(&foreign).send();
        let reference = seen(&others);
        assert_eq!(reference.0, 404);
        for id in [
            "iss_00000000000000000000000000",
            "iss_zzzzzzzzzzzzzzzzzzzzzzzzzz",
            "x",
            "iss_",
            "dec_00000000000000000000000000",
        ] {
            assert_eq!(seen(&call(id)), reference, "{method} {id}");
        }
    }
}

#[test]
fn o02_a_bad_token_tells_nothing_of_whom_we_trust() {
    let mut arena = Arena::new();
    let claims = arena.claims();
    let stranger = arena.claims_with(json!({ "iss": "https://ci.other.test" }));
    let known_key = signed_as(&super::arena::header(), &stranger);
    let cases = [
        Case::new("signed by a trusted issuer's key", known_key),
        Case::new("signed by nobody's", sign(foreign_key(), &header_with(json!({ "kid": KID })), &stranger)),
        Case::new("under a name that nobody has", signed_as(&header_with(json!({ "kid": "x" })), &stranger)),
        Case::new(
            "with an algorithm that nobody has",
            signed_as(&header_with(json!({ "alg": "none" })), &stranger),
        ),
    ];

    let told = cases.clone().map(|case| seen(&arena.exchange(&case.token, "deploy")));

    for (case, told_it) in cases.iter().zip(&told) {
        assert_eq!(told_it, &told[0], "{}", case.name);
    }
    assert_eq!(told[0].0, 401);
    arena.permitted("deploy", &[Case::new("unspoiled", signed_as(&super::arena::header(), &claims))]);
}

#[test]
fn o03_garbage_keeps_nobody_out() {
    let mut arena = Arena::new();
    let garbage = arena.installation.issuer.token().replace('.', ".A");
    let unsigned = sign(foreign_key(), &super::arena::header(), &arena.claims());
    let token = arena.token_with(json!({}));
    let client = arena.server().public.clone();
    let body = json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] });
    let flood = |token: &str| (0..100).map(|_| client.exchange(token, &body).status).collect::<Vec<u16>>();

    let statuses = std::thread::scope(|scope| {
        let floods = [&garbage, &unsigned, &garbage, &unsigned].map(|token| scope.spawn(|| flood(token)));
        assert_eq!(client.exchange(&token, &body).status, 200, "a job among strangers");
        floods.map(|flood| flood.join().unwrap()).concat()
    });

    assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
    let entries = arena.restart().entries("SUMMARY");
    let counted: u64 = entries.iter().map(|entry| entry["result"]["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 400, "each is counted, and none is an entry: {entries:?}");
}

#[test]
fn o05_whoever_must_come_back_is_told_when() {
    let mut arena = Arena::new();
    arena.server();
    arena.stop();
    arena.installation.issuer.go_down();
    let token = arena.token_with(json!({}));

    let answer = arena.exchange(&token, "deploy");

    let case = Case::new("the issuer is down", token);
    let told = arena.refused(&case, &answer, 503, "issuer_unavailable");
    assert!(told["retry_after_seconds"].as_u64().unwrap() >= 1, "{told}");
    let other = Case::new("another issuer is up", arena.other.token());
    let answer = arena.exchange(&other.token, "deploy");
    arena.refused(&other, &answer, 403, "access_denied");
}

/// All that a caller can compare: status, headers and body but for the day and the ids.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, Value) {
    let names = answer.headers.keys().filter(|name| *name != "date");
    let mut headers: Vec<_> =
        names.map(|name| (name.to_string(), answer.header(name.as_str()).to_owned())).collect();
    headers.sort();
    let mut body = answer.json();
    for id in ["decision_id", "request_id"] {
        if let Some(id) = body.get_mut(id) {
            assert_eq!(id.take().as_str().unwrap().len(), 30);
        }
    }
    (answer.status, headers, body)
}
