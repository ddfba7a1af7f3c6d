//! What the commands of a batch must know, read in a few statements for all of them, and kept with the changes of those
//! that decided already. The head's lock is held meanwhile, so that nobody else changes any of it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
};

use jiff::Timestamp;
use sqlx::{PgConnection, Row as _};

use super::{
    freeze,
    schema::{bytes, digest, moment, unsigned, word},
};
use crate::{
    adapters::store::shared::{
        claims::{Facts, Kept, Standing, Stood},
        quota::{scope, window},
        refusals::PROJECT,
        stored::stored,
    },
    broker::ports::{Claims, Quota},
    kernel::{
        digest::Digest,
        freeze::{Freezable, FreezeScope},
        issuance::State,
    },
};

/// What a limit is counted under: grant, issuer, project.
pub(super) type Scope = (String, String, String);
/// A summary row in slot 0: kind, issuer, project.
pub(super) type Counted = (&'static str, String, String);

/// What commands ask for.
#[derive(Default)]
pub(super) struct Needs {
    freezes: bool,
    once: HashSet<Digest>,
    keys: HashSet<Digest>,
    hours: HashMap<Scope, i64>,
    living: HashMap<Scope, i64>,
    tokens: HashSet<Digest>,
    summaries: HashSet<Counted>,
}

impl Needs {
    /// Everything that claims are decided from.
    pub(super) fn claims(&mut self, claims: &Claims, now: Timestamp) {
        self.freezes = true;
        self.once.extend(claims.once.iter().flatten());
        self.keys.extend(claims.key.map(|claim| claim.key));
        for quota in &claims.quotas {
            if quota.issuances_per_hour.is_some() {
                let since = self.hours.entry(scope_of(quota)).or_insert(i64::MAX);
                *since = (*since).min(window(now));
            }
            if quota.live.is_some() {
                let since = self.living.entry(scope_of(quota)).or_insert(i64::MAX);
                *since = (*since).min(stored(now));
            }
        }
    }

    /// Denials of a token.
    pub(super) fn token(&mut self, token: Digest) {
        self.tokens.insert(token);
    }

    /// A summary row.
    pub(super) fn summary(&mut self, row: Counted) {
        self.summaries.insert(row);
    }
}

/// What is known.
#[derive(Default)]
pub(super) struct Known {
    /// Freezes that stand.
    pub(super) freezes: freeze::Standing,
    /// Once-claims: the chain of each that is taken.
    pub(super) once: HashMap<Digest, [u8; 16]>,
    /// Idempotency keys.
    pub(super) keys: HashMap<Digest, KeyRow>,
    /// How issuances stand.
    pub(super) stood: HashMap<[u8; 16], Stood>,
    /// Intents by the minute.
    pub(super) hours: HashMap<Scope, BTreeMap<i64, u32>>,
    /// When each live credential ends.
    pub(super) living: HashMap<Scope, Vec<Timestamp>>,
    /// Denials by token.
    pub(super) denied: HashMap<Digest, Denied>,
    /// Summary rows in slot 0.
    pub(super) summaries: HashMap<Counted, SummaryRow>,
    /// How many of all those are a project's.
    pub(super) project_rows: i64,
}

/// An idempotency key as stored.
#[derive(Clone)]
pub(super) struct KeyRow {
    pub(super) body: Digest,
    pub(super) chain: [u8; 16],
    pub(super) retries: i64,
    pub(super) issuances: Vec<u8>,
    pub(super) valid_until: i64,
}

/// Denials of a token.
#[derive(Clone)]
pub(super) struct Denied {
    pub(super) count: i64,
    pub(super) until: Timestamp,
    pub(super) spent: Option<i64>,
}

/// What a summary row has counted.
#[derive(Clone)]
pub(super) struct SummaryRow {
    pub(super) count: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) samples: Vec<String>,
}

impl Known {
    /// Reads what is asked for.
    pub(super) async fn load(conn: &mut PgConnection, needs: Needs) -> sqlx::Result<Self> {
        let mut known = Self::default();
        if needs.freezes {
            known.freezes = freeze::Standing::load(conn).await?;
        }
        known.load_claims(conn, &needs).await?;
        known.load_states(conn).await?;
        known.load_limits(conn, needs.hours, needs.living).await?;
        known.load_denied(conn, &needs.tokens).await?;
        known.load_summaries(conn, &needs.summaries).await?;
        Ok(known)
    }

    async fn load_claims(&mut self, conn: &mut PgConnection, needs: &Needs) -> sqlx::Result<()> {
        if !needs.once.is_empty() {
            let rows = sqlx::query("SELECT key, chain FROM once WHERE key = ANY($1)")
                .bind(of_digests(&needs.once))
                .fetch_all(&mut *conn)
                .await?;
            for row in &rows {
                self.once.insert(digest(row, 0)?, bytes(row, 1)?);
            }
        }
        if !needs.keys.is_empty() {
            let rows = sqlx::query(
                "SELECT key, body, chain, retries, issuances, valid_until FROM idempotency WHERE key = ANY($1)",
            )
            .bind(of_digests(&needs.keys))
            .fetch_all(&mut *conn)
            .await?;
            for row in &rows {
                let kept = KeyRow {
                    body: digest(row, 1)?,
                    chain: bytes(row, 2)?,
                    retries: row.try_get(3)?,
                    issuances: row.try_get(4)?,
                    valid_until: row.try_get(5)?,
                };
                self.keys.insert(digest(row, 0)?, kept);
            }
        }
        Ok(())
    }

    /// Of the issuances that the keys speak of.
    async fn load_states(&mut self, conn: &mut PgConnection) -> sqlx::Result<()> {
        let of_keys = self.keys.values().flat_map(|kept| kept.issuances.chunks(16));
        let ids: HashSet<[u8; 16]> = of_keys.filter_map(|id| id.try_into().ok()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<&[u8]> = ids.iter().map(<[u8; 16]>::as_slice).collect();
        let rows = sqlx::query("SELECT id, state, revocable, keeps_chain FROM issuance WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(conn)
            .await?;
        for row in &rows {
            let state = word(row, 1, State::parse)?;
            let stood = Stood { state, is_revocable: row.try_get(2)?, keeps_chain: row.try_get(3)? };
            self.stood.insert(bytes(row, 0)?, stood);
        }
        Ok(())
    }

    async fn load_limits(
        &mut self,
        conn: &mut PgConnection,
        hours: HashMap<Scope, i64>,
        living: HashMap<Scope, i64>,
    ) -> sqlx::Result<()> {
        for (scope, since) in hours {
            let rows = sqlx::query(
                "SELECT minute, count FROM intent_count
                 WHERE grant_name = $1 AND issuer = $2 AND project = $3 AND minute > $4",
            )
            .bind(&scope.0)
            .bind(&scope.1)
            .bind(&scope.2)
            .bind(since)
            .fetch_all(&mut *conn)
            .await?;
            let read = |row: &sqlx::postgres::PgRow| -> sqlx::Result<(i64, u32)> {
                Ok((row.try_get(0)?, u32::try_from(unsigned(row, 1)?).unwrap_or(u32::MAX)))
            };
            let minutes: sqlx::Result<BTreeMap<i64, u32>> = rows.iter().map(read).collect();
            self.hours.insert(scope, minutes?);
        }
        for (scope, now) in living {
            let rows = sqlx::query(
                "SELECT live_until FROM issuance
                 WHERE grant_name = $1 AND live_until > $4 AND state NOT IN ('failed', 'revoked')
                     AND ($2 = '' OR (issuer = $2 AND coalesce(project, '') = $3))",
            )
            .bind(&scope.0)
            .bind(&scope.1)
            .bind(&scope.2)
            .bind(now)
            .fetch_all(&mut *conn)
            .await?;
            let ends: sqlx::Result<Vec<Timestamp>> = rows.iter().map(|row| moment(row, 0)).collect();
            self.living.insert(scope, ends?);
        }
        Ok(())
    }

    async fn load_denied(&mut self, conn: &mut PgConnection, tokens: &HashSet<Digest>) -> sqlx::Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query("SELECT token, count, until, spent FROM denied WHERE token = ANY($1)")
            .bind(of_digests(tokens))
            .fetch_all(conn)
            .await?;
        for row in &rows {
            let denied = Denied { count: row.try_get(1)?, until: moment(row, 2)?, spent: row.try_get(3)? };
            self.denied.insert(digest(row, 0)?, denied);
        }
        Ok(())
    }

    async fn load_summaries(
        &mut self,
        conn: &mut PgConnection,
        wanted: &HashSet<Counted>,
    ) -> sqlx::Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let of_kind = "SELECT count(*) FROM summary WHERE slot = 0 AND kind = $1";
        self.project_rows = sqlx::query_scalar(of_kind).bind(PROJECT).fetch_one(&mut *conn).await?;
        let wanted: Vec<&Counted> = wanted.iter().collect();
        let column = |of: fn(&Counted) -> &str| wanted.iter().map(|row| of(row)).collect::<Vec<&str>>();
        let rows = sqlx::query(
            "SELECT asked.place, count, first, last, samples FROM summary
             JOIN unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (kind, issuer, project, place)
                 USING (kind, issuer, project)
             WHERE slot = 0",
        )
        .bind(column(|row| row.0))
        .bind(column(|row| &row.1))
        .bind(column(|row| &row.2))
        .fetch_all(conn)
        .await?;
        for row in &rows {
            // Places count from 1.
            let place = usize::try_from(row.try_get::<i64, _>(0)?.saturating_sub(1)).unwrap_or(usize::MAX);
            let Some(counted) = wanted.get(place) else { continue };
            let samples: &str = row.try_get(4)?;
            let summary = SummaryRow {
                count: unsigned(row, 1)?,
                first: moment(row, 2)?,
                last: moment(row, 3)?,
                samples: serde_json::from_str(samples).unwrap_or_default(),
            };
            self.summaries.insert((*counted).clone(), summary);
        }
        Ok(())
    }
}

/// The facts, from what was read. What nobody asked for is not there, so every command asks for all that it decides by.
impl Facts for Known {
    type Fault = Infallible;

    fn frozen(&self, subject: &Freezable) -> Result<Vec<FreezeScope>, Infallible> {
        Ok(self.freezes.holding(subject))
    }

    fn standing(&self, key: &Digest, now: Timestamp) -> Result<Option<Kept>, Infallible> {
        let kept = self.keys.get(key).filter(|kept| kept.valid_until > stored(now));
        Ok(kept.map(|kept| Kept {
            body: kept.body,
            retries: kept.retries,
            standing: Standing { first: kept.chain, issuances: kept.issuances.clone() },
        }))
    }

    fn claimed_by(&self, once: &Digest) -> Result<Option<[u8; 16]>, Infallible> {
        Ok(self.once.get(once).copied())
    }

    fn stood(&self, issuance: &[u8]) -> Result<Option<Stood>, Infallible> {
        Ok(<[u8; 16]>::try_from(issuance).ok().and_then(|id| self.stood.get(&id).copied()))
    }

    fn intents(&self, quota: &Quota, after_minute: i64) -> Result<u32, Infallible> {
        let Ok(minutes) = self.intents_by_minute(quota, after_minute);
        Ok(minutes.into_iter().fold(0, |sum, (_, count)| sum.saturating_add(count)))
    }

    fn intents_by_minute(&self, quota: &Quota, after_minute: i64) -> Result<Vec<(i64, u32)>, Infallible> {
        let minutes = self.hours.get(&scope_of(quota)).into_iter().flatten();
        Ok(minutes
            .map(|(minute, count)| (*minute, *count))
            .filter(|(minute, _)| *minute > after_minute)
            .collect())
    }

    fn living(&self, quota: &Quota, now: Timestamp) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.ends(quota, now).count()).unwrap_or(u32::MAX))
    }

    fn end_of_living(
        &self,
        quota: &Quota,
        now: Timestamp,
        number: u32,
    ) -> Result<Option<Timestamp>, Infallible> {
        let mut ends: Vec<Timestamp> = self.ends(quota, now).collect();
        ends.sort_unstable();
        Ok(usize::try_from(number).ok().and_then(|number| ends.get(number).copied()))
    }
}

impl Known {
    fn ends(&self, quota: &Quota, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        let ends = self.living.get(&scope_of(quota)).into_iter().flatten();
        ends.copied().filter(move |end| *end > now)
    }
}

/// What a limit is counted under.
pub(super) fn scope_of(quota: &Quota) -> Scope {
    let (issuer, project) = scope(&quota.over);
    (quota.grant.as_str().to_owned(), issuer.to_owned(), project.to_owned())
}

fn of_digests(digests: &HashSet<Digest>) -> Vec<&[u8]> {
    digests.iter().map(|digest| digest.0.as_slice()).collect()
}
