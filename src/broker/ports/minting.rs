//! Minters: the code behind a kind of credential, and what it is asked in the course of an exchange (design: section 2,
//! "Leases"; section 5).
//!
//! What a [`Minter`] is asked depends on [`Target::making`]: a harmless credential is fetched, an irrevocable one is
//! made, a revocable one is opened first, and made when what it hangs on is durable.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::Answer;
use crate::kernel::{
    id::{DecisionId, IssuanceId},
    name::{CredentialName, GrantName, SecretName},
    policy::target::{Kind, Target},
    sealing::SealedRecord,
    secret::Secret,
};

/// The minters by kind.
pub type Minters = HashMap<Kind, Arc<dyn Minter>>;

/// Makes credentials of one kind. Every answer is bounded by the caller, who drops the future at its deadline: then
/// whatever was sent may have had its effect.
pub trait Minter: Send + Sync {
    /// Fetches or makes the credential. A harmless one is fetched before its intent is durable, any other after that;
    /// `token` is what [`Minter::open`] gave of a revocable one. It is not asked again for one order.
    fn fetch<'a>(
        &'a self,
        order: &'a Order,
        token: Option<&'a Secret>,
    ) -> Answer<'a, Result<Minted, MintFault>>;

    /// Whether a fetch of that target goes to somewhere else: then claims and limits are looked at before it (design:
    /// section 2, "Cost").
    fn leaves_process(&self, _target: &Target) -> bool {
        false
    }

    /// Makes what a revocable credential will hang on, such as Vault's job token; nothing usable stands on it yet.
    fn open<'a>(&'a self, _order: &'a Order) -> Answer<'a, Result<Opened, MintFault>> {
        Box::pin(async { Err(MintFault::failed("nothing-to-open")) })
    }

    /// Ends all that hangs on what was opened. That it is gone already is success.
    fn revoke<'a>(&'a self, _held: &'a Held) -> Answer<'a, Result<(), RevokeFault>> {
        Box::pin(async { Err(RevokeFault { reason: "nobody-can-revoke" }) })
    }
}

/// What a minter is asked for.
pub struct Order {
    /// The issuance that it will be.
    pub issuance: IssuanceId,
    /// Its decision.
    pub decision: DecisionId,
    /// The grant.
    pub grant: GrantName,
    /// The credential within it.
    pub credential: CredentialName,
    /// What it reaches.
    pub target: Target,
    /// Its time to live, where it has one.
    pub ttl: Option<Duration>,
    /// What the job gives to its making, as its target asks for it ([`Target::input`]).
    pub input: Option<String>,
    /// Whose it will be, in the immutable words of the profile: for the backend's own log, never for its decision.
    pub subject: Subject,
    /// The time of the exchange.
    pub now: Timestamp,
}

/// Whose a credential is. Nothing of it is a personal value.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The issuer.
    pub issuer: String,
    /// The immutable project id, where the profile knows projects.
    pub project: Option<String>,
    /// The run, where the profile knows runs.
    pub run: Option<String>,
}

/// What a revocable credential hangs on.
pub struct Opened {
    /// What revokes it.
    pub held: Held,
    /// What makes it, such as the job token itself; wiped with this.
    pub token: Secret,
}

/// What revokes a credential, kept in its row under the broker's own key until it has ended.
pub struct Held {
    /// The configured connection.
    pub backend: String,
    /// What names it there, such as the accessor of Vault's job token; a text.
    pub accessor: Secret,
    /// What names the lease itself, where the backend can say of it alone whether it is gone; a text.
    pub lease: Option<Secret>,
}

/// A credential in our hands, not yet delivered.
pub struct Minted {
    /// Its fields in order.
    pub fields: Vec<Field>,
    /// When it ends by itself; `None` for a static one.
    pub expires_at: Option<Timestamp>,
    /// The generation of the sealed store that it was read from, if it was; the durable step checks that it still
    /// stands.
    pub sealed_generation: Option<u64>,
    /// What revokes it from now on, where that is more than what was opened.
    pub held: Option<Held>,
    /// What the ISSUED entry says of it beside the common members (a secret's version, an assertion's `kid`).
    pub told: Value,
}

/// One field of a credential.
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Secret,
    /// Whether it is secret: masked, listed in `secret_fields`.
    pub is_secret: bool,
}

/// Why there is no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintFault {
    /// Nothing was made, for certain: 502 `backend_failed`. `reason` goes to the ledger, never to the caller.
    #[error("the backend refused: {reason}")]
    Failed {
        /// A stable word, such as `secret-missing`.
        reason: &'static str,
        /// The generation of the sealed store that was looked at, if it was.
        sealed_generation: Option<u64>,
    },
    /// Nobody knows whether it was made, for what was asked may have had its effect: 502 `backend_failed`.
    #[error("the backend's answer was lost: {reason}")]
    Lost {
        /// A stable word, such as `answer-truncated`.
        reason: &'static str,
    },
    /// The backend did not answer in time, and nobody knows whether it was made: 504 `backend_timeout`.
    #[error("the backend did not answer in time")]
    Timeout,
}

impl MintFault {
    /// Nothing was made; no sealed store was looked at.
    pub fn failed(reason: &'static str) -> Self {
        Self::Failed { reason, sealed_generation: None }
    }
}

/// Why a revoke is not confirmed; it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the backend did not confirm the revoke: {reason}")]
pub struct RevokeFault {
    /// A stable word for log and ledger.
    pub reason: &'static str,
}

/// The sealed store as its minter sees it: ciphertext by name, from memory.
pub trait SealedRecords: Send + Sync {
    /// The generation of the sealed store as this process knows it, and the record of that name in it, if any. The
    /// durable step tells whether the generation still stands.
    fn sealed(&self, name: &SecretName) -> (u64, Option<Arc<SealedSecret>>);
}

/// One secret as the store keeps it.
pub struct SealedSecret {
    /// Its version.
    pub version: u64,
    /// Its ciphertext.
    pub record: SealedRecord,
}
