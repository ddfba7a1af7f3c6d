//! `hallpass policy …`: for those who write policy. One file for each command; what a policy means stands in the
//! kernel, and none of these can decide otherwise than the broker.

mod test;

use super::exit::Done;

/// `policy …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PolicyCommand {
    /// Runs the tests beside the grants, and tells how much they would notice.
    Test(test::Test),
}

impl PolicyCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// As each command says.
    pub(crate) fn run(self) -> Done {
        match self {
            Self::Test(test) => test.run(),
        }
    }
}
