//! A copy of the database as it is at one moment, taken while others write, and putting one back where there is none.
//!
//! The copy is made by SQLite's own online backup, all pages in one step: one read transaction, so that what it holds is
//! one state of the ledger, and in WAL mode nobody who writes waits for it. A copy is one file; it never has the sealing
//! key, since that is never in the database. Source: <https://www.sqlite.org/backup.html> (October 2026).

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};

use super::{
    Sqlite,
    create::sync_folder,
    open::{OpenFault, lock, look},
    schema::{APPLICATION_ID, beside, migrate, peeking, reading, writing},
};
use crate::kernel::sealing::Keyring;

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyFault {
    /// SQLite.
    #[error("the database cannot be copied: {0}")]
    Database(#[from] rusqlite::Error),
    /// There is a database already; nothing is overwritten.
    #[error("{0} is there already; nothing was changed")]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be opened as ours.
    #[error(transparent)]
    Open(#[from] OpenFault),
}

impl Sqlite {
    /// Copies the database into a new file, mode 0600, durable when this returns. What was begun is removed again.
    ///
    /// # Errors
    ///
    /// [`CopyFault`].
    pub async fn back_up(&self, to: &Path) -> Result<(), CopyFault> {
        let (from, to) = (self.readers.path().to_owned(), to.to_owned());
        let copied = tokio::task::spawn_blocking(move || {
            new_file(&to)?;
            copy(&from, &to).inspect_err(|_| remove(&to))
        });
        copied.await.map_err(|fault| CopyFault::File {
            path: self.readers.path().to_owned(),
            source: io::Error::other(fault),
        })?
    }

    /// The schema of a database file.
    ///
    /// # Errors
    ///
    /// [`CopyFault::Database`].
    pub fn schema_of(path: &Path) -> Result<i64, CopyFault> {
        Ok(reading(path)?.pragma_query_value(None, "user_version", |row| row.get(0))?)
    }

    /// Puts a copy where there is no database, whole or not at all. `accept` looks at the very bytes that will stand
    /// there, before they do.
    ///
    /// # Errors
    ///
    /// [`CopyFault`], or what `accept` says; then nothing was put there.
    pub fn put_back<E: From<CopyFault>>(
        from: &Path,
        to: &Path,
        sealing: &Keyring,
        accept: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        // Held to the end: a broker that starts meanwhile would find half of it.
        let _serving = lock(to).map_err(CopyFault::from)?;
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let path = beside(to, suffix);
            if fs::symlink_metadata(&path).is_ok() {
                return Err(CopyFault::Exists(path).into());
            }
        }
        let draft = beside(to, ".restoring");
        // Left behind by one that was cut short; under the lock it is nobody else's.
        remove(&draft);
        let put = || -> Result<(), E> {
            new_file(&draft)?;
            fs::copy(from, &draft).map_err(|fault| file_fault(from, fault))?;
            sync(&draft)?;
            look(&draft, Some(sealing)).map_err(CopyFault::from)?;
            accept(&draft)?;
            let conn = writing(&draft).map_err(CopyFault::from)?;
            conn.pragma_update(None, "journal_mode", "WAL").map_err(CopyFault::from)?;
            close(conn)?;
            sync(&draft)?;
            // A link and not a renaming: that would overwrite.
            fs::hard_link(&draft, to).map_err(|fault| taken(to, fault))?;
            sync_folder(to).map_err(|fault| file_fault(to, fault))?;
            Ok(())
        };
        let done = put();
        for suffix in ["", "-wal", "-shm"] {
            remove(&beside(&draft, suffix));
        }
        done
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), CopyFault> {
    let source = reading(from)?;
    let mut target = writing(to)?;
    let copying = Backup::new(&source, &mut target)?;
    if copying.step(-1)? != StepResult::Done {
        return Err(file_fault(from, io::Error::other("the database is busy, and the copy did not end")));
    }
    drop(copying);
    // One file without a log beside it, which can be read where nothing can be written.
    target.pragma_update(None, "journal_mode", "DELETE")?;
    close(target)?;
    sync(to)?;
    sync_folder(to).map_err(|fault| file_fault(to, fault))
}

/// Begins a copy of another kind of store: a new file with the newest schema and nothing in it.
pub(in crate::adapters::store) fn begin_copy(path: &Path) -> Result<Connection, CopyFault> {
    new_file(path)?;
    let begin = || -> rusqlite::Result<Connection> {
        let mut conn = writing(path)?;
        conn.execute_batch("PRAGMA page_size = 4096; PRAGMA synchronous = OFF;")?;
        let change = conn.transaction()?;
        migrate(&change, 0)?;
        change.pragma_update(None, "application_id", APPLICATION_ID)?;
        change.commit()?;
        Ok(conn)
    };
    begin().map_err(CopyFault::from).inspect_err(|_| remove(path))
}

/// Ends such a copy: one durable file.
pub(in crate::adapters::store) fn end_copy(conn: Connection, path: &Path) -> Result<(), CopyFault> {
    close(conn)?;
    sync(path)?;
    sync_folder(path).map_err(|fault| file_fault(path, fault))
}

/// Opens a copy for reading.
pub(in crate::adapters::store) fn read_copy(path: &Path) -> Result<Connection, CopyFault> {
    Ok(peeking(path)?)
}

fn new_file(path: &Path) -> Result<(), CopyFault> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|fault| taken(path, fault))
}

fn taken(path: &Path, fault: io::Error) -> CopyFault {
    if fault.kind() == io::ErrorKind::AlreadyExists {
        return CopyFault::Exists(path.to_owned());
    }
    file_fault(path, fault)
}

fn sync(path: &Path) -> Result<(), CopyFault> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|fault| file_fault(path, fault))
}

fn close(conn: Connection) -> Result<(), CopyFault> {
    conn.close().map_err(|(_, fault)| fault.into())
}

fn file_fault(path: &Path, source: io::Error) -> CopyFault {
    CopyFault::File { path: path.to_owned(), source }
}

/// Best effort: the fault that is told is the one that stopped us.
fn remove(path: &Path) {
    drop(fs::remove_file(path));
}
