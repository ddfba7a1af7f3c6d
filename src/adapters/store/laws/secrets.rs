//! The sealed store and the policy mark.

use super::*;
use crate::{
    broker::ports::SealedRecords,
    kernel::{name::SecretName, sealing},
};

/// Sets a secret of one field; answers its version.
pub(in crate::adapters::store) async fn set(store: &Database, name: &str, value: &str) -> u64 {
    let fields = [("value".to_owned(), Secret::from_text(value.to_owned()))];
    store.set_secret(&secret(name), &fields, change(EntryCode::SecretSet)).await.unwrap()
}

fn secret(name: &str) -> SecretName {
    SecretName::parse(name).unwrap()
}

fn change(code: EntryCode) -> Change<'static> {
    let make = Box::new(move |version| Some(told(code, version)));
    Change { now: now(), random: &random, entry: Box::leak(make) }
}

fn told(code: EntryCode, version: u64) -> Entry {
    sealed(Draft { code: Some(code), result: Some(json!({ "version": version })), ..Draft::default() })
}

fn opened(store: &Database, name: &str) -> Option<(u64, String)> {
    let (_, found) = store.sealed(&secret(name));
    let found = found?;
    let of = sealing::Sealed { purpose: sealing::PURPOSE_SECRET, name, version: found.version };
    let content = key(1).open(of, &found.record).unwrap();
    let fields = sealing::read_fields(&content).unwrap();
    Some((found.version, fields[0].1.expose_text().unwrap().to_owned()))
}

async fn a_secret_is_set_with_its_entry_and_read_from_memory(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(set(&bench.store, "npm-token", "one").await, 1);
    assert_eq!(set(&bench.store, "npm-token", "two").await, 2);
    assert_eq!(opened(&bench.store, "npm-token"), Some((2, "two".to_owned())));
    assert_eq!(bench.codes(), ["SECRET_SET", "SECRET_SET"]);
    let listed = bench.store.list_secrets().await.unwrap();
    let expected = SecretListing { name: secret("npm-token"), version: 2, set_at: now(), fields: 1 };
    assert_eq!(listed, [expected]);
}

async fn a_removed_secret_is_gone_and_its_versions_are_not_used_again(on: Engine) {
    let bench = Bench::on(on);
    set(&bench.store, "npm-token", "one").await;
    let removed = bench.store.remove_secret(&secret("npm-token"), change(EntryCode::SecretRemoved)).await;
    assert_eq!(removed.unwrap(), 1);
    assert_eq!(opened(&bench.store, "npm-token"), None);
    assert_eq!(bench.store.list_secrets().await.unwrap(), []);
    let again = bench.store.remove_secret(&secret("npm-token"), change(EntryCode::SecretRemoved)).await;
    assert!(matches!(again, Err(SecretFault::Missing)));
    assert_eq!(set(&bench.store, "npm-token", "two").await, 3);
    assert_eq!(bench.codes(), ["SECRET_SET", "SECRET_REMOVED", "SECRET_SET"]);
}

async fn the_generation_counts_every_change_and_survives_a_restart(on: Engine) {
    let bench = Bench::on(on);
    let generation = |store: &Database| store.sealed(&secret("x")).0;
    assert_eq!(generation(&bench.store), 0);
    set(&bench.store, "a", "1").await;
    set(&bench.store, "b", "1").await;
    bench.store.remove_secret(&secret("a"), change(EntryCode::SecretRemoved)).await.unwrap();
    assert_eq!(generation(&bench.store), 3);
    let bench = bench.reopened().await;
    assert_eq!(generation(&bench.store), 3);
    assert_eq!(opened(&bench.store, "b"), Some((1, "1".to_owned())));
}

async fn two_processes_that_set_one_secret_at_once_get_two_versions(on: Engine) {
    let bench = Bench::on(on);
    let other = bench.other();
    let (one, two) = tokio::join!(set(&bench.store, "npm-token", "a"), set(&other, "npm-token", "b"));
    let mut versions = [one, two];
    versions.sort_unstable();
    assert_eq!(versions, [1, 2]);
}

laws![
    a_secret_is_set_with_its_entry_and_read_from_memory,
    a_removed_secret_is_gone_and_its_versions_are_not_used_again,
    the_generation_counts_every_change_and_survives_a_restart,
    two_processes_that_set_one_secret_at_once_get_two_versions,
];
