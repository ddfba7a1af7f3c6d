//! The API's description, OpenAPI 3.1.1 (<https://spec.openapis.org/oas/v3.1.1>): one [`Operation`] a method of a
//! route, from which the document is written. What follows from the code (statuses, problem codes, OAuth's errors,
//! limits) is asked of it, never repeated here.
//!
//! Whoever adds a route adds its [`Operation`] to `operations`, and a schema for a new answer to `schemas`; a test holds
//! routes and operations against each other, and another the document against what a live server answers.

mod document;
mod operations;
mod schemas;

use std::sync::{Arc, LazyLock};

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;

pub use document::document;
pub(super) use operations::OPERATIONS;

use super::{Floor, answer, problem::Problem, roles::Role};
use crate::broker::error::Code;

/// Where a route stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listener {
    Public,
    Admin,
}

impl Listener {
    pub(super) const ALL: [Self; 2] = [Self::Public, Self::Admin];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Admin => "admin",
        }
    }
}

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Right {
    /// Anybody.
    Nobody,
    /// A CI token in the Authorization header.
    Job,
    /// A CI token in the body.
    JobInBody,
    /// An issuance's handle, or a token of the same job.
    Holder,
    /// A token of the admin API with that role.
    Role(Role),
}

/// One method of one route.
pub(super) struct Operation {
    pub(super) listeners: &'static [Listener],
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) right: Right,
    /// Whether the gate stands before it.
    pub(super) gated: bool,
    /// Whether a cache may keep its good answer.
    pub(super) is_keepable: bool,
    pub(super) parameters: &'static [Parameter],
    pub(super) body: Option<Content>,
    pub(super) answers: &'static [Answer],
    /// Codes beyond those that `right`, `gated` and every request bring.
    pub(super) codes: &'static [Code],
    /// Whether refusals are told in OAuth's words.
    pub(super) in_oauth: bool,
}

/// A media type and the name of a schema.
pub(super) struct Content {
    pub(super) media_type: &'static str,
    pub(super) schema: &'static str,
}

/// An answer that is no refusal.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) means: &'static str,
    pub(super) content: Option<Content>,
}

/// A parameter and the name of its schema.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `path`, `query` or `header`.
    pub(super) place: &'static str,
    pub(super) means: &'static str,
    pub(super) schema: &'static str,
}

/// `GET /v1/openapi.json`. It tells of both listeners: what there is to ask is no secret, what is answered may be.
pub(super) async fn show(State(_): State<Arc<Floor>>) -> Result<Response, Problem> {
    static WRITTEN: LazyLock<Option<Bytes>> =
        LazyLock::new(|| serde_json::to_vec(&document()).ok().map(Bytes::from));
    match &*WRITTEN {
        Some(bytes) => Ok(answer::json_body(Body::from(bytes.clone()))),
        None => Err(Problem::new(Code::Internal, "the description could not be written")),
    }
}
