//! Issuances on their way: which there are of a job or a grant, and each step of one, by compare-and-swap with its
//! entry. What steps there are is the kernel's to say ([`State::after`]).

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::{PgConnection, QueryBuilder, Row as _, postgres::PgRow};

use super::{
    Trouble,
    batch::{Batch, Direct},
    reader::{ISSUANCE_COLUMNS, issuance_row},
    schema::{bytes, word},
};
use crate::{
    adapters::store::shared::{
        claims::KEY_HOLDS,
        stored::stored,
        transit::{Stands, Step, Steps, Taken, TransitFound},
    },
    broker::ports::{Answer, Change, Holder, IssuanceRow, Selection},
    kernel::{
        id::IssuanceId,
        issuance::{Event, State, back_off},
        lifetime::after,
    },
};

impl Direct for Steps {
    type Found = TransitFound;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<TransitFound, Trouble>> {
        Box::pin(self.transit(conn, batch))
    }
}

impl Steps {
    async fn transit(&self, conn: &mut PgConnection, batch: &mut Batch<'_>) -> Result<TransitFound, Trouble> {
        if self.sealed_generation.is_some_and(|seen| seen != batch.generation) {
            return Ok(TransitFound { is_stale: true, ..TransitFound::default() });
        }
        let taken = self.taken(rows(conn, &self.steps).await?);
        for each in &taken {
            write(conn, each).await?;
        }
        give_back(conn, &taken, self.now).await?;
        let entries: Vec<_> = taken.iter().filter_map(|each| each.step.entry.clone()).collect();
        let places = batch.append(&entries);
        let moved = taken.iter().map(|each| each.step.id).collect();
        let has_left = match &self.holder {
            Some(holder) => has_issued(conn, holder).await?,
            None => false,
        };
        Ok(TransitFound { moved, places, has_left, is_stale: false })
    }
}

async fn rows(conn: &mut PgConnection, steps: &[Step]) -> sqlx::Result<HashMap<IssuanceId, Stands>> {
    let ids: Vec<Vec<u8>> = steps.iter().map(|step| step.id.bytes().to_vec()).collect();
    let rows = sqlx::query("SELECT id, state, told FROM issuance WHERE id = ANY($1)")
        .bind(ids)
        .fetch_all(conn)
        .await?;
    let stands = |row: &PgRow| {
        let stands = Stands { state: word(row, 1, State::parse)?, is_told: row.try_get(2)? };
        Ok((IssuanceId::from_bytes(bytes(row, 0)?), stands))
    };
    rows.iter().map(stands).collect()
}

/// Writes one step; the head's lock is held, so that its row still stands where the step begins.
async fn write(conn: &mut PgConnection, taken: &Taken<'_>) -> sqlx::Result<()> {
    let Change { held, ends, usable_until, retry_at, keeps_chain, .. } = &taken.step.change;
    sqlx::query(
        "UPDATE issuance SET state = $3, held = CASE WHEN $4 THEN NULL ELSE coalesce($5, held) END,
             expires_at = CASE WHEN $6 THEN $7 ELSE expires_at END,
             live_until = CASE WHEN $6 THEN $8 ELSE coalesce($9, live_until) END,
             usable_until = coalesce($9, usable_until), retry_at = coalesce($10, retry_at),
             told = told OR $11, keeps_chain = keeps_chain OR $12
         WHERE id = $1 AND state = $2",
    )
    .bind(taken.step.id.bytes().to_vec())
    .bind(taken.from.as_str())
    .bind(taken.to.as_str())
    .bind(taken.has_ended())
    .bind(held)
    .bind(ends.is_some())
    .bind(ends.and_then(|ends| ends.expires_at).map(stored))
    .bind(ends.and_then(|ends| ends.live_until).map(stored))
    .bind(usable_until.map(stored))
    .bind(retry_at.map(stored))
    .bind(taken.step.event == Event::Overdue)
    .bind(keeps_chain)
    .execute(conn)
    .await?;
    Ok(())
}

/// What a failed issuance gives back: its count where nothing was made, and where its whole decision failed the use of
/// the token and the place under the key. Where a decision is closed, its key holds for a while from now.
async fn give_back(conn: &mut PgConnection, taken: &[Taken<'_>], now: Timestamp) -> sqlx::Result<()> {
    for each in taken.iter().filter(|each| each.to == State::Failed && each.step.change.is_unmade) {
        sqlx::query(
            "UPDATE intent_count SET count = intent_count.count - 1 FROM issuance AS made
             WHERE made.id = $1 AND intent_count.count > 0 AND intent_count.grant_name = made.grant_name
                 AND intent_count.minute = made.issued_at / 60000000000
                 AND ((made.counted = 'grant' AND intent_count.issuer = '' AND intent_count.project = '')
                     OR (made.counted = 'project' AND intent_count.issuer = made.issuer
                         AND intent_count.project = coalesce(made.project, '')))",
        )
        .bind(each.step.id.bytes().to_vec())
        .execute(&mut *conn)
        .await?;
    }
    let closed: Vec<Vec<u8>> =
        taken.iter().filter(|each| each.is_closed()).map(|each| each.step.id.bytes().to_vec()).collect();
    if closed.is_empty() {
        return Ok(());
    }
    let decisions: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT DISTINCT decision FROM issuance WHERE id = ANY($1) AND making IS NOT NULL",
    )
    .bind(closed)
    .fetch_all(&mut *conn)
    .await?;
    for decision in decisions {
        close(conn, &decision, now).await?;
    }
    Ok(())
}

/// One decision of which an issuance was closed.
async fn close(conn: &mut PgConnection, decision: &[u8], now: Timestamp) -> sqlx::Result<()> {
    let rows = sqlx::query(
        "SELECT state, chain, once, idempotency FROM issuance WHERE decision = $1 AND making IS NOT NULL",
    )
    .bind(decision)
    .fetch_all(&mut *conn)
    .await?;
    let states: Vec<State> =
        rows.iter().map(|row| word(row, 0, State::parse)).collect::<sqlx::Result<_>>()?;
    if states.contains(&State::Intent) {
        return Ok(());
    }
    let has_failed = states.iter().all(|state| *state == State::Failed);
    for row in &rows {
        let (chain, once): (&[u8], &[u8]) = (row.try_get(1)?, row.try_get(2)?);
        let key: Option<&[u8]> = row.try_get(3)?;
        if has_failed && chain == decision {
            for (statement, of) in [
                ("DELETE FROM once WHERE key = $1 AND chain = $2", Some(once)),
                ("DELETE FROM idempotency WHERE key = $1 AND chain = $2", key),
            ] {
                sqlx::query(statement).bind(of).bind(chain).execute(&mut *conn).await?;
            }
        }
    }
    let Some(row) = rows.first() else { return Ok(()) };
    let (chain, key): (&[u8], Option<&[u8]>) = (row.try_get(1)?, row.try_get(3)?);
    sqlx::query(
        "UPDATE idempotency SET valid_until = $3, retries = greatest(0, retries - $4) WHERE key = $1 AND chain = $2",
    )
    .bind(key)
    .bind(chain)
    .bind(stored(after(now, KEY_HOLDS)))
    .bind(i64::from(has_failed))
    .execute(conn)
    .await?;
    Ok(())
}

/// Open rows whose owner should have closed them.
pub(super) async fn abandoned(
    conn: &mut PgConnection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<IssuanceRow>, Trouble> {
    let sql = format!(
        "SELECT {ISSUANCE_COLUMNS} FROM issuance WHERE state = 'intent' AND recover_after <= $1
         ORDER BY recover_after LIMIT $2"
    );
    waiting(conn, sql, now, limit).await
}

/// Revokes that are due.
pub(super) struct TakeDue {
    /// The time.
    pub(super) now: Timestamp,
    /// At most so many.
    pub(super) limit: u32,
}

impl TakeDue {
    async fn take(&self, conn: &mut PgConnection) -> Result<Vec<IssuanceRow>, Trouble> {
        let rows = due(conn, self.now, self.limit).await?;
        for row in &rows {
            sqlx::query("UPDATE issuance SET retry_at = $2, tries = tries + 1 WHERE id = $1")
                .bind(row.id.bytes().to_vec())
                .bind(stored(after(self.now, back_off(row.tries))))
                .execute(&mut *conn)
                .await?;
        }
        Ok(rows)
    }
}

impl Direct for TakeDue {
    type Found = Vec<IssuanceRow>;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        _batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<Vec<IssuanceRow>, Trouble>> {
        Box::pin(self.take(conn))
    }
}

/// Revokes that are due, and left to others.
pub(super) async fn due(
    conn: &mut PgConnection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<IssuanceRow>, Trouble> {
    let sql = format!(
        "SELECT {ISSUANCE_COLUMNS} FROM issuance
         WHERE state = 'revoking' AND (retry_at IS NULL OR retry_at <= $1) ORDER BY retry_at LIMIT $2"
    );
    waiting(conn, sql, now, limit).await
}

async fn waiting(
    conn: &mut PgConnection,
    sql: String,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<IssuanceRow>, Trouble> {
    let rows =
        QueryBuilder::new(sql).build().bind(stored(now)).bind(i64::from(limit)).fetch_all(conn).await?;
    Ok(rows.iter().map(issuance_row).collect::<sqlx::Result<_>>()?)
}

async fn has_issued(conn: &mut PgConnection, holder: &Holder) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM issuance WHERE coalesce(job, token) = $1 AND issuer = $2
             AND state = 'issued' AND (expires_at IS NULL OR expires_at > $3))",
    )
    .bind(holder.holder.0.as_slice())
    .bind(holder.issuer.as_str())
    .bind(stored(holder.now))
    .fetch_one(conn)
    .await
}

/// The issuances of a selection, by id.
pub(super) async fn select(
    conn: &mut PgConnection,
    selection: &Selection,
    past: Option<IssuanceId>,
    limit: u32,
) -> Result<Vec<IssuanceRow>, Trouble> {
    let past = past.map(|id| id.bytes()).unwrap_or_default();
    let mut sql = QueryBuilder::new("SELECT ");
    sql.push(ISSUANCE_COLUMNS).push(" FROM issuance WHERE id > ").push_bind(past.to_vec());
    match selection {
        Selection::Of(holder) => {
            sql.push(" AND coalesce(job, token) = ").push_bind(holder.holder.0.to_vec());
            sql.push(" AND issuer = ").push_bind(holder.issuer.as_str().to_owned());
        }
        Selection::Usable { grant, project, since, now } => {
            sql.push(" AND state IN ('issued', 'unresolved') AND (expires_at IS NULL OR expires_at > ");
            sql.push_bind(stored(*now)).push(")");
            if let Some(grant) = grant {
                sql.push(" AND grant_name = ").push_bind(grant.as_str().to_owned());
            }
            if let Some((issuer, project)) = project {
                sql.push(" AND issuer = ").push_bind(issuer.as_str().to_owned());
                sql.push(" AND project = ").push_bind(project.clone());
            }
            if let Some(since) = since {
                sql.push(" AND issued_at >= ").push_bind(stored(*since));
            }
        }
    }
    sql.push(" ORDER BY id LIMIT ").push_bind(i64::from(limit));
    let rows = sql.build().fetch_all(conn).await?;
    Ok(rows.iter().map(issuance_row).collect::<sqlx::Result<_>>()?)
}
