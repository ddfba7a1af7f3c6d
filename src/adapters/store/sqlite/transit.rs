//! Issuances on their way: which there are of a job or a grant, and each step of one, by compare-and-swap with its
//! entry. What steps there are is the kernel's to say ([`State::after`]).

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    batch::{Batch, Command},
    reader::{ISSUANCE_COLUMNS, issuance_row},
    schema::{stored, word},
};
use crate::{
    adapters::store::shared::columns::Prepared,
    broker::ports::{Holder, IssuanceRow, Selection, Transited},
    kernel::{
        id::IssuanceId,
        issuance::{Event, State},
    },
};

/// Moves rows on.
pub(super) struct Transit {
    /// Each step with its entry.
    pub(super) steps: Vec<(IssuanceId, Event, Arc<Prepared>)>,
    /// Of whom it is asked whether there is more.
    pub(super) holder: Option<Holder>,
}

impl Command for Transit {
    type Found = Transited;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Transited> {
        let mut look = batch.conn.prepare_cached("SELECT state FROM issuance WHERE id = ?1")?;
        let mut swap =
            batch.conn.prepare_cached("UPDATE issuance SET state = ?2 WHERE id = ?1 AND state = ?3")?;
        let mut moved = Vec::new();
        for (id, event, entry) in &self.steps {
            let stands = look.query_row([id.bytes()], |row| word(row, 0, State::parse)).optional()?;
            let Some((from, to)) = stands.and_then(|from| Some((from, from.after(*event)?))) else {
                continue;
            };
            if swap.execute(params![id.bytes(), to.as_str(), from.as_str()])? == 1 {
                batch.append(std::slice::from_ref(entry));
                moved.push(*id);
            }
        }
        let has_left = match &self.holder {
            Some(holder) => has_issued(batch.conn, holder)?,
            None => false,
        };
        Ok(Transited { moved, has_left })
    }
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
