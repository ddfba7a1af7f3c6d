//! The state of one issuance, and the only ways it may change (design: the exchange, "State").

use std::fmt;

/// Where an issuance stands. Expiry is derived from `expires_at`, it is not a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// `issued | unresolved -> revoking -> revoked`; `issued -> released`.
    pub fn after(self, event: Event) -> Option<Self> {
        let (from, to): (&[Self], Self) = match event {
            Event::Failed => (&[Self::Intent], Self::Failed),
            Event::GivenBack => (&[Self::Issued], Self::Released),
            Event::Lost => (&[Self::Intent], Self::Unresolved),
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
    /// It was made, and its record is written.
    Recorded,
    /// Job, operator or recovery want it ended, and its backend can revoke it.
    RevokeAsked,
    /// The backend confirmed that it is revoked.
    RevokeConfirmed,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 6] =
        [Self::Failed, Self::GivenBack, Self::Lost, Self::Recorded, Self::RevokeAsked, Self::RevokeConfirmed];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, State};

    #[test]
    fn only_the_seven_changes_of_the_contract_are_allowed() {
        let pairs = State::ALL.iter().flat_map(|from| Event::ALL.iter().map(move |event| (*from, *event)));
        let mut allowed: Vec<String> =
            pairs.filter_map(|(from, event)| Some(format!("{from}>{}", from.after(event)?))).collect();
        allowed.sort();
        assert_eq!(
            allowed,
            [
                "intent>failed",
                "intent>issued",
                "intent>unresolved",
                "issued>released",
                "issued>revoking",
                "revoking>revoked",
                "unresolved>revoking"
            ]
        );
    }
}
