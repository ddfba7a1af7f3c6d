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

    /// Whether the change is one of the contract's: `intent -> issued | failed | unresolved`;
    /// `issued | unresolved -> revoking -> revoked`; `issued -> released`.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Intent => matches!(next, Self::Issued | Self::Failed | Self::Unresolved),
            Self::Issued => matches!(next, Self::Revoking | Self::Released),
            Self::Unresolved => next == Self::Revoking,
            Self::Revoking => next == Self::Revoked,
            Self::Failed | Self::Released | Self::Revoked => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn only_the_seven_changes_of_the_contract_are_allowed() {
        let pairs = State::ALL.iter().flat_map(|from| State::ALL.iter().map(move |to| (*from, *to)));
        let allowed: Vec<String> = pairs
            .filter(|(from, to)| from.may_become(*to))
            .map(|(from, to)| format!("{from}>{to}"))
            .collect();
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
