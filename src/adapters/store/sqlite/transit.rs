//! Issuances on their way: which there are of a job or a grant, and each step of one, by compare-and-swap with its
//! entry. What steps there are is the kernel's to say ([`State::after`]).

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    batch::{Batch, Command},
    reader::{ISSUANCE_COLUMNS, issuance_row},
    schema::{stored, word},
};
use crate::{
    adapters::store::shared::{
        claims::KEY_HOLDS,
        transit::{Stands, Step, Steps, Taken, TransitFound},
    },
    broker::ports::{Change, Holder, IssuanceRow, Selection},
    kernel::{
        id::IssuanceId,
        issuance::{Event, State, back_off},
        lifetime::after,
    },
};

impl Command for Steps {
    type Found = TransitFound;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<TransitFound> {
        if self.sealed_generation.is_some_and(|seen| seen != batch.generation) {
            return Ok(TransitFound { is_stale: true, ..TransitFound::default() });
        }
        let taken = self.taken(rows(batch.conn, &self.steps)?);
        for each in &taken {
            write(batch.conn, each)?;
        }
        give_back(batch.conn, &taken, self.now)?;
        let entries: Vec<_> = taken.iter().filter_map(|each| each.step.entry.clone()).collect();
        let places = batch.append(&entries);
        let moved = taken.iter().map(|each| each.step.id).collect();
        let has_left = match &self.holder {
            Some(holder) => has_issued(batch.conn, holder)?,
            None => false,
        };
        Ok(TransitFound { moved, places, has_left, is_stale: false })
    }
}

fn rows(conn: &Connection, steps: &[Step]) -> rusqlite::Result<HashMap<IssuanceId, Stands>> {
    let mut look = conn.prepare_cached("SELECT state, told FROM issuance WHERE id = ?1")?;
    let mut rows = HashMap::with_capacity(steps.len());
    for step in steps {
        let row = look.query_row([step.id.bytes()], |row| {
            Ok(Stands { state: word(row, 0, State::parse)?, is_told: row.get(1)? })
        });
        if let Some(stands) = row.optional()? {
            rows.insert(step.id, stands);
        }
    }
    Ok(rows)
}

/// Writes one step, if its row still stands where the step begins: within the transaction it does.
fn write(conn: &Connection, taken: &Taken<'_>) -> rusqlite::Result<()> {
    let Change { held, ends, usable_until, retry_at, keeps_chain, .. } = &taken.step.change;
    let mut swap = conn.prepare_cached(
        "UPDATE issuance SET state = ?3, held = CASE WHEN ?4 THEN NULL ELSE coalesce(?5, held) END,
             expires_at = CASE WHEN ?6 THEN ?7 ELSE expires_at END,
             live_until = CASE WHEN ?6 THEN ?8 ELSE coalesce(?9, live_until) END,
             usable_until = coalesce(?9, usable_until), retry_at = coalesce(?10, retry_at),
             told = told OR ?11, keeps_chain = keeps_chain OR ?12
         WHERE id = ?1 AND state = ?2",
    )?;
    swap.execute(params![
        taken.step.id.bytes(),
        taken.from.as_str(),
        taken.to.as_str(),
        taken.has_ended(),
        held,
        ends.is_some(),
        ends.and_then(|ends| ends.expires_at).map(stored),
        ends.and_then(|ends| ends.live_until).map(stored),
        usable_until.map(stored),
        retry_at.map(stored),
        taken.step.event == Event::Overdue,
        keeps_chain,
    ])?;
    Ok(())
}

/// What a failed issuance gives back: its count where nothing was made, and where its whole decision failed the use of
/// the token and the place under the key. Where a decision is closed, its key holds for a while from now.
fn give_back(conn: &Connection, taken: &[Taken<'_>], now: Timestamp) -> rusqlite::Result<()> {
    for each in taken.iter().filter(|each| each.to == State::Failed && each.step.change.is_unmade) {
        conn.prepare_cached(
            "UPDATE intent_count SET count = intent_count.count - 1 FROM issuance AS row
             WHERE row.id = ?1 AND intent_count.count > 0 AND intent_count.grant_name = row.grant_name
                 AND intent_count.minute = row.issued_at / 60000000000
                 AND ((row.counted = 'grant' AND intent_count.issuer = '' AND intent_count.project = '')
                     OR (row.counted = 'project' AND intent_count.issuer = row.issuer
                         AND intent_count.project = coalesce(row.project, '')))",
        )?
        .execute([each.step.id.bytes()])?;
    }
    let mut decision =
        conn.prepare_cached("SELECT decision FROM issuance WHERE id = ?1 AND making IS NOT NULL")?;
    let mut decisions: Vec<[u8; 16]> = Vec::new();
    for each in taken.iter().filter(|each| each.is_closed()) {
        let found: Option<[u8; 16]> =
            decision.query_row([each.step.id.bytes()], |row| row.get(0)).optional()?;
        decisions.extend(found);
    }
    decisions.sort_unstable();
    decisions.dedup();
    decisions.iter().try_for_each(|decision| close(conn, decision, now))
}

/// One decision of which an issuance was closed.
fn close(conn: &Connection, decision: &[u8; 16], now: Timestamp) -> rusqlite::Result<()> {
    let mut rows = conn.prepare_cached(
        "SELECT state, chain, once, idempotency FROM issuance WHERE decision = ?1 AND making IS NOT NULL",
    )?;
    let rows: Vec<ClosedRow> = rows
        .query_map([decision], |row| {
            Ok(ClosedRow {
                state: word(row, 0, State::parse)?,
                chain: row.get(1)?,
                once: row.get(2)?,
                key: row.get(3)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    if rows.iter().any(|row| row.state == State::Intent) {
        return Ok(());
    }
    let has_failed = rows.iter().all(|row| row.state == State::Failed);
    for row in &rows {
        let is_first = row.chain == *decision;
        if has_failed && is_first {
            conn.prepare_cached("DELETE FROM once WHERE key = ?1 AND chain = ?2")?
                .execute(params![row.once, row.chain])?;
            conn.prepare_cached("DELETE FROM idempotency WHERE key = ?1 AND chain = ?2")?
                .execute(params![row.key, row.chain])?;
        }
    }
    let Some(ClosedRow { key: Some(key), chain, .. }) = rows.first() else { return Ok(()) };
    conn.prepare_cached(
        "UPDATE idempotency SET valid_until = ?3, retries = max(0, retries - ?4) WHERE key = ?1 AND chain = ?2",
    )?
    .execute(params![key, chain, stored(after(now, KEY_HOLDS)), has_failed])?;
    Ok(())
}

/// A row of a decision that may be over.
struct ClosedRow {
    state: State,
    chain: [u8; 16],
    once: [u8; 32],
    key: Option<[u8; 32]>,
}

/// Open rows whose owner should have closed them.
pub(super) fn abandoned(conn: &Connection, now: Timestamp, limit: u32) -> rusqlite::Result<Vec<IssuanceRow>> {
    let mut rows = conn.prepare_cached(&format!(
        "SELECT {ISSUANCE_COLUMNS} FROM issuance WHERE state = 'intent' AND recover_after <= ?1
         ORDER BY recover_after LIMIT ?2"
    ))?;
    rows.query_map(params![stored(now), limit], issuance_row)?.collect()
}

/// Revokes that are due.
pub(super) struct TakeDue {
    /// The time.
    pub(super) now: Timestamp,
    /// At most so many.
    pub(super) limit: u32,
}

impl Command for TakeDue {
    type Found = Vec<IssuanceRow>;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Vec<IssuanceRow>> {
        let rows = due(batch.conn, self.now, self.limit)?;
        let mut hold = batch
            .conn
            .prepare_cached("UPDATE issuance SET retry_at = ?2, tries = tries + 1 WHERE id = ?1")?;
        for row in &rows {
            hold.execute(params![row.id.bytes(), stored(after(self.now, back_off(row.tries)))])?;
        }
        Ok(rows)
    }
}

/// Revokes that are due, and left to others.
pub(super) fn due(conn: &Connection, now: Timestamp, limit: u32) -> rusqlite::Result<Vec<IssuanceRow>> {
    let mut rows = conn.prepare_cached(&format!(
        "SELECT {ISSUANCE_COLUMNS} FROM issuance
         WHERE state = 'revoking' AND (retry_at IS NULL OR retry_at <= ?1) ORDER BY retry_at LIMIT ?2"
    ))?;
    rows.query_map(params![stored(now), limit], issuance_row)?.collect()
}

fn has_issued(conn: &Connection, holder: &Holder) -> rusqlite::Result<bool> {
    let mut look = conn.prepare_cached(
        "SELECT 1 FROM issuance WHERE coalesce(job, token) = ?1 AND issuer = ?2 AND state = 'issued'
             AND (expires_at IS NULL OR expires_at > ?3) LIMIT 1",
    )?;
    look.exists(params![holder.holder.0, holder.issuer.as_str(), stored(holder.now)])
}

/// The issuances of a selection, by id.
pub(super) fn select(
    conn: &Connection,
    selection: &Selection,
    past: Option<IssuanceId>,
    limit: u32,
) -> rusqlite::Result<Vec<IssuanceRow>> {
    let past = past.map(|id| id.bytes()).unwrap_or_default();
    match selection {
        Selection::Of(holder) => {
            let mut rows = conn.prepare_cached(&format!(
                "SELECT {ISSUANCE_COLUMNS} FROM issuance
                 WHERE coalesce(job, token) = ?1 AND issuer = ?2 AND id > ?3 ORDER BY id LIMIT ?4"
            ))?;
            rows.query_map(params![holder.holder.0, holder.issuer.as_str(), past, limit], issuance_row)?
                .collect()
        }
        Selection::Usable { grant, project, since, now } => {
            let (issuer, project) =
                project.as_ref().map(|(issuer, project)| (issuer.as_str(), project)).unzip();
            let mut rows = conn.prepare_cached(&format!(
                "SELECT {ISSUANCE_COLUMNS} FROM issuance
                 WHERE id > ?1 AND state IN ('issued', 'unresolved') AND (expires_at IS NULL OR expires_at > ?2)
                     AND (?3 IS NULL OR grant_name = ?3) AND (?4 IS NULL OR (issuer = ?4 AND project = ?5))
                     AND (?6 IS NULL OR issued_at >= ?6)
                 ORDER BY id LIMIT ?7"
            ))?;
            let since = since.map(stored);
            let grant = grant.as_ref().map(|grant| grant.as_str());
            rows.query_map(params![past, stored(*now), grant, issuer, project, since, limit], issuance_row)?
                .collect()
        }
    }
}
