//! What an exchange takes of what there is only so much of: uses of a token, places under a key, room under a limit
//! (P3). Looked at without a write, so that a call which is refused leaves nothing behind; then taken, all or nothing.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    freeze, quota,
    schema::{digest, stored, word},
};
use crate::{
    broker::ports::{ClaimRefused, Claims, Issue, KeyClaim},
    kernel::{digest::Digest, issuance::State, lifetime::after},
};

/// How long an idempotency key holds, from the first claim (design: P3). The one durable step claims and closes in
/// the same moment, so the later of the two is that moment.
const KEY_HOLDS: Duration = Duration::from_secs(60);

/// How often a call may be retried under its key (design: P3).
const RETRIES: i64 = 2;

/// Claims that can be had.
pub(super) struct Plan {
    chain: Chain,
    /// The use of each credential: its once-key.
    uses: Vec<Digest>,
}

/// The calls that may share one use of a token: a call and its retries under the same key.
enum Chain {
    /// This call begins one.
    Begins,
    /// This call is a retry in it.
    Goes(Standing),
}

/// A key that holds.
struct Standing {
    first: [u8; 16],
    issuances: Vec<u8>,
}

impl Plan {
    /// Whether it repeats a call under that call's key.
    pub(super) fn is_retry(&self) -> bool {
        match self.chain {
            Chain::Begins => false,
            Chain::Goes(_) => true,
        }
    }
}

/// Looks whether claims can be had. The order is the contract's: freezes, idempotency and replay, then limits.
pub(super) fn plan(
    conn: &Connection,
    claims: &Claims,
    now: Timestamp,
) -> rusqlite::Result<Result<Plan, ClaimRefused>> {
    if let Some(scope) = freeze::holding(conn, &claims.freezable)?.into_iter().next() {
        return Ok(Err(ClaimRefused::Frozen(scope)));
    }
    let chain = match chain(conn, claims.key, now)? {
        Ok(chain) => chain,
        Err(refused) => return Ok(Err(refused)),
    };
    let mut uses = Vec::with_capacity(claims.once.len());
    for keys in &claims.once {
        // One that is used up makes all used: none of the others is claimed.
        let Some(free) = free_use(conn, keys, &chain)? else { return Ok(Err(ClaimRefused::Replayed)) };
        uses.push(free);
    }
    let plan = Plan { chain, uses };
    for each in &claims.quotas {
        if let Some(exceeded) = quota::exceeded(conn, each, plan.is_retry(), now)? {
            return Ok(Err(ClaimRefused::Exceeded(exceeded)));
        }
    }
    Ok(Ok(plan))
}

/// What the idempotency key says. A key that does not hold any more says nothing: the once-claims decide.
fn chain(
    conn: &Connection,
    key: Option<KeyClaim>,
    now: Timestamp,
) -> rusqlite::Result<Result<Chain, ClaimRefused>> {
    let Some(KeyClaim { key, body }) = key else { return Ok(Ok(Chain::Begins)) };
    let mut look = conn.prepare_cached(
        "SELECT body, chain, retries, issuances FROM idempotency WHERE key = ?1 AND valid_until > ?2",
    )?;
    let found = look
        .query_row(params![key.0, stored(now)], |row| {
            let standing = Standing { first: row.get(1)?, issuances: row.get(3)? };
            Ok((digest(row, 0)?, row.get::<_, i64>(2)?, standing))
        })
        .optional()?;
    let Some((kept, retries, standing)) = found else { return Ok(Ok(Chain::Begins)) };
    if kept != body {
        return Ok(Err(ClaimRefused::Mismatch));
    }
    if retries >= RETRIES || !all_stand(conn, &standing.issuances)? {
        return Ok(Err(ClaimRefused::Replayed));
    }
    Ok(Ok(Chain::Goes(standing)))
}

/// The use that the call has already, else the lowest that nobody has.
fn free_use(conn: &Connection, keys: &[Digest], chain: &Chain) -> rusqlite::Result<Option<Digest>> {
    let mut look = conn.prepare_cached("SELECT chain FROM once WHERE key = ?1")?;
    let mut free = None;
    for key in keys {
        let by: Option<[u8; 16]> = look.query_row(params![key.0], |row| row.get(0)).optional()?;
        match (by, chain) {
            (Some(by), Chain::Goes(standing)) if by == standing.first => return Ok(Some(*key)),
            (Some(_), _) => {}
            // Nothing above it can be this call's own: it had none before.
            (None, Chain::Begins) => return Ok(Some(*key)),
            (None, Chain::Goes(_)) => free = free.or(Some(*key)),
        }
    }
    Ok(free)
}

/// Takes what was planned within the same transaction.
pub(super) fn claim(conn: &Connection, issue: &Issue, plan: &Plan) -> rusqlite::Result<()> {
    let Issue { decision, claims, once_until, rows, now, .. } = issue;
    let first = match &plan.chain {
        Chain::Begins => decision.bytes(),
        Chain::Goes(standing) => standing.first,
    };
    // OR IGNORE: a retry finds its own claims.
    let mut claim =
        conn.prepare_cached("INSERT OR IGNORE INTO once (key, expires, chain) VALUES (?1, ?2, ?3)")?;
    for use_key in &plan.uses {
        claim.execute(params![use_key.0, stored(*once_until), first])?;
    }
    let Some(KeyClaim { key, body }) = claims.key else { return Ok(()) };
    let ids = rows.iter().flat_map(|row| row.id.bytes());
    match &plan.chain {
        Chain::Begins => {
            let mut begin = conn.prepare_cached(
                "INSERT OR REPLACE INTO idempotency (key, body, chain, retries, issuances, valid_until)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5)",
            )?;
            let ids: Vec<u8> = ids.collect();
            begin.execute(params![key.0, body.0, first, ids, stored(after(*now, KEY_HOLDS))])?;
        }
        Chain::Goes(standing) => {
            let mut go = conn.prepare_cached(
                "UPDATE idempotency SET retries = retries + 1, issuances = ?2 WHERE key = ?1",
            )?;
            let ids: Vec<u8> = standing.issuances.iter().copied().chain(ids).collect();
            go.execute(params![key.0, ids])?;
        }
    }
    Ok(())
}

/// Whether none of a chain's issuances was given back or revoked: after that, a retry is a replay.
fn all_stand(conn: &Connection, ids: &[u8]) -> rusqlite::Result<bool> {
    let mut look = conn.prepare_cached("SELECT state FROM issuance WHERE id = ?1")?;
    for id in ids.chunks(16) {
        let state = look.query_row(params![id], |row| word(row, 0, State::parse)).optional()?;
        match state {
            Some(State::Failed | State::Intent | State::Issued | State::Unresolved) => {}
            Some(State::Released | State::Revoked | State::Revoking) | None => return Ok(false),
        }
    }
    Ok(true)
}
