//! Looking after an issuance: what became of it, and giving it back. A stranger learns nothing: an unknown id and a
//! foreign one are the same `not_found`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use subtle::ConstantTimeEq;

use super::{
    Broker,
    error::{Code, Refused},
    identify::Caller,
    ports::IssuanceRow,
};
use crate::kernel::{
    digest::Digest,
    id::IssuanceId,
    issuance::State,
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
    },
}

/// How long a handle reads after its credential's end (design: section 3).
const HANDLE_AFTER_END: Duration = Duration::from_secs(3_600);
/// How long the handle of a static credential reads.
const HANDLE_OF_STATIC: Duration = Duration::from_secs(86_400);

impl Broker {
    /// Shows one issuance.
    ///
    /// # Errors
    ///
    /// `not_found`, also for what is not the caller's; `ledger_unavailable`.
    pub async fn issuance(&self, id: &str, right: Right) -> Result<IssuanceView, Refused> {
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

    /// Gives one issuance back. Asking again repeats the answer.
    ///
    /// # Errors
    ///
    /// As [`Broker::issuance`].
    pub async fn give_back(&self, id: &str, right: Right) -> Result<GivenBack, Refused> {
        let row = self.owned(id, &right).await?;
        let now = self.ambient.clock.now();
        match row.state {
            State::Failed | State::Revoked => Ok(GivenBack::Ended),
            State::Intent | State::Unresolved | State::Revoking => Ok(GivenBack::Queued),
            State::Released => Ok(released(&row)),
            State::Issued if has_ended(&row, now) => Ok(GivenBack::Ended),
            State::Issued => {
                let draft = self.released_draft(&row, &right);
                self.store.release(vec![(row.id, self.seal(draft)?)]).await?;
                Ok(released(&row))
            }
        }
    }

    fn released_draft(&self, row: &IssuanceRow, right: &Right) -> Draft {
        let by = match right {
            Right::Handle(_) => "handle",
            Right::Token(_) => "token",
        };
        let base = match right {
            Right::Handle(_) => Draft { code: Some(EntryCode::Released), ..Draft::default() },
            Right::Token(caller) => self.draft(EntryCode::Released, &caller.identity, &caller.origin),
        };
        Draft {
            decision: Some(row.decision),
            issuance: Some(row.id),
            policy: Some(json!({ "grant": row.grant })),
            request: Some(json!({ "credential": row.credential, "by": by })),
            result: Some(json!({ "usable_until": row.expires_at.map(|at| at.to_string()) })),
            ..base
        }
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
    GivenBack::Released { usable_until: row.usable_until.or(row.expires_at) }
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
