//! `hallpass version`.

use serde_json::json;

use super::{
    exit::Done,
    output::{self, Output},
};
use crate::kernel::{identity::profiles, policy::target::Kind};

/// `version`
#[derive(Debug, clap::Args)]
pub(crate) struct Version {
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Version {
    /// Shows the version; in JSON also what this version knows.
    ///
    /// # Errors
    ///
    /// Where stdout cannot be written.
    pub(crate) fn run(self) -> Done {
        let version = env!("CARGO_PKG_VERSION");
        match self.output {
            Output::Human => output::line(&format!("hallpass {version}")),
            Output::Json => output::json(&json!({
                "version": version,
                "kinds": Kind::ALL.map(Kind::as_str),
                "profiles": profiles::ALL.iter().map(|profile| profile.name).collect::<Vec<_>>(),
            })),
        }
    }
}
