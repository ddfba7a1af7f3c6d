//! `keys rotate assertions`, `keys publish`, and how `keys list` tells of the keys that sign assertions. Works on either
//! store, while any number of brokers serve.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::{
    adapters::{
        mint::{AssertionSettings, Assertions, assertions::public_half},
        store::{AssertionHandover, AssertionRotation, AssertionRotationFault, Database, Options},
    },
    cli::{
        actor::Actor,
        config::Config,
        exit::{Done, Exit, Failure, chain},
        installation, issuer_documents,
        output::{self, Output},
    },
    kernel::{
        assertion::{Algorithm, AssertionKey, KeyState},
        ledger::entry::EntryCode,
        secret::Secret,
    },
};

/// `keys rotate assertions`
#[derive(Debug, clap::Args)]
pub(crate) struct RotateAssertions {
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The keys of one algorithm only.
    #[arg(long, value_enum, value_name = "ALGORITHM")]
    algorithm: Option<Named>,
    /// Somebody else may know the keys: withdraw them at once, whatever breaks. A verifier that has them in its cache
    /// accepts them until that turns over.
    #[arg(long)]
    compromised: bool,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `keys publish`
#[derive(Debug, clap::Args)]
pub(crate) struct PublishKeys {
    /// The folder that is served at the issuer's URL; what is written is below its `.well-known`.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// An algorithm as the command line spells it.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Named {
    /// RSA with SHA-256: the common one.
    #[value(name = "RS256")]
    Rs256,
    /// P-256 with SHA-256: for the audiences of `assertions.es256`.
    #[value(name = "ES256")]
    Es256,
}

impl Named {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::Rs256,
            Self::Es256 => Algorithm::Es256,
        }
    }
}

impl RotateAssertions {
    /// Publishes new keys that sign after the lead time.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where the rotation before is not over; [`Exit::Internal`] where nothing can be written.
    pub(super) async fn run(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let store = installation::open_store(&config, Options::default())?;
        let rotated = self.rotate(&config, &store).await;
        store.close().await;
        let rotated = rotated?;
        for handover in &rotated {
            self.explain(handover);
        }
        match self.output {
            Output::Json => {
                let items: Vec<Value> = rotated.iter().map(|handover| told(handover, &[])).collect();
                output::json(&json!({ "items": items }))
            }
            Output::Human => {
                let line = |handover: &AssertionHandover| {
                    format!("{} {}\n", handover.algorithm.as_str(), kid_of(&handover.public))
                };
                output::data(&rotated.iter().map(line).collect::<String>())
            }
        }
    }

    async fn rotate(&self, config: &Config, store: &Database) -> Result<Vec<AssertionHandover>, Failure> {
        let actor = Actor::new()?;
        let algorithms = self.algorithm.map_or(Algorithm::ALL.to_vec(), |named| vec![named.algorithm()]);
        let mut rotated = Vec::new();
        for algorithm in algorithms {
            let turn = Turn { algorithm, lead: config.assertions.key_lead, is_compromised: self.compromised };
            rotated.push(rotate(store, &actor, turn).await?);
        }
        Ok(rotated)
    }

    fn explain(&self, handover: &AssertionHandover) {
        let algorithm = handover.algorithm.as_str();
        let ends = handover.before.iter().filter_map(|(_, dates)| dates.removed_at).max();
        output::say(&match (self.compromised, ends) {
            (true, _) => format!(
                "{algorithm}: every key before is withdrawn, and brokers sign with this one within seconds; verifiers refuse \
                 it until they read the issuer's keys anew, and accept the old ones for as long as they keep them"
            ),
            (false, Some(ends)) => format!(
                "{algorithm}: this key is published now and signs from {} on; the one before it is told of until {ends}",
                handover.schedule.active_at
            ),
            (false, None) => format!(
                "{algorithm}: this key is published now and signs from {} on",
                handover.schedule.active_at
            ),
        });
    }
}

impl PublishKeys {
    /// Writes the issuer's documents.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where they cannot be written.
    pub(super) async fn run(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let store = installation::open_store(&config, Options { read_only: true, ..Options::default() })?;
        let (keys, now) = (store.assertion_keys().await?, Actor::new()?.now());
        store.close().await;
        let assertions = Assertions::of_store(settings(&config), &keys, now)
            .map_err(|fault| Failure::new(Exit::Integrity, fault.to_string()))?;
        for file in issuer_documents::write(&self.folder, &assertions, now)
            .map_err(|fault| Failure::file(&self.folder, &fault))?
        {
            output::line(&file.display().to_string())?;
        }
        output::say(&format!(
            "serve {} at {}; copy it there again after each `keys rotate assertions`, and whenever `keys list` shows that \
             a key changed its state, or let `assertions.publish` keep it current",
            self.folder.display(),
            config.assertions.issuer
        ));
        Ok(())
    }
}

/// Which keys come next, and how.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    /// Whose keys.
    pub(crate) algorithm: Algorithm,
    /// How long a new one is known before it signs.
    pub(crate) lead: Duration,
    /// Whether those before hold no longer.
    pub(crate) is_compromised: bool,
}

/// Publishes the next key of an algorithm, with its entry.
///
/// # Errors
///
/// [`AssertionRotationFault`]; then nothing changed.
pub(crate) async fn rotate(
    store: &Database,
    actor: &Actor,
    turn: Turn,
) -> Result<AssertionHandover, AssertionRotationFault> {
    let Turn { algorithm, lead, is_compromised } = turn;
    let standing = store.assertion_keys().await?;
    let entry = |handover: &AssertionHandover| {
        let mut result = told(handover, &standing);
        if let Some(members) = result.as_object_mut() {
            members.insert("key".to_owned(), json!("assertions"));
            members.insert("compromised".to_owned(), json!(is_compromised));
        }
        actor.entry(EntryCode::KeyRotated, result).ok()
    };
    let rotation = AssertionRotation {
        algorithm,
        lead,
        is_compromised,
        now: actor.now(),
        random: &|out| actor.random(out),
        public_half: public_text,
        entry: &entry,
    };
    store.rotate_assertion_key(rotation).await
}

/// What the configuration says of the issuer.
pub(crate) fn settings(config: &Config) -> AssertionSettings {
    AssertionSettings {
        issuer: config.assertions.issuer.clone(),
        public_url: config.public_url.clone(),
        es256: config.assertions.es256.clone(),
    }
}

/// How `keys list` tells of them.
pub(super) fn items(keys: &[AssertionKey]) -> Result<Vec<Value>, Failure> {
    let now = Actor::new()?.now();
    Ok(keys.iter().map(|key| item(key, key.schedule.state(now))).collect())
}

fn item(key: &AssertionKey, state: KeyState) -> Value {
    let dates = key.schedule;
    let next = match (state, dates.retired_at, dates.removed_at) {
        (KeyState::Published, _, _) => Some(format!("signs from {}", dates.active_at)),
        (KeyState::Active, Some(at), _) => Some(format!("signs until {at}")),
        (KeyState::Retired, _, Some(at)) => Some(format!("told until {at}")),
        (KeyState::Active | KeyState::Retired | KeyState::Removed, _, _) => None,
    };
    json!({
        "purpose": "assertion", "version": key.version, "id": kid(key), "state": state.as_str(),
        "algorithm": key.algorithm.as_str(), "made_at": dates.published_at.to_string(),
        "active_at": dates.active_at.to_string(), "retired_at": dates.retired_at.map(|at| at.to_string()),
        "removed_at": dates.removed_at.map(|at| at.to_string()), "next": next, "key": null,
    })
}

/// A handover as the entry and the answer tell it; the keys before by name, where they are known.
fn told(handover: &AssertionHandover, standing: &[AssertionKey]) -> Value {
    let AssertionHandover { algorithm, version, public, schedule, before } = handover;
    let named = |version: u64| {
        let of = |key: &&AssertionKey| key.algorithm == *algorithm && key.version == version;
        standing.iter().find(of).and_then(kid)
    };
    let before: Vec<Value> = before
        .iter()
        .map(|(version, dates)| {
            json!({
                "version": version, "kid": named(*version), "retired_at": dates.retired_at.map(|at| at.to_string()),
                "removed_at": dates.removed_at.map(|at| at.to_string()),
            })
        })
        .collect();
    json!({
        "algorithm": algorithm.as_str(), "version": version, "kid": kid_of(public),
        "published_at": schedule.published_at.to_string(), "active_at": schedule.active_at.to_string(),
        "before": before,
    })
}

fn public_text(algorithm: Algorithm, private: &Secret) -> Option<String> {
    public_half(algorithm, private).ok().map(|jwk| jwk.to_string())
}

fn kid(key: &AssertionKey) -> Option<String> {
    let derived = || key.private.as_ref().and_then(|private| public_text(key.algorithm, private));
    key.public.clone().or_else(derived).map(|public| kid_of(&public))
}

fn kid_of(public: &str) -> String {
    let jwk = serde_json::from_str::<Value>(public).unwrap_or_default();
    jwk.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl From<AssertionRotationFault> for Failure {
    fn from(fault: AssertionRotationFault) -> Self {
        let exit = match &fault {
            AssertionRotationFault::Pending { .. } => Exit::Usage,
            AssertionRotationFault::Key => Exit::Integrity,
            AssertionRotationFault::Contended
            | AssertionRotationFault::Entry
            | AssertionRotationFault::NoEntropy
            | AssertionRotationFault::Seal(_)
            | AssertionRotationFault::Store(_) => Exit::Internal,
        };
        Self::new(exit, chain(&fault))
    }
}
