//! The nearest other job: one claim changed, and nothing that would shut it out for another reason. A case with a
//! trigger that nobody knows is denied whatever its rule says, so it would notice nothing.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::claims::{look, put};
use crate::kernel::{
    identity::{JobIdentity, job::Trigger, profile::Profile},
    name::IssuerName,
    policy::matcher::Path,
};

/// What to set so that a claim is another, with as little else as can be.
pub(super) fn changes(
    (issuer, profile): (&IssuerName, &'static Profile),
    claims: &Map<String, Value>,
    claim: &str,
    value: &Value,
) -> Vec<(String, Value)> {
    let is_ordinary = |changes: &Vec<(String, Value)>| {
        let mut claims = claims.clone();
        for (claim, value) in changes {
            if let Some(path) = Path::parse(claim) {
                put(&mut claims, &path, value.clone());
            }
        }
        JobIdentity::from_claims(issuer.clone(), profile, claims, Timestamp::UNIX_EPOCH)
            .is_ok_and(|job| job.trigger() == Trigger::Ordinary)
    };
    let alone = |value: Value| vec![(claim.to_owned(), value)];
    let before = Path::parse(claim).and_then(|path| look(claims, &path)).cloned();
    let words = TRIGGERS.iter().map(|word| Value::from(*word)).filter(|word| Some(word) != before.as_ref());
    // GitLab names the project twice, as the one that runs the job and the one that it runs for.
    let together = || {
        let mut all = alone(value.clone());
        let twins = claims.iter().filter(|(name, twin)| *name != claim && Some(*twin) == before.as_ref());
        all.extend(twins.map(|(name, _)| (name.clone(), value.clone())));
        all
    };
    let is_trigger = Some(claim) == profile.view.trigger;
    let tries = std::iter::once(alone(value.clone()))
        .chain(words.filter(|_| is_trigger).map(alone))
        .chain(std::iter::once_with(together));
    tries.into_iter().find(is_ordinary).unwrap_or_else(|| alone(value.clone()))
}

/// Another value of the same type, as near as can be.
pub(super) fn other(value: &Value) -> Value {
    match value {
        Value::Bool(truth) => Value::Bool(!truth),
        Value::Number(number) => Value::from(number.as_i64().map_or(0, |number| number.saturating_add(1))),
        Value::String(text) => Value::from(other_text(text)),
        Value::Array(_) | Value::Null | Value::Object(_) => Value::from("other"),
    }
}

fn other_text(text: &str) -> String {
    match text {
        "" => "other".to_owned(),
        "true" => "false".to_owned(),
        "false" => "true".to_owned(),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => format!("{text}0"),
        // Another account at the same place.
        _ if text.contains('@') && !text.contains('/') => format!("other-{text}"),
        // An id with its last letter changed keeps its form.
        _ if text.len() >= 32
            && text.bytes().all(|byte| byte.is_ascii_hexdigit() || b"-{}".contains(&byte)) =>
        {
            let at = text.rfind(|letter: char| letter.is_ascii_hexdigit()).unwrap_or(0);
            let (before, rest) = text.split_at(at);
            let letter = if rest.starts_with('0') { '1' } else { '0' };
            format!("{before}{letter}{}", rest.get(1..).unwrap_or_default())
        }
        _ => format!("{text}-other"),
    }
}

/// Words by which CI systems call ordinary triggers; which of them one takes as ordinary its profile says.
const TRIGGERS: &[&str] = &[
    "push",
    "schedule",
    "workflow_dispatch",
    "pull_request",
    "web",
    "api",
    "merge_request_event",
    "manual",
    "IndividualCI",
    "Manual",
];
