//! Where a PostgreSQL database is, and the way there: its URL, its password, TLS.
//!
//! The way is verified or it does not leave the machine: `sslmode=verify-full` is the only mode over a network, and plain
//! text is for loopback and Unix sockets. The driver's own default would fall back to plain text and trust any
//! certificate. A password never stands in the URL, since that is shown; it comes from a file of the configuration, from
//! `PGPASSWORD`, or from `PGPASSFILE` (libpq's format). `sslrootcert` names the authorities; without it, those of the
//! public web count, and known hole: with it they count, too.
//!
//! Source: <https://www.postgresql.org/docs/15/libpq-connect.html> (November 2026).

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use reqwest::Url;
use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::kernel::secret::Secret;

/// A database's address as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    host: Host,
    port: u16,
    user: String,
    database: String,
    is_plain: bool,
    root_certificate: Option<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
    password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    Socket(PathBuf),
}

/// Why an address is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceFault {
    /// A mode of TLS that proves nothing.
    #[error("`sslmode={0}` does not verify whom it speaks to; verify-full does")]
    Mode(String),
    /// A password stands in it.
    #[error("the URL holds a password")]
    Password,
    /// Plain text over a network.
    #[error("plain text is for loopback and Unix sockets only")]
    PlainText,
    /// It cannot be read.
    #[error("it names no database: {0}")]
    Shape(&'static str),
    /// A parameter that we do not know.
    #[error("the parameter `{0}` is not known")]
    Unknown(String),
}

/// Why the password could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be read")]
pub struct PasswordFault {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl Place {
    /// Reads an address; files in it are relative to that folder. Nothing is opened.
    ///
    /// # Errors
    ///
    /// [`PlaceFault`].
    pub fn parse(text: &str, folder: &Path) -> Result<Self, PlaceFault> {
        let url = Url::parse(text).map_err(|_| PlaceFault::Shape("it is no URL"))?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err(PlaceFault::Shape("it does not begin with postgres://"));
        }
        if url.password().is_some() {
            return Err(PlaceFault::Password);
        }
        let decoded = |text: &str| decode(text).ok_or(PlaceFault::Shape("it is not UTF-8"));
        let mut host = match url.host_str() {
            Some(host) if !host.is_empty() => Some(decoded(host.trim_matches(['[', ']']))?),
            Some(_) | None => None,
        };
        let mut user = decoded(url.username())?;
        let database = decoded(url.path().trim_start_matches('/'))?;
        let (mut port, mut mode) = (url.port(), None);
        let (mut root, mut certificate, mut key) = (None, None, None);
        for (name, value) in url.query_pairs() {
            let value = value.into_owned();
            match &*name {
                "host" => host = Some(value),
                "port" => port = Some(value.parse().map_err(|_| PlaceFault::Shape("its port is no number"))?),
                "user" => user = value,
                "password" => return Err(PlaceFault::Password),
                "sslmode" => mode = Some(value),
                "sslrootcert" => root = Some(folder.join(value)),
                "sslcert" => certificate = Some(folder.join(value)),
                "sslkey" => key = Some(folder.join(value)),
                other => return Err(PlaceFault::Unknown(other.to_owned())),
            }
        }
        let host = match host {
            None => return Err(PlaceFault::Shape("it has no host")),
            Some(path) if path.starts_with('/') => Host::Socket(path.into()),
            Some(name) => Host::Name(name),
        };
        if user.is_empty() || database.is_empty() {
            return Err(PlaceFault::Shape("it has no user or no database"));
        }
        let is_plain = is_plain(mode.as_deref(), &host, root.is_some())?;
        Ok(Self {
            host,
            port: port.unwrap_or(5432),
            user,
            database,
            is_plain,
            root_certificate: root,
            client_certificate: certificate.zip(key),
            password_file: None,
        })
    }

    /// The same with a file that holds the password.
    pub fn with_password_file(self, file: Option<PathBuf>) -> Self {
        Self { password_file: file, ..self }
    }

    /// The file with its password, where there is one.
    pub fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    /// The role that it logs in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether it is the same database, for whichever role.
    pub fn is_same_database(&self, other: &Self) -> bool {
        (&self.host, self.port, &self.database) == (&other.host, other.port, &other.database)
    }

    /// The driver's options, with the password.
    pub(super) fn options(&self) -> Result<PgConnectOptions, PasswordFault> {
        let options = PgConnectOptions::new_without_pgpass()
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .application_name("hallpass");
        let mut options = match &self.host {
            Host::Name(name) => options.host(name),
            Host::Socket(path) => options.socket(path),
        };
        options = if self.is_plain {
            options.ssl_mode(PgSslMode::Disable)
        } else {
            options.ssl_mode(PgSslMode::VerifyFull)
        };
        if let Some(root) = &self.root_certificate {
            options = options.ssl_root_cert(root);
        }
        if let Some((certificate, key)) = &self.client_certificate {
            options = options.ssl_client_cert(certificate).ssl_client_key(key);
        }
        if let Some(password) = self.password()? {
            options = options.password(password.expose_text().unwrap_or_default());
        }
        // Statements hold no value, but the driver would log slow ones at every turn of a busy ledger.
        Ok(options.disable_statement_logging())
    }

    /// The password: of the configuration's file, else `PGPASSWORD` (which the driver reads), else `PGPASSFILE`.
    fn password(&self) -> Result<Option<Secret>, PasswordFault> {
        let read = |path: &Path| {
            let read = std::fs::read(path).map(Secret::new);
            read.map_err(|source| PasswordFault { path: path.to_owned(), source })
        };
        if let Some(file) = &self.password_file {
            let text = read(file)?;
            let line = text.expose_text().unwrap_or_default().trim_end_matches(['\r', '\n']);
            return Ok(Some(Secret::from_text(line.to_owned())));
        }
        let passfile = std::env::var_os("PGPASSFILE").filter(|path| !path.is_empty());
        match passfile {
            Some(path) if std::env::var_os("PGPASSWORD").is_none() => {
                let text = read(Path::new(&path))?;
                Ok(self.find_in(text.expose_text().unwrap_or_default()))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The password of the first line of a passfile that is about this place.
    fn find_in(&self, passfile: &str) -> Option<Secret> {
        let host = match &self.host {
            Host::Name(name) => name.as_str(),
            Host::Socket(_) => "localhost",
        };
        let own = [host, &self.port.to_string(), &self.database, &self.user];
        let lines = passfile.lines().filter(|line| !line.starts_with('#'));
        lines.map(split_passfile).find_map(|fields| {
            let (password, about) = fields.split_last()?;
            let is_own = about.len() == own.len()
                && about.iter().zip(own).all(|(field, own)| field == "*" || field == own);
            is_own.then(|| Secret::from_text(password.clone()))
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, database, .. } = self;
        match host {
            Host::Name(name) => write!(f, "postgres://{user}@{name}:{port}/{database}"),
            Host::Socket(path) => write!(f, "postgres:///{database}?host={}&user={user}", path.display()),
        }
    }
}

fn is_plain(mode: Option<&str>, host: &Host, has_root: bool) -> Result<bool, PlaceFault> {
    let is_local = match host {
        Host::Socket(_) => true,
        Host::Name(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    };
    match mode {
        // The socket's file says who serves it; PostgreSQL has no TLS there.
        None => Ok(matches!(host, Host::Socket(_)) || (is_local && !has_root)),
        Some("verify-full") => Ok(false),
        Some("disable") if is_local => Ok(true),
        Some("disable") => Err(PlaceFault::PlainText),
        Some(other) => Err(PlaceFault::Mode(other.to_owned())),
    }
}

/// The fields of a passfile's line: separated by colons, each letter after a backslash as it is.
fn split_passfile(line: &str) -> Vec<String> {
    let (mut fields, mut is_escaped) = (vec![String::new()], false);
    for letter in line.chars() {
        match letter {
            '\\' if !is_escaped => {
                is_escaped = true;
                continue;
            }
            ':' if !is_escaped && fields.len() < PASSFILE_FIELDS => fields.push(String::new()),
            other => {
                if let Some(field) = fields.last_mut() {
                    field.push(other);
                }
            }
        }
        is_escaped = false;
    }
    fields
}

/// Undoes `%41`; none where that is no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            Some(_) | None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// `hostname:port:database:username:password`
const PASSFILE_FIELDS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Place, PlaceFault> {
        Place::parse(text, Path::new("/etc/hallpass"))
    }

    #[test]
    fn plain_text_never_leaves_the_machine() {
        for plain in [
            "postgres://w@127.0.0.1/db",
            "postgres://w@[::1]:5433/db",
            "postgresql://w@localhost/db?sslmode=disable",
            "postgres:///db?host=/run/postgresql&user=w",
            "postgres://w@%2Frun%2Fpostgresql/db",
        ] {
            assert!(parse(plain).unwrap().is_plain, "{plain}");
        }
        for secure in [
            "postgres://w@db.example.com/db",
            "postgres://w@10.0.0.7/db?sslmode=verify-full",
            "postgres://w@localhost/db?sslmode=verify-full",
            "postgres://w@localhost/db?sslrootcert=ca.pem",
        ] {
            assert!(!parse(secure).unwrap().is_plain, "{secure}");
        }
        let at = |mode: &str| parse(&format!("postgres://w@db.example.com/db?sslmode={mode}")).unwrap_err();
        assert_eq!(at("disable"), PlaceFault::PlainText);
        for mode in ["prefer", "require", "allow", "verify-ca"] {
            assert_eq!(at(mode), PlaceFault::Mode(mode.to_owned()));
        }
    }

    #[test]
    fn password_never_stands_in_the_url() {
        for bad in ["postgres://w:geheim@127.0.0.1/db", "postgres://w@127.0.0.1/db?password=geheim"] {
            let fault = parse(bad).unwrap_err();
            assert_eq!(fault, PlaceFault::Password);
            assert!(!fault.to_string().contains("geheim"));
        }
    }

    #[test]
    fn names_are_decoded_and_unknown_parameters_refused() {
        let place = parse("postgres://a%40b@db.example.com:5433/my%20db?sslrootcert=ca.pem").unwrap();
        assert_eq!((place.user(), place.database.as_str(), place.port), ("a@b", "my db", 5433));
        assert_eq!(place.root_certificate.as_deref(), Some(Path::new("/etc/hallpass/ca.pem")));
        assert_eq!(parse("postgres://w@h/db?sslmod=disable"), Err(PlaceFault::Unknown("sslmod".to_owned())));
        for bad in ["postgres://w@h", "postgres://h/db", "mysql://w@h/db", "postgres:///db"] {
            assert!(matches!(parse(bad), Err(PlaceFault::Shape(_))), "{bad}");
        }
    }

    #[test]
    fn passfile_is_read_as_libpq_does() {
        let place = parse("postgres://w@127.0.0.1:5433/db").unwrap();
        let found = |text: &str| place.find_in(text).map(|found| found.expose_text().unwrap().to_owned());
        let file = "# a comment\n127.0.0.1:5432:db:w:other\n*:*:*:w:a\\:b\\\\c:d\n";
        assert_eq!(found(file).as_deref(), Some("a:b\\c:d"));
        assert_eq!(found("127.0.0.1:5433:db:x:no\n"), None);
    }
}
