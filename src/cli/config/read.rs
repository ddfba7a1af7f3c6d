//! The file from top to bottom: every section is read before the first fault counts, so that one run shows all.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Config, Deadlines, Ledger, Limits, Listen, NamedFile, SealingKeyFrom, assertions, backends,
    environment::{Environment, POLICIES, STORE_URL},
    issuers, listen,
};
use crate::{
    adapters::store::{StorePlace, postgres::Place},
    kernel::{
        digest::Digest,
        policy::{
            Finding,
            yaml::{self, Fields, Findings, Key, Node},
        },
    },
};

/// What the contract's example says (section 9).
const DEFAULT_LIMITS: Limits = Limits {
    clock_leeway: Duration::from_secs(30),
    per_source_per_second: 50,
    per_project_per_minute: 600,
    in_flight: 1024,
};
const DEFAULT_DEADLINES: Deadlines = Deadlines {
    exchange: Duration::from_secs(15),
    mint: Duration::from_secs(8),
    issuer: Duration::from_secs(5),
    shutdown: Duration::from_secs(30),
};
const DEFAULT_RETENTION_MONTHS: u32 = 36;
const DEFAULT_PUBLISH_EVERY: Duration = Duration::from_secs(5);
/// What is newer than the newest checkpoint elsewhere can be taken back unnoticed.
const MAX_PUBLISH_EVERY: Duration = Duration::from_secs(3_600);
/// A greater leeway would keep tokens alive that their issuer has let go.
const MAX_CLOCK_LEEWAY: Duration = Duration::from_secs(120);
/// Beyond this no client waits, and no orchestrator does.
const MAX_DEADLINE: Duration = Duration::from_secs(600);

/// Where relative paths begin, and what findings call the file.
pub(super) struct Folder {
    base: PathBuf,
    file: String,
}

impl Folder {
    /// A path as the file means it.
    pub(super) fn join(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }
}

pub(super) fn read(file: &Path, bytes: &[u8], environment: &Environment) -> Result<Config, Vec<Finding>> {
    let shown = file.display().to_string();
    let base = file.parent().map(Path::to_owned).unwrap_or_default();
    let folder = Folder { base, file: shown.clone() };
    let node = yaml::read(&shown, bytes).map_err(|finding| vec![finding])?;
    let mut findings = Findings::new(&shown);
    let config = top(&mut findings, &node, &folder, environment);
    let mut list = findings.list;
    list.sort_by(|left, right| {
        (&left.file, left.line, left.column).cmp(&(&right.file, right.line, right.column))
    });
    match config {
        Some(config) if list.is_empty() => {
            Ok(Config { file: file.to_owned(), digest: Digest::of(bytes), ..config })
        }
        Some(_) | None => Err(list),
    }
}

fn top(
    findings: &mut Findings<'_>,
    node: &Node,
    folder: &Folder,
    environment: &Environment,
) -> Option<Config> {
    let mut fields = findings.fields(node)?;
    let public = fields.require(findings, "public");
    let public = public.and_then(|node| listen::public(findings, node, folder, environment));
    let admin_node = fields.take("admin");
    let admin = listen::admin(findings, admin_node, folder, environment);
    let store = store(findings, &mut fields, folder, environment);
    let policies = fields.take("policies");
    let policies = match policies {
        None if !environment.has(POLICIES) => Some(folder.base.join("policies")),
        field => environment.or(findings, POLICIES, field, |findings, node| folder.path(findings, node)),
    };
    let sealing_key = fields.require(findings, "sealing_key");
    let sealing_keys = sealing_key.and_then(|node| sealing_keys_from(findings, node, folder));
    let assertions = fields.require(findings, "assertions");
    let assertions = assertions.and_then(|node| assertions::read(findings, node, folder));
    let issuers = fields.take("issuers");
    let own = assertions.as_ref().map(|assertions| assertions.issuer.as_str());
    let issuers = issuers.map(|node| issuers::read_all(findings, node, folder, own));
    let ledger = fields.require(findings, "ledger").and_then(|node| ledger(findings, node, folder));
    let limits = fields.take("limits").map(|node| limits(findings, node));
    let deadlines = fields.take("deadlines").map(|node| deadlines(findings, node));
    let backends = fields.take("backends").map(|node| backends::read_all(findings, node, folder));
    fields.finish(findings);
    let names = [own, public.as_ref().map(|(_, url)| url.as_str())];
    backends::not_for_ourselves(findings, backends.iter().flatten(), names.into_iter().flatten());

    let ((public, public_url), (admin, admin_tokens)) = (public?, admin?);
    let (sealing_key, previous_sealing_key) = sealing_keys?;
    let is_any = matches!(public.listen, Listen::Tcp(address) if address.port() == 0);
    if public.listen == admin.listen && !is_any {
        let message = format!("public and admin both listen on {}", public.listen);
        findings.at(admin_node.unwrap_or(node), "same-address", message, "give each an address of its own");
    }
    Some(Config {
        file: PathBuf::new(),
        digest: Digest::of(b""),
        public,
        public_url,
        admin,
        admin_tokens,
        store: store?,
        policies: policies?,
        sealing_key,
        previous_sealing_key,
        issuers: issuers.unwrap_or_else(|| Some(std::collections::BTreeMap::new()))?,
        backends: backends.unwrap_or_else(|| Some(std::collections::BTreeMap::new()))?,
        ledger: ledger?,
        assertions: assertions?,
        limits: limits.unwrap_or(Some(DEFAULT_LIMITS))?,
        deadlines: deadlines.unwrap_or(Some(DEFAULT_DEADLINES))?,
    })
}

impl Folder {
    /// A path, relative to the file's folder.
    pub(super) fn path(&self, findings: &mut Findings<'_>, node: &Node) -> Option<PathBuf> {
        Some(self.base.join(findings.filled(node)?))
    }

    /// The same, with the place where it is named.
    pub(super) fn file(&self, findings: &mut Findings<'_>, node: &Node) -> Option<NamedFile> {
        Some(self.named(self.path(findings, node)?, node))
    }

    /// A thing that is called so where its key stands.
    pub(super) fn named_at(&self, path: PathBuf, key: &Key) -> NamedFile {
        let (line, column) = (key.line, key.column);
        NamedFile { path, named_in: self.file.clone(), line, column, width: key.width }
    }

    fn named(&self, path: PathBuf, node: &Node) -> NamedFile {
        NamedFile {
            path,
            named_in: self.file.clone(),
            line: node.line,
            column: node.column,
            width: node.width,
        }
    }
}

fn store(
    findings: &mut Findings<'_>,
    fields: &mut Fields<'_>,
    folder: &Folder,
    environment: &Environment,
) -> Option<StorePlace> {
    let section =
        if environment.has(STORE_URL) { fields.take("store") } else { fields.require(findings, "store") };
    let (url, password_file) = match section {
        None => (None, None),
        Some(node) => {
            let mut fields = findings.fields(node)?;
            let (url, password_file) = (fields.require(findings, "url"), fields.take("password_file"));
            fields.finish(findings);
            (url, password_file)
        }
    };
    let place =
        environment.or(findings, STORE_URL, url, |findings, node| store_place(findings, node, folder))?;
    let Some(node) = password_file else { return Some(place) };
    let file = folder.path(findings, node)?;
    match place {
        StorePlace::Postgres(place) => Some(StorePlace::Postgres(place.with_password_file(Some(file)))),
        StorePlace::Sqlite(_) => {
            let remedy = "take `password_file` away, or name a server: postgres://…";
            findings.at(node, "store-password", "a database file has no password", remedy);
            None
        }
    }
}

fn store_place(findings: &mut Findings<'_>, node: &Node, folder: &Folder) -> Option<StorePlace> {
    let text = findings.filled(node)?;
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    if ["postgres", "postgresql"].contains(&scheme) {
        return match Place::parse(text, &folder.base) {
            Ok(place) => Some(StorePlace::Postgres(place)),
            Err(fault) => {
                findings.at(node, "store-url", fault.to_string(), POSTGRES_URL);
                None
            }
        };
    }
    let path = text.strip_prefix("sqlite:").unwrap_or_default();
    if path.is_empty() || path.starts_with("//") || path.starts_with(':') || path.contains('?') {
        let remedy =
            "write sqlite: and a path, such as sqlite:hallpass.db or sqlite:/var/lib/hallpass/hallpass.db";
        findings.at(node, "store-url", format!("`{text}` names no database file"), remedy);
        return None;
    }
    Some(StorePlace::Sqlite(folder.base.join(path)))
}

/// What to write instead.
const POSTGRES_URL: &str = "write postgres://USER@HOST/DATABASE?sslrootcert=ca.pem, and keep the password in \
     `store.password_file`, PGPASSWORD or PGPASSFILE; plain text is for loopback and Unix sockets only";

/// The sealing key, and the one before it.
type SealingKeys = (SealingKeyFrom, Option<SealingKeyFrom>);

fn sealing_keys_from(findings: &mut Findings<'_>, node: &Node, folder: &Folder) -> Option<SealingKeys> {
    let mut fields = findings.fields(node)?;
    let previous = fields.take("previous").map(|node| {
        let mut fields = findings.fields(node)?;
        let found = sealing_key_from(findings, (node, &mut fields), folder);
        fields.finish(findings);
        found
    });
    let newest = sealing_key_from(findings, (node, &mut fields), folder);
    fields.finish(findings);
    Some((newest?, previous.map_or(Some(None), |previous| previous.map(Some))?))
}

fn sealing_key_from(
    findings: &mut Findings<'_>,
    (node, fields): (&Node, &mut Fields<'_>),
    folder: &Folder,
) -> Option<SealingKeyFrom> {
    let (file, variable) = (fields.take("file"), fields.take("env"));
    let is_later = fields.take_entry("vault").is_some_and(|(key, _)| {
        let message = "this version does not support `sealing_key.vault` yet";
        findings.at_key(key, "not-yet", message, "keep the key in a file or in a variable");
        true
    });
    match (file, variable) {
        (Some(file), None) => Some(SealingKeyFrom::File(folder.file(findings, file)?)),
        (None, Some(variable)) => {
            let name = findings.filled(variable)?.to_owned();
            Some(SealingKeyFrom::Env { place: folder.named(PathBuf::from(&name), variable), name })
        }
        (None, None) if is_later => None,
        (Some(_), Some(_)) | (None, None) => {
            let message = "the sealing key comes from exactly one place";
            findings.at(node, "sealing-key", message, "write { file: sealing.key } or { env: NAME }");
            None
        }
    }
}

fn ledger(findings: &mut Findings<'_>, node: &Node, folder: &Folder) -> Option<Ledger> {
    let mut fields = findings.fields(node)?;
    let origin = fields.require(findings, "origin").and_then(|node| origin(findings, node));
    let seen = fields.take("seen").map(|node| folder.path(findings, node));
    let months = fields.take("retention_months").map(|node| whole(findings, node, (1, 1_200)));
    let publish = fields.take("publish").map(|node| folder.path(findings, node));
    let every = fields.take("publish_every").map(|node| span(findings, node, MAX_PUBLISH_EVERY));
    fields.finish(findings);
    Some(Ledger {
        origin: origin?,
        seen: seen.map_or(Some(None), |seen| seen.map(Some))?,
        publish: publish.map_or(Some(None), |publish| publish.map(Some))?,
        publish_every: every.unwrap_or(Some(DEFAULT_PUBLISH_EVERY))?,
        retention_months: months.unwrap_or(Some(DEFAULT_RETENTION_MONTHS))?,
    })
}

/// An origin is the name of the ledger's key in a signed note, so it has no spaces and no plus.
fn origin(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = findings.filled(node)?;
    let is_bad = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '+';
    if text.chars().any(is_bad) {
        let remedy = "write a host and a path without scheme, such as hallpass.example.com/ledger";
        findings.at(node, "origin", format!("`{text}` cannot be a ledger's origin"), remedy);
        return None;
    }
    Some(text.to_owned())
}

fn limits(findings: &mut Findings<'_>, node: &Node) -> Option<Limits> {
    let mut fields = findings.fields(node)?;
    let leeway = fields.take("clock_leeway").map(|node| span(findings, node, MAX_CLOCK_LEEWAY));
    let mut number = |name, most| fields.take(name).map(|node| whole(findings, node, (1, most)));
    let source = number("per_source_per_second", 1_000_000);
    let project = number("per_project_per_minute", 1_000_000);
    let in_flight = number("in_flight", 65_536);
    fields.finish(findings);
    let default = DEFAULT_LIMITS;
    Some(Limits {
        clock_leeway: leeway.unwrap_or(Some(default.clock_leeway))?,
        per_source_per_second: source.unwrap_or(Some(default.per_source_per_second))?,
        per_project_per_minute: project.unwrap_or(Some(default.per_project_per_minute))?,
        in_flight: in_flight.map_or(Some(default.in_flight), |read| usize::try_from(read?).ok())?,
    })
}

fn deadlines(findings: &mut Findings<'_>, node: &Node) -> Option<Deadlines> {
    let mut fields = findings.fields(node)?;
    let mut deadline = |name, default| match fields.take(name) {
        None => Some(default),
        Some(node) => span(findings, node, MAX_DEADLINE),
    };
    let default = DEFAULT_DEADLINES;
    let exchange = deadline("exchange", default.exchange);
    let mint = deadline("mint", default.mint);
    let issuer = deadline("issuer", default.issuer);
    let shutdown = deadline("shutdown", default.shutdown);
    fields.finish(findings);
    let read = Deadlines { exchange: exchange?, mint: mint?, issuer: issuer?, shutdown: shutdown? };
    if read.mint > read.exchange || read.issuer > read.exchange {
        let message = "mint and issuer are parts of an exchange, and cannot take longer than it";
        findings.at(node, "deadline", message, "raise `exchange`, or lower the others");
    }
    Some(read)
}

pub(super) fn span(findings: &mut Findings<'_>, node: &Node, most: Duration) -> Option<Duration> {
    let read = findings.duration(node)?;
    if read > most {
        let message = format!("it is longer than {} s", most.as_secs());
        findings.at(node, "too-large", message, format!("write at most {}s", most.as_secs()));
    }
    Some(read)
}

fn whole(findings: &mut Findings<'_>, node: &Node, (least, most): (u32, u32)) -> Option<u32> {
    let read = findings.integer(node)?;
    let fitting = u32::try_from(read).ok().filter(|number| (least..=most).contains(number));
    if fitting.is_none() {
        let remedy = format!("write a number from {least} to {most}");
        findings.at(node, "out-of-range", format!("{read} is out of range"), remedy);
    }
    fitting
}
