//! Looking through a ledger where it lies: a store of any engine, or the lines of an export. It hands what is there to
//! the verifier of the kernel and adds what only the place itself can tell: columns that disagree with their entry,
//! rows that belong to no entry, a head that cannot be gone on from. It writes nothing.
//!
//! A row that cannot be read as what it should be is a finding, never an error: whoever spoils a column shall not be
//! able to stop the verification by it.

use std::io::{self, BufRead, Read as _};

use super::ports::{Answer, StoreFault};
use crate::kernel::{
    digest::Digest,
    ledger::{
        checkpoint::{Checkpoint, VerifierKey},
        entry::MAX_ENTRY_BYTES,
        verify::{Anchor, Audit, Evidence, Key, Report, Row},
    },
};

/// A store whose ledger can be looked through. Each answer is a snapshot of its own.
pub trait Kept: Send + Sync {
    /// The public key that the store says is its ledger's.
    fn own_key(&self) -> VerifierKey;

    /// The note of the newest head as it is kept; empty where there is none.
    fn head_note(&self) -> Answer<'_, Result<Vec<u8>, StoreFault>>;

    /// Entries in order from an index on, some hundreds at most; none where there are no more.
    fn rows(&self, from: u64) -> Answer<'_, Result<Vec<KeptRow>, StoreFault>>;

    /// The hashes kept of full subtrees, by level and index; `None` for one that is not there, or is no hash.
    fn subtrees(&self, places: Vec<(u8, u64)>) -> Answer<'_, Result<Vec<Option<Digest>>, StoreFault>>;

    /// What is wrong with the head that the writer goes on from, and rows of no entry: behind the head, before the first,
    /// of subtrees that are not full. With the first index that each speaks of, where it speaks of one.
    fn strays(&self) -> Answer<'_, Result<Vec<Stray>, StoreFault>>;
}

/// An entry as a store keeps it.
pub struct KeptRow {
    /// The index that it stands under.
    pub index: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its leaf hash; `None` where what is kept is none.
    pub leaf: Option<Digest>,
    /// The erasable values kept for it: field, 32 blinding bytes, value.
    pub personal: Vec<(String, [u8; 32], String)>,
    /// The first column that says something else than the bytes do, or cannot be read.
    pub column: Option<&'static str>,
    /// How many of its erasable values cannot be read.
    pub unreadable: usize,
}

/// Something that is wrong beside the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The first entry that it speaks of.
    pub index: Option<u64>,
    /// What it is.
    pub what: String,
}

/// Verifies a store's ledger, up to its head at this moment. Without a key the store's own serves, which vouches for
/// nothing but that all fits together.
///
/// # Errors
///
/// [`StoreFault`] where it cannot be read.
pub async fn of_store(
    store: &dyn Kept,
    key: Option<VerifierKey>,
    anchors: Vec<Anchor>,
) -> Result<Report, StoreFault> {
    let checkpoint = store.head_note().await?;
    // What comes after this head is of the next verification.
    let head = std::str::from_utf8(&checkpoint).ok().and_then(|note| Checkpoint::read_unverified(note).ok());
    let size = head.map_or(u64::MAX, |head| head.size);
    let key = key.map_or_else(|| Key::Own(store.own_key()), Key::Elsewhere);
    let mut audit = Audit::new(Evidence { key, checkpoint, manifest: None, anchors });
    let mut next = 0;
    while next < size {
        let rows = store.rows(next).await?;
        let Some(last) = rows.last().map(|row| row.index) else { break };
        rows.iter().filter(|row| row.index < size).for_each(|row| take(&mut audit, row));
        compare_subtrees(&mut audit, store).await?;
        next = last.saturating_add(1);
    }
    for Stray { index, what } in store.strays().await? {
        audit.fault(index, what);
    }
    Ok(audit.finish())
}

/// Verifies the lines of an export.
///
/// # Errors
///
/// Where they cannot be read.
pub fn of_lines(evidence: Evidence, lines: &mut dyn BufRead) -> io::Result<Report> {
    let mut audit = Audit::new(evidence);
    loop {
        let mut line = Vec::new();
        // A line longer than any entry is read in pieces, each of them a fault; memory stays bounded.
        if lines.take(MAX_ENTRY_BYTES as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(audit.finish());
        }
        audit.line(&line);
    }
}

fn take(audit: &mut Audit, row: &KeptRow) {
    let KeptRow { index, bytes, leaf, personal, column, unreadable } = row;
    if let Some(column) = column {
        audit.fault(Some(*index), format!("entry {index}: its column `{column}` says something else"));
    }
    if *unreadable > 0 {
        audit.fault(Some(*index), format!("entry {index}: a value kept for it cannot be read"));
    }
    audit.row(Row { index: *index, bytes, leaf: *leaf, personal });
}

async fn compare_subtrees(audit: &mut Audit, store: &dyn Kept) -> Result<(), StoreFault> {
    let full = audit.take_full_subtrees();
    if full.is_empty() {
        return Ok(());
    }
    let kept = store.subtrees(full.iter().map(|each| (each.level, each.index)).collect()).await?;
    for (each, kept) in full.iter().zip(kept) {
        if kept != Some(each.hash) {
            let place = format!("subtree {} of level {}", each.index, each.level);
            let first = each.index.checked_shl(each.level.into());
            audit.fault(first, format!("{place} is not what stands under it, so proofs through it fail"));
        }
    }
    Ok(())
}
