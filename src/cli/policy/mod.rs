//! `hallpass policy`: what admins and operators do about policy sets.

pub(crate) mod accept;

use super::exit::Done;

/// `policy …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PolicyCommand {
    /// Lets a set in although it lacks a guardrail or an issuer that the set before had; holds for 24 hours.
    Accept(accept::Accept),
}

impl PolicyCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`super::exit::Failure`].
    pub(crate) fn run(self) -> Done {
        match self {
            Self::Accept(accept) => accept.run(),
        }
    }
}
