//! One case against one set: the evaluator's word, and what the table says of it.

use std::{collections::BTreeSet, time::Duration};

use super::{Case, Expect};
use crate::kernel::{
    name::{CredentialName, RuleName},
    policy::{
        Decision, Denial, Permit, PolicySet,
        decide::{Tried, decide},
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
        (Decision::Permit(permit), Expect::Permit { rule, ttl_max }) => {
            other_rule(&permit, rule.as_ref()).or_else(|| longer(&permit, ttl_max))
        }
        (Decision::Permit(permit), Expect::Deny { .. }) => {
            let rule = permit.grants().first().map_or("a rule", |grant| grant.rule.as_str());
            let message = format!("a denial was expected, and `{rule}` permits it");
            Some(Fault::new(
                message,
                "narrow that rule, or expect permit if this job may have the credentials",
            ))
        }
        (Decision::Deny(denial), Expect::Permit { .. }) => {
            let message = format!("a permit was expected, and it is denied: {}", told(&denial));
            Some(Fault::new(
                message,
                "mend the fixture or the rule, or expect deny if this job must not have them",
            ))
        }
        (Decision::Deny(denial), Expect::Deny { failed, reason, rule }) => {
            other_reason(&denial, reason.as_deref())
                .or_else(|| other_failed(&denial, failed.as_ref(), rule.as_ref()))
        }
    }
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
    let rules: Vec<String> = rules.collect();
    if rules.is_empty() {
        denial.reason.to_owned()
    } else {
        format!("{}; {}", denial.reason, rules.join("; "))
    }
}

/// As files write it.
pub(super) fn length(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        seconds if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}
