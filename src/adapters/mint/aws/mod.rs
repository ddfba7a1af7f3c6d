//! Kind `aws`: sessions of roles by `AssumeRoleWithWebIdentity` with our own assertion, so that no AWS key is kept here; or,
//! as the second way, by `AssumeRole` with the credentials that the broker finds around itself.
//!
//! The session's name and its source identity are the issuance's id: with it CloudTrail leads to the entry, and a deny on
//! `aws:SourceIdentity` cuts off one issuance, also behind further roles. Nobody can end a session from here; the broker
//! keeps no right to write IAM policies.
//!
//! Sources: AWS STS API reference (November 2026: `AssumeRoleWithWebIdentity`, `AssumeRole`), IAM user guide "Pass session
//! tags in AWS STS" and "Revoking IAM role temporary security credentials".

mod fault;
pub mod probe;
mod sts;
mod wire;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

pub use self::wire::ClientFault;
use self::{
    fault::{Doubt, Fault, Retry},
    sts::{Ask, Session, Sts},
};
use super::assertions::{Assertion, Assertions};
use crate::{
    broker::ports::{Answer, Field, MintFault, Minted, Minter, Order},
    kernel::{
        assertion::{AwsClaims, Claims},
        policy::target::{AwsTarget, Backend, Target},
        secret::Secret,
    },
};

/// What the configuration says of one connection to AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsSettings {
    /// Its name in `backends`.
    pub name: String,
    /// The region whose STS is asked; there is no default, and the global host is never asked.
    pub region: String,
    /// Whether the region's FIPS endpoint is asked.
    pub fips: bool,
    /// Another address of STS, such as a VPC endpoint.
    pub endpoint: Option<String>,
    /// The only authorities trusted, as PEM; the system's where absent.
    pub ca_file: Option<PathBuf>,
    /// By what the roles are assumed.
    pub way: Way,
    /// How long one try may take.
    pub timeout: Duration,
}

/// By what roles are assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the credentials around the broker: environment, shared files, container or instance role.
    Ambient {
        /// What the role's trust policy asks for as `sts:ExternalId`.
        external_id: Option<String>,
    },
    /// By an assertion of our own for that audience.
    WebIdentity {
        /// The `aud`, a client id of the role's OIDC provider.
        audience: String,
    },
}

/// Makes sessions of roles.
pub struct Aws {
    assertions: Arc<Assertions>,
    connections: BTreeMap<String, Connection>,
}

struct Connection {
    settings: AwsSettings,
    sts: Sts,
}

impl Aws {
    /// Mints through those connections, with assertions by that signer. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The connection that cannot be set up, and why.
    pub fn new(
        assertions: Arc<Assertions>,
        connections: impl IntoIterator<Item = AwsSettings>,
    ) -> Result<Self, (String, ClientFault)> {
        let connections = connections.into_iter().map(|settings| {
            let sts = Sts::new(&settings).map_err(|fault| (settings.name.clone(), fault))?;
            Ok((settings.name.clone(), Connection { settings, sts }))
        });
        Ok(Self { assertions, connections: connections.collect::<Result<_, _>>()? })
    }

    fn connection(&self, backend: &Backend) -> Option<&Connection> {
        match backend {
            Backend::BuiltIn => None,
            Backend::Named(name) => self.connections.get(&**name),
            // Only where there is no choice.
            Backend::Unnamed => self.connections.values().next().filter(|_| self.connections.len() == 1),
        }
    }

    async fn mint(&self, order: &Order, target: &AwsTarget) -> Result<Minted, MintFault> {
        let connection = self.connection(&target.backend).ok_or(MintFault::failed("no-such-backend"))?;
        let ask = Ask::new(order, target).map_err(MintFault::failed)?;
        let started = Instant::now();
        let mut doubt = Doubt::None;
        let mut is_fresh = false;
        let mut tries = 0_u32;
        loop {
            tries += 1;
            let now = order.now.saturating_add(started.elapsed()).unwrap_or(order.now);
            let fault = match self.ask(connection, order, &ask, now).await {
                Ok((session, kid)) => return minted(connection, order, session, kid),
                Err(fault) => fault,
            };
            fault.tell(&connection.settings.name, order.issuance, tries);
            doubt = doubt.max(fault.doubt);
            match fault.retry {
                Retry::Backoff if tries < MOST_TRIES => tokio::time::sleep(pause(order, tries)).await,
                Retry::FreshAssertion if !is_fresh => is_fresh = true,
                Retry::Backoff | Retry::FreshAssertion | Retry::Never => {
                    return Err(doubt.fault(fault.reason));
                }
            }
        }
    }

    /// One try, with an assertion of its own where one is needed.
    async fn ask(
        &self,
        connection: &Connection,
        order: &Order,
        ask: &Ask,
        now: Timestamp,
    ) -> Result<(Session, Option<String>), Fault> {
        match &connection.settings.way {
            Way::Ambient { external_id } => connection
                .sts
                .by_credentials(ask, external_id.as_deref())
                .await
                .map(|session| (session, None)),
            Way::WebIdentity { audience } => {
                let Assertion { token, kid, .. } = self.assert(order, ask, audience, now)?;
                connection.sts.by_assertion(ask, &token).await.map(|session| (session, Some(kid)))
            }
        }
    }

    fn assert(&self, order: &Order, ask: &Ask, audience: &str, now: Timestamp) -> Result<Assertion, Fault> {
        let aws = AwsClaims {
            tags: ask.tags.clone(),
            transitive: Vec::new(),
            source_identity: Some(ask.session_name.clone()),
        };
        let claims = Claims {
            audience,
            grant: &order.grant,
            issuance: order.issuance,
            now,
            life: ASSERTION_LIFE,
            aws: Some(&aws),
        };
        self.assertions.sign(&claims).map_err(|fault| Fault::certain(fault.reason()))
    }
}

impl Minter for Aws {
    fn fetch<'a>(
        &'a self,
        order: &'a Order,
        _token: Option<&'a Secret>,
    ) -> Answer<'a, Result<Minted, MintFault>> {
        Box::pin(async move {
            match &order.target {
                Target::Aws(target) => self.mint(order, target).await,
                Target::Oidc { .. } | Target::Sealed { .. } | Target::Vault(_) => {
                    Err(MintFault::failed("target-of-another-kind"))
                }
            }
        })
    }

    fn leaves_process(&self, _target: &Target) -> bool {
        true
    }
}

/// What the job gets, and what the entry says of it. Nothing of it is a copy: the SDK's own texts become the secrets.
fn minted(
    connection: &Connection,
    order: &Order,
    session: Session,
    kid: Option<String>,
) -> Result<Minted, MintFault> {
    if session.expires_at <= order.now {
        return Err(MintFault::Lost { reason: "session-over-already" });
    }
    if let Some(percent) = session.filled_percent.filter(|percent| *percent >= FULL_PERCENT) {
        tracing::warn!(
            backend.name = connection.settings.name,
            issuance = order.issuance.to_string(),
            filled_percent = percent,
            "session policy and tags nearly fill what AWS allows"
        );
    }
    let field = |name: &str, value: Secret, is_secret| Field { name: name.to_owned(), value, is_secret };
    let mut told = json!({
        "backend": connection.settings.name,
        "region": connection.settings.region,
        "filled_percent": session.filled_percent,
        "session_arn": session.arn,
        "source_identity": order.issuance.to_string(),
    });
    if let (Some(told), Some(kid)) = (told.as_object_mut(), kid) {
        told.insert("kid".to_owned(), kid.into());
    }
    Ok(Minted {
        fields: vec![
            field("access_key_id", session.access_key_id, false),
            field("secret_access_key", session.secret_access_key, true),
            field("session_token", session.session_token, true),
        ],
        expires_at: Some(session.expires_at),
        sealed_generation: None,
        held: None,
        told,
    })
}

/// Doubles with every try; the issuance's own random bits spread those that failed together.
fn pause(order: &Order, tries: u32) -> Duration {
    let spread = order.issuance.bytes().last().copied().unwrap_or(0);
    FIRST_PAUSE.saturating_mul(1 << (tries - 1).min(4)) + Duration::from_millis(u64::from(spread))
}

/// Tries at one call where trying again can help; the exchange's own deadline comes first.
const MOST_TRIES: u32 = 3;
/// With the spread, half a second at most before the second try.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// An assertion is used once, at once; a minute stays for a clock that is off.
const ASSERTION_LIFE: Duration = Duration::from_secs(120);
/// Where AWS's packed size (in percent of what it allows) is worth a word.
const FULL_PERCENT: i32 = 80;

#[cfg(test)]
mod tests;
