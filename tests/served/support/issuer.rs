//! A CI system's OIDC issuer on loopback: discovery and keys over real HTTP, tokens signed by a real RSA key. What it
//! mints is right unless a test spoils it.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use axum::{
    Json, Router,
    http::StatusCode,
    response::IntoResponse as _,
    routing::{MethodRouter, get},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{AUDIENCE, runtime};

/// The id of the key that the issuer publishes.
pub(crate) const KID: &str = "ci-2026-11";

pub(crate) struct Issuer {
    pub(crate) url: String,
    fetches: Arc<AtomicU64>,
    is_down: Arc<Mutex<bool>>,
}

impl Issuer {
    /// Serves discovery and keys until the process ends.
    pub(crate) fn start() -> Self {
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
            .route("/keys", answer(json!({ "keys": [own_key().public(KID)] }), &fetches, &is_down));
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
    KEY.get_or_init(Key::generate)
}

/// A key that no issuer publishes.
pub(crate) fn foreign_key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(Key::generate)
}

/// Signs any header and payload.
pub(crate) fn sign(key: &Key, header: &Value, payload: &Value) -> String {
    sign_text(key, &header.to_string(), &payload.to_string())
}

/// The same for texts that need not be JSON.
pub(crate) fn sign_text(key: &Key, header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let mut signature = vec![0; key.0.public_modulus_len()];
    key.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An RSA key.
pub(crate) struct Key(KeyPair);

impl Key {
    fn generate() -> Self {
        Self(KeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn public(&self, kid: &str) -> Value {
        let [modulus, exponent] = integers(self.0.public_key().as_ref());
        let [n, e] = [modulus, exponent].map(|each| URL_SAFE_NO_PAD.encode(each));
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e })
    }
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

/// The two integers of an `RSAPublicKey` (RFC 8017 appendix A.1.1), which is a sequence of just them.
fn integers(der: &[u8]) -> [&[u8]; 2] {
    let (0x30, sequence, []) = element(der) else { panic!("not a sequence") };
    let (0x02, modulus, rest) = element(sequence) else { panic!("no modulus") };
    let (0x02, exponent, []) = element(rest) else { panic!("no exponent") };
    [modulus, exponent].map(|integer| integer.strip_prefix(&[0]).unwrap_or(integer))
}

fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (tag, length, rest) = (der[0], usize::from(der[1]), &der[2..]);
    if length < 0x80 {
        return (tag, &rest[..length], &rest[length..]);
    }
    let (digits, rest) = rest.split_at(length & 0x7f);
    let length = digits.iter().fold(0, |sum, digit| (sum << 8) | usize::from(*digit));
    (tag, &rest[..length], &rest[length..])
}
