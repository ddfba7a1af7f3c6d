//! Uses of a token, and the limits of grants: the last place goes to one call, and a refused call takes nothing.

use super::*;
use crate::{
    broker::ports::{Exceeded, Limit, Quota, QuotaScope},
    kernel::issuance::State,
};

/// A limit by the hour, over the grant `demo`.
fn hourly(allowed: u32) -> Quota {
    Quota {
        grant: GrantName::parse("demo").unwrap(),
        over: QuotaScope::Grant,
        issuances_per_hour: Some(allowed),
        live: None,
        asked: 1,
        asked_live: 0,
    }
}

/// A limit of what is usable at one time.
fn living(allowed: u32) -> Quota {
    Quota { issuances_per_hour: None, live: Some(allowed), asked_live: 1, ..hourly(0) }
}

fn of_project(quota: Quota, project: &str) -> Quota {
    let issuer = IssuerName::parse("github").unwrap();
    Quota { over: QuotaScope::Project { issuer, project: project.to_owned() }, ..quota }
}

/// A call with a token of its own, so many seconds after the first.
fn call(quotas: &[Quota], seconds: u64) -> Issue {
    let token = Digest(fresh());
    let mut issue = Issue { now: later(seconds), ..issue() };
    issue.claims.once = vec![vec![token]];
    issue.claims.quotas = quotas.to_vec();
    issue
}

/// The same for a credential that ends so many seconds after the first call.
fn lasting(quotas: &[Quota], seconds: u64, until: u64) -> Issue {
    let mut issue = call(quotas, seconds);
    for row in &mut issue.rows {
        (row.lifetime, row.kind) = (Lifetime::Fixed, Kind::Oidc);
        (row.expires_at, row.live_until) = (Some(later(until)), Some(later(until)));
    }
    issue
}

async fn exceeded(store: &Database, issue: Issue) -> Exceeded {
    match store.issue(issue).await.unwrap() {
        IssueVerdict::Refused(ClaimRefused::Exceeded(exceeded)) => exceeded,
        other @ (IssueVerdict::Moved | IssueVerdict::Recorded(_) | IssueVerdict::Refused(_)) => {
            panic!("it was {}", word(&other))
        }
    }
}

// ------------------------------------------------------------------------------------------------- uses of a token

/// A call on the one token, which is good for so many uses.
fn using_up(uses: u8) -> Issue {
    let mut issue = issue();
    issue.claims.once = vec![(1..=uses).map(|number| Digest([number; 32])).collect()];
    issue
}

fn keyed_use(uses: u8, seconds: u64) -> Issue {
    let mut issue = Issue { now: later(seconds), ..using_up(uses) };
    issue.claims.key = Some(KeyClaim { key: Digest::of(b"key"), body: Digest::of(b"body") });
    issue
}

fn uses_taken(bench: &Bench) -> Vec<u8> {
    let first = |key: String| u8::from_str_radix(&key, 16).unwrap();
    let rows = bench.rows(
        "SELECT substr(hex(key), 1, 2) FROM once ORDER BY key",
        "SELECT substr(encode(key, 'hex'), 1, 2) FROM once ORDER BY key",
    );
    rows.into_iter().map(first).collect()
}

async fn a_call_takes_the_lowest_free_use_until_none_is_left(on: Engine) {
    let bench = Bench::on(on);
    for taken in [vec![1], vec![1, 2], vec![1, 2, 3]] {
        assert_eq!(verdict(&bench.store, using_up(3)).await, "recorded");
        assert_eq!(uses_taken(&bench), taken);
    }
    assert_eq!(verdict(&bench.store, using_up(3)).await, "replayed");
    // An admin who allows more gives the same token more; one who allows less takes nothing back.
    assert_eq!(verdict(&bench.store, using_up(4)).await, "recorded");
    assert_eq!(verdict(&bench.store, using_up(2)).await, "replayed");
}

async fn fifty_calls_through_two_processes_share_eight_uses_and_none_is_refused_falsely(on: Engine) {
    let bench = Bench::on(on);
    let stores = [Arc::clone(&bench.store), bench.other()];
    let calls = (0..50).map(|turn| {
        let store = Arc::clone(&stores[turn % 2]);
        tokio::spawn(async move { verdict(&store, using_up(8)).await })
    });
    let mut recorded = 0;
    for call in calls.collect::<Vec<_>>() {
        recorded += usize::from(call.await.unwrap() == "recorded");
    }
    assert_eq!((recorded, bench.count("issuance"), bench.count("once")), (8, 8, 8));
}

async fn a_duplicate_aborts_no_neighbour(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, issue()).await, "recorded");
    let calls = (0..40).map(|turn| {
        let store = Arc::clone(&bench.store);
        let step = if turn % 2 == 0 { issue() } else { call(&[], 0) };
        tokio::spawn(async move { verdict(&store, step).await })
    });
    let mut words = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        words.push(call.await.unwrap());
    }
    assert_eq!(words, ["replayed", "recorded"].repeat(20));
}

async fn each_credential_has_its_own_uses_and_one_without_refuses_all(on: Engine) {
    let bench = Bench::on(on);
    let of = |first: u8| (first..first + 2).map(|number| Digest([number; 32])).collect::<Vec<_>>();
    let both = || {
        let mut both = issue();
        both.claims.once = vec![of(10), of(20)];
        both
    };
    let mut one = issue();
    one.claims.once = vec![of(10)];
    assert_eq!(verdict(&bench.store, one).await, "recorded");
    assert_eq!(verdict(&bench.store, both()).await, "recorded");
    assert_eq!(uses_taken(&bench), [10, 11, 20]);
    assert_eq!(verdict(&bench.store, both()).await, "replayed");
    assert_eq!(uses_taken(&bench), [10, 11, 20]);
}

async fn a_retry_under_its_key_keeps_its_use(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, using_up(3)).await, "recorded");
    assert_eq!(verdict(&bench.store, keyed_use(3, 0)).await, "recorded");
    assert_eq!(verdict(&bench.store, keyed_use(3, 1)).await, "recorded");
    assert_eq!(uses_taken(&bench), [1, 2]);
    assert_eq!(verdict(&bench.store, using_up(3)).await, "recorded");
    // Every use is taken, one of them by the call that is retried.
    assert_eq!(verdict(&bench.store, keyed_use(3, 2)).await, "recorded");
    assert_eq!(verdict(&bench.store, using_up(3)).await, "replayed");
    assert_eq!((bench.count("once"), bench.count("issuance")), (3, 5));
}

// --------------------------------------------------------------------------------------------------- by the hour

async fn a_limit_by_the_hour_counts_minutes_that_roll_out_one_by_one(on: Engine) {
    let bench = Bench::on(on);
    for seconds in [0, 59, 60] {
        assert_eq!(verdict(&bench.store, call(&[hourly(3)], seconds)).await, "recorded");
    }
    let refused = exceeded(&bench.store, call(&[hourly(3)], 3_599)).await;
    assert_eq!(
        refused,
        Exceeded {
            grant: GrantName::parse("demo").unwrap(),
            limit: Limit::IssuancesPerHour,
            allowed: 3,
            used: 3,
            asked: 1,
            room_at: Some(later(3_600)),
        }
    );
    // The first minute held two.
    for expected in ["recorded", "recorded", "exceeded"] {
        assert_eq!(verdict(&bench.store, call(&[hourly(3)], 3_600)).await, expected);
    }
}

async fn room_is_promised_for_all_that_is_asked_and_comes_then(on: Engine) {
    let bench = Bench::on(on);
    for seconds in [0, 60, 120] {
        assert_eq!(verdict(&bench.store, call(&[hourly(4)], seconds)).await, "recorded");
    }
    let three = || call(&[Quota { asked: 3, ..hourly(4) }], 180);
    assert_eq!(exceeded(&bench.store, three()).await.room_at, Some(later(3_660)));
    let at = |seconds| Issue { now: later(seconds), ..three() };
    assert_eq!(verdict(&bench.store, at(3_659)).await, "exceeded");
    assert_eq!(verdict(&bench.store, at(3_660)).await, "recorded");
}

async fn what_is_more_than_the_limit_by_itself_never_has_room(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, call(&[hourly(2)], 0)).await, "recorded");
    let three = call(&[Quota { asked: 3, ..hourly(2) }], 1);
    assert_eq!(exceeded(&bench.store, three).await.room_at, None);
    let three = lasting(&[Quota { asked_live: 3, ..living(2) }], 1, 300);
    assert_eq!(exceeded(&bench.store, three).await.room_at, None);
}

async fn the_last_place_goes_to_one_call_of_fifty_through_two_processes(on: Engine) {
    let bench = Bench::on(on);
    let stores = [Arc::clone(&bench.store), bench.other()];
    let calls = (0..50).map(|turn| {
        let store = Arc::clone(&stores[turn % 2]);
        tokio::spawn(async move { verdict(&store, lasting(&[hourly(9), living(7)], 0, 300)).await })
    });
    let mut words = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        words.push(call.await.unwrap());
    }
    assert_eq!(words.iter().filter(|word| **word == "recorded").count(), 7);
    assert_eq!(words.iter().filter(|word| **word == "exceeded").count(), 43);
    assert_eq!((bench.count("issuance"), bench.count("once")), (7, 7));
}

async fn a_refused_call_takes_nothing_and_all_grants_of_a_call_are_refused_together(on: Engine) {
    let bench = Bench::on(on);
    let other = || Quota { grant: GrantName::parse("other").unwrap(), ..hourly(1) };
    assert_eq!(verdict(&bench.store, call(&[hourly(1)], 0)).await, "recorded");
    let rows = || (bench.count("once"), bench.count("issuance"), bench.count("entry"));
    let before = rows();
    let mut both = call(&[other(), hourly(1)], 1);
    both.claims.key = Some(KeyClaim { key: Digest::of(b"key"), body: Digest::of(b"body") });
    assert_eq!(exceeded(&bench.store, both).await.grant.as_str(), "demo");
    assert_eq!(rows(), before);
    assert_eq!(bench.count("idempotency"), 0);
    // The other grant's one place is still free.
    assert_eq!(verdict(&bench.store, call(&[other()], 2)).await, "recorded");
}

async fn projects_are_counted_apart_and_a_grant_over_all_of_them(on: Engine) {
    let bench = Bench::on(on);
    for (quota, expected) in [
        (of_project(hourly(1), "701"), "recorded"),
        (of_project(hourly(1), "701"), "exceeded"),
        (of_project(hourly(1), "702"), "recorded"),
        (hourly(1), "recorded"),
        (hourly(1), "exceeded"),
    ] {
        assert_eq!(verdict(&bench.store, call(&[quota], 0)).await, expected);
    }
    let elsewhere = Quota {
        over: QuotaScope::Project { issuer: IssuerName::parse("gitlab").unwrap(), project: "701".to_owned() },
        ..hourly(1)
    };
    assert_eq!(verdict(&bench.store, call(&[elsewhere], 0)).await, "recorded");
}

async fn a_retry_under_its_key_is_no_new_intent_and_a_replay_is_told_before_a_limit(on: Engine) {
    let bench = Bench::on(on);
    let keyed = |seconds| {
        let mut issue = keyed(b"body", seconds);
        issue.claims.quotas = vec![hourly(1)];
        issue
    };
    for seconds in [0, 1, 2] {
        assert_eq!(verdict(&bench.store, keyed(seconds)).await, "recorded");
    }
    assert_eq!(verdict(&bench.store, keyed(3)).await, "replayed");
    let mut replay = issue();
    replay.claims.quotas = vec![hourly(1)];
    assert_eq!(verdict(&bench.store, replay).await, "replayed");
    assert_eq!(verdict(&bench.store, call(&[hourly(1)], 4)).await, "exceeded");
    assert_eq!(verdict(&bench.store, call(&[hourly(2)], 4)).await, "recorded");
}

async fn a_failed_fetch_counts_nothing_and_a_reached_limit_wins_over_it(on: Engine) {
    let bench = Bench::on(on);
    let failed = |quotas: &[Quota]| Issue {
        stage: Stage::Failed,
        rows: Vec::new(),
        entries: vec![entry(EntryCode::Intent), entry(EntryCode::Failed)],
        ..call(quotas, 0)
    };
    for _ in 0..3 {
        assert_eq!(verdict(&bench.store, failed(&[hourly(1), living(1)])).await, "recorded");
    }
    assert_eq!(bench.count("intent_count"), 0);
    assert_eq!(verdict(&bench.store, call(&[hourly(1)], 0)).await, "recorded");
    assert_eq!(verdict(&bench.store, failed(&[hourly(1)])).await, "exceeded");
}

async fn counts_hold_after_a_restart_and_are_dropped_when_no_hour_reaches_them(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, call(&[hourly(1)], 0)).await, "recorded");
    let bench = bench.reopened().await;
    assert_eq!(verdict(&bench.store, call(&[hourly(1)], 1)).await, "exceeded");
    bench.store.sweep(later(3_599), &|_| None).await.unwrap();
    assert_eq!(bench.count("intent_count"), 1);
    bench.store.sweep(later(3_600), &|_| None).await.unwrap();
    assert_eq!(bench.count("intent_count"), 0);
}

async fn a_grant_without_limits_writes_no_count(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, call(&[], 0)).await, "recorded");
    assert_eq!(verdict(&bench.store, call(&[living(9)], 0)).await, "recorded");
    assert_eq!(bench.count("intent_count"), 0);
}

// --------------------------------------------------------------------------------------------------------- living

async fn living_ones_count_until_they_end(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, lasting(&[living(2)], 0, 300)).await, "recorded");
    assert_eq!(verdict(&bench.store, lasting(&[living(2)], 10, 100)).await, "recorded");
    let refused = exceeded(&bench.store, lasting(&[living(2)], 20, 320)).await;
    assert_eq!((refused.limit, refused.used, refused.asked), (Limit::Live, 2, 1));
    assert_eq!(refused.room_at, Some(later(100)));
    let two = lasting(&[Quota { asked_live: 2, ..living(2) }], 20, 320);
    assert_eq!(exceeded(&bench.store, two).await.room_at, Some(later(300)));
    assert_eq!(verdict(&bench.store, lasting(&[living(2)], 99, 400)).await, "exceeded");
    assert_eq!(verdict(&bench.store, lasting(&[living(2)], 100, 400)).await, "recorded");
}

async fn what_lives_counts_also_where_the_limit_is_younger(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, lasting(&[], 0, 300)).await, "recorded");
    assert_eq!(verdict(&bench.store, lasting(&[living(1)], 1, 301)).await, "exceeded");
    assert_eq!(verdict(&bench.store, lasting(&[of_project(living(1), "702")], 1, 301)).await, "recorded");
    assert_eq!(verdict(&bench.store, lasting(&[of_project(living(1), "701")], 1, 301)).await, "exceeded");
}

async fn static_ones_neither_count_nor_are_refused_by_what_lives(on: Engine) {
    let bench = Bench::on(on);
    let of_static = || call(&[Quota { asked_live: 0, ..living(1) }], 1);
    for _ in 0..3 {
        assert_eq!(verdict(&bench.store, of_static()).await, "recorded");
    }
    assert_eq!(verdict(&bench.store, lasting(&[living(1)], 1, 300)).await, "recorded");
    assert_eq!(verdict(&bench.store, of_static()).await, "recorded");
}

async fn a_revoked_or_failed_one_counts_no_more_and_one_given_back_counts_to_its_end(on: Engine) {
    for (state, expected) in [
        (State::Failed, "recorded"),
        (State::Intent, "exceeded"),
        (State::Issued, "exceeded"),
        (State::Released, "exceeded"),
        (State::Revoked, "recorded"),
        (State::Revoking, "exceeded"),
        (State::Unresolved, "exceeded"),
    ] {
        let bench = Bench::on(on);
        assert_eq!(verdict(&bench.store, lasting(&[living(1)], 0, 300)).await, "recorded");
        let update = format!("UPDATE issuance SET state = '{state}'");
        bench.execute(&update, &update);
        assert_eq!(verdict(&bench.store, lasting(&[living(1)], 1, 301)).await, expected, "{state}");
    }
}

async fn a_retry_under_its_key_lives_beside_the_first(on: Engine) {
    let bench = Bench::on(on);
    let keyed = |seconds, allowed| {
        let mut issue = lasting(&[living(allowed)], seconds, 300);
        issue.claims.once = vec![vec![Digest::of(b"one use")]];
        issue.claims.key = Some(KeyClaim { key: Digest::of(b"key"), body: Digest::of(b"body") });
        issue
    };
    assert_eq!(verdict(&bench.store, keyed(0, 1)).await, "recorded");
    // Nobody can revoke the first, so both would be usable.
    assert_eq!(verdict(&bench.store, keyed(1, 1)).await, "exceeded");
    assert_eq!(verdict(&bench.store, keyed(2, 2)).await, "recorded");
}

// ------------------------------------------------------------------------------------------------------- foreseeing

async fn looking_before_claims_nothing_and_finds_what_the_transaction_would(on: Engine) {
    let bench = Bench::on(on);
    let step = || {
        let mut issue = keyed(b"body", 0);
        issue.claims.quotas = vec![hourly(1)];
        issue
    };
    for _ in 0..3 {
        assert_eq!(bench.store.foresee(step().claims, now()).await.unwrap(), Ok(()));
    }
    assert_eq!(verdict(&bench.store, step()).await, "recorded");
    assert_eq!(bench.store.foresee(step().claims, now()).await.unwrap(), Ok(()), "a retry");
    let mut other = step().claims;
    other.key = Some(KeyClaim { key: Digest::of(b"key"), body: Digest::of(b"other") });
    for (claims, expected) in
        [(issue().claims, "replayed"), (other, "mismatch"), (call(&[hourly(1)], 0).claims, "exceeded")]
    {
        let found = bench.store.foresee(claims, now()).await.unwrap().unwrap_err();
        assert_eq!(refused_word(&found), expected);
    }
    assert_eq!((bench.count("issuance"), bench.count("once")), (1, 1));
}

laws![
    a_call_takes_the_lowest_free_use_until_none_is_left,
    fifty_calls_through_two_processes_share_eight_uses_and_none_is_refused_falsely,
    a_duplicate_aborts_no_neighbour,
    each_credential_has_its_own_uses_and_one_without_refuses_all,
    a_retry_under_its_key_keeps_its_use,
    a_limit_by_the_hour_counts_minutes_that_roll_out_one_by_one,
    room_is_promised_for_all_that_is_asked_and_comes_then,
    what_is_more_than_the_limit_by_itself_never_has_room,
    the_last_place_goes_to_one_call_of_fifty_through_two_processes,
    a_refused_call_takes_nothing_and_all_grants_of_a_call_are_refused_together,
    projects_are_counted_apart_and_a_grant_over_all_of_them,
    a_retry_under_its_key_is_no_new_intent_and_a_replay_is_told_before_a_limit,
    a_failed_fetch_counts_nothing_and_a_reached_limit_wins_over_it,
    counts_hold_after_a_restart_and_are_dropped_when_no_hour_reaches_them,
    a_grant_without_limits_writes_no_count,
    living_ones_count_until_they_end,
    what_lives_counts_also_where_the_limit_is_younger,
    static_ones_neither_count_nor_are_refused_by_what_lives,
    a_revoked_or_failed_one_counts_no_more_and_one_given_back_counts_to_its_end,
    a_retry_under_its_key_lives_beside_the_first,
    looking_before_claims_nothing_and_finds_what_the_transaction_would,
];
