//! The mutation score: how much of what a set demands its tests would miss.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Case, Suites, fences,
    mutants::{self, Around, Mutant},
    places::{Place, Places},
    reach, run,
    targets::{self, Elsewhere},
};
use crate::kernel::{
    identity::job::Trigger,
    name::{GrantName, RuleName},
    policy::{Decision, PolicySet, decide::decide, guardrail::Guardrail},
};

/// What came of weakening everything once.
pub struct Mutation {
    /// How many ways there were.
    pub weakened: usize,
    /// Those that no case noticed.
    pub survivors: Vec<Survivor>,
}

/// Something that could be taken away without any case failing.
pub struct Survivor {
    /// The file of what was weakened.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What was weakened.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Mutation {
    /// How many in a hundred were noticed, rounded down, so that 100 means all.
    pub fn score(&self) -> usize {
        let noticed = self.weakened.saturating_sub(self.survivors.len());
        noticed.saturating_mul(100).checked_div(self.weakened).unwrap_or(100)
    }
}

/// What no table of single requests can see, so that nothing here weakens it.
pub const OUTSIDE: &[&str] = &[
    "`description` and `owners` decide nothing; `disclose` only tells more",
    "whether `limits` hold is counted in the broker's database; here is seen that they are what the tests name",
    "which sealed secret, or which audience: another one is another target, and no weaker one",
    "`engine`, and the `lifetime` of `generic`: another one does something else at the same path; `reaches` can name the engine",
    "targets in guardrails of kinds that this version does not mint",
];

pub(super) fn score(suites: &mut Suites) -> Mutation {
    let mut mutation = grants(suites);
    guardrails(suites, &mut mutation);
    mutation
}

pub(super) fn grants(suites: &mut Suites) -> Mutation {
    let Suites { set, files, suites, .. } = suites;
    let mut mutation = Mutation { weakened: 0, survivors: Vec::new() };
    let mut cases: BTreeMap<&GrantName, Vec<&Case>> = BTreeMap::new();
    // What a supposed grant says is nobody's demand.
    for suite in suites.iter().filter(|suite| suite.given.is_none()) {
        cases.entry(&suite.grant).or_default().extend(&suite.cases);
    }
    for (name, cases) in cases {
        let Some(original) = set.grants.get(name).cloned() else { continue };
        let places = Places::of(files, &original.file);
        let triggers = triggers(&cases);
        let Some(any) = cases.first() else { continue };
        let permitted = permitted(set, &cases);
        let around = Around { set, places: &places, permitted: &permitted, any };
        let others = targets::of_grant(&original, &around);
        let mutants = mutants::of_grant(&original, &around);
        for Elsewhere { place, what, case, credential, target } in others {
            mutation.weakened += 1;
            if !permitted.iter().any(|(_, each)| reach::tells(each, &credential, &target)) {
                let remedy = format!("add the case {case}");
                mutation.survivors.push(survivor(&original.file, place, what, remedy));
            }
        }
        for mutant in mutants {
            mutation.weakened += 1;
            let Mutant { place, what, case, mut grant, named } = mutant;
            set.derive_grant(&mut grant);
            if let Some(rule) = named.and_then(|at| grant.rules.get_mut(at)) {
                rule.named_triggers.extend(triggers.iter().cloned());
            }
            set.grants.insert(name.clone(), grant);
            if !is_noticed(set, cases.iter().copied()) {
                let remedy = format!("add the case {case}");
                mutation.survivors.push(survivor(&original.file, place, what, remedy));
            }
        }
        set.grants.insert(name.clone(), original);
    }
    mutation
}

/// A guardrail is above all grants, so any case may notice. Everything is derived anew for each mutant: a class that
/// falls takes other guardrails with it.
fn guardrails(suites: &mut Suites, mutation: &mut Mutation) {
    let Suites { set, files, suites, .. } = suites;
    for at in 0..set.guardrails.len() {
        let Some(original) = set.guardrails.get(at).cloned() else { continue };
        let places = Places::of(files, &original.file);
        for weaker in fences::of_guardrail(&original, &places) {
            mutation.weakened += 1;
            let fences::Weaker { place, what, case, guardrail } = weaker;
            put(set, at, guardrail);
            if !is_noticed(set, suites.iter().flat_map(|suite| &suite.cases)) {
                let remedy = format!("add {case}; a test with a supposed grant (`given`) can show it");
                mutation.survivors.push(survivor(&original.file, place, what, remedy));
            }
        }
        put(set, at, original);
    }
}

fn put(set: &mut PolicySet, at: usize, guardrail: Guardrail) {
    if let Some(slot) = set.guardrails.get_mut(at) {
        *slot = guardrail;
    }
    set.derive();
}

fn is_noticed<'c>(set: &PolicySet, mut cases: impl Iterator<Item = &'c Case>) -> bool {
    cases.any(|case| run::fault(set, case).is_some())
}

fn survivor(file: &str, (line, column, _): Place, what: String, remedy: String) -> Survivor {
    Survivor { file: file.to_owned(), line, column, what, remedy }
}

/// The cases that are permitted, with the rule that does it; those that differ least from their fixtures first.
fn permitted<'c>(set: &PolicySet, cases: &[&'c Case]) -> Vec<(RuleName, &'c Case)> {
    let permits = cases.iter().filter_map(|case| match decide(set, &case.identity, &case.request, case.at) {
        Decision::Permit(permit) => Some((permit.grants().first()?.rule.clone(), *case)),
        Decision::Deny(_) => None,
    });
    let mut permits: Vec<(RuleName, &Case)> = permits.collect();
    permits.sort_by_key(|(_, case)| case.changes.set.len() + case.changes.remove.len());
    permits
}

/// Every word for a trigger that some case has: what a rule that named them all would name.
fn triggers(cases: &[&Case]) -> BTreeSet<String> {
    let words = cases.iter().flat_map(|case| {
        let dangerous = match case.identity.trigger() {
            Trigger::Dangerous(word) => Some(word),
            Trigger::Ordinary | Trigger::Unknown => None,
        };
        [dangerous, case.identity.trigger_word()]
    });
    words.flatten().map(str::to_owned).collect()
}
