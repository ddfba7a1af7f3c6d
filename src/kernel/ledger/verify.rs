//! The offline verifier: entries, heads, proofs and anchors in, a verdict out. It computes everything anew.

use super::checkpoint::VerifierKey;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything holds, and an anchor or key from elsewhere vouches for it.
    Anchored,
    /// Everything holds together, but nothing from elsewhere vouches for it.
    Consistent,
    /// Something does not hold.
    Broken(Vec<String>),
}

/// Placeholder for the verifier's input.
pub struct Evidence {
    /// The key, where one is known from elsewhere.
    pub key: Option<VerifierKey>,
}
