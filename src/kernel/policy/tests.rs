//! Properties of whole sets: what a slip can do, and that a decision and its explanation are one.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    PolicySet,
    decide::{Decision, GrantRequest, Request, decide, usable},
    explain::{ExplainedRule, explain},
    load::load,
    set::Files,
};
use crate::kernel::{
    identity::{JobIdentity, profile::Profile, testing::fixture},
    name::IssuerName,
};

/// A set in which every key of the language stands, as trees, so that one thing can be turned. JSON is YAML.
pub(super) fn documents() -> BTreeMap<&'static str, Value> {
    let issuer = |name: &str, profile: &str, url: &str| json!({ "issuer": name, "profile": profile, "url": url, "audience": "https://broker.test", "max_token_age": "10m" });
    let deploy = json!({
        "grant": "deploy", "description": "x", "owners": ["team"], "class": "production",
        "allow": [
            { "name": "main", "issuer": "github",
              "match": {
                "repository_owner_id": "4216", "repository_id": ["701", "702"], "repository": { "not": "acme/old" },
                "ref": { "glob": "refs/heads/*" }, "event_name": ["push", "workflow_run"],
                "environment": { "present": true },
              },
              "window": { "timezone": "Europe/London", "days": ["mon", "wed"], "from": "07:00", "to": "19:00" } },
            { "name": "own", "issuer": "own", "match": { "sub": "job-1", "/nested/list/0": 7 } },
        ],
        "credentials": {
            "npm": { "sealed": { "secret": "team-npm" } },
            "sts": { "oidc": { "audience": "https://sts.test/a" }, "ttl": "4m" },
            "kv": { "vault": { "backend": "main", "engine": "kv2", "path": "kv/data/ci/npm", "version": 3,
                "fields": ["token"] } },
            "door": { "vault": { "engine": "generic", "path": "kv/door", "lifetime": "leased", "method": "post",
                "secret_fields": ["key"], "parameters": { "who": "ci" } }, "ttl": "5m" },
            "aws": { "aws": { "backend": "aws", "role_arn": "arn:aws:iam::123456789012:role/team-deploy",
                "tags": { "repo": "${claims.sub}" }, "session_policy": "{\"Statement\": []}",
                "managed_policies": ["arn:aws:iam::aws:policy/ReadOnlyAccess"] }, "ttl": "15m" },
        },
        "limits": { "issuances_per_hour": 20, "live": 4, "uses_per_token": 2 },
        "valid_until": "2027-01-31", "enabled": true, "disclose": "owner",
    });
    let other = json!({
        "grant": "other",
        "allow": [{ "name": "any-branch", "issuer": "github", "match": { "repository_owner_id": "4216" } }],
        "credentials": { "sts": { "oidc": { "audience": "https://elsewhere.test" } } },
    });
    let fence = json!({
        "guardrail": "fence",
        "applies_to": { "class": ["production", "signing"], "folder": "team", "issuer": ["github", "own"],
            "target": { "sealed": ["*"], "oidc": ["https://**"] } },
        "require": { "max_ttl": "3m", "issuers": ["github", "own"], "pinned": ["project"], "protected_ref": true,
            "runner": "hosted", "lifetime": ["static", "fixed"], "grant_names": ["dep*"] },
        "targets": { "sealed": ["team-*"], "oidc": ["https://sts.test/*"], "vault": [{ "backend": "dr", "match": "kv/**" }] },
        "forbid": { "triggers": ["workflow_run", "fork"] },
        "classify": [{ "oidc": "https://elsewhere.test", "class": "read" }],
        "mode": "enforce",
    });
    let report = json!({
        "guardrail": "trial", "require": { "max_ttl": "2m" }, "mode": "report", "report_until": "2027-01-15",
    });
    BTreeMap::from([
        (
            "issuers/github.yaml",
            issuer("github", "github-actions", "https://token.actions.githubusercontent.com"),
        ),
        ("issuers/own.yaml", issuer("own", "generic", "https://ci.test")),
        ("guardrails/fence.yaml", fence),
        ("guardrails/trial.yaml", report),
        ("grants/team/deploy.yaml", deploy),
        ("grants/other.yaml", other),
    ])
}

fn try_load(documents: &BTreeMap<&'static str, Value>) -> Option<PolicySet> {
    let files = documents.iter().map(|(path, tree)| ((*path).to_owned(), tree.to_string().into_bytes()));
    load(&Files(files.collect()), None, None).ok().map(|loaded| loaded.set)
}

fn set() -> PolicySet {
    let files = documents().into_iter().map(|(path, tree)| (path.to_owned(), tree.to_string().into_bytes()));
    load(&Files(files.collect()), None, None).unwrap_or_else(|findings| panic!("{findings:#?}")).set
}

/// What a claim can be: what the set says of it, something else, or nothing.
fn github_claims() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("repository_owner_id", vec![json!("4216"), json!("9")]),
        ("repository_id", vec![json!("701"), json!("702"), json!("703")]),
        ("repository", vec![json!("acme/payments"), json!("acme/old")]),
        ("ref", vec![json!("refs/heads/main"), json!("refs/tags/v1"), json!(7), Value::Null]),
        ("event_name", vec![json!("push"), json!("workflow_run"), json!("schedule"), Value::Null]),
        ("environment", vec![json!("production"), Value::Null]),
        ("ref_protected", vec![json!("true"), json!("false"), Value::Null]),
        ("runner_environment", vec![json!("github-hosted"), json!("self-hosted"), Value::Null]),
    ]
}

fn identity(choices: &[usize], now: Timestamp) -> JobIdentity {
    let choice = |at: usize| choices.get(at).copied().unwrap_or_default();
    if choice(0) % 6 == 5 {
        let nested = [json!({ "list": [7] }), json!({ "list": [8] }), json!({})];
        let mut claims = Map::new();
        claims.insert("sub".into(), if choice(1) % 2 == 0 { json!("job-1") } else { json!("job-2") });
        claims.insert("nested".into(), nested[choice(2) % 3].clone());
        return built("own", "generic", claims, now);
    }
    let Value::Object(mut claims) = fixture("github-actions") else { panic!("an object") };
    for (at, (name, values)) in github_claims().into_iter().enumerate() {
        // The first half of all choices is what the set wants, so that permits are no rarity.
        let chosen = choice(at + 1) % (2 * values.len());
        let value = values.get(chosen).unwrap_or(&values[0]);
        claims.remove(name);
        if !value.is_null() {
            claims.insert(name.to_owned(), value.clone());
        }
    }
    built("github", "github-actions", claims, now)
}

fn built(issuer: &str, profile: &str, claims: Map<String, Value>, now: Timestamp) -> JobIdentity {
    let profile = Profile::by_name(profile).unwrap();
    JobIdentity::from_claims(IssuerName::parse(issuer).unwrap(), profile, claims, now)
        .unwrap_or_else(|fault| panic!("{}", fault.reason))
}

fn moment(choice: usize) -> Timestamp {
    let moments =
        ["2027-01-13T10:00:00Z", "2027-01-13T20:00:00Z", "2027-01-18T10:00:00Z", "2027-02-03T10:00:00Z"];
    moments[choice % moments.len()].parse().unwrap()
}

/// What may be had, by grant and target, with the TTL (0 for static: without an end).
type Reach = BTreeMap<(String, String), u64>;

/// All that an identity can get out of a set, one credential at a time.
fn reach(set: &PolicySet, identity: &JobIdentity, now: Timestamp) -> Reach {
    let mut reach = Reach::new();
    for grant in set.grants.values() {
        for name in grant.credentials.keys() {
            let request = request(grant.name.as_str(), Some(vec![name.to_string()]));
            let Decision::Permit(permit) = decide(set, identity, &request, now) else { continue };
            for each in &permit.grants()[0].credentials {
                let target = format!("{}: {}", each.target.kind().as_str(), each.target.as_str());
                let ttl = each.ttl.as_ref().map_or(0, Duration::as_secs);
                reach.insert((grant.name.to_string(), target), ttl);
            }
        }
    }
    reach
}

fn request(grant: &str, credentials: Option<Vec<String>>) -> Request {
    Request { grants: vec![GrantRequest { name: grant.to_owned(), credentials, ttl: None }] }
}

/// Whether one reach is within another.
fn is_within(inner: &Reach, outer: &Reach) -> bool {
    inner.iter().all(|(what, ttl)| outer.get(what).is_some_and(|most| ttl <= most))
}

/// Fixed identities for tests that are no properties: every pair of choices that differs from the wanted in one or
/// two claims.
fn identities(now: Timestamp) -> Vec<JobIdentity> {
    let mut all = Vec::new();
    for at in 1..=8 {
        for also in at..=8 {
            for value in 0..3 {
                let mut choices = vec![0; 9];
                choices[at] = value;
                choices[also] = value + 1;
                all.push(identity(&choices, now));
            }
        }
    }
    all.extend((0..6).map(|at| identity(&[5, at % 2, at / 2], now)));
    all
}

/// Every key of a tree, by its path.
fn keys(tree: &Value, above: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match tree {
        Value::Object(members) => {
            for (key, inner) in members {
                above.push(key.clone());
                found.push(above.clone());
                keys(inner, above, found);
                above.pop();
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter().enumerate() {
                above.push(at.to_string());
                keys(inner, above, found);
                above.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn owner<'t>(tree: &'t mut Value, path: &[String]) -> &'t mut Map<String, Value> {
    let inner = path.iter().fold(tree, |tree, part| match part.parse::<usize>() {
        Ok(at) => &mut tree[at],
        Err(_) => &mut tree[part.as_str()],
    });
    inner.as_object_mut().unwrap()
}

fn every_key() -> Vec<(&'static str, Vec<String>)> {
    let mut all = Vec::new();
    for (file, tree) in documents() {
        let mut found = Vec::new();
        keys(&tree, &mut Vec::new(), &mut found);
        all.extend(found.into_iter().map(|path| (file, path)));
    }
    all
}

fn never_wider(changed: &BTreeMap<&'static str, Value>, what: &str) -> bool {
    let Some(changed) = try_load(changed) else { return false };
    let set = set();
    for moment_at in 0..4 {
        let now = moment(moment_at);
        for identity in identities(now) {
            let (before, after) = (reach(&set, &identity, now), reach(&changed, &identity, now));
            assert!(is_within(&after, &before), "{what}: {after:?} is wider than {before:?}");
        }
    }
    true
}

#[test]
fn set_permits_and_denies() {
    let (set, now) = (set(), moment(0));
    let reaches: Vec<Reach> = identities(now).iter().map(|identity| reach(&set, identity, now)).collect();
    assert!(reaches.iter().any(|reach| reach.len() == 3), "everything");
    assert!(reaches.iter().any(Reach::is_empty), "nothing");
    assert!(reaches.iter().any(|reach| reach.len() == 1), "the unfenced grant alone");
}

#[test]
fn renaming_a_key_never_widens() {
    let mut loaded = 0;
    for (file, path) in every_key() {
        let (name, above) = path.split_last().unwrap();
        let typos =
            [format!("{name}x"), format!("x{name}"), name[..name.len() - 1].to_owned(), name.to_uppercase()];
        for typo in typos {
            let mut changed = documents();
            let members = owner(changed.get_mut(file).unwrap(), above);
            let value = members.remove(name).unwrap();
            members.insert(typo.clone(), value);
            loaded += usize::from(never_wider(&changed, &format!("{file} {path:?} as {typo}")));
        }
    }
    assert!(loaded > 4, "names of credentials may change: {loaded}");
}

#[test]
fn deleting_a_mandatory_key_never_loads() {
    const MANDATORY: [&str; 18] = [
        "issuer",
        "profile",
        "url",
        "audience",
        "grant",
        "allow",
        "credentials",
        "name",
        "match",
        "guardrail",
        "timezone",
        "sealed",
        "secret",
        "repository_owner_id",
        "sub",
        "report_until",
        "from",
        "to",
    ];
    let mut deleted = 0;
    for (file, path) in every_key() {
        let (name, above) = path.split_last().unwrap();
        // In guardrails some of these are names of kinds and selectors.
        let is_one =
            MANDATORY.contains(&name.as_str()) && (above.is_empty() || !file.starts_with("guardrails"));
        if is_one || (name == "class" && above.len() == 2) {
            let mut changed = documents();
            owner(changed.get_mut(file).unwrap(), above).remove(name).unwrap();
            assert!(try_load(&changed).is_none(), "{file} {path:?}");
            deleted += 1;
        }
    }
    assert!(deleted > 30, "{deleted}");
}

#[test]
fn deleting_a_file_but_a_guardrail_never_widens() {
    for file in documents().into_keys().filter(|file| !file.starts_with("guardrails/")) {
        let mut changed = documents();
        changed.remove(file).unwrap();
        let loads = never_wider(&changed, file);
        assert_eq!(loads, file.starts_with("grants/"), "{file}: an issuer that rules name cannot go");
    }
}

/// What removal protection is for.
#[test]
fn deleting_a_guardrail_can_widen() {
    let mut changed = documents();
    changed.remove("guardrails/fence.yaml").unwrap();
    let (changed, set, now) = (try_load(&changed).unwrap(), set(), moment(0));
    assert!(
        identities(now)
            .iter()
            .any(|identity| !is_within(&reach(&changed, identity, now), &reach(&set, identity, now)))
    );
}

fn rule_holds(rule: &ExplainedRule) -> bool {
    rule.issuer.held
        && rule.conditions.iter().all(|step| step.held)
        && rule.trigger.as_ref().is_none_or(|step| step.held)
        && rule.window.as_ref().is_none_or(|step| step.held)
}

proptest! {
    #[test]
    fn explanation_and_decision_are_one(
        choices in prop::collection::vec(0_usize..12, 9), at in 0_usize..4,
        asked in prop::sample::subsequence(vec!["deploy", "other", "nope"], 0..=3),
        credential in prop::option::of(prop::sample::select(vec!["npm", "sts", "none"])),
    ) {
        let (set, now) = (set(), moment(at));
        let identity = identity(&choices, now);
        let grants = asked.iter().map(|name| GrantRequest {
            name: (*name).to_owned(), credentials: credential.map(|name| vec![name.to_owned()]), ttl: None,
        });
        let request = Request { grants: grants.collect() };

        let explanation = explain(&set, &identity, &request, now);

        match decide(&set, &identity, &request, now) {
            Decision::Permit(permit) => {
                prop_assert!(explanation.permit && explanation.reason.is_none());
                for (grant, explained) in permit.grants().iter().zip(&explanation.grants) {
                    let found = explained.found.as_ref().unwrap();
                    prop_assert_eq!(found.rule.as_deref(), Some(grant.rule.as_str()));
                    for (given, shown) in grant.credentials.iter().zip(&found.credentials) {
                        prop_assert_eq!(given.ttl.map(|ttl| ttl.as_secs()), shown.ttl_seconds);
                        prop_assert!(shown.guardrails.iter().all(|each| each.held || !each.enforced));
                    }
                }
            }
            Decision::Deny(denial) => {
                prop_assert!(!explanation.permit);
                prop_assert_eq!(explanation.reason, Some(denial.reason));
                let first = explanation.grants.iter().find_map(|grant| grant.reason);
                prop_assert_eq!(first.unwrap_or("nothing-asked"), denial.reason);
            }
        }
        for found in explanation.grants.iter().filter_map(|grant| grant.found.as_ref()) {
            for rule in &found.rules {
                prop_assert_eq!(rule.held, rule_holds(rule));
            }
            prop_assert_eq!(found.rule.is_some(), found.rules.iter().any(|rule| rule.held));
        }
    }

    /// What `/v1/grants` lists is what an exchange permits.
    #[test]
    fn usable_is_what_is_permitted(choices in prop::collection::vec(0_usize..12, 9), at in 0_usize..4) {
        let (set, now) = (set(), moment(at));
        let identity = identity(&choices, now);
        let listed: Reach = usable(&set, &identity, now).into_iter().flat_map(|usable| {
            let name = usable.grant.name.to_string();
            usable.credentials.into_iter().map(move |each| {
                let target = format!("{}: {}", each.target.kind().as_str(), each.target.as_str());
                ((name.clone(), target), each.ttl.map_or(0, |ttl| ttl.as_secs()))
            })
        }).collect();
        prop_assert_eq!(listed, reach(&set, &identity, now));
    }

    /// Whatever stands in a file, the loader answers, and what it finds has a place.
    #[test]
    fn loader_survives_any_edit(
        file in 0_usize..6, at in 0.0_f64..1.0, cut in 0_usize..12, put in "[ -~\\n\\t]{0,6}|[\\u{0}-\\u{ffff}]{0,3}",
    ) {
        let mut files: BTreeMap<String, Vec<u8>> =
            documents().into_iter().map(|(path, tree)| (path.to_owned(), tree.to_string().into_bytes())).collect();
        let bytes = files.values_mut().nth(file).unwrap();
        let begin = (at * bytes.len() as f64) as usize;
        let end = (begin + cut).min(bytes.len());
        bytes.splice(begin..end, put.into_bytes());
        if let Err(findings) = load(&Files(files), None, None) {
            prop_assert!(!findings.is_empty());
            for finding in findings {
                prop_assert!(finding.line > 0 && finding.column > 0 && !finding.remedy.is_empty());
            }
        }
    }
}
