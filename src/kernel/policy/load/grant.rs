//! `grants/**/*.yaml`: who may get what.

mod aws;
mod backend;
mod credentials;
mod limits;
mod rule;
mod vault;
mod window;

use std::collections::{BTreeMap, HashMap};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::Issuers;
use crate::kernel::{
    name::GrantName,
    policy::{
        class::Class,
        set::{Grant, LimitScope, Limits},
        target::Kind,
        yaml::{Content, Findings, Node},
    },
};
pub(super) use rule::issuer;

/// What a grant may speak of.
pub(super) struct Known<'a> {
    pub(super) issuers: &'a Issuers,
    /// Where an issuer could not be read, a grant that names it is not at fault.
    pub(super) all_issuers_read: bool,
    /// The configured backends; `None` where no configuration is known.
    pub(super) backends: Option<&'a BTreeMap<String, Kind>>,
    /// What the broker calls itself, as far as that is known.
    pub(super) ourselves: &'a [String],
}

pub(super) fn read(
    findings: &mut Findings<'_>,
    node: &Node,
    known: &Known<'_>,
    before: &HashMap<GrantName, Grant>,
) -> Option<Grant> {
    let mut fields = findings.fields(node)?;
    let name_node = fields.require(findings, "grant");
    let name = name_node.and_then(|node| name(findings, node, before));
    let description =
        fields.take("description").and_then(|node| findings.text(node)).unwrap_or_default().to_owned();
    let owners = fields.take("owners").and_then(|node| findings.texts(node)).unwrap_or_default();
    let own_class = fields.take("class").and_then(|node| Some((class(findings, node)?, node.place())));
    let enabled = fields.take("enabled").map(|node| findings.boolean(node));
    let valid_until = fields.take("valid_until").map(|node| end_of_day(findings, node));
    let rules = fields.require(findings, "allow").and_then(|node| rule::read_all(findings, node, known));
    let credentials =
        fields.require(findings, "credentials").and_then(|node| credentials::read_all(findings, node, known));
    let limits_node = fields.take("limits");
    let limits = limits_node.map_or(Some(Limits::default()), |node| limits::read(findings, node));
    let disclose = fields.take("disclose").map(|node| disclose_owner(findings, node));
    fields.finish(findings);
    let (rules, credentials, limits) = (rules?, credentials?, limits?);
    backend::check_claims(findings, &credentials, &rules, known);
    if let Some(node) = limits_node.filter(|_| limits.per == LimitScope::Project) {
        limits::need_projects(findings, node, &rules, known.issuers);
    }
    Some(Grant {
        name: name?,
        description,
        owners,
        own_class,
        class: Class::Production,
        file: findings.file.into(),
        place: name_node?.place(),
        folder: folder_of(findings.file).into(),
        rules,
        credentials,
        limits,
        disclose_owner: disclose.flatten().is_some(),
        lapses_at: valid_until.flatten().map(|(_, end)| end),
        enabled: enabled.unwrap_or(Some(true))?,
    })
}

/// `payments/eu` of `grants/payments/eu/x.yaml`.
fn folder_of(file: &str) -> &str {
    let path = file.strip_prefix("grants/").unwrap_or(file);
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn disclose_owner(findings: &mut Findings<'_>, node: &Node) -> Option<()> {
    let word = findings.filled(node)?;
    if word != "owner" {
        let remedy = "write owner, or remove the key: then nobody is told more than that access is denied";
        findings.at(node, "disclose", format!("`{word}` is nobody to disclose to"), remedy);
        return None;
    }
    Some(())
}

fn name(findings: &mut Findings<'_>, node: &Node, before: &HashMap<GrantName, Grant>) -> Option<GrantName> {
    let text = findings.filled(node)?;
    let Some(name) = GrantName::parse(text) else {
        findings.at(
            node,
            "name",
            format!("`{text}` is no name"),
            "write 1 to 63 of a-z, 0-9 and -, no - at an end",
        );
        return None;
    };
    if let Some(other) = before.get(&name) {
        let message = format!("the grant `{name}` already stands in {}", other.file);
        findings.at(node, "duplicate-name", message, "give each grant its own name");
    }
    Some(name)
}

/// A class's word.
pub(in crate::kernel::policy) fn class(findings: &mut Findings<'_>, node: &Node) -> Option<Class> {
    let text = findings.filled(node)?;
    let class = Class::parse(text);
    if class.is_none() {
        findings.at(
            node,
            "class",
            format!("`{text}` is no class"),
            "write read, write, production or signing",
        );
    }
    class
}

/// A day that is included: itself, and the moment at which it is over, in UTC.
pub(super) fn end_of_day(findings: &mut Findings<'_>, node: &Node) -> Option<(Date, Timestamp)> {
    let parsed = match &node.content {
        Content::Plain(text) | Content::Quoted(text) if text.len() == 10 => text.parse::<Date>().ok(),
        Content::Plain(_) | Content::Quoted(_) | Content::Mapping(_) | Content::Sequence(_) => None,
    };
    let end = parsed
        .and_then(|date| Some((date, date.tomorrow().ok()?)))
        .and_then(|(date, next)| Some((date, next.to_zoned(TimeZone::UTC).ok()?.timestamp())));
    if end.is_none() {
        findings.at(node, "date", "a date is due here", "write it as 2027-03-31; the day itself is included");
    }
    end
}
