//! What a set offers and its own guardrails refuse, as far as files alone can tell. A breach is no error of the set,
//! since one team's slip must not block all others; it denies at the exchange, and `policy check` ends with 23.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    finding::{Finding, Place},
    guardrail::{Demand, Guardrail, can_honour, fits_name},
    set::{Credential, Grant, PolicySet, Rule},
    template::is_template,
};
use crate::kernel::identity::profile::Profile;

/// Every breach that is certain: sorted by file and place; a warning where the guardrail only reports, or where it
/// merely cuts.
///
/// Known hole: what depends on the token (its ref, its runner, its trigger) is told only where no token of the
/// issuer's profile, or none that the rule lets in, could satisfy it.
pub fn breaches(set: &PolicySet, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    for grant in set.names.iter().filter_map(|name| set.grants.get(name)) {
        for credential in grant.credentials.values() {
            for guardrail in credential.guardrails.iter().filter_map(|at| set.guardrails.get(*at)) {
                for rule in &grant.rules {
                    let Some(issuer) = set.issuers.get(&rule.issuer) else { continue };
                    if guardrail.applies_to.fits_issuer(&rule.issuer) {
                        let offer = Offer { grant, credential, rule, profile: issuer.trusted.profile };
                        offer.look(guardrail, now, &mut found);
                    }
                }
            }
        }
    }
    let key =
        |finding: &Finding| (finding.file.clone(), finding.line, finding.column, finding.message.clone());
    found.sort_by_cached_key(key);
    // What is a fault of a credential, each rule has told.
    found.dedup();
    found
}

struct Offer<'a> {
    grant: &'a Grant,
    credential: &'a Credential,
    rule: &'a Rule,
    profile: &'static Profile,
}

impl Offer<'_> {
    fn look(&self, guardrail: &Guardrail, now: Timestamp, found: &mut Vec<Finding>) {
        for requirement in &guardrail.requirements {
            let demand = &requirement.demand;
            let Some(fault) = self.fault(demand) else { continue };
            let message = format!(
                "the guardrail `{}` ({}:{}) refuses this: {} {demand}, and {}",
                guardrail.name,
                guardrail.file,
                requirement.place.line,
                demand.word(),
                fault.what
            );
            let at = (&*self.grant.file, fault.place);
            let finding = if guardrail.is_enforced(now) && !fault.is_cut {
                Finding::error(at, "guardrail", message, fault.remedy)
            } else {
                Finding::warning(at, "guardrail", message, fault.remedy)
            };
            found.push(finding);
        }
    }

    fn fault(&self, demand: &Demand) -> Option<Fault> {
        let Self { grant, credential, rule, profile } = self;
        let target = &credential.target.0;
        let at =
            |place: Place, what: String, remedy: &'static str| Fault { place, what, remedy, is_cut: false };
        match demand {
            Demand::ForbidTriggers(words) => self
                .forbidden(words)
                .map(|(place, what)| at(place, what, "leave the trigger out, or have the guardrail changed")),
            Demand::GrantNames(names) => (!fits_name(grant, names))
                .then(|| at(grant.place, "the grant's name fits none".to_owned(), "rename the grant")),
            Demand::Issuers(issuers) => (!issuers.contains(&rule.issuer)).then(|| {
                at(rule.place, format!("the rule takes tokens of `{}`", rule.issuer), "remove the rule")
            }),
            Demand::Lifetimes(lifetimes) => {
                let lifetime = target.lifetime();
                (!lifetimes.contains(&lifetime)).then(|| {
                    let what = format!("a `{}` credential is {lifetime}", target.kind().as_str());
                    at(credential.place, what, "use a kind whose credentials live so")
                })
            }
            Demand::MaxTtl(most) if !can_honour(credential, *most) => {
                let what = format!("no `{}` credential can live for so short a time", target.kind().as_str());
                Some(at(credential.place, what, "use another kind, or have the guardrail changed"))
            }
            Demand::MaxTtl(_) => demand.cuts(credential).map(|most| Fault {
                is_cut: true,
                ..at(
                    credential.place,
                    format!("the ttl is cut to {}s", most.as_secs()),
                    "write the shorter ttl",
                )
            }),
            Demand::PinnedProject => (!rule.pins_project).then(|| {
                let what = match profile.project {
                    Some((claim, _)) => format!("the rule does not name `{claim}` by literals"),
                    None => format!("tokens of `{}` name no project", rule.issuer),
                };
                at(rule.place, what, "name the project by its immutable id in this rule")
            }),
            Demand::ProtectedRef => profile.view.ref_protected.is_none().then(|| {
                let what = format!("tokens of `{}` do not say whether a ref is protected", rule.issuer);
                at(rule.place, what, "remove the rule, or have the guardrail changed")
            }),
            Demand::RunnerHosted => profile.view.hosted.is_none().then(|| {
                let what = format!("tokens of `{}` do not say who runs the machine", rule.issuer);
                at(rule.place, what, "remove the rule, or have the guardrail changed")
            }),
            Demand::Targets(targets) => (!targets.has(target)).then(|| {
                let (target_text, kind) = (target.as_str(), target.kind().as_str());
                let is_template = credential.target.is_open() && is_template(target_text);
                if is_template && targets.may_have(target) {
                    let what = format!("`{target_text}` of kind {kind} could reach outside of them");
                    let remedy = "narrow the template; a job whose claims lead outside is denied";
                    return Fault { is_cut: true, ..at(credential.place, what, remedy) };
                }
                let what = format!("`{target_text}` of kind {kind} is none of them");
                at(credential.place, what, "remove the credential, or have the guardrail list its target")
            }),
        }
    }

    /// Where the rule says that only forbidden triggers, or also one of them, let in.
    fn forbidden(&self, words: &BTreeSet<String>) -> Option<(Place, String)> {
        let named = self.rule.named_triggers.iter().find(|word| words.contains(*word));
        let danger = self.profile.dangers.iter().find(|danger| named.is_some_and(|word| word == danger.word));
        let claim = danger.map(|danger| danger.claim).or(self.profile.view.trigger);
        let condition = self.rule.conditions.iter().find(|condition| Some(condition.claim.as_str()) == claim);
        match (condition, named) {
            (Some(condition), Some(word)) => Some((condition.place, format!("the rule names `{word}`"))),
            (_, None) if claim.is_none() && self.profile.open => {
                let what = format!("tokens of `{}` do not say what set a job off", self.rule.issuer);
                Some((self.rule.place, what))
            }
            (None, _) | (Some(_), None) => None,
        }
    }
}

struct Fault {
    place: Place,
    what: String,
    remedy: &'static str,
    /// Whether it is told as a warning: what is left still permits.
    is_cut: bool,
}

#[cfg(test)]
mod tests;
