//! What the store is asked in an emergency, and for giving back: whose issuances; and which brokers live.

use jiff::Timestamp;

use crate::kernel::{
    digest::Digest,
    id::ReplicaId,
    name::{GrantName, IssuerName},
};

/// Whose issuances: a job's, or one token's where the profile gives no job key.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The issuer.
    pub issuer: IssuerName,
    /// The digest of the job key, else the token's id.
    pub holder: Digest,
    /// The time at which an end counts.
    pub now: Timestamp,
}

/// Which issuances.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All of a holder, in whatever state.
    Of(Holder),
    /// Those that are still usable, as far as anybody knows; whatever is given must hold.
    Usable {
        /// Of this grant.
        grant: Option<GrantName>,
        /// Of this issuer's project.
        project: Option<(IssuerName, String)>,
        /// Issued then or later.
        since: Option<Timestamp>,
        /// The time at which an end counts.
        now: Timestamp,
    },
}

/// A broker's word that it lives.
pub struct Beat {
    /// Its boot.
    pub replica: ReplicaId,
    /// When that began.
    pub started: Timestamp,
    /// The policy set that decides in it; `None` before the first.
    pub digest: Option<Digest>,
    /// The time.
    pub now: Timestamp,
}

/// Living brokers that decide by different policy sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skew {
    /// Since when they are seen to differ.
    pub since: Timestamp,
    /// Whether the alert was recorded.
    pub is_told: bool,
    /// The sets, each with how many brokers decide by it.
    pub sets: Vec<(Digest, u64)>,
}
