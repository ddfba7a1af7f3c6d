//! The log on stderr. Only this crate speaks below ERROR: what hyper, h2 and rustls tell at DEBUG holds headers.

#[cfg(feature = "otel")]
mod otel;

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

use super::exit::{Done, Exit, Failure};

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts the log at the level of `HALLPASS_LOG`: `error`, `warn`, `info`, `debug` or `trace`; at `default` where it says
/// none.
///
/// # Errors
///
/// [`Exit::Usage`] for another level.
pub(crate) fn start_at(format: LogFormat, default: &str) -> Done {
    start_plain(format, &level(default)?)
}

/// What a serving broker's log, and where the build and the environment have one its collector, still have to say.
#[derive(Default)]
pub(crate) struct Exporting {
    #[cfg(feature = "otel")]
    to_collector: Option<otel::Exporting>,
}

/// The same for a broker that serves on this runtime, from `info` on. With the feature `otel` it tells a collector too.
///
/// # Errors
///
/// As [`start_at`]; [`Exit::Usage`] for a variable of OpenTelemetry that cannot be heeded.
#[cfg(feature = "otel")]
pub(crate) fn start_serving(
    format: LogFormat,
    runtime: &tokio::runtime::Runtime,
) -> Result<Exporting, Failure> {
    let level = level("info")?;
    let to_collector = otel::start(format, &level, runtime.handle())?;
    if to_collector.is_none() {
        start_plain(format, &level)?;
    }
    Ok(Exporting { to_collector })
}

/// The same for a broker that serves, from `info` on.
///
/// # Errors
///
/// As [`start_at`].
#[cfg(not(feature = "otel"))]
pub(crate) fn start_serving(format: LogFormat, _: &tokio::runtime::Runtime) -> Result<Exporting, Failure> {
    start_at(format, "info").map(|()| Exporting::default())
}

impl Exporting {
    /// Says it, within a bounded time.
    pub(crate) fn stop(self) {
        #[cfg(feature = "otel")]
        if let Some(exporting) = self.to_collector {
            exporting.stop();
        }
    }
}

fn level(default: &str) -> Result<String, Failure> {
    let level = std::env::var("HALLPASS_LOG").ok().filter(|level| !level.is_empty());
    let level = level.unwrap_or_else(|| default.to_owned());
    if !["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        return Err(Failure::usage("HALLPASS_LOG: write error, warn, info, debug or trace"));
    }
    Ok(level)
}

fn start_plain(format: LogFormat, level: &str) -> Done {
    let filter = EnvFilter::new(format!("error,hallpass={level}"));
    // A log that cannot be written (a full disk, a reader that went away) must end no request: by default the
    // subscriber tells of it on stderr, which panics where that is what failed.
    let log = fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let started = match format {
        LogFormat::Human => log.with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|fault| Failure::new(Exit::Internal, format!("no log: {fault}")))
}
