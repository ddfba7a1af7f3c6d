//! What a case expects. A key that does not go with the verdict is a finding, since it would never be looked at.

use std::{collections::BTreeSet, time::Duration};

use super::{Breaches, Denied, DueLimits, Expect, Permitted, reach};
use crate::kernel::{
    name::{CredentialName, RuleName},
    policy::{
        PolicySet,
        load::class,
        set::{Grant, LimitScope},
        yaml::{Content, Fields, Findings, Key, Node, nearest},
    },
};

type Entry<'n> = Option<(&'n Key, &'n Node)>;

/// Takes the keys of what is due. The outer `None` is a finding.
pub(super) fn expect(
    findings: &mut Findings<'_>,
    fields: &mut Fields<'_>,
    (set, grant): (&PolicySet, &Grant),
    asked: Option<&[CredentialName]>,
) -> Option<Expect> {
    let node = fields.require(findings, "expect");
    let rule_node = fields.take("rule");
    let of_denial @ [failed, reason, guardrails, disclosed] =
        ["failed", "reason", "guardrails", "disclosed"].map(|key| fields.take_entry(key));
    let of_permit @ [ttl_max, class, limits, reaches, would_deny] =
        ["ttl_max", "class", "limits", "reaches", "would_deny"].map(|key| fields.take_entry(key));
    let before = findings.list.len();
    let rule = rule_node.and_then(|node| rule(findings, node, grant));
    let node = node?;
    let due = match findings.filled(node)? {
        "permit" => {
            strange(findings, &of_denial, "deny");
            Expect::Permit(Permitted {
                rule,
                ttl_max: read(findings, ttl_max, |findings, node| ttl_limits(findings, node, grant, asked))
                    .unwrap_or_default(),
                class: read(findings, class, self::class),
                limits: read(findings, limits, self::limits),
                reaches: read(findings, reaches, |findings, node| reach::read(findings, node, grant, asked))
                    .unwrap_or_default(),
                would_deny: read(findings, would_deny, |findings, node| breaches(findings, node, set)),
            })
        }
        "deny" => {
            strange(findings, &of_permit, "permit");
            Expect::Deny(Denied {
                rule,
                failed: read(findings, failed, some_names),
                reason: read(findings, reason, |findings, node| findings.filled(node).map(str::to_owned)),
                guardrails: read(findings, guardrails, |findings, node| breaches(findings, node, set)),
                disclosed: read(findings, disclosed, names),
            })
        }
        other => {
            let message = format!("`{other}` is neither permit nor deny");
            findings.at(node, "test-expect", message, "write permit or deny");
            return None;
        }
    };
    (findings.list.len() == before).then_some(due)
}

fn read<T>(
    findings: &mut Findings<'_>,
    entry: Entry<'_>,
    one: impl FnOnce(&mut Findings<'_>, &Node) -> Option<T>,
) -> Option<T> {
    entry.and_then(|(_, node)| one(findings, node))
}

fn strange(findings: &mut Findings<'_>, entries: &[Entry<'_>], other: &str) {
    for (key, _) in entries.iter().flatten() {
        let message = format!("`{}` goes with `expect: {other}`", key.text);
        findings.at_key(key, "test-expect", message, "remove it, or expect the other");
    }
}

fn limits(findings: &mut Findings<'_>, node: &Node) -> Option<DueLimits> {
    let mut fields = findings.fields(node)?;
    let [issuances_per_hour, live, uses_per_token] =
        ["issuances_per_hour", "live", "uses_per_token"].map(|key| fields.take(key));
    let per_node = fields.take("per");
    fields.finish(findings);
    let mut number = |node: Option<&Node>| node.and_then(|node| findings.integer(node));
    let (issuances_per_hour, live, uses_per_token) =
        (number(issuances_per_hour), number(live), number(uses_per_token));
    let per = per_node.and_then(|node| match findings.filled(node)? {
        "grant" => Some(LimitScope::Grant),
        "project" => Some(LimitScope::Project),
        other => {
            let message = format!("`{other}` is nothing that limits are counted over");
            findings.at(node, "test-expect", message, "write grant or project");
            None
        }
    });
    Some(DueLimits { issuances_per_hour, live, per, uses_per_token })
}

/// `[base]`, or `{ base: [require.runner] }`.
fn breaches(findings: &mut Findings<'_>, node: &Node, set: &PolicySet) -> Option<Breaches> {
    let mut due = Breaches::new();
    match &node.content {
        Content::Sequence(items) => {
            for item in items {
                let text = findings.filled(item)?;
                due.insert(guardrail(findings, item, text, set)?, BTreeSet::new());
            }
        }
        Content::Mapping(entries) => {
            for (key, below) in entries {
                due.insert(guardrail(findings, below, &key.text, set)?, some_names(findings, below)?);
            }
        }
        Content::Plain(_) | Content::Quoted(_) => {
            findings.at(node, "type", "a list of guardrails is due here", "write [NAME], or [] for none");
            return None;
        }
    }
    Some(due)
}

fn guardrail(findings: &mut Findings<'_>, node: &Node, text: &str, set: &PolicySet) -> Option<String> {
    let mut names = set.guardrails.iter().map(|guardrail| guardrail.name.as_str());
    if names.any(|name| name == text) {
        return Some(text.to_owned());
    }
    let names = set.guardrails.iter().map(|guardrail| guardrail.name.as_str());
    let remedy = nearest(text, names)
        .map_or_else(|| "name one of guardrails/*.yaml".to_owned(), |near| format!("did you mean `{near}`?"));
    findings.at(node, "test-expect", format!("there is no guardrail `{text}`"), remedy);
    None
}

fn some_names(findings: &mut Findings<'_>, node: &Node) -> Option<BTreeSet<String>> {
    let names = names(findings, node)?;
    if names.is_empty() {
        findings.at(node, "empty", "the list is empty", "name something, or remove the key");
        return None;
    }
    Some(names)
}

fn names(findings: &mut Findings<'_>, node: &Node) -> Option<BTreeSet<String>> {
    let items = findings.list(node)?;
    items.iter().map(|item| findings.filled(item).map(str::to_owned)).collect()
}

fn rule(findings: &mut Findings<'_>, node: &Node, grant: &Grant) -> Option<RuleName> {
    let text = findings.filled(node)?;
    let rule = grant.rules.iter().map(|rule| &rule.name).find(|name| name.as_str() == text);
    if rule.is_none() {
        let remedy = nearest(text, grant.rules.iter().map(|rule| rule.name.as_str()))
            .map_or_else(|| "name one of its rules".to_owned(), |near| format!("did you mean `{near}`?"));
        findings.at(node, "test-expect", format!("the grant `{}` has no rule `{text}`", grant.name), remedy);
    }
    rule.cloned()
}

/// One duration for all that have a TTL, or one for each by name.
fn ttl_limits(
    findings: &mut Findings<'_>,
    node: &Node,
    grant: &Grant,
    asked: Option<&[CredentialName]>,
) -> Option<Vec<(CredentialName, Duration)>> {
    let is_asked = |name: &CredentialName| asked.is_none_or(|asked| asked.contains(name));
    let lives = |name: &CredentialName| grant.credentials.get(name).is_some_and(|each| each.ttl.is_some());
    if let Content::Mapping(entries) = &node.content {
        let mut limits = Vec::new();
        for (key, below) in entries {
            let limit = findings.duration(below)?;
            match CredentialName::parse(&key.text).filter(|name| is_asked(name) && lives(name)) {
                Some(name) => limits.push((name, limit)),
                None => {
                    let message = format!("no credential `{}` with a TTL is asked for here", key.text);
                    findings.at_key(key, "test-credential", message, "name one that is, and that has a TTL");
                }
            }
        }
        return Some(limits);
    }
    let limit = findings.duration(node)?;
    let limits: Vec<_> =
        grant.credentials.keys().filter(|name| is_asked(name) && lives(name)).cloned().collect();
    if limits.is_empty() {
        let message = "none of the credentials has a TTL, so there is nothing that could be less";
        findings.at(node, "test-credential", message, "remove ttl_max");
        return None;
    }
    Some(limits.into_iter().map(|name| (name, limit)).collect())
}
