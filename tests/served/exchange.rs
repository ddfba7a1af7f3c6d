//! What an exchange answers: the whole shape of a permit, what a dry run says, and how little a refusal does.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::support::{AUDIENCE, Installation, installation::CANARY};

#[test]
fn permitted_job_gets_every_credential_of_its_grant() {
    let installation = Installation::new();
    let server = installation.serve();

    let answer =
        server.public.exchange(&installation.issuer.token(), &json!({ "grants": [{ "name": "deploy" }] }));

    let body = answer.ok();
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(members(&body), ["decision_id", "issuances", "receipts"]);
    assert!(is_id(&body["decision_id"], "dec_"), "{body}");
    let issuances = body["issuances"].as_array().unwrap();
    assert_eq!(issuances.len(), 2, "{body}");
    for issuance in issuances {
        assert_eq!(
            members(issuance),
            [
                "credential",
                "expires_at",
                "fields",
                "grant",
                "handle",
                "id",
                "issued_at",
                "kind",
                "lifetime",
                "revocable",
                "secret_fields",
                "ttl_seconds",
            ]
        );
        assert!(is_id(&issuance["id"], "iss_"), "{issuance}");
        let handle = issuance["handle"].as_str().unwrap();
        assert!(handle.starts_with("hdl_") && handle.len() == 56, "{handle}");
        assert_eq!(issuance["grant"], "deploy");
    }
}

#[test]
fn sealed_credential_is_honestly_called_static() {
    let installation = Installation::new();
    let server = installation.serve();

    let issuance = server.only(&installation.issuer.token(), "npm");

    assert_eq!(issuance["kind"], "sealed");
    assert_eq!(issuance["fields"], json!({ "value": CANARY }));
    assert_eq!(issuance["secret_fields"], json!(["value"]));
    assert_eq!(issuance["lifetime"], "static");
    assert_eq!(issuance["expires_at"], Value::Null);
    assert_eq!(issuance["ttl_seconds"], Value::Null);
    assert_eq!(issuance["revocable"], false);
}

#[test]
fn sealed_json_is_delivered_as_several_fields() {
    let installation = Installation::new();
    let value = r#"{"username":"deployer","password":"p4ss"}"#;
    super::support::installation::run(
        &mut installation.command(&["secret", "set", "npm-token", "--json"]),
        value,
    );
    let server = installation.serve();

    let issuance = server.only(&installation.issuer.token(), "npm");

    assert_eq!(issuance["fields"], json!({ "username": "deployer", "password": "p4ss" }));
}

#[test]
fn assertion_ends_when_it_says() {
    let installation = Installation::new();
    let server = installation.serve();

    let issuance = server.only(&installation.issuer.token(), "cloud");

    assert_eq!(issuance["kind"], "oidc");
    assert_eq!(issuance["lifetime"], "fixed");
    assert_eq!(issuance["ttl_seconds"], 300);
    let [issued, expires] = ["issued_at", "expires_at"]
        .map(|member| issuance[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second());
    assert!((299..=301).contains(&(expires - issued)), "{issuance}");
    let field = issuance["secret_fields"][0].as_str().unwrap();
    let claims = payload(issuance["fields"][field].as_str().unwrap());
    assert_eq!(claims["iss"], AUDIENCE);
    assert_eq!(claims["sub"], "grant:deploy");
    assert_eq!(claims["aud"], "https://cloud.test");
    assert_eq!(claims["exp"], expires, "{claims}");
}

#[test]
fn requested_lifetime_only_narrows() {
    let installation = Installation::new();
    let server = installation.serve();
    for (asked, given) in [(120, 120), (86_400, 300)] {
        let ask = json!({ "grants": [{ "name": "deploy", "credentials": ["cloud"], "ttl_seconds": asked }] });

        let body = server.public.exchange(&installation.issuer.token(), &ask).ok();

        assert_eq!(body["issuances"][0]["ttl_seconds"], given, "{body}");
    }
}

#[test]
fn receipts_hold_the_issued_entries() {
    let installation = Installation::new();
    let server = installation.serve();

    let body = server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["deploy"] })).ok();

    let receipts = body["receipts"].as_array().unwrap();
    assert_eq!(receipts.len(), 2, "{body}");
    for (receipt, issuance) in receipts.iter().zip(body["issuances"].as_array().unwrap()) {
        assert_eq!(members(receipt), ["entry", "index", "issuance", "proof"]);
        assert_eq!(receipt["issuance"], issuance["id"]);
        let entry: Value =
            serde_json::from_slice(&STANDARD.decode(receipt["entry"].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!(entry["code"], "ISSUED");
        assert_eq!(entry["issuance"], issuance["id"]);
        assert!(receipt["proof"].as_str().unwrap().starts_with("c2sp.org/tlog-proof@v1\n"), "{receipt}");
    }
}

#[test]
fn dry_run_decides_records_and_gives_nothing() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();

    let body = server.public.exchange(&token, &json!({ "grants": ["deploy"], "dry_run": true })).ok();

    assert_eq!(members(&body), ["decision_id", "dry_run", "issuances", "receipts"]);
    assert_eq!(body["dry_run"], true);
    assert_eq!(body["receipts"], json!([]));
    assert_eq!(
        members(&body["issuances"][0]),
        ["credential", "grant", "kind", "lifetime", "revocable", "ttl_seconds"]
    );
    assert_eq!(server.entries("DRY_RUN").len(), 1);
    assert_eq!(server.entries("ISSUED").len(), 0);
    // Nothing was claimed: the token is as good as before.
    server.public.exchange(&token, &json!({ "grants": ["deploy"] })).ok();
}

#[test]
fn whatever_policy_does_not_permit_looks_the_same() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuer = &installation.issuer;
    let refused = [
        ("no such grant", issuer.token(), json!({ "grants": ["no-such-grant"] })),
        (
            "no such credential",
            issuer.token(),
            json!({ "grants": [{ "name": "deploy", "credentials": ["x"] }] }),
        ),
        ("another's grant", issuer.token(), json!({ "grants": ["other-team"] })),
        (
            "another branch",
            issuer.token_with(json!({ "ref": "refs/heads/dev" })),
            json!({ "grants": ["deploy"] }),
        ),
        (
            "dangerous trigger",
            issuer.token_with(json!({ "event_name": "pull_request_target" })),
            json!({ "grants": ["deploy"] }),
        ),
        (
            "wrong type of a claim",
            issuer.token_with(json!({ "ref": ["refs/heads/main"] })),
            json!({ "grants": ["deploy"] }),
        ),
        ("one permitted, one not", issuer.token(), json!({ "grants": ["deploy", "other-team"] })),
    ];
    let bodies = refused.map(|(name, token, ask)| {
        let answer = server.public.exchange(&token, &ask);
        let mut body = answer.problem(403, "access_denied");
        assert!(is_id(&body["decision_id"].take(), "dec_"), "{name}: {answer:?}");
        (name, body, header_names(&answer))
    });

    for (name, body, headers) in &bodies {
        assert_eq!((body, headers), (&bodies[0].1, &bodies[0].2), "{name}");
    }
    assert_eq!(server.entries("DENIED").len(), bodies.len());
}

#[test]
fn missing_sealed_secret_is_a_failed_backend_and_claims_nothing() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();

    server.public.exchange(&token, &json!({ "grants": ["lost"] })).problem(502, "backend_failed");

    let failed = server.entries("FAILED");
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["result"]["minted"], false);
    installation.set_secret("never-set", "found again");
    let body = server.public.exchange(&token, &json!({ "grants": ["lost"] })).ok();
    assert_eq!(body["issuances"][0]["fields"]["value"], "found again");
}

#[test]
fn one_missing_secret_fails_the_whole_decision() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();

    let answer = server.public.exchange(&token, &json!({ "grants": ["deploy", "lost"] }));

    answer.problem(502, "backend_failed");
    assert!(!answer.body.contains(CANARY));
    assert_eq!(server.entries("ISSUED").len(), 0);
    server.public.exchange(&token, &json!({ "grants": ["deploy"] })).ok();
}

#[test]
fn whoami_tells_a_job_what_its_token_says() {
    let installation = Installation::new();
    let server = installation.serve();

    let body = server.public.get("/v1/whoami").bearer(&installation.issuer.token()).send().ok();

    assert_eq!(
        members(&body),
        [
            "actor",
            "claims",
            "environment",
            "expires_at",
            "issuer",
            "job_key",
            "profile",
            "project",
            "ref",
            "run",
            "runner",
            "subject",
            "tenant",
            "trigger",
            "unusable",
        ]
    );
    assert_eq!(body["issuer"], "ci");
    assert_eq!(body["profile"], "github-actions");
    assert_eq!(body["subject"], "repo:acme@4216/payments@70155112:environment:production");
    assert_eq!(body["claims"]["repository_id"], "70155112");
    assert_eq!(body["ref"], "refs/heads/main");
}

#[test]
fn grants_lists_what_this_token_may_use_and_nothing_else() {
    let installation = Installation::new();
    let server = installation.serve();

    let body = server.public.get("/v1/grants").bearer(&installation.issuer.token()).send().ok();

    let expected = json!({ "grants": [
        { "name": "deploy", "description": "What a deploy of payments needs", "credentials": [
            { "name": "cloud", "kind": "oidc", "max_ttl_seconds": 300 },
            { "name": "npm", "kind": "sealed", "max_ttl_seconds": null },
        ] },
        { "name": "lost", "description": "Its secret was never set", "credentials": [
            { "name": "gone", "kind": "sealed", "max_ttl_seconds": null },
        ] },
    ] });
    assert_eq!(body, expected);
}

#[test]
fn answers_need_no_policy_to_say_that_the_process_lives() {
    let installation = Installation::new();
    let server = installation.serve();

    assert_eq!(server.public.get("/livez").send().status, 200);
}

/// The names of an object's members, sorted.
pub(crate) fn members(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// The payload of a JWT, unverified.
pub(crate) fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn is_id(value: &Value, prefix: &str) -> bool {
    let rest = value.as_str().and_then(|text| text.strip_prefix(prefix)).unwrap_or("");
    rest.len() == 26 && rest.chars().all(|each| "0123456789abcdefghjkmnpqrstvwxyz".contains(each))
}

fn header_names(answer: &super::support::Answer) -> Vec<(String, String)> {
    let of = |name: &str| (name.to_owned(), answer.header(name).to_owned());
    let mut headers: Vec<_> =
        answer.headers.keys().filter(|name| *name != "date").map(|name| of(name.as_str())).collect();
    headers.sort();
    headers
}
