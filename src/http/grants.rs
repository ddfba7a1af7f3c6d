//! `GET /v1/grants`: the grants that the caller's token may use now, and nothing of any other.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;

use super::{Floor, answer, bearer, intake, problem::Problem};
use crate::broker::{exchange::GrantView, identify::Origin};

pub(super) async fn list(
    State(floor): State<Arc<Floor>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    intake::refuse_declared_size(&body)?;
    bearer::refuse_query(&parts.uri)?;
    let token = bearer::take(&mut parts.headers)?;
    let caller = floor.broker.identify_unfrozen(token, origin).await?;
    let grants = floor.broker.grants(&caller).await?;
    answer::json(StatusCode::OK, &Answer { grants: grants.iter().map(view).collect() })
}

#[derive(Serialize)]
struct Answer<'a> {
    grants: Vec<Grant<'a>>,
}

#[derive(Serialize)]
struct Grant<'a> {
    name: &'a str,
    description: &'a str,
    credentials: Vec<Credential<'a>>,
}

#[derive(Serialize)]
struct Credential<'a> {
    name: &'a str,
    kind: &'static str,
    max_ttl_seconds: Option<u64>,
}

fn view(grant: &GrantView) -> Grant<'_> {
    let credentials = grant.credentials.iter().map(|each| Credential {
        name: each.name.as_str(),
        kind: each.kind.as_str(),
        max_ttl_seconds: each.max_ttl_seconds,
    });
    Grant { name: grant.name.as_str(), description: &grant.description, credentials: credentials.collect() }
}
