//! An issuer on loopback that answers whatever a test tells it to, byte for byte, and counts what was asked of it; and
//! a trap, which only counts who comes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
};

use super::{
    AUDIENCE,
    authority::Certified,
    issuer::{KID, own_key, set, sign, valid_claims},
    runtime,
};

/// What it answers.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A response as it is.
    Bytes(Vec<u8>),
    /// A head, then a byte from time to time until the client hangs up.
    Drip,
    /// 200 and this body without a length, again and again until the client hangs up.
    Endless(&'static str),
    /// 200 and this document.
    Json(Value),
    /// Nothing at all until the client hangs up.
    Silence,
}

impl Reply {
    /// A response of a status, with these lines in its head.
    pub(crate) fn status(status: u16, head: &str, body: &[u8]) -> Self {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n");
        Self::Bytes([head.as_bytes(), body].concat())
    }

    /// A redirect.
    pub(crate) fn redirect(status: u16, to: &str) -> Self {
        Self::status(status, &format!("location: {to}\r\n"), b"")
    }
}

/// The issuer.
pub(crate) struct HostileIssuer {
    pub(crate) url: String,
    state: Arc<State>,
}

struct State {
    discovery: Mutex<Reply>,
    keys: Mutex<Reply>,
    connections: AtomicU64,
    /// The heads of all requests.
    asked: Mutex<Vec<String>>,
    /// Bytes of endless bodies that were taken from it.
    written: AtomicU64,
    /// Answers that the client did not wait for the end of.
    cut_off: AtomicU64,
    /// While true, no answer is begun.
    held: watch::Sender<bool>,
}

impl HostileIssuer {
    /// Speaks HTTP, and is right until it is told otherwise.
    pub(crate) fn start() -> Self {
        Self::listen(None)
    }

    /// The same over TLS, under the name `localhost`.
    pub(crate) fn with_tls(certified: &Certified) -> Self {
        Self::listen(Some(certified))
    }

    fn listen(tls: Option<&Certified>) -> Self {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let url = match tls {
            None => format!("http://{address}"),
            Some(_) => format!("https://localhost:{}", address.port()),
        };
        let state = Arc::new(State {
            discovery: Mutex::new(Reply::Silence),
            keys: Mutex::new(Reply::Silence),
            connections: AtomicU64::new(0),
            asked: Mutex::new(Vec::new()),
            written: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
            held: watch::Sender::new(false),
        });
        let acceptor = tls.map(Certified::acceptor);
        let shared = Arc::clone(&state);
        runtime().spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (state, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => state.attend(stream).await,
                        // A client that does not trust us ends the handshake.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                state.attend(stream).await;
                            }
                        }
                    }
                });
            }
        });
        let issuer = Self { url, state };
        issuer.be_right();
        issuer
    }

    /// Right discovery, and the one key that [`Self::token`] is signed by.
    pub(crate) fn be_right(&self) {
        self.answer_discovery(Reply::Json(self.discovery()));
        self.publish(vec![Self::own_jwk()]);
    }

    /// The right discovery document.
    pub(crate) fn discovery(&self) -> Value {
        json!({ "issuer": self.url, "jwks_uri": format!("{}/keys", self.url) })
    }

    /// The key that [`Self::token`] is signed by.
    pub(crate) fn own_jwk() -> Value {
        let mut jwk = own_key().jwk(KID);
        set(&mut jwk, json!({ "use": "sig", "alg": "RS256" }));
        jwk
    }

    pub(crate) fn answer_discovery(&self, reply: Reply) {
        *self.state.discovery.lock().unwrap() = reply;
    }

    /// Answers this on every path but discovery's.
    pub(crate) fn answer_keys(&self, reply: Reply) {
        *self.state.keys.lock().unwrap() = reply;
    }

    /// Publishes these keys.
    pub(crate) fn publish(&self, keys: Vec<Value>) {
        self.answer_keys(Reply::Json(json!({ "keys": keys })));
    }

    /// Begins no answer until it is told to let go.
    pub(crate) fn hold(&self) {
        self.state.held.send_replace(true);
    }

    pub(crate) fn let_go(&self) {
        self.state.held.send_replace(false);
    }

    /// A token of a job that every sample policy permits.
    pub(crate) fn token(&self) -> String {
        sign(own_key(), &json!({ "alg": "RS256", "typ": "JWT", "kid": KID }), &valid_claims(&self.url))
    }

    /// The same under the name of another key.
    pub(crate) fn token_of(&self, kid: &str) -> String {
        sign(own_key(), &json!({ "alg": "RS256", "typ": "JWT", "kid": kid }), &valid_claims(&self.url))
    }

    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The heads of all requests, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.asked.lock().unwrap().len()
    }

    pub(crate) fn written(&self) -> u64 {
        self.state.written.load(Ordering::SeqCst)
    }

    pub(crate) fn cut_off(&self) -> u64 {
        self.state.cut_off.load(Ordering::SeqCst)
    }

    /// A line of `issuers` for `hallpass.yaml`, with more keys.
    pub(crate) fn configured(&self, name: &str, more: &str) -> String {
        let url = &self.url;
        format!(
            "  {name}: {{ url: \"{url}\", profile: github-actions, allow_private_addresses: true{more} }}\n"
        )
    }

    /// The policy file that trusts it.
    pub(crate) fn policy(&self, name: &str) -> String {
        let url = &self.url;
        format!(
            "issuer: {name}\nprofile: github-actions\nurl: {url}\naudience: {AUDIENCE}\nmax_token_age: 10m\n"
        )
    }
}

impl State {
    /// One request; its connection ends with it.
    async fn attend(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let of_discovery = head.contains("/.well-known/openid-configuration ");
        self.asked.lock().unwrap().push(head);
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        let reply = if of_discovery { &self.discovery } else { &self.keys }.lock().unwrap().clone();
        if self.reply(&mut stream, reply).await.is_err() {
            self.cut_off.fetch_add(1, Ordering::SeqCst);
        }
        stream.shutdown().await.ok();
    }

    async fn reply(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        reply: Reply,
    ) -> std::io::Result<()> {
        match reply {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await,
            Reply::Json(document) => {
                let Reply::Bytes(bytes) = Reply::status(200, "", document.to_string().as_bytes()) else {
                    unreachable!()
                };
                stream.write_all(&bytes).await
            }
            Reply::Drip => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{").await?;
                loop {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    stream.write_all(b" ").await?;
                    stream.flush().await?;
                }
            }
            Reply::Endless(body) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                let chunk = format!("{:x}\r\n{body}\r\n", body.len());
                loop {
                    stream.write_all(chunk.as_bytes()).await?;
                    self.written.fetch_add(body.len() as u64, Ordering::SeqCst);
                }
            }
            Reply::Silence => {
                let hung_up = stream.read_u8().await;
                hung_up.and(Err(std::io::ErrorKind::ConnectionAborted.into()))
            }
        }
    }
}

/// A listener where nobody has any business.
pub(crate) struct Trap {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicU64>,
}

impl Trap {
    pub(crate) fn set() -> Self {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        runtime().spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { address, connections }
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}
