//! `*.test.yaml` into a [`Suite`]. A case that could pass without looking at what it names is a finding here.

use std::{cell::Cell, collections::BTreeMap};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Case, Changes, Suite, claims, expect};
use crate::kernel::{
    identity::{JobIdentity, profile::REGISTERED},
    json::{Bounds, read_strict},
    name::{CredentialName, IssuerName},
    policy::{
        PolicySet,
        decide::{GrantRequest, Request},
        finding::Severity,
        guardrail::{Guardrail, Mode},
        load::supposed,
        set::{Files, Grant, IssuerPolicy},
        yaml::{Content, Findings, Key, Node, nearest},
    },
};

/// What tests may speak of.
pub(super) struct Known<'a> {
    pub(super) set: &'a PolicySet,
    pub(super) files: &'a Files,
}

/// A named identity, from which cases differ.
struct Fixture<'a> {
    issuer: &'a IssuerPolicy,
    claims: Map<String, Value>,
    at: Option<Timestamp>,
    is_used: Cell<bool>,
}

type Fixtures<'a> = BTreeMap<&'a str, Fixture<'a>>;

pub(super) fn suite<'a>(findings: &mut Findings<'_>, node: &'a Node, known: &Known<'a>) -> Option<Suite> {
    let mut fields = findings.fields(node)?;
    let test_node = fields.require(findings, "test");
    let given_node = fields.take("given");
    let fixtures_node = fields.require(findings, "fixtures");
    let cases_node = fields.require(findings, "cases");
    fields.finish(findings);
    let before = findings.list.len();
    let fixtures = fixtures(findings, fixtures_node?, known)?;
    let are_whole = findings.list.len() == before;
    let given = match given_node {
        Some(node) => Some(given(findings, test_node?, node, known.set)?),
        None => None,
    };
    let grant = match &given {
        Some(given) => given,
        None => grant(findings, test_node?, known.set)?,
    };
    let cases = cases(findings, cases_node?, (known.set, grant), &fixtures);
    // Where a fixture could not be read, it is not its cases' fault.
    if are_whole {
        unused(findings, fixtures_node?, &fixtures);
    }
    let grant = grant.name.clone();
    Some(Suite { file: findings.file.into(), grant, given, cases: cases? })
}

fn grant<'a>(findings: &mut Findings<'_>, node: &Node, set: &'a PolicySet) -> Option<&'a Grant> {
    let text = findings.filled(node)?;
    let grant = set.grants.get(text);
    if grant.is_none() {
        let remedy = nearest(text, set.names.iter().map(|name| name.as_str())).map_or_else(
            || "name a grant of this policy directory".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        findings.at(node, "test-grant", format!("there is no grant `{text}`"), remedy);
    }
    grant
}

/// A grant that stands in no file, as if it stood in this folder: what a team could write.
fn given(findings: &mut Findings<'_>, test: &Node, node: &Node, set: &PolicySet) -> Option<Grant> {
    let name = findings.filled(test)?;
    let mut grant = supposed(findings, node, set)?;
    set.derive_grant(&mut grant);
    if grant.name.as_str() != name {
        let message = format!("the supposed grant is called `{}`, and the test is of `{name}`", grant.name);
        findings.at(test, "test-grant", message, "give both the same name, one that no grant has");
        return None;
    }
    Some(grant)
}

// ---------------------------------------------------------------------------------------------------------- fixtures

fn fixtures<'a>(findings: &mut Findings<'_>, node: &'a Node, known: &Known<'a>) -> Option<Fixtures<'a>> {
    let fields = findings.fields(node)?;
    let mut fixtures = Fixtures::new();
    let mut count = 0;
    for (key, node) in fields.rest() {
        count += 1;
        if let Some(fixture) = fixture(findings, node, known) {
            fixtures.insert(&key.text, fixture);
        }
    }
    if count == 0 {
        findings.at(
            node,
            "empty",
            "there is no fixture",
            "add one, such as `main: { issuer: …, claims: … }`",
        );
    }
    Some(fixtures)
}

fn fixture<'a>(findings: &mut Findings<'_>, node: &Node, known: &Known<'a>) -> Option<Fixture<'a>> {
    let mut fields = findings.fields(node)?;
    let issuer = fields.require(findings, "issuer").and_then(|node| issuer(findings, node, known.set));
    let at = fields.take("at").map(|node| moment(findings, node));
    let (claims_node, file_node) = (fields.take("claims"), fields.take("file"));
    fields.finish(findings);
    let issuer = issuer?;
    let (claims, place) = match (claims_node, file_node) {
        (Some(node), None) => (written(findings, node, issuer)?, node),
        (None, Some(node)) => (from_file(findings, node, issuer, known.files)?, node),
        (Some(_), Some(_)) | (None, None) => {
            let message = "a fixture has either `claims` or `file`";
            findings.at(
                node,
                "test-fixture",
                message,
                "write the claims here, or name a file that holds them",
            );
            return None;
        }
    };
    let at = match at {
        Some(at) => Some(at?),
        None => None,
    };
    identity(findings, place, issuer, &claims, at)?;
    Some(Fixture { issuer, claims, at, is_used: Cell::new(false) })
}

fn issuer<'a>(findings: &mut Findings<'_>, node: &Node, set: &'a PolicySet) -> Option<&'a IssuerPolicy> {
    let text = findings.filled(node)?;
    let issuer = set.issuers.get(text);
    if issuer.is_none() {
        let remedy = nearest(text, set.issuers.keys().map(IssuerName::as_str)).map_or_else(
            || "name one of issuers/*.yaml".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        findings.at(node, "unknown-issuer", format!("no file in issuers/ names `{text}`"), remedy);
    }
    issuer
}

fn moment(findings: &mut Findings<'_>, node: &Node) -> Option<Timestamp> {
    let parsed = match &node.content {
        Content::Plain(text) | Content::Quoted(text) => text.parse::<Timestamp>().ok(),
        Content::Mapping(_) | Content::Sequence(_) => None,
    };
    if parsed.is_none() {
        findings.at(node, "date", "a moment is due here", "write it as \"2027-01-13T10:00:00Z\"");
    }
    parsed
}

fn written(findings: &mut Findings<'_>, node: &Node, issuer: &IssuerPolicy) -> Option<Map<String, Value>> {
    let Content::Mapping(entries) = &node.content else {
        findings.at(node, "type", "a mapping of claims is due here", "write `claim: value` lines");
        return None;
    };
    let before = findings.list.len();
    let mut all = Map::new();
    for (key, node) in entries {
        if REGISTERED.contains(&key.text.as_str()) {
            let value = claims::value(findings, node);
            if let Some(Err(message)) = value.map(|value| claims::registered(issuer, &key.text, &value)) {
                findings.at(node, "test-fixture", message, "remove it, or write the issuer's");
            }
        } else if let Some(value) = claims::claim(findings, key, node, issuer.trusted.profile) {
            all.insert(key.text.clone(), value);
        }
    }
    (findings.list.len() == before).then_some(all)
}

/// A whole payload as a CI system sends it. Claims that the profile does not know are left out, as they are at the
/// exchange: vendors add claims without notice (attack class C-11).
fn from_file(
    findings: &mut Findings<'_>,
    node: &Node,
    issuer: &IssuerPolicy,
    files: &Files,
) -> Option<Map<String, Value>> {
    let path = findings.filled(node)?;
    let Some(bytes) = files.0.get(path) else {
        let message = format!("there is no file `{path}` in the policy directory");
        let remedy = "write its path from the root of the policy directory, such as fixtures/push.json";
        findings.at(node, "test-file", message, remedy);
        return None;
    };
    let mut all = match read_strict(bytes, BOUNDS) {
        Ok(Value::Object(all)) => all,
        Ok(_) => return not_claims(findings, node, path, "not-an-object"),
        Err(fault) => return not_claims(findings, node, path, fault.0),
    };
    for name in REGISTERED {
        if let Some(Err(message)) = all.remove(*name).map(|value| claims::registered(issuer, name, &value)) {
            findings.at(node, "test-fixture", format!("{path}: {message}"), "use a payload for this broker");
            return None;
        }
    }
    Some(all)
}

fn not_claims<T>(findings: &mut Findings<'_>, node: &Node, path: &str, why: &str) -> Option<T> {
    let message = format!("{path} holds no claims: {why}");
    findings.at(node, "test-file", message, "put the payload of one token there, as one JSON object");
    None
}

/// An identity such as the exchange would have built from a token with these claims.
fn identity(
    findings: &mut Findings<'_>,
    node: &Node,
    issuer: &IssuerPolicy,
    claims: &Map<String, Value>,
    at: Option<Timestamp>,
) -> Option<JobIdentity> {
    let trusted = &issuer.trusted;
    let at = at.unwrap_or(SOME_MOMENT);
    match JobIdentity::from_claims(trusted.name.clone(), trusted.profile, claims.clone(), at) {
        Ok(identity) => Some(identity),
        Err(fault) => {
            let message =
                format!("no token of the profile `{}` is like this: {}", trusted.profile.name, fault.reason);
            let remedy = match fault.reason.split_once(':') {
                Some(("missing-claim", claim)) => format!("add `{claim}`; every such token has it"),
                Some((_, claim)) => format!("give `{claim}` a value that a token can have"),
                None => "use the claims of a real token".to_owned(),
            };
            findings.at(node, "test-fixture", message, remedy);
            None
        }
    }
}

fn unused(findings: &mut Findings<'_>, node: &Node, fixtures: &Fixtures<'_>) {
    let Content::Mapping(entries) = &node.content else { return };
    for (key, _) in entries {
        if fixtures.get(key.text.as_str()).is_some_and(|fixture| !fixture.is_used.get()) {
            let message = format!("no case uses the fixture `{}`", key.text);
            findings.at_key(key, "test-unused", message, "use it, or remove it");
            if let Some(last) = findings.list.last_mut() {
                last.severity = Severity::Warning;
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- cases

fn cases(
    findings: &mut Findings<'_>,
    node: &Node,
    about: (&PolicySet, &Grant),
    fixtures: &Fixtures<'_>,
) -> Option<Vec<Case>> {
    let items = findings.list(node)?;
    if items.is_empty() {
        findings.at(node, "empty", "there is no case", "add cases, one at least with `expect: deny`");
        return None;
    }
    let mut cases: Vec<Case> = Vec::new();
    for item in items {
        let Some(case) = case(findings, item, about, fixtures) else { continue };
        if cases.iter().any(|other| other.name == case.name) {
            let message = format!("the case `{}` stands here a second time", case.name);
            findings.at(item, "duplicate-name", message, "give each case its own name");
        }
        cases.push(case);
    }
    Some(cases)
}

fn case(
    findings: &mut Findings<'_>,
    node: &Node,
    (policies, grant): (&PolicySet, &Grant),
    fixtures: &Fixtures<'_>,
) -> Option<Case> {
    let before = findings.list.len();
    let mut fields = findings.fields(node)?;
    let name_node = fields.require(findings, "name");
    let name = name_node.and_then(|node| findings.filled(node));
    let use_node = fields.require(findings, "use");
    let set = fields.take("set");
    let remove = fields.take("remove");
    let own_at = fields.take("at").and_then(|node| moment(findings, node));
    let credentials = fields.take("credentials").and_then(|node| credentials(findings, node, grant));
    let expect = expect::expect(findings, &mut fields, (policies, grant), credentials.as_deref());
    fields.finish(findings);
    let fixture = fixture_of(findings, use_node?, fixtures)?;
    let at = own_at.or(fixture.at);
    if at.is_none() && depends_on_time(policies, grant) {
        let message =
            "what this grant permits depends on the time, and neither the case nor its fixture has any";
        let remedy = "add `at: \"2027-01-13T10:00:00Z\"` to the fixture, or to the case";
        findings.at(use_node?, "test-moment", message, remedy);
    }
    let mut claims = fixture.claims.clone();
    let mut changes = changes(findings, &mut claims, (set, remove), fixture);
    changes.at = own_at;
    if findings.list.len() > before {
        return None;
    }
    let identity = identity(findings, node, fixture.issuer, &claims, at)?;
    let (line, column) = (name_node?.line, name_node?.column);
    let asked = GrantRequest {
        name: grant.name.to_string(),
        credentials: credentials.map(|names| names.iter().map(ToString::to_string).collect()),
        ttl: None,
    };
    let (name, at, request) = (name?.to_owned(), at.unwrap_or(SOME_MOMENT), Request { grants: vec![asked] });
    let fixture = findings.filled(use_node?)?.to_owned();
    Some(Case { name, fixture, changes, line, column, identity, at, request, expect: expect? })
}

fn fixture_of<'f, 'a>(
    findings: &mut Findings<'_>,
    node: &Node,
    fixtures: &'f Fixtures<'a>,
) -> Option<&'f Fixture<'a>> {
    let text = findings.filled(node)?;
    let fixture = fixtures.get(text);
    match fixture {
        Some(fixture) => fixture.is_used.set(true),
        None => {
            let remedy = nearest(text, fixtures.keys().copied()).map_or_else(
                || "name one of `fixtures`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            findings.at(
                node,
                "test-fixture",
                format!("there is no fixture `{text}`, or it is at fault"),
                remedy,
            );
        }
    }
    fixture
}

fn changes(
    findings: &mut Findings<'_>,
    claims: &mut Map<String, Value>,
    (set, remove): (Option<&Node>, Option<&Node>),
    fixture: &Fixture<'_>,
) -> Changes {
    let mut changes = Changes::default();
    for node in remove.and_then(|node| some(findings, node)).into_iter().flatten() {
        changes.remove.extend(claims::remove(findings, claims, node));
    }
    let Some(fields) = set.and_then(|node| findings.fields(node)) else { return changes };
    let entries: Vec<(&Key, &Node)> = fields.rest().collect();
    if let (Some(node), true) = (set, entries.is_empty()) {
        findings.at(node, "empty", "nothing is set", "name claims, or remove the key");
    }
    for entry in entries {
        let value = claims::set(findings, claims, entry, fixture.issuer.trusted.profile);
        changes.set.extend(value.map(|value| (entry.0.text.clone(), value)));
    }
    changes
}

fn some<'n>(findings: &mut Findings<'_>, node: &'n Node) -> Option<&'n [Node]> {
    let items = findings.list(node)?;
    if items.is_empty() {
        findings.at(node, "empty", "the list is empty", "name something, or remove the key");
        return None;
    }
    Some(items)
}

fn credentials(findings: &mut Findings<'_>, node: &Node, grant: &Grant) -> Option<Vec<CredentialName>> {
    let items = some(findings, node)?;
    items.iter().map(|item| credential(findings, item, grant)).collect()
}

fn credential(findings: &mut Findings<'_>, node: &Node, grant: &Grant) -> Option<CredentialName> {
    let text = findings.filled(node)?;
    let known = grant.credentials.get_key_value(text).map(|(name, _)| name.clone());
    if known.is_none() {
        let names: Vec<&str> = grant.credentials.keys().map(CredentialName::as_str).collect();
        let message = format!("the grant `{}` has no credential `{text}`", grant.name);
        findings.at(node, "test-credential", message, format!("it has {}", names.join(", ")));
    }
    known
}

/// Whether a case without a moment would say something else tomorrow.
fn depends_on_time(set: &PolicySet, grant: &Grant) -> bool {
    let reports = |guardrail: &Guardrail| matches!(guardrail.mode, Mode::Report { .. });
    let applying = grant.credentials.values().flat_map(|credential| &credential.guardrails);
    grant.lapses_at.is_some()
        || grant.rules.iter().any(|rule| rule.window.is_some())
        || applying.filter_map(|at| set.guardrails.get(*at)).any(reports)
}

/// When nothing depends on the time, any moment does.
const SOME_MOMENT: Timestamp = Timestamp::UNIX_EPOCH;

/// A payload of at most 8 KiB never passes these (the bounds of a token's claims, generously).
const BOUNDS: Bounds = Bounds { depth: 16, nodes: 4_096, string_bytes: 16_384 };
