//! Matchers: how a rule speaks of a claim. No regular expressions; a missing claim satisfies nothing but
//! `present: false`, and one that is there in another shape satisfies nothing at all (attack classes C-02, C-12).
//!
//! Three values, not two: a claim is a value, absent, or unusable (of another type than the profile's, null, or
//! reached through something that holds nothing). `not` is asked of values only, so that no condition becomes true
//! because a claim is missing.

use std::fmt;

use serde_json::Value;

use super::finding::Place;
use crate::kernel::identity::job::Claims;

/// One condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The claim's name, or a JSON Pointer (RFC 6901) where it starts with `/`; as written.
    pub claim: String,
    /// Where the value stands.
    pub path: Path,
    /// What it must be.
    pub matcher: Matcher,
    /// Whether it compares without ASCII case.
    pub case_insensitive: bool,
    /// Where it stands in its file.
    pub place: Place,
}

/// Where a value stands in the claims: a claim, and for a JSON Pointer the members below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The claim's own name.
    pub root: String,
    /// Keys and indices below it.
    pub below: Vec<String>,
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Matcher {
    /// Any of.
    AnyOf(Vec<Matcher>),
    /// Equal, and of the same JSON type.
    Equals(Value),
    /// `*` inside one `/` segment, `**` across, nothing else, always the whole string.
    Glob(Glob),
    /// Present and not matching.
    Not(Box<Matcher>),
    /// Present or absent.
    Present(bool),
}

/// A pattern, taken apart once at load.
#[derive(Clone, PartialEq)]
pub struct Glob {
    text: String,
    tokens: Vec<Token>,
    is_literal: bool,
}

/// What stands where a condition looks.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Seen<'c> {
    /// Nothing.
    Absent,
    /// Something of another type than the profile's, null, or nothing that one could look into.
    Unusable,
    /// A value.
    Value(&'c Value),
}

impl Condition {
    /// Whether it holds. `unusable` names the claims that the token has in another type than the profile's.
    pub fn holds(&self, claims: &Claims, unusable: &[String]) -> bool {
        match self.look(claims, unusable) {
            Seen::Absent => self.matcher.takes_absence(),
            Seen::Unusable => false,
            Seen::Value(value) => self.matcher.takes(value, self.case_insensitive),
        }
    }

    /// What stands where it looks.
    pub fn look<'c>(&self, claims: &'c Claims, unusable: &[String]) -> Seen<'c> {
        self.path.look(claims, unusable)
    }
}

impl Path {
    /// Reads a condition's key: a name, or a JSON Pointer where it starts with `/`. `None` where `~` is followed by
    /// anything but `0` and `1`.
    pub fn parse(key: &str) -> Option<Self> {
        let Some(pointer) = key.strip_prefix('/') else {
            return Some(Self { root: key.to_owned(), below: Vec::new() });
        };
        let mut parts = pointer.split('/').map(unescape);
        let root = parts.next()??;
        Some(Self { root, below: parts.collect::<Option<_>>()? })
    }

    fn look<'c>(&self, claims: &'c Claims, unusable: &[String]) -> Seen<'c> {
        // Inside an object the profile's types are held by pointer.
        let is_here = |name: &&String| name.starts_with('/') && Self::parse(name).as_ref() == Some(self);
        if unusable.iter().any(|name| is_here(&name)) {
            return Seen::Unusable;
        }
        let Some(mut value) = claims.get(&self.root) else {
            return if unusable.contains(&self.root) { Seen::Unusable } else { Seen::Absent };
        };
        for part in &self.below {
            let next = match value {
                Value::Object(members) => members.get(part),
                Value::Array(items) => match index(part) {
                    Some(at) => items.get(at),
                    None => return Seen::Unusable,
                },
                Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => return Seen::Unusable,
            };
            match next {
                Some(next) => value = next,
                None => return Seen::Absent,
            }
        }
        if value.is_null() { Seen::Unusable } else { Seen::Value(value) }
    }
}

impl Matcher {
    fn takes_absence(&self) -> bool {
        match self {
            Self::AnyOf(any) => any.iter().any(Self::takes_absence),
            Self::Present(due) => !due,
            Self::Equals(_) | Self::Glob(_) | Self::Not(_) => false,
        }
    }

    fn takes(&self, value: &Value, case_insensitive: bool) -> bool {
        match self {
            Self::AnyOf(any) => any.iter().any(|each| each.takes(value, case_insensitive)),
            Self::Equals(literal) => equal(literal, value, case_insensitive),
            Self::Glob(glob) => value.as_str().is_some_and(|text| glob.matches(text, case_insensitive)),
            Self::Not(inner) => !inner.takes(value, case_insensitive),
            Self::Present(due) => *due,
        }
    }

    /// Every literal that satisfies it by being equal; what stands under `not` is none.
    pub fn literals(&self) -> Vec<&Value> {
        match self {
            Self::AnyOf(any) => any.iter().flat_map(Self::literals).collect(),
            Self::Equals(value) => vec![value],
            Self::Glob(_) | Self::Not(_) | Self::Present(_) => Vec::new(),
        }
    }

    /// Whether only literals satisfy it, so that it pins the claim.
    pub fn is_literal(&self) -> bool {
        match self {
            Self::AnyOf(any) => any.iter().all(Self::is_literal),
            Self::Equals(_) => true,
            Self::Glob(_) | Self::Not(_) | Self::Present(_) => false,
        }
    }
}

impl Glob {
    /// Takes a pattern apart; `None` where it is empty, has three stars in a row, or more than
    /// [`MAX_GLOB_CHARACTERS`].
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.contains("***") || text.chars().count() > MAX_GLOB_CHARACTERS {
            return None;
        }
        let mut tokens = Vec::with_capacity(text.len());
        for letter in text.chars() {
            match (letter, tokens.last()) {
                ('*', Some(Token::Within)) => {
                    tokens.pop();
                    tokens.push(Token::Across);
                }
                ('*', _) => tokens.push(Token::Within),
                (letter, _) => tokens.push(Token::Letter(letter)),
            }
        }
        let is_literal = !text.contains('*');
        Some(Self { text: text.to_owned(), tokens, is_literal })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches the whole text. Runs in time pattern × text, whatever the pattern, so that none can hold
    /// the evaluator.
    pub fn matches(&self, text: &str, case_insensitive: bool) -> bool {
        if self.is_literal {
            return if case_insensitive { self.text.eq_ignore_ascii_case(text) } else { self.text == text };
        }
        // `reached[i]`: the first i tokens match what was read so far.
        let mut reached = vec![false; self.tokens.len() + 1];
        let mut next = reached.clone();
        mark(&mut reached, 0);
        self.skip_stars(&mut reached);
        for letter in text.chars() {
            next.fill(false);
            for (at, token) in self.tokens.iter().enumerate() {
                if !is_marked(&reached, at) {
                    continue;
                }
                match token {
                    Token::Across => mark(&mut next, at),
                    Token::Letter(due) if same(*due, letter, case_insensitive) => mark(&mut next, at + 1),
                    Token::Within if letter != '/' => mark(&mut next, at),
                    Token::Letter(_) | Token::Within => {}
                }
            }
            self.skip_stars(&mut next);
            std::mem::swap(&mut reached, &mut next);
            if !reached.contains(&true) {
                return false;
            }
        }
        is_marked(&reached, self.tokens.len())
    }

    /// A star may match nothing.
    fn skip_stars(&self, reached: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if matches!(token, Token::Across | Token::Within) && is_marked(reached, at) {
                mark(reached, at + 1);
            }
        }
    }
}

/// As the language writes it.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyOf(any) => {
                let shown: Vec<String> = any.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", shown.join(", "))
            }
            Self::Equals(value) => write!(f, "{value}"),
            Self::Glob(glob) => write!(f, "{{ glob: {} }}", Value::from(glob.as_str())),
            Self::Not(inner) => write!(f, "{{ not: {inner} }}"),
            Self::Present(due) => write!(f, "{{ present: {due} }}"),
        }
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Across,
    Letter(char),
    Within,
}

fn equal(literal: &Value, value: &Value, case_insensitive: bool) -> bool {
    match (literal, value) {
        (Value::String(literal), Value::String(text)) if case_insensitive => {
            literal.eq_ignore_ascii_case(text)
        }
        // 1 and 1.0 are not the same claim (C-03): only whole numbers compare, as whole numbers.
        (Value::Number(literal), Value::Number(number)) => {
            literal.as_i64().is_some_and(|literal| number.as_i64() == Some(literal))
        }
        (Value::Bool(_) | Value::String(_), value) => literal == value,
        (Value::Array(_) | Value::Null | Value::Number(_) | Value::Object(_), _) => false,
    }
}

fn same(due: char, letter: char, case_insensitive: bool) -> bool {
    due == letter || (case_insensitive && due.eq_ignore_ascii_case(&letter))
}

/// RFC 6901 section 4: no sign, no leading zero.
fn index(part: &str) -> Option<usize> {
    let is_plain = part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    is_plain.then(|| part.parse().ok()).flatten()
}

fn unescape(part: &str) -> Option<String> {
    let mut text = String::with_capacity(part.len());
    let mut letters = part.chars();
    while let Some(letter) = letters.next() {
        if letter != '~' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('0') => text.push('~'),
            Some('1') => text.push('/'),
            Some(_) | None => return None,
        }
    }
    Some(text)
}

fn mark(reached: &mut [bool], at: usize) {
    if let Some(slot) = reached.get_mut(at) {
        *slot = true;
    }
}

fn is_marked(reached: &[bool], at: usize) -> bool {
    reached.get(at).copied().unwrap_or(false)
}

/// Bounds what one match can cost, against claims of at most 8 KiB. The longest of real use hold a path, a workflow
/// and a ref.
pub const MAX_GLOB_CHARACTERS: usize = 512;

#[cfg(test)]
mod tests;
