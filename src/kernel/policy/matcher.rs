//! Matchers: how a rule speaks of a claim. No regular expressions; a missing claim satisfies nothing but
//! `present: false` (attack class C-12).

use serde_json::Value;

use crate::kernel::identity::job::Claims;

/// One condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The claim's name, or a JSON Pointer (RFC 6901) where it starts with `/`.
    pub claim: String,
    /// What it must be.
    pub matcher: Matcher,
    /// Whether it compares without ASCII case.
    pub case_insensitive: bool,
    /// Line in the file, from 1.
    pub line: usize,
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Matcher {
    /// Any of.
    AnyOf(Vec<Matcher>),
    /// Equal, and of the same JSON type.
    Equals(Value),
    /// `*` inside one `/` segment, `**` across, nothing else, always the whole string.
    Glob(String),
    /// Present and not matching.
    Not(Box<Matcher>),
    /// Present or absent.
    Present(bool),
}

impl Condition {
    /// Whether the claims satisfy it.
    pub fn holds(&self, claims: &Claims) -> bool {
        self.matcher.holds(lookup(&self.claim, claims), self.case_insensitive)
    }
}

impl Matcher {
    fn holds(&self, value: Option<&Value>, case_insensitive: bool) -> bool {
        match (self, value) {
            (Self::Present(due), value) => value.is_some() == *due,
            (_, None) => false,
            (Self::AnyOf(any), value) => any.iter().any(|each| each.holds(value, case_insensitive)),
            (Self::Not(inner), value) => !inner.holds(value, case_insensitive),
            (Self::Equals(literal), Some(value)) => equal(literal, value, case_insensitive),
            (Self::Glob(pattern), Some(Value::String(text))) => glob(pattern, text, case_insensitive),
            (Self::Glob(_), Some(_)) => false,
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

fn lookup<'c>(claim: &str, claims: &'c Claims) -> Option<&'c Value> {
    let Some(pointer) = claim.strip_prefix('/') else { return claims.get(claim) };
    let (first, rest) = pointer.split_once('/').map_or((pointer, None), |(first, rest)| (first, Some(rest)));
    let root = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    match rest {
        Some(rest) => root.pointer(&format!("/{rest}")),
        None => Some(root),
    }
}

fn equal(literal: &Value, value: &Value, case_insensitive: bool) -> bool {
    match (literal, value) {
        (Value::String(literal), Value::String(text)) if case_insensitive => {
            literal.eq_ignore_ascii_case(text)
        }
        (Value::Number(literal), Value::Number(number)) => {
            // 1 and 1.0 are not the same claim (C-03): only whole numbers compare, as whole numbers.
            match (literal.as_i64(), number.as_i64()) {
                (Some(left), Some(right)) => left == right,
                _ => literal.as_u64().is_some() && literal.as_u64() == number.as_u64(),
            }
        }
        (Value::Bool(_) | Value::String(_), value) => literal == value,
        _ => false,
    }
}

/// Whether a pattern matches the whole text. Runs in time pattern × text, whatever the pattern, so that no pattern
/// can hold the evaluator.
pub fn glob(pattern: &str, text: &str, case_insensitive: bool) -> bool {
    let tokens = tokens(pattern, case_insensitive);
    // `reached[i]`: the first i tokens match what was read so far.
    let mut reached = vec![false; tokens.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    skip_stars(&tokens, &mut reached);
    for letter in text.chars() {
        let letter = if case_insensitive { letter.to_ascii_lowercase() } else { letter };
        let mut next = vec![false; tokens.len() + 1];
        for (at, token) in tokens.iter().enumerate() {
            if !reached.get(at).copied().unwrap_or(false) {
                continue;
            }
            let (stays, moves) = match token {
                Token::Across => (true, false),
                Token::Letter(due) => (false, *due == letter),
                Token::Within => (letter != '/', false),
            };
            mark(&mut next, at, stays);
            mark(&mut next, at + 1, moves);
        }
        skip_stars(&tokens, &mut next);
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Across,
    Letter(char),
    Within,
}

fn tokens(pattern: &str, case_insensitive: bool) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::with_capacity(pattern.len());
    for letter in pattern.chars() {
        match (letter, tokens.last()) {
            ('*', Some(Token::Within)) => {
                tokens.pop();
                tokens.push(Token::Across);
            }
            ('*', _) => tokens.push(Token::Within),
            (letter, _) if case_insensitive => tokens.push(Token::Letter(letter.to_ascii_lowercase())),
            (letter, _) => tokens.push(Token::Letter(letter)),
        }
    }
    tokens
}

fn mark(reached: &mut [bool], at: usize, on: bool) {
    if let Some(slot) = reached.get_mut(at) {
        *slot |= on;
    }
}

/// A star may match nothing.
fn skip_stars(tokens: &[Token], reached: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        let is_star = matches!(token, Token::Across | Token::Within);
        if is_star && reached.get(at).copied().unwrap_or(false) {
            mark(reached, at + 1, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claims() -> Claims {
        json!({"ref": "refs/heads/main", "n": 7, "yes": true, "repository": "Acme/App", "list": ["a"],
               "deep": {"in/side": "x"}, "oidc.example/org": "flat"})
        .as_object()
        .unwrap()
        .clone()
    }

    fn holds(claim: &str, matcher: Matcher) -> bool {
        Condition { claim: claim.into(), matcher, case_insensitive: false, line: 1 }.holds(&claims())
    }

    #[test]
    fn a_missing_claim_satisfies_nothing_but_present_false() {
        let any = [
            Matcher::Equals(json!("")),
            Matcher::Glob("**".into()),
            Matcher::Not(Box::new(Matcher::Equals(json!("x")))),
            Matcher::Not(Box::new(Matcher::Present(true))),
            Matcher::AnyOf(vec![Matcher::Not(Box::new(Matcher::Glob("x".into())))]),
            Matcher::Present(true),
        ];
        for matcher in any {
            assert!(!holds("absent", matcher.clone()), "{matcher:?}");
        }
        assert!(holds("absent", Matcher::Present(false)));
        assert!(!holds("ref", Matcher::Present(false)));
    }

    #[test]
    fn literals_keep_their_json_type() {
        assert!(holds("n", Matcher::Equals(json!(7))));
        for wrong in [json!("7"), json!(7.0), json!([7]), json!(true)] {
            assert!(!holds("n", Matcher::Equals(wrong.clone())), "{wrong}");
        }
        assert!(!holds("yes", Matcher::Equals(json!("true"))));
        assert!(!holds("list", Matcher::Equals(json!("a"))));
        assert!(!holds("list", Matcher::Glob("**".into())));
    }

    #[test]
    fn pointers_reach_inside_and_flat_names_do_not() {
        assert!(holds("/deep/in~1side", Matcher::Equals(json!("x"))));
        assert!(holds("oidc.example/org", Matcher::Equals(json!("flat"))));
        assert!(!holds("deep/in", Matcher::Present(true)));
        assert!(!holds("/deep/other", Matcher::Present(true)));
    }

    #[test]
    fn globs_stop_at_slashes_and_cover_the_whole_string() {
        for (pattern, text, due) in [
            ("refs/heads/release/*", "refs/heads/release/1", true),
            ("refs/heads/release/*", "refs/heads/release/1/evil", false),
            ("refs/heads/**", "refs/heads/a/b", true),
            ("refs/tags/v*", "refs/tags/v1\nrefs/heads/main", false),
            ("main", "main-evil", false),
            ("*", "", true),
            ("**", "a/b", true),
            ("a*c", "abbbc", true),
            ("a.c", "abc", false),
            ("[ab]", "a", false),
            (
                "acme/ci/.github/workflows/d.yml@refs/tags/v*",
                "acme/ci/.github/workflows/d.yml@refs/heads/x/.github/workflows/d.yml@refs/tags/v4",
                false,
            ),
        ] {
            assert_eq!(glob(pattern, text, false), due, "{pattern} {text:?}");
        }
    }

    #[test]
    fn case_folds_in_ascii_only() {
        let condition = |text: &str| Condition {
            claim: "repository".into(),
            matcher: Matcher::Equals(json!(text)),
            case_insensitive: true,
            line: 1,
        };
        assert!(condition("acme/app").holds(&claims()));
        assert!(!glob("\u{212a}ube", "kube", true));
    }

    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', '*', rest @ ..] => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            ['*', rest @ ..] => {
                let end = text.iter().position(|letter| *letter == '/').unwrap_or(text.len());
                (0..=end).any(|at| naive(rest, &text[at..]))
            }
            [letter, rest @ ..] => text.first() == Some(letter) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_reference(pattern in "[ab/*]{0,8}", text in "[ab/]{0,10}") {
            prop_assume!(!pattern.contains("***"));
            let letters: Vec<char> = pattern.chars().collect();
            let due = naive(&letters, &text.chars().collect::<Vec<_>>());
            prop_assert_eq!(glob(&pattern, &text, false), due);
        }
    }
}
