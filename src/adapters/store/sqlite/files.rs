//! The database's files on their disk: whether they are still the ones that we have open, that what a crashed process
//! left is durable before anything is built on it, and that no failed fsync passes unnoticed.
//!
//! Linux tells a failed fsync once and marks the pages clean: what it lost is read from memory as if it were on the
//! disk, until the machine stops. So a process that met one ends, and the next one writes the log anew before it
//! trusts it. Sources: `fsync(2)`, "Errors"; <https://wiki.postgresql.org/wiki/Fsync_Errors>; SQLite 3.51's `wal.c`,
//! whose recovery takes whatever frames it can read for committed.

use std::{
    cell::Cell,
    ffi::c_int,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, TransactionBehavior, ffi, hooks::Wal};

use super::schema::beside;

/// The database and its log as they were when they were opened.
pub(super) struct Files([(PathBuf, Id); 2]);

/// A file's device and number.
type Id = (u64, u64);

impl Files {
    /// Of a connection that has read from that path, so that both are there.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let known = |path: PathBuf| id(&path).map(|id| (path, id));
        Ok(Self([known(path.to_owned())?, known(beside(path, "-wal"))?]))
    }

    /// Whether both paths still lead to them. Where they do not, what we write is lost as soon as this process ends.
    pub(super) fn are_in_place(&self) -> bool {
        self.0.iter().all(|(path, known)| id(path).is_ok_and(|found| found == *known))
    }
}

fn id(path: &Path) -> io::Result<Id> {
    fs::metadata(path).map(|about| (about.dev(), about.ino()))
}

/// Makes what the log holds durable, whatever became of the process that wrote it: its bytes are written anew and
/// synced, then they go into the database. While it is locked nobody appends; readers see the same bytes throughout.
///
/// Known hole: commands other than `serve` do not do this, since it would hold up a `serve` that runs.
pub(super) fn settle(conn: &mut Connection, path: &Path) -> rusqlite::Result<()> {
    let log = beside(path, "-wal");
    if !log.metadata().is_ok_and(|about| about.len() > 0) {
        return Ok(());
    }
    let locked = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    write_anew(&log).map_err(|fault| {
        let code = ffi::Error::new(ffi::SQLITE_IOERR_WRITE);
        rusqlite::Error::SqliteFailure(code, Some(format!("{}: {fault}", log.display())))
    })?;
    locked.rollback()?;
    // Where a reader holds it up, the log stays, and is durable now.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

fn write_anew(log: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(log)?;
    let (mut bytes, mut at) = (vec![0; 1 << 16], 0);
    loop {
        let read = file.read_at(&mut bytes, at)?;
        let Some(chunk) = bytes.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
        file.write_all_at(chunk, at)?;
        at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    file.sync_all()
}

thread_local! {
    /// How many frames the log has had since this thread's last commit: SQLite tells it to a function without state.
    static FRAMES: Cell<c_int> = const { Cell::new(0) };
}

/// Stands where SQLite's own hook stands, which moves the log into the database and forgets what came of it.
pub(super) fn count_frames(_: &Wal, frames: c_int) -> rusqlite::Result<()> {
    FRAMES.set(frames);
    Ok(())
}

/// Moves the log into the database now and then, behind a commit of this thread.
pub(super) fn checkpoint_if_due(conn: &Connection) -> rusqlite::Result<()> {
    if FRAMES.take() < CHECKPOINT_FRAMES {
        return Ok(());
    }
    match conn.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(())) {
        Err(fault) if is_failed_fsync(&fault) => Err(fault),
        // The log keeps everything, and the next commit tries again: a reader was in the way, or there is no room.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether the disk did not confirm what was written.
pub(super) fn is_failed_fsync(fault: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(fault, _) = fault else { return false };
    [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC].contains(&fault.extended_code)
}

/// When the log goes into the database: SQLite's own default (reference: the throughput spike, part 2).
const CHECKPOINT_FRAMES: c_int = 1_000;
