//! Whether the ledger begins with one that somebody has seen: the replica's own look at start.

use rusqlite::Connection;

use super::{
    Sqlite, Trouble,
    reader::Stored,
    schema::{digest, unsigned},
};
use crate::{
    broker::ports::StoreFault,
    kernel::ledger::{
        checkpoint::Checkpoint,
        tree::{FromRows, RowsFault, consistency_proof, is_consistent},
    },
};

impl Sqlite {
    /// Whether the first entries of this ledger are those of that head, and how many entries this ledger has.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn begins_with(&self, seen: &Checkpoint) -> Result<(bool, u64), StoreFault> {
        let seen = seen.clone();
        self.read(move |conn| begins_with(conn, &seen)).await
    }
}

fn begins_with(conn: &Connection, seen: &Checkpoint) -> Result<(bool, u64), Trouble> {
    let mut head = conn.prepare_cached("SELECT size, root FROM head WHERE one = 1")?;
    let (size, root) = head.query_row([], |row| Ok((unsigned(row, 0)?, digest(row, 1)?)))?;
    if seen.size >= size {
        return Ok((seen.size == size && seen.root == root, size));
    }
    let rows = Stored(conn);
    let proof =
        consistency_proof(seen.size, size, &FromRows::new(&rows, size)).map_err(|fault| match fault {
            RowsFault::Missing { .. } => Trouble::Damaged("the ledger lacks hashes that its size promises"),
            RowsFault::Source(fault) => Trouble::Sqlite(fault),
        })?;
    Ok((is_consistent((seen.size, &seen.root), (size, &root), &proof), size))
}
