//! Single changes to exports.

use std::io::Cursor;

use hallpass::{
    broker::audit,
    kernel::{
        digest::Digest,
        ledger::{
            checkpoint::{LogKey, VerifierKey},
            entry::{Draft, EntryCode},
            export::Export,
            tree::{Frontier, leaf_hash},
            verify::{Anchor, Evidence, Key, Report, Verdict},
        },
        secret::Secret,
    },
};
use rusqlite::Connection;

use crate::{
    Change, Stream,
    clean::export,
    log::{Log, ORIGIN, stolen_key},
    seeds,
};

/// An export, and what is held from elsewhere.
#[derive(Clone)]
struct Files {
    lines: Vec<u8>,
    manifest: Vec<u8>,
    checkpoint: Vec<u8>,
    anchors: Vec<Anchor>,
}

#[test]
fn every_single_change_to_an_export_is_found_and_the_first_bad_entry_is_named() {
    let mut log = Log::new(77);
    (0..12).for_each(|_| log.append(2));
    let (lines, manifest, checkpoint) = export(&log);
    let key = log.store.verifier_key();
    let stolen = stolen_key(&Connection::open(log.path()).unwrap());
    let good = Files { lines, manifest, checkpoint, anchors: log.anchors() };
    assert_eq!(verify(&good, &key).verdict, Verdict::Anchored);
    let forged = forge(&mut log);
    for seed in seeds(40) {
        let mut files = good.clone();
        let change = change(&mut files, &mut Stream::new(seed), &stolen, &forged);
        change.assert_found(seed, &verify(&files, &key));
    }
}

fn verify(files: &Files, key: &VerifierKey) -> Report {
    let Files { lines, manifest, checkpoint, anchors } = files.clone();
    let evidence =
        Evidence { key: Key::Elsewhere(key.clone()), checkpoint, manifest: Some(manifest), anchors };
    audit::of_lines(evidence, &mut Cursor::new(lines)).unwrap()
}

/// An entry that never was.
fn forge(log: &mut Log) -> Vec<u8> {
    log.seal(Draft::of(EntryCode::Started), "2027-01-13T10:00:01Z".parse().unwrap()).bytes
}

fn change(files: &mut Files, stream: &mut Stream, stolen: &LogKey, forged: &[u8]) -> Change {
    let mut lines: Vec<Vec<u8>> =
        files.lines.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let at = stream.below(lines.len() - 1);
    let index = at as u64;
    let change = match stream.below(12) {
        0..=2 => {
            stream.flip(&mut lines[at]);
            Change::at("a bit of an entry", index)
        }
        3 => {
            let other = at + 1 + stream.below(lines.len() - at - 1);
            lines.swap(at, other);
            Change::at("two entries swapped", index)
        }
        4 => {
            lines.remove(at);
            Change::at("an entry deleted", index)
        }
        5 => {
            lines.insert(at, lines[at].clone());
            Change::at("an entry twice", index + 1)
        }
        6 => {
            let kept = stream.below(files.lines.len());
            files.lines.truncate(kept);
            let whole = files.lines.iter().filter(|byte| **byte == b'\n').count();
            return Change::at("cut", whole as u64);
        }
        7 => {
            let file = if stream.below(2) == 0 { &mut files.manifest } else { &mut files.checkpoint };
            let at = stream.below(file.len());
            match stream.below(3) {
                0 => file.truncate(at),
                1 => file.extend(file[at..].to_vec()),
                _ => stream.flip(file),
            }
            return Change::beside("a file beside the entries");
        }
        8 => {
            let anchor = stream.below(files.anchors.len());
            stream.flip(&mut files.anchors[anchor].bytes);
            return Change::beside("an anchor");
        }
        9 => {
            let other = LogKey::from_seed(ORIGIN, &Secret::new(vec![9; 32])).unwrap();
            files.checkpoint = sign(&other, &lines).into_bytes();
            return Change::beside("signed with another key");
        }
        10 => {
            lines[at] = [forged, b"\n"].concat();
            Change::at("an entry replaced", index)
        }
        _ => {
            // Whoever has the key writes the whole export anew; only what is held elsewhere can tell.
            lines[at] = [forged, b"\n"].concat();
            let note = sign(stolen, &lines);
            let mut export = Export::begin(&note).unwrap();
            files.lines = lines.iter().flat_map(|line| export.line(line.trim_ascii_end()).unwrap()).collect();
            files.manifest = export.finish().unwrap();
            files.checkpoint = note.into_bytes();
            return Change::within("a fork signed with the ledger's key", index);
        }
    };
    files.lines = lines.concat();
    change
}

fn sign(key: &LogKey, lines: &[Vec<u8>]) -> String {
    let leaves: Vec<Digest> = lines.iter().map(|line| leaf_hash(line.trim_ascii_end())).collect();
    key.sign(leaves.len() as u64, &Frontier::default().append(&leaves).root)
}
