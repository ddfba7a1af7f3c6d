//! The tree head in the database, and how entries get behind it.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::{
    Trouble,
    schema::{digest, signed, stored, unsigned},
};
pub(super) use crate::adapters::store::shared::head::{Committed, Head, peaks_of};
use crate::{
    adapters::store::shared::{columns::Prepared, head::Grown},
    kernel::{digest::Digest, ledger::checkpoint::VerifierKey},
};

/// Reads the head and looks whether it holds together.
pub(super) fn load(conn: &Connection) -> Result<Head, Trouble> {
    let mut statement = conn.prepare_cached("SELECT size, root, peaks FROM head WHERE one = 1")?;
    let (size, root, peaks) =
        statement.query_row([], |row| Ok((unsigned(row, 0)?, digest(row, 1)?, row.get::<_, Vec<u8>>(2)?)))?;
    Head::restore(size, root, &peaks).map_err(Trouble::Damaged)
}

/// Looks whether the newest note is signed for a head, and whether the entries are as many as it says.
pub(super) fn check(head: &Head, conn: &Connection, key: &VerifierKey) -> Result<(), Trouble> {
    let note: String = conn.query_row("SELECT note FROM head WHERE one = 1", [], |row| row.get(0))?;
    head.check_note(&note, key).map_err(Trouble::Damaged)?;
    let newest = "SELECT coalesce(max(idx) + 1, 0) FROM entry";
    let entries: i64 = conn.query_row(newest, [], |row| row.get(0))?;
    if entries != signed(head.frontier.size()) {
        return Err(Trouble::Damaged("the ledger has more or fewer entries than its head says"));
    }
    Ok(())
}

/// Writes entries and the head behind them, within the caller's transaction. Answers the head afterwards, and what
/// receipts are made of.
pub(super) fn append(
    head: &Head,
    conn: &Connection,
    entries: Vec<Arc<Prepared>>,
    sign: &dyn Fn(u64, &Digest) -> String,
) -> Result<(Head, Committed), Trouble> {
    let first = head.frontier.size();
    if entries.is_empty() {
        return Ok((head.clone(), Committed::nothing(first)));
    }
    let Grown { head: after, full, committed } = head.grow(entries, sign);
    write_entries(conn, first, &committed.entries)?;
    let mut subtree = conn.prepare_cached("INSERT INTO subtree (level, idx, hash) VALUES (?1, ?2, ?3)")?;
    for (level, index, hash) in full {
        subtree.execute(params![level, signed(index), hash.0])?;
    }
    swap(head, conn, &after, &committed.note)?;
    Ok((after, committed))
}

/// Puts another head in this one's place; [`Trouble::Moved`] where this one is not the newest any more.
fn swap(head: &Head, conn: &Connection, after: &Head, note: &str) -> Result<(), Trouble> {
    let mut swap = conn.prepare_cached(
        "UPDATE head SET size = ?1, root = ?2, peaks = ?3, note = ?4 WHERE one = 1 AND size = ?5 AND root = ?6",
    )?;
    let swapped = swap.execute(params![
        signed(after.frontier.size()),
        after.root.0,
        after.peaks(),
        note,
        signed(head.frontier.size()),
        head.root.0,
    ])?;
    if swapped == 1 { Ok(()) } else { Err(Trouble::Moved) }
}

fn write_entries(conn: &Connection, first: u64, entries: &[Arc<Prepared>]) -> rusqlite::Result<()> {
    let mut entry_row = conn.prepare_cached(
        "INSERT INTO entry (idx, leaf, code, at, decision, issuance, issuer, grants, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let mut personal_row = conn.prepare_cached(
        "INSERT INTO personal (idx, ordinal, field, blinding, value) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (index, prepared) in (first..).zip(entries) {
        let Prepared { entry, grants } = &**prepared;
        entry_row.execute(params![
            signed(index),
            entry.leaf.0,
            entry.code.as_str(),
            stored(entry.at),
            entry.decision.map(|id| id.bytes()),
            entry.issuance.map(|id| id.bytes()),
            entry.issuer,
            grants,
            entry.bytes,
        ])?;
        for (ordinal, (field, blinding, value)) in (0_i64..).zip(&entry.personal) {
            personal_row.execute(params![signed(index), ordinal, field, blinding, value])?;
        }
    }
    Ok(())
}
