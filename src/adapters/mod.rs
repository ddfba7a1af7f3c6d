//! To be written.

pub mod http_client;
pub mod issuer_keys;
