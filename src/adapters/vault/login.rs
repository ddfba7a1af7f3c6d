//! One login by each method, from files that are read anew each time.

use std::{path::Path, time::Duration};

use serde_json::Value;
use tokio::time::Instant;
use vaultrs::api::{
    auth::{
        approle::requests::LoginWithApproleRequest, kubernetes::requests::LoginWithKubernetesRequest,
        oidc::requests::JWTLoginRequest,
    },
    sys::requests::WrappingLookupRequest,
};

use super::{
    answer::{Auth, VaultAnswer},
    calls::shaped,
    client::Retry,
    fault::{LoginFault, VaultFault},
    path::{VaultPath, Verb},
    session::look,
    settings::Login,
    transport::Request,
    wire::Wire,
};
use crate::kernel::{digest::Digest, secret::Secret};

/// A token as a login gave it.
pub(super) struct Fresh {
    pub(super) secret: Secret,
    pub(super) since: Instant,
    /// Zero where it does not end.
    pub(super) ttl: Duration,
    pub(super) is_renewable: bool,
    pub(super) is_root: bool,
    pub(super) file: Option<Digest>,
}

/// A secret id that came wrapped, and of which wrapping token: that one is used up.
pub(super) struct Unwrapped {
    wrapping: Digest,
    secret_id: Secret,
}

type Shape = (Verb, VaultPath, Option<Secret>);

pub(super) async fn log_in(
    login: &Login,
    wire: &Wire,
    unwrapped: &mut Option<Unwrapped>,
    end: Instant,
) -> Result<Fresh, LoginFault> {
    let shape = match login {
        Login::Token { file } => return by_file(file, wire, end).await,
        Login::AppRole { mount, role_id, secret_id, wrapped } => {
            let role_id = text(read_credential(role_id).await?)?;
            let secret_id = read_credential(secret_id).await?;
            let secret_id = if *wrapped {
                unwrap(mount, secret_id, wire, unwrapped, end).await?
            } else {
                text(secret_id)?
            };
            shaped(&LoginWithApproleRequest { mount: mount.clone(), role_id, secret_id })
        }
        Login::Cert { mount, role } => cert(mount, role.as_deref()),
        Login::Jwt { mount, role, token } => {
            let jwt = text(read_credential(token).await?)?;
            shaped(&JWTLoginRequest { mount: mount.clone(), jwt, role: Some(role.clone()) })
        }
        Login::Kubernetes { mount, role, token } => {
            let jwt = text(read_credential(token).await?)?;
            shaped(&LoginWithKubernetesRequest { mount: mount.clone(), role: role.clone(), jwt })
        }
    };
    let (verb, path, body) = shape.map_err(LoginFault::of)?;
    let since = Instant::now();
    let request = Request { verb, path: &path, body: body.as_ref(), token: None, is_secret: true };
    let answer = wire.call(&request, Retry::Never, end).await.map_err(LoginFault::of)?;
    let Some(auth) = answer.auth else { return Err(LoginFault::Refused) };
    let Auth { client_token, lease_duration, renewable, policies, token_type, .. } = auth;
    if !is_header(client_token.expose()) {
        return Err(LoginFault::Content);
    }
    Ok(Fresh {
        secret: client_token,
        since,
        ttl: lease_duration,
        is_renewable: renewable && token_type != "batch",
        is_root: policies.iter().any(|policy| policy == "root"),
        file: None,
    })
}

/// A token from a file: what it is good for, Vault says.
async fn by_file(file: &Path, wire: &Wire, end: Instant) -> Result<Fresh, LoginFault> {
    let secret = read_credential(file).await?;
    let since = Instant::now();
    let answer = look(wire, &secret, end).await.map_err(LoginFault::of)?;
    let number = |name: &str| answer.data.get(name).and_then(Value::as_u64).unwrap_or(0);
    let names = |name: &str| answer.data.get(name).and_then(Value::as_array);
    let mut policies = ["policies", "identity_policies"].into_iter().filter_map(names).flatten();
    let is_batch = answer.data.get("type").and_then(Value::as_str) == Some("batch");
    Ok(Fresh {
        since,
        ttl: Duration::from_secs(number("ttl")),
        is_renewable: answer.data.get("renewable") == Some(&Value::Bool(true)) && !is_batch,
        is_root: policies.any(|policy| policy == "root"),
        file: Some(Digest::of(secret.expose())),
        secret,
    })
}

/// The login by certificate goes round `vaultrs`, which sends `cert_name` where Vault reads `name`.
fn cert(mount: &str, role: Option<&str>) -> Result<Shape, VaultFault> {
    let path = VaultPath::parse(&format!("auth/{mount}/login")).map_err(|_| VaultFault::BadRequest(400))?;
    let body = role.map_or_else(|| "{}".to_owned(), |role| serde_json::json!({ "name": role }).to_string());
    Ok((Verb::Post, path, Some(Secret::from_text(body))))
}

/// Unwraps a secret id. Its creation path is looked at first: a wrapping token that somebody else planted would make
/// the broker log in as whom they like, and one that was opened on the way is noticed, since it opens only once.
async fn unwrap(
    mount: &str,
    wrapping: Secret,
    wire: &Wire,
    known: &mut Option<Unwrapped>,
    end: Instant,
) -> Result<String, LoginFault> {
    let digest = Digest::of(wrapping.expose());
    if let Some(known) = known.as_ref().filter(|known| known.wrapping == digest) {
        return known.secret_id.expose_text().map(str::to_owned).ok_or(LoginFault::Content);
    }
    let token = wrapping.expose_text().ok_or(LoginFault::Content)?.to_owned();
    let (verb, path, body) = shaped(&WrappingLookupRequest { token }).map_err(LoginFault::of)?;
    let request = Request { verb, path: &path, body: body.as_ref(), token: None, is_secret: true };
    let looked = wire.call(&request, Retry::Read, end).await.map_err(wrapping_fault)?;
    let made_at = looked.data.get("creation_path").and_then(Value::as_str).unwrap_or_default();
    let role =
        made_at.strip_prefix(&format!("auth/{mount}/role/")).and_then(|rest| rest.strip_suffix("/secret-id"));
    if role.is_none_or(|role| role.is_empty() || role.contains('/')) {
        return Err(LoginFault::WrappedElsewhere);
    }
    // Round `vaultrs`, which can send the wrapping token in the body only, where another token is due beside it.
    let path = VaultPath::parse("sys/wrapping/unwrap").map_err(|_| LoginFault::Content)?;
    let request =
        Request { verb: Verb::Post, path: &path, body: None, token: Some(&wrapping), is_secret: true };
    let mut answer: VaultAnswer = wire.call(&request, Retry::Never, end).await.map_err(wrapping_fault)?;
    let secret_id = answer.data.take_text("secret_id").ok_or(LoginFault::Wrapping)?;
    let shown = secret_id.expose_text().ok_or(LoginFault::Content)?.to_owned();
    *known = Some(Unwrapped { wrapping: digest, secret_id });
    Ok(shown)
}

fn wrapping_fault(fault: VaultFault) -> LoginFault {
    let fault = LoginFault::of(fault);
    if fault == LoginFault::Refused { LoginFault::Wrapping } else { fault }
}

/// Reads a credential: one line of visible ASCII, so that it can be a header (fault 7); a newline at its end is none
/// of it.
pub(super) async fn read_credential(file: &Path) -> Result<Secret, LoginFault> {
    let mut bytes = tokio::fs::read(file).await.map_err(|_| LoginFault::File)?;
    let length = bytes.trim_ascii_end().len();
    bytes.get_mut(length..).unwrap_or_default().fill(0);
    bytes.truncate(length);
    let credential = Secret::new(bytes);
    if credential.len() > MOST_BYTES || !is_header(credential.expose()) {
        return Err(LoginFault::Content);
    }
    Ok(credential)
}

fn is_header(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic)
}

fn text(credential: Secret) -> Result<String, LoginFault> {
    credential.expose_text().map(str::to_owned).ok_or(LoginFault::Content)
}

/// Vault's own limit for a header is far above any token's or JWT's length.
const MOST_BYTES: usize = 32 * 1024;
