//! Templates: `${claims.x}` in a target, filled at the decision or refused; nothing is encoded or cut (design:
//! section 4, "Templates").
//!
//! A segment of a Vault path and the value of an AWS session tag take them. Nothing else does: the loader refuses them
//! there, and a path's claims must be immutable and out of an attacker's reach (attack classes P-06, B-04).

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;

use super::{
    matcher::Glob,
    target::{AwsTarget, Target, VaultTarget},
};
use crate::kernel::identity::JobIdentity;

/// A target as written. Where it has no template, or where every one is filled in, it is the target itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetTemplate(pub Target);

impl TargetTemplate {
    /// Whether something is left to be filled in. No value that fits brings a new one along, for none may hold `$`.
    pub fn is_open(&self) -> bool {
        match &self.0 {
            Target::Aws(aws) => aws.tags.values().any(|value| is_template(value)),
            Target::Oidc { .. } | Target::Sealed { .. } => false,
            Target::Vault(vault) => is_template(&vault.path),
        }
    }

    /// Fills in the claims of a job; `None` where one is absent, or does not fit.
    pub fn expand(&self, identity: &JobIdentity) -> Option<Self> {
        let look = |name: &str| match identity.unusable().iter().any(|each| each == name) {
            true => None,
            false => identity.claim(name),
        };
        self.fill(&look)
    }

    fn fill(&self, claims: Look<'_>) -> Option<Self> {
        Some(Self(match &self.0 {
            Target::Aws(aws) => Target::Aws(Arc::new(expand_tags(aws, claims)?)),
            Target::Oidc { .. } | Target::Sealed { .. } => self.0.clone(),
            Target::Vault(vault) => {
                let path = fill(&vault.path, claims, is_segment_value)?;
                // Checked again at use: what is joined from parts that fit must fit as a whole.
                if !is_path(&path) {
                    return None;
                }
                Target::Vault(Arc::new(VaultTarget { path, ..(**vault).clone() }))
            }
        }))
    }
}

fn expand_tags(aws: &AwsTarget, claims: Look<'_>) -> Option<AwsTarget> {
    let filled = aws.tags.iter().map(|(key, value)| {
        let value = fill(value, claims, is_tag_value)?;
        is_tag_value(&value).then(|| (key.clone(), value))
    });
    Some(AwsTarget { tags: filled.collect::<Option<_>>()?, ..aws.clone() })
}

/// The value of a claim.
type Look<'a> = &'a dyn Fn(&str) -> Option<&'a Value>;

/// A piece of a template.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Piece<'a> {
    /// The claim of that name.
    Claim(&'a str),
    /// A text as it stands.
    Text(&'a str),
}

/// Whether a text has a template in it.
pub(super) fn is_template(text: &str) -> bool {
    text.contains(OPEN)
}

/// Takes a template apart; `None` where one does not end, or speaks of no claim.
pub(super) fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (inside, behind) = after.split_once('}')?;
        let claim = inside.strip_prefix("claims.").filter(|claim| is_claim(claim))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Claim(claim));
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Some(pieces)
}

/// The same text for somebody else: every template filled in as for another job, or another name at its end.
pub(super) fn with_others(text: &str) -> String {
    match pieces(text) {
        Some(pieces) if is_template(text) => {
            let each = pieces.iter().map(|piece| match piece {
                Piece::Claim(_) => "other",
                Piece::Text(text) => text,
            });
            each.collect()
        }
        Some(_) | None => format!("{text}-other"),
    }
}

fn is_claim(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b':');
    !name.is_empty() && name.bytes().all(fits)
}

fn fill(template: &str, claims: Look<'_>, fits: fn(&str) -> bool) -> Option<String> {
    let mut filled = String::new();
    for piece in pieces(template)? {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Claim(name) => {
                let value = claims(name).and_then(text_of).filter(|value| fits(value))?;
                filled.push_str(&value);
            }
        }
    }
    Some(filled)
}

/// A text, or a whole number in decimal digits; nothing else has one spelling only.
fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(Cow::Owned(number.to_string())),
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) => None,
    }
}

/// `[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}`: no slash, no dot at the begin, hence neither `.` nor `..`.
fn is_segment_value(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| fits(byte) || byte == b'.')
        && text.bytes().next().is_some_and(fits)
}

/// The value of a session tag in AWS's own alphabet (`[\p{L}\p{Z}\p{N}_.:/=+\-@]{0,256}`), not empty.
pub(super) fn is_tag_value(text: &str) -> bool {
    (1..=256).contains(&text.chars().count()) && text.chars().all(is_tag_letter)
}

pub(super) fn is_tag_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == ' ' || "_.:/=+-@".contains(letter)
}

/// A path below `/v1/` as it may be sent: two or more segments of `A-Z a-z 0-9 . _ @ : = ~ -`, none empty, `.` or `..`,
/// at most 512 bytes. What a client or a proxy would tidy up on the way never gets there (CVE-2026-3605).
pub fn is_path(path: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._@:=~-".contains(&byte);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(fits);
    path.len() <= 512 && path.contains('/') && path.split('/').all(is_segment)
}

/// A template with every claim replaced by a letter that no target has: whatever matches it matches every expansion,
/// since only a star can have taken that letter, and a star takes any value that fits.
pub(super) fn opaque(text: &str) -> Cow<'_, str> {
    if !is_template(text) {
        return Cow::Borrowed(text);
    }
    let pieces = pieces(text).unwrap_or_default();
    let mut shown = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => shown.push_str(text),
            Piece::Claim(_) => shown.push(HOLE),
        }
    }
    Cow::Owned(shown)
}

/// Whether some expansion of a template could match a pattern. May say yes where none does, never no where one does.
pub(super) fn may_match(pattern: &Glob, text: &str) -> bool {
    if !is_template(text) {
        return pattern.matches(text, false);
    }
    let text: Vec<char> = opaque(text).chars().collect();
    let pattern: Vec<char> = pattern.as_str().replace("**", &ACROSS.to_string()).chars().collect();
    meets(&pattern, &text)
}

/// Whether two patterns have a text in common: on one side `*` within a segment and [`ACROSS`] over all, on the other
/// holes that take one or more letters of a segment.
fn meets(pattern: &[char], text: &[char]) -> bool {
    // `reached[i]`: the first i letters of the pattern match what was read so far.
    let mut reached = vec![false; pattern.len() + 1];
    set(&mut reached, 0);
    skip_stars(pattern, &mut reached);
    for letter in text {
        let is_hole = *letter == HOLE;
        reached = step(pattern, &reached, *letter, is_hole);
        // A hole may take many letters: it is stepped until nothing new is reached.
        let mut taken = reached.clone();
        while is_hole && taken.contains(&true) {
            taken = step(pattern, &taken, *letter, true);
            let is_new = reached.iter().zip(&taken).any(|(old, new)| *new && !*old);
            for (old, new) in reached.iter_mut().zip(&taken) {
                *old |= *new;
            }
            if !is_new {
                break;
            }
        }
    }
    reached.last().copied().unwrap_or(false)
}

fn step(pattern: &[char], reached: &[bool], letter: char, is_hole: bool) -> Vec<bool> {
    let mut next = vec![false; reached.len()];
    for (at, due) in pattern.iter().enumerate() {
        if !reached.get(at).copied().unwrap_or(false) {
            continue;
        }
        let fits_hole = |due: char| due.is_ascii_alphanumeric() || "_-.".contains(due);
        match *due {
            ACROSS => set(&mut next, at),
            '*' if letter != '/' => set(&mut next, at),
            '*' => {}
            due if due == letter || (is_hole && fits_hole(due)) => set(&mut next, at + 1),
            _ => {}
        }
    }
    skip_stars(pattern, &mut next);
    next
}

fn skip_stars(pattern: &[char], reached: &mut [bool]) {
    for (at, due) in pattern.iter().enumerate() {
        if matches!(*due, '*' | ACROSS) && reached.get(at).copied().unwrap_or(false) {
            set(reached, at + 1);
        }
    }
}

fn set(reached: &mut [bool], at: usize) {
    if let Some(place) = reached.get_mut(at) {
        *place = true;
    }
}

const OPEN: &str = "${";
/// Stands for a value; no YAML text and no path can hold it.
const HOLE: char = '\u{1}';
/// Stands for `**`.
const ACROSS: char = '\u{2}';

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, value: &Value) -> Option<String> {
        let look = |name: &str| (name == "x").then_some(value);
        fill(template, &look, is_segment_value)
    }

    #[test]
    fn segment_takes_what_fits_and_nothing_else() {
        let fill = |value: &str| filled("kv/data/${claims.x}/npm", &value.into());
        assert_eq!(fill("701").as_deref(), Some("kv/data/701/npm"));
        assert_eq!(fill("a..b").as_deref(), Some("kv/data/a..b/npm"));
        let long = "a".repeat(129);
        for bad in ["", ".", "..", ".a", "a/b", "a b", "a%2fb", "é", "*", "${claims.x}", "a\n", &long] {
            assert_eq!(fill(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn claim_that_is_absent_or_no_text_fills_nothing() {
        for value in
            [Value::Null, true.into(), 1.5.into(), serde_json::json!(["a"]), serde_json::json!({ "a": "b" })]
        {
            assert_eq!(filled("a/${claims.x}", &value), None, "{value}");
        }
        assert_eq!(filled("a/${claims.y}", &"a".into()), None);
        assert_eq!(filled("a/${claims.x}", &7.into()).as_deref(), Some("a/7"));
    }

    #[test]
    fn malformed_templates_have_no_pieces() {
        for bad in
            ["${", "${claims.", "${claims.}", "${env.x}", "${claims.a b}", "a${x}", "${claims.${claims.x}}"]
        {
            assert_eq!(pieces(bad), None, "{bad}");
        }
        let two = [Piece::Claim("a"), Piece::Text("-"), Piece::Claim("b")];
        assert_eq!(pieces("${claims.a}-${claims.b}").as_deref(), Some(&two[..]));
    }

    #[test]
    fn paths_are_as_they_would_be_sent() {
        for good in ["kv/npm", "database/creds/payments-rw", "kv/data/a.b/c_d"] {
            assert!(is_path(good), "{good}");
        }
        for bad in [
            "kv", "", "/kv/a", "kv/a/", "kv//a", "kv/./a", "kv/../a", "kv/a b", "kv/a?x", "kv/%2e", "kv/a#b",
            "kv/*", "kv/+/a",
        ] {
            assert!(!is_path(bad), "{bad}");
        }
    }

    #[test]
    fn pattern_covers_a_template_or_meets_it_or_neither() {
        let case = |pattern: &str, text: &str| {
            let glob = Glob::parse(pattern).unwrap();
            (glob.matches(&opaque(text), false), may_match(&glob, text))
        };
        let text = "kv/data/ci/${claims.x}/npm";
        assert_eq!(case("kv/data/ci/**", text), (true, true));
        assert_eq!(case("kv/data/ci/*/npm", text), (true, true));
        assert_eq!(case("kv/data/ci/701/npm", text), (false, true));
        assert_eq!(case("kv/data/ci/7*/npm", text), (false, true));
        assert_eq!(case("kv/data/ci/a/b/npm", text), (false, false));
        assert_eq!(case("kv/data/prod/**", text), (false, false));
        assert_eq!(case("database/creds/*-ro", "database/creds/${claims.x}"), (false, true));
        assert_eq!(case("database/creds/*-ro", "database/creds/${claims.x}-ro"), (true, true));
        assert_eq!(case("database/creds/*-ro", "database/creds/${claims.x}-rw"), (false, false));
        assert_eq!(case("kv/data/a-x-b", "kv/data/${claims.x}-b"), (false, true));
    }

    proptest::proptest! {
        #[test]
        fn what_an_expansion_matches_the_template_may_match(
            pattern in "[ab/*]{1,8}", before in "[ab/]{0,3}", value in "[ab]{1,4}", after in "[ab/]{0,3}",
        ) {
            if let Some(glob) = Glob::parse(&pattern) {
                let template = format!("{before}${{claims.x}}{after}");
                let expanded = format!("{before}{value}{after}");
                let matches = glob.matches(&expanded, false);
                proptest::prop_assert!(!matches || may_match(&glob, &template));
                // And what covers the template matches every expansion.
                proptest::prop_assert!(matches || !glob.matches(&opaque(&template), false));
            }
        }
    }
}
