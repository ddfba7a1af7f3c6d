//! The catalogue: for every code of the loader the smallest mistake that earns it, and the same mended. The manual is
//! made from it, and a test keeps it true.

/// A mistake and its mending: one snippet of a document of this catalogue, the rest of which is without fault.
pub struct Example {
    /// The finding's code.
    pub code: &'static str,
    /// In which kind of file.
    pub file: File,
    /// The mistake.
    pub bad: &'static str,
    /// What it should be.
    pub good: &'static str,
}

/// Kinds of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum File {
    /// Below `grants/`.
    Grant,
    /// In `guardrails/`.
    Guardrail,
    /// In `issuers/`.
    Issuer,
}

impl File {
    /// A document of that kind without fault, in which every good snippet stands.
    pub fn text(self) -> &'static str {
        match self {
            Self::Grant => GRANT,
            Self::Guardrail => GUARDRAIL,
            Self::Issuer => ISSUER,
        }
    }

    /// Where such a file stands.
    pub fn path(self) -> &'static str {
        match self {
            Self::Grant => "grants/payments/payments-prod.yaml",
            Self::Guardrail => "guardrails/base.yaml",
            Self::Issuer => "issuers/github.yaml",
        }
    }
}

const fn grant(code: &'static str, bad: &'static str, good: &'static str) -> Example {
    Example { code, file: File::Grant, bad, good }
}

const fn guardrail(code: &'static str, bad: &'static str, good: &'static str) -> Example {
    Example { code, file: File::Guardrail, bad, good }
}

const fn issuer(code: &'static str, bad: &'static str, good: &'static str) -> Example {
    Example { code, file: File::Issuer, bad, good }
}

/// One example for every code that a snippet can show, sorted by code.
pub const EXAMPLES: &[Example] = &[
    grant("anchor", "owners: &team [team-payments]", "owners: [team-payments]"),
    grant("arn", "role_arn: payments-deploy", "role_arn: \"arn:aws:iam::123456789012:role/payments-deploy\""),
    grant("attacker-controlled", MATCH_BY_WORD, MATCH),
    issuer("audience", "audience: []", "audience: https://hallpass.example.com"),
    issuer("audience-default", "audience: https://github.com/acme", "audience: https://hallpass.example.com"),
    grant("audience-federated", "audience: sts.amazonaws.com", "audience: https://warehouse.example.com"),
    grant(
        "audience-ourselves",
        "audience: https://hallpass.example.com",
        "audience: https://warehouse.example.com",
    ),
    guardrail("backend", "sealed: { backend: main, match: npm-token }", "sealed: npm-token"),
    grant("byte-order-mark", "\u{feff}grant: payments-prod", "grant: payments-prod"),
    grant("class", "class: prod", "class: production"),
    grant("class-lower", "class: read", "class: production"),
    grant("date", "valid_until: 2027-02-29", "valid_until: 2027-03-31"),
    grant("directive", "%YAML 1.2\n---\ngrant: payments-prod", "grant: payments-prod"),
    grant("disclose", "disclose: everybody", "disclose: owner"),
    grant("duplicate-key", "enabled: true\nenabled: false", "enabled: true"),
    grant("duplicate-name", "  - name: nightly\n", "  - name: dispatched\n"),
    issuer(
        "duplicate-url",
        "url: https://ci.example.com",
        "url: https://token.actions.githubusercontent.com",
    ),
    grant("duration", "ttl: 5", "ttl: 5m"),
    grant("empty", "secret: \"\"", "secret: npm-token"),
    grant("empty-match", "event_name: []", "event_name: [push, workflow_dispatch]"),
    grant("engine", "engine: postgres", "engine: database"),
    guardrail("folder", "folder: /payments/", "folder: payments"),
    grant("glob", "glob: \"refs/heads/***\"", "glob: \"refs/heads/release/*\""),
    grant("glob-in-literal", "ref: \"refs/heads/*\"", "ref: { glob: \"refs/heads/release/*\" }"),
    grant("glob-on-identity", "repository: { glob: \"acme/*\" }", "repository: acme/payments"),
    issuer("issuer-url", "url: http://ci.example.com", "url: https://token.actions.githubusercontent.com"),
    grant("key-not-text", "      on: push", "      event_name: [push, workflow_dispatch]"),
    grant("kind", "npm: {}", "npm: { sealed: { secret: npm-token } }"),
    grant("limits", "limits: { live: 0 }", "limits: { live: 4 }"),
    grant("literal-type", "repository_id: 701", "repository_id: \"701\""),
    grant("matcher", "environment: { not: { present: false } }", "environment: { not: staging }"),
    grant("merge-key", "      <<: others", "      repository: acme/payments"),
    issuer("missing-key", "", "audience: https://hallpass.example.com"),
    guardrail("mode", "mode: report", "mode: report\nreport_until: 2027-03-31"),
    grant("must-name", "match: { project: payments }", "match: { sub: payments-job }"),
    grant("name", "grant: Payments_Prod", "grant: payments-prod"),
    grant("not-yet", "npm: { gcp: { account: npm } }", "npm: { sealed: { secret: npm-token } }"),
    grant("parameter", "parameters: { cn: ci.example.com }", "parameters: { common_name: ci.example.com }"),
    grant("path", "path: database/../payments-rw", "path: database/creds/payments-rw"),
    grant("pointer", "      /repository: acme/payments", "      repository: acme/payments"),
    grant("registered-claim", "      aud: acme", "      repository: acme/payments"),
    guardrail("requirement", "runner: self-hosted", "runner: hosted"),
    grant("second-document", "enabled: true\n---\nenabled: true", "enabled: true"),
    grant(
        "session-policy",
        "session_policy: '{}'",
        "session_policy: '{ \"Version\": \"2012-10-17\", \"Statement\": [] }'",
    ),
    grant("tab", "\tenabled: true", "enabled: true"),
    grant("tag", "enabled: !bool true", "enabled: true"),
    grant("tag-key", "\"aws:repo\": \"${claims.sub}\"", "repo: \"${claims.sub}\""),
    grant("tag-value", "team: \"a;b\"", "team: payments"),
    grant("template", "secret: \"${claims.repository}\"", "secret: npm-token"),
    grant("tenant-pin", "", "      repository_owner_id: \"4216\"\n"),
    issuer("token-age", "max_token_age: 2d", "max_token_age: 10m"),
    grant("too-deep", NESTED, "description: Deploys of payments"),
    guardrail("trigger", "triggers: [pull_request_targets]", "triggers: [pull_request_target]"),
    grant("ttl", "ttl: 1h", "ttl: 5m"),
    grant(
        "ttl-on-static",
        "npm: { sealed: { secret: npm-token }, ttl: 1h }",
        "npm: { sealed: { secret: npm-token } }",
    ),
    grant("type", "enabled: yes", "enabled: true"),
    grant("unknown-claim", "      enviroment: production", "      environment: { not: staging }"),
    grant("unknown-issuer", "issuer: gitbub", "issuer: github"),
    grant("unknown-key", "enable: true", "enabled: true"),
    issuer("unknown-profile", "profile: github", "profile: github-actions"),
    grant("unseen-character", "enabled: true # \u{202e}", "enabled: true"),
    grant("window", "from: \"07:00\", to: \"07:00\"", "from: \"07:00\", to: \"19:00\""),
    grant("yaml-syntax", "owners: [team-payments", "owners: [team-payments]"),
];

/// Codes of what no snippet of one file can show: a file's size or bytes, its place, the set as a whole, or what stands
/// outside of it.
pub const WITHOUT_EXAMPLE: [&str; 10] = [
    "audience-fixed",
    "empty-file",
    "file-too-large",
    "guardrail",
    "no-issuer",
    "not-utf8",
    "too-many",
    "too-many-nodes",
    "unknown-file",
    "untrusted-issuer",
];

const MATCH: &str = "      repository_id: \"701\"\n      sha: abc\n";
const MATCH_BY_WORD: &str = "      workflow: Deploy\n";
const NESTED: &str = "description: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[a]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]";

const ISSUER: &str = "issuer: github
profile: github-actions
url: https://token.actions.githubusercontent.com
audience: https://hallpass.example.com
max_token_age: 10m
";

const GUARDRAIL: &str = "guardrail: base
applies_to: { folder: payments }
require: { runner: hosted }
targets: { sealed: npm-token, oidc: any }
forbid: { triggers: [pull_request_target] }
mode: report
report_until: 2027-03-31
";

const GRANT: &str = r#"grant: payments-prod
description: Deploys of payments
owners: [team-payments]
class: production
allow:
  - name: nightly
    issuer: github
    match:
      repository_owner_id: "4216"
      repository_id: "701"
      repository: acme/payments
      ref: { glob: "refs/heads/release/*" }
      event_name: [push, workflow_dispatch]
      environment: { not: staging }
    window: { timezone: Europe/London, from: "07:00", to: "19:00" }
  - name: dispatched
    issuer: github
    match:
      repository_owner_id: "4216"
      repository_id: "701"
      sha: abc
  - name: own-ci
    issuer: own
    match: { sub: payments-job }
credentials:
  npm: { sealed: { secret: npm-token } }
  db: { vault: { engine: database, path: database/creds/payments-rw }, ttl: 15m }
  cert: { vault: { engine: pki, path: pki/issue/ci, parameters: { common_name: ci.example.com } }, ttl: 2h }
  cloud:
    aws:
      role_arn: "arn:aws:iam::123456789012:role/payments-deploy"
      tags: { repo: "${claims.sub}", team: payments }
      session_policy: '{ "Version": "2012-10-17", "Statement": [] }'
    ttl: 15m
  warehouse: { oidc: { audience: https://warehouse.example.com }, ttl: 5m }
limits: { live: 4 }
disclose: owner
valid_until: 2027-03-31
enabled: true
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::policy::{Finding, finding::CODES, load, set::Files};

    const OWN: &str = "issuer: own\nprofile: generic\nurl: https://ci.example.com\naudience: https://hallpass.example.com\n";

    fn findings(file: File, text: &str) -> Vec<Finding> {
        let mut files = Files::default();
        for each in [File::Grant, File::Guardrail, File::Issuer] {
            files.0.insert(each.path().to_owned(), each.text().as_bytes().to_vec());
        }
        // Read before the others, so that what it names twice is found in the example's file.
        files.0.insert("issuers/a.yaml".to_owned(), OWN.as_bytes().to_vec());
        files.0.insert(file.path().to_owned(), text.as_bytes().to_vec());
        match load::load(&files, None, None) {
            Ok(loaded) => loaded.warnings,
            Err(findings) => findings,
        }
    }

    #[test]
    fn good_documents_are_without_fault() {
        for file in [File::Grant, File::Guardrail, File::Issuer] {
            assert_eq!(findings(file, file.text()), []);
        }
    }

    #[test]
    fn every_mistake_earns_its_code_and_no_other() {
        let mut wrong = Vec::new();
        for Example { code, file, bad, good } in EXAMPLES {
            let (head, tail) = file.text().rsplit_once(good).unwrap_or_else(|| panic!("{code}: {good}"));
            let spoiled = format!("{head}{bad}{tail}");
            let found = findings(*file, &spoiled);
            let codes: Vec<&str> = found.iter().map(|finding| finding.code).collect();
            if codes != [*code] || found[0].file != file.path() {
                wrong.push(format!("{code}: {bad:?} earns {found:#?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_code_has_an_example_or_can_have_none() {
        assert!(EXAMPLES.is_sorted_by(|left, right| left.code < right.code));
        for (code, _) in CODES {
            let is_shown = EXAMPLES.iter().any(|example| example.code == *code);
            assert_ne!(is_shown, WITHOUT_EXAMPLE.contains(code), "{code}");
        }
    }
}
