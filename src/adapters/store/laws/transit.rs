//! Issuances on their way: each step once, with its entry, and never against the kernel's word.

use super::*;
use crate::kernel::issuance::{Event, State};

/// Releases, and answers what moved.
pub(super) async fn released(store: &Database, ids: &[IssuanceId]) -> Vec<IssuanceId> {
    store.transit(Transit::each(steps(ids, Event::GivenBack), now())).await.unwrap().moved
}

fn steps(ids: &[IssuanceId], event: Event) -> Vec<Transition> {
    let code = if event == Event::GivenBack { EntryCode::Released } else { EntryCode::Revoking };
    ids.iter().map(|id| Transition::new(*id, event, entry(code))).collect()
}

async fn state(bench: &Bench, id: IssuanceId) -> State {
    bench.store.issuance(id).await.unwrap().unwrap().state
}

/// Issues one row, changed as asked; each is of a token of its own.
async fn issued(bench: &Bench, name: &str, change: impl FnOnce(NewIssuance) -> NewIssuance) -> IssuanceId {
    let mut step = using(issue(), &[name]);
    step.rows = vec![change(row())];
    let id = step.rows[0].id;
    assert_eq!(verdict(&bench.store, step).await, "recorded");
    id
}

fn holder(digest: Digest, seconds: u64) -> Holder {
    Holder { issuer: IssuerName::parse("github").unwrap(), holder: digest, now: later(seconds) }
}

async fn usable(bench: &Bench, change: impl FnOnce(&mut Wanted)) -> Vec<IssuanceId> {
    let mut wanted = Wanted::default();
    change(&mut wanted);
    let Wanted { grant, project, since } = wanted;
    let selection = Selection::Usable { grant, project, since, now: later(10) };
    let rows = bench.store.issuances(selection, None, 100).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

#[derive(Default)]
struct Wanted {
    grant: Option<GrantName>,
    project: Option<(IssuerName, String)>,
    since: Option<Timestamp>,
}

async fn giving_back_moves_once_and_writes_one_entry(on: Engine) {
    let bench = Bench::on(on);
    let id = issued(&bench, "a", |row| row).await;
    let unknown = IssuanceId::from_bytes([0; 16]);
    assert_eq!(released(&bench.store, &[unknown, id]).await, [id]);
    assert_eq!(released(&bench.store, &[id]).await, []);
    assert_eq!(bench.codes(), ["INTENT", "ISSUED", "RELEASED"]);
    assert_eq!(state(&bench, id).await, State::Released);
}

async fn what_a_backend_can_revoke_is_queued_and_then_revoked(on: Engine) {
    let bench = Bench::on(on);
    let id = issued(&bench, "a", |row| NewIssuance { revocable: true, ..row }).await;
    for (event, moves, then) in [
        (Event::RevokeConfirmed, false, State::Issued),
        (Event::RevokeAsked, true, State::Revoking),
        (Event::RevokeAsked, false, State::Revoking),
        (Event::GivenBack, false, State::Revoking),
        (Event::RevokeConfirmed, true, State::Revoked),
        (Event::GivenBack, false, State::Revoked),
    ] {
        let found = bench.store.transit(Transit::each(steps(&[id], event), now())).await.unwrap();
        assert_eq!(!found.moved.is_empty(), moves, "{event:?}");
        assert_eq!(state(&bench, id).await, then, "{event:?}");
    }
    assert_eq!(bench.count("entry"), 4, "one a change, none where nothing changed");
}

async fn two_processes_end_an_issuance_once(on: Engine) {
    let bench = Bench::on(on);
    let other = bench.other();
    let id = issued(&bench, "a", |row| row).await;
    let ids = [id];
    let (one, two) = tokio::join!(released(&bench.store, &ids), released(&other, &ids));
    assert_eq!([one, two].concat(), [id]);
    assert_eq!(bench.codes(), ["INTENT", "ISSUED", "RELEASED"]);
}

async fn a_holder_has_left_what_is_issued_and_has_not_ended(on: Engine) {
    let bench = Bench::on(on);
    let mine = Digest::of(b"job 1");
    let one = issued(&bench, "a", |row| row).await;
    issued(&bench, "b", |row| NewIssuance { expires_at: Some(later(60)), ..row }).await;
    issued(&bench, "c", |row| NewIssuance { job: Some(Digest::of(b"job 2")), ..row }).await;
    let left = async |ids: &[IssuanceId], seconds| {
        let found = bench
            .store
            .transit(Transit {
                holder: Some(holder(mine, seconds)),
                ..Transit::each(steps(ids, Event::GivenBack), now())
            })
            .await;
        found.unwrap().has_left
    };
    assert!(left(&[], 10).await);
    assert!(left(&[one], 59).await, "the one that ends at 60");
    assert!(!left(&[], 60).await);
}

async fn a_token_without_a_job_key_holds_its_own_issuances_only(on: Engine) {
    let bench = Bench::on(on);
    let (mine, other) = (Digest::of(b"token 1"), Digest::of(b"token 2"));
    let own = issued(&bench, "a", |row| NewIssuance { job: None, ..row }).await;
    issued(&bench, "b", |row| NewIssuance { job: None, token: other, ..row }).await;
    // The same token id at another issuer is another token.
    issued(&bench, "c", |row| NewIssuance { job: None, issuer: IssuerName::parse("gitlab").unwrap(), ..row })
        .await;
    let rows = bench.store.issuances(Selection::Of(holder(mine, 1)), None, 100).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [own]);
}

async fn a_selection_is_what_is_usable_and_meets_all_that_is_given(on: Engine) {
    let bench = Bench::on(on);
    let name = |text: &str| GrantName::parse(text).unwrap();
    let github = IssuerName::parse("github").unwrap();
    let plain = issued(&bench, "a", |row| row).await;
    let elsewhere = issued(&bench, "b", |row| NewIssuance { project: Some("9".to_owned()), ..row }).await;
    let granted = issued(&bench, "c", |row| NewIssuance { grant: name("other"), ..row }).await;
    let late = issued(&bench, "d", |row| NewIssuance { issued_at: later(5), ..row }).await;
    issued(&bench, "e", |row| NewIssuance { expires_at: Some(later(10)), ..row }).await;
    let ended = issued(&bench, "f", |row| row).await;
    released(&bench.store, &[ended]).await;

    let sorted = |mut ids: Vec<IssuanceId>| {
        ids.sort_unstable_by_key(|id| id.bytes());
        ids
    };
    let all = vec![plain, elsewhere, granted, late];
    assert_eq!(usable(&bench, |_| {}).await, sorted(all));
    assert_eq!(usable(&bench, |wanted| wanted.grant = Some(name("other"))).await, [granted]);
    let project = Some((github.clone(), "9".to_owned()));
    assert_eq!(usable(&bench, |wanted| wanted.project = project).await, [elsewhere]);
    assert_eq!(usable(&bench, |wanted| wanted.since = Some(later(5))).await, [late]);
    let none = usable(&bench, |wanted| {
        wanted.grant = Some(name("other"));
        wanted.since = Some(later(5));
    });
    assert_eq!(none.await, []);
}

async fn pages_of_a_selection_meet_each_row_once(on: Engine) {
    let bench = Bench::on(on);
    for use_name in ["a", "b", "c", "d", "e"] {
        issued(&bench, use_name, |row| row).await;
    }
    let selection = Selection::Of(holder(Digest::of(b"job 1"), 1));
    let (mut met, mut past) = (Vec::new(), None);
    loop {
        let page = bench.store.issuances(selection.clone(), past, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        past = Some(last.id);
        met.extend(page.iter().map(|row| row.id));
    }
    assert_eq!(met.len(), 5);
    assert!(met.is_sorted_by_key(|id| id.bytes()));
}

laws![
    giving_back_moves_once_and_writes_one_entry,
    what_a_backend_can_revoke_is_queued_and_then_revoked,
    two_processes_end_an_issuance_once,
    a_holder_has_left_what_is_issued_and_has_not_ended,
    a_token_without_a_job_key_holds_its_own_issuances_only,
    a_selection_is_what_is_usable_and_meets_all_that_is_given,
    pages_of_a_selection_meet_each_row_once,
];
