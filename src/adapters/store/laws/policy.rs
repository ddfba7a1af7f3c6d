//! Removal protection: the newest accepted set, what it protects, and letting a set in.

use super::*;
use crate::broker::ports::{PolicyLoad, PolicyVerdict};

const BOTH: &[&str] = &["guardrail/base", "issuer/github"];

fn load(set: &str, names: &[&str]) -> PolicyLoad {
    PolicyLoad {
        digest: Digest::of(set.as_bytes()),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        lost: Vec::new(),
        entry: entry(EntryCode::PolicyLoaded),
        now: now(),
    }
}

fn lost(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn take(store: &Database, load: PolicyLoad) -> PolicyVerdict {
    store.load_policy(load).await.unwrap()
}

async fn let_in(store: &Database, set: &str, until: Timestamp) {
    let entry = entry(EntryCode::PolicyAccepted);
    store.let_policy_in(LettingIn { digest: Digest::of(set.as_bytes()), until, entry }).await.unwrap();
}

async fn the_newest_accepted_set_is_kept_with_its_entry(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(bench.store.accepted_policy().await.unwrap(), None);
    for (set, names) in [("one", &BOTH[..1]), ("two", BOTH)] {
        assert_eq!(take(&bench.store, load(set, names)).await, PolicyVerdict::Loaded);
        let newest = bench.store.accepted_policy().await.unwrap().unwrap();
        assert_eq!((newest.digest, newest.names), (Digest::of(set.as_bytes()), lost(names)));
    }
    assert_eq!(bench.codes(), ["POLICY_LOADED", "POLICY_LOADED"]);
}

async fn the_same_set_again_is_an_entry_and_no_other_set(on: Engine) {
    let bench = Bench::on(on);
    for _ in 0..3 {
        assert_eq!(take(&bench.store, load("one", BOTH)).await, PolicyVerdict::Loaded);
    }
    assert_eq!((bench.count("policy_accepted"), bench.count("entry")), (1, 3));
}

async fn a_set_that_lacks_a_name_is_refused_and_records_nothing(on: Engine) {
    let bench = Bench::on(on);
    take(&bench.store, load("one", BOTH)).await;
    let verdict = take(&bench.store, load("two", &BOTH[1..])).await;
    assert_eq!(verdict, PolicyVerdict::Lacking { lost: lost(&BOTH[..1]), is_let_in: false });
    // Saying what it lacks is no way in.
    let told = PolicyLoad { lost: lost(&BOTH[..1]), ..load("two", &BOTH[1..]) };
    assert!(matches!(take(&bench.store, told).await, PolicyVerdict::Lacking { is_let_in: false, .. }));
    assert_eq!((bench.count("policy_accepted"), bench.count("entry")), (1, 1));
}

async fn protection_holds_in_other_processes_and_after_a_restart(on: Engine) {
    let bench = Bench::on(on);
    let other = bench.other();
    take(&other, load("one", BOTH)).await;
    let is_lacking = |verdict| matches!(verdict, PolicyVerdict::Lacking { .. });
    assert!(is_lacking(take(&bench.store, load("two", &[])).await));
    let bench = bench.reopened().await;
    assert!(is_lacking(take(&bench.store, load("two", &[])).await));
}

async fn a_set_that_is_let_in_is_taken_once_its_entry_tells_what_it_lacks(on: Engine) {
    let bench = Bench::on(on);
    take(&bench.store, load("one", BOTH)).await;
    let_in(&bench.other(), "two", later(86_400)).await;
    let verdict = take(&bench.store, load("two", &BOTH[1..])).await;
    assert_eq!(verdict, PolicyVerdict::Lacking { lost: lost(&BOTH[..1]), is_let_in: true });
    // Another set's names are not what this one lacks.
    let wrong = PolicyLoad { lost: lost(BOTH), ..load("two", &BOTH[1..]) };
    assert!(matches!(take(&bench.store, wrong).await, PolicyVerdict::Lacking { is_let_in: true, .. }));

    let told = PolicyLoad { lost: lost(&BOTH[..1]), ..load("two", &BOTH[1..]) };
    assert_eq!(take(&bench.store, told).await, PolicyVerdict::Loaded);
    assert_eq!(bench.store.accepted_policy().await.unwrap().unwrap().names, lost(&BOTH[1..]));
    assert_eq!(bench.codes(), ["POLICY_LOADED", "POLICY_ACCEPTED", "POLICY_LOADED"]);
}

async fn letting_in_is_of_one_digest_and_ends_with_its_time(on: Engine) {
    let bench = Bench::on(on);
    take(&bench.store, load("one", BOTH)).await;
    let_in(&bench.store, "two", later(86_400)).await;
    let standing = |set: &str, now| {
        let store = Arc::clone(&bench.store);
        let digest = Digest::of(set.as_bytes());
        async move { store.policy_standing(digest, now).await.unwrap().is_let_in }
    };
    assert!(standing("two", later(86_399)).await);
    assert!(!standing("three", now()).await);
    assert!(!standing("two", later(86_400)).await);
    let late = PolicyLoad { now: later(86_400), ..load("two", &[]) };
    assert!(matches!(take(&bench.store, late).await, PolicyVerdict::Lacking { is_let_in: false, .. }));
    // Letting in again never shortens it.
    let_in(&bench.store, "two", later(100)).await;
    assert!(standing("two", later(86_399)).await);
    bench.store.sweep(later(86_400), &|_| None).await.unwrap();
    assert_eq!(bench.count("policy_let_in"), 0);
}

async fn of_two_replicas_with_two_sets_neither_passes_the_others_protection(on: Engine) {
    let bench = Bench::on(on);
    let (left, right) = (Arc::clone(&bench.store), bench.other());
    let (left, right) = tokio::join!(
        left.load_policy(load("left", &["guardrail/left"])),
        right.load_policy(load("right", &["guardrail/right"])),
    );
    let loaded =
        [left.unwrap(), right.unwrap()].iter().filter(|each| **each == PolicyVerdict::Loaded).count();
    assert_eq!(loaded, 1);
}

laws![
    the_newest_accepted_set_is_kept_with_its_entry,
    the_same_set_again_is_an_entry_and_no_other_set,
    a_set_that_lacks_a_name_is_refused_and_records_nothing,
    protection_holds_in_other_processes_and_after_a_restart,
    a_set_that_is_let_in_is_taken_once_its_entry_tells_what_it_lacks,
    letting_in_is_of_one_digest_and_ends_with_its_time,
    of_two_replicas_with_two_sets_neither_passes_the_others_protection,
];
