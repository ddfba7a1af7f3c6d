//! The decision: a pure function of policy, identity, request and time. Deny by default.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    set::{Credential, Grant, PolicySet, Rule},
    target::Target,
};
use crate::kernel::{
    digest::Digest,
    identity::{JobIdentity, job::Trigger},
    name::{CredentialName, GrantName, RuleName},
};

/// What a job asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// One to eight grants.
    pub grants: Vec<GrantRequest>,
}

/// One grant of a request. Names are texts as sent: one that cannot be a name is as unknown as any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRequest {
    /// The grant's name.
    pub name: String,
    /// The credentials wanted; all where absent.
    pub credentials: Option<Vec<String>>,
    /// A shorter life.
    pub ttl: Option<Duration>,
}

/// Permit or deny.
pub enum Decision {
    /// Everything asked for, or nothing.
    Deny(Denial),
    /// All of it.
    Permit(Permit),
}

/// A permit. Only [`decide`] makes one.
pub struct Permit {
    digest: Digest,
    commit: Option<String>,
    grants: Vec<PermittedGrant>,
}

/// One grant of a permit.
pub struct PermittedGrant {
    /// Its name.
    pub name: GrantName,
    /// The rule that matched.
    pub rule: RuleName,
    /// The file with the rule.
    pub file: Arc<str>,
    /// Its credentials, in the order of their names.
    pub credentials: Vec<PermittedCredential>,
}

/// One credential of a permit.
pub struct PermittedCredential {
    /// Its name.
    pub name: CredentialName,
    /// What it reaches.
    pub target: Target,
    /// Its TTL: the policy's, cut to the requested one; `None` where static.
    pub ttl: Option<Duration>,
}

/// A denial: for the ledger in full, for the caller one word.
pub struct Denial {
    /// The first reason: a stable kebab-case word (`no-such-grant`, `no-such-credential`, `no-rule`, `trigger`,
    /// `disabled`, `lapsed`, `nothing-asked`).
    pub reason: &'static str,
    /// For each grant asked for, the rules tried and the claims of each that failed.
    pub trace: Vec<Tried>,
    /// Whether some rule names this tenant.
    pub tenant_named: bool,
}

/// One rule that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The grant asked for.
    pub grant: String,
    /// The rule, where one was tried.
    pub rule: Option<RuleName>,
    /// Names of the claims that failed: conditions as written, `iss` where the rule is another issuer's, the claim
    /// with the trigger where that is dangerous or unknown and not named.
    pub failed: Vec<String>,
}

impl Permit {
    /// The digest of the set that decided.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The commit of the set that decided.
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    /// What is permitted.
    pub fn grants(&self) -> &[PermittedGrant] {
        &self.grants
    }

    /// The first credential, as (grant, credential), whose TTL is below its kind's least: a requested TTL cut it.
    pub fn ttl_out_of_range(&self) -> Option<(&GrantName, &CredentialName)> {
        self.grants.iter().find_map(|grant| {
            let below = |each: &&PermittedCredential| {
                let least = each.target.kind().ttl_bounds().map(|(least, _)| least);
                each.ttl.zip(least).is_some_and(|(ttl, least)| ttl < least)
            };
            grant.credentials.iter().find(below).map(|each| (&grant.name, &each.name))
        })
    }
}

/// Decides: all that is asked for, or nothing. Every grant and every rule is evaluated to its end, whatever the first
/// one said, and an unknown grant is evaluated against another's rules, so that the time taken tells little (P8).
pub fn decide(set: &PolicySet, identity: &JobIdentity, request: &Request, now: Timestamp) -> Decision {
    let mut trace = Vec::new();
    let mut permitted = Vec::new();
    let mut reason = None;
    for asked in &request.grants {
        match judge(set, identity, asked, now, &mut trace) {
            Ok(grant) => permitted.push(grant),
            Err(found) => reason = reason.or(Some(found)),
        }
    }
    match reason {
        None if !permitted.is_empty() => {
            Decision::Permit(Permit { digest: set.digest, commit: set.commit.clone(), grants: permitted })
        }
        None => {
            Decision::Deny(Denial { reason: NOTHING_ASKED, trace, tenant_named: set.names_tenant(identity) })
        }
        Some(reason) => Decision::Deny(Denial { reason, trace, tenant_named: set.names_tenant(identity) }),
    }
}

/// What `GET /v1/grants` answers: the grants that this identity may use now, by name.
pub fn usable<'a>(set: &'a PolicySet, identity: &JobIdentity, now: Timestamp) -> Vec<&'a Grant> {
    let mut grants: Vec<&Grant> = set
        .grants
        .values()
        .filter(|grant| is_open(grant, now).is_ok() && first_match(grant, identity, &mut Vec::new()).is_ok())
        .collect();
    grants.sort_by(|left, right| left.name.cmp(&right.name));
    grants
}

fn judge(
    set: &PolicySet,
    identity: &JobIdentity,
    asked: &GrantRequest,
    now: Timestamp,
    trace: &mut Vec<Tried>,
) -> Result<PermittedGrant, &'static str> {
    if let Some(grant) = set.grants.get(asked.name.as_str()) {
        return weigh(grant, identity, asked, now, trace);
    }
    if let Some(other) = set.decoy(&asked.name) {
        // Only its time counts: the names of another grant's claims stay out of the trace.
        std::hint::black_box(weigh(other, identity, asked, now, &mut Vec::new()).is_ok());
    }
    trace.push(Tried { grant: asked.name.clone(), rule: None, failed: Vec::new() });
    Err("no-such-grant")
}

fn weigh(
    grant: &Grant,
    identity: &JobIdentity,
    asked: &GrantRequest,
    now: Timestamp,
    trace: &mut Vec<Tried>,
) -> Result<PermittedGrant, &'static str> {
    let rule = first_match(grant, identity, trace);
    let credentials = choose(grant, asked);
    is_open(grant, now)?;
    let rule = rule?;
    Ok(PermittedGrant {
        name: grant.name.clone(),
        rule: rule.name.clone(),
        file: Arc::clone(&grant.file),
        credentials: credentials.ok_or("no-such-credential")?,
    })
}

fn is_open(grant: &Grant, now: Timestamp) -> Result<(), &'static str> {
    if !grant.enabled {
        return Err("disabled");
    }
    match grant.lapses_at {
        Some(end) if now >= end => Err("lapsed"),
        Some(_) | None => Ok(()),
    }
}

fn choose(grant: &Grant, asked: &GrantRequest) -> Option<Vec<PermittedCredential>> {
    let permitted = |name: &CredentialName, credential: &Credential| PermittedCredential {
        name: name.clone(),
        target: credential.target.0.clone(),
        // A requested TTL only narrows, and speaks of those that have one.
        ttl: credential.ttl.map(|ttl| asked.ttl.map_or(ttl, |wanted| wanted.min(ttl))),
    };
    let chosen = |name: &CredentialName| match &asked.credentials {
        None => true,
        Some(names) => names.iter().any(|each| each == name.as_str()),
    };
    let is_known = |name: &String| grant.credentials.contains_key(name.as_str());
    let list: Vec<PermittedCredential> = grant
        .credentials
        .iter()
        .filter(|(name, _)| chosen(name))
        .map(|(name, credential)| permitted(name, credential))
        .collect();
    // A permit of nothing would be a permit all the same.
    (asked.credentials.iter().flatten().all(is_known) && !list.is_empty()).then_some(list)
}

fn first_match<'g>(
    grant: &'g Grant,
    identity: &JobIdentity,
    trace: &mut Vec<Tried>,
) -> Result<&'g Rule, &'static str> {
    let mut matched = None;
    let mut dangerous = false;
    for rule in &grant.rules {
        let mut failed: Vec<String> = Vec::new();
        if rule.issuer != *identity.issuer() {
            failed.push("iss".to_owned());
        } else {
            let missed = rule
                .conditions
                .iter()
                .filter(|condition| !condition.holds(identity.claims(), identity.unusable()));
            failed.extend(missed.map(|condition| condition.claim.clone()));
            if !allows_trigger(rule, identity) {
                dangerous |= failed.is_empty();
                let name = identity.trigger_claim();
                if !failed.iter().any(|each| each == name) {
                    failed.push(name.to_owned());
                }
            }
        }
        if failed.is_empty() {
            matched = matched.or(Some(rule));
        } else {
            trace.push(Tried { grant: grant.name.to_string(), rule: Some(rule.name.clone()), failed });
        }
    }
    matched.ok_or(if dangerous { "trigger" } else { "no-rule" })
}

/// Dangerous and unknown triggers are denied unless the rule names them by a literal (attack class F-03).
fn allows_trigger(rule: &Rule, identity: &JobIdentity) -> bool {
    match identity.trigger() {
        Trigger::Ordinary => true,
        Trigger::Dangerous(word) => rule.named_triggers.contains(word),
        Trigger::Unknown => identity.trigger_word().is_some_and(|word| rule.named_triggers.contains(word)),
    }
}

/// A request without grants; the wire refuses it before.
const NOTHING_ASKED: &str = "nothing-asked";

#[cfg(test)]
mod tests;
