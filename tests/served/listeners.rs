//! Where a broker listens: a unix socket, or behind proxies that say where a request comes from.

use std::{fs, os::unix::fs::PermissionsExt as _};

use reqwest::Client;
use serde_json::Value;

use super::{
    once::only,
    support::{
        AUDIENCE, Installation, eventually,
        installation::{Running, run},
        runtime,
    },
};

/// Rewrites what `public` says.
fn public(installation: &Installation, listen: &str) {
    let configuration = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let usual = format!("public: {{ listen: \"127.0.0.1:0\", url: {AUDIENCE} }}");
    let other = configuration.replace(&usual, &format!("public: {{ {listen}, url: {AUDIENCE} }}"));
    assert_ne!(configuration, other);
    installation.write("hallpass.yaml", &other);
}

#[test]
fn broker_serves_a_unix_socket_and_takes_it_along() {
    let installation = Installation::new();
    public(&installation, "listen: \"unix:hallpass.sock\"");
    let socket = installation.file("hallpass.sock");
    let serve = Running::spawn(&mut installation.command(&["serve"]));
    let line = eventually("the line that says ready", || {
        serve.logs().lines().find(|line| line.starts_with("hallpass ready ")).map(str::to_owned)
    });
    assert!(
        line.contains("public=unix:") && line.contains("hallpass.sock admin=http://127.0.0.1:"),
        "{line}"
    );
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);

    let client = Client::builder().unix_socket(socket.as_path()).build().unwrap();
    let exchanged: Value = runtime().block_on(async {
        let request = client.post("http://localhost/v1/exchange").bearer_auth(installation.issuer.token());
        request.json(&only("npm")).send().await.unwrap().json().await.unwrap()
    });
    run(&mut installation.command(&["healthcheck"]), "");

    assert_eq!(exchanged["issuances"][0]["credential"], "npm", "{exchanged}");
    serve.stop();
    assert!(!socket.exists());
}

#[test]
fn source_is_what_a_trusted_proxy_says_and_nothing_that_a_stranger_says() {
    for (trusted, expected) in [("127.0.0.1", "198.51.100.7"), ("10.0.0.0/8", "127.0.0.1")] {
        let installation = Installation::new();
        public(&installation, &format!("listen: \"127.0.0.1:0\", trusted_proxies: [\"{trusted}\"]"));
        let server = installation.serve();

        let call = server.public.exchanging(&installation.issuer.token(), &only("npm"));
        call.header("x-forwarded-for", "203.0.113.9, 198.51.100.7").send().ok();

        let entry = &server.ledger("outcome:ISSUED")[0];
        let told = entry["personal"].to_string();
        assert!(told.contains(expected), "trusting {trusted}: {entry}");
        assert!(!told.contains("203.0.113.9"), "whoever asks may have written that: {entry}");
    }
}

#[test]
fn each_source_behind_a_proxy_has_its_own_rate() {
    let installation = Installation::new();
    public(&installation, "listen: \"127.0.0.1:0\", trusted_proxies: [\"127.0.0.1\"]");
    let configuration = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let strict = configuration.replace("per_source_per_second: 100000", "per_source_per_second: 1");
    installation.write("hallpass.yaml", &strict);
    let server = installation.serve();
    let ask = |source: &str| server.public.get("/v1/whoami").header("x-forwarded-for", source).send().status;

    eventually("a request too many of one", || (ask("198.51.100.7") == 429).then_some(()));

    assert_eq!(ask("198.51.100.8"), 401, "another is not its fault");
}

#[test]
fn listener_off_loopback_wants_tls_or_trusted_proxies() {
    let installation = Installation::new();
    for (listen, code) in [
        ("listen: \"0.0.0.0:0\"", Some(2)),
        ("listen: \"0.0.0.0:0\", trusted_proxies: [\"10.0.0.0/8\"]", Some(0)),
    ] {
        let usual = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
        public(&installation, listen);
        let checked = installation.command(&["config", "check", "--output", "json"]).output().unwrap();
        assert_eq!(checked.status.code(), code, "{listen}: {checked:?}");
        installation.write("hallpass.yaml", &usual);
    }
}
