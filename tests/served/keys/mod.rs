//! Issuers' keys (attack class K, and T-04), against the built server: what it asks, whom it asks, what it takes for
//! an answer, and whose jobs feel it when an issuer is away.

mod answers;
mod away;
mod reached;
mod sources;
mod weak;

use serde_json::{Value, json};

use super::support::{Answer, Installation, Server, eventually, hostile_issuer::HostileIssuer};

/// An installation that trusts these issuers; each by name and with more keys of its configuration. The sample
/// policies permit jobs of `ci`. `rest` is the rest of the configuration.
fn trusting(issuers: &[(&str, &HostileIssuer, &str)], rest: &str) -> Installation {
    let installation = Installation::new();
    let mut configuration = rest.to_owned();
    configuration.push_str("issuers:\n");
    for (name, issuer, more) in issuers {
        configuration.push_str(&issuer.configured(name, more));
        installation.write(&format!("policies/issuers/{name}.yaml"), &issuer.policy(name));
    }
    installation.configure(&configuration);
    installation
}

/// Asks for what the sample policies permit.
fn deploy(server: &Server, token: &str) -> Answer {
    server.public.exchange(token, &json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] }))
}

/// What `/readyz` says of an issuer; it is 200 whatever that is.
#[track_caller]
fn standing(server: &Server, issuer: &str) -> Value {
    let body = server.admin.get("/readyz").send().ok();
    let issuers = body["issuers"].as_array().unwrap();
    issuers.iter().find(|each| each["name"] == issuer).unwrap_or_else(|| panic!("{issuer}: {body}")).clone()
}

/// Waits until an issuer's fault, or one of its warnings, holds these words.
#[track_caller]
fn until_told(server: &Server, issuer: &str, words: &str) -> Value {
    eventually(words, || Some(standing(server, issuer)).filter(|told| told.to_string().contains(words)))
}

/// Waits until an issuer has keys and nothing is wrong with it.
#[track_caller]
fn until_well(server: &Server, issuer: &str) {
    let well = |told: &Value| told["ready"] == true && told.get("warnings").is_none();
    eventually("a well issuer", || Some(standing(server, issuer)).filter(well));
}

/// Fetches all keys again, as an operator does.
fn fetch_again(server: &Server) {
    server.hang_up();
}
