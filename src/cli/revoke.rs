//! `hallpass revoke`: one command with two sides, told apart by its arguments. In a job it asks the broker, by the CI
//! token for all of the job's, or by its handle for one issuance. For an operator it opens the store itself, also while
//! `serve` runs, and ends what a grant, a project or a time names.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    actor::Actor,
    config::Config,
    exit::{Done, Exit, Failure},
    freeze::checked_reason,
    installation,
    output::{self, Output},
    pipeline::{JobSide, shown},
    process,
};
use crate::{
    adapters::store::Options,
    broker::emergency::{Ended, Operator, Revocation, Sought},
    kernel::{
        freeze::FreezeScope, id::IssuanceId, json::read_bounded, lifetime::Since, name::GrantName,
        secret::Secret,
    },
};

/// `revoke`
#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// One issuance, by its handle or by the job's token; without it all of this job's.
    #[arg(value_name = "ISSUANCE")]
    issuance: Option<String>,
    /// The file that holds its handle; `-` is stdin.
    #[arg(long, value_name = "FILE", requires = "issuance")]
    handle_file: Option<PathBuf>,
    #[command(flatten)]
    job: JobSide,
    #[command(flatten)]
    operator: OperatorSide,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What an operator says; whatever is given must hold.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Of an operator, on the store")]
struct OperatorSide {
    /// What this grant issued.
    #[arg(long, value_name = "NAME")]
    grant: Option<String>,
    /// What jobs of this project were issued.
    #[arg(long, value_name = "ISSUER/PROJECT-ID")]
    project: Option<String>,
    /// What was issued since then: a time such as 2027-01-13T10:00:00Z, or a duration such as 2h.
    #[arg(long, value_name = "TIME|DURATION")]
    since: Option<String>,
    /// Why, for the audit record; at most 256 characters.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Shows what it would end, and ends nothing.
    #[arg(long)]
    dry_run: bool,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Revoke {
    /// Revokes and shows what became of each issuance.
    ///
    /// # Errors
    ///
    /// As the contract's exit codes say.
    pub(crate) fn run(self) -> Done {
        let job_says = self.issuance.is_some() || self.handle_file.is_some() || self.job.is_named();
        if self.operator.is_named() {
            if job_says {
                let message = "--grant, --project, --since, --reason, --dry-run and --config are an operator's, on the \
                               store; an issuance, a handle, a token and a URL are a job's: say one or the other";
                return Err(Failure::usage(message));
            }
            return self.operator.run(self.output);
        }
        process::harden()?;
        let told = match &self.issuance {
            None => self.job.revoke_all()?,
            Some(id) => {
                if IssuanceId::parse(id).is_none() {
                    return Err(Failure::usage("that is no issuance: its id begins with iss_"));
                }
                let handle = self.handle_file.as_deref().map(handle).transpose()?;
                self.job.revoke_one(id, handle)?
            }
        };
        let told = read_bounded(told.expose())
            .map_err(|_| Failure::new(Exit::Unreachable, "the answer is not a broker's"))?;
        show(&told, self.output, false)
    }
}

impl OperatorSide {
    fn is_named(&self) -> bool {
        self.grant.is_some()
            || self.project.is_some()
            || self.since.is_some()
            || self.reason.is_some()
            || self.dry_run
            || self.config.is_some()
    }

    fn run(self, output: Output) -> Done {
        process::harden()?;
        let actor = Actor::new()?;
        let sought = self.sought(&actor)?;
        let reason = match &self.reason {
            Some(reason) => checked_reason(reason)?,
            None if self.dry_run => "",
            None => return Err(Failure::usage("--reason is due: whoever reads the ledger must know why")),
        };
        let config = Config::load(self.config.as_deref())?;
        let revoked = process::runtime()?.block_on(async {
            let options = Options { read_only: self.dry_run, ..Options::default() };
            let store = installation::open_store(&config, options)?;
            let (seal, name) = (|draft| actor.seal(draft), Actor::name());
            let operator = Operator { store: &*store, name: &name, seal: &seal, now: actor.now() };
            let revoked = operator.revoke(&sought, reason, self.dry_run).await;
            store.close().await;
            revoked.map_err(Failure::from)
        })?;
        show(&told(&revoked), output, self.dry_run)
    }

    fn sought(&self, actor: &Actor) -> Result<Sought, Failure> {
        let grant = self.grant.as_deref().map(|name| {
            GrantName::parse(name).ok_or_else(|| Failure::usage(format!("`{name}` is not a grant's name")))
        });
        let project = self.project.as_deref().map(|name| match FreezeScope::read("project", name) {
            Some(FreezeScope::Project { issuer, project }) => Ok((issuer, project)),
            Some(_) | None => Err(Failure::usage(format!("`{name}` is not ISSUER/PROJECT-ID"))),
        });
        let since = self.since.as_deref().map(|text| {
            let message =
                format!("`{text}` is neither a time such as 2027-01-13T10:00:00Z nor a duration such as 2h");
            Since::parse(text).map(|since| since.at(actor.now())).ok_or_else(|| Failure::usage(message))
        });
        let sought =
            Sought { grant: grant.transpose()?, project: project.transpose()?, since: since.transpose()? };
        if sought.grant.is_none() && sought.project.is_none() && sought.since.is_none() {
            return Err(Failure::usage(
                "say what: --grant, --project or --since, or several, which must all hold",
            ));
        }
        Ok(sought)
    }
}

fn handle(file: &Path) -> Result<Secret, Failure> {
    let text =
        if file == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
    let text = Secret::from_text(text.map_err(|fault| Failure::file(file, &fault))?);
    let handle = text.expose().trim_ascii();
    if !handle.starts_with(b"hdl_") || !handle.iter().all(u8::is_ascii_graphic) {
        return Err(Failure::usage(format!("{} holds no handle: one begins with hdl_", file.display())));
    }
    Ok(Secret::new(handle.to_vec()))
}

/// The same words as the API's answer.
fn told(revocation: &Revocation) -> Value {
    let plain = |each: &Ended| json!({ "id": each.id.to_string(), "grant": each.grant, "credential": each.credential });
    let usable = |each: &Ended| {
        let mut item = plain(each);
        if let Value::Object(members) = &mut item {
            members.insert("usable_until".to_owned(), each.usable_until.map(|at| at.to_string()).into());
            if let Some(remedy) = each.remedy {
                members.insert("remedy".to_owned(), remedy.into());
            }
        }
        item
    };
    json!({
        "revoked": revocation.revoked.iter().map(plain).collect::<Vec<_>>(),
        "queued": revocation.queued.iter().map(plain).collect::<Vec<_>>(),
        "irrevocable": revocation.irrevocable.iter().map(usable).collect::<Vec<_>>(),
    })
}

fn show(told: &Value, output: Output, is_dry: bool) -> Done {
    match output {
        Output::Json => output::json(told),
        Output::Human => output::data(&lines(told, is_dry)),
    }
}

/// A line an issuance: what became of it, and what is left to do.
fn lines(told: &Value, is_dry: bool) -> String {
    let would = if is_dry { "would be " } else { "" };
    let items = |name: &str| told.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut text = String::new();
    for (list, word) in
        [("revoked", "revoked"), ("queued", "queued for revoking"), ("irrevocable", "released")]
    {
        for item in items(list) {
            let member = |name: &str| item.get(name).and_then(Value::as_str).map(shown);
            let id = member("id").unwrap_or_default();
            text.push_str(&format!("{id} {would}{word}"));
            if let (Some(grant), Some(credential)) = (member("grant"), member("credential")) {
                text.push_str(&format!(", {grant}/{credential}"));
            }
            if list == "irrevocable" {
                match member("usable_until") {
                    Some(until) => text.push_str(&format!(": nobody can revoke it, it ends at {until}")),
                    None => text.push_str(
                        ": nobody can revoke it and it never ends by itself; change it where it is used",
                    ),
                }
                if let Some(remedy) = member("remedy") {
                    text.push_str(&format!("; {remedy}"));
                }
            }
            text.push('\n');
        }
    }
    if text.is_empty() { "nothing that is still usable\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_what_is_left_to_do() {
        let told = json!({
            "revoked": [{ "id": "iss_1", "grant": "g", "credential": "db" }],
            "queued": [{ "id": "iss_2" }],
            "irrevocable": [
                { "id": "iss_3", "usable_until": null },
                { "id": "iss_4", "usable_until": "2027-01-13T10:05:00Z", "remedy": "deny it at the role" },
            ],
        });
        assert_eq!(
            lines(&told, false),
            "iss_1 revoked, g/db\n\
             iss_2 queued for revoking\n\
             iss_3 released: nobody can revoke it and it never ends by itself; change it where it is used\n\
             iss_4 released: nobody can revoke it, it ends at 2027-01-13T10:05:00Z; deny it at the role\n"
        );
        assert!(lines(&told, true).starts_with("iss_1 would be revoked"));
        assert_eq!(lines(&json!({}), false), "nothing that is still usable\n");
    }
}
