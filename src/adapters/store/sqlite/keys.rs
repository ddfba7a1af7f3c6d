//! The keys that Hallpass makes for itself, as SQLite keeps them: sealed.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Trouble,
    create::{CreateFault, Genesis},
    schema::{stored, unsigned},
};
pub(super) use crate::adapters::store::shared::keys::{LEDGER, PSEUDONYM, fresh, pseudonym};
use crate::{
    adapters::store::shared::keys,
    kernel::{
        sealing::{Keyring, SealedRecord, SealingKey},
        secret::Secret,
    },
};

/// Keeps a key, sealed.
pub(super) fn keep(
    conn: &Connection,
    sealing: &SealingKey,
    (purpose, key): (&str, &Secret),
    genesis: Genesis<'_>,
) -> Result<(), CreateFault> {
    let record = keys::seal(sealing, (purpose, key), genesis.random)?;
    conn.execute(
        "INSERT INTO keys (purpose, version, sealed, made_at) VALUES (?1, ?2, ?3, ?4)",
        params![purpose, 1, record.bytes, stored(genesis.now)],
    )?;
    Ok(())
}

/// Opens a key; answers its version too.
pub(super) fn open(conn: &Connection, sealing: &Keyring, purpose: &str) -> Result<(u64, Secret), Trouble> {
    let row = conn
        .query_row("SELECT version, sealed FROM keys WHERE purpose = ?1", [purpose], |row| {
            Ok((unsigned(row, 0)?, SealedRecord { bytes: row.get(1)? }))
        })
        .optional()?;
    let version = row.as_ref().map_or(0, |(version, _)| *version);
    Ok((version, keys::open(sealing, purpose, row).map_err(Trouble::Damaged)?))
}

/// The version of the newest key for that purpose; 0 where there is none.
pub(super) fn version(conn: &Connection, purpose: &str) -> rusqlite::Result<u64> {
    let mut row = conn.prepare_cached("SELECT version FROM keys WHERE purpose = ?1")?;
    Ok(row.query_row([purpose], |row| unsigned(row, 0)).optional()?.unwrap_or_default())
}
