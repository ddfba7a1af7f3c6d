//! Logs whose key was changed: any of the keys verifies all of it, and nobody takes a log over by a key of their own.

use std::{io::Cursor, sync::Arc};

use hallpass::{
    adapters::store::{Handover, Random},
    broker::{audit, ports::Store as _},
    kernel::{
        id::ReplicaId,
        ledger::{
            checkpoint::{LogKey, VerifierKey},
            entry::{Draft, Entry, EntryCode},
            verify::{Anchor, Evidence, Key, Report, Verdict},
        },
        secret::Secret,
    },
};
use rusqlite::Connection;
use serde_json::json;

use crate::{
    clean::export,
    log::{Log, ORIGIN, block, stolen_key},
};

fn rotated(handover: &Handover) -> Entry {
    let Handover { version, old, new, checkpoint } = handover;
    rotation(&old.to_string(), &new.to_string(), checkpoint, *version)
}

fn rotation(old: &str, new: &str, checkpoint: &str, version: u64) -> Entry {
    let result = json!({
        "by": "os:0", "key": "ledger", "version": version, "old": old, "new": new, "checkpoint": checkpoint,
    });
    let draft = Draft { result: Some(result), ..Draft::of(EntryCode::KeyRotated) };
    let at = "2027-01-13T11:00:00Z".parse().unwrap();
    let random = |out: &mut [u8]| {
        out.fill(3);
        true
    };
    draft.seal(at, ReplicaId::from_bytes([7; 16]), &random).unwrap()
}

fn random(seed: u8) -> Random {
    Arc::new(move |out: &mut [u8]| {
        out.fill(seed);
        true
    })
}

impl Log {
    fn rotate(&mut self, seed: u8) -> VerifierKey {
        let now = "2027-01-13T11:00:00Z".parse().unwrap();
        let tell = Arc::new(|handover: &Handover| Some(rotated(handover)));
        let done = block(self.store.rotate_ledger_key(now, random(seed), tell)).unwrap();
        assert_eq!(done.index, Some(self.size));
        assert_eq!(done.told, self.store.verifier_key());
        self.size += 1;
        self.notes.push(block(self.store.checkpoint()).unwrap());
        done.told
    }

    fn verify(&self, key: &VerifierKey, anchors: Vec<Anchor>) -> [Report; 2] {
        let live = block(audit::of_store(&*self.store, Some(key.clone()), anchors.clone())).unwrap();
        let (lines, manifest, checkpoint) = export(self);
        let key = Key::Elsewhere(key.clone());
        let evidence = Evidence { key, checkpoint, manifest: Some(manifest), anchors };
        [live, audit::of_lines(evidence, &mut Cursor::new(lines)).unwrap()]
    }
}

#[test]
fn every_key_of_a_log_verifies_all_of_it_with_anchors_of_every_time() {
    let mut log = Log::new(1);
    log.append(3);
    let mut keys = vec![log.store.verifier_key()];
    for seed in [21, 22] {
        keys.push(log.rotate(seed));
        log.append(3);
    }
    // Each head, those at the changes too, which two keys signed.
    let notes = log.notes.iter().enumerate();
    let heads = notes.map(|(n, note)| Anchor { name: format!("head {n}"), bytes: note.clone().into_bytes() });
    let anchors: Vec<Anchor> = heads.chain(log.anchors()).collect();
    for key in &keys {
        for report in log.verify(key, anchors.clone()) {
            assert_eq!((&report.verdict, report.anchored), (&Verdict::Anchored, log.size), "{report:?}");
        }
    }
    let other = LogKey::from_seed(ORIGIN, &Secret::new(vec![9; 32])).unwrap().verifier();
    for report in log.verify(&other, anchors.clone()) {
        assert_eq!(report.verdict.exit_code(), 30, "{report:?}");
    }
    let held = block(log.store.held_keys()).unwrap();
    let ledger: Vec<_> = held.iter().filter(|key| key.purpose == "ledger").collect();
    assert!(ledger.iter().map(|held| held.verifier.clone().unwrap()).eq(keys));
    assert_eq!(ledger.iter().filter(|held| held.retired_at.is_none()).count(), 1);
}

#[test]
fn a_head_or_an_anchor_that_a_retired_key_signed_afterwards_is_refused() {
    let mut log = Log::new(2);
    log.append(3);
    let old = log.store.verifier_key();
    let retired = stolen_key(&Connection::open(log.path()).unwrap());
    log.rotate(21);
    log.append(3);
    let [live, _] = log.verify(&old, Vec::new());
    let forged = retired.sign(live.size, &live.root);
    let anchor = Anchor { name: "forged".to_owned(), bytes: forged.clone().into_bytes() };
    for report in log.verify(&old, vec![anchor]) {
        assert_eq!(report.verdict.exit_code(), 30, "{report:?}");
    }
    *log.notes.last_mut().unwrap() = forged;
    let [_, export] = log.verify(&old, Vec::new());
    assert_eq!(export.verdict.exit_code(), 30, "{export:?}");
}

#[test]
fn nobody_takes_a_log_over_by_a_key_of_their_own() {
    let mallory = LogKey::from_seed(ORIGIN, &Secret::new(vec![9; 32])).unwrap();
    let taken = |checkpoint: &dyn Fn(&Log) -> String| {
        let mut log = Log::new(3);
        log.append(3);
        let (old, new) = (log.store.verifier_key(), mallory.verifier());
        let entry = rotation(&old.to_string(), &new.to_string(), &checkpoint(&log), 2);
        block(log.store.append(vec![entry])).unwrap();
        let live = block(audit::of_store(&*log.store, Some(old), Vec::new())).unwrap();
        assert_eq!((live.verdict.exit_code(), live.first_bad), (30, Some(log.size)), "{live:?}");
    };
    let line = |note: &str| note.rsplit_once("\n\n").unwrap().1.to_owned();
    let head = |log: &Log| {
        let report = block(audit::of_store(&*log.store, None, Vec::new())).unwrap();
        (report.size, report.root)
    };
    // Their own signature beside a head that the log's key did sign.
    taken(&|log| {
        let (size, root) = head(log);
        format!("{}{}", log.notes.last().unwrap(), line(&mallory.sign(size, &root)))
    });
    // A handover that only they signed.
    taken(&|log| {
        let (size, root) = head(log);
        mallory.hand_over(&mallory, size, &root)
    });
    // A true handover, of another place in the log.
    taken(&|log| {
        let stolen = stolen_key(&Connection::open(log.path()).unwrap());
        stolen.hand_over(&mallory, 1, &head(log).1)
    });
    taken(&|_| String::new());
}
