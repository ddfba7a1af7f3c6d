//! P1 to P3: claims, keys, rows.

use super::*;
use crate::{
    broker::ports::SealedRecords,
    kernel::{issuance::State, name::SecretName},
};

async fn fifty_claims_at_once_give_exactly_one_issuance(on: Engine) {
    let bench = Bench::on(on);
    let calls = (0..50).map(|_| {
        let store = Arc::clone(&bench.store);
        tokio::spawn(async move { verdict(&store, issue()).await })
    });
    let mut words = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        words.push(call.await.unwrap());
    }
    assert_eq!(words.iter().filter(|word| **word == "recorded").count(), 1);
    assert_eq!(words.iter().filter(|word| **word == "replayed").count(), 49);
    assert_eq!((bench.count("issuance"), bench.count("entry")), (1, 2));
}

async fn fifty_claims_through_two_processes_give_exactly_one_issuance(on: Engine) {
    let bench = Bench::on(on);
    let stores = [Arc::clone(&bench.store), bench.other()];
    let calls = (0..50).map(|turn| {
        let store = Arc::clone(&stores[turn % 2]);
        tokio::spawn(async move { verdict(&store, issue()).await })
    });
    let mut recorded = 0;
    for call in calls.collect::<Vec<_>>() {
        recorded += usize::from(call.await.unwrap() == "recorded");
    }
    assert_eq!((recorded, bench.count("issuance")), (1, 1));
}

async fn a_used_token_stays_used_after_a_restart(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, issue()).await, "recorded");
    let bench = bench.reopened().await;
    assert_eq!(verdict(&bench.store, issue()).await, "replayed");
}

async fn one_used_credential_refuses_all_and_uses_up_none(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, issue()).await, "recorded");
    let both = using(issue(), &["token 1, demo, other, 1", "token 1, demo, npm, 1"]);
    assert_eq!(verdict(&bench.store, both).await, "replayed");
    assert_eq!(verdict(&bench.store, using(issue(), &["token 1, demo, other, 1"])).await, "recorded");
}

async fn a_row_reads_back_as_it_was_written(on: Engine) {
    let bench = Bench::on(on);
    let step = Issue { rows: vec![NewIssuance { expires_at: Some(later(300)), ..row() }], ..issue() };
    let (id, decision) = (step.rows[0].id, step.decision);
    assert_eq!(verdict(&bench.store, step).await, "recorded");
    let read = bench.store.issuance(id).await.unwrap().unwrap();
    assert_eq!((read.id, read.decision, read.state), (id, decision, State::Issued));
    assert_eq!(
        (read.grant.as_str(), read.credential.as_str(), read.kind.as_str()),
        ("demo", "npm", "sealed")
    );
    assert_eq!((read.issued_at, read.expires_at), (now(), Some(later(300))));
    assert_eq!((read.token, read.job), (Digest::of(b"token 1"), Some(Digest::of(b"job 1"))));
    assert!(bench.store.issuance(IssuanceId::from_bytes([0; 16])).await.unwrap().is_none());
}

async fn a_keyed_call_may_be_retried_twice_and_not_a_third_time(on: Engine) {
    let bench = Bench::on(on);
    let mut words = Vec::new();
    for seconds in [0, 10, 20, 30] {
        words.push(verdict(&bench.store, keyed(b"body", seconds)).await);
    }
    assert_eq!(words, ["recorded", "recorded", "recorded", "replayed"]);
    assert_eq!(bench.count("issuance"), 3);
}

async fn a_retry_holds_after_a_restart(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, keyed(b"body", 0)).await, "recorded");
    let bench = bench.reopened().await;
    assert_eq!(verdict(&bench.store, keyed(b"body", 1)).await, "recorded");
}

async fn another_body_under_the_same_key_is_a_mismatch_and_claims_nothing(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, keyed(b"body", 0)).await, "recorded");
    let other = using(keyed(b"other", 1), &["another use"]);
    assert_eq!(verdict(&bench.store, other).await, "mismatch");
    assert_eq!((bench.count("issuance"), bench.count("once")), (1, 1));
}

async fn a_key_holds_for_sixty_seconds_from_the_first_claim(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, keyed(b"body", 0)).await, "recorded");
    assert_eq!(verdict(&bench.store, keyed(b"body", 59)).await, "recorded");
    assert_eq!(verdict(&bench.store, keyed(b"body", 60)).await, "replayed");
    // A key whose time is over says nothing of a body either, and may begin anew for another use.
    let other = using(keyed(b"other", 61), &["another use"]);
    assert_eq!(verdict(&bench.store, other).await, "recorded");
    assert_eq!(verdict(&bench.store, keyed(b"other", 62)).await, "replayed");
}

async fn a_used_token_without_the_key_or_with_a_new_one_is_a_replay(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, keyed(b"body", 0)).await, "recorded");
    assert_eq!(verdict(&bench.store, issue()).await, "replayed");
    let claim = KeyClaim { key: Digest::of(b"another key"), body: Digest::of(b"body") };
    assert_eq!(verdict(&bench.store, with_key(claim, 0)).await, "replayed");
}

async fn a_call_after_the_job_gave_back_is_a_replay(on: Engine) {
    let bench = Bench::on(on);
    let first = keyed(b"body", 0);
    let id = first.rows[0].id;
    assert_eq!(verdict(&bench.store, first).await, "recorded");
    assert_eq!(super::transit::released(&bench.store, &[id]).await, [id]);
    assert_eq!(verdict(&bench.store, keyed(b"body", 1)).await, "replayed");
}

async fn a_failed_fetch_is_recorded_and_claims_nothing(on: Engine) {
    let bench = Bench::on(on);
    let failed = Issue {
        stage: Stage::Failed,
        rows: Vec::new(),
        entries: vec![entry(EntryCode::Intent), entry(EntryCode::Failed)],
        ..keyed(b"body", 0)
    };
    assert_eq!(verdict(&bench.store, failed).await, "recorded");
    assert_eq!(bench.codes(), ["INTENT", "FAILED"]);
    assert_eq!((bench.count("once"), bench.count("idempotency")), (0, 0));
    assert_eq!(verdict(&bench.store, keyed(b"other", 1)).await, "recorded");
}

async fn the_verdict_on_claims_wins_over_a_failed_fetch_and_over_a_moved_store(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, issue()).await, "recorded");
    let failed = Issue { stage: Stage::Failed, rows: Vec::new(), sealed_generation: Some(99), ..issue() };
    assert_eq!(verdict(&bench.store, failed).await, "replayed");
    assert_eq!(bench.count("entry"), 2);
}

async fn a_fetch_from_a_sealed_store_that_changed_is_moved(on: Engine) {
    let bench = Bench::on(on);
    let name = SecretName::parse("npm-token").unwrap();
    let (generation, _) = bench.store.sealed(&name);
    let other = bench.other();
    secrets::set(&other, "npm-token", "hunter2").await;
    let step = || Issue { sealed_generation: Some(generation), ..issue() };
    assert_eq!(verdict(&bench.store, step()).await, "moved");
    assert_eq!((bench.count("once"), bench.count("issuance")), (0, 0));
    let (generation, found) = bench.store.sealed(&name);
    assert!(found.is_some());
    assert_eq!(
        verdict(&bench.store, Issue { sealed_generation: Some(generation), ..issue() }).await,
        "recorded"
    );
}

async fn a_sweep_drops_claims_only_when_their_time_is_over(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, keyed(b"body", 0)).await, "recorded");
    bench.store.sweep(later(959), &|_| None).await.unwrap();
    assert_eq!((bench.count("once"), bench.count("idempotency")), (1, 0));
    bench.store.sweep(later(960), &|_| None).await.unwrap();
    assert_eq!(bench.count("once"), 0);
}

laws![
    fifty_claims_at_once_give_exactly_one_issuance,
    fifty_claims_through_two_processes_give_exactly_one_issuance,
    a_used_token_stays_used_after_a_restart,
    one_used_credential_refuses_all_and_uses_up_none,
    a_row_reads_back_as_it_was_written,
    a_keyed_call_may_be_retried_twice_and_not_a_third_time,
    a_retry_holds_after_a_restart,
    another_body_under_the_same_key_is_a_mismatch_and_claims_nothing,
    a_key_holds_for_sixty_seconds_from_the_first_claim,
    a_used_token_without_the_key_or_with_a_new_one_is_a_replay,
    a_call_after_the_job_gave_back_is_a_replay,
    a_failed_fetch_is_recorded_and_claims_nothing,
    the_verdict_on_claims_wins_over_a_failed_fetch_and_over_a_moved_store,
    a_fetch_from_a_sealed_store_that_changed_is_moved,
    a_sweep_drops_claims_only_when_their_time_is_over,
];
