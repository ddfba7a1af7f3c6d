//! What an exchange takes of what there is only so much of: a use of its token for each credential, a place under its
//! key, room under its grants' limits. And what it is told where that cannot be had.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Ask, RetryKey,
    delivery::{in_progress, mismatch},
    freezable,
};
use crate::{
    broker::{
        Broker,
        error::{Code, Refused},
        identify::Caller,
        ports::{ClaimRefused, Claims, Exceeded, KeyClaim, Limit, Quota, QuotaScope},
        record::{policy_member, refusal_result},
    },
    kernel::{
        digest::Digest,
        id::DecisionId,
        lifetime::Lifetime,
        policy::{
            decide::{Permit, PermittedCredential, PermittedGrant},
            set::LimitScope,
        },
    },
};

/// When to come back where one request asks for more than is ever allowed: an hour changes nothing about it, but 429
/// always says a time.
const NEVER_SECONDS: u32 = 3_600;

impl Broker {
    /// What a permit claims, credentials in its order.
    pub(super) fn claims(&self, caller: &Caller, ask: &Ask, permit: &Permit) -> Claims {
        let uses = permit.grants().iter().flat_map(|grant| {
            grant.credentials.iter().map(move |credential| once_keys(caller, grant, credential))
        });
        Claims {
            key: ask.retry.as_ref().map(|retry| self.key_claim(caller, retry)),
            once: uses.collect(),
            quotas: permit.grants().iter().filter_map(|grant| quota(caller, grant)).collect(),
            freezable: freezable(caller, permit),
        }
    }

    /// Whether fetching some credential changes or costs something outside this process.
    pub(super) fn leaves_process(&self, permit: &Permit) -> bool {
        let mut credentials = permit.grants().iter().flat_map(|grant| &grant.credentials);
        credentials.any(|each| {
            self.minters.get(&each.target.kind()).is_some_and(|minter| minter.leaves_process(&each.target))
        })
    }

    /// Records and answers claims that cannot be had.
    pub(super) async fn refuse_claims(
        &self,
        (decision, caller, ask): (DecisionId, &Caller, &Ask),
        permit: &Permit,
        refused: ClaimRefused,
    ) -> Refused {
        match refused {
            ClaimRefused::Exceeded(exceeded) => {
                self.refuse_quota((decision, caller, ask), permit, &exceeded).await
            }
            ClaimRefused::Frozen(scope) => self.refuse_freeze((decision, caller, ask), &scope).await,
            // Revoking comes first where it can; who gets here has nothing of that kind in its own permit.
            ClaimRefused::InProgress | ClaimRefused::ReplaceFirst(_) => {
                self.refuse(decision, caller, ask, in_progress(), "idempotency-in-progress").await
            }
            ClaimRefused::Mismatch => {
                self.refuse(decision, caller, ask, mismatch(), "idempotency-other-body").await
            }
            ClaimRefused::Replayed => {
                let detail =
                    "this token was already used for this credential; have the CI system mint a new one";
                let answer = Refused::new(Code::TokenReplayed, detail);
                self.refuse(decision, caller, ask, answer, "replayed").await
            }
        }
    }

    /// The caller has a permit, so it may know that a limit is reached; how high that is stands in the ledger.
    async fn refuse_quota(
        &self,
        (decision, caller, ask): (DecisionId, &Caller, &Ask),
        permit: &Permit,
        exceeded: &Exceeded,
    ) -> Refused {
        let detail = match exceeded.room_at {
            Some(_) => "a limit of this grant is reached; ask again after the time given",
            None => {
                "this request alone asks for more than a limit of this grant allows; name fewer credentials"
            }
        };
        let now = self.ambient.clock.now();
        let seconds = exceeded.room_at.map_or(NEVER_SECONDS, |at| seconds_until(at, now));
        let answer = Refused::new(Code::QuotaExceeded, detail).retry_after(seconds).of(decision);
        let reason = match exceeded.limit {
            Limit::IssuancesPerHour => "limit-issuances-per-hour",
            Limit::Live => "limit-live",
        };
        let grant = permit.grants().iter().find(|grant| grant.name == exceeded.grant);
        let mut result = refusal_result(Code::QuotaExceeded, reason);
        if let Value::Object(members) = &mut result {
            members.insert("limit".to_owned(), limit_member(exceeded, grant));
        }
        let mut draft = self.refusal_draft(decision, caller, ask, result);
        let mut policy = policy_member(&caller.policy);
        if let Some(grant) = grant {
            policy.insert("grant".to_owned(), grant.name.as_str().into());
            policy.insert("rule".to_owned(), grant.rule.as_str().into());
            policy.insert("file".to_owned(), (*grant.file).into());
        }
        draft.policy = Some(policy.into());
        self.refuse_as(draft, caller, answer, reason).await
    }

    fn key_claim(&self, caller: &Caller, retry: &RetryKey) -> KeyClaim {
        let identity = &caller.identity;
        let scope = Digest::of_parts(&[
            identity.issuer().as_str().as_bytes(),
            &identity.token().id.0,
            retry.key.as_bytes(),
        ]);
        KeyClaim { key: Digest::keyed(&self.settings.pseudonym_key, &scope.0), body: retry.body }
    }
}

/// (issuer, token id, grant, credential, use): P3. One for each use that the grant gives a token, lowest first.
fn once_keys(caller: &Caller, grant: &PermittedGrant, credential: &PermittedCredential) -> Vec<Digest> {
    let identity = &caller.identity;
    let once_key = |number: u8| {
        Digest::of_parts(&[
            identity.issuer().as_str().as_bytes(),
            &identity.token().id.0,
            grant.name.as_str().as_bytes(),
            credential.name.as_str().as_bytes(),
            &[number],
        ])
    };
    (1..=grant.limits.uses_per_token.max(1)).map(once_key).collect()
}

/// The limits that a transaction has to look at, if the grant has any.
fn quota(caller: &Caller, grant: &PermittedGrant) -> Option<Quota> {
    let limits = &grant.limits;
    if limits.issuances_per_hour.is_none() && limits.live.is_none() {
        return None;
    }
    let over = match limits.per {
        LimitScope::Grant => QuotaScope::Grant,
        LimitScope::Project => {
            let identity = &caller.identity;
            let project = identity.project().map_or("", |(id, _)| id).to_owned();
            QuotaScope::Project { issuer: identity.issuer().clone(), project }
        }
    };
    let count = |credentials: usize| u32::try_from(credentials).unwrap_or(u32::MAX);
    let is_live = |each: &&PermittedCredential| each.target.lifetime() != Lifetime::Static;
    Some(Quota {
        grant: grant.name.clone(),
        over,
        issuances_per_hour: limits.issuances_per_hour,
        live: limits.live,
        asked: count(grant.credentials.len()),
        asked_live: count(grant.credentials.iter().filter(is_live).count()),
    })
}

fn limit_member(exceeded: &Exceeded, grant: Option<&PermittedGrant>) -> Value {
    let per = grant.map(|grant| match grant.limits.per {
        LimitScope::Grant => "grant",
        LimitScope::Project => "project",
    });
    json!({
        "grant": exceeded.grant.as_str(), "name": exceeded.limit.as_str(), "per": per,
        "allowed": exceeded.allowed, "used": exceeded.used, "asked": exceeded.asked,
        "room_at": exceeded.room_at.map(|at| at.to_string()),
    })
}

/// Whole seconds, so that whoever waits them finds room: rounded up, and at least one.
fn seconds_until(at: Timestamp, now: Timestamp) -> u32 {
    let milliseconds = at.as_millisecond().saturating_sub(now.as_millisecond()).max(0);
    let seconds = milliseconds.saturating_add(999).div_euclid(1_000).max(1);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
