//! Matchers: how a rule speaks of a claim. No regular expressions; a missing claim satisfies nothing but
//! `present: false`.

use serde_json::Value;

/// One condition of a rule.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The claim's name, or a JSON Pointer where it starts with `/`.
    pub claim: String,
    /// What it must be.
    pub matcher: Matcher,
    /// Whether it compares without ASCII case.
    pub case_insensitive: bool,
    /// Line in the file.
    pub line: usize,
}

/// What a claim must be.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// Any of; each a literal of the claim's own JSON type or a nested matcher.
    AnyOf(Vec<Matcher>),
    /// Equal, and of the same JSON type.
    Equals(Value),
    /// `*` inside one `/` segment, `**` across, always the whole string.
    Glob(String),
    /// Present and not matching.
    Not(Box<Matcher>),
    /// Present or absent.
    Present(bool),
}
