//! C2SP tlog-proof: an inclusion proof and its checkpoint in one text.

use crate::kernel::digest::Digest;

/// A proof as text says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// The entry's index.
    pub index: u64,
    /// The inclusion proof.
    pub hashes: Vec<Digest>,
    /// The signed checkpoint note.
    pub checkpoint: String,
}

impl TlogProof {
    /// Reads the text; `None` where it is not a tlog-proof.
    pub fn parse(_text: &str) -> Option<Self> {
        todo!()
    }
}

impl std::fmt::Display for TlogProof {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
