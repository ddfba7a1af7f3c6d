//! The layout of C2SP tlog-tiles: which resources a reader of a tree of some size needs, what they are called, what is
//! in them. Whoever publishes writes them, whoever serves reads them from the store. Nothing here does I/O.
//!
//! Source: <https://c2sp.org/tlog-tiles> (November 2026).

use super::tree::TILE_LEVELS;

/// Hashes or entries of a full tile.
pub const TILE_WIDTH: u64 = 256;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Entries, each behind its length in two bytes.
    Entries,
    /// Hashes of full subtrees with 256^n leaves, for n in 0 to 5.
    Hashes(u8),
}

/// A tile: its place, and how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// What it holds.
    pub holds: Holds,
    /// Its place in its row, from 0.
    pub index: u64,
    /// How many hashes or entries, 1 to 256.
    pub width: u64,
}

impl Tile {
    /// The place below the log's prefix, such as `tile/0/x001/067.p/8`.
    pub fn path(&self) -> String {
        let row = match self.holds {
            Holds::Entries => "entries".to_owned(),
            Holds::Hashes(level) => level.to_string(),
        };
        let mut groups = vec![format!("{:03}", self.index % 1_000)];
        let mut rest = self.index / 1_000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1_000));
            rest /= 1_000;
        }
        groups.reverse();
        let part = if self.width == TILE_WIDTH { String::new() } else { format!(".p/{}", self.width) };
        format!("tile/{row}/{}{part}", groups.join("/"))
    }

    /// Reads such a place; what is written in any other way is none.
    pub fn parse(path: &str) -> Option<Self> {
        let (row, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let holds = match row {
            "entries" => Holds::Entries,
            level => Holds::Hashes(level.parse().ok().filter(|level| *level < LEVELS)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().ok()?),
            None => (rest, TILE_WIDTH),
        };
        let digits: String = index.split('/').map(|group| group.strip_prefix('x').unwrap_or(group)).collect();
        let tile = Self { holds, index: digits.parse().ok()?, width };
        // One text a tile: whoever asks in another way asks for something else.
        ((1..=TILE_WIDTH).contains(&width) && tile.index < MOST_TILES && tile.path() == path).then_some(tile)
    }

    /// The level of its hashes in the tree, 0 for leaves and entries.
    pub fn tree_level(&self) -> u8 {
        match self.holds {
            Holds::Entries => 0,
            Holds::Hashes(level) => level.saturating_mul(TILE_LEVELS),
        }
    }

    /// The first of its hashes or entries, and the one behind its last.
    pub fn range(&self) -> (u64, u64) {
        let first = self.index.saturating_mul(TILE_WIDTH);
        (first, first.saturating_add(self.width))
    }

    /// Whether a tree of that size has all of it.
    pub fn is_within(&self, size: u64) -> bool {
        self.range().1 <= size >> self.tree_level()
    }

    /// The full tile that a part of it becomes.
    pub fn filled(&self) -> Self {
        Self { width: TILE_WIDTH, ..*self }
    }
}

/// The tiles that a reader of a tree of `size` entries needs beside those that were full at `from` entries.
pub fn tiles_between(from: u64, size: u64) -> impl Iterator<Item = Tile> {
    let rows = std::iter::once(Holds::Entries).chain((0..LEVELS).map(Holds::Hashes));
    rows.flat_map(move |holds| {
        let level = Tile { holds, index: 0, width: TILE_WIDTH }.tree_level();
        let (before, now) = (from >> level, size >> level);
        let full = (before / TILE_WIDTH..now / TILE_WIDTH).map(move |index| Tile {
            holds,
            index,
            width: TILE_WIDTH,
        });
        let rest = now % TILE_WIDTH;
        let part = (rest > 0).then_some(Tile { holds, index: now / TILE_WIDTH, width: rest });
        full.chain(part)
    })
}

/// The bytes of an entry tile; `None` where an entry is longer than two bytes can say.
pub fn bundle<'e>(entries: impl Iterator<Item = &'e [u8]>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend(u16::try_from(entry.len()).ok()?.to_be_bytes());
        bytes.extend(entry);
    }
    Some(bytes)
}

/// Rows of hashes: 256^6 leaves are 2^48, and a log of 2^62 entries has three hashes more above them than are reached.
const LEVELS: u8 = 6;
/// No row of a log of 2^62 entries has more tiles.
const MOST_TILES: u64 = 1 << 54;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The paths of the specification's own examples, "Merkle Tree".
    #[test]
    fn paths_are_those_of_the_specification() {
        let path = |holds, index, width| Tile { holds, index, width }.path();
        assert_eq!(path(Holds::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path(Holds::Hashes(0), 273, 112), "tile/0/273.p/112");
        assert_eq!(path(Holds::Hashes(1), 1, 17), "tile/1/001.p/17");
        assert_eq!(path(Holds::Hashes(2), 0, 1), "tile/2/000.p/1");
        assert_eq!(path(Holds::Entries, 273, 112), "tile/entries/273.p/112");
    }

    /// The specification's example: a tree of 70,000 leaves.
    #[test]
    fn a_tree_of_seventy_thousand_needs_the_tiles_of_the_specification() {
        let needed: Vec<String> = tiles_between(0, 70_000).map(|tile| tile.path()).collect();
        let hashes: Vec<&String> = needed.iter().filter(|path| !path.contains("entries")).collect();
        assert_eq!(hashes.len(), 273 + 1 + 1 + 1 + 1);
        for path in ["tile/0/272", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"] {
            assert!(needed.iter().any(|needed| needed == path), "{path}");
        }
        assert_eq!(needed.len() - hashes.len(), 274);
    }

    #[test]
    fn refuses_every_other_way_to_write_a_place() {
        for path in [
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/6/000",
            "tile/0/x000/001",
            "tile/0/001/067",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/08",
            "tile/0/000.p/",
            "tile/data/000",
            "tile/0/../000",
            "tile/0/+01",
            "tile/0/",
            "checkpoint",
            "",
        ] {
            assert_eq!(Tile::parse(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_place_reads_back(index in 0..MOST_TILES, width in 1_u64..=256, level in 0_u8..=6) {
            let holds = if level == 6 { Holds::Entries } else { Holds::Hashes(level) };
            let tile = Tile { holds, index, width };
            prop_assert_eq!(Tile::parse(&tile.path()), Some(tile));
        }

        /// Whatever was published on the way, a reader of the newest tree has all of it.
        #[test]
        fn steps_leave_no_hole(steps in proptest::collection::vec(0_u64..3_000, 1..6)) {
            let (mut size, mut written) = (0, Vec::new());
            for step in steps {
                let next = size + step;
                written.extend(tiles_between(size, next).map(|tile| tile.path()));
                size = next;
            }
            for tile in tiles_between(0, size) {
                prop_assert!(tile.is_within(size));
                prop_assert!(written.contains(&tile.path()), "{}", tile.path());
            }
        }
    }
}
