//! Refusals: entries as long as they are few, counts where they are many, so that strangers cannot grow the ledger
//! (design: section 6). Either way the answer waits for a real commit (P8).

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    batch::{Batch, Command},
    issue::drop_expired,
    schema::{moment, stored, unsigned},
};
pub(super) use crate::adapters::store::shared::refusals::OTHER_PROJECTS;
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        refusals::{DENIALS, PROJECT, PROJECT_ROWS, RowKey, SAMPLE_CHARS, SAMPLES, row_of},
    },
    broker::ports::{Counted, Refusal, StoreFault, Summary},
    kernel::digest::Digest,
};

/// Records one refusal.
pub(super) struct Refuse {
    /// What is refused.
    pub(super) counted: Counted,
    /// Whether it is an entry whatever the rate.
    pub(super) always: bool,
    /// The token that it counts against.
    pub(super) against: Option<(Digest, Timestamp)>,
    /// The reason.
    pub(super) sample: String,
    /// The time.
    pub(super) now: Timestamp,
    /// Its entry.
    pub(super) entry: Arc<Prepared>,
}

impl Refuse {
    /// Takes a refusal apart.
    pub(super) fn new(refusal: Refusal) -> Result<Self, StoreFault> {
        let Refusal { entry, counted, always, against, sample, now } = refusal;
        let sample = sample.chars().take(SAMPLE_CHARS).collect();
        Ok(Self { counted, always, against, sample, now, entry: Prepared::new(entry)? })
    }

    fn count(&self, conn: &Connection) -> rusqlite::Result<()> {
        let (kind, issuer, project) = row_of(&self.counted);
        let project =
            if kind == PROJECT && !has_room(conn, issuer, project)? { OTHER_PROJECTS } else { project };
        let mut upsert = conn.prepare_cached(
            "INSERT INTO summary (slot, kind, issuer, project, count, first, last, samples)
             VALUES (0, ?1, ?2, ?3, 1, ?4, ?4, json_array(?5))
             ON CONFLICT (slot, kind, issuer, project) DO UPDATE SET
                 count = count + 1, first = min(first, ?4), last = max(last, ?4),
                 samples = CASE
                     WHEN json_array_length(samples) < ?6
                         AND NOT EXISTS (SELECT 1 FROM json_each(samples) WHERE value = ?5)
                     THEN json_insert(samples, '$[#]', ?5) ELSE samples END",
        )?;
        upsert.execute(params![kind, issuer, project, stored(self.now), self.sample, SAMPLES])?;
        Ok(())
    }

    fn count_against_token(&self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        let Some((token, until)) = self.against else { return Ok(()) };
        let mut upsert = batch.conn.prepare_cached(
            "INSERT INTO denied (token, count, until) VALUES (?1, 1, ?2)
             ON CONFLICT (token) DO UPDATE SET count = count + 1, until = max(until, ?2)
             RETURNING count",
        )?;
        let count: i64 = upsert.query_row(params![token.0, stored(until)], |row| row.get(0))?;
        if count >= DENIALS {
            batch.spent.push((token, until));
        }
        Ok(())
    }
}

impl Command for Refuse {
    type Found = ();

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        self.count_against_token(batch)?;
        let is_rare = match &self.counted {
            Counted::Project { issuer, project } => batch.rates.may_record(issuer, project, self.now),
            Counted::Strangers { .. } | Counted::Unverified { .. } => false,
        };
        if self.always || is_rare {
            batch.append(std::slice::from_ref(&self.entry));
            return Ok(());
        }
        self.count(batch.conn)
    }
}

/// Sets the summary rows apart under a slot of their own, so that what is refused from now on counts anew, and
/// answers all that are set apart, also by a sweep that did not end.
pub(super) struct SetApart;

impl Command for SetApart {
    type Found = Vec<(RowKey, Summary)>;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Self::Found> {
        batch
            .conn
            .prepare_cached("UPDATE summary SET slot = (SELECT max(slot) + 1 FROM summary) WHERE slot = 0")?
            .execute([])?;
        let mut read = batch.conn.prepare_cached(
            "SELECT slot, kind, issuer, project, count, first, last, samples FROM summary
             WHERE slot > 0 ORDER BY slot, kind, issuer, project",
        )?;
        read.query_map([], apart)?.collect()
    }
}

/// Puts entries in the place of the rows that were set apart, and drops what is over.
pub(super) struct Sweep {
    /// The rows with their entries.
    pub(super) closed: Vec<(RowKey, Arc<Prepared>)>,
    /// The time.
    pub(super) now: Timestamp,
}

impl Command for Sweep {
    type Found = ();

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        let mut take = batch.conn.prepare_cached(
            "DELETE FROM summary WHERE slot = ?1 AND kind = ?2 AND issuer = ?3 AND project = ?4",
        )?;
        for (key, entry) in &self.closed {
            // Another sweep may have been quicker: then its entry stands, and this one is dropped.
            if take.execute(params![key.slot, key.kind, key.issuer, key.project])? == 1 {
                batch.append(std::slice::from_ref(entry));
            }
        }
        batch.rates.forget(self.now);
        let now = stored(self.now);
        batch.conn.prepare_cached("DELETE FROM denied WHERE until <= ?1")?.execute([now])?;
        drop_expired(batch.conn, now)
    }
}

/// Tokens that had their last denial, with their ends.
pub(super) fn load_spent(conn: &Connection) -> rusqlite::Result<HashMap<Digest, Timestamp>> {
    let mut read = conn.prepare("SELECT token, until FROM denied WHERE count >= ?1")?;
    read.query_map([DENIALS], |row| Ok((Digest(row.get(0)?), moment(row, 1)?)))?.collect()
}

/// Whether a project has a row of its own, or may get one.
fn has_room(conn: &Connection, issuer: &str, project: &str) -> rusqlite::Result<bool> {
    let mut own = conn.prepare_cached(
        "SELECT 1 FROM summary WHERE slot = 0 AND kind = ?1 AND issuer = ?2 AND project = ?3",
    )?;
    if own.exists(params![PROJECT, issuer, project])? {
        return Ok(true);
    }
    let mut rows = conn.prepare_cached("SELECT count(*) FROM summary WHERE slot = 0 AND kind = ?1")?;
    let rows: Option<i64> = rows.query_row([PROJECT], |row| row.get(0)).optional()?;
    Ok(rows.unwrap_or(0) < PROJECT_ROWS)
}

fn apart(row: &Row<'_>) -> rusqlite::Result<(RowKey, Summary)> {
    let key = RowKey { slot: row.get(0)?, kind: row.get(1)?, issuer: row.get(2)?, project: row.get(3)? };
    let (first, last) = (moment(row, 5)?, moment(row, 6)?);
    let samples: String = row.get(7)?;
    let summary = Summary {
        counted: key.counted(),
        count: unsigned(row, 4)?,
        first,
        last,
        // Written by SQLite's own JSON functions above; were it spoiled, the count still is worth its entry.
        samples: serde_json::from_str(&samples).unwrap_or_default(),
    };
    Ok((key, summary))
}
