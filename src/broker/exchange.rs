//! The exchange, on one page: decide, fetch, one durable step, deliver. The order is proven by moved values:
//! [`Caller`] -> [`Permit`] -> fetched secrets -> receipts -> [`Exchanged`].
//!
//! Every credential of this version is sealed or an assertion of our own, so making it changes nothing elsewhere:
//! one durable step writes INTENT and ISSUED both, after the fetch (design: the exchange, "Cost").

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::{
    Broker,
    error::{Code, Refused},
    identify::{Caller, counted},
    ports::{Field, Issue, IssueVerdict, KeyClaim, MintFault, Minted, NewIssuance, Order, Receipt, Refusal},
    record::{of_decision, policy_member, reason_personal, refusal_result, request_member},
};
use crate::kernel::{
    digest::Digest,
    id::{DecisionId, IssuanceId, crockford},
    ledger::entry::{Draft, Entry, EntryCode},
    lifetime::{Lifetime, after},
    name::{CredentialName, GrantName},
    policy::{
        decide::{self, Decision, Denial, Permit, PermittedCredential, PermittedGrant, Request},
        set::Grant,
        target::Kind,
    },
    secret::Secret,
};

/// How often a fetch is repeated because the sealed store changed under it.
const FETCHES: usize = 3;

/// What a job asks for, read strictly at the wire.
pub struct Ask {
    /// The grants.
    pub request: Request,
    /// Why, in the job's words; at most 256 characters.
    pub reason: Option<String>,
    /// Whether to decide only.
    pub dry_run: bool,
    /// (grant, credential) pairs that carry an input.
    pub inputs: Vec<(String, String)>,
    /// The idempotency key.
    pub retry: Option<RetryKey>,
}

/// An idempotency key with what it was sent for.
pub struct RetryKey {
    /// 16 to 64 visible ASCII.
    pub key: String,
    /// Digest of route and body.
    pub body: Digest,
}

/// What an exchange came to.
pub enum Outcome {
    /// A dry run.
    DryRun(DryRun),
    /// Credentials.
    Issued(Exchanged),
}

/// The answer to a dry run.
pub struct DryRun {
    /// The decision.
    pub decision: DecisionId,
    /// What would be issued.
    pub previews: Vec<Preview>,
}

/// A credential that would be issued.
pub struct Preview {
    /// Its grant.
    pub grant: GrantName,
    /// Its name.
    pub credential: CredentialName,
    /// Its kind.
    pub kind: Kind,
    /// What bounds its life.
    pub lifetime: Lifetime,
    /// Its TTL; `None` where static.
    pub ttl_seconds: Option<u64>,
    /// Whether it could be revoked.
    pub revocable: bool,
}

/// Credentials whose ISSUED entries are durable (P1).
pub struct Exchanged {
    /// The decision.
    pub decision: DecisionId,
    /// The credentials.
    pub issuances: Vec<Delivered>,
    /// One receipt an issuance.
    pub receipts: Vec<(IssuanceId, Receipt)>,
    /// Must be confirmed when the last byte left.
    pub delivery: Delivery,
}

/// One credential on its way to the job.
pub struct Delivered {
    /// The issuance.
    pub id: IssuanceId,
    /// The bearer right to look after it, `hdl_…`.
    pub handle: Secret,
    /// Its grant.
    pub grant: GrantName,
    /// Its name.
    pub credential: CredentialName,
    /// Its kind.
    pub kind: Kind,
    /// Its fields.
    pub fields: Vec<Field>,
    /// What bounds its life.
    pub lifetime: Lifetime,
    /// Issued at.
    pub issued_at: Timestamp,
    /// Ends at; `None` where static.
    pub expires_at: Option<Timestamp>,
    /// Its TTL; `None` where static.
    pub ttl_seconds: Option<u64>,
    /// Whether it can be revoked.
    pub revocable: bool,
}

/// Stands for the bytes on their way: dropped without [`Delivery::confirm`], UNDELIVERED is recorded.
pub struct Delivery {
    pending: Option<Pending>,
}

struct Pending {
    broker: Arc<Broker>,
    runtime: tokio::runtime::Handle,
    drafts: Vec<Draft>,
}

/// A grant that a caller may use now.
pub struct GrantView {
    /// Its name.
    pub name: GrantName,
    /// For people.
    pub description: String,
    /// What it yields.
    pub credentials: Vec<CredentialView>,
}

/// A credential of such a grant.
pub struct CredentialView {
    /// Its name.
    pub name: CredentialName,
    /// Its kind.
    pub kind: Kind,
    /// The greatest TTL; `None` where static.
    pub max_ttl_seconds: Option<u64>,
}

/// Keyed calls that are running in this process, with the digest of what they ask.
#[derive(Default)]
pub(super) struct Running(Mutex<HashMap<Digest, Digest>>);

/// One credential, decided and named, not yet fetched.
struct Planned<'a> {
    id: IssuanceId,
    grant: &'a PermittedGrant,
    credential: &'a PermittedCredential,
}

impl Broker {
    /// Exchanges. The work is a tracked task that outlives the caller's connection; the answer comes within the
    /// exchange's deadline, and what comes later is recorded as undelivered.
    ///
    /// # Errors
    ///
    /// [`Refused`] with the first fault in the contract's order, from `access_denied` on.
    pub async fn exchange(self: &Arc<Self>, caller: Caller, ask: Ask) -> Result<Outcome, Refused> {
        let (answer, answered) = oneshot::channel();
        let broker = Arc::clone(self);
        self.tasks.spawn(async move {
            let outcome = broker.run(&caller, &ask).await;
            // A caller that is gone drops the outcome, and with it its `Delivery`: that records UNDELIVERED.
            drop(answer.send(outcome));
        });
        match tokio::time::timeout(self.settings.exchange_deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Refused::new(Code::Internal, "the exchange broke off; nothing was delivered")),
            Err(_) => {
                Err(Refused::new(Code::LedgerUnavailable, "the exchange passed its deadline; try again")
                    .retry_after(1))
            }
        }
    }

    /// The grants that this caller may use now.
    pub fn grants(&self, caller: &Caller) -> Vec<GrantView> {
        let now = self.ambient.clock.now();
        decide::usable(&caller.policy, &caller.identity, now).into_iter().map(grant_view).collect()
    }

    async fn run(self: &Arc<Self>, caller: &Caller, ask: &Ask) -> Result<Outcome, Refused> {
        let now = self.ambient.clock.now();
        let decision = DecisionId::new(now, self.ambient.entropy.bytes()?);
        let permit = match decide::decide(&caller.policy, &caller.identity, &ask.request, now) {
            Decision::Permit(permit) => permit,
            Decision::Deny(denial) => return Err(self.deny(decision, caller, ask, denial).await),
        };
        if permit.ttl_out_of_range().is_some() {
            let answer = Refused::new(
                Code::TtlOutOfRange,
                "the requested ttl_seconds is below what this kind of credential can have",
            );
            return Err(self.refuse(decision, caller, ask, answer, "ttl-below-kind").await);
        }
        if !ask.inputs.is_empty() {
            let answer = Refused::new(
                Code::InputInvalid,
                "no credential of this request takes an input; remove `inputs`",
            );
            return Err(self.refuse(decision, caller, ask, answer, "input-extra").await);
        }
        if ask.dry_run {
            return self.dry_run(decision, caller, ask, &permit).await.map(Outcome::DryRun);
        }
        self.issue(decision, caller, ask, &permit).await.map(Outcome::Issued)
    }

    async fn deny(&self, decision: DecisionId, caller: &Caller, ask: &Ask, denial: Denial) -> Refused {
        let tried: Vec<Value> = denial
            .trace
            .iter()
            .take(32)
            .map(|tried| {
                let rule = tried.rule.as_ref().map(|rule| rule.as_str());
                let grant: String = tried.grant.chars().take(64).collect();
                json!({ "grant": grant, "rule": rule, "failed": tried.failed })
            })
            .collect();
        let answer = Refused::new(Code::AccessDenied, DENIED).of(decision);
        let mut result = refusal_result(Code::AccessDenied, denial.reason);
        if let Value::Object(members) = &mut result {
            members.insert("tried".to_owned(), tried.into());
        }
        let draft = self.refusal_draft(decision, caller, ask, result);
        self.record_refusal(draft, caller, denial.reason, Weight::Denial).await.err().unwrap_or(answer)
    }

    /// Records a refusal that is no denial by policy; it does not count against the token.
    async fn refuse(
        &self,
        decision: DecisionId,
        caller: &Caller,
        ask: &Ask,
        answer: Refused,
        reason: &'static str,
    ) -> Refused {
        let weight = if answer.code == Code::TokenReplayed { Weight::Replay } else { Weight::Fault };
        let draft = self.refusal_draft(decision, caller, ask, refusal_result(answer.code, reason));
        self.record_refusal(draft, caller, reason, weight).await.err().unwrap_or_else(|| answer.of(decision))
    }

    fn refusal_draft(&self, decision: DecisionId, caller: &Caller, ask: &Ask, result: Value) -> Draft {
        let mut draft =
            of_decision(self.draft(EntryCode::Denied, &caller.identity, &caller.origin), decision);
        draft.policy = Some(policy_member(&caller.policy).into());
        draft.request = Some(request_member(caller, ask));
        draft.result = Some(result);
        draft.personal.extend(reason_personal(ask));
        draft
    }

    async fn record_refusal(
        &self,
        draft: Draft,
        caller: &Caller,
        sample: &str,
        weight: Weight,
    ) -> Result<(), Refused> {
        let identity = &caller.identity;
        let token = identity.token();
        let against = match weight {
            Weight::Denial | Weight::Replay => Some((token.id, after(token.exp, self.settings.clock_leeway))),
            Weight::Fault => None,
        };
        let refusal = Refusal {
            entry: self.seal(draft)?,
            counted: counted(identity, &caller.policy),
            always: matches!(weight, Weight::Replay),
            against,
            sample: sample.to_owned(),
            now: self.ambient.clock.now(),
        };
        Ok(self.store.refuse(refusal).await?)
    }

    async fn dry_run(
        &self,
        decision: DecisionId,
        caller: &Caller,
        ask: &Ask,
        permit: &Permit,
    ) -> Result<DryRun, Refused> {
        let previews: Vec<Preview> = permit
            .grants()
            .iter()
            .flat_map(|grant| grant.credentials.iter().map(move |credential| preview(grant, credential)))
            .collect();
        let told: Vec<Value> = previews
            .iter()
            .map(|each| json!({ "grant": each.grant.as_str(), "credential": each.credential.as_str(), "kind": each.kind.as_str() }))
            .collect();
        let mut draft = self.refusal_draft(decision, caller, ask, json!({ "would_issue": told }));
        draft.code = Some(EntryCode::DryRun);
        self.store.append(vec![self.seal(draft)?]).await?;
        Ok(DryRun { decision, previews })
    }

    async fn issue(
        self: &Arc<Self>,
        decision: DecisionId,
        caller: &Caller,
        ask: &Ask,
        permit: &Permit,
    ) -> Result<Exchanged, Refused> {
        let claim = ask.retry.as_ref().map(|retry| self.key_claim(caller, retry));
        let _running = match self.running.enter(claim) {
            Ok(running) => running,
            Err((answer, reason)) => return Err(self.refuse(decision, caller, ask, answer, reason).await),
        };
        for _ in 0..FETCHES {
            let planned = self.plan(permit)?;
            let fetched = self.fetch(&planned).await;
            let attempt = Attempt { decision, caller, ask, claim, planned };
            if let Some(answer) = self.commit(attempt, fetched).await? {
                return answer;
            }
        }
        let answer = Refused::new(Code::BackendFailed, "the secrets store kept changing; try again");
        Err(self.refuse(decision, caller, ask, answer, "sealed-store-moved").await)
    }

    fn plan<'a>(&self, permit: &'a Permit) -> Result<Vec<Planned<'a>>, Refused> {
        let now = self.ambient.clock.now();
        let mut planned = Vec::new();
        for grant in permit.grants() {
            for credential in &grant.credentials {
                let id = IssuanceId::new(now, self.ambient.entropy.bytes()?);
                planned.push(Planned { id, grant, credential });
            }
        }
        Ok(planned)
    }

    async fn fetch(&self, planned: &[Planned<'_>]) -> Result<Vec<Minted>, MintFault> {
        let mut fetched = Vec::with_capacity(planned.len());
        for each in planned {
            let order = Order {
                issuance: each.id,
                grant: each.grant.name.clone(),
                credential: each.credential.name.clone(),
                target: each.credential.target.clone(),
                ttl: each.credential.ttl,
                now: self.ambient.clock.now(),
            };
            let Some(minter) = self.minters.get(&order.target.kind()) else {
                return Err(MintFault::Failed { reason: "kind-not-wired", sealed_generation: None });
            };
            let minted = tokio::time::timeout(self.settings.mint_deadline, minter.fetch(&order));
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
        let Attempt { decision, caller, ask, .. } = attempt;
        let prepared = match fetched {
            Ok(minted) => self.prepare_issued(&attempt, minted)?,
            Err(fault) => self.prepare_failed(&attempt, &fault)?,
        };
        let Prepared { issue, delivered, undelivered, failure } = prepared;
        match self.store.issue(issue).await? {
            IssueVerdict::Moved => Ok(None),
            IssueVerdict::Mismatch => {
                Ok(Some(Err(self.refuse(decision, caller, ask, mismatch(), "idempotency-other-body").await)))
            }
            IssueVerdict::Replayed => {
                let detail =
                    "this token was already used for this credential; have the CI system mint a new one";
                let answer = Refused::new(Code::TokenReplayed, detail);
                Ok(Some(Err(self.refuse(decision, caller, ask, answer, "replayed").await)))
            }
            IssueVerdict::Recorded(receipts) => Ok(Some(match failure {
                Some(code) => {
                    let detail = "a credential could not be made, so none was issued; the ledger says why under this decision";
                    Err(Refused::new(code, detail).of(decision))
                }
                None => Ok(self.delivery(decision, delivered, receipts, undelivered)),
            })),
        }
    }

    fn delivery(
        self: &Arc<Self>,
        decision: DecisionId,
        issuances: Vec<Delivered>,
        receipts: Vec<Receipt>,
        drafts: Vec<Draft>,
    ) -> Exchanged {
        // Entries went INTENT and ISSUED in turn, so every second receipt is that of an ISSUED.
        let receipts =
            issuances.iter().map(|each| each.id).zip(receipts.into_iter().skip(1).step_by(2)).collect();
        let runtime = tokio::runtime::Handle::current();
        let pending = Pending { broker: Arc::clone(self), runtime, drafts };
        Exchanged { decision, issuances, receipts, delivery: Delivery { pending: Some(pending) } }
    }

    fn prepare_issued(&self, attempt: &Attempt<'_>, minted: Vec<Minted>) -> Result<Prepared, Refused> {
        let now = self.ambient.clock.now();
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
                issued_at: now,
                expires_at: row.expires_at,
                ttl_seconds: row
                    .expires_at
                    .and_then(|at| u64::try_from(at.as_second() - now.as_second()).ok()),
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
        let identity = &attempt.caller.identity;
        let leeway = self.settings.clock_leeway;
        let once = attempt
            .planned
            .iter()
            .map(|each| {
                // (issuer, token id, grant, credential, use): P3. `use` is always the first in this version.
                Digest::of_parts(&[
                    identity.issuer().as_str().as_bytes(),
                    &identity.token().id.0,
                    each.grant.name.as_str().as_bytes(),
                    each.credential.name.as_str().as_bytes(),
                    &[1],
                ])
            })
            .collect();
        Issue {
            decision: attempt.decision,
            once,
            once_until: after(identity.token().exp, 2 * leeway + Duration::from_secs(60)),
            key: attempt.claim,
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
        let now = self.ambient.clock.now();
        NewIssuance {
            id: planned.id,
            grant: planned.grant.name.clone(),
            credential: planned.credential.name.clone(),
            kind,
            handle,
            issuer: identity.issuer().clone(),
            token: identity.token().id,
            job: identity.job_key().map(|key| Digest::of(key.as_bytes())),
            lifetime: kind.lifetime(),
            issued_at: now,
            expires_at: minted.expires_at,
            revocable: kind.is_revocable(),
            owner: self.settings.replica,
            recover_after: after(now, self.settings.exchange_deadline + Duration::from_secs(30)),
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
        draft.policy = Some(policy.into());
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

/// One try at the durable step.
struct Attempt<'a> {
    decision: DecisionId,
    caller: &'a Caller,
    ask: &'a Ask,
    claim: Option<KeyClaim>,
    planned: Vec<Planned<'a>>,
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

/// What a refusal weighs.
#[derive(Clone, Copy)]
enum Weight {
    /// By policy: counts against the token.
    Denial,
    /// Of a request that is at fault otherwise.
    Fault,
    /// A replay: counts against the token, and is always an entry.
    Replay,
}

impl Delivery {
    /// The last byte left: nothing more is recorded.
    pub fn confirm(mut self) {
        self.pending = None;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(Pending { broker, runtime, drafts }) = self.pending.take() else { return };
        let tasks = broker.tasks.clone();
        tasks.spawn_on(
            async move {
                let sealed: Result<Vec<Entry>, Refused> =
                    drafts.into_iter().map(|draft| broker.seal(draft)).collect();
                let Ok(entries) = sealed else { return };
                if let Err(fault) = broker.store.append(entries).await {
                    tracing::error!(%fault, "an undelivered answer could not be recorded");
                }
            },
            &runtime,
        );
    }
}

/// Keeps a keyed call's place until it is dropped.
struct RunningCall<'a> {
    running: &'a Running,
    key: Option<Digest>,
}

impl Running {
    fn enter(&self, claim: Option<KeyClaim>) -> Result<RunningCall<'_>, (Refused, &'static str)> {
        let Some(KeyClaim { key, body }) = claim else { return Ok(RunningCall { running: self, key: None }) };
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match calls.get(&key) {
            Some(other) if *other != body => Err((mismatch(), "idempotency-other-body")),
            Some(_) => {
                let detail =
                    "the first call with this Idempotency-Key is still running; ask again in a moment";
                Err((Refused::new(Code::RequestInProgress, detail), "idempotency-in-progress"))
            }
            None => {
                calls.insert(key, body);
                Ok(RunningCall { running: self, key: Some(key) })
            }
        }
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        }
    }
}

fn mismatch() -> Refused {
    let detail = "this Idempotency-Key was used for another request; use a new key for a new request";
    Refused::new(Code::IdempotencyMismatch, detail)
}

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

fn preview(grant: &PermittedGrant, credential: &PermittedCredential) -> Preview {
    let kind = credential.target.kind();
    Preview {
        grant: grant.name.clone(),
        credential: credential.name.clone(),
        kind,
        lifetime: kind.lifetime(),
        ttl_seconds: credential.ttl.map(|ttl| ttl.as_secs()),
        revocable: kind.is_revocable(),
    }
}

fn grant_view(grant: &Grant) -> GrantView {
    GrantView {
        name: grant.name.clone(),
        description: grant.description.clone(),
        credentials: grant
            .credentials
            .iter()
            .map(|(name, credential)| CredentialView {
                name: name.clone(),
                kind: credential.target.0.kind(),
                max_ttl_seconds: credential.ttl.map(|ttl| ttl.as_secs()),
            })
            .collect(),
    }
}

/// The one answer to everything that policy does not permit (P8).
const DENIED: &str =
    "no policy permits this; give the decision id to whoever keeps your organisation's policies";
