//! The keys that Hallpass makes for itself, as SQLite keeps them: sealed.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Trouble,
    create::{CreateFault, Genesis},
    schema::{stored, unsigned},
};
pub(super) use crate::adapters::store::shared::keys::{
    ASSERTION, LEDGER, PSEUDONYM, fresh, new_rsa_key, pseudonym,
};
use crate::{
    adapters::store::shared::keys,
    kernel::{
        sealing::{SealedRecord, SealingKey},
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

/// Opens a key.
pub(super) fn open(conn: &Connection, sealing: &SealingKey, purpose: &str) -> Result<Secret, Trouble> {
    let row = conn
        .query_row("SELECT version, sealed FROM keys WHERE purpose = ?1", [purpose], |row| {
            Ok((unsigned(row, 0)?, SealedRecord { bytes: row.get(1)? }))
        })
        .optional()?;
    keys::open(sealing, purpose, row).map_err(Trouble::Damaged)
}
