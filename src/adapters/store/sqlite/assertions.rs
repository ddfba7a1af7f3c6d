//! Keys of assertions: read, rotated, and forgotten once they have signed their last.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    Sqlite, Trouble,
    batch::{Batch, Command},
    create::CreateFault,
    keys,
    open::read_meta,
    rotation::{SEALING_CHECK, is_sealed_with},
    schema::{moment, moment_if_any, signed, stored, unsigned, word},
};
use crate::{
    adapters::store::shared::assertions::{
        self, AssertionHandover, AssertionRotation, AssertionRotationFault, FORGET_AFTER, Rotate, Row, TRIES,
        purpose,
    },
    broker::ports::StoreFault,
    kernel::{
        assertion::{Algorithm, AssertionKey, Schedule},
        sealing::{SealFault, SealingKey},
    },
};

impl Sqlite {
    /// The keys of assertions, with their private halves where this store was opened with the sealing key.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn assertion_keys(&self) -> Result<Vec<AssertionKey>, StoreFault> {
        assertions::open(self.read(rows).await?, self.keyring())
    }

    /// Publishes a new key that follows the one that signs, with its entry in the same transaction.
    ///
    /// # Errors
    ///
    /// [`AssertionRotationFault`]; then nothing changed.
    pub async fn rotate_assertion_key(
        &self,
        rotation: AssertionRotation<'_>,
    ) -> Result<AssertionHandover, AssertionRotationFault> {
        let keyring = self
            .keyring()
            .ok_or_else(|| StoreFault::Unavailable("the store was opened for reading only".to_owned()))?;
        for _ in 0..TRIES {
            let standing = self
                .read(|conn| -> Result<_, Trouble> { Ok((rows(conn)?, read_meta(conn, SEALING_CHECK)?)) });
            let (rows, check) = standing.await?;
            let sealing = keyring.of(&check).ok_or(SealFault::WrongKey)?;
            let standing = assertions::open(rows, Some(keyring))?;
            let rotate = assertions::rotate(&standing, &sealing, rotation)?;
            let handover = rotate.handover.clone();
            if self.submit(rotate).await?.0 {
                return Ok(handover);
            }
        }
        Err(AssertionRotationFault::Contended)
    }

    /// Deletes private halves that have signed their last.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn forget_assertion_keys(&self, now: Timestamp) -> Result<(), StoreFault> {
        self.submit(Forget(now)).await.map(drop)
    }
}

/// Writes the keys of a new store.
pub(super) fn keep_first(
    conn: &Connection,
    sealing: &SealingKey,
    genesis: super::Genesis<'_>,
) -> Result<(), CreateFault> {
    for (algorithm, private) in assertions::first_keys()? {
        let purpose = purpose(algorithm, 1);
        keys::keep(conn, sealing, (&purpose, &private), genesis)?;
        insert(conn, (algorithm, 1), None, &Schedule::first(genesis.now))?;
    }
    Ok(())
}

fn insert(
    conn: &Connection,
    (algorithm, version): (Algorithm, u64),
    public: Option<&str>,
    dates: &Schedule,
) -> rusqlite::Result<()> {
    conn.execute(
        "INSERT INTO assertion_key (algorithm, version, purpose, public, published_at, active_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            algorithm.as_str(),
            signed(version),
            purpose(algorithm, version),
            public,
            stored(dates.published_at),
            stored(dates.active_at)
        ],
    )?;
    Ok(())
}

fn rows(conn: &Connection) -> rusqlite::Result<Vec<Row>> {
    let mut found = conn.prepare_cached(
        "SELECT a.algorithm, a.version, a.public, a.published_at, a.active_at, a.retired_at, a.removed_at, k.sealed
         FROM assertion_key a LEFT JOIN keys k ON k.purpose = a.purpose ORDER BY a.algorithm DESC, a.version",
    )?;
    found
        .query_map([], |row| {
            let schedule = Schedule {
                published_at: moment(row, 3)?,
                active_at: moment(row, 4)?,
                retired_at: moment_if_any(row, 5)?,
                removed_at: moment_if_any(row, 6)?,
            };
            let sealed: Option<Vec<u8>> = row.get(7)?;
            Ok(Row {
                algorithm: word(row, 0, Algorithm::parse)?,
                version: unsigned(row, 1)?,
                public: row.get(2)?,
                schedule,
                sealed: sealed.map(|bytes| crate::kernel::sealing::SealedRecord { bytes }),
            })
        })?
        .collect()
}

impl Command for Rotate {
    type Found = bool;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<bool> {
        let AssertionHandover { algorithm, version, public, schedule, before } = &self.handover;
        let newest = batch.conn.query_row(
            "SELECT coalesce(max(version), 0) FROM assertion_key WHERE algorithm = ?1",
            [algorithm.as_str()],
            |row| unsigned(row, 0),
        )?;
        if newest != self.before || !is_sealed_with(batch.conn, &self.check)? {
            return Ok(false);
        }
        batch.conn.execute(
            "INSERT INTO keys (purpose, version, sealed, made_at) VALUES (?1, ?2, ?3, ?4)",
            params![purpose(*algorithm, *version), signed(*version), self.sealed.bytes, stored(self.now)],
        )?;
        insert(batch.conn, (*algorithm, *version), Some(public), schedule)?;
        for (version, public) in &self.publics {
            batch.conn.execute(
                "UPDATE assertion_key SET public = ?3 WHERE algorithm = ?1 AND version = ?2",
                params![algorithm.as_str(), signed(*version), public],
            )?;
        }
        for (version, dates) in before {
            batch.conn.execute(
                "UPDATE assertion_key SET retired_at = ?3, removed_at = ?4 WHERE algorithm = ?1 AND version = ?2",
                params![
                    algorithm.as_str(),
                    signed(*version),
                    dates.retired_at.map(stored),
                    dates.removed_at.map(stored)
                ],
            )?;
        }
        // What was withdrawn signs nothing from this transaction on.
        forget(batch.conn, self.now)?;
        batch.append(std::slice::from_ref(&self.entry));
        Ok(true)
    }
}

/// Deletes private halves that have signed their last.
struct Forget(Timestamp);

impl Command for Forget {
    type Found = ();

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        forget(batch.conn, self.0.saturating_sub(FORGET_AFTER).unwrap_or(self.0))
    }
}

fn forget(conn: &Connection, retired_by: Timestamp) -> rusqlite::Result<()> {
    conn.execute(
        "DELETE FROM keys WHERE purpose IN
             (SELECT purpose FROM assertion_key WHERE retired_at <= ?1 AND public IS NOT NULL)",
        [stored(retired_by)],
    )?;
    Ok(())
}
