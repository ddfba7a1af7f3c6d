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

fn trusted(name: &str, url: &str, profile: &str) -> BTreeMap<IssuerName, TrustedIssuer> {
    let name = IssuerName::parse(name).unwrap();
    let issuer =
        TrustedIssuer { name: name.clone(), url: url.into(), profile: Profile::by_name(profile).unwrap() };
    BTreeMap::from([(name, issuer)])
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
        ("sealed: { secret: npm-token }", "vault: { engine: kv2, path: x }", "not-yet", 13),
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
        include_str!("grant/credentials.rs"),
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
