//! Words of YAML, for what is told to people and for drafts.

use serde_json::Value;

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

/// What a case sets.
pub(super) fn changes(changes: &[(String, Value)]) -> String {
    let each = changes.iter().map(|(claim, each)| format!("{}: {}", scalar(claim), value(each)));
    format!("set: {{ {} }}", each.collect::<Vec<_>>().join(", "))
}
