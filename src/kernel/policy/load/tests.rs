use super::*;
use crate::kernel::{identity::profile::Profile, policy::finding::CODES};

const ISSUER: &str = "issuer: github\nprofile: github-actions\nurl: https://token.actions.githubusercontent.com\naudience: https://broker.test\nmax_token_age: 10m\n";
const GENERIC: &str = "issuer: own\nprofile: generic\nurl: https://ci.test\naudience: https://broker.test\n";
const GRANT: &str = r#"grant: a
description: An example
owners: [team-a]
class: production
allow:
  - name: main
    issuer: github
    match:
      repository_owner_id: "4216"
      repository: acme/app
      ref: { glob: "refs/heads/release/*" }
credentials:
  npm: { sealed: { secret: npm-token } }
  sts: { oidc: { audience: https://sts.test }, ttl: 5m }
"#;

fn files(list: &[(&str, &str)]) -> Files {
    Files(list.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect())
}

fn findings(issuer: &str, grant: &str) -> Vec<Finding> {
    let files =
        files(&[("issuers/github.yaml", issuer), ("issuers/own.yaml", GENERIC), ("grants/t/a.yaml", grant)]);
    let found = load(&files, None, None).err().unwrap_or_default();
    for finding in &found {
        assert!(CODES.iter().any(|(code, _)| *code == finding.code), "{} is in no table", finding.code);
        assert!(finding.line > 0 && finding.column > 0 && !finding.remedy.is_empty());
    }
    found
}

fn trusted(name: &str, url: &str, profile: &str) -> Trusted {
    let name = IssuerName::parse(name).unwrap();
    let issuer =
        TrustedIssuer { name: name.clone(), url: url.into(), profile: Profile::by_name(profile).unwrap() };
    BTreeMap::from([(name, issuer)]).into()
}

#[test]
fn a_good_set_loads_whole() {
    assert_eq!(findings(ISSUER, GRANT), []);
    let set = load(&files(&[("issuers/github.yaml", ISSUER), ("grants/t/a.yaml", GRANT)]), None, None)
        .unwrap_or_else(|_| panic!())
        .set;
    assert_eq!((set.issuers.len(), set.grants.len()), (1, 1));
    assert!(set.named_tenants.values().any(|tenants| tenants.contains("4216")));
}

#[test]
fn assertion_to_what_the_operator_calls_this_broker_is_refused_at_its_place() {
    let url = "https://token.actions.githubusercontent.com";
    let of = |ourselves: &[&str]| {
        let ourselves = ourselves.iter().map(|each| (*each).to_owned()).collect();
        let trusted = Trusted { ourselves, ..trusted("github", url, "github-actions") };
        let files = files(&[("issuers/github.yaml", ISSUER), ("grants/t/a.yaml", GRANT)]);
        load(&files, None, Some(&trusted)).err().unwrap_or_default()
    };
    assert_eq!(of(&["https://oidc.broker.test/ci", "https://other.test"]), []);
    for name in ["https://sts.test", "HTTPS://sts.test/"] {
        let found = of(&["https://other.test", name]);
        let [finding] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((finding.code, finding.line), ("audience-ourselves", 14));
        assert!(finding.message.contains("assertions.issuer") && !finding.remedy.is_empty(), "{finding}");
    }
}

#[test]
fn every_spoiled_grant_is_refused_at_its_place() {
    let cases = [
        ("grant: a", "grunt: a", "unknown-key", 1),
        ("grant: a", "grant: A_b", "name", 1),
        ("class: production", "class: prod", "class", 4),
        ("issuer: github", "issuer: githob", "unknown-issuer", 7),
        ("\"4216\"", "4216", "literal-type", 9),
        ("      repository_owner_id: \"4216\"\n", "", "tenant-pin", 9),
        ("repository_owner_id: \"4216\"", "repository_owner_id: { not: \"4216\" }", "tenant-pin", 9),
        ("repository: acme/app", "repository: \"acme/*\"", "glob-in-literal", 10),
        ("repository: acme/app", "repository: { glob: \"acme/*\" }", "glob-on-identity", 10),
        ("repository: acme/app", "sub: { glob: \"repo:acme*\" }", "glob-on-identity", 10),
        ("repository: acme/app", "enviroment: prod", "unknown-claim", 10),
        ("repository: acme/app", "event_name: on", "literal-type", 10),
        ("repository: acme/app", "repository: []", "empty-match", 10),
        ("repository: acme/app", "repository: { like: x }", "unknown-key", 10),
        ("repository: acme/app", "aud: x", "registered-claim", 10),
        ("repository: acme/app", "/aud: x", "pointer", 10),
        ("repository: acme/app", "/repository: acme/app", "pointer", 10),
        ("repository: acme/app", "/repository/0: acme/app", "pointer", 10),
        ("repository: acme/app", "/repository~2: acme/app", "pointer", 10),
        ("repository: acme/app", "ref_protected: true", "literal-type", 10),
        ("repository: acme/app", "run_number: 0701", "literal-type", 10),
        ("repository: acme/app", "repository: { not: { not: acme/app } }", "matcher", 10),
        ("repository: acme/app", "environment: { not: { present: true } }", "matcher", 10),
        ("repository: acme/app", "environment: { not: [a, { present: false }] }", "matcher", 10),
        ("repository: acme/app", "environment: [a, { not: b }]", "matcher", 10),
        ("repository: acme/app", "environment: [a, { present: true }]", "matcher", 10),
        ("repository: acme/app", "environment: { present: false, not: a }", "matcher", 10),
        ("repository: acme/app", "environment: [[a]]", "type", 10),
        ("repository: acme/app", "repository: { not: { glob: \"acme/*\" } }", "glob-on-identity", 10),
        ("{ glob: \"refs/heads/release/*\" }", "{ glob: \"refs/***\" }", "glob", 11),
        ("{ glob: \"refs/heads/release/*\" }", "\"refs/heads/release/*\"", "glob-in-literal", 11),
        ("ttl: 5m", "ttl: 6m", "ttl", 14),
        ("ttl: 5m", "ttl: 59s", "ttl", 14),
        ("ttl: 5m", "ttl: 0s", "duration", 14),
        ("secret: npm-token }", "secret: npm-token }, ttl: 1h", "ttl-on-static", 13),
        ("secret: npm-token", "secret: \"${claims.repository}\"", "template", 13),
        ("https://sts.test", "https://broker.test", "audience-ourselves", 14),
        ("https://sts.test", "https://Broker.test/", "audience-ourselves", 14),
        ("https://sts.test", "sts.amazonaws.com", "audience-federated", 14),
        ("https://sts.test", "\"api://AzureADTokenExchange\"", "audience-federated", 14),
        ("https://sts.test", "//iam.googleapis.com/projects/1/x", "audience-federated", 14),
        ("https://sts.test", "\"\"", "empty", 14),
        ("https://sts.test", "\"https://a b\"", "audience", 14),
        ("https://sts.test", "\"https://${claims.repository}.test\"", "template", 14),
        ("sealed: { secret: npm-token }", "gcp: { account: x }", "not-yet", 13),
        ("class: production", "limits: { live: 0 }", "limits", 4),
        ("class: production", "limits: { live: 1_000 }", "type", 4),
        ("class: production", "limits: { live: -1 }", "limits", 4),
        ("class: production", "limits: { issuances_per_hour: 1000001 }", "limits", 4),
        ("class: production", "limits: { uses_per_token: 9 }", "limits", 4),
        ("class: production", "limits: { uses_per_token: 0 }", "limits", 4),
        ("class: production", "limits: {}", "limits", 4),
        ("class: production", "limits: { per: project }", "limits", 4),
        ("class: production", "limits: { live: 4, per: run }", "limits", 4),
        ("class: production", "disclose: everybody", "disclose", 4),
        ("class: production", "window: { timezone: UTC, days: [mon] }", "unknown-key", 4),
        ("class: production", "valid_until: 2027-02-29", "date", 4),
        ("class: production", "valid_until: soon", "date", 4),
        ("class: production", "enabled: yes", "type", 4),
        ("  npm: { sealed: { secret: npm-token } }", "  npm: {}", "kind", 13),
    ];
    for (from, to, code, line) in cases {
        let spoiled = GRANT.replacen(from, to, 1);
        assert_ne!(spoiled, GRANT, "{from}");
        let found = findings(ISSUER, &spoiled);
        let hit = found.iter().find(|finding| finding.code == code);
        let hit = hit.unwrap_or_else(|| panic!("{from} -> {to}: {found:?}"));
        assert_eq!((hit.file.as_str(), hit.line), ("grants/t/a.yaml", line), "{to}: {hit}");
        assert!(!hit.remedy.is_empty() && hit.column > 0);
    }
}

#[test]
fn an_empty_match_and_an_empty_allow_are_refused() {
    let head = GRANT.split("    match:").next().unwrap();
    let empty = format!("{head}    match: {{}}\ncredentials: {{ npm: {{ sealed: {{ secret: x }} }} }}\n");
    assert!(findings(ISSUER, &empty).iter().any(|finding| finding.code == "empty-match"));
    let none = "grant: a\nallow: []\ncredentials: { npm: { sealed: { secret: x } } }\n";
    assert!(findings(ISSUER, none).iter().any(|finding| finding.code == "empty"));
}

#[test]
fn every_spoiled_issuer_is_refused() {
    for (from, to, code) in [
        ("https://broker.test", "\"\"", "empty"),
        ("https://broker.test", "[]", "audience"),
        ("https://broker.test", "[https://broker.test, https://b.test]", "audience"),
        ("https://broker.test", "https://github.com/acme", "audience-default"),
        ("audience: https://broker.test\n", "", "missing-key"),
        ("github-actions", "github", "unknown-profile"),
        ("10m", "25h", "token-age"),
        ("https://token.actions.githubusercontent.com", "http://ci.example", "issuer-url"),
        ("https://token.actions.githubusercontent.com", "https://user@ci.example", "issuer-url"),
        ("https://token.actions.githubusercontent.com", "https://ci.example?x", "issuer-url"),
        ("https://token.actions.githubusercontent.com", "https://", "issuer-url"),
        ("https://token.actions.githubusercontent.com", "http://127.0.0.1.example", "issuer-url"),
        ("https://token.actions.githubusercontent.com", "http://127.0.0.01", "issuer-url"),
        ("https://token.actions.githubusercontent.com", "http://localhost", "issuer-url"),
        ("https://token.actions.githubusercontent.com", "token.actions.githubusercontent.com", "issuer-url"),
        ("10m", "10", "duration"),
        ("https://token.actions.githubusercontent.com", "https://ci.test", "duplicate-url"),
        ("issuer: github", "issuer: own", "duplicate-name"),
    ] {
        let spoiled = ISSUER.replacen(from, to, 1);
        let found = findings(&spoiled, "grant: a\nallow: []\ncredentials: {}\n");
        assert!(found.iter().any(|finding| finding.code == code), "{to}: {found:?}");
    }
    assert_eq!(findings(&ISSUER.replace("https://broker.test", "[https://broker.test]"), GRANT), []);
}

#[test]
fn policy_must_agree_with_the_operators_trust() {
    let set = files(&[("issuers/github.yaml", ISSUER)]);
    let url = "https://token.actions.githubusercontent.com";
    assert!(load(&set, None, Some(&trusted("github", url, "github-actions"))).is_ok());
    for wrong in [
        trusted("gitlab", url, "github-actions"),
        trusted("github", "https://other.test", "github-actions"),
        trusted("github", url, "generic"),
    ] {
        let found = load(&set, None, Some(&wrong)).err().unwrap_or_default();
        assert!(found.iter().any(|finding| finding.code == "untrusted-issuer"), "{found:?}");
    }
}

#[test]
fn a_generic_rule_must_name_its_subject() {
    let grant = |condition: &str| {
        format!(
            "grant: a\nallow:\n  - name: x\n    issuer: own\n    match: {{ {condition} }}\ncredentials: {{ npm: {{ sealed: {{ secret: x }} }} }}\n"
        )
    };
    assert_eq!(findings(ISSUER, &grant("sub: job-1, number: 7, ok: true, project: x")), []);
    for bad in ["project: x", "sub: { glob: \"job-*\" }", "sub: { not: x }", "sub: { present: true }"] {
        assert!(!findings(ISSUER, &grant(bad)).is_empty(), "{bad}");
    }
}

#[test]
fn files_without_a_meaning_are_refused_and_texts_are_not() {
    for (path, code) in [
        ("guardrails/readme.md", "unknown-file"),
        ("guardrails/deep/x.yaml", "unknown-file"),
        ("guardrails/x.yml", "unknown-file"),
        ("grants/readme.md", "unknown-file"),
        ("grants/a.yml", "unknown-file"),
        ("issuers/deep/x.yaml", "unknown-file"),
        ("other.yaml", "unknown-file"),
        ("docs/x.yml", "unknown-file"),
    ] {
        let found = load(&files(&[(path, "a: b\n")]), None, None).err().unwrap_or_default();
        assert!(
            found.iter().any(|finding| finding.code == code && finding.file == path),
            "{path}: {found:?}"
        );
    }
    assert!(
        load(
            &files(&[
                ("README.md", "# hello"),
                ("issuers/github.yaml", ISSUER),
                ("grants/a.test.yaml", "test: a\n")
            ]),
            None,
            None
        )
        .is_ok()
    );
}

#[test]
fn findings_of_one_file_hide_none_of_another() {
    let set =
        files(&[("issuers/github.yaml", "issuer: ["), ("grants/a.yaml", "grant: a\n"), ("x.yaml", "a: b")]);
    let found = load(&set, None, None).err().unwrap_or_default();
    let named: std::collections::BTreeSet<&str> = found.iter().map(|finding| finding.file.as_str()).collect();
    assert_eq!(named.len(), 3, "{found:?}");
}

#[test]
fn names_stand_once_in_the_whole_set() {
    let set = files(&[("issuers/github.yaml", ISSUER), ("grants/a.yaml", GRANT), ("grants/b.yaml", GRANT)]);
    let found = load(&set, None, None).err().unwrap_or_default();
    assert!(found.iter().any(|finding| finding.code == "duplicate-name" && finding.file == "grants/b.yaml"));
}

#[test]
fn an_empty_directory_is_no_policy() {
    for list in [vec![], vec![("README.md", "hello")], vec![("issuers", "x")]] {
        let found = load(&files(&list), None, None).err().unwrap_or_default();
        assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["no-issuer"]);
    }
}

#[test]
fn an_issuer_on_loopback_may_speak_http() {
    for url in
        ["http://127.0.0.1:8443", "http://[::1]:8443/ci", "https://[2001:db8::1]/x", "https://ci.test/a/b"]
    {
        assert_eq!(findings(&ISSUER.replace("https://token.actions.githubusercontent.com", url), GRANT), []);
    }
}

#[test]
fn a_rule_needs_more_than_an_attackers_word() {
    let of = |conditions: &str| {
        let head = GRANT.split("      repository: acme/app").next().unwrap();
        let tail = GRANT.split_once("release/*\" }\n").unwrap().1;
        findings(ISSUER, &format!("{head}{conditions}{tail}"))
    };
    assert_eq!(of(""), []);
    assert_eq!(of("      workflow: Deploy\n      repository_id: \"701\"\n"), []);
    for weak in [
        "      workflow: Deploy\n",
        "      head_ref: main\n      base_ref: main\n",
        "      workflow: Deploy\n      sha: { present: true }\n",
        "      workflow: Deploy\n      enterprise_id: \"7\"\n",
    ] {
        let codes: Vec<_> = of(weak).into_iter().map(|finding| finding.code).collect();
        assert_eq!(codes, ["attacker-controlled"], "{weak}");
    }
}

#[test]
fn every_file_shows_all_of_its_mistakes_at_once() {
    let spoiled = GRANT
        .replace("class: production", "class: prod")
        .replace("\"4216\"", "4216")
        .replace("ttl: 5m", "ttl: 6m")
        .replace("npm-token", "NPM");
    let lines: Vec<_> = findings(ISSUER, &spoiled).iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [4, 9, 13, 14]);
}

const GUARDRAIL: &str = r#"guardrail: a
applies_to: { class: [production], folder: t, issuer: github, target: { sealed: any } }
require:
  max_ttl: 1h
  issuers: [github, own]
  pinned: [project]
  protected_ref: true
  runner: hosted
  lifetime: [static, fixed]
  grant_names: ["*-prod"]
targets:
  sealed: [ "npm-*" ]
  vault: [ "database/creds/*", { backend: dr, match: "database/creds/*-ro" } ]
  aws: any
forbid:
  triggers: [pull_request_target, fork, issues, push]
classify:
  - { vault: "kv/data/ci/**", class: read }
  - { oidc: [ "https://a.test", "https://b.test" ], class: signing }
mode: report
report_until: 2027-03-31
"#;

fn guardrail_findings(guardrail: &str) -> Vec<Finding> {
    let files = files(&[
        ("issuers/github.yaml", ISSUER),
        ("issuers/own.yaml", GENERIC),
        ("guardrails/a.yaml", guardrail),
        ("grants/t/a.yaml", GRANT),
    ]);
    load(&files, None, None).err().unwrap_or_default()
}

#[test]
fn every_spoiled_guardrail_is_refused_at_its_place() {
    assert_eq!(guardrail_findings(GUARDRAIL), []);
    for (from, to, code, line) in [
        ("guardrail: a", "guardrail: A", "name", 1),
        ("guardrail: a\n", "", "missing-key", 1),
        ("class: [production]", "class: [prod]", "class", 2),
        ("class: [production]", "class: []", "empty", 2),
        ("folder: t", "folder: /t", "folder", 2),
        ("folder: t", "folder: t/", "folder", 2),
        ("folder: t", "folder: grants/t", "folder", 2),
        ("folder: t", "folder: ../t", "folder", 2),
        ("folder: t", "folder: \"***\"", "glob", 2),
        ("issuer: github", "issuer: gitlab", "unknown-issuer", 2),
        ("issuer: github", "issuers: github", "unknown-key", 2),
        ("target: { sealed: any }", "target: {}", "empty", 2),
        ("target: { sealed: any }", "target: { sealt: any }", "unknown-key", 2),
        ("max_ttl: 1h", "max_ttl: 1", "duration", 4),
        ("max_ttl: 1h", "max_ttl: 0s", "duration", 4),
        ("issuers: [github, own]", "issuers: [github, ovn]", "unknown-issuer", 5),
        ("pinned: [project]", "pinned: [tenant]", "requirement", 6),
        ("pinned: [project]", "pinned: []", "empty", 6),
        ("protected_ref: true", "protected_ref: false", "requirement", 7),
        ("protected_ref: true", "protected_ref: \"true\"", "type", 7),
        ("runner: hosted", "runner: self-hosted", "requirement", 8),
        ("lifetime: [static, fixed]", "lifetime: [static, eternal]", "requirement", 9),
        ("\"*-prod\"", "\"*_prod\"", "glob", 10),
        ("\"*-prod\"", "\"prod/*\"", "glob", 10),
        ("\"npm-*\"", "\"npm/*\"", "glob", 12),
        ("\"npm-*\"", "{ backend: main, match: npm }", "backend", 12),
        ("sealed: [ \"npm-*\" ]", "sealed: []", "empty", 12),
        ("sealed: [ \"npm-*\" ]", "sealed: { any: true }", "unknown-key", 12),
        ("match: \"database/creds/*-ro\"", "path: x", "missing-key", 13),
        ("aws: any", "aws: every: any", "yaml-syntax", 14),
        ("aws: any", "awz: any", "unknown-key", 14),
        ("fork, issues, push", "forks", "trigger", 16),
        ("fork, issues, push", "pull_request_targets", "trigger", 16),
        ("triggers: [pull_request_target, fork, issues, push]", "trigger: [fork]", "unknown-key", 16),
        ("class: read }", "class: read, sealed: x }", "kind", 18),
        ("vault: \"kv/data/ci/**\", ", "", "kind", 18),
        (", class: read }", " }", "missing-key", 18),
        ("class: signing", "class: sign", "class", 19),
        ("mode: report", "mode: observe", "mode", 20),
        ("mode: report", "mode: enforce", "mode", 21),
        ("mode: report\n", "", "mode", 20),
        ("report_until: 2027-03-31\n", "", "mode", 20),
        ("report_until: 2027-03-31", "report_until: later", "date", 21),
    ] {
        let spoiled = GUARDRAIL.replacen(from, to, 1);
        assert_ne!(spoiled, GUARDRAIL, "{from}");
        let found = guardrail_findings(&spoiled);
        let hit = found.iter().find(|finding| finding.code == code);
        let hit = hit.unwrap_or_else(|| panic!("{from} -> {to}: {found:?}"));
        assert_eq!((hit.file.as_str(), hit.line), ("guardrails/a.yaml", line), "{to}: {hit}");
        assert!(!hit.remedy.is_empty() && hit.column > 0);
    }
}

#[test]
fn guardrail_that_limits_nothing_is_refused() {
    for text in [
        "guardrail: a\n",
        "guardrail: a\nmode: enforce\n",
        "guardrail: a\napplies_to: { folder: t }\n",
        "guardrail: a\nrequire: {}\n",
        "guardrail: a\nforbid: {}\n",
        "guardrail: a\nclassify: []\n",
        "guardrail: a\ntargets: {}\n",
        "guardrail: a\napplies_to: {}\nrequire: { max_ttl: 1h }\n",
    ] {
        let codes: Vec<_> = guardrail_findings(text).into_iter().map(|finding| finding.code).collect();
        assert_eq!(codes, ["empty"], "{text}");
    }
}

/// What one team's grant does is no reason to stop all others.
#[test]
fn breach_is_no_error() {
    assert_eq!(
        guardrail_findings(
            "guardrail: a\nrequire: { issuers: own, grant_names: [\"x\"] }\ntargets: { vault: any }\n"
        ),
        []
    );
}

#[test]
fn every_spoiled_window_is_refused() {
    let with = |window: &str| {
        findings(ISSUER, &GRANT.replace("    match:\n", &format!("    window: {window}\n    match:\n")))
    };
    for good in [
        "{ timezone: Europe/London, days: [mon, fri], from: \"07:00\", to: \"19:00\" }",
        "{ timezone: UTC, from: 22:00, to: 06:00 }",
        "{ timezone: UTC, days: [sat, sun] }",
        "{ timezone: UTC, from: \"00:00\", to: \"24:00\" }",
    ] {
        assert_eq!(with(good), [], "{good}");
    }
    for (bad, code) in [
        ("{ days: [mon] }", "missing-key"),
        ("{ timezone: UTC }", "window"),
        ("{ timezone: UTC, from: \"07:00\" }", "window"),
        ("{ timezone: UTC, to: \"07:00\" }", "window"),
        ("{ timezone: UTC, from: \"07:00\", to: \"07:00\" }", "window"),
        ("{ timezone: UTC, from: \"24:00\", to: \"07:00\" }", "window"),
        ("{ timezone: UTC, from: 7, to: \"19:00\" }", "window"),
        ("{ timezone: UTC, from: \"7:00\", to: \"19:00\" }", "window"),
        ("{ timezone: UTC, from: \"07:00\", to: \"24:30\" }", "window"),
        ("{ timezone: London, days: [mon] }", "window"),
        ("{ timezone: \"+01:00\", days: [mon] }", "window"),
        ("{ timezone: UTC, days: [] }", "empty"),
        ("{ timezone: UTC, days: mon }", "type"),
        ("{ timezone: UTC, days: [monday] }", "window"),
        ("{ timezone: UTC, days: [mon, mon] }", "window"),
        ("{ timezone: UTC, days: [mon], until: \"19:00\" }", "unknown-key"),
        ("[]", "type"),
    ] {
        let codes: Vec<_> = with(bad).into_iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [code], "{bad}");
    }
}

#[test]
fn limits_are_read_whole_and_absent_ones_are_none() {
    let of = |limits: &str| {
        let grant = format!("{GRANT}{limits}");
        let set = load(&files(&[("issuers/github.yaml", ISSUER), ("grants/a.yaml", &grant)]), None, None);
        set.unwrap_or_else(|findings| panic!("{findings:?}")).set.grants["a"].limits
    };
    assert_eq!(of(""), crate::kernel::policy::set::Limits::default());
    let whole = of("limits: { issuances_per_hour: 20, live: 4, per: project, uses_per_token: 8 }\n");
    assert_eq!((whole.issuances_per_hour, whole.live, whole.uses_per_token), (Some(20), Some(4), 8));
    assert_eq!(whole.per, crate::kernel::policy::set::LimitScope::Project);
}

#[test]
fn nothing_is_counted_per_project_where_tokens_name_none() {
    let grant = "grant: a\nallow: [{ name: x, issuer: own, match: { sub: job-1 } }]\ncredentials: { npm: { sealed: { secret: x } } }\nlimits: { live: 1, per: project }\n";
    let codes: Vec<_> = findings(ISSUER, grant).into_iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["limits"]);
    assert_eq!(findings(ISSUER, &grant.replace(", per: project", "")), []);
}

#[test]
fn lower_class_than_its_targets_is_a_warning_and_a_higher_one_is_none() {
    let warnings = |class: &str| {
        let grant = GRANT.replace("class: production", &format!("class: {class}"));
        let loaded = load(&files(&[("issuers/github.yaml", ISSUER), ("grants/a.yaml", &grant)]), None, None);
        loaded.unwrap_or_else(|findings| panic!("{findings:?}")).warnings
    };
    let [warning] = &warnings("write")[..] else { panic!("one") };
    assert_eq!(
        (warning.code, warning.line, warning.severity),
        ("class-lower", 4, crate::kernel::policy::Severity::Warning)
    );
    assert!(warnings("production").is_empty() && warnings("signing").is_empty());
}

#[test]
fn every_code_stands_in_the_table_with_its_meaning() {
    let sources = [
        include_str!("../load.rs"),
        include_str!("grant.rs"),
        include_str!("grant/limits.rs"),
        include_str!("grant/window.rs"),
        include_str!("guardrail.rs"),
        include_str!("guardrail/targets.rs"),
        include_str!("../breaches.rs"),
        include_str!("grant/aws.rs"),
        include_str!("grant/backend.rs"),
        include_str!("grant/credentials.rs"),
        include_str!("grant/vault.rs"),
        include_str!("grant/rule.rs"),
        include_str!("grant/rule/pins.rs"),
        include_str!("issuer.rs"),
        include_str!("../yaml.rs"),
        include_str!("../yaml/fields.rs"),
    ]
    .concat();
    let codes: std::collections::BTreeSet<&str> = CODES.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes.len(), CODES.len(), "each once");
    assert!(CODES.is_sorted());
    for code in &codes {
        assert!(sources.contains(&format!("\"{code}\"")), "nobody says {code}");
    }
}

mod backends {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kernel::policy::target::{Backend, Kind, Target};

    const DB: &str = "vault: { engine: database, path: database/creds/app }, ttl: 15m";

    fn grant(credential: &str) -> String {
        GRANT.replace("sealed: { secret: npm-token }", credential)
    }

    /// The first code of a credential, or none.
    fn code(credential: &str) -> Option<&'static str> {
        findings(ISSUER, &grant(credential)).first().map(|finding| finding.code)
    }

    #[test]
    fn credentials_of_vault_and_aws_load() {
        for good in [
            DB,
            "vault: { engine: kv2, path: kv/data/ci/npm, version: 3, fields: [token] }",
            "vault: { engine: kv1, path: secret/ci }",
            "vault: { engine: kv2, path: \"kv/data/ci/${claims.repository_id}/npm\" }",
            "vault: { engine: database-static, path: database/static-creds/app }",
            "vault: { engine: pki, path: pki/sign/ci, parameters: { common_name: ci.test, alt_names: [a.test] } }, ttl: 1h",
            "vault: { engine: ssh, path: ssh/sign/ci, parameters: { valid_principals: deploy, extensions: { permit-pty: \"\" } } }, ttl: 5m",
            "vault: { engine: gcp-token, path: gcp/roleset/ci/token }, ttl: 1h",
            "vault: { engine: transit, path: transit/sign/release/sha2-256 }",
            "vault: { engine: generic, path: custom/token/ci, lifetime: leased, secret_fields: [token], method: post }, ttl: 5m",
            "vault: { engine: kubernetes, path: kubernetes/creds/ci, parameters: { kubernetes_namespace: ci } }, ttl: 10m",
            "aws: { role_arn: \"arn:aws:iam::123456789012:role/path/deploy\", tags: { run: \"${claims.run_id}\" } }, ttl: 15m",
        ] {
            assert_eq!(findings(ISSUER, &grant(good)), [], "{good}");
        }
    }

    #[test]
    fn faults_of_vault_and_aws_are_told_where_they_stand() {
        for (bad, due) in [
            ("vault: { path: database/creds/app }, ttl: 15m", "missing-key"),
            ("vault: { engine: database, path: database/creds/app }", "missing-key"),
            ("vault: { engine: databse, path: database/creds/app }, ttl: 15m", "engine"),
            ("vault: { engine: database, path: database/creds/app }, ttl: 25h", "ttl"),
            ("vault: { engine: database, path: database/roles/app }, ttl: 15m", "path"),
            ("vault: { engine: database, path: database/creds/../app }, ttl: 15m", "path"),
            ("vault: { engine: database, path: /database/creds/app }, ttl: 15m", "path"),
            ("vault: { engine: database, path: v1/database/creds/app }, ttl: 15m", "path"),
            ("vault: { engine: generic, path: sys/leases/x, lifetime: static, secret_fields: [a] }", "path"),
            (
                "vault: { engine: generic, path: auth/token/create, lifetime: fixed, secret_fields: [a] }, ttl: 5m",
                "path",
            ),
            ("vault: { engine: kv2, path: kv/ci/npm }", "path"),
            ("vault: { engine: kv1, path: kv/ci, version: 2 }", "engine"),
            ("vault: { engine: kv2, path: kv/data/ci, version: 0 }", "engine"),
            ("vault: { engine: kv2, path: kv/data/ci }, ttl: 15m", "ttl-on-static"),
            ("vault: { engine: kv2, path: kv/data/ci, lifetime: leased }", "engine"),
            ("vault: { engine: kv2, path: kv/data/ci, fields: [] }", "empty"),
            ("vault: { engine: generic, path: x/y, lifetime: static }", "engine"),
            ("vault: { engine: kv2, path: \"kv/data/${claims.repository}/x\" }", "template"),
            ("vault: { engine: kv2, path: \"kv/data/${claims.head_ref}/x\" }", "template"),
            ("vault: { engine: kv2, path: \"kv/data/${claims.nothing}/x\" }", "template"),
            ("vault: { engine: kv2, path: \"kv/data/${env.HOME}/x\" }", "template"),
            ("vault: { engine: kv2, path: \"${claims.repository_id}/data/x\" }", "path"),
            ("vault: { backend: \"${claims.repository_id}\", engine: kv2, path: kv/data/x }", "template"),
            ("vault: { engine: pki, path: pki/sign/ci }, ttl: 1h", "parameter"),
            (
                "vault: { engine: pki, path: pki/sign/ci, parameters: { common_name: \"${claims.repository_id}\" } }, ttl: 1h",
                "template",
            ),
            (
                "vault: { engine: pki, path: pki/sign/ci, parameters: { common_name: a, ttl: 1h } }, ttl: 1h",
                "parameter",
            ),
            (
                "vault: { engine: ssh, path: ssh/sign/ci, parameters: { valid_principals: \"*\" } }, ttl: 1h",
                "parameter",
            ),
            (
                "vault: { engine: ssh, path: ssh/sign/ci, parameters: { valid_principals: [] } }, ttl: 1h",
                "parameter",
            ),
            ("vault: { engine: aws-sts, path: aws/sts/ci }, ttl: 10m", "ttl"),
            ("vault: { engine: gcp-token, path: gcp/roleset/ci/key }, ttl: 1h", "path"),
            ("vault: { engine: gcp-token, path: gcp/roleset/ci/token }, ttl: 30m", "ttl"),
            ("aws: { role_arn: deploy }, ttl: 15m", "arn"),
            (
                "aws: { role_arn: \"arn:aws:iam::123456789012:role/${claims.repository_id}\" }, ttl: 15m",
                "template",
            ),
            ("aws: { role_arn: \"arn:aws:iam::123456789012:role/*\" }, ttl: 15m", "arn"),
            ("aws: { role_arn: \"arn:aws:iam::123456789012:role/deploy\" }, ttl: 14m", "ttl"),
            ("aws: { role_arn: \"arn:aws:iam::123456789012:role/deploy\" }, ttl: 13h", "ttl"),
            (
                "aws: { role_arn: \"arn:aws:iam::123456789012:role/deploy\", tags: { a: x, A: y } }, ttl: 15m",
                "tag-key",
            ),
        ] {
            assert_eq!(code(bad), Some(due), "{bad}");
        }
    }

    fn of_configured(backends: &[(&str, Kind)], credential: &str) -> Result<Backend, &'static str> {
        let issuers = [("github", "https://token.actions.githubusercontent.com", "github-actions")];
        let issuers = issuers.map(|(name, url, profile)| {
            let name = crate::kernel::name::IssuerName::parse(name).unwrap();
            let profile = crate::kernel::identity::profile::Profile::by_name(profile).unwrap();
            (name.clone(), TrustedIssuer { name, url: url.into(), profile })
        });
        let backends = backends.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        let trusted = Trusted { issuers: BTreeMap::from(issuers), backends, ourselves: Vec::new() };
        let files = files(&[("issuers/github.yaml", ISSUER), ("grants/t/a.yaml", &grant(credential))]);
        match load(&files, None, Some(&trusted)) {
            Err(found) => Err(found[0].code),
            Ok(loaded) => {
                let grant = loaded.set.grants.values().next().unwrap();
                let vault = grant.credentials.values().find(|each| matches!(each.target.0, Target::Vault(_)));
                Ok(vault.unwrap().target.0.backend())
            }
        }
    }

    #[test]
    fn backend_is_the_one_named_or_the_only_one_of_its_kind() {
        let named = |name: &str| Ok(Backend::Named(name.into()));
        let other = "vault: { backend: dr, engine: database, path: database/creds/app }, ttl: 15m";
        assert_eq!(of_configured(&[("main", Kind::Vault), ("aws", Kind::Aws)], DB), named("main"));
        assert_eq!(of_configured(&[("main", Kind::Vault), ("dr", Kind::Vault)], other), named("dr"));
        assert_eq!(of_configured(&[("main", Kind::Vault), ("dr", Kind::Vault)], DB), Err("backend"));
        assert_eq!(of_configured(&[("aws", Kind::Aws)], DB), Err("backend"));
        assert_eq!(of_configured(&[("main", Kind::Vault)], other), Err("backend"));
        assert_eq!(of_configured(&[("dr", Kind::Aws)], other), Err("backend"));
    }
}
