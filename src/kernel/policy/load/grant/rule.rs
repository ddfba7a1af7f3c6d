//! Rules and their conditions.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Known;
use crate::kernel::{
    identity::profile::{ClaimKind, ClaimSpec, Profile},
    name::{IssuerName, RuleName},
    policy::{
        matcher::{Condition, Matcher},
        set::Rule,
        yaml::{Content, Findings, Key, Node, nearest, plain_integer},
    },
};

pub(super) fn read_all(findings: &mut Findings<'_>, node: &Node, known: &Known<'_>) -> Option<Vec<Rule>> {
    let items = findings.list(node)?;
    if items.is_empty() {
        findings.at(
            node,
            "empty",
            "`allow` has no rule, so nobody could use the grant",
            "add a rule, or set enabled: false",
        );
        return None;
    }
    let mut rules: Vec<Rule> = Vec::new();
    let mut whole = true;
    for item in items {
        match read(findings, item, known) {
            Some(rule) => {
                if rules.iter().any(|other| other.name == rule.name) {
                    let message = format!("the rule `{}` stands here a second time", rule.name);
                    findings.at(item, "duplicate-name", message, "give each rule its own name");
                }
                rules.push(rule);
            }
            None => whole = false,
        }
    }
    whole.then_some(rules)
}

fn read(findings: &mut Findings<'_>, node: &Node, known: &Known<'_>) -> Option<Rule> {
    let mut fields = findings.fields(node)?;
    let name = fields.require(findings, "name").and_then(|node| name(findings, node));
    let issuer_node = fields.require(findings, "issuer");
    let match_node = fields.require(findings, "match");
    fields.not_yet(findings, "window");
    fields.finish(findings);
    let issuer = issuer(findings, issuer_node?, known)?;
    // An issuer whose own file is at fault: the rule cannot be judged, and is not at fault.
    let profile = known.issuers.get(&issuer)?.trusted.profile;
    let match_node = match_node?;
    let conditions = conditions(findings, match_node, profile)?;
    pins(findings, match_node, profile, &conditions);
    let trigger_claim = profile.view.trigger;
    let named_triggers: BTreeSet<String> = conditions
        .iter()
        .filter(|condition| Some(condition.claim.as_str()) == trigger_claim)
        .flat_map(|condition| condition.matcher.literals())
        .filter_map(|literal| literal.as_str().map(str::to_owned))
        .collect();
    Some(Rule { name: name?, issuer, conditions, named_triggers })
}

fn name(findings: &mut Findings<'_>, node: &Node) -> Option<RuleName> {
    let text = findings.filled(node)?;
    let name = RuleName::parse(text);
    if name.is_none() {
        findings.at(
            node,
            "name",
            format!("`{text}` is no name"),
            "write 1 to 63 of a-z, 0-9 and -, no - at an end",
        );
    }
    name
}

fn issuer(findings: &mut Findings<'_>, node: &Node, known: &Known<'_>) -> Option<IssuerName> {
    let text = findings.filled(node)?;
    let name = IssuerName::parse(text).filter(|name| known.issuers.contains_key(name));
    if name.is_none() && known.all_issuers_read {
        let names = || known.issuers.keys().map(|name| name.as_str());
        let remedy = nearest(text, names()).map_or_else(
            || "name one of issuers/*.yaml".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        findings.at(node, "unknown-issuer", format!("no file in issuers/ names `{text}`"), remedy);
    }
    name
}

fn conditions(findings: &mut Findings<'_>, node: &Node, profile: &'static Profile) -> Option<Vec<Condition>> {
    let Content::Mapping(entries) = &node.content else {
        findings.at(node, "type", "a mapping of claims is due here", "write `claim: value` lines");
        return None;
    };
    if entries.is_empty() {
        findings.at(
            node,
            "empty-match",
            "an empty match would let everybody in",
            "name the claims that must hold",
        );
        return None;
    }
    let before = findings.list.len();
    let conditions: Vec<Condition> =
        entries.iter().filter_map(|(key, value)| condition(findings, key, value, profile)).collect();
    (findings.list.len() == before).then_some(conditions)
}

fn condition(
    findings: &mut Findings<'_>,
    key: &Key,
    node: &Node,
    profile: &'static Profile,
) -> Option<Condition> {
    let root =
        key.text.strip_prefix('/').map_or(key.text.as_str(), |rest| rest.split('/').next().unwrap_or(rest));
    let spec = profile.claim(root);
    if REGISTERED.contains(&root) {
        let message = format!("`{root}` is checked for every token and is no condition");
        findings.at_key(
            key,
            "registered-claim",
            message,
            "remove it; the issuer's file says audience and age",
        );
        return None;
    }
    if spec.is_none() && !profile.open {
        let names = profile.claims.iter().map(|claim| claim.name);
        let remedy = nearest(root, names).map_or_else(
            || format!("see the claims of the profile `{}` in the manual", profile.name),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("tokens of the profile `{}` have no claim `{root}`", profile.name);
        findings.at_key(key, "unknown-claim", message, remedy);
        return None;
    }
    let literal = LiteralKind { spec, is_nested: key.text.starts_with('/') };
    let matcher = matcher(findings, node, &literal)?;
    let case_insensitive = spec.is_some_and(|spec| spec.case_insensitive);
    Some(Condition { claim: key.text.clone(), matcher, case_insensitive, line: key.line })
}

/// What type a literal must have.
struct LiteralKind {
    spec: Option<&'static ClaimSpec>,
    is_nested: bool,
}

fn matcher(findings: &mut Findings<'_>, node: &Node, kind: &LiteralKind) -> Option<Matcher> {
    match &node.content {
        Content::Plain(_) | Content::Quoted(_) => literal(findings, node, kind).map(Matcher::Equals),
        Content::Sequence(items) if items.is_empty() => {
            findings.at(node, "empty-match", "an empty list can never match", "name at least one value");
            None
        }
        Content::Sequence(items) => {
            let read: Vec<Option<Matcher>> = items
                .iter()
                .map(|item| match &item.content {
                    Content::Sequence(_) => {
                        findings.at(
                            item,
                            "type",
                            "a list in a list has no meaning here",
                            "write one flat list",
                        );
                        None
                    }
                    Content::Plain(_) | Content::Quoted(_) | Content::Mapping(_) => {
                        matcher(findings, item, kind)
                    }
                })
                .collect();
            read.into_iter().collect::<Option<Vec<_>>>().map(Matcher::AnyOf)
        }
        Content::Mapping(_) => operator(findings, node, kind),
    }
}

fn operator(findings: &mut Findings<'_>, node: &Node, kind: &LiteralKind) -> Option<Matcher> {
    let mut fields = findings.fields(node)?;
    let glob_node = fields.take("glob");
    let not_node = fields.take("not");
    let present_node = fields.take("present");
    fields.finish(findings);
    match (glob_node, not_node, present_node) {
        (Some(node), None, None) => glob(findings, node, kind),
        (None, Some(node), None) => Some(Matcher::Not(Box::new(matcher(findings, node, kind)?))),
        (None, None, Some(node)) => findings.boolean(node).map(Matcher::Present),
        _ => {
            findings.at(
                node,
                "matcher",
                "exactly one of glob, not and present is due here",
                "write one of them",
            );
            None
        }
    }
}

fn glob(findings: &mut Findings<'_>, node: &Node, kind: &LiteralKind) -> Option<Matcher> {
    let pattern = findings.filled(node)?;
    if let Some(spec) = kind.spec {
        if spec.identity || spec.name == "sub" {
            let message = format!(
                "`{}` says who somebody is; a glob there matches names that others can register",
                spec.name
            );
            findings.at(
                node,
                "glob-on-identity",
                message,
                "write the exact value, or a list of exact values",
            );
            return None;
        }
        if spec.kind != ClaimKind::Text {
            findings.at(
                node,
                "literal-type",
                format!("`{}` is no text, so no glob fits", spec.name),
                "write a literal",
            );
            return None;
        }
    }
    if pattern.contains("***") {
        findings.at(
            node,
            "glob",
            "three stars have no meaning",
            "write * inside one segment, ** across segments",
        );
        return None;
    }
    Some(Matcher::Glob(pattern.to_owned()))
}

fn literal(findings: &mut Findings<'_>, node: &Node, kind: &LiteralKind) -> Option<Value> {
    let due = kind.spec.filter(|_| !kind.is_nested).map(|spec| spec.kind);
    match (due, &node.content) {
        (Some(ClaimKind::Boolean), _) => findings.boolean(node).map(Value::Bool),
        (Some(ClaimKind::Integer), _) => findings.integer(node).map(Value::from),
        // A claim of an open profile is what its JSON says: a plain literal is a number or a boolean where it can be.
        (None, Content::Plain(text)) if text == "true" || text == "false" => {
            Some(Value::Bool(text == "true"))
        }
        (None, Content::Plain(text)) if plain_integer(text).is_some() => plain_integer(text).map(Value::from),
        (Some(ClaimKind::Text | ClaimKind::TextList) | None, _) => {
            let text = findings.text(node)?;
            if text.contains('*') {
                let remedy = format!("write {{ glob: \"{text}\" }} where a pattern is meant");
                findings.at(node, "glob-in-literal", "a star in a literal matches only a star", remedy);
                return None;
            }
            Some(Value::String(text.to_owned()))
        }
    }
}

/// What each rule must name, so that it speaks of somebody (attack class F-01).
fn pins(findings: &mut Findings<'_>, node: &Node, profile: &Profile, conditions: &[Condition]) {
    let named = |names: &[&str]| {
        conditions
            .iter()
            .any(|condition| names.contains(&condition.claim.as_str()) && condition.matcher.is_literal())
    };
    if profile.shared && !named(profile.tenant_pins) {
        let message =
            "everybody's tokens come from this issuer, so a rule without its tenant would let strangers in";
        findings.at(node, "tenant-pin", message, format!("add {}: \"…\"", profile.tenant_pins.join(" or ")));
    }
    if !profile.must_name.is_empty() && !named(profile.must_name) {
        let message = format!("a rule of the profile `{}` must say exactly whom it means", profile.name);
        findings.at(node, "must-name", message, format!("add {}: \"…\"", profile.must_name.join(" or ")));
    }
}

/// Registered claims (RFC 7519 section 4.1) that verification checks; `sub` may be a condition.
const REGISTERED: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];
