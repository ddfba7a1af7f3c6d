//! Signed checkpoints: C2SP tlog-checkpoint in a C2SP signed-note, Ed25519.

use crate::kernel::{digest::Digest, secret::Secret};

/// A tree head with the log's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's origin line.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The root.
    pub root: Digest,
}

/// The log's signing key.
pub struct LogKey {
    pub(super) origin: String,
    pub(super) pair: aws_lc_rs::signature::Ed25519KeyPair,
}

/// The log's verifier key (`ORIGIN+HASH+BASE64`, C2SP signed-note).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    pub(super) name: String,
    pub(super) id: [u8; 4],
    pub(super) public: [u8; 32],
}

/// Why a note is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteFault {
    /// It is not a signed checkpoint.
    #[error("not a signed checkpoint: {0}")]
    Malformed(&'static str),
    /// No signature by this key.
    #[error("no signature by the given key")]
    Unsigned,
    /// A signature by this key that does not hold.
    #[error("the signature does not hold")]
    Forged,
}

impl LogKey {
    /// Takes a 32-byte seed (RFC 8032).
    pub fn from_seed(_origin: &str, _seed: &Secret) -> Option<Self> {
        todo!()
    }

    /// The public half.
    pub fn verifier(&self) -> VerifierKey {
        todo!()
    }

    /// Signs a tree head: the whole note.
    pub fn sign(&self, _size: u64, _root: &Digest) -> String {
        todo!()
    }
}

impl VerifierKey {
    /// Reads `ORIGIN+HASH+BASE64`.
    pub fn parse(_text: &str) -> Option<Self> {
        todo!()
    }

    /// Opens a note: checks that this key signed it, and reads the checkpoint.
    ///
    /// # Errors
    ///
    /// [`NoteFault`].
    pub fn open(&self, _note: &str) -> Result<Checkpoint, NoteFault> {
        todo!()
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
