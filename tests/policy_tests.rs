//! `hallpass policy test` and `policy init` as an admin runs them, on the policies that are shipped: what they notice,
//! and how they end.

#![cfg(test)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

#[test]
fn shipped_policies_pass_and_notice_everything() {
    let output = policy(&["test", "--mutate", "--output", "json"], Path::new(env!("CARGO_MANIFEST_DIR")));

    let told = json(&output);
    assert_eq!(output.status.code(), Some(0), "{told:#}");
    assert_eq!((&told["ok"], &told["mutation"]["score"]), (&true.into(), &100.into()));
    assert!(told["mutation"]["weakened"].as_u64().unwrap() > 100);
    assert_eq!(told["findings"], serde_json::json!([]));
}

/// Every line that holds one key or list item of a grant, one after the other: without it the set does not load, or
/// some test fails. What decides nothing is left out, and so is what holds anyway: a class that the
/// grant's targets have, the longest life that the kind can honour, a switch that is on.
#[test]
fn every_line_of_a_shipped_grant_that_goes_is_noticed() {
    let home = shipped();
    let grants = files(&home.path().join("policies/grants"));
    let mut tried = 0;
    for path in grants.iter().filter(|path| !path.to_string_lossy().ends_with(".test.yaml")) {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let key = line.trim().split(':').next().unwrap();
            let is_idle = key.is_empty()
                || key.starts_with('#')
                || ["class", "description", "owners"].contains(&key)
                || ["ttl: 5m", "enabled: true"].iter().any(|idle| line.trim().starts_with(idle));
            if is_idle {
                continue;
            }
            // With everything that stands below it.
            let indent = |line: &str| line.len() - line.trim_start().len();
            let below = lines
                .iter()
                .skip(at + 1)
                .take_while(|each| each.trim().is_empty() || indent(each) > indent(line));
            let end = at + 1 + below.count();
            let kept: Vec<&str> = lines[..at].iter().chain(&lines[end..]).copied().collect();
            fs::write(path, kept.join("\n") + "\n").unwrap();
            let output = policy(&["test"], home.path());
            assert!(
                matches!(output.status.code(), Some(20 | 21)),
                "{}:{}: nobody noticed that `{}` is gone\n{}",
                path.display(),
                at + 1,
                line.trim(),
                text_of(&output)
            );
            tried += 1;
        }
        fs::write(path, text).unwrap();
    }
    assert!(tried > 80, "{tried}");
    assert_eq!(policy(&["test"], home.path()).status.code(), Some(0), "as it was");
}

#[test]
fn every_guardrail_that_goes_is_noticed() {
    let home = shipped();
    for path in files(&home.path().join("policies/guardrails")) {
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(policy(&["test"], home.path()).status.code(), Some(21), "{}", path.display());
        fs::write(&path, text).unwrap();
    }
}

#[test]
fn drafts_pass_their_own_tests_and_overwrite_nothing() {
    let home = tempfile::tempdir().unwrap();
    let claims = format!("{}/tests/fixtures/claims/github-actions.json", env!("CARGO_MANIFEST_DIR"));
    let draft = ["init", "--claims", &claims, "--grant", "deploy"];

    let output = policy(&draft, home.path());

    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output));
    assert!(text_of(&output).contains("NOBODY CHECKED THE SIGNATURE"));
    let tested = policy(&["test", "--mutate"], home.path());
    assert_eq!(tested.status.code(), Some(0), "{}", text_of(&tested));
    assert!(text_of(&tested).contains("mutation score 100 %"));
    let before = fs::read(home.path().join("policies/grants/deploy.yaml")).unwrap();
    for held in ["18412345678", "9f3182061f1e", "0b8f6f0e", "alice"] {
        let written = files(&home.path().join("policies/grants"))
            .into_iter()
            .map(|path| fs::read_to_string(path).unwrap());
        assert!(!written.collect::<String>().contains(held), "{held}");
    }
    let again = policy(&draft, home.path());
    assert_eq!(again.status.code(), Some(2), "{}", text_of(&again));
    assert_eq!(fs::read(home.path().join("policies/grants/deploy.yaml")).unwrap(), before);
}

#[test]
fn ends_tell_what_is_wrong() {
    let home = shipped();
    let test = home.path().join("policies/grants/payments/payments-prod.test.yaml");
    let good = fs::read_to_string(&test).unwrap();
    let grant = home.path().join("policies/grants/payments/payments-prod.yaml");
    let junit = home.path().join("junit.xml");

    let fail = good.replace(
        "name: another branch, use: deploy, set: { ref: refs/heads/dev }, expect: deny, failed: [ref]",
        "name: another branch, use: deploy, set: { ref: refs/heads/dev }, expect: permit",
    );
    assert_ne!(fail, good);
    fs::write(&test, fail).unwrap();
    let failed = policy(&["test", "--junit", junit.to_str().unwrap()], home.path());
    assert_eq!(failed.status.code(), Some(21));
    assert!(
        text_of(&failed).contains("policies/grants/payments/payments-prod.test.yaml:"),
        "{}",
        text_of(&failed)
    );
    let document = fs::read_to_string(&junit).unwrap();
    assert!(document.contains("<failure") && document.contains("another branch"), "{document}");

    let blind: String =
        good.lines().filter(|line| !line.contains("name: staging")).map(|line| format!("{line}\n")).collect();
    fs::write(&test, blind).unwrap();
    assert_eq!(policy(&["test"], home.path()).status.code(), Some(0));
    let survived = policy(&["test", "--mutate"], home.path());
    assert_eq!(survived.status.code(), Some(21));
    assert!(text_of(&survived).contains("expect: deny, failed: [environment]"), "{}", text_of(&survived));
    assert_eq!(policy(&["test", "--mutate", "--min-score", "99"], home.path()).status.code(), Some(0));

    fs::write(&test, good).unwrap();
    fs::write(&grant, "grant: payments-prod\n").unwrap();
    assert_eq!(policy(&["test"], home.path()).status.code(), Some(20));
    assert_eq!(policy(&["test", "nowhere"], home.path()).status.code(), Some(2));
}

fn policy(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.env_remove("HALLPASS_CONFIG").env("NO_COLOR", "1");
    command.arg("policy").args(arguments).current_dir(folder).output().unwrap()
}

/// A copy of the shipped policies, to be spoiled.
fn shipped() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for path in files(&root) {
        let copy = home.path().join("policies").join(path.strip_prefix(&root).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(path, copy).unwrap();
    }
    home
}

/// Every file below a folder but those with a leading dot.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path {
            path if path.file_name().unwrap().to_string_lossy().starts_with('.') => {}
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text_of(output)))
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Of the examples for backends, too, every weakening is noticed: of paths, roles, fields, parameters, times.
#[test]
fn examples_with_backends_notice_everything() {
    for example in ["aws", "vault"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
        let checked = policy(&["check", "policies"], &folder);
        assert_eq!(checked.status.code(), Some(0), "{example}: {}", text_of(&checked));
        assert!(text_of(&checked).contains(" 0 warnings"), "{example}: {}", text_of(&checked));
        let tested = policy(&["test", "policies", "--mutate"], &folder);
        assert_eq!(tested.status.code(), Some(0), "{example}: {}", text_of(&tested));
        assert!(text_of(&tested).contains("mutation score 100 %"), "{example}: {}", text_of(&tested));
    }
}

#[test]
fn shipped_schemas_are_those_that_the_binary_writes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for kind in ["grant", "guardrail", "issuer", "test"] {
        let shipped = fs::read_to_string(root.join(format!("policies/.schemas/{kind}.json"))).unwrap();
        let shipped: Value = serde_json::from_str(&shipped).unwrap();
        let written = json(&policy(&["schema", kind], root));
        assert_eq!(shipped, written, "write them anew by `hallpass policy schema --dir policies`");
    }
}
