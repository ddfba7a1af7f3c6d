//! Limits of grants and uses of a token, as jobs meet them: what is over is 429 with a time to come back, takes
//! nothing, and stands in the ledger with the limit that was met.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{
    once::{at_once, keyed},
    support::{Installation, Server, eventually},
};

const KEY: &str = "retry-0123456789abcdef";

#[test]
fn token_is_good_for_as_many_uses_as_its_grant_says() {
    let (installation, server) = limited("{ uses_per_token: 3 }");
    let token = installation.issuer.token();

    for _ in 0..3 {
        server.public.exchange(&token, &only("npm")).ok();
    }

    server.public.exchange(&token, &only("npm")).problem(409, "token_replayed");
    // Each credential has uses of its own.
    server.public.exchange(&token, &only("cloud")).ok();
    assert_eq!(server.entries("ISSUED").len(), 4);
}

#[test]
fn calls_at_once_share_the_uses_of_one_token_and_none_is_lost() {
    let (installation, server) = limited("{ uses_per_token: 8 }");
    let token = installation.issuer.token();

    let statuses = at_once(30, &server.public, move |client| client.exchange(&token, &only("npm")));

    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 8, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 409, 429].contains(status)), "{statuses:?}");
    assert_eq!(server.entries("ISSUED").len(), 8);
}

#[test]
fn retry_under_its_key_keeps_its_use() {
    let (installation, server) = limited("{ uses_per_token: 2 }");
    let token = installation.issuer.token();
    keyed(&server.public, &token, KEY, &only("npm")).ok();
    keyed(&server.public, &token, KEY, &only("npm")).ok();

    server.public.exchange(&token, &only("npm")).ok();

    server.public.exchange(&token, &only("npm")).problem(409, "token_replayed");
    keyed(&server.public, &token, KEY, &only("npm")).ok();
}

#[test]
fn what_is_over_the_hours_limit_is_told_when_to_come_back_and_recorded_with_the_limit() {
    let (installation, server) = limited("{ issuances_per_hour: 2 }");
    for _ in 0..2 {
        server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    }

    let answer = server.public.exchange(&installation.issuer.token(), &only("npm"));

    let problem = answer.problem(429, "quota_exceeded");
    // The minute that the two stand in, whichever second of it this is, and what is added by lot.
    assert!((3_480..=3_630).contains(&problem["retry_after_seconds"].as_u64().unwrap()), "{problem}");
    assert!(!problem.to_string().contains("issuances_per_hour"), "how high it is stays in the ledger");
    let denied = server.entries("DENIED").remove(0);
    assert_eq!(denied["decision"], problem["decision_id"]);
    assert_eq!(denied["result"]["code"], "quota_exceeded");
    assert_eq!(denied["result"]["reason"], "limit-issuances-per-hour");
    let limit = &denied["result"]["limit"];
    assert_eq!((&limit["grant"], &limit["name"]), (&json!("limited"), &json!("issuances_per_hour")));
    assert_eq!((&limit["per"], &limit["allowed"]), (&json!("grant"), &json!(2)));
    assert_eq!((&limit["used"], &limit["asked"]), (&json!(2), &json!(1)));
    assert_eq!((&denied["policy"]["rule"], &denied["policy"]["file"]), (&json!("all"), &json!(FILE)));
    assert_eq!(server.entries("INTENT").len(), 2);
}

#[test]
fn refused_call_keeps_its_tokens_use_and_is_no_denial() {
    let (installation, server) = limited("{ issuances_per_hour: 1 }");
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    let token = installation.issuer.token();
    for _ in 0..6 {
        server.public.exchange(&token, &only("npm")).problem(429, "quota_exceeded");
    }

    write(&installation, "{ issuances_per_hour: 2 }");
    server.hang_up();
    eventually("the higher limit", || (server.entries("POLICY_LOADED").len() == 2).then_some(()));

    server.public.exchange(&token, &only("npm")).ok();
}

#[test]
fn each_credential_counts_and_all_grants_of_a_call_are_refused_together() {
    let (installation, server) = limited("{ issuances_per_hour: 3 }");
    let both = json!({ "grants": [{ "name": "limited", "credentials": ["npm", "cloud"] }] });
    server.public.exchange(&installation.issuer.token(), &both).ok();
    server.public.exchange(&installation.issuer.token(), &both).problem(429, "quota_exceeded");

    let token = installation.issuer.token();
    let deploy = json!({ "name": "deploy", "credentials": ["npm"] });
    let across = json!({ "grants": [deploy, both["grants"][0]] });
    server.public.exchange(&token, &across).problem(429, "quota_exceeded");

    // Neither grant lost anything by it.
    server.public.exchange(&token, &json!({ "grants": [deploy] })).ok();
    server.public.exchange(&token, &only("npm")).ok();
}

#[test]
fn request_that_is_over_the_limit_by_itself_is_told_so() {
    let (installation, server) = limited("{ issuances_per_hour: 1 }");

    let answer = server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["limited"] }));

    let problem = answer.problem(429, "quota_exceeded");
    assert!(problem["detail"].as_str().unwrap().contains("name fewer credentials"), "{problem}");
}

#[test]
fn projects_are_counted_apart() {
    let (installation, server) = limited("{ issuances_per_hour: 1, per: project }");
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    server.public.exchange(&installation.issuer.token(), &only("npm")).problem(429, "quota_exceeded");
    assert_eq!(server.entries("DENIED")[0]["result"]["limit"]["per"], "project");

    let another = installation.issuer.token_with(json!({ "repository_id": "70155113" }));

    server.public.exchange(&another, &only("npm")).ok();
}

#[test]
fn last_places_go_to_as_many_calls_as_there_are() {
    let (installation, server) = limited("{ issuances_per_hour: 7, live: 20 }");
    let tokens: Vec<String> = (0..30).map(|_| installation.issuer.token()).collect();
    let tokens = Arc::new(Mutex::new(tokens));

    let statuses = at_once(30, &server.public, move |client| {
        let token = tokens.lock().unwrap().pop().unwrap();
        client.exchange(&token, &only("cloud"))
    });

    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 7, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 23, "{statuses:?}");
    assert_eq!(server.entries("ISSUED").len(), 7);
}

#[test]
fn counts_outlive_a_crash() {
    let (installation, server) = limited("{ issuances_per_hour: 3, live: 1 }");
    server.public.exchange(&installation.issuer.token(), &only("cloud")).ok();
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    server.crash();

    let server = installation.serve();

    server.public.exchange(&installation.issuer.token(), &only("cloud")).problem(429, "quota_exceeded");
    assert_eq!(server.entries("DENIED")[0]["result"]["reason"], "limit-live");
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    server.public.exchange(&installation.issuer.token(), &only("npm")).problem(429, "quota_exceeded");
    assert_eq!(server.entries("DENIED")[0]["result"]["reason"], "limit-issuances-per-hour");
}

#[test]
fn failures_without_a_mint_and_retries_under_a_key_count_nothing() {
    let (installation, server) = limited("{ issuances_per_hour: 1 }");
    for _ in 0..3 {
        server.public.exchange(&installation.issuer.token(), &only("gone")).problem(502, "backend_failed");
    }
    let token = installation.issuer.token();

    keyed(&server.public, &token, KEY, &only("npm")).ok();
    keyed(&server.public, &token, KEY, &only("npm")).ok();

    server.public.exchange(&installation.issuer.token(), &only("npm")).problem(429, "quota_exceeded");
    // What is wrong with the secret is not looked at any more.
    server.public.exchange(&installation.issuer.token(), &only("gone")).problem(429, "quota_exceeded");
}

#[test]
fn dry_run_counts_nothing() {
    let (installation, server) = limited("{ issuances_per_hour: 1 }");
    let mut dry = only("npm");
    dry["dry_run"] = json!(true);
    for _ in 0..3 {
        server.public.exchange(&installation.issuer.token(), &dry).ok();
    }

    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
}

#[test]
fn living_credentials_count_until_they_end_also_when_given_back_and_static_ones_never() {
    let (installation, server) = limited("{ live: 1 }");
    let body = server.public.exchange(&installation.issuer.token(), &only("cloud")).ok();
    let issued = &body["issuances"][0];

    let problem =
        server.public.exchange(&installation.issuer.token(), &only("cloud")).problem(429, "quota_exceeded");

    assert!((240..=330).contains(&problem["retry_after_seconds"].as_u64().unwrap()), "{problem}");
    for _ in 0..2 {
        server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    }
    // Nobody can revoke an assertion, so it stays usable.
    let path = format!("/v1/issuances/{}", issued["id"].as_str().unwrap());
    server.public.call("DELETE", &path).bearer(issued["handle"].as_str().unwrap()).send().ok();
    server.public.exchange(&installation.issuer.token(), &only("cloud")).problem(429, "quota_exceeded");
}

/// The file of the grant, as the ledger names it.
const FILE: &str = "grants/limited.yaml";

/// A broker with a grant of those limits, for every project of the tenant.
fn limited(limits: &str) -> (Installation, Server) {
    let installation = Installation::new();
    write(&installation, limits);
    let server = installation.serve();
    (installation, server)
}

fn write(installation: &Installation, limits: &str) {
    let text = format!(
        "grant: limited\nallow:\n  - name: all\n    issuer: ci\n    \
         match: {{ repository_owner_id: \"4216\", repository_id: {{ present: true }} }}\n\
         credentials:\n  npm: {{ sealed: {{ secret: npm-token }} }}\n  gone: {{ sealed: {{ secret: never-set }} }}\n  \
         cloud: {{ oidc: {{ audience: \"https://cloud.test\" }}, ttl: 5m }}\nlimits: {limits}\n"
    );
    installation.write(&format!("policies/{FILE}"), &text);
}

fn only(credential: &str) -> Value {
    json!({ "grants": [{ "name": "limited", "credentials": [credential] }] })
}
