//! What credentials of other systems have in common: the backend that makes them, and the claims in their templates.

use std::{collections::BTreeMap, sync::Arc};

use super::Known;
use crate::kernel::{
    name::CredentialName,
    policy::{
        set::{Credential, Rule},
        target::{Backend, Kind, Target},
        template::{Piece, is_template, pieces},
        yaml::{Findings, Node, nearest},
    },
};

/// The backend of a credential: the one that it names, or the only one of its kind. Without a configuration nobody knows
/// which one that is.
pub(super) fn read(
    findings: &mut Findings<'_>,
    (kind, credential): (Kind, &Node),
    named: Option<&Node>,
    known: &Known<'_>,
) -> Option<Backend> {
    let name = match named {
        Some(node) => Some((node, untemplated(findings, node, "a backend")?)),
        None => None,
    };
    let Some(backends) = known.backends else {
        return Some(name.map_or(Backend::Unnamed, |(_, name)| Backend::Named(name.into())));
    };
    let of_kind: Vec<&String> =
        backends.iter().filter(|(_, each)| **each == kind).map(|(name, _)| name).collect();
    let kind = kind.as_str();
    match (name, of_kind.as_slice()) {
        (Some((_, name)), _) if of_kind.iter().any(|each| *each == name) => Some(Backend::Named(name.into())),
        (Some((node, name)), _) => {
            let near = nearest(name, of_kind.iter().map(|each| each.as_str()));
            let remedy = match (near, of_kind.is_empty()) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, true) => format!("add `{name}: {{ {kind}: … }}` to `backends`"),
                (None, false) => format!("write one of {}", shown(&of_kind)),
            };
            let message = format!("hallpass.yaml has no backend `{name}` of kind {kind}");
            findings.at(node, "backend", message, remedy);
            None
        }
        (None, [only]) => Some(Backend::Named(Arc::from(only.as_str()))),
        (None, []) => {
            let message = format!("hallpass.yaml has no backend of kind {kind}");
            findings.at(credential, "backend", message, format!("add one to `backends`: {kind}: …"));
            None
        }
        (None, several) => {
            let message = format!("hallpass.yaml has several backends of kind {kind}");
            findings.at(
                credential,
                "backend",
                message,
                format!("write `backend:` with one of {}", shown(several)),
            );
            None
        }
    }
}

fn shown(names: &[&String]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// A text in which a template would let a job choose what it reaches.
pub(super) fn untemplated<'n>(findings: &mut Findings<'_>, node: &'n Node, what: &str) -> Option<&'n str> {
    let text = findings.filled(node)?;
    if is_template(text) {
        findings.at(
            node,
            "template",
            format!("{what} takes no template"),
            "write it out, in a grant for each",
        );
        return None;
    }
    Some(text)
}

/// A text with templates that are whole.
pub(super) fn templated<'n>(findings: &mut Findings<'_>, node: &'n Node) -> Option<&'n str> {
    let text = findings.filled(node)?;
    if pieces(text).is_none() {
        let remedy = "write ${claims.NAME} with the name of one claim";
        findings.at(node, "template", format!("`{text}` has a template without meaning"), remedy);
        return None;
    }
    Some(text)
}

/// The claims of templates: tokens of every rule's issuer have them, and those of a path are nobody's to choose.
pub(super) fn check_claims(
    findings: &mut Findings<'_>,
    credentials: &BTreeMap<CredentialName, Credential>,
    rules: &[Rule],
    known: &Known<'_>,
) {
    for credential in credentials.values() {
        let (texts, is_path): (Vec<&str>, bool) = match &credential.target.0 {
            Target::Aws(aws) => (aws.tags.values().map(String::as_str).collect(), false),
            Target::Oidc { .. } | Target::Sealed { .. } => continue,
            Target::Vault(vault) => (vec![&vault.path], true),
        };
        let place = (credential.place.line, credential.place.column, credential.place.width);
        let pieces = texts.into_iter().filter_map(pieces).flatten();
        let claims = pieces.filter_map(|piece| match piece {
            Piece::Claim(name) => Some(name),
            Piece::Text(_) => None,
        });
        for claim in claims {
            if let Some((message, remedy)) = rules.iter().find_map(|rule| fault(claim, is_path, rule, known))
            {
                findings.place(place, "template", message, remedy);
            }
        }
    }
}

fn fault(claim: &str, is_path: bool, rule: &Rule, known: &Known<'_>) -> Option<(String, &'static str)> {
    let profile = known.issuers.get(&rule.issuer)?.trusted.profile;
    match profile.claim(claim) {
        None if is_path || !profile.open => {
            let message = format!("tokens of `{}` are not known to have the claim `{claim}`", rule.issuer);
            Some((message, "name a claim that tokens of every rule's issuer have"))
        }
        Some(spec) if is_path && (!spec.immutable || spec.attacker_controlled) => {
            let message = format!(
                "`{claim}` of `{}` can change hands or be chosen, so that a job could reach another's path by it",
                rule.issuer
            );
            Some((message, "use an immutable claim, such as the project's id"))
        }
        None | Some(_) => None,
    }
}
