//! The mutation score: how much of what a set demands its tests would miss.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Case, Expect, Suites,
    mutants::{self, Around, Mutant},
    places::{Place, Places},
    run,
};
use crate::kernel::{identity::job::Trigger, name::GrantName, policy::PolicySet};

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
    "`limits` count over many requests, in the broker's database",
    "`description`, `owners` and `disclose` decide nothing",
];

pub(super) fn score(suites: &mut Suites) -> Mutation {
    grants(suites)
}

pub(super) fn grants(suites: &mut Suites) -> Mutation {
    let Suites { set, files, suites, .. } = suites;
    let mut mutation = Mutation { weakened: 0, survivors: Vec::new() };
    let mut cases: BTreeMap<&GrantName, Vec<&Case>> = BTreeMap::new();
    for suite in suites.iter() {
        cases.entry(&suite.grant).or_default().extend(&suite.cases);
    }
    for (name, cases) in cases {
        let Some(original) = set.grants.get(name).cloned() else { continue };
        let places = Places::of(files, &original.file);
        let triggers = triggers(&cases);
        let permitted = cases.iter().find(|case| matches!(case.expect, Expect::Permit { .. }));
        let Some(from) = permitted.or(cases.first()) else { continue };
        let around = Around { set, places: &places, from, triggers: &triggers };
        for mutant in mutants::of_grant(&original, &around) {
            mutation.weakened += 1;
            let Mutant { place, what, case, grant } = mutant;
            set.grants.insert(name.clone(), grant);
            if !is_noticed(set, &cases) {
                mutation.survivors.push(survivor(&original.file, place, what, &case));
            }
        }
        set.grants.insert(name.clone(), original);
    }
    mutation
}

fn is_noticed(set: &PolicySet, cases: &[&Case]) -> bool {
    cases.iter().any(|case| run::fault(set, case).is_some())
}

fn survivor(file: &str, (line, column, _): Place, what: String, case: &str) -> Survivor {
    Survivor { file: file.to_owned(), line, column, what, remedy: format!("add the case {case}") }
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
