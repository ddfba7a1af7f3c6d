//! The durable step of an exchange: freezes, claims, rows and entries in one transaction (P1 to P3).

use std::{ops::Range, sync::Arc};

use jiff::Timestamp;

use super::{
    batch::{Batch, Planned},
    changes::{IssuedRow, NewRow, OpenPart},
    known::{KeyRow, Known, Needs, scope_of},
};
use crate::{
    adapters::store::shared::{
        claims::{self, Chain, Plan, Stood},
        columns::Prepared,
        quota::minute,
        stored::stored,
    },
    broker::ports::{ClaimRefused, Claims, Issue, KeyClaim, NewIssuance, Quota, Stage},
    kernel::issuance::State,
};

/// The durable step.
pub(super) struct IssueStep {
    /// What is asked; its entries and rows are taken out of it.
    issue: Issue,
    rows: Vec<Arc<IssuedRow>>,
    entries: Vec<Arc<Prepared>>,
    /// Until when its key holds.
    key_holds: Timestamp,
}

/// What the step found.
pub(super) enum IssueFound {
    /// The sealed store changed since the fetch.
    Moved,
    /// Recorded, at these places of the batch.
    Recorded(Range<usize>),
    /// Its claims cannot be had.
    Refused(ClaimRefused),
}

impl IssueStep {
    /// Takes an issue apart; its entries are prepared already.
    pub(super) fn new(mut issue: Issue, entries: Vec<Arc<Prepared>>) -> Self {
        let decision = issue.decision;
        let key_holds = claims::key_holds(&issue);
        let rows = std::mem::take(&mut issue.rows);
        let rows = rows.into_iter().map(|row| Arc::new(IssuedRow { decision, row })).collect();
        Self { issue, rows, entries, key_holds }
    }

    fn take(&self, batch: &mut Batch<'_>, plan: &Plan) {
        let first = match &plan.chain {
            Chain::Begins => self.issue.decision.bytes(),
            Chain::Goes(standing) => standing.first,
        };
        for each in &plan.uses {
            // A retry finds its own claims.
            if batch.known.once.insert(*each, first).is_none() {
                batch.changes.once.push((*each, stored(self.issue.once_until), first));
            }
        }
        self.take_key(batch, plan, first);
        // A retry under its key repeats an intent that was counted.
        if !plan.is_retry() {
            self.count(batch);
        }
        let is_open = self.issue.stage == Stage::Intent;
        let state = if is_open { State::Intent } else { State::Issued };
        for (each, once) in self.rows.iter().zip(&plan.uses) {
            let row = &each.row;
            let stood = Stood { state, is_revocable: row.revocable, keeps_chain: false };
            batch.known.stood.insert(row.id.bytes(), stood);
            live(&mut batch.known, row);
            let counted = claims::counted(&self.issue.claims, &row.grant).filter(|_| !plan.is_retry());
            let key = self.issue.claims.key.map(|claim| claim.key);
            let open = is_open.then_some(OpenPart { chain: first, once: *once, key, counted });
            batch.changes.issuances.push(NewRow { issued: Arc::clone(each), state, open });
        }
    }

    fn take_key(&self, batch: &mut Batch<'_>, plan: &Plan, first: [u8; 16]) {
        let Some(KeyClaim { key, body }) = self.issue.claims.key else { return };
        let ids = self.rows.iter().flat_map(|each| each.row.id.bytes());
        match &plan.chain {
            Chain::Begins => {
                let valid_until = stored(self.key_holds);
                let kept = KeyRow { body, chain: first, retries: 0, issuances: ids.collect(), valid_until };
                batch.known.keys.insert(key, kept);
            }
            Chain::Goes(_) => {
                if let Some(kept) = batch.known.keys.get_mut(&key) {
                    kept.retries = kept.retries.saturating_add(1);
                    kept.issuances.extend(ids);
                }
            }
        }
        batch.changes.keys.insert(key);
    }

    fn count(&self, batch: &mut Batch<'_>) {
        let minute = minute(self.issue.now);
        let limited = |quota: &&Quota| quota.issuances_per_hour.is_some();
        for quota in self.issue.claims.quotas.iter().filter(limited) {
            let scope = scope_of(quota);
            let count = batch.known.hours.entry(scope.clone()).or_default().entry(minute).or_default();
            *count = count.saturating_add(quota.asked);
            batch.changes.hours.insert((scope, minute));
        }
    }
}

/// Counts a new row among the living of every limit that was looked at.
fn live(known: &mut Known, row: &NewIssuance) {
    let Some(end) = row.live_until else { return };
    for ((grant, issuer, project), ends) in &mut known.living {
        let is_of_project =
            issuer == row.issuer.as_str() && project == row.project.as_deref().unwrap_or_default();
        if grant == row.grant.as_str() && (issuer.is_empty() || is_of_project) {
            ends.push(end);
        }
    }
}

/// Whether claims can be had, as far as is known.
pub(super) fn plan(known: &Known, claims: &Claims, now: Timestamp) -> Result<Plan, ClaimRefused> {
    let Ok(plan) = claims::plan(known, claims, now);
    plan
}

impl Planned for IssueStep {
    type Found = IssueFound;

    fn needs(&self, needs: &mut Needs) {
        needs.claims(&self.issue.claims, self.issue.now);
    }

    fn decide(&self, batch: &mut Batch<'_>) -> IssueFound {
        let plan = match plan(&batch.known, &self.issue.claims, self.issue.now) {
            Ok(plan) => plan,
            Err(refused) => return IssueFound::Refused(refused),
        };
        // Looked at last: a replay is a replay whatever became of the secret.
        if self.issue.sealed_generation.is_some_and(|seen| seen != batch.generation) {
            return IssueFound::Moved;
        }
        if self.issue.stage != Stage::Failed {
            self.take(batch, &plan);
        }
        IssueFound::Recorded(batch.append(&self.entries))
    }
}
