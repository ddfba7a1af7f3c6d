//! Words of YAML, for what is told to people and for drafts.

use serde_json::Value;

use super::Changes;
use crate::kernel::policy::yaml::reads_as_something_else;

/// A text as a YAML scalar: plain where every reader takes it for that text, else in double quotes. JSON's escapes are
/// YAML's, too (YAML 1.2.2 section 5.7).
pub(super) fn scalar(text: &str) -> String {
    let is_plain = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-./@".contains(letter))
        && text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && !reads_as_something_else(text);
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

/// A value as YAML writes it on one line; JSON is YAML's flow style.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// What a case changes, as its keys say it; empty where that is nothing.
pub(super) fn changes(Changes { set, remove, at }: &Changes) -> String {
    let mut text = String::new();
    if !set.is_empty() {
        let each = set.iter().map(|(claim, each)| format!("{}: {}", scalar(claim), value(each)));
        text.push_str(&format!("set: {{ {} }}, ", each.collect::<Vec<_>>().join(", ")));
    }
    if !remove.is_empty() {
        let each: Vec<String> = remove.iter().map(|claim| scalar(claim)).collect();
        text.push_str(&format!("remove: [{}], ", each.join(", ")));
    }
    if let Some(at) = at {
        text.push_str(&format!("at: \"{at}\", "));
    }
    text
}
