//! Names of things in configuration and policy: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.

use std::{fmt, sync::Arc};

/// Whether a text is a name: 1 to 63 of `a-z 0-9 -`, no hyphen at either end.
pub fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Reads a name; `None` where [`is_name`] says no.
            pub fn parse(text: &str) -> Option<Self> {
                is_name(text).then(|| Self(text.into()))
            }

            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// Names one credential within its grant.
    CredentialName
);
name!(
    /// Names a grant: what a job asks for.
    GrantName
);
name!(
    /// Names a guardrail.
    GuardrailName
);
name!(
    /// Names an issuer, the same in `hallpass.yaml` and in policy.
    IssuerName
);
name!(
    /// Names a rule under a grant's `allow`.
    RuleName
);
name!(
    /// Names a secret in the sealed store.
    SecretName
);

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_what_the_language_says() {
        for good in ["a", "0", "payments-prod", &"x".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "ä", "a.b", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
