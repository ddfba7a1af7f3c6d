//! Issuances on their way: each step is the kernel's, by compare-and-swap in the transaction that writes its entry.

use jiff::Timestamp;

use super::{Holder, Receipt};
use crate::kernel::{id::IssuanceId, issuance::Event, ledger::entry::Entry};

/// Steps that are taken in one transaction.
#[derive(Default)]
pub struct Transit {
    /// The steps, in order; an issuance may take several.
    pub transitions: Vec<Transition>,
    /// Whether all of them are taken or none.
    pub together: bool,
    /// The generation of the sealed store that must still stand; where it does not, none is taken.
    pub sealed_generation: Option<u64>,
    /// Of whom it is asked whether there is more.
    pub holder: Option<Holder>,
    /// The time.
    pub now: Timestamp,
}

/// One step of one issuance.
pub struct Transition {
    /// The issuance.
    pub id: IssuanceId,
    /// What happens to it.
    pub event: Event,
    /// Its entry, where it has one.
    pub entry: Option<Entry>,
    /// What else the row says from then on.
    pub change: Change,
}

/// What a step changes of a row beside its state; what is not named stays.
#[derive(Default)]
pub struct Change {
    /// What revokes it, sealed.
    pub held: Option<Vec<u8>>,
    /// When it ends.
    pub ends: Option<Ends>,
    /// Until when it may be usable.
    pub usable_until: Option<Timestamp>,
    /// When its revoke is due; at once where nothing is said.
    pub retry_at: Option<Timestamp>,
    /// Whether its revoke is asked for by the broker itself, and by no job or operator: then a keyed retry goes on.
    pub keeps_chain: bool,
    /// Whether it failed before anything was made: then it does not count under a limit by the hour.
    pub is_unmade: bool,
}

/// When an issuance ends.
#[derive(Clone, Copy)]
pub struct Ends {
    /// By itself; `None` where static.
    pub expires_at: Option<Timestamp>,
    /// As limits count it.
    pub live_until: Option<Timestamp>,
}

/// What became of transitions.
#[derive(Debug, Default)]
pub struct Transited {
    /// The issuances that moved, one a step.
    pub moved: Vec<IssuanceId>,
    /// One receipt an entry of a step that was taken, in order.
    pub receipts: Vec<Receipt>,
    /// Whether the holder that was asked for has an issuance that is issued and has not ended.
    pub has_left: bool,
    /// Whether the sealed store had changed, so that nothing was done.
    pub is_stale: bool,
}

impl Transit {
    /// Steps that are taken each for itself.
    pub fn each(transitions: Vec<Transition>, now: Timestamp) -> Self {
        Self { transitions, now, ..Self::default() }
    }
}

impl Transition {
    /// A step that changes nothing but the state.
    pub fn new(id: IssuanceId, event: Event, entry: Entry) -> Self {
        Self { id, event, entry: Some(entry), change: Change::default() }
    }
}
