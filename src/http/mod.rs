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
mod parcel;
mod problem;
mod protocol;
mod reply;
mod revocations;
mod roles;
mod source;
mod token;
mod wellknown;
mod whoami;
mod wire;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
use serde_json::Value;

use crate::broker::Broker;
use layers::{Gate, only};

pub use connection::serve;
pub use listening::{Listening, UnixSocket};
pub use roles::{AdminToken, Role};
pub use source::Network;

/// Everything that the floor needs, wired once.
pub struct Floor {
    /// The use cases.
    pub broker: Arc<Broker>,
    /// What one source and all together may ask for.
    pub limits: Limits,
    /// Hallpass's own discovery document as an OIDC issuer; null where it signs no assertions.
    pub openid_configuration: Value,
    /// Hallpass's own public keys; null where it signs no assertions.
    pub jwks: Value,
    /// Who may use the admin API.
    pub admin_tokens: Vec<AdminToken>,
    /// Proxies before the public listener that may say where a request comes from.
    pub trusted_proxies: Vec<Network>,
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
    let gate = Gate::new(floor.limits);
    let router = Router::new()
        .route("/livez", only("GET, HEAD", get(health::live)))
        .route("/v1/exchange", only("POST", gate.before(post(exchange::create))))
        .route("/v1/grants", only("GET", gate.before(get(grants::list))))
        .route(
            "/v1/issuances/{id}",
            only("GET, DELETE", gate.before(get(issuances::show).delete(issuances::give_back))),
        )
        .route("/v1/revocations", only("POST", gate.before(post(revocations::of_job))))
        .route(token::PATH, only("POST", token::speak_oauth(gate.before(post(token::exchange)))))
        .route("/v1/whoami", only("GET", gate.before(get(whoami::show))))
        .route("/.well-known/jwks.json", only("GET", gate.before(get(wellknown::jwks))))
        .route("/.well-known/openid-configuration", only("GET", gate.before(get(wellknown::configuration))));
    layers::around(Arc::clone(&floor), router, &floor.trusted_proxies)
}

/// The admin listener's routes.
pub fn admin_router(floor: Arc<Floor>) -> Router {
    let gate = Gate::new(floor.limits);
    let router = Router::new()
        .route("/livez", only("GET, HEAD", get(health::live)))
        .route("/readyz", only("GET, HEAD", get(health::ready)))
        .route("/v1/admin/revocations", only("POST", gate.before(post(emergency::revoke))))
        .route("/v1/freezes", only("GET, POST", gate.before(get(emergency::list).post(emergency::freeze))))
        .route("/v1/thaws", only("POST", gate.before(post(emergency::thaw))))
        .route("/v1/ledger/checkpoint", only("GET", gate.before(get(ledger::checkpoint))))
        .route("/v1/ledger/entries", only("GET", gate.before(get(ledger::search))))
        .route("/v1/ledger/entries/{index}", only("GET", gate.before(get(ledger::entry))))
        .route("/v1/ledger/entries/{index}/proof", only("GET", gate.before(get(ledger::proof))));
    layers::around(floor, router, &[])
}

/// Whether the bytes read as an exchange's body.
#[cfg(any(test, fuzzing))]
pub(crate) fn reads_as_exchange(body: &[u8]) -> bool {
    wire::read_ask(body, &http::HeaderMap::new()).is_ok()
}
