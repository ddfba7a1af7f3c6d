//! `/livez` depends on nothing; `/readyz` says by part what is wrong. Neither needs a token. An issuer without keys
//! stands there too, but fails its own jobs only, not readiness; nor does a warning.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::{Floor, answer, problem::Problem};
use crate::broker::{
    error::{Code, Refused},
    ports::KeyStanding,
};

pub(super) async fn live() -> Result<Response, Problem> {
    answer::json(StatusCode::OK, &json!({ "status": "live" }))
}

pub(super) async fn ready(State(floor): State<Arc<Floor>>) -> Result<Response, Problem> {
    let parts = floor.broker.readiness();
    let is_ready = parts.iter().all(|part| part.fault.is_none());
    let shown: Vec<Part<'_>> = parts
        .iter()
        .map(|part| Part { name: part.name, ready: part.fault.is_none(), fault: part.fault.as_deref() })
        .collect();
    let standing = floor.broker.issuers();
    let issuers: Vec<Issuer<'_>> = standing
        .iter()
        .map(|KeyStanding { issuer, fault, warnings }| Issuer {
            name: issuer.as_str(),
            ready: fault.is_none(),
            fault: fault.as_deref(),
            warnings,
        })
        .collect();
    let warnings = floor.broker.warnings();
    if is_ready {
        let mut body = json!({ "status": "ready", "parts": shown, "issuers": issuers });
        if let (Some(members), false) = (body.as_object_mut(), warnings.is_empty()) {
            members.insert("warnings".to_owned(), warnings.into());
        }
        return answer::json(StatusCode::OK, &body);
    }
    let refused =
        Refused::new(Code::NotReady, "a part is not ready; `parts` says which and why").retry_after(5);
    let problem = Problem::from(refused).with("parts", json!(shown)).with("issuers", json!(issuers));
    Err(if warnings.is_empty() { problem } else { problem.with("warnings", json!(warnings)) })
}

#[derive(Serialize)]
struct Part<'a> {
    name: &'static str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
}

#[derive(Serialize)]
struct Issuer<'a> {
    name: &'a str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}
