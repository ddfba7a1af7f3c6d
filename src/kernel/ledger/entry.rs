//! Entries: canonical JSON of at most 16 KiB, hashed as stored, each with its own salt; personal values stand
//! outside, bound by commitments.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::kernel::{
    digest::Digest,
    id::{DecisionId, IssuanceId, ReplicaId},
};

/// The greatest entry.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024;

/// Codes of entries (design: section 6), those that this version writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the manual's table of entries explains each")]
pub enum EntryCode {
    AlertPolicyRejected,
    AlertRollback,
    ConfigLoaded,
    Denied,
    DryRun,
    Exported,
    Failed,
    Intent,
    Issued,
    PolicyLoaded,
    PolicyRejected,
    Read,
    Released,
    SecretRemoved,
    SecretSet,
    Started,
    Stopped,
    Summary,
    Undelivered,
}

/// An entry to be: what happened, before it is given salt and blinding.
#[derive(Default, Clone)]
pub struct Draft {
    /// Its code.
    pub code: Option<EntryCode>,
    /// The decision.
    pub decision: Option<DecisionId>,
    /// The issuance.
    pub issuance: Option<IssuanceId>,
    /// `subject`: `{issuer, profile, tenant, project, …, claims}`; personal values are NOT in it.
    pub subject: Option<Value>,
    /// `policy`.
    pub policy: Option<Value>,
    /// `request`.
    pub request: Option<Value>,
    /// `result`.
    pub result: Option<Value>,
    /// `token`.
    pub token: Option<Value>,
    /// Personal values.
    pub personal: Vec<Personal>,
}

/// A personal value, and where its commitment stands.
#[derive(Clone)]
pub struct Personal {
    /// The claim's name, or `address`, `reason`, `query`.
    pub field: String,
    /// The value.
    pub value: String,
    /// Whether the commitment stands in `subject.claims` (a claim) or in `commitments`.
    pub is_claim: bool,
}

/// A finished entry.
#[derive(Clone)]
pub struct Entry {
    /// Its bytes, as they will be hashed and stored.
    pub bytes: Vec<u8>,
    /// RFC 6962 leaf hash.
    pub leaf: Digest,
    /// Its code.
    pub code: EntryCode,
    /// Its time.
    pub at: Timestamp,
    /// The decision.
    pub decision: Option<DecisionId>,
    /// The issuance.
    pub issuance: Option<IssuanceId>,
    /// For the erasable table: field, 32 blinding bytes, value.
    pub personal: Vec<(String, [u8; 32], String)>,
}

/// Why a draft cannot be an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// It has more than 16 KiB even after what may be cut was cut.
    #[error("the entry would have {0} bytes, over 16384")]
    TooLarge(usize),
    /// There were no random bytes.
    #[error("no random bytes")]
    NoEntropy,
    /// A number that RFC 8785 cannot write.
    #[error("a number that canonical JSON cannot write")]
    Unwritable,
}

impl EntryCode {
    /// The code's text, as in the contract: `DENIED`, `ALERT_ROLLBACK`, …
    pub fn as_str(self) -> &'static str {
        todo!()
    }
}

impl Draft {
    /// Makes the entry. `random` fills a slice with random bytes, and is asked once for the salt (16) and once a
    /// personal value (32).
    ///
    /// # Errors
    ///
    /// [`EntryFault`].
    pub fn seal(
        self,
        _at: Timestamp,
        _replica: ReplicaId,
        _random: &dyn Fn(&mut [u8]) -> bool,
    ) -> Result<Entry, EntryFault> {
        let _: Map<String, Value>;
        todo!()
    }
}
