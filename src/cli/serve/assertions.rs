//! Follows the keys of assertions: reads their dates from the database, tells the signer, keeps the published documents
//! current, and has private halves deleted that signed their last. Every broker does it, and none needs another.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    adapters::{
        mint::Assertions,
        store::{AssertionHandover, AssertionRotationFault, Database},
    },
    broker::{Clock, ambient::NoEntropy, ports::StoreFault},
    cli::{
        actor::Actor,
        config::Config,
        issuer_documents,
        keys::assertions::{Turn, rotate},
    },
    http::OwnIssuer,
    kernel::assertion::{Algorithm, AssertionKey, KeyState},
};

/// How often they are read. A key that was withdrawn signs for no longer than this, and the signer stops by itself where
/// no reading succeeds.
const EVERY: Duration = Duration::from_secs(5);
/// For how long a verifier may keep the documents: far less than the least lead time of a key.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How long after its last signature a private half is looked at as something to delete; the store waits as long.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// What verifiers of our assertions are told.
pub(crate) fn own_issuer(assertions: &Arc<Assertions>) -> OwnIssuer {
    let configuration = assertions.is_issuer_at_public_url().then(|| assertions.openid_configuration());
    let assertions = Arc::clone(assertions);
    OwnIssuer {
        configuration,
        jwks: Box::new(move || assertions.jwks(Clock::System.now())),
        max_age: MAX_AGE,
    }
}

/// What follows them.
pub(crate) struct AssertionKeys {
    assertions: Arc<Assertions>,
    store: Arc<Database>,
    publish: Option<PathBuf>,
    key_lead: Duration,
    asked: Arc<Notify>,
}

impl AssertionKeys {
    /// Tells that signer of what is in the store from now on, and keeps the configuration's folder current; answers what
    /// asks for a look at once.
    pub(crate) fn start(
        chores: &mut JoinSet<()>,
        assertions: Arc<Assertions>,
        (store, config): (&Arc<Database>, &Config),
    ) -> Arc<Notify> {
        let asked = Arc::<Notify>::default();
        let publish = config.assertions.publish.clone();
        let (key_lead, store) = (config.assertions.key_lead, Arc::clone(store));
        let following = Self { assertions, store, publish, key_lead, asked: Arc::clone(&asked) };
        chores.spawn(following.follow());
        asked
    }

    /// Follows them for ever.
    async fn follow(self) {
        loop {
            self.look().await;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.asked.notified() => {}
            }
        }
    }

    async fn look(&self) {
        // Before the reading, so that what is read is never taken for newer than it is.
        let now = Clock::System.now();
        let keys = match self.read(now).await {
            Ok(keys) => keys,
            Err(fault) => {
                tracing::warn!(%fault, "the assertion keys were not read; without them nothing is signed after a minute");
                return;
            }
        };
        self.complete(&keys).await;
        self.publish(now).await;
        let is_spent = |key: &AssertionKey| {
            let state = |at: Timestamp| key.schedule.state(at);
            let then = now.saturating_sub(FORGET_AFTER).unwrap_or(now);
            key.private.is_some() && key.public.is_some() && state(then) >= KeyState::Retired
        };
        if keys.iter().any(is_spent) {
            match self.store.forget_assertion_keys(now).await {
                Ok(()) => tracing::info!("a retired assertion key lost its private half"),
                Err(fault) => tracing::warn!(%fault, "a retired assertion key still has its private half"),
            }
        }
    }

    /// Has a key made of each algorithm that the store never had one of: an older version made the store, before there was
    /// that algorithm. It comes as every later key does, published first, since verifiers keep a set that lacks it; of
    /// brokers that find this at once, the database lets one.
    async fn complete(&self, keys: &[AssertionKey]) {
        for algorithm in Algorithm::ALL {
            if keys.iter().any(|key| key.algorithm == algorithm) {
                continue;
            }
            let name = algorithm.as_str();
            let turn = Turn { algorithm, lead: self.key_lead, is_compromised: false };
            let made = match Actor::new() {
                Ok(actor) => rotate(&self.store, &actor, turn).await,
                Err(NoEntropy) => Err(AssertionRotationFault::NoEntropy),
            };
            match made {
                Ok(AssertionHandover { schedule, .. }) => {
                    let from = schedule.active_at.to_string();
                    tracing::info!(
                        algorithm = name,
                        from,
                        "the store had no such key of assertions; one is published"
                    );
                    self.asked.notify_one();
                }
                // Another broker was first.
                Err(AssertionRotationFault::Contended | AssertionRotationFault::Pending { .. }) => {}
                Err(fault) => {
                    tracing::warn!(algorithm = name, %fault, "the store has no such key of assertions, and none was made");
                }
            }
        }
    }

    async fn read(&self, now: Timestamp) -> Result<Vec<AssertionKey>, StoreFault> {
        let keys = self.store.assertion_keys().await?;
        match self.assertions.renew(&keys, now) {
            Ok(true) => tracing::info!("verifiers are told of other assertion keys from now on"),
            Ok(false) => {}
            Err(fault) => return Err(StoreFault::Unavailable(fault.to_string())),
        }
        Ok(keys)
    }

    /// Only what was just read is published: a broker that lost the database must not bring back old keys.
    async fn publish(&self, now: Timestamp) {
        let Some(folder) = self.publish.clone() else { return };
        let assertions = Arc::clone(&self.assertions);
        let written = tokio::task::spawn_blocking(move || issuer_documents::write(&folder, &assertions, now));
        match written.await {
            Ok(Ok(changed)) if changed.is_empty() => {}
            Ok(Ok(_)) => tracing::info!("the issuer's documents were written anew"),
            Ok(Err(fault)) => tracing::warn!(%fault, "the issuer's documents cannot be written"),
            Err(fault) => tracing::warn!(%fault, "the issuer's documents were not written"),
        }
    }
}
