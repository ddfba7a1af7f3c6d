//! `window`: when a rule holds.

use jiff::tz::TimeZone;

use crate::kernel::policy::{
    window::{self, Days, Minute, Window},
    yaml::{Findings, Node},
};

pub(super) fn read(findings: &mut Findings<'_>, node: &Node) -> Option<Window> {
    let mut fields = findings.fields(node)?;
    let zone_node = fields.require(findings, "timezone");
    let days_node = fields.take("days");
    let from_node = fields.take("from");
    let to_node = fields.take("to");
    fields.finish(findings);
    let zone = zone_node.and_then(|node| zone(findings, node));
    let days = days_node.map_or(Some(Days::ALL), |node| days(findings, node));
    let times = match (from_node, to_node) {
        (Some(from), Some(to)) => {
            let (from, to) = (minute(findings, from), minute(findings, to));
            from.zip(to)
        }
        (None, None) if days_node.is_some() => Some((Minute::FIRST, Minute::END)),
        (None, None) => {
            findings.at(node, "window", "this window is always open", "add days, or from and to");
            None
        }
        (Some(_), None) | (None, Some(_)) => {
            findings.at(node, "window", "a window has both ends or none", "add the other of from and to");
            None
        }
    };
    let (zone, days, (from, to)) = (zone?, days?, times?);
    if from == Minute::END {
        let remedy = "write 00:00, and the day after where that is meant";
        findings.at(from_node.unwrap_or(node), "window", "no window can begin at the end of a day", remedy);
        return None;
    }
    let window = Window::new(zone, days, from, to);
    if window.is_none() {
        let remedy = "write 00:00 and 24:00 for whole days";
        findings.at(node, "window", "a window that ends when it begins is all day or never", remedy);
    }
    window
}

fn zone(findings: &mut Findings<'_>, node: &Node) -> Option<TimeZone> {
    let name = findings.filled(node)?;
    let zone = window::zone(name);
    if zone.is_none() {
        let remedy = "write a name of the IANA database, such as Europe/London, or UTC";
        findings.at(node, "window", format!("`{name}` is no time zone"), remedy);
    }
    zone
}

fn days(findings: &mut Findings<'_>, node: &Node) -> Option<Days> {
    let items = findings.list(node)?;
    if items.is_empty() {
        findings.at(node, "empty", "a window without days is never open", "name days, or leave the key out");
        return None;
    }
    let mut days = Days::NONE;
    for item in items {
        let word = findings.filled(item)?;
        let Some(more) = days.with(word) else {
            let remedy = format!("write each of {} at most once", window::WORDS.join(", "));
            findings.at(item, "window", format!("`{word}` is no day, or stands here twice"), remedy);
            return None;
        };
        days = more;
    }
    Some(days)
}

/// Quoted or plain: YAML 1.1 would read `07:00` as a number of base 60, but here it can mean one thing only.
fn minute(findings: &mut Findings<'_>, node: &Node) -> Option<Minute> {
    let parsed = findings.scalar(node).and_then(Minute::parse);
    if parsed.is_none() {
        findings.at(
            node,
            "window",
            "a time of day is due here",
            "write it as \"07:00\"; \"24:00\" is the day's end",
        );
    }
    parsed
}
