//! Freezes: each kind holds what it names and nothing else, from its commit, in every process, until it is thawed.

use super::*;

fn scope(word: &str, name: &str) -> FreezeScope {
    FreezeScope::read(word, name).unwrap()
}

async fn impose(store: &Database, scope: FreezeScope, thumbprints: &[Digest]) -> Option<Freeze> {
    let freeze = Freeze {
        scope,
        thumbprints: thumbprints.to_vec(),
        by: "os:0".to_owned(),
        reason: "incident 7".to_owned(),
        at: now(),
    };
    store.freeze(freeze, entry(EntryCode::Frozen)).await.unwrap()
}

async fn thaw(store: &Database, scope: FreezeScope) -> bool {
    store.thaw(scope, entry(EntryCode::Thawed)).await.unwrap()
}

async fn is_frozen(store: &Database) -> bool {
    !store.frozen(freezable()).await.unwrap().is_empty()
}

async fn each_kind_holds_what_it_names_in_every_process_and_nothing_else(on: Engine) {
    let bench = Bench::on(on);
    let other = bench.other();
    for (word, name, holds) in [
        ("all", "", true),
        ("issuer", "github", true),
        ("issuer", "gitlab", false),
        ("kid", "github/k1", true),
        ("kid", "github/k2", false),
        ("kid", "gitlab/k1", false),
        ("project", "github/701", true),
        ("project", "github/70", false),
        ("project", "gitlab/701", false),
        ("grant", "demo", true),
        ("grant", "demo-2", false),
    ] {
        let before = bench.count("issuance");
        assert_eq!(impose(&other, scope(word, name), &[]).await, None);
        let step = using(issue(), &[&format!("{word} {name}")]);
        let expected = if holds { "frozen" } else { "recorded" };
        assert_eq!(verdict(&bench.store, step).await, expected, "{word} {name}");
        assert_eq!(is_frozen(&bench.store).await, holds, "{word} {name}");
        assert_eq!(bench.count("issuance") - before, i64::from(!holds));
        assert!(thaw(&other, scope(word, name)).await);
        assert!(!is_frozen(&bench.store).await);
    }
}

async fn a_frozen_key_holds_under_any_name_and_at_any_issuer(on: Engine) {
    let bench = Bench::on(on);
    let thumbprint = freezable().thumbprint;
    impose(&bench.store, scope("kid", "gitlab/renamed"), &[thumbprint]).await;
    assert_eq!(verdict(&bench.store, issue()).await, "frozen");
    let held = bench.store.frozen(freezable()).await.unwrap();
    assert_eq!(held, [scope("kid", "gitlab/renamed")]);
    let mut another = issue();
    another.claims.freezable.thumbprint = Digest::of(b"key 2");
    assert_eq!(verdict(&bench.store, another).await, "recorded");
}

async fn a_key_frozen_under_two_names_thaws_with_the_second(on: Engine) {
    let bench = Bench::on(on);
    let thumbprint = freezable().thumbprint;
    for name in ["github/old", "github/older"] {
        impose(&bench.store, scope("kid", name), &[thumbprint]).await;
    }
    assert!(thaw(&bench.store, scope("kid", "github/old")).await);
    assert!(is_frozen(&bench.store).await);
    assert!(thaw(&bench.store, scope("kid", "github/older")).await);
    assert!(!is_frozen(&bench.store).await);
    assert_eq!(bench.count("frozen_key"), 0);
}

async fn a_key_frozen_by_name_is_completed_once(on: Engine) {
    let bench = Bench::on(on);
    let name = scope("kid", "github/gone");
    let complete = async |scope: FreezeScope, key: &[u8]| {
        let entry = entry(EntryCode::Frozen);
        bench.store.complete_freeze(scope, vec![Digest::of(key)], entry).await.unwrap()
    };
    assert!(!complete(name.clone(), b"key 1").await, "nothing is frozen");
    impose(&bench.store, name.clone(), &[]).await;
    assert!(!is_frozen(&bench.store).await, "it is known by another name only");
    assert!(complete(name.clone(), b"key 1").await);
    assert!(is_frozen(&bench.store).await);
    assert!(!complete(name, b"key 2").await, "what it names is known");
    assert_eq!(bench.codes(), ["FROZEN", "FROZEN"]);
}

async fn freezing_twice_keeps_the_first_and_thawing_twice_is_told(on: Engine) {
    let bench = Bench::on(on);
    let all = || scope("all", "");
    assert_eq!(impose(&bench.store, all(), &[]).await, None);
    let standing = impose(&bench.store, all(), &[]).await.unwrap();
    assert_eq!((standing.by.as_str(), standing.reason.as_str()), ("os:0", "incident 7"));
    assert_eq!(bench.store.freezes().await.unwrap(), [standing]);
    assert!(thaw(&bench.store, all()).await);
    assert!(!thaw(&bench.store, all()).await);
    assert_eq!(bench.codes(), ["FROZEN", "THAWED"]);
    assert!(bench.store.freezes().await.unwrap().is_empty());
}

async fn a_freeze_comes_before_idempotency_and_replay_and_claims_nothing(on: Engine) {
    let bench = Bench::on(on);
    assert_eq!(verdict(&bench.store, keyed(b"body", 0)).await, "recorded");
    impose(&bench.store, scope("grant", "demo"), &[]).await;
    for step in [keyed(b"other", 1), keyed(b"body", 1), issue()] {
        assert_eq!(verdict(&bench.store, step).await, "frozen");
    }
    let failed = Issue { stage: Stage::Failed, rows: Vec::new(), ..issue() };
    assert_eq!(verdict(&bench.store, failed).await, "frozen", "a failed fetch is not told before it");
    let foreseen = bench.store.foresee(issue().claims, now()).await.unwrap();
    assert_eq!(refused_word(&foreseen.unwrap_err()), "frozen");
    assert_eq!((bench.count("once"), bench.count("idempotency"), bench.count("issuance")), (1, 1, 1));
    thaw(&bench.store, scope("grant", "demo")).await;
    assert_eq!(verdict(&bench.store, keyed(b"body", 2)).await, "recorded", "the retry goes on");
}

async fn a_freeze_outlives_a_restart(on: Engine) {
    let bench = Bench::on(on);
    impose(&bench.store, scope("kid", "github/k9"), &[freezable().thumbprint]).await;
    let bench = bench.reopened().await;
    assert_eq!(verdict(&bench.store, issue()).await, "frozen");
}

laws![
    each_kind_holds_what_it_names_in_every_process_and_nothing_else,
    a_frozen_key_holds_under_any_name_and_at_any_issuer,
    a_key_frozen_under_two_names_thaws_with_the_second,
    a_key_frozen_by_name_is_completed_once,
    freezing_twice_keeps_the_first_and_thawing_twice_is_told,
    a_freeze_comes_before_idempotency_and_replay_and_claims_nothing,
    a_freeze_outlives_a_restart,
];
