//! `hallpass config check`: everything that `serve` would read, read once, with every mistake told. It opens no
//! database and fetches nothing.

use std::{path::PathBuf, sync::Arc};

use serde_json::{Value, json};

use super::{
    config::Config,
    exit::{Done, Exit, Failure, chain},
    installation, output,
    output::Output,
    serve::tls::Certificate,
};
use crate::{
    adapters::policy_source::PolicySource,
    broker::Clock,
    kernel::policy::{
        Finding, PolicySet,
        load::{self, Loaded},
    },
};

/// `config …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Reads the configuration, every file that it names, and the policies.
    Check(Check),
}

/// `config check`
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl ConfigCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] for the configuration, [`Exit::PolicyInvalid`] for the policies.
    pub(crate) fn run(self) -> Done {
        match self {
            Self::Check(check) => check.run(),
        }
    }
}

impl Check {
    fn run(self) -> Done {
        match self.look() {
            Err(failure) if self.output == Output::Json && !failure.findings.is_empty() => {
                output::json(&json!({ "ok": false, "findings": shown(&failure.findings) }))?;
                Err(Failure::silent(failure.exit))
            }
            done => done,
        }
    }

    fn look(&self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let mut findings = files(&config);
        findings.extend(listeners(&config));
        if !findings.is_empty() {
            return Err(Failure::findings(Exit::Usage, &findings));
        }
        let keys = installation::issuer_keys(&config, Arc::new(|| Clock::System.now()))?;
        let Loaded { set, warnings: unmeant } = policies(&config)?;
        let mut warnings = warnings(&config, &set);
        warnings.extend(unmeant.iter().map(|Finding { file, line, column, message, .. }| {
            format!("{}:{line}:{column}: {message}", config.policies.join(file).display())
        }));
        let of_keys = keys.forewarnings().into_iter();
        warnings.extend(of_keys.map(|(issuer, warning)| format!("the issuer `{issuer}`: {warning}")));
        self.tell(&config, &set, &warnings)
    }

    fn tell(&self, config: &Config, set: &PolicySet, warnings: &[String]) -> Done {
        match self.output {
            Output::Json => output::json(&json!({
                "ok": true, "file": config.file.display().to_string(), "digest": set.digest.to_string(),
                "issuers": set.issuers.len(), "grants": set.grants.len(), "warnings": warnings,
            })),
            Output::Human => {
                warnings.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
                output::line(&format!(
                    "OK: {}, {} and {}; policy {}",
                    config.file.display(),
                    counted(set.issuers.len(), "issuer"),
                    counted(set.grants.len(), "grant"),
                    set.digest
                ))
            }
        }
    }
}

fn shown(findings: &[Finding]) -> Vec<Value> {
    let shown = |finding: &Finding| {
        let Finding { file, line, column, width, severity, code, message, remedy } = finding;
        json!({
            "severity": severity.as_str(), "file": file, "line": line, "column": column, "width": width,
            "code": code, "message": message, "remedy": remedy,
        })
    };
    findings.iter().map(shown).collect()
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn files(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = installation::sealing_keys(config).err().into_iter().collect();
    findings.extend(installation::admin_tokens(config).err().unwrap_or_default());
    findings
}

fn listeners(config: &Config) -> impl Iterator<Item = Finding> {
    let files = [&config.public, &config.admin].into_iter().filter_map(|listener| listener.tls.as_ref());
    files.filter_map(|files| Certificate::load(files).err())
}

/// Reads and loads the policies that a configuration names.
///
/// # Errors
///
/// [`Exit::PolicyInvalid`].
pub(super) fn policies(config: &Config) -> Result<Loaded, Failure> {
    let (files, commit) = PolicySource::new(&config.policies).read().map_err(|fault| {
        Failure::new(Exit::PolicyInvalid, format!("error[{}]: {}", fault.code(), chain(&fault)))
    })?;
    load::load(&files, commit, Some(&config.trusted())).map_err(|mut findings| {
        // Findings speak of the set's own paths; a person needs those of the machine.
        for finding in &mut findings {
            finding.file = config.policies.join(&finding.file).display().to_string();
        }
        Failure::findings(Exit::PolicyInvalid, &findings)
    })
}

/// What nobody could check.
fn about_our_own_issuer(config: &Config) -> Option<String> {
    let (ours, public) = (&config.assertions.issuer, &config.public_url);
    let is_elsewhere = ours.trim_end_matches('/') != public.trim_end_matches('/');
    (is_elsewhere && config.assertions.publish.is_none()).then(|| {
        format!(
            "assertions.issuer is {ours} and not public.url, so its documents must be served there: set \
             assertions.publish, or copy them by `hallpass keys publish DIR`"
        )
    })
}

/// What is allowed and probably not meant.
pub(super) fn warnings(config: &Config, set: &PolicySet) -> Vec<String> {
    let mut warnings = Vec::new();
    if !set.issuers.values().any(|issuer| issuer.audience == config.public_url) {
        warnings.push(format!(
            "no issuer's audience is {}, which clients ask for; set `audience` in issuers/*.yaml, or public.url",
            config.public_url
        ));
    }
    for issuer in set.issuers.values().filter(|issuer| issuer.trusted.profile.fixed_audience.is_some()) {
        let (name, audience) = (&issuer.trusted.name, &issuer.audience);
        warnings.push(format!(
            "the issuer `{name}` signs every token for `{audience}`: whoever else trusts it can use them here, and ours there"
        ));
    }
    for name in config.issuers.keys().filter(|name| !set.issuers.contains_key(*name)) {
        warnings.push(format!("the issuer `{name}` has no policy file, so its tokens are refused"));
    }
    warnings.extend(about_our_own_issuer(config));
    if config.admin_tokens.is_empty() {
        warnings.push("no admin tokens: nobody can read the ledger over HTTP".to_owned());
    }
    warnings
}
