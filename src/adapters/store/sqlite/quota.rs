//! What the limits of grants count, read from and written to SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::schema::{moment, stored};
use crate::{
    adapters::store::shared::quota::{minute, scope, window_of_stored},
    broker::ports::Quota,
};

/// Intents after that minute.
pub(super) fn intents(conn: &Connection, quota: &Quota, after_minute: i64) -> rusqlite::Result<u32> {
    let (issuer, project) = scope(&quota.over);
    let mut sum = conn.prepare_cached(
        "SELECT coalesce(sum(count), 0) FROM intent_count
         WHERE grant_name = ?1 AND issuer = ?2 AND project = ?3 AND minute > ?4",
    )?;
    sum.query_row(params![quota.grant.as_str(), issuer, project, after_minute], |row| row.get(0))
}

/// The same by the minute, the oldest first.
pub(super) fn intents_by_minute(
    conn: &Connection,
    quota: &Quota,
    after_minute: i64,
) -> rusqlite::Result<Vec<(i64, u32)>> {
    let (issuer, project) = scope(&quota.over);
    let mut minutes = conn.prepare_cached(
        "SELECT minute, count FROM intent_count
         WHERE grant_name = ?1 AND issuer = ?2 AND project = ?3 AND minute > ?4 ORDER BY minute",
    )?;
    let of_scope = params![quota.grant.as_str(), issuer, project, after_minute];
    minutes.query_map(of_scope, |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Credentials that are live.
pub(super) fn living(conn: &Connection, quota: &Quota, now: Timestamp) -> rusqlite::Result<u32> {
    let (issuer, project) = scope(&quota.over);
    let mut count = conn.prepare_cached(
        "SELECT count(*) FROM issuance
         WHERE grant_name = ?1 AND live_until > ?4 AND state NOT IN ('failed', 'revoked')
             AND (?2 = '' OR (issuer = ?2 AND coalesce(project, '') = ?3))",
    )?;
    count.query_row(params![quota.grant.as_str(), issuer, project, stored(now)], |row| row.get(0))
}

/// When one of them ends: the first is number 0.
pub(super) fn end_of_living(
    conn: &Connection,
    quota: &Quota,
    now: Timestamp,
    number: u32,
) -> rusqlite::Result<Option<Timestamp>> {
    let (issuer, project) = scope(&quota.over);
    let mut ends = conn.prepare_cached(
        "SELECT live_until FROM issuance
         WHERE grant_name = ?1 AND live_until > ?4 AND state NOT IN ('failed', 'revoked')
             AND (?2 = '' OR (issuer = ?2 AND coalesce(project, '') = ?3))
         ORDER BY live_until LIMIT 1 OFFSET ?5",
    )?;
    let of_scope = params![quota.grant.as_str(), issuer, project, stored(now), number];
    ends.query_row(of_scope, |row| moment(row, 0)).optional()
}

/// Counts a call's intents.
pub(super) fn count(conn: &Connection, quotas: &[Quota], now: Timestamp) -> rusqlite::Result<()> {
    for quota in quotas.iter().filter(|quota| quota.issuances_per_hour.is_some()) {
        let (issuer, project) = scope(&quota.over);
        let mut add = conn.prepare_cached(
            "INSERT INTO intent_count (grant_name, issuer, project, minute, count) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (grant_name, issuer, project, minute) DO UPDATE SET count = count + excluded.count",
        )?;
        add.execute(params![quota.grant.as_str(), issuer, project, minute(now), quota.asked])?;
    }
    Ok(())
}

/// Drops minutes that no hour reaches any more.
pub(super) fn drop_expired(conn: &Connection, now: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM intent_count WHERE minute <= ?1")?.execute([window_of_stored(now)])?;
    Ok(())
}
