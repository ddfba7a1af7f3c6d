//! The schema, its sessions, and how moments and digests stand in rows.

use jiff::Timestamp;
use sqlx::{
    Connection as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgRow},
};

use crate::{adapters::store::shared::stored::from_stored, kernel::digest::Digest};

/// What makes each schema of the one before, from none on.
pub(super) const MIGRATIONS: [&str; 6] = [
    include_str!("../../../../migrations/postgres/0001_schema.sql"),
    include_str!("../../../../migrations/postgres/0002_emergency.sql"),
    include_str!("../../../../migrations/postgres/0003_two_steps.sql"),
    include_str!("../../../../migrations/postgres/0004_publish.sql"),
    include_str!("../../../../migrations/postgres/0005_assertion_keys.sql"),
    include_str!("../../../../migrations/postgres/0006_keys.sql"),
];
/// What the roles beside the owner may do.
pub(super) const ROLES: &str = include_str!("../../../../migrations/postgres/roles.sql");
/// The newest schema that this version knows.
pub(super) const SCHEMA: i64 = 6;
/// The fact that tells the least schema that a broker must know; a migration that takes something away writes it, as its
/// owner, once no broker before that version runs.
pub(super) const LEAST: &str = "schema_least";

/// The session of a writer. A lock that is not had within this time is held by something stuck, and who holds the head's
/// lock without a word is cut off, so that a broker that was paused stops nobody else. COMMIT must have reached the disk
/// before an answer leaves (P1), whatever the server's default says.
const WRITING: [(&str, &str); 5] = [
    ("search_path", "hallpass"),
    ("statement_timeout", "900ms"),
    ("lock_timeout", "800ms"),
    ("idle_in_transaction_session_timeout", "700ms"),
    ("synchronous_commit", "on"),
];

/// The session of a reader. A query over a long ledger ends here instead of holding a connection for ever.
const READING: [(&str, &str); 4] = [
    ("search_path", "hallpass"),
    ("statement_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("default_transaction_read_only", "on"),
];

/// Options of a session that writes.
pub(super) fn writing(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().options(WRITING)
}

/// Options of a session that reads.
pub(super) fn reading(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().options(READING)
}

/// A new connection.
pub(super) async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    PgConnection::connect_with(options).await
}

/// A number as stored; no index or count comes near the end of 63 bits.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number that cannot be negative.
pub(super) fn unsigned(row: &PgRow, at: usize) -> sqlx::Result<u64> {
    let number: i64 = row.try_get(at)?;
    u64::try_from(number).map_err(|_| unfit(format!("{number} is negative")))
}

/// A stored moment.
pub(super) fn moment(row: &PgRow, at: usize) -> sqlx::Result<Timestamp> {
    let nanoseconds: i64 = row.try_get(at)?;
    from_stored(nanoseconds).ok_or_else(|| unfit(format!("{nanoseconds} is no moment")))
}

/// A stored moment, or none.
pub(super) fn moment_if_any(row: &PgRow, at: usize) -> sqlx::Result<Option<Timestamp>> {
    let nanoseconds: Option<i64> = row.try_get(at)?;
    let read =
        |nanoseconds| from_stored(nanoseconds).ok_or_else(|| unfit(format!("{nanoseconds} is no moment")));
    nanoseconds.map(read).transpose()
}

/// Stored bytes of that length.
pub(super) fn bytes<const N: usize>(row: &PgRow, at: usize) -> sqlx::Result<[u8; N]> {
    let bytes: &[u8] = row.try_get(at)?;
    <[u8; N]>::try_from(bytes).map_err(|_| unfit(format!("there are {} bytes instead of {N}", bytes.len())))
}

/// The same, or none.
pub(super) fn bytes_if_any<const N: usize>(row: &PgRow, at: usize) -> sqlx::Result<Option<[u8; N]>> {
    let found: Option<&[u8]> = row.try_get(at)?;
    found.map(|_| bytes(row, at)).transpose()
}

/// A stored digest.
pub(super) fn digest(row: &PgRow, at: usize) -> sqlx::Result<Digest> {
    bytes(row, at).map(Digest)
}

/// A stored word, read by the function that knows it.
pub(super) fn word<T>(row: &PgRow, at: usize, read: fn(&str) -> Option<T>) -> sqlx::Result<T> {
    let text: &str = row.try_get(at)?;
    read(text).ok_or_else(|| unfit(format!("unknown word {text:?}")))
}

/// A stored JSON array of texts.
pub(super) fn list(text: &str) -> sqlx::Result<Vec<String>> {
    serde_json::from_str(text).map_err(|fault| sqlx::Error::Decode(fault.into()))
}

/// A row that does not hold what it should.
pub(super) fn unfit(why: String) -> sqlx::Error {
    sqlx::Error::Decode(why.into())
}
