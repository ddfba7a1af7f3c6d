//! The newest accepted policy set, for all processes of this store: guards against lost guardrails and issuers
//! (design: section 4, "Removal protection").

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Sqlite,
    batch::{Batch, Command},
    schema::{digest, list, moment, stored},
};
pub use crate::adapters::store::shared::policy::{AcceptedPolicy, LettingIn, PolicyStanding};
use crate::{
    adapters::store::shared::{columns::Prepared, policy::lacks},
    broker::ports::{PolicyLoad, PolicyVerdict, StoreFault},
    kernel::digest::Digest,
};

impl Sqlite {
    /// The newest accepted policy set.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn accepted_policy(&self) -> Result<Option<AcceptedPolicy>, StoreFault> {
        self.read(newest).await
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
        self.read(move |conn| -> rusqlite::Result<_> {
            Ok(PolicyStanding { newest: newest(conn)?, is_let_in: is_let_in(conn, candidate, now)? })
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
        self.submit(LetIn { digest, until, entry: Prepared::new(entry)? }).await?;
        Ok(())
    }
}

fn newest(conn: &Connection) -> rusqlite::Result<Option<AcceptedPolicy>> {
    let mut newest =
        conn.prepare_cached("SELECT digest, names, at FROM policy_accepted ORDER BY id DESC LIMIT 1")?;
    newest
        .query_row([], |row| {
            let names: String = row.get(1)?;
            let names = list(1, &names)?;
            Ok(AcceptedPolicy { digest: digest(row, 0)?, names, at: moment(row, 2)? })
        })
        .optional()
}

fn is_let_in(conn: &Connection, candidate: Digest, now: Timestamp) -> rusqlite::Result<bool> {
    let mut look = conn.prepare_cached("SELECT 1 FROM policy_let_in WHERE digest = ?1 AND until > ?2")?;
    look.exists(params![candidate.0, stored(now)])
}

/// Makes a set the newest accepted one, unless it lacks what that has. The look and the change are one transaction,
/// so that of two replicas with two sets neither passes the protection that the other just raised.
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
        Ok(Self { digest, names, lost, now, entry: Prepared::new(entry)? })
    }
}

impl Command for Accept {
    type Found = PolicyVerdict;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<PolicyVerdict> {
        let Self { digest, names, lost, now, .. } = self;
        let before = newest(batch.conn)?;
        let lacks = lacks(before.as_ref(), names);
        if !lacks.is_empty() {
            let is_let_in = is_let_in(batch.conn, *digest, *now)?;
            if !is_let_in || lacks != *lost {
                return Ok(PolicyVerdict::Lacking { lost: lacks, is_let_in });
            }
        }
        // A start with the set that was accepted last is an entry, but no other set.
        if before.is_none_or(|before| !before.is(*digest, names)) {
            let names = serde_json::Value::from(names.clone()).to_string();
            batch
                .conn
                .prepare_cached("INSERT INTO policy_accepted (digest, names, at) VALUES (?1, ?2, ?3)")?
                .execute(params![digest.0, names, stored(*now)])?;
        }
        batch.append(std::slice::from_ref(&self.entry));
        Ok(PolicyVerdict::Loaded)
    }
}

struct LetIn {
    digest: Digest,
    until: Timestamp,
    entry: Arc<Prepared>,
}

impl Command for LetIn {
    type Found = ();

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        let mut put = batch.conn.prepare_cached(
            "INSERT INTO policy_let_in (digest, until) VALUES (?1, ?2)
             ON CONFLICT (digest) DO UPDATE SET until = max(until, excluded.until)",
        )?;
        put.execute(params![self.digest.0, stored(self.until)])?;
        batch.append(std::slice::from_ref(&self.entry));
        Ok(())
    }
}
