//! Issuances on their way: which there are of a job or a grant, and each step of one, by compare-and-swap with its
//! entry. What steps there are is the kernel's to say ([`State::after`]).

use std::sync::Arc;

use sqlx::{PgConnection, QueryBuilder};

use super::{
    Trouble,
    batch::{Batch, Direct},
    reader::{ISSUANCE_COLUMNS, issuance_row},
    schema::word,
};
use crate::{
    adapters::store::shared::{columns::Prepared, stored::stored},
    broker::ports::{Answer, Holder, IssuanceRow, Selection, Transited},
    kernel::{
        id::IssuanceId,
        issuance::{Event, State},
    },
};

/// Moves rows on.
pub(super) struct Transit {
    /// Each step with its entry.
    pub(super) steps: Vec<(IssuanceId, Event, Arc<Prepared>)>,
    /// Of whom it is asked whether there is more.
    pub(super) holder: Option<Holder>,
}

impl Transit {
    async fn transit(&self, conn: &mut PgConnection, batch: &mut Batch<'_>) -> Result<Transited, Trouble> {
        let mut moved = Vec::new();
        for (id, event, entry) in &self.steps {
            let row = sqlx::query("SELECT state FROM issuance WHERE id = $1")
                .bind(id.bytes().as_slice())
                .fetch_optional(&mut *conn)
                .await?;
            let stands = row.map(|row| word(&row, 0, State::parse)).transpose()?;
            let Some((from, to)) = stands.and_then(|from| Some((from, from.after(*event)?))) else {
                continue;
            };
            let swapped = sqlx::query("UPDATE issuance SET state = $2 WHERE id = $1 AND state = $3")
                .bind(id.bytes().as_slice())
                .bind(to.as_str())
                .bind(from.as_str())
                .execute(&mut *conn)
                .await?;
            if swapped.rows_affected() == 1 {
                batch.append(std::slice::from_ref(entry));
                moved.push(*id);
            }
        }
        let has_left = match &self.holder {
            Some(holder) => has_issued(conn, holder).await?,
            None => false,
        };
        Ok(Transited { moved, has_left })
    }
}

impl Direct for Transit {
    type Found = Transited;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<Transited, Trouble>> {
        Box::pin(self.transit(conn, batch))
    }
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
