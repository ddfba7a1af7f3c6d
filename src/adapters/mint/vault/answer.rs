//! What an engine answers: its fields, which of them are secret, and when it ends.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::ssh;
use crate::{
    adapters::vault::VaultAnswer,
    broker::ports::{Field, MintFault},
    kernel::{lifetime::after, policy::target::VaultTarget, secret::Secret},
};

/// What was read.
pub(super) struct Read {
    pub(super) fields: Vec<Field>,
    /// The version of a KV secret.
    pub(super) version: Option<u64>,
}

/// Takes the fields that the policy chose; all where it chose none. A chosen one that is not there is a fault, since a
/// job would go on with nothing in its place.
pub(super) fn read(target: &VaultTarget, answer: &VaultAnswer) -> Result<Read, MintFault> {
    let all = answer.data.members();
    let is_versioned = target.engine.name == "kv2";
    let (members, version) = if is_versioned {
        let inner = all.get("data").and_then(Value::as_object);
        let version = all.get("metadata").and_then(|metadata| metadata.get("version")?.as_u64());
        (inner.ok_or_else(|| MintFault::failed("engine-differs"))?, version)
    } else {
        (all, None)
    };
    let fields = match &target.fields {
        Some(chosen) => chosen.iter().map(|name| field(target, members, name)).collect::<Option<Vec<_>>>(),
        None => Some(members.keys().filter_map(|name| field(target, members, name)).collect()),
    };
    let fields = fields.ok_or_else(|| MintFault::failed("field-missing"))?;
    if fields.is_empty() {
        return Err(MintFault::failed("nothing-there"));
    }
    // What is declared secret and does not come is no secret of this engine: the policy speaks of another.
    let names = |secret: &String| members.contains_key(secret);
    if !target.secret_fields.iter().all(names) {
        return Err(MintFault::failed("secret-field-missing"));
    }
    Ok(Read { fields, version })
}

fn field(target: &VaultTarget, members: &Map<String, Value>, name: &str) -> Option<Field> {
    let value = match members.get(name)? {
        Value::Null => return None,
        Value::String(text) => Secret::from_text(text.clone()),
        other @ (Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            Secret::from_text(other.to_string())
        }
    };
    Some(Field { name: name.to_owned(), value, is_secret: target.is_secret(name) })
}

/// When what nobody can revoke ends, in the backend's own words: a time, a certificate's last second, or a lease.
pub(super) fn end(answer: &VaultAnswer, now: Timestamp) -> Option<Timestamp> {
    let data = answer.data.members();
    let moment = |name: &str| Timestamp::from_second(data.get(name)?.as_i64()?).ok();
    let seconds = |name: &str| Some(after(now, Duration::from_secs(data.get(name)?.as_u64()?)));
    let signed = || ssh::end(data.get("signed_key")?.as_str()?);
    let leased = || (!answer.lease_duration.is_zero()).then(|| after(now, answer.lease_duration));
    moment("expiration")
        .or_else(|| moment("expires_at_seconds"))
        .or_else(signed)
        .or_else(leased)
        .or_else(|| seconds("ttl"))
}

/// Vault's word for the hash that makes a digest of that length; the policy may say another.
pub(super) fn hash_of(digest: &str) -> Option<&'static str> {
    match STANDARD.decode(digest.trim()).ok()?.len() {
        28 => Some("sha2-224"),
        32 => Some("sha2-256"),
        48 => Some("sha2-384"),
        64 => Some("sha2-512"),
        _ => None,
    }
}
