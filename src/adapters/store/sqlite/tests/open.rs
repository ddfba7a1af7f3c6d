//! Making and opening: what is refused, and that refusing touches nothing.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, time::SystemTime};

use super::*;
use crate::kernel::assertion::{Algorithm, KeyState};

/// What stands in a folder: name, bytes, time of change.
fn contents(folder: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            let changed = file.metadata().unwrap().modified().unwrap();
            (file.file_name().into_string().unwrap(), (fs::read(file.path()).unwrap(), changed))
        })
        .collect()
}

fn folder_with_store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hall pass?#%.db");
    fs::write(&path, template()).unwrap();
    (folder, path)
}

fn fault(path: &Path, key_byte: u8, options: Options) -> OpenFault {
    Sqlite::open(path, key(key_byte), options).err().unwrap()
}

#[test]
fn a_new_store_is_for_its_owner_only_and_stands_in_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hallpass.db");
    Sqlite::create(&path, &key(1), genesis()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(contents(folder.path()).into_keys().collect::<Vec<_>>(), ["hallpass.db"]);
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_of_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hallpass.db");
    fs::write(&path, b"mine").unwrap();
    let exists = Sqlite::create(&path, &key(1), genesis());
    assert!(matches!(exists, Err(CreateFault::Exists(_))));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    fs::remove_file(&path).unwrap();
    let none = Sqlite::create(&path, &key(1), Genesis { random: &|_| false, ..genesis() });
    assert!(matches!(none, Err(CreateFault::NoEntropy)));
    assert!(contents(folder.path()).is_empty());
}

#[test]
fn a_wrong_sealing_key_is_told_and_touches_nothing() {
    let (folder, path) = folder_with_store();
    let before = contents(folder.path());
    for options in [Options::default(), Options { single_writer_lock: true, read_only: false }] {
        assert!(matches!(fault(&path, 2, options), OpenFault::WrongSealingKey));
        assert!(contents(folder.path()) == before);
    }
}

#[tokio::test]
async fn a_wrong_sealing_key_is_told_also_while_another_process_writes() {
    let bench = Bench::new();
    bench.store.append(vec![entry(EntryCode::Started)]).await.unwrap();
    assert!(matches!(fault(&bench.path, 2, Options::default()), OpenFault::WrongSealingKey));
    bench.store.append(vec![entry(EntryCode::Stopped)]).await.unwrap();
    assert_eq!(bench.codes(), ["STARTED", "STOPPED"]);
}

#[test]
fn an_absent_or_foreign_file_is_refused_and_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hallpass.db");
    assert!(matches!(fault(&path, 1, Options::default()), OpenFault::Absent(_)));
    assert!(contents(folder.path()).is_empty());
    for foreign in [&b"certainly no database at all"[..], b""] {
        fs::write(&path, foreign).unwrap();
        assert!(matches!(fault(&path, 1, Options::default()), OpenFault::Foreign(_)));
        assert_eq!(fs::read(&path).unwrap(), foreign);
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let (_folder, path) = folder_with_store();
    let newer = schema::SCHEMA + 1;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", newer).unwrap();
    let fault = fault(&path, 1, Options::default());
    assert!(matches!(fault, OpenFault::Newer { found, known: schema::SCHEMA } if found == newer));
}

#[tokio::test]
async fn a_second_serve_is_refused_and_other_commands_are_not() {
    let bench = Bench::new();
    let serve = Options { single_writer_lock: true, read_only: false };
    let serving = Sqlite::open(&bench.path, key(1), serve).unwrap();
    assert!(matches!(fault(&bench.path, 1, serve), OpenFault::Serving));
    bench.store.append(vec![entry(EntryCode::Started)]).await.unwrap();
    serving.close().await;
    Sqlite::open(&bench.path, key(1), serve).unwrap();
}

#[tokio::test]
async fn a_store_opened_for_reading_reads_and_does_not_write() {
    let bench = Bench::new();
    let receipts = bench.store.append(vec![entry(EntryCode::Started)]).await.unwrap();
    let reading = Options { single_writer_lock: false, read_only: true };
    for store in [Sqlite::open(&bench.path, key(1), reading).unwrap(), Sqlite::inspect(&bench.path).unwrap()]
    {
        assert_eq!(store.ledger_rows(0, 10).await.unwrap().len(), 1);
        assert_eq!(store.checkpoint().await.unwrap(), bench.store.checkpoint().await.unwrap());
        assert_eq!(store.verifier_key(), bench.store.verifier_key());
        assert!(store.append(vec![entry(EntryCode::Stopped)]).await.is_err());
        assert!(store.health().is_err());
    }
    assert_proves(&bench.store, &receipts[0]);
}

#[test]
fn a_head_that_does_not_fit_its_ledger_is_refused() {
    for damage in [
        "UPDATE head SET size = 1",
        "UPDATE head SET root = randomblob(32)",
        "UPDATE head SET note = replace(note, '0', '1')",
        "DELETE FROM keys WHERE purpose = 'ledger'",
        "INSERT INTO entry VALUES (0, randomblob(32), 'DENIED', 0, NULL, NULL, NULL, NULL, '')",
    ] {
        let (_folder, path) = folder_with_store();
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&damage.replace("''", "x''")).unwrap();
        drop(conn);
        assert!(matches!(fault(&path, 1, Options::default()), OpenFault::Damaged(_)), "{damage}");
    }
}

#[tokio::test]
async fn the_stores_own_keys_open_with_the_sealing_key_only() {
    let (_folder, path) = folder_with_store();
    let store = open(&path);
    assert!(store.pseudonym_key().is_some());
    let keys = store.assertion_keys().await.unwrap();
    assert!(aws_lc_rs::rsa::KeyPair::from_pkcs8(keys[0].private.as_ref().unwrap().expose()).is_ok());
    assert_eq!((store.origin(), store.verifier_key().origin()), (ORIGIN, ORIGIN));
    let keys = Sqlite::inspect(&path).unwrap().assertion_keys().await.unwrap();
    assert!(keys.len() == 2 && keys.iter().all(|key| key.private.is_none()));
}

#[tokio::test]
async fn closing_ends_what_waits_and_refuses_what_comes_after() {
    let bench = Bench::new();
    let waiting = tokio::join!(
        bench.store.append(vec![entry(EntryCode::Started)]),
        bench.store.append(vec![entry(EntryCode::Stopped)]),
        bench.store.close(),
    );
    assert!(waiting.0.is_ok() && waiting.1.is_ok());
    assert!(bench.store.append(vec![entry(EntryCode::Stopped)]).await.is_err());
    assert!(bench.store.checkpoint().await.is_err());
    assert!(bench.store.health().is_err());
    bench.store.close().await;
    assert!(!schema::beside(&bench.path, "-wal").exists());
}

#[tokio::test]
async fn looking_at_a_quiet_store_leaves_the_folder_as_it_was() {
    let (folder, path) = folder_with_store();
    let before = contents(folder.path());
    let store = Sqlite::inspect(&path).unwrap();
    assert_eq!(store.ledger_rows(0, 10).await.unwrap().len(), 0);
    store.close().await;
    drop(store);
    assert_eq!(
        contents(folder.path()).into_keys().collect::<Vec<_>>(),
        before.into_keys().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_and_keeps_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hallpass.db");
    fs::write(&path, template()).unwrap();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "DROP INDEX issuance_open; DROP INDEX issuance_revoking; DROP INDEX issuance_by_decision;
         ALTER TABLE issuance DROP COLUMN making; ALTER TABLE issuance DROP COLUMN held;
         ALTER TABLE issuance DROP COLUMN chain; ALTER TABLE issuance DROP COLUMN once;
         ALTER TABLE issuance DROP COLUMN idempotency; ALTER TABLE issuance DROP COLUMN counted;
         ALTER TABLE issuance DROP COLUMN tries; ALTER TABLE issuance DROP COLUMN retry_at;
         ALTER TABLE issuance DROP COLUMN told; ALTER TABLE issuance DROP COLUMN keeps_chain;
         DROP TABLE publication; DROP TABLE assertion_key; DELETE FROM keys WHERE purpose = 'assertion-es256-1';
         DROP TABLE freeze; DROP TABLE frozen_key; DROP TABLE replica; DROP TABLE policy_skew;
         DROP INDEX issuance_by_holder; DROP TABLE intent_count; DROP TABLE policy_let_in; DROP INDEX issuance_by_end;
         ALTER TABLE issuance DROP COLUMN live_until; ALTER TABLE issuance DROP COLUMN project;
         PRAGMA user_version = 1;
         INSERT INTO issuance (id, decision, grant_name, credential, kind, state, handle, issuer, token, lifetime,
             issued_at, expires_at, revocable, owner, recover_after)
         VALUES (x'01', x'02', 'demo', 'sts', 'oidc', 'issued', x'03', 'github', x'04', 'fixed', 1, 9, 0, x'05', 2),
                (x'02', x'02', 'demo', 'npm', 'sealed', 'issued', x'03', 'github', x'04', 'static', 1, NULL, 0,
                 x'05', 2);",
    )
    .unwrap();
    drop(conn);
    // Looking changes nothing.
    Sqlite::inspect(&path).unwrap().close().await;
    let version =
        |conn: &Connection| conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    assert_eq!(version(&Connection::open(&path).unwrap()).unwrap(), 1);

    let stores = [open(&path), open(&path)];

    let conn = Connection::open(&path).unwrap();
    assert_eq!(version(&conn).unwrap(), schema::SCHEMA);
    let mut rows = conn.prepare("SELECT live_until FROM issuance ORDER BY id").unwrap();
    let ends: Vec<Option<i64>> = rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(ends, [Some(9), None]);
    stores[0].append(vec![entry(EntryCode::Started)]).await.unwrap();
    // Its one key of assertions goes on signing.
    let keys = stores[1].assertion_keys().await.unwrap();
    let [key] = keys.as_slice() else { panic!("{} keys", keys.len()) };
    assert_eq!((key.algorithm, key.version), (Algorithm::Rs256, 1));
    assert!(key.private.is_some() && key.schedule.state(now()) == KeyState::Active);
}
