//! Policy from a directory: every file of it in one read, accepted once it stands still.
//!
//! A directory is changed file by file (a checkout, an editor, a mounted volume), so a single read can see half of
//! a change. [`PolicySource::settle`] therefore wants two full reads that agree and no git command at work (attack
//! class P-06); [`Watch`] says when to look again. Nothing here judges a file: that is the loader's, of which this
//! module knows nothing but [`Files`].
//!
//! Symlinks are followed inside the root only (attack class P-08). What a name with a leading dot hides is not read,
//! yet a symlink may lead there: volumes of Kubernetes keep their files under `..data`.
//!
//! Known hole: the commit is the one that git has checked out, or is about to; edits in the working tree that were
//! never committed carry it too. The digest is what names a set, the commit only helps people find it.

mod repository;

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use repository::Repository;

use crate::kernel::{digest::Digest, policy::set::Files};

/// A directory of policy.
#[derive(Clone)]
pub struct PolicySource {
    root: PathBuf,
    pace: Pace,
}

/// How often the directory is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks at sizes and times.
    pub poll: Duration,
    /// Between two full reads where nothing seems to have changed: times can lie.
    pub full: Duration,
    /// Between the two reads that must agree.
    pub settle: Duration,
    /// How long a directory may stay restless before it is given up until the next look.
    pub patience: Duration,
}

impl Default for Pace {
    /// The contract's 500 ms between two reads (design: section 4); the rest is chosen so that a change counts within
    /// two seconds and ten thousand files cost a few milliseconds a look.
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            full: Duration::from_secs(30),
            settle: Duration::from_millis(500),
            patience: Duration::from_secs(10),
        }
    }
}

/// Sizes, times and commit of everything in the directory: equal while nothing was touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint(Digest);

/// A set that stood still.
#[derive(Clone)]
pub struct Settled {
    /// Its files.
    pub files: Files,
    /// What names them.
    pub digest: Digest,
    /// The git commit, where there is one.
    pub commit: Option<String>,
}

/// Why the directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceFault {
    /// A directory that contains itself by a symlink.
    #[error("{} leads back to a directory that it is in", .0.display())]
    Cycle(PathBuf),
    /// A symlink that leads out of the root.
    #[error("{} is a symlink that leads out of the policy directory", .0.display())]
    Escape(PathBuf),
    /// The operating system says no.
    #[error("{} cannot be read", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A name that is not UTF-8, or holds control characters.
    #[error("{} has a name that is not plain text", .0.display())]
    Name(PathBuf),
    /// Neither a file nor a directory.
    #[error("{} is neither a file nor a directory", .0.display())]
    NotAFile(PathBuf),
    /// It kept changing, or git kept it locked.
    #[error("the policy directory does not stand still: {0}")]
    Restless(&'static str),
    /// More than [`MAX_TOTAL_BYTES`], [`MAX_ENTRIES`] or [`MAX_DEPTH`].
    #[error("the policy directory is too large: {0}")]
    TooLarge(&'static str),
}

impl SourceFault {
    /// The stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Cycle(_) => "policy-cycle",
            Self::Escape(_) => "policy-escape",
            Self::Io { .. } => "policy-unreadable",
            Self::Name(_) => "policy-name",
            Self::NotAFile(_) => "policy-not-a-file",
            Self::Restless(_) => "policy-restless",
            Self::TooLarge(_) => "policy-too-large",
        }
    }
}

impl PolicySource {
    /// Names the directory; nothing is read yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), pace: Pace::default() }
    }

    /// The same at another pace.
    #[must_use]
    pub fn at_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// The directory as it was named.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads every file once, and the git commit where there is one. It may see half of a change.
    ///
    /// # Errors
    ///
    /// [`SourceFault`], all but `Restless`.
    pub fn read(&self) -> Result<(Files, Option<String>), SourceFault> {
        let root = self.real_root()?;
        let mut files = Files::default();
        let mut room = MAX_TOTAL_BYTES;
        for found in walk(&root)? {
            let bytes = read_file(&found, room)?;
            room = room.saturating_sub(bytes.len() as u64);
            files.0.insert(found.path, bytes);
        }
        Ok((files, Repository::around(&root).and_then(|repository| repository.commit())))
    }

    /// Reads until two full reads agree and git holds no lock. A set whose digest is `accepted` needs no second read.
    ///
    /// # Errors
    ///
    /// [`SourceFault`]; `Restless` where the directory did not stand still within [`Pace::patience`].
    pub async fn settle(&self, accepted: Option<Digest>) -> Result<Settled, SourceFault> {
        let give_up = Instant::now() + self.pace.patience;
        let mut agreement = Agreement { accepted, before: None };
        loop {
            let source = self.clone();
            let restless = match blocking(move || source.read_unlocked()).await {
                Ok((settled, is_locked)) => {
                    if agreement.reached(settled.digest, settled.commit.as_deref(), is_locked) {
                        return Ok(settled);
                    }
                    SourceFault::Restless(if is_locked {
                        "git holds .git/index.lock"
                    } else {
                        "it keeps changing"
                    })
                }
                // A file that went away between listing and reading is a change under way.
                Err(SourceFault::Io { path, source })
                    if source.kind() == io::ErrorKind::NotFound && path != self.root =>
                {
                    agreement.before = None;
                    SourceFault::Io { path, source }
                }
                Err(fault) => return Err(fault),
            };
            if Instant::now() >= give_up {
                return Err(restless);
            }
            tokio::time::sleep(self.pace.settle).await;
        }
    }

    /// Looks at names, sizes and times only.
    ///
    /// # Errors
    ///
    /// As [`PolicySource::read`].
    pub fn fingerprint(&self) -> Result<Fingerprint, SourceFault> {
        let root = self.real_root()?;
        let mut seen = Vec::new();
        for found in walk(&root)? {
            let about = &found.metadata;
            seen.extend_from_slice(found.path.as_bytes());
            seen.push(0);
            for number in [about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()] {
                seen.extend_from_slice(&number.to_be_bytes());
            }
            for number in [about.size(), about.ino(), about.dev()] {
                seen.extend_from_slice(&number.to_be_bytes());
            }
        }
        let commit = Repository::around(&root).and_then(|repository| repository.commit());
        Ok(Fingerprint(Digest::of_parts(&[&seen, commit.unwrap_or_default().as_bytes()])))
    }

    /// Reads, and says whether git is at work.
    fn read_unlocked(&self) -> Result<(Settled, bool), SourceFault> {
        let is_locked = || Ok(Repository::around(&self.real_root()?).is_some_and(|each| each.is_locked()));
        let before = is_locked()?;
        let (files, commit) = self.read()?;
        let digest = files.digest();
        Ok((Settled { files, digest, commit }, before || is_locked()?))
    }

    /// The root with its own symlinks resolved, afresh at each read: `current -> revision` is how sets are swapped.
    fn real_root(&self) -> Result<PathBuf, SourceFault> {
        fs::canonicalize(&self.root).map_err(io_fault(&self.root))
    }
}

/// What makes a read count.
struct Agreement {
    accepted: Option<Digest>,
    before: Option<(Digest, Option<String>)>,
}

impl Agreement {
    fn reached(&mut self, digest: Digest, commit: Option<&str>, is_locked: bool) -> bool {
        let seen = Some((digest, commit.map(str::to_owned)));
        let agrees = self.accepted == Some(digest) || (seen == self.before && !is_locked);
        self.before = seen;
        agrees
    }
}

/// Why to look at the directory again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Something was touched.
    Changed,
    /// Nothing seems to have changed for [`Pace::full`].
    Due,
    /// Somebody asked for it.
    Reload,
}

/// Waits for a reason to read again. The caller settles, loads and swaps; the watch only says when.
pub struct Watch {
    source: PolicySource,
    seen: Option<Fingerprint>,
    full_due: Instant,
    asked: Arc<Notify>,
}

/// Asks a [`Watch`] to look now, as `SIGHUP` does.
#[derive(Clone)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// Asks; several askings before the watch looks are one.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

impl Watch {
    /// Watches a directory from now on.
    pub fn new(source: PolicySource) -> Self {
        let seen = source.fingerprint().ok();
        let full_due = Instant::now() + source.pace.full;
        Self { source, seen, full_due, asked: Arc::new(Notify::new()) }
    }

    /// A handle to ask by.
    pub fn reload(&self) -> Reload {
        Reload(Arc::clone(&self.asked))
    }

    /// Waits for the next reason. It may be dropped at any await and asked again.
    pub async fn next(&mut self) -> Reason {
        loop {
            tokio::select! {
                () = self.asked.notified() => return self.looked(Reason::Reload),
                () = tokio::time::sleep(self.source.pace.poll) => {}
            }
            let source = self.source.clone();
            // A directory that cannot be looked at is a change too, once; the read then says what is wrong.
            let seen = blocking(move || source.fingerprint()).await.ok();
            if seen != self.seen {
                self.seen = seen;
                return self.looked(Reason::Changed);
            }
            if Instant::now() >= self.full_due {
                return self.looked(Reason::Due);
            }
        }
    }

    fn looked(&mut self, reason: Reason) -> Reason {
        self.full_due = Instant::now() + self.source.pace.full;
        reason
    }
}

/// Runs file work off the reactor's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceFault> + Send + 'static,
) -> Result<T, SourceFault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime is ending, or the work panicked, which nothing in it can.
        Err(_) => Err(SourceFault::Restless("the process is ending")),
    }
}

/// One file of the directory.
struct Found {
    /// Relative to the root, with `/`.
    path: String,
    /// With every symlink resolved.
    real: PathBuf,
    metadata: fs::Metadata,
}

/// A directory that is being listed.
struct Listing {
    /// Relative to the root, with a `/` at the end; empty for the root.
    prefix: String,
    /// With every symlink resolved.
    real: PathBuf,
    /// The resolved directories that it is in, itself included.
    within: Vec<PathBuf>,
}

/// Lists every file below the root, in no order.
fn walk(root: &Path) -> Result<Vec<Found>, SourceFault> {
    let mut files = Vec::new();
    let mut entries = 0_usize;
    let top = Listing { prefix: String::new(), real: root.to_owned(), within: vec![root.to_owned()] };
    let mut due = vec![top];
    while let Some(listing) = due.pop() {
        for entry in fs::read_dir(&listing.real).map_err(io_fault(&listing.real))? {
            let entry = entry.map_err(io_fault(&listing.real))?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(SourceFault::TooLarge("more than 200,000 names"));
            }
            let at = listing.real.join(&name);
            let name = name.to_str().filter(|name| !name.chars().any(char::is_control));
            let Some(name) = name else { return Err(SourceFault::Name(at)) };
            let path = format!("{}{name}", listing.prefix);
            let real = resolve(root, at, &entry)?;
            let metadata = fs::metadata(&real).map_err(io_fault(&real))?;
            if metadata.is_dir() {
                due.push(listing.descend(path, real)?);
            } else if metadata.is_file() {
                files.push(Found { path, real, metadata });
            } else {
                return Err(SourceFault::NotAFile(real));
            }
        }
    }
    Ok(files)
}

impl Listing {
    fn descend(&self, path: String, real: PathBuf) -> Result<Self, SourceFault> {
        if self.within.contains(&real) {
            return Err(SourceFault::Cycle(real));
        }
        if self.within.len() >= MAX_DEPTH {
            return Err(SourceFault::TooLarge("directories nested deeper than 32"));
        }
        let mut within = self.within.clone();
        within.push(real.clone());
        Ok(Self { prefix: format!("{path}/"), real, within })
    }
}

/// Follows a symlink; anything else in a resolved directory is resolved already.
fn resolve(root: &Path, at: PathBuf, entry: &fs::DirEntry) -> Result<PathBuf, SourceFault> {
    if !entry.file_type().map_err(io_fault(&at))?.is_symlink() {
        return Ok(at);
    }
    let real = fs::canonicalize(&at).map_err(io_fault(&at))?;
    if real.starts_with(root) { Ok(real) } else { Err(SourceFault::Escape(at)) }
}

fn read_file(found: &Found, room: u64) -> Result<Vec<u8>, SourceFault> {
    let file = fs::File::open(&found.real).map_err(io_fault(&found.real))?;
    let mut bytes = Vec::with_capacity(usize::try_from(found.metadata.len().min(room)).unwrap_or_default());
    file.take(room + 1).read_to_end(&mut bytes).map_err(io_fault(&found.real))?;
    if bytes.len() as u64 > room {
        return Err(SourceFault::TooLarge("more than 64 MiB"));
    }
    Ok(bytes)
}

fn io_fault(path: &Path) -> impl FnOnce(io::Error) -> SourceFault {
    let path = path.to_owned();
    move |source| SourceFault::Io { path, source }
}

/// All files together; ten thousand grants are some ten megabytes.
pub const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
/// Names in all directories together.
pub const MAX_ENTRIES: usize = 200_000;
/// Directories within directories.
pub const MAX_DEPTH: usize = 32;
#[cfg(test)]
mod tests;
