//! What `/metrics` shows of the configured backends: their names come from `hallpass.yaml`, all else from our own enums.

use std::{sync::Arc, time::Duration};

use super::{client::VaultClient, fault::VaultFault};
use crate::broker::metrics::{Counter, Durations, Exposition, families};

/// The figures of one backend.
pub(super) struct Figures {
    outcomes: [Counter; OUTCOMES.len()],
    times: Durations,
    logins: Counter,
    failed_logins: Counter,
    retries: Counter,
    orphans: Counter,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            outcomes: std::array::from_fn(|_| Counter::default()),
            times: Durations::empty(),
            logins: Counter::default(),
            failed_logins: Counter::default(),
            retries: Counter::default(),
            orphans: Counter::default(),
        }
    }
}

impl Figures {
    /// One call ended after that time.
    pub(super) fn called(&self, outcome: Result<(), VaultFault>, time: Duration) {
        self.times.took(time);
        let [answered, refused, limited, ill, unasked] = &self.outcomes;
        match outcome {
            Ok(()) => answered,
            Err(VaultFault::BreakerOpen) => unasked,
            Err(VaultFault::RateLimited | VaultFault::Quota) => limited,
            Err(fault) if fault.is_illness() => ill,
            Err(_) => refused,
        }
        .count();
    }

    /// One more try of the same call.
    pub(super) fn retried(&self) {
        self.retries.count();
    }

    /// Something may have been made that nobody can name.
    pub(super) fn orphaned(&self) {
        self.orphans.count();
    }

    /// One login ended.
    pub(super) fn logged_in(&self, succeeded: bool) {
        if succeeded { &self.logins } else { &self.failed_logins }.count();
    }
}

/// Writes the figures of all clients.
pub fn expose(clients: &[Arc<VaultClient>], to: &mut Exposition) {
    to.family(&families::BACKEND_BREAKER);
    for client in clients {
        to.value(&[("backend", client.name())], u8::from(client.is_breaker_open()));
    }
    to.family(&families::BACKEND_LOGINS);
    for client in clients {
        let figures = client.figures();
        for (outcome, count) in [("succeeded", &figures.logins), ("failed", &figures.failed_logins)] {
            to.value(&[("backend", client.name()), ("outcome", outcome)], count.value());
        }
    }
    to.family(&families::BACKEND_ORPHANS);
    clients
        .iter()
        .for_each(|client| to.value(&[("backend", client.name())], client.figures().orphans.value()));
    to.family(&families::BACKEND_SECONDS);
    clients.iter().for_each(|client| to.durations(&[("backend", client.name())], &client.figures().times));
    to.family(&families::BACKEND_REQUESTS);
    for client in clients {
        for (outcome, count) in OUTCOMES.iter().zip(&client.figures().outcomes) {
            to.value(&[("backend", client.name()), ("outcome", outcome)], count.value());
        }
    }
    to.family(&families::BACKEND_RETRIES);
    clients
        .iter()
        .for_each(|client| to.value(&[("backend", client.name())], client.figures().retries.value()));
}

/// In the order of [`Figures::called`].
const OUTCOMES: [&str; 5] = ["answered", "refused", "limited", "failed", "breaker_open"];
