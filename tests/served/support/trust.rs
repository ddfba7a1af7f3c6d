//! An installation that trusts one issuer that is not ours, as an operator would set it up.

use std::fs;

use serde_json::{Value, json};

use super::{AUDIENCE, Installation, Server};

/// An issuer, and what the grant `release` demands of its jobs.
pub(crate) struct Trust<'a> {
    pub(crate) url: &'a str,
    pub(crate) profile: &'a str,
    /// The only authority trusted for it, as PEM; none for plain HTTP on loopback.
    pub(crate) authority: Option<&'a str>,
    /// Lines of YAML under `match`, each `claim: value`.
    pub(crate) conditions: &'a [String],
}

/// A broker that trusts it.
pub(crate) struct Broker {
    pub(crate) server: Server,
    // Dropped last: the server works in its folder.
    pub(crate) installation: Installation,
}

impl Broker {
    pub(crate) fn trusting(trust: &Trust<'_>) -> Self {
        Self::with_limits(trust, "")
    }

    /// The same with more members of `limits`, such as `clock_leeway: 1s, `.
    pub(crate) fn with_limits(trust: &Trust<'_>, limits: &str) -> Self {
        let Trust { url, profile, authority, conditions } = trust;
        let installation = Installation::new();
        let ca_file = authority.map_or(String::new(), |pem| {
            installation.write("their-ca.pem", pem);
            ", ca_file: their-ca.pem".to_owned()
        });
        installation.configure(&format!(
            "issuers:\n  theirs: {{ url: \"{url}\", profile: {profile}, allow_private_addresses: true{ca_file} }}\n"
        ));
        let configuration = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
        installation
            .write("hallpass.yaml", &configuration.replace("limits: { ", &format!("limits: {{ {limits}")));
        fs::remove_dir_all(installation.file("policies")).unwrap();
        let issuer = format!(
            "issuer: theirs\nprofile: {profile}\nurl: {url}\naudience: {AUDIENCE}\nmax_token_age: 10m\n"
        );
        installation.write("policies/issuers/theirs.yaml", &issuer);
        let conditions: String = conditions.iter().map(|line| format!("      {line}\n")).collect();
        let grant = format!(
            "grant: release\ndescription: What a release needs\nallow:\n  - name: main\n    issuer: theirs\n    \
             match:\n{conditions}credentials:\n  npm:\n    sealed: {{ secret: npm-token }}\n"
        );
        installation.write("policies/grants/release.yaml", &grant);
        Self { server: installation.serve(), installation }
    }
}

/// What a job asks for.
pub(crate) fn release() -> Value {
    json!({ "grants": ["release"] })
}
