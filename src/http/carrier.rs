//! What one connection carries, and when it has to end: promise P5 as far as connections go, idleness, and the proof
//! that an answer's bytes left.
//!
//! A connection's buffers (rustls' record buffer, HPACK scratch, h2's frame buffers) keep tokens and secrets until
//! it is dropped, whatever the rest of the process wipes. So 500 ms after the first answer to a token it takes no new
//! request, and when what it carries is answered it is dropped, whether or not the client agrees.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

/// Told once, when the bytes it stands for have left; dropped untold, they have not.
pub(super) type Confirm = Box<dyn FnOnce() + Send>;

/// The state of one connection, shared by its task, its requests and their bodies.
pub(super) struct Carrier {
    address: IpAddr,
    load: Mutex<Load>,
    changed: Notify,
}

struct Load {
    /// Requests without an answer.
    working: usize,
    /// Requests that are not over: no answer yet, or one whose bytes are still in our hands.
    open: usize,
    /// The last moment at which an answer was made or a request was over.
    moved: Instant,
    /// The first answer to a request that carried a token.
    first_carrying: Option<Instant>,
    /// The longest that it may be open without a request.
    idle: Duration,
    /// Since when it takes no new request.
    closing: Option<Instant>,
    is_evicted: bool,
    /// Bytes that the transport took, and how many it had taken at its last successful flush.
    written: u64,
    flushed: u64,
    landed: Vec<Landing>,
}

/// A body whose bytes are no longer in our hands: it has left when the flushed bytes reach `due`.
struct Landing {
    due: u64,
    confirm: Confirm,
}

/// What a connection has to do next.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Step {
    /// Take no new request from now on.
    Close,
    /// Be dropped.
    End,
    /// Nothing until then, unless something changes.
    Wait(Instant),
}

impl Carrier {
    /// A connection that was just accepted.
    pub(super) fn new(address: IpAddr, now: Instant) -> Arc<Self> {
        let load = Load {
            working: 0,
            open: 0,
            moved: now,
            first_carrying: None,
            idle: IDLE,
            closing: None,
            is_evicted: false,
            written: 0,
            flushed: 0,
            landed: Vec::new(),
        };
        Arc::new(Self { address: address.to_canonical(), load: Mutex::new(load), changed: Notify::new() })
    }

    /// The client's address.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// Begins a request; `None` where the connection is about to be dropped. A request that crosses our GOAWAY on
    /// its way is still served (RFC 9113 section 6.8).
    pub(super) fn begin(self: &Arc<Self>, carries_token: bool, now: Instant) -> Option<Arc<Stay>> {
        let mut load = self.load();
        if load.is_evicted || load.closing.is_some_and(|since| now >= since + GRACE) {
            return None;
        }
        load.working += 1;
        load.open += 1;
        Some(Arc::new(Stay { carrier: Arc::clone(self), carries_token, is_answered: AtomicBool::new(false) }))
    }

    /// What is to be done now.
    pub(super) fn step(&self, now: Instant) -> Step {
        let load = self.load();
        if load.is_evicted && load.open == 0 {
            return Step::End;
        }
        if load.working > 0 {
            // A verb at work is bounded by its own deadlines; its end is a change. P5 looks at the clock alone.
            return match (load.closing, load.first_carrying) {
                (None, Some(first)) => reach(now, first + CARRYING, Step::Close),
                (Some(_), _) | (None, None) => Step::Wait(now + IDLE),
            };
        }
        let untaken = load.moved + TAKEN_WITHIN;
        let is_sending = load.open > 0 && now < untaken;
        match (load.closing, load.first_carrying) {
            (Some(_), _) if is_sending => Step::Wait(untaken),
            (Some(since), _) => reach(now, since.max(load.moved) + GRACE, Step::End),
            (None, Some(first)) => reach(now, first + CARRYING, Step::Close),
            (None, None) if is_sending => Step::Wait(untaken),
            (None, None) => reach(now, load.moved + load.idle, Step::Close),
        }
    }

    /// No new request from now on.
    pub(super) fn close(&self, now: Instant) {
        self.load().closing.get_or_insert(now);
    }

    /// Sets how long it may be open without a request.
    pub(super) fn bound_idleness(&self, bound: Duration) {
        self.load().idle = bound;
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.load().open == 0
    }

    /// Ends an idle connection to make room for another.
    pub(super) fn evict(&self) {
        self.load().is_evicted = true;
        self.changed.notify_one();
    }

    /// Waits until [`Carrier::step`] may have another answer.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Bytes that the transport took so far.
    pub(super) fn written(&self) -> u64 {
        self.load().written
    }

    /// Takes note of a body whose bytes are no longer in our hands; confirmed as soon as `due` bytes are flushed.
    pub(super) fn land(&self, due: u64, confirm: Confirm) {
        let mut load = self.load();
        if load.flushed < due {
            load.landed.push(Landing { due, confirm });
            return;
        }
        drop(load);
        confirm();
    }

    /// The connection is gone: what has not left never will.
    pub(super) fn abandon(&self) {
        let lost = {
            let mut load = self.load();
            load.is_evicted = true;
            std::mem::take(&mut load.landed)
        };
        drop(lost);
    }

    fn wrote(&self, bytes: usize) {
        self.load().written += bytes as u64;
    }

    fn has_flushed(&self) {
        let mut load = self.load();
        load.flushed = load.written;
        let flushed = load.flushed;
        if load.landed.is_empty() {
            return;
        }
        let (left, waiting) =
            std::mem::take(&mut load.landed).into_iter().partition(|each| each.due <= flushed);
        load.landed = waiting;
        drop(load);
        let left: Vec<Landing> = left;
        left.into_iter().for_each(|landing| (landing.confirm)());
    }

    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reach(now: Instant, due: Instant, step: Step) -> Step {
    if now >= due { step } else { Step::Wait(due) }
}

/// One request's stay on its connection: from its head to the last byte of its answer. It ends with its last holder.
pub(super) struct Stay {
    carrier: Arc<Carrier>,
    carries_token: bool,
    is_answered: AtomicBool,
}

impl Stay {
    /// Its connection.
    pub(super) fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// The answer was made.
    pub(super) fn answered(&self, now: Instant) {
        self.is_answered.store(true, Ordering::Relaxed);
        let mut load = self.carrier.load();
        load.working = load.working.saturating_sub(1);
        load.moved = now;
        let is_first = self.carries_token && load.first_carrying.is_none();
        if is_first {
            load.first_carrying = Some(now);
        }
        let is_awaited = is_first || load.closing.is_some();
        drop(load);
        if is_awaited {
            self.carrier.changed.notify_one();
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut load = self.carrier.load();
        if !self.is_answered.load(Ordering::Relaxed) {
            load.working = load.working.saturating_sub(1);
        }
        load.open = load.open.saturating_sub(1);
        load.moved = Instant::now();
        let is_awaited = load.closing.is_some();
        drop(load);
        if is_awaited {
            self.carrier.changed.notify_one();
        }
    }
}

/// The transport as its connection sees it: counts what it takes and when it was flushed.
pub(super) struct Counted<T> {
    transport: T,
    carrier: Arc<Carrier>,
    /// What was read of it before.
    opening: Vec<u8>,
}

impl<T> Counted<T> {
    /// A transport of which these bytes were read already.
    pub(super) fn new(transport: T, carrier: Arc<Carrier>, opening: &[u8]) -> Self {
        Self { transport, carrier, opening: opening.to_vec() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.opening.is_empty() {
            let taken = self.opening.len().min(buffer.remaining());
            let rest = self.opening.split_off(taken);
            buffer.put_slice(&std::mem::replace(&mut self.opening, rest));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.transport).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.transport).poll_write(cx, bytes))?;
        self.carrier.wrote(taken);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.transport).poll_write_vectored(cx, parts))?;
        self.carrier.wrote(taken);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
        self.carrier.has_flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// From the first answer to a token until no new request is taken (P5).
const CARRYING: Duration = Duration::from_millis(500);
/// From there, or from the last byte if that is later, until the connection is dropped: a peer that never answers
/// HTTP/2's PING must not hold it.
const GRACE: Duration = Duration::from_millis(200);
/// The longest that an answer may lie in our buffers because the client does not read it.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// The longest that a connection may be open without a request (B-07), unless its protocol says less.
const IDLE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn carrier() -> (Arc<Carrier>, Instant) {
        let now = Instant::now();
        (Carrier::new(Ipv4Addr::LOCALHOST.into(), now), now)
    }

    #[test]
    fn closes_half_a_second_after_the_first_answer_to_a_token_busy_or_not() {
        let (carrier, start) = carrier();
        let first = carrier.begin(true, start).unwrap();
        assert_eq!(carrier.step(start), Step::Wait(start + IDLE));
        first.answered(start);
        drop(first);
        let due = start + CARRYING;
        assert_eq!(carrier.step(start), Step::Wait(due));
        let later = start + Duration::from_millis(400);
        let second = carrier.begin(true, later).unwrap();
        second.answered(later);
        let third = carrier.begin(true, later).unwrap();
        assert_eq!(carrier.step(later), Step::Wait(due), "later answers do not move it");
        assert_eq!(carrier.step(due), Step::Close);
        drop((second, third));
    }

    #[test]
    fn an_answer_to_no_token_lets_a_connection_live() {
        let (carrier, start) = carrier();
        let plain = carrier.begin(false, start).unwrap();
        plain.answered(start);
        drop(plain);
        assert_eq!(carrier.step(start + CARRYING), Step::Wait(carrier.load().moved + IDLE));
    }

    #[test]
    fn ends_when_what_it_carries_is_answered_and_sent() {
        let (carrier, start) = carrier();
        let work = carrier.begin(true, start).unwrap();
        carrier.close(start);
        let now = start + Duration::from_secs(3);
        assert_eq!(carrier.step(now), Step::Wait(now + IDLE), "a verb is at work");
        assert!(carrier.begin(true, now).is_none(), "the grace is over");
        work.answered(now);
        assert_eq!(carrier.step(now), Step::Wait(now + TAKEN_WITHIN), "its bytes are still here");
        drop(work);
        let over = carrier.load().moved;
        assert_eq!(carrier.step(over), Step::Wait(over + GRACE));
        assert_eq!(carrier.step(over + GRACE), Step::End);
    }

    #[test]
    fn a_request_that_crosses_the_goaway_is_served() {
        let (carrier, start) = carrier();
        carrier.close(start);
        assert!(carrier.begin(true, start + GRACE / 2).is_some());
    }

    #[test]
    fn does_not_wait_longer_for_a_client_that_does_not_read() {
        let (carrier, start) = carrier();
        let unread = carrier.begin(true, start).unwrap();
        unread.answered(start);
        carrier.close(start + CARRYING);
        assert_eq!(carrier.step(start + TAKEN_WITHIN), Step::End);
        drop(unread);
    }

    #[test]
    fn an_idle_connection_closes_and_makes_room_when_asked() {
        let (carrier, start) = carrier();
        assert_eq!(carrier.step(start), Step::Wait(start + IDLE));
        assert_eq!(carrier.step(start + IDLE), Step::Close);
        assert!(carrier.is_idle());
        carrier.evict();
        assert_eq!(carrier.step(start), Step::End);
        assert!(carrier.begin(false, start).is_none());
    }

    #[test]
    fn confirms_when_all_bytes_were_flushed_and_not_before() {
        let (carrier, _) = carrier();
        let (told, is_told) = std::sync::mpsc::channel();
        let confirm = |name: &'static str| {
            let told = told.clone();
            Box::new(move || told.send(name).unwrap())
        };
        carrier.land(10, confirm("early"));
        carrier.wrote(9);
        carrier.has_flushed();
        assert!(is_told.try_recv().is_err());
        carrier.wrote(1);
        assert!(is_told.try_recv().is_err(), "written is not flushed");
        carrier.has_flushed();
        assert_eq!(is_told.try_recv().unwrap(), "early");
        carrier.land(10, confirm("after its flush"));
        assert_eq!(is_told.try_recv().unwrap(), "after its flush");
        carrier.land(11, confirm("never"));
        carrier.abandon();
        drop(told);
        assert!(is_told.recv().is_err());
    }
}
