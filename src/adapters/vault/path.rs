//! Paths below `/v1/`, checked before anything is sent: what a client library or a proxy would tidy up on the way is
//! refused here (fault 10; CVE-2026-3605).

/// What is done at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Deletes.
    Delete,
    /// Reads, or generates by reading.
    Get,
    /// Vault's own LIST.
    List,
    /// Writes, or generates.
    Post,
}

impl Verb {
    /// The method on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Post => "POST",
        }
    }
}

/// A path below `/v1/`, without leading slash: segments of `A-Z a-z 0-9 . _ @ : = ~ -`, none empty, `.` or `..`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VaultPath {
    text: String,
    version: Option<u64>,
}

/// Why a text is no path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathFault {
    /// A character that has a meaning in URLs or in Vault's own rules.
    #[error("a path of Vault has letters, digits and . _ @ : = ~ - between its slashes")]
    Character,
    /// An empty segment: a slash at an end, or two in a row.
    #[error("a path of Vault has no empty part: no slash at its ends, no two in a row")]
    Empty,
    /// Longer than anything real.
    #[error("a path of Vault has at most {MOST_BYTES} bytes")]
    Length,
    /// A segment `.` or `..`.
    #[error("a path of Vault has no `.` and no `..`")]
    Relative,
}

impl VaultPath {
    /// Reads a path.
    ///
    /// # Errors
    ///
    /// [`PathFault`] with the first fault.
    pub fn parse(text: &str) -> Result<Self, PathFault> {
        if text.len() > MOST_BYTES {
            return Err(PathFault::Length);
        }
        for segment in text.split('/') {
            if segment.is_empty() {
                return Err(PathFault::Empty);
            }
            if segment == "." || segment == ".." {
                return Err(PathFault::Relative);
            }
            if !segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@:=~-".contains(&byte)) {
                return Err(PathFault::Character);
            }
        }
        Ok(Self { text: text.to_owned(), version: None })
    }

    /// The same path, asking for one version of what is there (KV version 2).
    #[must_use]
    pub fn at_version(self, version: u64) -> Self {
        Self { version: Some(version), ..self }
    }

    /// The path's text, without version.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The version asked for.
    pub fn version(&self) -> Option<u64> {
        self.version
    }
}

/// Vault itself takes more; no mount, role and secret need it.
const MOST_BYTES: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_is_sent() {
        for text in
            ["secret/data/ci/npm", "auth/token/create/ci", "a", "team.x/creds/r_1@b", "sys/leases/renew"]
        {
            assert_eq!(VaultPath::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_what_would_be_tidied_up_on_the_way() {
        for (text, fault) in [
            ("", PathFault::Empty),
            ("/secret/a", PathFault::Empty),
            ("secret//a", PathFault::Empty),
            ("secret/a/", PathFault::Empty),
            ("secret/../sys/seal", PathFault::Relative),
            ("secret/./a", PathFault::Relative),
            ("..", PathFault::Relative),
            ("secret/%2e%2e/sys", PathFault::Character),
            ("secret/a?version=1", PathFault::Character),
            ("secret/a#b", PathFault::Character),
            ("secret/a b", PathFault::Character),
            ("secret/a\n", PathFault::Character),
            ("\tauth/token/renew-self", PathFault::Character),
            ("secret\\a", PathFault::Character),
            ("secret/*", PathFault::Character),
            ("secret/+/a", PathFault::Character),
            ("secret/é", PathFault::Character),
        ] {
            assert_eq!(VaultPath::parse(text), Err(fault), "{text:?}");
        }
        assert_eq!(VaultPath::parse(&"a".repeat(1_025)), Err(PathFault::Length));
    }
}
