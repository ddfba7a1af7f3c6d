//! `hallpass completions` and `hallpass man`: what a shell and a reader should know of the commands, from the commands
//! themselves.

use std::{fs, path::PathBuf};

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{
    Arguments,
    exit::{Done, Exit, Failure},
    output,
};

/// `completions`
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell that will read them.
    shell: Shell,
}

/// `man`
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Writes a page for each command into this folder, instead of the first page to stdout.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Completions {
    /// Writes them to stdout.
    ///
    /// # Errors
    ///
    /// Where stdout cannot be written.
    pub(crate) fn run(self) -> Done {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "hallpass", &mut script);
        output::bytes(&script)
    }
}

impl Man {
    /// Writes the pages.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] for a folder that cannot be written.
    pub(crate) fn run(self) -> Done {
        if let Some(folder) = &self.out {
            let written = fs::create_dir_all(folder)
                .and_then(|()| clap_mangen::generate_to(Arguments::command(), folder));
            return written.map_err(|fault| Failure::file(folder, &fault));
        }
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Arguments::command()).render(&mut page);
        rendered.map_err(|fault| Failure::new(Exit::Internal, fault.to_string()))?;
        output::bytes(&page)
    }
}
