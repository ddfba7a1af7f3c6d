//! Every profile, from the text of a token to the decision: the real loader of policies, a real signature, the real
//! decision. Each case starts from a full payload under `tests/fixtures/claims` and its rule under
//! `tests/fixtures/rules`, and spoils one thing.

mod attacks;
mod data;
mod types;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ALL;
use crate::kernel::{
    identity::{
        JobIdentity,
        keys::{KeySet, VerificationKey},
        profile::{Algorithm, Profile, REGISTERED},
        testing::{TestKey, fixture},
        token::RawToken,
        verify::{FaultKind, Terms, VerifiedToken, verify},
    },
    name::IssuerName,
    policy::{
        Decision, Finding, PolicySet,
        decide::{GrantRequest, Request, decide},
        load::load,
        set::{Files, TrustedIssuer},
    },
    secret::Secret,
};

/// Each kind of token that a rule permits: the fixture of the claims, and the rule's.
const PERMITTED: &[(&str, &str)] = &[
    ("azure-devops", "azure-devops"),
    ("bitbucket", "bitbucket"),
    ("buildkite", "buildkite"),
    ("circleci", "circleci"),
    ("circleci-root", "circleci"),
    ("forgejo", "forgejo"),
    ("generic", "generic"),
    ("github-actions", "github-actions"),
    ("github-actions-ghe-com", "github-actions"),
    ("github-actions-ghes", "github-actions"),
    ("github-actions-old-sub", "github-actions"),
    ("gitlab", "gitlab"),
    ("gitlab-self-managed", "gitlab"),
    ("google", "google"),
    ("hcp-terraform", "hcp-terraform"),
    ("hcp-terraform-enterprise", "hcp-terraform"),
    ("kubernetes", "kubernetes"),
    ("kubernetes-aks", "kubernetes"),
    ("kubernetes-without-pod", "kubernetes"),
    ("spiffe", "spiffe"),
];

/// One key for all: making one is slow in a debug build.
static KEY: LazyLock<TestKey> = LazyLock::new(TestKey::rsa);

static PUBLIC: LazyLock<Arc<VerificationKey>> = LazyLock::new(|| {
    let set = json!({ "keys": [KEY.jwk("k1")] }).to_string();
    KeySet::parse(set.as_bytes(), &[Algorithm::Rs256]).unwrap().find("k1", Algorithm::Rs256).unwrap()
});

/// An issuer with a policy of one grant.
struct Bench {
    issuer: TrustedIssuer,
    audience: String,
    set: PolicySet,
}

impl Bench {
    /// The issuer of a fixture, and the rule of that name.
    fn of(golden: &str, rule: &str) -> Self {
        Self::with(golden, &rule_text(rule))
    }

    /// The issuer of a fixture, and the text of a rule's `match`.
    fn with(golden: &str, rule: &str) -> Self {
        let claims = fixture(golden);
        Self::load(&trusted(golden), audience(&claims), rule)
            .unwrap_or_else(|found| panic!("{golden}: {found:?}"))
    }

    fn load(issuer: &TrustedIssuer, audience: &str, rule: &str) -> Result<Self, Vec<Finding>> {
        let indented: String = rule.lines().map(|line| format!("      {line}\n")).collect();
        let grant = format!(
            "grant: a\nallow:\n  - name: r\n    issuer: ci\n    match:\n{indented}\
             credentials: {{ npm: {{ sealed: {{ secret: npm-token }} }} }}\n"
        );
        let (profile, url) = (issuer.profile.name, &issuer.url);
        let policy = format!("issuer: ci\nprofile: {profile}\nurl: {url}\naudience: \"{audience}\"\n");
        let files = [("issuers/ci.yaml", policy), ("grants/a.yaml", grant)];
        let files = files.into_iter().map(|(path, text)| (path.to_owned(), text.into_bytes())).collect();
        let trusted = BTreeMap::from([(issuer.name.clone(), issuer.clone())]).into();
        let set = load(&Files(files), None, Some(&trusted))?.set;
        Ok(Self { issuer: issuer.clone(), audience: audience.to_owned(), set })
    }

    fn identify(&self, claims: &Value) -> Result<JobIdentity, (FaultKind, String)> {
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" });
        let token = RawToken::read(Secret::from_text(KEY.sign(&header, claims)))
            .map_err(|fault| (fault.kind, fault.reason))?;
        let terms = Terms {
            issuer: &self.issuer.name,
            url: &self.issuer.url,
            // The set's: where the operator's word is narrower, it must have come through.
            profile: self.set.issuers[&self.issuer.name].trusted.profile,
            audience: &self.audience,
            max_token_age: Duration::from_secs(600),
            leeway: Duration::from_secs(30),
        };
        verify(token, &PUBLIC, &terms, now())
            .map(VerifiedToken::into_identity)
            .map_err(|refused| (refused.fault.kind, refused.fault.reason))
    }

    /// `permit`, the reason of a denial, or what is wrong with the token.
    fn outcome(&self, claims: &Value) -> String {
        let identity = match self.identify(claims) {
            Ok(identity) => identity,
            Err((_, reason)) => return format!("401 {reason}"),
        };
        let asked = GrantRequest { name: "a".to_owned(), credentials: None, ttl: None };
        match decide(&self.set, &identity, &Request { grants: vec![asked] }, now()) {
            Decision::Permit(_) => "permit".to_owned(),
            Decision::Deny(denial) => {
                let mut failed: Vec<_> = denial.trace.iter().flat_map(|tried| tried.failed.clone()).collect();
                failed.sort();
                format!("403 {} {}", denial.reason, failed.join(","))
            }
        }
    }
}

/// The issuer of a fixture; its profile is the fixture's name, up to the variant.
fn trusted(golden: &str) -> TrustedIssuer {
    let profile = ALL
        .iter()
        .copied()
        .find(|profile| golden == profile.name || golden.starts_with(&format!("{}-", profile.name)))
        .unwrap();
    let url = fixture(golden)["iss"].as_str().unwrap().to_owned();
    TrustedIssuer { name: IssuerName::parse("ci").unwrap(), url, profile }
}

fn audience(claims: &Value) -> &str {
    claims["aud"].as_str().or_else(|| claims["aud"][0].as_str()).unwrap()
}

fn rule_text(name: &str) -> String {
    let path = format!("{}/tests/fixtures/rules/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_010).unwrap()
}

/// A fixture with some members set otherwise; `null` takes one away.
fn spoilt(golden: &str, changes: Value) -> Value {
    let mut claims = fixture(golden);
    for (name, value) in changes.as_object().unwrap() {
        let members = claims.as_object_mut().unwrap();
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    claims
}

/// Fixture, rule, what is spoiled, what comes of it.
type Row<'a> = (&'a str, &'a str, Value, &'a str);

fn holds(rows: &[Row<'_>]) {
    for (golden, rule, changes, due) in rows {
        let outcome = Bench::of(golden, rule).outcome(&spoilt(golden, changes.clone()));
        assert_eq!(outcome.trim_end(), *due, "{golden} by {rule}: {changes}");
    }
}

fn codes(golden: &str, url: Option<&str>, rule: &str) -> Vec<&'static str> {
    let mut issuer = trusted(golden);
    if let Some(url) = url {
        url.clone_into(&mut issuer.url);
    }
    let found = Bench::load(&issuer, audience(&fixture(golden)), rule).err().unwrap_or_default();
    found.iter().map(|finding| finding.code).collect()
}

#[test]
fn every_profile_permits_a_realistic_job_by_a_realistic_rule() {
    for (golden, rule) in PERMITTED {
        assert_eq!(Bench::of(golden, rule).outcome(&fixture(golden)), "permit", "{golden}");
    }
    for profile in ALL {
        assert!(PERMITTED.iter().any(|(golden, _)| *golden == profile.name), "{}", profile.name);
    }
}

/// Where a value stands in a payload.
#[derive(Clone)]
struct Leaf(Vec<String>);

impl Leaf {
    /// Every value of a payload that is no object and no array.
    fn all(value: &Value, path: &[String], found: &mut Vec<Self>) {
        let mut below = |part: String, inner: &Value| {
            let mut path = path.to_vec();
            path.push(part);
            Self::all(inner, &path, found);
        };
        match value {
            Value::Object(members) => members.iter().for_each(|(name, inner)| below(name.clone(), inner)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, inner)| below(at.to_string(), inner))
            }
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) => found.push(Self(path.to_vec())),
        }
    }

    /// As a rule writes it.
    fn key(&self) -> String {
        match self.0.as_slice() {
            [name] => name.clone(),
            parts => {
                parts.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
            }
        }
    }

    fn in_claims<'v>(&self, claims: &'v mut Value) -> &'v mut Value {
        self.0.iter().fold(claims, |value, part| match value {
            Value::Array(items) => &mut items[part.parse::<usize>().unwrap()],
            Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) | Value::String(_) => {
                &mut value[part]
            }
        })
    }

    fn remove(&self, claims: &mut Value) {
        let (last, above) = self.0.split_last().unwrap();
        match Self(above.to_vec()).in_claims(claims) {
            Value::Array(items) => drop(items.remove(last.parse::<usize>().unwrap())),
            Value::Object(members) => drop(members.remove(last)),
            Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => panic!("nothing inside"),
        }
    }

    fn is_usable(&self, profile: &Profile) -> bool {
        let root = self.0[0].as_str();
        let known = profile.claim(&self.key()).is_some() || profile.claim(root).is_some() || profile.open;
        known && !REGISTERED.contains(&root)
    }
}

/// A rule that demands every value of a payload that policy can use.
fn golden_rule(claims: &Value, profile: &Profile) -> String {
    let mut leaves = Vec::new();
    Leaf::all(claims, &[], &mut leaves);
    let mut claims = claims.clone();
    let usable = leaves.into_iter().filter(|leaf| leaf.is_usable(profile));
    usable.map(|leaf| format!("{}: {}\n", json!(leaf.key()), leaf.in_claims(&mut claims))).collect()
}

/// A value in each wrong shape (attack classes C-02, C-09; suggested layout 2).
fn wrong_shapes(value: &Value) -> Vec<Value> {
    let mut shapes = vec![
        Value::Null,
        json!(""),
        json!([value]),
        json!([]),
        json!({ "": value }),
        json!(7.5),
        json!(!value.as_bool().unwrap_or(false)),
        json!("x".repeat(3072)),
    ];
    match value {
        Value::String(text) => {
            let numbers = text.parse::<i64>().ok().map(Value::from);
            let spelt = [
                text.to_uppercase(),
                format!("{text} "),
                format!(" {text}"),
                format!("{text}\0"),
                format!("{text}/"),
            ];
            shapes.extend(spelt.map(Value::from).into_iter().chain(numbers));
            shapes.push(json!(true));
        }
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) => {
            shapes.push(json!(value.to_string()));
        }
    }
    shapes.retain(|shape| shape != value);
    shapes
}

/// The law of the whole table: a rule that names every claim permits the golden payload and nothing that differs in any
/// one of them, and no spoilt registered claim is let through.
#[test]
fn nothing_is_permitted_that_differs_from_what_the_rule_says() {
    let mut spoilt_tokens = 0;
    for (golden, _) in PERMITTED {
        let claims = fixture(golden);
        let profile = trusted(golden).profile;
        let bench = Bench::with(golden, &golden_rule(&claims, profile));
        assert_eq!(bench.outcome(&claims), "permit", "{golden}");
        let mut leaves = Vec::new();
        Leaf::all(&claims, &[], &mut leaves);
        let is_read =
            |leaf: &Leaf| leaf.is_usable(profile) || ["iss", "exp", "iat"].contains(&leaf.0[0].as_str());
        for leaf in leaves.into_iter().filter(is_read) {
            let mut gone = claims.clone();
            leaf.remove(&mut gone);
            assert_ne!(bench.outcome(&gone), "permit", "{golden} without {}", leaf.key());
            let ignores_case = profile.claim(&leaf.key()).is_some_and(|spec| spec.case_insensitive);
            let right = leaf.in_claims(&mut claims.clone()).clone();
            for shape in wrong_shapes(&right) {
                let mut changed = claims.clone();
                *leaf.in_claims(&mut changed) = shape.clone();
                let is_equal = ignores_case
                    && shape.as_str().zip(right.as_str()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
                let outcome = bench.outcome(&changed);
                assert_eq!(outcome == "permit", is_equal, "{golden} {}: {shape}: {outcome}", leaf.key());
                spoilt_tokens += 1;
            }
        }
    }
    assert!(spoilt_tokens > 3_000, "{spoilt_tokens}");
}

#[test]
fn an_audience_is_one_and_ours_in_either_form() {
    for (golden, rule) in PERMITTED {
        let bench = Bench::of(golden, rule);
        let ours = bench.audience.clone();
        for good in [json!(ours), json!([ours])] {
            assert_eq!(bench.outcome(&spoilt(golden, json!({ "aud": good }))), "permit", "{golden} {good}");
        }
        for bad in [
            json!([ours, "https://other.example"]),
            json!([ours, ours]),
            json!([]),
            json!(""),
            json!([""]),
            json!(42),
            json!([42]),
            json!({ "0": ours }),
            json!(format!("{ours}/")),
            json!(ours.to_uppercase()),
            json!(format!("{ours}\0")),
            json!([[ours]]),
        ] {
            let outcome = bench.outcome(&spoilt(golden, json!({ "aud": bad })));
            assert!(outcome.starts_with("401 "), "{golden} {bad}: {outcome}");
        }
        assert!(bench.outcome(&spoilt(golden, json!({ "aud": null }))).starts_with("401 "), "{golden}");
    }
}

#[test]
fn objects_that_hold_claims_are_not_replaced() {
    for (golden, object) in [
        ("kubernetes", vec!["kubernetes.io"]),
        ("kubernetes", vec!["kubernetes.io", "serviceaccount"]),
        ("google", vec!["google"]),
        ("google", vec!["google", "compute_engine"]),
    ] {
        let claims = fixture(golden);
        let bench = Bench::with(golden, &golden_rule(&claims, trusted(golden).profile));
        let place = Leaf(object.iter().map(|part| (*part).to_owned()).collect());
        for shape in [
            json!(null),
            json!("x"),
            json!([]),
            json!({}),
            json!(1),
            json!([place.in_claims(&mut claims.clone())]),
        ] {
            let mut changed = claims.clone();
            *place.in_claims(&mut changed) = shape.clone();
            assert_ne!(bench.outcome(&changed), "permit", "{golden} {object:?} {shape}");
        }
    }
}
