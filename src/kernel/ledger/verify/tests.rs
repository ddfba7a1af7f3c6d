//! The laws of the verifier, from one valid log that is then spoilt.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::*;
use crate::kernel::{
    id::{DecisionId, IssuanceId, ReplicaId},
    ledger::{
        checkpoint::LogKey,
        entry::{Draft, Entry, EntryCode, Personal},
        export::Export,
        proof::TlogProof,
        subject::Subject,
        tree::{Frontier, leaf_hash},
    },
    secret::Secret,
};

const START: &str = "2026-11-23T10:00:00Z";

/// A log as a broker would have written it: batches of INTENT and ISSUED, now and then a DENIED.
struct Log {
    key: LogKey,
    entries: Vec<Entry>,
    /// Size, root and proofs of each batch.
    batches: Vec<(u64, Digest, Vec<Vec<Digest>>)>,
}

fn key(seed: u8) -> LogKey {
    LogKey::from_seed("hallpass.test/ledger", &Secret::new(vec![seed; 32])).unwrap()
}

fn sealed(draft: Draft, second: i64) -> Entry {
    let at: Timestamp = START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second);
    let salt = u8::try_from(second % 251).unwrap();
    draft
        .seal(at, ReplicaId::from_bytes([1; 16]), &move |out| {
            out.fill(salt);
            true
        })
        .unwrap()
}

fn issuance(n: u8) -> IssuanceId {
    IssuanceId::from_bytes([n; 16])
}

fn exchange(n: u8) -> Vec<Entry> {
    let decision = Some(DecisionId::from_bytes([n; 16]));
    let draft = |code| Draft { decision, ..Draft::of(code) };
    let of = |code| Draft { issuance: Some(issuance(n)), ..draft(code) };
    let person = format!("person {n}");
    let second = i64::from(n);
    if n % 5 == 4 {
        return vec![sealed(
            Draft {
                personal: vec![Personal { field: "address", value: person }],
                ..draft(EntryCode::Denied)
            },
            second,
        )];
    }
    let claims = json!({ "run_id": "17", "n": n, "actor": person });
    let claims = claims.as_object().unwrap();
    let subject = Subject::new(&mut [("issuer", "github".into())], claims, |name| name == "actor").unwrap();
    let intent = Draft { subject: Some(Arc::new(subject)), ..of(EntryCode::Intent) };
    vec![sealed(intent, second), sealed(of(EntryCode::Issued), second)]
}

fn log(exchanges: u8) -> Log {
    let mut log = Log { key: key(7), entries: Vec::new(), batches: Vec::new() };
    let mut frontier = Frontier::default();
    for n in 0..exchanges {
        let entries = exchange(n);
        let leaves: Vec<Digest> = entries.iter().map(|entry| entry.leaf).collect();
        let appended = frontier.append(&leaves);
        frontier = appended.frontier;
        log.batches.push((frontier.size(), appended.root, appended.proofs));
        log.entries.extend(entries);
    }
    log
}

impl Log {
    fn checkpoint(&self) -> String {
        self.batches.last().map(|(size, root, _)| self.key.sign(*size, root)).unwrap()
    }

    fn checkpoint_of(&self, batch: usize) -> Anchor {
        let (size, root, _) = &self.batches[batch];
        Anchor { name: "a checkpoint".to_owned(), bytes: self.key.sign(*size, root).into_bytes() }
    }

    /// The receipt of the ISSUED entry of an exchange.
    fn receipt(&self, batch: usize) -> (u64, String) {
        let (size, root, proofs) = &self.batches[batch];
        let index = size - 1;
        let entry = &self.entries[usize::try_from(index).unwrap()];
        let hashes = proofs.last().unwrap().clone();
        let proof = TlogProof { index, hashes, checkpoint: self.key.sign(*size, root) }.to_string();
        let receipt = json!({
            "issuance": entry.issuance.unwrap().to_string(), "index": index,
            "entry": BASE64.encode(&entry.bytes), "proof": proof,
        });
        (index, receipt.to_string())
    }

    fn evidence(&self, key: Key, anchors: Vec<Anchor>) -> Evidence {
        Evidence { key, checkpoint: self.checkpoint().into_bytes(), manifest: None, anchors }
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..).zip(&self.entries).map(|(index, entry)| Row {
            index,
            bytes: &entry.bytes,
            leaf: Some(entry.leaf),
            personal: &entry.personal,
        })
    }

    fn trusted(&self) -> Key {
        Key::Elsewhere(self.key.verifier())
    }

    fn export(&self) -> Files {
        let mut export = Export::begin(&self.checkpoint()).unwrap();
        let entries = self.entries.iter().flat_map(|entry| export.line(&entry.bytes).unwrap()).collect();
        let manifest = export.finish().unwrap();
        Files { entries, manifest, checkpoint: self.checkpoint().into_bytes() }
    }
}

/// The three files of an export.
#[derive(Clone, PartialEq)]
struct Files {
    entries: Vec<u8>,
    manifest: Vec<u8>,
    checkpoint: Vec<u8>,
}

impl Files {
    fn verify(&self, key: Key, anchors: Vec<Anchor>) -> Report {
        let manifest = Some(self.manifest.clone());
        let mut audit = Audit::new(Evidence { key, checkpoint: self.checkpoint.clone(), manifest, anchors });
        self.entries.split_inclusive(|byte| *byte == b'\n').for_each(|line| audit.line(line));
        audit.finish()
    }
}

fn receipt_anchor(text: &str) -> Anchor {
    Anchor { name: "a receipt".to_owned(), bytes: text.as_bytes().to_vec() }
}

fn findings(report: &Report) -> String {
    match &report.verdict {
        Verdict::Broken(findings) => findings.join("; "),
        Verdict::Anchored | Verdict::Consistent => String::new(),
    }
}

#[test]
fn a_key_and_an_anchor_from_elsewhere_are_both_due() {
    let log = log(20);
    let own = Key::Own(log.key.verifier());
    let cases = [
        (log.trusted(), vec![log.checkpoint_of(9)], 0, ""),
        (log.trusted(), Vec::new(), 31, "no anchor from elsewhere was given"),
        (own.clone(), vec![log.checkpoint_of(9)], 31, "no key from elsewhere was given"),
        (Key::Unknown, vec![log.checkpoint_of(9)], 31, "no key from elsewhere was given"),
        (Key::Unknown, Vec::new(), 31, "no key from elsewhere was given"),
    ];
    for (key, anchors, exit, note) in cases {
        let live = verify(log.evidence(key.clone(), anchors.clone()), log.rows());
        let export = log.export().verify(key, anchors);
        for report in [live, export] {
            assert_eq!(report.verdict.exit_code(), exit, "{report:?}");
            assert!(note.is_empty() || report.notes.iter().any(|each| each == note), "{report:?}");
            assert_eq!((report.size, report.first_bad, report.root), (36, None, log.batches[19].1));
            assert_eq!(report.origin, "hallpass.test/ledger");
        }
    }
}

#[test]
fn checkpoints_proofs_and_receipts_are_anchors_and_say_how_far() {
    let log = log(20);
    let (index, receipt) = log.receipt(11);
    let value: serde_json::Value = serde_json::from_str(&receipt).unwrap();
    let proof =
        Anchor { name: "a proof".to_owned(), bytes: value["proof"].as_str().unwrap().as_bytes().to_vec() };
    for anchor in [receipt_anchor(&receipt), proof, log.checkpoint_of(11)] {
        let report = log.export().verify(log.trusted(), vec![anchor]);
        assert_eq!((report.verdict, report.anchored), (Verdict::Anchored, index + 1));
        assert_eq!(report.notes, [format!("entries {} to 35 are newer than any anchor", index + 1)]);
    }
    let report = log.export().verify(log.trusted(), vec![log.checkpoint_of(19)]);
    assert_eq!((report.anchored, report.notes), (36, Vec::new()));
}

#[test]
fn a_log_rewritten_with_its_own_key_is_found_by_every_kind_of_anchor_and_by_nothing_else() {
    let (before, mut after) = (log(20), log(20));
    // Entry 4 (a DENIED) is replaced, and the whole log is signed anew with the true key.
    let index = after.entries.iter().position(|entry| entry.code == EntryCode::Denied).unwrap();
    after.entries[index] = sealed(Draft::of(EntryCode::Read), 4);
    let leaves: Vec<Digest> = after.entries.iter().map(|entry| entry.leaf).collect();
    let appended = Frontier::default().append(&leaves);
    *after.batches.last_mut().unwrap() = (36, appended.root, Vec::new());
    assert_eq!(after.export().verify(after.trusted(), Vec::new()).verdict, Verdict::Consistent);
    assert_eq!(
        after.export().verify(after.trusted(), vec![before.checkpoint_of(0)]).verdict,
        Verdict::Anchored
    );
    let anchors = [receipt_anchor(&before.receipt(11).1), before.checkpoint_of(11), before.checkpoint_of(19)];
    for anchor in anchors {
        let report = after.export().verify(after.trusted(), vec![anchor]);
        assert_eq!(report.verdict.exit_code(), 30, "{report:?}");
        assert!(findings(&report).contains("are not those of anchor"), "{report:?}");
    }
}

#[test]
fn a_changed_entry_under_a_receipt_is_named() {
    let (before, mut after) = (log(20), log(20));
    let (index, receipt) = before.receipt(11);
    let at = usize::try_from(index).unwrap();
    after.entries[at] = sealed(Draft { issuance: Some(issuance(11)), ..Draft::of(EntryCode::Issued) }, 200);
    let leaves: Vec<Digest> = after.entries.iter().map(|entry| entry.leaf).collect();
    *after.batches.last_mut().unwrap() = (36, Frontier::default().append(&leaves).root, Vec::new());
    let report = after.export().verify(after.trusted(), vec![receipt_anchor(&receipt)]);
    assert_eq!(report.first_bad, Some(index), "{report:?}");
}

#[test]
fn a_log_shorter_than_an_anchor_is_broken() {
    let (long, short) = (log(20), log(12));
    let report = short.export().verify(short.trusted(), vec![long.checkpoint_of(19)]);
    assert_eq!((report.verdict.exit_code(), report.first_bad), (30, Some(22)));
    assert!(findings(&report).contains("shorter than anchor"), "{report:?}");
}

#[test]
fn anchors_that_are_spoilt_or_foreign_break_the_verdict() {
    let log = log(12);
    let (_, receipt) = log.receipt(11);
    let foreign = LogKey::from_seed("other.test/ledger", &Secret::new(vec![7; 32])).unwrap();
    let foreign = foreign.sign(22, &log.batches[11].1);
    let spoilt = [
        receipt.replace("\"index\":21", "\"index\":20"),
        receipt.replace(&issuance(11).to_string(), &issuance(12).to_string()),
        receipt.replace("\"issuance\"", "\"extra\":1,\"issuance\""),
        receipt.replace("index 21", "index 20"),
        key(8).sign(22, &log.batches[11].1),
        foreign.clone(),
        "nonsense".to_owned(),
    ];
    for text in spoilt {
        let report = log.export().verify(log.trusted(), vec![receipt_anchor(&text)]);
        assert_eq!(report.verdict.exit_code(), 30, "{text}");
    }
    let report = log.export().verify(Key::Unknown, vec![receipt_anchor(&foreign)]);
    assert!(findings(&report).contains("another log"), "{report:?}");
}

#[test]
fn a_leaf_or_an_erasable_value_that_was_changed_in_the_database_is_named() {
    let log = log(12);
    let check = |spoil: &dyn Fn(usize, &mut Row<'_>)| {
        let rows = log.rows().enumerate().map(|(at, mut row)| {
            spoil(at, &mut row);
            row
        });
        verify(log.evidence(log.trusted(), Vec::new()), rows)
    };
    assert_eq!(check(&|_, _| {}).verdict, Verdict::Consistent);
    let report = check(&|at, row| row.leaf = row.leaf.filter(|_| at != 5).or(Some(leaf_hash(b""))));
    assert_eq!(report.first_bad, Some(5));
    let report = check(&|at, row| row.index += u64::from(at >= 7));
    assert_eq!(report.first_bad, Some(7));
    // Erased values are no fault: commitments stay.
    assert_eq!(check(&|_, row| row.personal = &[]).verdict, Verdict::Consistent);
    let (field, blind, value) = log.entries[2].personal[0].clone();
    let mut other_blind = blind;
    other_blind[0] ^= 1;
    for changed in [
        (field.clone(), blind, "somebody else".to_owned()),
        (field, other_blind, value.clone()),
        ("reason".to_owned(), blind, value),
    ] {
        let mut rows: Vec<Row<'_>> = log.rows().collect();
        let changed = [changed];
        rows[2].personal = &changed;
        let report = verify(log.evidence(log.trusted(), Vec::new()), rows);
        assert_eq!((report.verdict.exit_code(), report.first_bad), (30, Some(2)), "{report:?}");
    }
}

/// A log of those entries, whole and well signed: only what they tell can be wrong.
fn told(entries: Vec<Entry>) -> Report {
    told_bytes(entries.into_iter().map(|entry| entry.bytes).collect())
}

fn told_bytes(entries: Vec<Vec<u8>>) -> Report {
    let leaves: Vec<Digest> = entries.iter().map(|bytes| leaf_hash(bytes)).collect();
    let checkpoint = key(7).sign(leaves.len() as u64, &Frontier::default().append(&leaves).root).into_bytes();
    let evidence =
        Evidence { key: Key::Elsewhere(key(7).verifier()), checkpoint, manifest: None, anchors: Vec::new() };
    let rows = (0..).zip(&entries).map(|(index, bytes)| Row { index, bytes, leaf: None, personal: &[] });
    verify(evidence, rows)
}

#[test]
fn an_issuance_without_an_intent_breaks_and_an_open_intent_is_noted() {
    let of = |code, n| sealed(Draft { issuance: Some(issuance(n)), ..Draft::of(code) }, 1);
    let report = told(vec![of(EntryCode::Intent, 1), of(EntryCode::Issued, 2)]);
    assert_eq!((report.verdict.exit_code(), report.first_bad), (30, Some(1)));
    let report = told(vec![of(EntryCode::Intent, 1), of(EntryCode::Issued, 1), of(EntryCode::Issued, 1)]);
    assert_eq!(report.first_bad, Some(2), "one intent carries one issuance");
    let report = told(vec![of(EntryCode::Intent, 1), of(EntryCode::Intent, 1)]);
    assert_eq!(report.first_bad, Some(1));
    let report = told(vec![of(EntryCode::Intent, 1), of(EntryCode::Intent, 2), of(EntryCode::Failed, 1)]);
    assert_eq!(report.verdict, Verdict::Consistent);
    assert!(report.notes[0].starts_with("1 intents have no outcome yet, the first is entry 1"), "{report:?}");
    assert_eq!(told(vec![sealed(Draft::of(EntryCode::Issued), 1)]).first_bad, Some(0));
}

#[test]
fn time_that_runs_backward_and_codes_from_the_future_are_noted() {
    let at = |second| sealed(Draft::of(EntryCode::Started), second);
    let report = told(vec![at(10), at(5), at(4), at(12)]);
    assert_eq!(report.verdict, Verdict::Consistent);
    assert_eq!(report.notes[0], "1 entries are over 5 s older than one before them, the first is entry 2");
    let future =
        |from: &str, to: &str| String::from_utf8(at(1).bytes).unwrap().replace(from, to).into_bytes();
    let entries = ["WITNESSED", "ALERT_NEW", "REVOKED"].map(|code| future("STARTED", code));
    let report = told_bytes(entries.to_vec());
    assert_eq!(report.notes[0], "1 entries have the code WITNESSED, which this version does not know");
    assert_eq!(report.notes.len(), 2, "{report:?}");
    let report = told_bytes(vec![future("\"v\":1", "\"v\":2")]);
    assert!(report.notes[0].contains("version 2"), "{report:?}");
}

#[test]
fn entries_that_are_no_entries_are_named() {
    let good = String::from_utf8(sealed(Draft::of(EntryCode::Started), 1).bytes).unwrap();
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(17_000));
    let spoilt = [
        good.replace("\"v\":1", "\"v\":1.0"),
        good.replace("\"v\":1", "\"v\":1 "),
        good.replace("{\"at\"", "{\"at\":\"2026-11-23T10:00:01.000Z\",\"at\""),
        good.replace(".000Z", "Z"),
        good.replace(".000Z", ".000+00:00"),
        good.replace("rep_", "dec_"),
        good.replace("\"salt\":\"01", "\"salt\":\"0G"),
        good.replace("\"code\"", "\"coda\""),
        "[]".to_owned(),
        String::new(),
        large,
    ];
    for text in spoilt {
        assert_ne!(text, good);
        let report = told_bytes(vec![good.clone().into_bytes(), text.clone().into_bytes()]);
        assert_eq!(report.first_bad, Some(1), "{text}: {report:?}");
    }
}

#[test]
fn a_log_of_rubbish_gives_a_bounded_report() {
    let report = told_bytes(vec![b"x".to_vec(); 100]);
    let Verdict::Broken(findings) = report.verdict else { panic!("{report:?}") };
    assert_eq!((findings.len(), findings[20].as_str()), (21, "and 80 more"));
}

#[test]
fn an_empty_log_is_consistent_and_cannot_be_anchored() {
    let report = told(Vec::new());
    assert_eq!((report.verdict, report.size, report.root), (Verdict::Consistent, 0, Digest::of(b"")));
    let anchor = Anchor { name: "a".to_owned(), bytes: key(7).sign(0, &Digest::of(b"")).into_bytes() };
    let log = log(3);
    let report = log.export().verify(log.trusted(), vec![anchor]);
    assert_eq!(report.verdict, Verdict::Consistent);
}

/// A small seeded stream, so that a failing change can be repeated by its number.
struct Stream(u64);

impl Stream {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// One change to an export, and the first entry that it touches, where that can be told.
fn change(files: &mut Files, stream: &mut Stream) -> (String, Option<u64>) {
    let kind = stream.below(9);
    let lines: Vec<Vec<u8>> =
        files.entries.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let at = stream.below(lines.len() - 1);
    let mut changed = lines.clone();
    let mut touched = Some(at as u64);
    match kind {
        0..=2 => {
            let entry = lines[..at].concat().len() + stream.below(lines[at].len());
            files.entries[entry] ^= 1 << stream.below(8);
            return (format!("bit in line {at}"), touched);
        }
        3 => {
            let other = at + 1 + stream.below(lines.len() - at - 1);
            changed.swap(at, other);
        }
        4 => drop(changed.remove(at)),
        5 => {
            changed.insert(at, lines[at].clone());
            touched = Some(at as u64 + 1);
        }
        6 => {
            let bytes = 1 + stream.below(files.entries.len());
            files.entries.truncate(files.entries.len() - bytes);
            let whole = files.entries.iter().filter(|byte| **byte == b'\n').count();
            return (format!("cut by {bytes}"), Some(whole as u64));
        }
        7 => {
            let file = if stream.below(2) == 0 { &mut files.manifest } else { &mut files.checkpoint };
            let (place, bit) = (stream.below(file.len()), stream.below(8));
            match stream.below(4) {
                0 => file.truncate(place),
                1 => file.extend(file[place..].to_vec()),
                _ => file[place] ^= 1 << bit,
            }
            return (format!("a file beside the entries, at {place}"), None);
        }
        _ => {
            let root = Digest::of(&[u8::try_from(at).unwrap()]);
            let (key, root) = if stream.below(2) == 0 { (key(7), root) } else { (key(9), log_root(&lines)) };
            files.checkpoint = key.sign(lines.len() as u64, &root).into_bytes();
            return (format!("signed anew {at}"), None);
        }
    }
    files.entries = changed.concat();
    (format!("lines moved, kind {kind} at {at}"), touched)
}

fn log_root(lines: &[Vec<u8>]) -> Digest {
    let leaves: Vec<Digest> = lines.iter().map(|line| leaf_hash(&line[..line.len() - 1])).collect();
    Frontier::default().append(&leaves).root
}

#[test]
fn two_thousand_single_changes_to_an_export_are_all_found_and_the_first_bad_entry_is_named() {
    let log = log(20);
    let good = log.export();
    let anchors = || vec![log.checkpoint_of(9), receipt_anchor(&log.receipt(15).1)];
    assert_eq!(good.verify(log.trusted(), anchors()).verdict, Verdict::Anchored);
    let mut seen = 0;
    for seed in 0..2_000 {
        let mut files = good.clone();
        let (what, touched) = change(&mut files, &mut Stream(seed * 7_919));
        assert!(files != good, "seed {seed}: {what} changed nothing");
        let report = files.verify(log.trusted(), anchors());
        assert_eq!(report.verdict.exit_code(), 30, "seed {seed}: {what}: {report:?}");
        if touched.is_some() {
            assert_eq!(report.first_bad, touched, "seed {seed}: {what}: {report:?}");
            seen += 1;
        }
    }
    assert!(seen > 1_000);
}

#[test]
fn every_flipped_bit_of_a_receipt_is_refused() {
    let log = log(12);
    let receipt = log.receipt(11).1.into_bytes();
    let verifier = log.key.verifier();
    for bit in 0..receipt.len() * 8 {
        let mut bytes = receipt.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let read = Anchor { name: String::new(), bytes }.read(Some(&verifier));
        // A flipped bit in the key's id makes it another key's signature, which only the log's keys can tell.
        let is_vouched = read.is_ok_and(|pin| verifier.open(&pin.note).is_ok());
        assert!(!is_vouched, "bit {bit}: {text}");
    }
}
