//! `hallpass credential`: the broker behind the helper protocols of other tools.

use serde_json::Value;

use super::{
    super::{
        exit::{Done, Failure},
        output, process,
    },
    ask::Ask,
    aws::{self, AccessKey},
    broker::Broker,
    denial,
    exchanged::Exchanged,
    identity::Identity,
};
use crate::kernel::secret::Secret;

/// `credential …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum CredentialCommand {
    /// Answers AWS's `credential_process` with the access key of a grant.
    ///
    /// In ~/.aws/config: `credential_process = hallpass credential aws-process GRANT`. Every process that uses AWS asks
    /// once, and again shortly before the key ends; where the CI system mints one token per job, the grant needs
    /// `uses_per_token` for that, and `hallpass exec` is the better way.
    AwsProcess(AwsProcess),
}

/// `credential aws-process`
#[derive(Debug, clap::Args)]
pub(crate) struct AwsProcess {
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    broker: Broker,
    #[command(flatten)]
    identity: Identity,
}

impl CredentialCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// As the contract's exit codes say.
    pub(crate) fn run(self) -> Done {
        match self {
            Self::AwsProcess(command) => command.run(),
        }
    }
}

impl AwsProcess {
    fn run(self) -> Done {
        // Before anything is asked: what is not shown would be used up all the same.
        if output::is_terminal() {
            return Err(Failure::usage("stdout is a terminal; this is for AWS's tools to read, see --help"));
        }
        process::harden()?;
        let caller = self.broker.caller()?;
        let source = self.identity.source(self.broker.url())?;
        let body = self.ask.body();
        let answer = process::light_runtime()?.block_on(async {
            let token = source.token().await?;
            let answer = caller.post("/v1/exchange", &token, &body).await;
            answer.map_err(|failure| denial::explain(failure, &source, &token))
        })?;
        let exchanged = Exchanged::read(&answer.body)?;
        output::bytes(document(&exchanged)?.expose())
    }
}

/// The answer, of the one access key that there must be.
/// Source: AWS CLI User Guide, "Sourcing credentials with an external process".
fn document(exchanged: &Exchanged) -> Result<Secret, Failure> {
    let mut found = exchanged.issuances.iter().filter(|issuance| AccessKey::of(issuance).is_some());
    let (Some(issuance), None) = (found.next(), found.next()) else {
        return Err(Failure::usage(
            "there must be one credential with the fields access_key_id and secret_access_key; choose it by --credential",
        ));
    };
    let key = AccessKey::of(issuance);
    let mut document = key
        .and_then(|key| key.document("SessionToken"))
        .ok_or_else(|| Failure::usage("the access key is no text"))?;
    if let Some(end) = issuance.expires_at {
        document.insert("Expiration".to_owned(), aws::time(end).into());
    }
    document.insert("Version".to_owned(), 1.into());
    Ok(Secret::from_text(format!("{}\n", Value::from(document))))
}
