//! `issuers/*.yaml`: names an issuer for the rules. Whom to trust is the operator's word; policy must agree with it.

use std::{collections::BTreeMap, time::Duration};

use super::Issuers;
use crate::kernel::{
    identity::profile::Profile,
    name::IssuerName,
    policy::{
        set::{IssuerPolicy, TrustedIssuer},
        yaml::{Content, Findings, Node, nearest},
    },
};

/// The age of a token where the file says none.
const DEFAULT_MAX_TOKEN_AGE: Duration = Duration::from_secs(600);
/// A token of more than a day is refused whatever policy says (design: section 12).
const GREATEST_MAX_TOKEN_AGE: Duration = Duration::from_secs(86_400);

pub(super) fn read(
    findings: &mut Findings<'_>,
    node: &Node,
    trusted: Option<&BTreeMap<IssuerName, TrustedIssuer>>,
    before: &Issuers,
) -> Option<IssuerPolicy> {
    let mut fields = findings.fields(node)?;
    let name_node = fields.require(findings, "issuer");
    let profile_node = fields.require(findings, "profile");
    let url_node = fields.require(findings, "url");
    let audience_node = fields.require(findings, "audience");
    let age_node = fields.take("max_token_age");
    fields.finish(findings);

    let max_token_age = match age_node {
        None => DEFAULT_MAX_TOKEN_AGE,
        Some(node) => {
            let age = findings.duration(node)?;
            if age > GREATEST_MAX_TOKEN_AGE {
                findings.at(
                    node,
                    "token-age",
                    "a token older than 24 h is never accepted",
                    "write at most 24h",
                );
            }
            age
        }
    };
    let name_node = name_node?;
    let name = name(findings, name_node)?;
    let profile = profile(findings, profile_node?)?;
    let url_node = url_node?;
    let url = findings.filled(url_node)?.to_owned();
    let audience = audience(findings, audience_node?, profile, &url);
    if before.contains_key(&name) {
        findings.at(
            name_node,
            "duplicate-name",
            format!("the issuer `{name}` is named twice"),
            "give each its own name",
        );
    }
    if let Some(other) = before.values().find(|other| other.trusted.url == url) {
        let message = format!("the issuer `{}` has the same URL", other.trusted.name);
        findings.at(url_node, "duplicate-url", message, "keep one issuer for each URL");
    }
    let trusted_issuer = TrustedIssuer { name, url, profile };
    if let Some(trusted) = trusted {
        agree(findings, name_node, &trusted_issuer, trusted);
    }
    Some(IssuerPolicy { trusted: trusted_issuer, audience: audience?, max_token_age })
}

fn name(findings: &mut Findings<'_>, node: &Node) -> Option<IssuerName> {
    let text = findings.filled(node)?;
    let name = IssuerName::parse(text);
    if name.is_none() {
        findings.at(
            node,
            "name",
            format!("`{text}` is no name"),
            "write 1 to 63 of a-z, 0-9 and -, no - at an end",
        );
    }
    name
}

fn profile(findings: &mut Findings<'_>, node: &Node) -> Option<&'static Profile> {
    let text = findings.filled(node)?;
    let profile = Profile::by_name(text);
    if profile.is_none() {
        let known = || crate::kernel::identity::profiles::ALL.iter().map(|profile| profile.name);
        let remedy = nearest(text, known()).map_or_else(
            || format!("known here: {}", known().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        findings.at(node, "unknown-profile", format!("this version knows no profile `{text}`"), remedy);
    }
    profile
}

fn audience(findings: &mut Findings<'_>, node: &Node, profile: &Profile, url: &str) -> Option<String> {
    let node = match &node.content {
        Content::Sequence(items) => match items.as_slice() {
            [one] => one,
            [] | [_, _, ..] => {
                let remedy = "write the one audience that jobs ask for, usually this broker's URL";
                findings.at(node, "audience", "exactly one audience is due", remedy);
                return None;
            }
        },
        Content::Plain(_) | Content::Quoted(_) | Content::Mapping(_) => node,
    };
    let audience = findings.filled(node)?;
    if profile.refuses_audience(url, audience) {
        let message =
            "this is the vendor's default audience, which every relying party of the vendor's customers gets";
        findings.at(
            node,
            "audience-default",
            message,
            "use an audience of your own, such as this broker's URL",
        );
    }
    if audience.chars().any(|letter| letter.is_control() || letter.is_whitespace() || letter == '*') {
        let remedy = "write the exact audience, without spaces and stars";
        findings.at(node, "audience", "an audience is compared byte for byte", remedy);
    }
    Some(audience.to_owned())
}

fn agree(
    findings: &mut Findings<'_>,
    node: &Node,
    issuer: &TrustedIssuer,
    trusted: &BTreeMap<IssuerName, TrustedIssuer>,
) {
    let same = |other: &TrustedIssuer| other.url == issuer.url && other.profile.name == issuer.profile.name;
    let message = match trusted.get(&issuer.name) {
        Some(other) if same(other) => return,
        Some(_) => format!("hallpass.yaml trusts `{}` with another URL or profile", issuer.name),
        None => format!("hallpass.yaml trusts no issuer `{}`", issuer.name),
    };
    let remedy = "have the operator set the same name, url and profile under `issuers:` in hallpass.yaml, or mend this file";
    findings.at(node, "untrusted-issuer", message, remedy);
}
