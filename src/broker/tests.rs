//! The promises of the exchange, on the real store, the real minters and real signatures.

mod emergency;
mod guardrails;
mod limits;
mod policy;
mod staged;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, OnceLock},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    error::{Code, Refused},
    exchange::{Ask, Exchanged, Given, Outcome, RetryKey, Room},
    identify::{Caller, Origin},
    issuances::{GivenBack, Right},
    policy::PolicyRefused,
    ports::{Answer, EntryQuery, KeyFault, KeySource, KeyStanding, MintFault, Minted, Minter, Order, Store},
    *,
};
use crate::{
    adapters::{
        mint::{Assertions, Oidc, Sealed, assertions::generate},
        store::sqlite::{Change, Genesis, LettingIn, Options, Sqlite},
    },
    kernel::{
        assertion::Algorithm,
        digest::Digest,
        id::RequestId,
        identity::{
            keys::{KeySet, VerificationKey},
            profile::Profile,
            testing::{TestKey, fixture},
            token::RawToken,
        },
        ledger::entry::EntryCode,
        name::{IssuerName, SecretName},
        policy::{
            decide::{GrantRequest, Request},
            set::{Files, TrustedIssuer},
            target::Kind,
        },
        sealing::SealingKey,
        secret::Secret,
    },
};

const NOW: i64 = 1_790_000_010;
const URL: &str = "https://token.actions.githubusercontent.com";
const GENERIC_URL: &str = "https://ci.test";
const AUDIENCE: &str = "https://hallpass.example.com";
const ISSUER: &str = "issuer: github\nprofile: github-actions\nurl: https://token.actions.githubusercontent.com\naudience: https://hallpass.example.com\n";
const GENERIC: &str =
    "issuer: own\nprofile: generic\nurl: https://ci.test\naudience: https://hallpass.example.com\n";
const GRANT: &str = r#"
grant: payments-prod
allow:
  - name: deploy-from-main
    issuer: github
    match: { repository_owner_id: "4216", repository_id: "701", ref: refs/heads/main }
credentials:
  npm: { sealed: { secret: npm-token } }
  sts: { oidc: { audience: https://sts.test }, ttl: 4m }
"#;
const BARE: &str = r#"
grant: bare
allow:
  - name: all
    issuer: github
    match: { repository_owner_id: "4216" }
credentials:
  gone: { sealed: { secret: not-there } }
  sts: { oidc: { audience: https://sts.test } }
"#;

/// One issuer's keys, without a network.
struct Keys(KeySet);

impl KeySource for Keys {
    fn key<'a>(
        &'a self,
        _issuer: &'a IssuerName,
        token: &'a RawToken,
    ) -> Answer<'a, Result<Arc<VerificationKey>, KeyFault>> {
        let found =
            token.unverified_algorithm().and_then(|algorithm| self.0.find(token.unverified_kid(), algorithm));
        Box::pin(async move { found.ok_or(KeyFault::Unknown) })
    }

    fn thumbprints(&self, _issuer: &IssuerName, kid: &str) -> Vec<Digest> {
        self.0.thumbprints(kid)
    }

    fn standing(&self) -> Vec<KeyStanding> {
        Vec::new()
    }

    fn figures(&self) -> Vec<ports::KeyFigures> {
        Vec::new()
    }
}

/// A backend that never answers.
struct Silent;

impl Minter for Silent {
    fn fetch<'a>(
        &'a self,
        _order: &'a Order,
        _token: Option<&'a Secret>,
    ) -> Answer<'a, Result<Minted, MintFault>> {
        Box::pin(std::future::pending())
    }
}

struct World {
    broker: Arc<Broker>,
    store: Arc<Sqlite>,
    folder: tempfile::TempDir,
}

fn signing() -> &'static TestKey {
    static KEY: OnceLock<TestKey> = OnceLock::new();
    KEY.get_or_init(TestKey::rsa)
}

fn sealing() -> Arc<SealingKey> {
    Arc::new(SealingKey::new(Secret::new(vec![7; 32])).unwrap())
}

fn random(out: &mut [u8]) -> bool {
    aws_lc_rs::rand::fill(out).is_ok()
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// An empty store, made once: making its RSA key takes most of a second.
fn template() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hallpass.db");
        let genesis = Genesis { origin: "hallpass.example.com/ledger", now: now(), random: &random };
        Sqlite::create(&path, &sealing(), genesis).unwrap();
        std::fs::read(path).unwrap()
    })
}

fn policy(grants: &[&str]) -> Files {
    let mut files: BTreeMap<String, Vec<u8>> =
        [("issuers/github.yaml", ISSUER), ("issuers/own.yaml", GENERIC)]
            .into_iter()
            .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()))
            .collect();
    for (at, grant) in grants.iter().enumerate() {
        files.insert(format!("grants/g{at}.yaml"), grant.as_bytes().to_vec());
    }
    Files(files)
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hallpass.db"), template()).unwrap();
        let world = Self::open(folder, |minters| minters, Duration::from_secs(15));
        world.set_secret("s3cret").await;
        world.broker.offer_policy(policy(&[GRANT, BARE]), None).await.unwrap();
        world
    }

    /// A broker on what the folder holds.
    fn open(
        folder: tempfile::TempDir,
        change: impl FnOnce(ports::Minters) -> ports::Minters,
        deadline: Duration,
    ) -> Self {
        let store = Sqlite::open(&folder.path().join("hallpass.db"), sealing(), Options::default()).unwrap();
        static SIGNS: OnceLock<Secret> = OnceLock::new();
        let signs = SIGNS.get_or_init(|| generate(Algorithm::Rs256).unwrap());
        let assertions = Arc::new(Assertions::new(AUDIENCE, signs).unwrap());
        let records: Arc<dyn ports::SealedRecords> = Arc::<Sqlite>::clone(&store);
        let mut minters = ports::Minters::new();
        minters.insert(Kind::Sealed, Arc::new(Sealed::new(records, sealing())));
        minters.insert(Kind::Oidc, Arc::new(Oidc::new(assertions)));
        let algorithms = Profile::by_name("generic").unwrap().algorithms;
        let set = json!({ "keys": [signing().jwk("k1")] }).to_string();
        let trusted = [("github", URL, "github-actions"), ("own", GENERIC_URL, "generic")];
        let trusted = trusted.map(|(name, url, profile)| {
            let name = IssuerName::parse(name).unwrap();
            let profile = Profile::by_name(profile).unwrap();
            (name.clone(), TrustedIssuer { name, url: url.into(), profile })
        });
        let settings = Settings {
            replica: ReplicaId::from_bytes([1; 16]),
            trusted: BTreeMap::from(trusted).into(),
            clock_leeway: Duration::from_secs(30),
            exchange_deadline: deadline,
            mint_deadline: Duration::from_secs(8),
            per_project_per_minute: 600,
            pseudonym_key: *store.pseudonym_key().unwrap(),
        };
        let seed = (NOW.unsigned_abs(), u64::from(std::process::id()) << 32 | next_seed());
        let broker = Broker::new(Parts {
            ambient: Ambient {
                clock: Clock::Manual(Mutex::new(now())),
                entropy: Entropy::Seeded(Mutex::new(seed)),
            },
            store: Arc::<Sqlite>::clone(&store),
            keys: Arc::new(Keys(KeySet::parse(set.as_bytes(), algorithms).unwrap())),
            minters: change(minters),
            settings,
        });
        Self { broker, store, folder }
    }

    /// The same files in a broker that was started anew.
    async fn reopened(
        self,
        change: impl FnOnce(ports::Minters) -> ports::Minters,
        deadline: Duration,
    ) -> Self {
        self.store.close().await;
        let world = Self::open(self.folder, change, deadline);
        world.broker.offer_policy(policy(&[GRANT, BARE]), None).await.unwrap();
        world
    }

    async fn set_secret(&self, value: &str) {
        let fields = [("value".to_owned(), Secret::from_text(value.to_owned()))];
        let entry = |_| self.broker.entry(EntryCode::SecretSet, json!({})).ok();
        let change = Change { now: now(), random: &random, entry: &entry };
        self.store.set_secret(&SecretName::parse("npm-token").unwrap(), &fields, change).await.unwrap();
    }

    async fn identify(&self, token: &str) -> Result<Caller, Refused> {
        self.broker.identify(Secret::from_text(token.to_owned()), origin()).await
    }

    async fn exchange(&self, token: &str, ask: Ask) -> Result<Exchanged, Refused> {
        match self.broker.exchange(self.identify(token).await?, ask).await? {
            Outcome::Issued(issued) => Ok(issued),
            Outcome::DryRun(_) => panic!("a dry run"),
        }
    }

    async fn refused(&self, token: &str, ask: Ask) -> Code {
        let Err(refused) = self.exchange(token, ask).await else { panic!("it was issued") };
        refused.code
    }

    /// The ledger, oldest first.
    async fn entries(&self) -> Vec<Value> {
        let found = self.store.entries(EntryQuery { limit: 500, ..EntryQuery::default() }).await.unwrap();
        found.iter().rev().map(|entry| serde_json::from_slice(&entry.bytes).unwrap()).collect()
    }

    async fn codes(&self) -> Vec<String> {
        let entries = self.entries().await;
        let setup = ["POLICY_LOADED", "SECRET_SET"];
        let codes = entries.iter().map(|entry| entry["code"].as_str().unwrap().to_owned());
        codes.filter(|code| !setup.contains(&code.as_str())).collect()
    }

    async fn drained(&self) {
        assert!(self.broker.drain(Duration::from_secs(10)).await);
    }

    fn set_clock(&self, seconds: i64) {
        let Clock::Manual(clock) = &self.broker.ambient.clock else { panic!("a manual clock") };
        *clock.lock().unwrap() = Timestamp::from_second(NOW + seconds).unwrap();
    }
}

fn next_seed() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1_000_000, std::sync::atomic::Ordering::Relaxed)
}

fn origin() -> Origin {
    Origin { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), request: RequestId::from_bytes([9; 16]) }
}

/// A token of the fixture's job, with its own `jti` and with claims spoiled.
fn token(jti: &str, spoil: &[(&str, Value)]) -> String {
    let mut claims = fixture("github-actions");
    claims["jti"] = jti.into();
    for (name, value) in spoil {
        claims[*name] = value.clone();
    }
    signing().sign(&json!({ "alg": "RS256", "kid": "k1", "typ": "JWT" }), &claims)
}

fn ask(grant: &str) -> Ask {
    let grant = GrantRequest { name: grant.to_owned(), credentials: None, ttl: None };
    Ask {
        request: Request { grants: vec![grant] },
        reason: Some("migration 42".to_owned()),
        dry_run: false,
        inputs: Vec::new(),
        retry: None,
        room: Room::Any,
    }
}

fn only(grant: &str, credential: &str) -> Ask {
    let mut ask = ask(grant);
    ask.request.grants[0].credentials = Some(vec![credential.to_owned()]);
    ask
}

fn keyed(body: &str) -> Ask {
    let body = Digest::of(body.as_bytes());
    Ask { retry: Some(RetryKey { key: "0123456789abcdef".to_owned(), body }), ..ask("payments-prod") }
}

#[tokio::test]
async fn a_permit_is_recorded_with_its_rule_and_its_receipt_shows_none() {
    let world = World::new().await;
    let issued = world.exchange(&token("j1", &[]), ask("payments-prod")).await.unwrap();
    assert_eq!(issued.issuances.len(), 2);
    let [npm, sts] = issued.issuances.as_slice() else { panic!("two") };
    assert_eq!(npm.fields[0].value.expose_text(), Some("s3cret"));
    assert_eq!((npm.ttl_seconds, npm.expires_at), (None, None));
    assert_eq!(sts.ttl_seconds, Some(240));
    for (id, receipt) in &issued.receipts {
        let entry: Value = serde_json::from_slice(&receipt.entry).unwrap();
        assert_eq!(entry["code"], "ISSUED");
        assert_eq!(entry["issuance"], id.to_string());
        assert_eq!(entry["policy"]["grant"], "payments-prod");
        let text = entry.to_string();
        for hidden in [
            "deploy-from-main",
            "grants/g0.yaml",
            "npm-token",
            "alice",
            "192.0.2.7",
            "migration 42",
            "s3cret",
        ] {
            assert!(!text.contains(hidden), "{hidden}: {text}");
        }
    }
    issued.delivery.confirm();
    world.drained().await;
    assert_eq!(world.codes().await, ["INTENT", "ISSUED", "INTENT", "ISSUED"]);
    let intent = world.entries().await.into_iter().find(|entry| entry["code"] == "INTENT").unwrap();
    assert_eq!(intent["policy"]["rule"], "deploy-from-main");
    assert_eq!(intent["policy"]["file"], "grants/g0.yaml");
    assert_eq!(intent["request"]["target"], "npm-token");
    assert!(intent["commitments"]["reason"]["commitment"].is_string());
    assert!(intent["subject"]["claims"]["actor"]["commitment"].is_string());
}

#[tokio::test]
async fn an_issuance_has_one_time_in_answer_entry_and_row() {
    let world = World::new().await;
    let issued = world.exchange(&token("j1", &[]), only("payments-prod", "sts")).await.unwrap();
    let [one] = issued.issuances.as_slice() else { panic!("one") };
    let handle = Secret::new(one.handle.expose().to_vec());
    let view = world.broker.issuance(&one.id.to_string(), Right::Handle(handle)).await.unwrap();
    assert_eq!((view.issued_at, view.expires_at), (one.issued_at, one.expires_at));
    assert_eq!(one.expires_at.unwrap().duration_since(one.issued_at).as_secs(), 240);
}

#[tokio::test]
async fn everything_that_policy_does_not_permit_is_one_answer() {
    let world = World::new().await;
    let branch = token("j2", &[("ref", json!("refs/heads/dev"))]);
    let mut answers = Vec::new();
    for (token, ask) in [
        (token("j1", &[]), ask("nope")),
        (token("j1", &[]), only("payments-prod", "nope")),
        (branch, ask("payments-prod")),
        (token("j3", &[("repository_owner_id", json!("9"))]), ask("payments-prod")),
    ] {
        let mut refused = world.exchange(&token, ask).await.err().unwrap();
        assert!(refused.decision.take().is_some());
        answers.push(refused);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    assert_eq!(answers[0].code, Code::AccessDenied);
    // The last is of a tenant that no rule names: a count, no entry.
    assert_eq!(world.codes().await, ["DENIED", "DENIED", "DENIED"]);
}

#[tokio::test]
async fn a_denial_fits_into_its_entry_whatever_was_asked_for() {
    let names: Vec<String> = (0..40).map(|n| format!("claim_{n}_{}", "x".repeat(40))).collect();
    let conditions: Vec<String> = names.iter().map(|name| format!("{name}: \"1\"")).collect();
    let rules: Vec<String> = (0..20)
        .map(|n| {
            format!("  - name: r{n}\n    issuer: own\n    match: {{ sub: x, {} }}\n", conditions.join(", "))
        })
        .collect();
    let wide = format!(
        "grant: wide\nallow:\n{}credentials: {{ npm: {{ sealed: {{ secret: x }} }} }}\n",
        rules.concat()
    );
    let world = World::new().await;
    world.broker.offer_policy(policy(&[GRANT, &wide]), None).await.unwrap();
    let mut claims = fixture("generic");
    claims["iss"] = GENERIC_URL.into();
    claims["aud"] = AUDIENCE.into();
    for (name, at) in [("iat", NOW - 10), ("nbf", NOW - 10), ("exp", NOW + 290)] {
        claims[name] = at.into();
    }
    let token = signing().sign(&json!({ "alg": "RS256", "kid": "k1" }), &claims);
    let mut strange = ask("wide");
    let names = (0..15).map(|n| format!("{}{n}", "\u{1}\"é".repeat(30)));
    strange.request.grants[0].credentials = Some(names.collect());
    assert_eq!(world.refused(&token, strange).await, Code::AccessDenied);
    let denied = world.entries().await.pop().unwrap();
    assert_eq!(denied["code"], "DENIED", "an issuer without projects has entries too");
    assert_eq!(denied["result"]["tried_cut"], true);
}

#[tokio::test]
async fn the_same_token_twice_is_a_replay_also_after_a_restart() {
    let world = World::new().await;
    world.exchange(&token("j1", &[]), ask("payments-prod")).await.unwrap().delivery.confirm();
    assert_eq!(world.refused(&token("j1", &[]), ask("payments-prod")).await, Code::TokenReplayed);
    assert_eq!(world.refused(&token("j1", &[]), only("payments-prod", "npm")).await, Code::TokenReplayed);
    world.drained().await;
    let world = world.reopened(|minters| minters, Duration::from_secs(15)).await;
    assert_eq!(world.refused(&token("j1", &[]), ask("payments-prod")).await, Code::TokenReplayed);
    let denied = world.entries().await.pop().unwrap();
    assert_eq!((&denied["code"], &denied["result"]["code"]), (&json!("DENIED"), &json!("token_replayed")));
}

/// Attack classes R-03 and C-07: neither the end of its life nor a clock that is set back makes a used token new.
#[tokio::test]
async fn a_used_token_is_replayed_until_its_leeway_is_over_whatever_the_clock_does() {
    let world = World::new().await;
    let exp = 290;
    let used = token("j1", &[]);
    world.exchange(&used, ask("payments-prod")).await.unwrap().delivery.confirm();
    for (seconds, code) in [
        (exp, Code::TokenReplayed),
        (exp + 29, Code::TokenReplayed),
        (exp + 30, Code::TokenExpired),
        // Another replica, up to L behind, still takes it; and our own clock may step back.
        (exp + 29, Code::TokenReplayed),
        (-39, Code::TokenReplayed),
        (-41, Code::TokenNotYetValid),
        (-600, Code::TokenNotYetValid),
        (0, Code::TokenReplayed),
    ] {
        world.set_clock(seconds);
        world.broker.sweep().await.unwrap();
        let told = match world.identify(&used).await {
            Err(refused) => refused.code,
            Ok(caller) => world.broker.exchange(caller, ask("payments-prod")).await.err().unwrap().code,
        };
        assert_eq!(told, code, "{seconds} s later");
    }
    assert_eq!(
        world.codes().await.iter().filter(|code| *code == "ISSUED").count(),
        2,
        "two credentials, once"
    );
}

#[tokio::test]
async fn one_used_and_one_new_credential_are_a_replay_and_the_new_one_stays_unused() {
    let world = World::new().await;
    let token = token("j1", &[]);
    world.exchange(&token, only("payments-prod", "npm")).await.unwrap().delivery.confirm();
    assert_eq!(world.refused(&token, ask("payments-prod")).await, Code::TokenReplayed);
    world.exchange(&token, only("payments-prod", "sts")).await.unwrap().delivery.confirm();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_are_exactly_one_issuance() {
    let world = Arc::new(World::new().await);
    let token = token("j1", &[]);
    let mut callers = Vec::new();
    for _ in 0..50 {
        callers.push(world.identify(&token).await.unwrap());
    }
    let mut calls = tokio::task::JoinSet::new();
    for caller in callers {
        let world = Arc::clone(&world);
        calls.spawn(async move {
            match world.broker.exchange(caller, only("payments-prod", "npm")).await {
                Ok(Outcome::Issued(issued)) => {
                    issued.delivery.confirm();
                    None
                }
                Ok(Outcome::DryRun(_)) => panic!("a dry run"),
                Err(refused) => Some(refused.code),
            }
        });
    }
    let answers = calls.join_all().await;
    assert_eq!(answers.iter().filter(|code| code.is_none()).count(), 1);
    assert_eq!(answers.iter().filter(|code| **code == Some(Code::TokenReplayed)).count(), 49);
    assert_eq!(world.codes().await.iter().filter(|code| *code == "ISSUED").count(), 1);
}

#[tokio::test]
async fn an_idempotency_key_repeats_twice_and_refuses_another_body() {
    let world = World::new().await;
    let token = token("j1", &[]);
    for _ in 0..3 {
        world.exchange(&token, keyed("a")).await.unwrap().delivery.confirm();
    }
    assert_eq!(world.refused(&token, keyed("b")).await, Code::IdempotencyMismatch);
    assert_eq!(world.refused(&token, keyed("a")).await, Code::TokenReplayed);
}

#[tokio::test]
async fn an_idempotency_key_ends_after_its_minute_and_after_giving_back() {
    let world = World::new().await;
    world.exchange(&token("j1", &[]), keyed("a")).await.unwrap().delivery.confirm();
    world.set_clock(61);
    assert_eq!(world.refused(&token("j1", &[]), keyed("a")).await, Code::TokenReplayed);

    let issued = world.exchange(&token("j2", &[]), keyed("a")).await.unwrap();
    let [npm, _] = issued.issuances.as_slice() else { panic!("two") };
    let handle = Right::Handle(Secret::new(npm.handle.expose().to_vec()));
    world.broker.give_back(&npm.id.to_string(), handle).await.unwrap();
    assert_eq!(world.refused(&token("j2", &[]), keyed("a")).await, Code::TokenReplayed);
}

#[tokio::test]
async fn a_keyed_call_that_is_still_running_is_in_progress() {
    let silent = |mut minters: ports::Minters| {
        minters.insert(Kind::Sealed, Arc::new(Silent));
        minters
    };
    let world = World::new().await.reopened(silent, Duration::from_secs(3)).await;
    let first = world.identify(&token("j1", &[])).await.unwrap();
    let broker = Arc::clone(&world.broker);
    let first = tokio::spawn(async move { broker.exchange(first, keyed("a")).await.err() });
    loop {
        // Until the first call has entered, this one would; hence it asks with a token of its own.
        if !world.broker.running.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(world.refused(&token("j1", &[]), keyed("a")).await, Code::RequestInProgress);
    assert_eq!(world.refused(&token("j1", &[]), keyed("b")).await, Code::IdempotencyMismatch);
    first.abort();
}

#[tokio::test]
async fn an_answer_that_is_dropped_is_undelivered_and_a_stop_waits_for_it() {
    let world = World::new().await;
    let issued = world.exchange(&token("j1", &[]), ask("payments-prod")).await.unwrap();
    assert!(!world.broker.drain(Duration::from_millis(20)).await, "the answer is still being written");
    let thread = std::thread::spawn(move || drop(issued));
    thread.join().unwrap();
    world.drained().await;
    let codes = world.codes().await;
    assert_eq!(codes, ["INTENT", "ISSUED", "INTENT", "ISSUED", "UNDELIVERED", "UNDELIVERED"]);
    let last = world.entries().await.pop().unwrap();
    assert!(last["result"]["usable_until"].is_string());
    assert!(last["policy"]["rule"].is_null());
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_undelivered() {
    let world = World::new().await;
    let caller = world.identify(&token("j1", &[])).await.unwrap();
    let mut call = Box::pin(world.broker.exchange(caller, only("payments-prod", "npm")));
    std::future::poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(call);
    world.drained().await;
    assert_eq!(world.codes().await, ["INTENT", "ISSUED", "UNDELIVERED"]);
}

#[tokio::test]
async fn a_deadline_that_passes_within_the_durable_step_is_undelivered() {
    let world = World::new().await.reopened(|minters| minters, Duration::from_millis(300)).await;
    let caller = world.identify(&token("j1", &[])).await.unwrap();
    let other = rusqlite::Connection::open(world.folder.path().join("hallpass.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = world.broker.exchange(caller, only("payments-prod", "npm")).await.err().unwrap();
    assert_eq!(refused.code, Code::LedgerUnavailable);
    other.execute_batch("COMMIT").unwrap();
    world.drained().await;
    assert_eq!(world.codes().await, ["INTENT", "ISSUED", "UNDELIVERED"]);
}

#[tokio::test]
async fn a_backend_that_is_silent_past_the_deadline_leaves_the_token_its_use() {
    let silent = |mut minters: ports::Minters| {
        minters.insert(Kind::Sealed, Arc::new(Silent));
        minters
    };
    let world = World::new().await.reopened(silent, Duration::from_secs(2)).await;
    assert_eq!(world.refused(&token("j1", &[]), only("payments-prod", "npm")).await, Code::BackendTimeout);
    world.drained().await;
    assert_eq!(world.codes().await, ["INTENT", "FAILED"]);
    let world = world.reopened(|minters| minters, Duration::from_secs(15)).await;
    world.exchange(&token("j1", &[]), only("payments-prod", "npm")).await.unwrap().delivery.confirm();
}

#[tokio::test]
async fn nothing_is_issued_while_the_ledger_cannot_be_written() {
    let world = World::new().await;
    let caller = world.identify(&token("j1", &[])).await.unwrap();
    world.store.close().await;
    let refused = world.broker.exchange(caller, ask("payments-prod")).await.err().unwrap();
    assert_eq!((refused.code, refused.retry_after_seconds), (Code::LedgerUnavailable, Some(1)));
}

#[tokio::test]
async fn a_missing_secret_fails_all_and_claims_nothing() {
    let world = World::new().await;
    let token = token("j1", &[]);
    assert_eq!(world.refused(&token, ask("bare")).await, Code::BackendFailed);
    assert_eq!(world.codes().await, ["INTENT", "FAILED", "INTENT", "FAILED"]);
    let failed = world.entries().await.pop().unwrap();
    assert_eq!(
        failed["result"],
        json!({ "code": "backend_failed", "reason": "secret-missing", "minted": false })
    );
    world.exchange(&token, only("bare", "sts")).await.unwrap().delivery.confirm();
}

#[tokio::test]
async fn a_ttl_below_the_kind_is_out_of_range_only_after_a_permit() {
    let world = World::new().await;
    let mut short = ask("payments-prod");
    short.request.grants[0].ttl = Some(Duration::from_secs(59));
    assert_eq!(world.refused(&token("j1", &[]), short).await, Code::TtlOutOfRange);
    let mut denied = ask("payments-prod");
    denied.request.grants[0].ttl = Some(Duration::from_secs(59));
    let other = token("j2", &[("ref", json!("refs/heads/dev"))]);
    assert_eq!(world.refused(&other, denied).await, Code::AccessDenied);
    let mut with_input = ask("payments-prod");
    with_input.inputs.push(Given {
        grant: "payments-prod".to_owned(),
        credential: "npm".to_owned(),
        name: "csr".to_owned(),
        value: "text".to_owned(),
    });
    assert_eq!(world.refused(&token("j1", &[]), with_input).await, Code::InputInvalid);
    world.exchange(&token("j1", &[]), ask("payments-prod")).await.unwrap().delivery.confirm();
}

#[tokio::test]
async fn a_dry_run_is_recorded_and_claims_nothing() {
    let world = World::new().await;
    let token = token("j1", &[]);
    let caller = world.identify(&token).await.unwrap();
    let dry = Ask { dry_run: true, ..ask("payments-prod") };
    let Ok(Outcome::DryRun(shown)) = world.broker.exchange(caller, dry).await else { panic!("a dry run") };
    let ttls: Vec<_> = shown.previews.iter().map(|each| each.ttl_seconds).collect();
    assert_eq!(ttls, [None, Some(240)]);
    assert_eq!(world.codes().await, ["DRY_RUN"]);
    world.exchange(&token, ask("payments-prod")).await.unwrap().delivery.confirm();
}

#[tokio::test]
async fn what_is_named_twice_is_refused() {
    let world = World::new().await;
    let mut grants = ask("payments-prod");
    grants.request.grants.push(ask("payments-prod").request.grants.remove(0));
    let mut credentials = only("payments-prod", "npm");
    credentials.request.grants[0].credentials = Some(vec!["npm".to_owned(), "npm".to_owned()]);
    for ask in [grants, credentials] {
        assert_eq!(world.refused(&token("j1", &[]), ask).await, Code::RequestMalformed);
    }
}

#[tokio::test]
async fn giving_back_twice_repeats_the_answer_with_one_entry() {
    let world = World::new().await;
    let issued = world.exchange(&token("j1", &[]), ask("payments-prod")).await.unwrap();
    for (at, released) in [(0, None), (1, issued.issuances[1].expires_at)] {
        let one = &issued.issuances[at];
        for _ in 0..2 {
            let handle = Right::Handle(Secret::new(one.handle.expose().to_vec()));
            let back = world.broker.give_back(&one.id.to_string(), handle).await.unwrap();
            assert_eq!(back, GivenBack::Released { usable_until: released, remedy: None });
        }
        let handle = Right::Handle(Secret::new(one.handle.expose().to_vec()));
        let view = world.broker.issuance(&one.id.to_string(), handle).await.unwrap();
        assert_eq!((view.state, view.usable_until), ("released", released));
    }
    issued.delivery.confirm();
    let codes = world.codes().await;
    assert_eq!(codes.iter().filter(|code| *code == "RELEASED").count(), 2);
}

#[tokio::test]
async fn only_the_same_token_or_job_sees_an_issuance() {
    let world = World::new().await;
    let issued = world.exchange(&token("j1", &[]), only("payments-prod", "npm")).await.unwrap();
    let id = issued.issuances[0].id.to_string();
    let holder = |token: String| {
        let broker = Arc::clone(&world.broker);
        async move { broker.identify_holder(Secret::from_text(token), origin()).await.unwrap() }
    };
    let same_job = holder(token("j2", &[])).await;
    assert!(world.broker.issuance(&id, Right::Token(Box::new(same_job))).await.is_ok());
    let foreign = holder(token("j3", &[("run_id", json!("1"))])).await;
    let foreign = world.broker.issuance(&id, Right::Token(Box::new(foreign))).await.err().unwrap();
    let foreign_handle = Right::Handle(Secret::from_text("hdl_x".to_owned()));
    let foreign_handle = world.broker.give_back(&id, foreign_handle).await.err().unwrap();
    let unknown = holder(token("j1", &[])).await;
    let unknown = world.broker.issuance("iss_x", Right::Token(Box::new(unknown))).await.err().unwrap();
    assert_eq!(foreign.code, Code::NotFound);
    assert!(foreign == unknown && foreign == foreign_handle);
    issued.delivery.confirm();
}

#[tokio::test]
async fn five_denials_spend_a_token_and_no_other() {
    let world = World::new().await;
    for _ in 0..5 {
        assert_eq!(world.refused(&token("j1", &[]), ask("nope")).await, Code::AccessDenied);
    }
    let spent = world.exchange(&token("j1", &[]), ask("payments-prod")).await.err().unwrap();
    assert_eq!((spent.code, spent.retry_after_seconds), (Code::RateLimited, Some(290)));
    world.exchange(&token("j2", &[]), ask("payments-prod")).await.unwrap().delivery.confirm();
}

#[tokio::test]
async fn a_refused_set_keeps_the_last_good_one_and_is_an_alert() {
    let world = World::new().await;
    let good = world.broker.policy().unwrap().digest;
    let long = format!("grant: \"{}\"\nallow: []\n", "é".repeat(60_000));
    for bad in ["grant: x\n", &long] {
        let refused = world.broker.offer_policy(policy(&[bad]), None).await;
        assert!(matches!(refused, Err(PolicyRefused::Findings(_))));
    }
    assert_eq!(world.broker.policy().unwrap().digest, good);
    let due = ["POLICY_REJECTED", "ALERT_POLICY_REJECTED", "POLICY_REJECTED", "ALERT_POLICY_REJECTED"];
    assert_eq!(world.codes().await, due);
}

#[tokio::test]
async fn a_broker_without_policy_is_not_ready() {
    let world = World::new().await;
    world.store.close().await;
    let world = World::open(world.folder, |minters| minters, Duration::from_secs(15));
    assert_eq!(world.identify(&token("j1", &[])).await.err().unwrap().code, Code::NotReady);
    assert!(world.broker.readiness().iter().any(|part| part.name == "policy" && part.fault.is_some()));
}

#[tokio::test]
async fn a_token_that_proves_nothing_is_counted_and_is_no_entry() {
    let world = World::new().await;
    for (spoiled, code) in [
        (token("j1", &[("iss", json!("https://evil.test"))]), Code::TokenIssuer),
        (token("j1", &[("aud", json!("https://other.test"))]), Code::TokenAudience),
        (token("j1", &[("exp", json!(NOW - 31))]), Code::TokenExpired),
        (format!("{}AA", token("j1", &[])), Code::TokenSignature),
        ("x".to_owned(), Code::TokenMalformed),
    ] {
        assert_eq!(world.identify(&spoiled).await.err().unwrap().code, code);
    }
    // Two are authentic, and wrong in audience or time only.
    assert_eq!(world.codes().await, ["DENIED", "DENIED"]);
    world.broker.sweep().await.unwrap();
    assert_eq!(world.codes().await, ["DENIED", "DENIED", "SUMMARY", "SUMMARY"]);
}

#[tokio::test]
async fn a_reader_has_one_entry_and_one_count_an_hour() {
    let world = World::new().await;
    let reader = query::Reader { name: "first-auditor".to_owned() };
    for _ in 0..3 {
        world.broker.ledger_entry(&reader, 0).await.unwrap();
    }
    assert_eq!(world.codes().await, ["READ"]);
    world.set_clock(3_600);
    world.broker.ledger_entry(&reader, 0).await.unwrap();
    world.broker.sweep().await.unwrap();
    let entries = world.entries().await;
    let counts: Vec<_> = entries
        .iter()
        .filter(|entry| entry["code"] == "READ")
        .map(|entry| entry["result"]["count"].clone())
        .collect();
    assert_eq!(counts, [Value::Null, json!(3), Value::Null]);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_read() {
    let world = World::new().await;
    let reader = query::Reader { name: "first-auditor".to_owned() };
    let other = rusqlite::Connection::open(world.folder.path().join("hallpass.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..2 {
        let refused = world.broker.ledger_entry(&reader, 0).await.err().unwrap();
        assert_eq!(refused.code, Code::LedgerUnavailable);
    }
    other.execute_batch("COMMIT").unwrap();
}
