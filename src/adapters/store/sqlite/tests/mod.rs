//! What only SQLite promises: its file, its locks, its triggers. The laws of any store stand in `laws`.

mod open;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::*;
use crate::{
    adapters::store::{
        StorePlace,
        laws::{
            Bench, Engine, ORIGIN, entry, genesis, issue, key, raw, secrets::set, template, until_well,
            verdict,
        },
    },
    broker::ports::Store as _,
    kernel::ledger::entry::EntryCode,
};

fn path(bench: &Bench) -> &Path {
    match &bench.place {
        StorePlace::Sqlite(path) => path,
        StorePlace::Postgres(_) => unreachable!("it was made on SQLite"),
    }
}

#[tokio::test]
async fn no_row_of_the_ledger_can_be_changed_deleted_or_replaced() {
    let bench = Bench::on(Engine::Sqlite);
    bench.store.append(vec![entry(EntryCode::Started), entry(EntryCode::Stopped)]).await.unwrap();
    let conn = raw(path(&bench));
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
    let bench = Bench::on(Engine::Sqlite);
    let conn = raw(path(&bench));
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
    let bench = Bench::on(Engine::Sqlite);
    let conn = raw(path(&bench));
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
    let bench = Bench::on(Engine::Sqlite);
    bench.store.append(vec![entry(EntryCode::Started)]).await.unwrap();
    let conn = raw(path(&bench));
    let back: (Vec<u8>, Vec<u8>) = {
        let empty = crate::kernel::ledger::tree::Frontier::default();
        (empty.root().0.to_vec(), head::peaks_of(&empty))
    };
    conn.execute("UPDATE head SET size = 0, root = ?1, peaks = ?2", rusqlite::params![back.0, back.1])
        .unwrap();
    let fault = bench.store.append(vec![entry(EntryCode::Stopped)]).await.err().unwrap();
    assert!(fault.to_string().contains("not the one that this process wrote"), "{fault}");
}

#[tokio::test]
async fn no_value_stands_in_the_files() {
    let bench = Bench::on(Engine::Sqlite);
    set(&bench.store, "npm-token", "a-very-secret-value").await;
    for suffix in ["", "-wal"] {
        let bytes = std::fs::read(schema::beside(path(&bench), suffix)).unwrap_or_default();
        assert!(!bytes.windows(12).any(|window| window == b"secret-value"), "{suffix}");
    }
}
