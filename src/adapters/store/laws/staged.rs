//! Exchanges in two steps: rows that are open, what their closing gives back, and revokes that are due.

use super::*;
use crate::{
    broker::ports::{Change, Ends, IssuanceRow, Quota, QuotaScope},
    kernel::issuance::{Event, State},
};

/// The first step of a call for something that can be revoked, under a key where one is named.
fn intent(key: Option<&[u8]>, seconds: u64) -> Issue {
    let mut issue = Issue { stage: Stage::Intent, now: later(seconds), ..issue() };
    issue.entries = vec![entry(EntryCode::Intent)];
    issue.claims.key = key.map(|key| KeyClaim { key: Digest::of(key), body: Digest::of(b"body") });
    for row in &mut issue.rows {
        (row.making, row.lifetime, row.kind) = (Making::Revocable, Lifetime::Leased, Kind::Vault);
        (row.revocable, row.live_until) = (true, Some(later(645)));
    }
    issue
}

async fn begun(bench: &Bench, issue: Issue) -> IssuanceId {
    let id = issue.rows[0].id;
    assert_eq!(verdict(&bench.store, issue).await, "recorded");
    id
}

fn step(id: IssuanceId, event: Event, change: Change) -> Transition {
    let code = match event {
        Event::Failed => EntryCode::Failed,
        Event::Lost => EntryCode::Unresolved,
        Event::Opened => return Transition { id, event, entry: None, change },
        Event::Overdue => EntryCode::AlertRevocation,
        Event::Recorded => EntryCode::Issued,
        Event::GivenBack => EntryCode::Released,
        Event::RevokeAsked => EntryCode::Revoking,
        Event::RevokeConfirmed => EntryCode::Revoked,
    };
    Transition { change, ..Transition::new(id, event, entry(code)) }
}

async fn moved(bench: &Bench, id: IssuanceId, event: Event, change: Change, seconds: u64) -> bool {
    let transit = Transit::each(vec![step(id, event, change)], later(seconds));
    !bench.store.transit(transit).await.unwrap().moved.is_empty()
}

async fn read(bench: &Bench, id: IssuanceId) -> IssuanceRow {
    bench.store.issuance(id).await.unwrap().unwrap()
}

fn held(bytes: &[u8]) -> Change {
    Change { held: Some(bytes.to_vec()), ..Change::default() }
}

fn unmade() -> Change {
    Change { is_unmade: true, ..Change::default() }
}

async fn an_open_row_is_recorded_with_what_the_backend_said(on: Engine) {
    let bench = Bench::on(on);
    let id = begun(&bench, intent(None, 0)).await;
    let open = read(&bench, id).await;
    assert_eq!((open.state, open.making, open.held), (State::Intent, Some(Making::Revocable), None));

    assert!(moved(&bench, id, Event::Opened, held(b"accessor"), 1).await);
    assert_eq!(read(&bench, id).await.held.as_deref(), Some(&b"accessor"[..]));

    let ends = Some(Ends { expires_at: Some(later(600)), live_until: Some(later(600)) });
    let recorded = step(id, Event::Recorded, Change { ends, ..held(b"and its lease") });
    let transit = Transit { together: true, ..Transit::each(vec![recorded], later(2)) };
    let found = bench.store.transit(transit).await.unwrap();
    assert_proves(&bench.store, &found.receipts[0]);
    let issued = read(&bench, id).await;
    assert_eq!(
        (issued.state, issued.expires_at, issued.live_until),
        (State::Issued, Some(later(600)), Some(later(600)))
    );
    assert_eq!(issued.held.as_deref(), Some(&b"and its lease"[..]));
    assert_eq!(bench.codes(), ["INTENT", "ISSUED"]);
}

async fn steps_that_belong_together_are_all_taken_or_none(on: Engine) {
    let bench = Bench::on(on);
    let mut both = using(intent(None, 0), &["one", "other"]);
    both.rows = vec![
        both.rows[0].clone(),
        NewIssuance { id: IssuanceId::new(now(), fresh()), ..both.rows[0].clone() },
    ];
    let ids = [both.rows[0].id, both.rows[1].id];
    assert_eq!(verdict(&bench.store, both).await, "recorded");
    assert!(moved(&bench, ids[1], Event::Lost, Change::default(), 50).await, "recovery was first");

    let steps = ids.map(|id| step(id, Event::Recorded, Change::default()));
    let transit = Transit { together: true, ..Transit::each(steps.into(), later(51)) };
    let found = bench.store.transit(transit).await.unwrap();

    assert!(found.moved.is_empty() && found.receipts.is_empty());
    assert_eq!(read(&bench, ids[0]).await.state, State::Intent);
    assert_eq!(bench.codes(), ["INTENT", "UNRESOLVED"]);
}

async fn a_record_of_a_sealed_store_that_changed_is_stale(on: Engine) {
    let bench = Bench::on(on);
    let id = begun(&bench, intent(None, 0)).await;
    let name = crate::kernel::name::SecretName::parse("npm-token").unwrap();
    let (generation, _) = crate::broker::ports::SealedRecords::sealed(&*bench.store, &name);
    secrets::set(&bench.other(), "npm-token", "hunter2").await;
    let recorded = vec![step(id, Event::Recorded, Change::default())];
    let transit =
        Transit { together: true, sealed_generation: Some(generation), ..Transit::each(recorded, later(1)) };
    assert!(bench.store.transit(transit).await.unwrap().is_stale);
    assert_eq!(read(&bench, id).await.state, State::Intent);
}

async fn an_accessor_is_not_stored_in_a_row_that_recovery_closed(on: Engine) {
    let bench = Bench::on(on);
    let id = begun(&bench, intent(None, 0)).await;
    assert!(moved(&bench, id, Event::Failed, unmade(), 46).await);
    assert!(!moved(&bench, id, Event::Opened, held(b"accessor"), 47).await);
    assert_eq!(read(&bench, id).await.held, None);
}

async fn a_wholly_failed_decision_gives_back_its_use_and_its_key(on: Engine) {
    let bench = Bench::on(on);
    let id = begun(&bench, intent(Some(b"key"), 0)).await;
    assert_eq!(verdict(&bench.store, intent(None, 1)).await, "replayed");
    assert!(moved(&bench, id, Event::Failed, unmade(), 2).await);
    assert_eq!((bench.count("once"), bench.count("idempotency")), (0, 0));
    begun(&bench, intent(Some(b"key"), 3)).await;
}

async fn a_decision_of_which_something_is_left_keeps_all_it_took(on: Engine) {
    let bench = Bench::on(on);
    let mut both = using(intent(Some(b"key"), 0), &["one", "other"]);
    both.rows = vec![
        both.rows[0].clone(),
        NewIssuance { id: IssuanceId::new(now(), fresh()), ..both.rows[0].clone() },
    ];
    let ids = [both.rows[0].id, both.rows[1].id];
    assert_eq!(verdict(&bench.store, both).await, "recorded");
    assert!(moved(&bench, ids[0], Event::Failed, unmade(), 1).await);
    assert_eq!(bench.count("once"), 2, "the other is still open");
    assert!(moved(&bench, ids[1], Event::Lost, Change::default(), 2).await);
    assert_eq!((bench.count("once"), bench.count("idempotency")), (2, 1));
}

async fn a_retry_while_the_first_call_runs_is_told_so_until_its_rows_are_closed(on: Engine) {
    let bench = Bench::on(on);
    let id = begun(&bench, intent(Some(b"key"), 0)).await;
    // The owner died: its key holds until recovery has come, however long after a minute that is.
    assert_eq!(verdict(&bench.store, intent(Some(b"key"), 100)).await, "in-progress");
    assert!(moved(&bench, id, Event::Failed, unmade(), 101).await);
    begun(&bench, intent(Some(b"key"), 102)).await;
}

async fn a_key_holds_for_a_minute_from_the_closing(on: Engine) {
    let bench = Bench::on(on);
    let id = begun(&bench, intent(Some(b"key"), 0)).await;
    assert!(moved(&bench, id, Event::Recorded, Change::default(), 40).await);
    assert_eq!(verdict(&bench.store, intent(Some(b"key"), 99)).await, "replace-first");
    assert_eq!(verdict(&bench.store, intent(Some(b"key"), 100)).await, "replayed");
}

async fn a_retry_goes_on_only_when_what_the_call_got_is_revoked_for_it(on: Engine) {
    let bench = Bench::on(on);
    let id = begun(&bench, intent(Some(b"key"), 0)).await;
    assert!(moved(&bench, id, Event::Recorded, Change::default(), 1).await);
    assert_eq!(verdict(&bench.store, intent(Some(b"key"), 2)).await, "replace-first");
    let replaced = Change { keeps_chain: true, ..Change::default() };
    assert!(moved(&bench, id, Event::RevokeAsked, replaced, 3).await);
    assert_eq!(verdict(&bench.store, intent(Some(b"key"), 4)).await, "replace-first", "not confirmed yet");
    assert!(moved(&bench, id, Event::RevokeConfirmed, Change::default(), 5).await);
    let again = begun(&bench, intent(Some(b"key"), 6)).await;

    // A retry that failed does not count among the two, and leaves what the first call took.
    for seconds in [7, 10, 13] {
        let open = if seconds == 7 { again } else { begun(&bench, intent(Some(b"key"), seconds)).await };
        assert!(moved(&bench, open, Event::Failed, unmade(), seconds + 1).await);
        assert_eq!(verdict(&bench.store, intent(None, seconds + 2)).await, "replayed");
    }
}

async fn a_retry_after_a_revoke_that_somebody_asked_for_is_a_replay(on: Engine) {
    let bench = Bench::on(on);
    let id = begun(&bench, intent(Some(b"key"), 0)).await;
    assert!(moved(&bench, id, Event::Recorded, Change::default(), 1).await);
    assert!(moved(&bench, id, Event::RevokeAsked, Change::default(), 2).await);
    assert_eq!(verdict(&bench.store, intent(Some(b"key"), 3)).await, "replayed");
}

async fn a_failure_without_a_mint_gives_back_its_count(on: Engine) {
    let bench = Bench::on(on);
    let quota = |seconds| {
        let issuer = IssuerName::parse("github").unwrap();
        let mut issue = intent(None, seconds);
        issue.claims.once = vec![vec![Digest(fresh())]];
        issue.claims.quotas = vec![Quota {
            grant: GrantName::parse("demo").unwrap(),
            over: QuotaScope::Project { issuer, project: "701".to_owned() },
            issuances_per_hour: Some(1),
            live: None,
            asked: 1,
            asked_live: 1,
        }];
        issue
    };
    let id = begun(&bench, quota(0)).await;
    assert_eq!(verdict(&bench.store, quota(1)).await, "exceeded");
    assert!(moved(&bench, id, Event::Failed, unmade(), 2).await);
    let id = begun(&bench, quota(3)).await;
    assert!(moved(&bench, id, Event::Failed, Change::default(), 4).await, "made, and undone");
    assert_eq!(verdict(&bench.store, quota(5)).await, "exceeded");
}

async fn open_rows_are_shown_when_their_owner_should_have_closed_them(on: Engine) {
    let bench = Bench::on(on);
    let id = begun(&bench, intent(None, 0)).await;
    assert!(bench.store.abandoned(later(44), 10).await.unwrap().is_empty());
    let found = bench.store.abandoned(later(45), 10).await.unwrap();
    assert_eq!(found.iter().map(|row| row.id).collect::<Vec<_>>(), [id]);
    assert!(moved(&bench, id, Event::Lost, Change::default(), 46).await);
    assert!(bench.store.abandoned(later(47), 10).await.unwrap().is_empty());
}

async fn a_revoke_that_is_due_goes_to_one_and_later_to_anybody(on: Engine) {
    let bench = Bench::on(on);
    let other = bench.other();
    let id = begun(&bench, intent(None, 0)).await;
    assert!(moved(&bench, id, Event::Recorded, held(b"accessor"), 1).await);
    let later_on = Change { retry_at: Some(later(20)), ..Change::default() };
    assert!(moved(&bench, id, Event::RevokeAsked, later_on, 2).await);
    assert!(bench.store.due(later(19), 10).await.unwrap().is_empty(), "whoever asked tries first");

    let (one, two) = tokio::join!(bench.store.due(later(20), 10), other.due(later(20), 10));
    assert_eq!(one.unwrap().len() + two.unwrap().len(), 1);
    assert!(bench.store.due(later(29), 10).await.unwrap().is_empty());
    let again = other.due(later(30), 10).await.unwrap();
    assert_eq!((again[0].id, again[0].tries), (id, 1));

    assert!(moved(&bench, id, Event::Overdue, Change::default(), 31).await);
    assert!(!moved(&bench, id, Event::Overdue, Change::default(), 32).await, "it is told once");
    assert!(moved(&bench, id, Event::RevokeConfirmed, Change::default(), 33).await);
    assert_eq!(read(&bench, id).await.held, None);
    assert!(bench.store.due(later(999), 10).await.unwrap().is_empty());
}

laws![
    an_open_row_is_recorded_with_what_the_backend_said,
    steps_that_belong_together_are_all_taken_or_none,
    a_record_of_a_sealed_store_that_changed_is_stale,
    an_accessor_is_not_stored_in_a_row_that_recovery_closed,
    a_wholly_failed_decision_gives_back_its_use_and_its_key,
    a_decision_of_which_something_is_left_keeps_all_it_took,
    a_retry_while_the_first_call_runs_is_told_so_until_its_rows_are_closed,
    a_key_holds_for_a_minute_from_the_closing,
    a_retry_goes_on_only_when_what_the_call_got_is_revoked_for_it,
    a_retry_after_a_revoke_that_somebody_asked_for_is_a_replay,
    a_failure_without_a_mint_gives_back_its_count,
    open_rows_are_shown_when_their_owner_should_have_closed_them,
    a_revoke_that_is_due_goes_to_one_and_later_to_anybody,
];
