//! P3: one token, one delivery. And the one way to repeat a call whose answer was lost, the idempotency key.

use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use super::support::{Answer, Client, Installation};

const KEY: &str = "retry-0123456789abcdef";

#[test]
fn same_token_twice_is_replayed() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    server.public.exchange(&token, &deploy()).ok();

    let answer = server.public.exchange(&token, &deploy());

    answer.problem(409, "token_replayed");
    assert_eq!(server.entries("ISSUED").len(), 2, "one for each credential, once");
}

#[test]
fn another_spelling_of_the_signature_is_the_same_token() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    server.public.exchange(&token, &deploy()).ok();

    // 256 bytes end in base64url with two bits that carry nothing: another last letter, the same signature.
    let last = token.chars().last().unwrap();
    let respelled = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        .chars()
        .filter(|letter| *letter != last)
        .map(|letter| format!("{}{letter}", &token[..token.len() - 1]));
    for token in respelled {
        let answer = server.public.exchange(&token, &deploy());
        assert!([401, 409, 429].contains(&answer.status), "{answer:?}");
    }

    assert_eq!(server.entries("ISSUED").len(), 2);
}

#[test]
fn another_credential_with_the_same_token_is_not_replayed() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    server.public.exchange(&token, &only("npm")).ok();

    server.public.exchange(&token, &only("cloud")).ok();
}

#[test]
fn one_used_credential_refuses_all_and_uses_up_none() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    server.public.exchange(&token, &only("npm")).ok();

    server.public.exchange(&token, &deploy()).problem(409, "token_replayed");

    server.public.exchange(&token, &only("cloud")).ok();
}

#[test]
fn fifty_at_once_are_exactly_one_issuance() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = Arc::new(installation.issuer.token());
    // Fetches the issuer's keys, so that all fifty meet at the claim.
    server.public.exchange(&installation.issuer.token(), &only("cloud")).ok();
    let before = server.entries("ISSUED").len();

    let statuses = at_once(50, &server.public, move |client| client.exchange(&token, &only("npm")));

    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    // A false answer of any other kind would make a job fail that did nothing wrong; five replays spend a token.
    assert!(statuses.iter().all(|status| [200, 409, 429].contains(status)), "{statuses:?}");
    assert_eq!(server.entries("ISSUED").len() - before, 1);
}

#[test]
fn fifty_different_tokens_at_once_are_fifty_issuances() {
    let installation = Installation::new();
    let server = installation.serve();
    let tokens: Arc<std::sync::Mutex<Vec<String>>> =
        Arc::new(std::sync::Mutex::new((0..50).map(|_| installation.issuer.token()).collect()));

    let statuses = at_once(50, &server.public, move |client| {
        let token = tokens.lock().unwrap().pop().unwrap();
        client.exchange(&token, &only("npm"))
    });

    assert_eq!(statuses, [200; 50]);
    assert_eq!(server.entries("ISSUED").len(), 50);
}

#[test]
fn still_replayed_after_a_restart() {
    let installation = Installation::new();
    let token = installation.issuer.token();
    let server = installation.serve();
    server.public.exchange(&token, &deploy()).ok();
    server.stop();

    let server = installation.serve();

    server.public.exchange(&token, &deploy()).problem(409, "token_replayed");
}

#[test]
fn still_replayed_after_a_crash() {
    let installation = Installation::new();
    let token = installation.issuer.token();
    let server = installation.serve();
    server.public.exchange(&token, &deploy()).ok();
    server.crash();

    let server = installation.serve();

    server.public.exchange(&token, &deploy()).problem(409, "token_replayed");
}

#[test]
fn five_replays_spend_a_token() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    server.public.exchange(&token, &only("npm")).ok();
    for _ in 0..5 {
        server.public.exchange(&token, &only("npm")).problem(409, "token_replayed");
    }

    // Even what it never used is out of its reach now.
    server.public.exchange(&token, &only("cloud")).problem(429, "rate_limited");
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
}

#[test]
fn keyed_retry_is_issued_anew_at_most_twice() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();

    let answers = [(); 3].map(|()| keyed(&server.public, &token, KEY, &only("npm")).ok());

    let mut ids = answers.map(|body| body["issuances"][0]["id"].as_str().unwrap().to_owned());
    ids.sort();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "each is recorded as its own: {ids:?}");
    assert_eq!(server.entries("ISSUED").len(), 3);
    keyed(&server.public, &token, KEY, &only("npm")).problem(409, "token_replayed");
}

#[test]
fn retry_without_its_key_is_replayed() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    keyed(&server.public, &token, KEY, &only("npm")).ok();

    server.public.exchange(&token, &only("npm")).problem(409, "token_replayed");
    keyed(&server.public, &token, "another-key-0123456789", &only("npm")).problem(409, "token_replayed");

    keyed(&server.public, &token, KEY, &only("npm")).ok();
}

#[test]
fn same_key_with_another_body_is_a_mismatch() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    keyed(&server.public, &token, KEY, &only("npm")).ok();

    keyed(&server.public, &token, KEY, &only("cloud")).problem(422, "idempotency_mismatch");

    // It claimed nothing, and the first call's retry still works.
    keyed(&server.public, &token, KEY, &only("npm")).ok();
}

#[test]
fn key_belongs_to_one_token() {
    let installation = Installation::new();
    let server = installation.serve();
    keyed(&server.public, &installation.issuer.token(), KEY, &only("npm")).ok();

    keyed(&server.public, &installation.issuer.token(), KEY, &only("cloud")).ok();
}

#[test]
fn keyed_retry_outlives_a_restart() {
    let installation = Installation::new();
    let token = installation.issuer.token();
    let server = installation.serve();
    keyed(&server.public, &token, KEY, &only("npm")).ok();
    server.crash();

    let server = installation.serve();

    keyed(&server.public, &token, KEY, &only("npm")).ok();
}

#[test]
fn keyed_retry_is_decided_anew() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    keyed(&server.public, &token, KEY, &only("npm")).ok();
    let denied = only("npm").to_string();
    std::fs::remove_file(installation.file("policies/grants/deploy.yaml")).unwrap();
    server.hang_up();
    super::support::eventually("the grant to be gone", || {
        let body = server.public.get("/v1/grants").bearer(&installation.issuer.token()).send().ok();
        (!body.to_string().contains("deploy")).then_some(())
    });

    let retry = server
        .public
        .call("POST", "/v1/exchange")
        .bearer(&token)
        .header("idempotency-key", KEY)
        .json(&denied);

    retry.send().problem(403, "access_denied");
}

#[test]
fn wholly_failed_call_leaves_no_key_behind() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let lost = json!({ "grants": ["lost"] });
    for _ in 0..4 {
        keyed(&server.public, &token, KEY, &lost).problem(502, "backend_failed");
    }

    // Neither the retries nor the body of a failed call are remembered.
    keyed(&server.public, &token, KEY, &only("npm")).ok();
}

#[test]
fn malformed_key_is_refused_before_anything_is_decided() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let long = "k".repeat(65);
    for key in ["", "short", "fifteen-letters", long.as_str(), "a key with spaces in it"] {
        keyed(&server.public, &token, key, &only("npm")).problem(400, "request_malformed");
    }
    assert_eq!(server.entries("ISSUED").len(), 0);

    for key in ["exactly-sixteen-", "k".repeat(64).as_str()] {
        keyed(&server.public, &installation.issuer.token(), key, &only("npm")).ok();
    }
}

#[test]
fn keyed_calls_at_once_never_answer_falsely() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = Arc::new(installation.issuer.token());
    server.public.exchange(&installation.issuer.token(), &only("cloud")).ok();

    let statuses = at_once(8, &server.public, move |client| keyed(client, &token, KEY, &only("npm")));

    // The first and at most two retries are issued; the rest find it running or used up.
    let issued = statuses.iter().filter(|status| **status == 200).count();
    assert!((1..=3).contains(&issued), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 409, 429].contains(status)), "{statuses:?}");
}

#[test]
fn given_back_issuance_ends_retries() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let body = keyed(&server.public, &token, KEY, &only("npm")).ok();
    let issuance = &body["issuances"][0];
    let path = format!("/v1/issuances/{}", issuance["id"].as_str().unwrap());
    server.public.call("DELETE", &path).bearer(issuance["handle"].as_str().unwrap()).send().ok();

    keyed(&server.public, &token, KEY, &only("npm")).problem(409, "token_replayed");
}

pub(crate) fn deploy() -> Value {
    json!({ "grants": ["deploy"] })
}

pub(crate) fn only(credential: &str) -> Value {
    json!({ "grants": [{ "name": "deploy", "credentials": [credential] }] })
}

pub(crate) fn keyed(client: &Client, token: &str, key: &str, body: &Value) -> Answer {
    client.exchanging(token, body).header("idempotency-key", key).send()
}

/// Sends from so many threads at once and answers the statuses.
pub(crate) fn at_once(
    many: usize,
    client: &Client,
    send: impl Fn(&Client) -> Answer + Send + Sync + 'static,
) -> Vec<u16> {
    let (start, send) = (Arc::new(Barrier::new(many)), Arc::new(send));
    let threads: Vec<_> = (0..many)
        .map(|_| {
            let (start, send, client) = (Arc::clone(&start), Arc::clone(&send), client.clone());
            std::thread::spawn(move || {
                start.wait();
                send(&client).status
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}
