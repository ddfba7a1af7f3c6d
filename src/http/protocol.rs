//! Which HTTP a peer speaks, and hyper's connection for it. Own code rather than hyper-util's `auto`, whose wait for a
//! connection's first bytes knows no end, and whose connection keeps the transport for itself: a peer whose head is
//! too slow could not be told so (408), and its connection would end without a word (attack class B-07).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use http_body_util::BodyExt as _;
use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::task::TaskTracker;

use super::{
    carrier::Counted,
    head::{MAX_HEAD_BYTES, MAX_HEADERS},
    reply::{Replies, Watched},
};

/// The two protocols.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    /// HTTP/1.0 and HTTP/1.1, and whatever is no HTTP at all.
    Http1,
    /// HTTP/2 by its preface; TLS' ALPN is not asked, since whoever negotiated it sends the preface too.
    Http2,
}

/// What a peer sent before it was plain which protocol it speaks.
#[derive(Default)]
pub(super) struct Opening {
    bytes: [u8; PREFACE.len()],
    filled: usize,
}

impl Opening {
    /// Reads until it is plain which protocol the peer speaks; what was read so far stays if this is dropped.
    pub(super) async fn read(&mut self, transport: &mut (impl AsyncRead + Unpin)) -> io::Result<Protocol> {
        loop {
            let read = match self.bytes.get_mut(self.filled..) {
                Some(room) if !room.is_empty() => transport.read(room).await?,
                Some(_) | None => return Ok(Protocol::Http2),
            };
            self.filled += read;
            if read == 0 || !PREFACE.starts_with(self.seen()) {
                return Ok(Protocol::Http1);
            }
        }
    }

    /// The bytes.
    pub(super) fn seen(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

/// Runs HTTP/2 streams as tracked tasks, so that the end of the server waits for them.
#[derive(Clone)]
pub(super) struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

/// How connections are served; the bounds of both protocols.
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<Tracked>,
}

impl Protocols {
    /// The contract's bounds; `tasks` will know every HTTP/2 stream.
    pub(super) fn new(tasks: &TaskTracker) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(2 * MAX_HEADERS)
            .max_header_size(2 * MAX_HEAD_BYTES)
            .max_buf_size(2 * MAX_HEAD_BYTES);
        let mut http2 = http2::Builder::new(Tracked(tasks.clone()));
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER)
            .max_header_list_size(HEADER_LIST)
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .max_send_buf_size(SEND_BUFFER)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        Self { http1, http2 }
    }

    /// A connection on a transport whose opening was read.
    pub(super) fn serve<T: Transport>(
        &self,
        protocol: Protocol,
        transport: Counted<T>,
        replies: Replies,
    ) -> Spoken<T> {
        let io = TokioIo::new(transport);
        match protocol {
            Protocol::Http1 => Spoken::Http1(Box::new(self.http1.serve_connection(io, replies))),
            Protocol::Http2 => Spoken::Http2(Box::new(self.http2.serve_connection(io, replies))),
        }
    }
}

/// What a connection can run on.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for T {}

/// hyper's connection of either protocol. It ends when both sides are done, or at the first fault.
pub(super) enum Spoken<T: Transport> {
    /// HTTP/1.
    Http1(Box<http1::Connection<TokioIo<Counted<T>>, Replies>>),
    /// HTTP/2.
    Http2(Box<http2::Connection<TokioIo<Counted<T>>, Replies, Tracked>>),
}

impl<T: Transport> Spoken<T> {
    /// Takes no new request from now on.
    pub(super) fn close(&mut self) {
        match self {
            Self::Http1(connection) => Pin::new(connection.as_mut()).graceful_shutdown(),
            Self::Http2(connection) => Pin::new(connection.as_mut()).graceful_shutdown(),
        }
    }

    /// The transport after the end, and whether part of a head is left on it. HTTP/2 says its last words itself.
    pub(super) fn into_transport(self) -> Option<(Counted<T>, bool)> {
        match self {
            Self::Http1(connection) => {
                let parts = connection.into_parts();
                Some((parts.io.into_inner(), !parts.read_buf.is_empty()))
            }
            Self::Http2(_) => None,
        }
    }
}

impl<T: Transport> Future for Spoken<T> {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Http1(connection) => Pin::new(connection.as_mut()).poll(cx),
            Self::Http2(connection) => Pin::new(connection.as_mut()).poll(cx),
        }
    }
}

/// Writes an answer to a request that never was one whole, and ends the connection.
pub(super) async fn tell(
    transport: &mut (impl AsyncWrite + Unpin),
    response: Response<Watched>,
) -> io::Result<()> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes());
    transport.write_all(&head).await?;
    transport.write_all(&body).await?;
    transport.shutdown().await
}

/// Throws away what the peer still sends, until it is done: a socket that is closed over unread bytes is reset, and
/// the peer would lose the answer that tells it why.
pub(super) async fn drain(transport: &mut (impl AsyncRead + Unpin)) {
    let mut bytes = Box::new([0; 4 * 1024]);
    let mut left = MAX_DRAINED_BYTES;
    while let Ok(read @ 1..) = transport.read(bytes.as_mut_slice()).await {
        left = match left.checked_sub(read) {
            Some(left) => left,
            None => return,
        };
    }
}

/// RFC 9113 section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// For the first bytes of a connection, for the head of a request, and between two of them.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// A job makes a handful of calls.
const MAX_STREAMS: u32 = 64;
/// Rapid reset (RUSTSEC-2024-0003): few streams may be reset before the connection is ended.
const MAX_RESETS: usize = 20;
/// What a connection may be asked to hold of answers that its peer does not read, a stream: more than any answer has.
const SEND_BUFFER: usize = 256 * 1024;
/// One body, and what one connection may have sent ahead of us.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// HPACK lets a short block stand for a long list; hyper keeps none above this, and we refuse half of it with a
/// problem document.
const HEADER_LIST: u32 = 32 * 1024;
/// Finds peers that are gone without a word while a verb is at work.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_ANSWER: Duration = Duration::from_secs(10);
/// What is read of a peer that was already told why its connection ends.
const MAX_DRAINED_BYTES: usize = 256 * 1024;
