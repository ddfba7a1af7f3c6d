//! `/.well-known/*`: Hallpass is an OIDC issuer itself, and this is where clouds find its keys (OpenID Connect
//! Discovery 1.0 section 4, RFC 7517). They are the only answers that a cache may keep, and for less time than a new key
//! is known before it signs.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde_json::Value;

use super::{Floor, answer, layers, problem::Problem};

/// An answer that anybody may keep for so long.
#[derive(Clone, Copy)]
pub(super) struct Keepable(pub(super) Duration);

pub(super) async fn configuration(State(floor): State<Arc<Floor>>) -> Result<Response, Problem> {
    let configuration = floor.own_issuer.configuration.as_ref().ok_or_else(layers::no_such_path)?;
    show(&floor, configuration)
}

pub(super) async fn jwks(State(floor): State<Arc<Floor>>) -> Result<Response, Problem> {
    show(&floor, &(floor.own_issuer.jwks)())
}

fn show(floor: &Floor, document: &Value) -> Result<Response, Problem> {
    let mut response = answer::json(StatusCode::OK, document)?;
    response.extensions_mut().insert(Keepable(floor.own_issuer.max_age));
    Ok(response)
}
