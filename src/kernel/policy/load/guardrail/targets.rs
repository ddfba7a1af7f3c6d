//! Targets by kind: in `targets`, in `applies_to: { target }` and, of one kind, in `classify`.

use std::collections::BTreeMap;

use super::any_of;
use crate::kernel::policy::{
    guardrail::{Allowed, TargetPattern, Targets},
    matcher::Glob,
    target::Kind,
    yaml::{Content, Fields, Findings, Node},
};

pub(super) fn read(findings: &mut Findings<'_>, node: &Node) -> Option<Targets> {
    let mut fields = findings.fields(node)?;
    let before = findings.list.len();
    let mut by_kind = BTreeMap::new();
    for kind in Kind::names() {
        if let Some(node) = fields.take(kind)
            && let Some(allowed) = allowed(findings, kind, node)
        {
            by_kind.insert(kind, allowed);
        }
    }
    fields.finish(findings);
    if by_kind.is_empty() && findings.list.len() == before {
        findings.at(node, "empty", "no kind is named here", "name the kinds and their targets");
    }
    (findings.list.len() == before).then_some(Targets(by_kind))
}

/// The one kind of an entry of `classify`.
pub(super) fn of_one_kind(
    findings: &mut Findings<'_>,
    node: &Node,
    fields: &mut Fields<'_>,
) -> Option<Targets> {
    let named: Vec<(&'static str, &Node)> =
        Kind::names().filter_map(|kind| fields.take(kind).map(|node| (kind, node))).collect();
    let [(kind, pattern)] = named.as_slice() else {
        let remedy = "write one kind with its target, such as { vault: \"kv/data/ci/**\", class: read }";
        findings.at(node, "kind", "exactly one kind is classified by each entry", remedy);
        return None;
    };
    let allowed = allowed(findings, kind, pattern)?;
    Some(Targets(BTreeMap::from([(*kind, allowed)])))
}

/// `any`, or patterns.
fn allowed(findings: &mut Findings<'_>, kind: &str, node: &Node) -> Option<Allowed> {
    match &node.content {
        Content::Plain(word) if word == "any" => Some(Allowed::Any),
        Content::Plain(_) | Content::Quoted(_) | Content::Mapping(_) | Content::Sequence(_) => {
            any_of(findings, node, |findings, node| pattern(findings, kind, node)).map(Allowed::Matching)
        }
    }
}

fn pattern(findings: &mut Findings<'_>, kind: &str, node: &Node) -> Option<TargetPattern> {
    if !matches!(node.content, Content::Mapping(_)) {
        let pattern = target_glob(findings, kind, node)?;
        return Some(TargetPattern { backend: None, pattern });
    }
    let mut fields = findings.fields(node)?;
    let backend_node = fields.require(findings, "backend");
    let match_node = fields.require(findings, "match");
    fields.finish(findings);
    let backend_node = backend_node?;
    if BUILT_IN.iter().any(|each| each.as_str() == kind) {
        let message = format!("`{kind}` is a part of Hallpass itself and has no backend");
        findings.at(backend_node, "backend", message, "write the target alone");
        return None;
    }
    let backend = findings.filled(backend_node)?.to_owned();
    Some(TargetPattern { backend: Some(backend), pattern: target_glob(findings, kind, match_node?)? })
}

fn target_glob(findings: &mut Findings<'_>, kind: &str, node: &Node) -> Option<Glob> {
    let text = findings.filled(node)?;
    match kind {
        "sealed" => name_glob(findings, node, text),
        _ => glob(findings, node, text),
    }
}

/// A pattern of names; one that no name can fit would select or classify nothing, unnoticed.
pub(super) fn name_glob(findings: &mut Findings<'_>, node: &Node, text: &str) -> Option<Glob> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'*');
    if !text.bytes().all(fits) || text.starts_with('-') || text.ends_with('-') {
        let message = format!("`{text}` fits no name: those have a-z, 0-9 and -");
        findings.at(node, "glob", message, "write a name, with * where anything may stand");
        return None;
    }
    glob(findings, node, text)
}

pub(super) fn glob(findings: &mut Findings<'_>, node: &Node, text: &str) -> Option<Glob> {
    let glob = Glob::parse(text);
    if glob.is_none() {
        let remedy = "write * inside one segment, ** across segments, and at most 512 characters";
        findings.at(node, "glob", "this pattern has no meaning, or is too long", remedy);
    }
    glob
}

/// Kinds that no backend makes.
const BUILT_IN: [Kind; 2] = [Kind::Oidc, Kind::Sealed];
