//! `hallpass grants`: what the job's token may ask for now.

use serde_json::Value;

use super::{
    super::{
        exit::{Done, Exit, Failure},
        output::{self, Output},
        process,
    },
    broker::{Broker, shown},
    denial,
    identity::Identity,
};
use crate::kernel::json::read_bounded;

/// `grants`
#[derive(Debug, clap::Args)]
pub(crate) struct Grants {
    #[command(flatten)]
    broker: Broker,
    #[command(flatten)]
    identity: Identity,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Grants {
    /// Asks and shows.
    ///
    /// # Errors
    ///
    /// As the contract's exit codes say.
    pub(crate) fn run(self) -> Done {
        denial::announced(self.ask())
    }

    fn ask(&self) -> Done {
        process::harden()?;
        let caller = self.broker.caller()?;
        let source = self.identity.source(self.broker.url())?;
        let answer = process::light_runtime()?.block_on(async {
            let token = source.token().await?;
            let answer = caller.get("/v1/grants", Some(&token)).await;
            answer.map_err(|failure| denial::explain(failure, &source, &token))
        })?;
        let not_ours = || Failure::new(Exit::Unreachable, "the answer is not a broker's");
        let answer = read_bounded(answer.body.expose()).map_err(|_| not_ours())?;
        match self.output {
            Output::Json => output::json(&answer),
            Output::Human => output::data(&table(&answer).ok_or_else(not_ours)?),
        }
    }
}

/// A line a grant, and one a credential.
fn table(answer: &Value) -> Option<String> {
    let grants = answer.get("grants")?.as_array()?;
    if grants.is_empty() {
        return Some("none: no grant permits this job now\n".to_owned());
    }
    let mut text = String::new();
    for grant in grants {
        let name = shown(grant.get("name")?.as_str()?);
        match grant.get("description").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(description) => text.push_str(&format!("{name}: {}\n", shown(description))),
            None => text.push_str(&format!("{name}\n")),
        }
        for credential in grant.get("credentials")?.as_array()? {
            let member = |name: &str| credential.get(name).and_then(Value::as_str).map(shown);
            let life = match credential.get("max_ttl_seconds").and_then(Value::as_u64) {
                Some(seconds) => format!("at most {}", words(seconds)),
                None => "never ends by itself".to_owned(),
            };
            text.push_str(&format!("  {} ({}), {life}\n", member("name")?, member("kind")?));
        }
    }
    Some(text)
}

/// A duration as policy files write it.
fn words(seconds: u64) -> String {
    match seconds {
        hours if hours % 3600 == 0 => format!("{}h", hours / 3600),
        minutes if minutes % 60 == 0 => format!("{}m", minutes / 60),
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_sees_what_may_be_asked_for() {
        let answer = json!({ "grants": [
            { "name": "deploy", "description": "What a deploy\nneeds", "credentials": [
                { "name": "cloud", "kind": "oidc", "max_ttl_seconds": 300 },
                { "name": "npm", "kind": "sealed", "max_ttl_seconds": null },
            ] },
            { "name": "read", "description": "", "credentials": [{ "name": "db", "kind": "vault", "max_ttl_seconds": 90 }] },
        ] });
        let expected = "deploy: What a deploy\u{fffd}needs\n  cloud (oidc), at most 5m\n  npm (sealed), never ends by itself\n\
                        read\n  db (vault), at most 90s\n";
        assert_eq!(table(&answer).as_deref(), Some(expected));
        assert!(table(&json!({ "grants": [] })).unwrap().starts_with("none"));
        assert_eq!(table(&json!({ "grants": [{}] })), None);
    }
}
