//! Where one issuer's keys come from, and one fetch of them.

use std::{os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use jiff::Timestamp;
use reqwest::Url;
use tokio::io::AsyncReadExt as _;

use super::{IssuerKeysConfig, KeysFrom};
use crate::{
    adapters::http_client::{FetchFault, HttpClient, Reach, UrlFault, read_url},
    kernel::identity::{
        discovery::{DiscoveryFault, read_jwks_uri},
        keys::KeySetFault,
    },
};

/// A source whose addresses were checked.
pub(super) enum Source {
    Discovery { document: Url, client: HttpClient },
    File { path: PathBuf, valid_until: Option<Timestamp> },
    Uri { url: Url, client: HttpClient },
}

/// A set as it was found, not read yet.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    /// How long it stays true, by its answer.
    pub(super) max_age: Option<Duration>,
}

/// What a file looks like from outside. Any edit changes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    file: u64,
    bytes: u64,
    changed: (i64, i64),
    mode: u32,
}

/// Why a refresh brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefreshFault {
    #[error("the discovery document {0}")]
    Discovery(#[from] DiscoveryFault),
    #[error("the discovery document: {0}")]
    Document(FetchFault),
    #[error("the key file cannot be read: {0}")]
    File(std::io::Error),
    #[error("the jwks_uri of the discovery document: {0}")]
    JwksUri(UrlFault),
    #[error("the key set: {0}")]
    Keys(FetchFault),
    #[error("no answer in time")]
    Late,
    #[error("the key file is no file")]
    NoFile,
    #[error("{0}")]
    Set(KeySetFault),
    #[error("the key file is larger than {DOCUMENT_BYTES} bytes")]
    TooLarge,
}

impl Source {
    pub(super) fn new(config: &IssuerKeysConfig) -> Result<Self, String> {
        let private = config.allow_private_addresses;
        let url = read_url(&config.url, private).map_err(|fault| fault.to_string())?;
        if url.query().is_some() {
            return Err("the address holds a query".to_owned());
        }
        let client = |url: &Url| match url.scheme() {
            "http" => HttpClient::loopback(config.deadline),
            _ => HttpClient::new(Reach {
                ca_pem: config.ca_pem.as_deref(),
                allow_private_addresses: private,
                deadline: config.deadline,
            }),
        };
        Ok(match &config.source {
            KeysFrom::Discovery => {
                // OpenID Connect Discovery 1.0, section 4: a terminating slash is removed first.
                let document =
                    format!("{}/.well-known/openid-configuration", config.url.trim_end_matches('/'));
                let document = read_url(&document, private).map_err(|fault| fault.to_string())?;
                let client = client(&document).map_err(|fault| fault.to_string())?;
                Self::Discovery { document, client }
            }
            KeysFrom::File { path, valid_until } => {
                Self::File { path: path.clone(), valid_until: *valid_until }
            }
            KeysFrom::Uri(text) => {
                let url = read_url(text, private).map_err(|fault| format!("jwks_uri: {fault}"))?;
                let client = client(&url).map_err(|fault| fault.to_string())?;
                Self::Uri { url, client }
            }
        })
    }

    /// One fetch for the issuer with this URL.
    pub(super) async fn fetch(&self, issuer: &str) -> Result<Fetched, RefreshFault> {
        let fetch = async |client: &HttpClient, url: &Url| {
            let document = client.fetch(url, DOCUMENT_BYTES).await.map_err(RefreshFault::Keys)?;
            Ok(Fetched { bytes: document.body, max_age: document.max_age })
        };
        match self {
            Self::Discovery { document, client } => {
                let found = client.fetch(document, DOCUMENT_BYTES).await.map_err(RefreshFault::Document)?;
                fetch(client, &follow(document, &found.body, issuer)?).await
            }
            Self::File { path, .. } => Ok(Fetched { bytes: read_file(path).await?, max_age: None }),
            Self::Uri { url, client } => fetch(client, url).await,
        }
    }

    /// The date after which a file is no longer good.
    pub(super) fn valid_until(&self) -> Option<Timestamp> {
        match self {
            Self::File { valid_until, .. } => *valid_until,
            Self::Discovery { .. } | Self::Uri { .. } => None,
        }
    }

    /// Whether somebody may edit it at any time, so that it is worth looking at.
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }

    /// What the file looks like now; nothing where there is none.
    pub(super) async fn stamp(&self) -> Option<Stamp> {
        let Self::File { path, .. } = self else { return None };
        tokio::fs::metadata(path).await.ok().map(|found| Stamp::of(&found))
    }

    /// The same, for who cannot await.
    pub(super) fn stamp_now(&self) -> Option<Stamp> {
        let Self::File { path, .. } = self else { return None };
        std::fs::metadata(path).ok().map(|found| Stamp::of(&found))
    }
}

impl Stamp {
    fn of(found: &std::fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            file: found.ino(),
            bytes: found.size(),
            changed: (found.ctime(), found.ctime_nsec()),
            mode: found.mode(),
        }
    }

    /// Whoever may write the keys may be any job.
    pub(super) fn is_writable_by_all(&self) -> bool {
        self.mode & 0o002 != 0
    }
}

/// Attack class K-05: the document must speak of this issuer, byte for byte, and may send us nowhere else.
fn follow(document: &Url, text: &[u8], issuer: &str) -> Result<Url, RefreshFault> {
    let jwks_uri = read_jwks_uri(text, issuer)?;
    // The document itself was allowed, so its scheme is; the same origin means the same scheme.
    let jwks_uri = read_url(&jwks_uri, true).map_err(RefreshFault::JwksUri)?;
    let is_pinned =
        || KEYS_ELSEWHERE.iter().any(|(whose, keys)| *whose == issuer && *keys == jwks_uri.as_str());
    if jwks_uri.origin() != document.origin() && !is_pinned() {
        return Err(DiscoveryFault("names a jwks_uri of another origin; set jwks_uri to trust it").into());
    }
    Ok(jwks_uri)
}

async fn read_file(path: &std::path::Path) -> Result<Vec<u8>, RefreshFault> {
    // Opening a pipe would wait for whoever writes into it.
    if !tokio::fs::metadata(path).await.map_err(RefreshFault::File)?.is_file() {
        return Err(RefreshFault::NoFile);
    }
    let file = tokio::fs::File::open(path).await.map_err(RefreshFault::File)?;
    let mut bytes = Vec::new();
    let most = u64::try_from(DOCUMENT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).await.map_err(RefreshFault::File)?;
    if bytes.len() > DOCUMENT_BYTES { Err(RefreshFault::TooLarge) } else { Ok(bytes) }
}

/// Issuers known to keep their keys at another origin, and where (attack class K-05): Google's discovery document,
/// read in November 2026. For any other the operator's `jwks_uri` says so.
const KEYS_ELSEWHERE: &[(&str, &str)] =
    &[("https://accounts.google.com", "https://www.googleapis.com/oauth2/v3/certs")];

/// Attack class K-05; the largest documents seen are about 20 KiB.
pub(super) const DOCUMENT_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(issuer: &str, jwks_uri: &str) -> Option<String> {
        let document = Url::parse(&format!("{issuer}/.well-known/openid-configuration")).unwrap();
        let text = serde_json::json!({ "issuer": issuer, "jwks_uri": jwks_uri }).to_string();
        follow(&document, text.as_bytes(), issuer).ok().map(String::from)
    }

    #[test]
    fn keys_are_of_the_issuers_origin_or_of_the_one_that_is_known_for_it() {
        let google = "https://accounts.google.com";
        let certs = "https://www.googleapis.com/oauth2/v3/certs";
        assert_eq!(followed(google, certs).as_deref(), Some(certs));
        assert!(followed("https://issuer.test", "https://issuer.test/keys").is_some());
        assert!(followed("https://issuer.test", "https://issuer.test:443/keys").is_some());
        for (issuer, jwks_uri) in [
            ("https://issuer.test", certs),
            (google, "https://www.googleapis.com/oauth2/v3/certs/x"),
            (google, "https://www.googleapis.com.evil.test/oauth2/v3/certs"),
            (google, "https://www.googleapis.com:8443/oauth2/v3/certs"),
            (google, "https://storage.googleapis.com/evil/certs"),
            ("https://issuer.test", "https://issuer.test:8443/keys"),
            ("https://issuer.test", "https://issuer.test.evil.test/keys"),
            ("https://issuer.test", "https://issuer.test@evil.test/keys"),
            ("https://issuer.test", "https://evil.test/keys"),
            ("https://issuer.test", "http://issuer.test/keys"),
            ("https://issuer.test", "//evil.test/keys"),
            ("https://issuer.test", "https://169.254.169.254/keys"),
        ] {
            assert_eq!(followed(issuer, jwks_uri), None, "{issuer}: {jwks_uri}");
        }
    }
}
