//! Brokers of one store: those that live agree on a set, or all of them know since when they do not.

use super::*;

async fn beat(store: &Database, replica: u8, set: Option<&[u8]>, seconds: u64) -> Option<Skew> {
    let replica = ReplicaId::from_bytes([replica; 16]);
    let beat = Beat { replica, started: now(), digest: set.map(Digest::of), now: later(seconds) };
    store.beat(beat).await.unwrap()
}

async fn a_difference_begins_when_it_is_first_seen_and_ends_when_all_agree(on: Engine) {
    let bench = Bench::on(on);
    let other = bench.other();
    assert_eq!(beat(&bench.store, 1, Some(b"old"), 0).await, None);
    assert_eq!(beat(&other, 2, None, 1).await, None, "one that has no set yet agrees with all");
    let began = beat(&other, 2, Some(b"new"), 5).await.unwrap();
    assert_eq!((began.since, began.is_told, began.sets.len()), (later(5), false, 2));
    assert_eq!(beat(&bench.store, 1, Some(b"old"), 10).await.unwrap().since, later(5));
    assert_eq!(beat(&bench.store, 1, Some(b"new"), 20).await, None);
    assert_eq!(beat(&bench.store, 1, Some(b"old"), 21).await.unwrap().since, later(21));
}

async fn one_that_died_or_left_is_not_waited_for(on: Engine) {
    let bench = Bench::on(on);
    beat(&bench.store, 1, Some(b"old"), 0).await;
    assert!(beat(&bench.store, 2, Some(b"new"), 29).await.is_some());
    assert_eq!(beat(&bench.store, 2, Some(b"new"), 30).await, None, "30 s without a word");
    assert!(beat(&bench.store, 3, Some(b"old"), 31).await.is_some());
    bench.store.leave(ReplicaId::from_bytes([3; 16])).await.unwrap();
    assert_eq!(beat(&bench.store, 2, Some(b"new"), 32).await, None);
}

async fn of_two_that_tell_one_is_first(on: Engine) {
    let bench = Bench::on(on);
    let other = bench.other();
    beat(&bench.store, 1, Some(b"old"), 0).await;
    let since = beat(&other, 2, Some(b"new"), 1).await.unwrap().since;
    let (one, two) = tokio::join!(
        bench.store.tell_skew(since, entry(EntryCode::AlertPolicySkew)),
        other.tell_skew(since, entry(EntryCode::AlertPolicySkew))
    );
    assert_ne!(one.unwrap(), two.unwrap());
    assert_eq!(bench.codes(), ["ALERT_POLICY_SKEW"]);
    assert!(beat(&bench.store, 1, Some(b"old"), 2).await.unwrap().is_told);
}

laws![
    a_difference_begins_when_it_is_first_seen_and_ends_when_all_agree,
    one_that_died_or_left_is_not_waited_for,
    of_two_that_tell_one_is_first,
];
