//! Refusals: entries as long as they are few, counts where they are many, so that strangers cannot grow the ledger
//! (design: section 6). Either way the answer waits for a real commit (P8).
//!
//! Known hole: the thirty entries a minute are each broker's own, so that of N brokers a project may have N times as many.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{
    Trouble,
    batch::{Batch, Direct, Planned},
    changes::drop_expired,
    known::{self, Denied, Needs, SummaryRow},
    schema::{digest, moment, unsigned},
};
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        quota::window_of_stored,
        refusals::{DENIALS, OTHER_PROJECTS, PROJECT, PROJECT_ROWS, RowKey, SAMPLE_CHARS, SAMPLES, row_of},
        stored::stored,
    },
    broker::ports::{Answer, Counted, Refusal, StoreFault, Summary},
    kernel::digest::Digest,
};

/// Records one refusal.
pub(super) struct Refuse {
    counted: Counted,
    always: bool,
    against: Option<(Digest, Timestamp)>,
    sample: String,
    now: Timestamp,
    entry: Arc<Prepared>,
}

impl Refuse {
    /// Takes a refusal apart.
    pub(super) fn new(refusal: Refusal) -> Result<Self, StoreFault> {
        let Refusal { entry, counted, always, against, sample, now } = refusal;
        // PostgreSQL's texts hold every character but this one.
        let sample =
            sample.chars().take(SAMPLE_CHARS).map(|letter| if letter == '\0' { '\u{fffd}' } else { letter });
        Ok(Self { counted, always, against, sample: sample.collect(), now, entry: super::prepare(entry)? })
    }

    fn row(&self) -> known::Counted {
        let (kind, issuer, project) = row_of(&self.counted);
        (kind, issuer.to_owned(), project.to_owned())
    }

    fn other(&self) -> known::Counted {
        let (kind, issuer, _) = row_of(&self.counted);
        (kind, issuer.to_owned(), OTHER_PROJECTS.to_owned())
    }

    fn count(&self, batch: &mut Batch<'_>) {
        let own = self.row();
        let is_new_project = own.0 == PROJECT && !batch.known.summaries.contains_key(&own);
        let row = if is_new_project && batch.known.project_rows >= PROJECT_ROWS { self.other() } else { own };
        if row.0 == PROJECT && !batch.known.summaries.contains_key(&row) {
            batch.known.project_rows = batch.known.project_rows.saturating_add(1);
        }
        let (first, last) = (self.now, self.now);
        let summary = batch.known.summaries.entry(row.clone());
        let summary = summary.or_insert_with(|| SummaryRow { count: 0, first, last, samples: Vec::new() });
        summary.count = summary.count.saturating_add(1);
        (summary.first, summary.last) = (summary.first.min(first), summary.last.max(last));
        let has_room = summary.samples.len() < usize::try_from(SAMPLES).unwrap_or(0);
        if has_room && !summary.samples.contains(&self.sample) {
            summary.samples.push(self.sample.clone());
        }
        batch.changes.summaries.insert(row);
    }

    fn count_against_token(&self, batch: &mut Batch<'_>) {
        let Some((token, until)) = self.against else { return };
        let denied = batch.known.denied.entry(token).or_insert(Denied { count: 0, until, spent: None });
        denied.count = denied.count.saturating_add(1);
        denied.until = denied.until.max(until);
        if denied.count >= DENIALS {
            batch.spent.push((token, denied.until));
        }
        batch.changes.denied.insert(token);
    }
}

impl Planned for Refuse {
    type Found = ();

    fn needs(&self, needs: &mut Needs) {
        if let Some((token, _)) = self.against {
            needs.token(token);
        }
        if !self.always {
            needs.summary(self.row());
            needs.summary(self.other());
        }
    }

    fn decide(&self, batch: &mut Batch<'_>) {
        self.count_against_token(batch);
        let is_rare = match &self.counted {
            Counted::Project { issuer, project } => batch.rates.may_record(issuer, project, self.now),
            Counted::Strangers { .. } | Counted::Unverified { .. } => false,
        };
        if self.always || is_rare {
            batch.append(std::slice::from_ref(&self.entry));
        } else {
            self.count(batch);
        }
    }
}

/// Sets the summary rows apart under a slot of their own, so that what is refused from now on counts anew, and
/// answers all that are set apart, also by a sweep that did not end.
pub(super) struct SetApart;

impl Direct for SetApart {
    type Found = Vec<(RowKey, Summary)>;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        _: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<Self::Found, Trouble>> {
        Box::pin(async move {
            sqlx::query("UPDATE summary SET slot = (SELECT max(slot) + 1 FROM summary) WHERE slot = 0")
                .execute(&mut *conn)
                .await?;
            let rows = sqlx::query(
                "SELECT slot, kind, issuer, project, count, first, last, samples FROM summary
                 WHERE slot > 0 ORDER BY slot, kind, issuer, project",
            )
            .fetch_all(conn)
            .await?;
            Ok(rows.iter().map(apart).collect::<sqlx::Result<_>>()?)
        })
    }
}

/// Puts entries in the place of the rows that were set apart, and drops what is over.
pub(super) struct Sweep {
    /// The rows with their entries.
    pub(super) closed: Vec<(RowKey, Arc<Prepared>)>,
    /// The time.
    pub(super) now: Timestamp,
}

impl Direct for Sweep {
    type Found = ();

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<(), Trouble>> {
        Box::pin(async move {
            for (key, entry) in &self.closed {
                let taken = sqlx::query(
                    "DELETE FROM summary WHERE slot = $1 AND kind = $2 AND issuer = $3 AND project = $4",
                )
                .bind(key.slot)
                .bind(&key.kind)
                .bind(&key.issuer)
                .bind(&key.project)
                .execute(&mut *conn)
                .await?;
                // Another broker's sweep may have been quicker: then its entry stands, and this one is dropped.
                if taken.rows_affected() == 1 {
                    batch.append(std::slice::from_ref(entry));
                }
            }
            batch.rates.forget(self.now);
            let now = stored(self.now);
            drop_expired(conn, now, window_of_stored(now)).await?;
            Ok(())
        })
    }
}

/// Tokens that had their last denial after that many others had, with their ends.
pub(super) async fn load_spent(
    conn: &mut PgConnection,
    after: i64,
) -> sqlx::Result<HashMap<Digest, Timestamp>> {
    let rows =
        sqlx::query("SELECT token, until FROM denied WHERE spent > $1").bind(after).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((digest(row, 0)?, moment(row, 1)?))).collect()
}

fn apart(row: &PgRow) -> sqlx::Result<(RowKey, Summary)> {
    let key = RowKey {
        slot: row.try_get(0)?,
        kind: row.try_get(1)?,
        issuer: row.try_get(2)?,
        project: row.try_get(3)?,
    };
    let samples: &str = row.try_get(7)?;
    let summary = Summary {
        counted: key.counted(),
        count: unsigned(row, 4)?,
        first: moment(row, 5)?,
        last: moment(row, 6)?,
        // Written by this room; were it spoiled, the count still is worth its entry.
        samples: serde_json::from_str(samples).unwrap_or_default(),
    };
    Ok((key, summary))
}
