//! The whole tree of a decision: what each condition and each guardrail wanted and got, and where that stands. Made
//! from the same weighing as the decision itself, with its texts. It holds claims, so it is for whoever may read them;
//! it has no `Debug`, since a log is not the ledger.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    decide::{Decision, GrantRequest, Request, decide},
    finding::Place,
    guardrail::{Demand, Mode},
    matcher::Seen,
    set::PolicySet,
    weigh::{Check, Weighed, WeighedRule},
};
use crate::kernel::identity::{JobIdentity, job::Trigger};

/// A decision, explained.
#[derive(Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The digest of the set.
    pub digest: String,
    /// Its git commit, where known.
    pub commit: Option<String>,
    /// Whether all that was asked for is permitted: the decision's own word.
    pub permit: bool,
    /// The first reason of a denial, as [`Denial::reason`](super::decide::Denial::reason) has it.
    pub reason: Option<&'static str>,
    /// Each grant asked for.
    pub grants: Vec<ExplainedGrant>,
}

/// One grant, explained.
#[derive(Clone, PartialEq, Serialize)]
pub struct ExplainedGrant {
    /// The name asked for.
    pub name: String,
    /// What is there under that name.
    pub found: Option<FoundGrant>,
    /// Why it denies; absent where it permits.
    pub reason: Option<&'static str>,
}

/// A grant that is there.
#[derive(Clone, PartialEq, Serialize)]
pub struct FoundGrant {
    /// Its place.
    pub at: At,
    /// The highest class of the grant and its targets.
    pub class: &'static str,
    /// Whether it is switched on.
    pub enabled: bool,
    /// The moment from which it permits nobody, where it has one.
    pub lapses_at: Option<String>,
    /// Whether that moment has passed.
    pub lapsed: bool,
    /// Its rules, in the order of the file.
    pub rules: Vec<ExplainedRule>,
    /// The rule that lets the job in, also where something else denies it.
    pub rule: Option<String>,
    /// The credentials asked for that it has.
    pub credentials: Vec<ExplainedCredential>,
    /// Names asked for that it does not have.
    pub unknown_credentials: Vec<String>,
}

/// One rule, explained.
#[derive(Clone, PartialEq, Serialize)]
pub struct ExplainedRule {
    /// Its name.
    pub name: String,
    /// Its place.
    pub at: At,
    /// Whether it lets the job in.
    pub held: bool,
    /// The issuer that it speaks of.
    pub issuer: Step,
    /// Its conditions, in the order of the file; none held where the issuer is another.
    pub conditions: Vec<Step>,
    /// The trigger, where the profile knows triggers.
    pub trigger: Option<Step>,
    /// Its window, where it has one.
    pub window: Option<Step>,
}

/// One thing that was wanted.
#[derive(Clone, PartialEq, Serialize)]
pub struct Step {
    /// The claim, or the key.
    pub name: String,
    /// Its place.
    pub at: At,
    /// What was wanted, as the language writes it.
    pub wanted: String,
    /// What was there.
    pub got: Got,
    /// Whether it held.
    pub held: bool,
}

/// What was there.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Got {
    /// Nothing.
    Absent,
    /// Something that says so in words, and that is no claim.
    Text(String),
    /// Something of another type than the profile's.
    Unusable,
    /// A claim's value.
    Value(Value),
}

/// One credential, explained.
#[derive(Clone, PartialEq, Serialize)]
pub struct ExplainedCredential {
    /// Its name.
    pub name: String,
    /// Its place.
    pub at: At,
    /// Its kind.
    pub kind: &'static str,
    /// Its target.
    pub target: String,
    /// The class of its target.
    pub class: &'static str,
    /// Its TTL after every cut; absent where static.
    pub ttl_seconds: Option<u64>,
    /// The guardrails that apply to it.
    pub guardrails: Vec<ExplainedGuardrail>,
}

/// One guardrail on one credential, explained.
#[derive(Clone, PartialEq, Serialize)]
pub struct ExplainedGuardrail {
    /// Its name.
    pub name: String,
    /// Its place.
    pub at: At,
    /// Whether a breach denies now.
    pub enforced: bool,
    /// The last day on which it only reports, where it has one.
    pub report_until: Option<String>,
    /// Whether all of it held.
    pub held: bool,
    /// What it demands.
    pub requirements: Vec<Step>,
}

/// A place in a file of the set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct At {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

/// Explains what [`decide`] decides. Nothing is claimed, minted or recorded.
pub fn explain(set: &PolicySet, identity: &JobIdentity, request: &Request, now: Timestamp) -> Explanation {
    let reason = match decide(set, identity, request, now) {
        Decision::Deny(denial) => Some(denial.reason),
        Decision::Permit(_) => None,
    };
    Explanation {
        digest: set.digest.to_string(),
        commit: set.commit.clone(),
        permit: reason.is_none(),
        reason,
        grants: request.grants.iter().map(|asked| grant(set, identity, asked, now)).collect(),
    }
}

fn grant(set: &PolicySet, identity: &JobIdentity, asked: &GrantRequest, now: Timestamp) -> ExplainedGrant {
    let name = asked.name.clone();
    let Some(grant) = set.grants.get(asked.name.as_str()) else {
        return ExplainedGrant { name, found: None, reason: Some("no-such-grant") };
    };
    let expanded = set.expanded(grant, identity);
    let grant = &*expanded;
    let weighed = Weighed::new(set, grant, identity, asked, now);
    let unknown = asked.credentials.iter().flatten();
    let found = FoundGrant {
        at: at(&grant.file, grant.place),
        class: grant.class.as_str(),
        enabled: grant.enabled,
        lapses_at: grant.lapses_at.map(|end| end.to_string()),
        lapsed: grant.lapses_at.is_some_and(|end| now >= end),
        rules: weighed.rules.iter().map(|each| rule(&grant.file, each, identity, now)).collect(),
        rule: weighed.rule().ok().map(|rule| rule.name.to_string()),
        credentials: credentials(&weighed, identity, asked),
        unknown_credentials: unknown
            .filter(|name| !grant.credentials.contains_key(name.as_str()))
            .cloned()
            .collect(),
    };
    ExplainedGrant { name, found: Some(found), reason: weighed.verdict.err() }
}

fn rule(file: &str, weighed: &WeighedRule<'_>, identity: &JobIdentity, now: Timestamp) -> ExplainedRule {
    let rule = weighed.rule;
    let place = at(file, rule.place);
    let conditions = rule.conditions.iter().zip(&weighed.conditions).map(|(condition, held)| Step {
        name: condition.claim.clone(),
        at: at(file, condition.place),
        wanted: condition.matcher.to_string(),
        got: got(condition.look(identity.claims(), identity.unusable())),
        held: *held,
    });
    let window = rule.window.as_ref().map(|window| Step {
        name: "window".to_owned(),
        at: place.clone(),
        wanted: window.to_string(),
        got: Got::Text(now.to_string()),
        held: weighed.is_open,
    });
    ExplainedRule {
        name: rule.name.to_string(),
        at: place.clone(),
        held: weighed.holds(),
        issuer: Step {
            name: "issuer".to_owned(),
            at: place.clone(),
            wanted: rule.issuer.to_string(),
            got: Got::Text(identity.issuer().to_string()),
            held: weighed.is_issuer,
        },
        conditions: conditions.collect(),
        trigger: weighed.is_issuer.then(|| trigger(place, weighed, identity)).flatten(),
        window,
    }
}

fn trigger(at: At, weighed: &WeighedRule<'_>, identity: &JobIdentity) -> Option<Step> {
    let got = match (identity.trigger(), identity.trigger_word()) {
        (Trigger::Ordinary, None) => return None,
        (Trigger::Ordinary, Some(word)) => format!("{word}, an ordinary one"),
        (Trigger::Dangerous(kind), Some(word)) if kind != word => {
            format!("{word}, which is {kind}, a dangerous one")
        }
        (Trigger::Dangerous(kind), _) => format!("{kind}, a dangerous one"),
        (Trigger::Unknown, Some(word)) => format!("{word}, which nobody knows to be ordinary"),
        (Trigger::Unknown, None) => "none that the token names".to_owned(),
    };
    Some(Step {
        name: identity.trigger_claim().to_owned(),
        at,
        wanted: "an ordinary trigger, or one that the rule names".to_owned(),
        got: Got::Text(got),
        held: weighed.allows_trigger,
    })
}

fn credentials(
    weighed: &Weighed<'_>,
    identity: &JobIdentity,
    asked: &GrantRequest,
) -> Vec<ExplainedCredential> {
    let file = &weighed.grant.file;
    let explained = |(name, credential): &(&crate::kernel::name::CredentialName, &super::set::Credential)| {
        let target = &credential.target.0;
        let own: Vec<&Check<'_>> =
            weighed.checks.iter().filter(|check| check.credential.0 == *name).collect();
        let ttl = weighed.ttl(name, credential);
        ExplainedCredential {
            name: name.to_string(),
            at: at(file, credential.place),
            kind: target.kind().as_str(),
            target: target.as_str().to_owned(),
            class: credential.class.as_str(),
            ttl_seconds: ttl.map(|ttl| asked.ttl.map_or(ttl, |wanted| wanted.min(ttl)).as_secs()),
            guardrails: own
                .chunk_by(|left, right| std::ptr::eq(left.guardrail, right.guardrail))
                .filter_map(|checks| guardrail(weighed, checks, identity))
                .collect(),
        }
    };
    weighed.credentials.iter().map(explained).collect()
}

fn guardrail(
    weighed: &Weighed<'_>,
    checks: &[&Check<'_>],
    identity: &JobIdentity,
) -> Option<ExplainedGuardrail> {
    let first = checks.first()?;
    let requirements: Vec<Step> = checks.iter().map(|check| requirement(weighed, check, identity)).collect();
    Some(ExplainedGuardrail {
        name: first.guardrail.name.to_string(),
        at: at(&first.guardrail.file, first.guardrail.place),
        enforced: first.is_enforced,
        report_until: match first.guardrail.mode {
            Mode::Enforce => None,
            Mode::Report { until, .. } => Some(until.to_string()),
        },
        held: requirements.iter().all(|step| step.held),
        requirements,
    })
}

fn requirement(weighed: &Weighed<'_>, check: &Check<'_>, identity: &JobIdentity) -> Step {
    let demand = &check.requirement.demand;
    let (grant, credential) = (weighed.grant, check.credential.1);
    let target = &credential.target.0;
    let text = |text: Option<&str>| text.map_or(Got::Absent, |text| Got::Text(text.to_owned()));
    let pinning: Vec<&str> =
        grant.rules.iter().filter(|rule| rule.pins_project).map(|rule| rule.name.as_str()).collect();
    // Where no rule let the job in, the demand speaks of every one.
    let held = match weighed.rule() {
        Ok(rule) => check.held(rule),
        Err(_) => grant.rules.iter().all(|rule| check.held(rule)),
    };
    let got = match demand {
        Demand::ForbidTriggers(_) => text(identity.trigger_word()),
        Demand::GrantNames(_) => text(Some(grant.name.as_str())),
        Demand::Issuers(_) => text(Some(identity.issuer().as_str())),
        Demand::Lifetimes(_) => text(Some(target.lifetime().as_str())),
        Demand::MaxTtl(_) => text(credential.ttl.map(|ttl| format!("{}s", ttl.as_secs())).as_deref()),
        Demand::PinnedProject => text(Some(&format!("pinned by [{}]", pinning.join(", ")))),
        Demand::ProtectedRef => text(identity.ref_protected().map(|is| if is { "true" } else { "false" })),
        Demand::RunnerHosted => text(identity.runner()),
        Demand::Targets(_) => text(Some(&format!("{}: {}", target.kind().as_str(), target.as_str()))),
    };
    Step {
        name: demand.word().to_owned(),
        at: at(&check.guardrail.file, check.requirement.place),
        wanted: demand.to_string(),
        got,
        held,
    }
}

fn got(seen: Seen<'_>) -> Got {
    match seen {
        Seen::Absent => Got::Absent,
        Seen::Unusable => Got::Unusable,
        Seen::Value(value) => Got::Value(value.clone()),
    }
}

fn at(file: &str, place: Place) -> At {
    At { file: file.to_owned(), line: place.line, column: place.column }
}
