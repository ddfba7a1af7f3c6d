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

    let max_token_age = age_node.map_or(Some(DEFAULT_MAX_TOKEN_AGE), |node| token_age(findings, node));
    let name = name_node.and_then(|node| name(findings, node, before));
    let profile = profile_node.and_then(|node| profile(findings, node));
    let url = url_node.and_then(|node| url(findings, node, before));
    if let (Some(trusted), Some(name), Some(node)) = (trusted, &name, name_node) {
        let theirs = trusted.get(name);
        if theirs.is_none() {
            let message = format!("hallpass.yaml trusts no issuer `{name}`");
            let remedy = "have the operator add it under `issuers:` in hallpass.yaml, or remove this file";
            findings.at(node, "untrusted-issuer", message, remedy);
        }
        let differs = |theirs: &TrustedIssuer| {
            let url = url.as_ref().is_some_and(|url| *url != theirs.url).then_some(("url", url_node));
            let profile = || profile.is_some_and(|profile| profile.name != theirs.profile.name);
            url.or_else(|| profile().then_some(("profile", profile_node)))
        };
        if let Some((key, Some(node))) = theirs.and_then(differs) {
            let message = format!("hallpass.yaml trusts `{name}` with another {key}");
            let remedy = "write it here exactly as it stands under `issuers:` in hallpass.yaml";
            findings.at(node, "untrusted-issuer", message, remedy);
        }
    }
    let (mut profile, url) = (profile?, url?);
    // The operator's word may be narrower than the profile's name: what an older instance is known not to say.
    if let Some(theirs) = trusted.zip(name.as_ref()).and_then(|(trusted, name)| trusted.get(name))
        && theirs.profile.name == profile.name
    {
        profile = theirs.profile;
    }
    let audience = audience(findings, audience_node?, profile, &url)?;
    let trusted = TrustedIssuer { name: name?, url, profile };
    Some(IssuerPolicy { trusted, audience, max_token_age: max_token_age? })
}

fn token_age(findings: &mut Findings<'_>, node: &Node) -> Option<Duration> {
    let age = findings.duration(node)?;
    if age > GREATEST_MAX_TOKEN_AGE {
        let message = "a token older than 24 h is never accepted";
        findings.at(node, "token-age", message, "write at most 24h");
        return None;
    }
    Some(age)
}

/// The `iss` of its tokens, byte for byte, so it must be one that a token can have (RFC 8414 section 2: https, no
/// query, no fragment); http on loopback is how the demo and tests run the ordinary path.
fn url(findings: &mut Findings<'_>, node: &Node, before: &Issuers) -> Option<String> {
    let text = findings.filled(node)?;
    if !is_issuer_url(text) {
        let remedy =
            "write the issuer's https address exactly as in its tokens, without query, fragment and login";
        findings.at(node, "issuer-url", format!("`{text}` cannot be an issuer"), remedy);
        return None;
    }
    if let Some(other) = before.values().find(|other| other.trusted.url == text) {
        let message = format!("the issuer `{}` has the same URL", other.trusted.name);
        findings.at(node, "duplicate-url", message, "keep one issuer for each URL");
    }
    Some(text.to_owned())
}

fn is_issuer_url(text: &str) -> bool {
    let (is_https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return false,
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = match authority.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or(inner),
        None => authority.split(':').next().unwrap_or(authority),
    };
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"@?#\\\"<>".contains(&byte));
    is_plain && !host.is_empty() && (is_https || is_loopback(host))
}

/// A literal loopback address, never a name: names can lead anywhere (RFC 6890 section 2.2).
fn is_loopback(host: &str) -> bool {
    let is_octet = |part: &str| part.parse::<u8>().is_ok_and(|octet| octet.to_string() == part);
    let parts: Vec<&str> = host.split('.').collect();
    host == "::1"
        || matches!(parts.as_slice(), ["127", rest @ ..] if rest.len() == 3 && rest.iter().all(|part| is_octet(part)))
}

fn name(findings: &mut Findings<'_>, node: &Node, before: &Issuers) -> Option<IssuerName> {
    let text = findings.filled(node)?;
    let name = IssuerName::parse(text);
    match &name {
        None => findings.at(
            node,
            "name",
            format!("`{text}` is no name"),
            "write 1 to 63 of a-z, 0-9 and -, no - at an end",
        ),
        Some(name) if before.contains_key(name) => {
            let message = format!("the issuer `{name}` is named twice");
            findings.at(node, "duplicate-name", message, "give each its own name");
        }
        Some(_) => {}
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
    if let Some(fixed) = profile.fixed_audience.filter(|fixed| *fixed != audience) {
        let message = format!("every token of the profile `{}` is for the audience `{fixed}`", profile.name);
        let remedy =
            format!("write `{fixed}`, if you accept that other relying parties are sent the same tokens");
        findings.at(node, "audience-fixed", message, remedy);
    }
    if (profile.refuses_audience)(url, audience) {
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
