//! The duty to publish: one process of all that serve this file has it, for a while.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::{
    Sqlite,
    batch::{Batch, Command},
    schema::{signed, stored},
};
use crate::{
    adapters::store::shared::publication::{LEASE, Lease},
    broker::{Clock, ports::StoreFault},
    kernel::id::ReplicaId,
};

impl Sqlite {
    /// Takes the duty to publish, or keeps it; `None` while another one has it.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn take_publication(
        &self,
        replica: ReplicaId,
        least: u64,
    ) -> Result<Option<Lease>, StoreFault> {
        Ok(self.submit(Take { replica, least, now: Clock::System.now() }).await?.0)
    }

    /// Gives the duty back, where this one has it.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn leave_publication(&self, replica: ReplicaId) -> Result<(), StoreFault> {
        self.submit(Leave(replica)).await?;
        Ok(())
    }
}

struct Take {
    replica: ReplicaId,
    least: u64,
    now: Timestamp,
}

impl Command for Take {
    type Found = Option<Lease>;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Option<Lease>> {
        let mut take = batch.conn.prepare_cached(
            "UPDATE publication SET holder = ?1, until = ?2,
                 fence = CASE WHEN holder = ?1 AND fence >= ?3 THEN fence ELSE max(fence + 1, ?3) END
             WHERE one = 1 AND (holder IS NULL OR holder = ?1 OR until <= ?4) RETURNING fence",
        )?;
        let now = stored(self.now);
        let until = now.saturating_add(i64::try_from(LEASE.as_nanos()).unwrap_or(i64::MAX));
        let fence = take
            .query_row(params![self.replica.bytes(), until, signed(self.least), now], |row| row.get(0))
            .optional()?;
        Ok(fence.and_then(Lease::of))
    }
}

struct Leave(ReplicaId);

impl Command for Leave {
    type Found = ();

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        let mut leave = batch.conn.prepare_cached(
            "UPDATE publication SET holder = NULL, until = 0 WHERE one = 1 AND holder = ?1",
        )?;
        leave.execute([self.0.bytes()])?;
        Ok(())
    }
}
