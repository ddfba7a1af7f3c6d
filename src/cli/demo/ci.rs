//! The demo's CI system: a real OIDC issuer on loopback, with discovery, a key set and RS256 tokens. The broker knows it
//! by configuration only and takes the ordinary path to it: HTTP, discovery, cache, verification. It mints whatever it
//! is asked for, so it lives and dies with the demo and binds loopback alone.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use axum::{Json, Router, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// A running CI issuer.
pub(super) struct CiIssuer {
    url: String,
    key: KeyPair,
    server: JoinHandle<()>,
}

/// Why the demo's issuer cannot run.
#[derive(Debug, thiserror::Error)]
pub(super) enum CiFault {
    /// No key, or no signature.
    #[error("the demo's issuer could not make its key or a token")]
    Crypto,
    /// No loopback port.
    #[error("the demo's issuer could not listen on loopback")]
    Listen(#[source] std::io::Error),
}

impl CiIssuer {
    /// Makes a key and serves its public half on a free loopback port.
    ///
    /// # Errors
    ///
    /// [`CiFault`].
    pub(super) async fn start() -> Result<Self, CiFault> {
        let key = KeyPair::generate(KeySize::Rsa2048).map_err(|_| CiFault::Crypto)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(CiFault::Listen)?;
        let url = format!("http://{}", listener.local_addr().map_err(CiFault::Listen)?);
        let public = key.public_key();
        let jwks = json!({ "keys": [{
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KID,
            "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
            "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
        }]});
        let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { Json(discovery) }))
            .route("/jwks", get(move || async move { Json(jwks) }));
        let server = tokio::spawn(async move {
            if let Err(fault) = axum::serve(listener, router).await {
                tracing::error!(%fault, "the demo's issuer ended");
            }
        });
        Ok(Self { url, key, server })
    }

    /// The `iss` of its tokens.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Signs the claims as they are; `iss` is set to its own.
    ///
    /// # Errors
    ///
    /// [`CiFault::Crypto`].
    pub(super) fn mint(&self, claims: &Map<String, Value>) -> Result<String, CiFault> {
        let mut claims = claims.clone();
        claims.insert("iss".to_owned(), self.url.clone().into());
        let header = json!({ "alg": "RS256", "kid": KID, "typ": "JWT" });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&Value::Object(claims)));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign_digest(&RSA_PKCS1_SHA256, &digest(&SHA256, signed.as_bytes()), &mut signature)
            .map_err(|_| CiFault::Crypto)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Drop for CiIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// It has one key for its short life.
const KID: &str = "demo-1";
