//! A grant for the job of one token, as tight as that token allows, and tests that notice when any line of it goes.
//! `hallpass policy init` writes it; here are texts only.
//!
//! What stands in the rule is what a reviewer would ask for: the tenant and the project by their immutable ids with the
//! readable name beside them, the ref, what set the job off, the environment, the file that defines the job and whose
//! machine runs it. What differs from run to run (ids of runs, commits), what names a person and what a job can choose
//! is left out. Nothing here believes the claims: the draft is for people to read.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    Changes, Suites,
    claims::put,
    neighbour,
    write::{changes, scalar, value},
};
use crate::kernel::{
    identity::{
        JobIdentity,
        job::Trigger,
        profile::{ClaimKind, ClaimSpec, Profile, REGISTERED},
    },
    name::{GrantName, IssuerName, SecretName},
    policy::{
        Decision, Finding, PolicySet,
        decide::{GrantRequest, Request, decide},
        load,
        matcher::Path,
        set::Files,
    },
};

/// What a draft is for.
pub struct Wish<'a> {
    /// The issuer, which the files name.
    pub issuer: &'a IssuerName,
    /// Its profile.
    pub profile: &'static Profile,
    /// The payload of one token.
    pub claims: &'a Map<String, Value>,
    /// What the grant is to be called.
    pub grant: &'a GrantName,
    /// The sealed secret that it yields.
    pub secret: &'a SecretName,
}

/// Two files.
pub struct Draft {
    /// `grants/NAME.yaml`.
    pub grant: String,
    /// `grants/NAME.test.yaml`.
    pub test: String,
}

/// Why there is no draft.
#[derive(Debug)]
pub enum DraftFault {
    /// A trigger that runs a stranger's code or text, or one that the profile does not know.
    Trigger(Option<String>),
    /// Claims that no token of the profile has; a stable word.
    NotAToken(String),
    /// The claims hold too little to say whom a rule means, or a guardrail refuses it.
    Refused(Vec<Finding>),
    /// The evaluator denies the job that the draft was made for; the reason.
    Denied(String),
    /// The tests would miss something.
    Unnoticed(Vec<String>),
}

/// A condition of the draft.
struct Line {
    claim: &'static str,
    value: Value,
    why: &'static str,
    /// Whether the loader demands it.
    is_due: bool,
}

/// Drafts a grant and its tests. `files` is the set that it is for: its issuers and guardrails count, its grants do not.
///
/// # Errors
///
/// [`DraftFault`]; what comes back without one was loaded, run and mutated here, and nothing survived.
pub fn draft(wish: &Wish<'_>, files: &Files) -> Result<Draft, DraftFault> {
    let job = identity(wish, wish.claims.clone())?;
    match job.trigger() {
        Trigger::Ordinary => {}
        Trigger::Dangerous(word) => return Err(DraftFault::Trigger(Some(word.to_owned()))),
        Trigger::Unknown => return Err(DraftFault::Trigger(job.trigger_word().map(str::to_owned))),
    }
    let mut lines = lines(wish);
    // What cannot be otherwise alone says nothing that another line does not say, and no test could tell it apart.
    lines.retain(|line| line.is_due || can_vary(wish, line));
    let grant = grant_text(wish, &lines);
    let mut files = apart(files, wish.grant, &grant);
    let set = load::load(&files, None, None).map_err(DraftFault::Refused)?.set;
    let fixture = fixture(wish, &lines, &set)?;
    let cases = cases(wish, &lines, &fixture, &set)?;
    let test = test_text(wish, &lines, &fixture, &cases);
    files.0.insert(format!("grants/{}.test.yaml", wish.grant), test.clone().into_bytes());
    prove(&files, set)?;
    Ok(Draft { grant, test })
}

/// Issuers and guardrails of a set, and one grant.
fn apart(files: &Files, name: &GrantName, grant: &str) -> Files {
    let is_kept = |path: &str| !path.starts_with("grants/");
    let kept = files.0.iter().filter(|(path, _)| is_kept(path));
    let mut apart = Files(kept.map(|(path, bytes)| (path.clone(), bytes.clone())).collect());
    apart.0.insert(format!("grants/{name}.yaml"), grant.as_bytes().to_vec());
    apart
}

fn prove(files: &Files, set: PolicySet) -> Result<(), DraftFault> {
    let mut suites = Suites::read(files.clone(), set);
    if !suites.findings().is_empty() {
        return Err(DraftFault::Refused(suites.findings().to_vec()));
    }
    if let Some(fault) = suites.run().into_iter().find_map(|told| told.fault) {
        return Err(DraftFault::Denied(fault.message));
    }
    let survivors: Vec<String> = suites.mutate_grants().survivors.into_iter().map(|each| each.what).collect();
    if survivors.is_empty() { Ok(()) } else { Err(DraftFault::Unnoticed(survivors)) }
}

fn identity(wish: &Wish<'_>, claims: Map<String, Value>) -> Result<JobIdentity, DraftFault> {
    JobIdentity::from_claims(wish.issuer.clone(), wish.profile, claims, Timestamp::UNIX_EPOCH)
        .map_err(|fault| DraftFault::NotAToken(fault.reason))
}

// --------------------------------------------------------------------------------------------------------- the grant

fn lines(wish: &Wish<'_>) -> Vec<Line> {
    let profile = wish.profile;
    let mut lines: Vec<Line> = Vec::new();
    let mut add = |claim: Option<&'static str>, why: &'static str| {
        let Some(spec) = claim.and_then(|claim| profile.claim(claim)) else { return };
        let Some(value) = look(wish.claims, spec).filter(|value| is_literal(spec, value)) else { return };
        if !spec.attacker_controlled && !lines.iter().any(|line| line.claim == spec.name) {
            let is_due = profile.anchors.contains(&spec.name)
                || profile.tenant_pins.contains(&spec.name)
                || profile.demands.iter().any(|demand| demand.claim == spec.name);
            lines.push(Line { claim: spec.name, value: value.clone(), why, is_due });
        }
    };
    let has =
        |claim: &&&'static str| profile.claim(claim).is_some_and(|spec| look(wish.claims, spec).is_some());
    add(profile.tenant_pins.iter().find(has).copied(), "the tenant, by an id that nobody else can ever have");
    if let Some((id, name)) = profile.project {
        add(Some(id), "the project, by its id: names can be taken by others");
        add(name, "a readable name beside the id; both must hold");
    }
    add(profile.anchors.iter().find(has).copied(), "exactly whom the rule means");
    for demand in profile.demands {
        add(Some(demand.claim), demand.why);
    }
    let view = &profile.view;
    add(view.git_ref, "this ref and no other");
    let is_whole = view
        .git_ref
        .and_then(|claim| wish.claims.get(claim)?.as_str())
        .is_none_or(|git_ref| git_ref.starts_with("refs/"));
    if !is_whole {
        add(Some("ref_type"), "a branch and a tag can have the same name");
    }
    let is_protected = view.ref_protected.and_then(|claim| wish.claims.get(claim)).is_some_and(is_true);
    add(view.ref_protected.filter(|_| is_protected), "and it must be protected");
    add(view.trigger, "what set the job off; write a list where several may");
    add(view.environment, "put required reviewers on it, or the name protects nothing");
    add(view.definition, "the reviewed file that defines the job");
    add(view.runner, "whose machine runs the job");
    lines
}

/// Whether a token of the profile can differ from this one by the line.
fn can_vary(wish: &Wish<'_>, line: &Line) -> bool {
    let other = neighbour::other(&line.value);
    let mut claims = wish.claims.clone();
    for (claim, value) in neighbour::changes((wish.issuer, wish.profile), &claims.clone(), line.claim, &other)
    {
        insert(&mut claims, &claim, value);
    }
    identity(wish, claims).is_ok()
}

fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true) || value.as_str() == Some("true")
}

/// Whether a rule can name the value: one scalar that is not empty and holds nothing that a literal cannot.
fn is_literal(spec: &ClaimSpec, value: &Value) -> bool {
    spec.kind.fits(value)
        && match value {
            Value::String(text) => {
                !text.is_empty() && !text.contains('*') && !text.chars().any(char::is_control)
            }
            Value::Bool(_) | Value::Number(_) => true,
            Value::Array(_) | Value::Null | Value::Object(_) => false,
        }
}

fn grant_text(wish: &Wish<'_>, lines: &[Line]) -> String {
    let Wish { issuer, grant, secret, .. } = wish;
    let written: Vec<(String, &str)> = lines
        .iter()
        .map(|line| (format!("{}: {}", scalar(line.claim), value(&line.value)), line.why))
        .collect();
    let column = written.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0).min(46);
    let conditions: String =
        written.iter().map(|(text, why)| format!("      {text:<column$}  # {why}\n")).collect();
    format!(
        "# yaml-language-server: $schema=../.schemas/grant.json\n\
         #\n\
         # Drafted from the claims of one job, whose signature NOBODY CHECKED: read every line before you merge it.\n\
         # Left out: what differs from run to run, what names a person, and what a job can choose for itself.\n\
         grant: {grant}\n\
         description: \"\"                          # for people: what it is for\n\
         owners: []                               # who answers for it\n\
         \n\
         allow:                                   # any rule that matches is enough; within a rule every line must hold\n\
         \x20 - name: drafted\n\
         \x20   issuer: {issuer}\n\
         \x20   match:\n\
         {conditions}\
         \n\
         credentials:                             # a job gets all of them, or the ones that it names\n\
         \x20 {secret}:\n\
         \x20   sealed: {{ secret: {secret} }}         # `hallpass secret set {secret}` puts it there\n"
    )
}

// ---------------------------------------------------------------------------------------------------------- the test

/// What the job of the draft has, so that it is a token of the profile, is let in, and holds nothing of one run.
fn fixture(wish: &Wish<'_>, lines: &[Line], set: &PolicySet) -> Result<Map<String, Value>, DraftFault> {
    let mut claims = Map::new();
    for spec in wish.profile.claims.iter().filter(|spec| spec.required && spec.name != "sub") {
        let told = look(wish.claims, spec).filter(|_| spec.identity && !spec.personal);
        insert(&mut claims, spec.name, told.cloned().unwrap_or_else(|| any(spec.kind)));
    }
    for line in lines {
        insert(&mut claims, line.claim, line.value.clone());
    }
    if denied(wish, set, &claims)?.is_none() {
        return Ok(claims);
    }
    // What sets a job off can be read from several claims: whose project runs it for whom.
    let tells = |spec: &ClaimSpec| wish.profile.dangers.iter().any(|danger| danger.claim == spec.name);
    let names = wish.profile.claims.iter().filter(|spec| (spec.identity || tells(spec)) && !spec.personal);
    for spec in names.filter(|spec| !REGISTERED.contains(&spec.name)) {
        if let Some(value) = look(wish.claims, spec).filter(|value| spec.kind.fits(value)) {
            insert(&mut claims, spec.name, value.clone());
        }
    }
    match denied(wish, set, &claims)? {
        None => Ok(claims),
        Some((reason, failed)) if failed.is_empty() => Err(DraftFault::Denied(reason)),
        Some((reason, failed)) => Err(DraftFault::Denied(format!("{reason}, [{}]", failed.join(", ")))),
    }
}

/// What one case sets, and what then fails.
type Row = (Vec<(String, Value)>, Vec<String>);

/// Each line changed alone, with what then fails.
fn cases(
    wish: &Wish<'_>,
    lines: &[Line],
    fixture: &Map<String, Value>,
    set: &PolicySet,
) -> Result<Vec<Row>, DraftFault> {
    let case = |line: &Line| {
        let other = neighbour::other(&line.value);
        let changed = neighbour::changes((wish.issuer, wish.profile), fixture, line.claim, &other);
        let mut claims = fixture.clone();
        changed.iter().for_each(|(claim, value)| insert(&mut claims, claim, value.clone()));
        match denied(wish, set, &claims)? {
            Some((_, failed)) => Ok((changed, failed)),
            None => Err(DraftFault::Unnoticed(vec![line.claim.to_owned()])),
        }
    };
    lines.iter().map(case).collect()
}

/// Why a job with these claims is denied, and what failed; `None` where it is let in.
fn denied(
    wish: &Wish<'_>,
    set: &PolicySet,
    claims: &Map<String, Value>,
) -> Result<Option<(String, Vec<String>)>, DraftFault> {
    let job = identity(wish, claims.clone())?;
    let asked = GrantRequest { name: wish.grant.to_string(), credentials: None, ttl: None };
    match decide(set, &job, &Request { grants: vec![asked] }, Timestamp::UNIX_EPOCH) {
        Decision::Permit(_) => Ok(None),
        Decision::Deny(denial) => {
            let failed = denial.trace.into_iter().next().map(|tried| tried.failed).unwrap_or_default();
            Ok(Some((denial.reason.to_owned(), failed)))
        }
    }
}

fn test_text(wish: &Wish<'_>, lines: &[Line], fixture: &Map<String, Value>, cases: &[Row]) -> String {
    let claims: String =
        fixture.iter().map(|(name, each)| format!("      {}: {}\n", scalar(name), value(each))).collect();
    let rows = lines.iter().zip(cases).map(|(line, (changed, failed))| {
        let failed: Vec<String> = failed.iter().map(|each| scalar(each)).collect();
        format!(
            "  - {{ name: {}, use: job, {}expect: deny, failed: [{}] }}\n",
            scalar(&format!("another {}", line.claim)),
            changes(&Changes { set: changed.clone(), ..Changes::default() }),
            failed.join(", ")
        )
    });
    let rows: String = rows.collect();
    format!(
        "# yaml-language-server: $schema=../.schemas/test.json\n\
         #\n\
         # Run by `hallpass policy test --mutate`, which also takes each line of the rule away in turn: some case here\n\
         # must fail for it.\n\
         test: {}\n\
         \n\
         fixtures:\n\
         \x20 job:\n\
         \x20   issuer: {}\n\
         \x20   claims:\n\
         {claims}\
         \n\
         cases:                                   # each differs from the fixture in one thing\n\
         \x20 - {{ name: the job of the draft, use: job, expect: permit, rule: drafted }}\n\
         {rows}",
        wish.grant, wish.issuer
    )
}

fn look<'c>(claims: &'c Map<String, Value>, spec: &ClaimSpec) -> Option<&'c Value> {
    spec.find(claims)
}

fn insert(claims: &mut Map<String, Value>, name: &str, value: Value) {
    let Some(path) = Path::parse(name) else { return };
    let mut above = Vec::new();
    for part in std::iter::once(&path.root).chain(&path.below).take(path.below.len()) {
        above.push(part.clone());
        let here = Path { root: path.root.clone(), below: above.iter().skip(1).cloned().collect() };
        if super::claims::look(claims, &here).is_none() {
            put(claims, &here, Value::Object(Map::new()));
        }
    }
    put(claims, &path, value);
}

/// Some value where only the type matters.
fn any(kind: ClaimKind) -> Value {
    match kind {
        ClaimKind::Boolean => Value::Bool(false),
        ClaimKind::Integer => Value::from(1),
        ClaimKind::Text => Value::from("1"),
        ClaimKind::TextList => Value::Array(Vec::new()),
    }
}
