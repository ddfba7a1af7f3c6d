//! The database file: its marks, its connections, and how moments and digests stand in it.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Row, types::Type};

pub(super) use crate::adapters::store::shared::stored::stored;
use crate::{adapters::store::shared::stored::from_stored, kernel::digest::Digest};

/// What makes each schema of the one before, from none on.
const MIGRATIONS: [&str; 6] = [
    include_str!("../../../../migrations/sqlite/0001_ledger_and_issuances.sql"),
    include_str!("../../../../migrations/sqlite/0002_limits_and_letting_in.sql"),
    include_str!("../../../../migrations/sqlite/0003_emergency.sql"),
    include_str!("../../../../migrations/sqlite/0004_two_steps.sql"),
    include_str!("../../../../migrations/sqlite/0005_publish.sql"),
    include_str!("../../../../migrations/sqlite/0006_assertion_keys.sql"),
];

/// `PRAGMA application_id`: tells our files from those of others ("HaLp").
pub(super) const APPLICATION_ID: i64 = 0x4861_4c70;

/// `PRAGMA user_version`: the newest schema that this version knows.
pub(super) const SCHEMA: i64 = 6;

/// How long a writer waits for another process before it answers 503, within a second. Another command's transaction
/// takes milliseconds; who waits longer than this waits for something stuck.
pub(super) const BUSY: Duration = Duration::from_millis(750);

/// Brings a database from that schema to the newest, within the caller's transaction.
pub(super) fn migrate(change: &Connection, from: i64) -> rusqlite::Result<()> {
    let done = usize::try_from(from).unwrap_or(0);
    for step in MIGRATIONS.iter().skip(done) {
        change.execute_batch(step)?;
    }
    change.pragma_update(None, "user_version", SCHEMA)
}

/// A connection that writes. It never creates a file.
pub(super) fn writing(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // FULL: an answer may leave as soon as COMMIT returns, so COMMIT must have reached the disk (P1).
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;")?;
    Ok(conn)
}

/// A connection that cannot write.
pub(super) fn reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;")?;
    Ok(conn)
}

/// A connection that leaves no trace, not even the files that SQLite keeps beside a database in WAL mode: for looking
/// at a file before we know that we may touch it. What it reads must be what never changes.
pub(super) fn peeking(path: &Path) -> rusqlite::Result<Connection> {
    // A log beside the file means that somebody else has it open, or that the last one crashed: then those files are
    // there already, and the file alone is not the whole truth.
    let log = beside(path, "-wal");
    if log.metadata().is_ok_and(|log| log.len() > 0) {
        return reading(path);
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(immutable_uri(path), flags)
}

/// The path of a file that stands beside the database.
pub(super) fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A number as stored; SQLite has 64 bits with a sign, and no index or count comes near their end.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number that cannot be negative.
pub(super) fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(at)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, number))
}

/// A stored moment.
pub(super) fn moment(row: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    let nanoseconds: i64 = row.get(at)?;
    from_stored(nanoseconds).ok_or(rusqlite::Error::IntegralValueOutOfRange(at, nanoseconds))
}

/// A stored moment, or none.
pub(super) fn moment_if_any(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    let nanoseconds: Option<i64> = row.get(at)?;
    let read = |nanoseconds| {
        from_stored(nanoseconds).ok_or(rusqlite::Error::IntegralValueOutOfRange(at, nanoseconds))
    };
    nanoseconds.map(read).transpose()
}

/// A stored digest.
pub(super) fn digest(row: &Row<'_>, at: usize) -> rusqlite::Result<Digest> {
    row.get(at).map(Digest)
}

/// A stored word, read by the function that knows it.
pub(super) fn word<T>(row: &Row<'_>, at: usize, read: fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text: String = row.get(at)?;
    read(&text).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(at, Type::Text, format!("unknown word {text:?}").into())
    })
}

/// The URI of a file that SQLite is told never changes (<https://www.sqlite.org/uri.html>, October 2026).
fn immutable_uri(path: &Path) -> String {
    use std::{fmt::Write, os::unix::ffi::OsStrExt};
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte))
            }
            // Writing to a String cannot fail.
            other => drop(write!(uri, "%{other:02x}")),
        }
    }
    uri + "?immutable=1"
}

/// Cached statements a connection; a batch uses about twenty.
const STATEMENTS: usize = 64;

/// A stored JSON array of texts.
pub(super) fn list(at: usize, text: &str) -> rusqlite::Result<Vec<String>> {
    serde_json::from_str(text)
        .map_err(|fault| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, fault.into()))
}
