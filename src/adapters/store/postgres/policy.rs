//! The newest accepted policy set, for all brokers of this store: guards against lost guardrails and issuers (design:
//! section 4, "Removal protection").

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{PgConnection, Row as _};

use super::{
    Postgres, Trouble,
    batch::{Batch, Direct},
    reader::Patience,
    schema::{digest, list, moment},
};
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        policy::{AcceptedPolicy, LettingIn, PolicyStanding, lacks},
        stored::stored,
    },
    broker::ports::{Answer, PolicyLoad, PolicyVerdict, StoreFault},
    kernel::digest::Digest,
};

impl Postgres {
    /// The newest accepted policy set.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn accepted_policy(&self) -> Result<Option<AcceptedPolicy>, StoreFault> {
        self.read(Patience::Short, |conn| Box::pin(async move { Ok(newest(conn).await?) })).await
    }

    /// How a candidate stands.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn policy_standing(
        &self,
        candidate: Digest,
        now: Timestamp,
    ) -> Result<PolicyStanding, StoreFault> {
        self.read(Patience::Short, move |conn| {
            Box::pin(async move {
                let newest = newest(conn).await?;
                Ok(PolicyStanding { newest, is_let_in: is_let_in(conn, candidate, now).await? })
            })
        })
        .await
    }

    /// Lets a set in, with its entry in the same transaction. It may come before the set does, and again.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn let_policy_in(&self, letting: LettingIn) -> Result<(), StoreFault> {
        let LettingIn { digest, until, entry } = letting;
        self.submit_direct(LetIn { digest, until, entry: super::prepare(entry)? }).await?;
        Ok(())
    }
}

async fn newest(conn: &mut PgConnection) -> sqlx::Result<Option<AcceptedPolicy>> {
    let row = sqlx::query("SELECT digest, names, at FROM policy_accepted ORDER BY id DESC LIMIT 1")
        .fetch_optional(conn)
        .await?;
    let read = |row: sqlx::postgres::PgRow| {
        let names = list(row.try_get(1)?)?;
        Ok(AcceptedPolicy { digest: digest(&row, 0)?, names, at: moment(&row, 2)? })
    };
    row.map(read).transpose()
}

async fn is_let_in(conn: &mut PgConnection, candidate: Digest, now: Timestamp) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM policy_let_in WHERE digest = $1 AND until > $2)")
        .bind(candidate.0.as_slice())
        .bind(stored(now))
        .fetch_one(conn)
        .await
}

/// Makes a set the newest accepted one, unless it lacks what that has. The look and the change are one transaction,
/// so that of two brokers with two sets neither passes the protection that the other just raised.
pub(super) struct Accept {
    digest: Digest,
    names: Vec<String>,
    lost: Vec<String>,
    now: Timestamp,
    entry: Arc<Prepared>,
}

impl Accept {
    /// Takes a load apart.
    pub(super) fn new(load: PolicyLoad) -> Result<Self, StoreFault> {
        let PolicyLoad { digest, names, lost, entry, now } = load;
        Ok(Self { digest, names, lost, now, entry: super::prepare(entry)? })
    }

    async fn accept(&self, conn: &mut PgConnection, batch: &mut Batch<'_>) -> Result<PolicyVerdict, Trouble> {
        let Self { digest, names, lost, now, .. } = self;
        let before = newest(conn).await?;
        let lacks = lacks(before.as_ref(), names);
        if !lacks.is_empty() {
            let is_let_in = is_let_in(conn, *digest, *now).await?;
            if !is_let_in || lacks != *lost {
                return Ok(PolicyVerdict::Lacking { lost: lacks, is_let_in });
            }
        }
        // A start with the set that was accepted last is an entry, but no other set.
        if before.is_none_or(|before| !before.is(*digest, names)) {
            sqlx::query("INSERT INTO policy_accepted (digest, names, at) VALUES ($1, $2, $3)")
                .bind(digest.0.as_slice())
                .bind(serde_json::Value::from(names.clone()).to_string())
                .bind(stored(*now))
                .execute(conn)
                .await?;
        }
        batch.append(std::slice::from_ref(&self.entry));
        Ok(PolicyVerdict::Loaded)
    }
}

impl Direct for Accept {
    type Found = PolicyVerdict;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<PolicyVerdict, Trouble>> {
        Box::pin(self.accept(conn, batch))
    }
}

struct LetIn {
    digest: Digest,
    until: Timestamp,
    entry: Arc<Prepared>,
}

impl Direct for LetIn {
    type Found = ();

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<(), Trouble>> {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO policy_let_in (digest, until) VALUES ($1, $2)
                 ON CONFLICT (digest) DO UPDATE SET until = greatest(policy_let_in.until, excluded.until)",
            )
            .bind(self.digest.0.as_slice())
            .bind(stored(self.until))
            .execute(conn)
            .await?;
            batch.append(std::slice::from_ref(&self.entry));
            Ok(())
        })
    }
}
