//! Lints of one rule by what its profile's claims are worth.

use serde_json::Value;

use super::Subject;
use crate::kernel::{
    identity::profile::Profile,
    policy::{
        finding::Finding,
        matcher::{Condition, Matcher},
    },
};

pub(super) fn of_rule(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    findings.extend(name_without_id(subject));
    for condition in &subject.rule.conditions {
        findings.extend(wide_glob(subject, condition));
        findings.extend(attackers_claim(subject, condition));
        findings.extend(old_subject(subject, condition));
        findings.extend(mutable_definition(subject, condition));
        findings.extend(never(subject, condition));
    }
}

fn warning(
    subject: &Subject<'_>,
    condition: &Condition,
    code: &'static str,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding::warning((&subject.grant.file, condition.place), code, message, remedy)
}

/// Attack class F-07: a name can be given up and taken by a stranger.
fn name_without_id(subject: &Subject<'_>) -> Option<Finding> {
    let (id, name) = subject.profile.project?;
    let name = name?;
    let conditions = &subject.rule.conditions;
    let named = conditions.iter().find(|each| each.claim == name && !is_about_presence(&each.matcher))?;
    let is_pinned = conditions.iter().any(|each| each.claim == id && each.matcher.is_literal());
    (!is_pinned).then(|| {
        let message = format!("`{name}` is a name that somebody else can take after a rename or a removal");
        let remedy = format!("add {id}: \"…\" beside it; it stays with the project for ever");
        warning(subject, named, "name-without-id", message, remedy)
    })
}

/// Attack class F-02: a pattern that reaches beyond the organisation whose jobs are meant.
fn wide_glob(subject: &Subject<'_>, condition: &Condition) -> Option<Finding> {
    let pattern = globs(&condition.matcher).into_iter().find_map(|pattern| {
        let is_everything = pattern.chars().all(|letter| letter == '*');
        let led_by =
            OWNED.iter().find(|(claim, _)| *claim == condition.claim).map_or(0, |(_, segments)| *segments);
        let is_wide = pattern.split('/').take(led_by).any(|segment| segment.contains('*'));
        (is_everything || is_wide).then_some((pattern, is_everything))
    });
    let (pattern, is_everything) = pattern?;
    let (message, remedy) = if is_everything {
        (
            format!("`{pattern}` matches everything"),
            "write { present: true }, or say what is meant".to_owned(),
        )
    } else {
        let message = format!("`{pattern}` matches what other organisations own");
        (message, "write the owner out; let stars stand behind it only".to_owned())
    };
    Some(warning(subject, condition, "glob-wide", message, remedy))
}

/// Attack class F-10.
fn attackers_claim(subject: &Subject<'_>, condition: &Condition) -> Option<Finding> {
    let spec = subject.profile.claim(&condition.path.root)?;
    spec.attacker_controlled.then(|| {
        let message =
            format!("`{}` is a text that whoever writes a job or opens a change can choose", spec.name);
        let remedy =
            "rely on ids, the ref, the environment or the definition instead; it adds no safety here";
        warning(subject, condition, "attacker-claim", message, remedy)
    })
}

/// GitHub's subjects have carried ids since 15 July 2026; a rule with the old form breaks at a rename, and never
/// matches a project that was made, renamed or moved since.
fn old_subject(subject: &Subject<'_>, condition: &Condition) -> Option<Finding> {
    if subject.profile.name != "github-actions" || condition.claim != "sub" {
        return None;
    }
    let is_old = |text: &str| {
        let project = text.strip_prefix("repo:").and_then(|rest| rest.split(':').next());
        project.is_some_and(|project| !project.contains('@'))
    };
    let old = texts(&condition.matcher).into_iter().find(|text| is_old(text))?;
    let message = format!("`{old}` is the old form of `sub`, which newer repositories never send");
    let remedy = "match repository_owner_id and repository_id, with ref or environment, in place of `sub`";
    Some(warning(subject, condition, "sub-old-form", message, remedy))
}

/// Attack class F-09: who may push to the branch decides what the job does.
fn mutable_definition(subject: &Subject<'_>, condition: &Condition) -> Option<Finding> {
    let (_, digest) = DEFINITIONS.iter().find(|(claim, _)| *claim == condition.claim)?;
    let is_on_branch = |text: &&str| {
        let reference = text.rsplit_once('@').map(|(_, reference)| reference);
        reference.is_some_and(|reference| reference.starts_with("refs/heads/") || reference.starts_with('*'))
    };
    let found = texts(&condition.matcher).into_iter().chain(globs(&condition.matcher)).find(is_on_branch)?;
    let is_guarded = is_own(subject, &condition.claim, found) && is_protected(subject);
    let is_pinned =
        subject.rule.conditions.iter().any(|each| each.claim == *digest && each.matcher.is_literal());
    (!is_guarded && !is_pinned).then(|| {
        let message = format!("`{found}` moves with every push to that branch");
        let remedy = format!("name a release tag, or add {digest} with the commit that you have read");
        warning(subject, condition, "mutable-workflow", message, remedy)
    })
}

/// Whether a definition is of the very project that the rule names: then its branch is the job's own.
fn is_own(subject: &Subject<'_>, claim: &str, definition: &str) -> bool {
    let name = subject.profile.project.and_then(|(_, name)| name);
    // GitLab writes its host before the project; elsewhere a first segment is an owner, who may be a stranger.
    let path = match definition.split_once('/') {
        Some((_, path)) if claim == "ci_config_ref_uri" => path,
        Some(_) | None => definition,
    };
    let owned = |project: &str| path.strip_prefix(project).is_some_and(|rest| rest.starts_with('/'));
    subject
        .rule
        .conditions
        .iter()
        .filter(|each| Some(each.claim.as_str()) == name)
        .any(|each| each.matcher.is_literal() && texts(&each.matcher).into_iter().all(owned))
}

fn is_protected(subject: &Subject<'_>) -> bool {
    let view = &subject.profile.view;
    subject.rule.conditions.iter().any(|each| {
        let is_claim = |name: Option<&str>| name == Some(each.claim.as_str()) && each.matcher.is_literal();
        let is_true = |literal: &Value| literal.as_bool() == Some(true) || literal.as_str() == Some("true");
        // A rule for refs that are not protected speaks of protection, too.
        let says_protected = is_claim(view.ref_protected) && each.matcher.literals().into_iter().all(is_true);
        says_protected || is_claim(view.environment)
    })
}

/// A literal that no token of the profile can have, as far as is known.
fn never(subject: &Subject<'_>, condition: &Condition) -> Option<Finding> {
    let literals = condition.matcher.literals();
    let (text, why) = literals
        .into_iter()
        .filter_map(Value::as_str)
        .find_map(|text| Some((text, impossible(subject.profile, &condition.claim, text)?)))?;
    let message = format!("no token of the profile `{}` has `{text}` there: {why}", subject.profile.name);
    let remedy = "look at a real token with `hallpass whoami`, and write what it has";
    Some(warning(subject, condition, "never", message, remedy))
}

fn impossible(profile: &Profile, claim: &str, text: &str) -> Option<String> {
    if Some(claim) == profile.view.trigger {
        return (!profile.has_trigger(text)).then(|| "it is no trigger that this version knows".to_owned());
    }
    let row = VALUES.iter().find(|row| row.profile == profile.name && row.claim == claim)?;
    match row.shape {
        Shape::OneOf(values) if !values.contains(&text) => {
            Some(format!("it is one of {}", values.join(", ")))
        }
        Shape::Digits if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some("it is a number in digits".to_owned())
        }
        Shape::Begins(begin) if !text.starts_with(begin) => Some(format!("it begins with `{begin}`")),
        Shape::NeverBegins(begin) if text.starts_with(begin) => {
            Some(format!("it never begins with `{begin}`"))
        }
        Shape::Path if !text.contains('/') => Some("it is an owner and a name, with a slash".to_owned()),
        Shape::OneOf(_) | Shape::Digits | Shape::Begins(_) | Shape::NeverBegins(_) | Shape::Path => None,
    }
}

/// What a claim's value looks like.
struct Row {
    profile: &'static str,
    claim: &'static str,
    shape: Shape,
}

enum Shape {
    Begins(&'static str),
    Digits,
    NeverBegins(&'static str),
    OneOf(&'static [&'static str]),
    Path,
}

const fn row(profile: &'static str, claim: &'static str, shape: Shape) -> Row {
    Row { profile, claim, shape }
}

/// Only where vendors' documents leave no doubt; source: github/docs and GitLab's documentation of ID tokens, 2026.
const VALUES: &[Row] = &[
    row("github-actions", "actor_id", Shape::Digits),
    row("github-actions", "enterprise_id", Shape::Digits),
    row("github-actions", "ref", Shape::Begins("refs/")),
    row("github-actions", "ref_protected", Shape::OneOf(&["true", "false"])),
    row("github-actions", "ref_type", Shape::OneOf(&["branch", "tag"])),
    row("github-actions", "repository", Shape::Path),
    row("github-actions", "repository_id", Shape::Digits),
    row("github-actions", "repository_owner_id", Shape::Digits),
    row("github-actions", "repository_visibility", Shape::OneOf(&["internal", "private", "public"])),
    row("github-actions", "runner_environment", Shape::OneOf(&["github-hosted", "self-hosted"])),
    row("gitlab", "environment_protected", Shape::OneOf(&["true", "false"])),
    row("gitlab", "job_project_id", Shape::Digits),
    row("gitlab", "namespace_id", Shape::Digits),
    row("gitlab", "project_id", Shape::Digits),
    row("gitlab", "project_path", Shape::Path),
    row("gitlab", "ref", Shape::NeverBegins("refs/")),
    row("gitlab", "ref_path", Shape::Begins("refs/")),
    row("gitlab", "ref_protected", Shape::OneOf(&["true", "false"])),
    row("gitlab", "ref_type", Shape::OneOf(&["branch", "tag"])),
    row("gitlab", "runner_environment", Shape::OneOf(&["gitlab-hosted", "self-hosted"])),
];

/// Claims that begin with who owns what they name, and how many segments say so.
const OWNED: &[(&str, usize)] = &[
    ("ci_config_ref_uri", 2),
    ("job_namespace_path", 1),
    ("job_project_path", 1),
    ("job_workflow_ref", 1),
    ("namespace_path", 1),
    ("project_path", 1),
    ("repository", 1),
    ("workflow_ref", 1),
];

/// Claims that name a file at a ref, and the claim with the commit that it was read from.
const DEFINITIONS: &[(&str, &str)] = &[
    ("ci_config_ref_uri", "ci_config_sha"),
    ("job_workflow_ref", "job_workflow_sha"),
    ("workflow_ref", "workflow_sha"),
];

fn is_about_presence(matcher: &Matcher) -> bool {
    matches!(matcher, Matcher::Present(_))
}

fn texts(matcher: &Matcher) -> Vec<&str> {
    matcher.literals().into_iter().filter_map(Value::as_str).collect()
}

/// The patterns that satisfy by matching; what stands under `not` narrows.
fn globs(matcher: &Matcher) -> Vec<&str> {
    match matcher {
        Matcher::AnyOf(any) => any.iter().flat_map(globs).collect(),
        Matcher::Glob(glob) => vec![glob.as_str()],
        Matcher::Equals(_) | Matcher::Not(_) | Matcher::Present(_) => Vec::new(),
    }
}
