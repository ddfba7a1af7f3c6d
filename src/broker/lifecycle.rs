//! What a broker does beside requests: the minute's work, being ready, ending in order.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Broker,
    error::{Code, Refused},
    ports::{Counted, KeyStanding, Summary},
};
use crate::kernel::ledger::entry::{Draft, Entry, EntryCode};

/// One part of readiness.
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What is wrong with it, if anything.
    pub fault: Option<String>,
}

impl Broker {
    /// Records something that happened to this replica or that somebody did on its command line.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`.
    pub async fn note(&self, code: EntryCode, result: Value) -> Result<(), Refused> {
        self.note_all(&[code], &result).await
    }

    /// The same under several codes, all or none.
    pub(super) async fn note_all(&self, codes: &[EntryCode], result: &Value) -> Result<(), Refused> {
        self.append_all(codes, result).await?;
        codes.iter().for_each(|code| self.metrics.recorded(*code));
        Ok(())
    }

    async fn append_all(&self, codes: &[EntryCode], result: &Value) -> Result<(), Refused> {
        let draft = |code| Draft { result: Some(result.clone()), ..Draft::of(code) };
        let entries = codes.iter().map(|code| self.seal(&draft(*code))).collect::<Result<_, _>>()?;
        self.store.append(entries).await?;
        Ok(())
    }

    /// Counts an alert of which the entry cannot be written yet.
    pub fn count_alert(&self, code: EntryCode) {
        self.metrics.recorded(code);
    }

    /// Records an alert that was counted already.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`.
    pub async fn note_counted(&self, code: EntryCode, result: &Value) -> Result<(), Refused> {
        self.append_all(&[code], result).await
    }

    /// The minute's work: summary rows become SUMMARY entries, rows whose time is over go, idle rates are forgotten.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`; the rows stay for the next turn.
    pub async fn sweep(&self) -> Result<(), Refused> {
        self.rates.forget_idle();
        self.close_reads().await?;
        let now = self.ambient.clock.now();
        let seal = |summary: Summary| self.seal(&summary_draft(&summary)).ok();
        self.store.sweep(now, &seal).await?;
        Ok(())
    }

    /// What is ready and what is not. A dead issuer or backend fails its own grants, not readiness.
    pub fn readiness(&self) -> Vec<Part> {
        let policy = self.policy.load().is_none().then(|| NO_POLICY.to_owned());
        let ledger = self.store.health().err().map(|fault| fault.to_string());
        vec![Part { name: "policy", fault: policy }, Part { name: "ledger", fault: ledger }]
    }

    /// How each issuer's keys stand.
    pub fn issuers(&self) -> Vec<KeyStanding> {
        self.keys.standing()
    }

    /// Waits for exchanges that are under way and for what they still have to record, up to the deadline. Answers
    /// whether all ended.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok()
    }

    /// Seals an entry for a command that appends it together with its own change.
    ///
    /// # Errors
    ///
    /// `internal` where there is no entropy.
    pub fn entry(&self, code: EntryCode, result: Value) -> Result<Entry, Refused> {
        self.seal(&Draft { code: Some(code), result: Some(result), ..Draft::default() })
            .map_err(|refused| Refused { code: Code::Internal, ..refused })
    }
}

fn summary_draft(summary: &Summary) -> Draft {
    let (issuer, project, of) = match &summary.counted {
        Counted::Project { issuer, project } => {
            let project = Some(project.as_str()).filter(|project| !project.is_empty());
            (Some(issuer.as_str()), project, "project")
        }
        Counted::Strangers { issuer } => (Some(issuer.as_str()), None, "strangers"),
        Counted::Unverified { issuer } => (issuer.as_ref().map(|issuer| issuer.as_str()), None, "unverified"),
    };
    let result = json!({
        "of": of, "issuer": issuer, "project": project, "count": summary.count,
        "first": summary.first.to_string(), "last": summary.last.to_string(), "sample": summary.samples,
    });
    Draft { code: Some(EntryCode::Summary), result: Some(result), ..Draft::default() }
}

/// What it is about stands in the ledger and in the log: whoever asks this needs no token.
const NO_POLICY: &str = "no policy set was accepted yet; where one was refused, POLICY_REJECTED says why";
