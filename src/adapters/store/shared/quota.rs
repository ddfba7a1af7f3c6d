//! The limits of grants: intents within an hour, credentials that are usable at one time (design: section 4). They are
//! looked at and counted in the transaction that issues, so that of two calls for the last place one gets it. A grant
//! without limits costs no statement.
//!
//! Known hole: the hour of a grant begins anew where an admin changes over what it is counted, since the two counts
//! have rows of their own.

use jiff::Timestamp;

use super::claims::Facts;
use crate::broker::ports::{Exceeded, Limit, Quota, QuotaScope};

/// Minutes over which intents are counted (design: section 4).
const WINDOW: i64 = 60;
const SECONDS_A_MINUTE: i64 = 60;
const NANOSECONDS_A_MINUTE: i64 = 60_000_000_000;

/// The first limit that a call would pass, if any.
pub(super) fn exceeded<F: Facts>(
    facts: &F,
    quota: &Quota,
    is_retry: bool,
    now: Timestamp,
) -> Result<Option<Exceeded>, F::Fault> {
    if let Some(allowed) = quota.issuances_per_hour
        && !is_retry
        && let Some(exceeded) = over_the_hour(facts, quota, allowed, now)?
    {
        return Ok(Some(exceeded));
    }
    match quota.live {
        // Static ones do not count, so those alone pass whatever is live.
        Some(allowed) if quota.asked_live > 0 => over_the_living(facts, quota, allowed, now),
        Some(_) | None => Ok(None),
    }
}

fn over_the_hour<F: Facts>(
    facts: &F,
    quota: &Quota,
    allowed: u32,
    now: Timestamp,
) -> Result<Option<Exceeded>, F::Fault> {
    let since = window(now);
    let used = facts.intents(quota, since)?;
    let Some(over) = over(used, quota.asked, allowed) else { return Ok(None) };
    let (mut freed, mut room_at) = (0_u32, None);
    for (minute, count) in facts.intents_by_minute(quota, since)? {
        freed = freed.saturating_add(count);
        if freed >= over {
            let ends = minute.saturating_add(WINDOW).saturating_mul(SECONDS_A_MINUTE);
            room_at = Timestamp::from_second(ends).ok();
            break;
        }
    }
    let (limit, asked) = (Limit::IssuancesPerHour, quota.asked);
    Ok(Some(Exceeded { grant: quota.grant.clone(), limit, allowed, used, asked, room_at }))
}

fn over_the_living<F: Facts>(
    facts: &F,
    quota: &Quota,
    allowed: u32,
    now: Timestamp,
) -> Result<Option<Exceeded>, F::Fault> {
    let used = facts.living(quota, now)?;
    let Some(over) = over(used, quota.asked_live, allowed) else { return Ok(None) };
    let room_at = facts.end_of_living(quota, now, over.saturating_sub(1))?;
    let (limit, asked) = (Limit::Live, quota.asked_live);
    Ok(Some(Exceeded { grant: quota.grant.clone(), limit, allowed, used, asked, room_at }))
}

/// How much too much it would be, if it is.
fn over(used: u32, asked: u32, allowed: u32) -> Option<u32> {
    used.saturating_add(asked).checked_sub(allowed).filter(|over| *over > 0)
}

/// The newest minute that does not count any more.
pub(in crate::adapters::store) fn window(now: Timestamp) -> i64 {
    minute(now).saturating_sub(WINDOW)
}

/// The same of a stored moment.
pub(in crate::adapters::store) fn window_of_stored(now: i64) -> i64 {
    now.div_euclid(NANOSECONDS_A_MINUTE).saturating_sub(WINDOW)
}

/// The minute since 1970 that intents are counted under.
pub(in crate::adapters::store) fn minute(now: Timestamp) -> i64 {
    now.as_second().div_euclid(SECONDS_A_MINUTE)
}

/// Issuer and project of a count's row; no issuer has the empty name.
pub(in crate::adapters::store) fn scope(over: &QuotaScope) -> (&str, &str) {
    match over {
        QuotaScope::Grant => ("", ""),
        QuotaScope::Project { issuer, project } => (issuer.as_str(), project),
    }
}
