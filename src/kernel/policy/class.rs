//! Classes: how much harm a credential could do. A guardrail says what class a target has; a grant has the highest of
//! its own and its targets'.

/// A class, in rising order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Reads what does little harm.
    Read,
    /// Writes outside of production.
    Write,
    /// Reaches production; what nothing classifies is of this class.
    Production,
    /// Speaks for the organisation.
    Signing,
}

impl Class {
    /// Every class, in rising order.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Production, Self::Signing];

    /// The word in policy and ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Production => "production",
            Self::Signing => "signing",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }
}
