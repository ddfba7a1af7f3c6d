//! The HTTP floor: two listeners' routes, one file a verb, and the connections under them.
//!
//! It reads requests strictly, asks the broker, and writes answers; it decides nothing about policy and knows no
//! adapter. The order of checks is the contract's (design: section 2): route, load, source rate and body before any
//! token is looked at, the body's content after. `cli` wires it: [`public_router`] and [`admin_router`] are served by
//! [`serve`], each on its own listener.

mod answer;
mod bearer;
mod carrier;
mod connection;
mod emergency;
mod exchange;
mod grants;
mod head;
mod health;
mod intake;
mod issuances;
mod layers;
mod ledger;
mod listening;
mod metrics;
mod openapi;
mod parcel;
mod problem;
mod protocol;
mod reply;
mod revocations;
mod roles;
mod source;
mod token;
mod trace;
mod traffic;
mod wellknown;
mod whoami;
mod wire;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{MethodRouter, get, post},
};
use serde_json::Value;

use crate::broker::{Broker, metrics::Exposition};
use layers::{Gate, only};
use openapi::Listener;

pub use connection::serve;
pub use listening::{Listening, UnixSocket};
pub use openapi::document as openapi_document;
pub use roles::{AdminToken, Role};
pub use source::Network;
pub use traffic::Traffic;

/// Everything that the floor needs, wired once.
pub struct Floor {
    /// The use cases.
    pub broker: Arc<Broker>,
    /// What one source and all together may ask for.
    pub limits: Limits,
    /// Hallpass as an OIDC issuer.
    pub own_issuer: OwnIssuer,
    /// Who may use the admin API.
    pub admin_tokens: Vec<AdminToken>,
    /// What is counted of requests.
    pub traffic: Arc<Traffic>,
    /// Writes the figures of what lies outside this floor and the broker: the process, certificates.
    pub process: Box<dyn Fn(&mut Exposition) + Send + Sync>,
    /// Proxies before the public listener that may say where a request comes from.
    pub trusted_proxies: Vec<Network>,
}

/// What others check our own assertions by.
pub struct OwnIssuer {
    /// The discovery document; none where the issuer's URL is not that of the public listener, since whoever asks there
    /// must be told the URL that was asked.
    pub configuration: Option<Value>,
    /// Makes the set of public keys as it is now.
    pub jwks: Box<dyn Fn() -> Value + Send + Sync>,
    /// For how long a verifier may keep either.
    pub max_age: Duration,
}

/// Limits on requests, of each listener by itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests a second from one address (IPv6: one /64).
    pub per_source_per_second: u32,
    /// Requests in flight.
    pub in_flight: usize,
}

/// The public listener's routes.
pub fn public_router(floor: Arc<Floor>) -> Router {
    let gate = Gate::new(floor.limits, Arc::clone(&floor.traffic), Listener::Public);
    let routes = public_routes(&gate).0;
    layers::around(Arc::clone(&floor), Listener::Public, routes, &floor.trusted_proxies)
}

fn public_routes(gate: &Gate) -> Routes {
    Routes::default()
        .route("/livez", "GET, HEAD", get(health::live))
        .route("/v1/exchange", "POST", gate.before(post(exchange::create)))
        .route("/v1/grants", "GET", gate.before(get(grants::list)))
        .route(
            "/v1/issuances/{id}",
            "GET, DELETE",
            gate.before(get(issuances::show).delete(issuances::give_back)),
        )
        .route("/v1/openapi.json", "GET", gate.before(get(openapi::show)))
        .route("/v1/revocations", "POST", gate.before(post(revocations::of_job)))
        .route(token::PATH, "POST", token::speak_oauth(gate.before(post(token::exchange))))
        .route("/v1/whoami", "GET", gate.before(get(whoami::show)))
        .route("/.well-known/jwks.json", "GET", gate.before(get(wellknown::jwks)))
        .route("/.well-known/openid-configuration", "GET", gate.before(get(wellknown::configuration)))
}

/// The admin listener's routes.
pub fn admin_router(floor: Arc<Floor>) -> Router {
    let gate = Gate::new(floor.limits, Arc::clone(&floor.traffic), Listener::Admin);
    layers::around(floor, Listener::Admin, admin_routes(&gate).0, &[])
}

fn admin_routes(gate: &Gate) -> Routes {
    Routes::default()
        .route("/ledger/checkpoint", "GET", gate.before(get(ledger::checkpoint)))
        .route("/ledger/tile/{*place}", "GET", gate.before(get(ledger::tile)))
        .route("/livez", "GET, HEAD", get(health::live))
        .route("/metrics", "GET", get(metrics::show))
        .route("/readyz", "GET, HEAD", get(health::ready))
        .route("/v1/admin/revocations", "POST", gate.before(post(emergency::revoke)))
        .route("/v1/freezes", "GET, POST", gate.before(get(emergency::list).post(emergency::freeze)))
        .route("/v1/thaws", "POST", gate.before(post(emergency::thaw)))
        .route("/v1/ledger/checkpoint", "GET", gate.before(get(ledger::checkpoint)))
        .route("/v1/ledger/entries", "GET", gate.before(get(ledger::search)))
        .route("/v1/ledger/entries/{index}", "GET", gate.before(get(ledger::entry)))
        .route("/v1/ledger/entries/{index}/proof", "GET", gate.before(get(ledger::proof)))
}

/// Routes of a listener, and what they are: a path, and the methods that it takes as `Allow` lists them.
#[derive(Default)]
struct Routes(Router<Arc<Floor>>, Vec<(&'static str, &'static str)>);

impl Routes {
    fn route(mut self, path: &'static str, methods: &'static str, routes: MethodRouter<Arc<Floor>>) -> Self {
        self.1.push((path, methods));
        Self(self.0.route(path, only(methods, routes)), self.1)
    }
}

/// Whether the bytes read as an exchange's body.
#[cfg(any(test, fuzzing))]
pub(crate) fn reads_as_exchange(body: &[u8]) -> bool {
    wire::read_ask(body, &http::HeaderMap::new()).is_ok()
}
