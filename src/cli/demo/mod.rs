//! soon
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Ends.
    #[arg(long)]
    once: bool,
}
impl Demo {
    /// soon
    pub(crate) fn run(self) -> super::exit::Done {
        Ok(())
    }
}
