//! `hallpass whoami`: what the broker reads in a job's token, for those who write policy.

use serde_json::Value;

use super::{
    super::{
        exit::{Done, Exit, Failure},
        output::{self, Output},
        process,
    },
    broker::{Broker, shown},
    identity::Identity,
};
use crate::kernel::json::read_bounded;

/// `whoami`
#[derive(Debug, clap::Args)]
pub(crate) struct Whoami {
    #[command(flatten)]
    broker: Broker,
    #[command(flatten)]
    identity: Identity,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Whoami {
    /// Asks and shows.
    ///
    /// # Errors
    ///
    /// As the contract's exit codes say.
    pub(crate) fn run(self) -> Done {
        process::harden()?;
        let caller = self.broker.caller()?;
        let source = self.identity.source(self.broker.url())?;
        let answer = process::runtime()?.block_on(async {
            let token = source.token().await?;
            caller.get("/v1/whoami", Some(&token)).await
        })?;
        let identity = read_bounded(answer.body.expose())
            .map_err(|_| Failure::new(Exit::Unreachable, "the answer is not a broker's"))?;
        match self.output {
            Output::Json => output::json(&identity),
            Output::Human => output::data(&lines(&identity, "")),
        }
    }
}

/// One line a member, what is nested below its own name.
fn lines(value: &Value, indent: &str) -> String {
    let Value::Object(members) = value else { return String::new() };
    let line = |(name, value): (&String, &Value)| {
        let name = shown(name);
        match value {
            Value::Null => String::new(),
            Value::Object(_) => format!("{indent}{name}:\n{}", lines(value, &format!("{indent}  "))),
            Value::String(text) => format!("{indent}{name}: {}\n", shown(text)),
            Value::Array(items) if items.is_empty() => String::new(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                format!("{indent}{name}: {}\n", shown(&value.to_string()))
            }
        }
    };
    members.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::lines;

    #[test]
    fn members_are_shown_one_a_line_and_empty_ones_not_at_all() {
        let identity =
            json!({ "ref": "refs/heads/main", "run": null, "claims": { "actor": "a\nb" }, "unusable": [] });
        assert_eq!(lines(&identity, ""), "claims:\n  actor: a\u{fffd}b\nref: refs/heads/main\n");
    }
}
