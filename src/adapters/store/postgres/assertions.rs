//! Keys of assertions: read, rotated, and forgotten once they have signed their last.

use jiff::Timestamp;
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{
    Postgres, Trouble,
    batch::{Batch, Direct},
    reader::Patience,
    schema::{moment, moment_if_any, signed, unsigned, word},
};
use crate::{
    adapters::store::shared::{
        assertions::{
            self, AssertionHandover, AssertionRotation, AssertionRotationFault, FORGET_AFTER, Rotate, Row,
            TRIES, purpose,
        },
        stored::stored,
    },
    broker::ports::{Answer, StoreFault},
    kernel::{
        assertion::{Algorithm, AssertionKey, Schedule},
        sealing::SealedRecord,
    },
};

impl Postgres {
    /// The keys of assertions, with their private halves where this store was opened with the sealing key.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn assertion_keys(&self) -> Result<Vec<AssertionKey>, StoreFault> {
        let rows = self.read(Patience::Short, |conn| Box::pin(rows(conn))).await?;
        assertions::open(rows, self.keyring())
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
        for _ in 0..TRIES {
            let standing = self.assertion_keys().await?;
            let sealing = self.sealing_key().await?;
            let rotate = assertions::rotate(&standing, &sealing, rotation)?;
            let handover = rotate.handover.clone();
            if self.submit_direct(rotate).await?.0 {
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
        self.submit_direct(Forget(now)).await.map(drop)
    }
}

/// Writes the dates of a key.
pub(super) async fn insert(
    conn: &mut PgConnection,
    (algorithm, version): (Algorithm, u64),
    public: Option<&str>,
    dates: &Schedule,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO hallpass.assertion_key (algorithm, version, purpose, public, published_at, active_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(algorithm.as_str())
    .bind(signed(version))
    .bind(purpose(algorithm, version))
    .bind(public)
    .bind(stored(dates.published_at))
    .bind(stored(dates.active_at))
    .execute(conn)
    .await?;
    Ok(())
}

async fn rows(conn: &mut PgConnection) -> Result<Vec<Row>, Trouble> {
    let found = sqlx::query(
        "SELECT a.algorithm, a.version, a.public, a.published_at, a.active_at, a.retired_at, a.removed_at, k.sealed
         FROM assertion_key a LEFT JOIN keys k ON k.purpose = a.purpose
         ORDER BY a.algorithm COLLATE \"C\" DESC, a.version",
    )
    .fetch_all(conn)
    .await?;
    let read = |row: &PgRow| -> sqlx::Result<Row> {
        let schedule = Schedule {
            published_at: moment(row, 3)?,
            active_at: moment(row, 4)?,
            retired_at: moment_if_any(row, 5)?,
            removed_at: moment_if_any(row, 6)?,
        };
        let sealed: Option<Vec<u8>> = row.try_get(7)?;
        Ok(Row {
            algorithm: word(row, 0, Algorithm::parse)?,
            version: unsigned(row, 1)?,
            public: row.try_get(2)?,
            schedule,
            sealed: sealed.map(|bytes| SealedRecord { bytes }),
        })
    };
    Ok(found.iter().map(read).collect::<sqlx::Result<_>>()?)
}

impl Direct for Rotate {
    type Found = bool;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<bool, Trouble>> {
        Box::pin(async move {
            let is_written = rotate(self, conn).await?;
            if is_written {
                batch.append(std::slice::from_ref(&self.entry));
            }
            Ok(is_written)
        })
    }
}

async fn rotate(step: &Rotate, conn: &mut PgConnection) -> Result<bool, Trouble> {
    let AssertionHandover { algorithm, version, public, schedule, before } = &step.handover;
    let row = sqlx::query(
        "SELECT coalesce(max(version), 0)::bigint, (SELECT value FROM meta WHERE name = 'sealing_check')
         FROM assertion_key WHERE algorithm = $1",
    )
    .bind(algorithm.as_str())
    .fetch_one(&mut *conn)
    .await?;
    let check: Option<Vec<u8>> = row.try_get(1)?;
    if unsigned(&row, 0)? != step.before || check.as_deref() != Some(step.check.as_slice()) {
        return Ok(false);
    }
    sqlx::query("INSERT INTO keys (purpose, version, sealed, made_at) VALUES ($1, $2, $3, $4)")
        .bind(purpose(*algorithm, *version))
        .bind(signed(*version))
        .bind(step.sealed.bytes.as_slice())
        .bind(stored(step.now))
        .execute(&mut *conn)
        .await?;
    insert(conn, (*algorithm, *version), Some(public), schedule).await?;
    for (version, public) in &step.publics {
        sqlx::query("UPDATE assertion_key SET public = $3 WHERE algorithm = $1 AND version = $2")
            .bind(algorithm.as_str())
            .bind(signed(*version))
            .bind(public)
            .execute(&mut *conn)
            .await?;
    }
    for (version, dates) in before {
        sqlx::query(
            "UPDATE assertion_key SET retired_at = $3, removed_at = $4 WHERE algorithm = $1 AND version = $2",
        )
        .bind(algorithm.as_str())
        .bind(signed(*version))
        .bind(dates.retired_at.map(stored))
        .bind(dates.removed_at.map(stored))
        .execute(&mut *conn)
        .await?;
    }
    // What was withdrawn signs nothing from this transaction on.
    forget(conn, step.now).await?;
    Ok(true)
}

/// Deletes private halves that have signed their last.
struct Forget(Timestamp);

impl Direct for Forget {
    type Found = ();

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        _: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<(), Trouble>> {
        Box::pin(async move {
            forget(conn, self.0.saturating_sub(FORGET_AFTER).unwrap_or(self.0)).await?;
            Ok(())
        })
    }
}

async fn forget(conn: &mut PgConnection, retired_by: Timestamp) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM keys WHERE purpose IN
             (SELECT purpose FROM assertion_key WHERE retired_at <= $1 AND public IS NOT NULL)",
    )
    .bind(stored(retired_by))
    .execute(conn)
    .await?;
    Ok(())
}
