//! A ledger as a broker writes it, through the store, and what a verifier holds of it from elsewhere.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hallpass::{
    adapters::store::{Genesis, Options, Sqlite},
    broker::{audit, ports::Store as _},
    kernel::{
        id::{DecisionId, IssuanceId, ReplicaId},
        ledger::{
            checkpoint::{LogKey, VerifierKey},
            entry::{Draft, Entry, EntryCode, Personal},
            subject::Subject,
            verify::{Anchor, Report},
        },
        sealing::{PURPOSE_KEY, Sealed, SealedRecord, SealingKey},
        secret::Secret,
    },
};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::Stream;

pub(crate) const ORIGIN: &str = "hallpass.test/ledger";

/// A log in a folder of its own.
pub(crate) struct Log {
    pub(crate) folder: TempDir,
    pub(crate) store: Arc<Sqlite>,
    pub(crate) stream: Stream,
    pub(crate) size: u64,
    /// The note of each head that a batch left.
    pub(crate) notes: Vec<String>,
    pub(crate) receipts: Vec<String>,
    issuances: u64,
}

/// A log that is closed: its one file, and what is held from elsewhere.
pub(crate) struct Closed {
    pub(crate) database: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) notes: Vec<String>,
    pub(crate) anchors: Vec<Anchor>,
    pub(crate) key: VerifierKey,
}

pub(crate) fn block<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

pub(crate) fn sealing() -> Arc<SealingKey> {
    Arc::new(SealingKey::new(Secret::new(vec![1; 32])).unwrap())
}

/// The bytes of a new database: made once, since its RSA key takes time.
fn template() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("template.db");
        let random = |out: &mut [u8]| {
            let mut stream = Stream::new(u64::try_from(out.len()).unwrap());
            out.iter_mut().for_each(|byte| *byte = u8::try_from(stream.below(256)).unwrap());
            true
        };
        let now = "2027-01-13T10:00:00Z".parse().unwrap();
        Sqlite::create(&path, &sealing(), Genesis { origin: ORIGIN, now, random: &random }).unwrap();
        std::fs::read(path).unwrap()
    })
}

impl Log {
    pub(crate) fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hallpass.db");
        std::fs::write(&path, template()).unwrap();
        let store = Sqlite::open(&path, sealing(), Options::default()).unwrap();
        let stream = Stream::new(seed);
        Self { folder, store, stream, size: 0, notes: Vec::new(), receipts: Vec::new(), issuances: 0 }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("hallpass.db")
    }

    /// Some exchanges, refusals and readings, as one batch.
    pub(crate) fn append(&mut self, calls: usize) {
        let entries: Vec<Entry> = (0..calls).flat_map(|_| self.call()).collect();
        let ids: Vec<_> = entries.iter().map(|entry| (entry.code, entry.issuance)).collect();
        let receipts = block(self.store.append(entries)).unwrap();
        self.size += u64::try_from(receipts.len()).unwrap();
        for (receipt, (code, issuance)) in receipts.into_iter().zip(ids) {
            if let (EntryCode::Issued, Some(issuance)) = (code, issuance) {
                let text = json!({
                    "issuance": issuance.to_string(), "index": receipt.index,
                    "entry": STANDARD.encode(&receipt.entry), "proof": receipt.proof,
                });
                self.receipts.push(text.to_string());
            }
        }
        self.notes.push(block(self.store.checkpoint()).unwrap());
    }

    /// What one call leaves in the ledger.
    fn call(&mut self) -> Vec<Entry> {
        self.issuances += 1;
        let number = self.issuances;
        let id = |kind: u64| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            bytes[8..].copy_from_slice(&kind.to_be_bytes());
            bytes
        };
        let decision = Some(DecisionId::from_bytes(id(1)));
        let issuance = Some(IssuanceId::from_bytes(id(2)));
        let person = |field: &'static str| Personal { field, value: format!("{field} ö {number}") };
        let claims = json!({
            "repository": "acme/payments", "run_id": number.to_string(), "n": number,
            "actor": format!("actor ö {number}"),
        });
        let named = [("issuer", "github"), ("project", "701"), ("ref", "refs/heads/main")];
        let mut members = named.map(|(name, value)| (name, value.into()));
        let claims = claims.as_object().unwrap();
        let subject = Arc::new(Subject::new(&mut members, claims, |name| name == "actor").unwrap());
        let of = |code| Draft {
            decision,
            issuance,
            subject: Some(Arc::clone(&subject)),
            policy: Some(json!({ "grant": "payments-prod" })),
            ..Draft::of(code)
        };
        let people = vec![person("address"), person("reason")];
        let drafts = match self.stream.below(5) {
            0 => vec![Draft {
                decision,
                subject: Some(Arc::clone(&subject)),
                request: Some(json!({ "grants": [{ "name": "other" }, { "name": "third" }] })),
                personal: people,
                ..Draft::of(EntryCode::Denied)
            }],
            1 => vec![Draft {
                result: Some(json!({ "reader": "first-auditor", "what": "entries" })),
                personal: vec![person("query")],
                ..Draft::of(EntryCode::Read)
            }],
            2 => vec![
                Draft { personal: people, ..of(EntryCode::Intent) },
                Draft { result: Some(json!({ "minted": false })), ..of(EntryCode::Failed) },
            ],
            _ => vec![Draft { personal: people, ..of(EntryCode::Intent) }, of(EntryCode::Issued)],
        };
        let at = "2027-01-13T10:00:00Z".parse::<Timestamp>().unwrap()
            + SignedDuration::from_millis(i64::try_from(number * 137).unwrap());
        drafts.into_iter().map(|draft| self.seal(draft, at)).collect()
    }

    pub(crate) fn seal(&mut self, draft: Draft, at: Timestamp) -> Entry {
        let stream = std::cell::RefCell::new(Stream::new(self.stream.next()));
        let random = |out: &mut [u8]| {
            out.iter_mut().for_each(|byte| *byte = u8::try_from(stream.borrow_mut().below(256)).unwrap());
            true
        };
        draft.seal(at, ReplicaId::from_bytes([7; 16]), &random).unwrap()
    }

    /// What whoever verifies holds: the newest head, one of the middle, one early, and some receipts.
    pub(crate) fn anchors(&self) -> Vec<Anchor> {
        let last = self.notes.len() - 1;
        let notes = [last, last / 2, last / 5].map(|at| self.notes[at].clone());
        let receipts = self.receipts.iter().step_by(7).cloned();
        let texts = notes.into_iter().chain(receipts);
        (0..)
            .zip(texts)
            .map(|(n, text): (u32, _)| Anchor { name: format!("{n}"), bytes: text.into_bytes() })
            .collect()
    }

    pub(crate) fn close(self) -> Closed {
        let (anchors, key, path) = (self.anchors(), self.store.verifier_key(), self.path());
        block(self.store.close());
        // One file, so that a copy of it is a copy of everything.
        let conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "journal_mode", "DELETE").unwrap();
        drop(conn);
        let database = std::fs::read(path).unwrap();
        Closed { database, size: self.size, notes: self.notes, anchors, key }
    }
}

impl Closed {
    /// The store's own way to verify, with key and anchors from elsewhere.
    pub(crate) fn verify(&self, path: &Path, anchors: Vec<Anchor>) -> Report {
        let store = Sqlite::inspect(path).unwrap();
        let report = block(audit::of_store(&*store, Some(self.key.clone()), anchors)).unwrap();
        block(store.close());
        report
    }
}

/// The ledger's signing key, as whoever has database and sealing key can take it.
pub(crate) fn stolen_key(conn: &Connection) -> LogKey {
    let of = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
    let (version, bytes) =
        conn.query_row("SELECT version, sealed FROM keys WHERE purpose = 'ledger'", [], of).unwrap();
    let of = Sealed { purpose: PURPOSE_KEY, name: "ledger", version: u64::try_from(version).unwrap() };
    let seed = sealing().open(of, &SealedRecord { bytes }).ok().unwrap();
    LogKey::from_seed(ORIGIN, &seed).unwrap()
}
