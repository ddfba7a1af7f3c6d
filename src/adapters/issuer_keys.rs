//! Issuers' keys: fetched by discovery, from a `jwks_uri` or from a file, and kept.
//!
//! A fetch is only ever made for an issuer of the operator's configuration. One refresh of an issuer runs at a
//! time, and none begins within 60 s of the last one's beginning, whether it succeeded or failed, so that a flood
//! of invented key ids costs one fetch (attack class K-06). A set is replaced only by one that was read whole;
//! readers who have a usable key never wait for a refresh that others need. Times:
//!
//! - from 30 min of age a set is refreshed beside the requests;
//! - where nobody has asked the issuer for 59 min, the next request waits for the refresh, since a key may have
//!   been withdrawn (contract, section 12: refused within 1 h);
//! - while the issuer cannot be reached, what is held stays usable until it is 24 h old.
//!
//! Age and cool-down are read from the clock that is handed in; one that was set back makes a refresh due at once.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use tokio::{io::AsyncReadExt as _, sync::watch};
use tokio_util::task::TaskTracker;

use super::http_client::{FetchFault, HttpClient, Reach, UrlFault, read_url};
use crate::{
    broker::ports::{Answer, KeyFault, KeySource},
    kernel::{
        identity::{
            discovery::{DiscoveryFault, read_jwks_uri},
            keys::{KeySet, KeySetFault, VerificationKey},
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
    /// issuer's own origin.
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
        Ok(Self { issuers, now, refreshes: TaskTracker::new() })
    }

    /// Refreshes every issuer that is not in its cool-down, and waits for all. `serve` calls it at start and from
    /// time to time, so that readiness tells the truth before the first job comes.
    pub async fn refresh(&self) {
        let now = (self.now)();
        let running: Vec<_> = self.issuers.values().filter_map(|issuer| self.begin(issuer, now)).collect();
        for refresh in running {
            refresh.ended().await;
        }
    }

    async fn find(&self, issuer: &Arc<Issuer>, token: &RawToken) -> Result<Arc<VerificationKey>, KeyFault> {
        // An algorithm that is not of the profile has no key: no fetch for it.
        let algorithm = token.check_algorithm(issuer.profile).map_err(|_| KeyFault::Unknown)?;
        let now = (self.now)();
        if issuer.is_past(now) {
            return Err(KeyFault::Unavailable);
        }
        if let Some(key) = issuer.held_key(token, algorithm, now)
            && issuer.was_asked_within(ASKED_WITHIN, now)
        {
            if issuer.is_older_than(REFRESH_AGE, now) {
                drop(self.begin(issuer, now));
            }
            return Ok(key);
        }
        if let Some(refresh) = self.begin(issuer, now) {
            refresh.ended().await;
        }
        let now = (self.now)();
        if issuer.is_older_than(GREATEST_AGE, now) {
            return Err(KeyFault::Unavailable);
        }
        issuer.held_key(token, algorithm, now).ok_or(KeyFault::Unknown)
    }

    /// Joins the refresh that runs, or begins one; `None` in the cool-down.
    fn begin(&self, issuer: &Arc<Issuer>, now: Timestamp) -> Option<Refresh> {
        let mut attempts = issuer.attempts();
        if attempts.running {
            return Some(Refresh(issuer.ended.subscribe()));
        }
        if attempts.last.is_some_and(|last| is_within(last, COOL_DOWN, now)) {
            return None;
        }
        attempts.running = true;
        attempts.last = Some(now);
        let refresh = Refresh(issuer.ended.subscribe());
        self.refreshes.spawn(Arc::clone(issuer).attempt(now));
        Some(refresh)
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

    fn faults(&self) -> Vec<(IssuerName, String)> {
        let now = (self.now)();
        let mut faults: Vec<_> = self
            .issuers
            .values()
            .filter_map(|issuer| Some((issuer.name.clone(), issuer.fault(now)?)))
            .collect();
        faults.sort();
        faults
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

/// A source whose addresses were checked.
enum Source {
    Discovery { document: Url, client: HttpClient },
    File { path: PathBuf, valid_until: Option<Timestamp> },
    Uri { url: Url, client: HttpClient },
}

/// A set, and when the refresh that brought it began.
struct Held {
    set: KeySet,
    asked_at: Timestamp,
}

#[derive(Default)]
struct Attempts {
    /// When the last refresh began.
    last: Option<Timestamp>,
    running: bool,
    /// Why the last refresh brought nothing.
    failure: Option<String>,
}

/// A refresh that runs.
struct Refresh(watch::Receiver<u64>);

impl Refresh {
    async fn ended(mut self) {
        // An error means that the issuer is gone, and its refresh with it.
        drop(self.0.changed().await);
    }
}

/// Why a refresh brought nothing.
#[derive(Debug, thiserror::Error)]
enum RefreshFault {
    #[error("the discovery document {0}")]
    Discovery(#[from] DiscoveryFault),
    #[error("the discovery document: {0}")]
    Document(FetchFault),
    #[error("the key file cannot be read: {0}")]
    File(std::io::Error),
    #[error("the jwks_uri of the discovery document: {0}")]
    JwksUri(UrlFault),
    #[error("the key set: {0}")]
    Keys(FetchFault),
    #[error("no answer in time")]
    Late,
    #[error("{0}")]
    Set(KeySetFault),
    #[error("the key file is larger than {DOCUMENT_BYTES} bytes")]
    TooLarge,
}

impl Issuer {
    fn new(config: IssuerKeysConfig) -> Result<Self, String> {
        let private = config.allow_private_addresses;
        let url = read_url(&config.url, private).map_err(|fault| fault.to_string())?;
        if url.query().is_some() {
            return Err("the address holds a query".to_owned());
        }
        let client = |url: &Url| match url.scheme() {
            "http" => HttpClient::loopback(config.deadline),
            _ => HttpClient::new(Reach {
                ca_pem: config.ca_pem.as_deref(),
                allow_private_addresses: private,
                deadline: config.deadline,
            }),
        };
        let source = match config.source {
            KeysFrom::Discovery => {
                // OpenID Connect Discovery 1.0, section 4: a terminating slash is removed first.
                let document =
                    format!("{}/.well-known/openid-configuration", config.url.trim_end_matches('/'));
                let document = read_url(&document, private).map_err(|fault| fault.to_string())?;
                let client = client(&document).map_err(|fault| fault.to_string())?;
                Source::Discovery { document, client }
            }
            KeysFrom::File { path, valid_until } => Source::File { path, valid_until },
            KeysFrom::Uri(text) => {
                let url = read_url(&text, private).map_err(|fault| format!("jwks_uri: {fault}"))?;
                let client = client(&url).map_err(|fault| fault.to_string())?;
                Source::Uri { url, client }
            }
        };
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
        match self.source {
            Source::File { valid_until: Some(end), .. } => now >= end,
            Source::Discovery { .. } | Source::File { valid_until: None, .. } | Source::Uri { .. } => false,
        }
    }

    /// Whether the set is older than that, or absent.
    fn is_older_than(&self, age: SignedDuration, now: Timestamp) -> bool {
        self.held.load().as_ref().is_none_or(|held| now.duration_since(held.asked_at) >= age)
    }

    fn was_asked_within(&self, time: SignedDuration, now: Timestamp) -> bool {
        self.attempts().last.is_some_and(|last| is_within(last, time, now))
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

    /// Why there are no usable keys now; `None` where there are, or where nobody has asked yet.
    fn fault(&self, now: Timestamp) -> Option<String> {
        if self.is_past(now) {
            return Some("the date of the key file is over".to_owned());
        }
        if !self.is_older_than(GREATEST_AGE, now) {
            return None;
        }
        self.attempts().failure.clone()
    }

    /// One refresh. It ends within the deadline, and whoever waits is told, whatever happens in between.
    async fn attempt(self: Arc<Self>, asked_at: Timestamp) {
        let running = Running(&self);
        let outcome =
            tokio::time::timeout(self.deadline, self.fetch()).await.unwrap_or(Err(RefreshFault::Late));
        let failure = match outcome {
            Ok(set) => {
                tracing::info!(
                    issuer.name = %self.name,
                    keys.usable = set.usable(),
                    keys.left_out = set.left_out(),
                    "issuer's keys refreshed"
                );
                self.held.store(Some(Arc::new(Held { set, asked_at })));
                None
            }
            Err(fault) => {
                tracing::warn!(issuer.name = %self.name, error = %fault, "issuer's keys could not be refreshed");
                Some(fault.to_string())
            }
        };
        self.attempts().failure = failure;
        drop(running);
    }

    async fn fetch(&self) -> Result<KeySet, RefreshFault> {
        let bytes = match &self.source {
            Source::Discovery { document, client } => {
                let text = client.fetch(document, DOCUMENT_BYTES).await.map_err(RefreshFault::Document)?;
                let jwks_uri = self.read_discovery(document, &text)?;
                client.fetch(&jwks_uri, DOCUMENT_BYTES).await.map_err(RefreshFault::Keys)?
            }
            Source::File { path, .. } => read_file(path).await?,
            Source::Uri { url, client } => {
                client.fetch(url, DOCUMENT_BYTES).await.map_err(RefreshFault::Keys)?
            }
        };
        KeySet::parse(&bytes, self.profile.algorithms).map_err(RefreshFault::Set)
    }

    /// Attack class K-05: the document must speak of this issuer, byte for byte, and may send us nowhere else.
    fn read_discovery(&self, document: &Url, text: &[u8]) -> Result<Url, RefreshFault> {
        let jwks_uri = read_jwks_uri(text, &self.url)?;
        // The document itself was allowed, so its scheme is; the same origin means the same scheme.
        let jwks_uri = read_url(&jwks_uri, true).map_err(RefreshFault::JwksUri)?;
        if jwks_uri.origin() != document.origin() {
            return Err(DiscoveryFault("names a jwks_uri of another origin; set jwks_uri to trust it").into());
        }
        Ok(jwks_uri)
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

async fn read_file(path: &std::path::Path) -> Result<Vec<u8>, RefreshFault> {
    let file = tokio::fs::File::open(path).await.map_err(RefreshFault::File)?;
    let mut bytes = Vec::new();
    let most = u64::try_from(DOCUMENT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).await.map_err(RefreshFault::File)?;
    if bytes.len() > DOCUMENT_BYTES { Err(RefreshFault::TooLarge) } else { Ok(bytes) }
}

/// Whether a moment lies within that time before now. One that lies ahead by more than the clock's usual
/// corrections does not: the clock was set back.
fn is_within(moment: Timestamp, time: SignedDuration, now: Timestamp) -> bool {
    let elapsed = now.duration_since(moment);
    elapsed < time && elapsed > -CLOCK_STEP
}

/// Contract, section 12: counted from the beginning of an attempt, whether it succeeded or failed.
const COOL_DOWN: SignedDuration = SignedDuration::from_secs(60);

/// Half of what a withdrawn key may live, so that busy issuers never make a request wait.
const REFRESH_AGE: SignedDuration = SignedDuration::from_mins(30);

/// Contract, section 12: a withdrawn key is refused within 1 h; a minute of it is for the refresh itself.
const ASKED_WITHIN: SignedDuration = SignedDuration::from_mins(59);

/// Contract, section 12: the keys of an issuer that cannot be reached stay usable for 24 h.
const GREATEST_AGE: SignedDuration = SignedDuration::from_hours(24);

/// Attack class C-07: corrections by NTP are far smaller.
const CLOCK_STEP: SignedDuration = SignedDuration::from_secs(60);

/// Attack class K-05; the largest documents seen are about 20 KiB.
const DOCUMENT_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests;
