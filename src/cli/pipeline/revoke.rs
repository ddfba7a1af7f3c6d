//! The job's side of `hallpass revoke`: all that this job was issued, by its CI token, or one issuance by its handle.

use serde_json::{Value, json};

use super::{
    super::{
        exit::{Exit, Failure},
        process,
    },
    broker::{Answer, Broker},
    denial,
    identity::Identity,
};
use crate::kernel::{json::read_bounded, secret::Secret};

/// How a job reaches the broker, and proves who it is.
#[derive(Debug, clap::Args)]
pub(crate) struct JobSide {
    #[command(flatten)]
    broker: Broker,
    #[command(flatten)]
    identity: Identity,
}

impl JobSide {
    /// Whether an argument, and not only the environment, speaks of a job.
    pub(crate) fn is_named(&self) -> bool {
        let url = self.broker.url();
        self.identity.is_named() || (!url.is_empty() && std::env::var("HALLPASS_URL").as_deref() != Ok(url))
    }

    /// Revokes all of the job's; answers what the broker says.
    ///
    /// # Errors
    ///
    /// As the contract's exit codes say.
    pub(crate) fn revoke_all(&self) -> Result<Secret, Failure> {
        let caller = self.broker.caller()?;
        let answer = self
            .by_token(async |token| caller.post("/v1/revocations", token, &json!({ "scope": "job" })).await);
        Ok(answer?.body)
    }

    /// Revokes one issuance, by its handle where there is one; answers in the same words.
    ///
    /// # Errors
    ///
    /// As the contract's exit codes say.
    pub(crate) fn revoke_one(&self, id: &str, handle: Option<Secret>) -> Result<Secret, Failure> {
        let caller = self.broker.caller()?;
        let path = format!("/v1/issuances/{id}");
        let answer = match handle {
            Some(handle) => process::light_runtime()?.block_on(caller.delete(&path, &handle))?,
            None => self.by_token(async |token| caller.delete(&path, token).await)?,
        };
        told(id, &answer).map(|told| Secret::from_text(told.to_string()))
    }

    fn by_token(&self, call: impl AsyncFn(&Secret) -> Result<Answer, Failure>) -> Result<Answer, Failure> {
        let source = self.identity.source(self.broker.url())?;
        process::light_runtime()?.block_on(async {
            let token = source.token().await?;
            call(&token).await.map_err(|failure| denial::explain(failure, &source, &token))
        })
    }
}

/// What a DELETE came to, in the words of a revocation.
fn told(id: &str, answer: &Answer) -> Result<Value, Failure> {
    let one = || json!([{ "id": id }]);
    match answer.status {
        204 => Ok(json!({ "revoked": one(), "queued": [], "irrevocable": [] })),
        202 => Ok(json!({ "revoked": [], "queued": one(), "irrevocable": [] })),
        _ => {
            let body = read_bounded(answer.body.expose())
                .map_err(|_| Failure::new(Exit::Unreachable, "the answer is not a broker's"))?;
            let until = body.get("usable_until").cloned().unwrap_or_default();
            let mut item = json!({ "id": id, "usable_until": until });
            if let (Some(remedy), Some(item)) = (body.get("remedy"), item.as_object_mut()) {
                item.insert("remedy".to_owned(), remedy.clone());
            }
            Ok(json!({ "revoked": [], "queued": [], "irrevocable": [item] }))
        }
    }
}
