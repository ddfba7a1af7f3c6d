//! What an exchange gives, read once into secrets; the text of the answer is wiped.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::exit::{Exit, Failure};
use crate::kernel::secret::Secret;

/// The credentials of one exchange.
pub(super) struct Exchanged {
    /// The decision, `dec_…`.
    pub(super) decision: String,
    /// The credentials, in the order of the answer.
    pub(super) issuances: Vec<Issuance>,
}

/// One credential.
pub(super) struct Issuance {
    /// Its id, `iss_…`.
    pub(super) id: String,
    /// The right to look after it, `hdl_…`.
    pub(super) handle: Secret,
    /// Its grant.
    pub(super) grant: String,
    /// Its name within the grant.
    pub(super) credential: String,
    /// Its kind.
    pub(super) kind: String,
    /// Its fields in order.
    pub(super) fields: Vec<Field>,
    /// When it ends by itself; `None` where it does not.
    pub(super) expires_at: Option<Timestamp>,
    /// Whether the broker can revoke it.
    pub(super) revocable: bool,
}

/// One field of a credential.
pub(super) struct Field {
    /// Its name.
    pub(super) name: String,
    /// Its value.
    pub(super) value: Secret,
    /// Whether it must be masked.
    pub(super) is_secret: bool,
}

#[derive(Deserialize)]
struct Answer {
    decision_id: String,
    issuances: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    id: String,
    handle: String,
    grant: String,
    credential: String,
    kind: String,
    fields: Map<String, Value>,
    secret_fields: BTreeSet<String>,
    expires_at: Option<Timestamp>,
    revocable: bool,
}

impl Exchanged {
    /// Reads the answer of `POST /v1/exchange`.
    ///
    /// # Errors
    ///
    /// [`Exit::Unreachable`] for anything that a broker would not send.
    pub(super) fn read(body: &Secret) -> Result<Self, Failure> {
        let not_ours = || Failure::new(Exit::Unreachable, "the answer is not a broker's");
        let answer: Answer = serde_json::from_slice(body.expose()).map_err(|_| not_ours())?;
        let issuances: Option<Vec<Issuance>> =
            answer.issuances.into_iter().map(Item::into_issuance).collect();
        Ok(Self { decision: answer.decision_id, issuances: issuances.ok_or_else(not_ours)? })
    }
}

impl Item {
    fn into_issuance(self) -> Option<Issuance> {
        let secret_fields = self.secret_fields;
        let fields = self.fields.into_iter().map(|(name, value)| match value {
            Value::String(text) => {
                let is_secret = secret_fields.contains(&name);
                Some(Field { name, value: Secret::from_text(text), is_secret })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
        });
        Some(Issuance {
            fields: fields.collect::<Option<_>>()?,
            id: self.id,
            handle: Secret::from_text(self.handle),
            grant: self.grant,
            credential: self.credential,
            kind: self.kind,
            expires_at: self.expires_at,
            revocable: self.revocable,
        })
    }
}
