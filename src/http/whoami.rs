//! `GET /v1/whoami`: what the caller's token says, as policy sees it. It tells nothing about policy (P8).

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;

use super::{Floor, answer, bearer, intake, problem::Problem};
use crate::{
    broker::identify::Origin,
    kernel::identity::{JobIdentity, job::Claims},
};

pub(super) async fn show(
    State(floor): State<Arc<Floor>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    intake::refuse_declared_size(&body)?;
    bearer::refuse_query(&parts.uri)?;
    let token = bearer::take(&mut parts.headers)?;
    let caller = floor.broker.identify_unfrozen(token, origin).await?;
    answer::json(StatusCode::OK, &view(&caller.identity))
}

#[derive(Serialize)]
struct View<'a> {
    issuer: &'a str,
    profile: &'static str,
    subject: &'a str,
    tenant: Option<&'a str>,
    project: Option<&'a str>,
    r#ref: Option<&'a str>,
    trigger: Option<&'a str>,
    environment: Option<&'a str>,
    runner: Option<&'a str>,
    actor: Option<&'a str>,
    run: Option<&'a str>,
    job_key: Option<String>,
    claims: &'a Claims,
    unusable: &'a [String],
    expires_at: String,
}

fn view(identity: &JobIdentity) -> View<'_> {
    View {
        issuer: identity.issuer().as_str(),
        profile: identity.profile().name,
        subject: identity.subject(),
        tenant: identity.tenant(),
        project: identity.project().map(|(id, _)| id),
        r#ref: identity.git_ref(),
        trigger: identity.trigger_word(),
        environment: identity.environment(),
        runner: identity.runner(),
        actor: identity.actor(),
        run: identity.run(),
        job_key: identity.job_key(),
        claims: identity.claims(),
        unusable: identity.unusable(),
        expires_at: identity.token().exp.to_string(),
    }
}
