//! `POST /v1/exchange`: a CI token in, credentials out. The order of the lines is the contract's order of checks.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    response::Response,
};

use super::{
    Floor, answer, bearer, carrier::Stay, intake, layers::Decided, parcel::Parcel, problem::Problem, wire,
};
use crate::broker::{
    error::{Code, Refused},
    exchange::{Exchanged, Outcome},
    identify::Origin,
};

pub(super) async fn create(
    State(floor): State<Arc<Floor>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = intake::read_body(body).await?;
    intake::require_json(&parts.headers)?;
    bearer::refuse_query(&parts.uri)?;
    let token = bearer::take(&mut parts.headers)?;
    let caller = floor.broker.identify(token, origin).await?;
    let ask = wire::read_ask(&body, &parts.headers)?;
    let stay = parts.extensions.remove::<Arc<Stay>>();
    match floor.broker.exchange(caller, ask).await? {
        Outcome::DryRun(outcome) => {
            let mut response = answer::dry_run(&outcome)?;
            response.extensions_mut().insert(Decided(outcome.decision));
            Ok(response)
        }
        Outcome::Issued(outcome) => deliver(outcome, stay),
    }
}

/// From here the delivery goes with the bytes: whatever drops them unflushed drops it unconfirmed.
fn deliver(outcome: Exchanged, stay: Option<Arc<Stay>>) -> Result<Response, Problem> {
    let Exchanged { decision, issuances, receipts, deadline, delivery } = outcome;
    let Some(bytes) = answer::exchanged(decision, &issuances, &receipts) else {
        let detail = "a credential holds bytes that are no text, so none was delivered";
        return Err(Refused::new(Code::BackendFailed, detail).of(decision).into());
    };
    // The secrets' own buffers are wiped before the first byte leaves.
    drop(issuances);
    let parcel = Parcel::new(bytes, stay, Box::new(|| delivery.confirm())).until(deadline);
    let mut response = answer::json_body(Body::new(parcel));
    response.extensions_mut().insert(Decided(decision));
    Ok(response)
}
