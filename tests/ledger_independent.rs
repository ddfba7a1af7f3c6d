//! A program that shares no line with Hallpass (Go, golang.org/x/mod's `sumdb/note` and `sumdb/tlog`) accepts a receipt
//! and an export, and refuses both after one flipped bit.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of a test are tests"
)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, OnceLock},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hallpass::kernel::{
    digest::Digest,
    id::{DecisionId, IssuanceId, ReplicaId},
    ledger::{
        checkpoint::LogKey,
        entry::{Draft, Entry, EntryCode},
        export::{CHECKPOINT_FILE, ENTRIES_FILE, Export, MANIFEST_FILE},
        proof::TlogProof,
        subject::Subject,
        tree::Frontier,
    },
    secret::Secret,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tempfile::TempDir;

const ENTRIES: u64 = 600;

/// The verifier, built once for all tests of this file.
fn verifier() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifier");
        let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verifier");
        let build =
            Command::new("go").arg("build").arg("-C").arg(sources).arg("-o").arg(&binary).arg(".").output();
        let build = build.expect("this test needs Go (https://go.dev/dl, 1.24 or newer) on the PATH");
        assert!(build.status.success(), "go build: {}", String::from_utf8_lossy(&build.stderr));
        binary
    })
}

fn run(what: &str, key: &LogKey, path: &Path) -> Output {
    let vkey = key.verifier().to_string();
    Command::new(verifier()).args([what, "--key", &vkey]).arg(path).output().unwrap()
}

fn accepts(output: &Output) -> bool {
    match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        other => panic!("{other:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// A log of 600 entries in batches of 1 to 7, and a receipt of each ISSUED one.
struct Log {
    key: LogKey,
    entries: Vec<Entry>,
    receipts: Vec<String>,
    checkpoint: String,
}

fn entry(index: u64) -> Entry {
    let at = "2026-11-23T10:00:00Z".parse::<Timestamp>().unwrap()
        + SignedDuration::from_millis_i128(137 * i128::from(index));
    let pair = u8::try_from(index / 2 % 250).unwrap();
    let code = if index.is_multiple_of(2) { EntryCode::Intent } else { EntryCode::Issued };
    let claims = json!({ "ref": "refs/heads/ä<&>", "run_id": index, "actor": "öctocat <&>" });
    let mut members = [("issuer", "github".into())];
    let subject = Subject::new(&mut members, claims.as_object().unwrap(), |name| name == "actor").unwrap();
    let draft = Draft {
        decision: Some(DecisionId::from_bytes([pair; 16])),
        issuance: Some(IssuanceId::from_bytes([pair; 16])),
        subject: Some(Arc::new(subject)),
        ..Draft::of(code)
    };
    let salt = Digest::of(&index.to_be_bytes()).0;
    let random = |out: &mut [u8]| {
        out.iter_mut().zip(salt).for_each(|(to, from)| *to = from);
        true
    };
    draft.seal(at, ReplicaId::from_bytes([1; 16]), &random).unwrap()
}

fn log() -> Log {
    let key = LogKey::from_seed("hallpass.test/ledger", &Secret::new(vec![7; 32])).unwrap();
    let entries: Vec<Entry> = (0..ENTRIES).map(entry).collect();
    let (mut frontier, mut receipts, mut checkpoint) = (Frontier::default(), Vec::new(), String::new());
    let mut rest = entries.as_slice();
    while !rest.is_empty() {
        let (batch, later) = rest.split_at((1 + receipts.len() % 7).min(rest.len()));
        let leaves: Vec<Digest> = batch.iter().map(|entry| entry.leaf).collect();
        let appended = frontier.append(&leaves);
        checkpoint = key.sign(appended.frontier.size(), &appended.root);
        for ((index, entry), hashes) in (frontier.size()..).zip(batch).zip(appended.proofs) {
            let proof = TlogProof { index, hashes, checkpoint: checkpoint.clone() }.to_string();
            let receipt = json!({
                "issuance": entry.issuance.unwrap().to_string(), "index": index,
                "entry": BASE64.encode(&entry.bytes), "proof": proof,
            });
            receipts.push(receipt.to_string());
        }
        (frontier, rest) = (appended.frontier, later);
    }
    Log { key, entries, receipts, checkpoint }
}

fn write_export(log: &Log) -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut export = Export::begin(&log.checkpoint).unwrap();
    assert_eq!(export.size(), ENTRIES);
    let lines: Vec<u8> = log.entries.iter().flat_map(|entry| export.line(&entry.bytes).unwrap()).collect();
    std::fs::write(folder.path().join(ENTRIES_FILE), lines).unwrap();
    std::fs::write(folder.path().join(MANIFEST_FILE), export.finish().unwrap()).unwrap();
    std::fs::write(folder.path().join(CHECKPOINT_FILE), &log.checkpoint).unwrap();
    folder
}

#[test]
fn an_independent_program_accepts_receipts_of_every_shape_of_tree() {
    let (log, folder) = (log(), TempDir::new().unwrap());
    let file = folder.path().join("receipt.json");
    for index in [0, 1, 2, 127, 255, 256, 257, 511, 512, 598, 599] {
        std::fs::write(&file, &log.receipts[index]).unwrap();
        let output = run("receipt", &log.key, &file);
        assert!(accepts(&output), "{index}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).starts_with(&format!("entry {index} (")));
    }
}

#[test]
fn an_independent_program_refuses_a_receipt_after_one_flipped_bit() {
    let (log, folder) = (log(), TempDir::new().unwrap());
    let file = folder.path().join("receipt.json");
    let receipt: serde_json::Value = serde_json::from_str(&log.receipts[301]).unwrap();
    let entry = BASE64.decode(receipt["entry"].as_str().unwrap()).unwrap();
    for bit in (0..entry.len() * 8).step_by(151) {
        let mut spoilt = entry.clone();
        spoilt[bit / 8] ^= 1 << (bit % 8);
        let mut receipt = receipt.clone();
        receipt["entry"] = BASE64.encode(spoilt).into();
        std::fs::write(&file, receipt.to_string()).unwrap();
        assert!(!accepts(&run("receipt", &log.key, &file)), "bit {bit} of the entry");
    }
    let proof = receipt["proof"].as_str().unwrap().as_bytes();
    for bit in (0..proof.len() * 8).step_by(53) {
        let mut spoilt = proof.to_vec();
        spoilt[bit / 8] ^= 1 << (bit % 8);
        let Ok(spoilt) = String::from_utf8(spoilt) else { continue };
        let mut receipt = receipt.clone();
        receipt["proof"] = spoilt.into();
        std::fs::write(&file, receipt.to_string()).unwrap();
        assert!(!accepts(&run("receipt", &log.key, &file)), "bit {bit} of the proof");
    }
}

#[test]
fn an_independent_program_accepts_an_export_and_refuses_it_after_one_flipped_bit() {
    let log = log();
    let folder = write_export(&log);
    let output = run("export", &log.key, folder.path());
    assert!(accepts(&output), "{}", String::from_utf8_lossy(&output.stderr));
    for name in [ENTRIES_FILE, MANIFEST_FILE, CHECKPOINT_FILE] {
        let path = folder.path().join(name);
        let good = std::fs::read(&path).unwrap();
        for place in (0..25).map(|step| step * (good.len() - 1) / 24) {
            let mut spoilt = good.clone();
            spoilt[place] ^= 1 << (place % 8);
            std::fs::write(&path, spoilt).unwrap();
            assert!(!accepts(&run("export", &log.key, folder.path())), "{name}, byte {place}");
        }
        std::fs::write(&path, good).unwrap();
    }
    assert!(accepts(&run("export", &log.key, folder.path())));
}

#[test]
fn an_independent_program_refuses_what_another_key_has_signed() {
    let log = log();
    let folder = write_export(&log);
    let other = LogKey::from_seed("hallpass.test/ledger", &Secret::new(vec![8; 32])).unwrap();
    assert!(!accepts(&run("export", &other, folder.path())));
    let file = folder.path().join("receipt.json");
    std::fs::write(&file, &log.receipts[5]).unwrap();
    assert!(!accepts(&run("receipt", &other, &file)));
}
