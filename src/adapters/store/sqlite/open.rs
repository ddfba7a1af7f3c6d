//! Opening a store that is there: the sealing key is tried before anything is touched, the ledger's head is looked
//! at before anything is written.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::mpsc;

use super::{
    Keys, Sqlite, Trouble,
    files::{self, Files},
    head,
    keys::{self, LEDGER, PSEUDONYM},
    reader::Readers,
    refuse::load_spent,
    schema::{APPLICATION_ID, SCHEMA, beside, migrate, peeking, reading, writing},
    secrets,
    writer::{QUEUE, Shared, Signer, Writer},
};
use crate::kernel::{
    digest::Digest,
    ledger::checkpoint::{LogKey, VerifierKey},
    sealing::Keyring,
};

/// How a store is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether this is `serve`: a second one on the same file is refused. Other commands write beside it.
    pub single_writer_lock: bool,
    /// Whether to read only: then nothing is written and every command that would write is refused.
    pub read_only: bool,
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// There is no such file; nothing is made in its place.
    #[error("there is no database at {0}; `hallpass init` makes one")]
    Absent(PathBuf),
    /// It does not hold together.
    #[error("the database is damaged: {0}")]
    Damaged(&'static str),
    /// SQLite.
    #[error("the database cannot be opened: {0}")]
    Database(#[source] rusqlite::Error),
    /// It is not one of ours.
    #[error("{0} is not a database of Hallpass")]
    Foreign(PathBuf),
    /// The lock beside it could not be made.
    #[error("the lock beside the database cannot be made")]
    Lock(#[source] io::Error),
    /// It was written by a newer version.
    #[error(
        "the database has schema {found}, which a later version of hallpass made, and this one knows {known}: use that \
         version; nothing was touched"
    )]
    Newer {
        /// The file's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Another `serve` has it open.
    #[error("another `hallpass serve` has this database open")]
    Serving,
    /// The writer's thread could not be started.
    #[error("the writer cannot be started")]
    Thread(#[source] io::Error),
    /// The sealing key is not the one that this store was made with.
    #[error("the sealing key is not the one that this database was made with; nothing was touched")]
    WrongSealingKey,
}

impl From<Trouble> for OpenFault {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Damaged(what) => Self::Damaged(what),
            Trouble::Misplaced => Self::Damaged("its files were exchanged while they were read"),
            Trouble::Moved => Self::Damaged("the head moved while it was read"),
            Trouble::Sqlite(fault) => Self::Database(fault),
        }
    }
}

impl From<rusqlite::Error> for OpenFault {
    fn from(fault: rusqlite::Error) -> Self {
        Self::Database(fault)
    }
}

impl Sqlite {
    /// Opens a store. The writer's thread needs no runtime; what reads must be called within one.
    ///
    /// # Errors
    ///
    /// [`OpenFault`]. A wrong sealing key is told before anything is touched.
    pub fn open(path: &Path, sealing: impl Into<Keyring>, options: Options) -> Result<Arc<Self>, OpenFault> {
        let sealing = sealing.into();
        look(path, Some(&sealing))?;
        if options.read_only {
            let readers = guests(path);
            let conn = reading(path)?;
            let snapshot = conn.unchecked_transaction()?;
            let (keys, log, _) = open_keys(&snapshot, sealing)?;
            return opened(readers, &snapshot, Some((keys, log.verifier())), None);
        }
        let serving = options.single_writer_lock.then(|| lock(path)).transpose()?;
        let mut conn = writing(path)?;
        if serving.is_some() {
            files::settle(&mut conn, path)?;
        }
        bring_up(&mut conn)?;
        // One state of it: another process may append, or change the key, between two looks.
        let snapshot = conn.unchecked_transaction()?;
        let (keys, log, version) = open_keys(&snapshot, sealing.clone())?;
        let verifier = log.verifier();
        let head = head::load(&snapshot)?;
        head::check(&head, &snapshot, &verifier)?;
        let files = Files::of(path).map_err(|_| OpenFault::Absent(path.to_owned()))?;
        let readers = Readers::new(path, false);
        let store = opened(readers, &snapshot, Some((keys, verifier)), Some(load_spent(&snapshot)?))?;
        drop(snapshot);
        let signer = Signer { key: log, version, sealing, origin: store.origin.clone() };
        let writer = Writer::new((conn, files), signer, head, Arc::clone(&store.shared), serving);
        store.start(writer)?;
        Ok(store)
    }

    /// Opens a store for reading without the sealing key: what an auditor on the machine may do. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`OpenFault`], but never [`OpenFault::WrongSealingKey`].
    pub fn inspect(path: &Path) -> Result<Arc<Self>, OpenFault> {
        look(path, None)?;
        let readers = guests(path);
        opened(readers, &reading(path)?, None, None)
    }

    fn start(&self, writer: Writer) -> Result<(), OpenFault> {
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let clock = clock.map_err(OpenFault::Thread)?;
        let (send, receive) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("ledger-writer".to_owned());
        let thread = thread.spawn(move || writer.run(receive, &clock)).map_err(OpenFault::Thread)?;
        *self.queue.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(send);
        *self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(thread);
        Ok(())
    }
}

/// Looks at the file without touching it: is it there, is it ours, is it the key's.
pub(super) fn look(path: &Path, sealing: Option<&Keyring>) -> Result<(), OpenFault> {
    if !path.is_file() {
        return Err(OpenFault::Absent(path.to_owned()));
    }
    let conn = peeking(path)?;
    let mark = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    match mark("application_id") {
        Ok(APPLICATION_ID) => {}
        Err(fault) if fault.sqlite_error_code() != Some(rusqlite::ErrorCode::NotADatabase) => {
            return Err(fault.into());
        }
        Ok(_) | Err(_) => return Err(OpenFault::Foreign(path.to_owned())),
    }
    let found = mark("user_version")?;
    if found > SCHEMA {
        return Err(OpenFault::Newer { found, known: SCHEMA });
    }
    let check = read_meta(&conn, "sealing_check")?;
    match sealing {
        Some(keys) if keys.of(&check).is_none() => Err(OpenFault::WrongSealingKey),
        Some(_) | None => Ok(()),
    }
}

/// Brings a database of an earlier version up to this one's schema. Several processes may come at once: the first
/// does it, the others find it done.
fn bring_up(conn: &mut Connection) -> Result<(), OpenFault> {
    let version =
        |conn: &Connection| conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    if version(conn)? == SCHEMA {
        return Ok(());
    }
    let change = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&change)?;
    if found < SCHEMA {
        migrate(&change, found)?;
        tracing::info!(from = found, to = SCHEMA, "the database was brought up to this version's schema");
    }
    Ok(change.commit()?)
}

fn open_keys(conn: &Connection, sealing: Keyring) -> Result<(Keys, LogKey, u64), OpenFault> {
    let origin = read_text(conn, "origin")?;
    let (version, seed) = keys::open(conn, &sealing, LEDGER)?;
    let log = LogKey::from_seed(&origin, &seed)
        .ok_or(Trouble::Damaged("the ledger key does not fit its origin"))?;
    let (_, pseudonym) = keys::open(conn, &sealing, PSEUDONYM)?;
    let pseudonym = keys::pseudonym(&pseudonym).map_err(Trouble::Damaged)?;
    Ok((Keys { sealing, pseudonym }, log, version))
}

/// Readers without a writer.
fn guests(path: &Path) -> Arc<Readers> {
    Readers::new(path, !beside(path, "-wal").exists())
}

fn opened(
    readers: Arc<Readers>,
    conn: &Connection,
    keys: Option<(Keys, VerifierKey)>,
    spent: Option<HashMap<Digest, jiff::Timestamp>>,
) -> Result<Arc<Sqlite>, OpenFault> {
    let published = read_text(conn, "ledger_key")?;
    let published =
        VerifierKey::parse(&published).ok_or(Trouble::Damaged("the ledger's public key cannot be read"))?;
    let (keys, verifier) = match keys {
        Some((keys, own)) if own == published => (Some(keys), own),
        Some(_) => return Err(OpenFault::Damaged("the ledger's public key is not that of its own key")),
        None => (None, published),
    };
    let shared = Shared::new(secrets::load(conn)?, spent.unwrap_or_default(), verifier);
    Ok(Arc::new(Sqlite {
        queue: RwLock::new(None),
        writer: Mutex::new(None),
        shared: Arc::new(shared),
        readers,
        origin: read_text(conn, "origin")?,
        keys,
    }))
}

/// The lock that tells a second `serve`. It stands beside the database: SQLite's own locks on the file itself would
/// be lost when any other handle of this process to that file closed (<https://www.sqlite.org/howtocorrupt.html>).
pub(super) fn lock(path: &Path) -> Result<File, OpenFault> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(path, ".serve-lock"))
        .map_err(OpenFault::Lock)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenFault::Serving),
        Err(fault) => Err(OpenFault::Lock(fault.into())),
    }
}

/// Whether some `hallpass serve` has the database open.
///
/// # Errors
///
/// [`OpenFault::Lock`].
pub(super) fn is_served(path: &Path) -> Result<bool, OpenFault> {
    if !beside(path, ".serve-lock").exists() {
        return Ok(false);
    }
    match lock(path) {
        Ok(_) => Ok(false),
        Err(OpenFault::Serving) => Ok(true),
        Err(fault) => Err(fault),
    }
}

pub(super) fn read_meta(conn: &Connection, name: &str) -> Result<Vec<u8>, Trouble> {
    let value =
        conn.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()?;
    value.ok_or(Trouble::Damaged("the database lacks facts about itself"))
}

pub(super) fn read_text(conn: &Connection, name: &str) -> Result<String, Trouble> {
    String::from_utf8(read_meta(conn, name)?)
        .map_err(|_| Trouble::Damaged("a fact about the database is no text"))
}
