//! The durable step where making changes nothing elsewhere: fetch, then INTENT and ISSUED (or FAILED) of every credential
//! in one transaction. Not one byte of a secret leaves here before that transaction is durable (P1), and a fetch that
//! failed claims nothing (P3). Whatever else is made goes the way of `staged`.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    Ask, DENIED, Delivered, Exchanged, Room,
    delivery::{Delivery, Undelivered},
};
use crate::{
    broker::{
        Broker,
        error::{Code, Refused},
        identify::Caller,
        metrics::Step,
        ports::{
            ClaimRefused, Claims, Field, Issue, IssueVerdict, MintFault, Minted, NewIssuance, Order, Receipt,
            Stage, Subject,
        },
        record::{breaches_of, of_decision, policy_member, reason_personal, request_member},
        spans,
    },
    kernel::{
        digest::Digest,
        id::{DecisionId, IssuanceId, crockford},
        ledger::entry::{Draft, Entry, EntryCode},
        lifetime::{Lifetime, after},
        policy::{
            decide::{Permit, PermittedCredential, PermittedGrant},
            target::Making,
        },
        secret::Secret,
        wiping::Zeroizing,
    },
};

/// How often a fetch is repeated because the sealed store changed under it.
const FETCHES: usize = 3;

/// One credential, decided and named, not yet fetched.
pub(super) struct Planned<'a> {
    pub(super) id: IssuanceId,
    pub(super) grant: &'a PermittedGrant,
    pub(super) credential: &'a PermittedCredential,
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
        for turn in 0..=FETCHES {
            let now = self.ambient.clock.now();
            let planned = self.plan(permit, now)?;
            let attempt = Attempt { decision, caller, ask, permit, claims: &claims, planned, now, answer_by };
            let issued = if is_staged(permit) {
                self.issue_staged(&attempt, deadline).await?
            } else {
                self.issue_whole(&attempt, turn < FETCHES, deadline).await?
            };
            if let Some(issued) = issued {
                return Ok(issued);
            }
        }
        Err(Refused::new(Code::Internal, "the exchange broke off; nothing was delivered"))
    }

    /// Issues in one step. `None` means that it must be tried again: the sealed store moved, or what an earlier call got
    /// was revoked. Where it `may_fetch` no more, it fails for good.
    async fn issue_whole(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        may_fetch: bool,
        deadline: Instant,
    ) -> Result<Option<Exchanged>, Refused> {
        let Attempt { decision, caller, ask, permit, claims, .. } = *attempt;
        if self.leaves_process(permit) {
            self.store.health()?;
            if let Err(refused) = self.store.foresee(claims.clone(), self.ambient.clock.now()).await? {
                return self.make_room((decision, caller, ask), permit, refused).await.map(|()| None);
            }
        }
        let fetched = if may_fetch {
            let began = Instant::now();
            let fetched = self.fetch(attempt, deadline).await;
            self.metrics.step(Step::Fetch, began.elapsed());
            fetched
        } else {
            // No generation is named, so that this verdict stands whatever the store does meanwhile.
            Err(MintFault::failed("sealed-store-moved"))
        };
        if let (Room::OneToken(_), Ok(minted)) = (ask.room, &fetched)
            && !is_one_token(&minted.iter().collect::<Vec<_>>())
        {
            let answer = Refused::new(Code::AccessDenied, DENIED);
            return Err(self.refuse(decision, caller, ask, answer, "not-one-secret-field").await);
        }
        // Nobody waits any more: what was fetched is dropped, and the token keeps its use.
        let fetched = fetched.and_then(|minted| in_time(deadline).map(|()| minted));
        self.commit(attempt, fetched).await
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

    async fn fetch(&self, attempt: &Attempt<'_>, deadline: Instant) -> Result<Vec<Minted>, MintFault> {
        let mut fetched = Vec::with_capacity(attempt.planned.len());
        for each in &attempt.planned {
            in_time(deadline)?;
            let order = self.order(attempt, each);
            let minter = self.minters.get(&order.target.kind()).ok_or(MintFault::failed("kind-not-wired"))?;
            let ends = deadline.min(Instant::now() + self.settings.mint_deadline);
            let span = spans::mint(order.target.kind());
            let minted = tokio::time::timeout_at(ends, minter.fetch(&order, None)).instrument(span);
            fetched.push(minted.await.map_err(|_| MintFault::Timeout)??);
        }
        Ok(fetched)
    }

    /// What a minter is asked for.
    pub(super) fn order(&self, attempt: &Attempt<'_>, planned: &Planned<'_>) -> Order {
        let identity = &attempt.caller.identity;
        let (grant, credential) = (planned.grant, planned.credential);
        Order {
            issuance: planned.id,
            decision: attempt.decision,
            grant: grant.name.clone(),
            credential: credential.name.clone(),
            target: credential.target.clone(),
            ttl: credential.ttl,
            input: attempt.ask.input_of(grant, credential).map(|given| given.value.clone()),
            subject: Subject {
                issuer: identity.issuer().as_str().to_owned(),
                project: identity.project().map(|(id, _)| id.to_owned()),
                run: identity.run().map(str::to_owned),
            },
            now: attempt.now,
        }
    }

    /// What claims that cannot be had come to: a refusal, but for a retry under its key, which first ends what the call
    /// got before.
    pub(super) async fn make_room(
        &self,
        (decision, caller, ask): (DecisionId, &Caller, &Ask),
        permit: &Permit,
        refused: ClaimRefused,
    ) -> Result<(), Refused> {
        let ClaimRefused::ReplaceFirst(ids) = &refused else {
            return Err(self.refuse_claims((decision, caller, ask), permit, refused).await);
        };
        if self.replace(ids).await? {
            return Ok(());
        }
        let detail =
            "what the first call got could not be revoked, so nothing new was made; ask again in a moment";
        let answer = Refused::new(Code::BackendFailed, detail);
        Err(self.refuse(decision, caller, ask, answer, "replaced-not-revoked").await)
    }

    /// The one durable step. `None` means that the sealed store moved, and the fetch must be done again.
    async fn commit(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        fetched: Result<Vec<Minted>, MintFault>,
    ) -> Result<Option<Exchanged>, Refused> {
        let Attempt { decision, caller, ask, permit, .. } = *attempt;
        let prepared = match fetched {
            Ok(minted) => self.prepare_issued(attempt, minted)?,
            Err(fault) => self.prepare_failed(attempt, &fault)?,
        };
        let Prepared { issue, delivered, undelivered, failure } = prepared;
        let began = Instant::now();
        let verdict = self.store.issue(issue).instrument(spans::record()).await;
        self.metrics.step(Step::Durable, began.elapsed());
        let receipts = match verdict? {
            IssueVerdict::Moved => return Ok(None),
            IssueVerdict::Refused(refused) => {
                return self.make_room((decision, caller, ask), permit, refused).await.map(|()| None);
            }
            IssueVerdict::Recorded(receipts) => receipts,
        };
        for planned in &attempt.planned {
            self.metrics.made(planned.credential.target.kind(), failure.is_none());
        }
        if let Some(code) = failure {
            let detail =
                "a credential could not be made, so none was issued; the ledger says why under this decision";
            return Err(Refused::new(code, detail).of(decision));
        }
        // Entries went INTENT and ISSUED in turn, so every second receipt is that of an ISSUED.
        let receipts = receipts.into_iter().skip(1).step_by(2).collect();
        Ok(Some(self.delivery(attempt, delivered, receipts, undelivered)))
    }

    /// What is answered; one receipt an issuance, in order.
    pub(super) fn delivery(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        issuances: Vec<Delivered>,
        receipts: Vec<Receipt>,
        undelivered: Vec<Undelivered>,
    ) -> Exchanged {
        let receipts = issuances.iter().map(|each| each.id).zip(receipts).collect();
        let revocable = issuances.iter().filter(|each| each.revocable).map(|each| each.id).collect();
        let delivery = Delivery::new(self, undelivered, revocable);
        Exchanged { decision: attempt.decision, issuances, receipts, deadline: attempt.answer_by, delivery }
    }

    fn prepare_issued(&self, attempt: &Attempt<'_>, minted: Vec<Minted>) -> Result<Prepared, Refused> {
        let sealed_generation = minted.iter().filter_map(|each| each.sealed_generation).min();
        let mut prepared = Prepared::new(self.bare_issue(attempt, sealed_generation));
        for (planned, minted) in attempt.planned.iter().zip(minted) {
            let handle_bytes = Zeroizing::new(self.ambient.entropy.bytes::<32>()?);
            let handle = Secret::from_text(format!("hdl_{}", crockford(&*handle_bytes)));
            let row = self.row(attempt, planned, Some(&minted), Digest::of(handle.expose()));
            prepared.issue.entries.push(self.intent(attempt, planned)?);
            let result = issued_result(&row, &minted.told);
            let issued = outcome_draft(EntryCode::Issued, attempt, planned, result);
            prepared.issue.entries.push(self.seal(&issued)?);
            prepared.undelivered.push(Undelivered { issued, usable_until: row.expires_at });
            prepared.issue.rows.push(row.clone());
            prepared.delivered.push(Delivered::new(planned, row, handle, minted.fields));
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
        prepared.issue.stage = Stage::Failed;
        for planned in &attempt.planned {
            prepared.issue.entries.push(self.intent(attempt, planned)?);
            let result = json!({ "code": code.as_str(), "reason": reason, "minted": false });
            let failed = outcome_draft(EntryCode::Failed, attempt, planned, result);
            prepared.issue.entries.push(self.seal(&failed)?);
        }
        Ok(prepared)
    }

    pub(super) fn bare_issue(&self, attempt: &Attempt<'_>, sealed_generation: Option<u64>) -> Issue {
        let exp = attempt.caller.identity.token().exp;
        let leeway = self.settings.clock_leeway;
        Issue {
            decision: attempt.decision,
            claims: attempt.claims.clone(),
            once_until: after(exp, leeway.saturating_mul(2).saturating_add(ONCE_BEYOND)),
            rows: Vec::new(),
            entries: Vec::new(),
            stage: Stage::Whole,
            sealed_generation,
            now: self.ambient.clock.now(),
        }
    }

    /// The row of one credential, as far as it is known.
    pub(super) fn row(
        &self,
        attempt: &Attempt<'_>,
        planned: &Planned<'_>,
        minted: Option<&Minted>,
        handle: Digest,
    ) -> NewIssuance {
        let identity = &attempt.caller.identity;
        let kind = planned.credential.target.kind();
        let now = attempt.now;
        let lifetime = planned.credential.target.lifetime();
        let recover_after = after(now, self.settings.exchange_deadline.saturating_add(RECOVERY));
        // Where nobody knows its end, it is at most its TTL after whoever owns the row must have ended.
        let latest = after(recover_after, planned.credential.ttl.unwrap_or_default());
        let expires_at = minted.and_then(|minted| minted.expires_at);
        let live_until = (lifetime != Lifetime::Static).then(|| expires_at.unwrap_or(latest));
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
            expires_at,
            live_until,
            revocable: planned.credential.target.is_revocable(),
            owner: self.settings.replica,
            recover_after,
            making: planned.credential.target.making(),
        }
    }

    /// INTENT of one credential.
    pub(super) fn intent(&self, attempt: &Attempt<'_>, planned: &Planned<'_>) -> Result<Entry, Refused> {
        let Attempt { decision, caller, ask, .. } = attempt;
        let mut draft = of_decision(caller.draft(EntryCode::Intent), *decision);
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
            if let Some(given) = ask.input_of(planned.grant, planned.credential) {
                let digest = Digest::of(given.value.as_bytes()).to_string();
                members.insert("input".to_owned(), json!({ "name": given.name, "sha256": digest }));
            }
        }
        draft.request = Some(request);
        draft.personal.extend(reason_personal(ask));
        self.seal(&draft)
    }
}

/// An outcome names grant and credential; rule, file and target stand in INTENT, which no receipt shows.
pub(super) fn outcome_draft(
    code: EntryCode,
    attempt: &Attempt<'_>,
    planned: &Planned<'_>,
    result: Value,
) -> Draft {
    let Attempt { decision, caller, .. } = attempt;
    let mut draft = of_decision(caller.draft(code), *decision);
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

/// One try at the durable step.
pub(super) struct Attempt<'a> {
    pub(super) decision: DecisionId,
    pub(super) caller: &'a Caller,
    pub(super) ask: &'a Ask,
    pub(super) permit: &'a Permit,
    pub(super) claims: &'a Claims,
    pub(super) planned: Vec<Planned<'a>>,
    /// The one time of all its credentials.
    pub(super) now: Timestamp,
    pub(super) answer_by: Instant,
}

/// The durable step made ready, and what follows it.
struct Prepared {
    issue: Issue,
    delivered: Vec<Delivered>,
    undelivered: Vec<Undelivered>,
    failure: Option<Code>,
}

impl Prepared {
    fn new(issue: Issue) -> Self {
        Self { issue, delivered: Vec::new(), undelivered: Vec::new(), failure: None }
    }
}

impl Delivered {
    /// What the job is told of a row.
    pub(super) fn new(planned: &Planned<'_>, row: NewIssuance, handle: Secret, fields: Vec<Field>) -> Self {
        Self {
            id: row.id,
            handle,
            ttl_seconds: row.expires_at.map(|at| seconds_between(row.issued_at, at)),
            grant: row.grant,
            credential: row.credential,
            kind: planned.credential.target.kind(),
            fields,
            lifetime: row.lifetime,
            issued_at: row.issued_at,
            expires_at: row.expires_at,
            revocable: row.revocable,
        }
    }
}

/// Whether making something of it changes something elsewhere.
fn is_staged(permit: &Permit) -> bool {
    let mut credentials = permit.grants().iter().flat_map(|grant| &grant.credentials);
    credentials.any(|each| each.target.making() != Making::Harmless)
}

/// Whether it is one secret, as RFC 8693 has room for. What was fetched and does not fit is dropped.
pub(super) fn is_one_token(minted: &[&Minted]) -> bool {
    matches!(minted, [only] if only.fields.iter().filter(|field| field.is_secret).count() == 1)
}

/// Whether somebody still waits for the answer.
pub(super) fn in_time(deadline: Instant) -> Result<(), MintFault> {
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

/// `result` of ISSUED.
pub(super) fn issued_result(row: &NewIssuance, told: &Value) -> Value {
    let mut members = Map::new();
    members.insert("kind".to_owned(), row.kind.as_str().into());
    members.insert("lifetime".to_owned(), row.lifetime.as_str().into());
    members.insert("issued_at".to_owned(), row.issued_at.to_string().into());
    members.insert("expires_at".to_owned(), row.expires_at.map(|at| at.to_string()).into());
    members.insert("revocable".to_owned(), row.revocable.into());
    members.insert("told".to_owned(), told.clone());
    Value::Object(members)
}
