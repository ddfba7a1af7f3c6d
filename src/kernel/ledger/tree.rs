//! The Merkle tree of RFC 6962 section 2.1 over SHA-256, and its compact right edge.
//!
//! The writer appends through a [`Frontier`], which needs nothing but the roots of the full subtrees at the right edge
//! of the tree, so that a batch costs two hashes a leaf and reads no row. Proofs of older entries come from
//! [`inclusion_proof`] and [`consistency_proof`] over a [`Hashes`]; a store gives one by [`FromRows`], which reads
//! short ranges of rows only. Nothing here does I/O. The offline verifier does not use this module: it has hashes and
//! walks of its own, so that one mistake cannot hide in both.

use std::{cell::RefCell, collections::HashMap};

use aws_lc_rs::digest::{Context, SHA256};

use crate::kernel::digest::Digest;

/// How many levels a stored row spans: rows are kept at levels 0, 8, 16, …, as the tiles of C2SP tlog-tiles are.
pub const TILE_LEVELS: u8 = 8;

/// SHA-256(0x00 || entry): the prefix keeps an entry from passing for a node (RFC 6962 section 2.1).
pub fn leaf_hash(entry: &[u8]) -> Digest {
    hash_of(&[&[0], entry])
}

/// SHA-256(0x01 || left || right).
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    hash_of(&[&[1], &left.0, &right.0])
}

/// The right edge of a tree: the roots of its full subtrees, greatest first. Enough to append and to know the root.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

/// What appending a batch gave.
#[derive(Clone, Debug)]
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
    /// Takes a stored frontier back; `None` where the number of peaks is not the number of ones in `size`, or the size
    /// is over 2^62, which no log reaches and no arithmetic here overflows.
    pub fn restore(size: u64, peaks: Vec<Digest>) -> Option<Self> {
        let fits = usize::try_from(size.count_ones()).ok()? == peaks.len() && size <= 1 << 62;
        fits.then_some(Self { size, peaks })
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
        fold(&self.peaks).unwrap_or_else(|| Digest::of(b""))
    }

    /// Appends leaves. Two hashes a leaf; the proofs come from the right edge alone, since every sibling of a new
    /// leaf's path is a peak of the old tree or was made just now.
    pub fn append(&self, leaves: &[Digest]) -> Appended {
        let size = self.size + leaves.len() as u64;
        let rows = self.rows(leaves, size);
        let edge = edges(&rows, size);
        let proofs = (self.size..size).map(|index| proof_from(&rows, &edge, index, size)).collect();
        let mut full = Vec::new();
        for (level, row) in (0_u8..).zip(&rows).filter(|(level, _)| *level > 0 && level % TILE_LEVELS == 0) {
            // An old peak opens its row, and was reported when it became full.
            for index in (self.size >> level)..(size >> level) {
                full.extend(row.get(index).map(|hash| (level, index, hash)));
            }
        }
        let odd = (0_u8..).zip(&rows).filter(|(level, _)| size >> level & 1 == 1);
        let mut peaks: Vec<Digest> = odd.filter_map(|(level, row)| row.get((size >> level) - 1)).collect();
        peaks.reverse();
        let frontier = Self { size, peaks };
        Appended { root: frontier.root(), frontier, proofs, full }
    }

    /// All full nodes that the batch makes, and beside them the old peaks: one row a level. At each level the row
    /// begins at an even index, because an old node at an even index without its right brother is a peak.
    fn rows(&self, leaves: &[Digest], size: u64) -> Vec<Row> {
        let mut peaks = self.peaks.iter().rev();
        let mut made = leaves.to_vec();
        let mut rows = Vec::new();
        for level in 0..64_u8 {
            let nodes = self.size >> level;
            if size >> level == 0 {
                break;
            }
            let mut row = Row { from: nodes, hashes: Vec::with_capacity(made.len() + 1) };
            if nodes & 1 == 1 {
                row.from = nodes - 1;
                row.hashes.extend(peaks.next());
            }
            row.hashes.append(&mut made);
            made = row.hashes.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
            rows.push(row);
        }
        rows
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

/// What a store keeps of the tree: rows of hashes at levels 0 (the leaves), 8, 16, …
pub trait Rows {
    /// Why a range could not be read.
    type Fault;

    /// The hashes at that level (a multiple of 8) with `from <= index < to`, in order; at most 256 are asked at once.
    ///
    /// # Errors
    ///
    /// The store's own fault.
    fn range(&self, level: u8, from: u64, to: u64) -> Result<Vec<Digest>, Self::Fault>;
}

/// Why [`FromRows`] has no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsFault<F> {
    /// A row that the tree's size promises is not there.
    #[error("the tree lacks rows at level {level} from index {from}")]
    Missing {
        /// The level of the rows.
        level: u8,
        /// The first index of the range that came short.
        from: u64,
    },
    /// The store's own fault.
    #[error("the tree's rows cannot be read")]
    Source(#[source] F),
}

/// [`Hashes`] over [`Rows`]: reads whole runs of 256 and keeps them, so that one proof costs at most two ranges a
/// tile level (in a log of 16 million entries: six reads).
pub struct FromRows<'a, R> {
    rows: &'a R,
    size: u64,
    tiles: RefCell<HashMap<(u8, u64), Vec<Digest>>>,
}

impl<'a, R: Rows> FromRows<'a, R> {
    /// Reads a tree of that size; rows beyond it are not asked for.
    pub fn new(rows: &'a R, size: u64) -> Self {
        Self { rows, size, tiles: RefCell::new(HashMap::new()) }
    }
}

impl<R: Rows> Hashes for FromRows<'_, R> {
    type Fault = RowsFault<R::Fault>;

    fn hash(&self, level: u8, index: u64) -> Result<Digest, Self::Fault> {
        let within = level % TILE_LEVELS;
        let base = level - within;
        let first = index << within;
        let tile = first >> TILE_LEVELS;
        let (from, to) = (tile << TILE_LEVELS, ((tile + 1) << TILE_LEVELS).min(self.size >> base));
        let missing = RowsFault::Missing { level: base, from };
        let mut tiles = self.tiles.borrow_mut();
        let hashes = match tiles.entry((base, tile)) {
            std::collections::hash_map::Entry::Occupied(kept) => kept.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => {
                let read = self.rows.range(base, from, to).map_err(RowsFault::Source)?;
                if read.len() as u64 != to.saturating_sub(from) {
                    return Err(missing);
                }
                free.insert(read)
            }
        };
        let start = usize::try_from(first - from).unwrap_or(usize::MAX);
        let span = hashes.get(start..).and_then(|rest| rest.get(..1_usize << within));
        span.map(|span| merge(span.to_vec())).ok_or(missing)
    }
}

/// The inclusion proof of a leaf in the tree of that size (RFC 6962 section 2.1.1), from the leaf's sibling up to the
/// root's child. Empty where there is no such leaf: that proves nothing.
///
/// # Errors
///
/// The source's fault.
pub fn inclusion_proof<H: Hashes>(index: u64, size: u64, hashes: &H) -> Result<Vec<Digest>, H::Fault> {
    let mut proof = Vec::new();
    if index < size {
        climb(index, 0, size, hashes, &mut proof)?;
    }
    Ok(proof)
}

/// The proof that the tree of `old` leaves is the beginning of the tree of `new` ones (RFC 6962 section 2.1.2). Empty
/// where `old` is 0, equal to `new`, or greater.
///
/// # Errors
///
/// The source's fault.
pub fn consistency_proof<H: Hashes>(old: u64, new: u64, hashes: &H) -> Result<Vec<Digest>, H::Fault> {
    let mut proof = Vec::new();
    if old == 0 || old >= new {
        return Ok(proof);
    }
    // The last full subtree of the old tree is where both trees can still be compared. Where it is the whole old tree
    // the reader knows its hash already.
    let level = low_bit(old);
    let index = (old >> level) - 1;
    if !old.is_power_of_two() {
        proof.push(hashes.hash(level, index)?);
    }
    climb(index, level, new, hashes, &mut proof)?;
    Ok(proof)
}

/// The root that an inclusion proof leads to; `None` where its length does not fit (RFC 9162 section 2.1.3.2).
pub fn root_from_inclusion(index: u64, size: u64, leaf: &Digest, proof: &[Digest]) -> Option<Digest> {
    let mut node = index;
    let mut last = size.checked_sub(1).filter(|last| index <= *last)?;
    let mut root = *leaf;
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            root = node_hash(sibling, &root);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            root = node_hash(&root, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

/// Whether a proof shows that the tree (`old`, `old_root`) is the beginning of (`new`, `new_root`); RFC 9162 section
/// 2.1.4.2. The empty tree is the beginning of every tree and needs an empty proof.
pub fn is_consistent(old: (u64, &Digest), new: (u64, &Digest), proof: &[Digest]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == new_size {
        return proof.is_empty() && old_root == new_root;
    }
    if old_size == 0 {
        return proof.is_empty() && *old_root == Digest::of(b"");
    }
    roots_from_consistency(old_size, new_size, old_root, proof) == Some((*old_root, *new_root))
}

fn roots_from_consistency(
    old_size: u64,
    new_size: u64,
    old_root: &Digest,
    proof: &[Digest],
) -> Option<(Digest, Digest)> {
    if old_size > new_size {
        return None;
    }
    let (seed, path) = if old_size.is_power_of_two() { (old_root, proof) } else { proof.split_first()? };
    let level = low_bit(old_size);
    let mut node = (old_size - 1) >> level;
    let mut last = (new_size - 1) >> level;
    let (mut old, mut new) = (*seed, *seed);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some((old, new))
}

/// Collects the siblings on the way from a node to the root of the tree of that size.
fn climb<H: Hashes>(
    mut node: u64,
    from: u8,
    size: u64,
    hashes: &H,
    proof: &mut Vec<Digest>,
) -> Result<(), H::Fault> {
    for level in from..64 {
        let last = (size - 1) >> level;
        if last == 0 {
            break;
        }
        if node != last || node & 1 == 1 {
            let sibling = node ^ 1;
            let hash =
                if sibling == last { ragged(level, size, hashes)? } else { hashes.hash(level, sibling)? };
            proof.push(hash);
        }
        node >>= 1;
    }
    Ok(())
}

/// The hash of the last node at a level, which need not be full: the fold of the full subtrees in it.
fn ragged<H: Hashes>(level: u8, size: u64, hashes: &H) -> Result<Digest, H::Fault> {
    let from = ((size - 1) >> level) << level;
    let mut at = from;
    let mut peaks = Vec::new();
    for step in (0..=level).rev() {
        if (size - from) >> step & 1 == 1 {
            peaks.push(hashes.hash(step, at >> step)?);
            at += 1 << step;
        }
    }
    Ok(fold(&peaks).unwrap_or_else(|| Digest::of(b"")))
}

/// The full nodes of one level from an index on.
struct Row {
    from: u64,
    hashes: Vec<Digest>,
}

impl Row {
    fn get(&self, index: u64) -> Option<Digest> {
        let at = usize::try_from(index.checked_sub(self.from)?).ok()?;
        self.hashes.get(at).copied()
    }
}

/// The hash of the last node of each level, full or not.
fn edges(rows: &[Row], size: u64) -> Vec<Digest> {
    let Some(last) = size.checked_sub(1) else { return Vec::new() };
    let Some(mut edge) = rows.first().and_then(|row| row.get(last)) else { return Vec::new() };
    let mut edges = Vec::new();
    for (level, row) in (0_u8..).zip(rows) {
        edges.push(edge);
        let node = last >> level;
        if node & 1 == 1
            && let Some(left) = row.get(node - 1)
        {
            edge = node_hash(&left, &edge);
        }
    }
    // Above the last row there may be one more level: the root of a tree that is no power of two.
    edges.push(edge);
    edges
}

fn proof_from(rows: &[Row], edges: &[Digest], index: u64, size: u64) -> Vec<Digest> {
    let mut proof = Vec::new();
    for (level, row) in (0_u8..).zip(rows) {
        let (node, last) = (index >> level, (size - 1) >> level);
        if last > 0 && (node != last || node & 1 == 1) {
            let sibling = node ^ 1;
            let edge = || edges.get(usize::from(level)).copied();
            proof.extend(if sibling == last { edge() } else { row.get(sibling) });
        }
    }
    proof
}

/// The root over subtrees of falling size: the right ones are joined first.
fn fold(peaks: &[Digest]) -> Option<Digest> {
    let (last, rest) = peaks.split_last()?;
    Some(rest.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// The root of a full subtree over its leaves.
fn merge(mut row: Vec<Digest>) -> Digest {
    while row.len() > 1 {
        row = row.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    row.first().copied().unwrap_or_else(|| Digest::of(b""))
}

fn low_bit(number: u64) -> u8 {
    u8::try_from(number.trailing_zeros()).unwrap_or(u8::MAX)
}

fn hash_of(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Digest(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6962 section 2.1 word for word: the largest power of two below n splits, and the halves recur.
    mod naive {
        use super::super::{leaf_hash, node_hash};
        use crate::kernel::digest::Digest;

        fn split(n: usize) -> usize {
            1 << (usize::BITS - 1 - (n - 1).leading_zeros())
        }

        pub(super) fn root(d: &[Vec<u8>]) -> Digest {
            match d {
                [] => Digest::of(b""),
                [one] => leaf_hash(one),
                _ => {
                    let (left, right) = d.split_at(split(d.len()));
                    node_hash(&root(left), &root(right))
                }
            }
        }

        pub(super) fn path(m: usize, d: &[Vec<u8>]) -> Vec<Digest> {
            if d.len() <= 1 {
                return Vec::new();
            }
            let k = split(d.len());
            let (left, right) = d.split_at(k);
            let (mut path, other) =
                if m < k { (path(m, left), root(right)) } else { (path(m - k, right), root(left)) };
            path.push(other);
            path
        }

        pub(super) fn proof(m: usize, d: &[Vec<u8>], whole: bool) -> Vec<Digest> {
            if m == d.len() {
                return if whole { Vec::new() } else { vec![root(d)] };
            }
            let k = split(d.len());
            let (left, right) = d.split_at(k);
            let (mut proof, other) = if m <= k {
                (proof(m, left, whole), root(right))
            } else {
                (proof(m - k, right, false), root(left))
            };
            proof.push(other);
            proof
        }
    }

    /// Rows as a store would hold them.
    struct Held {
        leaves: Vec<Digest>,
        full: HashMap<(u8, u64), Digest>,
        reads: RefCell<usize>,
    }

    impl Rows for Held {
        type Fault = ();

        fn range(&self, level: u8, from: u64, to: u64) -> Result<Vec<Digest>, ()> {
            *self.reads.borrow_mut() += 1;
            assert!(to - from <= 256 && level.is_multiple_of(8));
            Ok((from..to)
                .filter_map(|index| match level {
                    0 => self.leaves.get(usize::try_from(index).unwrap()).copied(),
                    _ => self.full.get(&(level, index)).copied(),
                })
                .collect())
        }
    }

    fn entries(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|n| format!("entry {n}").into_bytes()).collect()
    }

    fn leaves(entries: &[Vec<u8>]) -> Vec<Digest> {
        entries.iter().map(|entry| leaf_hash(entry)).collect()
    }

    fn grown(leaves: &[Digest], batch: usize) -> (Frontier, Held) {
        let mut frontier = Frontier::default();
        let mut full = HashMap::new();
        for chunk in leaves.chunks(batch) {
            let appended = frontier.append(chunk);
            for (level, index, hash) in appended.full {
                assert_eq!(full.insert((level, index), hash), None, "reported twice");
            }
            frontier = appended.frontier;
        }
        (frontier, Held { leaves: leaves.to_vec(), full, reads: RefCell::new(0) })
    }

    fn vector() -> Vec<Vec<u8>> {
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
            .iter()
            .map(|hex| {
                (0..hex.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                    .collect()
            })
            .collect()
    }

    fn hex(text: &str) -> Digest {
        Digest::from_hex(text).unwrap()
    }

    /// The reference roots of the certificate-transparency implementations (merkletree tests of
    /// certificate-transparency-go and trillian).
    #[test]
    fn roots_are_the_published_vectors() {
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves = leaves(&vector());
        for (size, root) in roots.iter().enumerate() {
            assert_eq!(Frontier::default().append(&leaves[..size]).root, hex(root), "{size}");
        }
    }

    #[test]
    fn proofs_are_the_published_vectors() {
        let leaves = leaves(&vector());
        let (_, held) = grown(&leaves, 3);
        let hashes = FromRows::new(&held, 8);
        assert_eq!(
            inclusion_proof(5, 8, &hashes).unwrap(),
            [
                hex("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
                hex("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"),
                hex("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            ]
        );
        assert_eq!(
            consistency_proof(6, 8, &hashes).unwrap(),
            [
                hex("0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"),
                hex("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"),
                hex("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            ]
        );
    }

    #[test]
    fn every_proof_of_every_small_tree_is_that_of_the_rfc() {
        for size in 1..=40_usize {
            let entries = entries(size);
            let all = leaves(&entries);
            let (frontier, held) = grown(&all, 7);
            let (root, hashes) = (naive::root(&entries), FromRows::new(&held, size as u64));
            assert_eq!(frontier.root(), root);
            for (index, leaf) in all.iter().enumerate() {
                let proof = inclusion_proof(index as u64, size as u64, &hashes).unwrap();
                assert_eq!(proof, naive::path(index, &entries), "{index} in {size}");
                assert_eq!(root_from_inclusion(index as u64, size as u64, leaf, &proof), Some(root));
            }
            for old in 1..=size {
                let proof = consistency_proof(old as u64, size as u64, &hashes).unwrap();
                assert_eq!(proof, naive::proof(old, &entries, true), "{old} in {size}");
                let old_root = naive::root(&entries[..old]);
                assert!(is_consistent((old as u64, &old_root), (size as u64, &root), &proof));
            }
        }
    }

    proptest! {
        #[test]
        fn a_batch_gives_the_rfc_root_and_proofs(old in 0..700_usize, batch in 1..300_usize) {
            let entries = entries(old + batch);
            let all = leaves(&entries);
            let appended = grown(&all[..old], 61).0.append(&all[old..]);
            prop_assert_eq!(appended.root, naive::root(&entries));
            prop_assert_eq!(appended.proofs.len(), batch);
            for index in [0, batch / 2, batch - 1] {
                prop_assert_eq!(&appended.proofs[index], &naive::path(old + index, &entries));
            }
            let restored = Frontier::restore((old + batch) as u64, appended.frontier.peaks().to_vec());
            prop_assert_eq!(restored, Some(appended.frontier));
        }

        #[test]
        fn rows_give_the_rfc_proofs_in_few_reads(size in 1..1400_usize, at in any::<prop::sample::Index>()) {
            let entries = entries(size);
            let all = leaves(&entries);
            let (_, held) = grown(&all, 100);
            let index = at.index(size);
            let proof = inclusion_proof(index as u64, size as u64, &FromRows::new(&held, size as u64)).unwrap();
            prop_assert_eq!(proof, naive::path(index, &entries));
            prop_assert!(*held.reads.borrow() <= 4);
            let old = index + 1;
            let proof = consistency_proof(old as u64, size as u64, &FromRows::new(&held, size as u64)).unwrap();
            prop_assert_eq!(&proof, &naive::proof(old, &entries, true));
            let (old_root, root) = (naive::root(&entries[..old]), naive::root(&entries));
            prop_assert!(is_consistent((old as u64, &old_root), (size as u64, &root), &proof));
        }

        #[test]
        fn a_spoilt_proof_leads_elsewhere(size in 2..300_usize, at in any::<prop::sample::Index>(), bit in 0..256_usize) {
            let entries = entries(size);
            let all = leaves(&entries);
            let (frontier, held) = grown(&all, 50);
            let index = at.index(size) as u64;
            let leaf = all[at.index(size)];
            let proof = inclusion_proof(index, size as u64, &FromRows::new(&held, size as u64)).unwrap();
            let mut spoilt = proof.clone();
            let place = at.index(spoilt.len());
            spoilt[place].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(root_from_inclusion(index, size as u64, &leaf, &spoilt), Some(frontier.root()));
            prop_assert_eq!(root_from_inclusion(index, size as u64, &leaf, &proof[1..]), None);
            let longer = [proof.as_slice(), &[leaf]].concat();
            prop_assert_eq!(root_from_inclusion(index, size as u64, &leaf, &longer), None);
        }
    }

    #[test]
    fn larger_trees_report_each_full_subtree_once() {
        let all: Vec<Digest> = (0..66_000_u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let (frontier, held) = grown(&all, 997);
        assert_eq!(held.full.len(), 257 + 1, "257 of 256 leaves, one of 65,536");
        assert_eq!(frontier.root(), Frontier::default().append(&all).root);
        let size = 66_000;
        for index in [0, 65_535, 65_536, 65_999] {
            *held.reads.borrow_mut() = 0;
            let proof = inclusion_proof(index, size, &FromRows::new(&held, size)).unwrap();
            assert_eq!(
                root_from_inclusion(index, size, &all[usize::try_from(index).unwrap()], &proof),
                Some(frontier.root())
            );
            assert!(*held.reads.borrow() <= 5, "{index}: {}", held.reads.borrow());
        }
    }

    #[test]
    fn an_empty_batch_changes_nothing() {
        let (frontier, _) = grown(&leaves(&entries(5)), 2);
        let appended = frontier.append(&[]);
        assert_eq!((appended.root, &appended.frontier), (frontier.root(), &frontier));
        assert!(appended.proofs.is_empty() && appended.full.is_empty());
        assert_eq!(Frontier::default().append(&[]).root, Digest::of(b""));
    }

    #[test]
    fn a_frontier_needs_a_peak_for_each_one_of_its_size() {
        let peak = leaf_hash(b"a");
        assert!(Frontier::restore(3, vec![peak]).is_none());
        assert!(Frontier::restore(0, vec![peak]).is_none());
        assert!(Frontier::restore(4, vec![peak]).is_some());
    }

    #[test]
    fn missing_rows_are_a_fault_and_no_proof() {
        let (_, mut held) = grown(&leaves(&entries(600)), 600);
        held.leaves.truncate(599);
        let fault = inclusion_proof(590, 600, &FromRows::new(&held, 600));
        assert_eq!(fault, Err(RowsFault::Missing { level: 0, from: 512 }));
        held.full.remove(&(8, 0));
        let fault = inclusion_proof(400, 600, &FromRows::new(&held, 600));
        assert!(matches!(fault, Err(RowsFault::Missing { level: 0 | 8, .. })));
    }

    #[test]
    fn no_proof_fits_a_leaf_outside_the_tree_or_a_shrunken_tree() {
        let leaf = leaf_hash(b"a");
        assert_eq!(root_from_inclusion(0, 0, &leaf, &[]), None);
        assert_eq!(root_from_inclusion(1, 1, &leaf, &[]), None);
        assert_eq!(root_from_inclusion(0, 1, &leaf, &[]), Some(leaf));
        assert!(!is_consistent((2, &leaf), (1, &leaf), &[]));
        assert!(!is_consistent((1, &leaf), (3, &leaf), &[]));
        assert!(is_consistent((0, &Digest::of(b"")), (3, &leaf), &[]));
    }
}
