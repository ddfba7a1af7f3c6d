//! Rules and their conditions.

mod pins;

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::{super::Issuers, Known, window};
use crate::kernel::{
    identity::profile::{ClaimKind, ClaimSpec, Profile, REGISTERED},
    json,
    name::{IssuerName, RuleName},
    policy::{
        matcher::{Condition, Glob, Matcher, Path},
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
    let mut names = HashSet::new();
    let mut whole = true;
    for item in items {
        match read(findings, item, known) {
            Some(rule) => {
                if !names.insert(rule.name.clone()) {
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
    let window_node = fields.take("window");
    fields.finish(findings);
    let window = window_node.map_or(Some(None), |node| window::read(findings, node).map(Some));
    let issuer = issuer(findings, issuer_node?, known.issuers, known.all_issuers_read)?;
    // An issuer whose own file is at fault: the rule cannot be judged, and is not at fault.
    let trusted = &known.issuers.get(&issuer)?.trusted;
    let profile = trusted.profile;
    let match_node = match_node?;
    let conditions = conditions(findings, match_node, profile)?;
    pins::judge(findings, match_node, trusted, &conditions);
    stands_on_more_than_an_attackers_word(findings, match_node, profile, &conditions);
    Some(Rule {
        name: name?,
        place: node.place(),
        issuer,
        conditions,
        window: window?,
        named_triggers: BTreeSet::new(),
        pins_project: false,
    })
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

/// The name of an issuer that a file names. Where one of those files could not be read, no name is at fault.
pub(in crate::kernel::policy::load) fn issuer(
    findings: &mut Findings<'_>,
    node: &Node,
    issuers: &Issuers,
    are_all_read: bool,
) -> Option<IssuerName> {
    let text = findings.filled(node)?;
    let name = IssuerName::parse(text).filter(|name| issuers.contains_key(name));
    if name.is_none() && are_all_read {
        let remedy = nearest(text, issuers.keys().map(|name| name.as_str())).map_or_else(
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
    let path = path(findings, key)?;
    let root = path.root.as_str();
    if REGISTERED.contains(&root) {
        let message = format!("`{root}` is checked for every token and is no condition");
        let remedy = "remove it; the issuer's file says audience and age";
        findings.at_key(key, "registered-claim", message, remedy);
        return None;
    }
    let nested = profile.claim(&key.text).filter(|spec| spec.is_nested());
    let spec = nested.or_else(|| profile.claim(root));
    if spec.is_none() && !profile.open {
        let names = profile.claims.iter().map(|claim| claim.name);
        let remedy = nearest(&key.text, names).map_or_else(
            || "see the claims of a real token by `hallpass whoami --token-file FILE`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("tokens of the profile `{}` have no claim `{}`", profile.name, key.text);
        findings.at_key(key, "unknown-claim", message, remedy);
        return None;
    }
    let is_inside = !path.below.is_empty() && nested.is_none();
    if let Some(spec) = spec.filter(|spec| is_inside && spec.kind != ClaimKind::TextList) {
        let message = format!("`{}` is one value, so there is nothing inside it to point to", spec.name);
        findings.at_key(key, "pointer", message, format!("write `{root}` and its whole value"));
        return None;
    }
    let kind = LiteralKind { spec, is_nested: is_inside };
    let matcher = matcher(findings, node, &kind)?;
    let case_insensitive = spec.is_some_and(|spec| spec.case_insensitive);
    Some(Condition { claim: key.text.clone(), path, matcher, case_insensitive, place: key.place() })
}

/// Where a condition looks. A pointer to a claim itself is a second spelling of its name: it would not count as a pin,
/// as the trigger's name or as the same key twice, so it is refused.
fn path(findings: &mut Findings<'_>, key: &Key) -> Option<Path> {
    let Some(path) = Path::parse(&key.text) else {
        let remedy = "write `~1` for a slash and `~0` for a tilde (RFC 6901)";
        findings.at_key(key, "pointer", "the JSON Pointer has a `~` that stands for nothing", remedy);
        return None;
    };
    let is_pointer = key.text.starts_with('/');
    if is_pointer && path.below.is_empty() && !path.root.starts_with('/') {
        let message = format!("the JSON Pointer leads to the claim `{}` itself", path.root);
        findings.at_key(key, "pointer", message, format!("write `{}`, without the slash", path.root));
        return None;
    }
    Some(path)
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
            let read: Vec<Option<Matcher>> =
                items.iter().map(|item| list_item(findings, item, kind)).collect();
            read.into_iter().collect::<Option<Vec<_>>>().map(Matcher::AnyOf)
        }
        Content::Mapping(_) => operator(findings, node, kind),
    }
}

/// A literal, a glob or `present: false`; the rest would make the whole list hold of nearly everything.
fn list_item(findings: &mut Findings<'_>, node: &Node, kind: &LiteralKind) -> Option<Matcher> {
    if matches!(node.content, Content::Sequence(_)) {
        findings.at(node, "type", "a list in a list has no meaning here", "write one flat list");
        return None;
    }
    let item = matcher(findings, node, kind)?;
    let (message, remedy) = match item {
        Matcher::AnyOf(_) | Matcher::Equals(_) | Matcher::Glob(_) | Matcher::Present(false) => {
            return Some(item);
        }
        Matcher::Not(_) => {
            ("a list is any of, so one `not` lets nearly everything in", "write { not: [a, b] }")
        }
        Matcher::Present(true) => ("a list is any of, so `present: true` lets everything in", "remove it"),
    };
    findings.at(node, "matcher", message, remedy);
    None
}

fn operator(findings: &mut Findings<'_>, node: &Node, kind: &LiteralKind) -> Option<Matcher> {
    let mut fields = findings.fields(node)?;
    let glob_node = fields.take("glob");
    let not_node = fields.take("not");
    let present_node = fields.take("present");
    fields.finish(findings);
    match (glob_node, not_node, present_node) {
        (Some(node), None, None) => glob(findings, node, kind),
        (None, Some(node), None) => negation(findings, node, kind),
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

fn negation(findings: &mut Findings<'_>, node: &Node, kind: &LiteralKind) -> Option<Matcher> {
    let inner = matcher(findings, node, kind)?;
    let speaks_of_presence = |inner: &Matcher| matches!(inner, Matcher::Present(_));
    let is_confusing = match &inner {
        Matcher::AnyOf(any) => any.iter().any(speaks_of_presence),
        Matcher::Not(_) | Matcher::Present(_) => true,
        Matcher::Equals(_) | Matcher::Glob(_) => false,
    };
    if is_confusing {
        let remedy = "write `present: …` by itself, and `not` around literals, globs or a list of them";
        findings.at(node, "matcher", "`not` of `not` or of `present` misleads its readers", remedy);
        return None;
    }
    Some(Matcher::Not(Box::new(inner)))
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
        if spec.file_at_ref && crosses_into_the_ref(pattern) {
            let message =
                format!("`**` before the `@` of `{}` also matches other files at other refs", spec.name);
            let remedy = "write the file's path out, or `*` for one segment; `**` only behind the `@`";
            findings.at(node, "glob", message, remedy);
            return None;
        }
        if spec.kind != ClaimKind::Text && !kind.is_nested {
            let message = format!("`{}` is no text, so no glob fits", spec.name);
            findings.at(node, "literal-type", message, "write a literal");
            return None;
        }
    }
    let glob = Glob::parse(pattern);
    if glob.is_none() {
        let remedy = "write * inside one segment, ** across segments, and at most 512 characters";
        findings.at(node, "glob", "this pattern has no meaning, or is too long", remedy);
    }
    glob.map(Matcher::Glob)
}

/// Paths and refs may hold an `@`, so a pattern that crosses segments before the one that it writes out could find its
/// file in the name of a ref (attack class F-09). One without an `@` speaks of no ref.
fn crosses_into_the_ref(pattern: &str) -> bool {
    pattern.split_once('@').is_some_and(|(file, _)| file.contains("**"))
}

fn literal(findings: &mut Findings<'_>, node: &Node, kind: &LiteralKind) -> Option<Value> {
    let due = match kind.spec {
        // Below a list of texts stand texts.
        Some(_) if kind.is_nested => Some(ClaimKind::Text),
        Some(spec) => Some(spec.kind),
        None => None,
    };
    match (due, &node.content) {
        (Some(ClaimKind::Boolean), _) => findings.boolean(node).map(Value::Bool),
        (Some(ClaimKind::Integer), _) => {
            findings.integer(node).and_then(|number| exact(findings, node, number))
        }
        (Some(ClaimKind::TextList), _) => {
            let message = "this claim is a list, which no literal equals";
            findings.at(node, "literal-type", message, "point into it, such as `/groups/0`");
            None
        }
        // A claim of an open profile is what its JSON says: a plain literal is a number or a boolean where it can be.
        (None, Content::Plain(text)) if text == "true" || text == "false" => {
            Some(Value::Bool(text == "true"))
        }
        (None, Content::Plain(text)) if plain_integer(text).is_some() => {
            plain_integer(text).and_then(|number| exact(findings, node, number))
        }
        (Some(ClaimKind::Text) | None, _) => {
            let text = text(findings, node)?;
            if kind.spec.is_some_and(|spec| spec.braced) && !text.starts_with('{') {
                let message = "this claim is a UUID in braces, and compares byte for byte";
                findings.at(node, "literal-type", message, format!("write \"{{{text}}}\""));
                return None;
            }
            Some(Value::String(text))
        }
    }
}

fn text(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = findings.text(node)?;
    if text.contains('*') {
        let remedy = format!("write {{ glob: \"{text}\" }} where a pattern is meant");
        findings.at(node, "glob-in-literal", "a star in a literal matches only a star", remedy);
        return None;
    }
    Some(text.to_owned())
}

/// A number that every JSON reader reads alike; others are unusable as claims.
fn exact(findings: &mut Findings<'_>, node: &Node, number: i64) -> Option<Value> {
    if !json::is_safe_integer(&number.into()) {
        let remedy = "quote it where the claim is a string; numbers over 2^53 - 1 are not exact in JSON";
        findings.at(node, "literal-type", "no claim can be this number", remedy);
        return None;
    }
    Some(Value::from(number))
}

/// Beside its pins a rule needs something that a passer-by cannot choose (attack class F-10).
fn stands_on_more_than_an_attackers_word(
    findings: &mut Findings<'_>,
    node: &Node,
    profile: &Profile,
    conditions: &[Condition],
) {
    let spec = |condition: &Condition| profile.claim(&condition.path.root);
    let is_chosen = |condition: &Condition| spec(condition).is_some_and(|spec| spec.attacker_controlled);
    let is_pin = |condition: &Condition| profile.tenant_pins.contains(&condition.claim.as_str());
    let carries = |condition: &Condition| {
        !is_chosen(condition) && !is_pin(condition) && !matches!(condition.matcher, Matcher::Present(_))
    };
    if let Some(chosen) = conditions.iter().find(|condition| is_chosen(condition))
        && !conditions.iter().any(carries)
    {
        let message = format!(
            "whoever writes a job can choose `{}`, and beside the tenant nothing else narrows",
            chosen.claim
        );
        let remedy = match profile.project {
            Some((project, _)) => format!("add a claim that a job cannot choose, such as {project}"),
            None => "add a claim that a job cannot choose".to_owned(),
        };
        findings.at(node, "attacker-controlled", message, remedy);
    }
}
