//! The sealed store: records by name with versions, changed together with their entry, and held in memory as
//! ciphertext, so that no exchange reads a row for a secret.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Sqlite, Trouble,
    batch::{Batch, Command},
    open::read_meta,
    rotation::{self, SEALING_CHECK},
    schema::{moment, signed, stored, unsigned, word},
};
pub use crate::adapters::store::shared::secrets::{Change, SecretFault, SecretListing};
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        secrets::{SealedMap, TRIES, next, read_only},
    },
    broker::ports::{SealedRecords, SealedSecret, StoreFault},
    kernel::{
        name::SecretName,
        sealing::{self, SealFault, SealedRecord},
        secret::Secret,
    },
};

impl Sqlite {
    /// Seals a secret under its next version, with its entry in the same transaction. Answers the version.
    ///
    /// # Errors
    ///
    /// [`SecretFault`]; then nothing changed.
    pub async fn set_secret(
        &self,
        name: &SecretName,
        fields: &[(String, Secret)],
        change: Change<'_>,
    ) -> Result<u64, SecretFault> {
        let content = sealing::write_fields(fields).ok_or(SecretFault::NotText)?;
        for _ in 0..TRIES {
            let Standing { version: before, check, .. } = self.secret_standing(name).await?;
            let version = before.saturating_add(1);
            let keys = self.keyring().ok_or_else(read_only)?;
            // Under the key that all else is sealed with: another one may not be known to every process yet.
            let key = keys.of(&check).ok_or(SealFault::WrongKey)?;
            let record = next(&key, (name, version), &content, change)?;
            let put = Put::new((name, before), Some((record, check)), fields.len(), change)?;
            if self.submit(put).await?.0 {
                return Ok(version);
            }
        }
        Err(SecretFault::Contended)
    }

    /// Removes a secret, with its entry in the same transaction. Its versions are never used again. Answers the
    /// version that was removed.
    ///
    /// # Errors
    ///
    /// [`SecretFault`]; then nothing changed.
    pub async fn remove_secret(&self, name: &SecretName, change: Change<'_>) -> Result<u64, SecretFault> {
        for _ in 0..TRIES {
            let Standing { version: before, is_set, .. } = self.secret_standing(name).await?;
            if !is_set {
                return Err(SecretFault::Missing);
            }
            let put = Put::new((name, before), None, 0, change)?;
            if self.submit(put).await?.0 {
                return Ok(before);
            }
        }
        Err(SecretFault::Contended)
    }

    /// The secrets by name, without their values.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn list_secrets(&self) -> Result<Vec<SecretListing>, StoreFault> {
        self.read(|conn| {
            let mut rows = conn.prepare_cached(
                "SELECT name, version, set_at, fields FROM secret WHERE sealed IS NOT NULL ORDER BY name",
            )?;
            rows.query_map([], |row| {
                let name = word(row, 0, SecretName::parse)?;
                let (version, set_at, fields) = (unsigned(row, 1)?, moment(row, 2)?, unsigned(row, 3)?);
                Ok(SecretListing { name, version, set_at, fields })
            })?
            .collect()
        })
        .await
    }

    async fn secret_standing(&self, name: &SecretName) -> Result<Standing, StoreFault> {
        let name = name.as_str().to_owned();
        self.read(move |conn| -> Result<_, Trouble> {
            let mut row =
                conn.prepare_cached("SELECT version, sealed IS NOT NULL FROM secret WHERE name = ?1")?;
            let found = row.query_row([name], |row| Ok((unsigned(row, 0)?, row.get(1)?))).optional()?;
            let (version, is_set) = found.unwrap_or((0, false));
            Ok(Standing { version, is_set, check: read_meta(conn, SEALING_CHECK)? })
        })
        .await
    }
}

/// How a secret stands.
struct Standing {
    /// Its newest version; 0 where there never was one.
    version: u64,
    /// Whether it is there now.
    is_set: bool,
    /// What tells the key that the store is sealed with.
    check: Vec<u8>,
}

impl SealedRecords for Sqlite {
    fn sealed(&self, name: &SecretName) -> (u64, Option<Arc<SealedSecret>>) {
        let map = self.shared.sealed.load();
        (map.generation, map.records.get(name).cloned())
    }
}

/// Reads the sealed store.
pub(super) fn load(conn: &Connection) -> rusqlite::Result<SealedMap> {
    let mut sum = conn.prepare_cached("SELECT coalesce(sum(version), 0) FROM secret")?;
    let generation = sum.query_row([], |row| unsigned(row, 0))?;
    let mut rows =
        conn.prepare_cached("SELECT name, version, sealed FROM secret WHERE sealed IS NOT NULL")?;
    let records = rows
        .query_map([], |row| {
            let record = SealedRecord { bytes: row.get(2)? };
            let sealed = SealedSecret { version: unsigned(row, 1)?, record };
            Ok((word(row, 0, SecretName::parse)?, Arc::new(sealed)))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(SealedMap { generation, records })
}

/// Puts another version in the place of the one before; false where another process was quicker.
struct Put {
    name: SecretName,
    before: u64,
    record: Option<Arc<SealedSecret>>,
    /// What tells the key that it was sealed with.
    check: Option<Vec<u8>>,
    fields: usize,
    now: Timestamp,
    entry: Arc<Prepared>,
}

impl Put {
    fn new(
        (name, before): (&SecretName, u64),
        record: Option<(SealedRecord, Vec<u8>)>,
        fields: usize,
        change: Change<'_>,
    ) -> Result<Self, SecretFault> {
        let version = before.saturating_add(1);
        // A removal tells of the version that goes, a new one of the version that comes.
        let told = if record.is_some() { version } else { before };
        let entry = Prepared::new((change.entry)(told).ok_or(SecretFault::Entry)?)?;
        let (record, check) = record.unzip();
        let record = record.map(|record| Arc::new(SealedSecret { version, record }));
        Ok(Self { name: name.clone(), before, record, check, fields, now: change.now, entry })
    }
}

impl Command for Put {
    type Found = bool;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<bool> {
        let mut look = batch.conn.prepare_cached("SELECT version FROM secret WHERE name = ?1")?;
        let newest = look.query_row([self.name.as_str()], |row| unsigned(row, 0)).optional()?;
        if newest.unwrap_or(0) != self.before {
            return Ok(false);
        }
        // Sealed with a key that is no longer the store's, it could not be opened once that key is gone.
        if let Some(check) = &self.check
            && !rotation::is_sealed_with(batch.conn, check)?
        {
            return Ok(false);
        }
        let mut put = batch.conn.prepare_cached(
            "INSERT OR REPLACE INTO secret (name, version, sealed, fields, set_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        put.execute(params![
            self.name.as_str(),
            signed(self.before.saturating_add(1)),
            self.record.as_ref().map(|sealed| sealed.record.bytes.as_slice()),
            signed(self.fields as u64),
            stored(self.now),
        ])?;
        batch.generation = batch.generation.saturating_add(1);
        batch.sealed.push((self.name.clone(), self.record.clone()));
        batch.append(std::slice::from_ref(&self.entry));
        Ok(true)
    }
}
