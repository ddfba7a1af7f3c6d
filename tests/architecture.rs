//! Keeps the laws of import (CONTRIBUTING.md, "The floors"): reads every path that shipped code under `src` names,
//! resolves it against the module it stands in, and compares it with what its floor may know.
//!
//! Tests are exempt (`#[cfg(test)]` modules and files called `tests.rs`): they may wire the real store under a use
//! case. Known holes: an item that a floor re-exports from elsewhere is not followed, and macros are read as the
//! tokens they are written as.

#![cfg(test)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn every_floor_imports_only_from_below() {
    let faults: Vec<String> =
        sources().iter().flat_map(|source| breaches(&source.path, &source.text)).collect();
    assert!(faults.is_empty(), "laws of import broken:\n{}", faults.join("\n"));
}

#[test]
fn clock_and_randomness_are_touched_in_one_place() {
    let faults: Vec<String> =
        sources().iter().flat_map(|source| ambient(&source.path, &source.text)).collect();
    assert!(faults.is_empty(), "ambient time or randomness:\n{}", faults.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let mute: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!") || source.text.starts_with("//!\n"))
        .map(|source| source.path)
        .collect();
    assert!(mute.is_empty(), "these files do not open with a `//!` sentence: {mute:?}");
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    const MOST_LINES: usize = 600;
    let long: Vec<String> = sources()
        .into_iter()
        .map(|source| {
            (source.text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or("").lines().count(), source.path)
        })
        .filter(|(lines, _)| *lines > MOST_LINES)
        .map(|(lines, path)| format!("{path}: {lines}"))
        .collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines before the tests: {long:?}");
}

#[test]
fn no_text_is_declared_to_be_safe_sql() {
    // The driver takes literals and builders that bind; this word is the way around both.
    let faults: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.text.contains("AssertSqlSafe"))
        .map(|source| source.path)
        .collect();
    assert!(faults.is_empty(), "statements that were put together: {faults:?}");
}

#[test]
fn what_wipes_secrets_stands_in_one_place() {
    // So that the build which shows that the scan of memory finds what is left can leave all of it out.
    let others: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.text.contains("zeroize::") && source.path != "src/kernel/wiping.rs")
        .map(|source| source.path)
        .collect();
    assert!(others.is_empty(), "use kernel::wiping instead of zeroize: {others:?}");
}

#[test]
fn there_is_one_of_each_stack() {
    const ONE_VERSION: &[&str] = &["aws-lc-rs", "axum", "h2", "http", "hyper", "reqwest", "rustls", "tokio"];
    const NO_VERSION: &[&str] = &["hyper-tls", "native-tls", "openssl", "ring", "serde_yaml", "serde_yml"];
    let tree = dependency_versions();
    for name in ONE_VERSION {
        let versions = tree.get(*name).map_or(0, BTreeSet::len);
        assert_eq!(versions, 1, "{name} is in the tree in {:?}", tree.get(*name));
    }
    for name in NO_VERSION {
        assert_eq!(tree.get(*name), None, "{name} must not be in the tree");
    }
}

#[test]
fn finds_each_planted_breach() {
    let planted = [
        ("src/kernel/policy/decide.rs", "use tokio::sync::Mutex;"),
        ("src/kernel/policy/decide.rs", "use std::{collections::HashMap, fs};"),
        ("src/kernel/policy/decide.rs", "use std::{time::{Duration, SystemTime}};"),
        ("src/kernel/secret.rs", "fn leak() { tracing::info!(\"x\"); }"),
        ("src/kernel/secret.rs", "use crate::broker::Ambient;"),
        ("src/kernel/ledger/entry.rs", "use super::super::super::broker::ports;"),
        ("src/broker/exchange.rs", "use crate::{kernel::id, adapters::store};"),
        ("src/broker/mod.rs", "use super::http::problem;"),
        ("src/broker/exchange.rs", "fn home() { std::env::var(\"HOME\"); }"),
        ("src/broker/ports.rs", "use rusqlite as db;"),
        ("src/adapters/store/sqlite.rs", "use crate::adapters::mint::sealed;"),
        ("src/adapters/mint/sealed.rs", "use super::oidc::Assertion;"),
        ("src/adapters/mint/sealed.rs", "use crate::adapters::vault::VaultClient;"),
        ("src/adapters/vault/client.rs", "use crate::adapters::mint::vault::Minter;"),
        ("src/adapters/mint/sealed.rs", "use super::super::store::Sqlite;"),
        ("src/adapters/issuer_keys.rs", "use crate::cli::config;"),
        ("src/http/exchange.rs", "pub(crate) use crate::adapters::store;"),
        ("src/http/exchange.rs", "fn f() -> rusqlite::Connection {}"),
    ];
    for (path, text) in planted {
        assert_eq!(breaches(path, text).len(), 1, "{path}: {text}: {:?}", breaches(path, text));
    }
    for text in ["let at = Timestamp::now();", "use aws_lc_rs::rand;", "let id = uuid::Uuid::now_v7();"] {
        assert_eq!(ambient("src/cli/serve.rs", text).len(), 1, "{text}");
    }
}

#[test]
fn accuses_nobody_wrongly() {
    let innocent = [
        (
            "src/kernel/policy/decide.rs",
            "// use tokio::sync::Mutex;\nlet text = \"std::fs\"; let raw = r#\"std::env\"#;",
        ),
        (
            "src/kernel/policy/decide.rs",
            "use std::time::Duration; use super::target::Target; use crate::kernel::id;",
        ),
        (
            "src/kernel/policy/decide.rs",
            "#[cfg(test)]\nmod tests { use tokio::sync::Mutex; fn f() { std::fs::read(\"\"); } }",
        ),
        ("src/kernel/secret.rs", "impl<'a> Secret<'a> { const QUOTE: char = '\"'; fn f(tokio: u8) {} }"),
        (
            "src/broker/exchange.rs",
            "use super::ports; use crate::kernel::{id, policy::{self, Kind}}; use tokio::sync::oneshot;",
        ),
        (
            "src/adapters/store/sqlite.rs",
            "use super::{schema, Store}; use crate::{broker::ports, kernel::id}; use rusqlite::Row;",
        ),
        ("src/adapters/mint/sealed.rs", "use super::Tools; use crate::adapters::mint::shared_word;"),
        ("src/adapters/mint/vault.rs", "use crate::adapters::vault::VaultClient;"),
        (
            "src/http/exchange.rs",
            "use axum::Router; use crate::broker::Broker; use http::StatusCode; use super::problem;",
        ),
        ("src/cli/serve.rs", "use crate::{adapters, broker, http, kernel};"),
    ];
    for (path, text) in innocent {
        assert_eq!(breaches(path, text), Vec::<String>::new(), "{path}: {text}");
    }
    assert_eq!(ambient("src/broker/ambient.rs", "let at = Timestamp::now();"), Vec::<String>::new());
}

// ------------------------------------------------------------------------------------------------------- the laws

/// What a floor may not name: other floors, and what lies outside of the crate.
struct Law {
    floor: &'static str,
    above: &'static [&'static str],
    outside: &'static [&'static str],
}

const LAWS: &[Law] = &[
    Law {
        floor: "kernel",
        above: &["adapters", "broker", "cli", "http"],
        outside: &[
            "aws_lc_rs::rand",
            "axum",
            "clap",
            "getrandom",
            "governor",
            "hyper",
            "hyper_util",
            "rand",
            "reqwest",
            "rusqlite",
            "rustix",
            "rustls",
            "sqlx",
            "std::env",
            "std::fs",
            "std::io",
            "std::net",
            "std::process",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "tokio",
            "tokio_rustls",
            "tokio_util",
            "tower",
            "tracing",
            "tracing_subscriber",
        ],
    },
    Law {
        floor: "broker",
        above: &["adapters", "cli", "http"],
        outside: &[
            "axum",
            "clap",
            "http",
            "hyper",
            "hyper_util",
            "reqwest",
            "rusqlite",
            "rustls",
            "sqlx",
            "std::env",
            "std::fs",
            "std::process",
            "tokio::fs",
            "tokio::net",
            "tower",
        ],
    },
    Law { floor: "adapters", above: &["cli", "http"], outside: &["axum", "clap"] },
    Law {
        floor: "http",
        above: &["adapters", "cli"],
        outside: &["clap", "reqwest", "rusqlite", "sqlx", "std::env"],
    },
];

/// The laws that a file breaks.
fn breaches(path: &str, text: &str) -> Vec<String> {
    let module = module_of(path);
    let Some(law) = LAWS.iter().find(|law| module.first().is_some_and(|floor| floor == law.floor)) else {
        return Vec::new();
    };
    let named: BTreeSet<Vec<String>> = paths(text).into_iter().map(|named| resolve(&module, named)).collect();
    named
        .iter()
        .filter(|named| breaks(law, &module, named))
        .map(|named| format!("{path}: {}", named.join("::")))
        .collect()
}

fn breaks(law: &Law, module: &[String], named: &[String]) -> bool {
    match named.split_first() {
        Some((root, inside)) if root == "crate" => {
            let Some(floor) = inside.first() else { return false };
            law.above.contains(&floor.as_str()) || (floor == "adapters" && !is_own_adapter(module, inside))
        }
        _ => law.outside.iter().any(|outside| {
            let outside: Vec<&str> = outside.split("::").collect();
            named.len() >= outside.len() && outside.iter().zip(named).all(|(left, right)| left == right)
        }),
    }
}

/// Adapters are blind to each other. A room is one adapter, but `mint` holds one per file: a minter may know what
/// stands in `mint` itself, and no other minter.
fn is_own_adapter(module: &[String], named: &[String]) -> bool {
    let (Some(own), Some(other)) = (module.get(1), named.get(1)) else { return true };
    // The hardened way out is no outside system: every adapter that fetches goes through it.
    if own != other {
        let is_minter_of = own == "mint" && module.get(2) == Some(other);
        // A backend's client is a room of its own, and only its minter comes in.
        return other == "http_client" || (other == "vault" && is_minter_of);
    }
    let minters = ["sealed", "oidc", "vault", "aws", "gcp", "azure", "github", "kubernetes", "ssh", "sops"];
    match (own.as_str(), module.get(2), named.get(2)) {
        ("mint", Some(own), Some(other)) => own == other || !minters.contains(&other.as_str()),
        _ => true,
    }
}

/// Where clock and randomness may be named.
const ALLOWED: &[&str] = &["src/broker/ambient.rs"];

/// Uses of clock and randomness elsewhere.
fn ambient(path: &str, text: &str) -> Vec<String> {
    const TOUCHES: &[&str] = &[
        "SystemTime::now",
        "Timestamp::now",
        "Zoned::now",
        "Uuid::new_v4",
        "Uuid::now_v7",
        "aws_lc_rs::rand",
        "getrandom",
        "rand",
        "SystemRandom",
    ];
    if ALLOWED.contains(&path) {
        return Vec::new();
    }
    paths(text)
        .into_iter()
        .map(|named| named.join("::"))
        .filter(|named| {
            TOUCHES.iter().any(|touch| {
                named == touch
                    || named.starts_with(&format!("{touch}::"))
                    || (touch.contains("::now") || touch.contains("_v"))
                        && named.ends_with(&format!("::{touch}"))
            })
        })
        .map(|named| format!("{path}: {named}"))
        .collect()
}

// ------------------------------------------------------------------------------------------------ reading sources

struct Source {
    path: String,
    text: String,
}

/// Every file under `src`, by its path from the top.
fn sources() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![top.join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source {
                    path: path.strip_prefix(top).unwrap().to_str().unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    assert!(found.len() > 30, "the sources were not found");
    let is_test =
        |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/") || path.ends_with("/testing.rs");
    found.retain(|source| !is_test(&source.path));
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found
}

/// `src/kernel/policy/mod.rs` is `kernel::policy`.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
    let mut module: Vec<String> = inside.split('/').map(str::to_owned).collect();
    module.pop_if(|last| last == "mod" || last == "lib" || last == "main");
    module
}

/// Turns `super::` and `self::` into `crate::`.
fn resolve(module: &[String], named: Vec<String>) -> Vec<String> {
    let relative = named.iter().take_while(|word| *word == "super" || *word == "self").count();
    if relative == 0 {
        return named;
    }
    let ups = named.iter().take(relative).filter(|word| *word == "super").count();
    let base = module.iter().take(module.len().saturating_sub(ups)).cloned();
    std::iter::once("crate".to_owned()).chain(base).chain(named.into_iter().skip(relative)).collect()
}

/// Every path that the shipped part of a file names: `use` trees flattened, and paths in expressions and types.
fn paths(text: &str) -> Vec<Vec<String>> {
    let tokens = without_tests(tokens(text));
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token == "use" {
            let end = tokens
                .iter()
                .skip(at)
                .position(|token| token == ";")
                .map_or(tokens.len(), |length| at + length);
            flatten(tokens.get(at + 1..end).unwrap_or(&[]), &[], &mut found);
            at = end;
        } else if is_word(token) {
            let mut named = vec![token.clone()];
            while let (Some("::"), Some(next)) = (tokens.get(at + 1).map(String::as_str), tokens.get(at + 2))
            {
                if !is_word(next) {
                    break;
                }
                named.push(next.clone());
                at += 2;
            }
            if named.len() > 1 || tokens.get(at + 1).is_some_and(|next| next == "::") {
                found.push(named);
            }
        }
        at += 1;
    }
    found
}

/// Flattens the tokens of a `use` tree.
fn flatten(tree: &[String], prefix: &[String], found: &mut Vec<Vec<String>>) {
    let mut depth = 0_usize;
    let branches = tree.split(|token| {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        token == "," && depth == 0
    });
    for branch in branches.filter(|branch| !branch.is_empty()) {
        let mut named = prefix.to_vec();
        let words = branch.iter().take_while(|token| *token != "{" && *token != "as");
        named
            .extend(words.filter(|token| is_word(token) && (*token != "self" || prefix.is_empty())).cloned());
        match branch.iter().position(|token| token == "{") {
            Some(open) => flatten(branch.get(open + 1..branch.len() - 1).unwrap_or(&[]), &named, found),
            None => found.push(named),
        }
    }
}

/// Drops everything under `#[cfg(test)]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut rest = tokens.as_slice();
    while let Some((first, after)) = rest.split_first() {
        if !(rest.len() > mark.len() && rest.iter().zip(mark).all(|(left, right)| left == right)) {
            kept.push(first.clone());
            rest = after;
            continue;
        }
        rest = rest.get(marked(rest)..).unwrap_or(&[]);
    }
    kept
}

/// How many tokens the mark at the start is about: an item, or a variant, field or arm, which ends where what is around it
/// does.
fn marked(tokens: &[String]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" if depth == 0 => return at,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth == 0 && token == "}" {
                    return at + 1;
                }
            }
            ";" | "," if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Words, `::` and single marks; comments, strings, characters and lifetimes left out.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphabetic() || first == '_' {
            let length =
                rest.find(|each: char| !(each.is_alphanumeric() || each == '_')).unwrap_or(rest.len());
            found.push(rest.get(..length).unwrap().to_owned());
            length
        } else if rest.starts_with("::") {
            found.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                found.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = rest.get(length..).unwrap();
    }
    found
}

/// The length of a string, character or lifetime at the start of the text.
fn literal(text: &str) -> Option<usize> {
    let prefixed = text.trim_start_matches(['b', 'c']);
    let lead = text.len() - prefixed.len();
    if lead > 1 {
        return None;
    }
    if let Some(raw) = prefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw.get(hashes..).is_some_and(|quote| quote.starts_with('"')) {
            let close = format!("\"{}", "#".repeat(hashes));
            let inside = raw.get(hashes + 1..)?;
            return inside.find(&close).map(|end| lead + 1 + hashes + 1 + end + close.len());
        }
    }
    if prefixed.starts_with('"') {
        return Some(lead + quoted(prefixed, '"'));
    }
    if lead > 0 || !prefixed.starts_with('\'') {
        return (lead > 0 && prefixed.starts_with('\'')).then(|| lead + quoted(prefixed, '\''));
    }
    let mut inside = prefixed.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => Some(quoted(prefixed, '\'')),
        // A lifetime: the mark alone, its word is harmless.
        _ => Some(1),
    }
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, each) in text.char_indices().skip(1) {
        match each {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if each == quote => return at + quote.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

// --------------------------------------------------------------------------------------------------- dependencies

/// Names and versions of everything that is linked into the binary.
fn dependency_versions() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let mut tree: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            tree.entry(name.to_owned()).or_default().insert(version.to_owned());
        }
    }
    tree
}
