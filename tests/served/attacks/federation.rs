//! F, and K as far as the token goes: who is trusted for what. Issuers by their exact name, jobs by ids that cannot be
//! taken over, triggers by name, audiences alone.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::{
    Arena, Case,
    arena::{header, header_with, signed_as},
};
use crate::support::{
    AUDIENCE,
    issuer::{now, own_key, set, sign},
    key::compact,
};

/// The ids that every rule of these rows names; each adds its own condition.
const IDS: &str = r#"repository_owner_id: "4216", repository_id: "70155112""#;

#[test]
fn k01_k02_k03_issuers_are_compared_byte_for_byte_and_nothing_is_sent_to_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let evil = listener.local_addr().unwrap();
    let mut arena = Arena::new();
    let url = arena.installation.issuer.url.clone();
    let authority = url.strip_prefix("http://").unwrap();
    let port = authority.strip_prefix("127.0.0.1:").unwrap();
    let issuers = [
        format!("http://{evil}"),
        format!("http://{evil}/"),
        format!("http://{evil}?{url}"),
        format!("http://{evil}#{url}"),
        "http://169.254.169.254/latest/meta-data".into(),
        "https://localhost:6443".into(),
        "https://evil.test".into(),
        "file:///etc/passwd".into(),
        "https://token.actions.githubusercontent.com".into(),
        String::new(),
        " ".into(),
        format!("{url}/"),
        format!("{url}/evil"),
        format!("{url}?x"),
        format!("{url}#x"),
        format!("{url}."),
        format!("{url}.evil.test"),
        format!("{url}@{evil}"),
        format!("{url} "),
        format!(" {url}"),
        format!("{url}\n"),
        format!("{url}\u{0}"),
        format!("{url}%00"),
        format!("{url}/."),
        format!("{url}//"),
        format!("{url}%2f"),
        format!("{url}0"),
        url[..url.len() - 1].to_owned(),
        format!("HTTP://{authority}"),
        format!("https://{authority}"),
        authority.to_owned(),
        format!("//{authority}"),
        format!("http:{authority}"),
        format!("http:///{authority}"),
        format!("http://user@{authority}"),
        format!("http://127.0.0.1.:{port}"),
        format!("http://127.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://0x7f000001:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        format!("http://127.0.0.1:0{port}"),
        format!("http://127.0.0.%31:{port}"),
        format!("http://\u{ff11}27.0.0.1:{port}"),
        format!("http://127\u{3002}0.0.1:{port}"),
        format!("{url}\u{200b}"),
        "ci".into(),
        AUDIENCE.into(),
    ];
    let cases: Vec<Case> = issuers
        .iter()
        .map(|issuer| Case::new(format!("iss is {issuer:?}"), arena.token_with(json!({ "iss": issuer }))))
        .collect();
    // O-02: whatever else is wrong with it, its issuer is told first, and nothing differs.
    let stranger =
        arena.claims_with(json!({ "iss": format!("http://{evil}"), "exp": 0, "aud": 7, "sub": null }));
    let worse = [
        Case::new(
            "and alg none",
            compact(&json!({ "alg": "none" }).to_string(), &stranger.to_string(), |_| vec![]),
        ),
        Case::new("and no signature", compact(&header().to_string(), &stranger.to_string(), |_| vec![])),
        Case::new("and an unknown kid", signed_as(&header_with(json!({ "kid": "x" })), &stranger)),
        Case::new("and HS256", signed_as(&header_with(json!({ "alg": "HS256" })), &stranger)),
    ];
    let everyone = [cases, worse.into()].concat();

    arena.counted(None, "token_issuer", "unknown-issuer", &everyone);
    let knocks = std::iter::from_fn(|| listener.accept().ok()).count();
    assert_eq!(knocks, 0, "a packet left for an issuer that nobody trusts");
}

#[test]
fn f01_tenants_that_no_rule_names_are_denied_and_only_counted() {
    let mut arena = Arena::new();
    arena.grant("owner-only", &[("ci", r#"{ repository_owner_id: "4216" }"#)]);
    let cases = ["9999", "42160", "421", "4216 ", "04216", "-4216", "4216.0", "\u{664}216"].map(|owner| {
        Case::new(format!("owner {owner:?}"), arena.token_with(json!({ "repository_owner_id": owner })))
    });

    arena.denied_strangers("owner-only", "no-rule", &cases);
    arena.permitted("owner-only", &[Case::new("unspoiled", arena.token_with(json!({})))]);
}

#[test]
fn f02_f05_refs_match_as_wholes_and_only_the_ref_counts() {
    let mut arena = Arena::new();
    arena.grant("release", &[("ci", &format!("{{ {IDS}, ref: {{ glob: \"refs/heads/release/*\" }} }}"))]);
    arena.grant(
        "protected",
        &[("ci", &format!("{{ {IDS}, ref: refs/heads/main, ref_protected: \"true\" }}"))],
    );
    let with = |spoiled: Value| Case::new(spoiled.to_string(), arena.token_with(spoiled));
    let release = [
        "refs/heads/release/1/evil",
        "refs/heads/release",
        "refs/heads/release/1\u{2028}x/y",
        "x/refs/heads/release/1",
        "refs/heads/releases/1",
        "refs/heads/Release/1",
        "refs/tags/release/1",
    ];
    let release = release.map(|value| with(json!({ "ref": value })));
    let decoys = [
        json!({ "ref": "refs/heads/dev", "head_ref": "main", "base_ref": "main" }),
        json!({ "ref": "refs/pull/7/merge", "head_ref": "refs/heads/main" }),
        json!({ "ref": "refs/heads/dev", "workflow_ref": "acme/payments/.github/workflows/deploy.yml@refs/heads/main" }),
        json!({ "ref": "refs/heads/dev", "sub": "repo:acme/payments:ref:refs/heads/main" }),
        json!({ "ref": "refs/heads/dev", "environment": "x:ref:refs/heads/main" }),
        json!({ "ref": "", "ref_type": "branch" }),
    ];
    let decoys = decoys.map(with);
    let unprotected = [
        json!({ "ref_protected": "false" }),
        json!({ "ref_protected": "TRUE" }),
        json!({ "ref_protected": true }),
        json!({ "ref_protected": null }),
    ];
    let unprotected = unprotected.map(with);
    let permitted =
        ["refs/heads/release/1", "refs/heads/release/2026-11-24"].map(|value| with(json!({ "ref": value })));

    arena.denied("release", "no-rule", &release);
    arena.permitted("release", &permitted);
    arena.denied("deploy", "no-rule", &decoys);
    arena.denied("protected", "no-rule", &unprotected);
    for grant in ["deploy", "protected"] {
        let token = arena.token_with(json!({}));
        arena.permitted(grant, &[Case::new("unspoiled", token)]);
    }
}

#[test]
fn f03_triggers_that_run_a_strangers_code_are_denied_unless_named() {
    let mut arena = Arena::new();
    arena.grant("any-trigger", &[("ci", &format!("{{ {IDS} }}"))]);
    arena.grant("globbed", &[("ci", &format!("{{ {IDS}, event_name: {{ glob: \"*\" }} }}"))]);
    arena.grant("not-push", &[("ci", &format!("{{ {IDS}, event_name: {{ not: push }} }}"))]);
    arena.grant("named", &[("ci", &format!("{{ {IDS}, event_name: [workflow_run, brand_new_event] }}"))]);
    let event = |name: &str| Case::new(name, arena.token_with(json!({ "event_name": name })));
    let dangerous = ["pull_request_target", "workflow_run", "issue_comment", "fork"];
    let unknown = [
        "brand_new_event",
        "PULL_REQUEST_TARGET",
        "Push",
        "issues",
        "discussion",
        "watch",
        "push\u{200b}",
        "",
    ];
    let fresh = |names: &[&str]| names.iter().map(|name| event(name)).collect::<Vec<_>>();
    let absent = [Case::new("no event", arena.token_with(json!({ "event_name": null })))];
    let groups = [
        ("deploy", "no-rule", fresh(&dangerous)),
        ("any-trigger", "trigger", fresh(&dangerous)),
        ("any-trigger", "trigger", fresh(&unknown)),
        ("any-trigger", "trigger", absent.into()),
        ("globbed", "trigger", fresh(&["pull_request_target", "brand_new_event"])),
        ("not-push", "trigger", fresh(&["pull_request_target", "brand_new_event"])),
        ("named", "no-rule", fresh(&["pull_request_target", "issue_comment", "push"])),
    ];
    let ordinary = ["push", "pull_request", "workflow_dispatch", "schedule", "release", "merge_group"];
    let permitted = [
        ("any-trigger", fresh(&ordinary)),
        ("named", fresh(&["workflow_run", "brand_new_event"])),
        ("globbed", fresh(&["push"])),
        ("not-push", fresh(&["schedule"])),
        ("deploy", fresh(&["push", "workflow_dispatch"])),
    ];
    for (grant, reason, cases) in groups {
        for entry in arena.denied(grant, reason, &cases) {
            assert_eq!(entry["result"]["tried"][0]["failed"], json!(["event_name"]), "{entry}");
        }
    }
    for (grant, cases) in permitted {
        arena.permitted(grant, &cases);
    }
}

#[test]
fn f07_f08_names_come_and_go_and_ids_stay() {
    let mut arena = Arena::new();
    arena.grant("ids", &[("ci", &format!("{{ {IDS} }}"))]);
    arena.grant("ids-and-name", &[("ci", &format!("{{ {IDS}, repository: acme/payments }}"))]);
    let with = |spoiled: Value| Case::new(spoiled.to_string(), arena.token_with(spoiled));
    let resurrected = [
        json!({ "repository_id": "70155113" }),
        json!({ "repository_id": "070155112" }),
        json!({ "repository_id": "7015511" }),
        json!({ "repository_id": "999", "sub": "repo:acme@4216/payments@70155112:environment:production" }),
    ];
    let renamed = json!({ "repository": "acme/renamed", "sub": "repo:acme/renamed:ref:refs/heads/main" });
    let groups = [
        ("ids", resurrected.clone().map(with).to_vec()),
        ("ids-and-name", resurrected.map(with).to_vec()),
        ("ids-and-name", vec![with(renamed.clone())]),
    ];
    let both_subjects = [
        json!({ "sub": "repo:acme@4216/payments@70155112:ref:refs/heads/main" }),
        json!({ "sub": "repo:acme/payments:ref:refs/heads/main" }),
        json!({ "sub": "repo:acme/payments:environment:production" }),
        json!({ "sub": "whatever a customised template says" }),
    ];
    let permitted = [
        ("ids", vec![with(renamed)]),
        ("ids-and-name", both_subjects.clone().map(with).to_vec()),
        ("deploy", both_subjects.map(with).to_vec()),
    ];
    for (grant, cases) in groups {
        arena.denied(grant, "no-rule", &cases);
    }
    for (grant, cases) in permitted {
        arena.permitted(grant, &cases);
    }
}

#[test]
fn f09_f10_reusable_workflows_are_trusted_at_a_ref_and_for_a_caller() {
    let mut arena = Arena::new();
    let right = "acme/ci-library/.github/workflows/deploy.yml@refs/tags/v4";
    let sha = "27b0e1a44b6bd6c1b4f1a0d3e5ffb6d1f0c1a2b3";
    arena.grant("literal", &[("ci", &format!("{{ {IDS}, job_workflow_ref: \"{right}\" }}"))]);
    let glob = "acme/ci-library/.github/workflows/deploy.yml@refs/tags/v*";
    arena.grant("globbed", &[("ci", &format!("{{ {IDS}, job_workflow_ref: {{ glob: \"{glob}\" }} }}"))]);
    arena.grant("digest", &[("ci", &format!("{{ {IDS}, job_workflow_sha: {sha} }}"))]);
    arena.grant("titled", &[("ci", &format!("{{ {IDS}, workflow: Deploy }}"))]);
    let with = |spoiled: Value| Case::new(spoiled.to_string(), arena.token_with(spoiled));
    let file = "acme/ci-library/.github/workflows/deploy.yml";
    let refs = [
        format!("{file}@refs/heads/main"),
        format!("{file}@refs/heads/x/{file}@refs/tags/v4"),
        format!("{file}@refs/tags/v4/x"),
        format!("evil/{file}@refs/tags/v4"),
        format!("{file}@refs/heads/refs/tags/v4"),
        format!("{file}@{sha}"),
        format!("{file}.evil@refs/tags/v4"),
        "evil/ci-library/.github/workflows/deploy.yml@refs/tags/v4".to_owned(),
        format!("{file}@refs/tags/V4"),
        format!("{file}@@refs/tags/v4"),
        file.to_owned(),
        String::new(),
    ];
    let wrong = |refs: &[String]| {
        refs.iter().map(|each| with(json!({ "job_workflow_ref": each }))).collect::<Vec<_>>()
    };
    let only_caller =
        json!({ "job_workflow_ref": "evil/x/.github/workflows/x.yml@refs/heads/x", "workflow_ref": right });
    let foreign = json!({ "repository_id": "999", "repository": "acme/other" });
    let groups = [
        ("literal", wrong(&refs)),
        ("globbed", wrong(&refs)),
        ("literal", vec![with(only_caller.clone()), with(foreign.clone())]),
        ("globbed", vec![with(only_caller), with(foreign.clone())]),
        (
            "digest",
            vec![
                with(json!({ "job_workflow_sha": "9f3182061f1e2cca4702c368cbc039b7dc9d4485" })),
                with(json!({ "job_workflow_sha": null })),
                with(foreign.clone()),
            ],
        ),
        // What anybody may write into a workflow's file opens nothing by itself.
        ("titled", vec![with(foreign), with(json!({ "workflow": "deploy" }))]),
    ];
    for (grant, cases) in groups {
        arena.denied(grant, "no-rule", &cases);
    }
    for grant in ["literal", "globbed", "digest", "titled"] {
        let token = arena.token_with(json!({}));
        arena.permitted(grant, &[Case::new(grant, token)]);
    }
    let later = arena.token_with(json!({ "job_workflow_ref": format!("{file}@refs/tags/v5.1") }));
    arena.permitted("globbed", &[Case::new("another tag", later)]);
}

#[test]
fn f11_tokens_are_for_us_alone() {
    let mut arena = Arena::new();
    let minted = |aud: &Value| {
        let mut claims = arena.claims();
        claims["aud"] = aud.clone();
        Case::new(format!("aud is {aud:.60}"), signed_as(&header(), &claims))
    };
    let of_others = [
        "https://other.test",
        "",
        "https://hallpass.test/",
        "HTTPS://HALLPASS.TEST",
        "https://Hallpass.test",
        "hallpass.test",
        "http://hallpass.test",
        "https://hallpass.test:443",
        "https://hallpass.test.",
        "https://hallpass.test.evil.test",
        "https://hallpass.tes",
        "https://evil.test/https://hallpass.test",
        " https://hallpass.test",
        "https://hallpass.test ",
        "https://hallpass.test,https://other.test",
        "https://h\u{430}llpass.test",
        "*",
        "https://github.com/acme",
        "sts.amazonaws.com",
    ];
    let of_others: Vec<Case> = of_others
        .iter()
        .map(|aud| minted(&json!(aud)))
        .chain([minted(&json!(["https://other.test"]))])
        .collect();
    let several = [
        json!([]),
        json!([AUDIENCE, "https://other.test"]),
        json!(["https://other.test", AUDIENCE]),
        json!([AUDIENCE, AUDIENCE]),
        json!([AUDIENCE, ""]),
    ];
    let several = several.map(|aud| minted(&aud));
    let types = [
        json!(42),
        Value::Null,
        json!(true),
        json!({ "aud": AUDIENCE }),
        json!([42]),
        json!([AUDIENCE, 42]),
        json!([[AUDIENCE]]),
        json!([null]),
        json!([AUDIENCE, null]),
    ];
    let types = types.map(|aud| minted(&aud));
    let absent = [Case::new("no aud", arena.token_with(json!({ "aud": null })))];
    let permitted = [minted(&json!(AUDIENCE)), minted(&json!([AUDIENCE]))];

    arena.recorded("token_audience", "audience", &of_others);
    arena.recorded("token_audience", "audience-not-one", &several);
    arena.counted(Some("ci"), "token_malformed", "claim-type:aud", &types);
    arena.counted(Some("ci"), "token_malformed", "missing-claim:aud", &absent);
    arena.permitted("deploy", &permitted);
}

#[test]
fn f12_other_tokens_of_the_same_issuer_are_no_jobs() {
    let mut arena = Arena::new();
    let at = now();
    let url = &arena.installation.issuer.url;
    let registered = json!({ "iss": url, "aud": AUDIENCE, "iat": at, "exp": at + 300, "jti": "j" });
    let kinds = [
        (
            "a person's ID token",
            json!({ "sub": "alice", "nonce": "n", "email": "alice@acme.test", "name": "Alice" }),
        ),
        ("an access token", json!({ "sub": "repo:acme/payments", "scope": "repo", "client_id": "c" })),
        (
            "a logout token",
            json!({ "sub": "alice", "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
        ),
    ];
    let kinds = kinds.map(|(name, more)| {
        let mut claims = registered.clone();
        set(&mut claims, more);
        Case::new(name, signed_as(&header(), &claims))
    });

    arena.counted(Some("ci"), "token_malformed", "missing-claim:repository", &kinds);
    arena.permitted("deploy", &[Case::new("a job's", arena.token_with(json!({})))]);
}

#[test]
fn f13_an_issuer_speaks_for_its_own_rules_only() {
    let mut arena = Arena::new();
    arena.grant("ids", &[("ci", &format!("{{ {IDS} }}"))]);
    arena.grant("both", &[("ci", &format!("{{ {IDS} }}")), ("other", &format!("{{ {IDS} }}"))]);
    let of_other = || Case::new("other, with ci's claims", arena.other.token());
    let groups = [("ids", [of_other()]), ("deploy", [of_other()])];
    let permitted = [of_other()];
    for (grant, cases) in groups {
        let entries = arena.denied(grant, "no-rule", &cases);
        assert_eq!(entries[0]["subject"]["issuer"], "other", "{}", entries[0]);
        assert_eq!(entries[0]["result"]["tried"][0]["failed"], json!(["iss"]), "{}", entries[0]);
    }
    arena.permitted("both", &permitted);
    arena.permitted("ids", &[Case::new("unspoiled", sign(own_key(), &header(), &arena.claims()))]);
}

#[test]
fn f14_environments_are_named_and_not_assumed() {
    let mut arena = Arena::new();
    arena.grant("gated", &[("ci", &format!("{{ {IDS}, environment: Production }}"))]);
    let with = |spoiled: Value| Case::new(spoiled.to_string(), arena.token_with(spoiled));
    let refused = [
        json!({ "environment": null }),
        json!({ "environment": "" }),
        json!({ "environment": "staging" }),
        json!({ "environment": "production2" }),
        json!({ "environment": "production " }),
        json!({ "environment": "*" }),
        json!({ "environment": null, "sub": "repo:acme/payments:environment:Production" }),
    ];
    let permitted = [
        json!({ "environment": "production" }),
        json!({ "environment": "PRODUCTION" }),
        json!({ "environment": "Production" }),
    ];
    let (refused, permitted) = (refused.map(with), permitted.map(with));

    arena.denied("gated", "no-rule", &refused);
    arena.permitted("gated", &permitted);
}
