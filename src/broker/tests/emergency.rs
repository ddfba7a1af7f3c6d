//! Freezes, revocations and policy skew, as brokers of one store do them.

use super::*;
use crate::{
    broker::emergency::{Imposed, Operator, Revocation, Sought},
    kernel::freeze::FreezeScope,
};

fn scope(word: &str, name: &str) -> FreezeScope {
    FreezeScope::read(word, name).unwrap()
}

impl World {
    async fn freeze(&self, word: &str, name: &str) {
        let thumbprints = self.broker.thumbprints_of(&scope(word, name));
        let work = async |operator: &Operator<'_>| {
            operator.freeze(scope(word, name), thumbprints, "incident 7".to_owned()).await
        };
        let imposed = self.broker.as_operator("first-operator", work).await.unwrap();
        assert!(matches!(imposed, Imposed::Now(_)));
    }

    async fn thaw(&self, word: &str, name: &str) -> bool {
        let work = async |operator: &Operator<'_>| operator.thaw(scope(word, name), "over").await;
        self.broker.as_operator("first-operator", work).await.unwrap()
    }

    async fn revoke(&self, sought: &Sought, is_dry: bool) -> Revocation {
        let work = async |operator: &Operator<'_>| operator.revoke(sought, "incident 7", is_dry).await;
        self.broker.as_operator("first-operator", work).await.unwrap()
    }

    async fn revoke_job(&self, token: &str) -> Revocation {
        let caller =
            self.broker.identify_holder(Secret::from_text(token.to_owned()), origin()).await.unwrap();
        self.broker.revoke_job(&caller).await.unwrap()
    }

    async fn issued(&self, token: &str) -> Vec<String> {
        let issued = self.exchange(token, ask("payments-prod")).await.unwrap();
        let ids = issued.issuances.iter().map(|each| each.id.to_string()).collect();
        issued.delivery.confirm();
        ids
    }
}

fn irrevocable(revocation: &Revocation) -> Vec<String> {
    assert!(revocation.revoked.is_empty() && revocation.queued.is_empty());
    revocation.irrevocable.iter().map(|each| each.id.to_string()).collect()
}

#[tokio::test]
async fn a_frozen_exchange_is_refused_as_any_other_and_says_why_in_the_ledger() {
    let world = World::new().await;
    let token = token("j1", &[]);
    let unknown = world.exchange(&token, ask("not-there")).await.err().unwrap();
    world.freeze("grant", "payments-prod").await;

    let frozen = world.exchange(&token, ask("payments-prod")).await.err().unwrap();

    assert_eq!(Refused { decision: None, ..frozen.clone() }, Refused { decision: None, ..unknown });
    let entries = world.entries().await;
    let denied = entries.last().unwrap();
    assert_eq!(denied["decision"], frozen.decision.unwrap().to_string());
    assert_eq!(denied["result"]["reason"], "frozen");
    assert_eq!(denied["result"]["freeze"], json!({ "scope": "grant", "grant": "payments-prod" }));
    let frozen = entries.iter().find(|entry| entry["code"] == "FROZEN").unwrap();
    let result = json!({ "by": "first-operator", "scope": "grant", "grant": "payments-prod" });
    assert_eq!(frozen["result"], result);
    assert!(frozen["commitments"]["reason"].is_object());
}

#[tokio::test]
async fn a_thawed_job_goes_on_with_the_same_token_however_often_it_asked() {
    let world = World::new().await;
    let token = token("j1", &[]);
    world.freeze("all", "").await;
    for _ in 0..7 {
        assert_eq!(world.refused(&token, ask("payments-prod")).await, Code::AccessDenied);
    }
    assert!(world.thaw("all", "").await);
    assert_eq!(world.issued(&token).await.len(), 2);
}

#[tokio::test]
async fn a_dry_run_looks_at_freezes_and_grants_leave_out_what_is_frozen() {
    let world = World::new().await;
    let caller = world.identify(&token("j1", &[])).await.unwrap();
    let names = async || {
        let grants = world.broker.grants(&caller).await.unwrap();
        grants.iter().map(|grant| grant.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["bare", "payments-prod"]);
    world.freeze("grant", "payments-prod").await;
    let dry = Ask { dry_run: true, ..ask("payments-prod") };
    assert_eq!(world.refused(&token("j1", &[]), dry).await, Code::AccessDenied);
    assert_eq!(names().await, ["bare"]);
    world.freeze("project", "github/701").await;
    assert!(names().await.is_empty());
}

#[tokio::test]
async fn whoever_shows_honours_issuer_key_and_all_and_giving_back_is_never_frozen() {
    let world = World::new().await;
    for (word, name, holds) in [
        ("all", "", true),
        ("issuer", "github", true),
        ("kid", "github/k1", true),
        ("grant", "payments-prod", false),
        ("project", "github/701", false),
    ] {
        // Each round is a job of its own.
        let own = token(&format!("j-{word}"), &[("run_id", json!(word))]);
        let id = world.issued(&own).await.remove(0);
        world.freeze(word, name).await;
        let shown = world.broker.identify_unfrozen(Secret::from_text(own.clone()), origin()).await;
        assert_eq!(shown.err().map(|refused| refused.code), holds.then_some(Code::AccessDenied), "{word}");
        let right = async || {
            let holder = world.broker.identify_holder(Secret::from_text(own.clone()), origin()).await;
            Right::Token(Box::new(holder.unwrap()))
        };
        assert_eq!(world.broker.issuance(&id, right().await).await.is_err(), holds, "{word}");
        let back = world.broker.give_back(&id, right().await).await.unwrap();
        assert_eq!(back, GivenBack::Released { usable_until: None, remedy: None }, "{word}");
        assert_eq!(irrevocable(&world.revoke_job(&own).await).len(), 2, "{word}");
        assert!(world.thaw(word, name).await);
    }
}

#[tokio::test]
async fn a_key_frozen_before_anybody_knew_it_is_completed_by_a_broker_that_holds_it() {
    let world = World::new().await;
    let name = scope("kid", "github/k1");
    let freeze = async |operator: &Operator<'_>| {
        operator.freeze(name.clone(), Vec::new(), "incident 7".to_owned()).await
    };
    world.broker.as_operator("first-operator", freeze).await.unwrap();
    assert_eq!(world.refused(&token("j1", &[]), ask("payments-prod")).await, Code::AccessDenied);
    world.broker.beat().await.unwrap();
    world.broker.beat().await.unwrap();
    let freezes = world.broker.freezes().await.unwrap();
    assert_eq!(freezes[0].thumbprints, world.broker.thumbprints_of(&name));
    assert_eq!(freezes[0].thumbprints.len(), 1);
    let codes = world.codes().await;
    assert_eq!(codes.iter().filter(|code| *code == "FROZEN").count(), 2, "once: {codes:?}");
}

#[tokio::test]
async fn revoking_a_job_ends_all_of_it_repeats_its_answer_and_ends_retries() {
    let world = World::new().await;
    let keyed = |token: &str| {
        let retry = RetryKey { key: "0123456789abcdef".to_owned(), body: Digest::of(b"body") };
        (token.to_owned(), Ask { retry: Some(retry), ..ask("payments-prod") })
    };
    let (one, asked) = keyed(&token("j1", &[]));
    world.exchange(&one, asked).await.unwrap().delivery.confirm();
    world.issued(&token("j2", &[])).await;
    let foreign = world.issued(&token("j3", &[("run_id", json!("1"))])).await;

    let first = irrevocable(&world.revoke_job(&token("j4", &[])).await);
    let entries = world.entries().await.len();
    let second = irrevocable(&world.revoke_job(&one).await);

    assert_eq!((first.len(), &first), (4, &second));
    assert!(foreign.iter().all(|id| !first.contains(id)));
    assert_eq!(world.entries().await.len(), entries, "asking again records nothing");
    let (one, asked) = keyed(&one);
    assert_eq!(world.refused(&one, asked).await, Code::TokenReplayed);
    let released = world.entries().await;
    let released: Vec<_> = released.iter().filter(|entry| entry["code"] == "RELEASED").collect();
    assert_eq!(released.len(), 4);
    assert!(released.iter().all(|entry| entry["request"]["by"] == "token"));
}

#[tokio::test]
async fn an_operator_revokes_what_meets_all_that_is_said_and_a_dry_run_only_looks() {
    let world = World::new().await;
    let ids = world.issued(&token("j1", &[])).await;
    let grant = |name: &str| Some(crate::kernel::name::GrantName::parse(name).unwrap());
    let project = |id: &str| Some((IssuerName::parse("github").unwrap(), id.to_owned()));
    for missed in [
        Sought { grant: grant("bare"), ..Sought::default() },
        Sought { project: project("7"), ..Sought::default() },
        Sought { grant: grant("payments-prod"), project: project("7"), ..Sought::default() },
        Sought { since: Timestamp::from_second(NOW + 1).ok(), ..Sought::default() },
    ] {
        assert!(irrevocable(&world.revoke(&missed, false).await).is_empty(), "{missed:?}");
    }
    let met = Sought { grant: grant("payments-prod"), project: project("701"), since: Some(now()) };
    let before = world.entries().await.len();
    let mut looked = irrevocable(&world.revoke(&met, true).await);
    looked.sort();
    let mut wanted = ids.clone();
    wanted.sort();
    assert_eq!(looked, wanted);
    assert_eq!(world.entries().await.len(), before);

    assert_eq!(irrevocable(&world.revoke(&met, false).await).len(), 2);
    assert!(irrevocable(&world.revoke(&met, false).await).is_empty());
    let entries = world.entries().await;
    let released = entries.last().unwrap();
    assert_eq!((&released["code"], &released["request"]["by"]), (&json!("RELEASED"), &json!("operator")));
    assert_eq!(released["result"]["by"], "first-operator");
    assert!(released["commitments"]["reason"].is_object());
}

#[tokio::test]
async fn brokers_that_differ_for_more_than_a_minute_are_one_alert_until_they_agree() {
    let world = World::new().await;
    let differs = async |seconds: i64, set: &[u8]| {
        let now = Timestamp::from_second(NOW + seconds).unwrap();
        let replica = ReplicaId::from_bytes([9; 16]);
        let beat = ports::Beat { replica, started: now, digest: Some(Digest::of(set)), now };
        world.store.beat(beat).await.unwrap();
        world.set_clock(seconds);
        world.broker.beat().await.unwrap();
        let alerts = world.codes().await.iter().filter(|code| *code == "ALERT_POLICY_SKEW").count();
        (alerts, world.broker.warnings().len())
    };
    assert_eq!(differs(0, b"other").await, (0, 0));
    assert_eq!(differs(25, b"other").await, (0, 0));
    assert_eq!(differs(50, b"other").await, (0, 0));
    assert_eq!(differs(60, b"other").await, (0, 0), "a minute, and not more");
    assert_eq!(differs(61, b"other").await, (1, 1));
    assert_eq!(differs(85, b"another").await, (1, 1), "it is told once");
    world.store.leave(ReplicaId::from_bytes([9; 16])).await.unwrap();
    world.broker.beat().await.unwrap();
    assert!(world.broker.warnings().is_empty(), "they agree again");
    assert_eq!(differs(90, b"other").await, (1, 0));
    assert_eq!(differs(115, b"other").await, (1, 0));
    assert_eq!(differs(140, b"other").await, (1, 0));
    assert_eq!(differs(151, b"other").await, (2, 1), "another episode");
}
