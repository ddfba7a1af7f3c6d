//! The keys of a log, one after the other. A key vouches for the next by a checkpoint that names it and that both signed;
//! it stands in the KEY_ROTATED entry, so whoever has the entries has what is needed. Format: [the
//! manual](crate::manual::ledger).

use serde_json::Value;

use super::super::checkpoint::{Checkpoint, NoteFault, VerifierKey};
use crate::kernel::digest::Digest;

/// What is known of the log's keys so far.
pub(super) struct Keys {
    given: Option<VerifierKey>,
    terms: Vec<Term>,
}

/// For how long a key was the log's.
struct Term {
    key: VerifierKey,
    /// The sizes of tree heads that it may have signed.
    from: u64,
    until: u64,
}

impl Keys {
    /// Only the key that the verifier was given.
    pub(super) fn new(given: Option<VerifierKey>) -> Self {
        Self { given, terms: Vec::new() }
    }

    /// Takes a KEY_ROTATED entry at that index, behind a tree of that root.
    pub(super) fn rotated(&mut self, index: u64, root: &Digest, said: &Value) -> Result<(), String> {
        let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
        let key = |name: &str| {
            VerifierKey::parse(text(name)).ok_or_else(|| format!("its member {name:?} is no verifier key"))
        };
        let (old, new) = (key("old")?, key("new")?);
        let before = old.open_handover(&new, text("checkpoint"));
        let before =
            before.map_err(|fault| format!("the old key does not vouch for the new one: {fault}"))?;
        if (before.size, &before.root) != (index, root) {
            return Err("the change of keys was signed for other entries than those before it".to_owned());
        }
        match self.terms.last_mut() {
            Some(last) if last.key != old => {
                return Err("the key that it ends is not the one that the log had".to_owned());
            }
            Some(last) => last.until = index + 1,
            None => self.terms.push(Term { key: old, from: 0, until: index + 1 }),
        }
        self.terms.push(Term { key: new, from: index, until: u64::MAX });
        Ok(())
    }

    /// Whether the given key is one of those that the log had.
    pub(super) fn has_given(&self) -> bool {
        let is_one = |given: &VerifierKey| self.terms.iter().any(|term| term.key == *given);
        self.terms.is_empty() || self.given.as_ref().is_none_or(is_one)
    }

    /// Opens the signed head: only the newest key may have signed it.
    pub(super) fn open_head(&self, note: &str) -> Result<(), NoteFault> {
        match (&self.given, self.terms.last()) {
            (None, _) => Ok(()),
            (Some(given), None) => given.open(note).map(drop),
            (Some(_), Some(last)) => last.key.open(note).map(drop),
        }
    }

    /// Opens a note kept elsewhere: a key must have signed it that was the log's at that size.
    pub(super) fn open(&self, note: &str, head: &Checkpoint) -> Result<(), NoteFault> {
        let Some(given) = &self.given else { return Ok(()) };
        if self.terms.is_empty() {
            return given.open(note).map(drop);
        }
        let mut outcome = Err(NoteFault::Unsigned);
        for term in self.terms.iter().filter(|term| (term.from..=term.until).contains(&head.size)) {
            match term.key.open(note) {
                Ok(_) => outcome = Ok(()),
                Err(NoteFault::Unsigned) => {}
                Err(fault) => return Err(fault),
            }
        }
        outcome
    }
}
