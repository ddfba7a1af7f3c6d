//! The way to the broker: certificates, proxies, patience.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use super::super::support::{
    Installation, Server,
    authority::{Authority, Certified},
    ci::Step,
    proxy::Proxy,
};

/// A broker behind TLS under the name `hallpass.test`, which no resolver knows, and its authority.
struct Secured {
    installation: Installation,
    server: Server,
    authority: Authority,
}

impl Secured {
    fn new() -> Self {
        let (installation, authority) = (Installation::new(), Authority::new());
        let Certified { certificate, key, .. } = authority.certify(&["hallpass.test", "127.0.0.1"], |_| {});
        installation.write("tls.crt", &certificate);
        installation.write("tls.key", &key);
        let plain = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
        let secured = plain.replace("public: { ", "public: { tls: { certificate: tls.crt, key: tls.key }, ");
        assert_ne!(plain, secured);
        installation.write("hallpass.yaml", &secured);
        let server = installation.serve();
        Self { installation, server, authority }
    }

    fn address(&self) -> SocketAddr {
        self.server.public.address
    }

    /// A step that asks under a name, and trusts the authority.
    fn step(&self, host: &str, more: &[&str]) -> Step {
        let ask = ["whoami", "--token-file", "token", "--ca-file", "ca.pem"];
        let step = Step::at(&format!("https://{host}:{}", self.address().port()), &[&ask, more].concat());
        step.file("token", &self.installation.issuer.token());
        step.file("ca.pem", &self.authority.certificate);
        step
    }

    fn proxy(&self) -> Proxy {
        let place = format!("hallpass.test:{}", self.address().port());
        Proxy::to(&[(&place, self.address())])
    }
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named_and_nobody_else_is() {
    let secured = Secured::new();
    secured.step("127.0.0.1", &[]).ok();

    let start = Instant::now();
    let stranger = secured.step("127.0.0.1", &["--timeout", "20s"]);
    stranger.file("ca.pem", &Authority::new().certificate);
    let mut stranger = stranger;
    let told = stranger.refused(13);
    assert!(told.contains("cannot be trusted") && told.contains("--ca-file"), "{told}");
    assert!(start.elapsed() < Duration::from_secs(10), "it is not tried again: {:?}", start.elapsed());

    let empty = secured.step("127.0.0.1", &["--timeout", "20s"]);
    empty.file("ca.pem", "no PEM\n");
    let mut empty = empty;
    assert!(empty.refused(2).contains("no certificate"));
}

#[test]
fn the_systems_authorities_are_trusted_where_none_is_named() {
    let secured = Secured::new();
    let ask = |ca: &str| {
        let url = format!("https://{}", secured.address());
        let step = Step::at(&url, &["whoami", "--token-file", "token", "--timeout", "5s"]);
        step.file("token", &secured.installation.issuer.token());
        let path = step.file("system.pem", ca);
        step.env("SSL_CERT_FILE", path)
    };
    ask(&secured.authority.certificate).ok();
    assert!(ask(&Authority::new().certificate).refused(13).contains("cannot be trusted"));
}

#[test]
fn a_proxy_is_used_and_sees_no_more_than_where_to() {
    let secured = Secured::new();
    let proxy = secured.proxy();
    let url = format!("http://alice:pa%40ss@{}", proxy.address);

    secured.step("hallpass.test", &[]).env("HTTPS_PROXY", &url).ok();

    let heads = proxy.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    let port = secured.address().port();
    assert!(heads[0].starts_with(&format!("CONNECT hallpass.test:{port} HTTP/1.1\r\n")), "{heads:?}");
    // "alice:pa@ss" in base64.
    assert!(heads[0].to_lowercase().contains("proxy-authorization: basic ywxpy2u6cgfac3m="), "{heads:?}");
    assert!(!heads[0].contains("Bearer"), "{heads:?}");
}

#[test]
fn no_proxy_is_used_for_whom_it_is_not_meant() {
    let secured = Secured::new();
    let proxy = secured.proxy();
    let url = format!("http://{}", proxy.address);
    for names in ["hallpass.test", ".test", "*"] {
        let started = Instant::now();
        let step = secured.step("hallpass.test", &["--timeout", "1s"]);
        // Without the proxy nobody knows the name.
        let told = step.env("HTTPS_PROXY", &url).env("NO_PROXY", names).refused(13);
        assert!(told.contains("cannot be reached"), "{names}: {told}");
        assert!(started.elapsed() < Duration::from_secs(20), "{names}");
    }
    secured.step("127.0.0.1", &[]).env("HTTPS_PROXY", &url).env("ALL_PROXY", &url).ok();
    assert_eq!(proxy.heads(), Vec::<String>::new(), "loopback is never proxied");
}

#[test]
fn a_proxy_that_leads_nowhere_is_named_and_socks_is_said_to_be_none() {
    let secured = Secured::new();
    let nowhere = Proxy::to(&[]);
    let url = format!("http://{}", nowhere.address);
    let told = secured.step("hallpass.test", &["--timeout", "1s"]).env("https_proxy", &url).refused(13);
    assert!(told.contains("tunnel"), "{told}");
    assert!(!nowhere.heads().is_empty());

    let socks = secured.step("hallpass.test", &[]).env("ALL_PROXY", "socks5://127.0.0.1:1080").refused(2);
    assert!(socks.contains("SOCKS"), "{socks}");
}

#[test]
fn a_broker_that_does_not_answer_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let step = Step::at(
        &format!("http://{}", silent.local_addr().unwrap()),
        &["whoami", "--token-file", "token", "--timeout", "1s"],
    );
    step.file("token", &Installation::new().issuer.token());
    let mut step = step;
    let start = Instant::now();

    let told = step.refused(13);

    assert!(told.contains("did not answer in time"), "{told}");
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(10)).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn who_names_no_broker_is_told_what_to_set() {
    let mut step = Step::at("", &["whoami"]);
    let told = step.refused(2);
    assert!(told.contains("set HALLPASS_URL"), "{told}");
    let told = Step::at("", &["get", "deploy"]).without("HALLPASS_URL").refused(2);
    assert!(told.contains("set HALLPASS_URL"), "{told}");
}
