//! One case against one set: the evaluator's word, and what the table says of it.

use std::{collections::BTreeSet, time::Duration};

use super::{Breaches, Case, DueLimits, Expect, Permitted, reach};
use crate::kernel::{
    name::{CredentialName, RuleName},
    policy::{
        Decision, Denial, Permit, PolicySet,
        decide::{Breach, PermittedGrant, Tried, decide},
        set::Limits,
    },
};

/// Why a case failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What was, and what was due.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Fault {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// What the evaluator says otherwise than the case.
pub(super) fn fault(set: &PolicySet, case: &Case) -> Option<Fault> {
    match (decide(set, &case.identity, &case.request, case.at), &case.expect) {
        (Decision::Permit(permit), Expect::Permit(due)) => other_rule(&permit, due.rule.as_ref())
            .or_else(|| longer(&permit, &due.ttl_max))
            .or_else(|| reach::elsewhere(&permit, &due.reaches))
            .or_else(|| permit.grants().first().and_then(|grant| other_grant(grant, due))),
        (Decision::Permit(permit), Expect::Deny(_)) => {
            let rule = permit.grants().first().map_or("a rule", |grant| grant.rule.as_str());
            let message = format!("a denial was expected, and `{rule}` permits it");
            Some(Fault::new(
                message,
                "narrow that rule, or expect permit if this job may have the credentials",
            ))
        }
        (Decision::Deny(denial), Expect::Permit(_)) => {
            let message = format!("a permit was expected, and it is denied: {}", told(&denial));
            Some(Fault::new(
                message,
                "mend the fixture or the rule, or expect deny if this job must not have them",
            ))
        }
        (Decision::Deny(denial), Expect::Deny(due)) => other_reason(&denial, due.reason.as_deref())
            .or_else(|| other_failed(&denial, due.failed.as_ref(), due.rule.as_ref()))
            .or_else(|| other_breaches(&denial.breaches, due.guardrails.as_ref(), "guardrails"))
            .or_else(|| other_disclosed(&denial, due.disclosed.as_ref())),
    }
}

fn other_grant(grant: &PermittedGrant, due: &Permitted) -> Option<Fault> {
    let class = due.class.filter(|class| *class != grant.class);
    if let Some(class) = class {
        let (is, due) = (grant.class.as_str(), class.as_str());
        let remedy = format!("write `class: {is}`, or classify the targets otherwise");
        return Some(Fault::new(format!("its class is {is}, and {due} was expected"), remedy));
    }
    let limits = due.limits.as_ref().and_then(|due| other_limits(grant.limits, due));
    limits.or_else(|| other_breaches(&grant.would_deny, due.would_deny.as_ref(), "would_deny"))
}

fn other_limits(is: Limits, due: &DueLimits) -> Option<Fault> {
    let differs = |is: Option<u32>, due: Option<i64>| due.is_some_and(|due| is.map(i64::from) != Some(due));
    let name = if differs(is.issuances_per_hour, due.issuances_per_hour) {
        "issuances_per_hour"
    } else if differs(is.live, due.live) {
        "live"
    } else if due.per.is_some_and(|per| per != is.per) {
        "per"
    } else if differs(Some(u32::from(is.uses_per_token)), due.uses_per_token) {
        "uses_per_token"
    } else {
        return None;
    };
    let message = format!("the grant's limit `{name}` is another, or it has none");
    Some(Fault::new(message, "write here what the grant says, or mend the grant"))
}

/// All guardrails that refuse, and of those that are named with demands all of these.
fn other_breaches(breaches: &[Breach], due: Option<&Breaches>, key: &str) -> Option<Fault> {
    let due = due?;
    let mut got = Breaches::new();
    for breach in breaches {
        got.entry(breach.guardrail.to_string()).or_default().insert(breach.reason.to_owned());
    }
    let fits = |(name, demands): (&String, &BTreeSet<String>)| {
        got.get(name).is_some_and(|got| demands.is_empty() || got == demands)
    };
    if got.len() == due.len() && due.iter().all(fits) {
        return None;
    }
    let message = format!("`{key}` is {}, and {} was expected", shown(&got), shown(due));
    Some(Fault::new(message, format!("write `{key}: {}` if that is what you mean", shown(&got))))
}

fn shown(breaches: &Breaches) -> String {
    let each = breaches.iter().map(|(name, demands)| {
        format!("{name}: [{}]", demands.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    });
    format!("{{ {} }}", each.collect::<Vec<_>>().join(", "))
}

fn other_disclosed(denial: &Denial, due: Option<&BTreeSet<String>>) -> Option<Fault> {
    let due = due?;
    let got: BTreeSet<String> = denial.failed_claims.iter().flatten().cloned().collect();
    if got == *due {
        return None;
    }
    let got: Vec<&str> = got.iter().map(String::as_str).collect();
    let message = format!("the caller is told [{}], and something else was expected", got.join(", "));
    Some(Fault::new(message, "write here what the caller is told, or mend `disclose`"))
}

fn other_rule(permit: &Permit, due: Option<&RuleName>) -> Option<Fault> {
    let got = &permit.grants().first()?.rule;
    let due = due.filter(|due| *due != got)?;
    let remedy =
        format!("write `rule: {got}`, or narrow that rule; the first rule that matches is the one recorded");
    Some(Fault::new(format!("`{got}` permits it, and `{due}` was expected to"), remedy))
}

fn longer(permit: &Permit, limits: &[(CredentialName, Duration)]) -> Option<Fault> {
    let credentials = || permit.grants().iter().flat_map(|grant| &grant.credentials);
    limits.iter().find_map(|(name, limit)| {
        let ttl = credentials().find(|each| each.name == *name)?.ttl?;
        (ttl > *limit).then(|| {
            let message = format!(
                "`{name}` lives for {}, and {} is the most that was expected",
                length(ttl),
                length(*limit)
            );
            Fault::new(message, "lower the ttl in the grant, or raise ttl_max if it is to live that long")
        })
    })
}

fn other_reason(denial: &Denial, due: Option<&str>) -> Option<Fault> {
    let due = due.filter(|due| *due != denial.reason)?;
    let message = format!("it is denied, and not for `{due}`: {}", told(denial));
    Some(Fault::new(message, format!("write `reason: {}` if that is what you mean", denial.reason)))
}

fn other_failed(denial: &Denial, due: Option<&BTreeSet<String>>, rule: Option<&RuleName>) -> Option<Fault> {
    let due = due?;
    let is_meant = |tried: &&Tried| rule.is_none() || tried.rule.as_ref() == rule;
    let is_so = |tried: &Tried| tried.failed.iter().cloned().collect::<BTreeSet<_>>() == *due;
    if denial.trace.iter().filter(is_meant).any(is_so) {
        return None;
    }
    let due: Vec<&str> = due.iter().map(String::as_str).collect();
    let message = format!("it is denied, and not just for [{}]: {}", due.join(", "), told(denial));
    let remedy =
        "change just one thing from a permitted fixture, or write what failed if that is what you mean";
    Some(Fault::new(message, remedy))
}

/// The reason, and for each rule what failed.
fn told(denial: &Denial) -> String {
    let rules = denial.trace.iter().filter_map(|tried| {
        let rule = tried.rule.as_ref()?;
        Some(format!("{rule} failed [{}]", tried.failed.join(", ")))
    });
    let breaches = denial.breaches.iter().map(|each| format!("{} demands {}", each.guardrail, each.reason));
    let mut all = vec![denial.reason.to_owned()];
    all.extend(breaches);
    all.extend(rules);
    all.dedup();
    all.join("; ")
}

/// As files write it.
pub(super) fn length(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        seconds if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}
