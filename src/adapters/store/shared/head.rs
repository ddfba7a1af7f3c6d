//! The tree head as a writer knows it, how entries get behind it, and what a batch came to.

use std::{ops::Range, sync::Arc};

use super::columns::Prepared;
use crate::{
    broker::ports::Receipt,
    kernel::{
        digest::Digest,
        ledger::{
            checkpoint::VerifierKey,
            proof::TlogProof,
            tree::{Appended, Frontier},
        },
    },
};

/// The head as the writer knows it.
#[derive(Clone)]
pub(in crate::adapters::store) struct Head {
    /// The peaks of the tree.
    pub(in crate::adapters::store) frontier: Frontier,
    /// Its root.
    pub(in crate::adapters::store) root: Digest,
}

/// What entries make of a head.
pub(in crate::adapters::store) struct Grown {
    /// The head afterwards.
    pub(in crate::adapters::store) head: Head,
    /// Roots of subtrees that became full: level, index, hash.
    pub(in crate::adapters::store) full: Vec<(u8, u64, Digest)>,
    /// What receipts are made of.
    pub(in crate::adapters::store) committed: Committed,
}

impl Head {
    /// Takes a head as stored; the fault is a sentence on how it does not hold together.
    pub(in crate::adapters::store) fn restore(
        size: u64,
        root: Digest,
        peaks: &[u8],
    ) -> Result<Self, &'static str> {
        let peaks: Vec<Digest> = peaks
            .chunks(32)
            .map(|chunk| <[u8; 32]>::try_from(chunk).map(Digest))
            .collect::<Result<_, _>>()
            .map_err(|_| "the head's peaks are no digests")?;
        let frontier = Frontier::restore(size, peaks).ok_or("the head's peaks do not fit its size")?;
        if frontier.root() != root {
            return Err("the head's peaks do not lead to its root");
        }
        Ok(Self { frontier, root })
    }

    /// Looks whether a note is signed for this head.
    pub(in crate::adapters::store) fn check_note(
        &self,
        note: &str,
        key: &VerifierKey,
    ) -> Result<(), &'static str> {
        let signed_head = key.open(note).map_err(|_| "the head is not signed by the log's key")?;
        if signed_head.size != self.frontier.size() || signed_head.root != self.root {
            return Err("the signed head is not the stored one");
        }
        Ok(())
    }

    /// Puts entries behind it and signs the head that they make.
    pub(in crate::adapters::store) fn grow(
        &self,
        entries: Vec<Arc<Prepared>>,
        sign: &dyn Fn(u64, &Digest) -> String,
    ) -> Grown {
        let first = self.frontier.size();
        let leaves: Vec<Digest> = entries.iter().map(|prepared| prepared.entry.leaf).collect();
        let Appended { frontier, root, proofs, full } = self.frontier.append(&leaves);
        let note = sign(frontier.size(), &root);
        Grown { head: Self { frontier, root }, full, committed: Committed { first, entries, proofs, note } }
    }

    /// The peaks as stored: one behind the other.
    pub(in crate::adapters::store) fn peaks(&self) -> Vec<u8> {
        peaks_of(&self.frontier)
    }
}

/// The peaks as stored: one behind the other.
pub(in crate::adapters::store) fn peaks_of(frontier: &Frontier) -> Vec<u8> {
    frontier.peaks().iter().flat_map(|peak| peak.0).collect()
}

/// What a batch came to: enough to make every receipt, outside the writer.
pub(in crate::adapters::store) struct Committed {
    /// The index of the first entry.
    pub(in crate::adapters::store) first: u64,
    /// The entries.
    pub(in crate::adapters::store) entries: Vec<Arc<Prepared>>,
    /// An inclusion proof each.
    pub(in crate::adapters::store) proofs: Vec<Vec<Digest>>,
    /// The signed head.
    pub(in crate::adapters::store) note: String,
}

impl Committed {
    /// A batch without entries.
    pub(in crate::adapters::store) fn nothing(first: u64) -> Self {
        Self { first, entries: Vec::new(), proofs: Vec::new(), note: String::new() }
    }

    /// The receipts of those places.
    pub(in crate::adapters::store) fn receipts(&self, places: Range<usize>) -> Vec<Receipt> {
        let entries = self.entries.iter().zip(&self.proofs);
        let indexed = (self.first..).zip(entries);
        indexed
            .skip(places.start)
            .take(places.len())
            .map(|(index, (prepared, hashes))| {
                let checkpoint = self.note.clone();
                let proof = TlogProof { index, hashes: hashes.clone(), checkpoint }.to_string();
                Receipt { index, entry: prepared.entry.bytes.clone(), proof }
            })
            .collect()
    }
}
