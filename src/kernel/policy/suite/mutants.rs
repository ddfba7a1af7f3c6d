//! What can be taken away from a grant: each condition, each bound, one at a time. Every mutant is weaker than the
//! original or equal to it; those that could only be equal are not made, since no test could notice them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    Case, Changes, neighbour,
    places::{Place, Places, Step},
    run::length,
    write::{changes, scalar},
};
use crate::kernel::{
    name::{CredentialName, RuleName},
    policy::{
        PolicySet,
        matcher::{Condition, Glob, Matcher},
        set::{Grant, LimitScope, Limits, Rule},
        window::Window,
    },
};

/// A grant with one thing weakened.
pub(super) struct Mutant {
    pub(super) place: Place,
    /// What was weakened, as a fact.
    pub(super) what: String,
    /// The case that would notice.
    pub(super) case: String,
    pub(super) grant: Grant,
    /// The rule that is to name every trigger, by its place; what it names is derived, so that comes last.
    pub(super) named: Option<usize>,
}

/// What making mutants needs to know beside the grant.
pub(super) struct Around<'a> {
    pub(super) set: &'a PolicySet,
    pub(super) places: &'a Places,
    /// Cases that are permitted, each with the rule that does; the ones closest to their fixtures first.
    pub(super) permitted: &'a [(RuleName, &'a Case)],
    /// Some case, where none is.
    pub(super) any: &'a Case,
}

impl Around<'_> {
    /// The case to begin from, for changing one thing.
    pub(super) fn from(&self, rule: Option<&Rule>) -> &Case {
        let is_of = |(name, _): &&(RuleName, &Case)| rule.is_none_or(|rule| rule.name == *name);
        self.permitted.iter().find(is_of).map_or(self.any, |(_, case)| case)
    }

    /// A moment within a week of the permitted case at which a window is shut.
    fn shut(&self, rule: &Rule, window: &Window) -> Option<Timestamp> {
        let from = self.from(Some(rule)).at;
        let hours = (1..=168).filter_map(|hours| from.checked_add(SignedDuration::from_hours(hours)).ok());
        hours.into_iter().find(|at| !window.is_open(*at))
    }
}

/// Whether a condition names the only trigger that is ordinary in its profile: without it all others are denied too.
fn is_the_profiles_word(rule: &Rule, condition: &Condition, around: &Around<'_>) -> bool {
    let Some(issuer) = around.set.issuers.get(&rule.issuer) else { return false };
    let profile = issuer.trusted.profile;
    let [word] = profile.ordinary else { return false };
    profile.view.trigger == Some(condition.claim.as_str())
        && condition.matcher.is_literal()
        && condition.matcher.literals().into_iter().all(|literal| literal.as_str() == Some(word))
}

/// Every mutant of a grant but those of what it reaches, which [`super::targets`] has.
pub(super) fn of_grant(grant: &Grant, around: &Around<'_>) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for (at, rule) in grant.rules.iter().enumerate() {
        for (number, condition) in rule.conditions.iter().enumerate() {
            if is_the_profiles_word(rule, condition, around) {
                continue;
            }
            of_condition(grant, (at, number), condition, around, &mut mutants);
        }
        mutants.extend(of_window(grant, at, rule, around));
        mutants.extend(of_triggers(grant, at, rule, around));
    }
    mutants.extend(of_time(grant, around));
    // What only a permit shows, nobody sees of a grant that is switched off.
    if grant.enabled {
        mutants.extend(of_ttls(grant, around));
        mutants.extend(of_class(grant, around));
        mutants.extend(of_limits(grant, around));
    }
    mutants
}

fn of_condition(
    grant: &Grant,
    (at, number): (usize, usize),
    condition: &Condition,
    around: &Around<'_>,
    mutants: &mut Vec<Mutant>,
) {
    let Some(own) = grant.rules.get(at) else { return };
    let (claim, rule) = (condition.claim.as_str(), &own.name);
    let place = around.places.key(&["allow".into(), at.into(), "match".into(), claim.into()]);
    let from = &around.from(Some(own)).identity;
    let change = match &condition.matcher {
        Matcher::Present(true) => Changes { remove: vec![claim.to_owned()], ..Changes::default() },
        Matcher::Present(false) => {
            Changes { set: vec![(claim.to_owned(), Value::from("something"))], ..Changes::default() }
        }
        Matcher::AnyOf(_) | Matcher::Equals(_) | Matcher::Glob(_) | Matcher::Not(_) => {
            let refused = refused(&condition.matcher);
            let whose = (from.issuer(), from.profile());
            let set = neighbour::changes(whose, from.claims(), claim, &refused);
            Changes { set, ..Changes::default() }
        }
    };
    let case = deny(around, Some(own), change, &format!("failed: [{}]", scalar(claim)));
    let mut push = |what: String, weaken: &dyn Fn(&mut Vec<Condition>)| {
        let mut weaker = grant.clone();
        if let Some(rule) = weaker.rules.get_mut(at) {
            weaken(&mut rule.conditions);
        }
        mutants.push(Mutant { place, what, case: case.clone(), grant: weaker, named: None });
    };
    push(format!("rule `{rule}` without its condition on `{claim}`"), &|conditions| {
        if number < conditions.len() {
            conditions.remove(number);
        }
    });
    if !matches!(condition.matcher, Matcher::Present(_)) {
        push(format!("rule `{rule}` with any `{claim}` that is there"), &|conditions| {
            if let Some(condition) = conditions.get_mut(number) {
                condition.matcher = Matcher::Present(true);
            }
        });
    }
}

/// Where no condition says which triggers are meant, what keeps the dangerous ones out is that the rule does not name
/// them. A rule that lists its triggers is guarded by that condition, which is weakened by itself.
fn of_triggers(grant: &Grant, at: usize, rule: &Rule, around: &Around<'_>) -> Option<Mutant> {
    let claim = around.set.issuers.get(&rule.issuer)?.trusted.profile.view.trigger?;
    if rule.conditions.iter().any(|each| each.claim == claim && each.matcher.is_literal()) {
        return None;
    }
    Some(Mutant {
        named: Some(at),
        place: around.places.key(&["allow".into(), at.into()]),
        what: format!("rule `{}` with every trigger, the dangerous ones too", rule.name),
        case: deny(
            around,
            Some(rule),
            Changes { set: vec![(claim.to_owned(), Value::from("some-new-trigger"))], ..Changes::default() },
            "reason: trigger",
        ),
        grant: grant.clone(),
    })
}

fn of_window(grant: &Grant, at: usize, rule: &Rule, around: &Around<'_>) -> Option<Mutant> {
    let window = rule.window.as_ref()?;
    let mut weaker = grant.clone();
    weaker.rules.get_mut(at)?.window = None;
    let shut = Changes { at: around.shut(rule, window), ..Changes::default() };
    Some(Mutant {
        place: around.places.key(&["allow".into(), at.into(), "window".into()]),
        what: format!("rule `{}` at any time", rule.name),
        case: deny(around, Some(rule), shut, "failed: [window]"),
        grant: weaker,
        named: None,
    })
}

fn of_class(grant: &Grant, around: &Around<'_>) -> Option<Mutant> {
    grant.own_class?;
    let mut weaker = grant.clone();
    weaker.own_class = None;
    around.set.derive_grant(&mut weaker);
    // A class that its targets have anyway says nothing that could go.
    if weaker.class == grant.class {
        return None;
    }
    let case = permit(around, &format!("class: {}", grant.class.as_str()));
    let place = around.places.key(&["class".into()]);
    Some(Mutant {
        place,
        what: "the grant without its own class".to_owned(),
        case,
        grant: weaker,
        named: None,
    })
}

fn of_limits(grant: &Grant, around: &Around<'_>) -> Vec<Mutant> {
    let limits = grant.limits;
    let mut mutants = Vec::new();
    let mut push = |key: &str, due: String, weaken: &dyn Fn(&mut Limits)| {
        let mut weaker = grant.clone();
        weaken(&mut weaker.limits);
        let place = around.places.key(&["limits".into(), key.into()]);
        let case = permit(around, &format!("limits: {{ {key}: {due} }}"));
        let what = format!("the grant without its limit `{key}`");
        mutants.push(Mutant { place, what, case, grant: weaker, named: None });
    };
    if let Some(most) = limits.issuances_per_hour {
        push("issuances_per_hour", most.to_string(), &|limits| limits.issuances_per_hour = None);
    }
    if let Some(most) = limits.live {
        push("live", most.to_string(), &|limits| limits.live = None);
    }
    if limits.uses_per_token > 1 {
        let uses = limits.uses_per_token;
        push("uses_per_token", uses.to_string(), &|limits| limits.uses_per_token = uses.saturating_add(1));
    }
    if limits.per == LimitScope::Project {
        push("per", "project".to_owned(), &|limits| limits.per = LimitScope::Grant);
    }
    mutants
}

/// The case that it begins from, with something more due.
pub(super) fn permit(around: &Around<'_>, due: &str) -> String {
    let from = around.from(None);
    format!("{{ name: …, use: {}, {}expect: permit, {due} }}", scalar(&from.fixture), changes(&from.changes))
}

fn of_time(grant: &Grant, around: &Around<'_>) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    let mut push = |key: &str, what: &str, case: String, weaken: &dyn Fn(&mut Grant)| {
        let mut weaker = grant.clone();
        weaken(&mut weaker);
        let place = around.places.key(&[Step::from(key)]);
        mutants.push(Mutant { place, what: what.to_owned(), case, grant: weaker, named: None });
    };
    if let Some(end) = grant.lapses_at {
        let case = deny(around, None, Changes { at: Some(end), ..Changes::default() }, "reason: lapsed");
        push("valid_until", "the grant without its last day", case, &|grant| grant.lapses_at = None);
    }
    if !grant.enabled {
        let case = deny(around, None, Changes::default(), "reason: disabled");
        push("enabled", "the grant switched on", case, &|grant| grant.enabled = true);
    }
    mutants
}

fn of_ttls(grant: &Grant, around: &Around<'_>) -> Vec<Mutant> {
    let mutant = |(name, ttl): (&CredentialName, Duration)| {
        let mut weaker = grant.clone();
        weaker.credentials.get_mut(name)?.ttl = Some(ttl.saturating_add(Duration::from_secs(1)));
        let place = around.places.key(&["credentials".into(), name.as_str().into(), "ttl".into()]);
        let case = permit(around, &format!("ttl_max: {{ {name}: {} }}", length(ttl)));
        Some(Mutant {
            place,
            what: format!("`{name}` living for longer than {}", length(ttl)),
            case,
            grant: weaker,
            named: None,
        })
    };
    let lives = grant.credentials.iter().filter_map(|(name, credential)| Some((name, credential.ttl?)));
    lives.filter_map(mutant).collect()
}

/// A case that differs from a permitted one by a change. Where there are several rules it names the one that is meant.
fn deny(around: &Around<'_>, rule: Option<&Rule>, change: Changes, due: &str) -> String {
    let from = around.from(rule);
    let mut all = from.changes.clone();
    all.set.retain(|(claim, _)| {
        !change.set.iter().any(|(other, _)| other == claim) && !change.remove.contains(claim)
    });
    all.remove.retain(|claim| !change.set.iter().any(|(other, _)| other == claim));
    all.set.extend(change.set);
    all.remove.extend(change.remove);
    all.at = change.at.or(all.at);
    let rule = rule.map_or_else(String::new, |rule| format!(", rule: {}", rule.name));
    format!("{{ name: …, use: {}, {}expect: deny, {due}{rule} }}", scalar(&from.fixture), changes(&all))
}

/// A value that the matcher does not take.
fn refused(matcher: &Matcher) -> Value {
    match matcher {
        Matcher::AnyOf(any) => any.first().map_or_else(|| Value::from("other"), refused),
        Matcher::Equals(value) => neighbour::other(value),
        Matcher::Glob(glob) => {
            let text = if glob.matches("other", false) { "other/other" } else { "other" };
            Value::from(text)
        }
        Matcher::Not(inner) => taken(inner),
        Matcher::Present(_) => Value::from("other"),
    }
}

/// A value that the matcher takes.
fn taken(matcher: &Matcher) -> Value {
    match matcher {
        Matcher::AnyOf(any) => any.first().map_or_else(|| Value::from("other"), taken),
        Matcher::Equals(value) => value.clone(),
        Matcher::Glob(glob) => Value::from(Glob::as_str(glob).replace('*', "x")),
        Matcher::Not(_) | Matcher::Present(_) => Value::from("other"),
    }
}
