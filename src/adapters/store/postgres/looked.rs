//! The ledger as it lies in the database, for exports and for those who look whether it holds together. Whatever stands
//! in a column is read: what cannot be is told, so that nobody stops a verification by spoiling a row.

use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{
    Postgres, Trouble,
    reader::Patience,
    schema::{bytes, bytes_if_any, signed, unsigned},
    tree,
};
use crate::{
    adapters::store::shared::rows::{Columns, LedgerRow},
    broker::{
        audit::{Kept, KeptRow, Stray},
        ports::{Answer, StoreFault},
    },
    kernel::{digest::Digest, ledger::checkpoint::VerifierKey},
};

/// Rows of one page.
const PAGE: u32 = 1_000;

impl Postgres {
    /// What is wrong with the columns that the writer goes on from: they say the same as the signed head, or the
    /// next entry would not fit the ones before.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`] where the database cannot be read.
    pub async fn head_fault(&self) -> Result<Option<&'static str>, StoreFault> {
        let key = self.verifier_key();
        self.read(Patience::Long, move |conn| Box::pin(async move { head_fault(conn, &key).await })).await
    }

    /// Entries in order from an index on, for exports and verification; at most 1000.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn ledger_rows(&self, from: u64, limit: u32) -> Result<Vec<LedgerRow>, StoreFault> {
        self.read(Patience::Long, move |conn| Box::pin(rows(conn, from, limit.min(PAGE)))).await
    }
}

impl Kept for Postgres {
    fn own_key(&self) -> VerifierKey {
        self.verifier_key()
    }

    fn head_note(&self) -> Answer<'_, Result<Vec<u8>, StoreFault>> {
        Box::pin(self.read(Patience::Long, |conn| {
            Box::pin(async move {
                let note: Option<String> =
                    sqlx::query_scalar("SELECT note FROM head WHERE one = 1").fetch_optional(conn).await?;
                Ok(note.unwrap_or_default().into_bytes())
            })
        }))
    }

    fn rows(&self, from: u64) -> Answer<'_, Result<Vec<KeptRow>, StoreFault>> {
        Box::pin(async move {
            let rows = self.ledger_rows(from, PAGE).await?;
            Ok(rows.into_iter().map(KeptRow::from).collect())
        })
    }

    fn subtrees(&self, places: Vec<(u8, u64)>) -> Answer<'_, Result<Vec<Option<Digest>>, StoreFault>> {
        Box::pin(self.read(Patience::Long, move |conn| {
            Box::pin(async move {
                let mut kept = Vec::with_capacity(places.len());
                for (level, index) in places {
                    let row = sqlx::query("SELECT hash FROM subtree WHERE level = $1 AND idx = $2")
                        .bind(i16::from(level))
                        .bind(signed(index))
                        .fetch_optional(&mut *conn)
                        .await?;
                    kept.push(row.and_then(|row| bytes(&row, 0).ok()).map(Digest));
                }
                Ok(kept)
            })
        }))
    }

    fn strays(&self) -> Answer<'_, Result<Vec<Stray>, StoreFault>> {
        let key = self.verifier_key();
        Box::pin(self.read(Patience::Long, move |conn| Box::pin(async move { strays(conn, &key).await })))
    }
}

async fn head_fault(conn: &mut PgConnection, key: &VerifierKey) -> Result<Option<&'static str>, Trouble> {
    let checked = match tree::load(conn).await {
        Ok(row) => tree::check(conn, &row, key).await,
        Err(trouble) => Err(trouble),
    };
    match checked {
        Ok(()) => Ok(None),
        Err(Trouble::Damaged(what)) => Ok(Some(what)),
        Err(Trouble::Sql(
            sqlx::Error::RowNotFound | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. },
        )) => Ok(Some("the head is missing or cannot be read")),
        Err(trouble) => Err(trouble),
    }
}

async fn rows(conn: &mut PgConnection, from: u64, limit: u32) -> Result<Vec<LedgerRow>, Trouble> {
    let found = sqlx::query(
        "SELECT idx, bytes, leaf, code, at, decision, issuance, issuer, grants FROM entry
         WHERE idx >= $1 ORDER BY idx LIMIT $2",
    )
    .bind(signed(from))
    .bind(i64::from(limit))
    .fetch_all(&mut *conn)
    .await?;
    let mut rows: Vec<LedgerRow> = found.iter().map(ledger_row).collect::<sqlx::Result<_>>()?;
    let indices: Vec<i64> = rows.iter().map(|row| signed(row.index)).collect();
    let personal = sqlx::query(
        "SELECT idx, field, blinding, value FROM personal WHERE idx = ANY($1) ORDER BY idx, ordinal",
    )
    .bind(indices)
    .fetch_all(conn)
    .await?;
    for value in &personal {
        let index = unsigned(value, 0)?;
        let Some(row) = rows.iter_mut().find(|row| row.index == index) else { continue };
        match bytes(value, 2) {
            Ok(blinding) => row.personal.push((value.try_get(1)?, blinding, value.try_get(3)?)),
            Err(_) => row.unreadable = row.unreadable.saturating_add(1),
        }
    }
    Ok(rows)
}

fn ledger_row(row: &PgRow) -> sqlx::Result<LedgerRow> {
    let mut unreadable = None;
    let decision = bytes_if_any(row, 5).unwrap_or_else(|_| {
        unreadable.get_or_insert("decision");
        None
    });
    let issuance = bytes_if_any(row, 6).unwrap_or_else(|_| {
        unreadable.get_or_insert("issuance");
        None
    });
    let columns = Columns {
        code: row.try_get(3)?,
        at: row.try_get(4)?,
        decision,
        issuance,
        issuer: row.try_get(7)?,
        grants: row.try_get(8)?,
        unreadable,
    };
    let (leaf, bytes) = (bytes(row, 2).ok().map(Digest), row.try_get(1)?);
    Ok(LedgerRow { index: unsigned(row, 0)?, bytes, leaf, personal: Vec::new(), unreadable: 0, columns })
}

/// What is wrong beside the entries.
async fn strays(conn: &mut PgConnection, key: &VerifierKey) -> Result<Vec<Stray>, Trouble> {
    let mut found = Vec::new();
    let mut add = |index, what: String| found.push(Stray { index, what });
    if let Some(fault) = head_fault(conn, key).await? {
        add(None, fault.to_owned());
    }
    let size: Option<i64> =
        sqlx::query_scalar("SELECT size FROM head WHERE one = 1").fetch_optional(&mut *conn).await?;
    // Without a head nobody can tell what is behind it; that there is none was told.
    let Some(size) = size else { return Ok(found) };
    let behind = u64::try_from(size).unwrap_or_default();
    for (least, what) in [
        ("SELECT min(idx) FROM entry WHERE idx < 0 OR idx >= $1", "an entry stands"),
        ("SELECT min(idx) FROM personal WHERE idx < 0 OR idx >= $1", "a personal value is kept"),
    ] {
        let least: Option<i64> = sqlx::query_scalar(least).bind(size).fetch_one(&mut *conn).await?;
        match least {
            Some(index) if index < 0 => add(Some(0), format!("{what} before the first entry")),
            Some(index) => add(Some(behind), format!("{what} behind the head, at {index}")),
            None => {}
        }
    }
    let levels = sqlx::query("SELECT level, min(idx), max(idx) FROM subtree GROUP BY level ORDER BY level")
        .fetch_all(conn)
        .await?;
    for row in &levels {
        let (level, least, greatest): (i16, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let full = u32::try_from(level).ok().filter(|level| *level > 0 && level % 8 == 0);
        let full = full.and_then(|level| behind.checked_shr(level)).map_or(0, signed);
        if least < 0 || greatest >= full {
            add(None, format!("a subtree of level {level} is kept that is not full"));
        }
    }
    Ok(found)
}
