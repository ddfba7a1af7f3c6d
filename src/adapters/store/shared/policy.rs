//! Policy sets that were accepted, and what guards the newest (design: section 4, "Removal protection").

use jiff::Timestamp;

use crate::kernel::{digest::Digest, ledger::entry::Entry};

/// A policy set that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedPolicy {
    /// Its digest.
    pub digest: Digest,
    /// Names that later sets must not lose.
    pub names: Vec<String>,
    /// When it was accepted first.
    pub at: Timestamp,
}

/// How a candidate stands to this store: while that stays the same, so does the verdict on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStanding {
    /// The newest accepted set.
    pub newest: Option<AcceptedPolicy>,
    /// Whether an operator lets the candidate in.
    pub is_let_in: bool,
}

/// An operator's word that a set may lack what the one before had.
pub struct LettingIn {
    /// The set.
    pub digest: Digest,
    /// Until when it holds.
    pub until: Timestamp,
    /// POLICY_ACCEPTED.
    pub entry: Entry,
}

impl AcceptedPolicy {
    /// Whether it is that very set.
    pub(in crate::adapters::store) fn is(&self, digest: Digest, names: &[String]) -> bool {
        self.digest == digest && self.names == names
    }
}

/// The names that a set lacks of the one before.
pub(in crate::adapters::store) fn lacks(before: Option<&AcceptedPolicy>, names: &[String]) -> Vec<String> {
    let kept = before.map(|before| before.names.as_slice()).unwrap_or_default();
    kept.iter().filter(|name| !names.contains(name)).cloned().collect()
}
