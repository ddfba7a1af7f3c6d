//! Who may use the admin API: named bearer tokens, each with its roles (design: section 8).
//!
//! A token is known by the SHA-256 of its text only, and compared in constant time against every token there is, so
//! that neither memory nor time tells one.

use http::HeaderMap;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::{Floor, bearer, problem::Problem};
use crate::{
    broker::{error::Code, query::Reader},
    kernel::digest::Digest,
};

/// A named token of the admin API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminToken {
    /// Its name, which READ entries show.
    pub name: String,
    /// What it may do; one that holds none may do nothing.
    pub roles: Vec<Role>,
    /// SHA-256 of the token's text.
    pub digest: Digest,
}

/// A role. None includes another, but each includes viewer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Viewer, and entries, proofs, exports, personal values.
    Auditor,
    /// Viewer, and freezes and revocations.
    Operator,
    /// Viewer, and policy check, explain and replay.
    PolicyAdmin,
    /// Policy, statistics, checkpoint.
    Viewer,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Auditor, Self::Operator, Self::PolicyAdmin, Self::Viewer];

    /// The word in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Operator => "operator",
            Self::PolicyAdmin => "policy-admin",
            Self::Viewer => "viewer",
        }
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == text)
    }

    fn includes(self, wanted: Self) -> bool {
        self == wanted || wanted == Self::Viewer
    }
}

/// Admits a request of the admin API: no or a bad token is 401, the wrong role 403.
pub(super) fn admit(floor: &Floor, headers: &mut HeaderMap, wanted: Role) -> Result<Reader, Problem> {
    let secret = bearer::take(headers)?;
    let digest = Digest::of(secret.expose());
    let Some(token) = find(&floor.admin_tokens, &digest) else {
        return Err(Problem::new(Code::TokenMalformed, "this is no token of the admin API"));
    };
    if !token.roles.iter().any(|role| role.includes(wanted)) {
        return Err(Problem::new(
            Code::AccessDenied,
            format!("this needs a token with the role {}", wanted.as_str()),
        ));
    }
    Ok(Reader { name: token.name.clone() })
}

/// Looks at every token whatever it finds, so that the time tells nothing.
fn find<'a>(tokens: &'a [AdminToken], digest: &Digest) -> Option<&'a AdminToken> {
    let mut found = 0_u64;
    for (place, token) in (1_u64..).zip(tokens) {
        let is_same: Choice = token.digest.0.ct_eq(&digest.0);
        found.conditional_assign(&place, is_same);
    }
    usize::try_from(found).ok()?.checked_sub(1).and_then(|index| tokens.get(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, text: &str) -> AdminToken {
        AdminToken { name: name.to_owned(), roles: vec![Role::Auditor], digest: Digest::of(text.as_bytes()) }
    }

    #[test]
    fn finds_the_token_by_its_text_and_no_other() {
        let tokens = [token("first", "one"), token("second", "two")];
        let found = |text: &str| find(&tokens, &Digest::of(text.as_bytes())).map(|token| token.name.as_str());
        assert_eq!(found("one"), Some("first"));
        assert_eq!(found("two"), Some("second"));
        assert_eq!(found("three"), None);
        assert_eq!(find(&[], &Digest::of(b"one")), None);
    }

    #[test]
    fn every_role_includes_viewer_and_none_another() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            for wanted in Role::ALL {
                assert_eq!(role.includes(wanted), role == wanted || wanted == Role::Viewer);
            }
        }
        assert_eq!(Role::parse("admin"), None);
    }
}
