//! What a test needs to run Hallpass as an operator does: a CI issuer, an installation made by `hallpass init`, the
//! built binary serving it, and a client without pooled connections.

pub(crate) mod apache;
pub(crate) mod authority;
pub(crate) mod ci;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod component;
pub(crate) mod forgery;
pub(crate) mod front;
pub(crate) mod gate;
pub(crate) mod hostile_issuer;
pub(crate) mod installation;
pub(crate) mod issuer;
pub(crate) mod key;
pub(crate) mod kubernetes;
pub(crate) mod memory;
pub(crate) mod moto;
pub(crate) mod npm;
pub(crate) mod proxy;
pub(crate) mod python;
pub(crate) mod radosgw;
pub(crate) mod raw;
pub(crate) mod situations;
pub(crate) mod slapd;
pub(crate) mod trust;
pub(crate) mod vault;
pub(crate) mod vault_server;

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

pub(crate) use client::{Answer, Client};
pub(crate) use cluster::Cluster;
pub(crate) use installation::{Installation, Server};
pub(crate) use issuer::Issuer;

/// What tokens are minted for.
pub(crate) const AUDIENCE: &str = "https://hallpass.test";

/// How long anything on this machine may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The runtime under issuers and clients; tests themselves are plain functions.
pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

/// Looks until there is something to see; panics with `what` when patience ends.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
