//! One connection's requests on their way to the router, and their answers back: marks what carries a token (P5), and
//! keeps a request's stay on its connection open until its answer is out of our hands.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use http::{Request, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, service::Service};
use tokio::time::Instant;
use tower::ServiceExt;

use super::{
    carrier::{Carrier, Stay},
    layers::{Broken, TooLate},
    token,
};

/// Answers the requests of one connection.
pub(super) struct Replies {
    router: Router,
    carrier: Arc<Carrier>,
}

/// Boxed: hyper keeps room for one of each connection, and most have none under way.
type Reply = Pin<Box<dyn Future<Output = Result<http::Response<Watched>, Infallible>> + Send>>;

impl Replies {
    /// Of that connection.
    pub(super) fn new(router: Router, carrier: Arc<Carrier>) -> Self {
        Self { router, carrier }
    }

    /// The answer to a request whose head did not arrive whole.
    pub(super) async fn to_broken_head(&self) -> Result<http::Response<Watched>, Infallible> {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Broken);
        answer(self.router.clone(), Arc::clone(&self.carrier), request).await
    }
}

impl Service<Request<Incoming>> for Replies {
    type Response = http::Response<Watched>;
    type Error = Infallible;
    type Future = Reply;

    fn call(&self, request: Request<Incoming>) -> Reply {
        Box::pin(answer(self.router.clone(), Arc::clone(&self.carrier), request.map(Body::new)))
    }
}

/// Answers one request, marking its connection where it carries a token.
async fn answer(
    router: Router,
    carrier: Arc<Carrier>,
    mut request: Request<Body>,
) -> Result<Response<Watched>, Infallible> {
    // A token in a query string is refused, and was in our buffers all the same. The token endpoint has it in the body.
    let carries_token = request.headers().contains_key(header::AUTHORIZATION)
        || request.uri().query().is_some()
        || request.uri().path() == token::PATH;
    let stay = carrier.begin(carries_token, Instant::now());
    match &stay {
        Some(stay) => drop(request.extensions_mut().insert(Arc::clone(stay))),
        None => drop(request.extensions_mut().insert(TooLate)),
    }
    let response = router.oneshot(request).await?;
    if let Some(stay) = &stay {
        stay.answered(Instant::now());
    }
    Ok(response.map(|body| Watched { body, _stay: stay }))
}

/// A body that keeps its request's stay open until it is dropped.
pub(super) struct Watched {
    body: Body,
    _stay: Option<Arc<Stay>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
