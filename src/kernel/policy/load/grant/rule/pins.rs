//! What each rule must name, so that it speaks of somebody: the tenant where an issuer is shared, something that is
//! never given to another, and what the profile demands besides (attack classes F-01, F-06, F-07).

use crate::kernel::{
    identity::profile::{Demand, DemandedBy},
    policy::{
        matcher::{Condition, Matcher},
        set::TrustedIssuer,
        yaml::{Findings, Node},
    },
};

pub(super) fn judge(
    findings: &mut Findings<'_>,
    node: &Node,
    issuer: &TrustedIssuer,
    conditions: &[Condition],
) {
    let profile = issuer.profile;
    let is_named = |names: &[&str]| {
        conditions
            .iter()
            .any(|condition| names.contains(&condition.claim.as_str()) && condition.matcher.is_literal())
    };
    let add = |names: &[&str]| format!("add {}: \"…\"", names.join(" or "));
    if (profile.is_shared)(&issuer.url) && !is_named(profile.tenant_pins) {
        let message =
            "everybody's tokens come from this issuer, so a rule without its tenant would let strangers in";
        findings.at(node, "tenant-pin", message, add(profile.tenant_pins));
    } else if !profile.anchors.is_empty() && !is_named(profile.anchors) {
        let message = format!("a rule of the profile `{}` must say exactly whom it means", profile.name);
        findings.at(node, "must-name", message, add(profile.anchors));
    }
    for demand in profile.demands.iter().filter(|demand| !is_met(demand, conditions)) {
        let (claim, why) = (demand.claim, demand.why);
        let message =
            format!("a rule of the profile `{}` must say which `{claim}` it means: {why}", profile.name);
        findings.at(node, "must-name", message, format!("add \"{claim}\": \"…\""));
    }
}

fn is_met(demand: &Demand, conditions: &[Condition]) -> bool {
    conditions.iter().filter(|condition| condition.claim == demand.claim).any(|condition| match demand.by {
        DemandedBy::Literals => condition.matcher.is_literal(),
        DemandedBy::Match => narrows(&condition.matcher),
    })
}

/// Whether only values that are spelt or patterned satisfy it: not absence, and not all but a few.
fn narrows(matcher: &Matcher) -> bool {
    match matcher {
        Matcher::AnyOf(any) => any.iter().all(narrows),
        Matcher::Equals(_) | Matcher::Glob(_) => true,
        Matcher::Not(_) | Matcher::Present(_) => false,
    }
}
