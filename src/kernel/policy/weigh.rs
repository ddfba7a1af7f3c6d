//! The one evaluator: weighs a grant against a job, to the end, whatever was found on the way, and says of every
//! condition and every demand whether it held. [`decide`](super::decide) takes the verdict from it and
//! [`explain`](super::explain) the whole tree, so the two cannot disagree. It makes no texts, which is most of what an
//! explanation costs.

use jiff::Timestamp;

use super::{
    decide::GrantRequest,
    guardrail::{Case, Demand, Guardrail, Requirement},
    set::{Credential, Grant, PolicySet, Rule},
};
use crate::kernel::{
    identity::{JobIdentity, job::Trigger},
    name::CredentialName,
};

/// A grant, weighed.
pub(super) struct Weighed<'a> {
    pub(super) grant: &'a Grant,
    /// Why nobody may use it now, where that is so.
    pub(super) shut: Option<&'static str>,
    /// Every rule, in the order of the grant.
    pub(super) rules: Vec<WeighedRule<'a>>,
    /// The credentials asked for that the grant has, in the order of their names.
    pub(super) credentials: Vec<(&'a CredentialName, &'a Credential)>,
    /// Whether the grant has all that was asked for, and at least one.
    pub(super) has_all: bool,
    /// Every demand of every guardrail that applies to one of these credentials.
    pub(super) checks: Vec<Check<'a>>,
    /// The rule that lets the job in, or why none does.
    pub(super) verdict: Result<&'a Rule, &'static str>,
}

/// A rule, weighed.
pub(super) struct WeighedRule<'a> {
    pub(super) rule: &'a Rule,
    /// Whether the token is of its issuer; if not, nothing else was looked at and nothing held.
    pub(super) is_issuer: bool,
    /// Of each condition, whether it held.
    pub(super) conditions: Vec<bool>,
    /// Whether it lets this trigger in.
    pub(super) allows_trigger: bool,
    /// Whether its window is open, or it has none.
    pub(super) is_open: bool,
}

/// One demand of a guardrail on one credential.
#[derive(Clone, Copy)]
pub(super) struct Check<'a> {
    pub(super) guardrail: &'a Guardrail,
    pub(super) requirement: &'a Requirement,
    pub(super) credential: (&'a CredentialName, &'a Credential),
    /// Whether a breach denies now.
    pub(super) is_enforced: bool,
    /// Whether it held; `None` where that depends on the rule.
    held: Option<bool>,
}

impl<'a> Weighed<'a> {
    /// Weighs a grant. Nothing is skipped, so that the time taken says little of what was found (promise P8).
    pub(super) fn new(
        set: &'a PolicySet,
        grant: &'a Grant,
        identity: &JobIdentity,
        asked: &GrantRequest,
        now: Timestamp,
    ) -> Self {
        let rules: Vec<WeighedRule<'a>> =
            grant.rules.iter().map(|rule| WeighedRule::new(rule, identity, now)).collect();
        let (credentials, has_all) = choose(grant, asked);
        let checks = checks(set, grant, &credentials, identity, now);
        let mut weighed = Self {
            grant,
            shut: shut(grant, now),
            rules,
            credentials,
            has_all,
            checks,
            verdict: Err(NO_RULE),
        };
        weighed.verdict = weighed.judge();
        weighed
    }

    fn judge(&self) -> Result<&'a Rule, &'static str> {
        let rule = self.rule();
        if let Some(reason) = self.shut {
            return Err(reason);
        }
        let rule = rule?;
        if !self.has_all {
            return Err("no-such-credential");
        }
        if self.credentials.iter().any(|(_, credential)| credential.target.is_open()) {
            return Err(TEMPLATE);
        }
        if self.breaches(rule).next().is_some() {
            return Err(GUARDRAIL);
        }
        Ok(rule)
    }

    /// The first rule that holds and that guardrails take, else the first that holds. What a guardrail says of rules
    /// it says of each: one that breaches does not spoil another.
    pub(super) fn rule(&self) -> Result<&'a Rule, &'static str> {
        let must_pin = self
            .checks
            .iter()
            .any(|check| check.is_enforced && matches!(check.requirement.demand, Demand::PinnedProject));
        let mut holding = self.rules.iter().filter(|rule| rule.holds()).map(|each| each.rule);
        let first = holding.next();
        match first {
            Some(rule) if must_pin && !rule.pins_project => {
                Ok(holding.find(|rule| rule.pins_project).unwrap_or(rule))
            }
            Some(rule) => Ok(rule),
            None if self.rules.iter().any(WeighedRule::lacks_window_only) => Err("window"),
            None if self.rules.iter().any(WeighedRule::lacks_trigger_only) => Err("trigger"),
            None => Err(NO_RULE),
        }
    }

    /// The breaches that deny.
    pub(super) fn breaches(&self, rule: &'a Rule) -> impl Iterator<Item = &Check<'a>> {
        self.checks.iter().filter(move |check| check.is_enforced && !check.held(rule))
    }

    /// What guardrails that only report would have denied or cut.
    pub(super) fn reported(&self, rule: &'a Rule) -> impl Iterator<Item = &Check<'a>> {
        self.checks.iter().filter(move |check| {
            let cuts = || check.requirement.demand.cuts(check.credential.1).is_some();
            !check.is_enforced && (!check.held(rule) || cuts())
        })
    }

    /// A credential's TTL: the policy's, cut by guardrails; `None` where static.
    pub(super) fn ttl(&self, name: &CredentialName, credential: &Credential) -> Option<std::time::Duration> {
        let ttl = credential.ttl?;
        let own = self.checks.iter().filter(|check| check.is_enforced && check.credential.0 == name);
        let cuts = own.filter_map(|check| check.requirement.demand.cuts(credential));
        Some(cuts.chain([ttl]).min().unwrap_or(ttl))
    }
}

impl<'a> WeighedRule<'a> {
    fn new(rule: &'a Rule, identity: &JobIdentity, now: Timestamp) -> Self {
        let is_issuer = rule.issuer == *identity.issuer();
        let held = |condition: &super::matcher::Condition| {
            is_issuer && condition.holds(identity.claims(), identity.unusable())
        };
        Self {
            rule,
            is_issuer,
            conditions: rule.conditions.iter().map(held).collect(),
            allows_trigger: is_issuer && allows_trigger(rule, identity),
            is_open: rule.window.as_ref().is_none_or(|window| window.is_open(now)),
        }
    }

    /// Whether it lets the job in.
    pub(super) fn holds(&self) -> bool {
        self.holds_conditions() && self.allows_trigger && self.is_open
    }

    fn holds_conditions(&self) -> bool {
        self.is_issuer && self.conditions.iter().all(|held| *held)
    }

    fn lacks_window_only(&self) -> bool {
        self.holds_conditions() && self.allows_trigger && !self.is_open
    }

    fn lacks_trigger_only(&self) -> bool {
        self.holds_conditions() && !self.allows_trigger
    }

    /// The names of its claims that failed: conditions as written, and the claim with the trigger.
    pub(super) fn failed_claims(&self, identity: &JobIdentity) -> Vec<&'a str> {
        let conditions = self.rule.conditions.iter().zip(&self.conditions);
        let mut failed: Vec<&str> =
            conditions.filter(|(_, held)| !**held).map(|(condition, _)| condition.claim.as_str()).collect();
        if !self.allows_trigger {
            let name = identity.trigger_claim();
            if !failed.contains(&name) {
                failed.push(name);
            }
        }
        failed
    }

    /// Whether it names the project of this job as a literal.
    pub(super) fn is_of_project(&self, identity: &JobIdentity) -> bool {
        let Some((claim, _)) = identity.profile().project else { return false };
        let is_immutable = identity.profile().claim(claim).is_some_and(|spec| spec.immutable);
        let Some((project, _)) = identity.project().filter(|_| self.is_issuer && is_immutable) else {
            return false;
        };
        let own = self.rule.conditions.iter().filter(|condition| condition.claim == claim);
        own.flat_map(|condition| condition.matcher.literals())
            .any(|literal| literal.as_str() == Some(project))
    }
}

impl Check<'_> {
    /// Whether it held, where that rule lets the job in.
    pub(super) fn held(&self, rule: &Rule) -> bool {
        self.held.unwrap_or(rule.pins_project)
    }
}

fn shut(grant: &Grant, now: Timestamp) -> Option<&'static str> {
    if !grant.enabled {
        return Some("disabled");
    }
    grant.lapses_at.is_some_and(|end| now >= end).then_some("lapsed")
}

fn choose<'a>(grant: &'a Grant, asked: &GrantRequest) -> (Vec<(&'a CredentialName, &'a Credential)>, bool) {
    let is_chosen = |name: &CredentialName| match &asked.credentials {
        None => true,
        Some(names) => names.iter().any(|each| each == name.as_str()),
    };
    let is_known = |name: &String| grant.credentials.contains_key(name.as_str());
    let chosen: Vec<_> = grant.credentials.iter().filter(|(name, _)| is_chosen(name)).collect();
    // A permit of nothing would be a permit all the same.
    let has_all = asked.credentials.iter().flatten().all(is_known) && !chosen.is_empty();
    (chosen, has_all)
}

fn checks<'a>(
    set: &'a PolicySet,
    grant: &'a Grant,
    credentials: &[(&'a CredentialName, &'a Credential)],
    identity: &JobIdentity,
    now: Timestamp,
) -> Vec<Check<'a>> {
    let mut checks = Vec::new();
    for (name, credential) in credentials {
        let case = Case { grant, credential, identity };
        let applying = credential.guardrails.iter().filter_map(|at| set.guardrails.get(*at));
        for guardrail in applying.filter(|each| each.applies_to.fits_issuer(identity.issuer())) {
            let is_enforced = guardrail.is_enforced(now);
            checks.extend(guardrail.requirements.iter().map(|requirement| Check {
                guardrail,
                requirement,
                credential: (*name, *credential),
                is_enforced,
                held: requirement.demand.holds(case),
            }));
        }
    }
    checks
}

/// Dangerous and unknown triggers are denied unless the rule names them by a literal (attack class F-03).
fn allows_trigger(rule: &Rule, identity: &JobIdentity) -> bool {
    match identity.trigger() {
        Trigger::Ordinary => true,
        Trigger::Dangerous(word) => rule.named_triggers.contains(word),
        Trigger::Unknown => identity.trigger_word().is_some_and(|word| rule.named_triggers.contains(word)),
    }
}

/// The reason of a denial that only a guardrail makes.
pub(super) const GUARDRAIL: &str = "guardrail";
/// The reason of a denial where a claim is absent, or does not fit the template that it stands in.
pub(super) const TEMPLATE: &str = "template";
const NO_RULE: &str = "no-rule";
