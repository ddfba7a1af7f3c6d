//! The duty to publish: one broker of all has it, for a while, by the server's clock.

use sqlx::PgConnection;

use super::{
    Postgres, Trouble,
    batch::{Batch, Direct},
    schema::signed,
};
use crate::{
    adapters::store::shared::publication::{LEASE, Lease},
    broker::ports::{Answer, StoreFault},
    kernel::id::ReplicaId,
};

impl Postgres {
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
        Ok(self.submit_direct(Take { replica, least }).await?.0)
    }

    /// Gives the duty back, where this one has it.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn leave_publication(&self, replica: ReplicaId) -> Result<(), StoreFault> {
        self.submit_direct(Leave(replica)).await?;
        Ok(())
    }
}

struct Take {
    replica: ReplicaId,
    least: u64,
}

/// The server's time in nanoseconds since 1970, to the microsecond.
macro_rules! now {
    () => {
        "((extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000)"
    };
}

impl Direct for Take {
    type Found = Option<Lease>;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        _: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<Option<Lease>, Trouble>> {
        Box::pin(async move {
            let id = self.replica.bytes();
            let fence: Option<i64> = sqlx::query_scalar(concat!(
                "UPDATE publication SET holder = $1, until = ",
                now!(),
                " + $2,
                     fence = CASE WHEN holder = $1 AND fence >= $3 THEN fence ELSE greatest(fence + 1, $3) END
                 WHERE one = 1 AND (holder IS NULL OR holder = $1 OR until <= ",
                now!(),
                ") RETURNING fence",
            ))
            .bind(id.as_slice())
            .bind(i64::try_from(LEASE.as_nanos()).unwrap_or(i64::MAX))
            .bind(signed(self.least))
            .fetch_optional(conn)
            .await?;
            Ok(fence.and_then(Lease::of))
        })
    }
}

struct Leave(ReplicaId);

impl Direct for Leave {
    type Found = ();

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        _: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<(), Trouble>> {
        Box::pin(async move {
            let id = self.0.bytes();
            sqlx::query("UPDATE publication SET holder = NULL, until = 0 WHERE one = 1 AND holder = $1")
                .bind(id.as_slice())
                .execute(conn)
                .await?;
            Ok(())
        })
    }
}
