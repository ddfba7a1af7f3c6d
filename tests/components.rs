//! `hallpass version --verbose` is true: the list of libraries within the binary is what cargo resolves for it.
//!
//! After the lock file changed, `HALLPASS_UPDATE=1 cargo test --test components` writes the list anew.

#![cfg(test)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

#[test]
fn components_are_those_that_cargo_builds_in() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/version/components.txt");
    let resolved = resolved();
    if std::env::var_os("HALLPASS_UPDATE").is_some() {
        fs::write(&file, &resolved).unwrap();
    }
    let listed = fs::read_to_string(&file).unwrap();
    assert!(
        listed == resolved,
        "run HALLPASS_UPDATE=1 cargo test --test components, and commit {}",
        file.display()
    );
}

/// What `cargo metadata` says: what the package reaches by ordinary dependencies, on Linux.
fn resolved() -> String {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let root = text(&metadata["resolve"]["root"]);
    let edges: BTreeMap<String, Vec<String>> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let ordinary = |dependency: &&Value| {
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null())
            };
            let dependencies = node["deps"].as_array().unwrap().iter().filter(ordinary);
            (text(&node["id"]), dependencies.map(|dependency| text(&dependency["pkg"])).collect())
        })
        .collect();
    let mut reached = BTreeSet::new();
    let mut next = vec![root.clone()];
    while let Some(id) = next.pop() {
        if reached.insert(id.clone()) {
            next.extend(edges[&id].iter().cloned());
        }
    }
    let mut lines: Vec<String> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| package["id"] != root.as_str() && reached.contains(&text(&package["id"])))
        // Procedural macros run in the compiler, and are in no binary.
        .filter(|package| {
            package["targets"].as_array().unwrap().iter().all(|target| target["kind"][0] != "proc-macro")
        })
        // A slash is how `OR` was written before SPDX expressions.
        .map(|package| {
            let licence = text(&package["license"]).replace(" / ", " OR ").replace('/', " OR ");
            format!("{} {} {licence}\n", text(&package["name"]), text(&package["version"]))
        })
        .collect();
    lines.sort();
    lines.concat()
}
