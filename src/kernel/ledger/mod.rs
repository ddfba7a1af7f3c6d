//! The ledger: one RFC 6962 Merkle log in C2SP formats. Entries, tree, signed checkpoints, proofs, exports, and the
//! offline verifier, which shares nothing with the writer but the formats. The formats stand in
//! [the manual](crate::manual::ledger).

pub mod checkpoint;
pub mod entry;
pub mod export;
pub mod proof;
pub mod subject;
pub mod tiles;
pub mod tree;
pub mod verify;
