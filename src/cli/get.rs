//! `hallpass get`: one exchange, its answer on stdout. Never on a terminal unasked, where it would stay in the
//! scrollback.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    client::{Broker, shown, token},
    exit::{Done, Exit, Failure},
    output::{self, Output},
    process,
};
use crate::kernel::secret::Secret;

/// `get`
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The grant.
    grant: String,
    #[command(flatten)]
    broker: Broker,
    /// The file that holds the job's token; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Only this credential of the grant; may be given several times.
    #[arg(long, value_name = "NAME")]
    credential: Vec<String>,
    /// Only the value of this field, without a newline; one credential must have it.
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// How the answer is shown [default: human on a terminal, json elsewhere].
    #[arg(long, value_enum, conflicts_with = "field")]
    output: Option<Output>,
    /// Shows secrets also on a terminal; a pipe or a file gets them anyway.
    #[arg(long)]
    reveal: bool,
}

impl Get {
    /// Asks and shows.
    ///
    /// # Errors
    ///
    /// As the contract's exit codes say.
    pub(crate) fn run(self) -> Done {
        // Before anything is asked: what is not shown would be used up all the same.
        if output::is_terminal() && !self.reveal {
            let message = "stdout is a terminal: send it on to a program or file, or say --reveal";
            return Err(Failure::usage(message));
        }
        process::harden()?;
        let caller = self.broker.caller()?;
        let token = token(self.token_file.as_deref())?;
        let mut grant = json!({ "name": self.grant });
        if let (Value::Object(members), false) = (&mut grant, self.credential.is_empty()) {
            members.insert("credentials".to_owned(), self.credential.clone().into());
        }
        let body = json!({ "grants": [grant] });
        let answer = process::runtime()?.block_on(caller.post("/v1/exchange", &token, &body))?;
        if let Some(field) = &self.field {
            return output::bytes(one_field(&answer.body, field)?.expose());
        }
        // A person wants to see the credentials; a program gets the whole answer.
        let asked = if output::is_terminal() { Output::Human } else { Output::Json };
        match self.output.unwrap_or(asked) {
            Output::Human => output::bytes(for_people(&answer.body)?.expose()),
            Output::Json => {
                output::bytes(answer.body.expose())?;
                output::data("\n")
            }
        }
    }
}

/// The credentials, a line each and one a field.
fn for_people(body: &Secret) -> Result<Secret, Failure> {
    let not_ours = || Failure::new(Exit::Unreachable, "the answer is not a broker's");
    let answer: Value = serde_json::from_slice(body.expose()).map_err(|_| not_ours())?;
    let issuances = answer.get("issuances").and_then(Value::as_array).ok_or_else(not_ours)?;
    let mut text = String::with_capacity(body.len());
    for issuance in issuances {
        let member = |name: &str| issuance.get(name).and_then(Value::as_str).map(shown);
        let end =
            member("expires_at").map_or_else(|| "never ends by itself".to_owned(), |at| format!("ends {at}"));
        text.push_str(&format!(
            "{}/{} ({}), {end}\n",
            member("grant").unwrap_or_default(),
            member("credential").unwrap_or_default(),
            member("id").unwrap_or_default()
        ));
        let fields = issuance.get("fields").and_then(Value::as_object).ok_or_else(not_ours)?;
        for (name, value) in fields {
            let value = value.as_str().ok_or_else(not_ours)?;
            text.push_str(&format!("  {}: {value}\n", shown(name)));
        }
    }
    Ok(Secret::from_text(text))
}

/// The value of a field that exactly one credential has.
fn one_field(body: &Secret, field: &str) -> Result<Secret, Failure> {
    let not_ours = || Failure::new(Exit::Unreachable, "the answer is not a broker's");
    let mut answer: Value = serde_json::from_slice(body.expose()).map_err(|_| not_ours())?;
    let issuances = answer.get_mut("issuances").and_then(Value::as_array_mut).ok_or_else(not_ours)?;
    let mut found = issuances.iter_mut().filter_map(|issuance| issuance.get_mut("fields")?.get_mut(field));
    match (found.next().map(Value::take), found.next()) {
        (Some(Value::String(value)), None) => Ok(Secret::from_text(value)),
        (Some(_), None) => Err(not_ours()),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "several credentials have a field `{field}`; choose one by --credential"
        ))),
        (None, _) => Err(Failure::usage(format!("no credential has a field `{field}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(issuances: &Value) -> Secret {
        Secret::from_text(json!({ "issuances": issuances }).to_string())
    }

    #[test]
    fn a_person_sees_each_credential_with_its_end() {
        let body = body(&json!([
            { "id": "iss_1", "grant": "g", "credential": "npm", "fields": { "value": "x" }, "expires_at": null },
            { "id": "iss_2", "grant": "g", "credential": "api", "fields": { "token": "y" }, "expires_at": "2027-01-13T10:05:00Z" },
        ]));
        let text = "g/npm (iss_1), never ends by itself\n  value: x\ng/api (iss_2), ends 2027-01-13T10:05:00Z\n  token: y\n";
        assert_eq!(for_people(&body).unwrap().expose_text(), Some(text));
    }

    #[test]
    fn a_field_comes_from_exactly_one_credential() {
        let one = body(&json!([{ "fields": { "value": "x" } }, { "fields": { "token": "y" } }]));
        assert_eq!(one_field(&one, "value").unwrap().expose(), b"x");
        assert_eq!(one_field(&one, "other").err().unwrap().exit, Exit::Usage);
        let two = body(&json!([{ "fields": { "value": "x" } }, { "fields": { "value": "y" } }]));
        assert_eq!(one_field(&two, "value").err().unwrap().exit, Exit::Usage);
        assert_eq!(one_field(&Secret::new(vec![1]), "value").err().unwrap().exit, Exit::Unreachable);
    }
}
