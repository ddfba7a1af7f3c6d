//! `hallpass secret`: sealed secrets, set from stdin and never shown. It opens the store itself, with the sealing key,
//! also while `serve` runs; no HTTP call can do what it does.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
};

use serde_json::{Value, json};

use super::{
    actor::Actor,
    config::Config,
    exit::{Done, Exit, Failure},
    installation,
    output::{self, Output},
    process,
};
use crate::{
    adapters::store::{Change, Options, SecretFault},
    kernel::{
        json::{Bounds, read_strict},
        ledger::entry::EntryCode,
        name::SecretName,
        secret::Secret,
    },
};

/// `secret …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SecretCommand {
    /// Shows names, versions and times; never a value.
    List(List),
    /// Removes a secret; its version is never used again.
    Remove(Named),
    /// Seals what stands on stdin.
    Set(Set),
}

/// `secret set`
#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    #[command(flatten)]
    named: Named,
    /// stdin holds one JSON object of texts: each becomes a field.
    #[arg(long)]
    json: bool,
    /// Keeps a newline at the end of stdin.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

/// A secret by its name.
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The name that policies use.
    name: String,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `secret list`
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// The greatest secret: what is larger is no credential, and would not fit a job's environment.
const MAX_BYTES: u64 = 64 * 1024;
/// The field of a secret that was set without `--json` (contract: section 9).
const VALUE: &str = "value";

impl SecretCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] for a value or name that cannot be, [`Exit::Internal`] where the store cannot be written.
    pub(crate) fn run(self) -> Done {
        process::harden()?;
        let runtime = process::runtime()?;
        match self {
            Self::List(list) => runtime.block_on(list.run()),
            Self::Remove(named) => runtime.block_on(named.remove()),
            Self::Set(set) => runtime.block_on(set.run()),
        }
    }
}

impl Set {
    async fn run(self) -> Done {
        let name = self.named.name()?;
        let config = Config::load(self.named.config.as_deref())?;
        let fields = if self.json { fields(&stdin()?)? } else { vec![value(stdin()?, self.raw)?] };
        let version = seal(&config, &name, &fields).await?;
        output::say(&format!("sealed {name}, version {version}"));
        Ok(())
    }
}

/// Seals a secret, with SECRET_SET in the same transaction.
///
/// # Errors
///
/// [`Failure`]; then nothing changed.
pub(crate) async fn seal(
    config: &Config,
    name: &SecretName,
    fields: &[(String, Secret)],
) -> Result<u64, Failure> {
    let actor = Actor::new()?;
    let store = installation::open_store(config, Options::default())?;
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    let entry = |version: u64| {
        let result = json!({ "secret": name.as_str(), "version": version, "fields": names });
        actor.entry(EntryCode::SecretSet, result).ok()
    };
    let random = |out: &mut [u8]| actor.random(out);
    let change = Change { now: actor.now(), random: &random, entry: &entry };
    let version = store.set_secret(name, fields, change).await;
    store.close().await;
    Ok(version?)
}

impl Named {
    fn name(&self) -> Result<SecretName, Failure> {
        SecretName::parse(&self.name).ok_or_else(|| {
            Failure::usage(format!("`{}` is no name: 1 to 63 of a-z, 0-9 and -, no - at an end", self.name))
        })
    }

    async fn remove(self) -> Done {
        let name = self.name()?;
        let config = Config::load(self.config.as_deref())?;
        let actor = Actor::new()?;
        let store = installation::open_store(&config, Options::default())?;
        let entry = |version: u64| {
            let result = json!({ "secret": name.as_str(), "version": version });
            actor.entry(EntryCode::SecretRemoved, result).ok()
        };
        let random = |out: &mut [u8]| actor.random(out);
        let change = Change { now: actor.now(), random: &random, entry: &entry };
        let version = store.remove_secret(&name, change).await;
        store.close().await;
        output::say(&format!("removed {name}, version {}", version?));
        Ok(())
    }
}

impl List {
    async fn run(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let store = installation::open_store(&config, Options { read_only: true, ..Options::default() })?;
        let secrets = store.list_secrets().await?;
        let items = secrets.iter().map(|secret| {
            json!({
                "name": secret.name.as_str(), "version": secret.version,
                "set_at": secret.set_at.to_string(), "fields": secret.fields,
            })
        });
        match self.output {
            Output::Json => output::json(&json!({ "secrets": items.collect::<Vec<_>>() })),
            Output::Human => {
                let rows = secrets.iter().map(|secret| {
                    format!(
                        "{:<32} version {:<4} {} {}\n",
                        secret.name.as_str(),
                        secret.version,
                        secret.set_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                        if secret.fields == 1 {
                            "1 field".to_owned()
                        } else {
                            format!("{} fields", secret.fields)
                        },
                    )
                });
                output::data(&rows.collect::<String>())
            }
        }
    }
}

fn stdin() -> Result<Secret, Failure> {
    let input = io::stdin().lock();
    if input.is_terminal() {
        let advice =
            "pipe the value: what is typed stays on the screen, what is an argument is seen by every process";
        return Err(Failure::usage(advice));
    }
    // Room for the greatest at once, so that no shorter copy is left behind.
    let mut bytes = Vec::with_capacity(usize::try_from(MAX_BYTES).unwrap_or(0) + 1);
    input
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|fault| Failure::usage(format!("stdin: {fault}")))?;
    let secret = Secret::new(bytes);
    if secret.len() as u64 > MAX_BYTES {
        return Err(Failure::usage("the secret has more than 64 KiB"));
    }
    Ok(secret)
}

fn value(input: Secret, is_raw: bool) -> Result<(String, Secret), Failure> {
    let text = input.expose_text().ok_or_else(not_text)?;
    // One newline is what an editor or `echo` leaves; `\r\n` is one newline too.
    let cut = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    let text = if is_raw { text } else { cut };
    if text.is_empty() {
        return Err(Failure::usage("the value is empty"));
    }
    Ok((VALUE.to_owned(), Secret::new(text.as_bytes().to_vec())))
}

fn fields(input: &Secret) -> Result<Vec<(String, Secret)>, Failure> {
    let bounds = Bounds { depth: 1, nodes: MAX_FIELDS + 1, string_bytes: input.len() };
    let refused =
        || Failure::usage("stdin is no JSON object of texts, such as {\"user\": \"…\", \"password\": \"…\"}");
    let Ok(Value::Object(members)) = read_strict(input.expose(), bounds) else { return Err(refused()) };
    if members.is_empty() {
        return Err(Failure::usage("the object is empty"));
    }
    let mut fields = Vec::with_capacity(members.len());
    for (name, value) in members {
        let Value::String(value) = value else { return Err(refused()) };
        if !is_field_name(&name) {
            let message =
                "a field's name has 1 to 64 of A-Z, a-z, 0-9, _ and -, and begins with a letter or _";
            return Err(Failure::usage(message));
        }
        if value.is_empty() {
            return Err(Failure::usage(format!("the field {name} is empty")));
        }
        fields.push((name, Secret::from_text(value)));
    }
    Ok(fields)
}

fn is_field_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn not_text() -> Failure {
    Failure::usage("the value is not UTF-8 text; encode it, for instance by base64")
}

impl From<SecretFault> for Failure {
    fn from(fault: SecretFault) -> Self {
        let exit = match &fault {
            SecretFault::Missing | SecretFault::NotText => Exit::Usage,
            SecretFault::Contended
            | SecretFault::Entry
            | SecretFault::NoEntropy
            | SecretFault::Seal(_)
            | SecretFault::Store(_) => Exit::Internal,
        };
        Self::new(exit, fault.to_string())
    }
}

/// More fields are no one credential.
const MAX_FIELDS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, is_raw: bool) -> Option<String> {
        let (name, value) = value(Secret::from_text(text.to_owned()), is_raw).ok()?;
        assert_eq!(name, "value");
        Some(value.expose_text().unwrap().to_owned())
    }

    fn json(text: &str) -> Result<Vec<(String, String)>, Exit> {
        let read = fields(&Secret::from_text(text.to_owned())).map_err(|failure| failure.exit)?;
        Ok(read.into_iter().map(|(name, value)| (name, value.expose_text().unwrap().to_owned())).collect())
    }

    #[test]
    fn one_trailing_newline_is_cut_unless_raw() {
        for (text, cut) in
            [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a\r", "a\r"), (" a ", " a ")]
        {
            assert_eq!(set(text, false).as_deref(), Some(cut), "{text:?}");
            assert_eq!(set(text, true).as_deref(), Some(text), "{text:?}");
        }
    }

    #[test]
    fn empty_and_binary_values_are_refused() {
        assert_eq!(set("", false), None);
        assert_eq!(set("\n", false), None);
        assert!(value(Secret::new(vec![0xff]), false).is_err());
    }

    #[test]
    fn json_is_one_object_of_texts() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(json(r#"{"user":"ci","password":"x"}"#).unwrap().len(), 2);
        assert_eq!(json("{\"a\":\"b\"}\n").unwrap(), [pair("a", "b")]);
        for bad in [
            "",
            "[]",
            "\"a\"",
            "{}",
            r#"{"a":1}"#,
            r#"{"a":""}"#,
            r#"{"a":{}}"#,
            r#"{"a":"1","a":"2"}"#,
            r#"{"a b":"1"}"#,
            r#"{"":"1"}"#,
            r#"{"1a":"1"}"#,
            r#"{"a":"1"} x"#,
        ] {
            assert_eq!(json(bad).unwrap_err(), Exit::Usage, "{bad}");
        }
    }
}
