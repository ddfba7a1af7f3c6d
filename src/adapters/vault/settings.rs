//! What the configuration says of one Vault.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;

/// One configured Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name in `backends`.
    pub name: String,
    /// Where it is: one address, or every node of a cluster. A path in front of `/v1/` belongs to a proxy.
    pub addresses: Vec<Url>,
    /// The namespace of every request.
    pub namespace: Option<String>,
    /// How each knows the other.
    pub tls: TlsFiles,
    /// How the broker logs in.
    pub login: Login,
    /// The token role that job tokens are made by: `auth/token/create/ROLE`.
    pub token_role: Option<String>,
    /// How long one call may take, tries included.
    pub timeout: Duration,
}

/// Files of TLS; they are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The only authorities trusted, as PEM; the system's where absent.
    pub ca: Option<PathBuf>,
    /// The broker's own certificate chain and key, as PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How the broker logs in. Files are read at every login, so that whoever renews them need tell nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// `auth/MOUNT/login` with role id and secret id.
    AppRole {
        /// The mount below `auth/`.
        mount: String,
        /// The file of the role id.
        role_id: PathBuf,
        /// The file of the secret id.
        secret_id: PathBuf,
        /// Whether that file holds a wrapping token instead.
        wrapped: bool,
    },
    /// `auth/MOUNT/login` by the TLS client certificate.
    Cert {
        /// The mount below `auth/`.
        mount: String,
        /// The role; whichever fits where absent.
        role: Option<String>,
    },
    /// `auth/MOUNT/login` with a JWT.
    Jwt {
        /// The mount below `auth/`.
        mount: String,
        /// The role.
        role: String,
        /// The file of the JWT.
        token: PathBuf,
    },
    /// `auth/MOUNT/login` with the service account's projected token.
    Kubernetes {
        /// The mount below `auth/`.
        mount: String,
        /// The role.
        role: String,
        /// The file of the token.
        token: PathBuf,
    },
    /// A token in a file that somebody else keeps fresh.
    Token {
        /// The file.
        file: PathBuf,
    },
}

impl Login {
    /// The method's word, for people.
    pub fn method(&self) -> &'static str {
        match self {
            Self::AppRole { .. } => "approle",
            Self::Cert { .. } => "cert",
            Self::Jwt { .. } => "jwt",
            Self::Kubernetes { .. } => "kubernetes",
            Self::Token { .. } => "token",
        }
    }
}

/// Why there is no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsFault {
    /// A file of TLS cannot be read.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        why: String,
    },
    /// The file holds no certificates, or no key that fits them.
    #[error("{0} holds no PEM that can be used here")]
    Pem(String),
    /// The client cannot be built: as a rule this machine has no certificate authorities.
    #[error("no HTTPS client on this machine; name the authorities by `ca_file`")]
    Build,
    /// The namespace cannot be sent.
    #[error("the namespace cannot be sent")]
    Namespace,
}
