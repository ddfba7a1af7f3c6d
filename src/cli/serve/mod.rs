//! `hallpass serve`: runs the broker of an installation until it is told to stop. It invents no state: what is absent
//! is refused with the command that makes it.

pub(crate) mod assertions;
pub(crate) mod policy;
pub(crate) mod publish;
pub(crate) mod sealing;
pub(crate) mod seen;
pub(crate) mod tls;

use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    config::{Config, Listen},
    exit::{Done, Exit, Failure},
    output, process,
    replica::{Listeners, Replica},
    telemetry::{self, LogFormat},
};

/// Runs the broker.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the log on stderr is written.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// The signals that a server heeds.
pub(crate) struct Signals {
    hang_up: Signal,
    interrupt: Signal,
    terminate: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// Look at policy and certificates.
    Reload,
    /// End.
    Stop,
}

impl Serve {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] for what the operator must mend, [`Exit::Integrity`] for a ledger that was set back,
    /// [`Exit::Internal`] where it did not end in order.
    pub(crate) fn run(self) -> Done {
        process::harden()?;
        let runtime = process::runtime()?;
        let exporting = telemetry::start_serving(self.log_format, &runtime)?;
        process::lock_memory();
        let config = Config::load(self.config.as_deref())?;
        let done = runtime.block_on(serve(&config));
        exporting.stop();
        // Readers that are still at work hold nothing that matters; they must not hold up the end.
        runtime.shutdown_background();
        done
    }
}

async fn serve(config: &Config) -> Done {
    let mut signals = Signals::listen()?;
    let mut replica = Replica::start(config, Listeners::bind(config)).await?;
    tracing::info!(public = %replica.public, admin = %replica.admin, "listening; ready once a policy set is accepted");
    let mut is_told = false;
    let fault = loop {
        let event = async { if is_told { Err(replica.failed().await) } else { replica.ready().await } };
        tokio::select! {
            event = event => match event {
                Err(fault) => break Some(fault),
                Ok(digest) => {
                    is_told = true;
                    // Whoever started us may not listen any more; jobs still do.
                    drop(output::line(&ready_line(config, &replica, &digest.to_string())));
                }
            },
            asked = signals.next() => match asked {
                Asked::Reload => replica.reload(),
                Asked::Stop => break None,
            },
        }
    };
    tracing::info!("stopping");
    let stopped = tokio::select! {
        stopped = replica.stop(config.deadlines.shutdown) => stopped,
        () = signals.stop() => Err(Failure::new(Exit::Internal, "stopped at once, by a second signal")),
    };
    fault.map_or(stopped, Err)
}

/// One line on stdout, for whoever started us: port 0 has become a real one.
fn ready_line(config: &Config, replica: &Replica, digest: &str) -> String {
    let shown = |at: &Listen, has_tls| match at {
        Listen::Tcp(address) if has_tls => format!("https://{address}"),
        Listen::Tcp(address) => format!("http://{address}"),
        Listen::Unix(_) => at.to_string(),
    };
    let public = shown(&replica.public, config.public.tls.is_some());
    let admin = shown(&replica.admin, config.admin.tls.is_some());
    format!("hallpass ready public={public} admin={admin} policy={digest}")
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`].
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|fault| Failure::new(Exit::Internal, format!("no signals: {fault}")));
        Ok(Self {
            hang_up: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hang_up.recv() => Asked::Reload,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
        }
    }

    /// Waits for the next that asks for the end.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}
