//! Prose that outlives a change: formats, promises, and where we depart from a standard.

pub mod assertions;
pub mod backends;
pub mod engines;
pub mod entries;
pub mod exchange;
pub mod findings;
pub mod issuers;
pub mod ledger;
pub mod metrics;
pub mod performance;
pub mod postgres;
pub mod profiles;
pub mod requests;
pub mod spans;
