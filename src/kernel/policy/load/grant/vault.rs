//! A credential of kind `vault`: an engine, a path that the engine has, and what the engine is told beside it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Known, backend};
use crate::kernel::{
    lifetime::Lifetime,
    policy::{
        engines::{ENGINES, EngineSpec, Operation},
        target::{Engine, Kind, Leasing, Target, VaultTarget},
        template::{is_path, is_template, opaque},
        yaml::{Content, Fields, Findings, Node, nearest, plain_integer, reads_as_something_else},
    },
};

pub(super) fn read(findings: &mut Findings<'_>, node: &Node, known: &Known<'_>) -> Option<Target> {
    let mut fields = findings.fields(node)?;
    let before = findings.list.len();
    let named = fields.take("backend");
    let engine_node = fields.require(findings, "engine");
    let path_node = fields.require(findings, "path");
    let spec = engine_node.and_then(|node| engine(findings, node));
    let own = Own::take(&mut fields);
    fields.finish(findings);
    let backend = backend::read(findings, (Kind::Vault, node), named, known);
    let spec = spec?;
    let (mut engine, secret_fields) = own.refine(findings, spec, node)?;
    let path = path_node.and_then(|node| path(findings, node, spec, &mut engine))?;
    let version = own.version.map(|node| version(findings, node, spec));
    let chosen = own.fields.map(|node| names(findings, node));
    let parameters = parameters(findings, (node, own.parameters), spec);
    let target = VaultTarget {
        backend: backend?,
        engine,
        path,
        version: version.map_or(Some(None), |read| read.map(Some))?,
        fields: chosen.map_or(Some(None), |read| read.map(Some))?,
        parameters: parameters?,
        secret_fields,
    };
    (findings.list.len() == before).then(|| Target::Vault(Arc::new(target)))
}

fn engine(findings: &mut Findings<'_>, node: &Node) -> Option<&'static EngineSpec> {
    let word = findings.filled(node)?;
    let found = EngineSpec::by_name(word);
    if found.is_none() {
        let known = || ENGINES.iter().map(|spec| spec.engine.name);
        let remedy = match nearest(word, known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "write one of {}; `generic` reaches every other one",
                known().collect::<Vec<_>>().join(", ")
            ),
        };
        findings.at(node, "engine", format!("`{word}` is no engine that this version knows"), remedy);
    }
    found
}

/// Keys that some engines have.
struct Own<'n> {
    version: Option<&'n Node>,
    fields: Option<&'n Node>,
    parameters: Option<&'n Node>,
    lifetime: Option<&'n Node>,
    secret_fields: Option<&'n Node>,
    method: Option<&'n Node>,
}

impl<'n> Own<'n> {
    fn take(fields: &mut Fields<'n>) -> Self {
        Self {
            version: fields.take("version"),
            fields: fields.take("fields"),
            parameters: fields.take("parameters"),
            lifetime: fields.take("lifetime"),
            secret_fields: fields.take("secret_fields"),
            method: fields.take("method"),
        }
    }

    /// The engine as this credential has it: a generic one states what the known ones fix.
    fn refine(
        &self,
        findings: &mut Findings<'_>,
        spec: &EngineSpec,
        node: &Node,
    ) -> Option<(Engine, Vec<String>)> {
        let mut engine = spec.engine;
        let stated =
            [("lifetime", self.lifetime), ("secret_fields", self.secret_fields), ("method", self.method)];
        if !spec.is_generic() {
            let before = findings.list.len();
            for (key, node) in stated.iter().filter_map(|(key, node)| Some((key, (*node)?))) {
                let message = format!("the engine `{}` has its own `{key}`", engine.name);
                findings.at(
                    node,
                    "engine",
                    message,
                    "remove the key; `generic` is the engine that states it",
                );
            }
            return (findings.list.len() == before).then_some((engine, Vec::new()));
        }
        let (Some(lifetime), Some(secret)) = (self.lifetime, self.secret_fields) else {
            let remedy = "add `lifetime: leased` (or fixed, static) and `secret_fields: [password]`";
            findings.at(
                node,
                "engine",
                "`generic` must say how long its credentials live, and what of them is secret",
                remedy,
            );
            return None;
        };
        engine.lifetime = self::lifetime(findings, lifetime)?;
        engine.leasing = match engine.lifetime {
            Lifetime::Leased => Leasing::Due,
            Lifetime::Fixed | Lifetime::Static => Leasing::Refused,
        };
        engine.posts = match self.method {
            None => false,
            Some(node) => is_post(findings, node)?,
        };
        Some((engine, names(findings, secret)?))
    }
}

fn lifetime(findings: &mut Findings<'_>, node: &Node) -> Option<Lifetime> {
    let word = findings.filled(node)?;
    let lifetime = Lifetime::parse(word);
    if lifetime.is_none() {
        findings.at(node, "engine", format!("`{word}` is no lifetime"), "write leased, fixed or static");
    }
    lifetime
}

fn is_post(findings: &mut Findings<'_>, node: &Node) -> Option<bool> {
    match findings.filled(node)? {
        "get" => Some(false),
        "post" => Some(true),
        other => {
            findings.at(node, "engine", format!("`{other}` is no method"), "write get or post");
            None
        }
    }
}

/// A path that the engine has; what its operation asks of the job goes into the engine.
fn path(findings: &mut Findings<'_>, node: &Node, spec: &EngineSpec, engine: &mut Engine) -> Option<String> {
    let text = backend::templated(findings, node)?;
    // A value that fits is a segment's letters, so one of them stands for all.
    let shape = opaque(text).replace(|letter: char| letter.is_control(), "x");
    if !is_path(&shape) {
        let remedy = "write MOUNT/… in segments of A-Z a-z 0-9 . _ @ : = ~ -, without / at the begin or end";
        findings.at(node, "path", format!("`{text}` is no path of Vault"), remedy);
        return None;
    }
    let first = text.split('/').next().unwrap_or_default();
    if RESERVED.contains(&first) || is_template(first) {
        let remedy = "name the engine's mount first";
        findings.at(node, "path", format!("`{text}` does not begin with the mount of an engine"), remedy);
        return None;
    }
    if spec.operations.is_empty() {
        return Some(text.to_owned());
    }
    let Some(operation) = spec.operation(&shape) else {
        let words: Vec<String> = spec.operations.iter().map(Operation::shown).collect();
        let message = format!("the engine `{}` has no such path", engine.name);
        findings.at(node, "path", message, format!("write {}", words.join(" or ")));
        return None;
    };
    engine.input = operation.input;
    Some(text.to_owned())
}

fn version(findings: &mut Findings<'_>, node: &Node, spec: &EngineSpec) -> Option<u64> {
    if spec.engine.name != "kv2" {
        findings.at(node, "engine", format!("`{}` has no versions", spec.engine.name), "remove the key");
        return None;
    }
    let number = findings.integer(node)?;
    let version = u64::try_from(number).ok().filter(|version| *version > 0);
    if version.is_none() {
        findings.at(node, "engine", format!("{number} is no version"), "write 1 or more, or remove the key");
    }
    version
}

/// Names of fields: one or more, none twice.
fn names(findings: &mut Findings<'_>, node: &Node) -> Option<Vec<String>> {
    let names = findings.texts(node)?;
    if names.is_empty() {
        findings.at(node, "empty", "no field is named here", "name the fields, or remove the key");
        return None;
    }
    Some(names)
}

/// What the engine is sent: its own names, with values that the policy alone chooses.
fn parameters(
    findings: &mut Findings<'_>,
    (credential, node): (&Node, Option<&Node>),
    spec: &EngineSpec,
) -> Option<BTreeMap<String, Value>> {
    let mut read = BTreeMap::new();
    let before = findings.list.len();
    let entries = match node {
        Some(node) => findings.fields(node)?.rest().collect(),
        None => Vec::new(),
    };
    for (key, node) in entries {
        let is_ours = OURS.contains(&key.text.as_str());
        if is_ours || (!spec.is_generic() && !spec.parameters.contains(&key.text.as_str())) {
            let remedy = match spec.parameters {
                _ if is_ours => "remove it; Hallpass sends it itself".to_owned(),
                [] => "remove it; this engine takes no parameters from a policy".to_owned(),
                known => format!("known here: {}", known.join(", ")),
            };
            findings.at_key(
                key,
                "parameter",
                format!("`{}` is no parameter of `{}`", key.text, spec.engine.name),
                remedy,
            );
        } else if let Some(value) = value(findings, node) {
            read.insert(key.text.clone(), value);
        }
    }
    for name in spec.required.iter().filter(|name| !read.contains_key(**name)) {
        if findings.list.len() == before {
            let message = format!("the engine `{}` must be told `{name}` by the policy", spec.engine.name);
            findings.at(credential, "parameter", message, format!("add `parameters: {{ {name}: … }}`"));
        }
    }
    if spec.engine.name == "ssh" && read.get("valid_principals").is_some_and(names_everybody) {
        let remedy = "name the accounts: without, or with *, the certificate is good for all of them";
        findings.at(credential, "parameter", "`valid_principals` must name accounts", remedy);
    }
    (findings.list.len() == before).then_some(read)
}

fn names_everybody(value: &Value) -> bool {
    let is_wide = |text: &str| text.split(',').any(|each| each.trim().is_empty() || each.trim() == "*");
    match value {
        Value::String(text) => is_wide(text),
        Value::Array(items) => items.is_empty() || items.iter().any(|item| item.as_str().is_none_or(is_wide)),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) => true,
    }
}

/// A scalar, a list of texts or a mapping of texts.
fn value(findings: &mut Findings<'_>, node: &Node) -> Option<Value> {
    match &node.content {
        Content::Plain(text) if text == "true" || text == "false" => Some(Value::Bool(text == "true")),
        Content::Plain(text) if reads_as_something_else(text) => match plain_integer(text) {
            Some(number) => Some(number.into()),
            None => findings.text(node).map(Value::from),
        },
        Content::Plain(_) | Content::Quoted(_) => {
            backend::untemplated(findings, node, "a parameter").map(Value::from)
        }
        Content::Sequence(items) => {
            let texts = items.iter().map(|item| backend::untemplated(findings, item, "a parameter"));
            texts.map(|text| text.map(Value::from)).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        Content::Mapping(entries) => {
            let mut members = serde_json::Map::new();
            for (key, node) in entries {
                // `permit-pty: ""` is how an SSH extension is written.
                let text = findings.text(node).filter(|text| !is_template(text))?;
                members.insert(key.text.clone(), text.into());
            }
            Some(Value::Object(members))
        }
    }
}

/// What no credential reaches: Vault's own doors.
const RESERVED: [&str; 5] = ["auth", "cubbyhole", "identity", "sys", "v1"];
/// What Hallpass sends itself: from the TTL, or from the job's input.
const OURS: [&str; 5] = ["csr", "input", "lease", "public_key", "ttl"];
