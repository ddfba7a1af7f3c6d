//! The client as the minter sees it: requests under the broker's own token or under a job's.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    answer::VaultAnswer,
    fault::VaultFault,
    figures::Figures,
    path::{VaultPath, Verb},
    session::Session,
    settings::{Settings, SettingsFault},
    transport::Request,
    wire::Wire,
};
use crate::kernel::secret::Secret;

/// The client of one configured Vault; shared by all who use it.
pub struct VaultClient {
    settings: Arc<Settings>,
    wire: Arc<Wire>,
    session: Arc<Session>,
}

/// Whose token a request carries.
#[derive(Clone, Copy)]
pub enum By<'a> {
    /// A job's token. Where Vault denies it, it is not asked again.
    Job(&'a Secret),
    /// The broker's own. Where Vault does not know it any more, the broker logs in once and asks once more.
    Own,
}

/// Whether a request may be sent again after its bytes left without a clear answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// It makes something: never.
    Never,
    /// It only reads, or does the same however often it is asked.
    Read,
}

/// How a request is made.
#[derive(Clone, Copy)]
pub struct RequestOptions<'a> {
    /// Whose token.
    pub by: By<'a>,
    /// Whether it may be sent again.
    pub retry: Retry,
}

impl VaultClient {
    /// Builds a client; nothing is sent. `seed` spreads the pauses of many brokers.
    ///
    /// # Errors
    ///
    /// [`SettingsFault`] for files of TLS and namespaces that cannot be used.
    pub fn new(settings: Settings, seed: u64) -> Result<Self, SettingsFault> {
        let settings = Arc::new(settings);
        let wire = Arc::new(Wire::new(&settings, seed)?);
        let session = Arc::new(Session::new(Arc::clone(&settings), Arc::clone(&wire)));
        Ok(Self { settings, wire, session })
    }

    /// Its name in `backends`.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What the configuration says of it.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it failed so often that it is not asked now.
    pub fn is_breaker_open(&self) -> bool {
        self.wire.breaker.is_open(Instant::now())
    }

    /// Keeps the broker logged in, and its TLS files fresh, until it is dropped; a backend that does not answer is
    /// asked again and again.
    pub fn keep(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Arc::clone(&self.session).keep())
    }

    /// Gives the broker's own token back, where a login made it; for a graceful stop. At most a second.
    pub async fn close(&self) {
        self.session.close().await;
    }

    /// Asks Vault. Bounded by the configured timeout, tries included; a caller with less time drops the future, and
    /// then whatever was sent may have had its effect.
    ///
    /// # Errors
    ///
    /// [`VaultFault`]; [`VaultFault::may_have_happened`] says whether what was asked may have been done all the same.
    pub async fn request(
        &self,
        verb: Verb,
        path: &VaultPath,
        body: Option<Secret>,
        options: RequestOptions<'_>,
    ) -> Result<VaultAnswer, VaultFault> {
        let asked = Asked { verb, path, body: body.as_ref(), is_secret: true };
        self.ask(asked, options).await
    }

    pub(super) async fn ask(
        &self,
        asked: Asked<'_>,
        options: RequestOptions<'_>,
    ) -> Result<VaultAnswer, VaultFault> {
        let end = Instant::now() + self.settings.timeout;
        let RequestOptions { by, retry } = options;
        match by {
            By::Job(token) => self.wire.call(&asked.with(token), retry, end).await,
            By::Own => {
                let token = self.session.token(end).await.map_err(VaultFault::Login)?;
                match self.wire.call(&asked.with(token.secret()), retry, end).await {
                    // A denial comes before any work, so that asking again is safe whatever was asked.
                    Err(VaultFault::Denied) if self.session.is_over(&token, end).await => {
                        let token = self.session.after(&token, end).await.map_err(VaultFault::Login)?;
                        self.wire.call(&asked.with(token.secret()), retry, end).await
                    }
                    answer => answer,
                }
            }
        }
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.wire.figures
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(super) fn timeout(&self) -> Duration {
        self.settings.timeout
    }
}

/// A request before it has a token.
pub(super) struct Asked<'a> {
    pub(super) verb: Verb,
    pub(super) path: &'a VaultPath,
    pub(super) body: Option<&'a Secret>,
    pub(super) is_secret: bool,
}

impl<'a> Asked<'a> {
    fn with<'b>(&'b self, token: &'b Secret) -> Request<'b>
    where
        'a: 'b,
    {
        let Self { verb, path, body, is_secret } = *self;
        Request { verb, path, body, token: Some(token), is_secret }
    }
}
