//! The sealed store: records by name with versions, changed together with their entry. Each change raises the
//! generation that stands in the head's row, which every batch reads, so that a broker sees what another one changed.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{
    Postgres, Trouble,
    batch::{Batch, Direct},
    reader::Patience,
    rotation::fact,
    schema::{moment, signed, unsigned, word},
};
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        rotation::SEALING_CHECK,
        secrets::{Change, SealedMap, SecretFault, SecretListing, TRIES, next},
        stored::stored,
    },
    broker::ports::{Answer, SealedRecords, SealedSecret, StoreFault},
    kernel::{
        digest::Digest,
        name::SecretName,
        sealing::{self, SealedRecord},
        secret::Secret,
    },
};

impl Postgres {
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
            let (before, _) = self.secret_version(name).await?;
            let version = before.saturating_add(1);
            let key = self.sealing_key().await?;
            let record = next(&key, (name, version), &content, change)?;
            let put = Put::new((name, before), Some((record, key.check())), fields.len(), change)?;
            if self.submit_direct(put).await?.0 {
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
            let (before, is_set) = self.secret_version(name).await?;
            if !is_set {
                return Err(SecretFault::Missing);
            }
            let put = Put::new((name, before), None, 0, change)?;
            if self.submit_direct(put).await?.0 {
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
        self.read(Patience::Long, |conn| {
            Box::pin(async move {
                let rows = sqlx::query(
                    "SELECT name, version, set_at, fields FROM secret WHERE sealed IS NOT NULL
                     ORDER BY name COLLATE \"C\"",
                )
                .fetch_all(conn)
                .await?;
                let listing = |row: &PgRow| -> sqlx::Result<SecretListing> {
                    let name = word(row, 0, SecretName::parse)?;
                    let (version, set_at, fields) = (unsigned(row, 1)?, moment(row, 2)?, unsigned(row, 3)?);
                    Ok(SecretListing { name, version, set_at, fields })
                };
                Ok(rows.iter().map(listing).collect::<sqlx::Result<_>>()?)
            })
        })
        .await
    }

    /// The newest version of a secret, 0 where there never was one, and whether it is there now.
    async fn secret_version(&self, name: &SecretName) -> Result<(u64, bool), StoreFault> {
        let name = name.as_str().to_owned();
        self.read(Patience::Short, move |conn| {
            Box::pin(async move {
                let row = sqlx::query("SELECT version, sealed IS NOT NULL FROM secret WHERE name = $1")
                    .bind(name)
                    .fetch_optional(conn)
                    .await?;
                let found = row.map(|row| -> sqlx::Result<_> { Ok((unsigned(&row, 0)?, row.try_get(1)?)) });
                Ok(found.transpose()?.unwrap_or((0, false)))
            })
        })
        .await
    }
}

impl SealedRecords for Postgres {
    fn sealed(&self, name: &SecretName) -> (u64, Option<Arc<SealedSecret>>) {
        let map = self.shared.sealed.load();
        (map.generation, map.records.get(name).cloned())
    }
}

/// Reads the sealed store.
pub(super) async fn load(conn: &mut PgConnection, generation: u64) -> sqlx::Result<SealedMap> {
    let rows = sqlx::query("SELECT name, version, sealed FROM secret WHERE sealed IS NOT NULL")
        .fetch_all(conn)
        .await?;
    let record = |row: &PgRow| -> sqlx::Result<_> {
        let record = SealedRecord { bytes: row.try_get(2)? };
        let sealed = SealedSecret { version: unsigned(row, 1)?, record };
        Ok((word(row, 0, SecretName::parse)?, Arc::new(sealed)))
    };
    let records = rows.iter().map(record).collect::<sqlx::Result<_>>()?;
    Ok(SealedMap { generation, records })
}

/// Puts another version in the place of the one before; false where another process was quicker.
struct Put {
    name: SecretName,
    before: u64,
    record: Option<Arc<SealedSecret>>,
    /// What tells the key that it was sealed with.
    check: Option<Digest>,
    fields: usize,
    now: Timestamp,
    entry: Arc<Prepared>,
}

impl Put {
    fn new(
        (name, before): (&SecretName, u64),
        record: Option<(SealedRecord, Digest)>,
        fields: usize,
        change: Change<'_>,
    ) -> Result<Self, SecretFault> {
        let version = before.saturating_add(1);
        // A removal tells of the version that goes, a new one of the version that comes.
        let told = if record.is_some() { version } else { before };
        let entry = super::prepare((change.entry)(told).ok_or(SecretFault::Entry)?)?;
        let (record, check) = record.unzip();
        let record = record.map(|record| Arc::new(SealedSecret { version, record }));
        Ok(Self { name: name.clone(), before, record, check, fields, now: change.now, entry })
    }

    async fn put(&self, conn: &mut PgConnection, batch: &mut Batch<'_>) -> Result<bool, Trouble> {
        let newest: Option<i64> = sqlx::query_scalar("SELECT version FROM secret WHERE name = $1")
            .bind(self.name.as_str())
            .fetch_optional(&mut *conn)
            .await?;
        if newest.unwrap_or(0) != signed(self.before) {
            return Ok(false);
        }
        // Sealed with a key that is no longer the store's, it could not be opened once that key is gone.
        if let Some(check) = &self.check
            && fact(conn, SEALING_CHECK).await?.as_deref() != Some(&check.0)
        {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO secret (name, version, sealed, fields, set_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (name) DO UPDATE SET version = excluded.version, sealed = excluded.sealed,
                 fields = excluded.fields, set_at = excluded.set_at",
        )
        .bind(self.name.as_str())
        .bind(signed(self.before.saturating_add(1)))
        .bind(self.record.as_ref().map(|sealed| sealed.record.bytes.as_slice()))
        .bind(signed(self.fields as u64))
        .bind(stored(self.now))
        .execute(conn)
        .await?;
        batch.generation = batch.generation.saturating_add(1);
        batch.sealed.push((self.name.clone(), self.record.clone()));
        batch.append(std::slice::from_ref(&self.entry));
        Ok(true)
    }
}

impl Direct for Put {
    type Found = bool;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<bool, Trouble>> {
        Box::pin(self.put(conn, batch))
    }
}
