//! `hallpass.yaml`: what an operator decides (where, whom to trust, with which keys), read strictly.
//!
//! Every mistake is a finding with its place and what to do; unknown keys are errors, and keys of later versions are
//! refused by name, never ignored. Reading the configuration opens no other file: [`super::installation`] does, for
//! those commands that need them. Contract: section 9.
//!
//! A few values can be set from the environment, for containers; each wins over the file:
//!
//! | variable | instead of |
//! |---|---|
//! | `HALLPASS_PUBLIC_LISTEN` | `public.listen` |
//! | `HALLPASS_PUBLIC_URL` | `public.url` |
//! | `HALLPASS_ADMIN_LISTEN` | `admin.listen` |
//! | `HALLPASS_STORE_URL` | `store.url` |
//! | `HALLPASS_POLICIES` | `policies` |
//!
//! `HALLPASS_CONFIG` names the file, `HALLPASS_LOG` the level of the log. Relative paths are relative to the file,
//! those of the environment too.

mod assertions;
mod aws;
mod backends;
mod environment;
mod issuers;
mod listen;
mod read;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use self::environment::Environment;
pub(super) use self::{backends::Backend, listen::is_secure};
use super::exit::{Exit, Failure};
use crate::{
    adapters::store::StorePlace,
    http::{Network, Role},
    kernel::{
        digest::Digest,
        identity::profile::Profile,
        name::IssuerName,
        policy::{
            Finding, Severity,
            set::{Trusted, TrustedIssuer},
        },
    },
};

/// The configuration of one installation.
pub(crate) struct Config {
    /// The file that it came from.
    pub(crate) file: PathBuf,
    /// SHA-256 of the file, for CONFIG_LOADED.
    pub(crate) digest: Digest,
    /// The listener of pipeline steps.
    pub(crate) public: Listener,
    /// What clients see.
    pub(crate) public_url: String,
    /// The listener of auditors and operators.
    pub(crate) admin: Listener,
    /// Who may use it.
    pub(crate) admin_tokens: Vec<AdminTokenFile>,
    /// The database.
    pub(crate) store: StorePlace,
    /// The directory of policy.
    pub(crate) policies: PathBuf,
    /// Where the sealing key comes from.
    pub(crate) sealing_key: SealingKeyFrom,
    /// Where the sealing key before it comes from, while the two change places.
    pub(crate) previous_sealing_key: Option<SealingKeyFrom>,
    /// Whom to trust.
    pub(crate) issuers: BTreeMap<IssuerName, Issuer>,
    /// What mints credentials elsewhere, by name.
    pub(crate) backends: BTreeMap<String, Backend>,
    /// The ledger.
    pub(crate) ledger: Ledger,
    /// Our own assertions.
    pub(crate) assertions: Assertions,
    /// Limits.
    pub(crate) limits: Limits,
    /// Deadlines.
    pub(crate) deadlines: Deadlines,
}

/// A path that the configuration names, and where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedFile {
    /// The path, with the configuration's folder in front where it was relative.
    pub(crate) path: PathBuf,
    /// The configuration's name, as findings show it.
    pub(crate) named_in: String,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column, from 1.
    pub(crate) column: usize,
    /// Its characters there.
    pub(crate) width: usize,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Where it is.
    pub(crate) listen: Listen,
    /// Its certificate; without one it cannot be reached from elsewhere but by trusted proxies.
    pub(crate) tls: Option<TlsFiles>,
    /// Proxies that may say where a request comes from.
    pub(crate) trusted_proxies: Vec<Network>,
}

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// An address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A unix socket's file.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine reaches it.
    fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(file) => write!(f, "unix:{}", file.display()),
        }
    }
}

/// A certificate chain and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The chain.
    pub(crate) certificate: NamedFile,
    /// The key.
    pub(crate) key: NamedFile,
}

/// A bearer token of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminTokenFile {
    /// Its name, as READ entries say it.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) roles: Vec<Role>,
    /// The file that holds its text.
    pub(crate) file: NamedFile,
}

/// Where the sealing key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SealingKeyFrom {
    /// An environment variable holds its text.
    Env {
        /// The variable.
        name: String,
        /// Where the configuration names it.
        place: NamedFile,
    },
    /// A file holds its text.
    File(NamedFile),
}

/// One trusted issuer.
#[derive(Clone)]
pub(crate) struct Issuer {
    /// Its URL, byte for byte the `iss` of its tokens.
    pub(crate) url: String,
    /// Its profile.
    pub(crate) profile: &'static Profile,
    /// The only authorities trusted for it.
    pub(crate) ca_file: Option<NamedFile>,
    /// Whether it may live on a private network or on this machine.
    pub(crate) allow_private_addresses: bool,
    /// Where its keys come from.
    pub(crate) keys: IssuerKeysFrom,
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IssuerKeysFrom {
    /// Discovery below its URL.
    Discovery,
    /// A file, good until a day.
    File {
        /// The file.
        file: NamedFile,
        /// The first moment at which it is no longer good.
        valid_until: Timestamp,
    },
    /// An address.
    Uri(String),
}

/// The ledger's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Its origin, fixed by the first entry.
    pub(crate) origin: String,
    /// Where the largest head seen is kept.
    pub(crate) seen: Option<PathBuf>,
    /// The directory that it is published in.
    pub(crate) publish: Option<PathBuf>,
    /// How often it is published.
    pub(crate) publish_every: Duration,
    /// For how long bodies are kept. No entry of this version is old enough to be pruned; the version that prunes
    /// reads the same key.
    pub(crate) retention_months: u32,
}

/// Hallpass as an OIDC issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assertions {
    /// The `iss` of our own assertions.
    pub(crate) issuer: String,
    /// Audiences that get ES256 instead of RS256.
    pub(crate) es256: BTreeSet<String>,
    /// How long a new key is known before it signs, and an old one after nothing that it signed is good.
    pub(crate) key_lead: Duration,
    /// Where the issuer's documents are kept current, for a bucket at the issuer's URL.
    pub(crate) publish: Option<PathBuf>,
}

/// Limits of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// L for `exp`, `nbf`, `iat`.
    pub(crate) clock_leeway: Duration,
    /// Requests a second of one address.
    pub(crate) per_source_per_second: u32,
    /// Exchanges a minute of one project.
    pub(crate) per_project_per_minute: u32,
    /// Requests at once.
    pub(crate) in_flight: usize,
}

/// Deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// Of an exchange.
    pub(crate) exchange: Duration,
    /// Of one mint.
    pub(crate) mint: Duration,
    /// Of one refresh of an issuer's keys.
    pub(crate) issuer: Duration,
    /// Of a graceful stop.
    pub(crate) shutdown: Duration,
}

impl Config {
    /// Reads the configuration: the file named, else the one of `HALLPASS_CONFIG`, else `hallpass.yaml` here.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] with every finding.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, Failure> {
        let file = Self::find(named);
        let bytes = std::fs::read(&file).map_err(|fault| {
            let advice = "name it by --config or HALLPASS_CONFIG, or make one by `hallpass init --dir DIR`";
            Failure::usage(format!("{}: {fault}; {advice}", file.display()))
        })?;
        Self::read(&file, &bytes, &Environment::of_process())
            .map_err(|findings| Failure::findings(Exit::Usage, &findings))
    }

    /// Where the configuration is looked for.
    pub(crate) fn find(named: Option<&Path>) -> PathBuf {
        let from_environment = || std::env::var_os("HALLPASS_CONFIG").filter(|path| !path.is_empty());
        named
            .map(Path::to_owned)
            .or_else(|| from_environment().map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(FILE))
    }

    fn read(file: &Path, bytes: &[u8], environment: &Environment) -> Result<Self, Vec<Finding>> {
        read::read(file, bytes, environment)
    }

    /// What policy must agree with.
    pub(crate) fn trusted(&self) -> Trusted {
        let trusted = |(name, issuer): (&IssuerName, &Issuer)| {
            let (name, url, profile) = (name.clone(), issuer.url.clone(), issuer.profile);
            (name.clone(), TrustedIssuer { name, url, profile })
        };
        let backends = self.backends.iter().map(|(name, backend)| (name.clone(), backend.kind()));
        let ourselves = vec![self.assertions.issuer.clone(), self.public_url.clone()];
        Trusted {
            issuers: self.issuers.iter().map(trusted).collect(),
            backends: backends.collect(),
            ourselves,
        }
    }
}

impl NamedFile {
    /// A finding where the configuration names the file.
    pub(crate) fn finding(&self, code: &'static str, message: String, remedy: &str) -> Finding {
        let (file, line, column, width) = (self.named_in.clone(), self.line, self.column, self.width);
        let (severity, remedy) = (Severity::Error, remedy.to_owned());
        Finding { file, line, column, width, severity, code, message, remedy }
    }
}

/// The file's usual name.
pub(crate) const FILE: &str = "hallpass.yaml";
