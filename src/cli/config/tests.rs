//! One valid file, the one that `init` writes, and one thing spoiled at a time.

use super::*;
use crate::kernel::policy::Finding;

const VALID: &str = include_str!("../init/hallpass.yaml");

fn read(text: &str) -> Result<Config, Vec<Finding>> {
    read_with(text, &[])
}

fn read_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<Finding>> {
    let look =
        |name: &str| environment.iter().find(|(each, _)| *each == name).map(|(_, value)| (*value).to_owned());
    Config::read(Path::new("/etc/hallpass/hallpass.yaml"), text.as_bytes(), &Environment::new(look))
}

#[track_caller]
fn spoiled(from: &str, to: &str) -> Result<Config, Vec<Finding>> {
    assert_eq!(VALID.matches(from).count(), 1, "{from:?} must stand in the valid file once");
    read(&VALID.replace(from, to))
}

/// The codes of a spoiled file's findings, each with the text from its place on.
#[track_caller]
fn findings(from: &str, to: &str) -> Vec<(&'static str, String)> {
    let text = VALID.replace(from, to);
    let Err(found) = spoiled(from, to) else { panic!("{to:?} was accepted") };
    let at = |finding: &Finding| {
        let line = text.lines().nth(finding.line - 1).unwrap();
        line.chars().skip(finding.column - 1).collect()
    };
    assert!(found.iter().all(|finding| finding.file == "/etc/hallpass/hallpass.yaml"));
    found.iter().map(|finding| (finding.code, at(finding))).collect()
}

#[test]
fn the_file_of_init_is_the_contracts_example() {
    let config = read(VALID).ok().unwrap();
    assert_eq!(config.public.listen, tcp("127.0.0.1:8440"));
    assert_eq!(config.admin.listen, tcp("127.0.0.1:8441"));
    assert_eq!(config.public_url, "https://hallpass.example.com");
    assert_eq!(config.assertions.issuer, "https://hallpass.example.com");
    assert_eq!(config.store, StorePlace::Sqlite("/etc/hallpass/hallpass.db".into()));
    assert_eq!(config.policies, Path::new("/etc/hallpass/policies/"));
    let SealingKeyFrom::File(key) = &config.sealing_key else { panic!("the sealing key is a file") };
    assert_eq!(key.path, Path::new("/etc/hallpass/sealing.key"));
    assert_eq!(config.admin_tokens.len(), 2);
    assert_eq!(config.admin_tokens[0].roles, [Role::Auditor]);
    assert_eq!(config.issuers["github"].url, "https://token.actions.githubusercontent.com");
    assert_eq!(config.issuers["github"].keys, IssuerKeysFrom::Discovery);
    assert_eq!(config.ledger.seen.as_deref(), Some(Path::new("/etc/hallpass/ledger.seen")));
    assert_eq!(config.limits.clock_leeway, Duration::from_secs(30));
    assert_eq!(config.deadlines.exchange, Duration::from_secs(15));
}

#[test]
fn the_sealing_key_before_it_is_named_beside_it_and_once_only() {
    let from = "{ file: sealing.key } ";
    let config = spoiled(from, "{ file: next.key, previous: { env: OLD_KEY } } ").ok().unwrap();
    assert!(matches!(config.sealing_key, SealingKeyFrom::File(_)));
    assert!(matches!(config.previous_sealing_key, Some(SealingKeyFrom::Env { .. })));
    let two = findings(from, "{ file: a, previous: { file: b, previous: { file: c } } } ");
    assert_eq!(two.len(), 1, "{two:?}");
    let none = findings(from, "{ file: a, previous: {} } ");
    assert_eq!(none[0].0, "sealing-key");
}

#[test]
fn what_init_writes_out_is_what_absence_means() {
    let written = read(VALID).ok().unwrap();
    let cut = VALID.lines().filter(|line| !line.starts_with("limits") && !line.starts_with("deadlines"));
    let cut = cut.filter(|line| !line.starts_with("policies") && !line.contains("listen:"));
    let absent = read(&cut.collect::<Vec<_>>().join("\n")).ok().unwrap();
    assert_eq!((absent.limits, absent.deadlines), (written.limits, written.deadlines));
    assert_eq!((absent.public, absent.admin), (written.public, written.admin));
    assert_eq!(absent.policies, written.policies.components().as_path());
}

#[test]
fn what_is_commented_out_can_be_switched_on() {
    let text = VALID.replace("  # tls:", "  tls:").replace("  # ghes:", "  ghes:").replace("  #   ", "    ");
    // Of the three ways to keys in the example one can be taken.
    let without =
        |word: &str| text.lines().filter(|line| !line.contains(word)).collect::<Vec<_>>().join("\n");
    let by_uri = read(&without("jwks_file").replace("    jwks_valid_until: 2027-03-31", "")).ok().unwrap();
    assert!(matches!(by_uri.issuers["ghes"].keys, IssuerKeysFrom::Uri(_)));
    assert!(by_uri.public.tls.is_some() && by_uri.admin.tls.is_some());
    assert!(by_uri.issuers["ghes"].allow_private_addresses);
    let by_file = read(&without("jwks_uri")).ok().unwrap();
    let IssuerKeysFrom::File { valid_until, .. } = &by_file.issuers["ghes"].keys else { panic!("a file") };
    assert_eq!(valid_until.to_string(), "2027-04-01T00:00:00Z");
}

/// What is spoiled, how, the code of the one finding, and the text at its place.
type Spoiled<'a> = (&'a str, &'a str, &'static str, &'a str);

#[track_caller]
fn each_is_found(table: &[Spoiled<'_>]) {
    for (from, to, code, place) in table {
        let found = findings(from, to);
        let [(found_code, at)] = found.as_slice() else { panic!("{to}: {found:?}") };
        assert!(found_code == code && at.starts_with(place), "{to}: {found:?}");
    }
}

#[test]
fn mistakes_in_the_file_and_its_stores_are_named_with_their_place() {
    each_is_found(&[
        ("policies: policies/", "polices: policies/", "unknown-key", "polices"),
        ("store: {", "store: { pool: 3, ", "unknown-key", "pool"),
        ("policies: policies/", "policies: policies/\npolicies: x/", "duplicate-key", "policies"),
        ("policies: policies/", "policies: &a policies/", "anchor", "policies/"),
        ("policies: policies/", "policies: \"\"", "empty", "\"\""),
        ("policies: policies/", "policies: [a]", "type", "[a]"),
        ("policies: policies/", "policies: 0701", "literal-type", "0701"),
        ("store: { url: \"sqlite:hallpass.db\" }", "", "missing-key", "public"),
        ("store: { url: \"sqlite:hallpass.db\" }", "store: {}", "missing-key", "{}"),
        ("sqlite:hallpass.db", "postgres://db/hallpass", "store-url", "\"postgres"),
        ("sqlite:hallpass.db", "postgres://w:secret@127.0.0.1/db", "store-url", "\"postgres"),
        ("sqlite:hallpass.db", "postgres://w@db.example.com/db?sslmode=disable", "store-url", "\"postgres"),
        ("hallpass.db\" }", "hallpass.db\", password_file: p }", "store-password", "p }"),
        ("sqlite:hallpass.db", "sqlite::memory:", "store-url", "\"sqlite"),
        ("sqlite:hallpass.db", "hallpass.db", "store-url", "\"hallpass.db\""),
        ("sqlite:hallpass.db", "sqlite:", "store-url", "\"sqlite"),
        ("{ file: sealing.key } ", "{ vault: { transit: x } } ", "not-yet", "vault"),
        ("{ file: sealing.key } ", "{} ", "sealing-key", "{}"),
        ("{ file: sealing.key } ", "{ file: a, env: B } ", "sealing-key", "{"),
    ]);
}

#[test]
fn mistakes_about_listeners_are_named_with_their_place() {
    each_is_found(&[
        ("listen: 127.0.0.1:8440", "listen: \"unix:\"", "address", "\"unix:"),
        ("listen: 127.0.0.1:8440", "listen: localhost:8440", "address", "localhost"),
        ("listen: 127.0.0.1:8440", "listen: 127.0.0.1", "address", "127.0.0.1"),
        ("listen: 127.0.0.1:8440", "listen: [1]", "type", "[1]"),
        ("listen: 127.0.0.1:8440", "listen: 0.0.0.0:8440", "tls-due", "0.0.0.0"),
        ("listen: 127.0.0.1:8441", "listen: 10.0.0.1:8441", "tls-due", "10.0.0.1"),
        ("listen: 127.0.0.1:8441", "listen: 127.0.0.1:8440", "same-address", "listen"),
        ("listen: 127.0.0.1:8440", "trusted_proxies: [10.0.0.1/8]", "network", "10.0.0.1/8"),
        ("listen: 127.0.0.1:8440", "trusted_proxies: []", "empty", "[]"),
        ("listen: 127.0.0.1:8441", "trusted_proxies: [10.0.0.0/8]", "unknown-key", "trusted_proxies"),
        ("listen: 127.0.0.1:8440", "tls: { certificate: tls.crt }", "missing-key", "{"),
        ("url: https://hallpass.example.com ", "url: http://hallpass.example.com ", "url", "http"),
        ("url: https://hallpass.example.com ", "url: hallpass.example.com ", "url", "hallpass.example.com"),
        ("url: https://hallpass.example.com ", "url: https://u@hallpass.example.com ", "url", "https"),
        ("url: https://hallpass.example.com ", "url: https://hallpass.example.com/?a ", "url", "https"),
        ("roles: [operator]", "roles: [operators]", "unknown-role", "operators"),
        ("roles: [operator]", "roles: []", "empty", "[]"),
        ("roles: [operator]", "roles: operator", "type", "operator"),
        ("name: first-operator", "name: First", "name", "First"),
        ("name: first-operator", "name: first-auditor", "duplicate-name", "{"),
        (", file: operator.token", "", "missing-key", "{"),
    ]);
}

#[test]
fn mistakes_about_issuers_are_named_with_their_place() {
    let github = "github: { url: \"https://token.actions.githubusercontent.com\", profile: github-actions }";
    let issuer = |more: &str| format!("github: {{ {more} }}");
    let url = "url: \"https://token.actions.githubusercontent.com\"";
    each_is_found(&[
        (github, "GitHub: { url: \"https://a.test\", profile: generic }", "name", "GitHub"),
        (github, &issuer("profile: github-actions"), "missing-key", "{"),
        (github, &issuer(url), "missing-key", "{"),
        ("profile: github-actions }", "profile: github }", "unknown-profile", "github"),
        ("profile: github-actions }", "profile: jenkins }", "unknown-profile", "jenkins"),
        (github, &issuer("url: \"http://10.0.0.1\", profile: generic"), "url", "\"http"),
        (github, &issuer("url: \"https://ci.test/?a=b\", profile: generic"), "url", "\"https"),
        (github, &issuer("url: \"http://127.0.0.1:1\", profile: generic"), "url", "\"http"),
        (
            github,
            &format!("{github}\n  again: {{ {url}, profile: github-actions }}"),
            "duplicate-url",
            "again",
        ),
        ("profile: github-actions }", "profile: github-actions, jwks_file: k }", "missing-key", "jwks_file"),
        (
            "profile: github-actions }",
            "profile: github-actions, jwks_valid_until: 2027-03-31 }",
            "contradiction",
            "jwks_valid_until",
        ),
        (
            "profile: github-actions }",
            "profile: github-actions, jwks_uri: \"https://a.test\", jwks_file: k }",
            "contradiction",
            "jwks_file",
        ),
        (
            "profile: github-actions }",
            "profile: github-actions, jwks_file: k, jwks_valid_until: 2027-02-30 }",
            "date",
            "2027-02-30",
        ),
        (
            "profile: github-actions }",
            "profile: github-actions, jwks_uri: \"http://a.test\" }",
            "url",
            "\"http",
        ),
        (
            "profile: github-actions }",
            "profile: github-actions, allow_private_addresses: yes }",
            "type",
            "yes",
        ),
    ]);
}

#[test]
fn our_own_issuer_is_no_ci_issuer_however_it_is_spelled() {
    let github = "github: { url: \"https://token.actions.githubusercontent.com\", profile: github-actions }";
    for url in [
        "https://hallpass.example.com",
        "https://hallpass.example.com/",
        "https://hallpass.example.com//",
        "https://HALLPASS.Example.com",
        "HTTPS://hallpass.example.com/",
        "https://hallpass.example.com:443",
        "https://hallpass.example%2Ecom",
    ] {
        let ours = format!("github: {{ url: \"{url}\", profile: generic }}");
        each_is_found(&[(github, &ours, "own-issuer", &format!("\"{url}"))]);
    }
    for url in [
        "https://hallpass.example.com/ci",
        "https://hallpass.example.com:8443",
        "https://hallpass.example.org",
    ] {
        assert!(spoiled(github, &format!("github: {{ url: \"{url}\", profile: generic }}")).is_ok(), "{url}");
    }
}

#[test]
fn assertions_are_read_whole() {
    let own = "assertions: { issuer: \"https://hallpass.example.com\" }";
    let config = spoiled(
        own,
        "assertions: { issuer: \"https://oidc.example.com/ci\", es256: [\"https://warehouse.example.com\"], key_lead: 48h, \
         publish: public/oidc }",
    );
    let assertions = config.ok().unwrap().assertions;
    assert_eq!(assertions.issuer, "https://oidc.example.com/ci");
    assert_eq!(assertions.es256, ["https://warehouse.example.com".to_owned()].into());
    assert_eq!(assertions.key_lead, Duration::from_secs(48 * 3_600));
    assert_eq!(assertions.publish.as_deref(), Some(Path::new("/etc/hallpass/public/oidc")));
    let absent = read(VALID).ok().unwrap().assertions;
    assert_eq!((absent.es256.len(), absent.key_lead, absent.publish), (0, Duration::from_secs(86_400), None));
}

#[test]
fn mistakes_about_assertions_are_named_with_their_place() {
    let own = "assertions: { issuer: \"https://hallpass.example.com\" }";
    let with = |more: &str| format!("assertions: {{ issuer: \"https://hallpass.example.com\", {more} }}");
    each_is_found(&[
        (own, &with("key_lead: 59m"), "out-of-range", "59m"),
        (own, &with("key_lead: 31d"), "too-large", "31d"),
        (own, &with("es256: [a, b, a]"), "duplicate", "a]"),
        (own, &with("es256: [\"api://AzureADTokenExchange\"]"), "algorithm", "\"api"),
        (own, &with("es256: a"), "type", "a"),
        (own, &with("algorithm: ES256"), "unknown-key", "algorithm"),
        (own, "assertions: { issuer: \"https://hallpass.example.com?a=b\" }", "url", "\"https"),
        (own, "assertions: { issuer: \"http://hallpass.example.com\" }", "url", "\"http"),
        (own, "assertions: { es256: [a] }", "missing-key", "{"),
    ]);
}

#[test]
fn mistakes_about_ledger_and_limits_are_named_with_their_place() {
    each_is_found(&[
        ("origin: \"hallpass.example.com/ledger\" ", "origin: \"a b\" ", "origin", "\"a"),
        ("origin: \"hallpass.example.com/ledger\" ", "origin: a+b ", "origin", "a+b"),
        ("retention_months: 36", "publish: []", "type", "["),
        ("retention_months: 36", "publish_every: 5", "duration", "5"),
        ("retention_months: 36", "publish_every: 1d", "too-large", "1d"),
        ("retention_months: 36", "retention_months: 0", "out-of-range", "0"),
        ("retention_months: 36", "retention_months: \"36\"", "type", "\"36\""),
        ("issuer: \"https://hallpass.example.com\"", "issuer: \"http://a.test\"", "url", "\"http"),
        ("clock_leeway: 30s", "clock_leeway: 3m", "too-large", "3m"),
        ("clock_leeway: 30s", "clock_leeway: 30", "duration", "30"),
        ("in_flight: 1024", "in_flight: 0", "out-of-range", "0"),
        ("in_flight: 1024", "in_flight: 1_024", "type", "1_024"),
        ("mint: 8s", "mint: 20s", "deadline", "{"),
        ("shutdown: 30s", "shutdown: 1d", "too-large", "1d"),
    ]);
}

#[test]
fn one_run_shows_every_mistake_and_each_says_what_to_do() {
    let text = VALID
        .replace("polic", "polis")
        .replace("in_flight: 1024", "in_flight: x")
        .replace("[auditor]", "[x]");
    let found = read(&text).err().unwrap();
    assert_eq!(
        found.iter().map(|finding| finding.code).collect::<Vec<_>>(),
        ["unknown-role", "unknown-key", "type"]
    );
    assert!(found.iter().all(|finding| !finding.remedy.is_empty()));
    assert_eq!(found[1].remedy, "did you mean `policies`?");
}

#[test]
fn the_environment_wins_over_the_file_and_is_read_as_strictly() {
    let config = read_with(
        VALID,
        &[
            ("HALLPASS_PUBLIC_LISTEN", "[::1]:1"),
            ("HALLPASS_PUBLIC_URL", "https://other.test"),
            ("HALLPASS_ADMIN_LISTEN", "127.0.0.1:0"),
            ("HALLPASS_STORE_URL", "sqlite:/var/lib/hallpass.db"),
            ("HALLPASS_POLICIES", "other"),
        ],
    );
    let config = config.ok().unwrap();
    assert_eq!(config.public.listen, tcp("[::1]:1"));
    assert_eq!(config.public_url, "https://other.test");
    assert_eq!(config.admin.listen, tcp("127.0.0.1:0"));
    assert_eq!(config.store, StorePlace::Sqlite("/var/lib/hallpass.db".into()));
    assert_eq!(config.policies, Path::new("/etc/hallpass/other"));

    for (name, value, code) in [
        ("HALLPASS_PUBLIC_LISTEN", "unix:", "address"),
        ("HALLPASS_PUBLIC_LISTEN", "0.0.0.0:1", "tls-due"),
        ("HALLPASS_PUBLIC_URL", "http://other.test", "url"),
        ("HALLPASS_ADMIN_LISTEN", "x", "address"),
        ("HALLPASS_STORE_URL", "mysql:x", "store-url"),
    ] {
        let found = read_with(VALID, &[(name, value)]).err().unwrap();
        assert_eq!((found[0].file.as_str(), found[0].code, found.len()), (name, code, 1));
    }
}

#[test]
fn a_listener_may_be_a_unix_socket_or_stand_behind_proxies() {
    let unix = read(&VALID.replace("listen: 127.0.0.1:8440", "listen: unix:run/hallpass.sock")).ok().unwrap();
    assert_eq!(unix.public.listen, Listen::Unix("/etc/hallpass/run/hallpass.sock".into()));
    let behind = "listen: 0.0.0.0:8440\n  trusted_proxies: [10.0.0.0/8, \"::1\"]";
    let behind = read(&VALID.replace("listen: 127.0.0.1:8440", behind)).ok().unwrap();
    assert_eq!(behind.public.trusted_proxies.len(), 2);
}

fn tcp(text: &str) -> Listen {
    Listen::Tcp(text.parse().unwrap())
}

#[test]
fn a_configuration_without_admin_listens_on_loopback_and_lets_nobody_in() {
    let start = VALID.find("\nadmin:").unwrap();
    let end = VALID.find("\nstore:").unwrap();
    let config = read(&format!("{}{}", &VALID[..start], &VALID[end..])).ok().unwrap();
    assert_eq!(config.admin.listen, tcp("127.0.0.1:8441"));
    assert!(config.admin_tokens.is_empty());
}

#[test]
fn plain_http_is_for_loopback_only() {
    let secure = |text: &str| is_secure(&reqwest::Url::parse(text).unwrap());
    for good in ["https://a.test", "http://127.0.0.1:1", "http://[::1]", "http://localhost"] {
        assert!(secure(good), "{good}");
    }
    for bad in ["http://a.test", "http://127.0.0.1.a.test", "http://10.0.0.1", "ftp://127.0.0.1"] {
        assert!(!secure(bad), "{bad}");
    }
}

#[test]
fn an_older_gitlab_is_the_operators_word() {
    let issuer = |more: &str| {
        let line =
            "  github: { url: \"https://token.actions.githubusercontent.com\", profile: github-actions }";
        assert_eq!(VALID.matches(line).count(), 1);
        read(&VALID.replace(line, &format!("  ci: {{ {more} }}"))).map(|config| config.issuers["ci"].profile)
    };
    let own = "url: \"https://gitlab.acme.example\", profile: gitlab";
    let of = |version: &str| issuer(&format!("{own}, gitlab_min_version: {version}")).ok().unwrap();
    let (current, older) = (issuer(own).ok().unwrap(), of("\"18.3\""));
    assert!(std::ptr::eq(current, of("\"18.4\"")) && std::ptr::eq(current, of("\"19.0\"")));
    assert!(std::ptr::eq(older, of("\"17.11\"")) && std::ptr::eq(older, of("16.0")));
    assert!(!std::ptr::eq(current, older) && older.name == "gitlab");
    for (bad, code) in [
        (format!("{own}, gitlab_min_version: \"18\""), "version"),
        (format!("{own}, gitlab_min_version: \"v18.1\""), "version"),
        (format!("{own}, gitlab_min_version: \"18.1.2\""), "version"),
        (format!("{own}, gitlab_min_version: \"18.04\""), "version"),
        (format!("{own}, gitlab_min_version: [18]"), "type"),
        (
            "url: \"https://gitlab.com\", profile: gitlab, gitlab_min_version: \"18.1\"".to_owned(),
            "contradiction",
        ),
        (
            "url: \"https://ci.acme.example\", profile: generic, gitlab_min_version: \"18.1\"".to_owned(),
            "contradiction",
        ),
    ] {
        let found = issuer(&bad).err().unwrap();
        assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), [code], "{bad}");
    }
}
