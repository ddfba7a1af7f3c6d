//! `hallpass policy test`: the tests beside the grants, run by the broker's own evaluator on the files as they are.
//! It needs no configuration, opens no database and fetches nothing.

use std::path::PathBuf;

use crate::{
    adapters::policy_source::PolicySource,
    cli::{
        exit::{Done, Exit, Failure, chain},
        output,
    },
    kernel::policy::{PolicySet, load, set::Files},
};

/// `policy test`
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The policy directory.
    #[arg(value_name = "DIR", default_value = "policies")]
    dir: PathBuf,
}

impl Test {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::PolicyInvalid`] where the set does not load.
    pub(crate) fn run(self) -> Done {
        let (_, set) = self.read()?;
        output::line(&format!("{} grants", set.grants.len()))
    }

    fn read(&self) -> Result<(Files, PolicySet), Failure> {
        let (files, commit) = PolicySource::new(&self.dir).read().map_err(|fault| {
            Failure::new(Exit::PolicyInvalid, format!("error[{}]: {}", fault.code(), chain(&fault)))
        })?;
        let set = load::load(&files, commit, None).map(|loaded| loaded.set).map_err(|mut findings| {
            for finding in &mut findings {
                finding.file = self.dir.join(&finding.file).display().to_string();
            }
            Failure::findings(Exit::PolicyInvalid, &findings)
        })?;
        Ok((files, set))
    }
}
