//! Lints of grants and guardrails together.

use std::collections::BTreeSet;

use crate::kernel::policy::{
    class::Class,
    finding::Finding,
    guardrail::{Demand, Guardrail},
    set::{Credential, Grant, PolicySet},
};

pub(super) fn of_grant(set: &PolicySet, grant: &Grant, findings: &mut Vec<Finding>) {
    for (name, credential) in &grant.credentials {
        let applying = || credential.guardrails.iter().filter_map(|at| set.guardrails.get(*at));
        let cut = applying().flat_map(|guardrail| {
            guardrail
                .requirements
                .iter()
                .filter_map(move |each| Some((guardrail, each.demand.cuts(credential)?)))
        });
        if let Some((guardrail, most)) = cut.min_by_key(|(_, most)| *most) {
            let message = format!(
                "`{name}` never lives as long as it says here: the guardrail `{}` cuts it to {}s",
                guardrail.name,
                most.as_secs()
            );
            let remedy = format!("write ttl: {}s, or less", most.as_secs());
            findings.push(Finding::warning((&grant.file, credential.place), "ttl-cut", message, remedy));
        }
        // Where nobody classifies, everything is of production, and nobody wants to hear it of each target.
        let classifies = set.guardrails.iter().any(|guardrail| !guardrail.classify.is_empty());
        if classifies && !is_classified(set, credential) {
            let message =
                format!("no guardrail classifies what `{name}` reaches, so it counts as production");
            let remedy = "add it to `classify` of a guardrail, with the class that it deserves";
            findings.push(Finding::warning((&grant.file, credential.place), "unclassified", message, remedy));
        }
    }
}

fn is_classified(set: &PolicySet, credential: &Credential) -> bool {
    let mut entries = set.guardrails.iter().flat_map(|guardrail| &guardrail.classify);
    entries.any(|each| each.targets.has(&credential.target.0))
}

/// A guardrail that forbids triggers for targets of one kind while another kind reaches the same class without it.
pub(super) fn of_set(set: &PolicySet, findings: &mut Vec<Finding>) {
    for (at, guardrail) in set.guardrails.iter().enumerate() {
        let selects_kinds = guardrail.applies_to.targets.is_some() || guardrail.applies_to.backends.is_some();
        let Some(words) = forbidden(guardrail).filter(|_| selects_kinds) else { continue };
        let covered = || credentials(set).filter(|(_, each)| each.guardrails.contains(&at));
        let classes: BTreeSet<Class> = covered().map(|(_, each)| each.class).collect();
        let kinds: Vec<_> = covered().map(|(_, each)| each.target.0.kind()).collect();
        let around = credentials(set).find(|(_, each)| {
            classes.contains(&each.class)
                && !kinds.contains(&each.target.0.kind())
                && !is_forbidden(set, each, words)
        });
        let Some((grant, around)) = around else { continue };
        let message = format!(
            "what `{}` forbids here, the kind `{}` gets around: `{}` offers the same class without it",
            guardrail.name,
            around.target.0.kind().as_str(),
            grant.name
        );
        let remedy = "select by class instead of by target or backend, or forbid it for that kind too";
        findings.push(Finding::warning((&guardrail.file, guardrail.place), "forbid-gap", message, remedy));
    }
}

fn credentials(set: &PolicySet) -> impl Iterator<Item = (&Grant, &Credential)> {
    let grants = set.names.iter().filter_map(|name| set.grants.get(name));
    grants.flat_map(|grant| grant.credentials.values().map(move |credential| (grant, credential)))
}

fn forbidden(guardrail: &Guardrail) -> Option<&BTreeSet<String>> {
    guardrail.requirements.iter().find_map(|each| match &each.demand {
        Demand::ForbidTriggers(words) => Some(words),
        Demand::GrantNames(_)
        | Demand::Issuers(_)
        | Demand::Lifetimes(_)
        | Demand::MaxTtl(_)
        | Demand::PinnedProject
        | Demand::ProtectedRef
        | Demand::RunnerHosted
        | Demand::Targets(_) => None,
    })
}

/// Whether guardrails that apply to a credential forbid all of these together.
fn is_forbidden(set: &PolicySet, credential: &Credential, words: &BTreeSet<String>) -> bool {
    let applying = credential.guardrails.iter().filter_map(|at| set.guardrails.get(*at));
    let all: BTreeSet<&String> = applying.filter_map(forbidden).flatten().collect();
    words.iter().all(|word| all.contains(word))
}
