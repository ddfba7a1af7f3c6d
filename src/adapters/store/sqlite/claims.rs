//! The facts that claims are decided from, read from SQLite, and the taking of what was planned (P3).

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    freeze, quota,
    schema::{digest, stored, word},
};
use crate::{
    adapters::store::shared::claims::{self, Chain, Facts, Kept, Plan, Standing, Stood, key_holds},
    broker::ports::{ClaimRefused, Claims, Issue, KeyClaim, Quota},
    kernel::{
        digest::Digest,
        freeze::{Freezable, FreezeScope},
        issuance::State,
    },
};

/// Looks whether claims can be had.
pub(super) fn plan(
    conn: &Connection,
    claims: &Claims,
    now: Timestamp,
) -> rusqlite::Result<Result<Plan, ClaimRefused>> {
    claims::plan(&Read(conn), claims, now)
}

/// Facts by a statement each.
struct Read<'a>(&'a Connection);

impl Facts for Read<'_> {
    type Fault = rusqlite::Error;

    fn frozen(&self, subject: &Freezable) -> rusqlite::Result<Vec<FreezeScope>> {
        freeze::holding(self.0, subject)
    }

    fn standing(&self, key: &Digest, now: Timestamp) -> rusqlite::Result<Option<Kept>> {
        let mut look = self.0.prepare_cached(
            "SELECT body, chain, retries, issuances FROM idempotency WHERE key = ?1 AND valid_until > ?2",
        )?;
        look.query_row(params![key.0, stored(now)], |row| {
            let standing = Standing { first: row.get(1)?, issuances: row.get(3)? };
            Ok(Kept { body: digest(row, 0)?, retries: row.get(2)?, standing })
        })
        .optional()
    }

    fn claimed_by(&self, once: &Digest) -> rusqlite::Result<Option<[u8; 16]>> {
        let mut look = self.0.prepare_cached("SELECT chain FROM once WHERE key = ?1")?;
        look.query_row(params![once.0], |row| row.get(0)).optional()
    }

    fn stood(&self, issuance: &[u8]) -> rusqlite::Result<Option<Stood>> {
        let mut look =
            self.0.prepare_cached("SELECT state, revocable, keeps_chain FROM issuance WHERE id = ?1")?;
        look.query_row(params![issuance], |row| {
            let state = word(row, 0, State::parse)?;
            Ok(Stood { state, is_revocable: row.get(1)?, keeps_chain: row.get(2)? })
        })
        .optional()
    }

    fn intents(&self, quota: &Quota, after_minute: i64) -> rusqlite::Result<u32> {
        quota::intents(self.0, quota, after_minute)
    }

    fn intents_by_minute(&self, quota: &Quota, after_minute: i64) -> rusqlite::Result<Vec<(i64, u32)>> {
        quota::intents_by_minute(self.0, quota, after_minute)
    }

    fn living(&self, quota: &Quota, now: Timestamp) -> rusqlite::Result<u32> {
        quota::living(self.0, quota, now)
    }

    fn end_of_living(
        &self,
        quota: &Quota,
        now: Timestamp,
        number: u32,
    ) -> rusqlite::Result<Option<Timestamp>> {
        quota::end_of_living(self.0, quota, now, number)
    }
}

/// Takes what was planned within the same transaction.
pub(super) fn claim(conn: &Connection, issue: &Issue, plan: &Plan) -> rusqlite::Result<()> {
    let Issue { decision, claims, once_until, rows, .. } = issue;
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
            begin.execute(params![key.0, body.0, first, ids, stored(key_holds(issue))])?;
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
