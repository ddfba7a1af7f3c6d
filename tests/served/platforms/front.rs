//! What may stand between a job and its broker: TLS, a proxy, and a network that loses answers. Connections carry one
//! request each, as those of our wrappers do.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;

use super::super::support::runtime;

/// What becomes of one connection.
pub(crate) enum Fate {
    /// The broker is not asked; this is answered.
    Answered(&'static str),
    /// The broker is asked and answers, and nobody hears it.
    Lost,
    /// The broker's answer waits until somebody lets it go.
    Held(Arc<Notify>),
}

/// A place in front of a broker.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    fates: Arc<Mutex<VecDeque<Fate>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Front {
    /// Passes everything on to `upstream`.
    pub(crate) fn plain(upstream: SocketAddr) -> Self {
        Self::start(upstream, None)
    }

    /// The same behind TLS.
    pub(crate) fn tls(upstream: SocketAddr, acceptor: TlsAcceptor) -> Self {
        Self::start(upstream, Some(acceptor))
    }

    fn start(upstream: SocketAddr, acceptor: Option<TlsAcceptor>) -> Self {
        let (listener, address) = listen();
        let fates = Arc::<Mutex<VecDeque<Fate>>>::default();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let (planned, seen) = (Arc::clone(&fates), Arc::clone(&heads));
        runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, planned, seen) = (acceptor.clone(), Arc::clone(&planned), Arc::clone(&seen));
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            // An error means that the client did not trust us.
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, upstream, &planned, &seen).await;
                            }
                        }
                        None => serve(stream, upstream, &planned, &seen).await,
                    }
                });
            }
        });
        Self { address, fates, heads }
    }

    /// Plans the fate of the next connections; later ones are passed on.
    pub(crate) fn plan(&self, fates: impl IntoIterator<Item = Fate>) {
        self.fates.lock().unwrap().extend(fates);
    }

    /// The heads of all requests until now.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    upstream: SocketAddr,
    planned: &Mutex<VecDeque<Fate>>,
    seen: &Mutex<Vec<String>>,
) {
    let request = request(&mut stream).await;
    let (head, _) = request.split_once("\r\n\r\n").unwrap_or((&request, ""));
    seen.lock().unwrap().push(head.to_owned());
    let fate = planned.lock().unwrap().pop_front();
    if let Some(Fate::Answered(answer)) = fate {
        stream.write_all(answer.as_bytes()).await.ok();
        stream.shutdown().await.ok();
        return;
    }
    let mut broker = TcpStream::connect(upstream).await.unwrap();
    broker.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    broker.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.is_empty(), "the broker answered");
    match fate {
        // Only dropped: the client sees the connection end.
        Some(Fate::Lost) => return,
        Some(Fate::Held(go)) => go.notified().await,
        Some(Fate::Answered(_)) | None => {}
    }
    stream.write_all(&answer).await.ok();
    stream.shutdown().await.ok();
}

/// One whole request, by its content length.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length:").map(|length| length.trim().parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.unwrap_or(0);
        if read == 0 {
            return text;
        }
        bytes.extend_from_slice(&piece[..read]);
    }
}

/// A proxy that knows CONNECT alone, and takes every name for one address.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let (listener, address) = listen();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&heads);
        runtime().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let head = request(&mut stream).await;
                    let is_connect = head.starts_with("CONNECT ");
                    seen.lock().unwrap().push(head);
                    if !is_connect {
                        stream.write_all(b"HTTP/1.1 405 No\r\nconnection: close\r\n\r\n").await.ok();
                        return;
                    }
                    let mut broker = TcpStream::connect(target).await.unwrap();
                    stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
                    // An error means that one of them went away.
                    copy_bidirectional(&mut stream, &mut broker).await.ok();
                });
            }
        });
        Self { address, heads }
    }

    /// The heads of all requests until now.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
