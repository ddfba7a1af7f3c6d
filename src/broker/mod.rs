//! The use cases: exchange, look up, give back, freeze, revoke, query. It owns the ports that adapters implement, and the order
//! in which things happen. No wire, no SQL, no environment.

pub mod ambient;
pub mod audit;
pub mod emergency;
pub mod error;
pub mod exchange;
pub mod identify;
pub mod issuances;
pub mod lifecycle;
pub mod metrics;
pub mod policy;
pub mod ports;
pub mod query;
mod record;
pub mod replicas;
pub mod revoking;
pub mod spans;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tokio_util::task::TaskTracker;

use crate::kernel::{
    id::ReplicaId,
    policy::{PolicySet, set::Trusted},
};

pub use ambient::{Ambient, Clock, Entropy};

/// Everything that a use case needs, wired once.
pub struct Broker {
    ambient: Ambient,
    store: Arc<dyn ports::Store>,
    keys: Arc<dyn ports::KeySource>,
    minters: ports::Minters,
    policy: ArcSwapOption<PolicySet>,
    /// Held while a set is recorded and taken, so that the newest entry names the set that decides.
    policy_turn: tokio::sync::Mutex<()>,
    settings: Settings,
    rates: identify::ProjectRates,
    running: exchange::Running,
    reads: query::Reads,
    metrics: metrics::Metrics,
    /// When this boot began.
    started: jiff::Timestamp,
    /// What all should know while brokers decide by different sets.
    skew: ArcSwapOption<String>,
    /// What all should know while a rollback of the database would not be noticed, or not all of it.
    unguarded: ArcSwapOption<String>,
    tasks: TaskTracker,
}

/// What a broker is made of.
pub struct Parts {
    /// Time and randomness.
    pub ambient: Ambient,
    /// The durable store and ledger.
    pub store: Arc<dyn ports::Store>,
    /// Issuers' keys.
    pub keys: Arc<dyn ports::KeySource>,
    /// The minters, by kind.
    pub minters: ports::Minters,
    /// What the operator set.
    pub settings: Settings,
}

/// What the operator's configuration says about the exchange.
pub struct Settings {
    /// This boot of this replica: the owner of its issuance rows.
    pub replica: ReplicaId,
    /// Whom the operator trusts; policy must agree.
    pub trusted: Trusted,
    /// Clock leeway L for `exp`, `nbf`, `iat`.
    pub clock_leeway: Duration,
    /// The exchange's total deadline.
    pub exchange_deadline: Duration,
    /// The deadline of one mint.
    pub mint_deadline: Duration,
    /// Exchanges a minute that one project may ask for.
    pub per_project_per_minute: u32,
    /// Key for pseudonyms of token ids and idempotency keys (32 bytes, from the store).
    pub pseudonym_key: [u8; 32],
}

impl Broker {
    /// Wires a broker. It has no policy yet: until [`Broker::offer_policy`] accepts a set it answers `not_ready`.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { ambient, store, keys, minters, settings } = parts;
        Arc::new(Self {
            rates: identify::ProjectRates::new(settings.per_project_per_minute),
            started: ambient.clock.now(),
            skew: ArcSwapOption::empty(),
            unguarded: ArcSwapOption::empty(),
            ambient,
            store,
            keys,
            minters,
            policy: ArcSwapOption::empty(),
            policy_turn: tokio::sync::Mutex::default(),
            settings,
            running: exchange::Running::default(),
            reads: query::Reads::default(),
            metrics: metrics::Metrics::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// The policy set that decides now.
    pub fn policy(&self) -> Option<Arc<PolicySet>> {
        self.policy.load_full()
    }
}
