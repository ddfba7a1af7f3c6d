//! Hallpass: a secrets broker for CI.
//!
//! A pipeline job proves who it is with the OIDC token that its CI system mints. Hallpass validates the token,
//! decides by policy files kept in git, exchanges it for a credential that lives for minutes, and writes every
//! decision into a tamper-evident ledger.
//!
//! The floors, each importing only from below: [`cli`] wires; [`http`] and [`adapters`] speak to the outside and
//! are blind to each other; [`broker`] holds the use cases; [`kernel`] is pure.

pub mod adapters;
pub mod broker;
pub mod cli;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod kernel;
pub mod manual;

#[cfg(all(hallpass_faults, not(debug_assertions)))]
compile_error!("hallpass_faults switches promises off for tests: no optimised build may have it");
