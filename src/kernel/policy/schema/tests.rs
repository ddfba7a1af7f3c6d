use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::all;
use crate::kernel::policy::{load::load, set::Files, suite::Suites, tests::documents};

const TEST: &str = r#"{
  "test": "deploy",
  "fixtures": { "main": { "issuer": "own", "at": "2027-01-13T10:00:00Z", "claims": { "sub": "job-1" } } },
  "cases": [{ "name": "a", "use": "main", "set": { "sub": "job-2" }, "expect": "deny", "limits": { "live": 1 } }]
}"#;

/// Every mapping of a tree, as the pointer that leads to it.
fn mappings(tree: &Value, at: &str, found: &mut Vec<String>) {
    match tree {
        Value::Object(members) => {
            found.push(at.to_owned());
            for (name, member) in members {
                mappings(member, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                mappings(item, &format!("{at}/{index}"), found);
            }
        }
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}

/// The keys that the schema knows where a pointer leads.
fn known_to_schema(root: &Value, pointer: &str) -> BTreeSet<String> {
    let mut here = vec![root.clone()];
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        here = here
            .iter()
            .flat_map(|schema| alternatives(root, schema))
            .filter_map(|schema| below(&schema, &step))
            .collect();
    }
    let objects = here.iter().flat_map(|schema| alternatives(root, schema));
    objects
        .filter_map(|schema| Some(schema.get("properties")?.as_object()?.keys().cloned().collect::<Vec<_>>()))
        .flatten()
        .collect()
}

fn alternatives(root: &Value, schema: &Value) -> Vec<Value> {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        return alternatives(root, root.pointer(name.trim_start_matches('#')).unwrap());
    }
    let nested = ["anyOf", "allOf"].iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
    let mut all: Vec<Value> = nested.flat_map(|each| alternatives(root, each)).collect();
    all.push(schema.clone());
    all
}

fn below(schema: &Value, step: &str) -> Option<Value> {
    let property = schema.pointer(&format!("/properties/{}", step.replace('~', "~0").replace('/', "~1")));
    let free = schema.get("additionalProperties").filter(|more| more.is_object());
    let item = schema.get("items").filter(|_| step.bytes().all(|byte| byte.is_ascii_digit()));
    property.or(item).or(free).cloned()
}

/// The keys that the loader names where it meets one that it does not know; `None` where any key may stand.
fn known_to_loader(path: &str, tree: &Value, pointer: &str) -> Option<BTreeSet<String>> {
    let mut spoiled = documents();
    let mut tree = tree.clone();
    tree.pointer_mut(pointer).unwrap()["qqqqqqqqqqqqqqqqqqqq"] = json!(1);
    let extra = (path.to_owned(), tree.to_string().into_bytes());
    let is_test = path.ends_with(".test.yaml");
    spoiled.remove(path);
    let files = spoiled.into_iter().map(|(path, tree)| (path.to_owned(), tree.to_string().into_bytes()));
    let files = Files(files.chain([extra]).collect());
    let findings = match load(&files, None, None) {
        Ok(loaded) if is_test => Suites::read(files, loaded.set).findings().to_vec(),
        Ok(_) => Vec::new(),
        Err(findings) => findings,
    };
    let unknown = findings.into_iter().find(|each| each.code == "unknown-key" && each.file == path)?;
    let list = unknown.remedy.strip_prefix("known here: ").expect("a list of keys").to_owned();
    Some(list.split(", ").map(str::to_owned).collect())
}

#[test]
fn schemas_know_the_keys_that_the_loader_knows() {
    let schemas = all();
    let mut documents: Vec<(&str, Value)> = documents().into_iter().collect();
    documents.push(("grants/team/deploy.test.yaml", serde_json::from_str(TEST).unwrap()));
    let mut compared = 0;
    for (path, tree) in documents {
        let kind = match path {
            path if path.ends_with(".test.yaml") => "test",
            path if path.starts_with("grants/") => "grant",
            path if path.starts_with("guardrails/") => "guardrail",
            _ => "issuer",
        };
        let mut pointers = Vec::new();
        mappings(&tree, "", &mut pointers);
        for pointer in pointers {
            let Some(loader) = known_to_loader(path, &tree, &pointer) else { continue };
            let schema = known_to_schema(&schemas[kind], &pointer);
            // A matcher's object is one of several: the loader reads them as one.
            assert_eq!(schema, loader, "{path}{pointer}");
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
}
