//! Guardrails: limits above all grants. One never permits anything; it can only narrow what a rule permits. A grant
//! that breaches one still loads, since one team's slip must not block all others: it is denied at the exchange.
//!
//! A guardrail speaks of credentials: where its selectors fit one, all that it demands must hold of that credential,
//! of the job that asks, and of the grant. What is unknown never satisfies a demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use jiff::{Timestamp, civil::Date};

use super::{
    class::Class,
    finding::Place,
    matcher::Glob,
    set::{Credential, Grant, Rule},
    target::{Backend, Target},
    template::{may_match, opaque},
};
use crate::kernel::{
    identity::{JobIdentity, job::Trigger, profile::Profile},
    lifetime::Lifetime,
    name::{GuardrailName, IssuerName},
};

/// A guardrail as loaded.
#[derive(Clone, Debug)]
pub struct Guardrail {
    /// Its name.
    pub name: GuardrailName,
    /// The file that holds it.
    pub file: Arc<str>,
    /// Where in it.
    pub place: Place,
    /// What it speaks of.
    pub applies_to: Selector,
    /// What must hold, in the order of the language.
    pub requirements: Vec<Requirement>,
    /// The least classes of targets. They hold for all grants and in either mode: a class says what a target is, and
    /// limits nothing by itself.
    pub classify: Vec<Classified>,
    /// Whether a breach denies.
    pub mode: Mode,
}

/// What a guardrail speaks of: all that is given must fit, a list is any of, and an empty selector fits everything.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// Classes: the credential's own, or its grant's. A grant that raises its class gets out of no guardrail by it.
    pub classes: Option<Vec<Class>>,
    /// Folders below `grants/`; one stands for all below it too.
    pub folders: Option<Vec<Glob>>,
    /// Issuers of the job's token.
    pub issuers: Option<Vec<IssuerName>>,
    /// Backends of the credential; parts of Hallpass itself are none.
    pub backends: Option<Vec<String>>,
    /// Targets of the credential.
    pub targets: Option<Targets>,
}

/// One thing that must hold.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub demand: Demand,
}

/// What a guardrail can demand.
#[derive(Clone, Debug)]
pub enum Demand {
    /// `forbid: { triggers }`: none of these has set the job off.
    ForbidTriggers(BTreeSet<String>),
    /// `require: { grant_names }`: the grant's name fits one of these.
    GrantNames(Vec<Glob>),
    /// `require: { issuers }`: the job's token is of one of these.
    Issuers(Vec<IssuerName>),
    /// `require: { lifetime }`: the credential's life is bounded in one of these ways.
    Lifetimes(Vec<Lifetime>),
    /// `require: { max_ttl }`: cuts the TTL; of static credentials it does not speak. A breach only where the kind
    /// cannot honour what is left.
    MaxTtl(Duration),
    /// `require: { pinned: [project] }`: the rule names the project's immutable id by literals.
    PinnedProject,
    /// `require: { protected_ref: true }`: the token says that the ref is protected.
    ProtectedRef,
    /// `require: { runner: hosted }`: the token says that the CI system's own machine runs the job.
    RunnerHosted,
    /// `targets`: an allow-list over all kinds.
    Targets(Targets),
}

/// Targets by kind; a kind that is not in it has none.
#[derive(Clone, Debug, Default)]
pub struct Targets(pub BTreeMap<&'static str, Allowed>);

/// Targets of one kind.
#[derive(Clone, Debug)]
pub enum Allowed {
    /// Every one: `any`.
    Any,
    /// Those that fit one of these.
    Matching(Vec<TargetPattern>),
}

/// A pattern of a target, on one backend or on every one of its kind.
#[derive(Clone, Debug)]
pub struct TargetPattern {
    /// The backend; every one of the kind where absent.
    pub backend: Option<String>,
    /// The target.
    pub pattern: Glob,
}

/// The least class of targets.
#[derive(Clone, Debug)]
pub struct Classified {
    /// Which targets.
    pub targets: Targets,
    /// Their class.
    pub class: Class,
    /// Where it stands.
    pub place: Place,
}

/// What a breach does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It denies.
    Enforce,
    /// The permit stands and the entry says what would have been denied, until the end of a day in UTC. From then on
    /// it denies: what was to be tried out for a while must not be off for ever.
    Report {
        /// The last day.
        until: Date,
        /// The first moment at which it denies.
        ends_at: Timestamp,
    },
}

/// What a demand looks at.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) grant: &'a Grant,
    pub(super) credential: &'a Credential,
    pub(super) identity: &'a JobIdentity,
}

impl Guardrail {
    /// Whether a breach denies now.
    pub fn is_enforced(&self, now: Timestamp) -> bool {
        match self.mode {
            Mode::Enforce => true,
            Mode::Report { ends_at, .. } => now >= ends_at,
        }
    }
}

impl Selector {
    /// Whether all but the issuer fits; that one is known at the exchange only.
    pub(super) fn fits(&self, grant: &Grant, credential: &Credential) -> bool {
        let is_class =
            |classes: &Vec<Class>| classes.contains(&credential.class) || classes.contains(&grant.class);
        let is_folder = |folders: &Vec<Glob>| is_below(&grant.folder, folders);
        let target = &credential.target.0;
        self.classes.as_ref().is_none_or(is_class)
            && self.backends.as_ref().is_none_or(|names| names_backend(names, &target.backend()))
            && self.targets.as_ref().is_none_or(|targets| targets.may_have(target))
            && self.folders.as_ref().is_none_or(is_folder)
    }

    /// Whether it speaks of tokens of this issuer.
    pub fn fits_issuer(&self, issuer: &IssuerName) -> bool {
        self.issuers.as_ref().is_none_or(|issuers| issuers.contains(issuer))
    }
}

/// A backend that no configuration names could be any: closed by default.
fn names_backend(names: &[String], backend: &Backend) -> bool {
    match backend {
        Backend::BuiltIn => false,
        Backend::Named(backend) => names.iter().any(|name| **name == **backend),
        Backend::Unnamed => true,
    }
}

/// Whether a folder, or one above it, fits. Otherwise a team could leave its fence by making a folder.
fn is_below(folder: &str, patterns: &[Glob]) -> bool {
    let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
    let above: Vec<&str> = ends.filter_map(|end| folder.get(..end)).collect();
    patterns.iter().any(|pattern| above.iter().any(|folder| pattern.matches(folder, false)))
}

impl Demand {
    /// The word by which ledger, findings and explanations name it: its key.
    pub fn word(&self) -> &'static str {
        match self {
            Self::ForbidTriggers(_) => "forbid.triggers",
            Self::GrantNames(_) => "require.grant_names",
            Self::Issuers(_) => "require.issuers",
            Self::Lifetimes(_) => "require.lifetime",
            Self::MaxTtl(_) => "require.max_ttl",
            Self::PinnedProject => "require.pinned",
            Self::ProtectedRef => "require.protected_ref",
            Self::RunnerHosted => "require.runner",
            Self::Targets(_) => "targets",
        }
    }

    /// Whether it holds; `None` where that depends on the rule, of which [`Rule::pins_project`] knows.
    pub(super) fn holds(&self, case: Case<'_>) -> Option<bool> {
        let Case { grant, credential, identity } = case;
        let target = &credential.target.0;
        Some(match self {
            Self::ForbidTriggers(words) => !may_be_set_off_by(identity, words),
            Self::GrantNames(names) => fits_name(grant, names),
            Self::Issuers(issuers) => issuers.contains(identity.issuer()),
            Self::Lifetimes(lifetimes) => lifetimes.contains(&target.lifetime()),
            Self::MaxTtl(most) => can_honour(credential, *most),
            Self::PinnedProject => return None,
            Self::ProtectedRef => identity.ref_protected() == Some(true),
            Self::RunnerHosted => is_hosted(identity),
            Self::Targets(targets) => targets.has(target),
        })
    }

    /// Whether it cuts a credential's TTL.
    pub(super) fn cuts(&self, credential: &Credential) -> Option<Duration> {
        let Self::MaxTtl(most) = self else { return None };
        credential.ttl.is_some_and(|ttl| ttl > *most).then_some(*most)
    }
}

pub(super) fn fits_name(grant: &Grant, names: &[Glob]) -> bool {
    names.iter().any(|name| name.matches(grant.name.as_str(), false))
}

/// Whether the kind can honour what is left of a TTL.
pub(super) fn can_honour(credential: &Credential, most: Duration) -> bool {
    let least = credential.target.0.ttl_bounds().map(|(least, _)| least);
    credential.ttl.zip(least).is_none_or(|(ttl, least)| ttl.min(most) >= least)
}

/// Whether one of these triggers set the job off, or nobody knows. A profile that knows no triggers has none, except
/// for an open one, which can stand for any CI system.
fn may_be_set_off_by(identity: &JobIdentity, words: &BTreeSet<String>) -> bool {
    let is_named = |word: &str| words.contains(word);
    let word = identity.trigger_word();
    let is_unknown = word.is_none()
        && match identity.trigger() {
            Trigger::Dangerous(_) => false,
            Trigger::Ordinary => identity.profile().open,
            Trigger::Unknown => true,
        };
    let is_dangerous = match identity.trigger() {
        Trigger::Dangerous(word) => is_named(word),
        Trigger::Ordinary | Trigger::Unknown => false,
    };
    is_unknown || is_dangerous || word.is_some_and(is_named)
}

/// By profile, since what one CI system writes there itself another lets a job choose.
fn is_hosted(identity: &JobIdentity) -> bool {
    identity.profile().view.hosted.is_some_and(|word| identity.runner() == Some(word))
}

impl Rule {
    /// Whether it names the project's immutable id by literals only.
    pub(super) fn names_project(&self, profile: &Profile) -> bool {
        profile.project.is_some_and(|(project, _)| {
            self.conditions
                .iter()
                .any(|condition| condition.claim == project && condition.matcher.is_literal())
        })
    }
}

impl Targets {
    /// Whether it allows a target, and of one that is a template every expansion; a backend that no configuration names
    /// is none of those that it names.
    pub fn has(&self, target: &Target) -> bool {
        let is_backend = |wanted: &str, backend: &Backend| match backend {
            Backend::Named(backend) => *wanted == **backend,
            Backend::BuiltIn | Backend::Unnamed => false,
        };
        let text = opaque(target.as_str());
        self.fits(target, is_backend, |pattern| pattern.matches(&text, false))
    }

    /// Whether it could mean a target, or some expansion of one; a backend that no configuration names could be any.
    pub(super) fn may_have(&self, target: &Target) -> bool {
        let is_backend = |wanted: &str, backend: &Backend| match backend {
            Backend::Named(backend) => *wanted == **backend,
            Backend::BuiltIn => false,
            Backend::Unnamed => true,
        };
        self.fits(target, is_backend, |pattern| may_match(pattern, target.as_str()))
    }

    fn fits(
        &self,
        target: &Target,
        is_backend: impl Fn(&str, &Backend) -> bool,
        matches: impl Fn(&Glob) -> bool,
    ) -> bool {
        match self.0.get(target.kind().as_str()) {
            None => false,
            Some(Allowed::Any) => true,
            Some(Allowed::Matching(patterns)) => patterns.iter().any(|each| {
                each.backend.as_deref().is_none_or(|wanted| is_backend(wanted, &target.backend()))
                    && matches(&each.pattern)
            }),
        }
    }
}

/// The least class of a target over all guardrails: the highest that fits, and production where none does. Where no
/// configuration names the backend, one that could be meant may raise the class and not lower it.
pub(super) fn class_of(guardrails: &[Guardrail], target: &Target) -> Class {
    let entries = || guardrails.iter().flat_map(|guardrail| &guardrail.classify);
    let known = entries().filter(|each| each.targets.has(target)).map(|each| each.class).max();
    let possible = entries().filter(|each| each.targets.may_have(target)).map(|each| each.class);
    possible.chain([known.unwrap_or(Class::Production)]).max().unwrap_or(Class::Production)
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, words: &mut dyn Iterator<Item = &str>| {
            write!(f, "[{}]", words.collect::<Vec<_>>().join(", "))
        };
        match self {
            Self::ForbidTriggers(words) => list(f, &mut words.iter().map(String::as_str)),
            Self::GrantNames(names) => list(f, &mut names.iter().map(Glob::as_str)),
            Self::Issuers(issuers) => list(f, &mut issuers.iter().map(|name| name.as_str())),
            Self::Lifetimes(lifetimes) => list(f, &mut lifetimes.iter().map(|each| each.as_str())),
            Self::MaxTtl(most) => write!(f, "{}s", most.as_secs()),
            Self::PinnedProject => f.write_str("[project]"),
            Self::ProtectedRef => f.write_str("true"),
            Self::RunnerHosted => f.write_str("hosted"),
            Self::Targets(targets) => write!(f, "{targets}"),
        }
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().map(|(kind, allowed)| format!("{kind}: {allowed}")).collect();
        write!(f, "{{ {} }}", shown.join(", "))
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Matching(patterns) => {
                let shown = |each: &TargetPattern| match &each.backend {
                    None => each.pattern.as_str().to_owned(),
                    Some(backend) => format!("{{ backend: {backend}, match: {} }}", each.pattern.as_str()),
                };
                write!(f, "[{}]", patterns.iter().map(shown).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
