//! The verifier's own tree: it shares no code with [`tree`](super::super::tree), so that one mistake cannot hide in
//! both. RFC 6962 section 2.1, a leaf at a time, and its recursive walk of a path.

use std::collections::BTreeMap;

use crate::kernel::digest::Digest;

/// The tree so far, as a stack of full subtrees, and the roots at the sizes that somebody asked for.
pub(super) struct Roots {
    stack: Vec<(u32, Digest)>,
    pub(super) size: u64,
    wanted: BTreeMap<u64, Option<Digest>>,
    full: Vec<FullSubtree>,
}

/// A full subtree of the levels at which logs keep them: every eighth (C2SP tlog-tiles).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullSubtree {
    /// How many doublings above the leaves.
    pub level: u8,
    /// Its place among those of its level.
    pub index: u64,
    /// Its hash.
    pub hash: Digest,
}

impl Roots {
    pub(super) fn new(wanted: impl IntoIterator<Item = u64>) -> Self {
        let mut wanted: BTreeMap<u64, Option<Digest>> = wanted.into_iter().map(|size| (size, None)).collect();
        wanted.entry(0).and_modify(|root| *root = Some(Digest::of(b"")));
        Self { stack: Vec::new(), size: 0, wanted, full: Vec::new() }
    }

    pub(super) fn push(&mut self, leaf: Digest) {
        let (mut height, mut hash) = (0, leaf);
        while let Some((_, left)) = self.stack.pop_if(|(top, _)| *top == height) {
            hash = node(&left, &hash);
            height += 1;
            if height % KEPT_LEVELS == 0 {
                let level = u8::try_from(height).unwrap_or(u8::MAX);
                self.full.push(FullSubtree { level, index: self.size >> height, hash });
            }
        }
        self.stack.push((height, hash));
        self.size += 1;
        if self.wanted.contains_key(&self.size) {
            let root = self.root();
            self.wanted.insert(self.size, Some(root));
        }
    }

    /// The full subtrees that were completed since this was last asked.
    pub(super) fn take_full(&mut self) -> Vec<FullSubtree> {
        std::mem::take(&mut self.full)
    }

    /// The full subtrees that the entries so far fall into, the last first.
    pub(super) fn subtrees(&self) -> impl Iterator<Item = &Digest> {
        self.stack.iter().rev().map(|(_, hash)| hash)
    }

    pub(super) fn root(&self) -> Digest {
        let mut hashes = self.stack.iter().rev().map(|(_, hash)| *hash);
        let last = hashes.next().unwrap_or_else(|| Digest::of(b""));
        hashes.fold(last, |right, left| node(&left, &right))
    }

    /// The root at a size that was asked for; `None` where the log did not get so far.
    pub(super) fn at(&self, size: u64) -> Option<Digest> {
        self.wanted.get(&size).copied().flatten()
    }
}

const KEPT_LEVELS: u32 = 8;

/// The hash of an entry's bytes as a leaf.
pub(super) fn leaf(bytes: &[u8]) -> Digest {
    let mut input = vec![0];
    input.extend_from_slice(bytes);
    Digest::of(&input)
}

/// The root that a path leads to, by the recursion of RFC 6962 section 2.1.1; `None` where the path does not fit.
pub(super) fn by_path(index: u64, size: u64, leaf: &Digest, path: &[Digest]) -> Option<Digest> {
    if index >= size {
        return None;
    }
    if size == 1 {
        return path.is_empty().then_some(*leaf);
    }
    let (sibling, rest) = path.split_last()?;
    let half = 1_u64 << (u64::BITS - 1 - (size - 1).leading_zeros());
    if index < half {
        by_path(index, half, leaf, rest).map(|left| node(&left, sibling))
    } else {
        by_path(index - half, size - half, leaf, rest).map(|right| node(sibling, &right))
    }
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut input = [1; 65];
    input.iter_mut().skip(1).zip(left.0.iter().chain(&right.0)).for_each(|(to, from)| *to = *from);
    Digest::of(&input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ledger::tree::Frontier;

    #[test]
    fn both_trees_agree_though_they_share_no_code() {
        let leaves: Vec<Digest> = (0..300_u32).map(|n| leaf(&n.to_be_bytes())).collect();
        let mut roots = Roots::new([0, 100, 301]);
        for (size, hash) in (1_u64..).zip(&leaves) {
            roots.push(*hash);
            let appended = Frontier::default().append(&leaves[..usize::try_from(size).unwrap()]);
            assert_eq!(roots.root(), appended.root);
            let (index, proof) = (size / 3, &appended.proofs[usize::try_from(size / 3).unwrap()]);
            let leaf = &leaves[usize::try_from(index).unwrap()];
            assert_eq!(by_path(index, size, leaf, proof), Some(appended.root));
            assert_eq!(by_path(index, size + size, leaf, proof), None);
        }
        assert_eq!(roots.at(0), Some(Digest::of(b"")));
        assert_eq!(roots.at(100), Some(Frontier::default().append(&leaves[..100]).root));
        assert_eq!(roots.at(301), None);
        let hash = Frontier::default().append(&leaves[..256]).root;
        assert_eq!(roots.take_full(), [FullSubtree { level: 8, index: 0, hash }]);
        assert_eq!(roots.take_full(), []);
    }
}
