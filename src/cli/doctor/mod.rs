//! `hallpass doctor`: looks at the machine, the files, the database, the issuers and the policies of an installation,
//! and says what to do. It changes nothing, and records nothing.
//!
//! `config check` reads what is written; this looks at what is: modes, clocks, swap, certificates' dates, whether
//! issuers answer. It runs beside a broker that serves. One file a part.

mod assertions;
mod aws;
mod backends;
mod database;
mod files;
mod host;
mod issuers;
mod policies;

use std::path::PathBuf;

use serde_json::json;

use super::{
    config::Config,
    exit::{Done, Exit, Failure},
    output::{self, Output},
    process,
};

/// `doctor`
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// How something stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// As it should be.
    Fine,
    /// It works, and somebody should look.
    Warning,
    /// It does not work, or a promise does not hold.
    Failing,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Look {
    part: &'static str,
    standing: Standing,
    found: String,
    /// What to do; empty where nothing is to be done.
    advice: String,
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Failing => "failing",
        }
    }
}

impl Look {
    fn fine(part: &'static str, found: impl Into<String>) -> Self {
        Self { part, standing: Standing::Fine, found: found.into(), advice: String::new() }
    }

    fn warning(part: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { part, standing: Standing::Warning, found: found.into(), advice: advice.into() }
    }

    fn failing(part: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { part, standing: Standing::Failing, found: found.into(), advice: advice.into() }
    }
}

impl Doctor {
    /// Looks at everything.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where something fails; warnings alone are no error.
    pub(crate) fn run(self) -> Done {
        process::harden()?;
        let config = Config::load(self.config.as_deref())?;
        let runtime = process::runtime()?;
        let mut looks = host::look();
        looks.extend(files::look(&config));
        looks.extend(runtime.block_on(database::look(&config)));
        looks.extend(runtime.block_on(issuers::look(&config)));
        looks.extend(policies::look(&config, &runtime));
        looks.extend(runtime.block_on(backends::look(&config)));
        looks.extend(runtime.block_on(aws::look(&config)));
        looks.extend(runtime.block_on(assertions::look(&config)));
        self.tell(&looks)?;
        let is_failing = looks.iter().any(|look| look.standing == Standing::Failing);
        if is_failing { Err(Failure::silent(Exit::Usage)) } else { Ok(()) }
    }

    fn tell(&self, looks: &[Look]) -> Done {
        match self.output {
            Output::Json => {
                let shown = |look: &Look| {
                    json!({
                        "part": look.part, "standing": look.standing.as_str(), "found": look.found,
                        "advice": look.advice,
                    })
                };
                let is_ok = looks.iter().all(|look| look.standing != Standing::Failing);
                output::json(&json!({ "ok": is_ok, "looks": looks.iter().map(shown).collect::<Vec<_>>() }))
            }
            Output::Human => looks.iter().try_for_each(|look| {
                output::line(&format!("{:<8} {:<12} {}", look.standing.as_str(), look.part, look.found))?;
                if look.advice.is_empty() {
                    return Ok(());
                }
                output::line(&format!("{:<21} -> {}", "", look.advice))
            }),
        }
    }
}
