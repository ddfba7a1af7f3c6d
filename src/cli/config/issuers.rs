//! `issuers`: whom we trust, and how their keys are reached.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use reqwest::Url;

use super::{Issuer, IssuerKeysFrom, read::Folder};
use crate::{
    adapters::http_client::read_url,
    kernel::{
        identity::{profile::Profile, profiles},
        name::IssuerName,
        policy::yaml::{Content, Fields, Findings, Key, Node, nearest},
    },
};

pub(super) fn read_all(
    findings: &mut Findings<'_>,
    node: &Node,
    folder: &Folder,
    own: Option<&str>,
) -> Option<BTreeMap<IssuerName, Issuer>> {
    let mut issuers: BTreeMap<IssuerName, Issuer> = BTreeMap::new();
    for (key, node) in findings.fields(node)?.rest() {
        let name = name(findings, key);
        let Some(issuer) = read(findings, node, folder, own) else { continue };
        if let Some((other, _)) = issuers.iter().find(|(_, other)| other.url == issuer.url) {
            let message = format!("`{}` has the same URL as `{other}`", key.text);
            findings.at_key(key, "duplicate-url", message, "keep one issuer for each URL");
        }
        if let Some(name) = name {
            issuers.insert(name, issuer);
        }
    }
    Some(issuers)
}

fn name(findings: &mut Findings<'_>, key: &Key) -> Option<IssuerName> {
    let name = IssuerName::parse(&key.text);
    if name.is_none() {
        let remedy = "write 1 to 63 of a-z, 0-9 and -, no - at an end";
        findings.at_key(key, "name", format!("`{}` is no name", key.text), remedy);
    }
    name
}

/// Refuses this broker as an issuer under any spelling of its URL: hosts have no case, a default port is none, and a
/// slash at the end is often lost.
fn not_ourselves(findings: &mut Findings<'_>, node: &Node, url: &str, own: Option<&str>) -> bool {
    let spelled = |url: &str| {
        let parsed = Url::parse(url).map_or_else(|_| url.to_owned(), String::from);
        parsed.trim_end_matches('/').to_ascii_lowercase()
    };
    let is_own = own.is_some_and(|own| spelled(own) == spelled(url));
    if is_own {
        let message = format!("`{url}` is this broker itself, by `assertions.issuer`");
        let remedy = "remove it: a broker that trusted its own assertions would let every job speak for all";
        findings.at(node, "own-issuer", message, remedy);
    }
    !is_own
}

fn read(findings: &mut Findings<'_>, node: &Node, folder: &Folder, own: Option<&str>) -> Option<Issuer> {
    let mut fields = findings.fields(node)?;
    let private = fields.take("allow_private_addresses").map(|node| findings.boolean(node));
    let allow_private_addresses = private.flatten().unwrap_or(false);
    let url = fields.require(findings, "url");
    let url = url.and_then(|node| {
        let url = issuer_url(findings, node, allow_private_addresses)?;
        not_ourselves(findings, node, &url, own).then_some(url)
    });
    let profile = fields.require(findings, "profile").and_then(|node| profile(findings, node));
    let oldest = fields.take_entry("gitlab_min_version");
    let profile = of_version(findings, oldest, profile, url.as_deref());
    let ca_file = fields.take("ca_file").map(|node| folder.file(findings, node));
    let keys = keys(findings, &mut fields, folder, allow_private_addresses);
    fields.finish(findings);
    Some(Issuer {
        url: url?,
        profile: profile?,
        ca_file: ca_file.map_or(Some(None), |file| file.map(Some))?,
        allow_private_addresses,
        keys: keys?,
    })
}

fn keys(
    findings: &mut Findings<'_>,
    fields: &mut Fields<'_>,
    folder: &Folder,
    allow_private_addresses: bool,
) -> Option<IssuerKeysFrom> {
    let (uri, file) = (fields.take("jwks_uri"), fields.take_entry("jwks_file"));
    let until = fields.take_entry("jwks_valid_until");
    match (uri, file, until) {
        (None, None, None) => Some(IssuerKeysFrom::Discovery),
        (Some(node), None, None) => {
            Some(IssuerKeysFrom::Uri(address(findings, node, allow_private_addresses)?))
        }
        (None, Some((_, node)), Some((_, until))) => {
            let valid_until = end_of_day(findings, until);
            Some(IssuerKeysFrom::File { file: folder.file(findings, node)?, valid_until: valid_until? })
        }
        (None, Some((key, _)), None) => {
            let message = "keys in a file need a day on which somebody looks at them again";
            findings.at_key(key, "missing-key", message, "add `jwks_valid_until: 2027-03-31`");
            None
        }
        (Some(_), Some((key, _)), _) => {
            let message = "`jwks_file` and `jwks_uri` are two answers to one question";
            findings.at_key(key, "contradiction", message, "keep one of them");
            None
        }
        (_, None, Some((key, _))) => {
            let message = "`jwks_valid_until` is for `jwks_file` only";
            findings.at_key(key, "contradiction", message, "remove it, or add `jwks_file`");
            None
        }
    }
}

fn issuer_url(findings: &mut Findings<'_>, node: &Node, allow_private_addresses: bool) -> Option<String> {
    let url = address(findings, node, allow_private_addresses)?;
    if url.contains(['?', '#']) {
        // OpenID Connect Discovery section 3; discovery could not be found under such an address.
        let message = "an issuer's URL has no query and no fragment";
        findings.at(node, "url", message, "write the `iss` of its tokens exactly");
        return None;
    }
    Some(url)
}

fn address(findings: &mut Findings<'_>, node: &Node, allow_private_addresses: bool) -> Option<String> {
    let text = findings.filled(node)?;
    match read_url(text, allow_private_addresses) {
        Ok(_) => Some(text.to_owned()),
        Err(fault) => {
            findings.at(node, "url", format!("`{text}`: {fault}"), "write the issuer's https address");
            None
        }
    }
}

fn profile(findings: &mut Findings<'_>, node: &Node) -> Option<&'static Profile> {
    let text = findings.filled(node)?;
    let profile = Profile::by_name(text);
    if profile.is_none() {
        let known = || profiles::ALL.iter().map(|profile| profile.name);
        let remedy = nearest(text, known()).map_or_else(
            || format!("known here: {}", known().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        findings.at(node, "unknown-profile", format!("this version knows no profile `{text}`"), remedy);
    }
    profile
}

/// The profile of an instance that may be older than the claims which tell forks apart.
fn of_version(
    findings: &mut Findings<'_>,
    oldest: Option<(&Key, &Node)>,
    profile: Option<&'static Profile>,
    url: Option<&str>,
) -> Option<&'static Profile> {
    let (Some((key, node)), Some(profile)) = (oldest, profile) else { return profile };
    let gitlab = &profiles::gitlab::GITLAB;
    if profile.name != gitlab.name || url.is_some_and(gitlab.is_shared) {
        let message = "`gitlab_min_version` is for a GitLab instance of your own";
        findings.at_key(key, "contradiction", message, "remove it");
        return None;
    }
    let (Content::Plain(text) | Content::Quoted(text)) = &node.content else {
        findings.at(node, "type", "a version is due here", "write it as \"18.2\"");
        return None;
    };
    let number = |part: &str| part.parse::<u32>().ok().filter(|number| number.to_string() == part);
    let Some((major, minor)) = text.split_once('.').and_then(|(a, b)| Some((number(a)?, number(b)?))) else {
        let remedy = "write the oldest version that the instance may have, as \"18.2\"";
        findings.at(node, "version", format!("`{text}` is no version of GitLab"), remedy);
        return None;
    };
    Some(if (major, minor) < (18, 4) { &profiles::gitlab::GITLAB_BEFORE_18_4 } else { gitlab })
}

/// The end of the day, UTC: the day itself is included.
fn end_of_day(findings: &mut Findings<'_>, node: &Node) -> Option<Timestamp> {
    let date = match &node.content {
        Content::Plain(text) | Content::Quoted(text) if text.len() == 10 => text.parse::<Date>().ok(),
        Content::Plain(_) | Content::Quoted(_) | Content::Mapping(_) | Content::Sequence(_) => None,
    };
    let end = date
        .and_then(|date| date.tomorrow().ok())
        .and_then(|date| date.to_zoned(TimeZone::UTC).ok())
        .map(|zoned| zoned.timestamp());
    if end.is_none() {
        let remedy = "write it as 2027-03-31; the day itself is included";
        findings.at(node, "date", "a date is due here", remedy);
    }
    end
}
