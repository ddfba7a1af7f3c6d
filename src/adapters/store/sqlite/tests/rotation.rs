//! Other keys in the place of those that there are: whole or not at all, and every process follows.

use super::*;
use crate::{broker::ports::SealedRecords as _, kernel::sealing};

fn filling() -> Random {
    Arc::new(random)
}

fn told<T>() -> Telling<T> {
    // Not of the ledger's key: what such an entry must say is the verifier's matter.
    Arc::new(|_: &T| Some(entry(EntryCode::Started)))
}

fn ring(newest: u8, previous: Option<u8>) -> Keyring {
    Keyring::new(key(newest), previous.map(key))
}

fn opens(store: &Sqlite, ring: &Keyring) -> bool {
    let name = crate::kernel::name::SecretName::parse("npm-token").unwrap();
    let found = store.sealed(&name).1.unwrap();
    let of = sealing::Sealed { purpose: sealing::PURPOSE_SECRET, name: "npm-token", version: found.version };
    ring.open(of, &found.record).is_ok()
}

#[tokio::test]
async fn every_process_signs_with_the_new_ledger_key_from_its_next_turn_on() {
    let bench = Bench::new();
    let other = bench.other();
    other.append(vec![entry(EntryCode::Started)]).await.unwrap();
    let old = bench.store.verifier_key();
    let rotated = bench.store.rotate_ledger_key(now(), filling(), told()).await.unwrap();
    assert_eq!(rotated.index, Some(1));
    let receipts = other.append(vec![entry(EntryCode::Stopped)]).await.unwrap();
    assert_eq!(other.verifier_key(), rotated.told);
    assert_proves(&other, &receipts[0]);
    assert!(old != rotated.told && old.open(&other.checkpoint().await.unwrap()).is_err());
    let bench = bench.reopened().await;
    assert_eq!(bench.store.verifier_key(), rotated.told);
    assert_eq!(bench.codes().len(), 3);
}

#[tokio::test]
async fn the_head_at_the_change_opens_with_both_keys() {
    let bench = Bench::new();
    let old = bench.store.verifier_key();
    let new = bench.store.rotate_ledger_key(now(), filling(), told()).await.unwrap().told;
    let note = bench.store.checkpoint().await.unwrap();
    assert_eq!(old.open(&note), new.open(&note));
    assert_eq!(bench.store.open_checkpoint(&note).await.unwrap(), old.open(&note));
}

#[tokio::test]
async fn a_change_that_cannot_be_recorded_leaves_the_key_that_there_was() {
    let bench = Bench::new();
    let old = bench.store.verifier_key();
    let conn = bench.raw();
    conn.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON entry BEGIN SELECT RAISE(ABORT, 'no room'); END",
    )
    .unwrap();
    assert!(bench.store.rotate_ledger_key(now(), filling(), told()).await.is_err());
    conn.execute_batch("DROP TRIGGER full").unwrap();
    let none = Arc::new(|_: &Handover| None);
    let untold = bench.store.rotate_ledger_key(now(), filling(), none).await;
    assert!(matches!(untold, Err(RotationFault::Entry)), "{untold:?}");
    let bench = bench.reopened().await;
    assert_eq!(bench.store.verifier_key(), old);
    let receipts = bench.store.append(vec![entry(EntryCode::Started)]).await.unwrap();
    assert_proves(&bench.store, &receipts[0]);
}

#[tokio::test]
async fn everything_opens_with_the_new_sealing_key_after_the_change_and_with_both_during_it() {
    let bench = Bench::new();
    super::secrets::set(&bench.store, "npm-token", "one").await;
    bench.store.close().await;
    let changing = Sqlite::open(&bench.path, ring(2, Some(1)), Options::default()).unwrap();
    // Sealed with the key that all else is sealed with, not with one that others may not know yet.
    super::secrets::set(&changing, "npm-token", "two").await;
    assert!(opens(&changing, &ring(1, None)));
    let done = changing.rewrap(filling(), told()).await.unwrap();
    assert_eq!((done.told, done.index.is_some()), (5, true));
    assert!(opens(&changing, &ring(2, None)) && !opens(&changing, &ring(1, None)));
    super::secrets::set(&changing, "npm-token", "three").await;
    assert!(opens(&changing, &ring(2, None)));
    let again = changing.rewrap(filling(), told()).await.unwrap();
    assert_eq!((again.told, again.index), (0, None));
    changing.close().await;
    assert!(matches!(
        Sqlite::open(&bench.path, key(1), Options::default()).err(),
        Some(OpenFault::WrongSealingKey)
    ));
    let after = Sqlite::open(&bench.path, key(2), Options::default()).unwrap();
    assert!(opens(&after, &ring(2, None)));
    after.append(vec![entry(EntryCode::Started)]).await.unwrap();
}

#[tokio::test]
async fn a_change_of_sealing_keys_that_is_cut_short_leaves_everything_under_the_old_one() {
    let bench = Bench::new();
    super::secrets::set(&bench.store, "npm-token", "one").await;
    let conn = bench.raw();
    conn.execute_batch(
        "CREATE TRIGGER full BEFORE UPDATE ON secret BEGIN SELECT RAISE(ABORT, 'no room'); END",
    )
    .unwrap();
    let changing = Sqlite::open(&bench.path, ring(2, Some(1)), Options::default()).unwrap();
    assert!(changing.rewrap(filling(), told()).await.is_err());
    changing.close().await;
    let bench = bench.reopened().await;
    assert!(opens(&bench.store, &ring(1, None)));
}

#[tokio::test]
async fn nothing_is_wrapped_that_the_serving_broker_could_not_open() {
    let bench = Bench::new();
    let options = Options { single_writer_lock: true, ..Options::default() };
    let serving = Sqlite::open(&bench.path, key(1), options).unwrap();
    serving.announce(&ring(1, None)).await.unwrap();
    let changing = Sqlite::open(&bench.path, ring(2, Some(1)), Options::default()).unwrap();
    let refused = changing.rewrap(filling(), told()).await;
    assert!(matches!(refused, Err(RotationFault::NotServed)), "{refused:?}");
    serving.announce(&ring(2, Some(1))).await.unwrap();
    assert!(changing.rewrap(filling(), told()).await.is_ok());
}
