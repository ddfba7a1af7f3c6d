//! The durable step of an exchange: freezes, claims, rows and entries in one transaction (P1 to P3).

use std::{ops::Range, sync::Arc};

use rusqlite::{Connection, params};

use super::{
    batch::{Batch, Command},
    claims, quota,
    schema::stored,
};
use crate::{
    adapters::store::shared::{
        claims::{self as claims_of, Chain, Plan},
        columns::Prepared,
    },
    broker::ports::{ClaimRefused, Issue, NewIssuance, Stage},
    kernel::{digest::Digest, issuance::State},
};

/// The durable step.
pub(super) struct IssueStep {
    /// What is asked; its entries are taken out of it.
    pub(super) issue: Issue,
    /// Its entries.
    pub(super) entries: Vec<Arc<Prepared>>,
}

/// What the step found.
pub(super) enum IssueFound {
    /// The sealed store changed since the fetch.
    Moved,
    /// Recorded, at these places of the batch.
    Recorded(Range<usize>),
    /// Its claims cannot be had.
    Refused(ClaimRefused),
}

impl Command for IssueStep {
    type Found = IssueFound;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<IssueFound> {
        let plan = match claims::plan(batch.conn, &self.issue.claims, self.issue.now)? {
            Ok(plan) => plan,
            Err(refused) => return Ok(IssueFound::Refused(refused)),
        };
        // Looked at last: a replay is a replay whatever became of the secret.
        if self.issue.sealed_generation.is_some_and(|seen| seen != batch.generation) {
            return Ok(IssueFound::Moved);
        }
        if self.issue.stage != Stage::Failed {
            self.write(batch.conn, &plan)?;
        }
        Ok(IssueFound::Recorded(batch.append(&self.entries)))
    }
}

impl IssueStep {
    fn write(&self, conn: &Connection, plan: &Plan) -> rusqlite::Result<()> {
        claims::claim(conn, &self.issue, plan)?;
        // A retry under its key repeats an intent that was counted.
        if !plan.is_retry() {
            quota::count(conn, &self.issue.claims.quotas, self.issue.now)?;
        }
        match self.issue.stage {
            Stage::Failed => Ok(()),
            Stage::Intent => {
                let rows = self.issue.rows.iter().zip(&plan.uses);
                rows.into_iter().try_for_each(|(row, once)| {
                    self.write_row(conn, row, State::Intent)?;
                    self.write_open(conn, row, (plan, once))
                })
            }
            Stage::Whole => {
                self.issue.rows.iter().try_for_each(|row| self.write_row(conn, row, State::Issued))
            }
        }
    }

    /// What only a row has that is open: what making it changes, and what is given back if it all fails.
    fn write_open(
        &self,
        conn: &Connection,
        row: &NewIssuance,
        (plan, once): (&Plan, &Digest),
    ) -> rusqlite::Result<()> {
        let first = match &plan.chain {
            Chain::Begins => self.issue.decision.bytes(),
            Chain::Goes(standing) => standing.first,
        };
        let counted = claims_of::counted(&self.issue.claims, &row.grant).filter(|_| !plan.is_retry());
        let mut write = conn.prepare_cached(
            "UPDATE issuance SET making = ?2, chain = ?3, once = ?4, idempotency = ?5, counted = ?6 WHERE id = ?1",
        )?;
        write.execute(params![
            row.id.bytes(),
            row.making.as_str(),
            first,
            once.0,
            self.issue.claims.key.map(|claim| claim.key.0),
            counted,
        ])?;
        Ok(())
    }

    fn write_row(&self, conn: &Connection, row: &NewIssuance, state: State) -> rusqlite::Result<()> {
        let mut insert = conn.prepare_cached(
            "INSERT INTO issuance (id, decision, grant_name, credential, kind, state, handle, issuer, token, job,
                 lifetime, issued_at, expires_at, revocable, owner, recover_after, project, live_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
        )?;
        insert.execute(params![
            row.id.bytes(),
            self.issue.decision.bytes(),
            row.grant.as_str(),
            row.credential.as_str(),
            row.kind.as_str(),
            state.as_str(),
            row.handle.0,
            row.issuer.as_str(),
            row.token.0,
            row.job.map(|job| job.0),
            row.lifetime.as_str(),
            stored(row.issued_at),
            row.expires_at.map(stored),
            row.revocable,
            row.owner.bytes(),
            stored(row.recover_after),
            row.project,
            row.live_until.map(stored),
        ])?;
        Ok(())
    }
}

/// Drops claims and keys whose time is over; a bounded number a turn, so that no exchange waits long behind it.
pub(super) fn drop_expired(conn: &Connection, now: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "DELETE FROM once WHERE key IN (SELECT key FROM once WHERE expires <= ?1 LIMIT 20000)",
    )?
    .execute([now])?;
    conn.prepare_cached("DELETE FROM idempotency WHERE valid_until <= ?1")?.execute([now])?;
    conn.prepare_cached("DELETE FROM policy_let_in WHERE until <= ?1")?.execute([now])?;
    quota::drop_expired(conn, now)?;
    Ok(())
}
