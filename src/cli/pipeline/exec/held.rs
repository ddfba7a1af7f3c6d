//! The credentials that a run has to give back, and the giving back.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::LocalSet;

use super::super::{
    super::{exit::Exit, output},
    broker::{Caller, shown},
    exchanged::{Exchanged, Issuance},
};
use crate::kernel::secret::Secret;

/// What is held of one issuance: enough to give it back.
pub(super) struct Held {
    id: String,
    handle: Secret,
    /// What to tell of it where it cannot be given back.
    told: String,
}

/// The issuances of all exchanges that were not given back yet, one list an exchange, the oldest first.
#[derive(Default)]
pub(super) struct Holdings(Mutex<Vec<Vec<Held>>>);

/// How often it is tried.
const TRIES: u32 = 3;
/// One try.
const ONE_TRY: Duration = Duration::from_secs(3);
/// Between two tries; it doubles.
const WAIT: Duration = Duration::from_millis(200);

impl Holdings {
    /// Takes the rights to give back out of an exchange.
    pub(super) fn take(&self, exchanged: &mut Exchanged) {
        let decision = shown(&exchanged.decision);
        let held = |issuance: &mut Issuance| Held {
            id: issuance.id.clone(),
            handle: std::mem::replace(&mut issuance.handle, Secret::new(Vec::new())),
            told: told(issuance, &decision),
        };
        let held = exchanged.issuances.iter_mut().map(held).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    }

    /// Gives back the oldest exchange's.
    pub(super) async fn give_back_oldest(&self, caller: &Arc<Caller>) {
        let oldest = {
            let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if lists.is_empty() { Vec::new() } else { lists.remove(0) }
        };
        give_back(oldest, caller).await;
    }

    /// Gives back the newest exchange's.
    pub(super) async fn give_back_newest(&self, caller: &Arc<Caller>) {
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        give_back(newest.unwrap_or_default(), caller).await;
    }

    /// Gives everything back, in ten seconds or so at most, and says what could not be.
    pub(super) async fn give_back_all(&self, caller: &Arc<Caller>) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        give_back(all.into_iter().flatten().collect(), caller).await;
    }
}

fn told(issuance: &Issuance, decision: &str) -> String {
    let end = issuance.expires_at.map_or_else(|| "never".to_owned(), |end| format!("at {end}"));
    let verb = if issuance.revocable { "revoked" } else { "released" };
    format!(
        "{}/{} ({}, {}, {decision}) could not be {verb}, it ends {end}",
        shown(&issuance.grant),
        shown(&issuance.credential),
        shown(&issuance.kind),
        shown(&issuance.id),
    )
}

async fn give_back(held: Vec<Held>, caller: &Arc<Caller>) {
    let together = LocalSet::new();
    for each in held {
        let caller = Arc::clone(caller);
        together.spawn_local(async move {
            if let Some(warning) = each.give_back(&caller).await {
                output::say(&warning);
            }
        });
    }
    together.await;
}

impl Held {
    /// A warning where it could not be given back.
    async fn give_back(self, caller: &Caller) -> Option<String> {
        let path = format!("/v1/issuances/{}", self.id);
        let mut why = String::new();
        for turn in 0..TRIES {
            if turn > 0 {
                tokio::time::sleep(WAIT.saturating_mul(1 << turn)).await;
            }
            match caller.delete_once(&path, &self.handle, ONE_TRY).await {
                Ok(_) => return None,
                // Not found: its time is over, or somebody was faster. There is nothing left to give back.
                Err(failure) if failure.exit == Exit::Usage => return None,
                Err(failure) => why = failure.message,
            }
        }
        Some(format!("hallpass: warning: {}: {why}", self.told))
    }
}
