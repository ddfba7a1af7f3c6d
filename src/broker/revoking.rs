//! What ends credentials at their backends, and closes what a broker that died left open (design: section 2, "State").
//!
//! A row in `revoking` has no owner: any replica takes what is due, and a back-off later it is anybody's again. An open
//! row past its `recover_after` is closed by whichever living replica sees it first; whoever made it finds its swap
//! lost, wipes what it has and revokes.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Broker,
    emergency::ending_draft,
    error::{Code, Refused},
    ports::{Change, Held, IssuanceRow, Minter, RevokeFault, Transit, Transition},
};
use crate::kernel::{
    digest::Digest,
    id::IssuanceId,
    issuance::{Event, State, back_off, recovered},
    ledger::entry::{Draft, EntryCode},
    lifetime::after,
    policy::target::Kind,
    sealing::{RANDOM_BYTES, Sealed, SealedRecord, SealingKey, read_fields, write_pairs},
    secret::Secret,
};

/// How often a broker looks for rows that nobody closed (design: section 2).
pub const RECOVER: Duration = Duration::from_secs(10);
/// How often a broker looks for revokes that are due.
pub const LOOK: Duration = Duration::from_secs(1);

/// Rows of one turn: exchanges wait behind its transaction.
const PAGE: u32 = 50;
/// The purpose of what is sealed in a row.
const PURPOSE_HELD: &str = "held";
/// What tells the key of rows from all others that come of the same one.
const HELD_KEY: &[u8] = b"hallpass: what revokes an issuance";

impl Broker {
    /// Closes open rows whose owner did not in time; what can be revoked of them is revoked from now on.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`; they stay for the next turn.
    pub async fn recover(&self) -> Result<(), Refused> {
        let now = self.ambient.clock.now();
        let rows = self.store.abandoned(now, PAGE).await?;
        let mut transitions = Vec::new();
        for row in &rows {
            // Rows that were whole at once are never open.
            let Some(making) = row.making else { continue };
            for event in recovered(making, row.held.is_some()) {
                transitions.push(self.recovery(row, *event)?);
            }
        }
        if transitions.is_empty() {
            return Ok(());
        }
        let moved = self.store.transit(Transit::each(transitions, now)).await?.moved;
        tracing::warn!(rows = moved.len(), "rows that their owner left open were closed");
        Ok(())
    }

    fn recovery(&self, row: &IssuanceRow, event: Event) -> Result<Transition, Refused> {
        let usable_until = row.live_until.filter(|_| event == Event::Lost);
        let draft = if event == Event::RevokeAsked {
            ending_draft(Draft::default(), row, event, "recovery")
        } else {
            let (code, result) = match usable_until {
                Some(end) => {
                    let result = json!({ "reason": "owner-gone", "usable_until": end.to_string() });
                    (EntryCode::Unresolved, result)
                }
                None if event == Event::Lost => {
                    (EntryCode::Unresolved, json!({ "reason": "owner-gone", "usable_until": null }))
                }
                None => (EntryCode::Failed, json!({ "reason": "owner-gone", "minted": false })),
            };
            Draft { code: Some(code), result: Some(result), ..row_draft(row, Some("recovery")) }
        };
        let change = Change { usable_until, is_unmade: event == Event::Failed, ..Change::default() };
        Ok(Transition { change, ..Transition::new(row.id, event, self.seal(&draft)?) })
    }

    /// Asks backends for what is due, side by side, so that a silent one holds up no other. What is not confirmed is
    /// tried again after its back-off, and told once its time is over.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`; what is due stays so.
    pub async fn revoke_due(self: &Arc<Self>) -> Result<(), Refused> {
        let now = self.ambient.clock.now();
        let mut asked = JoinSet::new();
        for row in self.store.due(now, PAGE).await? {
            let broker = Arc::clone(self);
            asked.spawn(async move { broker.revoke_or_tell(&row).await });
        }
        while let Some(ended) = asked.join_next().await {
            ended.map_err(|_| Refused::new(Code::Internal, "a revoke broke off; it is tried again"))??;
        }
        Ok(())
    }

    async fn revoke_or_tell(&self, row: &IssuanceRow) -> Result<(), Refused> {
        let Err(fault) = self.revoke_now(row).await? else { return Ok(()) };
        tracing::warn!(issuance = %row.id, reason = fault.reason, tries = row.tries, "a revoke is not confirmed");
        self.tell_overdue(row, &fault).await
    }

    /// Asks the backend of a row that is being revoked, and records that it is.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`: then it is asked again, and that it is gone already is success.
    pub(super) async fn revoke_now(&self, row: &IssuanceRow) -> Result<Result<(), RevokeFault>, Refused> {
        if let Err(fault) = self.ask_to_revoke(row).await {
            self.metrics.revoked(false);
            return Ok(Err(fault));
        }
        self.metrics.revoked(true);
        let result = json!({ "kind": row.kind, "tries": row.tries.saturating_add(1) });
        let draft = Draft { code: Some(EntryCode::Revoked), result: Some(result), ..row_draft(row, None) };
        let step = Transition::new(row.id, Event::RevokeConfirmed, self.seal(&draft)?);
        self.store.transit(Transit::each(vec![step], self.ambient.clock.now())).await?;
        Ok(Ok(()))
    }

    async fn ask_to_revoke(&self, row: &IssuanceRow) -> Result<(), RevokeFault> {
        let fault = |reason| RevokeFault { reason };
        let held = self.open_held(row).ok_or(fault("nothing-held"))?;
        let minter = Kind::parse(&row.kind).and_then(|kind| self.minters.get(&kind));
        self.revoke_held(minter.ok_or(fault("kind-not-wired"))?.as_ref(), &held).await
    }

    /// Asks a backend, within the time of a mint.
    pub(super) async fn revoke_held(&self, minter: &dyn Minter, held: &Held) -> Result<(), RevokeFault> {
        let revoked = tokio::time::timeout(self.settings.mint_deadline, minter.revoke(held)).await;
        revoked.unwrap_or(Err(RevokeFault { reason: "timeout" }))
    }

    async fn tell_overdue(&self, row: &IssuanceRow, fault: &RevokeFault) -> Result<(), Refused> {
        let now = self.ambient.clock.now();
        let end = row.usable_until.or(row.expires_at).or(row.live_until);
        if row.is_told || end.is_none_or(|end| now < end) {
            return Ok(());
        }
        let result = json!({
            "kind": row.kind, "reason": fault.reason, "tries": row.tries.saturating_add(1),
            "usable_until": end.map(|end| end.to_string()),
        });
        let draft =
            Draft { code: Some(EntryCode::AlertRevocation), result: Some(result), ..row_draft(row, None) };
        let step = Transition::new(row.id, Event::Overdue, self.seal(&draft)?);
        if !self.store.transit(Transit::each(vec![step], now)).await?.moved.is_empty() {
            self.metrics.recorded(EntryCode::AlertRevocation);
            tracing::warn!(issuance = %row.id, reason = fault.reason, "a revoke is not confirmed although its time is over");
        }
        Ok(())
    }

    /// Revokes what was issued and reached nobody.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`, `internal`.
    pub(super) async fn revoke_undelivered(&self, ids: &[IssuanceId]) -> Result<(), Refused> {
        for id in ids {
            let Some(row) = self.store.issuance(*id).await? else { continue };
            let draft = ending_draft(Draft::default(), &row, Event::RevokeAsked, "undelivered");
            self.revoke_for(&row, draft, true).await?;
        }
        Ok(())
    }

    /// Asks for a revoke and tries it at once; whether it is confirmed. What is not is tried on.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`, `internal`.
    pub(super) async fn revoke_for(
        &self,
        row: &IssuanceRow,
        draft: Draft,
        keeps_chain: bool,
    ) -> Result<bool, Refused> {
        let entry = self.seal(&draft)?;
        let change = Change { keeps_chain, ..self.ours_first() };
        let step = Transition { change, ..Transition::new(row.id, Event::RevokeAsked, entry) };
        let asked = Transit::each(vec![step], self.ambient.clock.now());
        if self.store.transit(asked).await?.moved.is_empty() {
            return Ok(false);
        }
        Ok(self.revoke_now(row).await?.is_ok())
    }

    /// Revokes what a first call got before its retry makes it anew (P3); false where that is not confirmed.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`, `internal`.
    pub(super) async fn replace(&self, ids: &[IssuanceId]) -> Result<bool, Refused> {
        for id in ids {
            let Some(row) = self.store.issuance(*id).await? else { return Ok(false) };
            if row.state != State::Revoking {
                let entry = self.seal(&ending_draft(Draft::default(), &row, Event::RevokeAsked, "retry"))?;
                let change = Change { keeps_chain: true, ..self.ours_first() };
                let step = Transition { change, ..Transition::new(row.id, Event::RevokeAsked, entry) };
                let asked = Transit::each(vec![step], self.ambient.clock.now());
                if self.store.transit(asked).await?.moved.is_empty() {
                    return Ok(false);
                }
            }
            if self.revoke_now(&row).await?.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whoever asks for a revoke tries it first itself; others come after that.
    pub(super) fn ours_first(&self) -> Change {
        let retry_at =
            after(self.ambient.clock.now(), self.settings.mint_deadline.saturating_add(back_off(0)));
        Change { retry_at: Some(retry_at), ..Change::default() }
    }

    /// Seals what revokes an issuance, as its row keeps it.
    ///
    /// # Errors
    ///
    /// `internal` where there is no entropy.
    pub(super) fn seal_held(&self, id: IssuanceId, held: &Held) -> Result<Vec<u8>, Refused> {
        let fault = || {
            Refused::new(
                Code::Internal,
                "what would revoke the credential could not be kept, so it was not made",
            )
        };
        let mut pairs = vec![
            ("backend", held.backend.as_str()),
            ("accessor", held.accessor.expose_text().ok_or_else(fault)?),
        ];
        if let Some(lease) = &held.lease {
            pairs.push(("lease", lease.expose_text().ok_or_else(fault)?));
        }
        let content = write_pairs(&pairs).ok_or_else(fault)?;
        let random = Secret::new(self.ambient.entropy.bytes::<RANDOM_BYTES>()?.to_vec());
        let name = id.to_string();
        let sealed = self.held_key().ok_or_else(fault)?.seal(held_as(&name), &content, &random);
        Ok(sealed.map_err(|_| fault())?.bytes)
    }

    fn open_held(&self, row: &IssuanceRow) -> Option<Held> {
        let record = SealedRecord { bytes: row.held.clone()? };
        let name = row.id.to_string();
        let content = self.held_key()?.open(held_as(&name), &record).ok()?;
        let mut fields: std::collections::HashMap<String, Secret> =
            read_fields(&content)?.into_iter().collect();
        Some(Held {
            backend: fields.remove("backend")?.expose_text()?.to_owned(),
            accessor: fields.remove("accessor")?,
            lease: fields.remove("lease"),
        })
    }

    /// Of the ledger's own key for pseudonyms, which every replica has and no rotation changes.
    fn held_key(&self) -> Option<SealingKey> {
        let key = Digest::keyed(&self.settings.pseudonym_key, HELD_KEY);
        SealingKey::new(Secret::new(key.0.to_vec())).ok()
    }
}

fn held_as(name: &str) -> Sealed<'_> {
    Sealed { purpose: PURPOSE_HELD, name, version: 1 }
}

/// The members that an entry has which is about a row alone.
fn row_draft(row: &IssuanceRow, by: Option<&str>) -> Draft {
    let mut request = json!({ "credential": row.credential });
    if let (Value::Object(members), Some(by)) = (&mut request, by) {
        members.insert("by".to_owned(), by.into());
    }
    Draft {
        decision: Some(row.decision),
        issuance: Some(row.id),
        policy: Some(json!({ "grant": row.grant })),
        request: Some(request),
        ..Draft::default()
    }
}
