//! The calls that the broker makes in its own name. Shapes are those of `vaultrs` where it has one.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use rustify::{endpoint::Endpoint, enums::RequestMethod};
use serde_json::{Value, json};
use vaultrs::api::token::requests::{
    CreateRoleTokenRequest, LookupTokenAccessorRequest, ReadTokenRoleRequest, RevokeTokenAccessorRequest,
};

use super::{
    answer::{Auth, VaultAnswer},
    client::{Asked, By, RequestOptions, Retry, VaultClient},
    fault::{NotFound, VaultFault},
    path::{VaultPath, Verb},
};
use crate::kernel::secret::Secret;

/// What a job token is to be.
pub struct JobTokenOrder<'a> {
    /// The token role: `auth/token/create/ROLE`.
    pub role: &'a str,
    /// Its policies: a subset of the role's; the role's own where empty.
    pub policies: &'a [String],
    /// Its lifetime, which nothing prolongs.
    pub ttl: Duration,
    /// What Vault's own log shows of whose it is. Nothing personal.
    pub meta: &'a BTreeMap<String, String>,
}

/// A job token: an orphan, so that nothing of the broker's own ends it.
pub struct JobToken {
    /// The token.
    pub token: Secret,
    /// What revokes it, and all that hangs on it.
    pub accessor: Secret,
    /// Its lifetime as granted.
    pub ttl: Duration,
}

/// A lease after it was renewed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// For how long it is good from now on.
    pub duration: Duration,
    /// Whether it can be renewed again.
    pub renewable: bool,
}

/// What is mounted at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// The engine's type, such as `kv` or `database`.
    pub kind: String,
    /// Where it is mounted, with a slash at its end.
    pub path: String,
    /// The version of a `kv` engine, 1 where it says none; `None` for others.
    pub kv_version: Option<u64>,
    /// The greatest lease of the mount; `None` where it is not told, or the system's own holds.
    pub max_lease: Option<Duration>,
}

/// The limits of a token role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenLimits {
    /// Whether its tokens are orphans.
    pub orphan: bool,
    /// The greatest lifetime of its tokens; `None` where the mount's own holds.
    pub max_ttl: Option<Duration>,
    /// Whether its tokens are batch tokens, which nobody can revoke.
    pub is_batch: bool,
}

const READ: RequestOptions<'static> = RequestOptions { by: By::Own, retry: Retry::Read };

impl VaultClient {
    /// Makes a job token. Never asked again by itself: a token that nobody can name would live for its whole TTL, and
    /// yet nothing hangs on it.
    ///
    /// # Errors
    ///
    /// [`VaultFault`]; a role that makes batch tokens, or tokens without accessor, is [`VaultFault::Malformed`].
    pub async fn create_job_token(&self, order: &JobTokenOrder<'_>) -> Result<JobToken, VaultFault> {
        let ttl = format!("{}s", order.ttl.as_secs().max(1));
        let shape = shaped(&CreateRoleTokenRequest {
            role_name: order.role.to_owned(),
            display_name: Some("hallpass".to_owned()),
            explicit_max_ttl: Some(ttl.clone()),
            meta: Some(
                order
                    .meta
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect::<HashMap<_, _>>(),
            ),
            no_default_policy: Some(true),
            policies: (!order.policies.is_empty()).then(|| order.policies.to_vec()),
            renewable: Some(false),
            ttl: Some(ttl),
            token_type: Some("service".to_owned()),
            ..CreateRoleTokenRequest::default()
        })?;
        let answer = self.own(shape, Retry::Never, true).await?;
        let Some(Auth { client_token, accessor, lease_duration, .. }) = answer.auth else {
            return Err(VaultFault::Malformed("a job token without a token"));
        };
        if accessor.is_empty() {
            return Err(VaultFault::Malformed(
                "a job token that nobody could revoke: its role makes batch tokens",
            ));
        }
        Ok(JobToken { token: client_token, accessor, ttl: lease_duration })
    }

    /// Revokes a token by its accessor, and with it every lease that it made. That it is gone already is success.
    ///
    /// # Errors
    ///
    /// [`VaultFault`]: then it is not confirmed, and to be tried again.
    pub async fn revoke_accessor(&self, accessor: &Secret) -> Result<(), VaultFault> {
        let accessor = text(accessor)?;
        let shape = shaped(&RevokeTokenAccessorRequest { accessor })?;
        gone(self.own(shape, Retry::Read, false).await)
    }

    /// The remaining lifetime of the token behind an accessor; `None` where there is none any more.
    ///
    /// # Errors
    ///
    /// [`VaultFault`].
    pub async fn lookup_accessor(&self, accessor: &Secret) -> Result<Option<Duration>, VaultFault> {
        let accessor = text(accessor)?;
        let shape = shaped(&LookupTokenAccessorRequest { accessor })?;
        match self.own(shape, Retry::Read, false).await {
            Ok(answer) => {
                let ttl = answer.data.get("ttl").and_then(Value::as_u64).unwrap_or(0);
                Ok(Some(Duration::from_secs(ttl)))
            }
            Err(VaultFault::Unknown | VaultFault::NotFound(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Renews a lease (fault 2: `vaultrs` has no such call). The increment counts from now, and is a wish: the answer
    /// says what was granted.
    ///
    /// # Errors
    ///
    /// [`VaultFault`]; [`VaultFault::Unknown`] where there is no such lease any more.
    pub async fn renew_lease(&self, lease: &Secret, increment: Duration) -> Result<Lease, VaultFault> {
        let body = json!({ "lease_id": text(lease)?, "increment": increment.as_secs() });
        let answer = self.own(posted("sys/leases/renew", &body)?, Retry::Read, false).await?;
        Ok(Lease { duration: answer.lease_duration, renewable: answer.renewable })
    }

    /// Revokes a lease (fault 2), and where `sync` is true waits until the engine has done it. That it is gone already
    /// is success.
    ///
    /// # Errors
    ///
    /// [`VaultFault`]; [`VaultFault::BadRequest`] where the engine cannot, such as for a database role that owns tables.
    pub async fn revoke_lease(&self, lease: &Secret, sync: bool) -> Result<(), VaultFault> {
        let body = json!({ "lease_id": text(lease)?, "sync": sync });
        gone(self.own(posted("sys/leases/revoke", &body)?, Retry::Read, false).await)
    }

    /// What the broker's own token may do at these paths.
    ///
    /// # Errors
    ///
    /// [`VaultFault`].
    pub async fn capabilities_self(
        &self,
        paths: &[String],
    ) -> Result<BTreeMap<String, Vec<String>>, VaultFault> {
        let body = json!({ "paths": paths });
        let answer = self.own(posted("sys/capabilities-self", &body)?, Retry::Read, false).await?;
        let of = |path: &String| {
            let named = answer.data.get(path).and_then(Value::as_array);
            let words = named.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
            (path.clone(), words.collect())
        };
        Ok(paths.iter().map(of).collect())
    }

    /// What is mounted where a path lies. It needs no right but one within that mount.
    ///
    /// # Errors
    ///
    /// [`VaultFault`]; [`VaultFault::Denied`] where nothing is there, or nothing that the broker may use.
    pub async fn mount(&self, path: &VaultPath) -> Result<Mount, VaultFault> {
        let path = parsed(&format!("sys/internal/ui/mounts/{}", path.as_str()))?;
        let answer = self.own((Verb::Get, path, None), Retry::Read, false).await?;
        let text = |name: &str| answer.data.get(name).and_then(Value::as_str).map(str::to_owned);
        let kind = text("type").ok_or(VaultFault::Malformed("a mount without a type"))?;
        let version = answer.data.get("options").and_then(|options| options.get("version"));
        let version = version.and_then(Value::as_str).and_then(|version| version.parse().ok());
        let max = answer.data.get("config").and_then(|config| config.get("max_lease_ttl"));
        let max = max.and_then(Value::as_u64).filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let kv_version = (kind == "kv" || kind == "generic").then(|| version.unwrap_or(1));
        Ok(Mount { path: text("path").unwrap_or_default(), kv_version, max_lease: max, kind })
    }

    /// The limits of a token role.
    ///
    /// # Errors
    ///
    /// [`VaultFault`]; [`NotFound::Absent`] where there is no such role.
    pub async fn token_limits(&self, role: &str) -> Result<TokenLimits, VaultFault> {
        let shape = shaped(&ReadTokenRoleRequest { role_name: role.to_owned() })?;
        let answer = self.own(shape, Retry::Read, false).await?;
        let seconds =
            |name: &str| answer.data.get(name).and_then(Value::as_u64).filter(|seconds| *seconds > 0);
        let max = seconds("token_explicit_max_ttl").or_else(|| seconds("explicit_max_ttl"));
        Ok(TokenLimits {
            orphan: answer.data.get("orphan") == Some(&Value::Bool(true)),
            max_ttl: max.map(Duration::from_secs),
            is_batch: answer.data.get("token_type").and_then(Value::as_str) == Some("batch"),
        })
    }

    /// How the nodes stand, by `sys/health`: the status of each in the order of the configuration; `None` without an
    /// answer.
    pub async fn health(&self) -> Vec<Option<u16>> {
        let mut statuses = Vec::new();
        for node in 0..self.settings().addresses.len() {
            let within = self.timeout().min(Duration::from_secs(3));
            statuses.push(self.wire().transport.health(node, within).await);
        }
        statuses
    }

    async fn own(
        &self,
        (verb, path, body): (Verb, VaultPath, Option<Secret>),
        retry: Retry,
        is_secret: bool,
    ) -> Result<VaultAnswer, VaultFault> {
        let asked = Asked { verb, path: &path, body: body.as_ref(), is_secret };
        self.ask(asked, RequestOptions { retry, ..READ }).await
    }
}

/// An end that is there already is one.
fn gone(answer: Result<VaultAnswer, VaultFault>) -> Result<(), VaultFault> {
    match answer {
        Ok(_) | Err(VaultFault::Unknown | VaultFault::NotFound(NotFound::Absent)) => Ok(()),
        Err(fault) => Err(fault),
    }
}

fn text(secret: &Secret) -> Result<String, VaultFault> {
    secret.expose_text().map(str::to_owned).ok_or(VaultFault::BadRequest(400))
}

fn parsed(path: &str) -> Result<VaultPath, VaultFault> {
    VaultPath::parse(path).map_err(|_| VaultFault::BadRequest(400))
}

fn posted(path: &str, body: &Value) -> Result<(Verb, VaultPath, Option<Secret>), VaultFault> {
    Ok((Verb::Post, parsed(path)?, Some(Secret::from_text(body.to_string()))))
}

/// The parts of a request of `vaultrs`. Its address is not made by it, and its path is checked like any other
/// (fault 10); the request itself, which prints what it holds, is never formatted (fault 5).
pub(super) fn shaped(endpoint: &impl Endpoint) -> Result<(Verb, VaultPath, Option<Secret>), VaultFault> {
    let verb = match endpoint.method() {
        RequestMethod::GET => Verb::Get,
        RequestMethod::LIST => Verb::List,
        RequestMethod::POST => Verb::Post,
        RequestMethod::DELETE => Verb::Delete,
        RequestMethod::CONNECT
        | RequestMethod::HEAD
        | RequestMethod::OPTIONS
        | RequestMethod::PATCH
        | RequestMethod::PUT
        | RequestMethod::TRACE => return Err(VaultFault::BadRequest(405)),
    };
    let path = endpoint.path();
    let path = parsed(path.strip_prefix('/').unwrap_or(&path))?;
    // Its fault would carry what could not be written.
    let body = endpoint.body().map_err(|_| VaultFault::BadRequest(400))?;
    Ok((verb, path, body.filter(|body| !body.is_empty()).map(Secret::new)))
}
