//! The directory that the ledger is published in (C2SP tlog-tiles): tiles that never change, and a checkpoint that only
//! grows. It knows no store and no key: whoever publishes has proven beforehand that what it brings continues what is
//! there. Any web server can hand the directory out.
//!
//! Several replicas may have it mounted, and one that was paused may wake at any moment. So the checkpoint changes under
//! a lock only (`flock` on `.publisher`, which the system gives back where a process dies), and the number in that file
//! is the largest under which anybody took the duty: whoever holds a smaller one changes nothing any more. A replica that
//! is paused just while it holds the lock, for the time of one rename, keeps others from publishing until it wakes or
//! ends; none of them can then take away what is newer.
//!
//! Source: <https://c2sp.org/tlog-tiles>, rename(2), flock(2) (November 2026).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::kernel::ledger::{
    checkpoint::Checkpoint,
    tiles::{TILE_WIDTH, Tile},
};

/// The directory.
#[derive(Clone, Debug)]
pub struct Published {
    path: PathBuf,
}

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Another replica has the duty by now; nothing was changed.
    Fenced,
    /// The one that is there is as large, or larger; nothing was changed.
    Larger,
    /// It is there.
    Placed,
}

/// Why it could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PublishedFault {
    /// Another process holds the lock.
    #[error("another process changes the checkpoint in {0} and does not end")]
    Busy(String),
    /// The checkpoint there cannot be read.
    #[error("{0} holds no checkpoint that can be read")]
    Checkpoint(String),
    /// The file system.
    #[error("{path}: {fault}")]
    File {
        /// The file or folder.
        path: String,
        /// What the system said.
        #[source]
        fault: io::Error,
    },
}

impl Published {
    /// In that folder, which must be there: one that is made where a volume should be mounted would guard nothing.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the checkpoint.
    pub fn checkpoint_file(&self) -> PathBuf {
        self.path.join(CHECKPOINT)
    }

    /// The checkpoint there; `None` before the first.
    ///
    /// # Errors
    ///
    /// [`PublishedFault`]; a folder that is not there is one.
    pub fn checkpoint(&self) -> Result<Option<String>, PublishedFault> {
        let path = self.checkpoint_file();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound && self.path.is_dir() => return Ok(None),
            Err(fault) => return Err(at(&path, fault)),
        };
        let mut note = String::new();
        let read = file.take(MOST_BYTES).read_to_string(&mut note);
        read.map_err(|fault| at(&path, fault))?;
        Ok(Some(note))
    }

    /// Whether a tile is there, whole.
    ///
    /// # Errors
    ///
    /// [`PublishedFault`].
    pub fn has(&self, tile: &Tile) -> Result<bool, PublishedFault> {
        let path = self.path.join(tile.path());
        match fs::metadata(&path) {
            Ok(about) => Ok(about.is_file() && about.len() > 0),
            Err(fault) if is_absent(&fault) => Ok(false),
            Err(fault) => Err(at(&path, fault)),
        }
    }

    /// Puts a tile there, whole or not at all, and durable.
    ///
    /// # Errors
    ///
    /// [`PublishedFault`].
    pub fn put(&self, tile: &Tile, bytes: &[u8], fence: u64) -> Result<(), PublishedFault> {
        let path = self.path.join(tile.path());
        let folder = path.parent().unwrap_or(&self.path);
        self.make_folders(folder)?;
        self.write(&path, bytes, fence)
    }

    /// Takes away what a full tile has made needless: its parts.
    ///
    /// # Errors
    ///
    /// [`PublishedFault`].
    pub fn drop_parts(&self, tile: &Tile) -> Result<(), PublishedFault> {
        let path = self.path.join(Tile { width: 1, ..*tile }.path());
        match path.parent().map(fs::remove_dir_all) {
            Some(Err(fault)) if !is_absent(&fault) => Err(at(&path, fault)),
            Some(Ok(()) | Err(_)) | None => Ok(()),
        }
    }

    /// The largest number under which anybody took the duty.
    ///
    /// # Errors
    ///
    /// [`PublishedFault`].
    pub fn fence(&self) -> Result<u64, PublishedFault> {
        let path = self.path.join(LOCK);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(fault) => Err(at(&path, fault)),
        }
    }

    /// Says under which number the duty was taken; false where a larger one is there already.
    ///
    /// # Errors
    ///
    /// [`PublishedFault`].
    pub fn raise(&self, fence: u64) -> Result<bool, PublishedFault> {
        self.lock()?.raise(fence)
    }

    /// Puts a checkpoint in the place of a smaller one.
    ///
    /// # Errors
    ///
    /// [`PublishedFault`].
    pub fn replace(&self, size: u64, note: &str, fence: u64) -> Result<Replaced, PublishedFault> {
        let path = self.checkpoint_file();
        // Written and synced before the lock is taken, so that it is held for no longer than the last look and a rename.
        let draft = self.draft(&path, note.as_bytes(), fence)?;
        let replaced = self.lock().and_then(|mut lock| {
            if !lock.raise(fence)? {
                return Ok(Replaced::Fenced);
            }
            if let Some(there) = self.checkpoint()? {
                let unreadable = |_| PublishedFault::Checkpoint(path.display().to_string());
                if Checkpoint::read_unverified(&there).map_err(unreadable)?.size >= size {
                    return Ok(Replaced::Larger);
                }
            }
            fs::rename(&draft, &path).map_err(|fault| at(&path, fault))?;
            sync(&self.path)?;
            Ok(Replaced::Placed)
        });
        if !matches!(replaced, Ok(Replaced::Placed)) {
            // It may be gone already, and is replaced by the next.
            drop(fs::remove_file(&draft));
        }
        replaced
    }

    fn lock(&self) -> Result<Lock, PublishedFault> {
        let path = self.path.join(LOCK);
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(&path);
        let file = opened.map_err(|fault| at(&path, fault))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { file, path }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(PublishedFault::Busy(self.path.display().to_string())),
            Err(fault) => Err(at(&path, fault.into())),
        }
    }

    /// A folder below ours, each new name durable.
    fn make_folders(&self, folder: &Path) -> Result<(), PublishedFault> {
        if folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().filter(|above| above.starts_with(&self.path));
        let Some(above) = above else {
            return Err(at(folder, io::ErrorKind::NotFound.into()));
        };
        self.make_folders(above)?;
        match fs::create_dir(folder) {
            Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => Err(at(folder, fault)),
            Ok(()) | Err(_) => sync(above),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8], fence: u64) -> Result<(), PublishedFault> {
        let draft = self.draft(path, bytes, fence)?;
        fs::rename(&draft, path).map_err(|fault| at(path, fault))?;
        sync(path.parent().unwrap_or(&self.path))
    }

    /// A file beside the one that it becomes; each holder of the duty has names of its own.
    fn draft(&self, path: &Path, bytes: &[u8], fence: u64) -> Result<PathBuf, PublishedFault> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = path.with_file_name(format!(".{name}.{fence}.draft"));
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|fault| at(&draft, fault))?;
        Ok(draft)
    }
}

/// The lock on the checkpoint; it ends with this value, and with the process.
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Keeps the larger of both numbers; false where that is not ours.
    fn raise(&mut self, fence: u64) -> Result<bool, PublishedFault> {
        let raise = |file: &mut File| -> io::Result<bool> {
            let mut text = String::new();
            file.rewind()?;
            file.take(32).read_to_string(&mut text)?;
            let there: u64 = text.trim().parse().unwrap_or(0);
            if there >= fence {
                return Ok(there == fence);
            }
            // One write of one width, so that whoever reads meanwhile, or after a crash, reads the one or the other.
            file.rewind()?;
            file.write_all(format!("{fence:020}\n").as_bytes())?;
            file.sync_all()?;
            Ok(true)
        };
        raise(&mut self.file).map_err(|fault| at(&self.path, fault))
    }
}

fn at(path: &Path, fault: io::Error) -> PublishedFault {
    PublishedFault::File { path: path.display().to_string(), fault }
}

fn is_absent(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn sync(folder: &Path) -> Result<(), PublishedFault> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|fault| at(folder, fault))
}

/// As tlog-tiles names it.
const CHECKPOINT: &str = "checkpoint";
/// No resource of tlog-tiles; a web server that hides names with a leading dot does not show it.
const LOCK: &str = ".publisher";
/// A note with 16 signatures is far below it.
const MOST_BYTES: u64 = 64 << 10;
/// The width of a part says how many; a full tile has none.
const _: () = assert!(TILE_WIDTH == 256, "tlog-tiles has 256 hashes a tile");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        digest::Digest,
        ledger::{checkpoint::LogKey, tiles::Holds},
        secret::Secret,
    };

    fn note(size: u64) -> String {
        let key = LogKey::from_seed("hallpass.test/ledger", &Secret::new(vec![7; 32])).unwrap();
        key.sign(size, &Digest::of(&size.to_be_bytes()))
    }

    fn there(published: &Published) -> u64 {
        Checkpoint::read_unverified(&published.checkpoint().unwrap().unwrap()).unwrap().size
    }

    #[test]
    fn checkpoint_only_grows() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new(folder.path());
        assert_eq!(published.checkpoint().unwrap(), None);

        assert_eq!(published.replace(5, &note(5), 1).unwrap(), Replaced::Placed);
        assert_eq!(published.replace(4, &note(4), 1).unwrap(), Replaced::Larger);
        assert_eq!(published.replace(5, &note(5), 1).unwrap(), Replaced::Larger);
        assert_eq!(published.replace(6, &note(6), 1).unwrap(), Replaced::Placed);

        assert_eq!(there(&published), 6);
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with("draft")));
    }

    #[test]
    fn who_lost_the_duty_changes_nothing_even_with_a_larger_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (Published::new(folder.path()), Published::new(folder.path()));
        assert!(old.raise(1).unwrap());
        assert_eq!(old.replace(5, &note(5), 1).unwrap(), Replaced::Placed);

        assert!(new.raise(2).unwrap());

        assert_eq!(old.replace(9, &note(9), 1).unwrap(), Replaced::Fenced);
        assert!(!old.raise(1).unwrap());
        assert_eq!(new.replace(7, &note(7), 2).unwrap(), Replaced::Placed);
        assert_eq!((there(&new), new.fence().unwrap()), (7, 2));
    }

    #[test]
    fn a_lock_that_somebody_holds_is_told_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new(folder.path());
        published.replace(5, &note(5), 1).unwrap();
        let held = published.lock().unwrap();
        assert!(matches!(published.replace(6, &note(6), 1), Err(PublishedFault::Busy(_))));
        assert_eq!(there(&published), 5);
        drop(held);
        assert_eq!(published.replace(6, &note(6), 1).unwrap(), Replaced::Placed);
    }

    #[test]
    fn a_folder_that_is_not_there_is_a_fault_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new(&folder.path().join("not-mounted"));
        let tile = Tile { holds: Holds::Hashes(0), index: 0, width: 1 };
        assert!(matches!(published.checkpoint(), Err(PublishedFault::File { .. })));
        assert!(matches!(published.put(&tile, b"x", 1), Err(PublishedFault::File { .. })));
        assert!(!folder.path().join("not-mounted").exists());
    }

    #[test]
    fn parts_go_when_their_tile_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new(folder.path());
        let part = Tile { holds: Holds::Hashes(0), index: 1_000, width: 3 };
        published.put(&part, &[1; 96], 1).unwrap();
        assert!(published.has(&part).unwrap() && !published.has(&part.filled()).unwrap());
        published.put(&part.filled(), &[1; 8_192], 1).unwrap();
        published.drop_parts(&part.filled()).unwrap();
        published.drop_parts(&part.filled()).unwrap();
        assert!(!published.has(&part).unwrap() && published.has(&part.filled()).unwrap());
    }
}
