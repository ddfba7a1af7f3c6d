//! What the store is asked of the ledger.

use jiff::Timestamp;

/// What to look for in the ledger.
#[derive(Clone, Debug, Default)]
pub struct EntryQuery {
    /// Terms that must all hold.
    pub terms: Vec<Term>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// Indices below this one (the cursor).
    pub below: Option<u64>,
    /// At most so many, 1 to 500.
    pub limit: u32,
}

/// One term of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// What it speaks of.
    pub qualifier: Qualifier,
    /// Its text.
    pub value: String,
    /// Whether it must not hold.
    pub negated: bool,
}

/// What a term speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qualifier {
    /// `actor:`
    Actor,
    /// `env:`
    Env,
    /// `grant:`
    Grant,
    /// `issuer:`
    Issuer,
    /// `outcome:`, an entry's code in any case.
    Outcome,
    /// `reason:`
    Reason,
    /// `ref:`
    Ref,
    /// `repo:`
    Repo,
    /// `run:`
    Run,
    /// Free text, anywhere in the entry.
    Text,
}

/// An entry with its index, and the personal values that were not erased.
#[derive(Clone, Debug)]
pub struct StoredEntry {
    /// Its index.
    pub index: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Personal values as (field, value).
    pub personal: Vec<(String, String)>,
}
