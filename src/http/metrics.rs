//! `GET /metrics`: the figures of this process for Prometheus. It needs no token and passes no gate, since it must be
//! readable when all else is refused; it stands on the admin listener only, and holds nothing of any job.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use http::{HeaderValue, header};

use super::{Floor, bearer, problem::Problem};
use crate::broker::metrics::Exposition;

pub(super) async fn show(State(floor): State<Arc<Floor>>, request: Request) -> Result<Response, Problem> {
    bearer::refuse_query(request.uri())?;
    let mut text = Exposition::default();
    (floor.process)(&mut text);
    floor.traffic.expose(&mut text);
    floor.broker.expose(&mut text);
    let mut response = Response::new(Body::from(text.into_text()));
    let media_type = HeaderValue::from_static(Exposition::MEDIA_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    Ok(response)
}
