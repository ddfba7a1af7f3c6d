//! Policy, followed: the first set at start, then each change, and each `SIGHUP`. The last good set stays; a refused
//! one is never offered twice by itself, only when somebody asks. One that lacks what the set before had waits: every
//! ten seconds it is looked whether an operator lets it in.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::watch;

use crate::{
    adapters::{
        policy_source::{PolicySource, Reason, Reload, Settled, SourceFault, Watch},
        store::{Database, PolicyStanding},
    },
    broker::{Broker, Clock, policy::PolicyRefused},
    kernel::{digest::Digest, ledger::entry::EntryCode},
};

/// After a set that could not be read or recorded, how soon it is tried again (contract: section 4).
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Follows a policy directory for a broker.
pub(crate) struct Follower {
    broker: Arc<Broker>,
    store: Arc<Database>,
    source: PolicySource,
    watch: Watch,
    accepted: watch::Sender<Option<Digest>>,
    last: Option<Looked>,
}

/// What the last look came to.
#[derive(PartialEq, Eq)]
enum Looked {
    /// A set that lacks something, and how it stood then.
    Lacking(Digest, Option<String>, PolicyStanding),
    /// A set, taken or refused.
    Set(Digest, Option<String>),
    /// No set, for this reason.
    Unread(String),
}

impl Follower {
    /// Watches from now on; reads nothing yet.
    pub(crate) fn new(broker: Arc<Broker>, store: Arc<Database>, source: PolicySource) -> Self {
        let watch = Watch::new(source.clone());
        Self { broker, store, source, watch, accepted: watch::Sender::new(None), last: None }
    }

    /// A handle to ask for another look by.
    pub(crate) fn reload(&self) -> Reload {
        self.watch.reload()
    }

    /// The digest of the set that decides.
    pub(crate) fn accepted(&self) -> watch::Receiver<Option<Digest>> {
        self.accepted.subscribe()
    }

    /// Follows for ever; ends when it is dropped.
    pub(crate) async fn follow(mut self) {
        let mut is_asked = false;
        loop {
            let is_settled = self.look(is_asked).await;
            let reason = if is_settled {
                Some(self.watch.next().await)
            } else {
                tokio::time::timeout(TRY_AGAIN, self.watch.next()).await.ok()
            };
            is_asked = reason == Some(Reason::Reload);
        }
    }

    /// Looks at the directory once; answers whether there is nothing left to do until it changes.
    async fn look(&mut self, is_asked: bool) -> bool {
        // The set that this store accepted last was seen to stand still before, by this process or an earlier one.
        let known = self.store.accepted_policy().await.ok().flatten().map(|accepted| accepted.digest);
        let Settled { files, digest, commit } = match self.source.settle(known).await {
            Ok(settled) => settled,
            Err(fault) => return self.tell(&fault, is_asked).await,
        };
        // Read before the set is offered: what changes after this is a reason to offer it again.
        let standing = match self.store.policy_standing(digest, Clock::System.now()).await {
            Ok(standing) => standing,
            Err(fault) => {
                tracing::warn!(%fault, "a policy set waits: the store cannot be read");
                return false;
            }
        };
        let taken = Looked::Set(digest, commit.clone());
        let lacking = Looked::Lacking(digest, commit.clone(), standing);
        if !is_asked && self.last.as_ref() == Some(&taken) {
            return true;
        }
        if !is_asked && self.last.as_ref() == Some(&lacking) {
            return false;
        }
        match self.broker.offer_policy(files, commit).await {
            Ok(digest) => {
                self.accepted.send_replace(Some(digest));
                self.last = Some(taken);
                true
            }
            Err(PolicyRefused::Findings(findings)) => {
                for finding in findings.iter().take(20) {
                    tracing::warn!(%finding, "policy");
                }
                self.last = Some(taken);
                true
            }
            Err(PolicyRefused::Lacking { .. }) => {
                self.last = Some(lacking);
                false
            }
            Err(PolicyRefused::Unrecorded(refused)) => {
                tracing::warn!(
                    reason = refused.detail,
                    "a policy set waits: its acceptance cannot be recorded"
                );
                false
            }
        }
    }

    /// A directory that cannot be read is a set that is refused: told and recorded once, not at every look.
    async fn tell(&mut self, fault: &SourceFault, is_asked: bool) -> bool {
        let text = crate::cli::exit::chain(fault);
        let found = Looked::Unread(text.clone());
        if !is_asked && self.last.as_ref() == Some(&found) {
            return false;
        }
        tracing::warn!(
            code = fault.code(),
            reason = text,
            "the policy directory cannot be read; the set before stays"
        );
        let first = format!("{}: error[{}]: {text}", self.source.root().display(), fault.code());
        let result = json!({ "digest": null, "findings": 1, "first": [first] });
        for code in [EntryCode::PolicyRejected, EntryCode::AlertPolicyRejected] {
            if let Err(refused) = self.broker.note(code, result.clone()).await {
                tracing::warn!(reason = refused.detail, "the refusal of a policy set was not recorded");
                return false;
            }
        }
        self.last = Some(found);
        false
    }
}
