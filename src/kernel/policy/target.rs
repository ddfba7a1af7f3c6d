//! Kinds of credentials and their expanded targets: capabilities as data, one variant a kind.

use std::{sync::Arc, time::Duration};

use crate::kernel::{lifetime::Lifetime, name::SecretName};

/// What a credential reaches, with every template filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// An assertion signed by Hallpass for one audience.
    Oidc {
        /// The `aud` of the assertion.
        audience: String,
    },
    /// A secret of the sealed store.
    Sealed {
        /// Its name.
        secret: SecretName,
    },
}

/// A kind of credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// See [`Target::Oidc`].
    Oidc,
    /// See [`Target::Sealed`].
    Sealed,
}

/// The backend that a credential comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Backend {
    /// A part of Hallpass itself, which no configuration names.
    BuiltIn,
    /// The configured connection of that name.
    Named(Arc<str>),
    /// Left out by the policy, and no configuration says which one is meant.
    Unnamed,
}

/// Kinds of later versions (design: section 5). Nothing can be granted of them yet; guardrails may fence them already,
/// so that a kind is fenced on the day on which it comes.
pub const LATER_KINDS: [&str; 8] = ["aws", "azure", "gcp", "github", "kubernetes", "sops", "ssh", "vault"];

impl Kind {
    /// Every kind that this version mints.
    pub const ALL: [Self; 2] = [Self::Oidc, Self::Sealed];

    /// The words of every kind of the language, also of those that this version cannot mint.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().map(Self::as_str).chain(LATER_KINDS)
    }

    /// The word in policy, API and ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oidc => "oidc",
            Self::Sealed => "sealed",
        }
    }

    /// What bounds the life of its credentials.
    pub fn lifetime(self) -> Lifetime {
        match self {
            Self::Oidc => Lifetime::Fixed,
            Self::Sealed => Lifetime::Static,
        }
    }

    /// Least and greatest TTL it can honour; `None` where it has none.
    pub fn ttl_bounds(self) -> Option<(Duration, Duration)> {
        match self {
            Self::Oidc => Some((Duration::from_secs(60), Duration::from_secs(300))),
            Self::Sealed => None,
        }
    }

    /// Whether somebody can end a credential before its time.
    pub fn is_revocable(self) -> bool {
        match self {
            Self::Oidc | Self::Sealed => false,
        }
    }
}

impl Target {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Oidc { .. } => Kind::Oidc,
            Self::Sealed { .. } => Kind::Sealed,
        }
    }

    /// Where it comes from.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Oidc { .. } | Self::Sealed { .. } => Backend::BuiltIn,
        }
    }

    /// The target as the language names it: an audience, a secret's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Oidc { audience } => audience,
            Self::Sealed { secret } => secret.as_str(),
        }
    }
}
