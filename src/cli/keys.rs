//! `hallpass keys`: public keys, for those who verify.

use std::path::PathBuf;

use serde_json::json;

use super::{
    config::Config,
    exit::Done,
    installation,
    output::{self, Output},
};

/// `keys …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeysCommand {
    /// Shows a public key.
    #[command(subcommand)]
    Show(ShowKey),
}

/// `keys show …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ShowKey {
    /// The ledger's verifier key (C2SP signed-note), for `ledger verify --key`.
    Ledger(LedgerKey),
}

/// `keys show ledger`
#[derive(Debug, clap::Args)]
pub(crate) struct LedgerKey {
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl KeysCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`super::exit::Exit::Usage`] where there is no database.
    pub(crate) fn run(self) -> Done {
        let Self::Show(ShowKey::Ledger(show)) = self;
        let config = Config::load(show.config.as_deref())?;
        let store = installation::inspect_store(&config)?;
        let key = store.verifier_key().to_string();
        match show.output {
            Output::Human => output::line(&key),
            Output::Json => output::json(&json!({ "origin": store.origin(), "key": key })),
        }
    }
}
