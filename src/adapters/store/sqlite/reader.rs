//! Readers: a few connections that cannot write, each used by one caller at a time on a blocking thread, in a
//! snapshot of its own. They never hold up the writer.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, InterruptHandle, OptionalExtension, Row, params};
use tokio::sync::Semaphore;

use super::{
    Sqlite, Trouble, query,
    schema::{self, digest, moment, moment_if_any, signed, unsigned, word},
};
use crate::{
    broker::ports::{EntryQuery, IssuanceRow, StoreFault, StoredEntry},
    kernel::{
        digest::Digest,
        id::{DecisionId, IssuanceId},
        issuance::State,
        ledger::{
            proof::TlogProof,
            tree::{FromRows, Rows, RowsFault, inclusion_proof},
        },
        lifetime::Lifetime,
        policy::target::Making,
    },
};

/// Readers at once; more wait for one of them.
const READERS: usize = 4;
/// How long one reading may take: a query over a long ledger ends here instead of holding a reader for ever.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// The pool.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    /// Whether nobody had the database open when this pool was made, and no writer belongs to it: then the files that
    /// SQLite puts beside a database for its readers are taken away again.
    is_guest: bool,
}

impl Readers {
    /// Readers of that file; none is opened yet.
    pub(super) fn new(path: &Path, is_guest: bool) -> Arc<Self> {
        let permits = Semaphore::new(READERS);
        Arc::new(Self { path: path.to_owned(), idle: Mutex::default(), permits, is_guest })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets nobody read any more, and closes what is idle.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if self.is_guest {
            self.tidy();
        }
    }

    /// A connection that cannot write leaves an empty log behind; one that could removes it as it closes, if nobody
    /// else has the database open by now. Best effort: the files mean nothing to whoever opens it next.
    fn tidy(&self) {
        if schema::beside(&self.path, "-wal").metadata().is_ok_and(|log| log.len() == 0)
            && let Ok(conn) = schema::writing(&self.path)
        {
            drop(conn.query_row("SELECT one FROM head", [], |_| Ok(())));
        }
    }

    async fn read<T, E>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, StoreFault>
    where
        T: Send + 'static,
        E: Into<Trouble>,
    {
        let handle: Arc<OnceLock<InterruptHandle>> = Arc::default();
        let reading = async {
            let permit = self.permits.acquire().await;
            let _permit = permit.map_err(|_| StoreFault::Unavailable("the store is closed".to_owned()))?;
            let (readers, handle) = (Arc::clone(self), Arc::clone(&handle));
            let task = tokio::task::spawn_blocking(move || readers.read_blocking(&handle, work));
            let read = task.await.map_err(|_| StoreFault::Unavailable("a reader ended early".to_owned()))?;
            read.map_err(|trouble| StoreFault::Unavailable(trouble.to_string()))
        };
        tokio::time::timeout(READ_DEADLINE, reading).await.unwrap_or_else(|_| {
            if let Some(handle) = handle.get() {
                handle.interrupt();
            }
            Err(StoreFault::Unavailable("the reading took too long".to_owned()))
        })
    }

    fn read_blocking<T, E: Into<Trouble>>(
        &self,
        handle: &OnceLock<InterruptHandle>,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, Trouble> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = match idle {
            Some(conn) => conn,
            None => schema::reading(&self.path)?,
        };
        // First and only setting: the cell is this call's own.
        drop(handle.set(conn.get_interrupt_handle()));
        let snapshot = conn.unchecked_transaction()?;
        let read = work(&snapshot).map_err(Into::into)?;
        drop(snapshot);
        if !self.permits.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        }
        Ok(read)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Sqlite {
    /// Reads in a snapshot of its own.
    pub(super) async fn read<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, StoreFault>
    where
        T: Send + 'static,
        E: Into<Trouble>,
    {
        self.readers.read(work).await
    }
}

/// Entries that a query asks for, newest first.
pub(super) fn entries(conn: &Connection, query: &EntryQuery) -> rusqlite::Result<Vec<StoredEntry>> {
    let (sql, values) = query::build(query);
    let mut rows = conn.prepare(&sql)?;
    rows.query_map(rusqlite::params_from_iter(values), |row| Ok((unsigned(row, 0)?, row.get(1)?)))?
        .map(|row| {
            let (index, bytes) = row?;
            stored_entry(conn, index, bytes)
        })
        .collect()
}

/// One entry.
pub(super) fn entry(conn: &Connection, index: u64) -> rusqlite::Result<Option<StoredEntry>> {
    let mut row = conn.prepare_cached("SELECT bytes FROM entry WHERE idx = ?1")?;
    let bytes: Option<Vec<u8>> = row.query_row([signed(index)], |row| row.get(0)).optional()?;
    bytes.map(|bytes| stored_entry(conn, index, bytes)).transpose()
}

/// The proof that an entry is in the ledger of the newest head.
pub(super) fn proof(conn: &Connection, index: u64) -> Result<Option<String>, Trouble> {
    let mut head = conn.prepare_cached("SELECT size, note FROM head WHERE one = 1")?;
    let (size, checkpoint) = head.query_row([], |row| Ok((unsigned(row, 0)?, row.get::<_, String>(1)?)))?;
    if index >= size {
        return Ok(None);
    }
    let rows = Stored(conn);
    let hashes = inclusion_proof(index, size, &FromRows::new(&rows, size)).map_err(|fault| match fault {
        RowsFault::Missing { .. } => Trouble::Damaged("the ledger lacks hashes that its size promises"),
        RowsFault::Source(fault) => Trouble::Sqlite(fault),
    })?;
    Ok(Some(TlogProof { index, hashes, checkpoint }.to_string()))
}

/// The newest signed head.
pub(super) fn checkpoint(conn: &Connection) -> rusqlite::Result<String> {
    conn.prepare_cached("SELECT note FROM head WHERE one = 1")?.query_row([], |row| row.get(0))
}

/// One issuance row.
pub(super) fn issuance(conn: &Connection, id: IssuanceId) -> rusqlite::Result<Option<IssuanceRow>> {
    let mut row = conn.prepare_cached(&format!("SELECT {ISSUANCE_COLUMNS} FROM issuance WHERE id = ?1"))?;
    row.query_row([id.bytes()], issuance_row).optional()
}

/// What [`issuance_row`] reads, in its order.
pub(super) const ISSUANCE_COLUMNS: &str = "id, decision, grant_name, credential, kind, state, handle, issuer, \
     token, job, lifetime, issued_at, expires_at, usable_until, revocable, making, \
     held, live_until, tries, told";

/// The tree's rows in the database.
pub(super) struct Stored<'a>(pub(super) &'a Connection);

impl Rows for Stored<'_> {
    type Fault = rusqlite::Error;

    fn range(&self, level: u8, from: u64, to: u64) -> Result<Vec<Digest>, Self::Fault> {
        let (from, to) = (signed(from), signed(to));
        if level == 0 {
            let mut leaves =
                self.0.prepare_cached("SELECT leaf FROM entry WHERE idx >= ?1 AND idx < ?2 ORDER BY idx")?;
            return leaves.query_map([from, to], |row| digest(row, 0))?.collect();
        }
        let mut subtrees = self.0.prepare_cached(
            "SELECT hash FROM subtree WHERE level = ?1 AND idx >= ?2 AND idx < ?3 ORDER BY idx",
        )?;
        subtrees.query_map(params![level, from, to], |row| digest(row, 0))?.collect()
    }
}

fn stored_entry(conn: &Connection, index: u64, bytes: Vec<u8>) -> rusqlite::Result<StoredEntry> {
    let personal = personal_of(conn, index)?.into_iter().map(|(field, _, value)| (field, value));
    Ok(StoredEntry { index, bytes, personal: personal.collect() })
}

fn personal_of(conn: &Connection, index: u64) -> rusqlite::Result<Vec<(String, [u8; 32], String)>> {
    let mut rows =
        conn.prepare_cached("SELECT field, blinding, value FROM personal WHERE idx = ?1 ORDER BY ordinal")?;
    rows.query_map([signed(index)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

/// An issuance of [`ISSUANCE_COLUMNS`].
pub(super) fn issuance_row(row: &Row<'_>) -> rusqlite::Result<IssuanceRow> {
    Ok(IssuanceRow {
        id: IssuanceId::from_bytes(row.get(0)?),
        decision: DecisionId::from_bytes(row.get(1)?),
        grant: row.get(2)?,
        credential: row.get(3)?,
        kind: row.get(4)?,
        state: word(row, 5, State::parse)?,
        handle: digest(row, 6)?,
        issuer: row.get(7)?,
        token: digest(row, 8)?,
        job: row.get::<_, Option<[u8; 32]>>(9)?.map(Digest),
        lifetime: word(row, 10, Lifetime::parse)?,
        issued_at: moment(row, 11)?,
        expires_at: moment_if_any(row, 12)?,
        usable_until: moment_if_any(row, 13)?,
        revocable: row.get(14)?,
        making: making(row, 15)?,
        held: row.get(16)?,
        live_until: moment_if_any(row, 17)?,
        tries: row.get(18)?,
        is_told: row.get(19)?,
    })
}

fn making(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Making>> {
    let is_whole = row.get_ref(at)? == rusqlite::types::ValueRef::Null;
    if is_whole { Ok(None) } else { word(row, at, Making::parse).map(Some) }
}
