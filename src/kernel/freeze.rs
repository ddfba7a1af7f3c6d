//! Freezes: what an operator stops at once on every replica (design: section 8, "Emergency"; attack classes F-13 and
//! K-07). Which freezes hold for a job is pure; the store looks them up in the transaction that would issue.
//!
//! A frozen key is known by its issuer and `kid`, and by its RFC 7638 thumbprint where somebody knew the key: then it
//! holds under any `kid`, and at any issuer that publishes the same key. Where nobody did, it holds by name at once,
//! and the first broker that has the key completes the freeze.

use std::fmt;

use jiff::Timestamp;

use super::{
    digest::Digest,
    name::{GrantName, IssuerName},
};

/// What a freeze stops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FreezeScope {
    /// Every exchange of every job.
    All,
    /// One grant.
    Grant(GrantName),
    /// All tokens of an issuer.
    Issuer(IssuerName),
    /// All tokens that one key of an issuer signed.
    Kid {
        /// The issuer.
        issuer: IssuerName,
        /// The key's id in the issuer's set.
        kid: String,
    },
    /// All jobs of a project.
    Project {
        /// The issuer.
        issuer: IssuerName,
        /// The immutable project id.
        project: String,
    },
}

/// A freeze that stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Freeze {
    /// What it stops.
    pub scope: FreezeScope,
    /// RFC 7638 thumbprints of the key that it names; empty where that is not known yet, or where it names no key.
    pub thumbprints: Vec<Digest>,
    /// Who froze: `os:UID`, or the name of a token of the admin API.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

/// What a freeze may hold: a job with its key, and what it asks for.
#[derive(Clone, Debug)]
pub struct Freezable {
    /// The job's issuer.
    pub issuer: IssuerName,
    /// The id of the key that signed its token.
    pub kid: String,
    /// That key's RFC 7638 thumbprint.
    pub thumbprint: Digest,
    /// Its project, where that counts.
    pub project: Option<String>,
    /// The grants that it asks for, where they count.
    pub grants: Vec<GrantName>,
}

/// The greatest `kid` or project id (attack class T-06 has the same bound).
const PART_BYTES: usize = 256;

impl FreezeScope {
    /// The words, as commands and the API use them.
    pub const WORDS: [&'static str; 5] = ["all", "grant", "issuer", "kid", "project"];

    /// Reads a scope by its word and its name: `NAME`, `ISSUER/KID`, `ISSUER/PROJECT-ID`, and no text for `all`.
    pub fn read(word: &str, name: &str) -> Option<Self> {
        let pair = || {
            let (issuer, part) = name.split_once('/')?;
            let fits = (1..=PART_BYTES).contains(&part.len()) && !part.chars().any(char::is_control);
            fits.then_some((IssuerName::parse(issuer)?, part.to_owned()))
        };
        match word {
            "all" => name.is_empty().then_some(Self::All),
            "grant" => GrantName::parse(name).map(Self::Grant),
            "issuer" => IssuerName::parse(name).map(Self::Issuer),
            "kid" => pair().map(|(issuer, kid)| Self::Kid { issuer, kid }),
            "project" => pair().map(|(issuer, project)| Self::Project { issuer, project }),
            _ => None,
        }
    }

    /// The scope of its parts, as a store keeps them: see [`FreezeScope::parts`].
    pub fn of_parts(word: &str, issuer: &str, name: &str) -> Option<Self> {
        match word {
            "kid" | "project" => Self::read(word, &format!("{issuer}/{name}")),
            "issuer" if name.is_empty() => Self::read(word, issuer),
            "all" | "grant" if issuer.is_empty() => Self::read(word, name),
            _ => None,
        }
    }

    /// Word, issuer, and name within it; empty texts where it has none.
    pub fn parts(&self) -> (&'static str, &str, &str) {
        match self {
            Self::All => ("all", "", ""),
            Self::Grant(grant) => ("grant", "", grant.as_str()),
            Self::Issuer(issuer) => ("issuer", issuer.as_str(), ""),
            Self::Kid { issuer, kid } => ("kid", issuer.as_str(), kid),
            Self::Project { issuer, project } => ("project", issuer.as_str(), project),
        }
    }

    /// Its word.
    pub fn word(&self) -> &'static str {
        self.parts().0
    }

    /// Its name as it is read; empty for `all`.
    pub fn name(&self) -> String {
        let (_, issuer, name) = self.parts();
        match (issuer, name) {
            ("", name) => name.to_owned(),
            (issuer, "") => issuer.to_owned(),
            (issuer, name) => format!("{issuer}/{name}"),
        }
    }

    /// The issuer that it names.
    pub fn issuer(&self) -> Option<&IssuerName> {
        match self {
            Self::All | Self::Grant(_) => None,
            Self::Issuer(issuer) | Self::Kid { issuer, .. } | Self::Project { issuer, .. } => Some(issuer),
        }
    }
}

impl fmt::Display for FreezeScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        if name.is_empty() { f.write_str(self.word()) } else { write!(f, "{} {name}", self.word()) }
    }
}

impl Freezable {
    /// The scopes by name that would hold it, widest first. Freezes of its key under another name are found by its
    /// thumbprint.
    pub fn scopes(&self) -> Vec<FreezeScope> {
        let issuer = || self.issuer.clone();
        let mut scopes = vec![
            FreezeScope::All,
            FreezeScope::Issuer(issuer()),
            FreezeScope::Kid { issuer: issuer(), kid: self.kid.clone() },
        ];
        let project = self.project.clone();
        scopes.extend(project.map(|project| FreezeScope::Project { issuer: issuer(), project }));
        scopes.extend(self.grants.iter().cloned().map(FreezeScope::Grant));
        scopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_it_is_shown() {
        for (word, name) in [
            ("all", ""),
            ("grant", "payments-prod"),
            ("issuer", "github"),
            ("kid", "github/a/b c"),
            ("project", "gitlab/701"),
        ] {
            let scope = FreezeScope::read(word, name).unwrap();
            assert_eq!((scope.word(), scope.name().as_str()), (word, name));
            let (word, issuer, part) = scope.parts();
            assert_eq!(FreezeScope::of_parts(word, issuer, part), Some(scope.clone()));
            assert!(FreezeScope::WORDS.contains(&word));
        }
    }

    #[test]
    fn what_names_nothing_is_no_scope() {
        let long = format!("github/{}", "k".repeat(257));
        for (word, name) in [
            ("all", "x"),
            ("grant", ""),
            ("grant", "Payments"),
            ("issuer", "github/k1"),
            ("kid", "github"),
            ("kid", "github/"),
            ("kid", "/k1"),
            ("kid", "github/k\n1"),
            ("kid", &long),
            ("project", "701"),
            ("job", "github/1"),
        ] {
            assert_eq!(FreezeScope::read(word, name), None, "{word} {name}");
        }
        assert_eq!(FreezeScope::of_parts("grant", "github", "a"), None);
        assert_eq!(FreezeScope::of_parts("issuer", "github", "a"), None);
    }

    #[test]
    fn project_and_grants_hold_only_where_they_count() {
        let bare = Freezable {
            issuer: IssuerName::parse("github").unwrap(),
            kid: "k1".to_owned(),
            thumbprint: Digest::of(b"key"),
            project: None,
            grants: Vec::new(),
        };
        let shown = |subject: &Freezable| {
            subject.scopes().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(shown(&bare), "all, issuer github, kid github/k1");
        let grants = ["a", "b"].map(|name| GrantName::parse(name).unwrap()).to_vec();
        let asking = Freezable { project: Some("701".to_owned()), grants, ..bare };
        assert_eq!(shown(&asking), "all, issuer github, kid github/k1, project github/701, grant a, grant b");
    }
}
