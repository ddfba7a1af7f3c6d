//! `hallpass openapi`: the HTTP API's description, the same that `GET /v1/openapi.json` answers.

use super::{exit::Done, output};
use crate::http::openapi_document;

/// `openapi`
#[derive(Debug, clap::Args)]
pub(crate) struct Openapi {}

impl Openapi {
    /// Prints it.
    ///
    /// # Errors
    ///
    /// Where stdout cannot be written.
    pub(crate) fn run(self) -> Done {
        output::json(&openapi_document())
    }
}
