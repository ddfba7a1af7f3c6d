//! P6 by force: single changes to a ledger's own content, in databases and in exports, by whoever has the file, by
//! whoever has the ledger's key too. Each is found and its place is named; nothing is found on logs that nobody touched.
//!
//! `HALLPASS_TAMPER_CHANGES` says how many changes (2,000 without it), `HALLPASS_TAMPER_SEED` repeats one by the number
//! that a failure names.

#![cfg(test)]
mod binary;
mod clean;
mod database;
mod export;
mod log;
mod rotated;

use hallpass::kernel::ledger::verify::Report;

/// A seeded stream (SplitMix64), so that a failing change can be repeated by its number.
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    /// Changes one bit.
    pub(crate) fn flip(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len());
        bytes[at] ^= 1 << self.below(8);
    }
}

/// What was done, and where.
pub(crate) struct Change {
    pub(crate) what: String,
    pub(crate) place: Place,
}

/// What the verifier must say of the place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// This entry is the first bad one, and it is named.
    At(u64),
    /// This entry is the first bad one; where nothing tells more, a span is named that holds it.
    Within(u64),
    /// No entry is bad: it is the head, a checkpoint or another file.
    Beside,
}

impl Change {
    pub(crate) fn at(what: impl Into<String>, index: impl TryInto<u64, Error: std::fmt::Debug>) -> Self {
        Self { what: what.into(), place: Place::At(index.try_into().unwrap()) }
    }

    pub(crate) fn within(what: impl Into<String>, index: impl TryInto<u64, Error: std::fmt::Debug>) -> Self {
        Self { what: what.into(), place: Place::Within(index.try_into().unwrap()) }
    }

    pub(crate) fn beside(what: impl Into<String>) -> Self {
        Self { what: what.into(), place: Place::Beside }
    }

    /// Panics where the change was not found, or another place was named.
    pub(crate) fn assert_found(&self, seed: u64, report: &Report) {
        let what = format!("HALLPASS_TAMPER_SEED={seed}: {}, {:?}: {report:?}", self.what, self.place);
        assert_eq!(report.verdict.exit_code(), 30, "not found, {what}");
        let is_right = match self.place {
            Place::At(index) => report.first_bad == Some(index),
            Place::Within(index) => match (report.first_bad, report.first_bad_among) {
                (Some(named), _) => named == index,
                (None, Some((least, greatest))) => (least..=greatest).contains(&index),
                (None, None) => false,
            },
            Place::Beside => true,
        };
        assert!(is_right, "another place was named, {what}");
    }
}

/// The seeds of a run: as many as asked for, or the one to be repeated.
pub(crate) fn seeds(share: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("HALLPASS_TAMPER_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("HALLPASS_TAMPER_CHANGES").unwrap_or(2_000) * share / 100).collect(),
    }
}
