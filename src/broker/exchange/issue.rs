//! The durable step: fetch, then INTENT and ISSUED (or FAILED) of every credential in one transaction. Not one byte
//! of a secret leaves here before that transaction is durable (P1), and a fetch that failed claims nothing (P3).

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Ask, DENIED, Delivered, Exchanged, Room, delivery::Delivery};
use crate::{
    broker::{
        Broker,
        error::{Code, Refused},
        identify::Caller,
        metrics::Step,
        ports::{Claims, Issue, IssueVerdict, MintFault, Minted, NewIssuance, Order, Receipt, Subject},
        record::{breaches_of, of_decision, policy_member, reason_personal, request_member},
    },
    kernel::{
        digest::Digest,
        id::{DecisionId, IssuanceId, crockford},
        identity::JobIdentity,
        ledger::entry::{Draft, Entry, EntryCode},
        lifetime::{Lifetime, after},
        policy::decide::{Permit, PermittedCredential, PermittedGrant},
        secret::Secret,
    },
};

/// How often a fetch is repeated because the sealed store changed under it.
const FETCHES: usize = 3;

/// One credential, decided and named, not yet fetched.
struct Planned<'a> {
    id: IssuanceId,
    grant: &'a PermittedGrant,
    credential: &'a PermittedCredential,
}

impl Broker {
    /// Issues what is permitted: all of it, or nothing.
    pub(super) async fn issue(
        self: &Arc<Self>,
        (decision, caller, ask): (DecisionId, &Caller, &Ask),
        permit: &Permit,
        deadline: Instant,
    ) -> Result<Exchanged, Refused> {
        let claims = self.claims(caller, ask, permit);
        let _running = match self.running.enter(claims.key) {
            Ok(running) => running,
            Err((answer, reason)) => {
                // A freeze comes before idempotency, and the transaction that looks at both is not reached.
                return Err(match self.store.frozen(claims.freezable).await?.first() {
                    Some(scope) => self.refuse_freeze((decision, caller, ask), scope).await,
                    None => self.refuse(decision, caller, ask, answer, reason).await,
                });
            }
        };
        let answer_by = deadline;
        // An eighth of the time is the durable step's, so that a silent backend is answered as what it is.
        let deadline = deadline.checked_sub(self.settings.exchange_deadline / 8).unwrap_or(deadline);
        if self.leaves_process(permit) {
            self.store.health()?;
            if let Err(refused) = self.store.foresee(claims.clone(), self.ambient.clock.now()).await? {
                return Err(self.refuse_claims((decision, caller, ask), permit, refused).await);
            }
        }
        for turn in 0..=FETCHES {
            let now = self.ambient.clock.now();
            let planned = self.plan(permit, now)?;
            let fetched = if turn < FETCHES {
                let began = Instant::now();
                let fetched = self.fetch((decision, &caller.identity), &planned, now, deadline).await;
                self.metrics.step(Step::Fetch, began.elapsed());
                fetched
            } else {
                // No generation is named, so that this verdict stands whatever the store does meanwhile.
                Err(MintFault::Failed { reason: "sealed-store-moved", sealed_generation: None })
            };
            if let (Room::OneToken(_), Ok(minted)) = (ask.room, &fetched)
                && !is_one_token(minted)
            {
                let answer = Refused::new(Code::AccessDenied, DENIED);
                return Err(self.refuse(decision, caller, ask, answer, "not-one-secret-field").await);
            }
            // Nobody waits any more: what was fetched is dropped, and the token keeps its use.
            let fetched = fetched.and_then(|minted| in_time(deadline).map(|()| minted));
            let attempt = Attempt { decision, caller, ask, permit, claims: &claims, planned, now, answer_by };
            if let Some(answer) = self.commit(attempt, fetched).await? {
                return answer;
            }
        }
        Err(Refused::new(Code::Internal, "the exchange broke off; nothing was delivered"))
    }

    fn plan<'a>(&self, permit: &'a Permit, now: Timestamp) -> Result<Vec<Planned<'a>>, Refused> {
        let mut planned = Vec::new();
        for grant in permit.grants() {
            for credential in &grant.credentials {
                let id = IssuanceId::new(now, self.ambient.entropy.bytes()?);
                planned.push(Planned { id, grant, credential });
            }
        }
        Ok(planned)
    }

    async fn fetch(
        &self,
        (decision, identity): (DecisionId, &JobIdentity),
        planned: &[Planned<'_>],
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Vec<Minted>, MintFault> {
        let subject = Subject {
            issuer: identity.issuer().as_str().to_owned(),
            project: identity.project().map(|(id, _)| id.to_owned()),
            run: identity.run().map(str::to_owned),
        };
        let mut fetched = Vec::with_capacity(planned.len());
        for each in planned {
            in_time(deadline)?;
            let order = Order {
                issuance: each.id,
                decision,
                input: None,
                subject: subject.clone(),
                grant: each.grant.name.clone(),
                credential: each.credential.name.clone(),
                target: each.credential.target.clone(),
                ttl: each.credential.ttl,
                now,
            };
            let Some(minter) = self.minters.get(&order.target.kind()) else {
                return Err(MintFault::Failed { reason: "kind-not-wired", sealed_generation: None });
            };
            let ends = deadline.min(Instant::now() + self.settings.mint_deadline);
            let minted = tokio::time::timeout_at(ends, minter.fetch(&order, None));
            fetched.push(minted.await.map_err(|_| MintFault::Timeout)??);
        }
        Ok(fetched)
    }

    /// The one durable step. `None` means that the sealed store moved, and the fetch must be done again.
    async fn commit(
        self: &Arc<Self>,
        attempt: Attempt<'_>,
        fetched: Result<Vec<Minted>, MintFault>,
    ) -> Result<Option<Result<Exchanged, Refused>>, Refused> {
        let Attempt { decision, caller, ask, permit, answer_by, .. } = attempt;
        let prepared = match fetched {
            Ok(minted) => self.prepare_issued(&attempt, minted)?,
            Err(fault) => self.prepare_failed(&attempt, &fault)?,
        };
        let Prepared { issue, delivered, undelivered, failure } = prepared;
        let began = Instant::now();
        let verdict = self.store.issue(issue).await;
        self.metrics.step(Step::Durable, began.elapsed());
        match verdict? {
            IssueVerdict::Moved => Ok(None),
            IssueVerdict::Refused(refused) => {
                Ok(Some(Err(self.refuse_claims((decision, caller, ask), permit, refused).await)))
            }
            IssueVerdict::Recorded(receipts) => {
                for planned in &attempt.planned {
                    self.metrics.made(planned.credential.target.kind(), failure.is_none());
                }
                Ok(Some(match failure {
                    Some(code) => {
                        let detail = "a credential could not be made, so none was issued; the ledger says why under this decision";
                        Err(Refused::new(code, detail).of(decision))
                    }
                    None => Ok(self.delivery((decision, answer_by), delivered, receipts, undelivered)),
                }))
            }
        }
    }

    fn delivery(
        self: &Arc<Self>,
        (decision, deadline): (DecisionId, Instant),
        issuances: Vec<Delivered>,
        receipts: Vec<Receipt>,
        drafts: Vec<Draft>,
    ) -> Exchanged {
        // Entries went INTENT and ISSUED in turn, so every second receipt is that of an ISSUED.
        let receipts =
            issuances.iter().map(|each| each.id).zip(receipts.into_iter().skip(1).step_by(2)).collect();
        Exchanged { decision, issuances, receipts, deadline, delivery: Delivery::new(self, drafts) }
    }

    fn prepare_issued(&self, attempt: &Attempt<'_>, minted: Vec<Minted>) -> Result<Prepared, Refused> {
        let sealed_generation = minted.iter().filter_map(|each| each.sealed_generation).min();
        let mut prepared = Prepared::new(self.bare_issue(attempt, sealed_generation));
        for (planned, minted) in attempt.planned.iter().zip(minted) {
            let handle_bytes = zeroize::Zeroizing::new(self.ambient.entropy.bytes::<32>()?);
            let handle = Secret::from_text(format!("hdl_{}", crockford(&*handle_bytes)));
            let row = self.row(attempt, planned, &minted, Digest::of(handle.expose()));
            prepared.issue.entries.push(self.intent(attempt, planned)?);
            let issued =
                self.outcome_draft(EntryCode::Issued, attempt, planned, issued_result(&row, &minted.told));
            prepared.undelivered.push(Draft {
                code: Some(EntryCode::Undelivered),
                result: Some(json!({ "usable_until": row.expires_at.map(|at| at.to_string()) })),
                ..issued.clone()
            });
            prepared.issue.entries.push(self.seal(issued)?);
            prepared.delivered.push(Delivered {
                id: planned.id,
                handle,
                grant: planned.grant.name.clone(),
                credential: planned.credential.name.clone(),
                kind: planned.credential.target.kind(),
                fields: minted.fields,
                lifetime: row.lifetime,
                issued_at: row.issued_at,
                expires_at: row.expires_at,
                ttl_seconds: row.expires_at.map(|at| seconds_between(row.issued_at, at)),
                revocable: row.revocable,
            });
            prepared.issue.rows.push(row);
        }
        Ok(prepared)
    }

    fn prepare_failed(&self, attempt: &Attempt<'_>, fault: &MintFault) -> Result<Prepared, Refused> {
        let (code, reason, sealed_generation) = match fault {
            MintFault::Failed { reason, sealed_generation } => {
                (Code::BackendFailed, *reason, *sealed_generation)
            }
            MintFault::Lost { reason } => (Code::BackendFailed, *reason, None),
            MintFault::Timeout => (Code::BackendTimeout, "timeout", None),
        };
        let mut prepared = Prepared::new(self.bare_issue(attempt, sealed_generation));
        prepared.failure = Some(code);
        prepared.issue.failed = true;
        for planned in &attempt.planned {
            prepared.issue.entries.push(self.intent(attempt, planned)?);
            let result = json!({ "code": code.as_str(), "reason": reason, "minted": false });
            let failed = self.outcome_draft(EntryCode::Failed, attempt, planned, result);
            prepared.issue.entries.push(self.seal(failed)?);
        }
        Ok(prepared)
    }

    fn bare_issue(&self, attempt: &Attempt<'_>, sealed_generation: Option<u64>) -> Issue {
        let exp = attempt.caller.identity.token().exp;
        let leeway = self.settings.clock_leeway;
        Issue {
            decision: attempt.decision,
            claims: attempt.claims.clone(),
            once_until: after(exp, leeway.saturating_mul(2).saturating_add(ONCE_BEYOND)),
            rows: Vec::new(),
            entries: Vec::new(),
            failed: false,
            sealed_generation,
            now: self.ambient.clock.now(),
        }
    }

    fn row(
        &self,
        attempt: &Attempt<'_>,
        planned: &Planned<'_>,
        minted: &Minted,
        handle: Digest,
    ) -> NewIssuance {
        let identity = &attempt.caller.identity;
        let kind = planned.credential.target.kind();
        let now = attempt.now;
        let lifetime = planned.credential.target.lifetime();
        let recover_after = after(now, self.settings.exchange_deadline.saturating_add(RECOVERY));
        // Where nobody knows its end, it is at most its TTL after whoever owns the row must have ended.
        let latest = after(recover_after, planned.credential.ttl.unwrap_or_default());
        let live_until = (lifetime != Lifetime::Static).then(|| minted.expires_at.unwrap_or(latest));
        NewIssuance {
            id: planned.id,
            grant: planned.grant.name.clone(),
            credential: planned.credential.name.clone(),
            kind,
            handle,
            issuer: identity.issuer().clone(),
            token: identity.token().id,
            project: identity.project().map(|(id, _)| id.to_owned()),
            job: identity.job_key().map(|key| Digest::of(key.as_bytes())),
            lifetime,
            issued_at: now,
            expires_at: minted.expires_at,
            live_until,
            revocable: planned.credential.target.is_revocable(),
            owner: self.settings.replica,
            recover_after,
        }
    }

    fn intent(&self, attempt: &Attempt<'_>, planned: &Planned<'_>) -> Result<Entry, Refused> {
        let Attempt { decision, caller, ask, .. } = attempt;
        let mut draft =
            of_decision(self.draft(EntryCode::Intent, &caller.identity, &caller.origin), *decision);
        let mut policy = policy_member(&caller.policy);
        policy.insert("grant".to_owned(), planned.grant.name.as_str().into());
        policy.insert("rule".to_owned(), planned.grant.rule.as_str().into());
        policy.insert("file".to_owned(), (*planned.grant.file).into());
        policy.insert("class".to_owned(), planned.grant.class.as_str().into());
        draft.policy = Some(policy.into());
        draft.result = breaches_of(planned.grant, planned.credential)
            .map(|would_deny| json!({ "would_deny": would_deny }));
        draft.issuance = Some(planned.id);
        let mut request = request_member(caller, ask);
        if let Value::Object(members) = &mut request {
            let target = &planned.credential.target;
            members.insert("credential".to_owned(), planned.credential.name.as_str().into());
            members.insert("kind".to_owned(), target.kind().as_str().into());
            members.insert("target".to_owned(), target.as_str().into());
            let ttl = planned.credential.ttl.map(|ttl| ttl.as_secs());
            members.insert("ttl_seconds".to_owned(), ttl.into());
        }
        draft.request = Some(request);
        draft.personal.extend(reason_personal(ask));
        self.seal(draft)
    }

    /// An outcome names grant and credential; rule, file and target stand in INTENT, which no receipt shows.
    fn outcome_draft(
        &self,
        code: EntryCode,
        attempt: &Attempt<'_>,
        planned: &Planned<'_>,
        result: Value,
    ) -> Draft {
        let Attempt { decision, caller, .. } = attempt;
        let mut draft = of_decision(self.draft(code, &caller.identity, &caller.origin), *decision);
        let mut policy = policy_member(&caller.policy);
        policy.insert("grant".to_owned(), planned.grant.name.as_str().into());
        draft.policy = Some(policy.into());
        draft.issuance = Some(planned.id);
        draft.request = Some(json!({
            "id": caller.origin.request.to_string(),
            "credential": planned.credential.name.as_str(),
        }));
        draft.result = Some(result);
        draft
    }
}

/// One try at the durable step.
struct Attempt<'a> {
    decision: DecisionId,
    caller: &'a Caller,
    ask: &'a Ask,
    permit: &'a Permit,
    claims: &'a Claims,
    planned: Vec<Planned<'a>>,
    /// The one time of all its credentials.
    now: Timestamp,
    answer_by: Instant,
}

/// The durable step made ready, and what follows it.
struct Prepared {
    issue: Issue,
    delivered: Vec<Delivered>,
    undelivered: Vec<Draft>,
    failure: Option<Code>,
}

impl Prepared {
    fn new(issue: Issue) -> Self {
        Self { issue, delivered: Vec::new(), undelivered: Vec::new(), failure: None }
    }
}

/// Whether it is one secret, as RFC 8693 has room for. What was fetched and does not fit is dropped: of these kinds
/// nothing was made anywhere, so nothing is claimed.
fn is_one_token(minted: &[Minted]) -> bool {
    matches!(minted, [only] if only.fields.iter().filter(|field| field.is_secret).count() == 1)
}

/// Whether somebody still waits for the answer.
fn in_time(deadline: Instant) -> Result<(), MintFault> {
    if Instant::now() < deadline { Ok(()) } else { Err(MintFault::Timeout) }
}

/// Whole seconds, as both ends are told to the second.
fn seconds_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_second().saturating_sub(from.as_second())).unwrap_or(0)
}

/// How long past the exchange's deadline a row waits for its owner (design: section 2).
const RECOVERY: Duration = Duration::from_secs(30);
/// How long past `exp` and twice the leeway a once-row lives (design: section 2).
const ONCE_BEYOND: Duration = Duration::from_secs(60);

fn issued_result(row: &NewIssuance, told: &Value) -> Value {
    let mut members = Map::new();
    members.insert("kind".to_owned(), row.kind.as_str().into());
    members.insert("lifetime".to_owned(), row.lifetime.as_str().into());
    members.insert("issued_at".to_owned(), row.issued_at.to_string().into());
    members.insert("expires_at".to_owned(), row.expires_at.map(|at| at.to_string()).into());
    members.insert("revocable".to_owned(), row.revocable.into());
    members.insert("told".to_owned(), told.clone());
    Value::Object(members)
}
