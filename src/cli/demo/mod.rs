//! soon
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Ends.
    #[arg(long)]
    once: bool,
}
impl Demo {
    /// soon
    pub fn run(self) -> super::exit::Done {
        Ok(())
    }
}
