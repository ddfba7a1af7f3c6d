//! The laws of a store, on both engines, on real files and a real server: each test has a database of its own.

/// Makes tests of laws, one on each engine.
macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        mod on_postgres {
            $(
                #[tokio::test]
                async fn $law() {
                    super::$law(super::Engine::Postgres).await;
                }
            )*
        }
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $law() {
                    super::$law(super::Engine::Sqlite).await;
                }
            )*
        }
    };
}

mod assertions;
#[expect(dead_code, reason = "the tests of what is served use all of it")]
#[path = "../../../../tests/served/support/cluster.rs"]
mod cluster;
mod freeze;
mod issue;
mod ledger;
mod policy;
mod quota;
mod refuse;
mod replicas;
mod rotation;
pub(super) mod secrets;
mod staged;
mod transit;

use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::json;

pub(super) use self::cluster::Cluster;
use super::{
    postgres::{Place, Roles},
    *,
};
use crate::{
    broker::{
        Entropy,
        ports::{
            Beat, ClaimRefused, Claims, EntryQuery, Holder, Issue, IssueVerdict, KeyClaim, NewIssuance,
            Receipt, Refusal, Selection, Skew, Stage, Store as _, StoreFault, StoredEntry, Summary, Transit,
            Transition,
        },
    },
    kernel::{
        digest::Digest,
        freeze::{Freezable, Freeze, FreezeScope},
        id::{DecisionId, IssuanceId, ReplicaId},
        ledger::{
            entry::{Draft, Entry, EntryCode, Personal},
            proof::TlogProof,
            tree::{leaf_hash, root_from_inclusion},
        },
        lifetime::{Lifetime, after},
        name::{CredentialName, GrantName, IssuerName},
        policy::target::Kind,
        policy::target::Making,
        sealing::{Keyring, SealingKey},
        secret::Secret,
    },
};

pub(super) const ORIGIN: &str = "hallpass.example.com/ledger";

/// An engine.
#[derive(Clone, Copy)]
pub(super) enum Engine {
    Postgres,
    Sqlite,
}

/// A store with a database of its own.
pub(super) struct Bench {
    pub(super) store: Arc<Database>,
    pub(super) place: StorePlace,
    /// The database on the server, or nothing.
    name: String,
    _folder: Option<tempfile::TempDir>,
}

impl Bench {
    pub(super) fn on(engine: Engine) -> Self {
        match engine {
            Engine::Postgres => {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                let name = format!("bench{}", NEXT.fetch_add(1, Ordering::SeqCst));
                server().psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE made"));
                let place = StorePlace::Postgres(place_of(server(), WRITER, &name));
                Self { store: open(&place), place, name, _folder: None }
            }
            Engine::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("hallpass.db");
                std::fs::write(&path, template()).unwrap();
                let place = StorePlace::Sqlite(path);
                Self { store: open(&place), place, name: String::new(), _folder: Some(folder) }
            }
        }
    }

    /// The same database in the hands of another process, as far as the engine is concerned.
    pub(super) fn other(&self) -> Arc<Database> {
        open(&self.place)
    }

    pub(super) async fn reopened(self) -> Self {
        self.store.close().await;
        let store = open(&self.place);
        Self { store, ..self }
    }

    /// Does to the database what only somebody with other tools does.
    pub(super) fn execute(&self, on_sqlite: &str, on_postgres: &str) {
        match &self.place {
            StorePlace::Postgres(_) => drop(self.psql(on_postgres)),
            StorePlace::Sqlite(path) => raw(path).execute_batch(on_sqlite).unwrap(),
        }
    }

    /// The first column of each row.
    pub(super) fn rows(&self, on_sqlite: &str, on_postgres: &str) -> Vec<String> {
        match &self.place {
            StorePlace::Postgres(_) => self.psql(on_postgres).lines().map(str::to_owned).collect(),
            StorePlace::Sqlite(path) => {
                let conn = raw(path);
                let mut rows = conn.prepare(on_sqlite).unwrap();
                let read = rows.query_map([], |row| row.get(0)).unwrap();
                read.map(Result::unwrap).collect()
            }
        }
    }

    fn psql(&self, statements: &str) -> String {
        server().psql(&self.name, &format!("SET search_path = hallpass; {statements}"))
    }

    pub(super) fn count(&self, table: &str) -> i64 {
        let count = format!("SELECT CAST(count(*) AS TEXT) FROM {table}");
        self.rows(&count, &count)[0].parse().unwrap()
    }

    pub(super) fn codes(&self) -> Vec<String> {
        let codes = "SELECT code FROM entry ORDER BY idx";
        self.rows(codes, codes)
    }

    /// Lets no row into a table any more, as a full disk would.
    fn fill_up(&self, table: &str) {
        self.execute(
            &format!(
                "CREATE TRIGGER no_room BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no room'); END"
            ),
            &format!("ALTER TABLE {table} ADD CONSTRAINT no_room CHECK (false) NOT VALID"),
        );
    }

    fn make_room(&self, table: &str) {
        self.execute("DROP TRIGGER no_room", &format!("ALTER TABLE {table} DROP CONSTRAINT no_room"));
    }
}

pub(super) fn raw(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(5)).unwrap();
    conn
}

fn open(place: &StorePlace) -> Arc<Database> {
    open_with(place, key(1), Options::default()).unwrap()
}

/// The same with other sealing keys; why not, where it does not open.
fn open_with(
    place: &StorePlace,
    keys: impl Into<Keyring>,
    options: Options,
) -> Result<Arc<Database>, String> {
    let opened = match place {
        StorePlace::Postgres(place) => {
            Postgres::open(place, keys, options).map(Database::Postgres).map_err(|fault| fault.to_string())
        }
        StorePlace::Sqlite(path) => {
            Sqlite::open(path, keys, options).map(Database::Sqlite).map_err(|fault| fault.to_string())
        }
    };
    opened.map(Arc::new)
}

/// The role of brokers, the one of auditors, and the one that owns the schema.
pub(super) const WRITER: &str = "writer";
pub(super) const READER: &str = "reader";
pub(super) const OWNER: &str = "owner";

/// The server of this run, with a database `made` that holds an empty store.
fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let cluster = Cluster::start(None, "");
        with_store(&cluster, "made");
        cluster
    })
}

/// Makes a database with an empty store, and the roles where they are not there.
pub(super) fn with_store(cluster: &Cluster, name: &str) {
    for role in [OWNER, WRITER, READER] {
        cluster.role(role);
    }
    cluster.psql("postgres", &format!("CREATE DATABASE {name} OWNER {OWNER}"));
    let roles = Roles { writer: Some(WRITER.to_owned()), reader: Some(READER.to_owned()) };
    Postgres::create(&place_of(cluster, OWNER, name), &key(1), genesis(), roles).unwrap();
}

pub(super) fn place_of(cluster: &Cluster, role: &str, database: &str) -> Place {
    Place::parse(&cluster.url(role, database), Path::new("")).unwrap()
}

pub(super) fn key(byte: u8) -> Arc<SealingKey> {
    Arc::new(SealingKey::new(Secret::new(vec![byte; 32])).unwrap())
}

pub(super) fn random(out: &mut [u8]) -> bool {
    Entropy::Os.fill(out).is_ok()
}

pub(super) fn genesis() -> Genesis<'static> {
    Genesis { origin: ORIGIN, now: now(), random: &random }
}

/// The bytes of a new database: made once, since its RSA key takes time.
pub(super) fn template() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("template.db");
        Sqlite::create(&path, &key(1), genesis()).unwrap();
        std::fs::read(path).unwrap()
    })
}

pub(super) fn now() -> Timestamp {
    "2027-01-13T10:00:00Z".parse().unwrap()
}

pub(super) fn later(seconds: u64) -> Timestamp {
    after(now(), Duration::from_secs(seconds))
}

pub(super) fn fresh<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    assert!(random(&mut bytes));
    bytes
}

pub(super) fn entry(code: EntryCode) -> Entry {
    sealed(Draft { code: Some(code), ..Draft::default() })
}

pub(super) fn sealed(draft: Draft) -> Entry {
    draft.seal(now(), ReplicaId::from_bytes([7; 16]), &random).unwrap()
}

/// The step of a permitted exchange: one sealed credential, one use, no key. Each call is another decision on the
/// same token.
pub(super) fn issue() -> Issue {
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
        stage: Stage::Whole,
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

pub(super) fn row() -> NewIssuance {
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
        making: Making::Harmless,
    }
}

/// The same with an idempotency key.
pub(super) fn keyed(body: &[u8], seconds: u64) -> Issue {
    with_key(KeyClaim { key: Digest::of(b"key"), body: Digest::of(body) }, seconds)
}

fn with_key(claim: KeyClaim, seconds: u64) -> Issue {
    let mut issue = Issue { now: later(seconds), ..issue() };
    issue.claims.key = Some(claim);
    issue
}

/// The same for other uses, one a credential.
pub(super) fn using(mut issue: Issue, uses: &[&str]) -> Issue {
    issue.claims.once = uses.iter().map(|each| vec![Digest::of(each.as_bytes())]).collect();
    issue
}

pub(super) fn word(verdict: &IssueVerdict) -> &'static str {
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
        ClaimRefused::InProgress => "in-progress",
        ClaimRefused::ReplaceFirst(_) => "replace-first",
        ClaimRefused::Mismatch => "mismatch",
        ClaimRefused::Replayed => "replayed",
    }
}

pub(super) async fn verdict(store: &Database, issue: Issue) -> &'static str {
    word(&store.issue(issue).await.unwrap())
}

/// Checks a receipt as whoever holds one would: against nothing but the ledger's public key.
pub(super) fn assert_proves(store: &Database, receipt: &Receipt) {
    let proof = TlogProof::parse(&receipt.proof).unwrap();
    let head = store.verifier_key().open(&proof.checkpoint).unwrap();
    assert_eq!(proof.index, receipt.index);
    let leaf = leaf_hash(&receipt.entry);
    assert_eq!(root_from_inclusion(receipt.index, head.size, &leaf, &proof.hashes), Some(head.root));
}

/// Waits until the store says that it is well again.
pub(super) async fn until_well(store: &Database) {
    let well = async {
        while store.health().is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), well).await.unwrap();
}
