//! Exchanges in two steps: nothing usable is left behind that no row speaks of, whatever breaks in between. The backend
//! is a fake that keeps leases as Vault does, under a job token that ends them all; the real one has tests of its own.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::{
    broker::ports::{Field, Held, Opened, RevokeFault},
    kernel::{
        lifetime::{Lifetime, after},
        policy::{
            engines::EngineSpec,
            target::{AwsTarget, Backend, Target, VaultTarget},
        },
    },
};

/// What the fake does wrong, once each time that it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    /// It refuses to make a job token.
    Open,
    /// It refuses to make the lease.
    Generate,
    /// It makes the lease and does not answer.
    Answer,
    /// It does not revoke.
    Revoke,
}

/// A fake backend of leases.
#[derive(Default)]
struct Leases {
    wrong: Mutex<Vec<Wrong>>,
    /// Job tokens that live, each with whether a lease hangs on it.
    tokens: Mutex<BTreeMap<String, bool>>,
    made: AtomicUsize,
    /// Whoever waits here makes its lease when it is let go.
    gate: Option<Arc<tokio::sync::Semaphore>>,
}

impl Leases {
    fn wrong(&self, what: Wrong) -> bool {
        let mut wrong = self.wrong.lock().unwrap();
        let found = wrong.iter().position(|each| *each == what);
        found.map(|at| wrong.remove(at)).is_some()
    }

    fn is_empty(&self) -> bool {
        self.tokens.lock().unwrap().is_empty()
    }

    fn leases(&self) -> usize {
        self.tokens.lock().unwrap().values().filter(|has_lease| **has_lease).count()
    }

    async fn generate(&self, order: &Order, token: Option<&Secret>) -> Result<Minted, MintFault> {
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.wrong(Wrong::Generate) {
            return Err(MintFault::failed("denied"));
        }
        if let Some(token) = token {
            let accessor = token.expose_text().unwrap().replace("token", "accessor");
            let mut tokens = self.tokens.lock().unwrap();
            let Some(has_lease) = tokens.get_mut(&accessor) else {
                return Err(MintFault::failed("token-gone"));
            };
            *has_lease = true;
        }
        if self.wrong(Wrong::Answer) {
            std::future::pending::<()>().await;
        }
        let value = Secret::from_text("leased-s3cret".to_owned());
        Ok(Minted {
            fields: vec![Field { name: "password".to_owned(), value, is_secret: true }],
            expires_at: order.ttl.map(|ttl| after(order.now, ttl)),
            sealed_generation: None,
            held: None,
            told: json!({}),
        })
    }
}

impl Minter for Leases {
    fn fetch<'a>(
        &'a self,
        order: &'a Order,
        token: Option<&'a Secret>,
    ) -> Answer<'a, Result<Minted, MintFault>> {
        Box::pin(self.generate(order, token))
    }

    fn open<'a>(&'a self, _order: &'a Order) -> Answer<'a, Result<Opened, MintFault>> {
        Box::pin(async move {
            if self.wrong(Wrong::Open) {
                return Err(MintFault::failed("no-role"));
            }
            let number = self.made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            self.tokens.lock().unwrap().insert(format!("accessor-{number}"), false);
            let accessor = Secret::from_text(format!("accessor-{number}"));
            let held = Held { backend: "main".to_owned(), accessor, lease: None };
            Ok(Opened { held, token: Secret::from_text(format!("token-{number}")) })
        })
    }

    fn revoke<'a>(&'a self, held: &'a Held) -> Answer<'a, Result<(), RevokeFault>> {
        Box::pin(async move {
            assert_eq!(held.backend, "main");
            if self.wrong(Wrong::Revoke) {
                return Err(RevokeFault { reason: "no-answer" });
            }
            self.tokens.lock().unwrap().remove(held.accessor.expose_text().unwrap());
            Ok(())
        })
    }
}

/// The world with one grant of a sealed secret `npm`, a leased `db` and, where it is asked for, an irrevocable `sts`.
async fn leasing(wrong: &[Wrong]) -> (World, Arc<Leases>) {
    leasing_with(Leases { wrong: Mutex::new(wrong.to_vec()), ..Leases::default() }).await
}

async fn leasing_with(leases: Leases) -> (World, Arc<Leases>) {
    let leases = Arc::new(leases);
    let world = World::new().await.reopened(minting(&leases), Duration::from_secs(3)).await;
    grant_leases(&world.broker);
    (world, leases)
}

fn minting(leases: &Arc<Leases>) -> impl FnOnce(ports::Minters) -> ports::Minters {
    let leases = Arc::clone(leases);
    |mut minters| {
        minters.insert(Kind::Vault, Arc::<Leases>::clone(&leases));
        minters.insert(Kind::Aws, leases);
        minters
    }
}

/// Puts the two kinds into the set that decides; how they are written in files is another matter.
fn grant_leases(broker: &Broker) {
    let mut set = (*broker.policy().unwrap()).clone();
    let grant = set.grants.values_mut().find(|grant| grant.name.as_str() == "payments-prod").unwrap();
    let name = |name: &str| crate::kernel::name::CredentialName::parse(name).unwrap();
    let mut leased = grant.credentials.remove(&name("sts")).unwrap();
    leased.ttl = Some(Duration::from_secs(600));
    let mut fixed = leased.clone();
    fixed.ttl = Some(Duration::from_secs(900));
    let engine = EngineSpec::by_name("database").unwrap().engine;
    leased.target.0 = Target::Vault(Arc::new(VaultTarget {
        backend: Backend::Named("main".into()),
        engine,
        path: "database/creds/rw".to_owned(),
        version: None,
        fields: None,
        parameters: BTreeMap::new(),
        secret_fields: Vec::new(),
    }));
    fixed.target.0 = Target::Aws(Arc::new(AwsTarget {
        backend: Backend::Named("main".into()),
        role_arn: "arn:aws:iam::123456789012:role/deploy".to_owned(),
        tags: BTreeMap::new(),
        session_policy: None,
        managed_policies: Vec::new(),
    }));
    grant.credentials.insert(name("db"), leased);
    grant.credentials.insert(name("sts"), fixed);
    broker.policy.store(Some(Arc::new(set)));
}

fn asked(credentials: &[&str]) -> Ask {
    let mut ask = ask("payments-prod");
    ask.request.grants[0].credentials = Some(credentials.iter().map(|each| (*each).to_owned()).collect());
    ask
}

fn under_a_key(credentials: &[&str]) -> Ask {
    let retry = RetryKey { key: "0123456789abcdef".to_owned(), body: Digest::of(b"a") };
    Ask { retry: Some(retry), ..asked(credentials) }
}

async fn last(world: &World, code: &str) -> Value {
    let entries = world.entries().await;
    entries.into_iter().rev().find(|entry| entry["code"] == code).unwrap_or_else(|| panic!("no {code}"))
}

#[tokio::test]
async fn a_lease_is_intended_kept_recorded_and_revoked_when_it_is_given_back() {
    let (world, leases) = leasing(&[]).await;
    let issued = world.exchange(&token("j1", &[]), asked(&["db"])).await.unwrap();
    let [db] = issued.issuances.as_slice() else { panic!("one") };
    assert_eq!(db.fields[0].value.expose_text(), Some("leased-s3cret"));
    assert!(db.revocable && db.lifetime == Lifetime::Leased && db.ttl_seconds == Some(600));
    let (id, handle) = (db.id, Right::Handle(Secret::new(db.handle.expose().to_vec())));
    let receipt: Value = serde_json::from_slice(&issued.receipts[0].1.entry).unwrap();
    assert_eq!((&receipt["code"], &receipt["issuance"]), (&json!("ISSUED"), &json!(id.to_string())));
    issued.delivery.confirm();
    let row = world.store.issuance(id).await.unwrap().unwrap();
    let held = String::from_utf8_lossy(row.held.as_ref().unwrap()).into_owned();
    assert!(!held.contains("accessor"), "it is sealed");

    assert_eq!(world.broker.give_back(&id.to_string(), handle).await.unwrap(), GivenBack::Ended);
    assert!(leases.is_empty());
    assert_eq!(world.codes().await, ["INTENT", "ISSUED", "REVOKING", "REVOKED"]);
    assert_eq!(world.store.issuance(id).await.unwrap().unwrap().held, None);
}

#[tokio::test]
async fn a_revoke_that_is_not_confirmed_is_queued_and_tried_on() {
    let (world, leases) = leasing(&[Wrong::Revoke, Wrong::Revoke]).await;
    let issued = world.exchange(&token("j1", &[]), asked(&["db"])).await.unwrap();
    let [db] = issued.issuances.as_slice() else { panic!("one") };
    let (id, handle) = (db.id.to_string(), Right::Handle(Secret::new(db.handle.expose().to_vec())));
    issued.delivery.confirm();
    assert_eq!(world.broker.give_back(&id, handle).await.unwrap(), GivenBack::Queued);
    for seconds in [5, 60, 120] {
        world.set_clock(seconds);
        world.broker.revoke_due().await.unwrap();
    }
    assert!(leases.is_empty());
    assert_eq!(world.codes().await, ["INTENT", "ISSUED", "REVOKING", "REVOKED"]);
    assert_eq!(last(&world, "REVOKED").await["result"]["tries"], 2);
}

#[tokio::test]
async fn a_revoke_that_outlives_its_credential_is_an_alert_once() {
    let (world, leases) = leasing(&[Wrong::Revoke; 4]).await;
    let issued = world.exchange(&token("j1", &[]), asked(&["db"])).await.unwrap();
    let [db] = issued.issuances.as_slice() else { panic!("one") };
    let (id, handle) = (db.id.to_string(), Right::Handle(Secret::new(db.handle.expose().to_vec())));
    issued.delivery.confirm();
    world.broker.give_back(&id, handle).await.unwrap();
    for seconds in [100, 700, 1_400, 2_100] {
        world.set_clock(seconds);
        world.broker.revoke_due().await.unwrap();
    }
    assert!(leases.is_empty());
    assert_eq!(world.codes().await, ["INTENT", "ISSUED", "REVOKING", "ALERT_REVOCATION", "REVOKED"]);
}

#[tokio::test]
async fn a_refused_mint_leaves_nothing_and_the_token_its_use() {
    for wrong in [Wrong::Open, Wrong::Generate] {
        let (world, leases) = leasing(&[wrong]).await;
        let token = token("j1", &[]);
        assert_eq!(world.refused(&token, asked(&["db", "npm"])).await, Code::BackendFailed);
        assert!(leases.is_empty(), "{wrong:?}");
        assert_eq!(world.codes().await, ["INTENT", "INTENT", "FAILED", "FAILED"], "{wrong:?}");
        let minted: Vec<Value> =
            world.entries().await.iter().map(|entry| entry["result"]["minted"].clone()).collect();
        let of_lease = wrong == Wrong::Generate;
        assert_eq!(minted[minted.len() - 2..], [json!(of_lease), json!(false)], "{wrong:?}");
        world.exchange(&token, asked(&["db", "npm"])).await.unwrap().delivery.confirm();
    }
}

#[tokio::test]
async fn a_lost_answer_is_undone_by_its_job_token() {
    let (world, leases) = leasing(&[Wrong::Answer]).await;
    assert_eq!(world.refused(&token("j1", &[]), asked(&["db"])).await, Code::BackendTimeout);
    world.drained().await;
    assert!(leases.is_empty());
    assert_eq!(world.codes().await, ["INTENT", "FAILED"]);
    assert_eq!(last(&world, "FAILED").await["result"]["minted"], true);
}

#[tokio::test]
async fn a_lost_answer_that_cannot_be_undone_is_unresolved_and_revoked_later() {
    let (world, leases) = leasing(&[Wrong::Answer, Wrong::Revoke]).await;
    let token = token("j1", &[]);
    assert_eq!(world.refused(&token, asked(&["db"])).await, Code::BackendTimeout);
    assert_eq!(leases.leases(), 1);
    assert_eq!(world.codes().await, ["INTENT", "UNRESOLVED", "REVOKING"]);
    assert!(last(&world, "UNRESOLVED").await["result"]["usable_until"].is_string());
    assert_eq!(world.refused(&token, asked(&["db"])).await, Code::TokenReplayed);
    world.broker.revoke_due().await.unwrap();
    assert!(leases.is_empty());
    assert_eq!(last(&world, "REVOKED").await["request"]["credential"], "db");
}

#[tokio::test]
async fn what_nobody_can_take_back_is_unresolved_where_its_answer_was_lost() {
    let (world, _) = leasing(&[Wrong::Answer]).await;
    assert_eq!(world.refused(&token("j1", &[]), asked(&["db", "sts"])).await, Code::BackendTimeout);
    world.drained().await;
    // The fake lost the answer of the lease, which comes first: it is undone, and `sts` was never asked for.
    assert_eq!(world.codes().await, ["INTENT", "INTENT", "FAILED", "FAILED"]);

    let (world, leases) = leasing(&[]).await;
    leases.wrong.lock().unwrap().push(Wrong::Answer);
    assert_eq!(world.refused(&token("j2", &[]), asked(&["sts"])).await, Code::BackendTimeout);
    world.drained().await;
    assert_eq!(world.codes().await, ["INTENT", "UNRESOLVED"]);
    assert!(last(&world, "UNRESOLVED").await["result"]["usable_until"].is_string());
}

#[tokio::test]
async fn what_is_not_delivered_is_revoked() {
    let (world, leases) = leasing(&[]).await;
    drop(world.exchange(&token("j1", &[]), asked(&["db"])).await.unwrap());
    world.drained().await;
    assert!(leases.is_empty());
    assert_eq!(world.codes().await, ["INTENT", "ISSUED", "UNDELIVERED", "REVOKING", "REVOKED"]);
}

#[tokio::test]
async fn a_keyed_retry_revokes_what_the_first_call_got_and_mints_anew() {
    let (world, leases) = leasing(&[]).await;
    let token = token("j1", &[]);
    let first = world.exchange(&token, under_a_key(&["db"])).await.unwrap();
    first.delivery.confirm();
    let second = world.exchange(&token, under_a_key(&["db"])).await.unwrap();
    second.delivery.confirm();
    assert_eq!(leases.leases(), 1);
    assert_eq!(world.codes().await, ["INTENT", "ISSUED", "REVOKING", "REVOKED", "INTENT", "ISSUED"]);
    assert_eq!(last(&world, "REVOKING").await["request"]["by"], "retry");
}

#[tokio::test]
async fn a_keyed_retry_that_cannot_revoke_mints_nothing_and_may_come_again() {
    let (world, leases) = leasing(&[Wrong::Revoke]).await;
    let token = token("j1", &[]);
    world.exchange(&token, under_a_key(&["db"])).await.unwrap().delivery.confirm();
    assert_eq!(world.refused(&token, under_a_key(&["db"])).await, Code::BackendFailed);
    assert_eq!(world.codes().await, ["INTENT", "ISSUED", "REVOKING", "DENIED"]);
    world.exchange(&token, under_a_key(&["db"])).await.unwrap().delivery.confirm();
    assert_eq!(leases.leases(), 1);
}

#[tokio::test]
async fn a_keyed_retry_after_giving_back_is_a_replay() {
    let (world, leases) = leasing(&[]).await;
    let issued = world.exchange(&token("j1", &[]), under_a_key(&["db"])).await.unwrap();
    let [db] = issued.issuances.as_slice() else { panic!("one") };
    let (id, handle) = (db.id.to_string(), Right::Handle(Secret::new(db.handle.expose().to_vec())));
    issued.delivery.confirm();
    world.broker.give_back(&id, handle).await.unwrap();
    assert_eq!(world.refused(&token("j1", &[]), under_a_key(&["db"])).await, Code::TokenReplayed);
    assert!(leases.is_empty());
}

#[tokio::test]
async fn a_broker_that_wakes_after_recovery_releases_nothing() {
    for recovers in [true, false] {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let (world, leases) =
            leasing_with(Leases { gate: Some(Arc::clone(&gate)), ..Leases::default() }).await;
        let caller = world.identify(&token("j1", &[])).await.unwrap();
        let broker = Arc::clone(&world.broker);
        let call = tokio::spawn(async move { broker.exchange(caller, asked(&["db"])).await.err() });
        // Until its accessor is kept, so that recovery has something to revoke.
        while !world
            .store
            .abandoned(after(now(), Duration::from_secs(60)), 1)
            .await
            .unwrap()
            .iter()
            .any(|row| row.held.is_some())
        {
            tokio::task::yield_now().await;
        }
        if recovers {
            world.set_clock(60);
            world.broker.recover().await.unwrap();
            world.broker.revoke_due().await.unwrap();
            assert!(leases.is_empty());
        }
        gate.add_permits(1);
        let refused = call.await.unwrap();
        world.drained().await;
        if recovers {
            assert!(refused.is_some() && leases.is_empty());
            let codes = world.codes().await;
            assert!(!codes.contains(&"ISSUED".to_owned()), "{codes:?}");
            assert_eq!(codes.iter().filter(|code| *code == "REVOKED").count(), 1, "{codes:?}");
        } else {
            assert!(refused.is_none(), "without recovery it goes on");
        }
    }
}

#[tokio::test]
async fn a_limit_counts_what_is_open_and_gives_back_what_was_not_made() {
    let (world, _) = leasing(&[Wrong::Open]).await;
    let mut set = (*world.broker.policy().unwrap()).clone();
    let grant = set.grants.values_mut().find(|grant| grant.name.as_str() == "payments-prod").unwrap();
    grant.limits.issuances_per_hour = Some(1);
    world.broker.policy.store(Some(Arc::new(set)));
    assert_eq!(world.refused(&token("j1", &[]), asked(&["db"])).await, Code::BackendFailed);
    world.exchange(&token("j2", &[]), asked(&["db"])).await.unwrap().delivery.confirm();
    assert_eq!(world.refused(&token("j3", &[]), asked(&["db"])).await, Code::QuotaExceeded);
}

#[tokio::test]
async fn a_dry_run_makes_nothing() {
    let (world, leases) = leasing(&[]).await;
    let caller = world.identify(&token("j1", &[])).await.unwrap();
    let Ok(Outcome::DryRun(run)) =
        world.broker.exchange(caller, Ask { dry_run: true, ..asked(&["db"]) }).await
    else {
        panic!("no dry run")
    };
    assert!(run.previews[0].revocable && leases.is_empty());
    assert_eq!(world.codes().await, ["DRY_RUN"]);
}
