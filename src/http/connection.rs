//! Connections: accepts, limits, serves and ends them. Own code rather than `axum::serve`, since the contract says
//! when a connection must go (P5), that it must be known when an answer has left, and that nothing here is without a
//! bound: handshakes, heads, idle time, streams, and connections themselves (attack class B-07).

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use http::{Request, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    carrier::{Carrier, Counted, Stay, Step},
    layers::TooLate,
};

/// Serves a router on a listener until `stop`; then takes nothing new, lets what is under way be answered, and
/// returns when every connection is gone. Dropped before that, it drops them at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let gone = CancellationToken::new();
    let _gone_with_us = gone.clone().drop_guard();
    let server = Arc::new(Server {
        builder: builder(&tasks),
        router,
        tls: tls.map(TlsAcceptor::from),
        register: Register::new(most_connections()),
        stop: stop.clone(),
        gone,
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let Some(place) = server.register.enter(peer.ip()) else { continue };
                tasks.spawn(Arc::clone(&server).attend(socket, place));
            }
            Err(fault) if is_of_one_connection(&fault) => {}
            Err(fault) => {
                // Out of descriptors or memory: whoever is connected goes on, and ends free some.
                tracing::warn!(%fault, "a connection could not be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

struct Server {
    builder: auto::Builder<Tracked>,
    router: Router,
    tls: Option<TlsAcceptor>,
    register: Arc<Register>,
    stop: CancellationToken,
    gone: CancellationToken,
}

impl Server {
    async fn attend(self: Arc<Self>, socket: TcpStream, place: Place) {
        let carrier = Arc::clone(&place.carrier);
        // Without it each small answer waits for the client's delayed ACK.
        if let Err(fault) = socket.set_nodelay(true) {
            tracing::debug!(%fault, "TCP_NODELAY could not be set");
        }
        match &self.tls {
            None => self.carry(socket, &carrier).await,
            Some(acceptor) => {
                let handshake = timeout(HANDSHAKE, acceptor.accept(socket));
                let shaken = tokio::select! {
                    shaken = handshake => shaken,
                    () = self.stop.cancelled() => return,
                    () = evicted(&carrier) => return,
                };
                match shaken {
                    Ok(Ok(transport)) => self.carry(transport, &carrier).await,
                    Ok(Err(fault)) => tracing::debug!(%fault, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            }
        }
        carrier.abandon();
        drop(place);
    }

    /// Carries one connection to its end. When this returns, everything that the connection held is dropped.
    async fn carry<T>(&self, transport: T, carrier: &Arc<Carrier>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(Counted { transport, carrier: Arc::clone(carrier) });
        let service = service_fn(|request| answer(self.router.clone(), Arc::clone(carrier), request));
        let mut connection = pin!(self.builder.serve_connection(io, service));
        let mut is_closing = false;
        loop {
            let due = match carrier.step(Instant::now()) {
                Step::End => return,
                Step::Close => {
                    carrier.close(Instant::now());
                    connection.as_mut().graceful_shutdown();
                    is_closing = true;
                    continue;
                }
                Step::Wait(due) => due,
            };
            tokio::select! {
                biased;
                () = self.gone.cancelled() => return,
                () = self.stop.cancelled(), if !is_closing => {
                    carrier.close(Instant::now());
                    connection.as_mut().graceful_shutdown();
                    is_closing = true;
                }
                ended = connection.as_mut() => {
                    if let Err(fault) = ended {
                        tracing::debug!(fault = %fault, "a connection ended with a fault");
                    }
                    return;
                }
                () = carrier.changed() => {}
                () = sleep_until(due) => {}
            }
        }
    }
}

async fn evicted(carrier: &Carrier) {
    while carrier.step(Instant::now()) != Step::End {
        carrier.changed().await;
    }
}

/// Answers one request, marking its connection where it carries a token.
async fn answer(
    router: Router,
    carrier: Arc<Carrier>,
    mut request: Request<Incoming>,
) -> Result<Response<Watched>, Infallible> {
    // A token in a query string is refused, and was in our buffers all the same.
    let carries_token =
        request.headers().contains_key(header::AUTHORIZATION) || request.uri().query().is_some();
    let stay = carrier.begin(carries_token, Instant::now());
    match &stay {
        Some(stay) => drop(request.extensions_mut().insert(Arc::clone(stay))),
        None => drop(request.extensions_mut().insert(TooLate)),
    }
    let response = router.oneshot(request.map(Body::new)).await?;
    if let Some(stay) = &stay {
        stay.answered(Instant::now());
    }
    Ok(response.map(|body| Watched { body, _stay: stay }))
}

/// A body that keeps its request's stay open until it is dropped.
struct Watched {
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

/// Runs HTTP/2 streams as tracked tasks, so that the end of [`serve`] waits for them.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

fn builder(tasks: &TaskTracker) -> auto::Builder<Tracked> {
    let mut builder = auto::Builder::new(Tracked(tasks.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD_BYTES as usize)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .max_header_list_size(MAX_HEAD_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// The open connections. When there is no room, the oldest of the idle ones makes way: they cost an attacker
/// nothing, so they must not keep anybody out.
struct Register {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// By order of arrival.
    carriers: BTreeMap<u64, Arc<Carrier>>,
}

/// A connection's place in the register, until it is dropped.
struct Place {
    register: Arc<Register>,
    number: u64,
    carrier: Arc<Carrier>,
}

impl Register {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.carriers.len() >= self.most {
            let idle = open.carriers.iter().find(|(_, carrier)| carrier.is_idle());
            let number = idle.map(|(number, _)| *number)?;
            if let Some(carrier) = open.carriers.remove(&number) {
                carrier.evict();
            }
        }
        let number = open.next;
        open.next += 1;
        let carrier = Carrier::new(address, Instant::now());
        open.carriers.insert(number, Arc::clone(&carrier));
        Some(Place { register: Arc::clone(self), number, carrier })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.register.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.carriers.remove(&self.number);
    }
}

/// Half of the descriptors that this process may have, at most [`MAX_CONNECTIONS`]: the other half is for the second
/// listener, the store and calls outward.
fn most_connections() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
    descriptors.map_or(MAX_CONNECTIONS, |most| (most / 2).clamp(1, MAX_CONNECTIONS))
}

/// Faults of a connection that its peer gave up before we took it.
fn is_of_one_connection(fault: &io::Error) -> bool {
    matches!(
        fault.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

/// How long to let connections end before trying again after `accept` failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the head of an HTTP/1.1 request, and between two of them.
const HEAD: Duration = Duration::from_secs(10);
/// The contract's cap on headers (design: section 3); 431 beyond it.
const MAX_HEAD_BYTES: u32 = 16 * 1024;
/// An idle connection costs some kilobytes.
const MAX_CONNECTIONS: usize = 8_192;
/// A job makes a handful of calls.
const MAX_STREAMS: u32 = 64;
/// Rapid reset (RUSTSEC-2024-0003): few streams may be reset before the connection is ended.
const MAX_RESETS: usize = 20;
/// One body, and what one connection may have sent ahead of us.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Finds peers that are gone without a word.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_ANSWER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_full_register_lets_the_oldest_idle_connection_go_and_never_a_busy_one() {
        let register = Register::new(2);
        let here = Ipv4Addr::LOCALHOST.into();
        let busy = register.enter(here).unwrap();
        let stay = busy.carrier.begin(true, Instant::now()).unwrap();
        let idle = register.enter(here).unwrap();
        let third = register.enter(here).unwrap();
        assert_eq!(idle.carrier.step(Instant::now()), Step::End);
        assert_ne!(busy.carrier.step(Instant::now()), Step::End);
        drop(idle);
        let other = third.carrier.begin(true, Instant::now()).unwrap();
        assert!(register.enter(here).is_none(), "both are busy");
        drop((busy, stay));
        assert!(register.enter(here).is_some());
        drop((third, other));
    }
}
