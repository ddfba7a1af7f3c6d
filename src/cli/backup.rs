//! `hallpass backup` and `hallpass restore`: a copy of the whole database taken while `serve` runs, and a system that
//! starts where a copy ended, but only when it is told so.
//!
//! A backup is a folder with `hallpass.db` and `manifest.json`. Every member of the manifest can be computed anew from
//! the database, so no byte of a backup can change unnoticed by accident; against whoever has the ledger's key only
//! anchors help, as everywhere. The sealing key is in no backup: keep it elsewhere.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    actor::Actor,
    config::Config,
    exit::{Done, Exit, Failure, chain},
    installation, output,
    pipeline::shown,
    process,
    serve::seen::{self, Rollback},
    store,
};
use crate::{
    adapters::store::{CopyFault, Database, Options, Postgres, Sqlite, StorePlace, postgres::Place},
    broker::{audit, ports::Store as _},
    kernel::ledger::{
        checkpoint::Checkpoint,
        entry::EntryCode,
        verify::{Anchor, Verdict},
    },
};

/// `backup`
#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// The folder; it must not be there, or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `restore`
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// A backup's folder.
    #[arg(long, value_name = "DIR", required_unless_present = "accept_loss")]
    from: Option<PathBuf>,
    /// Looks whether the backup is whole, and touches nothing.
    #[arg(long, requires = "from", conflicts_with = "accept_loss")]
    verify: bool,
    /// Says that the system goes on where the database ended, although a later head was seen: RESTORED names both.
    #[arg(long, requires = "reason")]
    accept_loss: bool,
    /// Why, for the ledger; at most 256 characters.
    #[arg(long, value_name = "TEXT", requires = "accept_loss")]
    reason: Option<String>,
    /// On PostgreSQL: the database of `store.url` as the role that shall own the schema [default: `store.url`].
    #[arg(long = "as", value_name = "URL", requires = "from")]
    owner: Option<String>,
    /// A file with the owner's password [default: PGPASSWORD or PGPASSFILE].
    #[arg(long, value_name = "FILE", requires = "owner")]
    password_file: Option<PathBuf>,
    /// On PostgreSQL: a role that may read the ledger, and nothing else.
    #[arg(long, value_name = "ROLE", requires = "from")]
    reader: Option<String>,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The copy's name in its folder.
const DATABASE_FILE: &str = "hallpass.db";
/// What tells of it.
const MANIFEST_FILE: &str = "manifest.json";
/// The version of the manifest.
const BACKUP_VERSION: u32 = 1;
/// The longest reason, as of a request (contract: section 3).
const MAX_REASON: usize = 256;

/// `manifest.json` of a backup: canonical JSON and a newline.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    v: u32,
    /// The database's schema.
    schema: i64,
    /// The ledger's origin, size, root and signed head.
    origin: String,
    size: u64,
    root: String,
    checkpoint: String,
    /// The database's length and SHA-256.
    bytes: u64,
    sha256: String,
}

impl Backup {
    /// Copies the database as it is at one moment, and looks at the copy.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where the folder is taken; [`Exit::Integrity`] where the copy does not hold together.
    pub(crate) fn run(self) -> Done {
        process::harden()?;
        process::runtime()?.block_on(self.make())
    }

    async fn make(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let store = installation::open_store(&config, Options::default())?;
        new_folder(&self.out)?;
        let before = Checkpoint::read_unverified(&store.checkpoint().await?).map_or(0, |head| head.size);
        // Recorded first, and so in the copy: one that nobody recorded must not exist.
        let told = json!({ "what": "backup", "size": before + 1 });
        store.append(vec![Actor::new()?.entry(EntryCode::Exported, told)?]).await?;
        let note = store.checkpoint().await?;
        let database = self.out.join(DATABASE_FILE);
        let copied = copy(&config, &store, &database).await;
        store.close().await;
        copied?;
        let manifest =
            describe(&database, vec![Anchor { name: "the head before".to_owned(), bytes: note.into() }]);
        let manifest = manifest.await.inspect_err(|_| drop(fs::remove_file(&database)))?;
        write_new(&self.out.join(MANIFEST_FILE), &manifest.to_bytes())?;
        output::say(&format!(
            "backed up {} entries to {}; the sealing key is not in it",
            manifest.size,
            self.out.display()
        ));
        Ok(())
    }
}

impl Restore {
    /// Looks at a backup, puts it where there is no database, or says that what is lost is lost.
    ///
    /// # Errors
    ///
    /// [`Exit::Integrity`] for a backup that was changed; [`Exit::Usage`] where a database is there or in use.
    pub(crate) fn run(self) -> Done {
        process::harden()?;
        process::runtime()?.block_on(self.restore())
    }

    async fn restore(self) -> Done {
        let reason = self.reason.as_deref().map(str::trim);
        if reason.is_some_and(|text| text.is_empty() || text.chars().count() > MAX_REASON) {
            return Err(Failure::usage("--reason has 1 to 256 characters"));
        }
        let manifest = match &self.from {
            Some(from) => Some((from, whole(from).await?)),
            None => None,
        };
        if let (true, Some((from, manifest))) = (self.verify, &manifest) {
            output::say(&format!("{} is whole: {} entries", from.display(), manifest.size));
            return output::line(manifest.checkpoint.trim_end());
        }
        let config = Config::load(self.config.as_deref())?;
        if let Some((from, manifest)) = &manifest {
            refuse_other(&config, manifest)?;
            let place = match &config.store {
                StorePlace::Postgres(writer) => self.put_on_server(&config, from, writer).await?,
                StorePlace::Sqlite(path) => {
                    put_back(&config, path, from, manifest)?;
                    path.display().to_string()
                }
            };
            output::say(&format!("put {} entries back into {place}", manifest.size));
        }
        match reason {
            Some(reason) => accept_loss(&config, reason, manifest.is_some()).await,
            None => warn_of_loss(&config).await,
        }
    }
}

impl Manifest {
    fn to_bytes(&self) -> Vec<u8> {
        // Texts and small integers: nothing that RFC 8785 cannot write.
        let mut bytes = serde_json_canonicalizer::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// Looks through a copy and tells what it is.
async fn describe(database: &Path, anchors: Vec<Anchor>) -> Result<Manifest, Failure> {
    let store = Sqlite::inspect(database)?;
    let report = audit::of_store(&*store, None, anchors).await?;
    if let Verdict::Broken(findings) = &report.verdict {
        let message =
            format!("{} does not hold together: {}", database.display(), shown(&findings.join("; ")));
        return Err(Failure::new(Exit::Integrity, message));
    }
    let checkpoint = store.checkpoint().await?;
    store.close().await;
    let (bytes, sha256) = digest(database)?;
    Ok(Manifest {
        v: BACKUP_VERSION,
        schema: Sqlite::schema_of(database)?,
        origin: report.origin,
        size: report.size,
        root: report.root.to_string(),
        checkpoint,
        bytes,
        sha256,
    })
}

/// The manifest of a backup that is whole.
async fn whole(from: &Path) -> Result<Manifest, Failure> {
    let (path, database) = (from.join(MANIFEST_FILE), from.join(DATABASE_FILE));
    let found = fs::read(&path).map_err(|fault| Failure::file(&path, &fault))?;
    let changed = |what: &Path| {
        Failure::new(
            Exit::Integrity,
            format!("{} is not as it was made; nothing was touched", what.display()),
        )
    };
    let manifest: Manifest = serde_json::from_slice(&found).map_err(|_| changed(&path))?;
    // Before anything reads it as a database.
    if digest(&database)? != (manifest.bytes, manifest.sha256.clone()) {
        return Err(changed(&database));
    }
    let computed = describe(&database, Vec::new()).await?;
    if manifest.v != BACKUP_VERSION || computed.to_bytes() != found {
        Err(changed(&path))
    } else {
        Ok(manifest)
    }
}

async fn copy(config: &Config, store: &Database, to: &Path) -> Done {
    match (store, &config.store) {
        (Database::Postgres(store), StorePlace::Postgres(place)) => Ok(store.back_up(place, to).await?),
        (Database::Sqlite(store), StorePlace::Sqlite(_)) => Ok(store.back_up(to).await?),
        (Database::Postgres(_) | Database::Sqlite(_), StorePlace::Postgres(_) | StorePlace::Sqlite(_)) => {
            Err(Failure::new(Exit::Internal, "the store is not the one of the configuration"))
        }
    }
}

fn refuse_other(config: &Config, manifest: &Manifest) -> Done {
    if manifest.origin == config.ledger.origin {
        return Ok(());
    }
    let (file, said) = (config.file.display(), &config.ledger.origin);
    let message = format!("the backup is of {:?}, and {file} says `ledger.origin: {said}`", manifest.origin);
    Err(Failure::usage(message))
}

impl Restore {
    /// Makes the schema on the server and fills it; answers where that is.
    async fn put_on_server(&self, config: &Config, from: &Path, writer: &Place) -> Result<String, Failure> {
        let (owner, reader) = (self.owner.as_deref(), self.reader.clone());
        let (place, roles) = store::owners(writer, (owner, self.password_file.clone()), reader)?;
        Postgres::put_back(&from.join(DATABASE_FILE), &place, installation::sealing_keys(config)?, roles)
            .await?;
        Ok(place.to_string())
    }
}

fn put_back(config: &Config, to: &Path, from: &Path, manifest: &Manifest) -> Done {
    let sealing = installation::sealing_keys(config)?;
    Sqlite::put_back(&from.join(DATABASE_FILE), to, &sealing, |copied| {
        // What was looked at before may have been exchanged since.
        if digest(copied)? == (manifest.bytes, manifest.sha256.clone()) {
            return Ok(());
        }
        Err(Failure::new(Exit::Integrity, "the backup changed while it was copied; nothing was put back"))
    })
}

/// Says beforehand what `serve` would say.
async fn warn_of_loss(config: &Config) -> Done {
    let store = installation::inspect_store(config)?;
    let checked = seen::check(&config.ledger, &store).await;
    store.close().await;
    match checked {
        Ok(_) => Ok(()),
        Err(rollback @ (Rollback::Behind { .. } | Rollback::Unreadable { .. })) => {
            output::say(&format!(
                "`serve` will refuse this: {rollback}. To go on from here, run `hallpass restore --accept-loss \
                 --reason TEXT`"
            ));
            Ok(())
        }
        Err(Rollback::Store(fault)) => Err(fault.into()),
    }
}

/// Records that the entries behind the database's head are given up.
async fn accept_loss(config: &Config, reason: &str, is_restored: bool) -> Done {
    // As `serve` opens it: one that runs must not be told behind its back that its ledger is another.
    let store = installation::open_store(config, Options { single_writer_lock: true, ..Options::default() })?;
    let lost = lost(config, &store).await?;
    if lost.is_null() && !is_restored {
        store.close().await;
        return Err(Failure::usage(
            "nothing is lost: the ledger has every entry that was seen; nothing was recorded",
        ));
    }
    let head = Checkpoint::read_unverified(&store.checkpoint().await?)
        .map_err(|fault| Failure::new(Exit::Integrity, fault.to_string()))?;
    let resumed = json!({ "size": head.size, "root": head.root.to_string() });
    let result = json!({ "lost": lost, "resumed": resumed });
    let entry = Actor::new()?.entry_because(EntryCode::Restored, result, Some(reason))?;
    let receipts = store.append(vec![entry]).await;
    store.close().await;
    let index = receipts?.first().map(|receipt| receipt.index).unwrap_or_default();
    output::say(&format!("entry {index} says so: the ledger goes on behind its first {} entries", head.size));
    Ok(())
}

/// The largest head that was seen or published and is not in this ledger; null where there is none.
async fn lost(config: &Config, store: &Database) -> Result<Value, Failure> {
    let mut lost: Option<(Checkpoint, String)> = None;
    for path in seen::kept(&config.ledger) {
        let note = fs::read_to_string(&path).map_err(|fault| Failure::file(&path, &fault))?;
        match seen::continues(&path, &note, store).await {
            Ok(_) => continue,
            Err(Rollback::Behind { .. }) => {}
            Err(rollback @ Rollback::Unreadable { .. }) => {
                let message = format!("{rollback}; move it away if you know why");
                return Err(Failure::new(Exit::Integrity, message));
            }
            Err(Rollback::Store(fault)) => return Err(fault.into()),
        }
        let opened = store.open_checkpoint(&note).await?;
        let seen = opened.map_err(|fault| Failure::new(Exit::Integrity, fault.to_string()))?;
        if lost.as_ref().is_none_or(|(largest, _)| largest.size < seen.size) {
            lost = Some((seen, note));
        }
    }
    Ok(lost.map_or(
        Value::Null,
        |(seen, note)| json!({ "size": seen.size, "root": seen.root.to_string(), "checkpoint": note }),
    ))
}

fn new_folder(out: &Path) -> Done {
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::usage(format!("{} is not empty; nothing was written", out.display()))),
        },
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(out);
            made.map_err(|fault| Failure::file(out, &fault))
        }
        Err(fault) => Err(Failure::file(out, &fault)),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Done {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    let written: io::Result<()> = write();
    written.map_err(|fault| Failure::file(path, &fault))
}

/// Length and SHA-256 of a file.
fn digest(path: &Path) -> Result<(u64, String), Failure> {
    let read = || {
        let (mut file, mut context) = (File::open(path)?, Context::new(&SHA256));
        let (mut bytes, mut buffer) = (0_u64, vec![0; 1 << 16]);
        loop {
            let read = file.read(&mut buffer)?;
            let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
            context.update(part);
            bytes += part.len() as u64;
        }
        let hash = context.finish();
        Ok((bytes, hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()))
    };
    let digest: io::Result<(u64, String)> = read();
    digest.map_err(|fault| Failure::file(path, &fault))
}

impl From<CopyFault> for Failure {
    fn from(fault: CopyFault) -> Self {
        match fault {
            CopyFault::Open(fault) => fault.into(),
            CopyFault::Database(_) => Self::new(Exit::Internal, chain(&fault)),
            CopyFault::Exists(_) | CopyFault::File { .. } => Self::usage(chain(&fault)),
        }
    }
}
