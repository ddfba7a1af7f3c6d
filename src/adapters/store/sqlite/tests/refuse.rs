//! Refusals: rates, summaries, spent tokens.

use std::sync::Mutex;

use super::*;
use crate::broker::ports::Counted;

fn refusal(counted: Counted) -> Refusal {
    Refusal {
        entry: entry(EntryCode::Denied),
        counted,
        always: false,
        against: None,
        sample: "no-rule".to_owned(),
        now: now(),
    }
}

fn project(id: &str) -> Counted {
    Counted::Project { issuer: github(), project: id.to_owned() }
}

fn github() -> IssuerName {
    IssuerName::parse("github").unwrap()
}

/// Sweeps, and answers (who, how many, samples) of each summary.
async fn swept(store: &Sqlite) -> Vec<(Counted, u64, Vec<String>)> {
    let seen = Mutex::new(Vec::new());
    let seal = |summary: Summary| {
        seen.lock().unwrap().push((summary.counted, summary.count, summary.samples));
        Some(entry(EntryCode::Summary))
    };
    store.sweep(later(60), &seal).await.unwrap();
    seen.into_inner().unwrap()
}

#[tokio::test]
async fn a_project_has_thirty_entries_a_minute_and_then_a_count() {
    let bench = Bench::new();
    for _ in 0..35 {
        bench.store.refuse(refusal(project("701"))).await.unwrap();
    }
    bench.store.refuse(refusal(project("702"))).await.unwrap();
    assert_eq!(bench.count("entry"), 31);
    assert_eq!(swept(&bench.store).await, [(project("701"), 5, vec!["no-rule".to_owned()])]);
    assert_eq!(bench.codes().last().unwrap(), "SUMMARY");
    assert_eq!(bench.count("summary"), 0);
    bench.store.refuse(Refusal { now: later(60), ..refusal(project("701")) }).await.unwrap();
    assert_eq!(bench.codes().last().unwrap(), "DENIED");
}

#[tokio::test]
async fn strangers_and_unverified_tokens_are_always_counted() {
    let bench = Bench::new();
    let strangers = Counted::Strangers { issuer: github() };
    let nobody = Counted::Unverified { issuer: None };
    for turn in 0..7 {
        let sample = format!("reason {}", turn % 6);
        bench.store.refuse(Refusal { sample, ..refusal(strangers.clone()) }).await.unwrap();
    }
    bench.store.refuse(refusal(nobody.clone())).await.unwrap();
    assert_eq!(bench.count("entry"), 0);
    let samples: Vec<String> = (0..5).map(|turn| format!("reason {turn}")).collect();
    let expected = [(strangers, 7, samples), (nobody, 1, vec!["no-rule".to_owned()])];
    assert_eq!(swept(&bench.store).await, expected);
}

#[tokio::test]
async fn a_replay_is_an_entry_whatever_the_rate() {
    let bench = Bench::new();
    let stranger = Counted::Strangers { issuer: github() };
    bench.store.refuse(Refusal { always: true, ..refusal(stranger) }).await.unwrap();
    assert_eq!(bench.codes(), ["DENIED"]);
}

#[tokio::test]
async fn a_thousand_projects_have_rows_and_the_others_share_one() {
    let bench = Bench::new();
    let conn = bench.raw();
    conn.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO summary SELECT 0, 'project', 'github', 'p' || i, 1, 0, 0, '[]' FROM n",
    )
    .unwrap();
    for project_id in ["p7", "new-1", "new-2"] {
        for _ in 0..31 {
            bench.store.refuse(refusal(project(project_id))).await.unwrap();
        }
    }
    let counts: Vec<(String, i64)> = conn
        .prepare("SELECT project, count FROM summary WHERE project IN ('p7', '*', 'new-1') ORDER BY project")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(counts, [("*".to_owned(), 2), ("p7".to_owned(), 2)]);
}

#[tokio::test]
async fn a_summary_whose_entry_cannot_be_made_stays_for_the_next_sweep() {
    let bench = Bench::new();
    let stranger = Counted::Strangers { issuer: github() };
    bench.store.refuse(refusal(stranger.clone())).await.unwrap();
    bench.store.sweep(later(60), &|_| None).await.unwrap();
    bench.store.refuse(refusal(stranger)).await.unwrap();
    let counts: Vec<u64> = swept(&bench.store).await.into_iter().map(|(_, count, _)| count).collect();
    assert_eq!(counts, [1, 1]);
    assert_eq!(bench.codes(), ["SUMMARY", "SUMMARY"]);
}

#[tokio::test]
async fn five_refusals_spend_a_token_until_its_end_also_after_a_restart() {
    let bench = Bench::new();
    let token = Digest::of(b"token 1");
    let against = Some((token, later(600)));
    for turn in 0..5 {
        assert!(!bench.store.is_spent(&token, now()), "after {turn}");
        bench.store.refuse(Refusal { against, ..refusal(project("701")) }).await.unwrap();
    }
    assert!(bench.store.is_spent(&token, later(599)));
    assert!(!bench.store.is_spent(&token, later(600)));
    assert!(!bench.store.is_spent(&Digest::of(b"token 2"), now()));
    let bench = bench.reopened().await;
    assert!(bench.store.is_spent(&token, now()));
    bench.store.sweep(later(600), &|_| None).await.unwrap();
    assert_eq!(bench.count("denied"), 0);
    assert!(!bench.store.is_spent(&token, now()));
}

#[tokio::test]
async fn a_refusal_that_cannot_be_recorded_is_unavailable() {
    let bench = Bench::new();
    let conn = bench.raw();
    conn.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON summary BEGIN SELECT RAISE(ABORT, 'no room'); END",
    )
    .unwrap();
    assert!(bench.store.refuse(refusal(Counted::Unverified { issuer: None })).await.is_err());
}
