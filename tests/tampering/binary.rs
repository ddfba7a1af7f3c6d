//! A sample of the same changes through the built binary, as an auditor runs it.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::{Place, database::Specimens};

#[test]
fn the_built_binary_finds_a_sample_of_them_with_its_anchors() {
    let specimens = Specimens::new();
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("broker");
    assert!(hallpass(folder.path()).args(["init", "--dir"]).arg(&made).status().unwrap().success());
    let database = made.join("hallpass.db");
    let key = specimens.small.key.to_string();
    let anchors = |anchors: &[hallpass::kernel::ledger::verify::Anchor]| {
        for (n, anchor) in anchors.iter().enumerate() {
            std::fs::write(folder.path().join(format!("anchor-{n}")), &anchor.bytes).unwrap();
        }
        (0..anchors.len()).flat_map(|n| ["--anchor".to_owned(), format!("../anchor-{n}")]).collect::<Vec<_>>()
    };
    let verify = |anchors: Vec<String>, key: &str| {
        let mut command = hallpass(&made);
        command.args(["ledger", "verify", "--output", "json", "--key", key]).args(anchors);
        let output = command.output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report)
    };
    std::fs::write(&database, &specimens.small.database).unwrap();
    assert_eq!(verify(anchors(&specimens.small.anchors), &key).0, Some(0));
    for seed in 0..40 {
        let (log, change, held) = specimens.spoil(seed, &database);
        let (exit, report) = verify(anchors(&held), &log.key.to_string());
        let what = format!("HALLPASS_TAMPER_SEED={seed}: {}: {report}", change.what);
        assert_eq!(exit, Some(30), "{what}");
        if let Place::At(index) = change.place {
            assert_eq!(report["first_bad"], index, "{what}");
        }
    }
}

fn hallpass(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HALLPASS_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").current_dir(folder);
    command
}
