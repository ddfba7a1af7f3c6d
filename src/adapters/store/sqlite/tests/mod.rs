//! The store's laws, on real files: each test has a database of its own.

mod freeze;
mod issue;
mod ledger;
mod open;
mod policy;
mod quota;
mod refuse;
mod replicas;
mod rotation;
mod secrets;
mod transit;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::json;

use super::*;
use crate::{
    broker::{
        Entropy,
        ports::{KeyClaim, NewIssuance},
    },
    kernel::{
        id::DecisionId,
        ledger::{
            entry::{Draft, EntryCode, Personal},
            proof::TlogProof,
            tree::{leaf_hash, root_from_inclusion},
        },
        lifetime::{Lifetime, after},
        name::{CredentialName, GrantName, IssuerName},
        policy::target::Kind,
        sealing::SealingKey,
    },
};

const ORIGIN: &str = "hallpass.example.com/ledger";

/// A store with a folder of its own.
struct Bench {
    store: Arc<Sqlite>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hallpass.db");
        std::fs::write(&path, template()).unwrap();
        Self { store: open(&path), path, _folder: folder }
    }

    /// The same file in the hands of another process, as far as SQLite is concerned.
    fn other(&self) -> Arc<Sqlite> {
        open(&self.path)
    }

    async fn reopened(self) -> Self {
        self.store.close().await;
        let store = open(&self.path);
        Self { store, ..self }
    }

    /// A connection that does to the file what only somebody with other tools does.
    fn raw(&self) -> Connection {
        let conn = Connection::open(&self.path).unwrap();
        conn.busy_timeout(Duration::from_secs(5)).unwrap();
        conn
    }

    fn count(&self, table: &str) -> i64 {
        self.raw().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    fn codes(&self) -> Vec<String> {
        let conn = self.raw();
        let mut rows = conn.prepare("SELECT code FROM entry ORDER BY idx").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

fn open(path: &Path) -> Arc<Sqlite> {
    Sqlite::open(path, key(1), Options::default()).unwrap()
}

fn key(byte: u8) -> Arc<SealingKey> {
    Arc::new(SealingKey::new(Secret::new(vec![byte; 32])).unwrap())
}

fn random(out: &mut [u8]) -> bool {
    Entropy::Os.fill(out).is_ok()
}

fn genesis() -> Genesis<'static> {
    Genesis { origin: ORIGIN, now: now(), random: &random }
}

/// The bytes of a new database: made once, since its RSA key takes time.
fn template() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("template.db");
        Sqlite::create(&path, &key(1), genesis()).unwrap();
        std::fs::read(path).unwrap()
    })
}

fn now() -> Timestamp {
    "2027-01-13T10:00:00Z".parse().unwrap()
}

fn later(seconds: u64) -> Timestamp {
    after(now(), Duration::from_secs(seconds))
}

fn fresh<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    assert!(random(&mut bytes));
    bytes
}

fn entry(code: EntryCode) -> Entry {
    sealed(Draft { code: Some(code), ..Draft::default() })
}

fn sealed(draft: Draft) -> Entry {
    draft.seal(now(), ReplicaId::from_bytes([7; 16]), &random).unwrap()
}

/// The step of a permitted exchange: one sealed credential, one use, no key. Each call is another decision on the
/// same token.
fn issue() -> Issue {
    let decision = DecisionId::new(now(), fresh());
    let row = row();
    let outcome = |code| {
        sealed(Draft {
            code: Some(code),
            decision: Some(decision),
            issuance: Some(row.id),
            policy: Some(json!({ "grant": "demo" })),
            ..Draft::default()
        })
    };
    Issue {
        decision,
        claims: Claims {
            key: None,
            once: vec![vec![Digest::of(b"token 1, demo, npm, 1")]],
            quotas: Vec::new(),
            freezable: freezable(),
        },
        once_until: later(960),
        entries: vec![outcome(EntryCode::Intent), outcome(EntryCode::Issued)],
        rows: vec![row],
        failed: false,
        sealed_generation: None,
        now: now(),
    }
}

/// That job, with the key that signed its token.
fn freezable() -> Freezable {
    Freezable {
        issuer: IssuerName::parse("github").unwrap(),
        kid: "k1".to_owned(),
        thumbprint: Digest::of(b"key 1"),
        project: Some("701".to_owned()),
        grants: vec![GrantName::parse("demo").unwrap()],
    }
}

fn row() -> NewIssuance {
    NewIssuance {
        id: IssuanceId::new(now(), fresh()),
        grant: GrantName::parse("demo").unwrap(),
        credential: CredentialName::parse("npm").unwrap(),
        kind: Kind::Sealed,
        handle: Digest::of(b"handle"),
        issuer: IssuerName::parse("github").unwrap(),
        token: Digest::of(b"token 1"),
        project: Some("701".to_owned()),
        job: Some(Digest::of(b"job 1")),
        lifetime: Lifetime::Static,
        issued_at: now(),
        expires_at: None,
        live_until: None,
        revocable: false,
        owner: ReplicaId::from_bytes([7; 16]),
        recover_after: later(45),
    }
}

/// The same with an idempotency key.
fn keyed(body: &[u8], seconds: u64) -> Issue {
    with_key(KeyClaim { key: Digest::of(b"key"), body: Digest::of(body) }, seconds)
}

fn with_key(claim: KeyClaim, seconds: u64) -> Issue {
    let mut issue = Issue { now: later(seconds), ..issue() };
    issue.claims.key = Some(claim);
    issue
}

/// The same for other uses, one a credential.
fn using(mut issue: Issue, uses: &[&str]) -> Issue {
    issue.claims.once = uses.iter().map(|each| vec![Digest::of(each.as_bytes())]).collect();
    issue
}

fn word(verdict: &IssueVerdict) -> &'static str {
    match verdict {
        IssueVerdict::Moved => "moved",
        IssueVerdict::Recorded(_) => "recorded",
        IssueVerdict::Refused(refused) => refused_word(refused),
    }
}

fn refused_word(refused: &ClaimRefused) -> &'static str {
    match refused {
        ClaimRefused::Exceeded(_) => "exceeded",
        ClaimRefused::Frozen(_) => "frozen",
        ClaimRefused::Mismatch => "mismatch",
        ClaimRefused::Replayed => "replayed",
    }
}

async fn verdict(store: &Sqlite, issue: Issue) -> &'static str {
    word(&store.issue(issue).await.unwrap())
}

/// Checks a receipt as whoever holds one would: against nothing but the ledger's public key.
fn assert_proves(store: &Sqlite, receipt: &Receipt) {
    let proof = TlogProof::parse(&receipt.proof).unwrap();
    let head = store.verifier_key().open(&proof.checkpoint).unwrap();
    assert_eq!(proof.index, receipt.index);
    let leaf = leaf_hash(&receipt.entry);
    assert_eq!(root_from_inclusion(receipt.index, head.size, &leaf, &proof.hashes), Some(head.root));
}

/// Waits until the store says that it is well again.
async fn until_well(store: &Sqlite) {
    let well = async {
        while store.health().is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), well).await.unwrap();
}
