//! Claims as test files write them: of the type that the profile's tokens have, never a claim that none of them has.

use serde_json::{Map, Value};

use crate::kernel::{
    identity::profile::{ClaimKind, Profile, REGISTERED},
    policy::{
        matcher::Path,
        set::IssuerPolicy,
        yaml::{Content, Findings, Key, Node, nearest, plain_integer},
    },
};

/// A claim's value as YAML writes it.
pub(super) fn value(findings: &mut Findings<'_>, node: &Node) -> Option<Value> {
    match &node.content {
        Content::Mapping(entries) => {
            let members = entries.iter().map(|(key, node)| Some((key.text.clone(), value(findings, node)?)));
            members.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        Content::Plain(text) if text == "true" || text == "false" => Some(Value::Bool(text == "true")),
        Content::Plain(text) if is_null(text) => {
            let message = "a null claim and one that is not there are different things";
            findings.at(
                node,
                "literal-type",
                message,
                "write `remove: [CLAIM]` for a claim that is not there",
            );
            None
        }
        Content::Plain(text) => match plain_integer(text) {
            Some(number) => Some(number.into()),
            None => findings.text(node).map(Value::from),
        },
        Content::Quoted(text) => Some(Value::from(text.clone())),
        Content::Sequence(items) => {
            items.iter().map(|item| value(findings, item)).collect::<Option<_>>().map(Value::Array)
        }
    }
}

/// A claim under its own name, of the profile's type.
pub(super) fn claim(
    findings: &mut Findings<'_>,
    key: &Key,
    node: &Node,
    profile: &'static Profile,
) -> Option<Value> {
    let value = value(findings, node)?;
    let spec = profile.claim(&key.text);
    // An object that holds claims; what stands inside is judged when the token is read.
    let is_object = value.is_object() && profile.inside(&key.text).next().is_some();
    if spec.is_none() && !profile.open && !is_object {
        let message = format!("tokens of the profile `{}` have no claim `{}`", profile.name, key.text);
        findings.at_key(key, "unknown-claim", message, did_you_mean(&key.text, profile));
        return None;
    }
    match spec {
        Some(spec) if !spec.kind.fits(&value) => {
            let message = format!(
                "tokens of the profile `{}` have `{}` as {}",
                profile.name,
                key.text,
                kind(spec.kind)
            );
            findings.at(node, "literal-type", message, as_it_is(spec.kind));
            None
        }
        Some(_) | None => Some(value),
    }
}

/// What a token says about itself may stand in a fixture, as it does in a real payload; issuer and audience must then
/// be those of the issuer's file, or the token would be refused before any policy is asked.
pub(super) fn registered(issuer: &IssuerPolicy, name: &str, value: &Value) -> Result<(), String> {
    let one = match value {
        Value::Array(items) => match items.as_slice() {
            [one] => one,
            [] | [_, ..] => value,
        },
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) | Value::String(_) => value,
    };
    let due = match name {
        "aud" => &issuer.audience,
        "iss" => &issuer.trusted.url,
        _ => return Ok(()),
    };
    if one.as_str() == Some(due.as_str()) {
        return Ok(());
    }
    Err(format!("`{name}` is not what the issuer `{}` has, which is {due}", issuer.trusted.name))
}

/// Puts a claim, or what a pointer names inside one.
pub(super) fn set(
    findings: &mut Findings<'_>,
    claims: &mut Map<String, Value>,
    (key, node): (&Key, &Node),
    profile: &'static Profile,
) -> Option<Value> {
    let path = path(findings, key)?;
    let is_known = path.below.is_empty() || profile.claim(&key.text).is_some();
    let value = if is_known { claim(findings, key, node, profile)? } else { value(findings, node)? };
    if look(claims, &path) == Some(&value) {
        findings.at(
            node,
            "test-change",
            format!("`{}` is this already", key.text),
            "set another value, or remove it",
        );
        return None;
    }
    if put(claims, &path, value.clone()).is_none() {
        let message = format!("there is nothing that `{}` could stand in", key.text);
        findings.at_key(
            key,
            "test-change",
            message,
            "point into what the fixture has, or set the whole claim",
        );
        return None;
    }
    Some(value)
}

/// Takes a claim away, or what a pointer names inside one.
pub(super) fn remove(
    findings: &mut Findings<'_>,
    claims: &mut Map<String, Value>,
    node: &Node,
) -> Option<String> {
    let text = findings.filled(node)?;
    let key = Key { text: text.to_owned(), line: node.line, column: node.column, width: node.width };
    let path = path(findings, &key)?;
    if take(claims, &path).is_none() {
        let message = format!("the fixture has no `{text}`");
        findings.at(node, "test-change", message, "name a claim that it has, or remove this");
        return None;
    }
    Some(text.to_owned())
}

fn path(findings: &mut Findings<'_>, key: &Key) -> Option<Path> {
    let path = Path::parse(&key.text);
    let Some(path) = path else {
        let remedy = "write `~1` for a slash and `~0` for a tilde (RFC 6901)";
        findings.at_key(key, "pointer", "the JSON Pointer has a `~` that stands for nothing", remedy);
        return None;
    };
    if path.below.is_empty() && key.text.starts_with('/') {
        findings.at_key(key, "pointer", "this points to a claim itself", format!("write `{}`", path.root));
        return None;
    }
    if REGISTERED.contains(&path.root.as_str()) {
        let message = format!("`{}` is checked for every token, before policy", path.root);
        findings.at_key(key, "registered-claim", message, "remove it; no policy decides by it");
        return None;
    }
    Some(path)
}

pub(super) fn look<'c>(claims: &'c Map<String, Value>, path: &Path) -> Option<&'c Value> {
    path.below.iter().try_fold(claims.get(&path.root)?, |value, part| match value {
        Value::Object(members) => members.get(part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => None,
    })
}

fn look_mut<'c>(claims: &'c mut Map<String, Value>, root: &str, below: &[String]) -> Option<&'c mut Value> {
    below.iter().try_fold(claims.get_mut(root)?, |value, part| match value {
        Value::Object(members) => members.get_mut(part),
        Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => None,
    })
}

pub(super) fn put(claims: &mut Map<String, Value>, path: &Path, value: Value) -> Option<()> {
    let Some((last, above)) = path.below.split_last() else {
        claims.insert(path.root.clone(), value);
        return Some(());
    };
    match look_mut(claims, &path.root, above)? {
        Value::Object(members) => {
            members.insert(last.clone(), value);
        }
        Value::Array(items) => match last.parse::<usize>().ok()? {
            at if at == items.len() => items.push(value),
            at => *items.get_mut(at)? = value,
        },
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => return None,
    }
    Some(())
}

fn take(claims: &mut Map<String, Value>, path: &Path) -> Option<Value> {
    let Some((last, above)) = path.below.split_last() else { return claims.remove(&path.root) };
    match look_mut(claims, &path.root, above)? {
        Value::Object(members) => members.remove(last),
        Value::Array(items) => {
            let at = last.parse::<usize>().ok()?;
            (at < items.len()).then(|| items.remove(at))
        }
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => None,
    }
}

fn did_you_mean(name: &str, profile: &'static Profile) -> String {
    nearest(name, profile.claims.iter().map(|claim| claim.name)).map_or_else(
        || "remove it, or use a claim of a real token: `hallpass whoami --token-file FILE`".to_owned(),
        |near| format!("did you mean `{near}`?"),
    )
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn kind(kind: ClaimKind) -> &'static str {
    match kind {
        ClaimKind::Boolean => "true or false",
        ClaimKind::Integer => "a whole number",
        ClaimKind::Text => "a text",
        ClaimKind::TextList => "a list of texts",
    }
}

fn as_it_is(kind: ClaimKind) -> &'static str {
    match kind {
        ClaimKind::Boolean => "write true or false, without quotes",
        ClaimKind::Integer => "write decimal digits, without quotes",
        ClaimKind::Text => "quote it",
        ClaimKind::TextList => "write [\"a\", \"b\"]",
    }
}
