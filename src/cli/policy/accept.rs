//! `hallpass policy accept DIGEST`: lets a policy set in although it lacks a guardrail or an issuer that the set before
//! had (contract: section 4, "Removal protection"). It opens the store itself, also while `serve` runs: whoever may do
//! this holds the machine, and no HTTP call can.

use std::{path::PathBuf, time::Duration};

use serde_json::json;

use crate::{
    adapters::store::{LettingIn, Options},
    cli::{
        actor::Actor,
        config::Config,
        exit::{Done, Exit, Failure},
        installation,
        output::{self, Output},
        process,
    },
    kernel::{digest::Digest, ledger::entry::EntryCode, lifetime::after},
};

/// How long the word holds (contract: section 4).
const HOLDS: Duration = Duration::from_secs(24 * 3_600);

/// `policy accept`
#[derive(Debug, clap::Args)]
pub(crate) struct Accept {
    /// The set's digest, as `policy check` and POLICY_REJECTED show it.
    digest: String,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Accept {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] for what is no digest, [`Exit::Internal`] where the store cannot be written.
    pub(crate) fn run(self) -> Done {
        let digest = Digest::from_hex(&self.digest).ok_or_else(|| {
            Failure::usage(
                "that is no digest: 64 hex digits are, as `hallpass policy check` prints them last",
            )
        })?;
        process::harden()?;
        let config = Config::load(self.config.as_deref())?;
        process::runtime()?.block_on(self.accept(&config, digest))
    }

    async fn accept(&self, config: &Config, digest: Digest) -> Done {
        let actor = Actor::new()?;
        let until = after(actor.now(), HOLDS);
        let told = json!({ "digest": digest.to_string(), "until": until.strftime(SECONDS).to_string() });
        let entry = actor.entry(EntryCode::PolicyAccepted, told.clone())?;
        let store = installation::open_store(config, Options::default())?;
        let done = store.let_policy_in(LettingIn { digest, until, entry }).await;
        store.close().await;
        done.map_err(|fault| Failure::new(Exit::Internal, fault.to_string()))?;
        match self.output {
            Output::Json => output::json(&told),
            Output::Human => output::line(&format!(
                "accepted {digest} until {}: a broker takes that set as soon as it finds it, whatever guardrails or \
                 issuers it lacks; mistakes in it are refused as ever",
                until.strftime(SECONDS)
            )),
        }
    }
}

const SECONDS: &str = "%Y-%m-%dT%H:%M:%SZ";
