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

/// Another value of the same type, near enough to be told apart by one thing only.
pub(super) fn other(value: &Value) -> Value {
    match value {
        Value::Bool(truth) => Value::Bool(!truth),
        Value::Number(number) => Value::from(number.as_i64().map_or(0, |number| number.saturating_add(1))),
        Value::String(text) if text == "true" => Value::from("false"),
        Value::String(text) if text == "false" => Value::from("true"),
        Value::String(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Value::from(format!("{text}0"))
        }
        Value::String(text) => Value::from(format!("{text}-other")),
        Value::Array(_) | Value::Null | Value::Object(_) => Value::from("other"),
    }
}
