//! Which steps of issuances are taken, decided from how their rows stand: the kernel says what can happen
//! ([`State::after`]), and this what happens in one transaction.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::columns::Prepared;
use crate::{
    broker::ports::{Change, Holder, StoreFault, Transit},
    kernel::{
        id::IssuanceId,
        issuance::{Event, State},
        ledger::entry::Entry,
    },
};

/// Steps that are ready to be written.
pub(in crate::adapters::store) struct Steps {
    /// In order.
    pub(in crate::adapters::store) steps: Vec<Step>,
    /// See [`Transit::together`].
    pub(in crate::adapters::store) together: bool,
    /// See [`Transit::sealed_generation`].
    pub(in crate::adapters::store) sealed_generation: Option<u64>,
    /// See [`Transit::holder`].
    pub(in crate::adapters::store) holder: Option<Holder>,
    /// The time.
    pub(in crate::adapters::store) now: Timestamp,
}

/// One of them.
pub(in crate::adapters::store) struct Step {
    /// The issuance.
    pub(in crate::adapters::store) id: IssuanceId,
    /// What happens to it.
    pub(in crate::adapters::store) event: Event,
    /// Its entry.
    pub(in crate::adapters::store) entry: Option<Arc<Prepared>>,
    /// What else its row says from then on.
    pub(in crate::adapters::store) change: Change,
}

/// A step that is taken.
pub(in crate::adapters::store) struct Taken<'a> {
    /// The step.
    pub(in crate::adapters::store) step: &'a Step,
    /// Where the issuance stood.
    pub(in crate::adapters::store) from: State,
    /// Where it stands then.
    pub(in crate::adapters::store) to: State,
}

/// How a row stands before the steps.
#[derive(Clone, Copy)]
pub(in crate::adapters::store) struct Stands {
    /// Its state.
    pub(in crate::adapters::store) state: State,
    /// Whether it was told that its revoke is overdue.
    pub(in crate::adapters::store) is_told: bool,
}

/// What the steps came to.
#[derive(Default)]
pub(in crate::adapters::store) struct TransitFound {
    /// The issuances that moved, one a step.
    pub(in crate::adapters::store) moved: Vec<IssuanceId>,
    /// Where their entries stand in the batch.
    pub(in crate::adapters::store) places: std::ops::Range<usize>,
    /// See [`Transited::has_left`](crate::broker::ports::Transited::has_left).
    pub(in crate::adapters::store) has_left: bool,
    /// See [`Transited::is_stale`](crate::broker::ports::Transited::is_stale).
    pub(in crate::adapters::store) is_stale: bool,
}

impl Steps {
    /// Makes the entries ready.
    pub(in crate::adapters::store) fn new(
        transit: Transit,
        prepare: fn(Entry) -> Result<Arc<Prepared>, StoreFault>,
    ) -> Result<Self, StoreFault> {
        let Transit { transitions, together, sealed_generation, holder, now } = transit;
        let steps = transitions.into_iter().map(|transition| {
            let entry = transition.entry.map(prepare).transpose()?;
            Ok(Step { id: transition.id, event: transition.event, entry, change: transition.change })
        });
        Ok(Self {
            steps: steps.collect::<Result<_, StoreFault>>()?,
            together,
            sealed_generation,
            holder,
            now,
        })
    }

    /// The steps that are taken. An issuance may take several, each from where the one before left it.
    pub(in crate::adapters::store) fn taken(&self, mut rows: HashMap<IssuanceId, Stands>) -> Vec<Taken<'_>> {
        let mut taken = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let Some(stands) = rows.get_mut(&step.id) else { continue };
            let Some(to) = stands.state.after(step.event) else { continue };
            if step.event == Event::Overdue && std::mem::replace(&mut stands.is_told, true) {
                continue;
            }
            taken.push(Taken { step, from: stands.state, to });
            stands.state = to;
        }
        if self.together && taken.len() < self.steps.len() { Vec::new() } else { taken }
    }
}

impl Taken<'_> {
    /// Whether what could revoke it has no use any more.
    pub(in crate::adapters::store) fn has_ended(&self) -> bool {
        match self.to {
            State::Failed | State::Released | State::Revoked => true,
            State::Intent | State::Issued | State::Revoking | State::Unresolved => false,
        }
    }

    /// Whether it is open no more: then its key holds for a while from now.
    pub(in crate::adapters::store) fn is_closed(&self) -> bool {
        self.from == State::Intent && self.to != State::Intent
    }
}
