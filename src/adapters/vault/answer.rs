//! Vault's envelope, read once and whole (faults 1, 8 and 9; `sdk/logical/translate_response.go`, November 2026). Every
//! field but a token itself may be absent or null.

use std::time::Duration;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};

use super::fault::{LoginFault, NotFound, VaultFault};
use crate::kernel::{secret::Secret, wiping};

/// What Vault answered. It has no `Debug`, since most of it is secret.
pub struct VaultAnswer {
    /// The lease, where there is one. It is a secret: whoever has it may end or prolong the credential.
    pub lease_id: Option<Secret>,
    /// For how long the lease, or what was read, is good; zero where it is not said.
    pub lease_duration: Duration,
    /// Whether the lease can be renewed.
    pub renewable: bool,
    /// What the engine gave.
    pub data: Data,
    /// A token, where the answer makes one.
    pub auth: Option<Auth>,
    /// How many warnings came with it. Their text is the log's at most, and not even that: some quote the request.
    pub warnings: usize,
}

/// The `data` of an answer: a map, empty where Vault sent none. Wiped when dropped.
pub struct Data(Map<String, Value>);

/// A token that an answer made.
pub struct Auth {
    /// The token.
    pub client_token: Secret,
    /// What names it without being it; empty for batch tokens.
    pub accessor: Secret,
    /// Its lifetime; zero where it does not end.
    pub lease_duration: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// All its policies.
    pub policies: Vec<String>,
    /// `service` or `batch`.
    pub token_type: String,
}

impl Data {
    /// One member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All members; the caller wipes what it copies.
    pub fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Takes a text out.
    pub fn take_text(&mut self, name: &str) -> Option<Secret> {
        let mut value = self.0.get_mut(name)?.take();
        if let Value::String(text) = &mut value {
            return Some(Secret::from_text(std::mem::take(text)));
        }
        wipe(&mut value);
        None
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|(_, value)| wipe(value));
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => wiping::wipe(text),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.iter_mut().for_each(|(_, value)| wipe(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelope {
    lease_id: Option<String>,
    lease_duration: Option<u64>,
    renewable: Option<bool>,
    data: Option<Map<String, Value>>,
    auth: Option<WireAuth>,
    wrap_info: Option<IgnoredAny>,
    warnings: Option<Vec<IgnoredAny>>,
    errors: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireAuth {
    client_token: Option<String>,
    accessor: Option<String>,
    lease_duration: Option<u64>,
    renewable: Option<bool>,
    policies: Option<Vec<String>>,
    token_policies: Option<Vec<String>>,
    identity_policies: Option<Vec<String>>,
    token_type: Option<String>,
    mfa_requirement: Option<IgnoredAny>,
}

impl VaultAnswer {
    /// Reads the body of a 200 or 204.
    pub(super) fn read(body: &[u8]) -> Result<Self, VaultFault> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::of(Envelope::default(), None));
        }
        // The parser's error quotes what it read, so it goes no further than this line (fault 4).
        let mut envelope: Envelope =
            serde_json::from_slice(body).map_err(|_| VaultFault::Malformed("no JSON of Vault's"))?;
        if envelope.errors.as_ref().is_some_and(|errors| !errors.is_empty()) {
            return Err(VaultFault::Malformed("a list of errors under a good status"));
        }
        if envelope.wrap_info.is_some() {
            // Nobody asked for wrapping, so a control group did it.
            return Err(VaultFault::ControlGroup);
        }
        let auth = envelope.auth.take().map(Auth::read).transpose()?;
        Ok(Self::of(envelope, auth))
    }

    fn of(envelope: Envelope, auth: Option<Auth>) -> Self {
        Self {
            lease_id: envelope.lease_id.filter(|id| !id.is_empty()).map(Secret::from_text),
            lease_duration: Duration::from_secs(envelope.lease_duration.unwrap_or(0)),
            renewable: envelope.renewable.unwrap_or(false),
            data: Data(envelope.data.unwrap_or_default()),
            auth,
            warnings: envelope.warnings.map_or(0, |warnings| warnings.len()),
        }
    }
}

impl Auth {
    fn read(wire: WireAuth) -> Result<Self, VaultFault> {
        let token = wire.client_token.filter(|token| !token.is_empty());
        let Some(token) = token else {
            return Err(if wire.mfa_requirement.is_some() {
                VaultFault::Login(LoginFault::SecondFactor)
            } else {
                VaultFault::Malformed("a login without a token")
            });
        };
        let named = [wire.policies, wire.token_policies, wire.identity_policies];
        let mut policies: Vec<String> = named.into_iter().flatten().flatten().collect();
        policies.sort();
        policies.dedup();
        Ok(Self {
            client_token: Secret::from_text(token),
            accessor: Secret::from_text(wire.accessor.unwrap_or_default()),
            lease_duration: Duration::from_secs(wire.lease_duration.unwrap_or(0)),
            renewable: wire.renewable.unwrap_or(false),
            policies,
            token_type: wire.token_type.unwrap_or_else(|| "service".to_owned()),
        })
    }
}

/// What the body of a refusal says, in words of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// A KV version was deleted or destroyed.
    Gone(NotFound),
    /// A lease or an accessor that Vault does not know, or not any more.
    Unknown,
    /// A lease-count quota.
    LeaseQuota,
    /// Nothing that makes a difference.
    Nothing,
}

impl Said {
    /// Reads the body of a refusal.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(envelope) = serde_json::from_slice::<Envelope>(body) else { return Self::Nothing };
        let envelope = VaultAnswerBody(envelope);
        if let Some(metadata) = envelope.data().and_then(|data| data.get("metadata")) {
            if metadata.get("destroyed") == Some(&Value::Bool(true)) {
                return Self::Gone(NotFound::Destroyed);
            }
            let deleted = metadata.get("deletion_time").and_then(Value::as_str);
            if deleted.is_some_and(|time| !time.is_empty()) {
                return Self::Gone(NotFound::Deleted);
            }
        }
        let says = |needle: &str| envelope.errors().any(|error| error.contains(needle));
        if says("lease count quota") {
            Self::LeaseQuota
        } else if says("invalid lease") || says("lease not found") || says("invalid accessor") {
            Self::Unknown
        } else {
            Self::Nothing
        }
    }
}

/// The body of a refusal, wiped like an answer: some quote what was sent.
struct VaultAnswerBody(Envelope);

impl VaultAnswerBody {
    fn data(&self) -> Option<&Map<String, Value>> {
        self.0.data.as_ref()
    }

    fn errors(&self) -> impl Iterator<Item = &String> {
        self.0.errors.iter().flatten()
    }
}

impl Drop for VaultAnswerBody {
    fn drop(&mut self) {
        self.0.errors.iter_mut().flatten().for_each(wiping::wipe);
    }
}
