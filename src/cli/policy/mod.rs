//! `hallpass policy`: what an admin types before a change is merged. One file a command; every one reads a set by the
//! broker's own loader and decides by its evaluator, so that none can say otherwise than the broker. They work
//! offline.

mod check;
mod set;
mod test;

use super::exit::Done;

/// `policy …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PolicyCommand {
    /// Loads a policy set as the broker would, and shows every finding.
    Check(check::Check),
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
            Self::Check(check) => check.run(),
            Self::Test(test) => test.run(),
        }
    }
}
