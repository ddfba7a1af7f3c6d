//! `hallpass policy check`: the broker's own loader, run where a change is reviewed.
//!
//! It answers by exit code: 0 where the broker would accept the set, 20 where it would not, 23 where a guardrail
//! refuses what a grant offers. What could not be looked at for want of a configuration or a database is named, since
//! silence would be read as a yes.

use serde_json::{Value, json};

use super::set::{Place, Stand, missing_secrets, secrets, trusted};
use crate::{
    broker::Clock,
    cli::{
        config::Config,
        exit::{Done, Exit, Failure},
        findings::{Format, Report, Source, members, render},
        output,
    },
    kernel::policy::{
        Finding, PolicySet, Severity,
        breaches::breaches,
        lint::lint,
        load::{self, Loaded},
    },
};

/// `policy check`
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    place: Place,
    /// How findings are shown.
    #[arg(long, visible_alias = "output", value_enum, default_value_t)]
    format: Format,
    /// Fails on warnings too.
    #[arg(long)]
    deny_warnings: bool,
}

/// What one set came to.
struct Outcome {
    set: Option<PolicySet>,
    digest: String,
    refused_by_guardrail: bool,
}

impl Check {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`], [`Exit::PolicyInvalid`] or [`Exit::GuardrailRefuses`].
    pub(crate) fn run(self) -> Done {
        let config = self.place.configuration()?;
        let known = Known::ask(config.as_ref());
        let stands = self.place.read(config.as_ref())?;
        let mut report = Report { sources: Vec::new(), findings: Vec::new() };
        let mut outcomes = Vec::new();
        for stand in &stands {
            report
                .sources
                .extend(stand.files.0.iter().map(|(file, bytes)| Source { path: stand.shown(file), bytes }));
            let (outcome, findings) = look(stand, config.as_ref(), &known);
            report.findings.extend(findings);
            outcomes.push(outcome);
        }
        report.sources.sort_by(|left, right| left.path.cmp(&right.path));
        self.tell(&report, &outcomes, &known)?;
        let exit = self.exit(&report, &outcomes);
        exit.map_or(Ok(()), |exit| Err(Failure::silent(exit)))
    }

    fn exit(&self, report: &Report<'_>, outcomes: &[Outcome]) -> Option<Exit> {
        let denied = self.deny_warnings && report.count(Severity::Warning) > 0;
        if outcomes.iter().any(|outcome| outcome.set.is_none()) || denied {
            Some(Exit::PolicyInvalid)
        } else if outcomes.iter().any(|outcome| outcome.refused_by_guardrail) {
            Some(Exit::GuardrailRefuses)
        } else {
            None
        }
    }

    fn tell(&self, report: &Report<'_>, outcomes: &[Outcome], known: &Known) -> Done {
        if self.format == Format::Json {
            return output::json(&value(report, outcomes, known));
        }
        let text = render(report, self.format);
        if !text.is_empty() {
            output::line(text.trim_end())?;
        }
        let counts = summary(report, outcomes);
        match self.format {
            Format::Human => {
                if !text.is_empty() {
                    output::line("")?;
                }
                output::line(&counts)?;
                for what in &known.unchecked {
                    output::line(&format!("unchecked: {what}"))?;
                }
                outcomes.iter().try_for_each(|outcome| output::line(&format!("digest: {}", outcome.digest)))
            }
            // What reads the report does not read this, and people do.
            Format::Github | Format::Gitlab | Format::Junit | Format::Json | Format::Sarif => {
                output::say(&counts);
                known.unchecked.iter().for_each(|what| output::say(&format!("unchecked: {what}")));
                outcomes.iter().for_each(|outcome| output::say(&format!("digest: {}", outcome.digest)));
                Ok(())
            }
        }
    }
}

/// What can be asked beside the files.
struct Known {
    /// The names of sealed secrets, where a database tells them.
    secrets: Option<Vec<String>>,
    /// What nobody could tell.
    unchecked: Vec<String>,
}

impl Known {
    fn ask(config: Option<&Config>) -> Self {
        let Some(config) = config else {
            let unchecked = [
                "whether hallpass.yaml trusts these issuers under their names, URLs and profiles (no configuration)",
                "whether hallpass.yaml has the backends that credentials name, or one where they name none (no configuration)",
                "whether the sealed secrets exist (no configuration)",
                "whether an audience is this broker's own URL or issuer (no configuration)",
            ];
            return Self { secrets: None, unchecked: unchecked.map(str::to_owned).to_vec() };
        };
        match secrets(config) {
            Ok(names) => Self { secrets: Some(names), unchecked: Vec::new() },
            Err(failure) => {
                let unchecked = format!("whether the sealed secrets exist ({failure})");
                Self { secrets: None, unchecked: vec![unchecked] }
            }
        }
    }
}

fn look(stand: &Stand, config: Option<&Config>, known: &Known) -> (Outcome, Vec<Finding>) {
    let digest = stand.files.digest().to_string();
    let loaded = load::load(&stand.files, stand.commit.clone(), trusted(config).as_ref());
    let mut refused_by_guardrail = false;
    let (set, mut findings) = match loaded {
        Ok(Loaded { set, warnings: mut findings }) => {
            let now = Clock::System.now();
            let breaches = breaches(&set, now);
            refused_by_guardrail = breaches.iter().any(|finding| finding.severity == Severity::Error);
            findings.extend(breaches);
            findings.extend(lint(&set, now));
            findings.extend(known.secrets.iter().flat_map(|names| missing_secrets(stand, &set, names)));
            sort(&mut findings);
            (Some(set), findings)
        }
        Err(findings) => (None, findings),
    };
    for finding in &mut findings {
        finding.file = stand.shown(&finding.file);
    }
    (Outcome { set, digest, refused_by_guardrail }, findings)
}

fn sort(findings: &mut [Finding]) {
    findings.sort_by(|left, right| {
        (&left.file, left.line, left.column).cmp(&(&right.file, right.line, right.column))
    });
}

fn summary(report: &Report<'_>, outcomes: &[Outcome]) -> String {
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    let grants = outcomes.iter().filter_map(|outcome| outcome.set.as_ref()).map(|set| set.grants.len()).sum();
    let files = counted(report.sources.len(), "file");
    if outcomes.iter().any(|outcome| outcome.set.is_none()) {
        format!("refused: {files}, {}, {}", counted(errors, "error"), counted(warnings, "warning"))
    } else if errors > 0 {
        format!(
            "loads, but guardrails refuse what grants offer: {files}, {}, {}",
            counted(errors, "breach"),
            counted(warnings, "warning")
        )
    } else {
        format!("OK: {files}, {}, {}", counted(grants, "grant"), counted(warnings, "warning"))
    }
}

fn value(report: &Report<'_>, outcomes: &[Outcome], known: &Known) -> Value {
    let digest = |outcome: &Outcome| outcome.digest.clone();
    json!({
        "ok": report.count(Severity::Error) == 0,
        "accepted": outcomes.iter().all(|outcome| outcome.set.is_some()),
        "findings": report.findings.iter().map(members).collect::<Vec<_>>(),
        "unchecked": known.unchecked,
        "digest": outcomes.first().map(digest),
        "digests": outcomes.iter().map(digest).collect::<Vec<_>>(),
    })
}

fn counted(count: usize, what: &str) -> String {
    match (count, what.ends_with("ch")) {
        (1, _) => format!("1 {what}"),
        (_, true) => format!("{count} {what}es"),
        (_, false) => format!("{count} {what}s"),
    }
}
