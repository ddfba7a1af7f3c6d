//! What can be taken away from a guardrail: each demand, each word of a list that forbids, each kind of targets, each
//! thing that it speaks of, and that it denies at all.
//!
//! What no credential of this version could show is left out: targets of kinds that nothing mints yet.

use jiff::Timestamp;

use super::places::{Place, Places, Step};
use crate::kernel::policy::{
    class::Class,
    guardrail::{Allowed, Demand, Guardrail, Mode, Targets},
    target::Kind,
};

/// A guardrail with one thing weakened.
pub(super) struct Weaker {
    pub(super) place: Place,
    /// What was weakened, as a fact.
    pub(super) what: String,
    /// What a case that would notice shows.
    pub(super) case: String,
    pub(super) guardrail: Guardrail,
}

/// Every mutant of a guardrail.
pub(super) fn of_guardrail(original: &Guardrail, places: &Places) -> Vec<Weaker> {
    let mut all = Weakenings { original, places, list: Vec::new() };
    all.demands();
    all.selectors();
    all.classes();
    all.mode();
    all.list
}

struct Weakenings<'a> {
    original: &'a Guardrail,
    places: &'a Places,
    list: Vec<Weaker>,
}

impl Weakenings<'_> {
    fn push(
        &mut self,
        steps: &[Step<'_>],
        what: &str,
        case: impl Into<String>,
        weaken: impl FnOnce(&mut Guardrail),
    ) {
        let mut guardrail = self.original.clone();
        weaken(&mut guardrail);
        let what = format!("the guardrail `{}` {what}", self.original.name);
        self.list.push(Weaker { place: self.places.key(steps), what, case: case.into(), guardrail });
    }

    fn demands(&mut self) {
        let original = self.original;
        for (at, requirement) in original.requirements.iter().enumerate() {
            let demand = &requirement.demand;
            let word = demand.word();
            let steps: Vec<Step<'_>> = word.split('.').map(Step::from).collect();
            let case = self.refused(word);
            self.push(&steps, &format!("without {word}"), case.clone(), |weaker| {
                weaker.requirements.remove(at);
            });
            match demand {
                Demand::ForbidTriggers(words) if words.len() > 1 => {
                    for each in words {
                        let what = format!("without {each} in {word}");
                        self.push(&steps, &what, case.clone(), |weaker| {
                            if let Some(Demand::ForbidTriggers(words)) = demand_at(weaker, at) {
                                words.remove(each);
                            }
                        });
                    }
                }
                Demand::Targets(targets) => self.targets(at, targets, &case),
                Demand::ForbidTriggers(_)
                | Demand::GrantNames(_)
                | Demand::Issuers(_)
                | Demand::Lifetimes(_)
                | Demand::MaxTtl(_)
                | Demand::PinnedProject
                | Demand::ProtectedRef
                | Demand::RunnerHosted => {}
            }
        }
    }

    fn targets(&mut self, at: usize, targets: &Targets, case: &str) {
        for kind in Kind::ALL.map(Kind::as_str) {
            let is_open = matches!(targets.0.get(kind), Some(Allowed::Any));
            if is_open {
                continue;
            }
            self.push(
                &["targets".into(), kind.into()],
                &format!("with any {kind} in targets"),
                case,
                |weaker| {
                    if let Some(Demand::Targets(targets)) = demand_at(weaker, at) {
                        targets.0.insert(kind, Allowed::Any);
                    }
                },
            );
        }
    }

    /// A list of which one is left out: what that one stood for is fenced no more. Without its last it would fence
    /// nothing, as where it does not deny at all.
    fn selectors(&mut self) {
        let selector = &self.original.applies_to;
        let many = |count: usize| if count > 1 { 0..count } else { 0..0 };
        let what = "not speaking of one of those that it names";
        let case = self.refused("…");
        for at in many(selector.classes.as_ref().map_or(0, Vec::len)) {
            self.push(&["applies_to".into(), "class".into(), at.into()], what, case.clone(), |weaker| {
                remove(&mut weaker.applies_to.classes, at);
            });
        }
        for at in many(selector.folders.as_ref().map_or(0, Vec::len)) {
            self.push(&["applies_to".into(), "folder".into(), at.into()], what, case.clone(), |weaker| {
                remove(&mut weaker.applies_to.folders, at);
            });
        }
        for at in many(selector.issuers.as_ref().map_or(0, Vec::len)) {
            self.push(&["applies_to".into(), "issuer".into(), at.into()], what, case.clone(), |weaker| {
                remove(&mut weaker.applies_to.issuers, at);
            });
        }
    }

    fn classes(&mut self) {
        let original = self.original;
        for (at, entry) in original.classify.iter().enumerate() {
            if !Kind::ALL.iter().any(|kind| entry.targets.0.contains_key(kind.as_str())) {
                continue;
            }
            let steps = ["classify".into(), at.into()];
            let case =
                format!("a permit with `class: {}` of a grant with such a target", entry.class.as_str());
            // What nothing classifies is production, so without such an entry its targets are what they were.
            if entry.class != Class::Production {
                self.push(&steps, "without one of its classes", case.clone(), |weaker| {
                    weaker.classify.remove(at);
                });
            }
            if entry.class > Class::Read {
                self.push(&steps, "that lowers one of its classes to read", case, |weaker| {
                    if let Some(entry) = weaker.classify.get_mut(at) {
                        entry.class = Class::Read;
                    }
                });
            }
        }
    }

    fn mode(&mut self) {
        let limits = !self.original.requirements.is_empty();
        match self.original.mode {
            Mode::Enforce if limits => {
                let case = self.refused("…");
                self.push(&["guardrail".into()], "that denies nothing any more", case, |weaker| {
                    weaker.mode = Mode::Report { until: jiff::civil::Date::MAX, ends_at: Timestamp::MAX };
                });
            }
            Mode::Report { until, ends_at } if limits => {
                let case = format!("{}, with `at: \"{ends_at}\"`", self.refused("…"));
                self.push(&["report_until".into()], "that reports for ever", case, |weaker| {
                    weaker.mode = Mode::Report { until, ends_at: Timestamp::MAX };
                });
            }
            Mode::Enforce | Mode::Report { .. } => {}
        }
    }

    fn refused(&self, word: &str) -> String {
        format!("a denial with `guardrails: {{ {}: [{word}] }}`", self.original.name)
    }
}

fn demand_at(guardrail: &mut Guardrail, at: usize) -> Option<&mut Demand> {
    guardrail.requirements.get_mut(at).map(|requirement| &mut requirement.demand)
}

fn remove<T>(list: &mut Option<Vec<T>>, at: usize) {
    if let Some(list) = list.as_mut().filter(|list| at < list.len()) {
        list.remove(at);
    }
}
