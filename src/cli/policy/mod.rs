//! `hallpass policy`: what an admin types before a change is merged. Every command reads a set by the server's own
//! loader and decides by its evaluator, so that what they say is what the broker will do. They work offline.

mod check;
mod set;

use super::exit::Done;

/// `policy …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PolicyCommand {
    /// Loads a policy set as the broker would, and shows every finding.
    Check(check::Check),
}

impl PolicyCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Those of the command.
    pub(crate) fn run(self) -> Done {
        match self {
            Self::Check(check) => check.run(),
        }
    }
}
