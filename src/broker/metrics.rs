//! What operators see of a broker: counters, gauges and histograms as plain atomics, and the Prometheus text of them.
//!
//! Every family of the process stands in [`FAMILIES`], wherever its figures are kept, so that the manual's table, the
//! dashboard and the alert rules can be held against it. Labels come from closed sets only: words of our own enums,
//! routes of the API, issuers of the configuration. Grants are no label: an admin may have ten thousand of them and
//! change them at any time; the ledger answers what happened under each. To count costs some atomics; nothing is
//! allocated and nothing is locked but where the text is written.

pub mod families;
mod text;

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

pub use self::{
    families::{FAMILIES, Family, Shape},
    text::Exposition,
};
use super::error::{Code, Refused};
use crate::kernel::{ledger::entry::EntryCode, policy::target::Kind};

/// A number that only grows while the process lives.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Changes it by that much.
    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, value: u64) {
        self.0.store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// What it is now.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of durations, in microseconds: from a tenth of a commit to the exchange's default deadline.
pub const DURATIONS_US: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 15_000_000,
];
/// Upper bounds of batch sizes: the writer takes at most 256 commands a turn.
pub const BATCHES: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// How often something had which size. Its count is the sum of its buckets, so that the two never disagree.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    buckets: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    /// An empty one with these upper bounds, ascending.
    pub fn new(bounds: &'static [u64; N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    /// One more of that size.
    pub fn observe(&self, size: u64) {
        let place = self.bounds.partition_point(|bound| *bound < size);
        self.buckets.get(place).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(size, Ordering::Relaxed);
    }
}

/// A histogram of durations, kept in microseconds and shown in seconds.
pub type Durations = Histogram<15>;

impl Durations {
    /// An empty one.
    pub fn empty() -> Self {
        Self::new(&DURATIONS_US)
    }

    /// One more that took so long.
    pub fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

/// A step of an exchange that is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// From the token's first byte to who the job is, a wait for the issuer's keys included.
    Verify,
    /// The policy's verdict.
    Decide,
    /// Making the credentials.
    Fetch,
    /// The durable step: from the queue to what the disk confirmed.
    Durable,
}

impl Step {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Verify, Self::Decide, Self::Fetch, Self::Durable];

    fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Decide => "decide",
            Self::Fetch => "fetch",
            Self::Durable => "durable",
        }
    }
}

/// What a broker counts of its own work.
#[derive(Debug)]
pub struct Metrics {
    /// By [`Code`]; the last two are permits: issued, and dry runs.
    outcomes: [Counter; OUTCOMES],
    issued: [Counter; Kind::ALL.len()],
    failed: [Counter; Kind::ALL.len()],
    exchange: Durations,
    steps: [Durations; Step::ALL.len()],
    running: Gauge,
    undelivered: Counter,
    /// Revokes that were asked for: confirmed, and not.
    revoked: [Counter; 2],
    alerts: [Counter; EntryCode::ALL.len()],
    policy_accepted: Counter,
    policy_refused: Counter,
    policy_since: AtomicU64,
}

const ISSUED: usize = Code::ALL.len();
const DRY_RUN: usize = ISSUED + 1;
const OUTCOMES: usize = DRY_RUN + 1;

impl Default for Metrics {
    fn default() -> Self {
        Self {
            outcomes: std::array::from_fn(|_| Counter::default()),
            issued: std::array::from_fn(|_| Counter::default()),
            failed: std::array::from_fn(|_| Counter::default()),
            exchange: Durations::empty(),
            steps: std::array::from_fn(|_| Durations::empty()),
            running: Gauge::default(),
            undelivered: Counter::default(),
            revoked: [Counter::default(), Counter::default()],
            alerts: std::array::from_fn(|_| Counter::default()),
            policy_accepted: Counter::default(),
            policy_refused: Counter::default(),
            policy_since: AtomicU64::new(0),
        }
    }
}

/// An exchange under way; it ends when this is dropped.
pub(super) struct Underway<'a>(&'a Gauge);

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

impl Metrics {
    /// An exchange began.
    pub(super) fn begin(&self) -> Underway<'_> {
        self.running.add(1);
        Underway(&self.running)
    }

    /// An exchange came to that, so long after its token was first looked at.
    pub(super) fn exchanged(&self, outcome: Result<Permitted, &Refused>, took: Duration) {
        let place = match outcome {
            Ok(Permitted::Issued) => ISSUED,
            Ok(Permitted::DryRun) => DRY_RUN,
            Err(refused) => refused.code as usize,
        };
        if let Some(counter) = self.outcomes.get(place) {
            counter.count();
        }
        self.exchange.took(took);
    }

    /// A step took so long.
    pub(super) fn step(&self, step: Step, took: Duration) {
        if let Some(times) = self.steps.get(step as usize) {
            times.took(took);
        }
    }

    /// Credentials of that kind came to be, or failed.
    pub(super) fn made(&self, kind: Kind, is_issued: bool) {
        let counters = if is_issued { &self.issued } else { &self.failed };
        if let Some(counter) = counters.get(kind as usize) {
            counter.count();
        }
    }

    /// A backend was asked for a revoke.
    pub(super) fn revoked(&self, is_confirmed: bool) {
        let [confirmed, unconfirmed] = &self.revoked;
        if is_confirmed { confirmed } else { unconfirmed }.count();
    }

    /// An answer could not be written to its job.
    pub(super) fn undelivered(&self, issuances: usize) {
        self.undelivered.add(issuances as u64);
    }

    /// An entry became durable; it counts where it is an alert.
    pub fn recorded(&self, code: EntryCode) {
        if let Some(counter) = self.alerts.get(code as usize) {
            counter.count();
        }
    }

    /// A policy set was taken or refused, at that Unix time.
    pub(super) fn policy_offered(&self, is_taken: bool, now_s: i64) {
        if is_taken {
            self.policy_accepted.count();
            self.policy_since.store(u64::try_from(now_s).unwrap_or(0), Ordering::Relaxed);
        } else {
            self.policy_refused.count();
        }
    }

    fn expose(&self, to: &mut Exposition) {
        let outcomes = Code::ALL.into_iter().map(Code::as_str).chain(["issued", "dry_run"]);
        to.family(&families::EXCHANGES);
        for (outcome, counter) in outcomes.zip(&self.outcomes) {
            to.value(&[("outcome", outcome)], counter.value());
        }
        to.family(&families::ISSUANCES);
        for (kind, (issued, failed)) in Kind::ALL.into_iter().zip(self.issued.iter().zip(&self.failed)) {
            to.value(&[("kind", kind.as_str()), ("outcome", "issued")], issued.value());
            to.value(&[("kind", kind.as_str()), ("outcome", "failed")], failed.value());
        }
        to.family(&families::REVOKES);
        for (outcome, counter) in ["confirmed", "unconfirmed"].into_iter().zip(&self.revoked) {
            to.value(&[("outcome", outcome)], counter.value());
        }
        to.family(&families::UNDELIVERED);
        to.value(&[], self.undelivered.value());
        to.family(&families::EXCHANGES_RUNNING);
        to.value(&[], self.running.value());
        to.family(&families::EXCHANGE_SECONDS);
        to.durations(&[], &self.exchange);
        to.family(&families::STEP_SECONDS);
        for (step, times) in Step::ALL.into_iter().zip(&self.steps) {
            to.durations(&[("step", step.as_str())], times);
        }
        to.family(&families::ALERTS);
        for (code, counter) in EntryCode::ALL.into_iter().zip(&self.alerts) {
            if let Some(kind) = code.as_str().strip_prefix("ALERT_") {
                to.value(&[("kind", &kind.to_ascii_lowercase())], counter.value());
            }
        }
        to.family(&families::POLICY_LOADS);
        to.value(&[("outcome", "accepted")], self.policy_accepted.value());
        to.value(&[("outcome", "refused")], self.policy_refused.value());
    }
}

/// A permit, as it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Permitted {
    /// Credentials were issued.
    Issued,
    /// They would have been.
    DryRun,
}

impl super::Broker {
    /// Writes what this broker counts: exchanges, credentials, alerts, policy, issuers' keys.
    pub fn expose(&self, to: &mut Exposition) {
        self.metrics.expose(to);
        let policy = self.policy();
        to.family(&families::POLICY_INFO);
        if let Some(policy) = &policy {
            to.value(&[("digest", &policy.digest.to_string())], 1_u64);
        }
        to.family(&families::POLICY_SINCE);
        if policy.is_some() {
            to.value(&[], self.metrics.policy_since.load(Ordering::Relaxed));
        }
        to.family(&families::POLICY_THINGS);
        if let Some(policy) = &policy {
            for (thing, count) in [
                ("grant", policy.grants.len()),
                ("guardrail", policy.guardrails.len()),
                ("issuer", policy.issuers.len()),
            ] {
                to.value(&[("thing", thing)], count as u64);
            }
        }
        to.family(&families::READY);
        for part in self.readiness() {
            to.value(&[("part", part.name)], u64::from(part.fault.is_none()));
        }
        let keys = self.keys.figures();
        to.family(&families::JWKS_REFRESHES);
        for each in &keys {
            let issuer = each.issuer.as_str();
            to.value(&[("issuer", issuer), ("outcome", "ok")], each.refreshed);
            to.value(&[("issuer", issuer), ("outcome", "failed")], each.failed);
        }
        to.family(&families::JWKS_SINCE);
        for each in &keys {
            if let Some(at) = each.held_since {
                to.value(&[("issuer", each.issuer.as_str())], at.as_second());
            }
        }
        to.family(&families::JWKS_USABLE);
        for each in &keys {
            to.value(&[("issuer", each.issuer.as_str())], u64::from(each.is_usable));
        }
        self.store.expose(to);
        to.family(&families::CLOCK);
        to.value(&[], self.ambient.clock.now().as_second());
    }
}

/// What a store counts of its writer's work.
#[derive(Debug)]
pub struct StoreMetrics {
    /// Commands that wait for the writer.
    pub waiting: Gauge,
    /// Entries of the ledger, those of other processes included.
    pub entries: Gauge,
    /// Commands of one transaction.
    pub batches: Histogram<9>,
    /// From BEGIN to what COMMIT confirmed.
    pub commits: Durations,
    /// Transactions that failed.
    pub failures: Counter,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            waiting: Gauge::default(),
            entries: Gauge::default(),
            batches: Histogram::new(&BATCHES),
            commits: Durations::empty(),
            failures: Counter::default(),
        }
    }
}

impl StoreMetrics {
    /// Writes them.
    pub fn expose(&self, to: &mut Exposition) {
        to.family(&families::STORE_WAITING);
        to.value(&[], self.waiting.value());
        to.family(&families::STORE_BATCH);
        to.sizes(&[], &self.batches);
        to.family(&families::STORE_COMMIT);
        to.durations(&[], &self.commits);
        to.family(&families::STORE_FAILURES);
        to.value(&[], self.failures.value());
        to.family(&families::LEDGER_ENTRIES);
        to.value(&[], self.entries.value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fall_into_the_first_bucket_that_holds_them() {
        let times = Durations::empty();
        for size in [0, 250, 251, 15_000_000, 15_000_001, u64::MAX / 4] {
            times.observe(size);
        }
        let counts: Vec<u64> = times.buckets.iter().map(|each| each.load(Ordering::Relaxed)).collect();
        assert_eq!((counts[0], counts[1], counts[14]), (2, 1, 1));
        assert_eq!(times.beyond.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn every_code_and_kind_has_its_own_place() {
        for (place, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place, "{code:?}");
        }
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{kind:?}");
        }
        for (place, code) in EntryCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place, "{code:?}");
        }
        for (place, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, place, "{step:?}");
        }
    }
}
