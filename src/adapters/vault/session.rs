//! The broker's own token: one login at a time, renewed in time, had again when Vault forgets it.
//!
//! Whoever needs a token while there is none waits for the one login that is under way. A login runs as a task of its
//! own, so that a caller who gives up does not leave a token behind that nobody holds.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;
use vaultrs::api::token::requests::LookupTokenSelfRequest;

use super::{
    answer::VaultAnswer,
    calls::shaped,
    client::Retry,
    fault::{LoginFault, VaultFault},
    login::{self, Fresh, Unwrapped},
    path::{VaultPath, Verb},
    settings::{Login, Settings},
    transport::Request,
    wire::Wire,
};
use crate::kernel::{digest::Digest, secret::Secret};

/// Who the broker is at one Vault.
pub(super) struct Session {
    settings: Arc<Settings>,
    wire: Arc<Wire>,
    current: ArcSwapOption<Token>,
    // Held across the one login: that is what makes it the one.
    gate: tokio::sync::Mutex<Gate>,
}

#[derive(Default)]
struct Gate {
    generation: u64,
    failed: Option<(Instant, LoginFault)>,
    unwrapped: Option<Unwrapped>,
}

/// A token of the broker's own.
pub(super) struct Token {
    secret: Secret,
    generation: u64,
    life: Mutex<Life>,
    /// The digest of the token file that it came from.
    file: Option<Digest>,
}

#[derive(Clone, Copy)]
struct Life {
    since: Instant,
    /// Zero where it does not end.
    ttl: Duration,
    /// What the first answer granted; a renewal that gives much less has come to the token's greatest age.
    first_ttl: Duration,
    is_renewable: bool,
}

/// What a token's upkeep came to.
enum Upkeep {
    /// Renewed.
    Done,
    /// A fresh one is due.
    Due,
    /// Vault did not answer.
    Unanswered,
}

impl Token {
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    fn life(&self) -> Life {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    fn is_over(&self) -> bool {
        !self.ttl.is_zero() && self.since.elapsed() >= self.ttl
    }
}

impl Session {
    pub(super) fn new(settings: Arc<Settings>, wire: Arc<Wire>) -> Self {
        Self { settings, wire, current: ArcSwapOption::empty(), gate: tokio::sync::Mutex::default() }
    }

    /// A token that has not ended, by a login if need be.
    pub(super) async fn token(self: &Arc<Self>, end: Instant) -> Result<Arc<Token>, LoginFault> {
        match self.current.load_full() {
            Some(token) if !token.life().is_over() => Ok(token),
            Some(token) => self.after(&token, end).await,
            None => self.newer(0, end).await,
        }
    }

    /// A token younger than that one.
    pub(super) async fn after(
        self: &Arc<Self>,
        token: &Token,
        end: Instant,
    ) -> Result<Arc<Token>, LoginFault> {
        self.newer(token.generation, end).await
    }

    /// Whether Vault does not know a token any more: it denies it even to look at itself.
    pub(super) async fn is_over(&self, token: &Token, end: Instant) -> bool {
        token.life().is_over() || matches!(self.look(&token.secret, end).await, Err(VaultFault::Denied))
    }

    async fn newer(self: &Arc<Self>, generation: u64, end: Instant) -> Result<Arc<Token>, LoginFault> {
        let session = Arc::clone(self);
        // It ends by itself: a login has the deadline of a call.
        let login = tokio::spawn(async move { session.log_in(generation).await });
        match tokio::time::timeout_at(end, login).await {
            Ok(Ok(token)) => token,
            Ok(Err(_)) | Err(_) => Err(LoginFault::Unanswered),
        }
    }

    async fn log_in(&self, generation: u64) -> Result<Arc<Token>, LoginFault> {
        let mut gate = self.gate.lock().await;
        if let Some(token) = self.current.load_full()
            && token.generation > generation
            && !token.life().is_over()
        {
            return Ok(token);
        }
        if let Some((when, fault)) = gate.failed
            && when.elapsed() < COOL_DOWN
        {
            return Err(fault);
        }
        let end = Instant::now() + self.settings.timeout;
        let fresh = login::log_in(&self.settings.login, &self.wire, &mut gate.unwrapped, end).await;
        let fresh = match fresh {
            // It could do all there is; `demo` has no backend, so that there is no exception.
            Ok(fresh) if fresh.is_root => Err(LoginFault::Root),
            fresh => fresh,
        };
        self.wire.figures.logged_in(fresh.is_ok());
        match fresh {
            Err(fault) => {
                gate.failed = Some((Instant::now(), fault));
                Err(fault)
            }
            Ok(fresh) => {
                gate.failed = None;
                gate.generation += 1;
                let token = Arc::new(Token::of(fresh, gate.generation));
                self.current.store(Some(Arc::clone(&token)));
                Ok(token)
            }
        }
    }

    async fn look(&self, token: &Secret, end: Instant) -> Result<VaultAnswer, VaultFault> {
        look(&self.wire, token, end).await
    }

    /// Keeps a token at hand and the TLS files fresh, for as long as it is polled.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut told = None;
        let mut failures: u32 = 0;
        loop {
            match self.token(Instant::now() + self.settings.timeout).await {
                Ok(token) => {
                    if told.take().is_some() || failures > 0 {
                        tracing::info!(backend.name = self.settings.name, "the broker is logged in again");
                    }
                    failures = 0;
                    self.tend(&token).await;
                }
                Err(fault) => {
                    if told != Some(fault) {
                        tracing::warn!(backend.name = self.settings.name, %fault, "the broker cannot log in");
                        told = Some(fault);
                    }
                    failures = failures.saturating_add(1);
                    let pause = RETRY.saturating_mul(1 << (failures - 1).min(5)).min(LONGEST_RETRY);
                    tokio::time::sleep(self.wire.between((pause, pause * 5 / 4))).await;
                    self.refresh_tls();
                }
            }
        }
    }

    /// Until another token is due or there.
    async fn tend(self: &Arc<Self>, token: &Arc<Token>) {
        let mut due = self.due(token);
        loop {
            tokio::time::sleep(LOOK).await;
            let is_current =
                self.current.load_full().is_some_and(|current| current.generation == token.generation);
            if !is_current {
                return;
            }
            let has_new_identity = self.refresh_tls() && matches!(self.settings.login, Login::Cert { .. });
            if has_new_identity || self.has_other_file(token).await {
                self.replace(token).await;
                return;
            }
            if due.is_none_or(|due| Instant::now() < due) {
                continue;
            }
            match self.renew(token).await {
                Upkeep::Done => due = self.due(token),
                Upkeep::Unanswered if !token.life().is_over() => {
                    due = Some(Instant::now() + self.wire.between((RETRY, RETRY * 5)));
                }
                Upkeep::Unanswered | Upkeep::Due => {
                    self.replace(token).await;
                    return;
                }
            }
        }
    }

    async fn replace(self: &Arc<Self>, token: &Token) {
        if let Err(fault) = self.after(token, Instant::now() + self.settings.timeout).await {
            tracing::warn!(backend.name = self.settings.name, %fault, "no fresh token for the broker yet");
            tokio::time::sleep(self.wire.between((RETRY, RETRY * 5))).await;
        }
    }

    /// Two thirds of its life, up to a tenth of it earlier, so that many brokers do not come at once; a token that
    /// cannot be renewed has until seven tenths.
    fn due(&self, token: &Token) -> Option<Instant> {
        let life = token.life();
        let share = if life.is_renewable { life.ttl * 2 / 3 } else { life.ttl * 7 / 10 };
        (!life.ttl.is_zero()).then(|| life.since + self.wire.between((share - share / 10, share)))
    }

    async fn renew(&self, token: &Token) -> Upkeep {
        let life = token.life();
        if !life.is_renewable {
            return Upkeep::Due;
        }
        // Not by `vaultrs`, whose path for this begins with a tab.
        let Ok(path) = VaultPath::parse("auth/token/renew-self") else { return Upkeep::Due };
        let request = Request {
            verb: Verb::Post,
            path: &path,
            body: None,
            token: Some(&token.secret),
            is_secret: false,
        };
        let since = Instant::now();
        match self.wire.call(&request, Retry::Read, since + self.settings.timeout).await {
            Ok(VaultAnswer { auth: Some(auth), .. }) => {
                let ttl = auth.lease_duration;
                let renewed = Life { since, ttl, is_renewable: auth.renewable, ..life };
                *token.life.lock().unwrap_or_else(PoisonError::into_inner) = renewed;
                // It stops growing: the token comes to its greatest age.
                if !ttl.is_zero() && ttl < life.first_ttl / 2 { Upkeep::Due } else { Upkeep::Done }
            }
            Ok(_) => Upkeep::Due,
            Err(fault) if fault.is_illness() || fault == VaultFault::BreakerOpen => Upkeep::Unanswered,
            Err(VaultFault::RateLimited) => Upkeep::Unanswered,
            Err(_) => Upkeep::Due,
        }
    }

    /// Whether the token file holds another token now.
    async fn has_other_file(&self, token: &Token) -> bool {
        let (Login::Token { file }, Some(known)) = (&self.settings.login, token.file) else { return false };
        login::read_credential(file).await.is_ok_and(|text| Digest::of(text.expose()) != known)
    }

    fn refresh_tls(&self) -> bool {
        match self.wire.transport.refresh() {
            Ok(changed) => changed,
            Err(fault) => {
                tracing::warn!(backend.name = self.settings.name, %fault, "the TLS files stay as they were");
                false
            }
        }
    }

    /// Revokes the token where a login made it.
    pub(super) async fn close(&self) {
        let Some(token) = self.current.swap(None) else { return };
        if matches!(self.settings.login, Login::Token { .. }) {
            return;
        }
        // Not by `vaultrs`, whose path for this begins with a tab.
        let Ok(path) = VaultPath::parse("auth/token/revoke-self") else { return };
        let request = Request {
            verb: Verb::Post,
            path: &path,
            body: None,
            token: Some(&token.secret),
            is_secret: false,
        };
        let revoked = self.wire.call(&request, Retry::Read, Instant::now() + CLOSING).await;
        if let Err(fault) = revoked {
            tracing::info!(backend.name = self.settings.name, %fault, "the broker's own token was not given back");
        }
    }
}

impl Token {
    fn of(fresh: Fresh, generation: u64) -> Self {
        let Fresh { secret, since, ttl, is_renewable, file, .. } = fresh;
        Self { secret, generation, life: Mutex::new(Life { since, ttl, first_ttl: ttl, is_renewable }), file }
    }
}

/// A token's look at itself.
pub(super) async fn look(wire: &Wire, token: &Secret, end: Instant) -> Result<VaultAnswer, VaultFault> {
    let (verb, path, _) = shaped(&LookupTokenSelfRequest {})?;
    let request = Request { verb, path: &path, body: None, token: Some(token), is_secret: false };
    wire.call(&request, Retry::Read, end).await
}

/// How long a failed login speaks for those who ask next.
const COOL_DOWN: Duration = Duration::from_secs(1);
/// How often files are looked at, as policy files and certificates are.
const LOOK: Duration = Duration::from_secs(1);
/// The first pause after a failed login.
const RETRY: Duration = Duration::from_secs(1);
/// A Vault that was away for a night is back within half a minute; a job that needs it asks by itself.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// How long a stop waits for Vault.
const CLOSING: Duration = Duration::from_secs(1);
