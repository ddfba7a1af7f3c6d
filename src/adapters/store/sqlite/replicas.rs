//! Which brokers of this store are alive, and whether they decide by one policy set.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::params;

use super::{
    batch::{Batch, Command},
    schema::{digest, moment, stored, unsigned},
};
use crate::{
    adapters::store::shared::columns::Prepared,
    broker::{
        ports::{Beat, Skew},
        replicas::ALIVE,
    },
    kernel::{digest::Digest, id::ReplicaId},
};

/// Posts one broker, and looks at all.
pub(super) struct Post(pub(super) Beat);

impl Command for Post {
    type Found = Option<Skew>;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Option<Skew>> {
        let Beat { replica, started, digest: set, now } = &self.0;
        let mut put = batch.conn.prepare_cached(
            "INSERT INTO replica (id, started, digest, seen) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, seen = max(seen, excluded.seen)",
        )?;
        put.execute(params![replica.bytes(), stored(*started), set.map(|set| set.0), stored(*now)])?;
        let alive = stored(*now).saturating_sub(i64::try_from(ALIVE.as_nanos()).unwrap_or(i64::MAX));
        batch.conn.prepare_cached("DELETE FROM replica WHERE seen <= ?1")?.execute([alive])?;
        let mut sets = batch.conn.prepare_cached(
            "SELECT digest, count(*) FROM replica WHERE digest IS NOT NULL GROUP BY digest ORDER BY digest",
        )?;
        let sets: Vec<(Digest, u64)> = sets
            .query_map([], |row| Ok((digest(row, 0)?, unsigned(row, 1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        if sets.len() < 2 {
            batch.conn.prepare_cached("DELETE FROM policy_skew")?.execute([])?;
            return Ok(None);
        }
        let mut begin = batch
            .conn
            .prepare_cached("INSERT OR IGNORE INTO policy_skew (one, since, told) VALUES (1, ?1, 0)")?;
        begin.execute([stored(*now)])?;
        let mut look = batch.conn.prepare_cached("SELECT since, told FROM policy_skew WHERE one = 1")?;
        let (since, is_told) = look.query_row([], |row| Ok((moment(row, 0)?, row.get(1)?)))?;
        Ok(Some(Skew { since, is_told, sets }))
    }
}

/// Records the alert of a difference, unless another broker did.
pub(super) struct Tell {
    /// Since when they differ.
    pub(super) since: Timestamp,
    /// `ALERT_POLICY_SKEW`.
    pub(super) entry: Arc<Prepared>,
}

impl Command for Tell {
    type Found = bool;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<bool> {
        let mut tell =
            batch.conn.prepare_cached("UPDATE policy_skew SET told = 1 WHERE told = 0 AND since = ?1")?;
        let is_first = tell.execute([stored(self.since)])? == 1;
        if is_first {
            batch.append(std::slice::from_ref(&self.entry));
        }
        Ok(is_first)
    }
}

/// Takes a broker off the list.
pub(super) struct Leave(pub(super) ReplicaId);

impl Command for Leave {
    type Found = ();

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        batch.conn.prepare_cached("DELETE FROM replica WHERE id = ?1")?.execute([self.0.bytes()])?;
        Ok(())
    }
}
