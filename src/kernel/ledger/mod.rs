//! The ledger: one RFC 6962 Merkle log in C2SP formats. Entries, tree, signed checkpoints, proofs, and the offline
//! verifier, which shares nothing with the writer but the formats.

pub mod checkpoint;
pub mod entry;
pub mod proof;
pub mod tree;
pub mod verify;
