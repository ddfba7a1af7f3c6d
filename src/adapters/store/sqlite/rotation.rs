//! Other keys in the place of those that the store has: the ledger's, and the sealing key over all of them. Each change
//! is one transaction with its KEY_ROTATED entry, so that a crash leaves the one or the other.
//!
//! The ledger's old key signs that the new one comes after it, together with the new one; then its seed is gone, and
//! only its public half is kept. A sealing key that changes opens nothing and seals nothing: data keys are wrapped anew
//! under it, and what they sealed stays as it is.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Sqlite, Trouble,
    batch::{Batch, Command},
    keys::{self, LEDGER},
    open::{self, read_meta},
    schema::{moment, signed, stored, unsigned},
};
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        rotation::{
            self, Found, Handover, HeldKey, NextSeed, PAST_KEYS, PastKey, Random, Rotated, RotationFault,
            SEALING_NEXT, SealingHandover, TRIES, Telling,
        },
        secrets::read_only,
    },
    broker::ports::{SealedSecret, StoreFault},
    kernel::{
        digest::Digest,
        ledger::checkpoint::{Checkpoint, NoteFault, VerifierKey},
        name::SecretName,
        sealing::{Keyring, PURPOSE_KEY, PURPOSE_SECRET, SealFault, Sealed, SealedRecord, SealingKey},
    },
};

pub(super) use crate::adapters::store::shared::rotation::SEALING_CHECK;

/// The fact that tells which sealing keys the broker knows that serves the store.
const SERVED_WITH: &str = "sealing_served_with";

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
            let next = NextSeed::make(keyring, standing.await?, &random)?;
            let rotate = RotateLedger { next, now, tell: Arc::clone(&tell) };
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
        let is_served = open::is_served(self.readers.path())
            .map_err(|fault| StoreFault::Unavailable(fault.to_string()))?;
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
            let past = past_keys(conn)?;
            let mut stored = Vec::new();
            let mut rows =
                conn.prepare_cached("SELECT purpose, version, made_at FROM keys ORDER BY purpose")?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?, moment(row, 2)?)))?;
            for row in rows {
                stored.push(row?);
            }
            Ok(rotation::held(past, own.as_ref(), stored))
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
        Ok(rotation::open_note(note, &self.verifier_key(), &past))
    }
}

/// Whether that is the sealing key that the store is sealed with.
pub(super) fn is_sealed_with(conn: &Connection, check: &[u8]) -> rusqlite::Result<bool> {
    Ok(fact(conn, SEALING_CHECK)?.as_deref() == Some(check))
}

fn past_keys(conn: &Connection) -> Result<Vec<PastKey>, Trouble> {
    rotation::past_keys(fact(conn, PAST_KEYS)?.as_deref()).map_err(Trouble::Damaged)
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

struct RotateLedger {
    next: NextSeed,
    now: Timestamp,
    tell: Telling<Handover>,
}

impl Command for RotateLedger {
    type Found = Found<VerifierKey>;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Self::Found> {
        let before = self.next.before;
        let is_newest = keys::version(batch.conn, LEDGER)? == before;
        if !is_newest || batch.next_key.is_some() || !is_sealed_with(batch.conn, &self.next.check)? {
            return Ok(Found::Moved);
        }
        // The tree right before the entry, with what this batch appends before it.
        let leaves: Vec<Digest> = batch.entries.iter().map(|prepared| prepared.entry.leaf).collect();
        let place = leaves.len();
        let tree = batch.head.frontier.append(&leaves).frontier;
        let signer = (&batch.signer.key, batch.signer.origin.as_str());
        let (next, handover, entry) =
            match self.next.hand_over(signer, (tree.size(), &tree.root()), &self.tell) {
                Ok(made) => made,
                Err(fault) => return Ok(Found::Refused(fault)),
            };
        let Handover { version, old, new, .. } = handover;
        let made_at: i64 =
            batch
                .conn
                .query_row("SELECT made_at FROM keys WHERE purpose = ?1", [LEDGER], |row| row.get(0))?;
        let Ok(mut past) = past_keys(batch.conn) else { return Ok(Found::Moved) };
        let made_at = Timestamp::from_nanosecond(made_at.into()).unwrap_or(self.now);
        past.push(PastKey { version: before, key: old.to_string(), made_at, retired_at: self.now });
        set_fact(batch.conn, PAST_KEYS, &serde_json::to_vec(&past).unwrap_or_default())?;
        set_fact(batch.conn, "ledger_key", new.to_string().as_bytes())?;
        batch.conn.execute(
            "UPDATE keys SET version = ?2, sealed = ?3, made_at = ?4 WHERE purpose = ?1",
            params![LEDGER, signed(version), self.next.record.bytes, stored(self.now)],
        )?;
        batch.append(&[entry]);
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
        // Only a server's store has it, and only a copy of one while its keys change brings it here.
        batch.conn.execute("DELETE FROM meta WHERE name = ?1", [SEALING_NEXT])?;
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
