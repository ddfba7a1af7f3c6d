//! `ledger.seen`: the largest head that this installation has seen, kept beside the database, so that a database that
//! was set back or exchanged is noticed at start (contract: section 6, ALERT_ROLLBACK).
//!
//! Where the ledger is published (`ledger.publish`), the checkpoint there tells the same, and both are looked at.
//!
//! It guards only where the database's volume can be set back without it. On the same volume both go back together,
//! and STARTED says `unguarded`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    adapters::{
        published::{Published, PublishedFault},
        store::{Database, StorePlace},
    },
    broker::{
        Broker,
        ports::{EntryQuery, Qualifier, Store as _, StoreFault, Term},
    },
    cli::config::Ledger,
    kernel::ledger::{checkpoint::Checkpoint, entry::EntryCode},
};

/// How often the head is looked at.
pub(crate) const EVERY: Duration = Duration::from_secs(5);
/// How often an alert is tried again that could not be recorded.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
            continues(path, note, store).await?;
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

/// Looks whether the ledger begins with the head that a file holds, or says itself that this head was given up: then the
/// answer is false.
///
/// # Errors
///
/// [`Rollback`].
pub(crate) async fn continues(path: &Path, note: &str, store: &Database) -> Result<bool, Rollback> {
    let path = path.display().to_string();
    // A key of today or of before: the head may have been seen before the key was changed.
    let seen: Checkpoint = match store.open_checkpoint(note).await? {
        Ok(seen) => seen,
        Err(fault) => return Err(Rollback::Unreadable { path, why: fault.to_string() }),
    };
    let (begins, found) = store.begins_with(&seen).await?;
    if begins {
        return Ok(true);
    }
    if is_given_up(store, &seen).await? {
        return Ok(false);
    }
    Err(Rollback::Behind { path, seen: seen.size, found })
}

/// Looks whether the store's ledger begins with every head that the configuration knows of: the one that was seen, and
/// the one that was published. Answers the first, to be kept.
///
/// # Errors
///
/// [`Rollback`].
pub(crate) async fn check(ledger: &Ledger, store: &Database) -> Result<Option<Seen>, Rollback> {
    let seen = match &ledger.seen {
        Some(path) => Some(Seen::check(path, store).await?),
        None => None,
    };
    if let Some(directory) = ledger.publish.as_deref().map(Published::new) {
        let path = directory.checkpoint_file();
        let unreadable = |fault: PublishedFault| Rollback::Unreadable {
            path: path.display().to_string(),
            why: fault.to_string(),
        };
        if let Some(note) = directory.checkpoint().map_err(unreadable)? {
            continues(&path, &note, store).await?;
        }
    }
    Ok(seen)
}

/// The files that hold heads of this ledger, as far as they are there.
pub(crate) fn kept(ledger: &Ledger) -> Vec<PathBuf> {
    let published = ledger.publish.as_deref().map(|path| Published::new(path).checkpoint_file());
    ledger.seen.iter().cloned().chain(published).filter(|path| path.exists()).collect()
}

/// Tells of a database that was set back or exchanged while it was served. Nothing is issued on it (the store sees to
/// that); the alert counts at once, and its entry goes into the ledger that was seen as soon as that one is back: the
/// other one is another history, which nobody continues.
pub(crate) async fn tell_set_back(broker: Arc<Broker>, store: Arc<Database>) {
    loop {
        let (seen, found) = store.set_back().await;
        broker.count_alert(EntryCode::AlertRollback);
        let result = json!({ "seen": seen, "found": found });
        while let Err(refused) = broker.note_counted(EntryCode::AlertRollback, &result).await {
            tracing::debug!(reason = refused.detail, "ALERT_ROLLBACK is not recorded yet");
            tokio::time::sleep(LOOK_AGAIN).await;
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

/// Whether a rollback of the database would be noticed: the head is kept, or published, on another volume. A server's
/// volume is taken for another one.
pub(crate) fn is_guarded(ledger: &Ledger, database: &StorePlace) -> bool {
    let seen = ledger.seen.as_deref().map(|seen| match seen.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    });
    let mut folders = seen.into_iter().chain(ledger.publish.as_deref());
    let database = match database {
        StorePlace::Postgres(_) => return folders.next().is_some(),
        StorePlace::Sqlite(path) => path,
    };
    let volume = |path: &Path| fs::metadata(path).ok().map(|about| about.dev());
    folders.any(|folder| {
        let of_folder = volume(folder);
        of_folder.is_some() && of_folder != volume(database)
    })
}

/// What everybody is told while it would not be.
pub(crate) const UNGUARDED: &str = "rollback unguarded: keep `ledger.seen`, or publish the ledger by `ledger.publish`, on another volume than the database's";

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
