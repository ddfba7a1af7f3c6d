//! `hallpass doctor` on a real installation: nothing to say of a good one, and each thing spoiled is found with what
//! to do.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;

use super::support::{Installation, installation::finish};

/// What is said of parts that stand so.
pub(super) fn said(installation: &Installation, standing: &str) -> (Option<i32>, Vec<Value>) {
    let output = finish(&mut installation.command(&["doctor", "--output", "json"]), "");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let looks = told["looks"].as_array().unwrap().iter().filter(|look| look["standing"] == standing);
    (output.status.code(), looks.cloned().collect())
}

/// Without the grant of the kit whose secret was never set.
pub(super) fn good() -> Installation {
    let installation = Installation::new();
    fs::remove_file(installation.file("policies/grants/lost.yaml")).unwrap();
    installation
}

#[test]
fn nothing_fails_of_a_good_installation_that_serves() {
    let installation = good();
    let server = installation.serve();

    let (code, failing) = said(&installation, "failing");

    assert_eq!((code, failing), (Some(0), Vec::new()));
    let (_, fine) = said(&installation, "ok");
    for part in ["database", "ledger", "issuers", "clock", "policies", "files"] {
        assert!(fine.iter().any(|look| look["part"] == part), "{part}: {fine:?}");
    }
    server.stop();
}

#[test]
fn each_thing_spoiled_is_found_with_what_to_do() {
    type Spoil = fn(&Installation);
    let cases: [(&str, &str, Spoil); 4] = [
        ("files", "chmod 600", |installation| {
            let key = installation.file("sealing.key");
            fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("policies", "secret set", |installation| {
            let grant = fs::read_to_string(installation.file("policies/grants/deploy.yaml")).unwrap();
            installation.write("policies/grants/deploy.yaml", &grant.replace("npm-token", "never-set"));
        }),
        ("policies", "policy check", |installation| {
            installation.write("policies/grants/deploy.yaml", "grant: deploy\n");
        }),
        ("issuers", "network", |installation| {
            let configuration = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
            let url = &installation.issuer.url;
            // Nothing listens at port 1.
            installation.write("hallpass.yaml", &configuration.replace(url, "http://127.0.0.1:1"));
            let policy = fs::read_to_string(installation.file("policies/issuers/ci.yaml")).unwrap();
            installation.write("policies/issuers/ci.yaml", &policy.replace(url, "http://127.0.0.1:1"));
        }),
    ];
    for (part, advice, spoil) in cases {
        let installation = good();
        spoil(&installation);

        let (code, failing) = said(&installation, "failing");

        assert_eq!(code, Some(2), "{part}");
        assert!(failing.iter().all(|look| look["part"] == part), "{failing:?}");
        assert!(failing[0]["advice"].as_str().unwrap().contains(advice), "{failing:?}");
    }
}

#[test]
fn doctor_records_nothing() {
    let installation = good();
    let server = installation.serve();
    // The kit's own looks at the ledger are READ entries.
    let entries = || server.ledger("").iter().filter(|item| item["entry"]["code"] != "READ").count();
    let before = entries();

    said(&installation, "failing");

    assert_eq!(entries(), before);
}
