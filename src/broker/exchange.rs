//! The exchange, on one page: decide, fetch, one durable step, deliver. The order is proven by moved values:
//! [`Caller`] -> [`Permit`] -> fetched secrets -> receipts -> [`Exchanged`].
//!
//! Where making a credential changes nothing elsewhere, one durable step writes INTENT and ISSUED both, after the fetch:
//! that step stands in `issue`. Anything else takes two steps, with leases three: those stand in `staged`. What follows
//! them stands in `delivery` (design: the exchange, "Cost").

mod claims;
mod delivery;
mod inputs;
mod issue;
mod staged;

use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::Instant};
use tracing::Instrument as _;

pub(super) use self::delivery::Running;
pub use self::{delivery::Delivery, inputs::Given};
use super::{
    Broker,
    error::{Code, Refused},
    identify::{Caller, counted},
    metrics::{Permitted, Step},
    ports::{Field, Receipt, Refusal},
    record::{
        breaches, breaches_of, of_decision, policy_member, reason_personal, refusal_result, request_member,
        tried,
    },
    spans,
};
use crate::kernel::{
    digest::Digest,
    freeze::{Freezable, FreezeScope},
    id::{DecisionId, IssuanceId},
    ledger::entry::{Draft, EntryCode},
    lifetime::{Lifetime, after},
    name::{CredentialName, GrantName},
    policy::{
        decide::{self, Decision, Denial, Permit, PermittedCredential, PermittedGrant, Request, Usable},
        target::Kind,
    },
    secret::Secret,
};

/// The most credentials of one exchange (design: section 3).
const MAX_CREDENTIALS: usize = 16;

/// What a job asks for, read strictly at the wire.
pub struct Ask {
    /// The grants.
    pub request: Request,
    /// Why, in the job's words; at most 256 characters.
    pub reason: Option<String>,
    /// Whether to decide only.
    pub dry_run: bool,
    /// What the job gives to the making of credentials.
    pub inputs: Vec<Given>,
    /// The idempotency key.
    pub retry: Option<RetryKey>,
    /// What the answer can carry.
    pub room: Room,
}

/// What an answer can carry; what does not fit is no permit (design: section 3, `/v1/token`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// All that was asked for.
    Any,
    /// One token (RFC 8693): one credential with one secret field, of this type where the caller wants one.
    OneToken(Option<TokenType>),
}

/// What a credential is in the words of RFC 8693 section 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenType {
    /// A JWT.
    Jwt,
    /// Some other secret, such as a password or an API key.
    Secret,
}

impl TokenType {
    /// What a kind yields.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Oidc => Self::Jwt,
            Kind::Aws | Kind::Sealed | Kind::Vault => Self::Secret,
        }
    }
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
    /// When it is too late to answer.
    pub deadline: Instant,
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
        let deadline = Instant::now() + self.settings.exchange_deadline;
        let work = async move {
            let underway = broker.metrics.begin();
            let outcome = broker.run(&caller, &ask, deadline).await;
            drop(underway);
            broker.metrics.exchanged(outcome.as_ref().map(permitted), caller.began.elapsed());
            spans::exchanged(outcome.as_ref().map(permitted));
            // A caller that is gone drops the outcome, and with it its `Delivery`: that records UNDELIVERED.
            drop(answer.send(outcome));
        };
        self.tasks.spawn(work.instrument(spans::exchange()));
        let outcome = tokio::select! {
            biased;
            outcome = answered => outcome.unwrap_or_else(|_| {
                Err(Refused::new(Code::Internal, "the exchange broke off; nothing was delivered"))
            }),
            () = tokio::time::sleep_until(deadline) => Err(late()),
            fault = self.unwritable() => return Err(fault),
        };
        // A process that was held still wakes with its answer and its deadline both there: the deadline counts.
        if Instant::now() < deadline { outcome } else { outcome.and(Err(late())) }
    }

    /// Ends when the ledger cannot be written any more.
    async fn unwritable(&self) -> Refused {
        loop {
            tokio::time::sleep(LOOK_AT_LEDGER).await;
            if let Err(fault) = self.store.health() {
                return fault.into();
            }
        }
    }

    /// The grants that this caller may use now; what is frozen cannot be used.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`.
    pub async fn grants(&self, caller: &Caller) -> Result<Vec<GrantView>, Refused> {
        let now = self.ambient.clock.now();
        let usable = decide::usable(&caller.policy, &caller.identity, now);
        let names = usable.iter().map(|each| each.grant.name.clone()).collect();
        let frozen = self.store.frozen(caller.freezable(names, true)).await?;
        let is_grant = |scope: &FreezeScope| matches!(scope, FreezeScope::Grant(_));
        if !frozen.iter().all(is_grant) {
            return Ok(Vec::new());
        }
        let mut views: Vec<GrantView> = usable.into_iter().map(grant_view).collect();
        views.retain(|view| !frozen.contains(&FreezeScope::Grant(view.name.clone())));
        Ok(views)
    }

    async fn run(
        self: &Arc<Self>,
        caller: &Caller,
        ask: &Ask,
        deadline: Instant,
    ) -> Result<Outcome, Refused> {
        if names_twice(&ask.request) {
            let detail = "a grant, or a credential within a grant, is named twice; name each once";
            return Err(Refused::new(Code::RequestMalformed, detail));
        }
        let now = self.ambient.clock.now();
        let decision = DecisionId::new(now, self.ambient.entropy.bytes()?);
        let began = Instant::now();
        let verdict =
            spans::decide().in_scope(|| decide::decide(&caller.policy, &caller.identity, &ask.request, now));
        self.metrics.step(Step::Decide, began.elapsed());
        let permit = match verdict {
            Decision::Permit(permit) => permit,
            Decision::Deny(denial) => return Err(self.deny(decision, caller, ask, denial).await),
        };
        if permit.grants().iter().map(|grant| grant.credentials.len()).sum::<usize>() > MAX_CREDENTIALS {
            let detail = "these grants have more than 16 credentials together; name those that you need";
            let answer = Refused::new(Code::RequestMalformed, detail);
            return Err(self.refuse(decision, caller, ask, answer, "too-many-credentials").await);
        }
        if let Err((answer, reason)) = fits(ask.room, &permit) {
            return Err(self.refuse(decision, caller, ask, answer, reason).await);
        }
        if permit.ttl_out_of_range().is_some() {
            let answer = Refused::new(
                Code::TtlOutOfRange,
                "the requested ttl_seconds is below what this kind of credential can have",
            );
            return Err(self.refuse(decision, caller, ask, answer, "ttl-below-kind").await);
        }
        if let Err((detail, reason)) = inputs::fit(ask, &permit) {
            let answer = Refused::new(Code::InputInvalid, detail);
            return Err(self.refuse(decision, caller, ask, answer, reason).await);
        }
        if ask.dry_run {
            return self.dry_run(decision, caller, ask, &permit).await.map(Outcome::DryRun);
        }
        self.issue((decision, caller, ask), &permit, deadline).await.map(Outcome::Issued)
    }

    async fn deny(&self, decision: DecisionId, caller: &Caller, ask: &Ask, denial: Denial) -> Refused {
        let answer = Refused {
            failed_claims: denial.failed_claims,
            ..Refused::new(Code::AccessDenied, DENIED).of(decision)
        };
        let mut result = refusal_result(Code::AccessDenied, denial.reason);
        if let Value::Object(members) = &mut result {
            let (told, is_cut) = tried(&denial.trace);
            members.insert("tried".to_owned(), told);
            if is_cut {
                members.insert("tried_cut".to_owned(), true.into());
            }
            if !denial.breaches.is_empty() {
                members.insert("breaches".to_owned(), breaches(&denial.breaches));
            }
        }
        let draft = self.refusal_draft(decision, caller, ask, result);
        self.record_refusal(draft, caller, denial.reason, Weight::Denial).await.err().unwrap_or(answer)
    }

    /// Records a refusal. Denials and replays count against the token, other faults of a request do not.
    async fn refuse(
        &self,
        decision: DecisionId,
        caller: &Caller,
        ask: &Ask,
        answer: Refused,
        reason: &'static str,
    ) -> Refused {
        let draft = self.refusal_draft(decision, caller, ask, refusal_result(answer.code, reason));
        self.refuse_as(draft, caller, answer.of(decision), reason).await
    }

    /// The same under an entry that says more.
    async fn refuse_as(
        &self,
        draft: Draft,
        caller: &Caller,
        answer: Refused,
        reason: &'static str,
    ) -> Refused {
        let weight = if answer.code == Code::TokenReplayed {
            Weight::Replay
        } else if answer.code == Code::AccessDenied {
            Weight::Denial
        } else {
            Weight::Fault
        };
        self.record_refusal(draft, caller, reason, weight).await.err().unwrap_or(answer)
    }

    pub(super) fn refusal_draft(
        &self,
        decision: DecisionId,
        caller: &Caller,
        ask: &Ask,
        result: Value,
    ) -> Draft {
        let mut draft = of_decision(caller.draft(EntryCode::Denied), decision);
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
            entry: self.seal(&draft)?,
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
        if let Some(scope) = self.store.frozen(freezable(caller, permit)).await?.first() {
            return Err(self.refuse_freeze((decision, caller, ask), scope).await);
        }
        let previews: Vec<Preview> = permit
            .grants()
            .iter()
            .flat_map(|grant| grant.credentials.iter().map(move |credential| preview(grant, credential)))
            .collect();
        let would_issue: Vec<Value> = permit
            .grants()
            .iter()
            .flat_map(|grant| grant.credentials.iter().map(move |credential| would_issue(grant, credential)))
            .collect();
        let mut draft = self.refusal_draft(decision, caller, ask, json!({ "would_issue": would_issue }));
        draft.code = Some(EntryCode::DryRun);
        self.store.append(vec![self.seal(&draft)?]).await?;
        Ok(DryRun { decision, previews })
    }
}

fn permitted(outcome: &Outcome) -> Permitted {
    match outcome {
        Outcome::DryRun(_) => Permitted::DryRun,
        Outcome::Issued(_) => Permitted::Issued,
    }
}

/// What a freeze may hold of a permit.
fn freezable(caller: &Caller, permit: &Permit) -> Freezable {
    caller.freezable(permit.grants().iter().map(|grant| grant.name.clone()).collect(), true)
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

/// Whether the answer can carry what is permitted. Too much is the same denial as no permit at all: how many
/// credentials a grant has is policy (P8).
fn fits(room: Room, permit: &Permit) -> Result<(), (Refused, &'static str)> {
    let Room::OneToken(wanted) = room else { return Ok(()) };
    let mut credentials = permit.grants().iter().flat_map(|grant| &grant.credentials);
    let (Some(credential), None) = (credentials.next(), credentials.next()) else {
        return Err((Refused::new(Code::AccessDenied, DENIED), "several-credentials"));
    };
    if wanted.is_some_and(|wanted| wanted != TokenType::of(credential.target.kind())) {
        let detail = "this credential is no token of the requested type; leave `requested_token_type` out";
        return Err((Refused::new(Code::InputInvalid, detail), "token-type"));
    }
    Ok(())
}

/// Whether one use would be asked for twice; the once-claims could not tell those two apart.
fn names_twice(request: &Request) -> bool {
    let mut grants = HashSet::new();
    request.grants.iter().any(|grant| {
        let mut credentials = HashSet::new();
        let mut named = grant.credentials.iter().flatten();
        !grants.insert(&grant.name) || named.any(|name| !credentials.insert(name))
    })
}

/// A dry run's counterpart of INTENT: no receipt shows it, so it names rule and file.
fn would_issue(grant: &PermittedGrant, credential: &PermittedCredential) -> Value {
    let mut told = json!({
        "grant": grant.name.as_str(), "class": grant.class.as_str(), "rule": grant.rule.as_str(),
        "file": *grant.file, "credential": credential.name.as_str(),
        "kind": credential.target.kind().as_str(), "target": credential.target.as_str(),
        "ttl_seconds": credential.ttl.map(|ttl| ttl.as_secs()),
    });
    if let (Some(would_deny), Value::Object(members)) = (breaches_of(grant, credential), &mut told) {
        members.insert("would_deny".to_owned(), would_deny);
    }
    told
}

fn preview(grant: &PermittedGrant, credential: &PermittedCredential) -> Preview {
    let target = &credential.target;
    Preview {
        grant: grant.name.clone(),
        credential: credential.name.clone(),
        kind: target.kind(),
        lifetime: target.lifetime(),
        ttl_seconds: credential.ttl.map(|ttl| ttl.as_secs()),
        revocable: target.is_revocable(),
    }
}

fn grant_view(usable: Usable<'_>) -> GrantView {
    let view = |credential: PermittedCredential| CredentialView {
        kind: credential.target.kind(),
        max_ttl_seconds: credential.ttl.map(|ttl| ttl.as_secs()),
        name: credential.name,
    };
    GrantView {
        name: usable.grant.name.clone(),
        description: usable.grant.description.clone(),
        credentials: usable.credentials.into_iter().map(view).collect(),
    }
}

fn late() -> Refused {
    Refused::new(Code::LedgerUnavailable, "the exchange passed its deadline; try again").retry_after(1)
}

/// How often an exchange that waits looks whether the ledger answers at all: it must be refused within a second.
const LOOK_AT_LEDGER: Duration = Duration::from_millis(100);

/// The one answer to everything that policy does not permit (P8).
pub(super) const DENIED: &str =
    "no policy permits this; give the decision id to whoever keeps your organisation's policies";
