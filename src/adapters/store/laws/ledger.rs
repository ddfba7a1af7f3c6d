//! P6 and P7: the ledger holds together, cannot be edited, and refuses when it cannot be written.

use super::*;
use crate::{
    broker::ports::{Qualifier, Term},
    kernel::ledger::subject::Subject,
};

async fn receipts_prove_their_entries_against_the_head_of_their_batch(on: Engine) {
    let bench = Bench::on(on);
    for count in [1, 3, 7] {
        let entries: Vec<Entry> = (0..count).map(|_| entry(EntryCode::Started)).collect();
        let bytes: Vec<Vec<u8>> = entries.iter().map(|entry| entry.bytes.clone()).collect();
        let receipts = bench.store.append(entries).await.unwrap();
        assert!(receipts.iter().map(|receipt| &receipt.entry).eq(bytes.iter()));
        receipts.iter().for_each(|receipt| assert_proves(&bench.store, receipt));
    }
}

async fn every_entry_has_a_proof_against_the_newest_checkpoint_also_beyond_a_full_subtree(on: Engine) {
    let bench = Bench::on(on);
    for _ in 0..3 {
        bench.store.append((0..100).map(|_| entry(EntryCode::Started)).collect()).await.unwrap();
    }
    assert_eq!(bench.count("subtree"), 1);
    let head = bench.store.verifier_key().open(&bench.store.checkpoint().await.unwrap()).unwrap();
    assert_eq!(head.size, 300);
    for index in [0, 1, 127, 254, 255, 256, 299] {
        let proof = bench.store.proof(index).await.unwrap().unwrap();
        let entry = bench.store.entry(index).await.unwrap().unwrap().bytes;
        assert_proves(&bench.store, &Receipt { index, entry, proof });
    }
    assert_eq!(bench.store.proof(300).await.unwrap(), None);
    assert!(bench.store.entry(300).await.unwrap().is_none());
}

async fn two_processes_append_to_one_log_in_turn(on: Engine) {
    let bench = Bench::on(on);
    let stores = [Arc::clone(&bench.store), bench.other()];
    let mut indices = Vec::new();
    for turn in 0..20 {
        let receipts = stores[turn % 2].append(vec![entry(EntryCode::Started)]).await.unwrap();
        assert_proves(&bench.store, &receipts[0]);
        indices.push(receipts[0].index);
    }
    assert!(indices.into_iter().eq(0..20));
    assert_eq!(bench.store.head_fault().await.unwrap(), None);
}

async fn two_processes_append_to_one_log_at_once(on: Engine) {
    let bench = Bench::on(on);
    let stores = [Arc::clone(&bench.store), bench.other()];
    let calls = (0..40).map(|turn| {
        let store = Arc::clone(&stores[turn % 2]);
        tokio::spawn(async move { store.append(vec![entry(EntryCode::Started)]).await.unwrap() })
    });
    let mut indices = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        let receipts = call.await.unwrap();
        assert_proves(&bench.store, &receipts[0]);
        indices.push(receipts[0].index);
    }
    indices.sort_unstable();
    assert!(indices.into_iter().eq(0..40));
}

async fn a_ledger_that_refuses_rows_issues_nothing_and_works_again_afterwards(on: Engine) {
    let bench = Bench::on(on);
    bench.fill_up("entry");
    let refused = bench.store.issue(keyed(b"body", 0)).await.err().unwrap();
    assert!(matches!(refused, StoreFault::Unavailable(_)));
    assert!(bench.store.health().is_err());
    for table in ["once", "idempotency", "issuance", "entry", "personal"] {
        assert_eq!(bench.count(table), 0, "{table}");
    }
    bench.make_room("entry");
    until_well(&bench.store).await;
    assert_eq!(verdict(&bench.store, keyed(b"body", 1)).await, "recorded");
    assert_eq!(bench.store.health(), Ok(()));
}

async fn one_call_that_is_refused_does_not_abort_its_neighbours(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, issue()).await, "recorded");
    let too_large = Entry { bytes: vec![b'0'; 20_000], ..entry(EntryCode::Started) };
    let fresh_use = using(issue(), &["another use"]);
    let (large, replayed, recorded) = tokio::join!(
        bench.store.append(vec![too_large]),
        verdict(&bench.store, issue()),
        verdict(&bench.store, fresh_use),
    );
    assert!(large.is_err());
    assert_eq!((replayed, recorded), ("replayed", "recorded"));
    assert_eq!(bench.store.health(), Ok(()));
}

async fn rows_repeat_what_their_bytes_say_and_a_changed_column_is_told(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, issue()).await, "recorded");
    bench.store.append(vec![denied("payments", "main", "octocat")]).await.unwrap();
    let faults = |rows: Vec<LedgerRow>| rows.iter().filter_map(LedgerRow::column_fault).collect::<Vec<_>>();
    let rows = bench.store.ledger_rows(0, 100).await.unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[2].personal[0].0, "actor");
    assert_eq!(faults(rows), [""; 0]);
    bench.execute(
        "DROP TRIGGER entry_is_never_changed; UPDATE entry SET code = 'DRY_RUN' WHERE idx = 2",
        "DROP TRIGGER entry_is_never_changed ON entry; UPDATE entry SET code = 'DRY_RUN' WHERE idx = 2",
    );
    assert_eq!(faults(bench.store.ledger_rows(1, 100).await.unwrap()), ["code"]);
}

fn denied(grant: &str, git_ref: &str, actor: &str) -> Entry {
    let mut members = [
        ("issuer", "github"),
        ("project", "701"),
        ("project_name", "Acme/payments"),
        ("ref", git_ref),
        ("environment", "production"),
        ("run", "42"),
    ]
    .map(|(name, value)| (name, value.into()));
    let claims = json!({ "repository": "acme/payments", "actor": actor });
    let subject = Subject::new(&mut members, claims.as_object().unwrap(), |name| name == "actor").unwrap();
    sealed(Draft {
        code: Some(EntryCode::Denied),
        subject: Some(Arc::new(subject)),
        request: Some(json!({ "grants": [{ "name": grant }] })),
        result: Some(json!({ "code": "access_denied", "reason": "no-rule" })),
        personal: vec![Personal { field: "reason", value: "100% \"sure\"".to_owned() }],
        ..Draft::default()
    })
}

async fn found(store: &Database, terms: &[(Qualifier, &str, bool)]) -> Vec<u64> {
    let terms = terms.iter().map(|(qualifier, value, negated)| Term {
        qualifier: *qualifier,
        value: (*value).to_owned(),
        negated: *negated,
    });
    let query = EntryQuery { terms: terms.collect(), limit: 50, ..EntryQuery::default() };
    store.entries(query).await.unwrap().into_iter().map(|entry| entry.index).collect()
}

async fn every_qualifier_finds_its_entries_and_its_negation_the_others(on: Engine) {
    let bench = Bench::on(on);
    let entries = vec![
        denied("payments", "refs/heads/main", "octocat"),
        denied("other", "refs/heads/dev", "hubot"),
        entry(EntryCode::Started),
    ];
    bench.store.append(entries).await.unwrap();
    for (qualifier, value, expected) in [
        (Qualifier::Actor, "OctoCat", vec![0]),
        (Qualifier::Env, "production", vec![1, 0]),
        (Qualifier::Grant, "payments", vec![0]),
        (Qualifier::Issuer, "github", vec![1, 0]),
        (Qualifier::Outcome, "denied", vec![1, 0]),
        (Qualifier::Reason, "no-rule", vec![1, 0]),
        (Qualifier::Reason, "100%", vec![1, 0]),
        (Qualifier::Reason, "100_", vec![]),
        (Qualifier::Ref, "refs/heads/dev", vec![1]),
        (Qualifier::Repo, "701", vec![1, 0]),
        (Qualifier::Repo, "acme/PAYMENTS", vec![1, 0]),
        (Qualifier::Run, "42", vec![1, 0]),
        (Qualifier::Text, "hubot", vec![1]),
        (Qualifier::Text, "\"sure\"", vec![1, 0]),
        (Qualifier::Text, "STARTED", vec![2]),
        (Qualifier::Text, "' OR 1 --", vec![]),
    ] {
        assert_eq!(
            found(&bench.store, &[(qualifier, value, false)]).await,
            expected,
            "{qualifier:?} {value}"
        );
        let others: Vec<u64> = [2, 1, 0].into_iter().filter(|index| !expected.contains(index)).collect();
        assert_eq!(
            found(&bench.store, &[(qualifier, value, true)]).await,
            others,
            "not {qualifier:?} {value}"
        );
    }
    let both = [(Qualifier::Outcome, "DENIED", false), (Qualifier::Grant, "other", true)];
    assert_eq!(found(&bench.store, &both).await, [0]);
}

async fn pages_go_backwards_and_times_are_half_open(on: Engine) {
    let bench = Bench::on(on);
    bench.store.append((0..5).map(|_| entry(EntryCode::Started)).collect()).await.unwrap();
    let page = |below, limit| EntryQuery { below, limit, ..EntryQuery::default() };
    let indices =
        |entries: Vec<StoredEntry>| entries.into_iter().map(|entry| entry.index).collect::<Vec<_>>();
    assert_eq!(indices(bench.store.entries(page(None, 2)).await.unwrap()), [4, 3]);
    assert_eq!(indices(bench.store.entries(page(Some(3), 50)).await.unwrap()), [2, 1, 0]);
    let during = |from, to| EntryQuery { from, to, limit: 50, ..EntryQuery::default() };
    assert_eq!(bench.store.entries(during(Some(now()), None)).await.unwrap().len(), 5);
    assert_eq!(bench.store.entries(during(None, Some(now()))).await.unwrap().len(), 0);
}

laws![
    receipts_prove_their_entries_against_the_head_of_their_batch,
    every_entry_has_a_proof_against_the_newest_checkpoint_also_beyond_a_full_subtree,
    two_processes_append_to_one_log_in_turn,
    two_processes_append_to_one_log_at_once,
    a_ledger_that_refuses_rows_issues_nothing_and_works_again_afterwards,
    one_call_that_is_refused_does_not_abort_its_neighbours,
    rows_repeat_what_their_bytes_say_and_a_changed_column_is_told,
    every_qualifier_finds_its_entries_and_its_negation_the_others,
    pages_go_backwards_and_times_are_half_open,
];
