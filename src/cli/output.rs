//! Data on stdout, talk on stderr. A reader that went away ends the command quietly, it is no panic. Nothing here is
//! ever coloured, so `NO_COLOR` holds by itself; clap heeds it for its own help.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;

use super::exit::{Done, Exit, Failure};

/// How data is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Human,
    /// For programs: one JSON value.
    Json,
}

/// Writes text to stdout.
///
/// # Errors
///
/// [`Exit::Internal`], without a word where the reader went away.
pub(crate) fn data(text: &str) -> Done {
    bytes(text.as_bytes())
}

/// Writes bytes to stdout.
///
/// # Errors
///
/// As [`data`].
pub(crate) fn bytes(bytes: &[u8]) -> Done {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|fault| {
        if fault.kind() == io::ErrorKind::BrokenPipe {
            Failure::silent(Exit::Internal)
        } else {
            Failure::new(Exit::Internal, format!("stdout: {fault}"))
        }
    })
}

/// Writes a line to stdout.
///
/// # Errors
///
/// As [`data`].
pub(crate) fn line(text: &str) -> Done {
    data(&format!("{text}\n"))
}

/// Writes a JSON value to stdout, on one line.
///
/// # Errors
///
/// As [`data`].
pub(crate) fn json(value: &Value) -> Done {
    line(&value.to_string())
}

/// Says something to the person: on stderr. Nobody listening is no fault.
pub(crate) fn say(text: &str) {
    let mut talk = io::stderr().lock();
    drop(writeln!(talk, "{text}"));
}

/// Whether stdout is a terminal, where a secret would stay on the screen.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
