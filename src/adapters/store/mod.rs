//! The durable store and ledger. One room an engine: SQLite for one machine, PostgreSQL for many brokers; `database` is
//! either of them, `shared` is what both do alike.

mod database;
#[cfg(test)]
mod laws;
pub mod postgres;
mod shared;
pub mod sqlite;

pub use self::{
    database::{Database, StorePlace},
    postgres::Postgres,
    shared::assertions::{AssertionHandover, AssertionRotation, AssertionRotationFault},
    shared::publication::{LEASE, Lease},
    sqlite::{
        AcceptedPolicy, Change, CopyFault, CreateFault, Genesis, Handover, HeldKey, LedgerRow, LettingIn,
        OpenFault, Options, PolicyStanding, Random, Rotated, RotationFault, SealingHandover, SecretFault,
        SecretListing, Sqlite,
    },
};
