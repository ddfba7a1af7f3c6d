//! What a broker does beside requests: accepting policy, the minute's work, being ready, ending in order.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    Broker,
    error::{Code, Refused},
    ports::{Counted, KeyStanding, Summary},
    record::finding_text,
};
use crate::kernel::{
    digest::Digest,
    ledger::entry::{Draft, Entry, EntryCode},
    policy::{Finding, load, set::Files},
};

/// Why a policy set was not taken; the one before stays.
#[derive(Debug)]
pub enum PolicyRefused {
    /// It has mistakes.
    Findings(Vec<Finding>),
    /// Its acceptance could not be recorded.
    Unrecorded(Refused),
}

/// One part of readiness.
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What is wrong with it, if anything.
    pub fault: Option<String>,
}

impl Broker {
    /// Takes a candidate set: all of it, or none. The acceptance is durable before the set decides anything; every
    /// load and every refusal is an entry.
    ///
    /// # Errors
    ///
    /// [`PolicyRefused`]; the set before stays.
    pub async fn offer_policy(&self, files: Files, commit: Option<String>) -> Result<Digest, PolicyRefused> {
        let _turn = self.policy_turn.lock().await;
        match load::load(&files, commit, Some(&self.settings.trusted)) {
            Ok(set) => {
                let digest = set.digest;
                let result = json!({
                    "digest": digest.to_string(), "commit": set.commit,
                    "issuers": set.issuers.len(), "grants": set.grants.len(),
                });
                self.note(EntryCode::PolicyLoaded, result).await.map_err(PolicyRefused::Unrecorded)?;
                self.policy.store(Some(Arc::new(set)));
                tracing::info!(policy.digest = %digest, "policy set accepted");
                Ok(digest)
            }
            Err(findings) => {
                let digest = files.digest();
                let shown: Vec<String> = findings.iter().take(20).map(finding_text).collect();
                let result =
                    json!({ "digest": digest.to_string(), "findings": findings.len(), "first": shown });
                self.note_all(&[EntryCode::PolicyRejected, EntryCode::AlertPolicyRejected], &result)
                    .await
                    .map_err(PolicyRefused::Unrecorded)?;
                tracing::warn!(policy.digest = %digest, findings = findings.len(), "policy set refused; the one before stays");
                Err(PolicyRefused::Findings(findings))
            }
        }
    }

    /// Records something that happened to this replica or that somebody did on its command line.
    ///
    /// # Errors
    ///
    /// `ledger_unavailable`.
    pub async fn note(&self, code: EntryCode, result: Value) -> Result<(), Refused> {
        self.note_all(&[code], &result).await
    }

    /// The same under several codes, all or none.
    async fn note_all(&self, codes: &[EntryCode], result: &Value) -> Result<(), Refused> {
        let draft = |code| Draft { result: Some(result.clone()), ..Draft::of(code) };
        let entries = codes.iter().map(|code| self.seal(draft(*code))).collect::<Result<_, _>>()?;
        self.store.append(entries).await?;
        Ok(())
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
        let seal = |summary: Summary| self.seal(summary_draft(&summary)).ok();
        self.store.sweep(now, &seal).await?;
        Ok(())
    }

    /// What is ready and what is not. A dead issuer or backend fails its own grants, not readiness.
    pub fn readiness(&self) -> Vec<Part> {
        let policy = self.policy.load().is_none().then(|| "no policy set was accepted yet".to_owned());
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
        self.seal(Draft { code: Some(code), result: Some(result), ..Draft::default() })
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
