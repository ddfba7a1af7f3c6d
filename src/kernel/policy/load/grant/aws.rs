//! A credential of kind `aws`: a session of a role, with its tags and session policies. Bounds are those of the STS
//! API (service model, November 2026).

use std::{collections::BTreeMap, sync::Arc};

use super::{Known, backend};
use crate::kernel::policy::{
    target::{AwsTarget, Kind, Target},
    template::{is_tag_letter, is_tag_value, is_template},
    yaml::{Findings, Node},
};

pub(super) fn read(findings: &mut Findings<'_>, node: &Node, known: &Known<'_>) -> Option<Target> {
    let mut fields = findings.fields(node)?;
    let before = findings.list.len();
    let named = fields.take("backend");
    let role = fields.require(findings, "role_arn");
    let tags_node = fields.take("tags");
    let policy_node = fields.take("session_policy");
    let managed_node = fields.take("managed_policies");
    fields.finish(findings);
    let backend = backend::read(findings, (Kind::Aws, node), named, known);
    let role_arn = role.and_then(|node| arn(findings, node, "role"));
    let tags = tags_node.map_or(Some(BTreeMap::new()), |node| tags(findings, node));
    let session_policy = policy_node.map(|node| session_policy(findings, node));
    let managed_policies = managed_node.map_or(Some(Vec::new()), |node| managed(findings, node));
    let target = AwsTarget {
        backend: backend?,
        role_arn: role_arn?,
        tags: tags?,
        session_policy: session_policy.map_or(Some(None), |read| read.map(Some))?,
        managed_policies: managed_policies?,
    };
    (findings.list.len() == before).then(|| Target::Aws(Arc::new(target)))
}

/// `arn:PARTITION:iam::ACCOUNT:role/NAME`, or `policy/NAME`, where the account may be AWS's own.
fn arn(findings: &mut Findings<'_>, node: &Node, what: &str) -> Option<String> {
    let text = backend::untemplated(findings, node, "an ARN")?;
    if !is_arn(text, what) {
        let message = format!("`{text}` is no ARN of a {what}");
        findings.at(node, "arn", message, format!("write arn:aws:iam::123456789012:{what}/NAME"));
        return None;
    }
    Some(text.to_owned())
}

fn is_arn(text: &str, what: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts.as_slice() else { return false };
    let is_partition = partition.starts_with("aws")
        && partition.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&byte);
    let name = resource.strip_prefix(what).and_then(|rest| rest.strip_prefix('/'));
    (20..=2048).contains(&text.len())
        && is_partition
        && (is_account || (what == "policy" && *account == "aws"))
        && name.is_some_and(|name| !name.is_empty() && !name.ends_with('/') && name.bytes().all(fits))
}

fn tags(findings: &mut Findings<'_>, node: &Node) -> Option<BTreeMap<String, String>> {
    let before = findings.list.len();
    let mut tags = BTreeMap::new();
    for (key, node) in findings.fields(node)?.rest() {
        let name = key.text.to_ascii_lowercase();
        let is_key = (1..=128).contains(&name.chars().count())
            && name.chars().all(is_tag_letter)
            && !name.starts_with("aws:");
        if !is_key || tags.keys().any(|other: &String| other.to_ascii_lowercase() == name) {
            let remedy = "write 1 to 128 letters, digits, spaces and _.:/=+-@, not beginning with aws:, each once whatever its case";
            findings.at_key(
                key,
                "tag-key",
                format!("`{}` can be no key of a session tag here", key.text),
                remedy,
            );
            continue;
        }
        let Some(value) = backend::templated(findings, node) else { continue };
        if !is_template(value) && !is_tag_value(value) {
            let remedy = "write 1 to 256 letters, digits, spaces and _.:/=+-@";
            findings.at(node, "tag-value", format!("`{value}` can be no value of a session tag"), remedy);
            continue;
        }
        tags.insert(key.text.clone(), value.to_owned());
    }
    if tags.len() > 50 {
        findings.at(node, "tag-key", "a session has at most 50 tags", "leave some out");
    }
    (findings.list.len() == before).then_some(tags)
}

/// A JSON document. IAM's own variables, such as `${aws:PrincipalTag/repo}`, stand in it as they are; claims do not.
fn session_policy(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = findings.filled(node)?;
    let document: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(text).ok();
    let is_policy = document.is_some_and(|document| document.contains_key("Statement"));
    if !is_policy || text.chars().count() > 2048 {
        let remedy = "write the JSON of a policy with `Version` and `Statement`, at most 2,048 characters";
        findings.at(node, "session-policy", "this is no session policy", remedy);
        return None;
    }
    if text.contains("${claims.") {
        let remedy = "put the claim into a session tag, and compare with ${aws:PrincipalTag/NAME}";
        findings.at(node, "template", "a session policy takes no template of ours", remedy);
        return None;
    }
    Some(text.to_owned())
}

fn managed(findings: &mut Findings<'_>, node: &Node) -> Option<Vec<String>> {
    let items = findings.list(node)?;
    if !(1..=10).contains(&items.len()) {
        findings.at(node, "session-policy", "1 to 10 managed policies go with a session", "list as many");
        return None;
    }
    items.iter().map(|item| arn(findings, item, "policy")).collect()
}
