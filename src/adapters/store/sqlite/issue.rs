//! The durable step of an exchange, and giving back: claims, rows and entries in one transaction (P1 to P3).

use std::{ops::Range, sync::Arc, time::Duration};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    batch::{Batch, Command},
    columns::Prepared,
    schema::{digest, stored, word},
};
use crate::{
    broker::ports::{Issue, KeyClaim, NewIssuance},
    kernel::{id::IssuanceId, issuance::State, lifetime::after},
};

/// How long an idempotency key holds, from the first claim (design: P3). The one durable step claims and closes in
/// the same moment, so the later of the two is that moment.
const KEY_HOLDS: Duration = Duration::from_secs(60);

/// How often a call may be retried under its key (design: P3).
const RETRIES: i64 = 2;

/// The durable step.
pub(super) struct IssueStep {
    /// What is asked; its entries are taken out of it.
    pub(super) issue: Issue,
    /// Its entries.
    pub(super) entries: Vec<Arc<Prepared>>,
}

/// What the step found.
pub(super) enum IssueFound {
    /// Another body under the same key.
    Mismatch,
    /// The sealed store changed since the fetch.
    Moved,
    /// Recorded, at these places of the batch.
    Recorded(Range<usize>),
    /// No free use.
    Replayed,
}

/// The calls that may share one use of a token: a call and its retries under the same key.
enum Chain {
    /// This call begins one.
    Begins,
    /// This call is a retry in it.
    Goes(Standing),
}

/// A key that holds.
struct Standing {
    first: [u8; 16],
    issuances: Vec<u8>,
}

impl Command for IssueStep {
    type Found = IssueFound;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<IssueFound> {
        let chain = match self.chain(batch.conn)? {
            Ok(chain) => chain,
            Err(refused) => return Ok(refused),
        };
        if self.is_used_elsewhere(batch.conn, &chain)? {
            return Ok(IssueFound::Replayed);
        }
        // Looked at last: a replay is a replay whatever became of the secret.
        if self.issue.sealed_generation.is_some_and(|seen| seen != batch.generation) {
            return Ok(IssueFound::Moved);
        }
        if !self.issue.failed {
            self.claim(batch.conn, &chain)?;
            for row in &self.issue.rows {
                self.write_row(batch.conn, row)?;
            }
        }
        Ok(IssueFound::Recorded(batch.append(&self.entries)))
    }
}

impl IssueStep {
    /// What the idempotency key says. A key that does not hold any more says nothing: the once-claims decide.
    fn chain(&self, conn: &Connection) -> rusqlite::Result<Result<Chain, IssueFound>> {
        let Some(KeyClaim { key, body }) = self.issue.key else { return Ok(Ok(Chain::Begins)) };
        let mut look = conn.prepare_cached(
            "SELECT body, chain, retries, issuances FROM idempotency WHERE key = ?1 AND valid_until > ?2",
        )?;
        let found = look
            .query_row(params![key.0, stored(self.issue.now)], |row| {
                let standing = Standing { first: row.get(1)?, issuances: row.get(3)? };
                Ok((digest(row, 0)?, row.get::<_, i64>(2)?, standing))
            })
            .optional()?;
        let Some((kept, retries, standing)) = found else { return Ok(Ok(Chain::Begins)) };
        if kept != body {
            return Ok(Err(IssueFound::Mismatch));
        }
        if retries >= RETRIES || !all_stand(conn, &standing.issuances)? {
            return Ok(Err(IssueFound::Replayed));
        }
        Ok(Ok(Chain::Goes(standing)))
    }

    /// Whether a use is claimed by another chain. One that is used makes all used: none of the others is claimed.
    fn is_used_elsewhere(&self, conn: &Connection, chain: &Chain) -> rusqlite::Result<bool> {
        let mut look = conn.prepare_cached("SELECT chain FROM once WHERE key = ?1")?;
        for use_key in &self.issue.once {
            let claimed: Option<[u8; 16]> =
                look.query_row(params![use_key.0], |row| row.get(0)).optional()?;
            let is_ours = match (claimed, chain) {
                (None, _) => true,
                (Some(_), Chain::Begins) => false,
                (Some(by), Chain::Goes(standing)) => by == standing.first,
            };
            if !is_ours {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn claim(&self, conn: &Connection, chain: &Chain) -> rusqlite::Result<()> {
        let Issue { decision, once, once_until, key, rows, now, .. } = &self.issue;
        let first = match chain {
            Chain::Begins => decision.bytes(),
            Chain::Goes(standing) => standing.first,
        };
        // OR IGNORE: a retry finds its own claims.
        let mut claim =
            conn.prepare_cached("INSERT OR IGNORE INTO once (key, expires, chain) VALUES (?1, ?2, ?3)")?;
        for use_key in once {
            claim.execute(params![use_key.0, stored(*once_until), first])?;
        }
        let Some(KeyClaim { key, body }) = key else { return Ok(()) };
        let ids = rows.iter().flat_map(|row| row.id.bytes());
        match chain {
            Chain::Begins => {
                let mut begin = conn.prepare_cached(
                    "INSERT OR REPLACE INTO idempotency (key, body, chain, retries, issuances, valid_until)
                     VALUES (?1, ?2, ?3, 0, ?4, ?5)",
                )?;
                let ids: Vec<u8> = ids.collect();
                begin.execute(params![key.0, body.0, first, ids, stored(after(*now, KEY_HOLDS))])?;
            }
            Chain::Goes(standing) => {
                let mut go = conn.prepare_cached(
                    "UPDATE idempotency SET retries = retries + 1, issuances = ?2 WHERE key = ?1",
                )?;
                let ids: Vec<u8> = standing.issuances.iter().copied().chain(ids).collect();
                go.execute(params![key.0, ids])?;
            }
        }
        Ok(())
    }

    fn write_row(&self, conn: &Connection, row: &NewIssuance) -> rusqlite::Result<()> {
        let mut insert = conn.prepare_cached(
            "INSERT INTO issuance (id, decision, grant_name, credential, kind, state, handle, issuer, token, job,
                 lifetime, issued_at, expires_at, revocable, owner, recover_after)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?;
        insert.execute(params![
            row.id.bytes(),
            self.issue.decision.bytes(),
            row.grant.as_str(),
            row.credential.as_str(),
            row.kind.as_str(),
            State::Issued.as_str(),
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
        ])?;
        Ok(())
    }
}

/// Whether none of a chain's issuances was given back or revoked: after that, a retry is a replay.
fn all_stand(conn: &Connection, ids: &[u8]) -> rusqlite::Result<bool> {
    let mut look = conn.prepare_cached("SELECT state FROM issuance WHERE id = ?1")?;
    for id in ids.chunks(16) {
        let state = look.query_row(params![id], |row| word(row, 0, State::parse)).optional()?;
        match state {
            Some(State::Failed | State::Intent | State::Issued | State::Unresolved) => {}
            Some(State::Released | State::Revoked | State::Revoking) | None => return Ok(false),
        }
    }
    Ok(true)
}

/// Gives issued rows back, each with its entry.
pub(super) struct Release(pub(super) Vec<(IssuanceId, Arc<Prepared>)>);

impl Command for Release {
    type Found = Vec<IssuanceId>;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Vec<IssuanceId>> {
        let mut swap =
            batch.conn.prepare_cached("UPDATE issuance SET state = ?2 WHERE id = ?1 AND state = ?3")?;
        let mut moved = Vec::new();
        for (id, entry) in &self.0 {
            let states = (State::Released.as_str(), State::Issued.as_str());
            if swap.execute(params![id.bytes(), states.0, states.1])? == 1 {
                batch.append(std::slice::from_ref(entry));
                moved.push(*id);
            }
        }
        Ok(moved)
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
    Ok(())
}
