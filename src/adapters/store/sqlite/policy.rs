//! The newest accepted policy set, for all processes of this store: guards against lost guardrails and issuers.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::{
    Sqlite,
    batch::{Batch, Command},
    columns::Prepared,
    schema::{digest, list, moment, stored},
};
use crate::{
    broker::ports::StoreFault,
    kernel::{digest::Digest, ledger::entry::Entry},
};

/// A policy set that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedPolicy {
    /// Its digest.
    pub digest: Digest,
    /// Names that later sets must not lose.
    pub names: Vec<String>,
    /// When it was accepted.
    pub at: Timestamp,
}

impl Sqlite {
    /// The newest accepted policy set.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn accepted_policy(&self) -> Result<Option<AcceptedPolicy>, StoreFault> {
        self.read(|conn| -> rusqlite::Result<_> {
            let mut newest = conn
                .prepare_cached("SELECT digest, names, at FROM policy_accepted ORDER BY id DESC LIMIT 1")?;
            newest
                .query_row([], |row| {
                    let names: String = row.get(1)?;
                    let names = list(1, &names)?;
                    Ok(AcceptedPolicy { digest: digest(row, 0)?, names, at: moment(row, 2)? })
                })
                .optional()
        })
        .await
    }

    /// Records an accepted policy set, with its entries in the same transaction.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn accept_policy(
        &self,
        accepted: AcceptedPolicy,
        entries: Vec<Entry>,
    ) -> Result<(), StoreFault> {
        self.submit(Accept { accepted, entries: Prepared::all(entries)? }).await?;
        Ok(())
    }
}

struct Accept {
    accepted: AcceptedPolicy,
    entries: Vec<Arc<Prepared>>,
}

impl Command for Accept {
    type Found = ();

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        let AcceptedPolicy { digest, names, at } = &self.accepted;
        let names = serde_json::Value::from(names.clone()).to_string();
        batch
            .conn
            .prepare_cached("INSERT INTO policy_accepted (digest, names, at) VALUES (?1, ?2, ?3)")?
            .execute(params![digest.0, names, stored(*at)])?;
        batch.append(&self.entries);
        Ok(())
    }
}
