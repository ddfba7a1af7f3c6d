//! Taking a policy set: loaded off the reactor's threads, recorded before it decides, refused where it is wrong or
//! lacks what the one before had (design: section 4, "Removal protection").

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Broker,
    error::{Code, Refused},
    ports::{PolicyLoad, PolicyVerdict},
    record::finding_text,
};
use crate::kernel::{
    digest::Digest,
    ledger::entry::{Draft, EntryCode},
    policy::{
        Finding, PolicySet,
        load::{self, Loaded},
        set::Files,
    },
};

/// How often a set is tried again because another replica's set changed what it lacks.
const TRIES: usize = 3;

/// Findings and names that one entry holds.
const SHOWN: usize = 20;

/// Why a policy set was not taken; the one before stays.
#[derive(Debug)]
pub enum PolicyRefused {
    /// It has mistakes.
    Findings(Vec<Finding>),
    /// It lacks guardrails or issuers of the set before, and nobody lets it in.
    Lacking {
        /// The set.
        digest: Digest,
        /// What it lacks, such as `guardrail/base`.
        lost: Vec<String>,
    },
    /// Its acceptance could not be recorded.
    Unrecorded(Refused),
}

impl From<Refused> for PolicyRefused {
    fn from(refused: Refused) -> Self {
        Self::Unrecorded(refused)
    }
}

impl Broker {
    /// Takes a candidate set: all of it, or none. The acceptance is durable before the set decides anything; every
    /// load and every refusal is an entry. Exchanges go on meanwhile, under the set that they began with.
    ///
    /// # Errors
    ///
    /// [`PolicyRefused`]; the set before stays.
    pub async fn offer_policy(&self, files: Files, commit: Option<String>) -> Result<Digest, PolicyRefused> {
        let _turn = self.policy_turn.lock().await;
        let (digest, loaded) = self.judge(files, commit.clone()).await?;
        let candidate = Candidate { digest, commit };
        let taken = self.judged(&candidate, loaded).await;
        self.metrics.policy_offered(taken.is_ok(), self.ambient.clock.now().as_second());
        taken
    }

    async fn judged(
        &self,
        candidate: &Candidate,
        loaded: Result<Loaded, Vec<Finding>>,
    ) -> Result<Digest, PolicyRefused> {
        let digest = candidate.digest;
        match loaded {
            Ok(Loaded { set, warnings }) => {
                if !warnings.is_empty() {
                    tracing::info!(policy.digest = %digest, policy.warnings = warnings.len(), "`hallpass policy check` shows what is probably not meant");
                }
                self.take(candidate, set).await
            }
            Err(findings) => {
                let shown: Vec<String> = findings.iter().take(SHOWN).map(finding_text).collect();
                self.reject(candidate, json!({ "findings": findings.len(), "first": shown })).await?;
                tracing::warn!(policy.digest = %digest, findings = findings.len(), "policy set refused; the one before stays");
                Err(PolicyRefused::Findings(findings))
            }
        }
    }

    /// Reads the files where no exchange waits for it: ten thousand grants take seconds.
    async fn judge(
        &self,
        files: Files,
        commit: Option<String>,
    ) -> Result<(Digest, Result<Loaded, Vec<Finding>>), Refused> {
        let trusted = self.settings.trusted.clone();
        let judging =
            tokio::task::spawn_blocking(move || (files.digest(), load::load(&files, commit, Some(&trusted))));
        judging.await.map_err(|_| Refused::new(Code::Internal, "the reading of a policy set broke off"))
    }

    async fn take(&self, candidate: &Candidate, set: PolicySet) -> Result<Digest, PolicyRefused> {
        let digest = candidate.digest;
        let names = protected(&set);
        let mut told: Vec<String> = Vec::new();
        for _ in 0..TRIES {
            let load = PolicyLoad {
                digest,
                names: names.clone(),
                lost: told.clone(),
                entry: self.seal(&loaded_draft(candidate, &set, &told))?,
                now: self.ambient.clock.now(),
            };
            match self.store.load_policy(load).await.map_err(Refused::from)? {
                PolicyVerdict::Loaded => {
                    let before = self.policy.swap(Some(Arc::new(set)));
                    // Where nobody decides by it any more, it is taken apart here, which is work too.
                    drop(tokio::task::spawn_blocking(move || drop(before)));
                    tracing::info!(policy.digest = %digest, "policy set accepted");
                    return Ok(digest);
                }
                PolicyVerdict::Lacking { lost, is_let_in: true } => told = lost,
                PolicyVerdict::Lacking { lost, is_let_in: false } => {
                    return Err(self.refuse_lacking(candidate, lost).await);
                }
            }
        }
        Err(Refused::new(Code::Internal, "other replicas kept changing the accepted policy set").into())
    }

    async fn refuse_lacking(&self, candidate: &Candidate, lost: Vec<String>) -> PolicyRefused {
        let digest = candidate.digest;
        let command = accept_command(digest);
        let shown = lost.get(..SHOWN).unwrap_or(&lost);
        let first: Vec<String> =
            shown.iter().map(|name| format!("the set before had {name}, this one lacks it")).collect();
        let result = json!({ "findings": lost.len(), "first": first, "lost": shown, "command": command });
        if let Err(refused) = self.reject(candidate, result).await {
            return refused.into();
        }
        tracing::warn!(
            policy.digest = %digest,
            policy.lost = shown.join(" "),
            command,
            "policy set refused, as it lacks guardrails or issuers of the one before, which stays; \
             the command lets it in"
        );
        PolicyRefused::Lacking { digest, lost }
    }

    /// Records a refusal, which is an alert.
    async fn reject(&self, candidate: &Candidate, mut result: Value) -> Result<(), Refused> {
        if let Value::Object(members) = &mut result {
            members.extend(candidate.members());
        }
        self.note_all(&[EntryCode::PolicyRejected, EntryCode::AlertPolicyRejected], &result).await
    }
}

/// What lets a set in that lacks something.
pub fn accept_command(digest: Digest) -> String {
    format!("hallpass policy accept {digest}")
}

/// How a set is named.
struct Candidate {
    digest: Digest,
    commit: Option<String>,
}

impl Candidate {
    fn members(&self) -> impl Iterator<Item = (String, Value)> {
        let commit = self.commit.clone().map(|commit| ("commit".to_owned(), commit.into()));
        [("digest".to_owned(), self.digest.to_string().into())].into_iter().chain(commit)
    }
}

fn loaded_draft(candidate: &Candidate, set: &PolicySet, lost: &[String]) -> Draft {
    let mut result = json!({
        "issuers": set.issuers.len(), "guardrails": set.guardrails.len(), "grants": set.grants.len(),
    });
    if let Value::Object(members) = &mut result {
        members.extend(candidate.members());
        if !lost.is_empty() {
            members.insert("lost".to_owned(), lost.get(..SHOWN).unwrap_or(lost).to_vec().into());
        }
    }
    Draft { result: Some(result), ..Draft::of(EntryCode::PolicyLoaded) }
}

/// What later sets must not lose, sorted.
fn protected(set: &PolicySet) -> Vec<String> {
    let issuers = set.issuers.keys().map(|name| format!("issuer/{name}"));
    let guardrails = set.guardrails.iter().map(|guardrail| format!("guardrail/{}", guardrail.name));
    let mut names: Vec<String> = guardrails.chain(issuers).collect();
    names.sort();
    names
}
