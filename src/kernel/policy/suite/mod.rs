//! Tests of policies: tables beside the grants, `grants/**/NAME.test.yaml`, run by the one evaluator that the server
//! uses, [`decide`](super::decide::decide). `hallpass policy test` calls it; the server never does.
//!
//! A test that passes by accident is worse than none, so nothing here is lenient: an unknown key, a fixture or grant
//! that is not there, an empty table, a change that changes nothing, a claim that no token has, a grant without a
//! case that is denied, and a grant whose time matters in a case without a moment are all findings, and there is no
//! way to skip a case. What is left is measured by `mutate`: each thing that a grant or guardrail demands is taken
//! away in turn, and some case must fail for it.
//!
//! # The format
//!
//! ```yaml
//! test: payments-prod                      # the grant
//! fixtures:                                # identities; each must be one that a token of its profile can prove
//!   main:
//!     issuer: github
//!     at: "2027-01-13T10:00:00Z"           # due where the grant has a window or a date
//!     claims: { repository_id: "701" }     # or `file: fixtures/push.json`, relative to the policy directory
//! cases:
//!   - { name: push to main, use: main, expect: permit, rule: deploy-from-main, ttl_max: 15m }
//!   - { name: another branch, use: main, set: { ref: refs/heads/dev }, expect: deny, failed: [ref] }
//!   - { name: no environment, use: main, remove: [environment], expect: deny, failed: [environment] }
//! ```
//!
//! `claims` need not hold what every token says about itself (`iss`, `aud`, `exp`, `iat`, `nbf`, `jti`); `iss` and
//! `aud`, where they stand there, must be the issuer's own. `sub` may be absent where no rule speaks of it. `set` puts
//! claims, or what a JSON Pointer names inside one; `remove` takes them away; `at` of a case wins over its fixture's.
//! A `null` is refused, since a claim that is null and one that is not there are different things.
//! `failed` is the whole list of what failed in some rule (in `rule`, where that is given), in any order.
//! `ttl_max` is one duration, or one for each credential; `credentials` asks for some only. A permit can also name its
//! `class`, its `limits` as the grant has them, what each credential `reaches`, and `would_deny`, what guardrails that
//! only report say; a denial its
//! `reason`, the `guardrails` that refuse, and what is `disclosed` to an owner. `guardrails` and `would_deny` name all
//! of them: `[base]`, or `{ base: [require.runner] }` with the demands. `reaches` names a target for each credential, with
//! every template filled in: `{ db: database/creds/app }`, or `{ npm: { path: kv/data/ci/701, fields: [token] } }` with
//! whatever else the grant says of it.
//!
//! Guardrails hold whatever a team writes, which no well-meant grant shows. So a test file may bring a supposed grant
//! along, as if it stood in that folder under that name:
//!
//! ```yaml
//! test: hostile
//! given: { grant: hostile, allow: […], credentials: {…} }
//! fixtures: …
//! cases:
//!   - { name: a runner of their own, use: theirs, expect: deny, guardrails: { base: [require.runner] } }
//! ```

mod claims;
pub mod draft;
mod expect;
mod fences;
mod mutants;
mod mutate;
mod neighbour;
mod places;
mod reach;
mod read;
mod run;
mod targets;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    PolicySet,
    class::Class,
    decide::Request,
    finding::{Finding, Severity},
    load::tests_of,
    set::{Files, Grant, LimitScope},
    yaml::{self, Findings},
};
use crate::kernel::{
    identity::JobIdentity,
    name::{CredentialName, GrantName, RuleName},
};

pub use mutate::{Mutation, OUTSIDE, Survivor};
pub use run::Fault;

/// Every test of a policy set, with the set that it is for.
pub struct Suites {
    set: PolicySet,
    files: Files,
    suites: Vec<Suite>,
    findings: Vec<Finding>,
}

/// One test file.
struct Suite {
    file: Arc<str>,
    grant: GrantName,
    /// The grant itself where it is a supposed one, of which no file is.
    given: Option<Grant>,
    cases: Vec<Case>,
}

/// One row of a table.
struct Case {
    name: String,
    fixture: String,
    changes: Changes,
    line: usize,
    column: usize,
    identity: JobIdentity,
    at: Timestamp,
    request: Request,
    expect: Expect,
}

/// How a case differs from its fixture.
#[derive(Clone, Default)]
struct Changes {
    set: Vec<(String, Value)>,
    remove: Vec<String>,
    at: Option<Timestamp>,
}

/// What is due of a case.
enum Expect {
    Deny(Denied),
    Permit(Permitted),
}

/// What is due of a denial; what is absent is not looked at.
#[derive(Default)]
struct Denied {
    reason: Option<String>,
    rule: Option<RuleName>,
    failed: Option<BTreeSet<String>>,
    guardrails: Option<Breaches>,
    disclosed: Option<BTreeSet<String>>,
}

/// What is due of a permit; what is absent is not looked at.
#[derive(Default)]
struct Permitted {
    rule: Option<RuleName>,
    ttl_max: Vec<(CredentialName, Duration)>,
    class: Option<Class>,
    limits: Option<DueLimits>,
    reaches: reach::Due,
    would_deny: Option<Breaches>,
}

/// Limits as a case names them; each that it names must be the grant's.
#[derive(Default)]
struct DueLimits {
    issuances_per_hour: Option<i64>,
    live: Option<i64>,
    per: Option<LimitScope>,
    uses_per_token: Option<i64>,
}

/// Names of guardrails with the demands that were not met; an empty list stands for any.
type Breaches = BTreeMap<String, BTreeSet<String>>;

/// A case, and what came of it.
pub struct Told {
    /// The test file.
    pub file: Arc<str>,
    /// Line of the case, from 1.
    pub line: usize,
    /// Column of the case, from 1.
    pub column: usize,
    /// The grant.
    pub grant: GrantName,
    /// The case's name.
    pub name: String,
    /// Why it failed, if it did.
    pub fault: Option<Fault>,
}

impl Suites {
    /// Reads every test file of a set. What is wrong with them stands in [`Self::findings`]; a file with an error is
    /// not run.
    pub fn read(files: Files, mut set: PolicySet) -> Self {
        let mut suites = Vec::new();
        let mut list = Vec::new();
        for (path, bytes) in tests_of(&files) {
            let mut findings = Findings::new(path);
            match yaml::read(path, bytes) {
                Ok(node) => {
                    let suite = read::suite(&mut findings, &node, &read::Known { set: &set, files: &files });
                    let is_whole = findings.list.iter().all(|finding| finding.severity == Severity::Warning);
                    if let Some(suite) = suite.filter(|_| is_whole) {
                        if let Some(given) = &suite.given {
                            set.grants.insert(given.name.clone(), given.clone());
                        }
                        suites.push(suite);
                    }
                }
                Err(finding) => findings.list.push(finding),
            }
            list.append(&mut findings.list);
        }
        let mut read = Self { set, files, suites, findings: list };
        // A file that could not be read may well hold what is missing.
        if !read.findings.iter().any(|finding| finding.severity == Severity::Error) {
            read.findings.extend(read.untested());
        }
        read
    }

    /// What is wrong with the tests themselves.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many grants the set has.
    pub fn grants(&self) -> usize {
        self.set.names.len()
    }

    /// Runs every case.
    pub fn run(&self) -> Vec<Told> {
        let tell = |suite: &Suite, case: &Case| Told {
            file: Arc::clone(&suite.file),
            line: case.line,
            column: case.column,
            grant: suite.grant.clone(),
            name: case.name.clone(),
            fault: run::fault(&self.set, case),
        };
        self.suites.iter().flat_map(|suite| suite.cases.iter().map(move |case| tell(suite, case))).collect()
    }

    /// Weakens the set in every way, one at a time, and looks whether some case notices. Call it where every case
    /// passes and there are no findings; otherwise the score says nothing.
    pub fn mutate(&mut self) -> Mutation {
        mutate::score(self)
    }

    /// The same for the grants alone: a grant's own tests need not notice what becomes of guardrails.
    pub fn mutate_grants(&mut self) -> Mutation {
        mutate::grants(self)
    }

    /// Grants that no test would see opened to everybody, or closed to all.
    fn untested(&self) -> Vec<Finding> {
        let mut list = Vec::new();
        for grant in self.set.names.iter().filter_map(|name| self.set.grants.get(name)) {
            let mut findings = Findings::new(&grant.file);
            let cases = || {
                self.suites.iter().filter(|suite| suite.grant == grant.name).flat_map(|suite| &suite.cases)
            };
            let is_denial = |case: &Case| matches!(case.expect, Expect::Deny(_));
            let name = &grant.name;
            let (code, message, remedy) = if cases().next().is_none() {
                let beside = grant.file.strip_suffix(".yaml").unwrap_or(&grant.file);
                let remedy = format!("write {beside}.test.yaml; `hallpass policy init` shows how one looks");
                ("test-missing", format!("the grant `{name}` has no tests"), remedy)
            } else if !cases().any(is_denial) {
                let remedy = "add a case with `expect: deny`, for what the grant is to keep out".to_owned();
                ("test-no-deny", format!("no case shows whom the grant `{name}` keeps out"), remedy)
            } else if grant.enabled && !cases().any(|case| !is_denial(case)) {
                let remedy =
                    "add a case with `expect: permit`; denials alone pass where nothing works".to_owned();
                ("test-no-permit", format!("no case shows whom the grant `{name}` lets in"), remedy)
            } else {
                continue;
            };
            let place = places::Places::of(&self.files, &grant.file).key(&["grant".into()]);
            findings.place(place, code, message, remedy);
            list.append(&mut findings.list);
        }
        list
    }
}

/// The codes of what can be wrong with tests, with their meaning; sorted. Test files are read by the words of
/// [`CODES`](super::finding::CODES) beside these.
pub const TEST_CODES: &[(&str, &str)] = &[
    ("test-change", "a case that sets what is so already, or removes what is not there"),
    ("test-credential", "a case about a credential that the grant does not have, or a TTL of one without"),
    ("test-expect", "neither permit nor deny, or a key that does not go with it"),
    ("test-file", "a file of claims that is not in the policy directory, or is no JSON object"),
    ("test-fixture", "a fixture that nobody defined, or that no token of its profile could prove"),
    ("test-grant", "a test of a grant that is not there"),
    ("test-missing", "a grant without tests"),
    ("test-moment", "no `at`, where what is permitted depends on the time"),
    ("test-no-deny", "a grant without a case that is denied"),
    ("test-no-permit", "a grant without a case that is permitted"),
    ("test-unused", "a fixture that no case uses"),
];

#[cfg(test)]
mod tests;
