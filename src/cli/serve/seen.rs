//! `ledger.seen`: the largest head that this installation has seen, kept beside the database, so that a database that
//! was set back or exchanged is noticed at start (contract: section 6, ALERT_ROLLBACK).
//!
//! It guards only where the database's volume can be set back without it. On the same volume both go back together,
//! and STARTED says `unguarded`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{
    adapters::store::{Database, StorePlace},
    broker::ports::{EntryQuery, Qualifier, Store as _, StoreFault, Term},
    kernel::ledger::checkpoint::Checkpoint,
};

/// How often the head is looked at.
pub(crate) const EVERY: Duration = Duration::from_secs(5);

/// The file that holds the largest head seen.
pub(crate) struct Seen {
    path: PathBuf,
    last: Option<String>,
}

/// Why the database must not be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rollback {
    /// The ledger is behind the head, or beside it.
    #[error(
        "the ledger in the database is not the one that {path} has seen: that had {seen} entries, this has {found} and \
         does not contain it. The database was set back or exchanged: bring back the newest one, or, if what is missing \
         is lost for good, say so by `hallpass restore --accept-loss --reason TEXT`"
    )]
    Behind {
        /// The file.
        path: String,
        /// The size that was seen.
        seen: u64,
        /// The size that is there.
        found: u64,
    },
    /// What was seen cannot be read, so nobody can tell.
    #[error("{path} cannot be read: {why}; nobody can tell whether the ledger was set back")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

impl Seen {
    /// Looks whether the store's ledger begins with the one that was seen.
    ///
    /// # Errors
    ///
    /// [`Rollback`].
    pub(crate) async fn check(path: &Path, store: &Database) -> Result<Self, Rollback> {
        let unreadable = |why: String| Rollback::Unreadable { path: path.display().to_string(), why };
        let last = match fs::read_to_string(path) {
            Ok(note) => Some(note),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => None,
            Err(fault) => return Err(unreadable(fault.to_string())),
        };
        if let Some(note) = &last {
            // A key of today or of before: the head may have been seen before the key was changed.
            let opened = store.open_checkpoint(note).await?;
            let seen: Checkpoint = opened.map_err(|fault| unreadable(fault.to_string()))?;
            let (begins, found) = store.begins_with(&seen).await?;
            if !begins && !is_given_up(store, &seen).await? {
                return Err(Rollback::Behind { path: path.display().to_string(), seen: seen.size, found });
            }
        }
        Ok(Self { path: path.to_owned(), last })
    }

    /// Keeps the store's head, where it is larger than the one that was kept.
    pub(crate) async fn keep(&mut self, store: &Database) {
        let note = match store.checkpoint().await {
            Ok(note) => note,
            Err(fault) => {
                tracing::warn!(%fault, "the ledger's head cannot be read, so it was not kept");
                return;
            }
        };
        if self.last.as_ref() == Some(&note) {
            return;
        }
        match write(&self.path, note.as_bytes()) {
            Ok(()) => self.last = Some(note),
            Err(fault) => {
                tracing::warn!(%fault, file = %self.path.display(), "the ledger's head was not kept");
            }
        }
    }
}

/// Whether the ledger itself says that the head was given up, when it was restored from an older state.
async fn is_given_up(store: &Database, seen: &Checkpoint) -> Result<bool, StoreFault> {
    let term = Term { qualifier: Qualifier::Outcome, value: "RESTORED".to_owned(), negated: false };
    let newest = store.entries(EntryQuery { terms: vec![term], limit: 1, ..EntryQuery::default() }).await?;
    let said = newest.first().and_then(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok());
    let said = said.unwrap_or_default();
    let size = |which| said.pointer(&format!("/result/{which}/size")).and_then(Value::as_u64);
    let (Some(lost), Some(resumed)) = (size("lost"), size("resumed")) else { return Ok(false) };
    let root = said.pointer("/result/lost/root").and_then(Value::as_str);
    // The very head, or an earlier one of what is lost: a replica may not have seen the last of it.
    let is_it = lost == seen.size && root == Some(seen.root.to_string().as_str());
    let is_given_up = is_it || (resumed < seen.size && seen.size < lost);
    if is_given_up {
        tracing::warn!(seen = seen.size, resumed, "the ledger was set back, and an entry RESTORED says so");
    }
    Ok(is_given_up)
}

/// Whether a rollback of the database would be noticed: the head is kept, and on another volume. A server's volume is
/// taken for another one.
pub(crate) fn is_guarded(seen: Option<&Path>, database: &StorePlace) -> bool {
    let database = match database {
        StorePlace::Postgres(_) => return seen.is_some(),
        StorePlace::Sqlite(path) => path,
    };
    let volume = |path: &Path| fs::metadata(path).ok().map(|about| about.dev());
    let folder =
        |path: &Path| path.parent().filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned);
    seen.is_some_and(|seen| {
        let of_seen = volume(&folder(seen).unwrap_or_else(|| PathBuf::from(".")));
        of_seen.is_some() && of_seen != volume(database)
    })
}

/// Writes whole or not at all: a crash leaves the old file or the new one.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
