//! Issuers' keys: fetched by discovery, from a `jwks_uri` or from a file, and kept.
//!
//! A fetch is only ever made for an issuer of the operator's configuration. One refresh of an issuer runs at a
//! time, and none begins within the cool-down of the last one's beginning, whether it succeeded or failed, so that a
//! flood of invented key ids costs one fetch (attack class K-06); an operator's hang-up and an edited key file are no
//! flood and need not wait. A set is replaced only by one that was read whole; readers who have a usable key never
//! wait for a refresh that others need. Issuers share nothing but a bound on waiters, so that one that hangs holds up
//! nobody else's jobs (attack class K-10). The times stand in `times` and in the manual's page on issuers.
//!
//! Signatures are checked by whoever gets the key, on the request's own task, without a pool of its own: the largest
//! key that is accepted takes about a millisecond (measured by `verification_costs` in `kernel::identity::keys`), which
//! no issuer can make longer and the rates of sources bound in number.

mod source;
mod times;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::task::TaskTracker;

use source::{RefreshFault, Source, Stamp};
use times::{COOL_DOWN, FOREWARNING, GREATEST_AGE, LOOK, Life, draw, is_within, jittered, retry};

use crate::{
    broker::ports::{Answer, KeyFault, KeySource, KeyStanding},
    kernel::{
        digest::Digest,
        identity::{
            keys::{KeySet, VerificationKey},
            profile::{Algorithm, Profile},
            token::RawToken,
        },
        name::IssuerName,
    },
};

/// What time it is.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// One issuer of the operator's configuration.
pub struct IssuerKeysConfig {
    /// Its name.
    pub name: IssuerName,
    /// Its URL, byte for byte the `iss` of its tokens.
    pub url: String,
    /// Its profile.
    pub profile: &'static Profile,
    /// Where its keys come from.
    pub source: KeysFrom,
    /// The only authorities trusted for it, as PEM; the system's where absent.
    pub ca_pem: Option<Vec<u8>>,
    /// Whether it may live on a private network or on this machine.
    pub allow_private_addresses: bool,
    /// How long one refresh may take, discovery included.
    pub deadline: Duration,
}

/// Where an issuer's keys come from.
pub enum KeysFrom {
    /// `URL/.well-known/openid-configuration` (OpenID Connect Discovery 1.0); the `jwks_uri` in it must be of the
    /// issuer's own origin, or the one that is known for this issuer.
    Discovery,
    /// A file.
    File {
        /// Where it is.
        path: PathBuf,
        /// The first moment at which it is no longer good (attack class K-09): the end of `jwks_valid_until`'s day.
        valid_until: Option<Timestamp>,
    },
    /// A JWK set at this address, whatever host it names.
    Uri(String),
}

/// Why the issuers cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("issuer {issuer}: {reason}")]
pub struct IssuerKeysFault {
    /// The issuer.
    pub issuer: IssuerName,
    /// What is wrong with its configuration.
    pub reason: String,
}

/// The keys of all issuers that we trust.
pub struct IssuerKeys {
    issuers: HashMap<IssuerName, Arc<Issuer>>,
    now: Now,
    /// Refreshes outlive the request that began them, since others wait for them too.
    refreshes: TaskTracker,
    /// A place for each request that waits for a refresh.
    waiting: Semaphore,
    /// What this replica's jitter is drawn from.
    seed: u64,
}

impl IssuerKeys {
    /// Sets the issuers up; fetches nothing.
    ///
    /// # Errors
    ///
    /// [`IssuerKeysFault`] for an address that may not be fetched, or certificate authorities that cannot be read.
    pub fn new(configs: Vec<IssuerKeysConfig>, now: Now) -> Result<Self, IssuerKeysFault> {
        let mut issuers = HashMap::new();
        for config in configs {
            let name = config.name.clone();
            let issuer =
                Issuer::new(config).map_err(|reason| IssuerKeysFault { issuer: name.clone(), reason })?;
            issuers.insert(name, Arc::new(issuer));
        }
        let waiting = Semaphore::new(Semaphore::MAX_PERMITS);
        Ok(Self { issuers, now, refreshes: TaskTracker::new(), waiting, seed: 0 })
    }

    /// Lets at most so many requests wait for refreshes at once; more are answered that the keys cannot be had.
    #[must_use]
    pub fn with_most_waiting(mut self, most: usize) -> Self {
        self.waiting = Semaphore::new(most.min(Semaphore::MAX_PERMITS));
        self
    }

    /// Draws its jitter from this number, which should be another in each replica.
    #[must_use]
    pub fn with_jitter(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Refreshes every issuer that is not in its cool-down, and waits for all.
    pub async fn refresh(&self) {
        let now = (self.now)();
        let running: Vec<_> = self.issuers.values().filter_map(|issuer| self.begin(issuer, now)).collect();
        for refresh in running {
            refresh.ended().await;
        }
    }

    /// Refreshes one issuer, cool-down or not, and waits for it: somebody with rights on this machine asked for it.
    pub async fn refresh_one(&self, issuer: &IssuerName) {
        if let Some(issuer) = self.issuers.get(issuer) {
            self.force(issuer, (self.now)()).ended().await;
        }
    }

    /// Begins to refresh every issuer, cool-down or not: somebody with rights on this machine asked for it.
    pub fn refresh_at_once(&self) {
        let now = (self.now)();
        self.issuers.values().for_each(|issuer| drop(self.force(issuer, now)));
    }

    /// Keeps every issuer's keys fresh, tries again where one did not answer, and looks at key files; `serve` runs it
    /// beside the requests, so that an issuer comes back without waiting for a job. It never ends by itself.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut issuers = JoinSet::new();
        for issuer in self.issuers.values() {
            issuers.spawn(Arc::clone(&self).keep_one_fresh(Arc::clone(issuer)));
        }
        if issuers.join_next().await.is_none() {
            std::future::pending().await
        }
    }

    /// What an operator should know of each issuer before it serves: keys in a file that end soon, or that anybody
    /// may write.
    pub fn forewarnings(&self) -> Vec<(IssuerName, String)> {
        let now = (self.now)();
        let of = |issuer: &Arc<Issuer>| {
            let warnings = issuer.file_warnings(now, issuer.source.stamp_now());
            warnings.into_iter().map(|warning| (issuer.name.clone(), warning)).collect::<Vec<_>>()
        };
        let mut warnings: Vec<_> = self.issuers.values().flat_map(of).collect();
        warnings.sort();
        warnings
    }

    async fn keep_one_fresh(self: Arc<Self>, issuer: Arc<Issuer>) {
        loop {
            self.look(&issuer).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Begins what is due.
    async fn look(&self, issuer: &Arc<Issuer>) {
        let now = (self.now)();
        if issuer.is_due(now, self.seed) {
            drop(self.begin(issuer, now));
        } else if issuer.was_edited().await {
            drop(self.force(issuer, now));
        }
    }

    async fn find(&self, issuer: &Arc<Issuer>, token: &RawToken) -> Result<Arc<VerificationKey>, KeyFault> {
        // An algorithm that is not of the profile has no key: no fetch for it.
        let algorithm = token.check_algorithm(issuer.profile).map_err(|_| KeyFault::Unknown)?;
        let now = (self.now)();
        if issuer.is_past(now) {
            return Err(issuer.unavailable(now));
        }
        let held = issuer.held_key(token, algorithm, now);
        if let Some(key) = &held {
            match issuer.owed(now) {
                Owed::Nothing => return Ok(Arc::clone(key)),
                Owed::Beside => {
                    drop(self.begin(issuer, now));
                    return Ok(Arc::clone(key));
                }
                Owed::First => {}
            }
        }
        if let Some(refresh) = self.begin(issuer, now) {
            let Ok(place) = self.waiting.try_acquire() else {
                return held.ok_or(issuer.unavailable(now));
            };
            refresh.ended().await;
            drop(place);
        }
        let now = (self.now)();
        if issuer.is_older_than(GREATEST_AGE, now) {
            return Err(issuer.unavailable(now));
        }
        issuer.held_key(token, algorithm, now).ok_or(KeyFault::Unknown)
    }

    /// Joins the refresh that runs, or begins one; `None` in the cool-down.
    fn begin(&self, issuer: &Arc<Issuer>, now: Timestamp) -> Option<Refresh> {
        let attempts = issuer.attempts();
        if !attempts.running && attempts.last.is_some_and(|last| is_within(last, COOL_DOWN, now)) {
            return None;
        }
        Some(self.join(issuer, attempts, now))
    }

    /// Joins the refresh that runs, or begins one.
    fn force(&self, issuer: &Arc<Issuer>, now: Timestamp) -> Refresh {
        self.join(issuer, issuer.attempts(), now)
    }

    fn join(&self, issuer: &Arc<Issuer>, mut attempts: MutexGuard<'_, Attempts>, now: Timestamp) -> Refresh {
        let refresh = Refresh(issuer.ended.subscribe());
        if !attempts.running {
            attempts.running = true;
            attempts.last = Some(now);
            attempts.begun = attempts.begun.wrapping_add(1);
            self.refreshes.spawn(Arc::clone(issuer).attempt(now));
        }
        refresh
    }
}

impl KeySource for IssuerKeys {
    fn key<'a>(
        &'a self,
        issuer: &'a IssuerName,
        token: &'a RawToken,
    ) -> Answer<'a, Result<Arc<VerificationKey>, KeyFault>> {
        Box::pin(async move {
            match self.issuers.get(issuer) {
                Some(issuer) => self.find(issuer, token).await,
                None => Err(KeyFault::Unknown),
            }
        })
    }

    fn thumbprints(&self, issuer: &IssuerName, kid: &str) -> Vec<Digest> {
        let held = self.issuers.get(issuer).and_then(|issuer| issuer.held.load_full());
        held.map(|held| held.set.thumbprints(kid)).unwrap_or_default()
    }

    fn standing(&self) -> Vec<KeyStanding> {
        let now = (self.now)();
        let mut standing: Vec<_> = self.issuers.values().map(|issuer| issuer.standing(now)).collect();
        standing.sort_by(|one, other| one.issuer.cmp(&other.issuer));
        standing
    }
}

/// One issuer.
struct Issuer {
    name: IssuerName,
    url: String,
    profile: &'static Profile,
    source: Source,
    deadline: Duration,
    held: ArcSwapOption<Held>,
    /// Held for a few instructions, never across an await: the one place that decides whether a refresh begins.
    attempts: Mutex<Attempts>,
    /// Counts refreshes that ended; who waits for one waits for a change.
    ended: watch::Sender<u64>,
}

/// A set, when the refresh that brought it began, and how long it is taken for true.
struct Held {
    set: KeySet,
    asked_at: Timestamp,
    life: Life,
}

#[derive(Default)]
struct Attempts {
    /// When the last refresh began.
    last: Option<Timestamp>,
    running: bool,
    /// How many began.
    begun: u64,
    /// How many failed since one did not.
    failures: u32,
    /// Why the last refresh brought nothing.
    failure: Option<String>,
    /// What the key file looked like when it was read last.
    read: Option<Stamp>,
}

/// What a request with a usable key owes to the issuer's having withdrawn it.
enum Owed {
    Nothing,
    /// A refresh, which need not be waited for.
    Beside,
    /// A refresh before anything else.
    First,
}

/// A refresh that runs.
struct Refresh(watch::Receiver<u64>);

impl Refresh {
    async fn ended(mut self) {
        // An error means that the issuer is gone, and its refresh with it.
        drop(self.0.changed().await);
    }
}

impl Issuer {
    fn new(config: IssuerKeysConfig) -> Result<Self, String> {
        let source = Source::new(&config)?;
        Ok(Self {
            name: config.name,
            url: config.url,
            profile: config.profile,
            source,
            deadline: config.deadline,
            held: ArcSwapOption::empty(),
            attempts: Mutex::new(Attempts::default()),
            ended: watch::Sender::new(0),
        })
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the key file's date is over.
    fn is_past(&self, now: Timestamp) -> bool {
        self.source.valid_until().is_some_and(|end| now >= end)
    }

    /// Whether the set is older than that, or absent.
    fn is_older_than(&self, age: SignedDuration, now: Timestamp) -> bool {
        self.held.load().as_ref().is_none_or(|held| now.duration_since(held.asked_at) >= age)
    }

    fn life(&self) -> Life {
        self.held.load().as_ref().map_or(Life::said(None), |held| held.life)
    }

    fn owed(&self, now: Timestamp) -> Owed {
        let life = self.life();
        let (last, failed) = {
            let attempts = self.attempts();
            (attempts.last, attempts.failure.is_some())
        };
        if last.is_some_and(|last| is_within(last, life.greatest(), now)) {
            if self.is_older_than(life.refresh(), now) { Owed::Beside } else { Owed::Nothing }
        } else if failed {
            // It is known to be away, so waiting for it again would only slow down those who have a usable key.
            Owed::Beside
        } else {
            Owed::First
        }
    }

    /// Whether it is time to ask again, though no request needs it.
    fn is_due(&self, now: Timestamp, seed: u64) -> bool {
        let refresh = self.life().refresh();
        let attempts = self.attempts();
        let Some(last) = attempts.last else { return true };
        let wait = if attempts.failures > 0 { retry(attempts.failures) } else { refresh };
        !attempts.running && !is_within(last, jittered(wait, draw(seed, &self.name, attempts.begun)), now)
    }

    /// Whether the key file is another than the one that was read.
    async fn was_edited(&self) -> bool {
        if !self.source.is_file() {
            return false;
        }
        let found = self.source.stamp().await;
        let attempts = self.attempts();
        !attempts.running && found != attempts.read
    }

    fn held_key(
        &self,
        token: &RawToken,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Option<Arc<VerificationKey>> {
        if self.is_older_than(GREATEST_AGE, now) {
            return None;
        }
        self.held.load().as_ref()?.set.find(token.unverified_kid(), algorithm)
    }

    /// There are no keys, and when it is worth asking for them again.
    fn unavailable(&self, now: Timestamp) -> KeyFault {
        let last = self.attempts().last.filter(|last| is_within(*last, COOL_DOWN, now));
        let left =
            last.map_or(SignedDuration::ZERO, |last| COOL_DOWN.saturating_sub(now.duration_since(last)));
        let left = u32::try_from(left.as_secs()).unwrap_or_default().saturating_add(1);
        KeyFault::Unavailable { retry_after_seconds: left.min(60) }
    }

    fn standing(&self, now: Timestamp) -> KeyStanding {
        let (failure, read) = {
            let attempts = self.attempts();
            (attempts.failure.clone(), attempts.read)
        };
        let issuer = self.name.clone();
        let mut warnings = self.file_warnings(now, read);
        if self.is_past(now) {
            return KeyStanding {
                issuer,
                fault: Some("the date of the key file is over".to_owned()),
                warnings,
            };
        }
        if self.is_older_than(GREATEST_AGE, now) {
            let fault = failure.unwrap_or_else(|| "its keys were not fetched yet".to_owned());
            return KeyStanding { issuer, fault: Some(fault), warnings };
        }
        let until = self.held.load().as_ref().and_then(|held| held.asked_at.checked_add(GREATEST_AGE).ok());
        if let (Some(failure), Some(until)) = (failure, until) {
            warnings.push(format!("{failure}; the keys held stay usable until {until:.0}"));
        }
        KeyStanding { issuer, fault: None, warnings }
    }

    /// Attack class K-09: keys in a file change by nobody's hand but the operator's.
    fn file_warnings(&self, now: Timestamp, stamp: Option<Stamp>) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(end) = self.source.valid_until()
            && end.duration_since(now) <= FOREWARNING
        {
            // The end is the midnight after the last day.
            let last =
                end.checked_sub(SignedDuration::from_secs(1)).unwrap_or(end).to_zoned(TimeZone::UTC).date();
            warnings.push(format!(
                "the keys in the file are good until {last}; see whether they are still the issuer's, then set a \
                 later jwks_valid_until"
            ));
        }
        if stamp.is_some_and(|stamp| stamp.is_writable_by_all()) {
            warnings.push("anybody on this machine may write the key file; chmod o-w".to_owned());
        }
        warnings
    }

    /// One refresh. It ends within the deadline, and whoever waits is told, whatever happens in between.
    async fn attempt(self: Arc<Self>, asked_at: Timestamp) {
        let running = Running(&self);
        let outcome = tokio::time::timeout(self.deadline, self.fetch(asked_at))
            .await
            .unwrap_or(Err(RefreshFault::Late));
        match outcome {
            Ok(held) => {
                tracing::info!(
                    issuer.name = %self.name,
                    keys.usable = held.set.usable(),
                    keys.left_out = held.set.left_out(),
                    "issuer's keys refreshed"
                );
                self.held.store(Some(Arc::new(held)));
                let read = {
                    let mut attempts = self.attempts();
                    (attempts.failure, attempts.failures) = (None, 0);
                    attempts.read
                };
                for warning in self.file_warnings(asked_at, read) {
                    tracing::warn!(issuer.name = %self.name, "{warning}");
                }
            }
            Err(fault) => {
                tracing::warn!(issuer.name = %self.name, error = %fault, "issuer's keys could not be refreshed");
                let mut attempts = self.attempts();
                attempts.failure = Some(fault.to_string());
                attempts.failures = attempts.failures.saturating_add(1);
            }
        }
        drop(running);
    }

    async fn fetch(&self, asked_at: Timestamp) -> Result<Held, RefreshFault> {
        // Looked at first: an edit during the reading is seen as one afterwards.
        let stamp = self.source.stamp().await;
        self.attempts().read = stamp;
        let fetched = self.source.fetch(&self.url).await?;
        let set = KeySet::parse(&fetched.bytes, self.profile.algorithms).map_err(RefreshFault::Set)?;
        Ok(Held { set, asked_at, life: Life::said(fetched.max_age) })
    }
}

/// Says that a refresh ended, when it is dropped: also where its task panicked.
struct Running<'a>(&'a Issuer);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.attempts().running = false;
        self.0.ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests;
