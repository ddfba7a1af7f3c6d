//! `/.well-known/*`: Hallpass is an OIDC issuer itself, and this is where clouds find its keys (OpenID Connect
//! Discovery 1.0 section 4, RFC 7517).

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde_json::Value;

use super::{Floor, answer, layers, problem::Problem};

pub(super) async fn configuration(State(floor): State<Arc<Floor>>) -> Result<Response, Problem> {
    show(&floor.openid_configuration)
}

pub(super) async fn jwks(State(floor): State<Arc<Floor>>) -> Result<Response, Problem> {
    show(&floor.jwks)
}

fn show(document: &Value) -> Result<Response, Problem> {
    if document.is_null() {
        return Err(layers::no_such_path());
    }
    answer::json(StatusCode::OK, document)
}
