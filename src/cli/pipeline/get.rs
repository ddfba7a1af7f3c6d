//! `hallpass get`: one exchange, its answer on stdout. Never on a terminal unasked, where it would stay in the
//! scrollback.

use super::{
    super::{
        exit::{Done, Failure},
        output, process,
    },
    ask::Ask,
    broker::{Answer, Broker, shown},
    denial,
    exchanged::Exchanged,
    identity::Identity,
    names, quoting,
};
use crate::kernel::secret::Secret;

/// `get`
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    broker: Broker,
    #[command(flatten)]
    identity: Identity,
    /// Only the value of this field, without a newline; one credential must have it, or say CREDENTIAL.NAME.
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// How the answer is shown [default: human on a terminal, json elsewhere].
    #[arg(long, value_enum, conflicts_with = "field")]
    output: Option<Shape>,
    /// Shows secrets also on a terminal; a pipe or a file gets them anyway.
    #[arg(long)]
    reveal: bool,
}

/// How credentials are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Shape {
    /// Lines for a dotenv file, CREDENTIAL_FIELD='value'.
    Dotenv,
    /// Lines for a shell: export CREDENTIAL_FIELD='value'.
    Env,
    /// For people.
    Human,
    /// For programs: the whole answer, one JSON value.
    Json,
}

impl Get {
    /// Asks and shows.
    ///
    /// # Errors
    ///
    /// As the contract's exit codes say.
    pub(crate) fn run(self) -> Done {
        denial::announced(self.get())
    }

    fn get(&self) -> Done {
        // Before anything is asked: what is not shown would be used up all the same.
        if output::is_terminal() && !self.reveal {
            let message = "stdout is a terminal: send it on to a program or file, or say --reveal";
            return Err(Failure::usage(message));
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
        self.show(&answer)
    }

    fn show(&self, answer: &Answer) -> Done {
        if let Some(field) = &self.field {
            return output::bytes(one_field(&Exchanged::read(&answer.body)?, field)?.expose());
        }
        // A person wants to see the credentials; a program gets the whole answer.
        let asked = if output::is_terminal() { Shape::Human } else { Shape::Json };
        match self.output.unwrap_or(asked) {
            Shape::Dotenv => {
                let exchanged = Exchanged::read(&answer.body)?;
                output::bytes(quoting::for_dotenv(&names::by_rule(&exchanged)?)?.expose())
            }
            Shape::Env => {
                let exchanged = Exchanged::read(&answer.body)?;
                output::bytes(quoting::for_shell(&names::by_rule(&exchanged)?)?.expose())
            }
            Shape::Human => output::bytes(for_people(&Exchanged::read(&answer.body)?).expose()),
            Shape::Json => {
                output::bytes(answer.body.expose())?;
                output::data("\n")
            }
        }
    }
}

/// The credentials, a line each and one a field.
fn for_people(exchanged: &Exchanged) -> Secret {
    let mut text = String::new();
    for issuance in &exchanged.issuances {
        let end =
            issuance.expires_at.map_or_else(|| "never ends by itself".to_owned(), |at| format!("ends {at}"));
        text.push_str(&format!(
            "{}/{} ({}), {end}\n",
            shown(&issuance.grant),
            shown(&issuance.credential),
            shown(&issuance.id)
        ));
        for field in &issuance.fields {
            text.push_str(&format!(
                "  {}: {}\n",
                shown(&field.name),
                field.value.expose_text().unwrap_or_default()
            ));
        }
    }
    Secret::from_text(text)
}

/// The value of a field that exactly one credential has; `CREDENTIAL.NAME` names the credential too.
fn one_field<'a>(exchanged: &'a Exchanged, name: &str) -> Result<&'a Secret, Failure> {
    // A field's own name may hold a dot, as those of key-value secrets do.
    let is_it = |credential: &str, field: &str| {
        field == name || name.split_once('.').is_some_and(|(of, rest)| of == credential && rest == field)
    };
    let issuances = exchanged.issuances.iter();
    let fields = issuances.flat_map(|issuance| issuance.fields.iter().map(move |field| (issuance, field)));
    let mut found = fields.filter(|(issuance, field)| is_it(&issuance.credential, &field.name));
    match (found.next(), found.next()) {
        (Some((_, field)), None) => Ok(&field.value),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "several credentials have a field `{name}`; choose one by --credential, or say CREDENTIAL.{name}"
        ))),
        (None, _) => Err(Failure::usage(format!("no credential has a field `{name}`"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::super::exit::Exit, *};

    fn exchanged(issuances: &Value) -> Exchanged {
        let mut answer = json!({ "decision_id": "dec_1", "issuances": issuances });
        for issuance in answer["issuances"].as_array_mut().unwrap() {
            for (name, value) in [
                ("id", "iss_1".into()),
                ("handle", "hdl_1".into()),
                ("grant", "g".into()),
                ("credential", "c".into()),
                ("kind", "sealed".into()),
                ("secret_fields", json!([])),
                ("expires_at", Value::Null),
                ("revocable", false.into()),
            ] {
                issuance.as_object_mut().unwrap().entry(name).or_insert(value);
            }
        }
        Exchanged::read(&Secret::from_text(answer.to_string())).unwrap()
    }

    #[test]
    fn a_person_sees_each_credential_with_its_end() {
        let exchanged = exchanged(&json!([
            { "id": "iss_1", "credential": "npm", "fields": { "value": "x" } },
            { "id": "iss_2", "credential": "api", "fields": { "token": "y" }, "expires_at": "2027-01-13T10:05:00Z" },
        ]));
        let text = "g/npm (iss_1), never ends by itself\n  value: x\ng/api (iss_2), ends 2027-01-13T10:05:00Z\n  token: y\n";
        assert_eq!(for_people(&exchanged).expose_text(), Some(text));
    }

    #[test]
    fn a_field_comes_from_exactly_one_credential() {
        let one = exchanged(&json!([{ "fields": { "value": "x" } }, { "fields": { "token": "y" } }]));
        assert_eq!(one_field(&one, "value").unwrap().expose(), b"x");
        assert_eq!(one_field(&one, "other").err().unwrap().exit, Exit::Usage);
        let two = exchanged(&json!([{ "fields": { "value": "x" } }, { "fields": { "value": "y" } }]));
        assert_eq!(one_field(&two, "value").err().unwrap().exit, Exit::Usage);
        let named = self::exchanged(&json!([
            { "credential": "a", "fields": { "value": "x" } }, { "credential": "b", "fields": { "value": "y" } }
        ]));
        assert_eq!(one_field(&named, "b.value").unwrap().expose(), b"y");
        assert_eq!(Exchanged::read(&Secret::new(vec![1])).err().unwrap().exit, Exit::Unreachable);
    }
}
