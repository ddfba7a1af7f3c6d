//! Lints: what loads, and is probably not meant. Each is a warning with its place and the fix; none changes what the
//! set permits. They judge a loaded set, so they see exactly what the broker will see.

mod claims;
mod guardrails;
mod shadow;

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
}

/// A rule in its surroundings.
struct Subject<'a> {
    grant: &'a Grant,
    rule: &'a Rule,
    profile: &'static Profile,
}

#[cfg(test)]
mod tests;
