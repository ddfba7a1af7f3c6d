//! What a permit reaches, as a table names it: the facts of a target, each by the word that grants have for it. A target
//! that is another is no narrower or wider for the evaluator, so only a table can notice it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Case, Expect, run::Fault};
use crate::kernel::{
    name::CredentialName,
    policy::{
        Permit,
        set::Grant,
        target::{Backend, Kind, Target},
        template::TargetTemplate,
        yaml::{Content, Findings, Node, nearest, plain_integer, reads_as_something_else},
    },
};

/// Facts by their words.
pub(super) type Facts = BTreeMap<&'static str, Value>;

/// The facts that are due of each credential; what is absent is not looked at.
pub(super) type Due = Vec<(CredentialName, Facts)>;

/// The words of a kind, the one that names the target first.
fn words(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Aws => &["role_arn", "backend", "managed_policies", "session_policy", "tags"],
        Kind::Oidc => &["audience"],
        Kind::Sealed => &["secret"],
        Kind::Vault => &["path", "backend", "engine", "fields", "parameters", "secret_fields", "version"],
    }
}

/// What a target is.
pub(super) fn facts(target: &Target) -> Facts {
    let mut facts = Facts::new();
    if let Some(name) = words(target.kind()).first() {
        facts.insert(name, target.as_str().into());
    }
    if let Backend::Named(name) = target.backend() {
        facts.insert("backend", (*name).into());
    }
    match target {
        Target::Aws(aws) => {
            let tags: Map<String, Value> =
                aws.tags.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
            facts.insert("tags", tags.into());
            facts.insert("managed_policies", aws.managed_policies.clone().into());
            if let Some(policy) = &aws.session_policy {
                facts.insert("session_policy", document(policy));
            }
        }
        Target::Oidc { .. } | Target::Sealed { .. } => {}
        Target::Vault(vault) => {
            facts.insert("engine", vault.engine.name.into());
            let parameters: Map<String, Value> =
                vault.parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            facts.insert("parameters", parameters.into());
            facts.insert("secret_fields", vault.secret_fields.clone().into());
            if let Some(fields) = &vault.fields {
                facts.insert("fields", fields.clone().into());
            }
            if let Some(version) = vault.version {
                facts.insert("version", version.into());
            }
        }
    }
    facts
}

/// A JSON document as a value, so that spaces in it are nothing.
fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// `{ db: database/creds/app }`, or `{ npm: { path: kv/data/ci/npm, fields: [token] } }`.
pub(super) fn read(
    findings: &mut Findings<'_>,
    node: &Node,
    grant: &Grant,
    asked: Option<&[CredentialName]>,
) -> Option<Due> {
    let before = findings.list.len();
    let mut due = Due::new();
    for (key, below) in findings.fields(node)?.rest() {
        let name = CredentialName::parse(&key.text);
        let is_asked = |name: &CredentialName| asked.is_none_or(|asked| asked.contains(name));
        let credential =
            name.as_ref().filter(|name| is_asked(name)).and_then(|name| grant.credentials.get(name));
        let (Some(name), Some(credential)) = (name, credential) else {
            let message = format!("no credential `{}` is asked for here", key.text);
            findings.at_key(key, "test-credential", message, "name one that is");
            continue;
        };
        due.push((name, of_one(findings, below, words(credential.target.0.kind()))?));
    }
    if due.is_empty() && findings.list.len() == before {
        findings.at(node, "empty", "no credential is named", "name what one reaches, or remove the key");
    }
    (findings.list.len() == before).then_some(due)
}

fn of_one(findings: &mut Findings<'_>, node: &Node, words: &'static [&'static str]) -> Option<Facts> {
    let Content::Mapping(entries) = &node.content else {
        let target = findings.filled(node)?;
        return words.first().map(|word| Facts::from([(*word, target.into())]));
    };
    if entries.is_empty() {
        findings.at(
            node,
            "empty",
            "nothing that it reaches is named",
            "name what it reaches, or remove the key",
        );
        return None;
    }
    let mut facts = Facts::new();
    for (key, below) in entries {
        let Some(word) = words.iter().find(|word| **word == key.text) else {
            let remedy = nearest(&key.text, words.iter().copied()).map_or_else(
                || format!("write {}", words.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!("`{}` is nothing that this kind of credential has", key.text);
            findings.at_key(key, "test-expect", message, remedy);
            continue;
        };
        let value = value(below);
        let value = match value.as_str() {
            Some(text) if *word == "session_policy" => document(text),
            Some(_) | None => value,
        };
        facts.insert(word, value);
    }
    Some(facts)
}

fn value(node: &Node) -> Value {
    match &node.content {
        Content::Plain(text) if text == "true" || text == "false" => Value::Bool(text == "true"),
        Content::Plain(text) if reads_as_something_else(text) => {
            plain_integer(text).map_or_else(|| text.as_str().into(), Value::from)
        }
        Content::Plain(text) | Content::Quoted(text) => text.as_str().into(),
        Content::Sequence(items) => items.iter().map(value).collect(),
        Content::Mapping(entries) => {
            entries.iter().map(|(key, below)| (key.text.clone(), value(below))).collect::<Map<_, _>>().into()
        }
    }
}

/// What a permit reaches otherwise than the case says.
pub(super) fn elsewhere(permit: &Permit, due: &Due) -> Option<Fault> {
    let credentials = || permit.grants().iter().flat_map(|grant| &grant.credentials);
    due.iter().find_map(|(name, due)| {
        let is = facts(&credentials().find(|each| each.name == *name)?.target);
        let (word, due) = differing(&is, due)?;
        let is = is.get(word).map_or_else(|| "absent".to_owned(), Value::to_string);
        Some(Fault {
            message: format!("the {word} of `{name}` is {is}, and {due} was expected"),
            remedy: "write here what the grant says, or mend the grant".to_owned(),
        })
    })
}

/// Whether a case that is permitted says of a credential what would not be so, were its target this one. What else would
/// become of the case, such as a guardrail's denial or another class, says nothing of the table.
pub(super) fn tells(case: &Case, name: &CredentialName, target: &TargetTemplate) -> bool {
    let Expect::Permit(due) = &case.expect else { return false };
    let expanded = target.expand(&case.identity);
    let is = facts(&expanded.as_ref().unwrap_or(target).0);
    due.reaches.iter().any(|(of, due)| of == name && differing(&is, due).is_some())
}

/// The first fact that is due and otherwise.
fn differing<'f>(is: &Facts, due: &'f Facts) -> Option<(&'static str, &'f Value)> {
    due.iter().find(|(word, due)| is.get(*word) != Some(due)).map(|(word, due)| (*word, due))
}
