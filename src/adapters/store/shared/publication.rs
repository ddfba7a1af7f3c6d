//! The duty to publish, as both engines keep it: a row with a holder, an end and a number that grows.

use std::time::Duration;

use super::rows::LedgerRow;
use crate::{
    broker::{audit::Kept, ports::StoreFault},
    kernel::ledger::{
        tiles::{Holds, Tile, bundle},
        tree::leaf_hash,
    },
};

/// How long the duty lasts where its holder is not heard of. A holder is heard of every few seconds; one that died is
/// missed for so long, and a checkpoint is that much older.
pub const LEASE: Duration = Duration::from_secs(15);

/// The duty, taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How often it changed hands. Whoever finds a larger one where it publishes has lost the duty.
    pub fence: u64,
}

impl Lease {
    /// As stored.
    pub(in crate::adapters::store) fn of(fence: i64) -> Option<Self> {
        u64::try_from(fence).ok().map(|fence| Self { fence })
    }
}

/// A tile of the ledger, from what a store keeps; `None` where it lacks some of it. `rows` are the entries of its range;
/// a tile of higher hashes does not ask for them.
pub(in crate::adapters::store) async fn tile(
    store: &dyn Kept,
    tile: Tile,
    rows: impl Future<Output = Result<Vec<LedgerRow>, StoreFault>>,
) -> Result<Option<Vec<u8>>, StoreFault> {
    let (from, to) = tile.range();
    let level = tile.tree_level();
    if level > 0 {
        let kept = store.subtrees((from..to).map(|index| (level, index)).collect()).await?;
        let hashes: Option<Vec<[u8; 32]>> = kept.into_iter().map(|hash| hash.map(|hash| hash.0)).collect();
        return Ok(hashes.map(|hashes| hashes.concat()));
    }
    let rows = rows.await?;
    let is_whole = rows.iter().map(|row| row.index).eq(from..to);
    if !is_whole {
        return Ok(None);
    }
    Ok(match tile.holds {
        Holds::Entries => bundle(rows.iter().map(|row| row.bytes.as_slice())),
        // Of the bytes and not of the column: whoever checks the tiles against the checkpoint finds what was changed.
        Holds::Hashes(_) => Some(rows.iter().flat_map(|row| leaf_hash(&row.bytes).0).collect()),
    })
}
