//! The exchange in two steps, for what changes something elsewhere (design: section 2): INTENT of all is durable before
//! anything is made (P2), ISSUED of all before a byte leaves (P1). Between them credentials are made one after another:
//! those that change nothing, those that can be revoked, then those that nobody can take back. All or nothing: what was
//! made for a call that fails is undone as far as anybody can, and its row says what is left.
//!
//! Every swap of a row may be lost to a replica that recovers it, after a pause of this process. Whoever loses one
//! wipes what it has, revokes, and answers 503.

use std::{cmp::Reverse, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    Exchanged, Room,
    delivery::Undelivered,
    issue::{Attempt, Planned, in_time, is_one_token, issued_result, outcome_draft},
};
use crate::{
    broker::{
        Broker,
        emergency::ending_draft,
        error::{Code, Refused},
        exchange::{DENIED, Delivered},
        ports::{
            Change, Ends, Held, IssueVerdict, MintFault, Minted, NewIssuance, Opened, Receipt, Stage,
            StoreFault, Transit, Transition,
        },
        spans,
    },
    kernel::{
        digest::Digest,
        id::crockford,
        issuance::{Event, Mint, State, abandoned},
        ledger::entry::{Draft, EntryCode},
        policy::target::Making,
        secret::Secret,
        wiping::Zeroizing,
    },
};

/// How often sealed secrets are fetched again because their store changed before the record.
const FETCHES: usize = 3;

/// One credential on its way.
struct Underway<'a> {
    planned: &'a Planned<'a>,
    row: NewIssuance,
    handle: Secret,
    /// What revokes it, once there is something to revoke.
    held: Option<Held>,
    minted: Option<Minted>,
    /// Whether it may have been made although nobody has it.
    is_in_doubt: bool,
}

/// Why a call that was begun ends without a credential.
enum Broken {
    /// A backend.
    Mint(MintFault),
    /// What came does not fit into the answer.
    Misfit,
    /// A replica that recovers closed the rows meanwhile.
    Overtaken,
    /// The ledger.
    Store(StoreFault),
}

impl From<StoreFault> for Broken {
    fn from(fault: StoreFault) -> Self {
        Self::Store(fault)
    }
}

impl From<MintFault> for Broken {
    fn from(fault: MintFault) -> Self {
        Self::Mint(fault)
    }
}

impl Broker {
    /// Issues in two steps; with leases a third, since what revokes one is durable before it is made. `None` means that
    /// what an earlier call got was revoked, and the whole is tried again.
    pub(super) async fn issue_staged(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        deadline: Instant,
    ) -> Result<Option<Exchanged>, Refused> {
        let Some(mut underway) = self.intend(attempt).await? else { return Ok(None) };
        let made = self.make_all(attempt, &mut underway, deadline).await;
        let recorded = match made {
            Ok(()) => self.record(attempt, &mut underway, deadline).instrument(spans::record()).await,
            Err(broken) => Err(broken),
        };
        for each in &attempt.planned {
            self.metrics.made(each.credential.target.kind(), recorded.is_ok());
        }
        match recorded {
            Ok(receipts) => Ok(Some(self.deliver(attempt, underway, receipts)?)),
            Err(broken) => Err(self.undo(attempt, underway, broken).await),
        }
    }

    /// The first step: INTENT of all, and what the call takes.
    async fn intend<'a>(&self, attempt: &'a Attempt<'_>) -> Result<Option<Vec<Underway<'a>>>, Refused> {
        let mut issue = self.bare_issue(attempt, None);
        issue.stage = Stage::Intent;
        let mut underway = Vec::with_capacity(attempt.planned.len());
        for planned in &attempt.planned {
            let handle_bytes = Zeroizing::new(self.ambient.entropy.bytes::<32>()?);
            let handle = Secret::from_text(format!("hdl_{}", crockford(&*handle_bytes)));
            let row = self.row(attempt, planned, None, Digest::of(handle.expose()));
            issue.entries.push(self.intent(attempt, planned)?);
            issue.rows.push(row.clone());
            underway.push(Underway { planned, row, handle, held: None, minted: None, is_in_doubt: false });
        }
        match self.store.issue(issue).instrument(spans::intent()).await? {
            // Nothing of the sealed store was looked at yet.
            IssueVerdict::Moved => Ok(None),
            IssueVerdict::Recorded(_) => Ok(Some(underway)),
            IssueVerdict::Refused(refused) => {
                let Attempt { decision, caller, ask, permit, .. } = *attempt;
                self.make_room((decision, caller, ask), permit, refused).await.map(|()| None)
            }
        }
    }

    async fn make_all(
        &self,
        attempt: &Attempt<'_>,
        underway: &mut [Underway<'_>],
        deadline: Instant,
    ) -> Result<(), Broken> {
        let mut in_order: Vec<&mut Underway<'_>> = underway.iter_mut().collect();
        in_order.sort_by_key(|each| each.planned.credential.target.making());
        for each in in_order {
            let span = spans::mint(each.planned.credential.target.kind());
            self.make(attempt, each, deadline).instrument(span).await?;
        }
        let minted: Vec<&Minted> = underway.iter().filter_map(|each| each.minted.as_ref()).collect();
        match attempt.ask.room {
            Room::OneToken(_) if !is_one_token(&minted) => Err(Broken::Misfit),
            Room::OneToken(_) | Room::Any => Ok(()),
        }
    }

    async fn make(
        &self,
        attempt: &Attempt<'_>,
        underway: &mut Underway<'_>,
        deadline: Instant,
    ) -> Result<(), Broken> {
        let target = &underway.planned.credential.target;
        let minter = self.minters.get(&target.kind()).ok_or(MintFault::failed("kind-not-wired"))?.as_ref();
        let order = self.order(attempt, underway.planned);
        let token = match target.making() {
            Making::Harmless | Making::Irrevocable => None,
            Making::Revocable => {
                in_time(deadline)?;
                let Opened { held, token } = self.bounded(deadline, minter.open(&order)).await?;
                let kept = self.keep(underway, &held).await;
                // From here on it is undone by its accessor, whatever else is known.
                underway.held = Some(held);
                kept?;
                Some(token)
            }
        };
        // A process that was held may be past its time: recovery may have closed the row, and nobody waits.
        in_time(deadline)?;
        underway.is_in_doubt = target.making() == Making::Irrevocable;
        let fetched = self.bounded(deadline, minter.fetch(&order, token.as_ref())).await;
        drop(token);
        if let Ok(_) | Err(MintFault::Failed { .. }) = &fetched {
            underway.is_in_doubt = false;
        }
        let mut minted = fetched?;
        if let Some(held) = minted.held.take() {
            underway.held = Some(held);
        }
        underway.minted = Some(minted);
        Ok(())
    }

    /// Asks a backend within the time of a mint, and of the exchange.
    async fn bounded<T>(
        &self,
        deadline: Instant,
        asked: impl Future<Output = Result<T, MintFault>>,
    ) -> Result<T, MintFault> {
        let ends = deadline.min(Instant::now() + self.settings.mint_deadline);
        tokio::time::timeout_at(ends, asked).await.unwrap_or(Err(MintFault::Timeout))
    }

    /// Makes durable what revokes a lease, before there is one.
    async fn keep(&self, underway: &Underway<'_>, held: &Held) -> Result<(), Broken> {
        let id = underway.row.id;
        let sealed = self.seal_held(id, held).map_err(|_| MintFault::failed("not-kept"))?;
        let change = Change { held: Some(sealed), ..Change::default() };
        let step = Transition { id, event: Event::Opened, entry: None, change };
        let kept = Transit { together: true, ..Transit::each(vec![step], self.ambient.clock.now()) };
        if self.store.transit(kept).await?.moved.is_empty() { Err(Broken::Overtaken) } else { Ok(()) }
    }

    /// The second step: ISSUED of all. Where the sealed store changed since, what was fetched from it is fetched again.
    async fn record(
        &self,
        attempt: &Attempt<'_>,
        underway: &mut [Underway<'_>],
        deadline: Instant,
    ) -> Result<Vec<Receipt>, Broken> {
        for _ in 0..FETCHES {
            let now = self.ambient.clock.now();
            let mut record = Transit { together: true, ..Transit::each(Vec::new(), now) };
            for each in underway.iter_mut() {
                let Some(minted) = &each.minted else { continue };
                each.row.issued_at = attempt.now;
                each.row.expires_at = minted.expires_at;
                each.row.live_until = minted.expires_at.or(each.row.live_until);
                record.sealed_generation = record.sealed_generation.max(minted.sealed_generation);
                record.transitions.push(self.issued(attempt, each, minted)?);
            }
            let steps = record.transitions.len();
            let found = self.store.transit(record).await?;
            if !found.is_stale {
                return if found.moved.len() == steps { Ok(found.receipts) } else { Err(Broken::Overtaken) };
            }
            for each in underway.iter_mut() {
                if each.minted.as_ref().is_some_and(|minted| minted.sealed_generation.is_some()) {
                    self.make(attempt, each, deadline).await?;
                }
            }
        }
        Err(MintFault::failed("sealed-store-moved").into())
    }

    fn issued(
        &self,
        attempt: &Attempt<'_>,
        underway: &Underway<'_>,
        minted: &Minted,
    ) -> Result<Transition, Broken> {
        let row = &underway.row;
        let result = issued_result(row, &minted.told);
        let draft = outcome_draft(EntryCode::Issued, attempt, underway.planned, result);
        let held = underway.held.as_ref().map(|held| self.seal_held(row.id, held)).transpose();
        let sealed = held.and_then(|held| Ok((held, self.seal(&draft)?)));
        let (held, entry) = sealed.map_err(|_| MintFault::failed("not-recorded"))?;
        let ends = Some(Ends { expires_at: row.expires_at, live_until: row.live_until });
        let change = Change { held, ends, ..Change::default() };
        Ok(Transition { change, ..Transition::new(row.id, Event::Recorded, entry) })
    }

    fn deliver(
        self: &Arc<Self>,
        attempt: &Attempt<'_>,
        underway: Vec<Underway<'_>>,
        receipts: Vec<Receipt>,
    ) -> Result<Exchanged, Refused> {
        let mut delivered = Vec::with_capacity(underway.len());
        let mut undelivered = Vec::with_capacity(underway.len());
        for Underway { planned, row, handle, minted, .. } in underway {
            let Some(minted) = minted else {
                return Err(Refused::new(Code::Internal, "the exchange broke off; nothing was delivered"));
            };
            let issued = outcome_draft(EntryCode::Issued, attempt, planned, Value::Null);
            undelivered.push(Undelivered { issued, usable_until: row.expires_at });
            delivered.push(Delivered::new(planned, row, handle, minted.fields));
        }
        Ok(self.delivery(attempt, delivered, receipts, undelivered))
    }

    /// Wipes what was made, revokes what can be, and closes the rows; answers what the caller is told.
    async fn undo(&self, attempt: &Attempt<'_>, underway: Vec<Underway<'_>>, broken: Broken) -> Refused {
        let (code, reason) = told(&broken);
        let mut closing = Vec::new();
        // The last that was made is undone first.
        let mut in_order: Vec<Underway<'_>> = underway;
        in_order.sort_by_key(|each| Reverse(each.planned.credential.target.making()));
        for mut each in in_order {
            // Its secret is wiped before anything else happens.
            let expires_at = each.minted.take().map(|minted| minted.expires_at);
            let mint = self.unmake(&each, expires_at.is_some()).await;
            closing.push(Closing { each, mint, expires_at: expires_at.flatten() });
        }
        if let Err(fault) = self.close(attempt, &closing, (code, reason)).await {
            tracing::error!(reason = fault.detail, "an exchange could not close its rows; recovery will");
        }
        match broken {
            Broken::Store(fault) => fault.into(),
            Broken::Misfit => Refused::new(Code::AccessDenied, DENIED).of(attempt.decision),
            Broken::Mint(_) => {
                let detail = "a credential could not be made, so none was issued; the ledger says why under this decision";
                Refused::new(code, detail).of(attempt.decision)
            }
            Broken::Overtaken => {
                let detail = "the exchange took too long and was closed by another broker; try again";
                Refused::new(Code::LedgerUnavailable, detail).retry_after(1).of(attempt.decision)
            }
        }
    }

    /// What became of one mint that will not be delivered.
    async fn unmake(&self, each: &Underway<'_>, was_minted: bool) -> Mint {
        let target = &each.planned.credential.target;
        match (&each.held, self.minters.get(&target.kind())) {
            (Some(held), Some(minter)) => match self.revoke_held(minter.as_ref(), held).await {
                Ok(()) => Mint::Undone,
                Err(fault) => {
                    tracing::warn!(issuance = %each.row.id, reason = fault.reason, "a lease was not undone at once");
                    Mint::InDoubt
                }
            },
            (Some(_), None) => Mint::InDoubt,
            (None, _) if each.is_in_doubt => Mint::InDoubt,
            (None, _) if was_minted && target.making() == Making::Irrevocable => Mint::Discarded,
            (None, _) => Mint::Not,
        }
    }

    async fn close(
        &self,
        attempt: &Attempt<'_>,
        closing: &[Closing<'_>],
        (code, reason): (Code, &'static str),
    ) -> Result<(), Refused> {
        let now = self.ambient.clock.now();
        let mut transitions = Vec::new();
        for each in closing {
            let making = each.each.planned.credential.target.making();
            for event in abandoned(making, each.mint) {
                transitions.push(self.closing(attempt, each, *event, (code, reason))?);
            }
        }
        let moved = self.store.transit(Transit::each(transitions, now)).await?.moved;
        // A record whose answer was lost may be durable all the same: what it says is live is ended by the usual way.
        for each in closing.iter().filter(|each| !moved.contains(&each.each.row.id)) {
            let Some(row) = self.store.issuance(each.each.row.id).await? else { continue };
            if row.state == State::Issued && row.revocable {
                let entry =
                    self.seal(&ending_draft(Draft::default(), &row, Event::RevokeAsked, "exchange"))?;
                let change = Change { keeps_chain: true, ..Change::default() };
                let step = Transition { change, ..Transition::new(row.id, Event::RevokeAsked, entry) };
                self.store.transit(Transit::each(vec![step], now)).await?;
            }
        }
        Ok(())
    }

    fn closing(
        &self,
        attempt: &Attempt<'_>,
        closing: &Closing<'_>,
        event: Event,
        (code, reason): (Code, &'static str),
    ) -> Result<Transition, Refused> {
        let Closing { each, mint, expires_at } = closing;
        let planned = each.planned;
        // Nobody knows its end: it is at most its TTL after the last moment at which it can have been made.
        let latest = expires_at.or(each.row.live_until);
        let usable_until = match mint {
            Mint::Discarded => *expires_at,
            Mint::InDoubt => latest,
            Mint::Not | Mint::Undone => None,
        };
        let result = json!({
            "code": code.as_str(), "reason": reason, "minted": *mint != Mint::Not,
            "usable_until": usable_until.map(|end| end.to_string()),
        });
        let draft = match event {
            Event::RevokeAsked => {
                let mut draft = outcome_draft(EntryCode::Revoking, attempt, planned, Value::Null);
                draft.result = Some(json!({ "usable_until": usable_until.map(|end| end.to_string()) }));
                if let Some(Value::Object(request)) = &mut draft.request {
                    request.insert("by".to_owned(), "exchange".into());
                }
                draft
            }
            Event::Lost => outcome_draft(EntryCode::Unresolved, attempt, planned, result),
            Event::Failed
            | Event::GivenBack
            | Event::Opened
            | Event::Overdue
            | Event::Recorded
            | Event::RevokeConfirmed => outcome_draft(EntryCode::Failed, attempt, planned, result),
        };
        let is_unmade = *mint == Mint::Not;
        let usable_until = usable_until.filter(|_| event == Event::Lost);
        let change = Change { usable_until, is_unmade, keeps_chain: true, ..Change::default() };
        Ok(Transition { change, ..Transition::new(each.row.id, event, self.seal(&draft)?) })
    }
}

/// A credential that will not be delivered.
struct Closing<'a> {
    each: Underway<'a>,
    mint: Mint,
    expires_at: Option<Timestamp>,
}

/// What the ledger is told of a broken call.
fn told(broken: &Broken) -> (Code, &'static str) {
    match broken {
        Broken::Mint(MintFault::Failed { reason, .. } | MintFault::Lost { reason }) => {
            (Code::BackendFailed, *reason)
        }
        Broken::Mint(MintFault::Timeout) => (Code::BackendTimeout, "timeout"),
        Broken::Misfit => (Code::AccessDenied, "not-one-secret-field"),
        Broken::Overtaken => (Code::LedgerUnavailable, "overtaken"),
        Broken::Store(_) => (Code::LedgerUnavailable, "not-recorded"),
    }
}
