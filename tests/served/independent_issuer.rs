//! Tokens of an issuer that is not ours: npm `oidc-provider`, discovery and keys over TLS with a private CA, CI-shaped
//! claims (numbers, booleans), the `generic` profile. The installation is made and served as an operator would.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::support::{
    AUDIENCE, Installation, Server,
    authority::Authority,
    forgery::{forgeries, refused_beside_good},
    installation::CANARY,
    npm::Script,
    trust::release,
};

const MAIN: &str = "project:70155112:ref:main";
const DEV: &str = "project:70155112:ref:dev";

#[test]
fn permitted_job_of_an_independent_issuer_gets_its_credential() {
    let mut ours = Operated::new();
    let token = ours.mint(AUDIENCE, MAIN);

    let body = ours.server.public.exchange(&token, &release()).ok();

    assert_eq!(body["issuances"][0]["fields"]["value"], CANARY);
    let issued = &ours.server.entries("ISSUED")[0];
    assert_eq!(
        issued["subject"]["claims"]["project_id"], 70_155_112,
        "typed, as the issuer sent it: {issued}"
    );
    ours.server.public.exchange(&token, &release()).problem(409, "token_replayed");
}

#[test]
fn token_for_another_audience_is_refused() {
    let mut ours = Operated::new();
    let token = ours.mint("https://another-service.test", MAIN);

    ours.server.public.exchange(&token, &release()).problem(401, "token_audience");
}

#[test]
fn job_with_another_claim_is_denied() {
    let mut ours = Operated::new();
    let token = ours.mint(AUDIENCE, DEV);

    ours.server.public.exchange(&token, &release()).problem(403, "access_denied");
}

#[test]
fn what_nobody_but_the_issuer_can_sign_is_refused() {
    let mut ours = Operated::new();
    let good = ours.mint(AUDIENCE, MAIN);

    refused_beside_good(&ours.server, &release(), forgeries(&good), &good);
}

#[test]
fn what_the_issuer_signs_at_another_time_is_refused() {
    let mut ours = Operated::new();
    for (ago, code) in [(400, "token_expired"), (-120, "token_not_yet_valid")] {
        let token = ours.ask(&json!({ "client": AUDIENCE, "account": MAIN, "ago": ago }));
        ours.server.public.exchange(&token, &release()).problem(401, code);
    }

    let good = ours.mint(AUDIENCE, MAIN);
    ours.server.public.exchange(&good, &release()).ok();
}

#[test]
fn access_token_is_no_identity() {
    let mut ours = Operated::new();
    let answer = ours.provider.ask(&json!({ "client": AUDIENCE, "account": MAIN }));
    let token = answer["access_token"].as_str().unwrap();

    // Right issuer, key and audience, but `typ: at+jwt` (RFC 9068): meant for an API, not for saying who a job is.
    ours.server.public.exchange(token, &release()).problem(401, "token_malformed");
}

#[test]
fn certificate_of_another_authority_is_not_trusted() {
    let mut ours = Operated::with_trust(&Authority::new());
    let token = ours.mint(AUDIENCE, MAIN);

    ours.server.public.exchange(&token, &release()).problem(503, "issuer_unavailable");
}

/// The provider, and an installation that trusts it.
struct Operated {
    provider: Script,
    server: Server,
    // Dropped last: the server works in its folder.
    _installation: Installation,
}

impl Operated {
    fn new() -> Self {
        let authority = Authority::new();
        Self::start(&authority, &authority)
    }

    /// The provider's certificate is from one authority, and another is trusted.
    fn with_trust(trusted: &Authority) -> Self {
        Self::start(&Authority::new(), trusted)
    }

    fn start(authority: &Authority, trusted: &Authority) -> Self {
        let installation = Installation::new();
        let file = |name: &str, text: &str| -> PathBuf {
            installation.write(name, text);
            installation.file(name)
        };
        let certified = authority.certify_loopback();
        let [certificate, key, own_ca] = [
            file("provider.crt", &certified.certificate),
            file("provider.key", &certified.key),
            file("provider-ca.pem", &authority.certificate),
        ];
        let arguments = [certificate.to_str().unwrap(), key.to_str().unwrap()];
        let mut provider =
            Script::start("server.mjs", &arguments, &[("NODE_EXTRA_CA_CERTS", own_ca.as_path())]);
        let url = provider.next()["url"].as_str().unwrap().to_owned();
        file("corp-ca.pem", &trusted.certificate);
        installation.configure(&format!(
            "issuers:\n  independent: {{ url: \"{url}\", profile: generic, ca_file: corp-ca.pem, \
             allow_private_addresses: true }}\n"
        ));
        fs::remove_dir_all(installation.file("policies")).unwrap();
        file(
            "policies/issuers/independent.yaml",
            &format!(
                "issuer: independent\nprofile: generic\nurl: {url}\naudience: {AUDIENCE}\nmax_token_age: 10m\n"
            ),
        );
        file("policies/grants/release.yaml", GRANT);
        Self { provider, server: installation.serve(), _installation: installation }
    }

    fn mint(&mut self, audience: &str, account: &str) -> String {
        self.ask(&json!({ "client": audience, "account": account }))
    }

    fn ask(&mut self, question: &Value) -> String {
        let answer = self.provider.ask(question);
        answer["id_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

const GRANT: &str = r#"grant: release
description: What a release from main needs
allow:
  - name: main
    issuer: independent
    match:
      sub: "project:70155112:ref:main"
      project_id: 70155112
      ref: refs/heads/main
      ref_protected: true
credentials:
  npm:
    sealed: { secret: npm-token }
"#;
