//! Which policy set a command speaks of, and what the operator's configuration says of it, where there is one.

use std::path::{Path, PathBuf};

use crate::{
    adapters::policy_source::PolicySource,
    cli::{
        config::{self, Config},
        exit::{Exit, Failure, chain},
        installation, process,
    },
    kernel::policy::{
        Finding, PolicySet, Severity,
        set::{Files, Trusted},
        target::Target,
        yaml::{self, Content},
    },
};

/// Where policy and configuration are found.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Place {
    /// A policy directory, or something in one [default: what the configuration names, else ./policies].
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml where there is one].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Fails where no configuration is found, so that nothing stays unchecked.
    #[arg(long)]
    pub(crate) require_config: bool,
}

/// One set as it stands on the disk.
pub(crate) struct Stand {
    /// The directory, as people see it.
    pub(crate) root: PathBuf,
    /// Its files.
    pub(crate) files: Files,
    /// The git commit, where known.
    pub(crate) commit: Option<String>,
}

impl Place {
    /// The configuration, where one is found or named.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where it is at fault, or where there is none and one is required.
    pub(crate) fn configuration(&self) -> Result<Option<Config>, Failure> {
        let file = Config::find(self.config.as_deref());
        // Whoever named one is told that it is not there.
        if self.config.is_some() || file != Path::new(config::FILE) || file.exists() {
            return Config::load(self.config.as_deref()).map(Some);
        }
        if self.require_config {
            let message = format!(
                "there is no {} here, so nothing can be checked against it; name it by --config or HALLPASS_CONFIG",
                config::FILE
            );
            return Err(Failure::usage(message));
        }
        Ok(None)
    }

    /// Reads every set that the paths lead to, each once.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] for a path that is in no policy directory, [`Exit::PolicyInvalid`] for a directory that the
    /// broker would not read.
    pub(crate) fn read(&self, config: Option<&Config>) -> Result<Vec<Stand>, Failure> {
        let mut roots: Vec<PathBuf> = Vec::new();
        if self.paths.is_empty() {
            roots.push(config.map_or_else(|| PathBuf::from("policies"), |config| config.policies.clone()));
        }
        for path in &self.paths {
            let root = root_of(path)?;
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        roots.into_iter().map(Stand::read).collect()
    }
}

impl Stand {
    fn read(root: PathBuf) -> Result<Self, Failure> {
        if !root.exists() {
            let message = format!("there is no {}; name the policy directory", root.display());
            return Err(Failure::usage(message));
        }
        let (files, commit) = PolicySource::new(&root).read().map_err(|fault| {
            Failure::new(Exit::PolicyInvalid, format!("error[{}]: {}", fault.code(), chain(&fault)))
        })?;
        Ok(Self { root, files, commit })
    }

    /// A file of the set, as a person of this machine finds it.
    pub(crate) fn shown(&self, file: &str) -> String {
        self.root.join(file).display().to_string()
    }
}

/// What the operator trusts; `None` where there is no configuration to ask.
pub(crate) fn trusted(config: Option<&Config>) -> Option<Trusted> {
    config.map(Config::trusted)
}

/// The policy directory that a path is, or lies in: the nearest one with a folder `issuers`, since no set is without.
/// A directory that is in none is taken as meant; its findings say what it lacks.
fn root_of(path: &Path) -> Result<PathBuf, Failure> {
    let real = path.canonicalize().map_err(|fault| Failure::file(path, &fault))?;
    if real.join(ISSUERS).is_dir() {
        return Ok(path.to_owned());
    }
    match real.ancestors().skip(1).find(|above| above.join(ISSUERS).is_dir()) {
        Some(root) => Ok(relative(root)),
        None if real.is_dir() => Ok(path.to_owned()),
        None => {
            let message = format!("{} is in no policy directory: none above it has issuers/", path.display());
            Err(Failure::usage(message))
        }
    }
}

/// The same directory, as seen from here where it is below.
fn relative(root: &Path) -> PathBuf {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    let below = here.ok().and_then(|here| root.strip_prefix(here).map(Path::to_owned).ok());
    match below {
        Some(below) if below.as_os_str().is_empty() => PathBuf::from("."),
        Some(below) => below,
        None => root.to_owned(),
    }
}

/// The folder that every set has.
const ISSUERS: &str = "issuers";

/// The names of the sealed secrets, from the database that the configuration names; nothing is written.
///
/// # Errors
///
/// Where the database cannot be opened for reading.
pub(crate) fn secrets(config: &Config) -> Result<Vec<String>, Failure> {
    let store = installation::inspect_as_it_is(config)?;
    let listed = process::runtime()?.block_on(store.list_secrets())?;
    Ok(listed.into_iter().map(|secret| secret.name.to_string()).collect())
}

/// A warning for every credential whose secret nobody has set: its exchange would be 502 (contract: section 12).
pub(crate) fn missing_secrets(stand: &Stand, set: &PolicySet, known: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for grant in set.names.iter().filter_map(|name| set.grants.get(name)) {
        for (name, credential) in &grant.credentials {
            let Target::Sealed { secret } = &credential.target.0 else { continue };
            if known.iter().any(|each| each == secret.as_str()) {
                continue;
            }
            let (line, column, width) =
                place_of_secret(stand, &grant.file, name.as_str()).unwrap_or((1, 1, 0));
            findings.push(Finding {
                file: grant.file.to_string(),
                line,
                column,
                width,
                severity: Severity::Warning,
                code: "secret-missing",
                message: format!("nobody has set the secret `{secret}`, so `{name}` cannot be delivered"),
                remedy: format!("run `hallpass secret set {secret}` with the value on stdin"),
            });
        }
    }
    findings
}

fn place_of_secret(stand: &Stand, file: &str, credential: &str) -> Option<(usize, usize, usize)> {
    let root = yaml::read(file, stand.files.0.get(file)?).ok()?;
    let node = ["credentials", credential, "sealed", "secret"].iter().try_fold(&root, |node, name| {
        match &node.content {
            Content::Mapping(entries) => {
                entries.iter().find(|(key, _)| key.text == *name).map(|(_, node)| node)
            }
            Content::Plain(_) | Content::Quoted(_) | Content::Sequence(_) => None,
        }
    })?;
    Some((node.line, node.column, node.width))
}
