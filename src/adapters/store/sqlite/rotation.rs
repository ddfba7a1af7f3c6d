//! Other keys in the place of those that the store has: the ledger's, and the sealing key over all of them. Each change
//! is one transaction with its KEY_ROTATED entry, so that a crash leaves the one or the other.
//!
//! The ledger's old key signs that the new one comes after it, together with the new one; then its seed is gone, and
//! only its public half is kept. A sealing key that changes opens nothing and seals nothing: data keys are wrapped anew
//! under it, and what they sealed stays as it is.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{
    Sqlite, Trouble,
    batch::{Batch, Command},
    keys::{self, LEDGER},
    open::{self, OpenFault, read_meta},
    schema::{moment, signed, stored, unsigned},
};
use crate::{
    adapters::store::shared::columns::Prepared,
    broker::ports::{SealedSecret, StoreFault},
    kernel::{
        digest::Digest,
        ledger::{
            checkpoint::{Checkpoint, LogKey, NoteFault, VerifierKey},
            entry::Entry,
        },
        name::SecretName,
        sealing::{
            Keyring, PURPOSE_KEY, PURPOSE_SECRET, RANDOM_BYTES, SealFault, Sealed, SealedRecord, SealingKey,
        },
        secret::Secret,
    },
};

/// The fact that tells which sealing key the store is sealed with.
pub(super) const SEALING_CHECK: &str = "sealing_check";
/// The fact that tells which sealing keys the broker knows that serves the store.
const SERVED_WITH: &str = "sealing_served_with";
/// The fact that tells of the ledger's keys before this one.
const PAST_KEYS: &str = "ledger_keys_past";
/// How often a change is tried again because somebody else changed the same key meanwhile.
const TRIES: usize = 5;
/// The bytes of an Ed25519 seed.
const SEED_BYTES: usize = 32;

/// What the KEY_ROTATED entry of the ledger's key tells.
pub struct Handover {
    /// The version that comes.
    pub version: u64,
    /// The key that goes.
    pub old: VerifierKey,
    /// The key that comes.
    pub new: VerifierKey,
    /// A checkpoint of the tree before the entry that names the new key, signed by both.
    pub checkpoint: String,
}

/// What the KEY_ROTATED entry of the sealing key tells.
pub struct SealingHandover {
    /// The check of the key that goes.
    pub old: Digest,
    /// The check of the key that comes.
    pub new: Digest,
    /// How many records were wrapped anew.
    pub records: u64,
}

/// What a change of keys came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated<T> {
    /// The index of its entry; `None` where there was nothing to do.
    pub index: Option<u64>,
    /// What there is to tell.
    pub told: T,
}

/// A key that the store holds, or held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldKey {
    /// What it is for.
    pub purpose: String,
    /// Its version.
    pub version: u64,
    /// Its public half, where it is a key of the ledger.
    pub verifier: Option<VerifierKey>,
    /// When it was made.
    pub made_at: Timestamp,
    /// When another came in its place.
    pub retired_at: Option<Timestamp>,
}

/// Why no key was changed.
#[derive(Debug, thiserror::Error)]
pub enum RotationFault {
    /// Somebody else kept changing the same key.
    #[error("the key was changed by somebody else at the same time; try again")]
    Contended,
    /// Its entry could not be made.
    #[error("the ledger entry could not be made")]
    Entry,
    /// There were no random bytes.
    #[error("no random bytes from the operating system")]
    NoEntropy,
    /// The broker that serves this store does not know the new sealing key.
    #[error(
        "the broker that serves this database does not know the new sealing key, and could open nothing any more: send it \
         SIGHUP, so that it reads its configuration, and try again"
    )]
    NotServed,
    /// Looking for a serving broker.
    #[error(transparent)]
    Open(#[from] OpenFault),
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealFault),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// Records that no known key opens.
    #[error("{0} is sealed with a key that is not at hand; nothing was changed")]
    Unknown(String),
}

/// Fills a slice with random bytes; false where there are none.
pub type Random = Arc<dyn Fn(&mut [u8]) -> bool + Send + Sync>;
/// Makes an entry of what there is to tell; none where it cannot be made.
pub type Telling<T> = Arc<dyn Fn(&T) -> Option<Entry> + Send + Sync>;

impl Sqlite {
    /// Puts a new ledger key in the place of the one that there is. From this transaction on every process signs with
    /// it.
    ///
    /// # Errors
    ///
    /// [`RotationFault`]; then nothing changed.
    pub async fn rotate_ledger_key(
        &self,
        now: Timestamp,
        random: Random,
        tell: Telling<Handover>,
    ) -> Result<Rotated<VerifierKey>, RotationFault> {
        let keyring = self.keyring().ok_or_else(read_only)?;
        for _ in 0..TRIES {
            let standing = self.read(|conn| -> Result<_, Trouble> {
                Ok((keys::version(conn, LEDGER)?, read_meta(conn, SEALING_CHECK)?))
            });
            let (before, check) = standing.await?;
            let seed = fresh(&random, SEED_BYTES)?;
            let of = Sealed { purpose: PURPOSE_KEY, name: LEDGER, version: before.saturating_add(1) };
            let sealing = keyring.of(&check).ok_or(SealFault::WrongKey)?;
            let record = sealing.seal(of, &seed, &fresh(&random, RANDOM_BYTES)?)?;
            let rotate = RotateLedger { before, seed, record, check, now, tell: Arc::clone(&tell) };
            match self.submit(rotate).await? {
                (Found::Done(told, place), committed) => {
                    return Ok(Rotated { index: Some(committed.first.saturating_add(place)), told });
                }
                (Found::Moved, _) => {}
                (Found::Refused(fault), _) => return Err(fault),
            }
        }
        Err(RotationFault::Contended)
    }

    /// Wraps whatever is sealed under the newest sealing key.
    ///
    /// # Errors
    ///
    /// [`RotationFault`]; then nothing changed.
    pub async fn rewrap(
        &self,
        random: Random,
        tell: Telling<SealingHandover>,
    ) -> Result<Rotated<u64>, RotationFault> {
        let keyring = self.keyring().ok_or_else(read_only)?.clone();
        let newest = keyring.newest().ok_or(SealFault::WrongKey)?;
        let is_served = open::is_served(self.readers.path())?;
        let rewrap = Rewrap { keyring, newest, is_served, random, tell };
        match self.submit(rewrap).await? {
            (Found::Done((told, is_entry), place), committed) => {
                Ok(Rotated { index: is_entry.then(|| committed.first.saturating_add(place)), told })
            }
            (Found::Moved, _) => Err(RotationFault::Contended),
            (Found::Refused(fault), _) => Err(fault),
        }
    }

    /// Says in the store which sealing keys this broker knows, so that nobody wraps what it then cannot open; reads the
    /// sealed records anew.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn announce(&self, known: &Keyring) -> Result<(), StoreFault> {
        self.submit(Announce(known.checks())).await.map(drop)
    }

    /// Which of the sealing keys at hand the store is sealed with.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn sealed_with(&self) -> Result<Digest, StoreFault> {
        self.read(|conn| {
            let check = <[u8; 32]>::try_from(read_meta(conn, SEALING_CHECK)?);
            check.map(Digest).map_err(|_| Trouble::Damaged("what tells the sealing key is no digest"))
        })
        .await
    }

    /// The keys that the store holds, and those of the ledger that it held; oldest first within a purpose.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn held_keys(&self) -> Result<Vec<HeldKey>, StoreFault> {
        self.read(|conn| -> Result<_, Trouble> {
            let own = VerifierKey::parse(&open::read_text(conn, "ledger_key")?);
            let past = past_keys(conn)?.into_iter().map(|past| HeldKey {
                purpose: LEDGER.to_owned(),
                version: past.version,
                verifier: VerifierKey::parse(&past.key),
                made_at: past.made_at,
                retired_at: Some(past.retired_at),
            });
            let mut held: Vec<HeldKey> = past.collect();
            let mut rows =
                conn.prepare_cached("SELECT purpose, version, made_at FROM keys ORDER BY purpose")?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?, moment(row, 2)?)))?;
            for row in rows {
                let (purpose, version, made_at): (String, _, _) = row?;
                let verifier = own.clone().filter(|_| purpose == LEDGER);
                held.push(HeldKey { purpose, version, verifier, made_at, retired_at: None });
            }
            held.sort_by(|a, b| (&a.purpose, a.version).cmp(&(&b.purpose, b.version)));
            Ok(held)
        })
        .await
    }

    /// Opens a note that one of the ledger's keys signed, of today or before.
    ///
    /// # Errors
    ///
    /// [`StoreFault`]; within it [`NoteFault`].
    pub async fn open_checkpoint(&self, note: &str) -> Result<Result<Checkpoint, NoteFault>, StoreFault> {
        let past = self.read(past_keys).await?;
        let past = past.iter().rev().filter_map(|past| VerifierKey::parse(&past.key));
        let mut outcome = self.verifier_key().open(note);
        for key in past {
            if outcome == Err(NoteFault::Unsigned) {
                outcome = key.open(note);
            }
        }
        Ok(outcome)
    }
}

/// Whether that is the sealing key that the store is sealed with.
pub(super) fn is_sealed_with(conn: &Connection, check: &[u8]) -> rusqlite::Result<bool> {
    Ok(fact(conn, SEALING_CHECK)?.as_deref() == Some(check))
}

fn read_only() -> StoreFault {
    StoreFault::Unavailable("the store was opened for reading only".to_owned())
}

fn fresh(random: &Random, bytes: usize) -> Result<Secret, RotationFault> {
    let mut fresh = vec![0; bytes];
    if random(&mut fresh) { Ok(Secret::new(fresh)) } else { Err(RotationFault::NoEntropy) }
}

/// A key of the ledger that was.
#[derive(Serialize, Deserialize)]
struct PastKey {
    version: u64,
    key: String,
    made_at: Timestamp,
    retired_at: Timestamp,
}

fn past_keys(conn: &Connection) -> Result<Vec<PastKey>, Trouble> {
    let Some(text) = fact(conn, PAST_KEYS)? else { return Ok(Vec::new()) };
    serde_json::from_slice(&text).map_err(|_| Trouble::Damaged("what is told of past keys cannot be read"))
}

fn fact(conn: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut row = conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    row.query_row([name], |row| row.get(0)).optional()
}

fn set_fact(conn: &Connection, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    let mut put = conn.prepare_cached(
        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?;
    put.execute(params![name, value])?;
    Ok(())
}

/// What a command of this room found.
enum Found<T> {
    /// It was done; its entry has that place in the batch.
    Done(T, u64),
    /// The key is another than it was made for.
    Moved,
    /// It cannot be done.
    Refused(RotationFault),
}

struct RotateLedger {
    before: u64,
    seed: Secret,
    record: SealedRecord,
    check: Vec<u8>,
    now: Timestamp,
    tell: Telling<Handover>,
}

impl Command for RotateLedger {
    type Found = Found<VerifierKey>;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Self::Found> {
        let is_newest = keys::version(batch.conn, LEDGER)? == self.before;
        if !is_newest || batch.next_key.is_some() || !is_sealed_with(batch.conn, &self.check)? {
            return Ok(Found::Moved);
        }
        let Some(next) = LogKey::from_seed(&batch.signer.origin, &self.seed) else {
            return Ok(Found::Refused(RotationFault::NoEntropy));
        };
        // The tree right before the entry, with what this batch appends before it.
        let leaves: Vec<Digest> = batch.entries.iter().map(|prepared| prepared.entry.leaf).collect();
        let place = leaves.len();
        let before = batch.head.frontier.append(&leaves);
        let (size, root) = (before.frontier.size(), before.frontier.root());
        let old = &batch.signer.key;
        let handover = Handover {
            version: self.before.saturating_add(1),
            old: old.verifier(),
            new: next.verifier(),
            checkpoint: old.hand_over(&next, size, &root),
        };
        let entry = (self.tell)(&handover).ok_or(RotationFault::Entry);
        let prepared = entry.and_then(|entry| Prepared::new(entry).map_err(RotationFault::from));
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(fault) => return Ok(Found::Refused(fault)),
        };
        let Handover { version, old, new, .. } = handover;
        let made_at: i64 =
            batch
                .conn
                .query_row("SELECT made_at FROM keys WHERE purpose = ?1", [LEDGER], |row| row.get(0))?;
        let Ok(mut past) = past_keys(batch.conn) else { return Ok(Found::Moved) };
        let made_at = Timestamp::from_nanosecond(made_at.into()).unwrap_or(self.now);
        past.push(PastKey { version: self.before, key: old.to_string(), made_at, retired_at: self.now });
        set_fact(batch.conn, PAST_KEYS, &serde_json::to_vec(&past).unwrap_or_default())?;
        set_fact(batch.conn, "ledger_key", new.to_string().as_bytes())?;
        batch.conn.execute(
            "UPDATE keys SET version = ?2, sealed = ?3, made_at = ?4 WHERE purpose = ?1",
            params![LEDGER, signed(version), self.record.bytes, stored(self.now)],
        )?;
        batch.append(&[prepared]);
        batch.next_key = Some((next, version));
        Ok(Found::Done(new, place as u64))
    }
}

struct Rewrap {
    keyring: Keyring,
    newest: Arc<SealingKey>,
    is_served: bool,
    random: Random,
    tell: Telling<SealingHandover>,
}

/// One record as the tables have it.
struct Record {
    table: &'static str,
    name: String,
    version: u64,
    record: SealedRecord,
}

impl Command for Rewrap {
    type Found = Found<(u64, bool)>;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Self::Found> {
        let new = self.newest.check();
        let old = fact(batch.conn, SEALING_CHECK)?.unwrap_or_default();
        let served_with = fact(batch.conn, SERVED_WITH)?.unwrap_or_default();
        if self.is_served && !served_with.chunks(new.0.len()).any(|check| check == new.0) {
            return Ok(Found::Refused(RotationFault::NotServed));
        }
        let (Some(key), Ok(old)) = (self.keyring.of(&old), old.clone().try_into().map(Digest)) else {
            return Ok(Found::Moved);
        };
        let mut rewrapped = Vec::new();
        for (table, purpose) in [("keys", PURPOSE_KEY), ("secret", PURPOSE_SECRET)] {
            for record in records(batch.conn, table)? {
                let of = Sealed { purpose, name: &record.name, version: record.version };
                if self.newest.wraps(of, &record.record) {
                    continue;
                }
                let mut nonce = [0; 12];
                if !(self.random)(&mut nonce) {
                    return Ok(Found::Refused(RotationFault::NoEntropy));
                }
                // Looked at before anything is written, so that what is refused leaves nothing behind.
                match key.rewrap(of, &record.record, (&self.newest, &nonce)) {
                    Ok(changed) => rewrapped.push(Record { record: changed, ..record }),
                    Err(_) => return Ok(Found::Refused(RotationFault::Unknown(record.name))),
                }
            }
        }
        let records = rewrapped.len() as u64;
        let place = batch.entries.len() as u64;
        if records == 0 && old == new {
            return Ok(Found::Done((0, false), place));
        }
        let entry = (self.tell)(&SealingHandover { old, new, records }).ok_or(RotationFault::Entry);
        let prepared = match entry.and_then(|entry| Prepared::new(entry).map_err(RotationFault::from)) {
            Ok(prepared) => prepared,
            Err(fault) => return Ok(Found::Refused(fault)),
        };
        for each in rewrapped {
            let column = if each.table == "keys" { "purpose" } else { "name" };
            let sql = format!("UPDATE {} SET sealed = ?2 WHERE {column} = ?1", each.table);
            batch.conn.execute(&sql, params![each.name, each.record.bytes])?;
            if let Some(name) = SecretName::parse(&each.name).filter(|_| each.table == "secret") {
                let sealed = SealedSecret { version: each.version, record: each.record };
                batch.sealed.push((name, Some(Arc::new(sealed))));
            }
        }
        set_fact(batch.conn, SEALING_CHECK, &new.0)?;
        batch.append(&[prepared]);
        Ok(Found::Done((records, true), place))
    }
}

fn records(conn: &Connection, table: &'static str) -> rusqlite::Result<Vec<Record>> {
    let column = if table == "keys" { "purpose" } else { "name" };
    let sql = format!("SELECT {column}, version, sealed FROM {table} WHERE sealed IS NOT NULL");
    let mut rows = conn.prepare_cached(&sql)?;
    rows.query_map([], |row| {
        let record = SealedRecord { bytes: row.get(2)? };
        Ok(Record { table, name: row.get(0)?, version: unsigned(row, 1)?, record })
    })?
    .collect()
}

struct Announce(Vec<Digest>);

impl Command for Announce {
    type Found = ();

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        let checks: Vec<u8> = self.0.iter().flat_map(|check| check.0).collect();
        set_fact(batch.conn, SERVED_WITH, &checks)
    }
}
