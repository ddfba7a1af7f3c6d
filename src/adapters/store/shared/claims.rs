//! What an exchange takes of what there is only so much of: uses of a token, places under a key, room under a limit
//! (P3). Decided from facts without a write, so that a call which is refused leaves nothing behind; where the facts
//! come from is the store's own.

use std::time::Duration;

use jiff::Timestamp;

use super::quota;
use crate::{
    broker::ports::{ClaimRefused, Claims, Issue, KeyClaim, Quota, QuotaScope, Stage},
    kernel::{
        digest::Digest,
        freeze::{Freezable, FreezeScope},
        id::IssuanceId,
        issuance::State,
        lifetime::after,
        name::GrantName,
    },
};

/// How long an idempotency key holds, from the first claim or from the closing of its rows, whichever is later (design:
/// P3). A whole step claims and closes in the same moment.
pub(in crate::adapters::store) const KEY_HOLDS: Duration = Duration::from_secs(60);

/// Until when past `recover_after` some living replica has closed a row (P2).
const CLOSED_WITHIN: Duration = Duration::from_secs(60);

/// The words of a count's scope.
pub(in crate::adapters::store) const COUNTED_BY_GRANT: &str = "grant";
/// See [`COUNTED_BY_GRANT`].
pub(in crate::adapters::store) const COUNTED_BY_PROJECT: &str = "project";

/// How often a call may be retried under its key (design: P3).
const RETRIES: i64 = 2;

/// The facts that a decision about claims rests on, as they stand in the transaction that decides.
pub(in crate::adapters::store) trait Facts {
    /// Why they could not be read.
    type Fault;

    /// The freezes that hold for a job, widest first.
    fn frozen(&self, subject: &Freezable) -> Result<Vec<FreezeScope>, Self::Fault>;

    /// What stands under an idempotency key that still holds.
    fn standing(&self, key: &Digest, now: Timestamp) -> Result<Option<Kept>, Self::Fault>;

    /// The chain that has this use.
    fn claimed_by(&self, once: &Digest) -> Result<Option<[u8; 16]>, Self::Fault>;

    /// How an issuance stands.
    fn stood(&self, issuance: &[u8]) -> Result<Option<Stood>, Self::Fault>;

    /// Intents after that minute under a limit by the hour.
    fn intents(&self, quota: &Quota, after_minute: i64) -> Result<u32, Self::Fault>;

    /// The same by the minute, the oldest first.
    fn intents_by_minute(&self, quota: &Quota, after_minute: i64) -> Result<Vec<(i64, u32)>, Self::Fault>;

    /// Credentials that are live under a limit.
    fn living(&self, quota: &Quota, now: Timestamp) -> Result<u32, Self::Fault>;

    /// When one of them ends: the first is number 0.
    fn end_of_living(
        &self,
        quota: &Quota,
        now: Timestamp,
        number: u32,
    ) -> Result<Option<Timestamp>, Self::Fault>;
}

/// What is kept under an idempotency key.
pub(in crate::adapters::store) struct Kept {
    /// Digest of route and body.
    pub(in crate::adapters::store) body: Digest,
    /// Retries until now.
    pub(in crate::adapters::store) retries: i64,
    /// The chain.
    pub(in crate::adapters::store) standing: Standing,
}

/// How an issuance of a chain stands.
#[derive(Clone, Copy)]
pub(in crate::adapters::store) struct Stood {
    /// Where.
    pub(in crate::adapters::store) state: State,
    /// Whether it can be revoked.
    pub(in crate::adapters::store) is_revocable: bool,
    /// Whether its revoke was asked for by a broker itself, and by no job or operator.
    pub(in crate::adapters::store) keeps_chain: bool,
}

/// A key that holds.
pub(in crate::adapters::store) struct Standing {
    /// The first decision of the chain.
    pub(in crate::adapters::store) first: [u8; 16],
    /// The ids of all that it issued, 16 bytes each.
    pub(in crate::adapters::store) issuances: Vec<u8>,
}

/// Until when a key holds that a step claims: where its rows are open, until somebody has closed them for certain.
pub(in crate::adapters::store) fn key_holds(issue: &Issue) -> Timestamp {
    let open = issue.rows.iter().filter(|_| issue.stage == Stage::Intent);
    let closed = open.map(|row| after(row.recover_after, CLOSED_WITHIN)).max();
    after(closed.unwrap_or(issue.now).max(issue.now), KEY_HOLDS)
}

/// The scope under which a row's intent is counted by the hour, if it is.
pub(in crate::adapters::store) fn counted(claims: &Claims, grant: &GrantName) -> Option<&'static str> {
    let limited = |quota: &&Quota| quota.grant == *grant && quota.issuances_per_hour.is_some();
    claims.quotas.iter().find(limited).map(|quota| match quota.over {
        QuotaScope::Grant => COUNTED_BY_GRANT,
        QuotaScope::Project { .. } => COUNTED_BY_PROJECT,
    })
}

/// Claims that can be had.
pub(in crate::adapters::store) struct Plan {
    /// The chain that takes them.
    pub(in crate::adapters::store) chain: Chain,
    /// The use of each credential: its once-key.
    pub(in crate::adapters::store) uses: Vec<Digest>,
}

/// The calls that may share one use of a token: a call and its retries under the same key.
pub(in crate::adapters::store) enum Chain {
    /// This call begins one.
    Begins,
    /// This call is a retry in it.
    Goes(Standing),
}

impl Plan {
    /// Whether it repeats a call under that call's key.
    pub(in crate::adapters::store) fn is_retry(&self) -> bool {
        match self.chain {
            Chain::Begins => false,
            Chain::Goes(_) => true,
        }
    }
}

/// Looks whether claims can be had. The order is the contract's: freezes, idempotency and replay, then limits.
pub(in crate::adapters::store) fn plan<F: Facts>(
    facts: &F,
    claims: &Claims,
    now: Timestamp,
) -> Result<Result<Plan, ClaimRefused>, F::Fault> {
    if let Some(scope) = facts.frozen(&claims.freezable)?.into_iter().next() {
        return Ok(Err(ClaimRefused::Frozen(scope)));
    }
    let chain = match chain(facts, claims.key, now)? {
        Ok(chain) => chain,
        Err(refused) => return Ok(Err(refused)),
    };
    let mut uses = Vec::with_capacity(claims.once.len());
    for keys in &claims.once {
        // One that is used up makes all used: none of the others is claimed.
        let Some(free) = free_use(facts, keys, &chain)? else { return Ok(Err(ClaimRefused::Replayed)) };
        uses.push(free);
    }
    let plan = Plan { chain, uses };
    for each in &claims.quotas {
        if let Some(exceeded) = quota::exceeded(facts, each, plan.is_retry(), now)? {
            return Ok(Err(ClaimRefused::Exceeded(exceeded)));
        }
    }
    Ok(Ok(plan))
}

/// What the idempotency key says. A key that does not hold any more says nothing: the once-claims decide.
fn chain<F: Facts>(
    facts: &F,
    key: Option<KeyClaim>,
    now: Timestamp,
) -> Result<Result<Chain, ClaimRefused>, F::Fault> {
    let Some(KeyClaim { key, body }) = key else { return Ok(Ok(Chain::Begins)) };
    let Some(kept) = facts.standing(&key, now)? else { return Ok(Ok(Chain::Begins)) };
    if kept.body != body {
        return Ok(Err(ClaimRefused::Mismatch));
    }
    Ok(match standing(facts, &kept.standing.issuances)? {
        Some(ClaimRefused::InProgress) => Err(ClaimRefused::InProgress),
        _ if kept.retries >= RETRIES => Err(ClaimRefused::Replayed),
        Some(refused) => Err(refused),
        None => Ok(Chain::Goes(kept.standing)),
    })
}

/// The use that the call has already, else the lowest that nobody has.
fn free_use<F: Facts>(facts: &F, keys: &[Digest], chain: &Chain) -> Result<Option<Digest>, F::Fault> {
    let mut free = None;
    for key in keys {
        match (facts.claimed_by(key)?, chain) {
            (Some(by), Chain::Goes(standing)) if by == standing.first => return Ok(Some(*key)),
            (Some(_), _) => {}
            // Nothing above it can be this call's own: it had none before.
            (None, Chain::Begins) => return Ok(Some(*key)),
            (None, Chain::Goes(_)) => free = free.or(Some(*key)),
        }
    }
    Ok(free)
}

/// What stands against a retry in a chain, if anything: an issuance that is still being made, one that job or operator
/// ended, else those that must be revoked before it.
fn standing<F: Facts>(facts: &F, ids: &[u8]) -> Result<Option<ClaimRefused>, F::Fault> {
    let mut first = Vec::new();
    let mut is_ended = false;
    for id in ids.as_chunks::<16>().0 {
        let Some(Stood { state, is_revocable, keeps_chain }) = facts.stood(id)? else {
            is_ended = true;
            continue;
        };
        match state {
            State::Intent => return Ok(Some(ClaimRefused::InProgress)),
            State::Failed => {}
            State::Issued | State::Unresolved if is_revocable => first.push(IssuanceId::from_bytes(*id)),
            State::Issued | State::Unresolved => {}
            State::Revoking if keeps_chain => first.push(IssuanceId::from_bytes(*id)),
            State::Revoked if keeps_chain => {}
            State::Released | State::Revoked | State::Revoking => is_ended = true,
        }
    }
    Ok(match (is_ended, first.is_empty()) {
        (true, _) => Some(ClaimRefused::Replayed),
        (false, false) => Some(ClaimRefused::ReplaceFirst(first)),
        (false, true) => None,
    })
}
