//! `hallpass whoami`: what the broker reads in a job's token, for those who write policy; with `--explain` also how the
//! token was found, for those whose step finds none.

use serde_json::{Map, Value, json};

use super::{
    super::{
        exit::{Done, Exit, Failure},
        output::{self, Output},
        process,
    },
    broker::{Broker, shown},
    denial,
    identity::{Found, Identity, Look, Search, Source},
};
use crate::kernel::json::read_bounded;

/// `whoami`
#[derive(Debug, clap::Args)]
pub(crate) struct Whoami {
    #[command(flatten)]
    broker: Broker,
    #[command(flatten)]
    identity: Identity,
    /// Shows also which CI systems were looked for, which was found, and what the token says before anybody verified it.
    #[arg(long)]
    explain: bool,
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
        denial::announced(self.ask())
    }

    fn ask(&self) -> Done {
        process::harden()?;
        let caller = self.broker.caller()?;
        let search = self.identity.search(self.broker.url());
        let mut explained = Map::new();
        if self.explain {
            self.show(&mut explained, "detectors", &detectors(&search))?;
        }
        // What was found is told even where nothing more comes of it.
        let shown = self.identity.chosen(search, self.broker.url()).and_then(|source| {
            process::light_runtime()?.block_on(async {
                let token = source.token().await?;
                if self.explain {
                    self.show(&mut explained, "token", &unverified(&source, Look::at(&token)))?;
                }
                let answer = caller.get("/v1/whoami", Some(&token)).await;
                answer.map_err(|failure| denial::explain(failure, &source, &token))
            })
        });
        let identity = shown.and_then(|answer| {
            read_bounded(answer.body.expose())
                .map_err(|_| Failure::new(Exit::Unreachable, "the answer is not a broker's"))
        });
        match (self.output, self.explain, identity) {
            (Output::Json, true, identity) => {
                let (identity, failure) = match identity {
                    Ok(identity) => (identity, Ok(())),
                    Err(failure) => (Value::Null, Err(failure)),
                };
                explained.insert("whoami".to_owned(), identity);
                output::json(&explained.into())?;
                failure
            }
            (Output::Json, false, identity) => output::json(&identity?),
            (Output::Human, true, identity) => {
                output::data(&format!("verified:\n{}", lines(&identity?, "  ")))
            }
            (Output::Human, false, identity) => output::data(&lines(&identity?, "")),
        }
    }

    /// Shows a part of the explanation at once, or keeps it for the one JSON value.
    fn show(&self, explained: &mut Map<String, Value>, name: &str, part: &Value) -> Done {
        match self.output {
            Output::Json => {
                explained.insert(name.to_owned(), part.clone());
                Ok(())
            }
            Output::Human if name == "detectors" => output::data(&told(part)),
            Output::Human => output::data(&format!("{name}, unverified:\n{}", lines(part, "  "))),
        }
    }
}

/// What each detector said, in order.
fn detectors(search: &Search) -> Value {
    let tried = search.tried.iter().map(|(system, found)| {
        let (verdict, why) = match found {
            Found::Declined(why) => ("declined", why.clone()),
            Found::Fired(way) => ("fired", way.to_string()),
            Found::Withheld(why) => ("no token", why.clone()),
        };
        json!({ "system": system.to_string(), "verdict": verdict, "why": why })
    });
    tried.collect()
}

/// The detectors for people.
fn told(detectors: &Value) -> String {
    let line = |each: &Value| {
        let member = |name: &str| shown(each.get(name).and_then(Value::as_str).unwrap_or_default());
        format!("  {}: {}, {}\n", member("system"), member("verdict"), member("why"))
    };
    let lines: String = detectors.as_array().into_iter().flatten().map(line).collect();
    format!("looked for:\n{lines}")
}

/// What the token says, and whether it is for whom it should be for.
fn unverified(source: &Source, look: Option<Look>) -> Value {
    let audience = &source.audience().text;
    match look {
        Some(look) => json!({
            "wanted_audience": audience,
            "is_for_it": look.audiences() == [audience.as_str()],
            "claims": look.claims,
        }),
        None => json!({ "wanted_audience": audience, "claims": null }),
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
