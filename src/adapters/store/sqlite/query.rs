//! An auditor's query as SQL: fixed conditions, every value bound, so that filters run in the database and nothing
//! from a query is ever part of a statement.

use rusqlite::types::Value;

use super::schema::{signed, stored};
use crate::broker::ports::{EntryQuery, Qualifier, Term};

/// Rows of one page, and one more by which the caller sees that there are more pages.
const MAX_ROWS: u32 = 501;

/// The statement and its values. It answers index and bytes, newest first.
pub(super) fn build(query: &EntryQuery) -> (String, Vec<Value>) {
    let mut bound = Bound::default();
    let mut conditions = vec!["1".to_owned()];
    if let Some(from) = query.from {
        conditions.push(format!("at >= {}", bound.add(stored(from).into())));
    }
    if let Some(to) = query.to {
        conditions.push(format!("at < {}", bound.add(stored(to).into())));
    }
    if let Some(below) = query.below {
        conditions.push(format!("idx < {}", bound.add(signed(below).into())));
    }
    for term in &query.terms {
        let holds = condition(term, &mut bound);
        // What an entry does not speak of is neither true nor false in SQL; here it does not hold.
        let not = if term.negated { "NOT " } else { "" };
        conditions.push(format!("{not}coalesce(({holds}), 0)"));
    }
    let limit = bound.add(i64::from(query.limit.clamp(1, MAX_ROWS)).into());
    let sql = format!(
        "SELECT idx, bytes FROM entry WHERE {} ORDER BY idx DESC LIMIT {limit}",
        conditions.join(" AND ")
    );
    (sql, bound.0)
}

#[derive(Default)]
struct Bound(Vec<Value>);

impl Bound {
    /// Binds a value; answers its place in the statement.
    fn add(&mut self, value: Value) -> String {
        self.0.push(value);
        format!("?{}", self.0.len())
    }
}

fn condition(term: &Term, bound: &mut Bound) -> String {
    let Term { qualifier, value, .. } = term;
    let mut equal = |text: &str| bound.add(text.to_owned().into());
    match qualifier {
        Qualifier::Actor => {
            let value = equal(value);
            // Personal values that are not claims name no actor.
            format!(
                "{value} COLLATE NOCASE IN ({}, {}) OR EXISTS (SELECT 1 FROM personal WHERE personal.idx = entry.idx
                 AND field NOT IN ('address', 'query', 'reason') AND value = {value} COLLATE NOCASE)",
                said("subject.claims.actor"),
                said("result.reader"),
            )
        }
        Qualifier::Env => format!("{} = {}", said("subject.environment"), equal(value)),
        Qualifier::Grant => {
            format!("EXISTS (SELECT 1 FROM json_each(entry.grants) WHERE value = {})", equal(value))
        }
        Qualifier::Issuer => format!("issuer = {}", equal(value)),
        Qualifier::Outcome => format!("code = {}", equal(&value.to_ascii_uppercase())),
        Qualifier::Reason => format!(
            "coalesce({} = {}, 0) OR {}",
            said("result.reason"),
            equal(value),
            personal_like("AND field = 'reason'", &equal(&anywhere(value))),
        ),
        Qualifier::Ref => format!("{} = {}", said("subject.ref"), equal(value)),
        // Names of repositories compare without case where the CI system does (design: small print, tokens).
        Qualifier::Repo => format!(
            "{} COLLATE NOCASE IN ({}, {}, {}, {})",
            equal(value),
            said("subject.project"),
            said("subject.project_name"),
            said("subject.claims.repository"),
            said("result.project"),
        ),
        Qualifier::Run => format!("{} = {}", said("subject.run"), equal(value)),
        Qualifier::Text => {
            let in_entry = equal(&anywhere(&as_in_json(value)));
            let in_personal = equal(&anywhere(value));
            format!(r"CAST(bytes AS TEXT) LIKE {in_entry} ESCAPE '\' OR {}", personal_like("", &in_personal))
        }
    }
}

/// What an entry says at a path; `path` is one of ours.
fn said(path: &str) -> String {
    format!("json_extract(CAST(bytes AS TEXT), '$.{path}')")
}

fn personal_like(and: &str, pattern: &str) -> String {
    format!(
        r"EXISTS (SELECT 1 FROM personal WHERE personal.idx = entry.idx {and} AND value LIKE {pattern} ESCAPE '\')"
    )
}

/// A pattern for LIKE that finds the text anywhere, and takes it as it is.
fn anywhere(text: &str) -> String {
    let mut pattern = "%".to_owned();
    for letter in text.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern + "%"
}

/// A text as JSON writes it between quotes, so that it is found in an entry's bytes.
fn as_in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text).to_owned()
}
