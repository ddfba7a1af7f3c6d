//! `hallpass freeze` and `hallpass thaw`: what an operator stops at once, on every broker of the store (contract:
//! section 8, "Emergency"). They open the store themselves, also while `serve` runs; the running brokers need no
//! telling, since each looks in the transaction that would issue.

use std::{path::PathBuf, sync::Arc};

use serde_json::{Value, json};

use super::{
    actor::Actor,
    config::Config,
    exit::{Done, Failure},
    installation,
    output::{self, Output},
    process,
};
use crate::{
    adapters::{policy_source::PolicySource, store::Options},
    broker::{
        Clock,
        emergency::{Imposed, MAX_REASON_CHARS, Operator},
        ports::{KeySource as _, Store as _},
    },
    kernel::{
        digest::Digest,
        freeze::{Freeze, FreezeScope},
        policy::load,
    },
};

/// `freeze …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum FreezeCommand {
    /// Every exchange of every job.
    All(Why),
    /// One grant.
    Grant(Named),
    /// All tokens of an issuer.
    Issuer(Named),
    /// All tokens that one key of an issuer signed, whatever the key is called.
    Kid(Key),
    /// Shows the freezes that stand.
    List(List),
    /// All jobs of a project.
    Project(Project),
}

/// `thaw …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ThawCommand {
    /// Ends `freeze all`; other freezes stay.
    All(Why),
    /// One grant.
    Grant(Named),
    /// One issuer.
    Issuer(Named),
    /// One key.
    Kid(Key),
    /// One project.
    Project(Project),
}

/// A thing by its name.
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Its name, as policies use it.
    name: String,
    #[command(flatten)]
    why: Why,
}

/// A key of an issuer.
#[derive(Debug, clap::Args)]
pub(crate) struct Key {
    /// The issuer's name and the key's id in its set.
    #[arg(value_name = "ISSUER/KID")]
    name: String,
    #[command(flatten)]
    why: Why,
}

/// A project of an issuer.
#[derive(Debug, clap::Args)]
pub(crate) struct Project {
    /// The issuer's name and the project's immutable id, as `whoami` shows it.
    #[arg(value_name = "ISSUER/PROJECT-ID")]
    name: String,
    #[command(flatten)]
    why: Why,
}

/// Why, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Why {
    /// Why, for the audit record; at most 256 characters.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `freeze list`
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl FreezeCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`super::exit::Exit::Usage`] for what cannot be frozen, [`super::exit::Exit::Internal`] where the store cannot be
    /// written.
    pub(crate) fn run(self) -> Done {
        process::harden()?;
        let runtime = process::runtime()?;
        let (word, name, why) = match self {
            Self::All(why) => ("all", String::new(), why),
            Self::Grant(Named { name, why }) => ("grant", name, why),
            Self::Issuer(Named { name, why }) => ("issuer", name, why),
            Self::Kid(Key { name, why }) => ("kid", name, why),
            Self::List(list) => return runtime.block_on(list.run()),
            Self::Project(Project { name, why }) => ("project", name, why),
        };
        runtime.block_on(why.freeze(scope(word, &name)?))
    }
}

impl ThawCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`super::exit::Exit::Usage`] for what is not frozen, [`super::exit::Exit::Internal`] where the store cannot be
    /// written.
    pub(crate) fn run(self) -> Done {
        process::harden()?;
        let (word, name, why) = match self {
            Self::All(why) => ("all", String::new(), why),
            Self::Grant(Named { name, why }) => ("grant", name, why),
            Self::Issuer(Named { name, why }) => ("issuer", name, why),
            Self::Kid(Key { name, why }) => ("kid", name, why),
            Self::Project(Project { name, why }) => ("project", name, why),
        };
        process::runtime()?.block_on(why.thaw(scope(word, &name)?))
    }
}

fn scope(word: &str, name: &str) -> Result<FreezeScope, Failure> {
    FreezeScope::read(word, name).ok_or_else(|| {
        let form = match word {
            "kid" => "ISSUER/KID",
            "project" => "ISSUER/PROJECT-ID",
            _ => "a name: 1 to 63 of a-z, 0-9 and -, no - at an end",
        };
        Failure::usage(format!("`{name}` is not {form}"))
    })
}

/// A reason as the audit record takes it.
///
/// # Errors
///
/// [`super::exit::Exit::Usage`] where it says nothing, or too much.
pub(super) fn checked_reason(reason: &str) -> Result<&str, Failure> {
    if reason.trim().is_empty() || reason.chars().count() > MAX_REASON_CHARS {
        return Err(Failure::usage(
            "--reason takes 1 to 256 characters: whoever reads the ledger must know why",
        ));
    }
    Ok(reason)
}

impl Why {
    async fn freeze(self, scope: FreezeScope) -> Done {
        let reason = checked_reason(&self.reason)?.to_owned();
        let config = Config::load(self.config.as_deref())?;
        // A mistyped name freezes nothing, and whoever is in a hurry must be told.
        if let Some(issuer) = scope.issuer().filter(|issuer| !config.issuers.contains_key(*issuer)) {
            let known: Vec<&str> = config.issuers.keys().map(|name| name.as_str()).collect();
            let message = format!("no issuer `{issuer}` is configured; there are {}", known.join(", "));
            return Err(Failure::usage(message));
        }
        let thumbprints = thumbprints(&config, &scope).await?;
        let actor = Actor::new()?;
        let store = installation::open_store(&config, Options::default())?;
        let (seal, name) = (|draft| actor.seal(draft), Actor::name());
        let operator = Operator { store: &*store, name: &name, seal: &seal, now: actor.now() };
        let imposed = operator.freeze(scope.clone(), thumbprints, reason).await;
        store.close().await;
        let (freeze, is_new) = match imposed? {
            Imposed::Now(freeze) => (freeze, true),
            Imposed::Already(freeze) => (freeze, false),
        };
        warn_of_unknown(&config, &freeze);
        match self.output {
            Output::Json => {
                let mut shown = shown(&freeze);
                if let Value::Object(members) = &mut shown {
                    members.insert("already".to_owned(), (!is_new).into());
                }
                output::json(&shown)
            }
            Output::Human if is_new => output::line(&format!(
                "frozen {scope}: no broker of this store issues it from now on; `hallpass thaw {scope} --reason …` ends that"
            )),
            Output::Human => output::line(&format!("already frozen: {}", line(&freeze))),
        }
    }

    async fn thaw(self, scope: FreezeScope) -> Done {
        let reason = checked_reason(&self.reason)?;
        let config = Config::load(self.config.as_deref())?;
        let actor = Actor::new()?;
        let store = installation::open_store(&config, Options::default())?;
        let (seal, name) = (|draft| actor.seal(draft), Actor::name());
        let operator = Operator { store: &*store, name: &name, seal: &seal, now: actor.now() };
        let thawed = operator.thaw(scope.clone(), reason).await;
        store.close().await;
        if !thawed? {
            return Err(Failure::usage(format!(
                "{scope} is not frozen; `hallpass freeze list` shows what is"
            )));
        }
        match self.output {
            Output::Json => {
                output::json(&json!({ "scope": scope.word(), "name": scope.name(), "thawed": true }))
            }
            Output::Human => output::line(&format!("thawed {scope}")),
        }
    }
}

impl List {
    async fn run(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let store = installation::open_store(&config, Options { read_only: true, ..Options::default() })?;
        let freezes = store.freezes().await?;
        match self.output {
            Output::Json => {
                output::json(&json!({ "freezes": freezes.iter().map(shown).collect::<Vec<_>>() }))
            }
            Output::Human if freezes.is_empty() => output::line("nothing is frozen"),
            Output::Human => {
                output::data(&freezes.iter().map(|freeze| line(freeze) + "\n").collect::<String>())
            }
        }
    }
}

/// The thumbprints of the key that is to be frozen, as its issuer publishes it now. Where the issuer does not answer
/// or publishes no such key, the freeze holds by name, and a broker that still holds the key completes it.
async fn thumbprints(config: &Config, scope: &FreezeScope) -> Result<Vec<Digest>, Failure> {
    let FreezeScope::Kid { issuer, kid } = scope else { return Ok(Vec::new()) };
    let keys = installation::issuer_keys(config, Arc::new(|| Clock::System.now()))?;
    keys.refresh_one(issuer).await;
    Ok(keys.thumbprints(issuer, kid))
}

/// What is frozen all the same, but probably not meant.
fn warn_of_unknown(config: &Config, freeze: &Freeze) {
    match &freeze.scope {
        FreezeScope::All | FreezeScope::Issuer(_) | FreezeScope::Project { .. } => {}
        FreezeScope::Kid { issuer, .. } if freeze.thumbprints.is_empty() => output::say(&format!(
            "hallpass: {issuer} publishes no key of that id now: the freeze holds by the name alone, until a broker \
             that holds such a key completes it"
        )),
        FreezeScope::Kid { .. } => {}
        FreezeScope::Grant(grant) => {
            let files = PolicySource::new(&config.policies).read();
            let loaded = files.map(|(files, commit)| load::load(&files, commit, Some(&config.trusted())));
            if let Ok(Ok(loaded)) = loaded
                && !loaded.set.grants.contains_key(grant)
            {
                output::say(&format!(
                    "hallpass: no grant `{grant}` stands in {}; look whether the name is right",
                    config.policies.display()
                ));
            }
        }
    }
}

fn shown(freeze: &Freeze) -> Value {
    json!({
        "scope": freeze.scope.word(), "name": freeze.scope.name(),
        "thumbprints": freeze.thumbprints.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "by": freeze.by, "reason": freeze.reason, "at": freeze.at.to_string(),
    })
}

fn line(freeze: &Freeze) -> String {
    let Freeze { scope, by, reason, at, .. } = freeze;
    let reason = super::pipeline::shown(reason);
    format!("{scope} since {} by {by}: {reason}", at.strftime("%Y-%m-%dT%H:%M:%SZ"))
}
