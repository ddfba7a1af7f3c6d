//! Fakes of the services by which CI systems mint identity tokens. They refuse what the real ones refuse, and sign with
//! the kit's issuer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::any,
};
use serde_json::{Value, json};

use super::super::support::{issuer, runtime};

/// The bearer that a job of GitHub holds for the service.
pub(crate) const REQUEST_TOKEN: &str = "eyJ-request-token-of-this-job-cAnArY";

/// GitHub's token service, as a fake on loopback.
pub(crate) struct FakeGitHubTokens {
    /// `ACTIONS_ID_TOKEN_REQUEST_URL`.
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    issuer: String,
    claims: Value,
    /// What it answers instead, first in first out.
    instead: Mutex<VecDeque<StatusCode>>,
    minted: Mutex<Vec<String>>,
}

impl FakeGitHubTokens {
    /// Starts one that mints for `issuer`, with some claims set otherwise.
    pub(crate) fn start(issuer: &str, claims: Value) -> Self {
        let instead = Mutex::default();
        let shared =
            Arc::new(Shared { issuer: issuer.to_owned(), claims, instead, minted: Mutex::default() });
        let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(any(github)).with_state(Arc::clone(&shared));
        runtime().spawn(async move { axum::serve(listener, router).await });
        Self { url: format!("http://{address}{PATH}?api-version=2.0"), shared }
    }

    /// Answers so, once.
    pub(crate) fn answer_once(&self, status: StatusCode) {
        self.shared.instead.lock().unwrap().push_back(status);
    }

    /// The tokens minted until now.
    pub(crate) fn minted(&self) -> Vec<String> {
        self.shared.minted.lock().unwrap().clone()
    }
}

/// As the real one's: the double slash is theirs.
const PATH: &str = "/103//idtoken/0a1b2c3d/4e5f6071";

async fn github(State(shared): State<Arc<Shared>>, uri: Uri, method: Method, headers: HeaderMap) -> Response {
    if let Some(status) = shared.instead.lock().unwrap().pop_front() {
        return (status, "not now").into_response();
    }
    let refuse =
        |status: StatusCode, why: &'static str| (status, Json(json!({ "message": why }))).into_response();
    if uri.path() != PATH {
        return refuse(StatusCode::NOT_FOUND, "no such job");
    }
    if method != "GET" {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "ask by GET");
    }
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
    if header("authorization") != format!("Bearer {REQUEST_TOKEN}") {
        return refuse(StatusCode::UNAUTHORIZED, "another bearer");
    }
    if !header("accept").starts_with("application/json") {
        return refuse(StatusCode::NOT_ACCEPTABLE, "only JSON is there");
    }
    let query: Vec<(String, String)> =
        reqwest::Url::parse(&format!("http://h{uri}")).unwrap().query_pairs().into_owned().collect();
    let of = |name: &str| -> Vec<&str> {
        query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    };
    if of("api-version") != ["2.0"] {
        return refuse(StatusCode::BAD_REQUEST, "api-version is not 2.0");
    }
    let [audience] = of("audience")[..] else {
        return refuse(StatusCode::BAD_REQUEST, "not one audience");
    };
    let mut claims = issuer::valid_claims(&shared.issuer);
    issuer::set(&mut claims, shared.claims.clone());
    issuer::set(&mut claims, json!({ "aud": audience }));
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": issuer::KID });
    let token = issuer::sign(issuer::own_key(), &header, &claims);
    shared.minted.lock().unwrap().push(token.clone());
    Json(json!({ "count": token.len(), "value": token })).into_response()
}
