use super::{LINT_CODES, lint};
use crate::kernel::policy::{Severity, finding::CODES, load, set::Files};

const ISSUER: &str = "\
issuer: github
profile: github-actions
url: https://token.actions.githubusercontent.com
audience: https://hallpass.example.com
";

/// A grant without a fault: ids beside names, a protected ref, a definition at a tag.
const GRANT: &str = "\
grant: deploy
class: production
allow:
  - name: main
    issuer: github
    match:
      repository_owner_id: \"4216\"
      repository_id: \"701\"
      repository: acme/payments
      ref: refs/heads/main
      event_name: [push, workflow_dispatch]
      job_workflow_ref: { glob: \"acme/ci/.github/workflows/deploy.yml@refs/tags/v*\" }
credentials:
  npm:
    sealed: { secret: npm-token }
";

const GUARDRAIL: &str = "\
guardrail: base
classify:
  - { sealed: \"npm-*\", class: production }
";

/// The codes of the warnings, each with the line it stands on.
fn codes(files: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let texts: Vec<(String, Vec<u8>)> =
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    let files = Files(texts.iter().cloned().collect());
    let loaded = load::load(&files, None, None).unwrap_or_else(|findings| {
        let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
        panic!("{}", shown.join("\n"))
    });
    let now = "2026-11-24T12:00:00Z".parse().unwrap();
    lint(&loaded.set, now)
        .into_iter()
        .map(|finding| {
            assert_eq!(finding.severity, Severity::Warning);
            assert!(
                LINT_CODES.iter().any(|(code, _)| *code == finding.code),
                "{} is in no table",
                finding.code
            );
            let text = String::from_utf8(files.0[&finding.file].clone()).unwrap();
            (finding.code, text.lines().nth(finding.line - 1).unwrap().trim().to_owned())
        })
        .collect()
}

fn of_grant(spoil: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let mut text = GRANT.to_owned();
    for (from, to) in spoil {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    codes(&[
        ("issuers/github.yaml", ISSUER),
        ("guardrails/base.yaml", GUARDRAIL),
        ("grants/deploy.yaml", &text),
    ])
}

fn one(spoil: &[(&str, &str)]) -> (&'static str, String) {
    let found = of_grant(spoil);
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

#[test]
fn a_tight_grant_has_no_warning() {
    assert_eq!(of_grant(&[]), []);
}

#[test]
fn a_name_without_its_id_is_told() {
    let (code, line) = one(&[("      repository_id: \"701\"\n", "")]);
    assert_eq!((code, line.as_str()), ("name-without-id", "repository: acme/payments"));
}

#[test]
fn a_pattern_beyond_the_organisation_is_told() {
    for pattern in
        ["*/ci/.github/workflows/deploy.yml@refs/tags/v1", "**", "acme*/ci/x.yml@refs/tags/v1", "*"]
    {
        let (code, _) = one(&[("acme/ci/.github/workflows/deploy.yml@refs/tags/v*", pattern)]);
        assert_eq!(code, "glob-wide", "{pattern}");
    }
    let (code, line) = one(&[("ref: refs/heads/main", "ref: { glob: \"**\" }")]);
    assert_eq!((code, line.as_str()), ("glob-wide", "ref: { glob: \"**\" }"));
    assert_eq!(of_grant(&[("ref: refs/heads/main", "ref: { glob: \"refs/heads/release/*\" }")]), []);
}

#[test]
fn a_definition_that_moves_with_a_branch_is_told_unless_it_is_pinned_or_the_protected_refs_own() {
    let tag = "{ glob: \"acme/ci/.github/workflows/deploy.yml@refs/tags/v*\" }";
    let branch = "acme/ci/.github/workflows/deploy.yml@refs/heads/main";
    let (code, _) = one(&[(tag, branch)]);
    assert_eq!(code, "mutable-workflow");
    let pinned = format!("{branch}\n      job_workflow_sha: 27b0e1a44b6bd6c1b4f1a0d3e5ffb6d1f0c1a2b3");
    assert_eq!(of_grant(&[(tag, &pinned)]), []);
    let own = "acme/payments/.github/workflows/deploy.yml@refs/heads/main";
    assert_eq!(one(&[(tag, own)]).0, "mutable-workflow");
    let protected = format!("{own}\n      ref_protected: \"true\"");
    assert_eq!(of_grant(&[(tag, &protected)]), []);
    let unprotected = protected.replace("\"true\"", "\"false\"");
    assert_eq!(one(&[(tag, &unprotected)]).0, "mutable-workflow");
    let strangers = protected.replace("acme/payments/", "evil/acme/payments/");
    assert_eq!(one(&[(tag, &strangers)]).0, "mutable-workflow");
    let lookalike = protected.replace("acme/payments/", "acme/payments-evil/");
    assert_eq!(one(&[(tag, &lookalike)]).0, "mutable-workflow");
}

#[test]
fn a_claim_that_an_attacker_chooses_is_told() {
    let (code, line) = one(&[("ref: refs/heads/main", "ref: refs/heads/main\n      workflow: Deploy")]);
    assert_eq!((code, line.as_str()), ("attacker-claim", "workflow: Deploy"));
}

#[test]
fn githubs_old_subject_is_told_with_what_to_write() {
    let old = "ref: refs/heads/main\n      sub: \"repo:acme/payments:ref:refs/heads/main\"";
    assert_eq!(one(&[("ref: refs/heads/main", old)]).0, "sub-old-form");
    let new = old.replace("acme/payments", "acme@4216/payments@701");
    assert_eq!(of_grant(&[("ref: refs/heads/main", &new)]), []);
}

#[test]
fn what_no_token_can_have_is_told() {
    for (from, to) in [
        ("ref: refs/heads/main", "ref: main"),
        ("repository_id: \"701\"", "repository_id: acme"),
        ("repository: acme/payments", "repository: payments"),
        ("event_name: [push, workflow_dispatch]", "event_name: [push, workflow_dipsatch]"),
        ("ref: refs/heads/main", "ref: refs/heads/main\n      ref_protected: \"yes\""),
        ("ref: refs/heads/main", "ref: refs/heads/main\n      runner_environment: hosted"),
    ] {
        assert_eq!(one(&[(from, to)]).0, "never", "{to}");
    }
}

#[test]
fn a_rule_behind_a_wider_one_is_told() {
    let second = "  - name: second
    issuer: github
    match:
      repository_owner_id: \"4216\"
      repository_id: \"701\"
      repository: acme/payments
      ref: refs/heads/main
      event_name: push
      job_workflow_ref: { glob: \"acme/ci/.github/workflows/deploy.yml@refs/tags/v*\" }
      environment: production
credentials:
";
    assert_eq!(one(&[("credentials:\n", second)]), ("shadowed", "- name: second".to_owned()));
    let other = second.replace("event_name: push", "event_name: schedule");
    assert_eq!(of_grant(&[("credentials:\n", &other)]), []);
}

#[test]
fn a_grant_whose_last_day_is_over_is_told() {
    let (code, _) = one(&[("class: production", "class: production\nvalid_until: 2026-11-23")]);
    assert_eq!(code, "lapsed");
    assert_eq!(of_grant(&[("class: production", "class: production\nvalid_until: 2026-11-24")]), []);
}

#[test]
fn a_target_that_nobody_classified_is_told_where_somebody_classifies() {
    let (code, line) = one(&[("npm-token", "pypi-token")]);
    assert_eq!((code, line.as_str()), ("unclassified", "npm:"));
    let alone = [("issuers/github.yaml", ISSUER), ("grants/deploy.yaml", GRANT)];
    assert_eq!(codes(&alone), []);
}

#[test]
fn a_ttl_that_a_guardrail_cuts_is_told() {
    let grant = GRANT.replace(
        "    sealed: { secret: npm-token }",
        "    oidc: { audience: https://registry.example.com }\n    ttl: 5m",
    );
    let guardrail = "guardrail: base\nrequire: { max_ttl: 2m }\n";
    let files = |guardrail| {
        codes(&[
            ("issuers/github.yaml", ISSUER),
            ("guardrails/base.yaml", guardrail),
            ("grants/deploy.yaml", &grant),
        ])
    };
    assert_eq!(files(guardrail), [("ttl-cut", "npm:".to_owned())]);
    assert_eq!(files("guardrail: base\nrequire: { max_ttl: 5m }\n"), []);
}

#[test]
fn a_forbid_that_another_kind_gets_around_is_told() {
    let grant =
        format!("{GRANT}  registry:\n    oidc: {{ audience: https://registry.example.com }}\n    ttl: 5m\n");
    let of = |guardrail: &str| {
        codes(&[
            ("issuers/github.yaml", ISSUER),
            ("guardrails/base.yaml", guardrail),
            ("grants/deploy.yaml", &grant),
        ])
    };
    let by_target =
        "guardrail: base\napplies_to: { target: { sealed: any } }\nforbid: { triggers: [workflow_run] }\n";
    assert_eq!(of(by_target), [("forbid-gap", "guardrail: base".to_owned())]);
    let by_class =
        "guardrail: base\napplies_to: { class: production }\nforbid: { triggers: [workflow_run] }\n";
    assert_eq!(of(by_class), []);
    let both = by_target.replace("sealed: any", "sealed: any, oidc: any");
    assert_eq!(of(&both), []);
}

#[test]
fn the_table_of_codes_is_sorted_and_apart_and_each_is_told_by_somebody() {
    assert!(LINT_CODES.is_sorted_by(|left, right| left.0 < right.0));
    assert!(LINT_CODES.iter().all(|(code, _)| !CODES.iter().any(|(other, _)| code == other)));
    let sources = [
        include_str!("../lint.rs"),
        include_str!("claims.rs"),
        include_str!("shadow.rs"),
        include_str!("guardrails.rs"),
        include_str!("targets.rs"),
    ]
    .concat();
    for (code, _) in LINT_CODES.iter().filter(|(code, _)| *code != "secret-missing") {
        // Once in the table, and once where it is told.
        assert!(sources.matches(&format!("\"{code}\"")).count() > 1, "nobody tells {code}");
    }
}

/// The grant with another credential, and the codes of it.
fn of_credential(credential: &str) -> Vec<&'static str> {
    let guardrail = format!(
        "{GUARDRAIL}  - {{ vault: any, class: production }}\n  - {{ aws: any, class: production }}\n"
    );
    let text = GRANT.replacen("    sealed: { secret: npm-token }\n", &format!("    {credential}\n"), 1);
    let files = [
        ("issuers/github.yaml", ISSUER),
        ("guardrails/base.yaml", guardrail.as_str()),
        ("grants/deploy.yaml", text.as_str()),
    ];
    codes(&files).into_iter().map(|(code, _)| code).collect()
}

#[test]
fn what_is_dangerous_at_vault_and_aws_is_told_and_its_neighbour_is_not() {
    let holds = |code: &str, bad: &str, good: &str| {
        assert_eq!(of_credential(bad), [code], "{bad}");
        assert_eq!(of_credential(good), [] as [&str; 0], "{good}");
    };
    for (parameters, narrow) in [
        ("common_name: \"*.acme.test\"", "common_name: a.acme.test"),
        (
            "common_name: a.test, alt_names: \"b.test,*.c.test\"",
            "common_name: a.test, alt_names: \"b.test,c.test\"",
        ),
        (
            "common_name: a.test, uri_sans: [\"spiffe://acme/*\"]",
            "common_name: a.test, uri_sans: [\"spiffe://acme/a\"]",
        ),
    ] {
        let pki = |parameters| {
            format!(
                "vault: {{ engine: pki, path: pki/sign/ci, parameters: {{ {parameters} }} }}\n    ttl: 1h"
            )
        };
        holds("certificate-wide", &pki(parameters), &pki(narrow));
    }
    let ssh = |principals, ttl| {
        let parameters = format!("parameters: {{ valid_principals: \"{principals}\" }}");
        format!("vault: {{ engine: ssh, path: ssh/sign/ci, {parameters} }}\n    ttl: {ttl}")
    };
    holds("administrator", &ssh("deploy,root", "5m"), &ssh("deploy,web", "5m"));

    let generic =
        |path| format!("vault: {{ engine: generic, path: {path}, lifetime: static, secret_fields: [x] }}");
    holds("vault-door", &generic("team/sys/policies"), &generic("team/system/policies"));
    let kv = |engine, path| format!("vault: {{ engine: {engine}, path: {path} }}");
    holds("vault-door", &generic("team/auth/token"), &kv("kv2", "team/data/auth/token"));
    // A folder of that name is likely in a store of secrets, and two of the names are not.
    holds("vault-door", &kv("kv1", "team/sys/policies"), &kv("kv1", "kv/payments/auth/signing"));
    holds("vault-door", &kv("kv1", "team/cubbyhole/x"), &kv("kv1", "kv/payments/identity/signing"));

    let own = |fields, secret| {
        format!(
            "vault: {{ engine: generic, path: own/creds/ci, lifetime: leased, fields: [name, {fields}], secret_fields: \
             [{secret}] }}\n    ttl: 5m"
        )
    };
    holds("field-shown", &own("api_token", "name"), &own("api_token", "api_token"));
    // A field is what its letters say, large or small.
    holds("field-shown", &own("apiToken", "name"), &own("apiToken", "apiToken"));
    // What only speaks about a secret is none.
    holds("field-shown", &own("key", "name"), &own("key_id, token_type, secret_ttl, publicKey", "name"));

    let role = "role_arn: \"arn:aws:iam::123456789012:role/deploy\"";
    let session = |action| {
        let statement =
            format!("{{ \"Effect\": \"Allow\", \"Action\": \"{action}\", \"Resource\": [\"*\"] }}");
        let policy = format!("{{ \"Version\": \"2012-10-17\", \"Statement\": [{statement}] }}");
        format!("aws: {{ {role}, session_policy: '{policy}' }}\n    ttl: 15m")
    };
    holds("session-wide", &session("*"), &session("s3:*"));
    holds("session-wide", &session("*:*"), &session("s3:*"));
    let denies = session("*").replace(
        "\"Statement\": [",
        "\"Statement\": [{ \"Effect\": \"Deny\", \"Action\": \"iam:*\", \"Resource\": \"*\" }, ",
    );
    holds("session-wide", &session("*"), &denies);
    let managed = |names: &str| format!("aws: {{ {role}, managed_policies: [{names}] }}\n    ttl: 15m");
    let (administrator, reader) =
        ("\"arn:aws:iam::aws:policy/AdministratorAccess\"", "\"arn:aws:iam::aws:policy/ReadOnlyAccess\"");
    holds("session-wide", &managed(administrator), &managed(reader));
    // Nobody knows here what another managed policy denies.
    holds("session-wide", &managed(administrator), &managed(&format!("{administrator}, {reader}")));

    let aws = |ttl| format!("aws: {{ {role} }}\n    ttl: {ttl}");
    holds("ttl-irrevocable", &aws("2h"), &aws("1h"));
    // What can be revoked may be long.
    let leased = "vault: { engine: database, path: database/creds/ci }\n    ttl: 8h";
    holds("ttl-irrevocable", &ssh("deploy", "8h"), leased);
}
