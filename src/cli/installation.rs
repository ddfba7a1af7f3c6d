//! What a configuration names, opened: the sealing key, the store, tokens, issuers' keys. Every fault says where in
//! `hallpass.yaml` the file is named; nothing that is missing is made.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    config::{Backend, Config, Issuer, IssuerKeysFrom, NamedFile, SealingKeyFrom},
    exit::{Exit, Failure, chain},
};
use crate::{
    adapters::{
        issuer_keys::{IssuerKeys, IssuerKeysConfig, KeysFrom},
        mint::{Assertions, Aws},
        published::Published,
        store::{Database, OpenFault, Options, Postgres, Sqlite, StorePlace, postgres},
        vault::VaultClient,
    },
    broker::Entropy,
    http::AdminToken,
    kernel::{
        digest::Digest,
        name::IssuerName,
        policy::Finding,
        sealing::{Keyring, SealingKey},
        secret::Secret,
    },
};

/// Reads the sealing key, and the one before it where the configuration names one.
///
/// # Errors
///
/// A finding where the configuration names it. Its text never holds a part of the key.
pub(crate) fn sealing_keys(config: &Config) -> Result<Keyring, Finding> {
    let previous = config.previous_sealing_key.as_ref().map(sealing_key).transpose()?;
    Ok(Keyring::new(sealing_key(&config.sealing_key)?, previous))
}

fn sealing_key(from: &SealingKeyFrom) -> Result<Arc<SealingKey>, Finding> {
    let (text, place) = match from {
        SealingKeyFrom::File(file) => (read(file)?, file),
        SealingKeyFrom::Env { name, place } => {
            let value = std::env::var(name).map_err(|_| {
                let message = format!("the variable {name} is not set, or is no text");
                place.finding("file-unreadable", message, "set it to the text of the sealing key")
            })?;
            (Secret::from_text(value), place)
        }
    };
    SealingKey::parse(&text).map(Arc::new).map_err(|fault| {
        let remedy = "use the key that `hallpass init` made; without it the database cannot be opened";
        place.finding("sealing-key", format!("{}: {fault}", place.path.display()), remedy)
    })
}

/// Opens the store that is there. A ledger without entries takes the origin that the configuration says, since `init`
/// comes before the operator's own words.
///
/// # Errors
///
/// [`super::exit::Exit::Usage`] where it is absent, another's, sealed with another key, or of another ledger than the configuration
/// says; [`super::exit::Exit::Integrity`] where it is damaged.
pub(crate) fn open_store(config: &Config, options: Options) -> Result<Arc<Database>, Failure> {
    let database = match &config.store {
        StorePlace::Postgres(place) => {
            let opened = Postgres::open(place, sealing_keys(config)?, options);
            let told = |fault: postgres::OpenFault| {
                if matches!(fault, postgres::OpenFault::Absent(_)) {
                    absent(config, fault.into())
                } else {
                    fault.into()
                }
            };
            Database::Postgres(opened.map_err(told)?)
        }
        StorePlace::Sqlite(path) => Database::Sqlite(open_file(config, path, options)?),
    };
    named(config, database)
}

fn open_file(config: &Config, path: &Path, options: Options) -> Result<Arc<Sqlite>, Failure> {
    let sealing = sealing_keys(config)?;
    let told = |fault: OpenFault| {
        if matches!(fault, OpenFault::Absent(_)) { absent(config, fault.into()) } else { fault.into() }
    };
    let found = Sqlite::inspect(path).map_err(told)?;
    if found.origin() != config.ledger.origin {
        name_ledger(config, path, &sealing)?;
    }
    Ok(Sqlite::open(path, sealing, options)?)
}

/// What is told of a database that is not there: beside a published ledger it is lost, and a new one is no remedy.
fn absent(config: &Config, failure: Failure) -> Failure {
    let Some(published) = published(config) else { return failure };
    let message = format!(
        "the database is not there, but {} is of its ledger: bring the newest backup back by `hallpass restore`; a new \
         ledger needs another origin, and an empty directory in `ledger.publish`",
        published.display()
    );
    Failure::new(super::exit::Exit::Integrity, message)
}

/// The checkpoint that is published, if one is.
pub(crate) fn published(config: &Config) -> Option<PathBuf> {
    let file = config.ledger.publish.as_deref().map(|path| Published::new(path).checkpoint_file());
    file.filter(|file| file.exists())
}

/// Opens the store for reading, without the sealing key.
///
/// # Errors
///
/// As [`open_store`].
pub(crate) fn inspect_store(config: &Config) -> Result<Arc<Database>, Failure> {
    if let StorePlace::Sqlite(path) = &config.store
        && Sqlite::inspect(path)?.origin() != config.ledger.origin
    {
        name_ledger(config, path, &sealing_keys(config)?)?;
    }
    named(config, inspect(config)?)
}

/// The same whatever its ledger is called, and without changing that.
///
/// # Errors
///
/// As [`open_store`].
pub(crate) fn inspect_as_it_is(config: &Config) -> Result<Arc<Database>, Failure> {
    Ok(Arc::new(inspect(config)?))
}

fn inspect(config: &Config) -> Result<Database, Failure> {
    Ok(match &config.store {
        StorePlace::Postgres(place) => Database::Postgres(Postgres::inspect(place)?),
        StorePlace::Sqlite(path) => Database::Sqlite(Sqlite::inspect(path)?),
    })
}

/// A store whose ledger is the one that the configuration speaks of.
fn named(config: &Config, database: Database) -> Result<Arc<Database>, Failure> {
    if database.origin() == config.ledger.origin { Ok(Arc::new(database)) } else { Err(other_ledger(config)) }
}

fn name_ledger(config: &Config, path: &Path, sealing: &Keyring) -> Result<(), Failure> {
    if Sqlite::name_ledger(path, sealing, &config.ledger.origin)? {
        return Ok(());
    }
    Err(other_ledger(config))
}

fn other_ledger(config: &Config) -> Failure {
    let (file, said) = (config.file.display(), &config.ledger.origin);
    Failure::usage(format!(
        "{file} says `ledger.origin: {said}`, but the database holds the ledger of another origin, and one with \
         entries keeps its own for ever"
    ))
}

/// Reads the tokens of the admin listener.
///
/// # Errors
///
/// One finding a token that cannot be read, is empty, or is another's too.
pub(crate) fn admin_tokens(config: &Config) -> Result<Vec<AdminToken>, Vec<Finding>> {
    let mut tokens: Vec<AdminToken> = Vec::new();
    let mut findings = Vec::new();
    for token in &config.admin_tokens {
        match token_digest(&token.file) {
            Ok(digest) if tokens.iter().any(|other| other.digest == digest) => {
                let message = format!("{} holds the text of another token too", token.file.path.display());
                findings.push(token.file.finding(
                    "duplicate-token",
                    message,
                    "make each from its own random bytes",
                ));
            }
            Ok(digest) => {
                tokens.push(AdminToken { name: token.name.clone(), roles: token.roles.clone(), digest });
            }
            Err(finding) => findings.push(finding),
        }
    }
    if findings.is_empty() { Ok(tokens) } else { Err(findings) }
}

fn token_digest(file: &NamedFile) -> Result<Digest, Finding> {
    let text = read(file)?;
    let text = text.expose().trim_ascii();
    if text.len() < MIN_TOKEN_BYTES || !text.iter().all(u8::is_ascii_graphic) {
        let message =
            format!("{} holds no token of at least {MIN_TOKEN_BYTES} characters", file.path.display());
        return Err(file.finding("token", message, "write one line of random characters into it"));
    }
    Ok(Digest::of(text))
}

/// Sets up the keys of every issuer; fetches nothing.
///
/// # Errors
///
/// One finding an issuer whose authorities cannot be read; [`super::exit::Exit::Usage`] otherwise.
pub(crate) fn issuer_keys(
    config: &Config,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
) -> Result<IssuerKeys, Failure> {
    let configs: Result<Vec<_>, Finding> =
        config.issuers.iter().map(|(name, issuer)| keys_config(config, name, issuer)).collect();
    IssuerKeys::new(configs?, now).map_err(|fault| Failure::usage(chain(&fault)))
}

fn keys_config(config: &Config, name: &IssuerName, issuer: &Issuer) -> Result<IssuerKeysConfig, Finding> {
    let ca_pem = issuer.ca_file.as_ref().map(read).transpose()?;
    let source = match &issuer.keys {
        IssuerKeysFrom::Discovery => KeysFrom::Discovery,
        IssuerKeysFrom::File { file, valid_until } => {
            // Read again at each refresh; here only so that a wrong path is found before the first job comes.
            drop(read(file)?);
            KeysFrom::File { path: file.path.clone(), valid_until: Some(*valid_until) }
        }
        IssuerKeysFrom::Uri(uri) => KeysFrom::Uri(uri.clone()),
    };
    Ok(IssuerKeysConfig {
        name: name.clone(),
        url: issuer.url.clone(),
        profile: issuer.profile,
        source,
        ca_pem: ca_pem.map(|pem| pem.expose().to_vec()),
        allow_private_addresses: issuer.allow_private_addresses,
        deadline: config.deadlines.issuer,
    })
}

/// The clients of the configured Vaults, by name; nothing is sent.
///
/// # Errors
///
/// A finding where the configuration names one whose TLS files cannot be used.
pub(crate) fn vaults(config: &Config) -> Result<Vec<Arc<VaultClient>>, Failure> {
    let seed = u64::from_be_bytes(Entropy::Os.bytes()?);
    let client = |backend: &Backend| match backend {
        Backend::Aws { .. } => None,
        Backend::Vault { settings, place } => {
            Some(VaultClient::new((**settings).clone(), seed).map(Arc::new).map_err(|fault| {
                let remedy = "look at `ca_file` and `client_certificate`";
                Failure::from(place.finding("vault-tls", format!("{}: {fault}", settings.name), remedy))
            }))
        }
    };
    config.backends.values().filter_map(client).collect()
}

/// The minter of the configured connections to AWS; nothing is sent.
///
/// # Errors
///
/// A finding where the configuration names one whose authorities cannot be used.
pub(crate) fn aws(config: &Config, assertions: Arc<Assertions>) -> Result<Aws, Failure> {
    let connections = config.backends.values().filter_map(|backend| match backend {
        Backend::Aws { settings, .. } => Some((**settings).clone()),
        Backend::Vault { .. } => None,
    });
    Aws::new(assertions, connections).map_err(|(name, fault)| {
        let message = format!("{name}: {fault}");
        match config.backends.get(&name) {
            Some(Backend::Aws { place, .. } | Backend::Vault { place, .. }) => {
                Failure::from(place.finding("aws-tls", message, "look at `ca_file`"))
            }
            None => Failure::new(Exit::Internal, message),
        }
    })
}

/// Reads a file that the configuration names. Held as a secret whatever it is: some of them are.
///
/// # Errors
///
/// A finding where the configuration names it.
pub(crate) fn read(file: &NamedFile) -> Result<Secret, Finding> {
    std::fs::read(&file.path).map(Secret::new).map_err(|fault| {
        let remedy = "look at the path and at the file's owner and mode";
        file.finding("file-unreadable", format!("{}: {fault}", file.path.display()), remedy)
    })
}

/// `init` writes 56 characters; fewer than this could be guessed.
const MIN_TOKEN_BYTES: usize = 20;
