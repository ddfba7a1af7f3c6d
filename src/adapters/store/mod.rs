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
    shared::rotation::{Handover, HeldKey, Random, Rotated, RotationFault, SealingHandover, Telling},
    sqlite::{
        AcceptedPolicy, Change, CopyFault, CreateFault, Genesis, LedgerRow, LettingIn, OpenFault, Options,
        PolicyStanding, SecretFault, SecretListing, Sqlite,
    },
};
