//! Which brokers of this store are alive, and whether they decide by one policy set.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{PgConnection, Row as _};

use super::{
    Trouble,
    batch::{Batch, Direct},
    schema::{digest, moment, unsigned},
};
use crate::{
    adapters::store::shared::{columns::Prepared, stored::stored},
    broker::{
        ports::{Answer, Beat, Skew},
        replicas::ALIVE,
    },
    kernel::{digest::Digest, id::ReplicaId},
};

/// Posts one broker, and looks at all.
pub(super) struct Post {
    /// The broker.
    pub(super) beat: Beat,
    /// Which sealing keys it knows, where it was taken for dead; otherwise it has said so itself.
    pub(super) sealing: Option<Vec<Digest>>,
}

/// Writes a broker's row; which sealing keys it knows only where it has none.
pub(super) async fn post(
    conn: &mut PgConnection,
    beat: &Beat,
    sealing: Option<&[Digest]>,
) -> sqlx::Result<()> {
    let Beat { replica, started, digest: set, now } = beat;
    sqlx::query(
        "INSERT INTO replica (id, started, digest, seen, sealing) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (id) DO UPDATE SET digest = excluded.digest,
             seen = greatest(replica.seen, excluded.seen)",
    )
    .bind(replica.bytes().as_slice())
    .bind(stored(*started))
    .bind(set.as_ref().map(|set| set.0.as_slice()))
    .bind(stored(*now))
    .bind(sealing.map(|checks| checks.iter().flat_map(|check| check.0).collect::<Vec<u8>>()))
    .execute(conn)
    .await?;
    Ok(())
}

impl Post {
    async fn post(&self, conn: &mut PgConnection) -> Result<Option<Skew>, Trouble> {
        post(conn, &self.beat, self.sealing.as_deref()).await?;
        let now = &self.beat.now;
        let alive = stored(*now).saturating_sub(i64::try_from(ALIVE.as_nanos()).unwrap_or(i64::MAX));
        sqlx::query("DELETE FROM replica WHERE seen <= $1").bind(alive).execute(&mut *conn).await?;
        let rows = sqlx::query(
            "SELECT digest, count(*) FROM replica WHERE digest IS NOT NULL GROUP BY digest ORDER BY digest",
        )
        .fetch_all(&mut *conn)
        .await?;
        let read = |row: &sqlx::postgres::PgRow| Ok((digest(row, 0)?, unsigned(row, 1)?));
        let sets: Vec<(Digest, u64)> = rows.iter().map(read).collect::<sqlx::Result<_>>()?;
        if sets.len() < 2 {
            sqlx::query("DELETE FROM policy_skew").execute(conn).await?;
            return Ok(None);
        }
        sqlx::query(
            "INSERT INTO policy_skew (one, since, told) VALUES (1, $1, false) ON CONFLICT DO NOTHING",
        )
        .bind(stored(*now))
        .execute(&mut *conn)
        .await?;
        let row = sqlx::query("SELECT since, told FROM policy_skew WHERE one = 1").fetch_one(conn).await?;
        Ok(Some(Skew { since: moment(&row, 0)?, is_told: row.try_get(1)?, sets }))
    }
}

impl Direct for Post {
    type Found = Option<Skew>;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        _: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<Option<Skew>, Trouble>> {
        Box::pin(self.post(conn))
    }
}

/// Records the alert of a difference, unless another broker did.
pub(super) struct Tell {
    /// Since when they differ.
    pub(super) since: Timestamp,
    /// `ALERT_POLICY_SKEW`.
    pub(super) entry: Arc<Prepared>,
}

impl Direct for Tell {
    type Found = bool;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<bool, Trouble>> {
        Box::pin(async move {
            let told = sqlx::query("UPDATE policy_skew SET told = true WHERE NOT told AND since = $1")
                .bind(stored(self.since))
                .execute(conn)
                .await?;
            let is_first = told.rows_affected() == 1;
            if is_first {
                batch.append(std::slice::from_ref(&self.entry));
            }
            Ok(is_first)
        })
    }
}

/// Takes a broker off the list.
pub(super) struct Leave(pub(super) ReplicaId);

impl Direct for Leave {
    type Found = ();

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        _: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<(), Trouble>> {
        Box::pin(async move {
            let id = self.0.bytes();
            sqlx::query("DELETE FROM replica WHERE id = $1").bind(id.as_slice()).execute(conn).await?;
            Ok(())
        })
    }
}
