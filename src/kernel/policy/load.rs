//! Loading: files in, a [`PolicySet`] or every finding out. Strict: what is not understood is refused, never
//! ignored, since a typo must not drop a condition (attack classes P-03, P-04).

mod grant;
mod issuer;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    finding::{Finding, Severity},
    set::{Files, Grant, IssuerPolicy, PolicySet, TrustedIssuer},
    yaml::{self, Findings, Node},
};
use crate::kernel::name::{GrantName, IssuerName};

/// Issuers by name, as a set has them.
type Issuers = HashMap<IssuerName, IssuerPolicy>;

/// Loads a set. `trusted` is what `hallpass.yaml` says; `None` checks files alone.
///
/// # Errors
///
/// Every finding, sorted by file and place.
pub fn load(
    files: &Files,
    commit: Option<String>,
    trusted: Option<&BTreeMap<IssuerName, TrustedIssuer>>,
) -> Result<PolicySet, Vec<Finding>> {
    let mut list = Vec::new();
    let mut issuers = Issuers::new();
    let mut issuers_read = true;
    for (path, node) in documents(files, Folder::Issuers, &mut list) {
        let mut findings = Findings::new(path);
        match issuer::read(&mut findings, &node, trusted, &issuers) {
            Some(issuer) if findings.list.is_empty() => {
                issuers.insert(issuer.trusted.name.clone(), issuer);
            }
            Some(_) | None => issuers_read = false,
        }
        list.append(&mut findings.list);
    }
    let mut grants: HashMap<GrantName, Grant> = HashMap::new();
    for (path, node) in documents(files, Folder::Grants, &mut list) {
        let mut findings = Findings::new(path);
        // Where an issuer could not be read, a grant that names it is not at fault.
        let known = grant::Known { issuers: &issuers, all_issuers_read: issuers_read };
        if let Some(grant) = grant::read(&mut findings, &node, &known, &grants) {
            grants.insert(grant.name.clone(), grant);
        }
        list.append(&mut findings.list);
    }
    strangers(files, &mut list);
    nobody(files, &mut list);
    if !list.is_empty() {
        list.sort_by(|left, right| {
            (&left.file, left.line, left.column).cmp(&(&right.file, right.line, right.column))
        });
        return Err(list);
    }
    let named_tenants = named_tenants(&grants, &issuers);
    let mut names: Vec<GrantName> = grants.keys().cloned().collect();
    names.sort();
    Ok(PolicySet { digest: files.digest(), commit, issuers, grants, names, named_tenants })
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
        Some(("guardrails", _)) => Folder::Guardrails,
        Some(("grants", rest)) if rest.ends_with(".test.yaml") => Folder::Test,
        Some(("grants", rest)) if rest.ends_with(".yaml") => Folder::Grants,
        Some(("issuers" | "grants", _)) => Folder::Stranger,
        Some(_) | None if is_yaml => Folder::Stranger,
        Some(_) | None => Folder::Text,
    }
}

fn documents<'f>(files: &'f Files, wanted: Folder, list: &mut Vec<Finding>) -> Vec<(&'f str, Node)> {
    let mut found = Vec::new();
    for (path, bytes) in files.0.iter().filter(|(path, _)| folder(path) == wanted) {
        match yaml::read(path, bytes) {
            Ok(node) => found.push((path.as_str(), node)),
            Err(finding) => list.push(finding),
        }
    }
    found
}

fn strangers(files: &Files, list: &mut Vec<Finding>) {
    for (path, bytes) in &files.0 {
        let (code, message, remedy) = match folder(path) {
            Folder::Grants | Folder::Issuers | Folder::Text => continue,
            Folder::Test => {
                list.extend(yaml::read(path, bytes).err());
                continue;
            }
            Folder::Guardrails => (
                "not-yet",
                "this version does not support guardrails yet",
                "remove the file; a guardrail without effect would be worse than none",
            ),
            Folder::Stranger => (
                "unknown-file",
                "a file here has no meaning",
                "put issuers into issuers/NAME.yaml, grants into grants/**/NAME.yaml, tests beside them as NAME.test.yaml",
            ),
        };
        list.push(Finding {
            file: path.clone(),
            line: 1,
            column: 1,
            width: 0,
            severity: Severity::Error,
            code,
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

/// An empty directory is a mount that is gone or a checkout that failed, not the wish to let nobody in (attack class
/// P-05).
fn nobody(files: &Files, list: &mut Vec<Finding>) {
    if !files.0.keys().any(|path| folder(path) == Folder::Issuers) {
        list.push(Finding {
            file: "issuers".to_owned(),
            line: 1,
            column: 1,
            width: 0,
            severity: Severity::Error,
            code: "no-issuer",
            message: "no file in issuers/ names an issuer, so nobody could ever be let in".to_owned(),
            remedy: "add issuers/NAME.yaml, and look whether this is the directory that you mean".to_owned(),
        });
    }
}

fn named_tenants(
    grants: &HashMap<GrantName, Grant>,
    issuers: &Issuers,
) -> HashMap<IssuerName, BTreeSet<String>> {
    let mut named: HashMap<IssuerName, BTreeSet<String>> = HashMap::new();
    for rule in grants.values().flat_map(|grant| &grant.rules) {
        let Some(issuer) = issuers.get(&rule.issuer) else { continue };
        let pins = issuer.trusted.profile.tenant_pins;
        let tenants = rule
            .conditions
            .iter()
            .filter(|condition| pins.contains(&condition.claim.as_str()))
            .flat_map(|condition| condition.matcher.literals())
            .filter_map(|literal| literal.as_str().map(str::to_owned));
        named.entry(rule.issuer.clone()).or_default().extend(tenants);
    }
    named
}

#[cfg(test)]
mod tests;
