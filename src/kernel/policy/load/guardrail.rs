//! `guardrails/*.yaml`: limits above all grants. A mistake here refuses the set, as anywhere: a guardrail that is
//! understood by half would be worse than none.

mod targets;

use std::collections::{BTreeSet, HashMap};

use super::{Issuers, grant};
use crate::kernel::{
    identity::profiles,
    lifetime::Lifetime,
    name::{GuardrailName, IssuerName},
    policy::{
        guardrail::{Classified, Demand, Guardrail, Mode, Requirement, Selector},
        matcher::Glob,
        yaml::{Content, Fields, Findings, Key, Node, nearest},
    },
};

/// Issuers that a guardrail may speak of.
pub(super) struct Known<'a> {
    pub(super) issuers: &'a Issuers,
    pub(super) all_issuers_read: bool,
}

pub(super) fn read(
    findings: &mut Findings<'_>,
    node: &Node,
    known: &Known<'_>,
    before: &HashMap<GuardrailName, String>,
) -> Option<Guardrail> {
    let mut fields = findings.fields(node)?;
    let name_node = fields.require(findings, "guardrail");
    let name = name_node.and_then(|node| name(findings, node, before));
    let selector_node = fields.take("applies_to");
    let require_node = fields.take("require");
    let targets_entry = fields.take_entry("targets");
    let forbid_node = fields.take("forbid");
    let classify_node = fields.take("classify");
    let mode = mode(findings, &mut fields);
    fields.finish(findings);

    let applies_to =
        selector_node.map_or_else(|| Some(Selector::default()), |node| selector(findings, node, known));
    let mut requirements = Vec::new();
    if let Some(node) = require_node {
        require(findings, node, known, &mut requirements);
    }
    if let Some((key, node)) = targets_entry
        && let Some(targets) = targets::read(findings, node)
    {
        requirements.push(Requirement { place: key.place(), demand: Demand::Targets(targets) });
    }
    if let Some(node) = forbid_node {
        forbid(findings, node, &mut requirements);
    }
    let classify = classify_node.map_or_else(|| Some(Vec::new()), |node| classify(findings, node));
    if [require_node, targets_entry.map(|(_, node)| node), forbid_node, classify_node]
        .iter()
        .all(Option::is_none)
    {
        let remedy = "add require, targets, forbid or classify";
        findings.at(node, "empty", "the guardrail limits nothing", remedy);
    }
    Some(Guardrail {
        name: name?,
        file: findings.file.into(),
        place: name_node?.place(),
        applies_to: applies_to?,
        requirements,
        classify: classify?,
        mode: mode?,
    })
}

fn name(
    findings: &mut Findings<'_>,
    node: &Node,
    before: &HashMap<GuardrailName, String>,
) -> Option<GuardrailName> {
    let text = findings.filled(node)?;
    let Some(name) = GuardrailName::parse(text) else {
        let remedy = "write 1 to 63 of a-z, 0-9 and -, no - at an end";
        findings.at(node, "name", format!("`{text}` is no name"), remedy);
        return None;
    };
    if let Some(file) = before.get(&name) {
        let message = format!("the guardrail `{name}` already stands in {file}");
        findings.at(node, "duplicate-name", message, "give each guardrail its own name");
    }
    Some(name)
}

fn mode(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> Option<Mode> {
    let mode_node = fields.take("mode");
    let until_node = fields.take("report_until");
    let word = match mode_node {
        None => "enforce",
        Some(node) => findings.filled(node)?,
    };
    match (word, until_node) {
        ("enforce", None) => Some(Mode::Enforce),
        ("enforce", Some(node)) => {
            let remedy = "write `mode: report`, or remove it";
            findings.at(node, "mode", "a guardrail that enforces has no last day of reporting", remedy);
            None
        }
        ("report", Some(node)) => {
            grant::end_of_day(findings, node).map(|(until, ends_at)| Mode::Report { until, ends_at })
        }
        ("report", None) => {
            let remedy = "add `report_until: 2027-03-31`; after that day it denies";
            let message = "what only reports must say until when, so that it is not off for ever";
            if let Some(node) = mode_node {
                findings.at(node, "mode", message, remedy);
            }
            None
        }
        (word, _) => {
            if let Some(node) = mode_node {
                findings.at(node, "mode", format!("`{word}` is no mode"), "write enforce or report");
            }
            None
        }
    }
}

fn selector(findings: &mut Findings<'_>, node: &Node, known: &Known<'_>) -> Option<Selector> {
    let mut fields = findings.fields(node)?;
    let class_node = fields.take("class");
    let folder_node = fields.take("folder");
    let issuer_node = fields.take("issuer");
    let backend_node = fields.take("backend");
    let target_node = fields.take("target");
    fields.finish(findings);
    if [class_node, folder_node, issuer_node, backend_node, target_node].iter().all(Option::is_none) {
        let remedy = "remove `applies_to` where every grant is meant";
        findings.at(node, "empty", "nothing is selected here", remedy);
    }
    // A selector that is understood by half must not select everything: the finding refuses the set.
    let classes = class_node.and_then(|node| any_of(findings, node, grant::class));
    let folders = folder_node.and_then(|node| any_of(findings, node, folder));
    let issuers = issuer_node.and_then(|node| issuers(findings, node, known));
    let backends = backend_node.and_then(|node| any_of(findings, node, backend));
    let targets = target_node.and_then(|node| targets::read(findings, node));
    Some(Selector { classes, folders, issuers, backends, targets })
}

/// One, or a list of at least one.
fn any_of<T>(
    findings: &mut Findings<'_>,
    node: &Node,
    mut one: impl FnMut(&mut Findings<'_>, &Node) -> Option<T>,
) -> Option<Vec<T>> {
    let Content::Sequence(items) = &node.content else { return one(findings, node).map(|each| vec![each]) };
    if items.is_empty() {
        findings.at(node, "empty", "an empty list names nothing", "name at least one, or remove the key");
        return None;
    }
    items.iter().map(|item| one(findings, item)).collect()
}

fn issuers(findings: &mut Findings<'_>, node: &Node, known: &Known<'_>) -> Option<Vec<IssuerName>> {
    any_of(findings, node, |findings, node| {
        grant::issuer(findings, node, known.issuers, known.all_issuers_read)
    })
}

/// A folder as a grant stands in one. What could never be one would select nothing, unnoticed.
fn folder(findings: &mut Findings<'_>, node: &Node) -> Option<Glob> {
    let text = findings.filled(node)?;
    let is_path = text.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part != "grants");
    if !is_path {
        let remedy =
            "write it relative to grants/, such as payments or teams/payments, without slashes at the ends";
        findings.at(node, "folder", format!("`{text}` is no folder below grants/"), remedy);
        return None;
    }
    targets::glob(findings, node, text)
}

fn backend(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    findings.filled(node).map(str::to_owned)
}

fn require(findings: &mut Findings<'_>, node: &Node, known: &Known<'_>, requirements: &mut Vec<Requirement>) {
    let Some(mut fields) = findings.fields(node) else { return };
    let is_empty = fields.is_empty();
    let mut add = |key: &Key, demand: Option<Demand>| {
        requirements.extend(demand.map(|demand| Requirement { place: key.place(), demand }));
    };
    if let Some((key, node)) = fields.take_entry("max_ttl") {
        add(key, findings.duration(node).map(Demand::MaxTtl));
    }
    if let Some((key, node)) = fields.take_entry("issuers") {
        add(key, issuers(findings, node, known).map(Demand::Issuers));
    }
    if let Some((key, node)) = fields.take_entry("pinned") {
        let words = any_of(findings, node, |findings, node| the_word(findings, node, "project"));
        add(key, words.map(|_| Demand::PinnedProject));
    }
    if let Some((key, node)) = fields.take_entry("protected_ref") {
        add(key, is_true(findings, node).map(|()| Demand::ProtectedRef));
    }
    if let Some((key, node)) = fields.take_entry("runner") {
        add(key, the_word(findings, node, "hosted").map(|()| Demand::RunnerHosted));
    }
    if let Some((key, node)) = fields.take_entry("lifetime") {
        add(key, any_of(findings, node, lifetime).map(Demand::Lifetimes));
    }
    if let Some((key, node)) = fields.take_entry("grant_names") {
        add(key, any_of(findings, node, grant_name).map(Demand::GrantNames));
    }
    fields.finish(findings);
    if is_empty {
        findings.at(node, "empty", "nothing is required here", "name what must hold, or remove the key");
    }
}

/// The only word that may stand somewhere; others may come.
fn the_word(findings: &mut Findings<'_>, node: &Node, due: &str) -> Option<()> {
    let word = findings.filled(node)?;
    if word != due {
        let remedy = format!("write {due}, or remove the key");
        findings.at(node, "requirement", format!("`{word}` cannot be required here"), remedy);
        return None;
    }
    Some(())
}

/// `false` would read as if something were forbidden by it.
fn is_true(findings: &mut Findings<'_>, node: &Node) -> Option<()> {
    if !findings.boolean(node)? {
        let remedy = "write true, or remove the key: without it the ref may be either";
        findings.at(node, "requirement", "`false` requires nothing", remedy);
        return None;
    }
    Some(())
}

fn lifetime(findings: &mut Findings<'_>, node: &Node) -> Option<Lifetime> {
    let word = findings.filled(node)?;
    let lifetime = Lifetime::parse(word);
    if lifetime.is_none() {
        let remedy = "write leased, fixed or static";
        findings.at(node, "requirement", format!("`{word}` is no lifetime"), remedy);
    }
    lifetime
}

fn grant_name(findings: &mut Findings<'_>, node: &Node) -> Option<Glob> {
    let text = findings.filled(node)?;
    targets::name_glob(findings, node, text)
}

fn forbid(findings: &mut Findings<'_>, node: &Node, requirements: &mut Vec<Requirement>) {
    let Some(mut fields) = findings.fields(node) else { return };
    let entry = fields.take_entry("triggers");
    fields.finish(findings);
    let Some((key, node)) = entry else {
        findings.at(node, "empty", "nothing is forbidden here", "add triggers, or remove the key");
        return;
    };
    if let Some(words) = any_of(findings, node, trigger) {
        let demand = Demand::ForbidTriggers(words.into_iter().collect::<BTreeSet<_>>());
        requirements.push(Requirement { place: key.place(), demand });
    }
}

/// A mistyped trigger would forbid nothing, unnoticed; so only words that some CI system has are taken.
fn trigger(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let word = findings.filled(node)?;
    if !is_trigger(word) {
        let known = DANGEROUS_TRIGGERS.iter().chain(PASSERS_BY).copied();
        let remedy = nearest(word, known).map_or_else(
            || format!("write words as CI systems send them, or of {}", DANGEROUS_TRIGGERS.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        findings.at(node, "trigger", format!("no CI system has a trigger `{word}`"), remedy);
        return None;
    }
    Some(word.to_owned())
}

fn is_trigger(word: &str) -> bool {
    DANGEROUS_TRIGGERS.contains(&word)
        || PASSERS_BY.contains(&word)
        || profiles::ALL.iter().any(|profile| profile.has_trigger(word))
}

fn classify(findings: &mut Findings<'_>, node: &Node) -> Option<Vec<Classified>> {
    let items = findings.list(node)?;
    if items.is_empty() {
        findings.at(node, "empty", "an empty list classifies nothing", "remove the key");
    }
    items.iter().map(|item| classified(findings, item)).collect()
}

fn classified(findings: &mut Findings<'_>, node: &Node) -> Option<Classified> {
    let mut fields = findings.fields(node)?;
    let class_node = fields.require(findings, "class");
    let targets = targets::of_one_kind(findings, node, &mut fields);
    fields.finish(findings);
    let class = grant::class(findings, class_node?)?;
    Some(Classified { targets: targets?, class, place: node.place() })
}

/// The contract's words for what is denied unless a rule names it (design: section 4).
const DANGEROUS_TRIGGERS: &[&str] =
    &["fork", "human_shell", "issue_comment", "pull_request_target", "workflow_run"];

/// GitHub's events that the profile does not know to be ordinary, since anybody can set them off or they say nothing
/// of who did (github/docs "Events that trigger workflows", 2026).
const PASSERS_BY: &[&str] = &[
    "check_run",
    "check_suite",
    "discussion",
    "discussion_comment",
    "gollum",
    "image_version",
    "issues",
    "label",
    "public",
    "pull_request_review",
    "pull_request_review_comment",
    "status",
    "watch",
];
