//! Everything that policy does not permit, for one and the same job: what a caller must not be able to tell apart (P8).

use super::{Installation, Issuer};

/// What is asked for, by name. All for the job that `Issuer::token` mints, and all of one length, as far as the names
/// of grants can be.
pub(crate) const SITUATIONS: &[(&str, &str)] = &[
    ("no such grant", r#"{"grants":[{"name":"g-missing","credentials":["npm"]}]}"#),
    ("no such grant, again", r#"{"grants":[{"name":"g-missing","credentials":["npm"]}]}"#),
    ("another project's", r#"{"grants":[{"name":"g-foreign","credentials":["npm"]}]}"#),
    ("another issuer's", r#"{"grants":[{"name":"g-strange","credentials":["npm"]}]}"#),
    ("another environment", r#"{"grants":[{"name":"g-staging","credentials":["npm"]}]}"#),
    ("disabled", r#"{"grants":[{"name":"g-stopped","credentials":["npm"]}]}"#),
    ("lapsed", r#"{"grants":[{"name":"g-expired","credentials":["npm"]}]}"#),
    ("behind a guardrail", r#"{"grants":[{"name":"g-guarded","credentials":["npm"]}]}"#),
    ("no such credential", r#"{"grants":[{"name":"g-allowed","credentials":["gem"]}]}"#),
];

/// What is permitted, of the same length.
pub(crate) const PERMITTED: &str = r#"{"grants":[{"name":"g-allowed","credentials":["npm"]}]}"#;

/// The grants that the situations speak of, and a second issuer for one of them.
pub(crate) fn install(installation: &Installation) {
    let Issuer { url, .. } = Issuer::start();
    installation.configure(&format!(
        "issuers:\n  ci: {{ url: \"{}\", profile: github-actions, allow_private_addresses: true }}\n  \
         strange: {{ url: \"{url}\", profile: github-actions, allow_private_addresses: true }}\n",
        installation.issuer.url
    ));
    let strange =
        format!("issuer: strange\nprofile: github-actions\nurl: {url}\naudience: {}\n", super::AUDIENCE);
    installation.write("policies/issuers/strange.yaml", &strange);
    let grants = [
        ("g-foreign", "ci", r#"repository_id: "999", environment: production"#, ""),
        ("g-strange", "strange", r#"repository_id: "70155112", environment: production"#, ""),
        ("g-staging", "ci", r#"repository_id: "70155112", environment: staging"#, ""),
        ("g-stopped", "ci", r#"repository_id: "70155112", environment: production"#, "enabled: false\n"),
        (
            "g-expired",
            "ci",
            r#"repository_id: "70155112", environment: production"#,
            "valid_until: 2026-01-31\n",
        ),
        ("guarded/g-guarded", "ci", r#"repository_id: "70155112", environment: production"#, ""),
        ("g-allowed", "ci", r#"repository_id: "70155112", environment: production"#, ""),
    ];
    let guardrail = "guardrail: fence\napplies_to: { folder: guarded }\ntargets: { oidc: any }\n";
    installation.write("policies/guardrails/fence.yaml", guardrail);
    for (path, issuer, conditions, more) in grants {
        let name = path.rsplit('/').next().unwrap();
        let text = format!(
            "grant: {name}\ndescription: One of several that a job must not tell apart\nallow:\n  - name: main\n    \
             issuer: {issuer}\n    match: {{ repository_owner_id: \"4216\", {conditions} }}\ncredentials:\n  npm:\n    \
             sealed: {{ secret: npm-token }}\n{more}"
        );
        installation.write(&format!("policies/grants/{path}.yaml"), &text);
    }
}
