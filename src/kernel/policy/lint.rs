//! Lints: what loads, and is probably not meant. Each is a warning with its place and the fix; none changes what the
//! set permits. They judge a loaded set, so they see exactly what the broker will see.

mod claims;
mod guardrails;
mod shadow;
mod targets;

use jiff::Timestamp;

use super::{
    finding::Finding,
    set::{Grant, PolicySet, Rule},
};
use crate::kernel::identity::profile::Profile;

/// Every warning, sorted by place. `now` tells what has lapsed.
pub fn lint(set: &PolicySet, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for grant in set.names.iter().filter_map(|name| set.grants.get(name)) {
        of_grant(set, grant, now, &mut findings);
    }
    guardrails::of_set(set, &mut findings);
    findings.sort_by(|left, right| {
        (&left.file, left.line, left.column, left.code).cmp(&(
            &right.file,
            right.line,
            right.column,
            right.code,
        ))
    });
    findings
}

fn of_grant(set: &PolicySet, grant: &Grant, now: Timestamp, findings: &mut Vec<Finding>) {
    if grant.lapses_at.is_some_and(|end| now >= end) {
        let message = format!("nobody can get `{}` any more: its last day is over", grant.name);
        findings.push(Finding::warning(
            (&grant.file, grant.place),
            "lapsed",
            message,
            "remove the grant, or set a later valid_until",
        ));
    }
    for (at, rule) in grant.rules.iter().enumerate() {
        let Some(issuer) = set.issuers.get(&rule.issuer) else { continue };
        let subject = Subject { grant, rule, profile: issuer.trusted.profile };
        claims::of_rule(&subject, findings);
        findings.extend(shadow::of_rule(&subject, grant.rules.get(..at).unwrap_or_default()));
    }
    guardrails::of_grant(set, grant, findings);
    targets::of_grant(grant, findings);
}

/// The codes of lints with their meaning; sorted. `secret-missing` is told by who knows a store.
pub const LINT_CODES: &[(&str, &str)] = &[
    ("administrator", "an SSH certificate for an administrator's account"),
    ("attacker-claim", "a condition on a text that whoever writes a job or opens a change can choose"),
    ("certificate-wide", "a certificate for every name below a domain"),
    ("field-shown", "a field that is called like a secret and declared as none"),
    (
        "forbid-gap",
        "what a guardrail forbids for one kind of target, and another kind of the same class gets around",
    ),
    ("glob-wide", "a pattern that matches what other organisations own, or everything"),
    ("lapsed", "a grant whose last day is over"),
    ("mutable-workflow", "a definition on a branch, which moves with every push"),
    ("name-without-id", "a name that others can take, without the id that they cannot"),
    ("never", "a value that no token of the profile has"),
    ("secret-missing", "a sealed secret that nobody has set"),
    ("session-wide", "a session policy that narrows nothing"),
    ("shadowed", "a rule behind a wider one of its grant"),
    ("sub-old-form", "GitHub's form of `sub` that newer repositories never send"),
    ("ttl-cut", "a time to live that a guardrail cuts"),
    ("ttl-irrevocable", "more than an hour of what nobody can revoke"),
    ("unclassified", "a target that no guardrail classifies, where some classify"),
    ("vault-door", "a path that is Vault's own where there are namespaces"),
];

/// A rule in its surroundings.
struct Subject<'a> {
    grant: &'a Grant,
    rule: &'a Rule,
    profile: &'static Profile,
}

#[cfg(test)]
mod tests;
