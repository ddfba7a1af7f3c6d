//! How use cases become ledger entries: one place that names the members, so that every entry speaks alike.

use std::sync::Arc;

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
    json::JsonFault,
    ledger::{
        entry::{Draft, Entry, EntryCode, Personal},
        subject::Subject,
    },
    policy::{
        Finding, PolicySet,
        decide::{Breach, PermittedCredential, PermittedGrant, Tried},
    },
};

impl Broker {
    /// Seals a draft with fresh salt. An entry that would be too large gives up its claims first, since a decision
    /// must be recorded whatever the token holds.
    pub(super) fn seal(&self, draft: &Draft) -> Result<Entry, Refused> {
        let now = self.ambient.clock.now();
        let random = |out: &mut [u8]| self.ambient.entropy.fill(out).is_ok();
        draft.seal_or_slim(now, self.settings.replica, &random).map_err(|fault| {
            tracing::error!(%fault, "an entry could not be made");
            Refused::new(Code::Internal, "the decision could not be recorded, so nothing was issued")
        })
    }

    /// What entries about one token say of it.
    ///
    /// # Errors
    ///
    /// `internal` where that cannot be written; texts always can.
    pub(super) fn about(&self, identity: &JobIdentity) -> Result<About, Refused> {
        let subject = subject(identity).map_err(|fault| {
            tracing::error!(%fault, "a subject could not be written");
            Refused::new(Code::Internal, "the token's job could not be recorded, so nothing was issued")
        })?;
        Ok(About { subject: Arc::new(subject), token: Arc::new(self.token_member(identity)) })
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

/// What all entries about one token say of it, made ready once.
pub(super) struct About {
    subject: Arc<Subject>,
    token: Arc<Value>,
}

impl About {
    /// A draft that says it.
    pub(super) fn draft(&self, code: EntryCode, origin: &Origin) -> Draft {
        Draft {
            code: Some(code),
            subject: Some(Arc::clone(&self.subject)),
            token: Some(Arc::clone(&self.token)),
            personal: vec![Personal { field: "address", value: origin.address.to_string() }],
            ..Draft::default()
        }
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
    Some(Personal { field: "reason", value })
}

/// `result` of a refusal.
pub(super) fn refusal_result(code: Code, reason: &str) -> Value {
    json!({ "code": code.as_str(), "reason": reason })
}

/// Puts a decision on a draft.
pub(super) fn of_decision(draft: Draft, decision: DecisionId) -> Draft {
    Draft { decision: Some(decision), ..draft }
}

/// A name that a caller sent, as an entry may hold it: only names of up to 63 bytes of ASCII can exist, so what is
/// longer is cut, and what JSON would write as an escape is a question mark. A refusal must fit into its entry
/// whatever was asked for: one that did not would be neither recorded nor counted.
fn shortened(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '"' | '\\');
    name.chars().take(64).map(|letter| if plain(letter) { letter } else { '?' }).collect()
}

/// The rules that were tried, as far as they fit, and whether some were left out.
pub(super) fn tried(trace: &[Tried]) -> (Value, bool) {
    let mut room = TRIED_BYTES;
    let mut told = Vec::new();
    for each in trace {
        let rule = each.rule.as_ref().map(|rule| rule.as_str());
        let failed: Vec<String> = each.failed.iter().map(|claim| shortened(claim)).collect();
        let member = json!({ "grant": shortened(&each.grant), "rule": rule, "failed": failed });
        let Some(left) = room.checked_sub(member.to_string().len()) else { break };
        room = left;
        told.push(member);
    }
    let is_cut = told.len() < trace.len();
    (told.into(), is_cut)
}

/// What guardrails refused, as far as it fits; the rest is its count.
pub(super) fn breaches(list: &[Breach]) -> Value {
    let told = |breach: &Breach| {
        json!({
            "grant": breach.grant.as_str(), "credential": breach.credential.as_str(),
            "guardrail": breach.guardrail.as_str(), "requirement": breach.reason,
        })
    };
    let mut shown: Vec<Value> = list.iter().take(MOST_BREACHES).map(told).collect();
    if let Some(more) = list.len().checked_sub(MOST_BREACHES).filter(|more| *more > 0) {
        shown.push(json!({ "more": more }));
    }
    shown.into()
}

/// What guardrails that only report would have refused of one credential; `None` where nothing.
pub(super) fn breaches_of(grant: &PermittedGrant, credential: &PermittedCredential) -> Option<Value> {
    let own: Vec<Breach> =
        grant.would_deny.iter().filter(|breach| breach.credential == credential.name).cloned().collect();
    (!own.is_empty()).then(|| breaches(&own))
}

/// What a policy's finding may take of an entry: its text quotes the file.
pub(super) fn finding_text(finding: &Finding) -> String {
    let plain = |letter: char| letter == ' ' || (letter.is_ascii_graphic() && !matches!(letter, '"' | '\\'));
    let text = finding.to_string();
    text.chars().take(400).map(|letter| if plain(letter) { letter } else { '?' }).collect()
}

/// Each is at most some 300 bytes: with what was tried, half of an entry.
const MOST_BREACHES: usize = 12;

/// A quarter of an entry, so that the job's own words fit beside it.
const TRIED_BYTES: usize = 4096;

fn subject(identity: &JobIdentity) -> Result<Subject, JsonFault> {
    let (project, project_name) = identity.project().unzip();
    let named = [
        ("issuer", Some(identity.issuer().as_str())),
        ("profile", Some(identity.profile().name)),
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
    let named = named.into_iter().filter_map(|(name, value)| Some((name, Value::from(value?))));
    let unusable = (!identity.unusable().is_empty()).then(|| ("unusable", identity.unusable().into()));
    let mut members: Vec<(&str, Value)> = named.chain(unusable).collect();
    Subject::new(&mut members, identity.claims(), |name| identity.is_personal(name))
}
