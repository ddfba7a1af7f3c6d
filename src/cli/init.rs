//! `hallpass init`: the only command that makes state. It writes an installation into a folder, overwrites nothing,
//! and where anything stands in its way it says so and makes nothing.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use reqwest::Url;

use super::{
    actor::Actor,
    exit::{Done, Exit, Failure, chain},
    output,
};
use crate::{
    adapters::store::{Genesis, Sqlite, postgres::Place},
    kernel::{id::crockford, sealing::SealingKey, secret::Secret, wiping::Zeroizing},
};

/// Makes an installation: configuration, keys, tokens, database, first policies.
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// The folder; it is made where it is not there.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// A PostgreSQL database for the store, instead of a file; `hallpass store init` makes its schema then.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The file with that database's password; the configuration names it, and nothing reads it yet.
    #[arg(long, value_name = "FILE", requires = "store")]
    password_file: Option<String>,
    /// The URL that clients see: what CI tokens are for, the `iss` of assertions, and the ledger's name with /ledger behind.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// What an installation is made of.
pub(crate) struct Plan<'a> {
    /// The folder.
    pub(crate) dir: &'a Path,
    /// `hallpass.yaml`.
    pub(crate) configuration: &'a str,
    /// The ledger's origin, as the configuration says it.
    pub(crate) origin: &'a str,
    /// Whether the store is a file in that folder.
    pub(crate) has_database: bool,
    /// Policy files: path below `policies/`, text.
    pub(crate) policies: &'a [(&'a str, String)],
}

/// The configuration as `init` writes it.
const CONFIGURATION: &str = include_str!("init/hallpass.yaml");
/// What it says of the store.
const STORE: &str = "store: { url: \"sqlite:hallpass.db\" }";
/// The host in it, which stands for the operator's.
const HOST: &str = "hallpass.example.com";
/// The origin in it.
const ORIGIN: &str = "hallpass.example.com/ledger";
/// The first policies: an issuer that fits the configuration, and a grant that is switched off.
const ISSUER: &str = include_str!("../../policies/issuers/github.yaml");
const EXAMPLE: &str = include_str!("init/example.yaml");
const EXAMPLE_TEST: &str = include_str!("init/example.test.yaml");

impl Init {
    /// Writes the files and says what comes next.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where something is there already, or cannot be written.
    pub(crate) fn run(self) -> Done {
        let host = self.url.as_deref().map(host).transpose()?.unwrap_or(HOST);
        let named = |text: &str| text.replace(HOST, host);
        let configuration = match &self.store {
            None => named(CONFIGURATION),
            Some(url) => {
                named(CONFIGURATION).replacen(STORE, &server(url, self.password_file.as_deref())?, 1)
            }
        };
        let plan = Plan {
            dir: &self.dir,
            configuration: &configuration,
            origin: &named(ORIGIN),
            has_database: self.store.is_none(),
            policies: &[
                ("issuers/github.yaml", named(ISSUER)),
                ("grants/example.yaml", EXAMPLE.to_owned()),
                ("grants/example.test.yaml", EXAMPLE_TEST.to_owned()),
            ],
        };
        create(&plan, &Actor::new()?)?;
        output::say(&self.next_steps());
        Ok(())
    }

    fn next_steps(&self) -> String {
        let shown = self.dir.display();
        let mut steps = Vec::new();
        if self.url.is_none() {
            steps.push(format!(
                "set public.url, ledger.origin and assertions.issuer in {shown}/hallpass.yaml, and the same URL as\n\
                 \x20    `audience` in {shown}/policies/issuers/github.yaml"
            ));
        }
        steps.push(format!("write a grant: {shown}/policies/grants/example.yaml shows how"));
        steps.push(format!("hallpass config check --config {shown}/hallpass.yaml"));
        if self.store.is_some() {
            steps.push(format!("hallpass store init --config {shown}/hallpass.yaml --as URL-OF-ITS-OWNER"));
        }
        steps.push(format!("hallpass secret set npm-token --config {shown}/hallpass.yaml < token.txt"));
        steps.push(format!("hallpass serve --config {shown}/hallpass.yaml"));
        let numbered = steps.iter().zip(1_u8..).map(|(step, number)| format!("  {number}. {step}\n"));
        format!(
            "made an installation in {shown}\n\nnext:\n{}\nkeep a copy of {shown}/sealing.key elsewhere: without it nobody \
             opens the database",
            numbered.collect::<String>()
        )
    }
}

/// Makes an installation.
///
/// # Errors
///
/// [`Exit::Usage`] where something is there already, or cannot be written; then nothing was made.
pub(crate) fn create(plan: &Plan<'_>, actor: &Actor) -> Done {
    refuse_to_overwrite(plan)?;
    let mut made = Made::default();
    fill(plan, actor, &mut made).inspect_err(|_| made.undo())
}

fn refuse_to_overwrite(plan: &Plan<'_>) -> Done {
    let there: Vec<String> = NAMES
        .iter()
        .map(|name| plan.dir.join(name))
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    let message = format!("nothing was made, since these are there already: {}", there.join(", "));
    Err(Failure::usage(message))
}

fn fill(plan: &Plan<'_>, actor: &Actor, made: &mut Made) -> Done {
    let dir = plan.dir;
    made.folder(dir, 0o755)?;
    made.file(&dir.join("hallpass.yaml"), plan.configuration.as_bytes(), 0o644)?;
    let mut key = vec![0; 32];
    if !actor.random(&mut key) {
        return Err(crate::broker::ambient::NoEntropy.into());
    }
    let sealing =
        SealingKey::new(Secret::new(key)).map_err(|fault| Failure::new(Exit::Internal, fault.to_string()))?;
    made.file(&dir.join("sealing.key"), &with_newline(&sealing.to_text()), 0o600)?;
    for name in ["auditor.token", "operator.token"] {
        made.file(&dir.join(name), &with_newline(&new_token(actor)?), 0o600)?;
    }
    made.folder(&dir.join("policies"), 0o755)?;
    for (path, text) in plan.policies {
        let path = dir.join("policies").join(path);
        if let Some(folder) = path.parent() {
            made.folder(folder, 0o755)?;
        }
        made.file(&path, text.as_bytes(), 0o644)?;
    }
    if plan.has_database {
        let random = |out: &mut [u8]| actor.random(out);
        let genesis = Genesis { origin: plan.origin, now: actor.now(), random: &random };
        let database = dir.join("hallpass.db");
        Sqlite::create(&database, &sealing, genesis).map_err(|fault| Failure::usage(chain(&fault)))?;
        made.0.push(database);
    }
    sync(dir)
}

/// The configuration's words for a store on a server.
fn server(url: &str, password_file: Option<&str>) -> Result<String, Failure> {
    // Such a character would end the text between quotes in the file.
    let ends_text = |text: &str| text.contains(['"', '\\']) || text.chars().any(char::is_control);
    if let Some(file) = password_file.filter(|file| ends_text(file)) {
        let message =
            format!("--password-file: {file:?} cannot stand in the configuration; nothing was made");
        return Err(Failure::usage(message));
    }
    let beside = password_file.map(|file| format!(", password_file: \"{file}\"")).unwrap_or_default();
    let fault = match Place::parse(url, Path::new("")) {
        Ok(_) if ends_text(url) => "write %22 and %5C".to_owned(),
        Ok(_) => return Ok(format!("store: {{ url: \"{url}\"{beside} }}")),
        Err(fault) => fault.to_string(),
    };
    Err(Failure::usage(format!("--store: {fault}; nothing was made")))
}

/// The host, with its port, of an https URL without more.
fn host(url: &str) -> Result<&str, Failure> {
    let host = url.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let is_one = |host: &&str| !host.is_empty() && host.bytes().all(fits) && Url::parse(url).is_ok();
    host.filter(is_one).ok_or_else(|| {
        Failure::usage(format!("--url: write {url:?} as https://{HOST}, without a path; nothing was made"))
    })
}

/// A bearer token: its prefix lets scanners find one that leaked, its 32 random bytes let nobody guess one.
fn new_token(actor: &Actor) -> Result<Secret, Failure> {
    Ok(Secret::from_text(format!("hpa_{}", crockford(&actor.bytes::<32>()?))))
}

fn with_newline(text: &Secret) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    bytes.extend_from_slice(text.expose());
    bytes.push(b'\n');
    bytes
}

/// What was made so far, newest last.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn file(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Done {
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        let written: io::Result<()> = write();
        written.map_err(|fault| Failure::file(path, &fault))?;
        self.0.push(path.to_owned());
        Ok(())
    }

    fn folder(&mut self, path: &Path, mode: u32) -> Done {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.folder(parent, mode)?;
        }
        DirBuilder::new().mode(mode).create(path).map_err(|fault| Failure::file(path, &fault))?;
        self.0.push(path.to_owned());
        Ok(())
    }

    /// Takes back what was made. Best effort: the fault that stopped us is the one that is told.
    fn undo(&self) {
        for path in self.0.iter().rev() {
            drop(if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) });
        }
    }
}

/// The new names themselves must reach the disk.
fn sync(dir: &Path) -> Done {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(|fault| Failure::file(dir, &fault))
}

/// Everything that must not be there before.
const NAMES: [&str; 10] = [
    "hallpass.yaml",
    "sealing.key",
    "auditor.token",
    "operator.token",
    "policies",
    "ledger.seen",
    "hallpass.db",
    "hallpass.db-wal",
    "hallpass.db-shm",
    "hallpass.db-journal",
];
