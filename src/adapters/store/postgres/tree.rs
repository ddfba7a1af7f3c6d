//! The head as stored, and proofs over the rows of the tree. A proof is the kernel's; it asks for rows by and by, and they
//! are fetched until it has all.

use std::collections::HashMap;

use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{
    Trouble,
    schema::{digest, signed, unsigned},
};
use crate::{
    adapters::store::shared::head::Head,
    kernel::{
        digest::Digest,
        ledger::{
            checkpoint::VerifierKey,
            tree::{FromRows, Rows, RowsFault, consistency_proof, inclusion_proof, is_consistent},
        },
    },
};

/// The head's row.
pub(super) struct HeadRow {
    /// The head.
    pub(super) head: Head,
    /// Its signed note.
    pub(super) note: String,
    /// The generation of the sealed store.
    pub(super) generation: u64,
    /// How many tokens had their last denial.
    pub(super) spent: i64,
    /// The server's time in microseconds since 1970.
    pub(super) server_us: i64,
    /// How the line of the ledger's key begins in notes; none before its first change.
    pub(super) signer: Option<String>,
}

/// Reads the head's row.
pub(super) async fn load(conn: &mut PgConnection) -> Result<HeadRow, Trouble> {
    let row = sqlx::query(
        "SELECT size, root, peaks, note, generation, spent,
             (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, signer FROM head WHERE one = 1",
    )
    .fetch_one(conn)
    .await?;
    head_row(&row)
}

/// Reads the head's row and keeps others from appending until the transaction ends.
pub(super) async fn lock(conn: &mut PgConnection) -> Result<HeadRow, Trouble> {
    let row = sqlx::query(
        "SELECT size, root, peaks, note, generation, spent,
             (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, signer FROM head WHERE one = 1 FOR UPDATE",
    )
    .fetch_one(conn)
    .await?;
    head_row(&row)
}

fn head_row(row: &PgRow) -> Result<HeadRow, Trouble> {
    let peaks: &[u8] = row.try_get(2)?;
    let head = Head::restore(unsigned(row, 0)?, digest(row, 1)?, peaks).map_err(Trouble::Damaged)?;
    Ok(HeadRow {
        head,
        note: row.try_get(3)?,
        generation: unsigned(row, 4)?,
        spent: row.try_get(5)?,
        server_us: row.try_get(6)?,
        signer: row.try_get(7)?,
    })
}

/// Looks whether the newest note is signed for the head, and whether the entries are as many as it says.
pub(super) async fn check(conn: &mut PgConnection, row: &HeadRow, key: &VerifierKey) -> Result<(), Trouble> {
    row.head.check_note(&row.note, key).map_err(Trouble::Damaged)?;
    let entries: i64 =
        sqlx::query_scalar("SELECT coalesce(max(idx) + 1, 0) FROM entry").fetch_one(conn).await?;
    if entries != signed(row.head.frontier.size()) {
        return Err(Trouble::Damaged("the ledger has more or fewer entries than its head says"));
    }
    Ok(())
}

/// Puts a head in the place of another; [`Trouble::Moved`] where that is not the newest any more.
pub(super) async fn swap(conn: &mut PgConnection, before: &Head, after: &HeadRow) -> Result<(), Trouble> {
    let swapped = sqlx::query(
        "UPDATE head SET size = $1, root = $2, peaks = $3, note = $4, generation = $5, spent = $6, signer = $9
         WHERE one = 1 AND size = $7 AND root = $8",
    )
    .bind(signed(after.head.frontier.size()))
    .bind(after.head.root.0.as_slice())
    .bind(after.head.peaks())
    .bind(&after.note)
    .bind(signed(after.generation))
    .bind(after.spent)
    .bind(signed(before.frontier.size()))
    .bind(before.root.0.as_slice())
    .bind(after.signer.as_deref())
    .execute(conn)
    .await?;
    if swapped.rows_affected() == 1 { Ok(()) } else { Err(Trouble::Moved) }
}

/// Whether a ledger begins with a head that was seen.
pub(super) async fn begins_with(
    conn: &mut PgConnection,
    seen: (u64, &Digest),
    now: (u64, &Digest),
) -> Result<bool, Trouble> {
    if seen.0 >= now.0 {
        return Ok(seen.0 == now.0 && seen.1 == now.1);
    }
    let proof = prove(conn, |rows| consistency_proof(seen.0, now.0, &FromRows::new(rows, now.0))).await?;
    Ok(is_consistent(seen, now, &proof))
}

/// The proof that an entry is in the tree of that size.
pub(super) async fn inclusion(
    conn: &mut PgConnection,
    index: u64,
    size: u64,
) -> Result<Vec<Digest>, Trouble> {
    prove(conn, |rows| inclusion_proof(index, size, &FromRows::new(rows, size))).await
}

/// Asks for the proof until all that it needs was fetched: a few ranges of at most 256 hashes.
async fn prove(
    conn: &mut PgConnection,
    ask: impl Fn(&Fetched) -> Result<Vec<Digest>, RowsFault<Range>>,
) -> Result<Vec<Digest>, Trouble> {
    let mut fetched = Fetched::default();
    loop {
        let range = match ask(&fetched) {
            Ok(proof) => return Ok(proof),
            Err(RowsFault::Missing { .. }) => {
                return Err(Trouble::Damaged("the ledger lacks hashes that its size promises"));
            }
            Err(RowsFault::Source(range)) => range,
        };
        let hashes = fetch(conn, range).await?;
        fetched.0.insert(range, hashes);
    }
}

/// Hashes at a level, from an index to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Range {
    level: u8,
    from: u64,
    to: u64,
}

/// What was fetched; asked for more, it says what.
#[derive(Default)]
struct Fetched(HashMap<Range, Vec<Digest>>);

impl Rows for Fetched {
    type Fault = Range;

    fn range(&self, level: u8, from: u64, to: u64) -> Result<Vec<Digest>, Range> {
        let range = Range { level, from, to };
        self.0.get(&range).cloned().ok_or(range)
    }
}

async fn fetch(conn: &mut PgConnection, range: Range) -> sqlx::Result<Vec<Digest>> {
    let Range { level, from, to } = range;
    let query = if level == 0 {
        sqlx::query("SELECT leaf FROM entry WHERE idx >= $1 AND idx < $2 ORDER BY idx")
    } else {
        sqlx::query("SELECT hash FROM subtree WHERE idx >= $1 AND idx < $2 AND level = $3 ORDER BY idx")
    };
    let query = query.bind(signed(from)).bind(signed(to));
    let query = if level == 0 { query } else { query.bind(i16::from(level)) };
    query.fetch_all(conn).await?.iter().map(|row| digest(row, 0)).collect()
}
