use super::{
    draft::{DraftFault, Wish, draft},
    *,
};
use crate::kernel::{
    identity::{profile::Profile, testing::fixture},
    name::{IssuerName, SecretName},
    policy::{finding::CODES, load},
};

const ISSUER: &str = "issuer: github\nprofile: github-actions\nurl: https://token.actions.githubusercontent.com\naudience: https://broker.test\n";
const GRANT: &str = r#"grant: a
class: read
allow:
  - name: main
    issuer: github
    match:
      repository_owner_id: "4216"
      repository_id: "701"
      ref: { glob: "refs/heads/*" }
      environment: { not: staging }
      event_name: [push, schedule]
  - name: tags
    issuer: github
    match:
      repository_owner_id: "4216"
      repository_id: "701"
      ref: { glob: "refs/tags/*" }
      environment: { present: false }
credentials:
  npm: { sealed: { secret: npm-token } }
  sts: { oidc: { audience: https://sts.test }, ttl: 3m }
valid_until: 2027-03-31
"#;
const TEST: &str = r#"test: a
fixtures:
  main:
    issuer: github
    at: "2027-01-13T10:00:00Z"
    claims:
      repository_owner: acme
      repository_owner_id: "4216"
      repository: acme/app
      repository_id: "701"
      run_id: "1"
      run_attempt: "1"
      ref: refs/heads/main
      environment: production
      event_name: push
cases:
  - { name: push, use: main, expect: permit, rule: main, ttl_max: 3m }
  - { name: a tag, use: main, set: { ref: refs/tags/v1 }, remove: [environment], expect: permit, rule: tags }
  - { name: sts alone, use: main, credentials: [sts], expect: permit, ttl_max: { sts: 3m } }
  - { name: owner, use: main, set: { repository_owner_id: "1" }, expect: deny, failed: [repository_owner_id], rule: main }
  - { name: repository, use: main, set: { repository_id: "1" }, expect: deny, failed: [repository_id], rule: main }
  - { name: ref, use: main, set: { ref: refs/pull/1/merge }, expect: deny, failed: [ref], rule: main }
  - { name: no ref, use: main, remove: [ref], expect: deny, failed: [ref], rule: main }
  - { name: staging, use: main, set: { environment: staging }, expect: deny, failed: [environment], rule: main }
  - { name: no environment, use: main, remove: [environment], expect: deny, failed: [environment] }
  - { name: event, use: main, set: { event_name: release }, expect: deny, failed: [event_name], rule: main }
  - { name: no event, use: main, remove: [event_name], expect: deny, reason: no-rule }
  - { name: tag with environment, use: main, set: { ref: refs/tags/v1 }, expect: deny, failed: [environment], rule: tags }
  - { name: tag of another, use: main, set: { ref: refs/tags/v1, repository_owner_id: "1" }, remove: [environment], expect: deny, failed: [repository_owner_id], rule: tags }
  - { name: tag of another repository, use: main, set: { ref: refs/tags/v1, repository_id: "1" }, remove: [environment], expect: deny, failed: [repository_id], rule: tags }
  - { name: branch without environment, use: main, remove: [environment], expect: deny, failed: [ref], rule: tags }
  - { name: tag without ref, use: main, remove: [environment, ref], expect: deny, failed: [ref], rule: tags }
  - { name: tag by a stranger, use: main, set: { ref: refs/tags/v1, event_name: issue_comment }, remove: [environment], expect: deny, reason: trigger }
  - { name: last day, use: main, at: "2027-03-31T23:59:59Z", expect: permit }
  - { name: after, use: main, at: "2027-04-01T00:00:00Z", expect: deny, reason: lapsed }
"#;

fn suites(list: &[(&str, &str)]) -> Suites {
    let mut files = Files::default();
    files.0.insert("issuers/github.yaml".to_owned(), ISSUER.as_bytes().to_vec());
    for (path, text) in list {
        files.0.insert((*path).to_owned(), text.as_bytes().to_vec());
    }
    let set = load::load(&files, None, None).unwrap_or_else(|findings| panic!("{findings:?}")).set;
    Suites::read(files, set)
}

fn with_test(test: &str) -> Suites {
    suites(&[("grants/a.yaml", GRANT), ("grants/a.test.yaml", test)])
}

/// Codes and lines of what is wrong with a test file.
fn wrong(test: &str) -> Vec<(&'static str, usize)> {
    let suites = with_test(test);
    for finding in suites.findings() {
        let is_known = CODES.iter().chain(TEST_CODES).any(|(code, _)| *code == finding.code);
        assert!(is_known, "{} is in no table", finding.code);
        assert!(finding.line > 0 && finding.column > 0 && !finding.remedy.is_empty());
    }
    suites.findings().iter().map(|finding| (finding.code, finding.line)).collect()
}

fn failing(suites: &Suites) -> Vec<(String, String)> {
    let told = suites.run().into_iter();
    told.filter_map(|told| Some((told.name, told.fault?.message))).collect()
}

fn line_of(text: &str) -> usize {
    TEST.lines().position(|line| line.contains(text)).unwrap() + 1
}

#[test]
fn good_table_passes_and_notices_everything() {
    let mut suites = with_test(TEST);

    assert_eq!(suites.findings(), []);
    assert_eq!(failing(&suites), []);
    let mutation = suites.mutate();
    let survivors: Vec<_> = mutation.survivors.iter().map(|each| &each.what).collect();
    assert!(survivors.is_empty(), "{survivors:?}");
    assert_eq!(mutation.score(), 100);
    assert!(mutation.weakened > 15, "{}", mutation.weakened);
    assert_eq!(failing(&suites), [], "the set is as it was");
}

#[test]
fn every_spoiled_table_is_refused_at_its_place() {
    let cases = [
        ("test: a", "tests: a", "missing-key", 1),
        ("test: a", "test: b", "test-grant", 1),
        ("expect: permit, rule: main, ttl_max", "expects: permit, rule: main, ttl_max", "missing-key", 17),
        (
            "expect: permit, rule: main, ttl_max",
            "skip: true, expect: permit, rule: main, ttl_max",
            "unknown-key",
            17,
        ),
        ("name: push, use: main", "name: push, use: mian", "test-fixture", 17),
        ("name: owner", "name: push", "duplicate-name", 20),
        ("expect: permit, rule: main, ttl_max", "expect: allow, rule: main, ttl_max", "test-expect", 17),
        ("expect: permit, rule: main", "expect: permit, failed: [ref], rule: main", "test-expect", 17),
        ("expect: deny, failed: [event_name]", "expect: deny, ttl_max: 3m", "test-expect", 26),
        ("rule: main, ttl_max: 3m", "rule: mane, ttl_max: 3m", "test-expect", 17),
        ("credentials: [sts], expect", "credentials: [sst], expect", "test-credential", 19),
        ("ttl_max: { sts: 3m }", "ttl_max: { npm: 3m }", "test-credential", 19),
        (
            "credentials: [sts], expect: permit, ttl_max: { sts: 3m }",
            "credentials: [npm], expect: permit, ttl_max: 3m",
            "test-credential",
            19,
        ),
        ("set: { ref: refs/pull/1/merge }", "set: { reff: refs/pull/1/merge }", "unknown-claim", 22),
        ("set: { ref: refs/pull/1/merge }", "set: { ref: refs/heads/main }", "test-change", 22),
        ("set: { ref: refs/pull/1/merge }", "set: { ref: null }", "literal-type", 22),
        ("set: { ref: refs/pull/1/merge }", "set: { ref: 7 }", "literal-type", 22),
        ("set: { ref: refs/pull/1/merge }", "set: {}", "empty", 22),
        ("set: { ref: refs/pull/1/merge }", "set: { aud: x }", "registered-claim", 22),
        ("set: { ref: refs/pull/1/merge }", "set: { /ref: x }", "pointer", 22),
        ("set: { ref: refs/pull/1/merge }", "set: { /ref/0: x }", "test-change", 22),
        ("set: { ref: refs/pull/1/merge }", "remove: [run_id]", "test-fixture", 22),
        ("set: { ref: refs/pull/1/merge }", "remove: [base_ref]", "test-change", 22),
        ("set: { ref: refs/pull/1/merge }", "remove: []", "empty", 22),
        (
            "failed: [ref], rule: main }\n  - { name: no ref",
            "failed: [], rule: main }\n  - { name: no ref",
            "empty",
            22,
        ),
        ("    at: \"2027-01-13T10:00:00Z\"\n", "", "test-moment", 16),
        ("\"2027-03-31T23:59:59Z\"", "tomorrow", "date", 34),
        ("    issuer: github\n    at", "    issuer: gitlab\n    at", "unknown-issuer", 4),
        ("repository_id: \"701\"", "repository_id: 701", "literal-type", 10),
        ("      repository_id: \"701\"\n", "", "test-fixture", 7),
        ("repository_id: \"701\"", "repository_id: \"\"", "test-fixture", 7),
        (
            "      run_id: \"1\"\n",
            "      run_id: \"1\"\n      iss: https://elsewhere.test\n",
            "test-fixture",
            12,
        ),
        ("    claims:\n", "    file: fixtures/a.json\n    claims:\n", "test-fixture", 4),
    ];
    assert_eq!(wrong(TEST), []);
    for (from, to, code, line) in cases {
        assert!(TEST.contains(from), "{from}");
        let found = wrong(&TEST.replacen(from, to, 1));
        assert!(found.contains(&(code, line)), "{to}: {found:?}");
    }
}

#[test]
fn what_every_token_says_of_itself_may_stand_in_a_fixture() {
    let own = "iss: https://token.actions.githubusercontent.com\n      aud: [https://broker.test]\n      exp: 1\n      run_id";
    assert_eq!(wrong(&TEST.replacen("run_id", own, 1)), []);
}

#[test]
fn case_that_says_otherwise_fails_with_what_was() {
    let cases = [
        (
            "name: ref, use: main, set: { ref: refs/pull/1/merge }, expect: deny, failed: [ref], rule: main",
            "name: ref, use: main, set: { ref: refs/pull/1/merge }, expect: permit",
            "a permit was expected",
        ),
        (
            "name: push, use: main, expect: permit, rule: main, ttl_max: 3m",
            "name: push, use: main, expect: deny",
            "`main` permits it",
        ),
        ("rule: main, ttl_max: 3m", "rule: tags", "`tags` was expected to"),
        ("ttl_max: { sts: 3m }", "ttl_max: { sts: 2m }", "`sts` lives for 3m, and 2m"),
        ("expect: deny, failed: [event_name]", "expect: deny, failed: [ref]", "not just for [ref]"),
        (
            "expect: deny, failed: [event_name]",
            "expect: deny, failed: [event_name, ref]",
            "not just for [event_name, ref]",
        ),
        ("reason: lapsed", "reason: disabled", "not for `disabled`: lapsed"),
    ];
    for (from, to, message) in cases {
        assert!(TEST.contains(from), "{from}");
        let found = failing(&with_test(&TEST.replacen(from, to, 1)));
        assert!(found.len() == 1 && found[0].1.contains(message), "{to}: {found:?}");
    }
}

#[test]
fn failed_is_the_whole_list_in_any_order() {
    let both = TEST.replacen(
        "set: { ref: refs/pull/1/merge }, expect: deny, failed: [ref]",
        "set: { ref: refs/pull/1/merge, repository_id: \"1\" }, expect: deny, failed: [ref, repository_id]",
        1,
    );
    assert_eq!(failing(&with_test(&both)), []);
}

#[test]
fn every_missing_case_leaves_a_survivor_with_its_place_and_its_cure() {
    for (name, what) in [
        ("name: owner,", "without its condition on `repository_owner_id`"),
        ("name: repository,", "without its condition on `repository_id`"),
        ("name: staging,", "with any `environment` that is there"),
        ("name: tag with environment,", "without its condition on `environment`"),
        ("name: tag by a stranger,", "every trigger"),
        ("name: after,", "without its last day"),
    ] {
        let at = line_of(name);
        let kept: Vec<&str> =
            TEST.lines().enumerate().filter(|(line, _)| line + 1 != at).map(|(_, text)| text).collect();
        let mut suites = with_test(&kept.join("\n"));
        assert_eq!(suites.findings(), []);
        let mutation = suites.mutate();
        let found = mutation.survivors.iter().find(|each| each.what.contains(what));
        let found = found.unwrap_or_else(|| {
            panic!("{what}: {:?}", mutation.survivors.iter().map(|each| &each.what).collect::<Vec<_>>())
        });
        assert!(mutation.score() < 100);
        assert_eq!((found.file.as_str(), found.column > 0), ("grants/a.yaml", true));
        assert!(GRANT.lines().nth(found.line - 1).is_some(), "{}", found.line);

        // The case that it asks for is one that notices.
        let cure = found.remedy.strip_prefix("add the case ").unwrap().replace("name: …", "name: the cure");
        let mut cured = with_test(&format!("{}\n  - {cure}\n", kept.join("\n")));
        assert_eq!(cured.findings(), [], "{cure}");
        assert_eq!(failing(&cured), [], "{cure}");
        assert!(!cured.mutate().survivors.iter().any(|each| each.what.contains(what)), "{cure}");
    }
}

/// A grant whose credentials reach Vault and AWS, and a table that names all of it.
const REACHING: &str = r#"grant: a
allow:
  - name: main
    issuer: github
    match: { repository_owner_id: "4216", repository_id: "701", event_name: push }
credentials:
  npm: { vault: { engine: kv2, path: "kv/data/${claims.repository_id}/npm", version: 3, fields: [token] } }
  cert: { vault: { backend: second, engine: pki, path: pki/sign/ci, parameters: { common_name: a.test, exclude_cn_from_sans: true } }, ttl: 1h }
  own: { vault: { engine: generic, path: other/place, lifetime: static, secret_fields: [a, b] } }
  role:
    aws:
      backend: acme
      role_arn: "arn:aws:iam::123456789012:role/deploy"
      tags: { run: "${claims.run_id}" }
      session_policy: '{ "Version": "2012-10-17", "Statement": [] }'
      managed_policies: ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
    ttl: 15m
"#;
const REACHED: &str = r#"test: a
fixtures:
  main:
    issuer: github
    claims:
      repository_owner: acme
      repository_owner_id: "4216"
      repository: acme/app
      repository_id: "701"
      run_id: "12"
      run_attempt: "1"
      event_name: push
cases:
  - { name: push, use: main, expect: permit, ttl_max: { cert: 1h, role: 15m } }
  - { name: npm, use: main, expect: permit, reaches: { npm: { engine: kv2, path: kv/data/701/npm, version: 3, fields: [token] } } }
  - { name: cert, use: main, expect: permit, reaches: { cert: { backend: second, path: pki/sign/ci, parameters: { common_name: a.test, exclude_cn_from_sans: true } } } }
  - { name: own, use: main, expect: permit, reaches: { own: { path: other/place, secret_fields: [a, b] } } }
  - { name: role, use: main, expect: permit, reaches: { role: { backend: acme, role_arn: "arn:aws:iam::123456789012:role/deploy", tags: { run: "12" }, session_policy: { Version: "2012-10-17", Statement: [] }, managed_policies: ["arn:aws:iam::aws:policy/ReadOnlyAccess"] } } }
  - { name: owner, use: main, set: { repository_owner_id: "1" }, expect: deny, failed: [repository_owner_id] }
  - { name: repository, use: main, set: { repository_id: "1" }, expect: deny, failed: [repository_id] }
  - { name: event, use: main, set: { event_name: schedule }, expect: deny, failed: [event_name] }
"#;

#[test]
fn what_is_reached_is_noticed_by_its_name_only() {
    let reaching = |test: &str| suites(&[("grants/a.yaml", REACHING), ("grants/a.test.yaml", test)]);
    let mut whole = reaching(REACHED);
    assert_eq!(whole.findings(), []);
    assert_eq!(failing(&whole), []);
    let missed: Vec<String> = whole.mutate().survivors.into_iter().map(|each| each.what).collect();
    assert_eq!(missed, [] as [String; 0]);

    for (name, most) in [("npm", 3), ("cert", 4), ("own", 3), ("role", 5)] {
        let kept: Vec<&str> =
            REACHED.lines().filter(|line| !line.contains(&format!("name: {name},"))).collect();
        let kept = kept.join("\n");
        let survivors = reaching(&kept).mutate().survivors;
        assert_eq!(
            survivors.len(),
            most,
            "{:?}",
            survivors.iter().map(|each| &each.what).collect::<Vec<_>>()
        );
        for survivor in survivors {
            let line = REACHING.lines().nth(survivor.line - 1).unwrap();
            assert!(line.trim_start().starts_with(['b', 'n', 'c', 'o', 'r', 't', 's', 'm']), "{line}");
            let cure =
                survivor.remedy.strip_prefix("add the case ").unwrap().replace("name: …", "name: the cure");
            let mut cured = reaching(&format!("{kept}\n  - {cure}\n"));
            assert_eq!(cured.findings(), [], "{cure}");
            assert_eq!(failing(&cured), [], "{cure}");
            assert!(!cured.mutate().survivors.iter().any(|each| each.what == survivor.what), "{cure}");
        }
    }
}

#[test]
fn what_is_reached_is_compared_in_full_and_must_be_there() {
    let with = |from: &str, to: &str| {
        assert!(REACHED.contains(from), "{from}");
        suites(&[("grants/a.yaml", REACHING), ("grants/a.test.yaml", &REACHED.replacen(from, to, 1))])
    };
    for (from, to, told) in [
        ("path: kv/data/701/npm", "path: kv/data/702/npm", "the path of `npm` is \"kv/data/701/npm\""),
        ("fields: [token]", "fields: [token, user]", "the fields of `npm`"),
        ("version: 3,", "version: 4,", "the version of `npm` is 3"),
        ("secret_fields: [a, b]", "secret_fields: [a]", "the secret_fields of `own`"),
        ("tags: { run: \"12\" }", "tags: {}", "the tags of `role`"),
        ("Statement: []", "Statement: [{ Effect: Allow }]", "the session_policy of `role`"),
        ("npm: { engine: kv2", "npm: { engine: kv1", "the engine of `npm`"),
        ("backend: second", "backend: first", "the backend of `cert` is \"second\""),
        ("role: { backend: acme", "role: { backend: other", "the backend of `role` is \"acme\""),
        ("own: { path", "own: { backend: second, path", "the backend of `own` is absent"),
    ] {
        let found = failing(&with(from, to));
        assert!(found.len() == 1 && found[0].1.contains(told), "{to}: {found:?}");
    }
    for (from, to, code) in [
        ("reaches: { npm: {", "reaches: { nmp: {", "test-credential"),
        ("engine: kv2, path", "engin: kv2, path", "test-expect"),
        ("{ own: { path: other/place, secret_fields: [a, b] } }", "{}", "empty"),
        ("{ own: { path: other/place, secret_fields: [a, b] } }", "{ own: {} }", "empty"),
        ("expect: deny, failed: [event_name]", "expect: deny, reaches: { npm: x }", "test-expect"),
    ] {
        let codes: Vec<&str> = with(from, to).findings().iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [code], "{to}");
    }
}

/// A guardrail that lists exactly what a grant reaches, and classes of exactly that, tell every other target apart. They
/// do so for this grant and not for the table, which never names the target.
#[test]
fn what_a_guardrail_happens_to_refuse_is_noticed_by_nobody() {
    let guardrail = r#"guardrail: exact
targets: { vault: ["kv/data/701/npm", "pki/sign/ci", "other/place"], aws: ["arn:aws:iam::123456789012:role/deploy"] }
classify:
  - { vault: "kv/data/701/npm", class: read }
  - { vault: "pki/sign/ci", class: read }
  - { vault: "other/place", class: read }
  - { aws: "arn:aws:iam::123456789012:role/deploy", class: read }
"#;
    let missed = |test: &str| -> Vec<String> {
        let mut suites = suites(&[
            ("grants/a.yaml", REACHING),
            ("grants/a.test.yaml", test),
            ("guardrails/exact.yaml", guardrail),
        ]);
        assert_eq!((suites.findings(), failing(&suites)), (&[] as &[Finding], Vec::new()));
        suites.mutate_grants().survivors.into_iter().map(|each| each.what).collect()
    };
    assert_eq!(missed(REACHED), [] as [String; 0]);
    let is_kept = |line: &&str| !line.contains("reaches:");
    let silent = REACHED.lines().filter(is_kept).collect::<Vec<_>>().join("\n");
    let silent = silent.replace("ttl_max: { cert", "class: read, ttl_max: { cert");
    let missed = missed(&silent);
    for what in
        ["`npm` at another path", "`cert` at another path", "`own` at another path", "`role` of another role"]
    {
        assert!(missed.iter().any(|each| each == what), "{what}: {missed:?}");
    }
    assert_eq!(missed.len(), 3 + 4 + 3 + 5, "{missed:?}");
}

/// Which backend is the only one of its kind, the configuration says: a set has the same score with it and without.
#[test]
fn backend_that_a_grant_leaves_out_is_not_weakened() {
    let without = |text: &str| {
        text.replace("backend: second, ", "")
            .replace("      backend: acme\n", "")
            .replace("backend: acme, ", "")
    };
    let weakened = |grant: &str, test: &str| {
        let mut suites = suites(&[("grants/a.yaml", grant), ("grants/a.test.yaml", test)]);
        let mutation = suites.mutate();
        assert!(mutation.survivors.is_empty());
        mutation.weakened
    };
    let named = weakened(REACHING, REACHED);
    assert_eq!(weakened(&without(REACHING), &without(REACHED)), named - 2);
}

#[test]
fn longer_life_is_noticed_by_the_limit_itself_only() {
    let loose = TEST.replace("ttl_max: 3m", "ttl_max: 4m").replace("{ sts: 3m }", "{ sts: 4m }");
    let mut suites = with_test(&loose);
    assert_eq!(failing(&suites), []);
    let survivors = suites.mutate().survivors;
    assert!(survivors[0].what.contains("living for longer than 3m"), "{}", survivors[0].what);
    assert_eq!(survivors[0].line, 21);
}

#[test]
fn grant_without_tests_a_denial_or_a_permit_is_a_finding() {
    let codes = |list: &[(&str, &str)]| -> Vec<&'static str> {
        suites(list).findings().iter().map(|finding| finding.code).collect()
    };
    let only = |names: &[&str]| {
        let is_kept = |line: &&str| !line.starts_with("  - ") || names.iter().any(|name| line.contains(name));
        TEST.lines().filter(is_kept).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(codes(&[("grants/a.yaml", GRANT)]), ["test-missing"]);
    assert_eq!(
        codes(&[("grants/a.yaml", GRANT), ("grants/a.test.yaml", &only(&["name: push,"]))]),
        ["test-no-deny"]
    );
    assert_eq!(
        codes(&[("grants/a.yaml", GRANT), ("grants/a.test.yaml", &only(&["name: ref,"]))]),
        ["test-no-permit"]
    );
    let off = format!("{GRANT}enabled: false\n");
    let denied = "name: switched off, use: main, expect: deny, reason: disabled";
    let test = only(&[]) + &format!("\n  - {{ {denied} }}\n");
    assert_eq!(codes(&[("grants/a.yaml", &off), ("grants/a.test.yaml", &test)]), [] as [&str; 0]);
}

#[test]
fn empty_tables_and_unused_fixtures_are_findings() {
    assert_eq!(wrong("test: a\nfixtures: {}\ncases: []\n"), [("empty", 2), ("empty", 3)]);
    let more =
        TEST.replacen("cases:\n", "  spare:\n    issuer: github\n    file: fixtures/push.json\ncases:\n", 1);
    let payload = r#"{"iss":"https://token.actions.githubusercontent.com","aud":"https://broker.test","jti":"x","repository":"acme/app","repository_id":"701","repository_owner":"acme","repository_owner_id":"4216","run_id":"1","run_attempt":"1","a_new_claim":true,"sub":"s"}"#;
    let read = |payload: &str| {
        let suites = suites(&[
            ("grants/a.yaml", GRANT),
            ("grants/a.test.yaml", &more),
            ("fixtures/push.json", payload),
        ]);
        suites.findings().iter().map(|finding| (finding.code, finding.severity)).collect::<Vec<_>>()
    };
    assert_eq!(read(payload), [("test-unused", Severity::Warning)]);
    assert_eq!(read("[]"), [("test-file", Severity::Error)]);
    assert_eq!(read(&payload.replace("broker.test", "elsewhere.test")), [("test-fixture", Severity::Error)]);
    assert_eq!(wrong(&more), [("test-file", 18)]);
}

#[test]
fn the_tables_of_codes_are_sorted_and_apart() {
    assert!(TEST_CODES.is_sorted_by(|left, right| left.0 < right.0));
    assert!(TEST_CODES.iter().all(|(code, _)| !CODES.iter().any(|(other, _)| code == other)));
    let sources = [
        include_str!("mod.rs"),
        include_str!("read.rs"),
        include_str!("claims.rs"),
        include_str!("expect.rs"),
        include_str!("reach.rs"),
    ]
    .concat();
    for (code, _) in TEST_CODES {
        assert!(sources.matches(&format!("\"{code}\"")).count() > 1, "{code} is never given");
    }
}

/// Every payload of the fixtures: what it is of, and why there is no draft, where there is none.
const PAYLOADS: &[(&str, &str, &str, &str)] = &[
    (
        "azure-devops",
        "azure-devops",
        "https://vstoken.dev.azure.com/f892efa9-103e-4d28-97a1-3b8616a0994d",
        "",
    ),
    (
        "bitbucket",
        "bitbucket",
        "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc",
        "",
    ),
    ("buildkite", "buildkite", "https://agent.buildkite.com", ""),
    ("circleci", "circleci", "https://oidc.circleci.com/org/x", ""),
    ("forgejo", "forgejo", "https://forge.acme.example/api/actions", ""),
    ("generic", "generic", "https://ci.acme.example", ""),
    ("github-actions", "github-actions", "https://token.actions.githubusercontent.com", ""),
    ("github-actions-enterprise", "github-actions", "https://token.actions.githubusercontent.com", ""),
    ("github-actions-ghes", "github-actions", "https://ghe.acme.example/_services/token", ""),
    ("github-actions-pull-request", "github-actions", "https://token.actions.githubusercontent.com", ""),
    (
        "github-actions-pull-request-target",
        "github-actions",
        "https://token.actions.githubusercontent.com",
        "Trigger",
    ),
    ("gitlab", "gitlab", "https://gitlab.com", ""),
    ("gitlab-fork-merge-request", "gitlab", "https://gitlab.com", "Trigger"),
    ("gitlab-self-managed", "gitlab", "https://gitlab.acme.example", ""),
    ("google", "google", "https://accounts.google.com", ""),
    ("hcp-terraform", "hcp-terraform", "https://app.terraform.io", ""),
    (
        "kubernetes",
        "kubernetes",
        "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E",
        "",
    ),
    ("spiffe", "spiffe", "https://spire.acme.example", ""),
];

#[test]
fn draft_of_every_profile_is_let_in_and_notices_everything() {
    let mut wrong = Vec::new();
    for (file, profile, url, refused) in PAYLOADS {
        let profile = Profile::by_name(profile).unwrap();
        let serde_json::Value::Object(claims) = fixture(file) else { panic!("{file}") };
        let url = claims.get("iss").and_then(serde_json::Value::as_str).unwrap_or(url);
        let audience = profile.fixed_audience.unwrap_or("https://broker.test");
        let issuer = format!("issuer: ci\nprofile: {}\nurl: {url}\naudience: {audience}\n", profile.name);
        let files = Files([("issuers/ci.yaml".to_owned(), issuer.into_bytes())].into());
        let (issuer, grant) = (IssuerName::parse("ci").unwrap(), GrantName::parse("drafted").unwrap());
        let secret = SecretName::parse("token").unwrap();
        let wish = Wish { issuer: &issuer, profile, claims: &claims, grant: &grant, secret: &secret };

        match draft(&wish, &files) {
            Ok(draft) => {
                if !refused.is_empty() {
                    wrong.push(format!("{file}: drafted\n{}", draft.grant));
                }
                // What is a run's id at one vendor is the project's at another.
                let is_of_run = |name: &&str| profile.project.is_none_or(|(project, _)| project != *name);
                let runs =
                    ["jti", "sha", "run_id", "pipeline_id", "job_id", "build_id", "actor", "user_email"];
                for name in runs.into_iter().filter(is_of_run) {
                    let value =
                        claims.get(name).and_then(serde_json::Value::as_str).filter(|value| value.len() > 3);
                    let text = &draft.grant;
                    assert!(!value.is_some_and(|value| text.contains(value)), "{file}: {name}\n{text}");
                }
            }
            Err(fault) if refused.is_empty() || !format!("{fault:?}").starts_with(refused) => {
                wrong.push(format!("{file}: {fault:?}"));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn draft_says_that_a_guardrail_is_in_its_way() {
    let serde_json::Value::Object(claims) = fixture("github-actions-enterprise") else { panic!() };
    let guardrail = "guardrail: base\nrequire: { protected_ref: true }\n";
    let files = [("issuers/github.yaml", ISSUER), ("guardrails/base.yaml", guardrail)];
    let files = Files(files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())).into());
    let (issuer, grant) = (IssuerName::parse("github").unwrap(), GrantName::parse("drafted").unwrap());
    let secret = SecretName::parse("token").unwrap();
    let profile = Profile::by_name("github-actions").unwrap();
    let wish = Wish { issuer: &issuer, profile, claims: &claims, grant: &grant, secret: &secret };

    let fault = draft(&wish, &files).err().unwrap();
    assert!(matches!(&fault, DraftFault::Denied(reason) if reason == "guardrail"), "{fault:?}");
}

/// The shipped policies as they stand on the disk.
fn shipped() -> Files {
    fn walk(root: &std::path::Path, folder: &std::path::Path, files: &mut Files) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with('.') {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                files.0.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut files = Files::default();
    walk(&root, &root, &mut files);
    files
}

/// Every identity of the shipped tests before every shipped credential: what one change of a policy opens somewhere
/// else shows here as a changed line.
#[test]
fn every_shipped_identity_meets_every_shipped_credential() {
    use crate::kernel::policy::decide::{Decision, GrantRequest, decide};

    let files = shipped();
    let set = load::load(&files, None, None).unwrap_or_else(|findings| panic!("{findings:?}")).set;
    let suites = Suites::read(files, set.clone());
    let (mut table, mut denied) = (String::new(), 0_usize);
    for suite in &suites.suites {
        for case in &suite.cases {
            let mut permitted = Vec::new();
            for grant in set.names.iter().filter_map(|name| set.grants.get(name)) {
                for credential in grant.credentials.keys() {
                    let credentials = Some(vec![credential.to_string()]);
                    let asked = GrantRequest { name: grant.name.to_string(), credentials, ttl: None };
                    match decide(&set, &case.identity, &Request { grants: vec![asked] }, case.at) {
                        Decision::Permit(_) => permitted.push(format!("{}.{credential}", grant.name)),
                        Decision::Deny(_) => denied += 1,
                    }
                }
            }
            let permitted = if permitted.is_empty() { "nothing".to_owned() } else { permitted.join(" ") };
            table.push_str(&format!("{}, {}: {permitted}\n", suite.grant, case.name));
        }
    }
    table.push_str(&format!("denied: {denied}\n"));
    insta::assert_snapshot!(table);
}
