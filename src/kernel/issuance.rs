//! The state of one issuance, and the only ways it may change (design: the exchange, "State"); how a live exchange and
//! how recovery close a row, and how long a revoke waits for its next try. The store applies these functions within the
//! transaction that writes the entry, and the model checker runs the very same ones.

use std::{fmt, time::Duration};

use crate::kernel::policy::target::Making;

/// Where an issuance stands. Expiry is derived from `expires_at`, it is not a state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Nothing was delivered and nothing usable is left.
    Failed,
    /// Decided and durable; the backend may be at work.
    Intent,
    /// Delivered, or about to be.
    Issued,
    /// Given back by the job; nobody can revoke it.
    Released,
    /// Revoked at the backend.
    Revoked,
    /// A revoke is due and being retried.
    Revoking,
    /// Nobody knows whether the backend minted.
    Unresolved,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Failed,
        Self::Intent,
        Self::Issued,
        Self::Released,
        Self::Revoked,
        Self::Revoking,
        Self::Unresolved,
    ];

    /// The word in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Intent => "intent",
            Self::Issued => "issued",
            Self::Released => "released",
            Self::Revoked => "revoked",
            Self::Revoking => "revoking",
            Self::Unresolved => "unresolved",
        }
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == text)
    }

    /// Where an issuance stands after an event; `None` where that cannot happen to it, and nothing may change. The
    /// contract's changes, and no other: `intent -> issued | failed | unresolved`;
    /// `issued | unresolved -> revoking -> revoked`; `issued -> released`. Two events leave it where it is, and are
    /// swaps all the same: who stores an accessor in a row that recovery closed must not go on to make a lease.
    pub fn after(self, event: Event) -> Option<Self> {
        let (from, to): (&[Self], Self) = match event {
            Event::Failed => (&[Self::Intent], Self::Failed),
            Event::GivenBack => (&[Self::Issued], Self::Released),
            Event::Lost => (&[Self::Intent], Self::Unresolved),
            Event::Opened => (&[Self::Intent], Self::Intent),
            Event::Overdue => (&[Self::Revoking], Self::Revoking),
            Event::Recorded => (&[Self::Intent], Self::Issued),
            Event::RevokeAsked => (&[Self::Issued, Self::Unresolved], Self::Revoking),
            Event::RevokeConfirmed => (&[Self::Revoking], Self::Revoked),
        };
        from.contains(&self).then_some(to)
    }
}

/// What happens to an issuance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It was not made, or what was made is gone for certain.
    Failed,
    /// Job or operator want it ended, and nobody can revoke it.
    GivenBack,
    /// Nobody knows whether the backend made it.
    Lost,
    /// What it will hang on was made, and how to revoke that is stored.
    Opened,
    /// Its revoke is not confirmed although its time is over; told once.
    Overdue,
    /// It was made, and its record is written.
    Recorded,
    /// Job, operator or recovery want it ended, and its backend can revoke it.
    RevokeAsked,
    /// The backend confirmed that it is revoked.
    RevokeConfirmed,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 8] = [
        Self::Failed,
        Self::GivenBack,
        Self::Lost,
        Self::Opened,
        Self::Overdue,
        Self::Recorded,
        Self::RevokeAsked,
        Self::RevokeConfirmed,
    ];
}

/// What became of a mint that will not be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mint {
    /// It was made and wiped here; nobody ever had it.
    Discarded,
    /// Perhaps it was made, and nobody confirmed its end.
    InDoubt,
    /// Nothing was made.
    Not,
    /// Perhaps it was made; it is gone, its revoke is confirmed.
    Undone,
}

/// How a live exchange closes the row of a mint that will not be delivered: failed where nothing usable is left in
/// anybody's hand, else unresolved, and what can be revoked then is at once.
pub fn abandoned(making: Making, mint: Mint) -> &'static [Event] {
    match (mint, making) {
        (Mint::Discarded | Mint::Not | Mint::Undone, _) => &[Event::Failed],
        (Mint::InDoubt, Making::Revocable) => &[Event::Lost, Event::RevokeAsked],
        (Mint::InDoubt, Making::Harmless | Making::Irrevocable) => &[Event::Lost],
    }
}

/// How any replica closes an open row whose owner did not in time. What could be revoked and has nothing to revoke
/// was never made, since its accessor is durable before it is.
pub fn recovered(making: Making, is_held: bool) -> &'static [Event] {
    let mint = match making {
        Making::Harmless => Mint::Not,
        Making::Revocable if is_held => Mint::InDoubt,
        Making::Revocable => Mint::Not,
        Making::Irrevocable => Mint::InDoubt,
    };
    abandoned(making, mint)
}

/// How long a revoke waits after that many tries: ten seconds, twice that each time, five minutes at most.
pub fn back_off(tries: u32) -> Duration {
    Duration::from_secs(10).saturating_mul(1 << tries.min(5)).min(Duration::from_secs(300))
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_changes_of_the_contract_are_allowed() {
        let pairs = State::ALL.iter().flat_map(|from| Event::ALL.iter().map(move |event| (*from, *event)));
        let mut allowed: Vec<String> =
            pairs.filter_map(|(from, event)| Some(format!("{from}>{}", from.after(event)?))).collect();
        allowed.sort();
        assert_eq!(
            allowed,
            [
                "intent>failed",
                "intent>intent",
                "intent>issued",
                "intent>unresolved",
                "issued>released",
                "issued>revoking",
                "revoking>revoked",
                "revoking>revoking",
                "unresolved>revoking"
            ]
        );
    }

    #[test]
    fn whoever_closes_a_row_does_so_by_events_that_can_happen_to_it() {
        let makings = [Making::Harmless, Making::Revocable, Making::Irrevocable];
        let mints = [Mint::Discarded, Mint::InDoubt, Mint::Not, Mint::Undone];
        let lives = makings.iter().flat_map(|making| mints.map(|mint| abandoned(*making, mint)));
        let recoveries = makings.iter().flat_map(|making| [true, false].map(|held| recovered(*making, held)));
        for events in lives.chain(recoveries) {
            let end = events.iter().try_fold(State::Intent, |state, event| state.after(*event));
            assert!(matches!(end, Some(State::Failed | State::Unresolved | State::Revoking)), "{events:?}");
        }
    }

    #[test]
    fn what_may_be_usable_is_never_closed_as_failed() {
        assert_eq!(recovered(Making::Revocable, true), [Event::Lost, Event::RevokeAsked]);
        assert_eq!(recovered(Making::Irrevocable, false), [Event::Lost]);
        for making in [Making::Harmless, Making::Revocable, Making::Irrevocable] {
            assert!(!abandoned(making, Mint::InDoubt).contains(&Event::Failed));
        }
    }

    #[test]
    fn revokes_wait_longer_each_time_and_never_for_ever() {
        let waits: Vec<u64> = (0..8).map(|tries| back_off(tries).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    }
}
