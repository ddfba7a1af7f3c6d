use serde_json::{Map, Value, json};

use super::*;
use crate::kernel::{
    identity::{profile::Profile, testing::fixture},
    policy::{
        PolicySet,
        decide::{Decision, GrantRequest, Permit, Request, decide},
        load,
        set::Files,
    },
};

const GITHUB: &str = "issuer: github\nprofile: github-actions\nurl: https://token.actions.githubusercontent.com\naudience: https://broker.test\n";
const OTHER: &str = "issuer: other\nprofile: github-actions\nurl: https://ghes.test/_services/token\naudience: https://broker.test\n";
const OWN: &str = "issuer: own\nprofile: generic\nurl: https://ci.test\naudience: https://broker.test\n";

/// Everything that a guardrail can say, over one folder.
const FENCE: &str = r#"guardrail: fence
applies_to: { folder: team }
require:
  max_ttl: 2m
  issuers: [github]
  pinned: [project]
  protected_ref: true
  runner: hosted
  lifetime: [static, fixed]
  grant_names: ["team-*"]
targets:
  sealed: [ "team-*" ]
  oidc: [ "https://team.test/**" ]
forbid:
  triggers: [pull_request_target, workflow_run]
"#;

/// What the fence lets through.
const HONEST: &str = r#"grant: team-deploy
class: production
allow:
  - name: main
    issuer: github
    match:
      repository_owner_id: "4216"
      repository_id: "701"
      ref: refs/heads/main
      event_name: push
credentials:
  npm: { sealed: { secret: team-npm } }
  sts: { oidc: { audience: "https://team.test/a" }, ttl: 2m }
"#;

fn set(files: &[(&str, &str)]) -> PolicySet {
    let issuers = [("issuers/github.yaml", GITHUB), ("issuers/other.yaml", OTHER), ("issuers/own.yaml", OWN)];
    let files =
        issuers.iter().chain(files).map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
    load::load(&Files(files.collect()), None, None).unwrap_or_else(|findings| panic!("{findings:#?}")).set
}

fn fenced(guardrail: &str, path: &str, grant: &str) -> PolicySet {
    set(&[("guardrails/fence.yaml", guardrail), (path, grant)])
}

fn now() -> Timestamp {
    "2027-01-13T10:00:00Z".parse().unwrap()
}

fn job_of(issuer: &str, spoil: &[(&str, Value)]) -> JobIdentity {
    let Value::Object(mut claims) = fixture("github-actions") else { panic!("an object") };
    for (name, value) in spoil {
        claims.remove(*name);
        if !value.is_null() {
            claims.insert((*name).to_owned(), value.clone());
        }
    }
    let profile = Profile::by_name("github-actions").unwrap();
    JobIdentity::from_claims(IssuerName::parse(issuer).unwrap(), profile, claims, now())
        .unwrap_or_else(|_| panic!("claims"))
}

fn job(spoil: &[(&str, Value)]) -> JobIdentity {
    job_of("github", spoil)
}

fn generic_job() -> JobIdentity {
    let claims: Map<String, Value> = json!({ "sub": "job-1" }).as_object().unwrap().clone();
    let issuer = IssuerName::parse("own").unwrap();
    JobIdentity::from_claims(issuer, Profile::by_name("generic").unwrap(), claims, now())
        .unwrap_or_else(|_| panic!("claims"))
}

fn ask(set: &PolicySet, job: &JobIdentity, credentials: Option<&[&str]>) -> Result<Permit, Vec<String>> {
    ask_at(set, job, credentials, now())
}

/// The permit, or what guardrails refused, or the reason where none did.
fn ask_at(
    set: &PolicySet,
    job: &JobIdentity,
    credentials: Option<&[&str]>,
    now: Timestamp,
) -> Result<Permit, Vec<String>> {
    let name = set.names.first().unwrap().to_string();
    let credentials = credentials.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    let request = Request { grants: vec![GrantRequest { name, credentials, ttl: None }] };
    match decide(set, job, &request, now) {
        Decision::Permit(permit) => Ok(permit),
        Decision::Deny(denial) if denial.breaches.is_empty() => Err(vec![denial.reason.to_owned()]),
        Decision::Deny(denial) => {
            assert_eq!(denial.reason, "guardrail");
            let mut reasons: Vec<String> =
                denial.breaches.iter().map(|each| each.reason.to_owned()).collect();
            reasons.sort();
            reasons.dedup();
            Err(reasons)
        }
    }
}

#[test]
fn honest_grant_is_permitted_as_it_stands() {
    let set = fenced(FENCE, "grants/team/a.yaml", HONEST);

    let permit = ask(&set, &job(&[]), None).unwrap_or_else(|reasons| panic!("{reasons:?}"));

    let ttls: Vec<_> =
        permit.grants()[0].credentials.iter().map(|each| each.ttl.map(|ttl| ttl.as_secs())).collect();
    assert_eq!(ttls, [None, Some(120)]);
    assert_eq!(permit.grants()[0].would_deny, []);
}

/// What is written in the place of what, the key of the guardrail that refuses it, and the token that it is for.
type Turn = (&'static str, &'static str, &'static str, Vec<(&'static str, Value)>);

fn turns_of_files() -> Vec<Turn> {
    vec![
        // targets
        ("{ secret: team-npm }", "{ secret: prod-npm }", "targets", vec![]),
        ("{ secret: team-npm }", "{ secret: xteam-npm }", "targets", vec![]),
        ("{ secret: team-npm }", "{ secret: team }", "targets", vec![]),
        ("https://team.test/a", "https://team.test.evil/a", "targets", vec![]),
        ("https://team.test/a", "https://team.test", "targets", vec![]),
        ("https://team.test/a", "https://TEAM.test/a", "targets", vec![]),
        ("https://team.test/a", "https://prod.test/#https://team.test/a", "targets", vec![]),
        ("  npm: {", "  more: { sealed: { secret: prod-npm } }\n  npm: {", "targets", vec![]),
        // the grant's name
        ("grant: team-deploy", "grant: prod-deploy", "require.grant_names", vec![]),
        ("grant: team-deploy", "grant: team", "require.grant_names", vec![]),
        // the project's pin
        ("      repository_id: \"701\"\n", "", "require.pinned", vec![]),
        ("repository_id: \"701\"", "repository_id: { present: true }", "require.pinned", vec![]),
        ("repository_id: \"701\"", "repository_id: { not: \"9\" }", "require.pinned", vec![]),
        ("repository_id: \"701\"", "repository_id: [\"701\", { present: false }]", "require.pinned", vec![]),
        ("repository_id: \"701\"", "repository: acme/payments", "require.pinned", vec![]),
    ]
}

fn turns_of_tokens() -> Vec<Turn> {
    vec![
        // the ref
        (
            "ref: refs/heads/main",
            "ref_protected: \"false\"",
            "require.protected_ref",
            vec![("ref_protected", json!("false"))],
        ),
        (
            "ref: refs/heads/main",
            "ref_protected: { present: false }",
            "require.protected_ref",
            vec![("ref_protected", Value::Null)],
        ),
        (
            "ref: refs/heads/main",
            "ref: { glob: \"**\" }",
            "require.protected_ref",
            vec![("ref_protected", json!("false")), ("ref", json!("refs/heads/x"))],
        ),
        // the machine
        (
            "ref: refs/heads/main",
            "runner_environment: self-hosted",
            "require.runner",
            vec![("runner_environment", json!("self-hosted"))],
        ),
        (
            "ref: refs/heads/main",
            "runner_environment: { present: false }",
            "require.runner",
            vec![("runner_environment", Value::Null)],
        ),
        (
            "ref: refs/heads/main",
            "runner_environment: gitlab-hosted",
            "require.runner",
            vec![("runner_environment", json!("gitlab-hosted"))],
        ),
        // the trigger
        (
            "event_name: push",
            "event_name: pull_request_target",
            "forbid.triggers",
            vec![("event_name", json!("pull_request_target"))],
        ),
        (
            "event_name: push",
            "event_name: [push, workflow_run]",
            "forbid.triggers",
            vec![("event_name", json!("workflow_run"))],
        ),
    ]
}

/// Each row turns one key of the language, and is a grant that loads.
#[test]
fn hostile_admin_reaches_nothing_that_the_fence_does_not_list() {
    for (from, to, breach, token) in turns_of_files().into_iter().chain(turns_of_tokens()) {
        let hostile = HONEST.replacen(from, to, 1);
        assert_ne!(hostile, HONEST, "{from}");
        let set = fenced(FENCE, "grants/team/a.yaml", &hostile);
        let found = ask(&set, &job(&token), None).err();
        assert_eq!(found, Some(vec![(*breach).to_owned()]), "{to}");

        // None of what else the language has gets around it.
        for way_out in [
            "class: read",
            "class: write",
            "class: signing",
            "class: production\ndisclose: owner",
            "class: production\nowners: [security]",
            "class: production\nlimits: { uses_per_token: 8 }",
            "class: production\nvalid_until: 2099-01-01",
            "class: production\nenabled: true",
        ] {
            let set = fenced(FENCE, "grants/team/a.yaml", &hostile.replace("class: production", way_out));
            assert!(ask(&set, &job(&token), None).is_err(), "{to}, {way_out}");
        }
        for path in
            ["grants/team/deep/a.yaml", "grants/team/deep/deeper/a.yaml", "grants/team/.hidden/a.yaml"]
        {
            assert!(ask(&fenced(FENCE, path, &hostile), &job(&token), None).is_err(), "{to}, {path}");
        }
    }
}

#[test]
fn hostile_admin_gets_no_job_of_another_issuer_in() {
    for issuer in ["other", "own"] {
        let (from, job) = match issuer {
            "own" => ("match: { sub: job-1 }", generic_job()),
            _ => ("match: { repository_owner_id: \"4216\", repository_id: \"701\" }", job_of(issuer, &[])),
        };
        let (head, tail) = HONEST.split_once("    issuer: github").unwrap();
        let tail = tail.split_once("credentials:").unwrap().1;
        let hostile = format!("{head}    issuer: {issuer}\n    {from}\ncredentials:{tail}");
        let reasons = ask(&fenced(FENCE, "grants/team/a.yaml", &hostile), &job, None).err().unwrap();
        assert!(reasons.contains(&"require.issuers".to_owned()), "{issuer}: {reasons:?}");
    }
}

#[test]
fn hostile_admin_gets_no_longer_ttl() {
    for ttl in [", ttl: 5m", ", ttl: 300s", ""] {
        let hostile = HONEST.replace(", ttl: 2m", ttl);
        let set = fenced(FENCE, "grants/team/a.yaml", &hostile);
        let permit = ask(&set, &job(&[]), Some(&["sts"])).unwrap_or_else(|reasons| panic!("{reasons:?}"));
        assert_eq!(permit.grants()[0].credentials[0].ttl, Some(Duration::from_secs(120)), "{ttl}");
    }
}

#[test]
fn ttl_that_the_kind_cannot_honour_is_a_breach_and_a_short_wish_is_not() {
    let fence = FENCE.replace("max_ttl: 2m", "max_ttl: 59s");
    let set = fenced(&fence, "grants/team/a.yaml", HONEST);
    assert_eq!(ask(&set, &job(&[]), Some(&["sts"])).err(), Some(vec!["require.max_ttl".to_owned()]));
    assert!(ask(&set, &job(&[]), Some(&["npm"])).is_ok(), "it does not speak of static ones");
}

#[test]
fn lifetime_fences_kinds() {
    let fence = FENCE.replace("lifetime: [static, fixed]", "lifetime: fixed");
    let set = fenced(&fence, "grants/team/a.yaml", HONEST);
    assert_eq!(ask(&set, &job(&[]), None).err(), Some(vec!["require.lifetime".to_owned()]));
    assert!(ask(&set, &job(&[]), Some(&["sts"])).is_ok());
}

#[test]
fn kind_that_is_not_listed_is_denied_and_any_opens_one() {
    for (targets, npm, sts) in [
        ("targets: { sealed: any }", true, false),
        ("targets: { oidc: any }", false, true),
        ("targets: { vault: any, aws: \"arn:aws:iam::1:role/*\" }", false, false),
        ("targets: { sealed: any, oidc: any }", true, true),
        ("targets: { sealed: [\"any\"] }", false, false), // quoted, it is a secret of that name
    ] {
        let set = fenced(&format!("guardrail: a\n{targets}\n"), "grants/x.yaml", HONEST);
        assert_eq!(ask(&set, &job(&[]), Some(&["npm"])).is_ok(), npm, "{targets}");
        assert_eq!(ask(&set, &job(&[]), Some(&["sts"])).is_ok(), sts, "{targets}");
    }
}

#[test]
fn all_selectors_must_fit_and_a_list_is_any_of() {
    for (selector, applies) in [
        ("{ folder: team }", true),
        ("{ folder: [other, team] }", true),
        ("{ folder: \"t*\" }", true),
        ("{ folder: tea }", false),
        ("{ folder: team/deep }", false),
        ("{ issuer: github }", true),
        ("{ issuer: [own, github] }", true),
        ("{ issuer: own }", false),
        ("{ class: production }", true),
        ("{ class: [read, production] }", true),
        ("{ class: [read, write, signing] }", false),
        ("{ target: { sealed: \"team-*\" } }", true),
        ("{ target: { sealed: any, vault: any } }", true),
        ("{ target: { sealed: \"prod-*\" } }", false),
        ("{ target: { vault: any } }", false),
        ("{ backend: main }", false), // a sealed secret comes from no backend
        ("{ folder: team, issuer: github, class: production, target: { sealed: any } }", true),
        ("{ folder: team, issuer: own }", false),
        ("{ folder: other, class: production }", false),
    ] {
        let guardrail =
            format!("guardrail: a\napplies_to: {selector}\nrequire: {{ grant_names: [\"other-*\"] }}\n");
        let set = fenced(&guardrail, "grants/team/a.yaml", HONEST);
        assert_eq!(ask(&set, &job(&[]), Some(&["npm"])).is_err(), applies, "{selector}");
    }
}

#[test]
fn folder_is_whole_segments_and_all_below() {
    for (pattern, path, fits) in [
        ("team", "grants/team/a.yaml", true),
        ("team", "grants/team/x/y/a.yaml", true),
        ("team", "grants/teams/a.yaml", false),
        ("team", "grants/x/team/a.yaml", false),
        ("team", "grants/team.yaml", false),
        ("teams/*", "grants/teams/x/y/a.yaml", true),
        ("teams/*", "grants/teams/a.yaml", false),
        ("**", "grants/a.yaml", true),
    ] {
        let guardrail = format!(
            "guardrail: a\napplies_to: {{ folder: \"{pattern}\" }}\nrequire: {{ grant_names: [x] }}\n"
        );
        assert_eq!(
            ask(&fenced(&guardrail, path, HONEST), &job(&[]), None).is_err(),
            fits,
            "{pattern} {path}"
        );
    }
}

#[test]
fn class_is_the_highest_of_the_grants_own_and_its_targets() {
    let classify = "guardrail: a\nclassify:\n  - { sealed: team-npm, class: read }\n  - { sealed: \"team-*\", class: write }\n  - { oidc: any, class: read }\n";
    for (own, npm, whole) in [("read", Class::Write, Class::Write), ("signing", Class::Write, Class::Signing)]
    {
        let grant = HONEST.replace("class: production", &format!("class: {own}"));
        let set = fenced(classify, "grants/a.yaml", &grant);
        let grant = &set.grants["team-deploy"];
        assert_eq!(
            (grant.credentials["npm"].class, grant.credentials["sts"].class, grant.class),
            (npm, Class::Read, whole)
        );
    }
    let set = fenced("guardrail: a\nclassify: [{ sealed: other, class: read }]\n", "grants/a.yaml", HONEST);
    assert_eq!(set.grants["team-deploy"].credentials["npm"].class, Class::Production, "unclassified");
}

/// Otherwise `class: signing` would be the way out of whatever is said of production.
#[test]
fn grant_gets_out_of_no_guardrail_by_raising_its_class() {
    let guardrail = "guardrail: a\napplies_to: { class: [production] }\nrequire: { grant_names: [x] }\n";
    for own in ["read", "write", "production", "signing"] {
        let grant = HONEST.replace("class: production", &format!("class: {own}"));
        assert!(ask(&fenced(guardrail, "grants/a.yaml", &grant), &job(&[]), None).is_err(), "{own}");
    }
    let low = "guardrail: a\napplies_to: { class: [read] }\nrequire: { grant_names: [x] }\nclassify: [{ sealed: team-npm, class: read }]\n";
    let set = fenced(low, "grants/a.yaml", HONEST);
    assert!(ask(&set, &job(&[]), Some(&["npm"])).is_err(), "beside a target of a higher class");
    assert!(ask(&set, &job(&[]), Some(&["sts"])).is_ok());
}

#[test]
fn each_applying_guardrail_must_agree() {
    let agree = "guardrail: a\nrequire: { max_ttl: 4m }\n";
    let stricter = "guardrail: b\nrequire: { max_ttl: 90s }\n";
    let against = "guardrail: c\nrequire: { issuers: own }\n";
    let grant = ("grants/a.yaml", HONEST);
    let both = set(&[("guardrails/a.yaml", agree), ("guardrails/b.yaml", stricter), grant]);
    let permit = ask(&both, &job(&[]), Some(&["sts"])).unwrap_or_else(|reasons| panic!("{reasons:?}"));
    assert_eq!(permit.grants()[0].credentials[0].ttl, Some(Duration::from_secs(90)));
    let all = set(&[("guardrails/a.yaml", agree), ("guardrails/c.yaml", against), grant]);
    assert_eq!(ask(&all, &job(&[]), None).err(), Some(vec!["require.issuers".to_owned()]));
}

#[test]
fn report_lets_through_and_says_so_until_its_day_is_over() {
    let guardrail =
        format!("{FENCE}mode: report\nreport_until: 2027-01-31\n").replace("max_ttl: 2m", "max_ttl: 1m");
    let hostile = HONEST.replace("secret: team-npm", "secret: prod-npm");
    let set = fenced(&guardrail, "grants/team/a.yaml", &hostile);
    let at = |text: &str| text.parse().unwrap();

    let permit = ask_at(&set, &job(&[]), None, at("2027-01-31T23:59:59Z"))
        .unwrap_or_else(|reasons| panic!("{reasons:?}"));
    let told: Vec<_> =
        permit.grants()[0].would_deny.iter().map(|each| (each.credential.as_str(), each.reason)).collect();
    assert_eq!(told, [("npm", "targets"), ("sts", "require.max_ttl")]);
    assert_eq!(permit.grants()[0].credentials[1].ttl, Some(Duration::from_secs(120)), "and cuts nothing");

    let denied = ask_at(&set, &job(&[]), None, at("2027-02-01T00:00:00Z")).err();
    assert_eq!(denied, Some(vec!["targets".to_owned()]));
}

#[test]
fn pin_is_asked_of_the_rule_that_lets_in_and_another_is_as_good() {
    let two = HONEST.replace(
        "  - name: main\n",
        "  - name: loose\n    issuer: github\n    match: { repository_owner_id: \"4216\" }\n  - name: main\n",
    );
    let set = fenced(FENCE, "grants/team/a.yaml", &two);
    let permit = ask(&set, &job(&[]), None).unwrap_or_else(|reasons| panic!("{reasons:?}"));
    assert_eq!(permit.grants()[0].rule.as_str(), "main");
    assert_eq!(
        ask(&set, &job(&[("ref", json!("refs/heads/x"))]), None).err(),
        Some(vec!["require.pinned".to_owned()])
    );
}

#[test]
fn forbidden_trigger_is_unknown_where_nothing_tells() {
    let guardrail = "guardrail: a\nforbid: { triggers: fork }\n";
    let grant = "grant: a\nallow: [{ name: x, issuer: own, match: { sub: job-1 } }]\ncredentials: { npm: { sealed: { secret: x } } }\n";
    assert_eq!(
        ask(&fenced(guardrail, "grants/a.yaml", grant), &generic_job(), None).err(),
        Some(vec!["forbid.triggers".to_owned()])
    );
    assert!(ask(&set(&[("grants/a.yaml", grant)]), &generic_job(), None).is_ok());
}

#[test]
fn backend_that_no_configuration_names_is_fenced_and_never_allowed() {
    let named = |name: &str| Backend::Named(name.into());
    let names = ["main".to_owned()];
    for (backend, due) in
        [(named("main"), true), (named("dr"), false), (Backend::Unnamed, true), (Backend::BuiltIn, false)]
    {
        assert_eq!(names_backend(&names, &backend), due, "{backend:?}");
    }
}

#[test]
fn guardrail_that_is_changed_is_heeded_once_the_set_is_derived_anew() {
    let mut set =
        fenced(FENCE, "grants/team/a.yaml", &HONEST.replace("secret: team-npm", "secret: prod-npm"));
    assert!(ask(&set, &job(&[]), None).is_err());
    set.guardrails[0].applies_to.folders = Some(vec![Glob::parse("elsewhere").unwrap()]);
    set.derive();
    assert!(ask(&set, &job(&[]), None).is_ok());
}

/// A grant of one credential of Vault at a path.
fn at_path(path: &str) -> String {
    HONEST.replace(
        "npm: { sealed: { secret: team-npm } }",
        &format!("npm: {{ vault: {{ engine: kv2, path: \"{path}\" }} }}"),
    )
}

const TEMPLATE: &str = "kv/data/ci/${claims.repository_id}/npm";

#[test]
fn target_is_judged_as_it_is_expanded_for_the_job() {
    for (allowed, holds) in [
        ("kv/data/ci/701/npm", true),
        ("kv/data/ci/*/npm", true),
        ("kv/data/ci/**", true),
        ("kv/data/ci/702/npm", false),
        ("kv/data/prod/**", false),
    ] {
        let guardrail = format!("guardrail: a\ntargets: {{ vault: \"{allowed}\" }}\n");
        let set = fenced(&guardrail, "grants/team/a.yaml", &at_path(TEMPLATE));
        match ask(&set, &job(&[]), Some(&["npm"])) {
            Ok(permit) => {
                assert!(holds, "{allowed}");
                assert_eq!(permit.grants()[0].credentials[0].target.as_str(), "kv/data/ci/701/npm");
            }
            Err(reasons) => assert_eq!((reasons, holds), (vec!["targets".to_owned()], false), "{allowed}"),
        }
    }
}

#[test]
fn class_is_that_of_the_expanded_target() {
    let guardrail = "guardrail: a\nclassify:\n  - { vault: \"kv/data/ci/701/**\", class: read }\n  - { vault: \"kv/data/ci/702/**\", class: signing }\n";
    let grant = at_path(TEMPLATE)
        .replace("class: production\n", "")
        .replace("  sts: { oidc: { audience: \"https://team.test/a\" }, ttl: 2m }\n", "");
    let grant = grant.replace("\"701\"", "[\"701\", \"702\", \"703\"]");
    let set = fenced(guardrail, "grants/team/a.yaml", &grant);
    assert_eq!(set.grants.values().next().unwrap().class, Class::Signing, "what it could reach at most");
    for (project, class) in [("701", Class::Read), ("702", Class::Signing), ("703", Class::Production)] {
        let job = job(&[("repository_id", json!(project))]);
        let permit = ask(&set, &job, None).unwrap_or_else(|reasons| panic!("{project}: {reasons:?}"));
        assert_eq!(permit.grants()[0].class, class, "{project}");
    }
}

#[test]
fn claim_that_does_not_fit_refuses_the_exchange() {
    // An immutable claim of another shape can only come from a CI system gone wrong; it must not lead elsewhere.
    let grant = at_path(TEMPLATE).replace("      repository_id: \"701\"\n", "");
    let set = fenced("guardrail: a\ntargets: { vault: any, oidc: any }\n", "grants/team/a.yaml", &grant);
    assert!(ask(&set, &job(&[]), None).is_ok());
    for bad in ["..", "../prod", "701/../../prod", "a b", "%2e%2e"] {
        let job = job(&[("repository_id", json!(bad))]);
        assert_eq!(ask(&set, &job, Some(&["npm"])).err(), Some(vec!["template".to_owned()]), "{bad:?}");
        assert!(ask(&set, &job, Some(&["sts"])).is_ok(), "the other credential has no template");
    }
}

#[test]
fn guardrail_by_backend_speaks_of_every_credential_that_leaves_it_out_where_none_is_known() {
    let guardrail = "guardrail: a\napplies_to: { backend: dr }\nrequire: { grant_names: [\"other-*\"] }\n";
    let set = fenced(guardrail, "grants/team/a.yaml", &at_path("kv/data/ci/npm"));
    assert!(ask(&set, &job(&[]), Some(&["npm"])).is_err());
    assert!(ask(&set, &job(&[]), Some(&["sts"])).is_ok());
    let named = at_path("kv/data/ci/npm").replace("engine:", "backend: main, engine:");
    let set = fenced(guardrail, "grants/team/a.yaml", &named);
    assert!(ask(&set, &job(&[]), Some(&["npm"])).is_ok());
}
