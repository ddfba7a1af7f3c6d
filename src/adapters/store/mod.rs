//! The durable store and ledger. One room an engine; this version has SQLite, for one machine.

pub mod sqlite;

pub use sqlite::{
    AcceptedPolicy, Change, CreateFault, Genesis, LedgerRow, LettingIn, OpenFault, Options, PolicyStanding,
    SecretFault, SecretListing, Sqlite,
};
