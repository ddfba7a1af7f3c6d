//! The decision: a pure function of policy, identity, request and time. Deny by default.

use std::{borrow::Cow, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    class::Class,
    set::{Credential, Grant, Limits, PolicySet, Rule},
    target::Target,
    weigh::{Check, GUARDRAIL, TEMPLATE, Weighed, WeighedRule},
};
use crate::kernel::{
    digest::Digest,
    identity::JobIdentity,
    name::{CredentialName, GrantName, GuardrailName, RuleName},
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
    /// The highest class of the grant and its targets.
    pub class: Class,
    /// How much of it at once; whoever issues looks at it.
    pub limits: Limits,
    /// Its credentials, in the order of their names.
    pub credentials: Vec<PermittedCredential>,
    /// What guardrails that only report would have denied, or cut where they limit the TTL.
    pub would_deny: Vec<Breach>,
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
    /// `window`, `disabled`, `lapsed`, `template`, `guardrail`, `nothing-asked`).
    pub reason: &'static str,
    /// For each grant asked for, the rules tried and the claims of each that failed.
    pub trace: Vec<Tried>,
    /// What guardrails refused of grants that let the job in otherwise.
    pub breaches: Vec<Breach>,
    /// Whether some rule names this tenant.
    pub tenant_named: bool,
    /// What the caller may be told: the names of claims that failed, of rules for its own project, in grants that
    /// say `disclose: owner`. `None` where none of the grants that were refused tells this caller anything.
    pub failed_claims: Option<Vec<String>>,
}

/// One rule that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The grant asked for.
    pub grant: String,
    /// The rule, where one was tried.
    pub rule: Option<RuleName>,
    /// Names of the claims that failed: conditions as written, `iss` where the rule is another issuer's, the claim
    /// with the trigger where that is dangerous or unknown and not named; last `window` where that is shut.
    pub failed: Vec<String>,
}

/// What a guardrail refuses, or would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The grant.
    pub grant: GrantName,
    /// The credential.
    pub credential: CredentialName,
    /// The guardrail.
    pub guardrail: GuardrailName,
    /// The key that was not satisfied: `require.max_ttl`, `require.issuers`, `require.pinned`,
    /// `require.protected_ref`, `require.runner`, `require.lifetime`, `require.grant_names`, `targets`,
    /// `forbid.triggers`.
    pub reason: &'static str,
}

/// A grant that an identity may use now.
pub struct Usable<'a> {
    /// The grant.
    pub grant: &'a Grant,
    /// Those of its credentials that would be permitted, in the order of their names.
    pub credentials: Vec<PermittedCredential>,
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
                let least = each.target.ttl_bounds().map(|(least, _)| least);
                each.ttl.zip(least).is_some_and(|(ttl, least)| ttl < least)
            };
            grant.credentials.iter().find(below).map(|each| (&grant.name, &each.name))
        })
    }
}

/// Decides: all that is asked for, or nothing. Every grant and every rule is evaluated to its end, whatever the first
/// one said, and an unknown grant is evaluated against another's rules, so that the time taken tells little (P8).
pub fn decide(set: &PolicySet, identity: &JobIdentity, request: &Request, now: Timestamp) -> Decision {
    let found =
        |asked: &GrantRequest| set.grants.get(asked.name.as_str()).map(|grant| set.expanded(grant, identity));
    let grants: Vec<Option<Cow<'_, Grant>>> = request.grants.iter().map(found).collect();
    let weighed: Vec<Option<Weighed<'_>>> = request
        .grants
        .iter()
        .zip(&grants)
        .map(|(asked, grant)| grant.as_deref().map(|grant| Weighed::new(set, grant, identity, asked, now)))
        .collect();
    for (asked, _) in request.grants.iter().zip(&weighed).filter(|(_, weighed)| weighed.is_none()) {
        if let Some(other) = set.decoy(&asked.name) {
            // Only its time counts: the names of another grant's claims stay out of the trace.
            let other = set.expanded(other, identity);
            let weighed = Weighed::new(set, &other, identity, asked, now);
            std::hint::black_box(tried(&weighed, identity).len());
        }
    }
    let refusal = |weighed: &Option<Weighed<'_>>| match weighed {
        None => Some(NO_SUCH_GRANT),
        Some(weighed) => weighed.verdict.err(),
    };
    let reason = if weighed.is_empty() { Some(NOTHING_ASKED) } else { weighed.iter().find_map(refusal) };
    if let Some(reason) = reason {
        return Decision::Deny(denial(set, identity, request, &weighed, reason));
    }
    let asked = request.grants.iter().zip(weighed.iter().flatten());
    let grants =
        asked.filter_map(|(asked, weighed)| Some(permitted(weighed, weighed.verdict.ok()?, asked.ttl)));
    Decision::Permit(Permit { digest: set.digest, commit: set.commit.clone(), grants: grants.collect() })
}

/// What `GET /v1/grants` answers: the grants that this identity may use now, by name.
pub fn usable<'a>(set: &'a PolicySet, identity: &JobIdentity, now: Timestamp) -> Vec<Usable<'a>> {
    let all = GrantRequest { name: String::new(), credentials: None, ttl: None };
    let usable = |grant: &'a Grant| {
        let expanded = set.expanded(grant, identity);
        let weighed = Weighed::new(set, &expanded, identity, &all, now);
        let credentials = match weighed.verdict {
            Ok(_) => credentials(&weighed, None),
            // A guardrail may refuse one credential and not another, and so may a template.
            Err(GUARDRAIL | TEMPLATE) => {
                grant.credentials.keys().filter_map(|name| alone(set, grant, name, identity, now)).collect()
            }
            Err(_) => Vec::new(),
        };
        (!credentials.is_empty()).then_some(Usable { grant, credentials })
    };
    set.names.iter().filter_map(|name| set.grants.get(name)).filter_map(usable).collect()
}

/// One credential, as if nothing else had been asked for.
fn alone(
    set: &PolicySet,
    grant: &Grant,
    name: &CredentialName,
    identity: &JobIdentity,
    now: Timestamp,
) -> Option<PermittedCredential> {
    let asked =
        GrantRequest { name: String::new(), credentials: Some(vec![name.as_str().to_owned()]), ttl: None };
    let grant = set.expanded(grant, identity);
    let weighed = Weighed::new(set, &grant, identity, &asked, now);
    weighed.verdict.ok()?;
    credentials(&weighed, None).pop()
}

fn permitted(weighed: &Weighed<'_>, rule: &Rule, wanted: Option<Duration>) -> PermittedGrant {
    let grant = weighed.grant;
    PermittedGrant {
        name: grant.name.clone(),
        rule: rule.name.clone(),
        file: Arc::clone(&grant.file),
        class: grant.class,
        limits: grant.limits,
        credentials: credentials(weighed, wanted),
        would_deny: weighed.reported(rule).map(|check| breach(grant, check)).collect(),
    }
}

fn credentials(weighed: &Weighed<'_>, wanted: Option<Duration>) -> Vec<PermittedCredential> {
    let permitted = |(name, credential): &(&CredentialName, &Credential)| PermittedCredential {
        name: (*name).clone(),
        target: credential.target.0.clone(),
        // A requested TTL only narrows, and speaks of those that have one.
        ttl: weighed.ttl(name, credential).map(|ttl| wanted.map_or(ttl, |wanted| wanted.min(ttl))),
    };
    weighed.credentials.iter().map(permitted).collect()
}

fn breach(grant: &Grant, check: &Check<'_>) -> Breach {
    Breach {
        grant: grant.name.clone(),
        credential: check.credential.0.clone(),
        guardrail: check.guardrail.name.clone(),
        reason: check.requirement.demand.word(),
    }
}

fn denial(
    set: &PolicySet,
    identity: &JobIdentity,
    request: &Request,
    weighed: &[Option<Weighed<'_>>],
    reason: &'static str,
) -> Denial {
    let mut denial = Denial {
        reason,
        trace: Vec::new(),
        breaches: Vec::new(),
        tenant_named: set.names_tenant(identity),
        failed_claims: None,
    };
    for (asked, weighed) in request.grants.iter().zip(weighed) {
        let Some(weighed) = weighed else {
            denial.trace.push(Tried { grant: asked.name.clone(), rule: None, failed: Vec::new() });
            continue;
        };
        denial.trace.extend(tried(weighed, identity));
        if weighed.verdict.err() == Some(GUARDRAIL)
            && let Ok(rule) = weighed.rule()
        {
            denial.breaches.extend(weighed.breaches(rule).map(|check| breach(weighed.grant, check)));
        }
        if weighed.verdict.is_err() {
            disclose(weighed, identity, &mut denial.failed_claims);
        }
    }
    denial
}

/// The rules of a grant that did not let the job in.
fn tried(weighed: &Weighed<'_>, identity: &JobIdentity) -> Vec<Tried> {
    let failed = |each: &WeighedRule<'_>| {
        let mut failed: Vec<String> = match each.is_issuer {
            true => each.failed_claims(identity).into_iter().map(str::to_owned).collect(),
            false => vec!["iss".to_owned()],
        };
        failed.extend((each.is_issuer && !each.is_open).then(|| "window".to_owned()));
        failed
    };
    let failing = weighed.rules.iter().filter(|each| !each.holds());
    failing
        .map(|each| Tried {
            grant: weighed.grant.name.to_string(),
            rule: Some(each.rule.name.clone()),
            failed: failed(each),
        })
        .collect()
}

/// Tells an owner which claims failed: names only, only of rules for the caller's own project, nothing of guardrails,
/// dates and windows. Rules for other projects of the grant would tell of those, and that this is not one of them is
/// known to the caller.
fn disclose(weighed: &Weighed<'_>, identity: &JobIdentity, told: &mut Option<Vec<String>>) {
    let mut own = weighed.rules.iter().filter(|each| each.is_of_project(identity)).peekable();
    if !weighed.grant.disclose_owner || own.peek().is_none() {
        return;
    }
    let told = told.get_or_insert_default();
    for name in own.flat_map(|each| each.failed_claims(identity)) {
        if !told.iter().any(|each| each == name) {
            told.push(name.to_owned());
        }
    }
}

const NO_SUCH_GRANT: &str = "no-such-grant";
/// A request without grants; the wire refuses it before.
const NOTHING_ASKED: &str = "nothing-asked";

#[cfg(test)]
mod tests;
