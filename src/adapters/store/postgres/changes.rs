//! What a batch changes, and how it is written: a statement a table, whose rows are arrays. All of it happens under the
//! head's lock, so that final values are written and nothing is counted in SQL.

use std::{collections::HashSet, sync::Arc};

use sqlx::PgConnection;

use super::{
    known::{Counted, Known, Scope},
    schema::signed,
};
use crate::{
    adapters::store::shared::{columns::Prepared, stored::stored},
    broker::ports::NewIssuance,
    kernel::{digest::Digest, id::DecisionId, issuance::State},
};

/// What is to be written.
#[derive(Default)]
pub(super) struct Changes {
    /// Claims: the use, until when, the chain.
    pub(super) once: Vec<(Digest, i64, [u8; 16])>,
    /// Idempotency keys whose rows are other ones now.
    pub(super) keys: HashSet<Digest>,
    /// New rows, with their decision.
    pub(super) issuances: Vec<NewRow>,
    /// Minutes whose counts are other ones now.
    pub(super) hours: HashSet<(Scope, i64)>,
    /// Tokens whose denials are other ones now.
    pub(super) denied: HashSet<Digest>,
    /// Summary rows that are other ones now.
    pub(super) summaries: HashSet<Counted>,
}

/// A new issuance row.
pub(super) struct IssuedRow {
    /// Its decision.
    pub(super) decision: DecisionId,
    /// The row.
    pub(super) row: NewIssuance,
}

/// The same with where it stands.
pub(super) struct NewRow {
    /// The row with its decision.
    pub(super) issued: Arc<IssuedRow>,
    /// Its state.
    pub(super) state: State,
    /// What only an open one has.
    pub(super) open: Option<OpenPart>,
}

/// What an open row gives back if its whole decision fails.
pub(super) struct OpenPart {
    /// The first decision of its chain.
    pub(super) chain: [u8; 16],
    /// Its use of the token.
    pub(super) once: Digest,
    /// Its key.
    pub(super) key: Option<Digest>,
    /// Under which scope its intent is counted.
    pub(super) counted: Option<&'static str>,
}

impl Changes {
    /// Writes everything but the ledger.
    pub(super) async fn write(self, conn: &mut PgConnection, known: &Known) -> sqlx::Result<()> {
        write_once(conn, &self.once).await?;
        write_keys(conn, &self.keys, known).await?;
        write_issuances(conn, &self.issuances).await?;
        write_hours(conn, &self.hours, known).await?;
        write_denied(conn, &self.denied, known).await?;
        write_summaries(conn, &self.summaries, known).await
    }
}

async fn write_once(conn: &mut PgConnection, once: &[(Digest, i64, [u8; 16])]) -> sqlx::Result<()> {
    if once.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO once (key, expires, chain) SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[])",
    )
    .bind(once.iter().map(|(key, _, _)| key.0.as_slice()).collect::<Vec<_>>())
    .bind(once.iter().map(|(_, expires, _)| *expires).collect::<Vec<_>>())
    .bind(once.iter().map(|(_, _, chain)| chain.as_slice()).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_keys(conn: &mut PgConnection, keys: &HashSet<Digest>, known: &Known) -> sqlx::Result<()> {
    let rows: Vec<_> = keys.iter().filter_map(|key| Some((key, known.keys.get(key)?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO idempotency (key, body, chain, retries, issuances, valid_until)
         SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bytea[], $6::bigint[])
         ON CONFLICT (key) DO UPDATE SET body = excluded.body, chain = excluded.chain, retries = excluded.retries,
             issuances = excluded.issuances, valid_until = excluded.valid_until",
    )
    .bind(rows.iter().map(|(key, _)| key.0.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, kept)| kept.body.0.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, kept)| kept.chain.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, kept)| kept.retries).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, kept)| kept.issuances.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, kept)| kept.valid_until).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_issuances(conn: &mut PgConnection, issued: &[NewRow]) -> sqlx::Result<()> {
    if issued.is_empty() {
        return Ok(());
    }
    let rows: Vec<&NewIssuance> = issued.iter().map(|new| &new.issued.row).collect();
    let ids: Vec<[u8; 16]> = rows.iter().map(|row| row.id.bytes()).collect();
    let decisions: Vec<[u8; 16]> = issued.iter().map(|new| new.issued.decision.bytes()).collect();
    let keys = issued.iter().map(|new| new.open.as_ref().and_then(|open| open.key.as_ref()));
    let keys: Vec<Option<&[u8]>> = keys.map(|key| key.map(|key| key.0.as_slice())).collect();
    let owners: Vec<[u8; 16]> = rows.iter().map(|row| row.owner.bytes()).collect();
    sqlx::query(
        "INSERT INTO issuance (id, decision, grant_name, credential, kind, state, handle, issuer, token, job,
             lifetime, issued_at, expires_at, revocable, owner, recover_after, project, live_until, making, chain, once,
             idempotency, counted)
         SELECT id, decision, grant_name, credential, kind, state, handle, issuer, token, job,
             lifetime, issued_at, expires_at, revocable, owner, recover_after, project, live_until, making, chain, once,
             idempotency, counted
         FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[],
             $9::bytea[], $10::bytea[], $11::text[], $12::bigint[], $13::bigint[], $14::bool[], $15::bytea[],
             $16::bigint[], $17::text[], $18::bigint[], $19::text[], $20::bytea[], $21::bytea[], $22::bytea[],
             $23::text[])
         AS fresh (id, decision, grant_name, credential, kind, state, handle, issuer, token, job, lifetime, issued_at,
             expires_at, revocable, owner, recover_after, project, live_until, making, chain, once, idempotency,
             counted)",
    )
    .bind(ids.iter().map(<[u8; 16]>::as_slice).collect::<Vec<_>>())
    .bind(decisions.iter().map(<[u8; 16]>::as_slice).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.grant.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.credential.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>())
    .bind(issued.iter().map(|new| new.state.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.handle.0.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.issuer.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.token.0.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.job.as_ref().map(|job| job.0.as_slice())).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.lifetime.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| stored(row.issued_at)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.expires_at.map(stored)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.revocable).collect::<Vec<_>>())
    .bind(owners.iter().map(<[u8; 16]>::as_slice).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| stored(row.recover_after)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.project.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.live_until.map(stored)).collect::<Vec<_>>())
    .bind(issued.iter().map(|new| new.open.as_ref().map(|_| new.issued.row.making.as_str())).collect::<Vec<_>>())
    .bind(issued.iter().map(|new| new.open.as_ref().map(|open| open.chain.as_slice())).collect::<Vec<_>>())
    .bind(issued.iter().map(|new| new.open.as_ref().map(|open| open.once.0.as_slice())).collect::<Vec<_>>())
    .bind(keys)
    .bind(issued.iter().map(|new| new.open.as_ref().and_then(|open| open.counted)).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_hours(
    conn: &mut PgConnection,
    hours: &HashSet<(Scope, i64)>,
    known: &Known,
) -> sqlx::Result<()> {
    let count = |scope: &Scope, minute: i64| Some(*known.hours.get(scope)?.get(&minute)?);
    let rows: Vec<(&Scope, i64, u32)> =
        hours.iter().filter_map(|(scope, minute)| Some((scope, *minute, count(scope, *minute)?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO intent_count (grant_name, issuer, project, minute, count)
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
         ON CONFLICT (grant_name, issuer, project, minute) DO UPDATE SET count = excluded.count",
    )
    .bind(rows.iter().map(|(scope, _, _)| scope.0.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(scope, _, _)| scope.1.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(scope, _, _)| scope.2.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, minute, _)| *minute).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, count)| i64::from(*count)).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_denied(conn: &mut PgConnection, tokens: &HashSet<Digest>, known: &Known) -> sqlx::Result<()> {
    let rows: Vec<_> = tokens.iter().filter_map(|token| Some((token, known.denied.get(token)?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO denied (token, count, until, spent)
         SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[])
         ON CONFLICT (token) DO UPDATE SET count = excluded.count, until = excluded.until, spent = excluded.spent",
    )
    .bind(rows.iter().map(|(token, _)| token.0.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, denied)| denied.count).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, denied)| stored(denied.until)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, denied)| denied.spent).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_summaries(
    conn: &mut PgConnection,
    changed: &HashSet<Counted>,
    known: &Known,
) -> sqlx::Result<()> {
    let rows: Vec<_> = changed.iter().filter_map(|row| Some((row, known.summaries.get(row)?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let samples = |samples: &[String]| serde_json::Value::from(samples.to_vec()).to_string();
    sqlx::query(
        "INSERT INTO summary (slot, kind, issuer, project, count, first, last, samples)
         SELECT 0, * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
             $7::text[])
         ON CONFLICT (slot, kind, issuer, project) DO UPDATE SET count = excluded.count, first = excluded.first,
             last = excluded.last, samples = excluded.samples",
    )
    .bind(rows.iter().map(|(row, _)| row.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| row.1.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(row, _)| row.2.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, summary)| signed(summary.count)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, summary)| stored(summary.first)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, summary)| stored(summary.last)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, summary)| samples(&summary.samples)).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes entries behind that index, with their personal values and the subtrees that became full.
pub(super) async fn write_entries(
    conn: &mut PgConnection,
    first: u64,
    entries: &[Arc<Prepared>],
    full: &[(u8, u64, Digest)],
) -> sqlx::Result<()> {
    let indexed: Vec<(i64, &Prepared)> =
        (first..).map(signed).zip(entries.iter().map(|entry| &**entry)).collect();
    let decisions: Vec<Option<[u8; 16]>> =
        indexed.iter().map(|(_, each)| each.entry.decision.map(|id| id.bytes())).collect();
    let issuances: Vec<Option<[u8; 16]>> =
        indexed.iter().map(|(_, each)| each.entry.issuance.map(|id| id.bytes())).collect();
    sqlx::query(
        "INSERT INTO entry (idx, leaf, code, at, decision, issuance, issuer, grants, bytes)
         SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[],
             $7::text[], $8::text[], $9::bytea[])",
    )
    .bind(indexed.iter().map(|(index, _)| *index).collect::<Vec<_>>())
    .bind(indexed.iter().map(|(_, each)| each.entry.leaf.0.as_slice()).collect::<Vec<_>>())
    .bind(indexed.iter().map(|(_, each)| each.entry.code.as_str()).collect::<Vec<_>>())
    .bind(indexed.iter().map(|(_, each)| stored(each.entry.at)).collect::<Vec<_>>())
    .bind(decisions.iter().map(|id| id.as_ref().map(<[u8; 16]>::as_slice)).collect::<Vec<_>>())
    .bind(issuances.iter().map(|id| id.as_ref().map(<[u8; 16]>::as_slice)).collect::<Vec<_>>())
    .bind(indexed.iter().map(|(_, each)| each.entry.issuer.as_deref()).collect::<Vec<_>>())
    .bind(indexed.iter().map(|(_, each)| each.grants.as_deref()).collect::<Vec<_>>())
    .bind(indexed.iter().map(|(_, each)| each.entry.bytes.as_slice()).collect::<Vec<_>>())
    .execute(&mut *conn)
    .await?;
    write_personal(conn, &indexed).await?;
    if full.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO subtree (level, idx, hash) SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])",
    )
    .bind(full.iter().map(|(level, _, _)| i16::from(*level)).collect::<Vec<_>>())
    .bind(full.iter().map(|(_, index, _)| signed(*index)).collect::<Vec<_>>())
    .bind(full.iter().map(|(_, _, hash)| hash.0.as_slice()).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_personal(conn: &mut PgConnection, indexed: &[(i64, &Prepared)]) -> sqlx::Result<()> {
    let rows: Vec<_> = indexed
        .iter()
        .flat_map(|(index, each)| {
            (0_i64..).zip(&each.entry.personal).map(|(ordinal, value)| (*index, ordinal, value))
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO personal (idx, ordinal, field, blinding, value)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::text[])",
    )
    .bind(rows.iter().map(|(index, _, _)| *index).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, ordinal, _)| *ordinal).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, value)| value.0.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, value)| value.1.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, value)| value.2.as_str()).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Drops claims and keys whose time is over; a bounded number a turn, so that no exchange waits long behind it.
pub(super) async fn drop_expired(conn: &mut PgConnection, now: i64, minute: i64) -> sqlx::Result<()> {
    for (statement, until) in [
        ("DELETE FROM once WHERE key IN (SELECT key FROM once WHERE expires <= $1 LIMIT 20000)", now),
        (
            "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE valid_until <= $1 LIMIT 20000)",
            now,
        ),
        ("DELETE FROM denied WHERE token IN (SELECT token FROM denied WHERE until <= $1 LIMIT 20000)", now),
        ("DELETE FROM policy_let_in WHERE until <= $1", now),
        ("DELETE FROM intent_count WHERE minute <= $1", minute),
    ] {
        sqlx::query(statement).bind(until).execute(&mut *conn).await?;
    }
    Ok(())
}
