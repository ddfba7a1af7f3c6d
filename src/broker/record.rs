//! How use cases become ledger entries: one place that names the members, so that every entry speaks alike.

use serde_json::{Map, Value, json};

use super::{
    Broker,
    error::{Code, Refused},
    exchange::Ask,
    identify::{Caller, Origin},
};
use crate::kernel::{
    digest::Digest,
    id::DecisionId,
    identity::{JobIdentity, job::TokenMark},
    ledger::entry::{Draft, Entry, EntryCode, Personal},
    policy::PolicySet,
};

impl Broker {
    /// Seals a draft with fresh salt. An entry that would be too large gives up its claims first, since a decision
    /// must be recorded whatever the token holds.
    pub(super) fn seal(&self, draft: Draft) -> Result<Entry, Refused> {
        let now = self.ambient.clock.now();
        let random = |out: &mut [u8]| self.ambient.entropy.fill(out).is_ok();
        draft.seal_or_slim(now, self.settings.replica, &random).map_err(|fault| {
            tracing::error!(%fault, "an entry could not be made");
            Refused::new(Code::Internal, "the decision could not be recorded, so nothing was issued")
        })
    }

    /// The members that every entry about one token has.
    pub(super) fn draft(&self, code: EntryCode, identity: &JobIdentity, origin: &Origin) -> Draft {
        Draft {
            code: Some(code),
            subject: Some(subject(identity)),
            token: Some(self.token_member(identity)),
            personal: personal(identity, origin),
            ..Draft::default()
        }
    }

    fn token_member(&self, identity: &JobIdentity) -> Value {
        let TokenMark { id, iat, exp } = identity.token();
        json!({
            "issuer": identity.issuer().as_str(),
            "id_hmac": Digest::keyed(&self.settings.pseudonym_key, &id.0).to_string(),
            "iat": iat.to_string(),
            "exp": exp.to_string(),
        })
    }
}

/// `policy` of an entry, without rule and file.
pub(super) fn policy_member(set: &PolicySet) -> Map<String, Value> {
    let mut member = Map::new();
    member.insert("digest".to_owned(), set.digest.to_string().into());
    if let Some(commit) = &set.commit {
        member.insert("commit".to_owned(), commit.clone().into());
    }
    member
}

/// `request` of an entry: what was asked for, without its reason (personal) and its inputs.
pub(super) fn request_member(caller: &Caller, ask: &Ask) -> Value {
    let grants: Vec<Value> = ask
        .request
        .grants
        .iter()
        .map(|grant| {
            let mut member = Map::new();
            member.insert("name".to_owned(), shortened(&grant.name).into());
            if let Some(credentials) = &grant.credentials {
                let names: Vec<Value> = credentials.iter().map(|name| shortened(name).into()).collect();
                member.insert("credentials".to_owned(), names.into());
            }
            if let Some(ttl) = grant.ttl {
                member.insert("ttl_seconds".to_owned(), ttl.as_secs().into());
            }
            Value::Object(member)
        })
        .collect();
    json!({ "id": caller.origin.request.to_string(), "grants": grants })
}

/// The reason of a request, as a personal value.
pub(super) fn reason_personal(ask: &Ask) -> Option<Personal> {
    let value = ask.reason.clone()?;
    Some(Personal { field: "reason".to_owned(), value, is_claim: false })
}

/// `result` of a refusal.
pub(super) fn refusal_result(code: Code, reason: &str) -> Value {
    json!({ "code": code.as_str(), "reason": reason })
}

/// Puts a decision on a draft.
pub(super) fn of_decision(draft: Draft, decision: DecisionId) -> Draft {
    Draft { decision: Some(decision), ..draft }
}

/// A name that a caller sent, cut to what an entry may hold of it; only names of up to 63 bytes can exist.
fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}

fn subject(identity: &JobIdentity) -> Value {
    let mut claims = identity.claims().clone();
    for (name, _) in identity.personal() {
        claims.remove(name);
    }
    let mut member = Map::new();
    member.insert("issuer".to_owned(), identity.issuer().as_str().into());
    member.insert("profile".to_owned(), identity.profile().name.into());
    let (project, project_name) = identity.project().unzip();
    let named = [
        ("tenant", identity.tenant()),
        ("project", project),
        ("project_name", project_name.flatten()),
        ("ref", identity.git_ref()),
        ("trigger", identity.trigger_word()),
        ("definition", identity.definition()),
        ("environment", identity.environment()),
        ("runner", identity.runner()),
        ("run", identity.run()),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            member.insert(name.to_owned(), value.into());
        }
    }
    if !identity.unusable().is_empty() {
        member.insert("unusable".to_owned(), identity.unusable().to_vec().into());
    }
    member.insert("claims".to_owned(), claims.into());
    Value::Object(member)
}

fn personal(identity: &JobIdentity, origin: &Origin) -> Vec<Personal> {
    let address =
        Personal { field: "address".to_owned(), value: origin.address.to_string(), is_claim: false };
    identity
        .personal()
        .map(|(field, value)| Personal {
            field: field.to_owned(),
            value: personal_text(value),
            is_claim: true,
        })
        .chain([address])
        .collect()
}

/// A personal claim as the erasable table keeps it: a string as it is, anything else as JSON.
fn personal_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
