//! The tree head in the database, and how entries get behind it.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::{
    Trouble,
    batch::Committed,
    columns::Prepared,
    schema::{digest, signed, stored, unsigned},
};
use crate::kernel::{
    digest::Digest,
    ledger::{
        checkpoint::VerifierKey,
        tree::{Appended, Frontier},
    },
};

/// The head as the writer knows it.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) frontier: Frontier,
    pub(super) root: Digest,
}

impl Head {
    /// Reads the head and looks whether it holds together.
    pub(super) fn load(conn: &Connection) -> Result<Self, Trouble> {
        let mut statement = conn.prepare_cached("SELECT size, root, peaks FROM head WHERE one = 1")?;
        let (size, root, peaks) = statement
            .query_row([], |row| Ok((unsigned(row, 0)?, digest(row, 1)?, row.get::<_, Vec<u8>>(2)?)))?;
        let peaks: Vec<Digest> = peaks
            .chunks(32)
            .map(|chunk| <[u8; 32]>::try_from(chunk).map(Digest))
            .collect::<Result<_, _>>()
            .map_err(|_| Trouble::Damaged("the head's peaks are no digests"))?;
        let frontier =
            Frontier::restore(size, peaks).ok_or(Trouble::Damaged("the head's peaks do not fit its size"))?;
        if frontier.root() != root {
            return Err(Trouble::Damaged("the head's peaks do not lead to its root"));
        }
        Ok(Self { frontier, root })
    }

    /// Looks whether the newest note is signed for this head, and whether the entries are as many as it says.
    pub(super) fn check(&self, conn: &Connection, key: &VerifierKey) -> Result<(), Trouble> {
        let note: String = conn.query_row("SELECT note FROM head WHERE one = 1", [], |row| row.get(0))?;
        let signed_head =
            key.open(&note).map_err(|_| Trouble::Damaged("the head is not signed by the log's key"))?;
        if signed_head.size != self.frontier.size() || signed_head.root != self.root {
            return Err(Trouble::Damaged("the signed head is not the stored one"));
        }
        let newest = "SELECT coalesce(max(idx) + 1, 0) FROM entry";
        let entries: i64 = conn.query_row(newest, [], |row| row.get(0))?;
        if entries != signed(self.frontier.size()) {
            return Err(Trouble::Damaged("the ledger has more or fewer entries than its head says"));
        }
        Ok(())
    }

    /// Writes entries and the head behind them, within the caller's transaction. Answers the head afterwards, and
    /// what receipts are made of.
    pub(super) fn append(
        &self,
        conn: &Connection,
        entries: Vec<Arc<Prepared>>,
        sign: &dyn Fn(u64, &Digest) -> String,
    ) -> Result<(Self, Committed), Trouble> {
        let first = self.frontier.size();
        if entries.is_empty() {
            return Ok((self.clone(), Committed::nothing(first)));
        }
        let leaves: Vec<Digest> = entries.iter().map(|prepared| prepared.entry.leaf).collect();
        let Appended { frontier, root, proofs, full } = self.frontier.append(&leaves);
        write_entries(conn, first, &entries)?;
        let mut subtree =
            conn.prepare_cached("INSERT INTO subtree (level, idx, hash) VALUES (?1, ?2, ?3)")?;
        for (level, index, hash) in full {
            subtree.execute(params![level, signed(index), hash.0])?;
        }
        let note = sign(frontier.size(), &root);
        let after = Self { frontier, root };
        self.swap(conn, &after, &note)?;
        Ok((after, Committed { first, entries, proofs, note }))
    }

    /// Puts another head in this one's place; [`Trouble::Moved`] where this one is not the newest any more.
    fn swap(&self, conn: &Connection, after: &Self, note: &str) -> Result<(), Trouble> {
        let mut swap = conn.prepare_cached(
            "UPDATE head SET size = ?1, root = ?2, peaks = ?3, note = ?4 WHERE one = 1 AND size = ?5 AND root = ?6",
        )?;
        let swapped = swap.execute(params![
            signed(after.frontier.size()),
            after.root.0,
            peaks_of(&after.frontier),
            note,
            signed(self.frontier.size()),
            self.root.0,
        ])?;
        if swapped == 1 { Ok(()) } else { Err(Trouble::Moved) }
    }
}

/// The peaks as stored: one behind the other.
pub(super) fn peaks_of(frontier: &Frontier) -> Vec<u8> {
    frontier.peaks().iter().flat_map(|peak| peak.0).collect()
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
        let Prepared { entry, issuer, grants } = &**prepared;
        entry_row.execute(params![
            signed(index),
            entry.leaf.0,
            entry.code.as_str(),
            stored(entry.at),
            entry.decision.map(|id| id.bytes()),
            entry.issuance.map(|id| id.bytes()),
            issuer,
            grants,
            entry.bytes,
        ])?;
        for (ordinal, (field, blinding, value)) in (0_i64..).zip(&entry.personal) {
            personal_row.execute(params![signed(index), ordinal, field, blinding, value])?;
        }
    }
    Ok(())
}
