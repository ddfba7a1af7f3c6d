//! The Merkle tree of RFC 6962 section 2.1 over SHA-256, and its compact right edge.

use crate::kernel::digest::Digest;

/// SHA-256(0x00 || entry).
pub fn leaf_hash(_entry: &[u8]) -> Digest {
    todo!()
}

/// SHA-256(0x01 || left || right).
pub fn node_hash(_left: &Digest, _right: &Digest) -> Digest {
    todo!()
}

/// The right edge of a tree: the roots of its full subtrees, greatest first. Enough to append and to know the root.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

/// What appending a batch gave.
pub struct Appended {
    /// The frontier afterwards.
    pub frontier: Frontier,
    /// The root afterwards.
    pub root: Digest,
    /// An inclusion proof for each new leaf against that root.
    pub proofs: Vec<Vec<Digest>>,
    /// Hashes of subtrees that became full, as (level, index at that level, hash), level a multiple of 8 and at
    /// least 8 (each covers 256^k leaves): what the store keeps so that later proofs read few rows.
    pub full: Vec<(u8, u64, Digest)>,
}

impl Frontier {
    /// Takes a stored frontier back; `None` where the number of peaks is not the number of ones in `size`.
    pub fn restore(size: u64, peaks: Vec<Digest>) -> Option<Self> {
        (usize::try_from(size.count_ones()).ok()? == peaks.len()).then_some(Self { size, peaks })
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The peaks, greatest subtree first.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// The root; SHA-256 of nothing for the empty tree.
    pub fn root(&self) -> Digest {
        todo!()
    }

    /// Appends leaves.
    pub fn append(&self, _leaves: &[Digest]) -> Appended {
        todo!()
    }
}

/// A source of subtree hashes, for proofs of older entries: the hash of the full subtree at (level, index), where
/// level 0 is a leaf.
pub trait Hashes {
    /// Why a hash could not be had.
    type Fault;

    /// The hash.
    ///
    /// # Errors
    ///
    /// The source's own fault.
    fn hash(&self, level: u8, index: u64) -> Result<Digest, Self::Fault>;
}

/// The inclusion proof of a leaf in the tree of that size (RFC 6962 section 2.1.1).
///
/// # Errors
///
/// The source's fault.
pub fn inclusion_proof<H: Hashes>(_index: u64, _size: u64, _hashes: &H) -> Result<Vec<Digest>, H::Fault> {
    todo!()
}

/// The root that an inclusion proof leads to; `None` where its length does not fit (RFC 9162 section 2.1.3.2).
pub fn root_from_inclusion(_index: u64, _size: u64, _leaf: &Digest, _proof: &[Digest]) -> Option<Digest> {
    todo!()
}
