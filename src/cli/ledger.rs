//! `hallpass ledger`: verify, export, show. `verify` opens read-only and writes nothing; `export` and `show` are
//! recorded before anything leaves.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    actor::Actor,
    config::Config,
    exit::{Done, Exit, Failure, chain},
    installation,
    output::{self, Output},
    pipeline::shown,
    process,
    serve::seen,
};
use crate::{
    adapters::store::{Database, Options},
    broker::{
        audit,
        ports::{EntryQuery, Qualifier, Store as _, StoredEntry, Term},
    },
    kernel::{
        json::read_bounded,
        ledger::{
            checkpoint::{Checkpoint, VerifierKey},
            entry::EntryCode,
            export::{CHECKPOINT_FILE, ENTRIES_FILE, Export, MANIFEST_FILE},
            verify::{Anchor, Evidence, Key, Report, Verdict},
        },
    },
};

/// `ledger …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum LedgerCommand {
    /// Writes the whole ledger into a new folder.
    Export(ExportTo),
    /// Shows an entry by its index, or all of a decision or an issuance by its id.
    Show(Show),
    /// Verifies an export, or the live database.
    Verify(Verify),
}

/// `ledger verify`
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// An export's folder, or `entries.jsonl` in it; without it the live database.
    #[arg(value_name = "EXPORT")]
    export: Option<PathBuf>,
    /// The ledger's verifier key, kept elsewhere (`keys show ledger`).
    #[arg(long, value_name = "VKEY")]
    key: Option<String>,
    /// A checkpoint, a tlog-proof or a receipt from elsewhere; may be given several times.
    #[arg(long, value_name = "FILE")]
    anchor: Vec<PathBuf>,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE", conflicts_with = "export")]
    config: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `ledger export`
#[derive(Debug, clap::Args)]
pub(crate) struct ExportTo {
    /// The folder; it must not be there, or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `ledger show`
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// An index, or the id of a decision (`dec_…`) or issuance (`iss_…`).
    #[arg(value_name = "INDEX|ID")]
    which: String,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Rows read at once.
const PAGE: u32 = 1_000;
/// The entries of one decision: 16 credentials with INTENT, ISSUED and what became of them.
const MAX_OF_ONE_ID: u32 = 200;

impl LedgerCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::Integrity`], [`Exit::NotAnchored`] by verdict; [`Exit::Usage`] for what cannot be read or written.
    pub(crate) fn run(self) -> Done {
        let runtime = process::runtime()?;
        match self {
            Self::Export(export) => runtime.block_on(export.run()),
            Self::Show(show) => runtime.block_on(show.run()),
            Self::Verify(verify) => runtime.block_on(verify.run()),
        }
    }
}

impl Verify {
    async fn run(self) -> Done {
        let key = self.key.as_deref().map(|text| {
            VerifierKey::parse(text).ok_or_else(|| {
                Failure::usage("--key is no verifier key; `hallpass keys show ledger` prints one")
            })
        });
        let key = key.transpose()?;
        let anchors: Result<Vec<Anchor>, Failure> = self.anchor.iter().map(|path| anchor(path)).collect();
        let report = match &self.export {
            Some(export) => of_export(export, key, anchors?)?,
            None => {
                let config = Config::load(self.config.as_deref())?;
                let mut anchors = anchors?;
                for kept in seen::kept(&config.ledger) {
                    anchors.push(anchor(&kept)?);
                }
                audit::of_store(&*installation::inspect_as_it_is(&config)?, key, anchors).await?
            }
        };
        tell(&report, self.output)?;
        match report.verdict {
            Verdict::Anchored => Ok(()),
            Verdict::Consistent => Err(Failure::silent(Exit::NotAnchored)),
            Verdict::Broken(_) => Err(Failure::silent(Exit::Integrity)),
        }
    }
}

fn anchor(path: &Path) -> Result<Anchor, Failure> {
    let bytes = fs::read(path).map_err(|fault| Failure::file(path, &fault))?;
    Ok(Anchor { name: path.display().to_string(), bytes })
}

fn of_export(export: &Path, key: Option<VerifierKey>, anchors: Vec<Anchor>) -> Result<Report, Failure> {
    let folder = if export.is_dir() { export } else { export.parent().unwrap_or(Path::new("")) };
    let whole = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|fault| Failure::file(&path, &fault))
    };
    let key = key.map_or(Key::Unknown, Key::Elsewhere);
    let (checkpoint, manifest) = (whole(CHECKPOINT_FILE)?, whole(MANIFEST_FILE)?);
    let evidence = Evidence { key, checkpoint, manifest: Some(manifest), anchors };
    let path = if export.is_dir() { folder.join(ENTRIES_FILE) } else { export.to_owned() };
    let read = File::open(&path).and_then(|file| audit::of_lines(evidence, &mut BufReader::new(file)));
    read.map_err(|fault| Failure::file(&path, &fault))
}

fn tell(report: &Report, output: Output) -> Done {
    let findings: &[String] = match &report.verdict {
        Verdict::Broken(findings) => findings,
        Verdict::Anchored | Verdict::Consistent => &[],
    };
    if output == Output::Json {
        return output::json(&json!({
            "verdict": report.verdict.as_str(), "exit": report.verdict.exit_code(), "origin": report.origin,
            "size": report.size, "root": report.root.to_string(), "anchored": report.anchored,
            "first_bad": report.first_bad, "first_bad_among": report.first_bad_among, "findings": findings, "notes": report.notes,
        }));
    }
    let mut text =
        format!("{}: {} entries of {}\n", report.verdict.as_str(), report.size, shown(&report.origin));
    text.push_str(&format!("  root {}\n", report.root));
    if let Some(index) = report.first_bad {
        text.push_str(&format!("  the first bad entry is {index}\n"));
    }
    if let Some((least, greatest)) = report.first_bad_among {
        text.push_str(&format!("  the first bad entry is among {least} to {greatest}\n"));
    }
    for line in findings.iter().chain(&report.notes) {
        text.push_str(&format!("  {}\n", shown(line)));
    }
    output::data(&text)
}

impl ExportTo {
    async fn run(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let store = installation::open_store(&config, Options::default())?;
        prepare(&self.out)?;
        let actor = Actor::new()?;
        let before = Checkpoint::read_unverified(&store.checkpoint().await?).map_or(0, |head| head.size);
        // Recorded first: an export that nobody recorded must not exist. The entry itself is the last one in it.
        let entry = actor.entry(EntryCode::Exported, json!({ "size": before + 1 }))?;
        store.append(vec![entry]).await?;
        let written = write(&store, &self.out).await;
        store.close().await;
        let size = written?;
        output::say(&format!("exported {size} entries to {}", self.out.display()));
        Ok(())
    }
}

fn prepare(out: &Path) -> Done {
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::usage(format!("{} is not empty; nothing was written", out.display()))),
        },
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(out).map_err(|fault| Failure::file(out, &fault))
        }
        Err(fault) => Err(Failure::file(out, &fault)),
    }
}

async fn write(store: &Database, out: &Path) -> Result<u64, Failure> {
    let broken = |fault| Failure::new(Exit::Integrity, chain(&fault));
    let note = store.checkpoint().await?;
    let mut export = Export::begin(&note).map_err(broken)?;
    let size = export.size();
    let path = out.join(ENTRIES_FILE);
    let file_fault = |fault: io::Error| Failure::file(&path, &fault);
    let mut file = BufWriter::new(File::create_new(&path).map_err(file_fault)?);
    let mut next = 0;
    while next < size {
        let rows = store.ledger_rows(next, PAGE).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows.iter().filter(|row| row.index < size) {
            file.write_all(&export.line(&row.bytes).map_err(broken)?).map_err(file_fault)?;
            next = row.index + 1;
        }
    }
    let file = file.into_inner().map_err(|fault| file_fault(fault.into_error()))?;
    file.sync_all().map_err(file_fault)?;
    let manifest = export.finish().map_err(broken)?;
    for (name, bytes) in [(MANIFEST_FILE, manifest), (CHECKPOINT_FILE, note.into_bytes())] {
        let path = out.join(name);
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(|fault| Failure::file(&path, &fault))?;
    }
    Ok(size)
}

impl Show {
    async fn run(self) -> Done {
        let is_id = ["dec_", "iss_"].iter().any(|prefix| self.which.starts_with(prefix));
        let index = self.which.parse::<u64>();
        if !is_id && index.is_err() {
            return Err(Failure::usage("write an index, or an id that begins with dec_ or iss_"));
        }
        let config = Config::load(self.config.as_deref())?;
        let store = installation::open_store(&config, Options::default())?;
        let read = Actor::new()?.entry(EntryCode::Read, json!({ "what": "entries" }))?;
        store.append(vec![read]).await?;
        let found = match index {
            Ok(index) => store.entry(index).await?.into_iter().collect(),
            Err(_) => of_id(&store, &self.which).await?,
        };
        store.close().await;
        if found.is_empty() {
            return Err(Failure::usage(format!("the ledger has no entry of {}", self.which)));
        }
        let shown: Result<Vec<Value>, Failure> = found.iter().map(entry_json).collect();
        match (self.output, shown?) {
            (Output::Json, items) => output::json(&json!({ "items": items })),
            (Output::Human, items) => {
                let text = items.iter().map(|item| format!("{item:#}\n"));
                output::data(&text.collect::<String>())
            }
        }
    }
}

/// The entries of a decision or an issuance, oldest first.
async fn of_id(store: &Database, id: &str) -> Result<Vec<StoredEntry>, Failure> {
    let term = Term { qualifier: Qualifier::Text, value: id.to_owned(), negated: false };
    let query = EntryQuery { terms: vec![term], limit: MAX_OF_ONE_ID, ..EntryQuery::default() };
    let mut found = store.entries(query).await?;
    found.retain(|entry| {
        let entry = read_bounded(&entry.bytes).unwrap_or_default();
        ["decision", "issuance"].iter().any(|name| entry.get(name).and_then(Value::as_str) == Some(id))
    });
    found.reverse();
    Ok(found)
}

fn entry_json(stored: &StoredEntry) -> Result<Value, Failure> {
    let damaged = |_| Failure::new(Exit::Integrity, format!("entry {} is not JSON", stored.index));
    let entry = read_bounded(&stored.bytes).map_err(damaged)?;
    let mut item = json!({ "index": stored.index, "entry": entry });
    if let (Value::Object(members), false) = (&mut item, stored.personal.is_empty()) {
        let personal =
            stored.personal.iter().map(|(field, value)| (field.clone(), Value::from(value.clone())));
        members.insert("personal".to_owned(), Value::Object(personal.collect()));
    }
    Ok(item)
}
