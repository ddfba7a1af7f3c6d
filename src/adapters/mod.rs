//! One room for each outside system: the store, the minters, issuers' keys. They implement the broker's ports, and
//! are blind to each other and to the wire.

#[cfg(feature = "otel")]
pub mod collector;
pub mod http_client;
pub mod issuer_keys;
pub mod mint;
pub mod policy_source;
pub mod published;
pub mod store;
pub mod vault;
