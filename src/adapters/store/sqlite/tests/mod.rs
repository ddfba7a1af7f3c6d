//! What only SQLite promises: its file, its locks, its triggers. The laws of any store stand in `laws`.

mod open;
mod secrets;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::Connection;
use serde_json::json;

use super::*;
use crate::{
    adapters::store::laws::{ORIGIN, entry, genesis, issue, key, now, random, raw, sealed, template, word},
    kernel::ledger::{
        entry::{Draft, EntryCode},
        proof::TlogProof,
        tree::{leaf_hash, root_from_inclusion},
    },
};

/// A store with a folder of its own.
struct Bench {
    store: Arc<Sqlite>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hallpass.db");
        std::fs::write(&path, template()).unwrap();
        Self { store: open(&path), path, _folder: folder }
    }

    /// A connection that does to the file what only somebody with other tools does.
    fn raw(&self) -> Connection {
        raw(&self.path)
    }

    fn codes(&self) -> Vec<String> {
        let conn = self.raw();
        let mut rows = conn.prepare("SELECT code FROM entry ORDER BY idx").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

fn open(path: &Path) -> Arc<Sqlite> {
    Sqlite::open(path, key(1), Options::default()).unwrap()
}

async fn verdict(store: &Sqlite, issue: Issue) -> &'static str {
    word(&store.issue(issue).await.unwrap())
}

/// Checks a receipt as whoever holds one would: against nothing but the ledger's public key.
fn assert_proves(store: &Sqlite, receipt: &Receipt) {
    let proof = TlogProof::parse(&receipt.proof).unwrap();
    let head = store.verifier_key().open(&proof.checkpoint).unwrap();
    assert_eq!(proof.index, receipt.index);
    let leaf = leaf_hash(&receipt.entry);
    assert_eq!(root_from_inclusion(receipt.index, head.size, &leaf, &proof.hashes), Some(head.root));
}

/// Waits until the store says that it is well again.
async fn until_well(store: &Sqlite) {
    let well = async {
        while store.health().is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), well).await.unwrap();
}

#[tokio::test]
async fn no_row_of_the_ledger_can_be_changed_deleted_or_replaced() {
    let bench = Bench::new();
    bench.store.append(vec![entry(EntryCode::Started), entry(EntryCode::Stopped)]).await.unwrap();
    let conn = bench.raw();
    for statement in [
        "UPDATE entry SET code = 'DENIED' WHERE idx = 0",
        "DELETE FROM entry WHERE idx = 1",
        "INSERT OR REPLACE INTO entry SELECT * FROM entry WHERE idx = 0",
        "INSERT INTO entry SELECT 5, leaf, code, at, decision, issuance, issuer, grants, bytes FROM entry WHERE idx = 0",
    ] {
        let refused = conn.execute(statement, []).unwrap_err().to_string();
        assert!(refused.contains("the ledger is"), "{statement}: {refused}");
    }
    assert_eq!(bench.codes(), ["STARTED", "STOPPED"]);
}

#[tokio::test]
async fn a_locked_database_is_unavailable_and_heals_without_being_asked() {
    let bench = Bench::new();
    let conn = bench.raw();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(bench.store.issue(issue()).await.is_err());
    // Known to be locked, it answers at once.
    let asked = std::time::Instant::now();
    assert!(bench.store.issue(issue()).await.is_err());
    assert!(asked.elapsed() < schema::BUSY);
    conn.execute_batch("ROLLBACK").unwrap();
    until_well(&bench.store).await;
    assert_eq!(verdict(&bench.store, issue()).await, "recorded");
}

#[tokio::test]
async fn a_queue_that_is_full_says_so_at_once() {
    let bench = Bench::new();
    let conn = bench.raw();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let calls: Vec<_> = (0..writer::QUEUE + 600)
        .map(|_| {
            let store = Arc::clone(&bench.store);
            tokio::spawn(async move { store.append(Vec::new()).await.err() })
        })
        .collect();
    let mut overloaded = 0;
    for call in calls {
        overloaded += usize::from(call.await.unwrap() == Some(StoreFault::Overloaded));
    }
    assert!(overloaded > 0);
}

#[tokio::test]
async fn a_ledger_that_was_put_back_is_not_written() {
    let bench = Bench::new();
    bench.store.append(vec![entry(EntryCode::Started)]).await.unwrap();
    let conn = bench.raw();
    let back: (Vec<u8>, Vec<u8>) = {
        let empty = crate::kernel::ledger::tree::Frontier::default();
        (empty.root().0.to_vec(), head::peaks_of(&empty))
    };
    conn.execute("UPDATE head SET size = 0, root = ?1, peaks = ?2", rusqlite::params![back.0, back.1])
        .unwrap();
    let fault = bench.store.append(vec![entry(EntryCode::Stopped)]).await.err().unwrap();
    assert!(fault.to_string().contains("not the one that this process wrote"), "{fault}");
}
