//! `POST /v1/revocations`: a job ends all that it was issued, by a CI token of its own. Never frozen, and neither the
//! token's age nor its having been used counts (design: section 3).

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;

use super::{Floor, answer, bearer, intake, problem::Problem, wire};
use crate::broker::{
    emergency::{Ended, Revocation},
    identify::Origin,
};

pub(super) async fn of_job(
    State(floor): State<Arc<Floor>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = intake::read_body(body).await?;
    intake::require_json(&parts.headers)?;
    bearer::refuse_query(&parts.uri)?;
    let token = bearer::take(&mut parts.headers)?;
    let caller = floor.broker.identify_holder(token, origin).await?;
    wire::read_job_scope(&body)?;
    answer::json(StatusCode::OK, &view(&floor.broker.revoke_job(&caller).await?))
}

#[derive(Serialize)]
pub(super) struct View<'a> {
    revoked: Vec<Item<'a>>,
    queued: Vec<Item<'a>>,
    irrevocable: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    id: String,
    grant: &'a str,
    credential: &'a str,
    /// Of what nobody can revoke: null where it never ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    usable_until: Option<Option<String>>,
    /// Of what nobody can revoke: what an operator can do, where there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

/// What a revocation came to, as every call tells it.
pub(super) fn view(revocation: &Revocation) -> View<'_> {
    let plain = |each| item(each, false);
    View {
        revoked: revocation.revoked.iter().map(plain).collect(),
        queued: revocation.queued.iter().map(plain).collect(),
        irrevocable: revocation.irrevocable.iter().map(|each| item(each, true)).collect(),
    }
}

fn item(ended: &Ended, is_usable: bool) -> Item<'_> {
    Item {
        id: ended.id.to_string(),
        grant: &ended.grant,
        credential: &ended.credential,
        usable_until: is_usable.then(|| answer::time(ended.usable_until)),
        remedy: ended.remedy.filter(|_| is_usable),
    }
}
