//! The brokers of one store: each posts every ten seconds which policy set decides in it, and all see whether they
//! agree (design: section 8, "Emergency"). A set reaches every replica within seconds of each other; a difference that
//! stays is a directory that is not the same everywhere, or a replica that refused a set.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    Broker,
    error::Refused,
    ports::{Beat, Skew},
};
use crate::kernel::{
    id::ReplicaId,
    ledger::entry::{Draft, EntryCode},
};

/// How often a broker posts (design: section 8).
pub const BEAT: Duration = Duration::from_secs(10);
/// How long after its last post a broker counts as alive: two may be lost.
pub const ALIVE: Duration = Duration::from_secs(30);
/// How long brokers may differ (design: section 8).
const DIFFERENCE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

impl Broker {
    /// Posts that this broker lives and by which set it decides, looks whether all agree, and completes freezes of keys
    /// that only it knows. A difference of more than a minute is an alert, once for all replicas until they agree.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`; it is tried again at the next beat.
    pub async fn beat(&self) -> Result<(), Refused> {
        let now = self.ambient.clock.now();
        let digest = self.policy().map(|policy| policy.digest);
        let beat = Beat { replica: self.settings.replica, started: self.started, digest, now };
        let skew = self.store.beat(beat).await?;
        let lasting = skew.filter(|skew| now.duration_since(skew.since) > DIFFERENCE);
        self.skew.store(lasting.as_ref().map(|skew| Arc::new(warning(skew))));
        if let Some(skew) = lasting.filter(|skew| !skew.is_told) {
            self.alert(&skew).await?;
        }
        self.complete_freezes().await
    }

    /// Takes this broker off the list, so that one which ended in order is not waited for.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`.
    pub async fn leave(&self) -> Result<(), Refused> {
        Ok(self.store.leave(self.settings.replica).await?)
    }

    /// What somebody should look at although everything is ready.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = [self.unguarded.load_full(), self.skew.load_full()];
        warnings.into_iter().flatten().map(|warning| warning.to_string()).collect()
    }

    /// Says what is wanting of the guard against a rollback, or that nothing is.
    pub fn warn_of_rollback(&self, warning: Option<String>) {
        self.unguarded.store(warning.map(Arc::new));
    }

    /// What is wanting of it now.
    pub fn rollback_warning(&self) -> Option<String> {
        self.unguarded.load_full().map(|warning| warning.to_string())
    }

    /// This boot.
    pub fn replica(&self) -> ReplicaId {
        self.settings.replica
    }

    async fn alert(&self, skew: &Skew) -> Result<(), Refused> {
        let sets: Vec<Value> = skew
            .sets
            .iter()
            .map(|(digest, replicas)| json!({ "digest": digest.to_string(), "replicas": replicas }))
            .collect();
        let result = json!({ "since": skew.since.to_string(), "sets": sets });
        let entry = self.seal(&Draft { result: Some(result), ..Draft::of(EntryCode::AlertPolicySkew) })?;
        if self.store.tell_skew(skew.since, entry).await? {
            self.metrics.recorded(EntryCode::AlertPolicySkew);
            tracing::warn!(policy.sets = skew.sets.len(), "{}", warning(skew));
        }
        Ok(())
    }
}

fn warning(skew: &Skew) -> String {
    let sets: Vec<String> =
        skew.sets.iter().map(|(digest, replicas)| format!("{replicas} by {digest}")).collect();
    format!(
        "brokers of this store decide by different policy sets since {}: {}; look whether their policy directories are the same",
        skew.since.strftime("%Y-%m-%dT%H:%M:%SZ"),
        sets.join(", ")
    )
}
