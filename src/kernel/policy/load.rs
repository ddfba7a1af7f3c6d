//! Loading: files in, a [`PolicySet`] or every finding out. Strict: what is not understood is refused, never
//! ignored, since a typo must not drop a condition (attack classes P-03, P-04).

mod grant;
mod guardrail;
mod issuer;

use std::collections::{BTreeMap, HashMap};

pub(super) use self::grant::class;
use super::{
    finding::{Finding, Place},
    guardrail::Guardrail,
    set::{Files, Grant, IssuerPolicy, PolicySet, Trusted, TrustedIssuer},
    yaml::{self, Findings, Node},
};
use crate::kernel::name::{GrantName, IssuerName};

/// Issuers by name, as a set has them.
type Issuers = HashMap<IssuerName, IssuerPolicy>;

/// A set that may decide, and what is probably not meant in it.
pub struct Loaded {
    /// The set.
    pub set: PolicySet,
    /// Warnings, sorted by file and place.
    pub warnings: Vec<Finding>,
}

/// Loads a set. `trusted` is what `hallpass.yaml` says; `None` checks files alone.
///
/// # Errors
///
/// Every finding, warnings among them, sorted by file and place; at least one is an error.
pub fn load(
    files: &Files,
    commit: Option<String>,
    trusted: Option<&Trusted>,
) -> Result<Loaded, Vec<Finding>> {
    let mut list = Vec::new();
    let (issuers, all_issuers_read) = issuers(files, trusted.map(|trusted| &trusted.issuers), &mut list);
    let guardrails = guardrails(files, &issuers, all_issuers_read, &mut list);
    let backends = trusted.map(|trusted| &trusted.backends);
    let ourselves = trusted.map_or(&[][..], |trusted| &trusted.ourselves);
    let known = grant::Known { issuers: &issuers, all_issuers_read, backends, ourselves };
    let grants = grants(files, &known, &mut list);
    strangers(files, &mut list);
    nobody(files, &mut list);
    let mut set = PolicySet {
        digest: files.digest(),
        commit,
        issuers,
        grants,
        guardrails,
        names: Vec::new(),
        named_tenants: HashMap::new(),
    };
    let is_refused = !list.is_empty();
    if !is_refused {
        set.derive();
        warnings(&set, &mut list);
    }
    list.sort_by(|left, right| {
        (&left.file, left.line, left.column).cmp(&(&right.file, right.line, right.column))
    });
    if is_refused { Err(list) } else { Ok(Loaded { set, warnings: list }) }
}

fn issuers(
    files: &Files,
    trusted: Option<&BTreeMap<IssuerName, TrustedIssuer>>,
    list: &mut Vec<Finding>,
) -> (Issuers, bool) {
    let mut issuers = Issuers::new();
    let mut are_all_read = true;
    for file in of(files, Folder::Issuers) {
        let mut findings = Findings::new(file.0);
        let node = document(file, list);
        match node.and_then(|node| issuer::read(&mut findings, &node, trusted, &issuers)) {
            Some(issuer) if findings.list.is_empty() => {
                issuers.insert(issuer.trusted.name.clone(), issuer);
            }
            Some(_) | None => are_all_read = false,
        }
        list.append(&mut findings.list);
    }
    (issuers, are_all_read)
}

fn guardrails(
    files: &Files,
    issuers: &Issuers,
    all_issuers_read: bool,
    list: &mut Vec<Finding>,
) -> Vec<Guardrail> {
    let known = guardrail::Known { issuers, all_issuers_read };
    let mut guardrails = Vec::new();
    let mut names = HashMap::new();
    for file in of(files, Folder::Guardrails) {
        let Some(node) = document(file, list) else { continue };
        let mut findings = Findings::new(file.0);
        if let Some(guardrail) = guardrail::read(&mut findings, &node, &known, &names) {
            names.insert(guardrail.name.clone(), file.0.to_owned());
            guardrails.push(guardrail);
        }
        list.append(&mut findings.list);
    }
    guardrails
}

fn grants(files: &Files, known: &grant::Known<'_>, list: &mut Vec<Finding>) -> HashMap<GrantName, Grant> {
    let mut grants: HashMap<GrantName, Grant> = HashMap::new();
    for file in of(files, Folder::Grants) {
        let Some(node) = document(file, list) else { continue };
        let mut findings = Findings::new(file.0);
        if let Some(grant) = grant::read(&mut findings, &node, known, &grants) {
            grants.insert(grant.name.clone(), grant);
        }
        list.append(&mut findings.list);
    }
    grants
}

/// What a set that loads has in it and that is probably not meant.
fn warnings(set: &PolicySet, list: &mut Vec<Finding>) {
    for grant in set.grants.values() {
        let Some((own, place)) = grant.own_class.filter(|(own, _)| *own < grant.class) else { continue };
        let message =
            format!("the grant says {}, and its targets make it {}", own.as_str(), grant.class.as_str());
        let remedy = format!(
            "write {}, or have a guardrail classify its targets; what nothing classifies is production",
            grant.class.as_str()
        );
        list.push(Finding::warning((&grant.file, place), "class-lower", message, remedy));
    }
}

/// Reads a grant that stands in no file of its own, such as a test's: what would be if somebody wrote it there. It must
/// have a name that the set does not have.
pub(super) fn supposed(findings: &mut Findings<'_>, node: &Node, set: &PolicySet) -> Option<Grant> {
    let known =
        grant::Known { issuers: &set.issuers, all_issuers_read: true, backends: None, ourselves: &[] };
    grant::read(findings, node, &known, &set.grants)
}

/// The files with tests of grants, which are the business of [`super::suite`].
pub fn tests_of(files: &Files) -> impl Iterator<Item = (&str, &[u8])> {
    let is_test = |(path, _): &(&String, &Vec<u8>)| folder(path) == Folder::Test;
    files.0.iter().filter(is_test).map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
}

/// What a path says about its file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Folder {
    Grants,
    Guardrails,
    Issuers,
    Stranger,
    Test,
    /// Outside the three folders and not YAML: a README, a licence. Part of the digest, otherwise nothing.
    Text,
}

fn folder(path: &str) -> Folder {
    let is_yaml = path.ends_with(".yaml") || path.ends_with(".yml");
    match path.split_once('/') {
        Some(("issuers", rest)) if !rest.contains('/') && rest.ends_with(".yaml") => Folder::Issuers,
        Some(("guardrails", rest)) if !rest.contains('/') && rest.ends_with(".yaml") => Folder::Guardrails,
        Some(("grants", rest)) if rest.ends_with(".test.yaml") => Folder::Test,
        Some(("grants", rest)) if rest.ends_with(".yaml") => Folder::Grants,
        Some(("issuers" | "guardrails" | "grants", _)) => Folder::Stranger,
        Some(_) | None if is_yaml => Folder::Stranger,
        Some(_) | None => Folder::Text,
    }
}

fn of(files: &Files, wanted: Folder) -> impl Iterator<Item = (&str, &[u8])> {
    let each = files.0.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
    each.filter(move |(path, _)| folder(path) == wanted)
}

fn document((path, bytes): (&str, &[u8]), list: &mut Vec<Finding>) -> Option<Node> {
    yaml::read(path, bytes).map_err(|finding| list.push(finding)).ok()
}

fn strangers(files: &Files, list: &mut Vec<Finding>) {
    for (path, bytes) in &files.0 {
        match folder(path) {
            Folder::Grants | Folder::Guardrails | Folder::Issuers | Folder::Text => {}
            Folder::Test => list.extend(yaml::read(path, bytes).err()),
            Folder::Stranger => {
                let remedy = "put issuers into issuers/NAME.yaml, guardrails into guardrails/NAME.yaml, grants into grants/**/NAME.yaml, tests beside them as NAME.test.yaml";
                list.push(Finding::error(
                    (path, FIRST),
                    "unknown-file",
                    "a file here has no meaning",
                    remedy,
                ));
            }
        }
    }
}

/// An empty directory is a mount that is gone or a checkout that failed, not the wish to let nobody in (attack class
/// P-05).
fn nobody(files: &Files, list: &mut Vec<Finding>) {
    if !files.0.keys().any(|path| folder(path) == Folder::Issuers) {
        let message = "no file in issuers/ names an issuer, so nobody could ever be let in";
        let remedy = "add issuers/NAME.yaml, and look whether this is the directory that you mean";
        list.push(Finding::error(("issuers", FIRST), "no-issuer", message, remedy));
    }
}

/// A finding about a whole file.
const FIRST: Place = Place { line: 1, column: 1, width: 0 };

#[cfg(test)]
mod tests;
