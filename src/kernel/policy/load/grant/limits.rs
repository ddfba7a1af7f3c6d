//! `limits`: how much of a grant at once.

use super::super::Issuers;
use crate::kernel::policy::{
    set::{LimitScope, Limits, Rule},
    yaml::{Findings, Node},
};

/// The greatest count; more is no limit.
const MOST: u32 = 1_000_000;
/// The most uses of one token (design: section 4).
const MOST_USES: u32 = 8;

pub(super) fn read(findings: &mut Findings<'_>, node: &Node) -> Option<Limits> {
    let mut fields = findings.fields(node)?;
    let hour_node = fields.take("issuances_per_hour");
    let live_node = fields.take("live");
    let per_node = fields.take("per");
    let uses_node = fields.take("uses_per_token");
    fields.finish(findings);
    if hour_node.or(live_node).or(uses_node).is_none() {
        let remedy = "add issuances_per_hour, live or uses_per_token, or remove the key";
        findings.at(node, "limits", "nothing is limited here", remedy);
        return None;
    }
    if let Some(per) = per_node.filter(|_| hour_node.or(live_node).is_none()) {
        let remedy = "add issuances_per_hour or live, or remove it";
        findings.at(per, "limits", "`per` says over what is counted, and nothing is", remedy);
        return None;
    }
    let issuances_per_hour = hour_node.map(|node| count(findings, node, MOST));
    let live = live_node.map(|node| count(findings, node, MOST));
    let uses = uses_node.map_or(Some(1), |node| count(findings, node, MOST_USES));
    let per = per_node.map_or(Some(LimitScope::Grant), |node| scope(findings, node));
    Some(Limits {
        issuances_per_hour: issuances_per_hour.map_or(Some(None), |count| count.map(Some))?,
        live: live.map_or(Some(None), |count| count.map(Some))?,
        per: per?,
        uses_per_token: u8::try_from(uses?).ok()?,
    })
}

fn count(findings: &mut Findings<'_>, node: &Node, most: u32) -> Option<u32> {
    let number = findings.integer(node)?;
    let count = u32::try_from(number).ok().filter(|count| (1..=most).contains(count));
    if count.is_none() {
        let remedy = format!("write 1 to {most}; `enabled: false` is how nothing is given");
        findings.at(node, "limits", format!("{number} is no count that fits here"), remedy);
    }
    count
}

fn scope(findings: &mut Findings<'_>, node: &Node) -> Option<LimitScope> {
    let word = findings.filled(node)?;
    if word != "project" {
        let remedy = "write project, or leave it out to count over the whole grant";
        findings.at(node, "limits", format!("`{word}` is nothing to count over"), remedy);
        return None;
    }
    Some(LimitScope::Project)
}

/// What is counted per project needs a project: tokens of some profiles have none.
pub(super) fn need_projects(findings: &mut Findings<'_>, node: &Node, rules: &[Rule], issuers: &Issuers) {
    let without = rules.iter().find(|rule| {
        issuers.get(&rule.issuer).is_some_and(|issuer| issuer.trusted.profile.project.is_none())
    });
    if let Some(rule) = without {
        let message =
            format!("tokens of `{}` name no project, so nothing can be counted per project", rule.issuer);
        findings.at(node, "limits", message, "leave `per` out, or give that rule a grant of its own");
    }
}
