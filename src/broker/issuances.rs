//! Looking after an issuance: what became of it, and giving it back. A stranger learns nothing: an unknown id and a
//! foreign one are the same `not_found`.

use std::time::Duration;

use jiff::Timestamp;
use subtle::ConstantTimeEq;

use super::{
    Broker,
    emergency::{Revocation, ending, ending_draft, remedy, sort},
    error::{Code, Refused},
    identify::Caller,
    ports::{Holder, IssuanceRow, Selection, Transit, Transition},
};
use crate::kernel::{
    digest::Digest,
    id::IssuanceId,
    issuance::{Event, State},
    ledger::entry::{Draft, EntryCode},
    lifetime::{Lifetime, after},
    secret::Secret,
};

/// By what right somebody asks.
pub enum Right {
    /// The handle of that one issuance, `hdl_…`.
    Handle(Secret),
    /// The same token, or one of the same job.
    Token(Box<Caller>),
}

/// What became of an issuance.
pub struct IssuanceView {
    /// Its id.
    pub id: IssuanceId,
    /// Its grant.
    pub grant: String,
    /// Its credential.
    pub credential: String,
    /// Its kind.
    pub kind: String,
    /// `live`, `revoking`, `revoked`, `released`, `expired`, `unresolved` or `failed`.
    pub state: &'static str,
    /// What bounds its life.
    pub lifetime: Lifetime,
    /// Issued at.
    pub issued_at: Timestamp,
    /// Ends at.
    pub expires_at: Option<Timestamp>,
    /// Until when it may be usable, after it was given back.
    pub usable_until: Option<Timestamp>,
    /// Whether it can be revoked.
    pub revocable: bool,
}

/// What giving back came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// Nothing usable remains.
    Ended,
    /// A revoke is under way.
    Queued,
    /// Nobody can revoke it; it ends by itself at the time given, or never.
    Released {
        /// Until when it may be usable; `None` where static.
        usable_until: Option<Timestamp>,
        /// What an operator can do about it, where there is something.
        remedy: Option<&'static str>,
    },
}

/// How long a handle reads after its credential's end (design: section 3).
const HANDLE_AFTER_END: Duration = Duration::from_secs(3_600);
/// How long the handle of a static credential reads.
const HANDLE_OF_STATIC: Duration = Duration::from_secs(86_400);
/// How often a revocation looks again because its job issued meanwhile: one keyed call is retried twice at most, so
/// more rounds than these are met by new tokens only.
const ROUNDS: usize = 8;
/// Issuances read at once.
const PAGE: u32 = 500;

impl Broker {
    /// Shows one issuance.
    ///
    /// # Errors
    ///
    /// `access_denied` for a token that is frozen; `not_found`, also for what is not the caller's;
    /// `ledger_unavailable`.
    pub async fn issuance(&self, id: &str, right: Right) -> Result<IssuanceView, Refused> {
        if let Right::Token(caller) = &right {
            self.refuse_frozen(caller).await?;
        }
        let row = self.owned(id, &right).await?;
        let now = self.ambient.clock.now();
        Ok(IssuanceView {
            id: row.id,
            state: state(&row, now),
            lifetime: row.lifetime,
            issued_at: row.issued_at,
            expires_at: row.expires_at,
            usable_until: usable_until(&row),
            revocable: row.revocable,
            grant: row.grant,
            credential: row.credential,
            kind: row.kind,
        })
    }

    /// Gives one issuance back. Asking again repeats the answer. It is never frozen.
    ///
    /// # Errors
    ///
    /// `not_found`, also for what is not the caller's; `ledger_unavailable`.
    pub async fn give_back(&self, id: &str, right: Right) -> Result<GivenBack, Refused> {
        let row = self.owned(id, &right).await?;
        let now = self.ambient.clock.now();
        match row.state {
            State::Failed | State::Revoked => Ok(GivenBack::Ended),
            State::Intent | State::Unresolved | State::Revoking => Ok(GivenBack::Queued),
            State::Released => Ok(released(&row)),
            State::Issued if has_ended(&row, now) => Ok(GivenBack::Ended),
            State::Issued => {
                let event = if row.revocable { Event::RevokeAsked } else { Event::GivenBack };
                let (base, by) = match &right {
                    Right::Handle(_) => (Draft::default(), "handle"),
                    Right::Token(caller) => (self.caller_draft(caller), "token"),
                };
                let draft = ending_draft(base, &row, event, by);
                if row.revocable {
                    let is_confirmed = self.revoke_for(&row, draft, false).await?;
                    return Ok(if is_confirmed { GivenBack::Ended } else { GivenBack::Queued });
                }
                let step = Transition::new(row.id, event, self.seal(&draft)?);
                self.store.transit(Transit::each(vec![step], now)).await?;
                Ok(released(&row))
            }
        }
    }

    /// Ends all issuances of the caller's job, or of its token where the profile gives no job key; retries of the calls
    /// that made them end with them. Asking again repeats the answer. It is never frozen.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`, also where the job keeps exchanging meanwhile; `internal`.
    pub async fn revoke_job(&self, caller: &Caller) -> Result<Revocation, Refused> {
        let identity = &caller.identity;
        let job = identity.job_key().map(|key| Digest::of(key.as_bytes()));
        let now = self.ambient.clock.now();
        let holder = job.unwrap_or(identity.token().id);
        let holder = Holder { issuer: identity.issuer().clone(), holder, now };
        for _ in 0..ROUNDS {
            let mut transitions = Vec::new();
            for row in self.held(&holder).await? {
                if let Some(event) = ending(&row).filter(|_| !has_ended(&row, now)) {
                    let draft = ending_draft(self.caller_draft(caller), &row, event, "token");
                    transitions.push(Transition::new(row.id, event, self.seal(&draft)?));
                }
            }
            // A keyed retry may have come between the look and this: it is met in the next round, and after that round
            // there are no more of them.
            let transit = Transit { holder: Some(holder.clone()), ..Transit::each(transitions, now) };
            if self.store.transit(transit).await?.has_left {
                continue;
            }
            let mut revocation = Revocation::default();
            for row in self.held(&holder).await? {
                sort(&mut revocation, row, now);
            }
            return Ok(revocation);
        }
        let detail = "this job keeps exchanging while it revokes; end its other steps and ask again";
        Err(Refused::new(Code::LedgerUnavailable, detail).retry_after(1))
    }

    async fn held(&self, holder: &Holder) -> Result<Vec<IssuanceRow>, Refused> {
        let mut held: Vec<IssuanceRow> = Vec::new();
        loop {
            let past = held.last().map(|row| row.id);
            let page = self.store.issuances(Selection::Of(holder.clone()), past, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            held.extend(page);
            if is_last {
                return Ok(held);
            }
        }
    }

    fn caller_draft(&self, caller: &Caller) -> Draft {
        Draft { code: None, ..caller.draft(EntryCode::Released) }
    }

    async fn owned(&self, id: &str, right: &Right) -> Result<IssuanceRow, Refused> {
        let not_found =
            || Refused::new(Code::NotFound, "there is no such issuance, or it is not this caller's");
        let id = IssuanceId::parse(id).ok_or_else(not_found)?;
        let row = self.store.issuance(id).await?.ok_or_else(not_found)?;
        self.may_see(&row, right).then_some(row).ok_or_else(not_found)
    }

    fn may_see(&self, row: &IssuanceRow, right: &Right) -> bool {
        match right {
            Right::Handle(handle) => {
                let same: bool = Digest::of(handle.expose()).0.ct_eq(&row.handle.0).into();
                same && self.ambient.clock.now() < handle_ends(row)
            }
            Right::Token(caller) => {
                let identity = &caller.identity;
                let job = identity.job_key().map(|key| Digest::of(key.as_bytes()));
                let same_job = job.is_some() && job == row.job;
                identity.issuer().as_str() == row.issuer && (identity.token().id == row.token || same_job)
            }
        }
    }
}

fn handle_ends(row: &IssuanceRow) -> Timestamp {
    match row.expires_at.max(row.usable_until) {
        Some(end) => after(end, HANDLE_AFTER_END),
        None => after(row.issued_at, HANDLE_OF_STATIC),
    }
}

fn has_ended(row: &IssuanceRow, now: Timestamp) -> bool {
    row.expires_at.is_some_and(|at| at <= now)
}

fn released(row: &IssuanceRow) -> GivenBack {
    GivenBack::Released { usable_until: row.usable_until.or(row.expires_at), remedy: remedy(row) }
}

/// What was given back and nobody can revoke is usable to its end.
fn usable_until(row: &IssuanceRow) -> Option<Timestamp> {
    row.usable_until.or(row.expires_at.filter(|_| row.state == State::Released))
}

fn state(row: &IssuanceRow, now: Timestamp) -> &'static str {
    match row.state {
        State::Failed => "failed",
        State::Intent | State::Unresolved => "unresolved",
        State::Issued if has_ended(row, now) => "expired",
        State::Issued => "live",
        State::Released => "released",
        State::Revoked => "revoked",
        State::Revoking => "revoking",
    }
}
