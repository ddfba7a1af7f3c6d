//! `hallpass policy`: what an admin types before a change is merged. One file a command; every one reads a set by the
//! broker's own loader and decides by its evaluator, so that none can say otherwise than the broker. All
//! but `accept` work offline.

pub(crate) mod accept;
mod check;
mod claims;
mod init;
mod set;
mod test;

use super::exit::Done;

/// `policy …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PolicyCommand {
    /// Lets a set in although it lacks a guardrail or an issuer that the set before had; holds for 24 hours.
    Accept(accept::Accept),
    /// Loads a policy set as the broker would, and shows every finding.
    Check(check::Check),
    /// Drafts a grant and its tests from a job's token, as tight as that allows.
    Init(init::Init),
    /// Runs the tests beside the grants, and tells how much they would notice.
    Test(test::Test),
}

impl PolicyCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Those of the command.
    pub(crate) fn run(self) -> Done {
        match self {
            Self::Accept(accept) => accept.run(),
            Self::Check(check) => check.run(),
            Self::Init(init) => init.run(),
            Self::Test(test) => test.run(),
        }
    }
}
