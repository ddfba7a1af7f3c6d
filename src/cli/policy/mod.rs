//! `hallpass policy`: what an admin types before a change is merged. One file a command; every one reads a set by the
//! broker's own loader and decides by its evaluator, so that none can say otherwise than the broker. All
//! but `accept` work offline.

pub(crate) mod accept;
mod check;
mod claims;
mod explain;
mod init;
mod recorded;
mod schema;
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
    /// Tells why a job would get a grant, or does not.
    Explain(explain::Explain),
    /// Shows or writes the JSON Schemas of policy files, for editors.
    Schema(schema::Schema),
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
            Self::Explain(explain) => explain.run(),
            Self::Schema(schema) => schema.run(),
            Self::Test(test) => test.run(),
        }
    }
}
