//! Making a store: a new file with its keys and an empty, signed ledger. `init` calls it; nothing else makes state.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    Sqlite, assertions,
    head::peaks_of,
    keys::{self, LEDGER, PSEUDONYM},
    schema::{APPLICATION_ID, beside, migrate, writing},
};
use crate::{
    adapters::store::shared::keys::KeyFault,
    kernel::{
        ledger::{checkpoint::LogKey, tree::Frontier},
        sealing::{SealFault, SealingKey},
    },
};

/// What a new store needs.
#[derive(Clone, Copy)]
pub struct Genesis<'a> {
    /// The ledger's origin, such as `hallpass.example.com/ledger`.
    pub origin: &'a str,
    /// The time.
    pub now: Timestamp,
    /// Fills a slice with random bytes; false where there are none.
    pub random: &'a dyn Fn(&mut [u8]) -> bool,
}

/// Why no store was made. What was begun is removed again.
#[derive(Debug, thiserror::Error)]
pub enum CreateFault {
    /// SQLite.
    #[error("the database cannot be made: {0}")]
    Database(#[from] rusqlite::Error),
    /// There is a file already; nothing is overwritten.
    #[error("{0} exists already; nothing was changed")]
    Exists(PathBuf),
    /// The file could not be made.
    #[error("{path} cannot be made")]
    File {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There were no random bytes.
    #[error("no random bytes from the operating system")]
    NoEntropy,
    /// A checkpoint cannot carry this origin.
    #[error("{0:?} cannot be a ledger's origin")]
    Origin(String),
    /// A key could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealFault),
}

impl From<KeyFault> for CreateFault {
    fn from(fault: KeyFault) -> Self {
        match fault {
            KeyFault::NoEntropy => Self::NoEntropy,
            KeyFault::Seal(fault) => Self::Seal(fault),
        }
    }
}

impl Sqlite {
    /// Makes a store: mode 0600, with a ledger key, keys of assertions and a pseudonym key, sealed.
    ///
    /// # Errors
    ///
    /// [`CreateFault`]; then there is no file that was not there before.
    pub fn create(path: &Path, sealing: &SealingKey, genesis: Genesis<'_>) -> Result<(), CreateFault> {
        let file_fault = |source: io::Error| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                return CreateFault::Exists(path.to_owned());
            }
            CreateFault::File { path: path.to_owned(), source }
        };
        drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(file_fault)?);
        let made = fill(path, sealing, genesis).and_then(|()| sync_folder(path).map_err(file_fault));
        if made.is_err() {
            for suffix in ["", "-wal", "-shm"] {
                // Best effort: the fault that is told is the one that stopped us.
                drop(std::fs::remove_file(beside(path, suffix)));
            }
        }
        made
    }
}

fn fill(path: &Path, sealing: &SealingKey, genesis: Genesis<'_>) -> Result<(), CreateFault> {
    let seed = keys::fresh(32, genesis.random)?;
    let log = LogKey::from_seed(genesis.origin, &seed)
        .ok_or_else(|| CreateFault::Origin(genesis.origin.to_owned()))?;
    let pseudonym = keys::fresh(32, genesis.random)?;
    let mut conn = writing(path)?;
    conn.execute_batch("PRAGMA page_size = 4096; PRAGMA journal_mode = WAL;")?;
    let change = conn.transaction()?;
    migrate(&change, 0)?;
    change.pragma_update(None, "application_id", APPLICATION_ID)?;
    for (purpose, key) in [(LEDGER, &seed), (PSEUDONYM, &pseudonym)] {
        keys::keep(&change, sealing, (purpose, key), genesis)?;
    }
    assertions::keep_first(&change, sealing, genesis)?;
    write_meta(&change, "origin", genesis.origin.as_bytes())?;
    write_meta(&change, "ledger_key", log.verifier().to_string().as_bytes())?;
    write_meta(&change, "sealing_check", &sealing.check().0)?;
    let empty = Frontier::default();
    change.execute(
        "INSERT INTO head (one, size, root, peaks, note) VALUES (1, 0, ?1, ?2, ?3)",
        params![empty.root().0, peaks_of(&empty), log.sign(0, &empty.root())],
    )?;
    change.commit()?;
    // Closing empties the log into the file and removes it.
    conn.close().map_err(|(_, fault)| fault.into())
}

fn write_meta(conn: &Connection, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    conn.execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
    Ok(())
}

/// The new name itself must reach the disk.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}
