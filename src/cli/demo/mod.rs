//! `hallpass demo`: a CI issuer, a broker and its ledger in one process, on loopback only. A newcomer sees a job's
//! token traded, a refusal and a replay, and what the ledger holds of them.
//!
//! Everything takes the ordinary path: an installation made by `init`'s own code in a folder of its own, the sample
//! policies of this repository, HTTP through the public listener, the offline verifier. The folder goes with the demo.

mod ci;
mod job;
mod scene;
mod story;
mod verifier;

use std::time::Duration;

use super::{
    exit::{Done, Exit, Failure, chain},
    output, process,
    serve::Signals,
    telemetry::{self, LogFormat},
};
use ci::CiFault;
use scene::Scene;

/// How often the job's token is minted anew: each is good once, and whoever tries the command does so again.
const FRESH_TOKEN: Duration = Duration::from_secs(2);
/// Nothing of value is under way in a demo.
const STOP: Duration = Duration::from_secs(5);

/// `demo`
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Ends after the show instead of running on.
    #[arg(long)]
    once: bool,
}

impl Demo {
    /// Plays the demo.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] where something did not go as it should.
    pub(crate) fn run(self) -> Done {
        process::harden()?;
        telemetry::start_at(LogFormat::Human, "error")?;
        let runtime = process::runtime()?;
        let done = runtime.block_on(self.play());
        runtime.shutdown_background();
        done
    }

    async fn play(&self) -> Done {
        let mut signals = Signals::listen()?;
        let mut scene = Scene::set().await?;
        let played = tokio::select! {
            played = self.show(&mut scene) => played,
            () = signals.stop() => Ok(()),
        };
        let stopped = scene.clear().await;
        played.and(stopped)
    }

    async fn show(&self, scene: &mut Scene) -> Done {
        let told = story::tell(scene).await?;
        output::data(&told)?;
        if self.once {
            return Ok(());
        }
        output::data(&story::what_to_try(scene))?;
        loop {
            scene.mint_token_file()?;
            tokio::select! {
                () = tokio::time::sleep(FRESH_TOKEN) => {}
                fault = scene.failed() => return Err(fault),
            }
        }
    }
}

impl From<CiFault> for Failure {
    fn from(fault: CiFault) -> Self {
        Self::new(Exit::Internal, chain(&fault))
    }
}
