//! A CI system's OIDC issuer on loopback: discovery and keys over real HTTP, tokens signed by real keys. What it mints
//! is right unless a test spoils it.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    http::StatusCode,
    response::IntoResponse as _,
    routing::{MethodRouter, get},
};
use serde_json::{Value, json};

use super::{AUDIENCE, key::compact, runtime};

pub(crate) use super::key::Key;

/// The id of the key that the issuer publishes.
pub(crate) const KID: &str = "ci-2026-11";

#[derive(Clone)]
pub(crate) struct Issuer {
    pub(crate) url: String,
    fetches: Arc<AtomicU64>,
    is_down: Arc<Mutex<bool>>,
}

impl Issuer {
    /// Serves discovery and its own key until the process ends.
    pub(crate) fn start() -> Self {
        let mut own = own_key().jwk(KID);
        set(&mut own, json!({ "use": "sig", "alg": "RS256" }));
        Self::publishing(vec![own])
    }

    /// The same with any keys, good ones and bad ones.
    pub(crate) fn publishing(keys: Vec<Value>) -> Self {
        let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fetches = Arc::new(AtomicU64::new(0));
        let is_down = Arc::new(Mutex::new(false));
        let discovery = json!({
            "issuer": url,
            "jwks_uri": format!("{url}/keys"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", answer(discovery, &fetches, &is_down))
            .route("/keys", answer(json!({ "keys": keys }), &fetches, &is_down));
        runtime().spawn(async move { axum::serve(listener, router).await });
        Self { url, fetches, is_down }
    }

    /// The full payload of a job that every sample policy permits.
    pub(crate) fn valid_claims(&self) -> Value {
        valid_claims(&self.url)
    }

    /// A token of a permitted job.
    pub(crate) fn token(&self) -> String {
        self.mint(self.valid_claims())
    }

    /// A token of a permitted job with some claims set otherwise; `null` takes one away.
    pub(crate) fn token_with(&self, spoiled: Value) -> String {
        let mut claims = self.valid_claims();
        set(&mut claims, spoiled);
        self.mint(claims)
    }

    /// Signs a payload as the issuer does.
    pub(crate) fn mint(&self, claims: Value) -> String {
        sign(own_key(), &json!({ "alg": "RS256", "typ": "JWT", "kid": KID }), &claims)
    }

    /// How many requests it answered.
    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Answers 503 from now on.
    pub(crate) fn go_down(&self) {
        *self.is_down.lock().unwrap() = true;
    }
}

/// A key of the issuer that every test shares: making one takes a second.
pub(crate) fn own_key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(Key::rsa)
}

/// A key that no issuer publishes.
pub(crate) fn foreign_key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(Key::rsa)
}

/// Signs any header and payload.
pub(crate) fn sign(key: &Key, header: &Value, payload: &Value) -> String {
    sign_text(key, &header.to_string(), &payload.to_string())
}

/// The same for texts that need not be JSON.
pub(crate) fn sign_text(key: &Key, header: &str, payload: &str) -> String {
    compact(header, payload, |signed| key.sign(signed))
}

/// The payload of a GitHub Actions job (reference: github/docs, `security/oidc`), minted now.
pub(crate) fn valid_claims(issuer: &str) -> Value {
    let now = now();
    json!({
        "jti": fresh_id(), "iss": issuer, "aud": AUDIENCE, "iat": now, "nbf": now - 600, "exp": now + 300,
        "sub": "repo:acme@4216/payments@70155112:environment:production",
        "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true",
        "sha": "9f3182061f1e2cca4702c368cbc039b7dc9d4485",
        "repository": "acme/payments", "repository_id": "70155112", "repository_visibility": "private",
        "repository_owner": "acme", "repository_owner_id": "4216",
        "enterprise": "acme-inc", "enterprise_id": "311",
        "actor": "alice-the-actor", "actor_id": "990017",
        "workflow": "Deploy", "workflow_ref": "acme/payments/.github/workflows/deploy.yml@refs/heads/main",
        "workflow_sha": "9f3182061f1e2cca4702c368cbc039b7dc9d4485",
        "job_workflow_ref": "acme/ci-library/.github/workflows/deploy.yml@refs/tags/v4",
        "job_workflow_sha": "27b0e1a44b6bd6c1b4f1a0d3e5ffb6d1f0c1a2b3",
        "head_ref": "", "base_ref": "", "event_name": "push",
        "environment": "production", "environment_node_id": "EN_kwDOB1",
        "run_id": "18412345678", "run_number": "412", "run_attempt": "1", "check_run_id": "52412345678",
        "runner_environment": "github-hosted", "repo_property_data_class": "restricted",
    })
}

/// Sets members; `null` takes one away.
pub(crate) fn set(claims: &mut Value, changes: Value) {
    let claims = claims.as_object_mut().unwrap();
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (name, value) in changes {
        if value.is_null() {
            claims.remove(&name);
        } else {
            claims.insert(name, value);
        }
    }
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the binary under test reads the machine's clock, so its issuer must"
)]
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

/// A UUID-shaped text that no other token has.
pub(crate) fn fresh_id() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

fn answer(body: Value, fetches: &Arc<AtomicU64>, is_down: &Arc<Mutex<bool>>) -> MethodRouter {
    let (fetches, is_down) = (Arc::clone(fetches), Arc::clone(is_down));
    get(move || {
        fetches.fetch_add(1, Ordering::SeqCst);
        let answer = if *is_down.lock().unwrap() {
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        } else {
            Json(body).into_response()
        };
        std::future::ready(answer)
    })
}
