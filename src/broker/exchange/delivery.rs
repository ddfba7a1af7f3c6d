//! What follows the durable step: the bytes on their way to the job, and the keyed calls that are still running.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use serde_json::json;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    broker::{
        Broker,
        error::{Code, Refused},
        ports::KeyClaim,
    },
    kernel::{
        digest::Digest,
        id::IssuanceId,
        ledger::entry::{Draft, Entry, EntryCode},
    },
};

/// Stands for the bytes on their way: dropped without [`Delivery::confirm`], UNDELIVERED is recorded.
pub struct Delivery {
    pending: Option<Pending>,
}

struct Pending {
    broker: Arc<Broker>,
    runtime: tokio::runtime::Handle,
    undelivered: Vec<Undelivered>,
    /// What of it can be revoked.
    revocable: Vec<IssuanceId>,
    /// A stop waits for what is still being written, since that may yet have to be recorded as undelivered.
    _tracked: TaskTrackerToken,
}

/// An issuance whose bytes are on their way, as its UNDELIVERED entry would tell of it.
pub(super) struct Undelivered {
    /// What was recorded.
    pub(super) issued: Draft,
    /// Until when it is usable; none where static.
    pub(super) usable_until: Option<Timestamp>,
}

impl Undelivered {
    fn into_draft(self) -> Draft {
        Draft {
            code: Some(EntryCode::Undelivered),
            result: Some(json!({ "usable_until": self.usable_until.map(|at| at.to_string()) })),
            ..self.issued
        }
    }
}

/// Keyed calls that are running in this process, with the digest of what they ask.
#[derive(Default)]
pub(in crate::broker) struct Running(Mutex<HashMap<Digest, Digest>>);

impl Delivery {
    /// Answers for these issuances.
    pub(super) fn new(
        broker: &Arc<Broker>,
        undelivered: Vec<Undelivered>,
        revocable: Vec<IssuanceId>,
    ) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let tracked = broker.tasks.token();
        Self {
            pending: Some(Pending {
                broker: Arc::clone(broker),
                runtime,
                undelivered,
                revocable,
                _tracked: tracked,
            }),
        }
    }

    /// The last byte left: nothing more is recorded.
    pub fn confirm(mut self) {
        self.pending = None;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(Pending { broker, runtime, undelivered, revocable, _tracked }) = self.pending.take() else {
            return;
        };
        let tasks = broker.tasks.clone();
        tasks.spawn_on(
            async move {
                broker.metrics.undelivered(undelivered.len());
                let sealed: Result<Vec<Entry>, Refused> =
                    undelivered.into_iter().map(|each| broker.seal(&each.into_draft())).collect();
                let Ok(entries) = sealed else { return };
                if let Err(fault) = broker.store.append(entries).await {
                    tracing::error!(%fault, "an undelivered answer could not be recorded");
                }
                if let Err(refused) = broker.revoke_undelivered(&revocable).await {
                    tracing::error!(reason = refused.detail, "what was not delivered could not be revoked");
                }
            },
            &runtime,
        );
    }
}

/// Keeps a keyed call's place until it is dropped.
pub(super) struct RunningCall<'a> {
    running: &'a Running,
    key: Option<Digest>,
}

impl Running {
    #[cfg(test)]
    pub(in crate::broker) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    pub(super) fn enter(&self, claim: Option<KeyClaim>) -> Result<RunningCall<'_>, (Refused, &'static str)> {
        let Some(KeyClaim { key, body }) = claim else { return Ok(RunningCall { running: self, key: None }) };
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get(&key) {
            Some(other) if *other != body => Err((mismatch(), "idempotency-other-body")),
            Some(_) => Err((in_progress(), "idempotency-in-progress")),
            None => {
                calls.insert(key, body);
                Ok(RunningCall { running: self, key: Some(key) })
            }
        }
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        }
    }
}

pub(super) fn in_progress() -> Refused {
    let detail = "the first call with this Idempotency-Key is still running; ask again in a moment";
    Refused::new(Code::RequestInProgress, detail)
}

pub(super) fn mismatch() -> Refused {
    let detail = "this Idempotency-Key was used for another request; use a new key for a new request";
    Refused::new(Code::IdempotencyMismatch, detail)
}
