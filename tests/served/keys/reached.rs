//! Whom the broker connects to: the issuers of its configuration, at addresses that may be theirs, when their
//! certificates hold, and nobody else.

use std::{fs, path::PathBuf, process::Command, sync::OnceLock};

use rcgen::CertificateParams;
use serde_json::json;

use super::{deploy, fetch_again, standing, trusting, until_told, until_well};
use crate::support::{
    Installation, Server,
    authority::{Authority, Certified},
    eventually,
    hostile_issuer::{HostileIssuer, Trap},
    issuer::{KID, own_key, sign, valid_claims},
};

#[test]
fn for_an_issuer_that_is_not_configured_nothing_leaves_the_process() {
    let issuer = HostileIssuer::start();
    let trap = Trap::set();
    let installation = trusting(&[("ci", &issuer, "")], "");
    // Trusted too, so that its name is looked up: it shows that looking up is seen.
    installation.write("ca.pem", &Authority::new().certificate);
    let configuration = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let named = "  named: { url: \"https://issuer.invalid\", profile: generic, ca_file: ca.pem }\n";
    installation.write("hallpass.yaml", &format!("{configuration}{named}"));
    let log = installation.file("net.log");
    let mut command = installation.command(&["serve"]);
    let server = installation.serve_by(command.env("LD_PRELOAD", netlog()).env("NET_LOG", &log));
    let log = || fs::read_to_string(&log).unwrap_or_default();
    let own = format!("connect {}\n", issuer.url.strip_prefix("http://").unwrap());
    eventually("both issuers to be asked", || {
        (log().matches(&own).count() == 2 && log().contains("lookup issuer.invalid\n")).then_some(())
    });

    let (url, to) = (&issuer.url, trap.address);
    let port = url.rsplit_once(':').unwrap().1;
    let strangers = [
        format!("http://{to}"),
        format!("https://{to}"),
        format!("http://localhost:{}", to.port()),
        format!("https://localhost:{}/x", to.port()),
        format!("http://[::ffff:127.0.0.1]:{}", to.port()),
        format!("{url}@{to}"),
        format!("http://{to}/?{url}"),
        format!("http://{to}#{url}"),
        format!("{url}.issuer-of-a-thief.invalid"),
        format!("http://issuer-of-a-thief.invalid/{url}"),
        "https://issuer-of-a-thief.invalid".to_owned(),
        "https://issuer.invalid.".to_owned(),
        "https://issuer.invalid/".to_owned(),
        "https://issuer.invalid:443".to_owned(),
        "https://ISSUER.invalid".to_owned(),
        "https://user@issuer.invalid".to_owned(),
        "https://issuer%2einvalid".to_owned(),
        "https://xn--issuer-9za.invalid".to_owned(),
        "http://issuer.invalid".to_owned(),
        "issuer.invalid".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://kubernetes.default.svc".to_owned(),
        format!("{url}/"),
        format!("{url}/evil"),
        format!("HTTP://127.0.0.1:{port}"),
        format!("http://127.0.0.1.:{port}"),
        format!("http://127.1:{port}"),
        "file:///etc/passwd".to_owned(),
        format!("unix:{}", installation.file("x").display()),
    ];
    for stranger in &strangers {
        let mut claims = valid_claims(url);
        claims["iss"] = json!(stranger);
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": KID, "jku": stranger, "x5u": stranger });
        let plain = json!({ "alg": "RS256", "typ": "JWT", "kid": KID });
        deploy(&server, &sign(own_key(), &plain, &claims)).problem(401, "token_issuer");
        // Nor does a header send it anywhere.
        deploy(&server, &sign(own_key(), &header, &valid_claims(url)));
    }
    deploy(&server, &issuer.token()).ok();

    let unexpected: Vec<String> = log()
        .lines()
        .map(str::to_owned)
        .filter(|line| *line != own.trim_end() && line != "lookup issuer.invalid")
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert_eq!((log().matches(&own).count(), issuer.connections()), (2, 2));
    assert_eq!(trap.connections(), 0);
}

#[test]
fn addresses_that_are_not_public_are_connected_to_only_where_the_operator_says_so() {
    let trap = Trap::set();
    let port = trap.address.port();
    let private = [
        ("name", format!("https://localhost:{port}")),
        ("literal", format!("https://127.0.0.1:{port}")),
        ("short", format!("https://127.1:{port}")),
        ("number", format!("https://2130706433:{port}")),
        ("hex", format!("https://0x7f.0.0.1:{port}")),
        ("v6", format!("https://[::1]:{port}")),
        ("mapped", format!("https://[::ffff:127.0.0.1]:{port}")),
        ("compatible", format!("https://[::127.0.0.1]:{port}")),
        ("nat64", format!("https://[64:ff9b::7f00:1]:{port}")),
        ("nat64-local", format!("https://[64:ff9b:1::7f00:1]:{port}")),
        ("sixtofour", format!("https://[2002:7f00:1::]:{port}")),
        ("teredo", format!("https://[2001:0:7f00:1::1]:{port}")),
        ("unspecified", format!("https://0.0.0.0:{port}")),
        ("unspecified-v6", format!("https://[::]:{port}")),
        ("ten", "https://10.0.0.1".to_owned()),
        ("ula", "https://[fd00::1]".to_owned()),
        ("shared", "https://100.64.0.1".to_owned()),
    ];
    let never = [
        ("metadata", "https://169.254.169.254"),
        ("metadata-mapped", "https://[::ffff:169.254.169.254]"),
        ("metadata-nat64", "https://[64:ff9b::a9fe:a9fe]"),
        ("metadata-v6", "https://[fd00:ec2::254]"),
        ("metadata-ali", "https://100.100.100.200"),
        ("link-local", "https://[fe80::1]"),
        ("multicast", "https://224.0.0.1"),
        ("broadcast", "https://255.255.255.255"),
        ("nothing", "https://0.0.0.0"),
    ];
    let installation = Installation::new();
    installation.write("ca.pem", &Authority::new().certificate);
    let issuer = &installation.issuer;
    let mut configuration = format!(
        "issuers:\n  ci: {{ url: \"{}\", profile: github-actions, allow_private_addresses: true }}\n",
        issuer.url
    );
    for (name, url) in &private {
        configuration
            .push_str(&format!("  {name}: {{ url: \"{url}\", profile: generic, ca_file: ca.pem }}\n"));
    }
    for (name, url) in &never {
        configuration.push_str(&format!(
            "  {name}: {{ url: \"{url}\", profile: generic, ca_file: ca.pem, allow_private_addresses: true }}\n"
        ));
    }
    installation.configure(&configuration);
    let log = installation.file("net.log");
    let mut command = installation.command(&["serve"]);
    let server = installation.serve_by(command.env("LD_PRELOAD", netlog()).env("NET_LOG", &log));

    for name in private.iter().map(|(name, _)| name).chain(never.iter().map(|(name, _)| name)) {
        let told = until_told(&server, name, "no address of its host may be connected to");
        assert_eq!(told["ready"], false, "{told}");
    }
    until_well(&server, "ci");
    deploy(&server, &issuer.token()).ok();
    assert_eq!(trap.connections(), 0);
    let log = fs::read_to_string(log).unwrap();
    let own = format!("connect {}", issuer.url.strip_prefix("http://").unwrap());
    let connected: Vec<&str> = log.lines().filter(|line| line.starts_with("connect ")).collect();
    assert_eq!(connected, [&own, &own], "{log}");
}

#[test]
fn certificates_are_held_to_the_operators_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let dated = |from: i32, to: i32| {
        move |params: &mut CertificateParams| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        }
    };
    let certificates: [(&str, Certified, &str); 6] = [
        ("ci", authority.certify(&["localhost"], |_| {}), ""),
        ("other-authority", other.certify(&["localhost"], |_| {}), "invalid peer certificate"),
        ("expired", authority.certify(&["localhost"], dated(2020, 2021)), "expired"),
        ("not-yet-valid", authority.certify(&["localhost"], dated(2090, 2091)), "not valid yet"),
        ("other-name", authority.certify(&["issuer.test", "127.0.0.1"], |_| {}), "not valid for name"),
        ("self-signed", Certified::self_signed("localhost"), "invalid peer certificate"),
    ];
    let issuers: Vec<(&str, HostileIssuer, &str)> = certificates
        .iter()
        .map(|(name, certified, told)| (*name, HostileIssuer::with_tls(certified), *told))
        .collect();
    let trusted: Vec<_> =
        issuers.iter().map(|(name, issuer, _)| (*name, issuer, ", ca_file: ca.pem")).collect();
    let installation = trusting(&trusted, "");
    installation.write("ca.pem", &authority.certificate);
    let server = installation.serve();

    let (_, right, _) = &issuers[0];
    until_well(&server, "ci");
    deploy(&server, &right.token()).ok();
    for (name, issuer, told) in &issuers[1..] {
        let standing = until_told(&server, name, told);
        assert!(standing["fault"].as_str().unwrap().contains("cannot be reached"), "{standing}");
        deploy(&server, &issuer.token()).problem(503, "issuer_unavailable");
        assert_eq!((issuer.connections(), issuer.requests()), (1, 0), "{name}: it was asked something");
    }
}

#[test]
fn the_environments_proxies_are_not_used() {
    let (authority, proxy) = (Authority::new(), Trap::set());
    let plain = HostileIssuer::start();
    let tls = HostileIssuer::with_tls(&authority.certify(&["localhost"], |_| {}));
    let installation = trusting(&[("ci", &plain, ""), ("tls", &tls, ", ca_file: ca.pem")], "");
    installation.write("ca.pem", &authority.certificate);
    let mut command = installation.command(&["serve"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, format!("http://{}", proxy.address));
        command.env(name.to_lowercase(), format!("http://{}", proxy.address));
    }
    let server = installation.serve_by(command.env_remove("NO_PROXY").env_remove("no_proxy"));

    until_well(&server, "ci");
    until_well(&server, "tls");
    fetch_again(&server);
    eventually("a second fetch", || (tls.requests() == 4 && plain.requests() == 4).then_some(()));
    deploy(&server, &plain.token()).ok();
    assert_eq!(proxy.connections(), 0);
}

#[test]
fn what_is_not_tls_is_no_https_issuer() {
    let plain = HostileIssuer::start();
    let installation = trusting(&[("ci", &plain, "")], "");
    installation.write("ca.pem", &Authority::new().certificate);
    let url = plain.url.replace("http://", "https://");
    installation.configure(&format!(
        "deadlines: {{ issuer: 1s }}\n\
         issuers:\n  ci: {{ url: \"{url}\", profile: github-actions, ca_file: ca.pem, \
         allow_private_addresses: true }}\n"
    ));
    installation.write("policies/issuers/ci.yaml", &plain.policy("ci").replace("http://", "https://"));
    let server: Server = installation.serve();
    until_told(&server, "ci", "no answer in time");
    assert_eq!(plain.requests(), 0);
    assert_eq!(standing(&server, "ci")["ready"], false);
}

/// A library that writes down what a process looks up and connects to.
fn netlog() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/served/support/netlog.c");
        let built =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("netlog-{}.so", std::process::id()));
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&built)
            .args([source, "-ldl"])
            .status()
            .expect("a C compiler, which aws-lc wants too");
        assert!(status.success(), "cc: {status}");
        built
    })
}
