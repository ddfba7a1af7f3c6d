//! What the fuzzers drive: every reader of bytes that strangers or admins write, each with the laws that must hold
//! for whatever it accepts.
//!
//! It exists in tests and under `--cfg fuzzing` only, and is no part of the library. The fuzzers of `fuzz/` and the
//! replay of their corpora below call the same functions, so that a found bug stays found on a stable compiler.
//! A broken law is a panic.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::{
    adapters::http_client::read_url,
    http::reads_as_exchange,
    kernel::{
        identity::{
            JobIdentity,
            discovery::read_jwks_uri,
            keys::KeySet,
            profile::{Algorithm, Profile},
            profiles,
            token::RawToken,
        },
        json::{Bounds, read_bounded, read_strict, write_canonical},
        name::IssuerName,
        policy::{
            finding::{self, Finding, Severity},
            load,
            matcher::Glob,
            set::Files,
        },
        secret::Secret,
    },
};

/// A target's name, which is that of its corpus, and what it drives.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("discovery", discovery),
    ("exchange_body", exchange_body),
    ("glob", glob),
    ("json", json),
    ("jwks", jwks),
    ("policy", policy),
    ("token", token),
];

/// A token's text: what is accepted has one spelling and names no more than it may; its claims make an identity for
/// every profile, or are refused.
pub fn token(data: &[u8]) {
    let Ok(token) = RawToken::read(Secret::new(data.to_vec())) else { return };
    let parts: Vec<&[u8]> = data.split(|byte| *byte == b'.').collect();
    let &[header, payload, _] = parts.as_slice() else {
        return assert_eq!(parts.len(), 3, "accepted, and not three parts");
    };
    for part in &parts {
        let bytes = URL_SAFE_NO_PAD.decode(part);
        assert!(
            bytes.is_ok_and(|bytes| URL_SAFE_NO_PAD.encode(bytes).as_bytes() == *part),
            "one text, two spellings"
        );
    }
    let [header, claims] = [header, payload].map(as_object);
    for name in ["b64", "crit", "cty", "zip"] {
        assert!(!header.contains_key(name), "accepted with `{name}`");
    }
    assert!(header.get("typ").is_none_or(|typ| typ == "JWT"), "accepted as another kind of token");
    assert_eq!(claims.get("iss").and_then(Value::as_str), Some(token.unverified_issuer()), "another issuer");
    let kid = header.get("kid").and_then(Value::as_str).unwrap_or_default();
    assert_eq!(kid, token.unverified_kid(), "another key");
    assert_eq!(token.check_kid().is_ok(), !kid.is_empty(), "a token without a key's name");
    let named = header.get("alg").and_then(Value::as_str);
    assert_eq!(named.and_then(Algorithm::parse), token.unverified_algorithm(), "another algorithm");
    for profile in profiles::ALL {
        if let Ok(algorithm) = token.check_algorithm(profile) {
            assert!(profile.algorithms.contains(&algorithm), "an algorithm that is not of {}", profile.name);
            assert_eq!(named, Some(algorithm.as_str()), "an algorithm by another name");
        }
        identity(profile, &claims);
    }
}

/// Reads the payload as if the signature had held: the reader of claims is behind it, and must not lean on it.
fn identity(profile: &'static Profile, claims: &Map<String, Value>) {
    let Some(issuer) = IssuerName::parse("fuzz") else { return };
    let now = jiff::Timestamp::UNIX_EPOCH;
    let Ok(identity) = JobIdentity::from_claims(issuer, profile, claims.clone(), now) else { return };
    // `sub` is made up where it is absent; verification demands it itself.
    for claim in profile.claims.iter().filter(|claim| claim.required && claim.name != "sub") {
        let found = match claim.name.strip_prefix('/') {
            None => claims.get(claim.name),
            Some(pointer) => pointer
                .split('/')
                .try_fold(None, |inside: Option<&Value>, part| {
                    inside.map_or(claims.get(part), |value| value.get(part)).map(Some)
                })
                .flatten(),
        };
        assert!(found.is_some_and(|value| claim.kind.fits(value)), "no {}", claim.name);
    }
    if let Some(key) = identity.job_key() {
        assert_eq!(Some(key), identity.job_key(), "two keys of one job");
    }
    for name in identity.unusable() {
        assert!(identity.claims().get(name).is_none(), "`{name}` is usable and is not");
    }
}

fn as_object(part: &[u8]) -> Map<String, Value> {
    let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    let members = read_bounded(&bytes).ok().and_then(|value| value.as_object().cloned());
    assert!(members.is_some(), "accepted, and no JSON object");
    members.unwrap_or_default()
}

/// The strict reader: what it accepts, `serde_json` reads as the same value; the canonical form reads back as itself.
pub fn json(data: &[u8]) {
    const BOUNDS: Bounds = Bounds { depth: 8, nodes: 1024, string_bytes: 2048 };
    let Ok(value) = read_strict(data, BOUNDS) else { return };
    // The reference reads some names as messages to itself; see `read_bounded`.
    if !has_private_name(&value) {
        assert_eq!(serde_json::from_slice::<Value>(data).ok(), Some(value.clone()), "read as another value");
    }
    assert_eq!(read_bounded(data).as_ref(), Ok(&value), "bounds change what is read");
    let Ok(canonical) = write_canonical(&value) else { return };
    // A double beyond 2^53 is written as an integer, which our writer would refuse to begin with; whoever verifies
    // canonical bytes asks the general canonicaliser, as here.
    let again = read_bounded(&canonical).ok().and_then(|value| serde_json_canonicalizer::to_vec(&value).ok());
    assert_eq!(again, Some(canonical), "the canonical form is not canonical");
}

fn has_private_name(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        Value::Array(items) => items.iter().any(has_private_name),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.starts_with("$serde_json::private::") || has_private_name(value)),
    }
}

/// A key set: what is kept was there, is bound to one algorithm, and no secret is among it.
pub fn jwks(data: &[u8]) {
    const ALL: &[Algorithm] =
        &[Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Ps256, Algorithm::Rs256];
    let Ok(set) = KeySet::parse(data, ALL) else { return };
    let published = read_bounded(data).unwrap_or_default();
    let published = published.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    assert_eq!(set.usable() + set.left_out(), published.len(), "keys out of nowhere");
    assert!(set.usable() > 0, "a set without keys");
    let mut found = 0;
    let kids: BTreeSet<&str> = published.iter().filter_map(|jwk| jwk.get("kid")?.as_str()).collect();
    for (kid, algorithm) in kids.iter().flat_map(|kid| ALL.iter().map(move |algorithm| (*kid, *algorithm))) {
        let Some(key) = set.find(kid, algorithm) else { continue };
        found += 1;
        assert_eq!((key.kid(), key.algorithm()), (kid, algorithm), "a key under another's name");
        let is_there = published.iter().any(|jwk| {
            let names = |name: &str, due: &str| jwk.get(name).is_none_or(|value| value == due);
            jwk.get("kid").is_some_and(|each| each == kid)
                && names("alg", algorithm.as_str())
                && names("use", "sig")
                && jwk.get("kty").is_some_and(|kty| kty != "oct")
                && jwk.get("d").is_none()
        });
        assert!(is_there, "a key that no JWK of the set says");
    }
    assert_eq!(found, set.usable(), "a key that nobody can find");
    // A profile with one algorithm never gets a key of another.
    for algorithm in ALL {
        if let Ok(narrow) = KeySet::parse(data, &[*algorithm]) {
            assert!(narrow.usable() <= set.usable(), "fewer algorithms, more keys");
        }
    }
}

/// A discovery document: what is accepted speaks of the one issuer, and its address is the one that it names.
pub fn discovery(data: &[u8]) {
    const ISSUER: &str = "https://issuer.test";
    let Ok(jwks_uri) = read_jwks_uri(data, ISSUER) else { return };
    let document = read_bounded(data).unwrap_or_default();
    assert_eq!(document.get("issuer").and_then(Value::as_str), Some(ISSUER), "another issuer's");
    assert_eq!(document.get("jwks_uri").and_then(Value::as_str), Some(jwks_uri.as_str()), "another address");
    for private in [false, true] {
        let Ok(url) = read_url(&jwks_uri, private) else { continue };
        let plain = url.scheme() == "http" && private;
        assert!(url.scheme() == "https" || plain, "an address of another scheme");
        assert!(url.username().is_empty() && url.password().is_none(), "an address with a password in it");
    }
}

/// An exchange's body: what is accepted is within the contract's bounds whoever reads it.
pub fn exchange_body(data: &[u8]) {
    if !reads_as_exchange(data) {
        return;
    }
    let body = read_bounded(data).unwrap_or_default();
    let members = body.as_object().map(|members| members.keys().map(String::as_str).collect::<Vec<_>>());
    let known = |name: &&str| matches!(*name, "dry_run" | "grants" | "reason");
    assert!(members.is_some_and(|members| members.iter().all(known)), "an unknown member");
    let grants = body.get("grants").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    assert!((1..=8).contains(&grants.len()), "{} grants", grants.len());
    let credentials = grants.iter().filter_map(|grant| grant.get("credentials")?.as_array());
    assert!(credentials.map(Vec::len).sum::<usize>() <= 16, "too many credentials");
    let name = |grant: &Value| grant.as_str().or_else(|| grant.get("name")?.as_str()).map(str::to_owned);
    let names: Option<BTreeSet<String>> = grants.iter().map(name).collect();
    assert_eq!(names.map(|names| names.len()), Some(grants.len()), "one grant twice");
}

/// A policy set: files in, and the same answer each time; a finding points into a file that is there. A line
/// `--- PATH` begins a file; what stands before the first is a grant's.
pub fn policy(data: &[u8]) {
    let files = files_of(data);
    let load = || match load::load(&files, None, None) {
        Ok(loaded) => Ok((loaded.set.digest, loaded.set.names, loaded.warnings)),
        Err(findings) => Err(findings),
    };
    let first = load();
    assert!(load() == first, "two answers to one set");
    let is_error = |found: &Finding| found.severity == Severity::Error;
    let findings = match first {
        Ok((digest, _, warnings)) => {
            assert_eq!(digest, files.digest(), "the digest of other files");
            assert!(!warnings.iter().any(is_error), "in force in spite of an error");
            warnings
        }
        Err(findings) => {
            assert!(findings.iter().any(is_error), "refused without a reason");
            findings
        }
    };
    for found in findings {
        let known = finding::CODES.iter().any(|(code, _)| *code == found.code);
        assert!(known, "the finding `{}` is in no list", found.code);
        assert!(!found.message.is_empty() && !found.remedy.is_empty(), "a finding that says nothing");
        check_place(&files, &found);
    }
}

/// Whether the place of a finding can be looked at: its file is there, and has the line.
fn check_place(files: &Files, found: &Finding) {
    let Some(bytes) = files.0.get(&found.file) else { return };
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(found.line >= 1 && found.column >= 1, "places are counted from 1: {found}");
    assert!(found.line <= lines.saturating_add(1), "line {} of {lines}: {found}", found.line);
}

fn files_of(data: &[u8]) -> Files {
    let mut path = "grants/fuzz.yaml".to_owned();
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let header = line.strip_prefix(b"--- ").and_then(|rest| std::str::from_utf8(rest).ok());
        match header.map(str::trim).filter(|path| !path.is_empty()) {
            Some(named) => path = named.to_owned(),
            None => files.entry(path.clone()).or_default().extend_from_slice(line),
        }
    }
    Files(files)
}

/// A pattern and a text, with a newline between: the matcher agrees with the plainest reading of the rule.
pub fn glob(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((pattern, text)) = text.split_once('\n') else { return };
    // The reference takes time exponential in the stars; enough stars to find a fault are few.
    if pattern.matches('*').count() > 8 || text.chars().count() > 48 {
        return;
    }
    let Some(glob) = Glob::parse(pattern) else {
        assert!(pattern.is_empty() || pattern.contains("***") || pattern.chars().count() > 512, "refused");
        return;
    };
    let tokens: Vec<char> = pattern.chars().collect();
    let letters: Vec<char> = text.chars().collect();
    assert_eq!(glob.matches(text, false), naive(&tokens, &letters, false), "{pattern:?} on {text:?}");
    assert_eq!(glob.matches(text, true), naive(&tokens, &letters, true), "{pattern:?} on {text:?}, any case");
    assert_eq!(glob.as_str(), pattern, "another pattern");
}

/// The rule as a sentence: `**` takes any letters, `*` any but a slash, and each other letter itself.
fn naive(pattern: &[char], text: &[char], any_case: bool) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        (['*', '*', rest @ ..], _) => {
            naive(rest, text, any_case) || matches!(text, [_, more @ ..] if naive(pattern, more, any_case))
        }
        (['*', rest @ ..], _) => {
            naive(rest, text, any_case)
                || matches!(text, [letter, more @ ..] if *letter != '/' && naive(pattern, more, any_case))
        }
        ([due, rest @ ..], [letter, more @ ..]) => {
            let same = if any_case { due.eq_ignore_ascii_case(letter) } else { due == letter };
            same && naive(rest, more, any_case)
        }
        ([_, ..], []) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Every file of a target's corpus.
    fn replay(target: fn(&[u8]), name: &str) -> usize {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in &files {
            let bytes = fs::read(file).unwrap();
            let held = std::panic::catch_unwind(|| target(&bytes));
            assert!(held.is_ok(), "the law that {} breaks is told above", file.display());
        }
        files.len()
    }

    #[test]
    fn every_corpus_keeps_the_laws() {
        for (name, target) in TARGETS {
            assert!(replay(*target, name) > 0, "{name} has no corpus");
        }
    }

    #[test]
    fn every_corpus_has_its_target() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for entry in fs::read_dir(corpora).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(TARGETS.iter().any(|(target, _)| **target == name), "{name:?} is nobody's corpus");
        }
    }

    #[test]
    fn laws_notice_a_reader_that_differs() {
        let differs = |pattern: &str, text: &str| {
            let [pattern, text] = [pattern, text].map(|each| each.chars().collect::<Vec<_>>());
            naive(&pattern, &text, false)
        };
        assert!(differs("a/*/c", "a/b/c") && !differs("a/*/c", "a/b/b/c"));
        assert!(differs("a/**/c", "a/b/b/c") && !differs("a", "ab") && differs("**", ""));
    }
}
