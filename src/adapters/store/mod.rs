//! The durable store and ledger. One room an engine; this version has SQLite, for one machine.

pub mod sqlite;

pub use sqlite::{
    AcceptedPolicy, Change, CopyFault, CreateFault, Genesis, Handover, HeldKey, LedgerRow, LettingIn,
    OpenFault, Options, PolicyStanding, Random, Rotated, RotationFault, SealingHandover, SecretFault,
    SecretListing, Sqlite,
};
