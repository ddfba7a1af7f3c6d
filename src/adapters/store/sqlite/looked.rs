//! The ledger as it lies in the file, for exports and for those who look whether it holds together. Whatever stands in a
//! column is read: what cannot be is told, so that nobody stops a verification by spoiling a row.

use rusqlite::{Connection, OptionalExtension, Row, params, types::FromSql};

use super::{Sqlite, Trouble, head, open::read_text, schema::signed};
pub use crate::adapters::store::shared::rows::LedgerRow;
use crate::{
    adapters::store::shared::rows::Columns,
    broker::{
        audit::{Kept, KeptRow, Stray},
        ports::{Answer, StoreFault},
    },
    kernel::{
        digest::Digest,
        ledger::checkpoint::{Checkpoint, VerifierKey},
    },
};

/// Rows of one page.
const PAGE: u32 = 1_000;

impl Sqlite {
    /// What is wrong with the columns that the writer goes on from: they say the same as the signed head, or the
    /// next entry would not fit the ones before.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`] where the database cannot be read.
    pub async fn head_fault(&self) -> Result<Option<&'static str>, StoreFault> {
        let key = self.verifier_key();
        self.read(move |conn| match head::load(conn).and_then(|head| head::check(&head, conn, &key)) {
            Ok(()) => Ok(None),
            Err(Trouble::Damaged(what)) => Ok(Some(what)),
            Err(trouble) => Err(trouble),
        })
        .await
    }

    /// Entries in order from an index on, for exports and verification; at most 1000.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn ledger_rows(&self, from: u64, limit: u32) -> Result<Vec<LedgerRow>, StoreFault> {
        self.read(move |conn| -> rusqlite::Result<_> {
            let mut rows = conn.prepare_cached(
                "SELECT idx, bytes, leaf, code, at, decision, issuance, issuer, grants FROM entry
                 WHERE idx >= ?1 ORDER BY idx LIMIT ?2",
            )?;
            let rows = rows.query_map(params![signed(from), limit.min(PAGE)], ledger_row)?;
            rows.map(|row| {
                let mut row = row?;
                (row.personal, row.unreadable) = personal_of(conn, row.index)?;
                Ok(row)
            })
            .collect()
        })
        .await
    }
}

impl Kept for Sqlite {
    fn own_key(&self) -> VerifierKey {
        self.verifier_key()
    }

    fn head_note(&self) -> Answer<'_, Result<Vec<u8>, StoreFault>> {
        Box::pin(self.read(note))
    }

    fn rows(&self, from: u64) -> Answer<'_, Result<Vec<KeptRow>, StoreFault>> {
        Box::pin(async move {
            let rows = self.ledger_rows(from, PAGE).await?;
            Ok(rows.into_iter().map(KeptRow::from).collect())
        })
    }

    fn subtrees(&self, places: Vec<(u8, u64)>) -> Answer<'_, Result<Vec<Option<Digest>>, StoreFault>> {
        Box::pin(self.read(move |conn| -> rusqlite::Result<_> {
            let mut row = conn.prepare_cached("SELECT hash FROM subtree WHERE level = ?1 AND idx = ?2")?;
            let mut kept = |(level, index)| {
                let found: Option<Vec<u8>> =
                    row.query_row(params![level, signed(index)], |row| row.get(0)).optional()?;
                Ok(found.and_then(|hash| hash.try_into().ok()).map(Digest))
            };
            places.into_iter().map(&mut kept).collect()
        }))
    }

    fn strays(&self) -> Answer<'_, Result<Vec<Stray>, StoreFault>> {
        Box::pin(self.read(strays))
    }
}

/// The head's note, whatever it is; empty where there is none.
fn note(conn: &Connection) -> rusqlite::Result<Vec<u8>> {
    let mut row = conn.prepare_cached("SELECT CAST(note AS BLOB) FROM head WHERE one = 1")?;
    Ok(row.query_row([], |row| row.get(0)).optional()?.unwrap_or_default())
}

fn strays(conn: &Connection) -> Result<Vec<Stray>, Trouble> {
    let mut found = Vec::new();
    let mut add = |index, what: String| found.push(Stray { index, what });
    // Read with the head: another process may have changed the key since the store was opened.
    let Some(key) = read_text(conn, "ledger_key").ok().and_then(|text| VerifierKey::parse(&text)) else {
        add(None, "the ledger's public key cannot be read".to_owned());
        return Ok(found);
    };
    match head::load(conn).and_then(|head| head::check(&head, conn, &key)) {
        Ok(()) => {}
        Err(Trouble::Damaged(what)) => add(None, what.to_owned()),
        Err(Trouble::Sqlite(fault)) if is_of_content(&fault) => {
            add(None, "the head is missing or cannot be read".to_owned());
        }
        Err(trouble) => return Err(trouble),
    }
    if read_text(conn, "origin").ok().as_deref() != Some(key.origin()) {
        add(None, "the origin that the database names is not that of its ledger's key".to_owned());
    }
    let head = String::from_utf8(note(conn)?).ok().and_then(|note| Checkpoint::read_unverified(&note).ok());
    // Without a head nobody can tell what is behind it; that there is none was told.
    let Some(size) = head.map(|head| head.size) else { return Ok(found) };
    for (table, what) in [("entry", "an entry stands"), ("personal", "a personal value is kept")] {
        let least = |condition| -> rusqlite::Result<Option<i64>> {
            let sql = format!("SELECT min(idx) FROM {table} WHERE {condition}");
            conn.query_row(&sql, [], |row| row.get(0))
        };
        if least("idx < 0".to_owned())?.is_some() {
            add(Some(0), format!("{what} before the first entry"));
        }
        if let Some(index) = least(format!("idx >= {}", signed(size)))? {
            add(Some(size), format!("{what} behind the head, at {index}"));
        }
    }
    let mut rows = conn.prepare_cached("SELECT level, min(idx), max(idx) FROM subtree GROUP BY level")?;
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for row in rows {
        let (level, least, greatest): (i64, i64, i64) = row?;
        let full = u32::try_from(level).ok().filter(|level| *level > 0 && level % 8 == 0);
        let full = full.and_then(|level| size.checked_shr(level)).map_or(0, signed);
        if least < 0 || greatest >= full {
            let first = u64::try_from(greatest.max(0)).ok().zip(u32::try_from(level).ok());
            let first =
                first.and_then(|(index, level)| index.checked_shl(level)).filter(|first| *first < size);
            add(first, format!("a subtree of level {level} is kept that is not full"));
        }
    }
    Ok(found)
}

/// Whether the fault is what stands in a row, and not the reading of it.
fn is_of_content(fault: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows, Utf8Error,
    };
    matches!(
        fault,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | QueryReturnedNoRows
            | Utf8Error(..)
    )
}

fn ledger_row(row: &Row<'_>) -> rusqlite::Result<LedgerRow> {
    let index: i64 = row.get(0)?;
    let mut unreadable = None;
    let columns = Columns {
        code: column(row, 3, "code", &mut unreadable),
        at: column(row, 4, "at", &mut unreadable),
        decision: column(row, 5, "decision", &mut unreadable).flatten(),
        issuance: column(row, 6, "issuance", &mut unreadable).flatten(),
        issuer: column(row, 7, "issuer", &mut unreadable).flatten(),
        grants: column(row, 8, "grants", &mut unreadable).flatten(),
        unreadable: None,
    };
    let leaf: Option<[u8; 32]> = column(row, 2, "leaf", &mut unreadable);
    Ok(LedgerRow {
        index: u64::try_from(index).unwrap_or_default(),
        bytes: row.get(1)?,
        leaf: leaf.map(Digest),
        personal: Vec::new(),
        unreadable: 0,
        columns: Columns { unreadable, ..columns },
    })
}

/// What stands in a column, and none where that cannot be: of another length, or no text.
fn column<T: FromSql>(
    row: &Row<'_>,
    at: usize,
    name: &'static str,
    unreadable: &mut Option<&'static str>,
) -> Option<T> {
    let read = row.get(at).ok();
    if read.is_none() {
        unreadable.get_or_insert(name);
    }
    read
}

/// Field, blinding bytes and value of what was not erased.
type Personal = Vec<(String, [u8; 32], String)>;

/// The personal values kept for an entry, and how many more cannot be read.
fn personal_of(conn: &Connection, index: u64) -> rusqlite::Result<(Personal, usize)> {
    let mut rows =
        conn.prepare_cached("SELECT field, blinding, value FROM personal WHERE idx = ?1 ORDER BY ordinal")?;
    let rows = rows.query_map([signed(index)], |row| {
        Ok(row.get(0).and_then(|field| Ok((field, row.get(1)?, row.get(2)?))).ok())
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let unreadable = rows.iter().filter(|row| row.is_none()).count();
    Ok((rows.into_iter().flatten().collect(), unreadable))
}
