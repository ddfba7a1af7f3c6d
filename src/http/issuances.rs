//! `GET` and `DELETE /v1/issuances/{id}`: what became of an issuance, and giving it back, by its handle or by a token
//! of the same job. An id that is unknown, foreign or no id at all is one and the same 404.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, Request, State, rejection::PathRejection},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;

use super::{Floor, answer, bearer, intake, problem::Problem};
use crate::{
    broker::{
        error::Code,
        identify::Origin,
        issuances::{GivenBack, IssuanceView, Right},
    },
    kernel::{id::from_crockford, secret::Secret, wiping::Zeroizing},
};

pub(super) async fn show(
    State(floor): State<Arc<Floor>>,
    Extension(origin): Extension<Origin>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let right = right(&floor, origin, request).await?;
    let issuance = floor.broker.issuance(&id_of(id), right).await?;
    answer::json(StatusCode::OK, &view(&issuance))
}

pub(super) async fn give_back(
    State(floor): State<Arc<Floor>>,
    Extension(origin): Extension<Origin>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let right = right(&floor, origin, request).await?;
    match floor.broker.give_back(&id_of(id), right).await? {
        GivenBack::Ended => Ok(answer::empty(StatusCode::NO_CONTENT)),
        GivenBack::Queued => Ok(answer::empty(StatusCode::ACCEPTED)),
        GivenBack::Released { usable_until, remedy } => {
            let body = Released { state: "released", usable_until: answer::time(usable_until), remedy };
            answer::json(StatusCode::OK, &body)
        }
    }
}

/// A path that is no text names nothing; the empty id is looked up like any other unknown one.
fn id_of(id: Result<Path<String>, PathRejection>) -> String {
    id.map_or_else(|_| String::new(), |Path(id)| id)
}

async fn right(floor: &Floor, origin: Origin, request: Request) -> Result<Right, Problem> {
    let (mut parts, body) = request.into_parts();
    intake::refuse_declared_size(&body)?;
    drop(body);
    bearer::refuse_query(&parts.uri)?;
    let bearer = bearer::take(&mut parts.headers)?;
    if !bearer.expose().starts_with(HANDLE_PREFIX) {
        return Ok(Right::Token(Box::new(floor.broker.identify_holder(bearer, origin).await?)));
    }
    if !is_handle(&bearer) {
        return Err(Problem::new(Code::TokenMalformed, "this is neither a handle nor a CI token"));
    }
    Ok(Right::Handle(bearer))
}

fn is_handle(bearer: &Secret) -> bool {
    let random = bearer.expose_text().and_then(|text| text.strip_prefix("hdl_"));
    random.and_then(from_crockford::<32>).map(Zeroizing::new).is_some()
}

#[derive(Serialize)]
struct Released {
    state: &'static str,
    usable_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

#[derive(Serialize)]
struct View<'a> {
    id: String,
    grant: &'a str,
    credential: &'a str,
    kind: &'a str,
    state: &'static str,
    lifetime: &'static str,
    issued_at: String,
    expires_at: Option<String>,
    usable_until: Option<String>,
    revocable: bool,
}

fn view(issuance: &IssuanceView) -> View<'_> {
    View {
        id: issuance.id.to_string(),
        grant: &issuance.grant,
        credential: &issuance.credential,
        kind: &issuance.kind,
        state: issuance.state,
        lifetime: issuance.lifetime.as_str(),
        issued_at: issuance.issued_at.to_string(),
        expires_at: answer::time(issuance.expires_at),
        usable_until: answer::time(issuance.usable_until),
        revocable: issuance.revocable,
    }
}

const HANDLE_PREFIX: &[u8] = b"hdl_";
