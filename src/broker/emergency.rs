//! What an operator does in an emergency: freeze, thaw, revoke (design: section 8, "Emergency"). Commands and the admin
//! API come here both, so that their entries and their effects are the same; every broker of the store is bound by the
//! transaction, and none is told.
//!
//! Freezing stops what is not issued yet, revoking ends what is. Who wants both freezes first.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Broker,
    error::{Code, Refused},
    exchange::{Ask, DENIED},
    identify::{Caller, counted},
    ports::{IssuanceRow, Refusal, Selection, Store, Transit, Transition},
    record::refusal_result,
};
use crate::kernel::{
    digest::Digest,
    freeze::{Freezable, Freeze, FreezeScope},
    id::{DecisionId, IssuanceId},
    issuance::{Event, State},
    ledger::entry::{Draft, Entry, EntryCode, Personal},
    name::{GrantName, IssuerName},
    policy::target::Kind,
};

/// The longest reason, in characters: as long as a job's (design: section 3).
pub const MAX_REASON_CHARS: usize = 256;

/// Rows of one transaction: exchanges wait behind it.
const PAGE: u32 = 200;

/// An operator at work on a store.
pub struct Operator<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// `os:UID`, or the name of a token of the admin API.
    pub name: &'a str,
    /// Seals what is recorded.
    pub seal: &'a (dyn Fn(Draft) -> Result<Entry, Refused> + Send + Sync),
    /// The time.
    pub now: Timestamp,
}

/// What became of a freeze.
pub enum Imposed {
    /// It stood already; nothing was changed or recorded.
    Already(Freeze),
    /// It holds from now on.
    Now(Freeze),
}

/// Which issuances an operator means; whatever is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Sought {
    /// Of this grant.
    pub grant: Option<GrantName>,
    /// Of this issuer's project.
    pub project: Option<(IssuerName, String)>,
    /// Issued then or later.
    pub since: Option<Timestamp>,
}

/// What a revocation came to.
#[derive(Default)]
pub struct Revocation {
    /// Revoked at their backends.
    pub revoked: Vec<Ended>,
    /// Being revoked.
    pub queued: Vec<Ended>,
    /// Nobody can revoke them: released, and usable as long as each says.
    pub irrevocable: Vec<Ended>,
}

/// One issuance of a revocation.
pub struct Ended {
    /// The issuance.
    pub id: IssuanceId,
    /// Its grant.
    pub grant: String,
    /// Its credential.
    pub credential: String,
    /// Until when it may be usable; `None` where static.
    pub usable_until: Option<Timestamp>,
    /// What an operator can do about it, where nobody can revoke it and there is something.
    pub remedy: Option<&'static str>,
}

impl Operator<'_> {
    /// Freezes. Of a key the thumbprints are given where somebody knows it; where nobody does, it holds by its name.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`, `internal`; then nothing is frozen.
    pub async fn freeze(
        &self,
        scope: FreezeScope,
        thumbprints: Vec<Digest>,
        reason: String,
    ) -> Result<Imposed, Refused> {
        let entry = self.told(EntryCode::Frozen, &scope, &thumbprints, &reason)?;
        let freeze = Freeze { scope, thumbprints, by: self.name.to_owned(), reason, at: self.now };
        match self.store.freeze(freeze.clone(), entry).await? {
            Some(standing) => Ok(Imposed::Already(standing)),
            None => Ok(Imposed::Now(freeze)),
        }
    }

    /// Ends a freeze; false where there is none.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`, `internal`; then it stands.
    pub async fn thaw(&self, scope: FreezeScope, reason: &str) -> Result<bool, Refused> {
        let entry = self.told(EntryCode::Thawed, &scope, &[], reason)?;
        Ok(self.store.thaw(scope, entry).await?)
    }

    /// Ends every usable issuance that is meant: what can be revoked is queued, the rest is released. Newer ones are
    /// met too as long as it works; only a freeze keeps out those that come after. A dry run only looks.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`, `internal`; what was ended until then stays so, and asking again goes on.
    pub async fn revoke(&self, sought: &Sought, reason: &str, is_dry: bool) -> Result<Revocation, Refused> {
        let Sought { grant, project, since } = sought.clone();
        let selection = Selection::Usable { grant, project, since, now: self.now };
        let mut revocation = Revocation::default();
        let mut past = None;
        loop {
            let rows = self.store.issuances(selection.clone(), past, PAGE).await?;
            let Some(last) = rows.last() else { return Ok(revocation) };
            past = Some(last.id);
            let moved = if is_dry { Vec::new() } else { self.end(&rows, reason).await? };
            for row in rows {
                match ending(&row) {
                    // Somebody else ended it meanwhile.
                    Some(_) if !is_dry && !moved.contains(&row.id) => {}
                    Some(Event::RevokeAsked) => revocation.queued.push(ended(row)),
                    Some(_) | None => revocation.irrevocable.push(ended(row)),
                }
            }
        }
    }

    async fn end(&self, rows: &[IssuanceRow], reason: &str) -> Result<Vec<IssuanceId>, Refused> {
        let mut transitions = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(event) = ending(row) else { continue };
            let mut draft = ending_draft(Draft::default(), row, event, "operator");
            if let Some(Value::Object(result)) = &mut draft.result {
                result.insert("by".to_owned(), self.name.into());
            }
            draft.personal.push(personal_reason(reason));
            transitions.push(Transition::new(row.id, event, (self.seal)(draft)?));
        }
        Ok(self.store.transit(Transit::each(transitions, self.now)).await?.moved)
    }

    fn told(
        &self,
        code: EntryCode,
        scope: &FreezeScope,
        thumbprints: &[Digest],
        reason: &str,
    ) -> Result<Entry, Refused> {
        let mut result = scope_members(scope);
        result.insert("by".to_owned(), self.name.into());
        if !thumbprints.is_empty() {
            result.insert("thumbprints".to_owned(), thumbprints_member(thumbprints));
        }
        let personal = vec![personal_reason(reason)];
        (self.seal)(Draft { result: Some(result.into()), personal, ..Draft::of(code) })
    }
}

impl Broker {
    /// Lets an operator of the admin API work.
    pub async fn as_operator<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(&Operator<'_>) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let seal = |draft: Draft| self.seal(&draft);
        let now = self.ambient.clock.now();
        work(&Operator { store: &*self.store, name, seal: &seal, now }).await
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.ambient.clock.now()
    }

    /// The freezes that stand, oldest first.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`.
    pub async fn freezes(&self) -> Result<Vec<Freeze>, Refused> {
        Ok(self.store.freezes().await?)
    }

    /// The thumbprints of a key as this broker holds it; none where it does not.
    pub fn thumbprints_of(&self, scope: &FreezeScope) -> Vec<Digest> {
        match scope {
            FreezeScope::Kid { issuer, kid } => self.keys.thumbprints(issuer, kid),
            FreezeScope::All
            | FreezeScope::Grant(_)
            | FreezeScope::Issuer(_)
            | FreezeScope::Project { .. } => Vec::new(),
        }
    }

    /// Whether the operator trusts an issuer of that name.
    pub fn trusts(&self, issuer: &IssuerName) -> bool {
        self.settings.trusted.issuers.contains_key(issuer)
    }

    /// Gives frozen keys that are known by name alone the thumbprints of the keys that this broker holds under those
    /// names: whoever froze did not know them.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`; they hold by name until a later turn.
    pub async fn complete_freezes(&self) -> Result<(), Refused> {
        for freeze in self.store.freezes().await? {
            let thumbprints = self.thumbprints_of(&freeze.scope);
            if thumbprints.is_empty() || !freeze.thumbprints.is_empty() {
                continue;
            }
            let mut result = scope_members(&freeze.scope);
            result.insert("by".to_owned(), freeze.by.as_str().into());
            result.insert("thumbprints".to_owned(), thumbprints_member(&thumbprints));
            let entry = self.seal(&Draft { result: Some(result.into()), ..Draft::of(EntryCode::Frozen) })?;
            self.store.complete_freeze(freeze.scope, thumbprints, entry).await?;
        }
        Ok(())
    }

    /// Refuses a caller whose issuer, key, or everything is frozen; for what shows, and decides nothing.
    ///
    /// # Errors
    ///
    /// `access_denied`, recorded; `ledger_unavailable`.
    pub(super) async fn refuse_frozen(&self, caller: &Caller) -> Result<(), Refused> {
        let frozen = self.store.frozen(caller.freezable(Vec::new(), false)).await?;
        let Some(scope) = frozen.first() else { return Ok(()) };
        let draft = Draft {
            result: Some(frozen_result(scope)),
            request: Some(json!({ "id": caller.origin.request.to_string() })),
            ..caller.draft(EntryCode::Denied)
        };
        self.record_frozen(caller, draft).await?;
        Err(Refused::new(Code::AccessDenied, DENIED))
    }

    /// Refuses an exchange that a freeze holds, in the words of every other refusal (P8). It does not count against
    /// the token, which did nothing wrong: once thawed, the job goes on with it.
    pub(super) async fn refuse_freeze(
        &self,
        (decision, caller, ask): (DecisionId, &Caller, &Ask),
        scope: &FreezeScope,
    ) -> Refused {
        let draft = self.refusal_draft(decision, caller, ask, frozen_result(scope));
        let answer = Refused::new(Code::AccessDenied, DENIED).of(decision);
        self.record_frozen(caller, draft).await.err().unwrap_or(answer)
    }

    async fn record_frozen(&self, caller: &Caller, draft: Draft) -> Result<(), Refused> {
        let refusal = Refusal {
            entry: self.seal(&draft)?,
            counted: counted(&caller.identity, &caller.policy),
            always: false,
            against: None,
            sample: FROZEN.to_owned(),
            now: self.ambient.clock.now(),
        };
        Ok(self.store.refuse(refusal).await?)
    }
}

impl Caller {
    /// What a freeze may hold of it, with its project where that counts, and the grants that do.
    pub(super) fn freezable(&self, grants: Vec<GrantName>, project_counts: bool) -> Freezable {
        let identity = &self.identity;
        let project = identity.project().filter(|_| project_counts);
        Freezable {
            issuer: identity.issuer().clone(),
            kid: self.key.kid().to_owned(),
            thumbprint: self.key.thumbprint(),
            project: project.map(|(id, _)| id.to_owned()),
            grants,
        }
    }
}

/// What ends an issuance that somebody wants ended; `None` where nothing can, or nothing is left to end.
pub(super) fn ending(row: &IssuanceRow) -> Option<Event> {
    let event = if row.revocable { Event::RevokeAsked } else { Event::GivenBack };
    row.state.after(event).map(|_| event)
}

/// RELEASED, or REVOKING where a backend will be asked.
pub(super) fn ending_draft(base: Draft, row: &IssuanceRow, event: Event, by: &str) -> Draft {
    let code = if event == Event::GivenBack { EntryCode::Released } else { EntryCode::Revoking };
    let mut result = json!({ "usable_until": usable_until(row).map(|at| at.to_string()) });
    if let (Some(remedy), Some(result)) = (remedy(row), result.as_object_mut()) {
        result.insert("remedy".to_owned(), remedy.into());
    }
    Draft {
        code: Some(code),
        decision: Some(row.decision),
        issuance: Some(row.id),
        policy: Some(json!({ "grant": row.grant })),
        request: Some(json!({ "credential": row.credential, "by": by })),
        result: Some(result),
        ..base
    }
}

/// An issuance as a revocation tells of it.
pub(super) fn ended(row: IssuanceRow) -> Ended {
    let (usable_until, remedy) = (usable_until(&row), remedy(&row));
    Ended { id: row.id, grant: row.grant, credential: row.credential, usable_until, remedy }
}

/// What an operator can do about a credential that nobody can revoke.
pub(super) fn remedy(row: &IssuanceRow) -> Option<&'static str> {
    Kind::parse(&row.kind).filter(|_| !row.revocable).and_then(Kind::remedy)
}

fn usable_until(row: &IssuanceRow) -> Option<Timestamp> {
    row.usable_until.or(row.expires_at)
}

/// Adds a row to what a revocation came to, as it stands now; nothing usable is left of all others.
pub(super) fn sort(revocation: &mut Revocation, row: IssuanceRow, now: Timestamp) {
    match row.state {
        State::Failed => {}
        State::Revoked => revocation.revoked.push(ended(row)),
        State::Intent | State::Unresolved | State::Revoking => revocation.queued.push(ended(row)),
        State::Issued | State::Released => {
            if usable_until(&row).is_none_or(|end| now < end) && row.state == State::Released {
                revocation.irrevocable.push(ended(row));
            }
        }
    }
}

/// `{scope, issuer, grant, kid, project}`: issuer and grant stand where queries look for them.
fn scope_members(scope: &FreezeScope) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("scope".to_owned(), scope.word().into());
    if let Some(issuer) = scope.issuer() {
        members.insert("issuer".to_owned(), issuer.as_str().into());
    }
    let named = match scope {
        FreezeScope::All | FreezeScope::Issuer(_) => None,
        FreezeScope::Grant(grant) => Some(("grant", grant.as_str())),
        FreezeScope::Kid { kid, .. } => Some(("kid", kid.as_str())),
        FreezeScope::Project { project, .. } => Some(("project", project.as_str())),
    };
    members.extend(named.map(|(name, value)| (name.to_owned(), Value::from(value))));
    members
}

fn thumbprints_member(thumbprints: &[Digest]) -> Value {
    thumbprints.iter().map(|each| Value::from(each.to_string())).collect()
}

fn frozen_result(scope: &FreezeScope) -> Value {
    let mut result = refusal_result(Code::AccessDenied, FROZEN);
    if let Value::Object(members) = &mut result {
        members.insert("freeze".to_owned(), scope_members(scope).into());
    }
    result
}

fn personal_reason(reason: &str) -> Personal {
    Personal { field: "reason", value: reason.to_owned() }
}

const FROZEN: &str = "frozen";
