//! The log on stderr. Only this crate speaks below ERROR: what hyper, h2 and rustls tell at DEBUG holds headers.

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

/// Starts the log at the level of `HALLPASS_LOG`: `error`, `warn`, `info` (the default), `debug` or `trace`.
///
/// # Errors
///
/// [`Exit::Usage`] for another level.
pub(crate) fn start(format: LogFormat) -> Done {
    start_at(format, "info")
}

/// The same, at another level where `HALLPASS_LOG` says none.
///
/// # Errors
///
/// As [`start`].
pub(crate) fn start_at(format: LogFormat, default: &str) -> Done {
    let level = std::env::var("HALLPASS_LOG").ok().filter(|level| !level.is_empty());
    let level = level.unwrap_or_else(|| default.to_owned());
    if !["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        return Err(Failure::usage("HALLPASS_LOG: write error, warn, info, debug or trace"));
    }
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
