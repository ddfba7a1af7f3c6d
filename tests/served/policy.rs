//! Policy files under a running broker: changes are picked up, a set that is wrong changes nothing, and each load or
//! refusal is an entry.

use std::fs;

use serde_json::{Value, json};

use super::{
    once::only,
    support::{Installation, Server, eventually},
};

#[test]
fn changed_files_decide_from_then_on() {
    let installation = Installation::new();
    let server = installation.serve();
    assert_eq!(granted(&installation, &server), ["deploy", "lost"]);

    installation.write("policies/grants/new/second.yaml", SECOND);

    eventually("the new grant", || {
        (granted(&installation, &server) == ["deploy", "lost", "second"]).then_some(())
    });
    let digests = loaded(&server);
    assert_eq!(digests.len(), 2);
    assert_ne!(digests[0], digests[1]);
}

#[test]
fn hang_up_loads_at_once_and_drops_no_request() {
    let installation = Installation::new();
    let server = installation.serve();
    installation.write("policies/grants/second.yaml", SECOND);

    server.hang_up();

    for _ in 0..20 {
        server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    }
    eventually("the new grant", || {
        granted(&installation, &server).contains(&"second".to_owned()).then_some(())
    });
}

#[test]
fn wrong_set_keeps_the_last_good_one_and_is_recorded() {
    let installation = Installation::new();
    let server = installation.serve();

    installation.write("policies/grants/bad.yaml", "grant: bad\nalow: []\n");

    let rejected = eventually("the refusal", || server.entries("POLICY_REJECTED").pop());
    assert!(rejected["result"]["first"].to_string().contains("bad.yaml"), "{rejected}");
    assert_eq!(server.entries("ALERT_POLICY_REJECTED").len(), 1);
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    assert!(server.logs().contains("bad.yaml"), "the log names the file: {}", server.logs());
}

#[test]
fn hang_up_on_the_refused_set_is_recorded_again() {
    let installation = Installation::new();
    let server = installation.serve();
    installation.write("policies/grants/bad.yaml", "grant: bad\nalow: []\n");
    eventually("the refusal", || server.entries("POLICY_REJECTED").pop());

    server.hang_up();

    eventually("the second refusal", || (server.entries("POLICY_REJECTED").len() == 2).then_some(()));
}

#[test]
fn set_that_is_mended_decides_again() {
    let installation = Installation::new();
    let server = installation.serve();
    installation.write("policies/grants/second.yaml", "grant: second\n");
    eventually("the refusal", || server.entries("POLICY_REJECTED").pop());

    installation.write("policies/grants/second.yaml", SECOND);

    eventually("the new grant", || {
        granted(&installation, &server).contains(&"second".to_owned()).then_some(())
    });
}

#[test]
fn keys_of_later_versions_are_refused_never_ignored() {
    let installation = Installation::new();
    let server = installation.serve();

    installation.write("policies/guardrails/base.yaml", "guardrail: base\nrequire: { approvals: 2 }\n");

    eventually("the refusal", || server.entries("POLICY_REJECTED").pop());
    assert_eq!(loaded(&server).len(), 1);
}

#[test]
fn guardrail_denies_what_a_grant_offers() {
    let installation = Installation::new();
    let server = installation.serve();
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();

    installation.write("policies/guardrails/base.yaml", "guardrail: base\ntargets: { oidc: any }\n");
    eventually("the guardrail to hold", || (loaded(&server).len() == 2).then_some(()));

    server.public.exchange(&installation.issuer.token(), &only("npm")).problem(403, "access_denied");
    let denied = server.entries("DENIED").pop().expect("an entry");
    assert_eq!(denied["result"]["reason"], "guardrail");
}

#[test]
fn removed_rule_ends_what_it_permitted() {
    let installation = Installation::new();
    let server = installation.serve();

    fs::remove_file(installation.file("policies/grants/deploy.yaml")).unwrap();

    eventually("the grant to be gone", || (granted(&installation, &server) == ["lost"]).then_some(()));
    server.public.exchange(&installation.issuer.token(), &only("npm")).problem(403, "access_denied");
}

#[test]
fn entries_name_the_set_that_decided() {
    let installation = Installation::new();
    let server = installation.serve();
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["other-team"] }));

    let digest = loaded(&server).pop().unwrap();
    for code in ["INTENT", "ISSUED", "DENIED"] {
        assert_eq!(server.entries(code)[0]["policy"]["digest"], digest, "{code}");
    }
}

#[test]
fn refusal_by_a_guardrail_is_told_to_the_ledger_alone() {
    let installation = Installation::new();
    let guardrail = "guardrail: base\nrequire: { lifetime: [fixed] }\n";
    installation.write("policies/guardrails/base.yaml", guardrail);
    let server = installation.serve();

    let refused = server.public.exchange(&installation.issuer.token(), &only("npm"));

    let mut refused = refused.problem(403, "access_denied");
    let unknown = json!({ "grants": ["no-such-grant"] });
    let mut unknown =
        server.public.exchange(&installation.issuer.token(), &unknown).problem(403, "access_denied");
    for problem in [&mut refused, &mut unknown] {
        problem.as_object_mut().unwrap().remove("decision_id").unwrap();
    }
    assert_eq!(refused, unknown);
    let denied = server.entries("DENIED").pop().unwrap();
    assert_eq!(denied["result"]["reason"], "guardrail");
    assert_eq!(denied["result"]["breaches"][0]["guardrail"], "base");
    assert_eq!(denied["result"]["breaches"][0]["requirement"], "require.lifetime");
    server.public.exchange(&installation.issuer.token(), &only("cloud")).ok();
}

#[test]
fn guardrail_that_reports_lets_the_permit_stand_and_says_so_in_the_ledger() {
    let installation = Installation::new();
    let guardrail =
        "guardrail: base\nrequire: { lifetime: [fixed] }\nmode: report\nreport_until: 2099-12-31\n";
    installation.write("policies/guardrails/base.yaml", guardrail);
    let server = installation.serve();

    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();

    let intent = server.entries("INTENT").pop().unwrap();
    assert_eq!(intent["result"]["would_deny"][0]["guardrail"], "base");
    assert_eq!(intent["policy"]["class"], "production");
    assert!(!server.entries("ISSUED")[0].to_string().contains("would_deny"));
}

#[test]
fn owners_of_a_grant_that_discloses_hear_which_claims_failed_and_strangers_do_not() {
    let installation = Installation::new();
    let owned = SECOND.replace("grant: second\n", "grant: second\ndisclose: owner\n").replace(
        "repository_id: \"70155112\"",
        "repository_id: \"70155112\", ref: refs/heads/release, environment: staging",
    );
    installation.write("policies/grants/second.yaml", &owned);
    let server = installation.serve();
    let ask = json!({ "grants": ["second"] });

    let told = server.public.exchange(&installation.issuer.token(), &ask).problem(403, "access_denied");

    let mut failed: Vec<&str> =
        told["failed_claims"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    failed.sort_unstable();
    assert_eq!(failed, ["environment", "ref"]);
    let stranger = installation.issuer.token_with(json!({ "repository_id": "999" }));
    let told = server.public.exchange(&stranger, &ask).problem(403, "access_denied");
    assert!(told.get("failed_claims").is_none(), "{told}");
}

/// The names of grants that the valid job may use.
fn granted(installation: &Installation, server: &Server) -> Vec<String> {
    let body = server.public.get("/v1/grants").bearer(&installation.issuer.token()).send().ok();
    let grants = body["grants"].as_array().unwrap().clone();
    grants.into_iter().map(|grant| grant["name"].as_str().unwrap().to_owned()).collect()
}

/// Digests of the sets that were loaded, newest first.
fn loaded(server: &Server) -> Vec<Value> {
    server.entries("POLICY_LOADED").into_iter().map(|entry| entry["result"]["digest"].clone()).collect()
}

const SECOND: &str = r#"grant: second
description: Made while the broker runs
allow:
  - name: deploy-from-main
    issuer: ci
    match: { repository_owner_id: "4216", repository_id: "70155112" }
credentials:
  npm:
    sealed: { secret: npm-token }
"#;
