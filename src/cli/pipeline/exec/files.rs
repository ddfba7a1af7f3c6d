//! Credentials in files: in memory where the machine has such a place, never in the workspace, gone at the end.
//!
//! A run holds a lock on its folder for as long as it lives. A folder of ours that nobody holds is of a run that was
//! killed, and the next one removes it. The kernel frees the lock with the process, so that no number that is used
//! again, and no container that counts its own, can mislead.

use std::{
    env, fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{FileType, FlockOperation, Mode, OFlags, flock, fstat, open},
    process::geteuid,
};

use super::super::super::exit::{Exit, Failure};
use crate::{
    broker::ambient::Entropy,
    kernel::{id::crockford, secret::Secret},
};

/// A folder that only this run uses.
pub(super) struct Files {
    folder: PathBuf,
    /// The folder, locked.
    _lock: OwnedFd,
}

/// How the folders are called; a random end follows.
const PREFIX: &str = "hallpass-exec-";

/// Variables by which CI systems name the folder that a job works in.
const WORKSPACES: [&str; 8] = [
    "BITBUCKET_CLONE_DIR",
    "BUILDKITE_BUILD_CHECKOUT_PATH",
    "BUILD_SOURCESDIRECTORY",
    "CIRCLE_WORKING_DIRECTORY",
    "CI_PROJECT_DIR",
    "GITHUB_WORKSPACE",
    "SYSTEM_DEFAULTWORKINGDIRECTORY",
    "WORKSPACE",
];

impl Files {
    /// Makes the folder, and removes what killed runs left beside it.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where no place will do.
    pub(super) fn new() -> Result<Self, Failure> {
        let workspaces = workspaces();
        let mut why = String::new();
        for place in places() {
            let Ok(place) = place.canonicalize() else { continue };
            if workspaces.iter().any(|workspace| place.starts_with(workspace)) {
                why.push_str(&format!("\n  {}: it is in the workspace", place.display()));
                continue;
            }
            sweep(&place);
            // Twice: another run's sweep may have taken the folder in the moment before it was locked.
            match Self::within(&place).or_else(|_| Self::within(&place)) {
                Ok(files) => return Ok(files),
                Err(fault) => why.push_str(&format!("\n  {}: {fault}", place.display())),
            }
        }
        Err(Failure::usage(format!("there is no place for files outside of the workspace; set TMPDIR:{why}")))
    }

    fn within(place: &Path) -> io::Result<Self> {
        let random = Entropy::Os.bytes::<15>().map_err(io::Error::other)?;
        let folder = place.join(format!("{PREFIX}{}", crockford(&random)));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let lock = locked(&folder).inspect_err(|_| drop(fs::remove_dir(&folder)))?;
        // Another run may have taken it for an old one before the lock was held.
        if fs::symlink_metadata(&folder).is_err() {
            return Err(io::Error::other("the folder went away at once"));
        }
        Ok(Self { folder, _lock: lock })
    }

    /// Where a file of this name stands.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file, or replaces it: a reader finds the old one or the new one, whole.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] where it cannot be written.
    pub(super) fn write(&self, name: &str, content: &Secret) -> Result<(), Failure> {
        // No variable's name holds a dot, so that no draft is another's file.
        let draft = self.path(&format!("{name}.draft"));
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(content.expose()))
            .and_then(|()| fs::rename(&draft, self.path(name)));
        written.map_err(|fault| {
            drop(fs::remove_file(&draft));
            Failure::new(Exit::Internal, format!("{}: {fault}", self.path(name).display()))
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // An error means that somebody took it away before, or that the next run will.
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// In order of preference: in memory first, then what goes with the session or the job.
fn places() -> Vec<PathBuf> {
    let named = ["XDG_RUNTIME_DIR", "RUNNER_TEMP", "TMPDIR"].into_iter().filter_map(env::var_os);
    let named = named.map(PathBuf::from).filter(|place| place.is_absolute());
    [PathBuf::from("/dev/shm")].into_iter().chain(named).chain([PathBuf::from("/tmp")]).collect()
}

/// The folders that nothing is written into. A job that works in `/` works nowhere in particular.
fn workspaces() -> Vec<PathBuf> {
    let named = WORKSPACES.into_iter().filter_map(env::var_os).map(PathBuf::from);
    let all = env::current_dir().into_iter().chain(named).filter_map(|folder| folder.canonicalize().ok());
    all.filter(|folder| folder.parent().is_some()).collect()
}

/// Opens a folder that is ours alone, and locks it; an error where somebody else holds it.
fn locked(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = open(folder, flags, Mode::empty())?;
    let found = fstat(&lock)?;
    let is_ours = found.st_uid == geteuid().as_raw()
        && FileType::from_raw_mode(found.st_mode) == FileType::Directory
        && Mode::from_raw_mode(found.st_mode) == Mode::RWXU;
    if !is_ours {
        return Err(io::Error::other("the folder is not ours alone"));
    }
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

/// Removes the folders of runs that were killed.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            let path = entry.path();
            // Held, or not ours: not to be touched.
            let Ok(lock) = locked(&path) else { continue };
            fs::remove_dir_all(&path).ok();
            drop(lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn folder_and_files_are_for_their_owner_alone_and_go_at_the_end() {
        let place = tempfile::tempdir().unwrap();
        let files = Files::within(place.path()).unwrap();
        let path = files.path("KEY");
        files.write("KEY", &Secret::from_text("first".to_owned())).unwrap();
        let old = fs::File::open(&path).unwrap();
        files.write("KEY", &Secret::from_text("second".to_owned())).unwrap();

        assert_eq!((mode(&files.folder), mode(&path)), (0o700, 0o600));
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(io::read_to_string(old).unwrap(), "first", "who has it open keeps the old one, whole");
        drop(files);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_what_a_killed_run_of_ours_left_is_swept() {
        let place = tempfile::tempdir().unwrap();
        let alive = Files::within(place.path()).unwrap();
        let make = |name: &str, mode: u32| {
            let folder = place.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("KEY"), "x").unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            folder
        };
        let left = make("hallpass-exec-left", 0o700);
        let shared = make("hallpass-exec-shared", 0o755);
        let other = make("somebody-elses", 0o700);
        let link = place.path().join("hallpass-exec-link");
        symlink(&other, &link).unwrap();

        sweep(place.path());

        assert!(!left.exists());
        assert!(alive.folder.exists() && shared.exists() && other.join("KEY").exists() && link.exists());
    }
}
