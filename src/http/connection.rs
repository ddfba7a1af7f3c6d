//! Connections: accepts, limits, serves and ends them. Own code rather than `axum::serve`, since the contract says
//! when a connection must go (P5), that it must be known when an answer has left, and that nothing here is without a
//! bound: handshakes, heads, idle time, streams, and connections themselves (attack class B-07).

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use rustix::process::{Resource, getrlimit};
use tokio::time::{Instant, error::Elapsed, sleep, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    carrier::{Carrier, Counted, Step},
    listening::{Accepted, Listening},
    protocol::{HEAD, Opening, Protocol, Protocols, Spoken, Transport, drain, tell},
    reply::Replies,
};

/// Serves a router on a listener until `stop`; then takes nothing new, lets what is under way be answered, and
/// returns when every connection is gone. Dropped before that, it drops them at once.
pub async fn serve(
    listener: impl Into<Listening>,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    stop: CancellationToken,
) {
    let listener = listener.into();
    let tasks = TaskTracker::new();
    let gone = CancellationToken::new();
    let _gone_with_us = gone.clone().drop_guard();
    let server = Arc::new(Server {
        protocols: Protocols::new(&tasks),
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
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let Some(place) = server.register.enter(accepted.address()) else { continue };
                match accepted {
                    Accepted::Unix(socket) => drop(tasks.spawn(Arc::clone(&server).attend(socket, place))),
                    Accepted::Tcp(socket, _) => {
                        // Without it each small answer waits for the client's delayed ACK.
                        if let Err(fault) = socket.set_nodelay(true) {
                            tracing::debug!(%fault, "TCP_NODELAY could not be set");
                        }
                        drop(tasks.spawn(Arc::clone(&server).attend(socket, place)));
                    }
                }
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
    protocols: Protocols,
    router: Router,
    tls: Option<TlsAcceptor>,
    register: Arc<Register>,
    stop: CancellationToken,
    gone: CancellationToken,
}

impl Server {
    async fn attend<T: Transport>(self: Arc<Self>, socket: T, place: Place) {
        let carrier = Arc::clone(&place.carrier);
        // Boxed phases: most connections that are open are in none but the last.
        match &self.tls {
            None => Box::pin(self.meet(socket, &carrier)).await,
            Some(acceptor) => match Box::pin(self.within(HANDSHAKE, &carrier, acceptor.accept(socket))).await
            {
                Some(Ok(Ok(transport))) => Box::pin(self.meet(transport, &carrier)).await,
                Some(Ok(Err(fault))) => tracing::debug!(%fault, "a TLS handshake failed"),
                Some(Err(_)) => tracing::debug!("a TLS handshake took too long"),
                None => {}
            },
        }
        carrier.abandon();
        drop(place);
    }

    /// Waits for the peer's part of a beginning; nothing where the connection must go meanwhile.
    async fn within<F: Future>(
        &self,
        bound: Duration,
        carrier: &Carrier,
        part: F,
    ) -> Option<Result<F::Output, Elapsed>> {
        tokio::select! {
            done = timeout(bound, part) => Some(done),
            () = self.stop.cancelled() => None,
            () = self.gone.cancelled() => None,
            () = evicted(carrier) => None,
        }
    }

    /// Finds out what the peer speaks, and speaks it with the peer to the end.
    async fn meet<T: Transport>(&self, mut transport: T, carrier: &Arc<Carrier>) {
        let mut opening = Opening::default();
        let met = self.within(HEAD, carrier, opening.read(&mut transport)).await;
        let is_silent = opening.seen().is_empty();
        let transport = Counted::new(transport, Arc::clone(carrier), opening.seen());
        match met {
            Some(Ok(Ok(_))) if is_silent => {}
            Some(Ok(Ok(protocol))) => {
                if protocol == Protocol::Http2 {
                    // HTTP/1.1 knows heads by itself, and has a word for those who are late.
                    carrier.bound_idleness(HEAD);
                }
                let replies = Replies::new(self.router.clone(), Arc::clone(carrier));
                self.carry(self.protocols.serve(protocol, transport, replies), carrier).await;
            }
            Some(Err(_)) if !is_silent => Box::pin(self.tell_late(transport, carrier)).await,
            Some(Ok(Err(_)) | Err(_)) | None => {}
        }
    }

    /// Carries one connection to its end. When this returns, everything that the connection held is dropped.
    async fn carry<T: Transport>(&self, mut connection: Spoken<T>, carrier: &Arc<Carrier>) {
        let mut is_closing = false;
        let ended = loop {
            let due = match carrier.step(Instant::now()) {
                Step::End => return,
                Step::Close => {
                    carrier.close(Instant::now());
                    connection.close();
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
                    connection.close();
                    is_closing = true;
                }
                ended = &mut connection => break ended,
                () = carrier.changed() => {}
                () = sleep_until(due) => {}
            }
        };
        let Err(fault) = ended else { return };
        tracing::debug!(%fault, "a connection ended with a fault");
        match connection.into_transport() {
            Some((transport, true)) if fault.is_timeout() => {
                Box::pin(self.tell_late(transport, carrier)).await;
            }
            Some((transport, _)) if fault.is_parse() => Box::pin(self.part(transport, carrier)).await,
            Some(_) | None => {}
        }
    }

    /// Tells a peer that the head of its request came too slowly.
    async fn tell_late<T: Transport>(&self, mut transport: Counted<T>, carrier: &Arc<Carrier>) {
        let Ok(response) = Replies::new(self.router.clone(), Arc::clone(carrier)).to_broken_head().await;
        if let Some(Ok(Ok(()))) = self.within(PARTING, carrier, tell(&mut transport, response)).await {
            self.part(transport, carrier).await;
        }
    }

    /// Leaves a peer that was told why time to read it.
    async fn part<T: Transport>(&self, mut transport: Counted<T>, carrier: &Carrier) {
        // Whatever comes of it, the connection ends next.
        self.within(PARTING, carrier, drain(&mut transport)).await;
    }
}

async fn evicted(carrier: &Carrier) {
    while carrier.step(Instant::now()) != Step::End {
        carrier.changed().await;
    }
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
/// For a last word, and for the peer to read it. What it sent may hold a token, so it is short (P5).
const PARTING: Duration = Duration::from_millis(500);
/// One that says nothing costs 3 kB and one with half a head 26 kB (measured on a release build, 2026-11-24); the most
/// that one may make us keep is a head of twice the cap, so that all together stay below half a gigabyte.
const MAX_CONNECTIONS: usize = 8_192;

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
