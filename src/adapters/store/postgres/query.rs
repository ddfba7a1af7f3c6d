//! An auditor's query as SQL: fixed conditions, every value bound, so that filters run in the database and nothing
//! from a query is ever part of a statement.
//!
//! Entries are read as `json` and not `jsonb`: a member may hold `\u0000`, which `jsonb` refuses, and one such entry must
//! not spoil every query. Cases are those of ASCII (collation "C"), whatever the database's own is.

use sqlx::{Postgres, QueryBuilder};

use super::schema::signed;
use crate::{
    adapters::store::shared::stored::stored,
    broker::ports::{EntryQuery, Qualifier, Term},
};

/// Rows of one page, and one more by which the caller sees that there are more pages.
const MAX_ROWS: u32 = 501;

/// The statement with its values. It answers index and bytes, newest first.
pub(super) fn build(query: &EntryQuery) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new("SELECT idx, bytes FROM entry WHERE true");
    if let Some(from) = query.from {
        sql.push(" AND at >= ").push_bind(stored(from));
    }
    if let Some(to) = query.to {
        sql.push(" AND at < ").push_bind(stored(to));
    }
    if let Some(below) = query.below {
        sql.push(" AND idx < ").push_bind(signed(below));
    }
    for term in &query.terms {
        // What an entry does not speak of is neither true nor false in SQL; here it does not hold.
        sql.push(if term.negated { " AND NOT coalesce((" } else { " AND coalesce((" });
        condition(term, &mut sql);
        sql.push("), false)");
    }
    sql.push(" ORDER BY idx DESC LIMIT ").push_bind(i64::from(query.limit.clamp(1, MAX_ROWS)));
    sql
}

fn condition(term: &Term, sql: &mut QueryBuilder<Postgres>) {
    let Term { qualifier, value, .. } = term;
    // No text of PostgreSQL holds this character, so nothing that is stored does.
    let value = value.replace('\0', "\u{fffd}");
    match qualifier {
        Qualifier::Actor => {
            among(sql, &value, &["{subject,claims,actor}", "{result,reader}"]);
            // Personal values that are not claims name no actor.
            sql.push(
                " OR EXISTS (SELECT 1 FROM personal WHERE personal.idx = entry.idx
                 AND field NOT IN ('address', 'query', 'reason') AND lower(value COLLATE \"C\") = lower(",
            );
            sql.push_bind(value).push(" COLLATE \"C\"))");
        }
        Qualifier::Env => equals(sql, "{subject,environment}", value),
        Qualifier::Grant => {
            // The column is a JSON array of texts without spaces: an element stands between commas there.
            let element = format!(",{},", serde_json::Value::from(value));
            sql.push("position(").push_bind(element);
            sql.push(" IN ',' || substr(grants, 2, length(grants) - 2) || ',') > 0");
        }
        Qualifier::Issuer => {
            sql.push("issuer = ").push_bind(value);
        }
        Qualifier::Outcome => {
            sql.push("code = ").push_bind(value.to_ascii_uppercase());
        }
        Qualifier::Reason => {
            sql.push("coalesce(");
            equals(sql, "{result,reason}", value.clone());
            sql.push(", false) OR ");
            personal_like(sql, "AND field = 'reason' ", anywhere(&value));
        }
        Qualifier::Ref => equals(sql, "{subject,ref}", value),
        // Names of repositories compare without case where the CI system does (design: small print, tokens).
        Qualifier::Repo => among(
            sql,
            &value,
            &[
                "{subject,project}",
                "{subject,project_name}",
                "{subject,claims,repository}",
                "{result,project}",
            ],
        ),
        Qualifier::Run => equals(sql, "{subject,run}", value),
        Qualifier::Text => {
            sql.push(format!("{TEXT} COLLATE \"C\" ILIKE "));
            sql.push_bind(anywhere(&as_in_json(&value))).push(" OR ");
            personal_like(sql, "", anywhere(&value));
        }
    }
}

/// An entry's bytes as text.
const TEXT: &str = "convert_from(entry.bytes, 'UTF8')";

fn equals(sql: &mut QueryBuilder<Postgres>, path: &'static str, value: String) {
    sql.push(format!("{TEXT}::json #>> '{path}' = ")).push_bind(value);
}

/// Whether a value stands at one of those paths, in any case.
fn among(sql: &mut QueryBuilder<Postgres>, value: &str, paths: &[&'static str]) {
    sql.push("lower(").push_bind(value.to_owned()).push(" COLLATE \"C\") IN (");
    let said = |path: &&str| format!("lower(({TEXT}::json #>> '{path}') COLLATE \"C\")");
    sql.push(paths.iter().map(said).collect::<Vec<_>>().join(", ")).push(")");
}

fn personal_like(sql: &mut QueryBuilder<Postgres>, and: &'static str, pattern: String) {
    sql.push("EXISTS (SELECT 1 FROM personal WHERE personal.idx = entry.idx ");
    sql.push(and).push("AND value COLLATE \"C\" ILIKE ").push_bind(pattern).push(")");
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
