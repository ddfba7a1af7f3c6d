//! `/v1/freezes`, `/v1/thaws` and `/v1/admin/revocations` of the admin listener: what an operator does in an emergency,
//! for tokens with that role. Each call names its token to the broker, which records it.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Request, State},
    response::Response,
};
use http::{StatusCode, request::Parts};
use serde::Serialize;
use serde_json::json;

use super::{
    Floor, answer, bearer, intake,
    problem::Problem,
    revocations,
    roles::{self, Role},
    wire::{self, FreezeBody, RevokeBody},
};
use crate::{
    broker::{
        emergency::{Imposed, Operator, Sought},
        error::Code,
        query::Reader,
    },
    kernel::freeze::{Freeze, FreezeScope},
};

pub(super) async fn list(State(floor): State<Arc<Floor>>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    intake::refuse_declared_size(&body)?;
    bearer::refuse_query(&parts.uri)?;
    roles::admit(&floor, &mut parts.headers, Role::Operator)?;
    let freezes = floor.broker.freezes().await?;
    answer::json(StatusCode::OK, &json!({ "freezes": freezes.iter().map(view).collect::<Vec<_>>() }))
}

pub(super) async fn freeze(State(floor): State<Arc<Floor>>, request: Request) -> Result<Response, Problem> {
    let (body, operator) = admitted(&floor, request).await?;
    let FreezeBody { scope, reason } = wire::read_freeze(&body)?;
    if scope.issuer().is_some_and(|issuer| !floor.broker.trusts(issuer)) {
        let detail = "no issuer of that name is configured, so nothing would be frozen";
        return Err(Problem::new(Code::RequestMalformed, detail));
    }
    let known = is_known(&floor, &scope);
    let thumbprints = floor.broker.thumbprints_of(&scope);
    let work = async |hand: &Operator<'_>| hand.freeze(scope, thumbprints, reason).await;
    let (status, freeze) = match floor.broker.as_operator(&operator.name, work).await? {
        Imposed::Now(freeze) => (StatusCode::CREATED, freeze),
        Imposed::Already(freeze) => (StatusCode::OK, freeze),
    };
    let mut shown = view(&freeze);
    shown.known = Some(known);
    answer::json(status, &shown)
}

pub(super) async fn thaw(State(floor): State<Arc<Floor>>, request: Request) -> Result<Response, Problem> {
    let (body, operator) = admitted(&floor, request).await?;
    let FreezeBody { scope, reason } = wire::read_freeze(&body)?;
    let work = async |hand: &Operator<'_>| hand.thaw(scope, &reason).await;
    if floor.broker.as_operator(&operator.name, work).await? {
        return Ok(answer::empty(StatusCode::NO_CONTENT));
    }
    Err(Problem::new(Code::NotFound, "there is no such freeze; GET /v1/freezes lists those that stand"))
}

pub(super) async fn revoke(State(floor): State<Arc<Floor>>, request: Request) -> Result<Response, Problem> {
    let (body, operator) = admitted(&floor, request).await?;
    let RevokeBody { grant, project, since, reason, dry_run } = wire::read_revoke(&body)?;
    let since = since.map(|since| since.at(floor.broker.now()));
    let sought = Sought { grant, project, since };
    let work = async |hand: &Operator<'_>| hand.revoke(&sought, &reason, dry_run).await;
    let revocation = floor.broker.as_operator(&operator.name, work).await?;
    answer::json(StatusCode::OK, &revocations::view(&revocation))
}

/// The order of checks of every call with a body: size, media type, token, role, and only then the body's content.
async fn admitted(floor: &Floor, request: Request) -> Result<(Bytes, Reader), Problem> {
    let (mut parts, body): (Parts, _) = request.into_parts();
    let body = intake::read_body(body).await?;
    intake::require_json(&parts.headers)?;
    bearer::refuse_query(&parts.uri)?;
    let operator = roles::admit(floor, &mut parts.headers, Role::Operator)?;
    Ok((body, operator))
}

/// Whether what is frozen is there: a grant in the set that decides, a key among those held. A mistyped name freezes
/// nothing, and whoever is in a hurry must be told.
fn is_known(floor: &Floor, scope: &FreezeScope) -> bool {
    match scope {
        FreezeScope::All | FreezeScope::Issuer(_) | FreezeScope::Project { .. } => true,
        FreezeScope::Grant(grant) => {
            floor.broker.policy().is_some_and(|policy| policy.grants.contains_key(grant))
        }
        FreezeScope::Kid { .. } => !floor.broker.thumbprints_of(scope).is_empty(),
    }
}

#[derive(Serialize)]
struct View<'a> {
    scope: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thumbprints: Vec<String>,
    by: &'a str,
    reason: &'a str,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<bool>,
}

fn view(freeze: &Freeze) -> View<'_> {
    View {
        scope: freeze.scope.word(),
        name: freeze.scope.name(),
        thumbprints: freeze.thumbprints.iter().map(ToString::to_string).collect(),
        by: &freeze.by,
        reason: &freeze.reason,
        at: freeze.at.to_string(),
        known: None,
    }
}
