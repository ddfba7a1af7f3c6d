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
async fn swept(store: &Database) -> Vec<(Counted, u64, Vec<String>)> {
    let seen = Mutex::new(Vec::new());
    let seal = |summary: Summary| {
        seen.lock().unwrap().push((summary.counted, summary.count, summary.samples));
        Some(entry(EntryCode::Summary))
    };
    store.sweep(later(60), &seal).await.unwrap();
    seen.into_inner().unwrap()
}

async fn a_project_has_thirty_entries_a_minute_and_then_a_count(on: Engine) {
    let bench = Bench::on(on);
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

async fn strangers_and_unverified_tokens_are_always_counted(on: Engine) {
    let bench = Bench::on(on);
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

async fn a_replay_is_an_entry_whatever_the_rate(on: Engine) {
    let bench = Bench::on(on);
    let stranger = Counted::Strangers { issuer: github() };
    bench.store.refuse(Refusal { always: true, ..refusal(stranger) }).await.unwrap();
    assert_eq!(bench.codes(), ["DENIED"]);
}

async fn a_thousand_projects_have_rows_and_the_others_share_one(on: Engine) {
    let bench = Bench::on(on);
    bench.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO summary SELECT 0, 'project', 'github', 'p' || i, 1, 0, 0, '[]' FROM n",
        "INSERT INTO summary SELECT 0, 'project', 'github', 'p' || i, 1, 0, 0, '[]' FROM generate_series(1, 1000) i",
    );
    for project_id in ["p7", "new-1", "new-2"] {
        for _ in 0..31 {
            bench.store.refuse(refusal(project(project_id))).await.unwrap();
        }
    }
    let counts =
        "SELECT project || ' ' || count FROM summary WHERE project IN ('p7', '*', 'new-1') ORDER BY 1";
    assert_eq!(bench.rows(counts, counts), ["* 2", "p7 2"]);
}

async fn a_summary_whose_entry_cannot_be_made_stays_for_the_next_sweep(on: Engine) {
    let bench = Bench::on(on);
    let stranger = Counted::Strangers { issuer: github() };
    bench.store.refuse(refusal(stranger.clone())).await.unwrap();
    bench.store.sweep(later(60), &|_| None).await.unwrap();
    bench.store.refuse(refusal(stranger)).await.unwrap();
    let counts: Vec<u64> = swept(&bench.store).await.into_iter().map(|(_, count, _)| count).collect();
    assert_eq!(counts, [1, 1]);
    assert_eq!(bench.codes(), ["SUMMARY", "SUMMARY"]);
}

async fn five_refusals_spend_a_token_until_its_end_also_after_a_restart(on: Engine) {
    let bench = Bench::on(on);
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

async fn a_refusal_that_cannot_be_recorded_is_unavailable(on: Engine) {
    let bench = Bench::on(on);
    bench.fill_up("summary");
    assert!(bench.store.refuse(refusal(Counted::Unverified { issuer: None })).await.is_err());
}

laws![
    a_project_has_thirty_entries_a_minute_and_then_a_count,
    strangers_and_unverified_tokens_are_always_counted,
    a_replay_is_an_entry_whatever_the_rate,
    a_thousand_projects_have_rows_and_the_others_share_one,
    a_summary_whose_entry_cannot_be_made_stays_for_the_next_sweep,
    five_refusals_spend_a_token_until_its_end_also_after_a_restart,
    a_refusal_that_cannot_be_recorded_is_unavailable,
];
