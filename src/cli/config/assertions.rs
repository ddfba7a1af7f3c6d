//! `assertions`: Hallpass as an OIDC issuer.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Assertions, listen,
    read::{Folder, span},
};
use crate::kernel::policy::yaml::{Findings, Node};

/// No cloud says how long it keeps an issuer's keys; trials found up to ten minutes, and a day is what careful issuers
/// take.
const DEFAULT_KEY_LEAD: Duration = Duration::from_secs(24 * 3_600);
/// A key must be known for longer than any cache keeps the set before it.
const LEAST_KEY_LEAD: Duration = Duration::from_secs(3_600);
const MAX_KEY_LEAD: Duration = Duration::from_secs(30 * 24 * 3_600);

pub(super) fn read(findings: &mut Findings<'_>, node: &Node, folder: &Folder) -> Option<Assertions> {
    let mut fields = findings.fields(node)?;
    let issuer = fields.require(findings, "issuer").and_then(|node| listen::web_address(findings, node));
    let es256 = fields.take("es256").map(|node| audiences(findings, node));
    let key_lead = fields.take("key_lead").map(|node| key_lead(findings, node));
    let publish = fields.take("publish").map(|node| folder.path(findings, node));
    fields.finish(findings);
    Some(Assertions {
        issuer: issuer?,
        es256: es256.unwrap_or_else(|| Some(BTreeSet::new()))?,
        key_lead: key_lead.unwrap_or(Some(DEFAULT_KEY_LEAD))?,
        publish: publish.map_or(Some(None), |publish| publish.map(Some))?,
    })
}

fn key_lead(findings: &mut Findings<'_>, node: &Node) -> Option<Duration> {
    let lead = span(findings, node, MAX_KEY_LEAD)?;
    if lead < LEAST_KEY_LEAD {
        let message =
            "verifiers keep an issuer's keys for some time, and would refuse what a key signs that they lack";
        findings.at(node, "out-of-range", message, "write at least 1h; a day is usual");
        return None;
    }
    Some(lead)
}

fn audiences(findings: &mut Findings<'_>, node: &Node) -> Option<BTreeSet<String>> {
    let mut audiences = BTreeSet::new();
    let mut all_read = true;
    for item in findings.list(node)? {
        let Some(audience) = findings.filled(item).map(str::to_owned) else {
            all_read = false;
            continue;
        };
        // Microsoft, "Workload identity federation considerations": RS256 is the only signature that is supported.
        if audience.to_ascii_lowercase().starts_with("api://azureadtokenexchange") {
            let message = "Entra ID takes RS256 only";
            findings.at(item, "algorithm", message, "remove it");
            all_read = false;
        } else if !audiences.insert(audience.clone()) {
            findings.at(item, "duplicate", format!("`{audience}` is listed twice"), "keep one of them");
            all_read = false;
        }
    }
    all_read.then_some(audiences)
}
