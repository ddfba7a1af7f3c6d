//! The limits of grants: intents within an hour, credentials that are usable at one time (design: section 4). They are
//! looked at and counted in the transaction that issues, so that of two calls for the last place one gets it. A grant
//! without limits costs no statement here.
//!
//! Known hole: the hour of a grant begins anew where an admin changes over what it is counted, since the two counts
//! have rows of their own.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::schema::{moment, stored};
use crate::broker::ports::{Exceeded, Limit, Quota, QuotaScope};

/// Minutes over which intents are counted (design: section 4).
const WINDOW: i64 = 60;
const SECONDS_A_MINUTE: i64 = 60;
const NANOSECONDS_A_MINUTE: i64 = 60_000_000_000;

/// The first limit that a call would pass, if any.
pub(super) fn exceeded(
    conn: &Connection,
    quota: &Quota,
    is_retry: bool,
    now: Timestamp,
) -> rusqlite::Result<Option<Exceeded>> {
    if let Some(allowed) = quota.issuances_per_hour
        && !is_retry
        && let Some(exceeded) = over_the_hour(conn, quota, allowed, now)?
    {
        return Ok(Some(exceeded));
    }
    match quota.live {
        // Static ones do not count, so those alone pass whatever is live.
        Some(allowed) if quota.asked_live > 0 => over_the_living(conn, quota, allowed, now),
        Some(_) | None => Ok(None),
    }
}

fn over_the_hour(
    conn: &Connection,
    quota: &Quota,
    allowed: u32,
    now: Timestamp,
) -> rusqlite::Result<Option<Exceeded>> {
    let (issuer, project) = scope(&quota.over);
    let since = minute(now).saturating_sub(WINDOW);
    let of_scope = params![quota.grant.as_str(), issuer, project, since];
    let mut sum = conn.prepare_cached(
        "SELECT coalesce(sum(count), 0) FROM intent_count
         WHERE grant_name = ?1 AND issuer = ?2 AND project = ?3 AND minute > ?4",
    )?;
    let used: u32 = sum.query_row(of_scope, |row| row.get(0))?;
    let Some(over) = over(used, quota.asked, allowed) else { return Ok(None) };
    let mut minutes = conn.prepare_cached(
        "SELECT minute, count FROM intent_count
         WHERE grant_name = ?1 AND issuer = ?2 AND project = ?3 AND minute > ?4 ORDER BY minute",
    )?;
    let mut rows = minutes.query(of_scope)?;
    let (mut freed, mut room_at) = (0_u32, None);
    while let Some(row) = rows.next()? {
        freed = freed.saturating_add(row.get(1)?);
        if freed >= over {
            let ends = row.get::<_, i64>(0)?.saturating_add(WINDOW).saturating_mul(SECONDS_A_MINUTE);
            room_at = Timestamp::from_second(ends).ok();
            break;
        }
    }
    let (limit, asked) = (Limit::IssuancesPerHour, quota.asked);
    Ok(Some(Exceeded { grant: quota.grant.clone(), limit, allowed, used, asked, room_at }))
}

fn over_the_living(
    conn: &Connection,
    quota: &Quota,
    allowed: u32,
    now: Timestamp,
) -> rusqlite::Result<Option<Exceeded>> {
    let (issuer, project) = scope(&quota.over);
    let mut count = conn.prepare_cached(
        "SELECT count(*) FROM issuance
         WHERE grant_name = ?1 AND live_until > ?4 AND state NOT IN ('failed', 'revoked')
             AND (?2 = '' OR (issuer = ?2 AND coalesce(project, '') = ?3))",
    )?;
    let used: u32 =
        count.query_row(params![quota.grant.as_str(), issuer, project, stored(now)], |row| row.get(0))?;
    let Some(over) = over(used, quota.asked_live, allowed) else { return Ok(None) };
    let mut ends = conn.prepare_cached(
        "SELECT live_until FROM issuance
         WHERE grant_name = ?1 AND live_until > ?4 AND state NOT IN ('failed', 'revoked')
             AND (?2 = '' OR (issuer = ?2 AND coalesce(project, '') = ?3))
         ORDER BY live_until LIMIT 1 OFFSET ?5",
    )?;
    let earlier = over.saturating_sub(1);
    let room_at = ends
        .query_row(params![quota.grant.as_str(), issuer, project, stored(now), earlier], |row| moment(row, 0))
        .optional()?;
    let (limit, asked) = (Limit::Live, quota.asked_live);
    Ok(Some(Exceeded { grant: quota.grant.clone(), limit, allowed, used, asked, room_at }))
}

/// How much too much it would be, if it is.
fn over(used: u32, asked: u32, allowed: u32) -> Option<u32> {
    used.saturating_add(asked).checked_sub(allowed).filter(|over| *over > 0)
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
    let since = now.div_euclid(NANOSECONDS_A_MINUTE).saturating_sub(WINDOW);
    conn.prepare_cached("DELETE FROM intent_count WHERE minute <= ?1")?.execute([since])?;
    Ok(())
}

fn minute(now: Timestamp) -> i64 {
    now.as_second().div_euclid(SECONDS_A_MINUTE)
}

/// Issuer and project of a count's row; no issuer has the empty name.
fn scope(over: &QuotaScope) -> (&str, &str) {
    match over {
        QuotaScope::Grant => ("", ""),
        QuotaScope::Project { issuer, project } => (issuer.as_str(), project),
    }
}
