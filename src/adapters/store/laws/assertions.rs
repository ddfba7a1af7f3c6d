//! Keys of assertions: their dates, who holds which half, and rotations beside each other.

use super::*;
use crate::{
    adapters::store::shared::assertions::{AssertionHandover, AssertionRotation, AssertionRotationFault},
    kernel::assertion::{Algorithm, AssertionKey, KeyState},
};

const DAY: Duration = Duration::from_secs(86_400);

fn entry_of(handover: &AssertionHandover) -> Option<Entry> {
    let result = json!({ "algorithm": handover.algorithm.as_str(), "version": handover.version });
    Some(sealed(Draft { code: Some(EntryCode::KeyRotated), result: Some(result), ..Draft::default() }))
}

fn rotation(now: Timestamp) -> AssertionRotation<'static> {
    AssertionRotation {
        algorithm: Algorithm::Es256,
        lead: DAY,
        is_compromised: false,
        now,
        random: &random,
        public_half: |_, private| Some(format!("public of {}", private.len())),
        entry: &entry_of,
    }
}

/// Number, state at that time, and which halves there are.
type Standing = (u64, KeyState, bool, bool);

async fn standing(store: &Database, algorithm: Algorithm, at: Timestamp) -> Vec<Standing> {
    let keys = store.assertion_keys().await.unwrap();
    let own = keys.iter().filter(|key| key.algorithm == algorithm);
    let of = |key: &AssertionKey| {
        (key.version, key.schedule.state(at), key.private.is_some(), key.public.is_some())
    };
    own.map(of).collect()
}

async fn a_new_store_has_a_key_of_each_algorithm_that_signs_at_once(on: Engine) {
    let bench = Bench::on(on);
    for algorithm in Algorithm::ALL {
        let keys = standing(&bench.store, algorithm, now()).await;
        assert_eq!(keys, [(1, KeyState::Active, true, false)], "{algorithm:?}");
    }
}

async fn a_rotation_writes_dates_that_lie_ahead_with_its_entry(on: Engine) {
    let bench = Bench::on(on);
    let handover = bench.store.rotate_assertion_key(rotation(now())).await.unwrap();
    assert_eq!((handover.version, bench.codes()), (2, vec!["KEY_ROTATED".to_owned()]));

    let told = async |at| standing(&bench.store, Algorithm::Es256, at).await;
    let (published, active, retired) = (KeyState::Published, KeyState::Active, KeyState::Retired);
    assert_eq!(told(now()).await, [(1, active, true, true), (2, published, true, true)]);
    let then = handover.schedule.active_at;
    assert_eq!(told(then).await, [(1, retired, true, true), (2, active, true, true)]);
    let later = handover.before[0].1.removed_at.unwrap();
    assert_eq!(told(later).await, [(1, KeyState::Removed, true, true), (2, active, true, true)]);
    // The other algorithm's key is none of its business.
    assert_eq!(standing(&bench.store, Algorithm::Rs256, later).await, [(1, active, true, false)]);
}

async fn a_second_rotation_before_the_first_is_over_is_refused_and_leaves_nothing(on: Engine) {
    let bench = Bench::on(on);
    let first = bench.store.rotate_assertion_key(rotation(now())).await.unwrap();
    let again = bench.store.rotate_assertion_key(rotation(now())).await;
    assert!(
        matches!(again, Err(AssertionRotationFault::Pending { from, .. }) if from == first.schedule.active_at)
    );
    assert_eq!(bench.codes(), ["KEY_ROTATED"]);
    assert_eq!(standing(&bench.store, Algorithm::Es256, now()).await.len(), 2);

    let then = first.schedule.active_at;
    assert_eq!(bench.store.rotate_assertion_key(rotation(then)).await.unwrap().version, 3);
}

async fn of_two_rotations_at_once_one_happens(on: Engine) {
    let bench = Bench::on(on);
    let (one, other) = tokio::join!(
        bench.store.rotate_assertion_key(rotation(now())),
        bench.store.rotate_assertion_key(rotation(now())),
    );
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    assert_eq!(bench.codes(), ["KEY_ROTATED"]);
}

async fn without_its_entry_there_is_no_rotation(on: Engine) {
    let bench = Bench::on(on);
    let untold = AssertionRotation { entry: &|_| None, ..rotation(now()) };
    let refused = bench.store.rotate_assertion_key(untold).await;
    assert!(matches!(refused, Err(AssertionRotationFault::Entry)));
    assert_eq!(standing(&bench.store, Algorithm::Es256, now()).await.len(), 1);
}

async fn a_stolen_key_is_withdrawn_and_its_private_half_gone_in_one_transaction(on: Engine) {
    let bench = Bench::on(on);
    bench.store.rotate_assertion_key(rotation(now())).await.unwrap();
    let stolen = AssertionRotation { is_compromised: true, ..rotation(now()) };
    bench.store.rotate_assertion_key(stolen).await.unwrap();
    let removed = KeyState::Removed;
    assert_eq!(
        standing(&bench.store, Algorithm::Es256, now()).await,
        [(1, removed, false, true), (2, removed, false, true), (3, KeyState::Active, true, true)]
    );
}

async fn a_private_half_is_forgotten_a_minute_after_its_last_signature(on: Engine) {
    let bench = Bench::on(on);
    let handover = bench.store.rotate_assertion_key(rotation(now())).await.unwrap();
    let then = handover.schedule.active_at;
    let privates = async |at: Timestamp| {
        bench.store.forget_assertion_keys(at).await.unwrap();
        let keys = standing(&bench.store, Algorithm::Es256, at).await;
        keys.into_iter().map(|(version, _, private, _)| (version, private)).collect::<Vec<_>>()
    };
    assert_eq!(privates(then + Duration::from_secs(59)).await, [(1, true), (2, true)]);
    assert_eq!(privates(then + Duration::from_secs(60)).await, [(1, false), (2, true)]);
    assert_eq!(bench.codes(), ["KEY_ROTATED"], "the dates stood in the entry already");
}

async fn another_process_sees_the_same_dates(on: Engine) {
    let bench = Bench::on(on);
    let other = bench.other();
    bench.store.rotate_assertion_key(rotation(now())).await.unwrap();
    assert_eq!(
        standing(&other, Algorithm::Es256, now()).await,
        standing(&bench.store, Algorithm::Es256, now()).await
    );
}

laws![
    a_new_store_has_a_key_of_each_algorithm_that_signs_at_once,
    a_private_half_is_forgotten_a_minute_after_its_last_signature,
    a_rotation_writes_dates_that_lie_ahead_with_its_entry,
    a_second_rotation_before_the_first_is_over_is_refused_and_leaves_nothing,
    a_stolen_key_is_withdrawn_and_its_private_half_gone_in_one_transaction,
    another_process_sees_the_same_dates,
    of_two_rotations_at_once_one_happens,
    without_its_entry_there_is_no_rotation,
];
