//! A gate in front of Vault: plain HTTP on loopback, led on to the real one. It holds one request at a named moment, on its
//! way there or with its answer on the way back, until the test has done what it wants to do at that moment.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use tokio::sync::oneshot;

use super::{PATIENCE, runtime, vault_server::VaultServer};

/// A running gate; it lives until the process ends.
pub(crate) struct Gate {
    /// Its address, without path.
    pub(crate) url: String,
    way: Arc<Way>,
}

struct Way {
    vault: String,
    client: reqwest::Client,
    trap: Mutex<Option<Trap>>,
}

/// Where a request is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// It has left the broker, and Vault has not seen it.
    Asked,
    /// Vault has done it, and the broker does not know.
    Answered,
}

struct Trap {
    path: String,
    side: Side,
    reached: mpsc::Sender<()>,
    goes_on: oneshot::Receiver<()>,
    done: mpsc::Sender<()>,
}

/// The other end of a held request. Dropped, it loses the request, or its answer.
pub(crate) struct Hold {
    reached: mpsc::Receiver<()>,
    goes_on: oneshot::Sender<()>,
    done: mpsc::Receiver<()>,
}

impl Hold {
    /// Waits until the request is held.
    #[track_caller]
    pub(crate) fn wait(&self) {
        self.reached.recv_timeout(PATIENCE).expect("a request at the gate");
    }

    /// Lets it go on, and waits until Vault has answered it, whether or not anybody is there to hear that.
    #[track_caller]
    pub(crate) fn release(self) {
        self.goes_on.send(()).expect("a request that is held");
        self.done.recv_timeout(PATIENCE).expect("an answer of Vault's");
    }
}

impl Gate {
    pub(crate) fn before(vault: &VaultServer) -> Self {
        let authority = reqwest::Certificate::from_pem(vault.authority.certificate.as_bytes()).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).timeout(PATIENCE);
        let way = Arc::new(Way {
            vault: vault.url.clone(),
            client: client.build().unwrap(),
            trap: Mutex::default(),
        });
        let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass).with_state(Arc::clone(&way));
        runtime().spawn(async move { axum::serve(listener, router).await });
        Self { url, way }
    }

    /// Holds the next request to a path below `/v1/`.
    pub(crate) fn hold(&self, path: &str, side: Side) -> Hold {
        let ((reached, seen), (goes_on, told), (done, ended)) =
            (mpsc::channel(), oneshot::channel(), mpsc::channel());
        let trap = Trap { path: format!("/v1/{path}"), side, reached, goes_on: told, done };
        *self.way.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(trap);
        Hold { reached: seen, goes_on, done: ended }
    }
}

/// A task of its own, since a server forgets the requests of a client that is gone, and a network does not.
async fn pass(State(way): State<Arc<Way>>, request: Request) -> Response {
    let lost = || StatusCode::BAD_GATEWAY.into_response();
    tokio::spawn(async move { way.pass(request).await }).await.ok().flatten().unwrap_or_else(lost)
}

impl Way {
    fn trapped(&self, path: &str) -> Option<Trap> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner).take_if(|trap| trap.path == path)
    }

    async fn pass(&self, request: Request) -> Option<Response> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, 1 << 20).await.ok()?;
        let trap = self.trapped(parts.uri.path());
        let Some(Trap { side, reached, goes_on, done, .. }) = trap else {
            return self.forward(&parts, body).await;
        };
        if side == Side::Asked {
            reached.send(()).ok()?;
            goes_on.await.ok()?;
            let answer = self.forward(&parts, body).await;
            done.send(()).ok();
            return answer;
        }
        let answer = self.forward(&parts, body).await;
        reached.send(()).ok()?;
        goes_on.await.ok()?;
        done.send(()).ok();
        answer
    }

    async fn forward(&self, parts: &http::request::Parts, body: bytes::Bytes) -> Option<Response> {
        let path = parts.uri.path_and_query()?;
        let mut asked = self.client.request(parts.method.clone(), format!("{}{path}", self.vault)).body(body);
        for name in ["x-vault-token", "x-vault-request", "x-vault-namespace", "content-type"] {
            if let Some(value) = parts.headers.get(name) {
                asked = asked.header(name, value);
            }
        }
        let answer = asked.timeout(Duration::from_secs(20)).send().await.ok()?;
        let status = answer.status();
        Some((status, Body::from(answer.bytes().await.ok()?)).into_response())
    }
}
