//! The use cases: exchange, look up, give back, query. It owns the ports that adapters implement, and the order
//! in which things happen. No wire, no SQL, no environment.

pub mod ambient;
pub mod error;
pub mod exchange;
pub mod identify;
pub mod issuances;
pub mod ports;
pub mod query;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;

use crate::kernel::{id::ReplicaId, policy::PolicySet};

pub use ambient::{Ambient, Clock, Entropy};

/// Everything that a use case needs, wired once.
pub struct Broker {
    /// Time and randomness.
    pub ambient: Ambient,
    /// The durable store and ledger.
    pub store: Arc<dyn ports::Store>,
    /// Issuers' keys.
    pub keys: Arc<dyn ports::KeySource>,
    /// The minters, by kind.
    pub minters: ports::Minters,
    /// The accepted policy set; none until the first is accepted.
    pub policy: ArcSwapOption<PolicySet>,
    /// What the operator set.
    pub settings: Settings,
    /// Keyed calls that are running in this process.
    pub running: exchange::Running,
    /// Exchanges that outlive their connection; closed and drained at shutdown.
    pub tasks: tokio_util::task::TaskTracker,
}

/// What the operator's configuration says about the exchange.
pub struct Settings {
    /// This boot of this replica: the owner of its issuance rows.
    pub replica: ReplicaId,
    /// Clock leeway L for `exp`, `nbf`, `iat`.
    pub clock_leeway: Duration,
    /// The exchange's total deadline.
    pub exchange_deadline: Duration,
    /// The deadline of one mint.
    pub mint_deadline: Duration,
    /// Key for pseudonyms of token ids and idempotency keys (32 bytes, from the store).
    pub pseudonym_key: [u8; 32],
}
