//! What the running broker gives out of its ledger, in the eyes of a program that shares no line with it (Go,
//! `golang.org/x/mod`): receipts from answers, exports from the command line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::json;

use super::support::{
    Installation,
    installation::{finish, run},
};

#[test]
fn receipt_of_an_answer_holds_and_breaks_with_one_bit() {
    let installation = Installation::new();
    let server = installation.serve();
    let key = run(&mut installation.command(&["keys", "show", "ledger"]), "");
    let body = server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["deploy"] })).ok();
    let receipt = body["receipts"][1].to_string();
    installation.write("receipt.json", &receipt);
    assert!(accepts("receipt", &key, &installation.file("receipt.json")));

    let at = receipt.find("\"entry\":\"").unwrap() + 60;
    let mut spoiled = receipt.into_bytes();
    spoiled[at] = if spoiled[at] == b'A' { b'B' } else { b'A' };
    fs::write(installation.file("receipt.json"), spoiled).unwrap();

    assert!(!accepts("receipt", &key, &installation.file("receipt.json")));
}

#[test]
fn export_holds_and_breaks_with_one_bit() {
    let installation = Installation::new();
    let server = installation.serve();
    let key = run(&mut installation.command(&["keys", "show", "ledger"]), "");
    for _ in 0..20 {
        server.only(&installation.issuer.token(), "npm");
    }
    run(&mut installation.command(&["ledger", "export", "--out", "copy"]), "");
    assert!(accepts("export", &key, &installation.file("copy")));

    let entries = installation.file("copy/entries.jsonl");
    let mut spoiled = fs::read(&entries).unwrap();
    let middle = spoiled.len() / 2;
    spoiled[middle] ^= 1;
    fs::write(&entries, spoiled).unwrap();

    assert!(!accepts("export", &key, &installation.file("copy")));
}

#[test]
fn export_over_a_change_of_keys_holds_for_either_key_and_for_no_other() {
    let installation = Installation::new();
    let server = installation.serve();
    let old = run(&mut installation.command(&["keys", "show", "ledger"]), "");
    server.only(&installation.issuer.token(), "npm");
    let new = run(&mut installation.command(&["keys", "rotate", "ledger"]), "");
    server.only(&installation.issuer.token(), "npm");
    run(&mut installation.command(&["ledger", "export", "--out", "copy"]), "");
    let other = run(&mut Installation::new().command(&["keys", "show", "ledger"]), "");

    assert!(accepts("export", &old, &installation.file("copy")));
    assert!(accepts("export", &new, &installation.file("copy")));
    assert!(!accepts("export", &other, &installation.file("copy")));
}

#[test]
fn receipt_anchors_an_export() {
    let installation = Installation::new();
    let server = installation.serve();
    let key = run(&mut installation.command(&["keys", "show", "ledger"]), "");
    let body = server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["deploy"] })).ok();
    installation.write("receipt.json", &body["receipts"][0].to_string());
    server.stop();
    run(&mut installation.command(&["ledger", "export", "--out", "copy"]), "");
    let verify = |more: &[&str]| {
        let verify = ["ledger", "verify", "copy", "--key", key.trim()];
        finish(&mut installation.command(&[&verify, more].concat()), "").status.code()
    };

    assert_eq!(verify(&[]), Some(31), "consistent, and no more, without an anchor");
    assert_eq!(verify(&["--anchor", "receipt.json"]), Some(0));

    // An export that lacks what the receipt proves was cut.
    let entries = installation.file("copy/entries.jsonl");
    let kept: Vec<String> =
        fs::read_to_string(&entries).unwrap().lines().take(1).map(str::to_owned).collect();
    fs::write(&entries, kept.join("\n") + "\n").unwrap();
    assert_eq!(verify(&["--anchor", "receipt.json"]), Some(30));
}

/// The verifier's verdict.
pub(crate) fn accepts(what: &str, key: &str, path: &Path) -> bool {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let verifier = BUILT.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifier");
        let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("served-verifier");
        let build =
            Command::new("go").arg("build").arg("-C").arg(sources).arg("-o").arg(&binary).arg(".").output();
        let build = build.expect("go is installed");
        assert!(build.status.success(), "go build: {}", String::from_utf8_lossy(&build.stderr));
        binary
    });
    let output = Command::new(verifier).args([what, "--key", key.trim()]).arg(path).output().unwrap();
    match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("{output:?}"),
    }
}
