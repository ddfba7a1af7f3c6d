//! `grants/**/*.yaml`: who may get what.

mod credentials;
mod rule;

use std::collections::HashMap;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::Issuers;
use crate::kernel::{
    name::GrantName,
    policy::{
        set::Grant,
        yaml::{Content, Fields, Findings, Node},
    },
};

/// What a grant may speak of.
pub(super) struct Known<'a> {
    pub(super) issuers: &'a Issuers,
    pub(super) all_issuers_read: bool,
}

/// Classes in rising order (design: section 4).
const CLASSES: [&str; 4] = ["read", "write", "production", "signing"];

pub(super) fn read(
    findings: &mut Findings<'_>,
    node: &Node,
    known: &Known<'_>,
    before: &HashMap<GrantName, Grant>,
) -> Option<Grant> {
    let mut fields = findings.fields(node)?;
    let name = fields.require(findings, "grant").and_then(|node| name(findings, node, before));
    let description =
        fields.take("description").and_then(|node| findings.text(node)).unwrap_or_default().to_owned();
    let owners = fields.take("owners").and_then(|node| findings.texts(node)).unwrap_or_default();
    let class = class(findings, &mut fields);
    let enabled = fields.take("enabled").map(|node| findings.boolean(node));
    let valid_until = fields.take("valid_until").map(|node| lapses_at(findings, node));
    let rules = fields.require(findings, "allow").and_then(|node| rule::read_all(findings, node, known));
    let credentials =
        fields.require(findings, "credentials").and_then(|node| credentials::read_all(findings, node, known));
    for later in ["limits", "disclose", "window"] {
        fields.not_yet(findings, later);
    }
    fields.finish(findings);
    Some(Grant {
        name: name?,
        description,
        owners,
        class,
        file: findings.file.into(),
        rules: rules?,
        credentials: credentials?,
        lapses_at: valid_until.flatten(),
        enabled: enabled.unwrap_or(Some(true))?,
    })
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

fn class(findings: &mut Findings<'_>, fields: &mut Fields<'_>) -> Option<&'static str> {
    let node = fields.take("class")?;
    let text = findings.filled(node)?;
    let class = CLASSES.into_iter().find(|class| *class == text);
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

/// The end of the day, UTC: `valid_until` is inclusive.
fn lapses_at(findings: &mut Findings<'_>, node: &Node) -> Option<Timestamp> {
    let parsed = match &node.content {
        Content::Plain(text) | Content::Quoted(text) if text.len() == 10 => text.parse::<Date>().ok(),
        Content::Plain(_) | Content::Quoted(_) | Content::Mapping(_) | Content::Sequence(_) => None,
    };
    let end = parsed
        .and_then(|date| date.tomorrow().ok())
        .and_then(|date| date.to_zoned(TimeZone::UTC).ok())
        .map(|zoned| zoned.timestamp());
    if end.is_none() {
        findings.at(node, "date", "a date is due here", "write it as 2027-03-31; the day itself is included");
    }
    end
}
