//! `hallpass keys`: public keys for those who verify, what keys there are, and other ones in their place. Works while
//! `serve` runs.

pub(crate) mod assertions;

use std::{path::PathBuf, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use self::assertions::{PublishKeys, RotateAssertions};
use super::{
    actor::Actor,
    config::Config,
    exit::{Done, Exit, Failure, chain},
    installation,
    output::{self, Output},
    process,
};
use crate::{
    adapters::store::{Handover, HeldKey, Options, Random, RotationFault, SealingHandover},
    kernel::{digest::Digest, ledger::entry::EntryCode},
};

/// `keys …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeysCommand {
    /// Lists all keys: what for, which, since when; never a secret part.
    List(ShowKeys),
    /// Writes the issuer's documents (`openid-configuration`, `jwks.json`) into a folder, for a bucket.
    Publish(PublishKeys),
    /// Wraps whatever is sealed under the sealing key that the configuration names now.
    Rewrap(ChangeKey),
    /// Puts a new key in the place of one.
    #[command(subcommand)]
    Rotate(RotateKey),
    /// Shows a public key.
    #[command(subcommand)]
    Show(ShowKey),
}

/// `keys rotate …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum RotateKey {
    /// The keys that sign assertions: new ones are published now and sign after `assertions.key_lead`.
    Assertions(RotateAssertions),
    /// The key that signs the ledger: the old one and the new one vouch for the change.
    Ledger(ChangeKey),
}

/// `keys show …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ShowKey {
    /// The ledger's verifier key (C2SP signed-note), for `ledger verify --key`.
    Ledger(ShowKeys),
}

/// `keys list`, `keys show ledger`
#[derive(Debug, clap::Args)]
pub(crate) struct ShowKeys {
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `keys rewrap`, `keys rotate ledger`
#[derive(Debug, clap::Args)]
pub(crate) struct ChangeKey {
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How many hex digits of a sealing key's check tell it from others.
const CHECK_DIGITS: usize = 16;

impl KeysCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where there is no database, or a key is not at hand; [`Exit::Internal`] where it cannot be
    /// written.
    pub(crate) fn run(self) -> Done {
        match self {
            Self::List(list) => {
                process::harden()?;
                process::runtime()?.block_on(list.list())
            }
            Self::Publish(publish) => {
                process::harden()?;
                process::runtime()?.block_on(publish.run())
            }
            Self::Rewrap(change) => {
                process::harden()?;
                process::runtime()?.block_on(change.rewrap())
            }
            Self::Rotate(RotateKey::Assertions(rotate)) => {
                process::harden()?;
                process::runtime()?.block_on(rotate.run())
            }
            Self::Rotate(RotateKey::Ledger(change)) => {
                process::harden()?;
                process::runtime()?.block_on(change.rotate_ledger())
            }
            Self::Show(ShowKey::Ledger(show)) => show.show_ledger(),
        }
    }
}

impl ShowKeys {
    fn show_ledger(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let store = installation::inspect_store(&config)?;
        let key = store.verifier_key().to_string();
        match self.output {
            Output::Human => output::line(&key),
            Output::Json => output::json(&json!({ "origin": store.origin(), "key": key })),
        }
    }

    async fn list(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let store = installation::open_store(&config, Options { read_only: true, ..Options::default() })?;
        let held = store.held_keys().await?;
        // Those of assertions have dates of their own.
        let held = held.iter().filter(|key| !key.purpose.starts_with("assertion"));
        let mut items = assertions::items(&store.assertion_keys().await?)?;
        items.extend(held.map(item));
        let sealed_with = store.sealed_with().await?;
        let known = store.keyring().map(|ring| ring.checks()).unwrap_or_default();
        items.extend(known.iter().map(|check| {
            // The store says which one is in use: until `keys rewrap` that is the one before.
            let state = if *check == sealed_with { "active" } else { "known" };
            json!({
                "purpose": "sealing", "version": null, "id": check_id(check), "state": state, "made_at": null,
                "retired_at": null,
            })
        }));
        store.close().await;
        match self.output {
            Output::Json => output::json(&json!({ "items": items })),
            Output::Human => output::data(&table(&items)),
        }
    }
}

fn item(key: &HeldKey) -> Value {
    json!({
        "purpose": key.purpose, "version": key.version, "id": key.verifier.as_ref().map(|verifier| verifier.id()),
        "state": if key.retired_at.is_some() { "retired" } else { "active" },
        "made_at": key.made_at.to_string(), "retired_at": key.retired_at.map(|at| at.to_string()),
        "key": key.verifier.as_ref().map(ToString::to_string),
    })
}

fn table(items: &[Value]) -> String {
    let mut text = format!("{:<10} {:>7} {:<9} {:<24} {}\n", "PURPOSE", "VERSION", "STATE", "MADE AT", "ID");
    for item in items {
        let shown = |name: &str| match item.get(name) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => "-".to_owned(),
            Some(other) => other.to_string(),
        };
        let more = ["algorithm", "next"].map(|name| item.get(name).and_then(Value::as_str));
        let more = more.into_iter().flatten().map(|word| format!("  {word}")).collect::<String>();
        text.push_str(&format!(
            "{:<10} {:>7} {:<9} {:<24} {}{more}\n",
            shown("purpose"),
            shown("version"),
            shown("state"),
            shown("made_at"),
            shown("id")
        ));
    }
    text
}

fn check_id(check: &Digest) -> String {
    check.to_string().chars().take(CHECK_DIGITS).collect()
}

impl ChangeKey {
    async fn rotate_ledger(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let store = installation::open_store(&config, Options::default())?;
        let (actor, now, random) = who()?;
        let tell = move |handover: &Handover| {
            let Handover { version, old, new, checkpoint } = handover;
            let result = json!({
                "key": "ledger", "version": version, "old": old.to_string(), "new": new.to_string(),
                "checkpoint": checkpoint,
            });
            actor.entry(EntryCode::KeyRotated, result).ok()
        };
        let rotated = store.rotate_ledger_key(now, random, Arc::new(tell)).await;
        store.close().await;
        let rotated = rotated?;
        if let Some(index) = rotated.index {
            output::say(&format!(
                "entry {index} hands the ledger over to this key, signed by the old one and by it:"
            ));
        }
        output::line(&rotated.told.to_string())
    }

    async fn rewrap(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let store = installation::open_store(&config, Options::default())?;
        let (actor, _, random) = who()?;
        let tell = move |handover: &SealingHandover| {
            let SealingHandover { old, new, records } = handover;
            let result = json!({
                "key": "sealing", "old": check_id(old), "new": check_id(new), "records": records,
            });
            actor.entry(EntryCode::KeyRotated, result).ok()
        };
        let rewrapped = store.rewrap(random, Arc::new(tell)).await;
        store.close().await;
        let rewrapped = rewrapped?;
        output::say(&match rewrapped.index {
            Some(index) => format!(
                "{} records are sealed with the new key from entry {index} on; take `sealing_key.previous` out of the \
                 configuration, send every broker SIGHUP, and destroy the old key",
                rewrapped.told
            ),
            None => "everything is sealed with the configuration's sealing key already".to_owned(),
        });
        Ok(())
    }
}

fn who() -> Result<(Arc<Actor>, Timestamp, Random), Failure> {
    let actor = Arc::new(Actor::new()?);
    let (now, source) = (actor.now(), Arc::clone(&actor));
    Ok((actor, now, Arc::new(move |out: &mut [u8]| source.random(out))))
}

impl From<RotationFault> for Failure {
    fn from(fault: RotationFault) -> Self {
        let exit = match &fault {
            RotationFault::NotServed | RotationFault::Unknown(_) => Exit::Usage,
            RotationFault::Contended
            | RotationFault::Entry
            | RotationFault::NoEntropy
            | RotationFault::Seal(_)
            | RotationFault::Store(_) => Exit::Internal,
        };
        Self::new(exit, chain(&fault))
    }
}
