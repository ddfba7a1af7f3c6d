//! A copy of the store, and putting one back. A copy is a database file as SQLite's room keeps it: one file, which
//! `restore --verify` and `ledger verify` read without a server, and which goes back into either kind of store.
//!
//! It is read in one repeatable-read transaction, so that it is one state of the ledger, and nobody who writes waits for
//! it. Who publishes, who lives and what differs between brokers stays behind: that is of the moment. Source:
//! <https://www.postgresql.org/docs/15/transaction-iso.html> (November 2026).

use std::path::Path;

use rusqlite::{Connection, types::Value};
use sqlx::{
    PgConnection, QueryBuilder, Row as _,
    postgres::{PgConnectOptions, PgRow},
};

use super::{
    Place, Postgres, Roles, Trouble,
    create::grant,
    engine::Engine,
    open,
    schema::{self, MIGRATIONS, SCHEMA},
    tree,
};
use crate::{
    adapters::store::{
        shared::refusals::DENIALS,
        sqlite::{CopyFault, begin_copy, end_copy, read_copy},
    },
    kernel::{ledger::checkpoint::VerifierKey, sealing::Keyring},
};

/// Rows of one statement.
const ROWS: usize = 500;

/// What a column holds. SQLite has no type for yes and no, PostgreSQL has several for numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Bytes,
    Flag,
    Number,
    Small,
    Text,
}

use Holds::{Bytes, Flag, Number, Small, Text};

/// A table that both kinds of store have.
struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Holds)],
    /// In which order its rows are copied: the ledger is appended to.
    order: &'static str,
}

const TABLES: [Table; 16] = [
    Table { name: "meta", columns: &[("name", Text), ("value", Bytes)], order: "name" },
    Table {
        name: "keys",
        columns: &[("purpose", Text), ("version", Number), ("sealed", Bytes), ("made_at", Number)],
        order: "purpose",
    },
    Table {
        name: "assertion_key",
        columns: &[
            ("algorithm", Text),
            ("version", Number),
            ("purpose", Text),
            ("public", Text),
            ("published_at", Number),
            ("active_at", Number),
            ("retired_at", Number),
            ("removed_at", Number),
        ],
        order: "algorithm, version",
    },
    Table {
        name: "head",
        columns: &[("one", Number), ("size", Number), ("root", Bytes), ("peaks", Bytes), ("note", Text)],
        order: "one",
    },
    Table {
        name: "entry",
        columns: &[
            ("idx", Number),
            ("leaf", Bytes),
            ("code", Text),
            ("at", Number),
            ("decision", Bytes),
            ("issuance", Bytes),
            ("issuer", Text),
            ("grants", Text),
            ("bytes", Bytes),
        ],
        order: "idx",
    },
    Table {
        name: "subtree",
        columns: &[("level", Small), ("idx", Number), ("hash", Bytes)],
        order: "level, idx",
    },
    Table {
        name: "personal",
        columns: &[
            ("idx", Number),
            ("ordinal", Number),
            ("field", Text),
            ("blinding", Bytes),
            ("value", Text),
        ],
        order: "idx, ordinal",
    },
    Table {
        name: "issuance",
        columns: &[
            ("id", Bytes),
            ("decision", Bytes),
            ("grant_name", Text),
            ("credential", Text),
            ("kind", Text),
            ("state", Text),
            ("handle", Bytes),
            ("issuer", Text),
            ("token", Bytes),
            ("job", Bytes),
            ("lifetime", Text),
            ("issued_at", Number),
            ("expires_at", Number),
            ("usable_until", Number),
            ("revocable", Flag),
            ("owner", Bytes),
            ("recover_after", Number),
            ("project", Text),
            ("live_until", Number),
            ("making", Text),
            ("held", Bytes),
            ("chain", Bytes),
            ("once", Bytes),
            ("idempotency", Bytes),
            ("counted", Text),
            ("tries", Number),
            ("retry_at", Number),
            ("told", Flag),
            ("keeps_chain", Flag),
        ],
        order: "id",
    },
    Table { name: "once", columns: &[("key", Bytes), ("expires", Number), ("chain", Bytes)], order: "key" },
    Table {
        name: "idempotency",
        columns: &[
            ("key", Bytes),
            ("body", Bytes),
            ("chain", Bytes),
            ("retries", Number),
            ("issuances", Bytes),
            ("valid_until", Number),
        ],
        order: "key",
    },
    Table {
        name: "denied",
        columns: &[("token", Bytes), ("count", Number), ("until", Number)],
        order: "token",
    },
    Table {
        name: "summary",
        columns: &[
            ("slot", Number),
            ("kind", Text),
            ("issuer", Text),
            ("project", Text),
            ("count", Number),
            ("first", Number),
            ("last", Number),
            ("samples", Text),
        ],
        order: "slot, kind, issuer, project",
    },
    Table {
        name: "secret",
        columns: &[
            ("name", Text),
            ("version", Number),
            ("sealed", Bytes),
            ("fields", Number),
            ("set_at", Number),
        ],
        order: "name",
    },
    Table {
        name: "policy_accepted",
        columns: &[("digest", Bytes), ("names", Text), ("at", Number)],
        order: "id",
    },
    Table { name: "policy_let_in", columns: &[("digest", Bytes), ("until", Number)], order: "digest" },
    Table {
        name: "intent_count",
        columns: &[
            ("grant_name", Text),
            ("issuer", Text),
            ("project", Text),
            ("minute", Number),
            ("count", Number),
        ],
        order: "grant_name, issuer, project, minute",
    },
];

/// Freezes outlive a restore: one that was in the copy holds again.
const FREEZES: [Table; 2] = [
    Table {
        name: "freeze",
        columns: &[
            ("scope", Text),
            ("issuer", Text),
            ("name", Text),
            ("reason", Text),
            ("frozen_by", Text),
            ("at", Number),
        ],
        order: "scope, issuer, name",
    },
    Table {
        name: "frozen_key",
        columns: &[("thumbprint", Bytes), ("issuer", Text), ("kid", Text)],
        order: "thumbprint, issuer, kid",
    },
];

/// Why nothing was copied from or to a server.
#[derive(Debug, thiserror::Error)]
pub enum ServerCopyFault {
    /// The copy does not hold together.
    #[error("the copy is damaged: {0}")]
    Damaged(&'static str),
    /// There is a schema already; nothing is overwritten.
    #[error("the database has a schema `hallpass` already; nothing was changed")]
    Exists,
    /// The file.
    #[error(transparent)]
    File(#[from] CopyFault),
    /// The way to the server.
    #[error(transparent)]
    Open(#[from] open::OpenFault),
    /// The password could not be had.
    #[error(transparent)]
    Password(#[from] super::PasswordFault),
    /// The server.
    #[error("the database cannot be copied: {0}")]
    Server(#[from] sqlx::Error),
    /// The copying ended early.
    #[error("the copying ended early")]
    Stopped,
    /// The copy is sealed with another key.
    #[error("the sealing key is not the one that the copy was made with; nothing was changed")]
    WrongSealingKey,
}

impl From<Trouble> for ServerCopyFault {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Damaged(what) => Self::Damaged(what),
            Trouble::Sql(fault) | Trouble::Uncertain(fault) => Self::Server(fault),
            Trouble::Clock(_) | Trouble::Moved | Trouble::SetBack { .. } | Trouble::Slow => Self::Stopped,
        }
    }
}

impl From<rusqlite::Error> for ServerCopyFault {
    fn from(fault: rusqlite::Error) -> Self {
        Self::File(fault.into())
    }
}

impl Postgres {
    /// Copies the store into a new file, mode 0600, durable when this returns.
    ///
    /// # Errors
    ///
    /// [`ServerCopyFault`]; what was begun is removed again.
    pub async fn back_up(&self, place: &Place, to: &Path) -> Result<(), ServerCopyFault> {
        let (options, to) = (schema::reading(&place.options()?), to.to_owned());
        let file = begin_copy(&to)?;
        let task = self.engine.handle().spawn(async move {
            let copied = read_all(&options, file).await;
            let ended = copied.and_then(|file| Ok(end_copy(file, &to)?));
            if ended.is_err() {
                // Best effort: the fault that is told is the one that stopped us.
                drop(std::fs::remove_file(&to));
            }
            ended
        });
        task.await.map_err(|_| ServerCopyFault::Stopped)?
    }

    /// Puts a copy into a database without a schema of ours, as the role that shall own it, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`ServerCopyFault`]; then nothing was changed.
    pub async fn put_back(
        from: &Path,
        place: &Place,
        sealing: Keyring,
        roles: Roles,
    ) -> Result<(), ServerCopyFault> {
        let (options, from) = (place.options()?, from.to_owned());
        let engine = Engine::start()?;
        let task = engine.handle().spawn(async move { write_all(&from, &options, &sealing, &roles).await });
        task.await.map_err(|_| ServerCopyFault::Stopped)?
    }
}

/// Reads every table in one snapshot.
async fn read_all(options: &PgConnectOptions, mut file: Connection) -> Result<Connection, ServerCopyFault> {
    let mut conn = schema::connect(options).await?;
    sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut conn).await?;
    // A long ledger takes its time; nobody waits for this transaction.
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut conn).await?;
    for table in TABLES.iter().chain(&FREEZES) {
        let select = format!(
            "SELECT {} FROM \"{}\" ORDER BY {}",
            table.columns.iter().map(|(name, holds)| read_as(name, *holds)).collect::<Vec<_>>().join(", "),
            table.name,
            table.order
        );
        let declare = format!("DECLARE copied NO SCROLL CURSOR FOR {select}");
        QueryBuilder::new(declare).build().persistent(false).execute(&mut conn).await?;
        let fetch = format!("FETCH {ROWS} FROM copied");
        loop {
            let mut fetched = QueryBuilder::new(fetch.as_str());
            let rows = fetched.build().persistent(false).fetch_all(&mut conn).await?;
            if rows.is_empty() {
                break;
            }
            let rows: Vec<Vec<Value>> =
                rows.iter().map(|row| values(table, row)).collect::<sqlx::Result<_>>()?;
            keep(&mut file, table, rows)?;
        }
        sqlx::raw_sql("CLOSE copied").execute(&mut conn).await?;
    }
    sqlx::query("COMMIT").execute(&mut conn).await?;
    Ok(file)
}

/// A column as one of the four kinds of value that SQLite has.
fn read_as(name: &str, holds: Holds) -> String {
    match holds {
        Bytes | Text => name.to_owned(),
        Flag => format!("{name}::int::bigint AS {name}"),
        // Some are shorter on the server.
        Number | Small => format!("{name}::bigint AS {name}"),
    }
}

fn values(table: &Table, row: &PgRow) -> sqlx::Result<Vec<Value>> {
    let value = |(at, (_, holds)): (usize, &(&str, Holds))| -> sqlx::Result<Value> {
        Ok(match holds {
            Bytes => row.try_get::<Option<Vec<u8>>, _>(at)?.map_or(Value::Null, Value::Blob),
            Flag | Number | Small => row.try_get::<Option<i64>, _>(at)?.map_or(Value::Null, Value::Integer),
            Text => row.try_get::<Option<String>, _>(at)?.map_or(Value::Null, Value::Text),
        })
    };
    table.columns.iter().enumerate().map(value).collect()
}

/// Writes rows into the file, in one transaction of it.
fn keep(file: &mut Connection, table: &Table, rows: Vec<Vec<Value>>) -> rusqlite::Result<()> {
    let change = file.transaction()?;
    {
        let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
        let marks = vec!["?"; names.len()].join(", ");
        let insert = format!("INSERT INTO \"{}\" ({}) VALUES ({marks})", table.name, names.join(", "));
        let mut insert = change.prepare_cached(&insert)?;
        for row in rows {
            let is_own = table.name == "meta"
                && OWN_FACTS.iter().any(|fact| row.first() == Some(&Value::Text((*fact).to_owned())));
            if !is_own {
                insert.execute(rusqlite::params_from_iter(row))?;
            }
        }
    }
    change.commit()
}

/// Makes the schema and fills it, in one transaction.
async fn write_all(
    from: &Path,
    options: &PgConnectOptions,
    sealing: &Keyring,
    roles: &Roles,
) -> Result<(), ServerCopyFault> {
    let mut file = read_copy(from)?;
    let fact = |file: &Connection, name: &str| -> Result<Vec<u8>, ServerCopyFault> {
        Ok(file.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))?)
    };
    if sealing.of(&fact(&file, "sealing_check")?).is_none() {
        return Err(ServerCopyFault::WrongSealingKey);
    }
    let key = String::from_utf8(fact(&file, "ledger_key")?).ok().and_then(|key| VerifierKey::parse(&key));
    let key = key.ok_or(ServerCopyFault::Damaged("the ledger's public key cannot be read"))?;
    let mut conn = schema::connect(options).await?;
    sqlx::query("BEGIN").execute(&mut conn).await?;
    for migration in MIGRATIONS {
        sqlx::raw_sql(migration).execute(&mut conn).await.map_err(|fault| {
            let code = fault.as_database_error().and_then(sqlx::error::DatabaseError::code);
            // duplicate_schema
            if code.as_deref() == Some("42P06") { ServerCopyFault::Exists } else { fault.into() }
        })?;
    }
    for table in TABLES.iter().chain(&FREEZES) {
        let mut read = 0;
        loop {
            let rows = take(&mut file, table, read)?;
            if rows.is_empty() {
                break;
            }
            read += rows.len();
            put(&mut conn, table, rows).await?;
        }
    }
    // What only this kind of store has.
    sqlx::query("INSERT INTO hallpass.meta (name, value) VALUES ('schema', convert_to($1, 'UTF8'))")
        .bind(SCHEMA.to_string())
        .execute(&mut conn)
        .await?;
    sqlx::query(
        "UPDATE hallpass.denied SET spent = numbered.number FROM
             (SELECT token, row_number() OVER (ORDER BY token) AS number FROM hallpass.denied WHERE count >= $1) AS numbered
         WHERE denied.token = numbered.token",
    )
    .bind(DENIALS)
    .execute(&mut conn)
    .await?;
    sqlx::query(
        "UPDATE hallpass.head SET spent = (SELECT count(*) FROM hallpass.denied WHERE spent IS NOT NULL)",
    )
    .execute(&mut conn)
    .await?;
    grant(&mut conn, roles).await?;
    sqlx::query("SET LOCAL search_path = hallpass").execute(&mut conn).await?;
    let head = tree::load(&mut conn).await?;
    tree::check(&mut conn, &head, &key).await?;
    sqlx::query("COMMIT").execute(&mut conn).await?;
    Ok(())
}

/// The next rows of the file.
fn take(file: &mut Connection, table: &Table, past: usize) -> rusqlite::Result<Vec<Vec<Value>>> {
    let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
    let select = format!(
        "SELECT {} FROM \"{}\" ORDER BY {} LIMIT {ROWS} OFFSET ?1",
        names.join(", "),
        table.name,
        table.order
    );
    let mut select = file.prepare_cached(&select)?;
    let rows = select.query_map([i64::try_from(past).unwrap_or(i64::MAX)], |row| {
        (0..names.len()).map(|at| row.get(at)).collect::<rusqlite::Result<Vec<Value>>>()
    })?;
    rows.collect()
}

async fn put(
    conn: &mut PgConnection,
    table: &Table,
    mut rows: Vec<Vec<Value>>,
) -> Result<(), ServerCopyFault> {
    if table.name == "meta" {
        // Of the broker that served the copied store.
        rows.retain(|row| row.first() != Some(&Value::Text("sealing_served_with".to_owned())));
    }
    if rows.is_empty() {
        return Ok(());
    }
    let mut names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
    if table.name == "head" {
        names.extend(["generation", "spent"]);
    }
    let mut insert =
        QueryBuilder::new(format!("INSERT INTO hallpass.\"{}\" ({}) ", table.name, names.join(", ")));
    insert.push_values(rows, |mut columns, row| {
        for (value, (_, holds)) in row.into_iter().zip(table.columns) {
            bind(&mut columns, value, *holds);
        }
        if table.name == "head" {
            columns.push_bind(1_i64).push_bind(0_i64);
        }
    });
    insert.build().persistent(false).execute(conn).await?;
    Ok(())
}

fn bind(
    columns: &mut sqlx::query_builder::Separated<'_, sqlx::Postgres, &'static str>,
    value: Value,
    holds: Holds,
) {
    let number = match &value {
        Value::Integer(number) => Some(*number),
        Value::Blob(_) | Value::Null | Value::Real(_) | Value::Text(_) => None,
    };
    match holds {
        Bytes => columns.push_bind(match value {
            Value::Blob(bytes) => Some(bytes),
            Value::Integer(_) | Value::Null | Value::Real(_) | Value::Text(_) => None,
        }),
        Flag => columns.push_bind(number.map(|number| number != 0)),
        Number => columns.push_bind(number),
        Small => columns.push_bind(number.and_then(|number| i16::try_from(number).ok())),
        Text => columns.push_bind(match value {
            Value::Text(text) => Some(text),
            Value::Blob(_) | Value::Integer(_) | Value::Null | Value::Real(_) => None,
        }),
    };
}

/// A fact that a file of SQLite's says in another place.
const OWN_FACTS: [&str; 2] = ["schema", schema::LEAST];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What is of the moment, or of this kind of store alone, and is made anew.
    const LEFT: [&str; 7] = [
        "denied.spent",
        "head.generation",
        "head.signer",
        "head.spent",
        "policy_accepted.id",
        "policy_skew.*",
        "publication.*",
    ];

    /// Every column that the migrations make.
    fn made() -> BTreeSet<String> {
        let mut made = BTreeSet::new();
        let mut table = None;
        for line in MIGRATIONS.iter().flat_map(|migration| migration.lines()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["CREATE", "TABLE", name, ..] => table = Some(name.trim_matches('"').to_owned()),
                ["ALTER", "TABLE", name, "ADD", "COLUMN", column, ..] => {
                    made.insert(format!("{}.{column}", name.trim_matches('"')));
                }
                [first, ..] if first.starts_with(')') => table = None,
                [column, kind, ..]
                    if ["TEXT", "BYTEA", "BIGINT", "INTEGER", "SMALLINT", "BOOLEAN"]
                        .contains(&kind.trim_end_matches(',')) =>
                {
                    made.extend(table.as_ref().map(|table| format!("{table}.{column}")));
                }
                _ => {}
            }
        }
        made
    }

    #[test]
    fn a_copy_has_every_column_of_the_schema() {
        let copied: BTreeSet<String> = TABLES
            .iter()
            .chain(&FREEZES)
            .flat_map(|table| table.columns.iter().map(|(column, _)| format!("{}.{column}", table.name)))
            .collect();
        let is_left = |column: &String| {
            let (table, _) = column.split_once('.').unwrap();
            table == "replica"
                || LEFT.iter().any(|left| *left == column || left.strip_suffix(".*") == Some(table))
        };
        let made: BTreeSet<String> = made().into_iter().filter(|column| !is_left(column)).collect();
        assert!(made.len() > 80);
        assert_eq!(copied, made, "left what is copied, right what there is");
    }
}
