//! `POST /v1/token` as OAuth clients meet it (RFC 8693): one grant, one credential, one secret, and refusals in
//! OAuth's words. Two libraries of other languages speak for all of them.

use std::fs;

use serde_json::{Value, json};

use super::support::{
    Answer, Installation, Server,
    installation::{CANARY, run},
    npm::Script,
    python,
};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const SECRET: &str = "urn:hallpass:token-type:secret";

/// A request that is answered with the sealed secret of the sample grant.
fn good(token: &str) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", GRANT_TYPE.to_owned()),
        ("subject_token", token.to_owned()),
        ("subject_token_type", JWT.to_owned()),
        ("audience", "deploy".to_owned()),
        ("scope", "npm".to_owned()),
    ]
}

fn encoded(form: &[(&str, String)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(form).finish()
}

fn post(server: &Server, body: &str) -> Answer {
    let call = server.public.call("POST", "/v1/token");
    call.header("content-type", "application/x-www-form-urlencoded").body(body).send()
}

/// The request with one parameter said otherwise.
fn spoilt(token: &str, name: &'static str, value: &str) -> String {
    let mut form = good(token);
    form.retain(|(each, _)| *each != name);
    form.push((name, value.to_owned()));
    encoded(&form)
}

/// A refusal in OAuth's words (RFC 6749 section 5.2).
#[track_caller]
fn refused(answer: &Answer, status: u16, error: &str, code: &str) -> Value {
    let body = answer.json();
    let told = (answer.status, body["error"].as_str(), body["code"].as_str());
    assert_eq!(told, (status, Some(error), Some(code)), "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let description = body["error_description"].as_str().unwrap();
    assert!(description.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'));
    body
}

#[test]
fn one_secret_is_a_token_answer() {
    let installation = Installation::new();
    let server = installation.serve();

    let answer = post(&server, &encoded(&good(&installation.issuer.token())));

    let body = answer.ok();
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(body["access_token"], CANARY);
    assert_eq!(body["issued_token_type"], SECRET);
    assert_eq!(body["token_type"], "N_A");
    assert_eq!(body.get("expires_in"), None, "a static secret has no end");
    let (id, handle) = (body["issuance_id"].as_str().unwrap(), body["handle"].as_str().unwrap());
    let issuance = server.public.get(&format!("/v1/issuances/{id}")).bearer(handle).send().ok();
    assert_eq!((issuance["grant"].as_str(), issuance["state"].as_str()), (Some("deploy"), Some("live")));
    assert_eq!(server.entries("ISSUED").len(), 1);
}

#[test]
fn assertion_is_a_jwt_with_its_time() {
    let installation = Installation::new();
    let server = installation.serve();

    let body = post(&server, &spoilt(&installation.issuer.token(), "scope", "cloud")).ok();

    assert_eq!(body["issued_token_type"], JWT);
    assert_eq!(body["expires_in"], 300);
    assert_eq!(body["access_token"].as_str().unwrap().split('.').count(), 3);
}

#[test]
fn whatever_is_no_permit_is_one_invalid_target() {
    let installation = Installation::new();
    run(
        &mut installation.command(&["secret", "set", "npm-token", "--json"]),
        r#"{"user":"u","password":"p"}"#,
    );
    let server = installation.serve();
    let cases = [
        ("audience", "other-team", "no-rule"),
        ("audience", "no-such-grant", "no-such-grant"),
        ("scope", "no-such-credential", "no-such-credential"),
        // The grant has two credentials.
        ("scope", "", "several-credentials"),
        ("scope", "cloud npm", "several-credentials"),
        // The secret has two fields.
        ("scope", "npm", "not-one-secret-field"),
    ];
    let mut told = Vec::new();
    for (name, value, reason) in cases {
        let token = installation.issuer.token();

        let mut body =
            refused(&post(&server, &spoilt(&token, name, value)), 400, "invalid_target", "access_denied");

        let decision = body.as_object_mut().unwrap().remove("decision_id").unwrap();
        told.push(body);
        let entry = &server.entries("DENIED")[0];
        assert_eq!((&entry["decision"], &entry["result"]["reason"]), (&decision, &json!(reason)), "{entry}");
    }
    told.dedup();
    assert_eq!(told.len(), 1, "they can be told apart: {told:?}");
    assert!(server.entries("INTENT").is_empty());
}

#[test]
fn what_does_not_fit_leaves_the_tokens_use_alone() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();

    refused(&post(&server, &spoilt(&token, "scope", "")), 400, "invalid_target", "access_denied");

    post(&server, &encoded(&good(&token))).ok();
}

#[test]
fn request_at_fault_is_told_so_in_oauths_words() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let with = |name, value: &str| spoilt(&token, name, value);
    let without =
        |name| encoded(&good(&token).into_iter().filter(|(each, _)| *each != name).collect::<Vec<_>>());
    let access_token = "urn:ietf:params:oauth:token-type:access_token";
    let cases = [
        (with("grant_type", "client_credentials"), "unsupported_grant_type", "request_malformed"),
        (without("grant_type"), "invalid_request", "request_malformed"),
        (without("subject_token"), "invalid_request", "token_missing"),
        (with("subject_token", ""), "invalid_request", "token_missing"),
        (with("subject_token", "garbage"), "invalid_request", "token_malformed"),
        (without("subject_token_type"), "invalid_request", "request_malformed"),
        (with("subject_token_type", access_token), "invalid_request", "request_malformed"),
        (without("audience"), "invalid_request", "request_malformed"),
        (with("audience", "https://cloud.test"), "invalid_request", "request_malformed"),
        (with("scope", "npm npm"), "invalid_request", "request_malformed"),
        (with("resource", "https://cloud.test"), "invalid_request", "request_malformed"),
        (with("actor_token", &token), "invalid_request", "request_malformed"),
        (with("requested_token_type", access_token), "invalid_request", "request_malformed"),
        (with("requested_token_type", JWT), "invalid_request", "input_invalid"),
        (format!("{}&scope=npm", encoded(&good(&token))), "invalid_request", "request_malformed"),
        (format!("{}&audience=deploy", encoded(&good(&token))), "invalid_request", "request_malformed"),
    ];
    for (body, error, code) in cases {
        refused(&post(&server, &body), 400, error, code);
    }
    let keyed = |key| {
        let call = server.public.call("POST", "/v1/token").header("idempotency-key", key);
        call.header("content-type", "application/x-www-form-urlencoded").body(&encoded(&good(&token))).send()
    };
    refused(&keyed("short"), 400, "invalid_request", "request_malformed");
    let bearer = server.public.call("POST", "/v1/token").bearer(&token);
    let bearer = bearer.header("content-type", "application/x-www-form-urlencoded");
    refused(&bearer.body(&encoded(&good(&token))).send(), 400, "invalid_request", "request_malformed");
    // None of it used the token up; parameters that are not ours are no fault.
    post(&server, &format!("{}&client_id=a-job&requested_token_type={SECRET}", encoded(&good(&token)))).ok();
}

#[test]
fn used_subject_token_is_an_invalid_request_and_a_keyed_retry_is_not() {
    let installation = Installation::new();
    let server = installation.serve();
    let body = encoded(&good(&installation.issuer.token()));
    let keyed = |body: &str| {
        let call = server.public.call("POST", "/v1/token").header("idempotency-key", "0123456789abcdef");
        call.header("content-type", "application/x-www-form-urlencoded").body(body).send()
    };

    let first = keyed(&body).ok();
    let second = keyed(&body).ok();

    assert_ne!(first["issuance_id"], second["issuance_id"]);
    refused(&post(&server, &body), 400, "invalid_request", "token_replayed");
    refused(&keyed(&format!("{body}&client_id=x")), 400, "invalid_request", "idempotency_mismatch");
}

#[test]
fn http_itself_at_fault_is_a_problem_document_as_elsewhere() {
    let installation = Installation::new();
    let server = installation.serve();
    let body = encoded(&good(&installation.issuer.token()));
    let typed = |media: &str, body: &str| {
        server.public.call("POST", "/v1/token").header("content-type", media).body(body).send()
    };

    server.public.get("/v1/token").send().problem(405, "method_not_allowed");
    server.public.call("POST", "/v1/token/").send().problem(404, "not_found");
    typed("application/json", &body).problem(415, "unsupported_media_type");
    typed("application/x-www-form-urlencoded", &"x".repeat(33_000)).problem(413, "request_too_large");
    let url = format!("/v1/token?subject_token={}", installation.issuer.token());
    let in_url = server.public.call("POST", &url).header("content-type", "application/x-www-form-urlencoded");
    refused(&in_url.body(&body).send(), 400, "invalid_request", "request_malformed");
}

#[test]
fn what_may_pass_keeps_its_status_and_its_header() {
    let installation = Installation::new();
    let configuration = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let strict = configuration.replace("per_source_per_second: 100000", "per_source_per_second: 1");
    assert_ne!(configuration, strict);
    installation.write("hallpass.yaml", &strict);
    let server = installation.serve();

    let shed = super::support::eventually("a request too many", || {
        let answer = post(&server, "grant_type=x");
        (answer.status == 429).then_some(answer)
    });

    let body = refused(&shed, 429, "temporarily_unavailable", "rate_limited");
    assert_eq!(shed.header("retry-after"), body["retry_after_seconds"].to_string());
}

#[test]
fn npm_oauth4webapi_gets_a_token_and_understands_a_refusal() {
    let library = Script::start("exchange.mjs", &[], &[]);
    exchanges_once(library);
}

#[test]
fn authlib_gets_a_token_and_understands_a_refusal() {
    exchanges_once(python::start("oauth/exchange.py"));
}

fn exchanges_once(mut library: Script) {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let mut ask = json!({
        "url": format!("http://{}/v1/token", server.public.address),
        "parameters": {
            "subject_token": token, "subject_token_type": JWT, "audience": "deploy", "scope": "npm",
        },
    });

    let first = library.ask(&ask);
    let second = library.ask(&ask);
    ask["parameters"]["audience"] = json!("other-team");
    let denied = library.ask(&ask);

    assert_eq!(first["token"]["access_token"], CANARY, "{first}");
    assert_eq!(first["token"]["issued_token_type"], SECRET, "{first}");
    assert!(first["token"]["handle"].as_str().unwrap().starts_with("hdl_"), "{first}");
    assert_eq!(second["error"], "invalid_request", "{second}");
    assert_eq!(denied["error"], "invalid_target", "{denied}");
    assert!(denied["description"].as_str().unwrap().contains("policies"), "{denied}");
}
