//! What lies around every verb: the request's id, its log line, a net under panics, headers that no answer may lack;
//! and, before a verb that costs something, the gate.
//!
//! The log line holds method, route, status, time and ids. Never a token, a body, a header or a query string.

use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use governor::{DefaultKeyedRateLimiter, Quota};
use http::{HeaderMap, HeaderValue, Version, header};
use http_body::Body as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::Instrument as _;

use super::{
    Floor, Limits,
    carrier::Stay,
    head, intake,
    openapi::Listener,
    problem::{self, Problem, Told},
    source::{self, Network},
    trace::{self, TraceParent},
    traffic::{Shed, Traffic},
    wellknown::Keepable,
};
use crate::{
    broker::{
        error::{Code, Refused},
        identify::Origin,
    },
    kernel::id::{DecisionId, RequestId},
};

/// On a response: the decision that it tells of.
#[derive(Clone, Copy)]
pub(super) struct Decided(pub(super) DecisionId);

/// On a request: its connection takes none any more.
#[derive(Clone, Copy)]
pub(super) struct TooLate;

/// On what is no request, but a head that did not arrive whole in time.
#[derive(Clone, Copy)]
pub(super) struct Broken;

/// On a request: where it comes from.
#[derive(Clone, Copy)]
struct Source(IpAddr);

/// Wires the state into the routes, answers unknown paths, and puts around all what every answer needs. `trusted` are
/// the proxies that may say where a request comes from.
pub(super) fn around(
    floor: Arc<Floor>,
    listener: Listener,
    router: Router<Arc<Floor>>,
    trusted: &[Network],
) -> Router {
    let attending = (Arc::clone(&floor), listener, trusted.into());
    router
        .fallback(async || no_such_path())
        .layer(middleware::from_fn_with_state(attending, attend))
        .with_state(floor)
}

/// The 404 of a path that does not exist.
pub(super) fn no_such_path() -> Problem {
    Problem::new(Code::NotFound, "there is nothing at this path")
}

/// Lets only these methods, listed as in `Allow`, through to the routes.
pub(super) fn only(methods: &'static str, routes: MethodRouter<Arc<Floor>>) -> MethodRouter<Arc<Floor>> {
    routes.layer(middleware::from_fn_with_state(methods, refuse_method))
}

async fn refuse_method(State(methods): State<&'static str>, request: Request, next: Next) -> Response {
    if methods.split(", ").any(|method| method == request.method().as_str()) {
        return next.run(request).await;
    }
    let problem = Problem::new(Code::MethodNotAllowed, format!("this path takes {methods}"));
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// How many requests may be in flight, and how often one source may ask. Each listener has one.
#[derive(Clone)]
pub(super) struct Gate(Arc<GateState>);

struct GateState {
    places: Arc<Semaphore>,
    sources: DefaultKeyedRateLimiter<IpAddr>,
    since_forgetting: AtomicU32,
    traffic: Arc<Traffic>,
    listener: Listener,
}

impl Gate {
    pub(super) fn new(limits: Limits, traffic: Arc<Traffic>, listener: Listener) -> Self {
        let per_second = NonZeroU32::new(limits.per_source_per_second).unwrap_or(NonZeroU32::MIN);
        Self(Arc::new(GateState {
            places: Arc::new(Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS))),
            sources: DefaultKeyedRateLimiter::keyed(Quota::per_second(per_second)),
            since_forgetting: AtomicU32::new(0),
            traffic,
            listener,
        }))
    }

    /// Puts the gate before routes.
    pub(super) fn before(&self, routes: MethodRouter<Arc<Floor>>) -> MethodRouter<Arc<Floor>> {
        routes.layer(middleware::from_fn_with_state(self.clone(), pass_gate))
    }

    fn enter(&self, address: IpAddr) -> Result<OwnedSemaphorePermit, Refused> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| {
            self.0.traffic.shed(self.0.listener, Shed::InFlight);
            Refused::new(Code::Overloaded, "too many requests are in flight; try again shortly")
                .retry_after(1)
        })?;
        // Sources whose allowance is whole again are forgotten, so that what is kept is bounded by the request rate.
        if self.0.since_forgetting.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.0.sources.retain_recent();
        }
        self.0.sources.check_key(&subscriber(address)).map_err(|_| {
            self.0.traffic.shed(self.0.listener, Shed::SourceRate);
            Refused::new(Code::RateLimited, "this address asks too often; slow down").retry_after(1)
        })?;
        Ok(place)
    }
}

async fn pass_gate(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let Some(Source(source)) = request.extensions().get().copied() else {
        return Problem::new(Code::Internal, "a request came by no connection").into_response();
    };
    match gate.enter(source) {
        Ok(place) => {
            let response = next.run(request).await;
            drop(place);
            response
        }
        Err(refused) => Problem::from(refused).into_response(),
    }
}

/// What counts as one source in rates: one IPv4 address, or the /64 that one IPv6 subscriber has for itself (RFC 6177).
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

fn source_of(request: &Request, trusted: &[Network]) -> IpAddr {
    let stay = request.extensions().get::<Arc<Stay>>();
    let peer = stay.map_or(Ipv4Addr::UNSPECIFIED.into(), |stay| stay.carrier().address());
    source::of(peer, request.headers(), trusted)
}

async fn attend(
    State((floor, listener, trusted)): State<(Arc<Floor>, Listener, Arc<[Network]>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let _in_flight = floor.traffic.begin(listener);
    let trace = TraceParent::of(request.headers());
    let method = word(&request);
    let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let path = route.as_ref().map(MatchedPath::as_str);
    let span = trace::span(method, path, trace);
    let named = floor.broker.new_request_id();
    let id = named.as_ref().ok().copied();
    let response = match named {
        Err(refused) => Problem::from(refused).into_response(),
        Ok(named) => match head_fault(&request) {
            Some(response) => response,
            None => {
                let source = source_of(&request, &trusted);
                request.extensions_mut().insert(Source(source));
                request.extensions_mut().insert(Origin { address: source, request: named });
                serve_body(request, next, named).instrument(span.clone()).await
            }
        },
    };
    let mut response = problem::render(response, id);
    harden(&mut response);
    if is_chunked {
        // A proxy in front may have framed the body by a Content-Length beside it, which hyper leaves out: then what
        // follows is no request of ours (RFC 9112 section 6.1).
        close(response.headers_mut());
    }
    let told = response.extensions().get::<Told>();
    let decided = response.extensions().get::<Decided>().map(|decided| decided.0);
    let decision = told.and_then(|told| told.decision).or(decided);
    let took = started.elapsed();
    let answer = (response.status().as_u16(), told.map(|told| told.code));
    floor.traffic.answered((listener, method, path), answer, took);
    trace::answered(&span, response.status(), told.map(|told| told.code.as_str()));
    let _within = span.enter();
    tracing::info!(
        http.method = method,
        http.route = path,
        http.status = response.status().as_u16(),
        code = told.map(|told| told.code.as_str()),
        request_id = id.map(tracing::field::display),
        decision_id = decision.map(tracing::field::display),
        trace_id = trace.map(|trace| tracing::field::display(trace.trace)),
        parent_id = trace.map(|trace| tracing::field::display(trace.span)),
        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "answered a request"
    );
    response
}

/// Refuses what no verb shall see.
fn head_fault(request: &Request) -> Option<Response> {
    if request.extensions().get::<Broken>().is_some() {
        return Some(Problem::late("the head of the request did not arrive in time").into_response());
    }
    if request.extensions().get::<TooLate>().is_some() {
        let detail = "this connection is closing; open another";
        return Some(Problem::new(Code::Overloaded, detail).into_response());
    }
    let mut response = head::fault(request)?.into_response();
    if request.version() <= Version::HTTP_11 {
        close(response.headers_mut());
    }
    Some(response)
}

/// Runs the verb; what it leaves of a body is read before its answer goes. A client that waits for `100 Continue`
/// sends none. Where some stays unread, an HTTP/1 connection cannot go on, and its answer says so.
async fn serve_body(request: Request, next: Next, named: RequestId) -> Response {
    if request.body().is_end_stream() {
        return contain(next.run(request), named).await;
    }
    let is_awaiting = request.headers().contains_key(header::EXPECT);
    let is_http1 = request.version() <= Version::HTTP_11;
    let (parts, body) = request.into_parts();
    let (body, lender) = intake::lend(body);
    let mut response = contain(next.run(Request::from_parts(parts, body)), named).await;
    let is_read = if is_awaiting { lender.is_settled() } else { lender.settle().await };
    if !is_read && is_http1 {
        close(response.headers_mut());
    }
    response
}

/// Runs a verb so that its panic ends the request and nothing else. What the panic said is not told: it may hold
/// anything.
async fn contain(call: impl Future<Output = Response>, id: RequestId) -> Response {
    let mut call = pin!(call);
    let answer = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Err(_) => Poll::Ready(None),
    })
    .await;
    answer.unwrap_or_else(|| {
        tracing::error!(request_id = %id, "a request broke off with a panic");
        let detail = "something went wrong on our side; the operator's log has the request id";
        Problem::new(Code::Internal, detail).into_response()
    })
}

/// Headers of every answer, refusals included: nothing may keep it (attack class R-12) but our own public keys.
fn harden(response: &mut Response) {
    let keepable = response.extensions().get::<Keepable>().copied();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(Keepable(age)) = keepable
        && let Ok(told) = HeaderValue::try_from(format!("public, max-age={}", age.as_secs()))
    {
        headers.insert(header::CACHE_CONTROL, told);
        return;
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("Authorization"));
}

/// Ends an HTTP/1 connection with this answer.
fn close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// The method for the log; whatever is no method of RFC 9110 was made up by the client.
fn word(request: &Request) -> &'static str {
    if request.extensions().get::<Broken>().is_some() {
        return "none";
    }
    METHODS.into_iter().find(|known| *known == request.method().as_str()).unwrap_or("other")
}

const METHODS: [&str; 9] = ["GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT"];

/// Requests between two rounds of forgetting; each adds at most one source.
const FORGET_EVERY: u32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sheds_load_before_it_counts_sources() {
        let gate =
            Gate::new(Limits { per_source_per_second: 1, in_flight: 1 }, Arc::default(), Listener::Public);
        let here = Ipv4Addr::LOCALHOST.into();
        let place = gate.enter(here).unwrap();
        assert_eq!(gate.enter(here).unwrap_err().code, Code::Overloaded);
        drop(place);
        let refused = gate.enter(here).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_seconds), (Code::RateLimited, Some(1)));
        assert!(gate.enter(Ipv4Addr::BROADCAST.into()).is_ok());
    }

    #[test]
    fn one_ipv6_subscriber_is_one_source_and_mapped_addresses_are_ipv4() {
        let of = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[tokio::test]
    async fn a_panic_ends_its_request_only() {
        let id = RequestId::new(jiff::Timestamp::UNIX_EPOCH, [0; 10]);
        let response = contain(async { panic!("with a secret") }, id).await;
        assert_eq!(response.status(), http::StatusCode::INTERNAL_SERVER_ERROR);
    }
}
