//! What the broker's own token may do, against what it needs: what is missing fails grants, what is surplus is what a
//! thief of the token could do with it.

use std::collections::BTreeMap;

use super::{client::VaultClient, fault::VaultFault};

/// A right that is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Right {
    /// The path.
    pub path: String,
    /// Any of these will do.
    pub any_of: &'static [&'static str],
}

/// How the rights stand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rights {
    /// Needed, and not there.
    pub missing: Vec<Right>,
    /// There, and not needed: path and capabilities.
    pub surplus: Vec<(String, Vec<String>)>,
}

impl Right {
    /// Reading a path.
    pub fn read(path: impl Into<String>) -> Self {
        Self { path: path.into(), any_of: &["read"] }
    }

    /// Writing to a path.
    pub fn update(path: impl Into<String>) -> Self {
        Self { path: path.into(), any_of: &["update", "create"] }
    }
}

impl VaultClient {
    /// The rights that the broker needs whatever its grants are.
    pub fn needed(&self) -> Vec<Right> {
        let mut needed = vec![Right::read("auth/token/lookup-self")];
        if let Some(role) = &self.settings().token_role {
            needed.push(Right::update(format!("auth/token/create/{role}")));
            needed.extend(
                ["auth/token/revoke-accessor", "sys/leases/renew", "sys/leases/revoke"].map(Right::update),
            );
        }
        needed
    }

    /// Compares what the token may do with what is needed.
    ///
    /// # Errors
    ///
    /// [`VaultFault`].
    pub async fn rights(&self, needed: &[Right]) -> Result<Rights, VaultFault> {
        let dangerous = DANGEROUS.iter().map(|path| (*path).to_owned());
        let paths: Vec<String> = needed.iter().map(|right| right.path.clone()).chain(dangerous).collect();
        let found = self.capabilities_self(&paths).await?;
        Ok(compare(needed, &found))
    }
}

fn compare(needed: &[Right], found: &BTreeMap<String, Vec<String>>) -> Rights {
    let of = |path: &str| found.get(path).map_or(&[][..], Vec::as_slice);
    let has = |right: &&Right| {
        of(&right.path).iter().any(|word| word == "root" || right.any_of.contains(&word.as_str()))
    };
    let missing = needed.iter().filter(|right| !has(right)).cloned().collect();
    let is_needed = |path: &str| needed.iter().any(|right| right.path == path);
    let surplus = DANGEROUS
        .iter()
        .filter(|path| !is_needed(path))
        .map(|path| ((*path).to_owned(), of(path).to_vec()))
        .filter(|(_, words)| words.iter().any(|word| word != "deny"))
        .collect();
    Rights { missing, surplus }
}

/// Paths that no broker needs: each lets whoever has its token take more, or end what is not the broker's.
const DANGEROUS: [&str; 10] = [
    "auth/token/create",
    "auth/token/create-orphan",
    "sys/audit/any",
    "sys/auth/any",
    "sys/leases/revoke-force/any",
    "sys/leases/revoke-prefix/any",
    "sys/mounts/any",
    "sys/policies/acl/any",
    "sys/raw/any",
    "sys/seal",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(of: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        of.iter()
            .map(|(path, words)| ((*path).to_owned(), words.iter().map(|word| (*word).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn names_what_is_missing_and_what_is_surplus() {
        let needed = [Right::read("secret/data/a"), Right::update("auth/token/create/ci")];
        let found = found(&[
            ("secret/data/a", &["read"]),
            ("auth/token/create/ci", &["deny"]),
            ("sys/seal", &["sudo", "update"]),
            ("sys/raw/any", &["deny"]),
        ]);
        let rights = compare(&needed, &found);
        assert_eq!(rights.missing, [Right::update("auth/token/create/ci")]);
        assert_eq!(rights.surplus, [("sys/seal".to_owned(), vec!["sudo".to_owned(), "update".to_owned()])]);
    }

    #[test]
    fn a_right_that_the_answer_does_not_name_is_missing() {
        let needed = [Right::read("secret/data/a")];
        assert_eq!(compare(&needed, &BTreeMap::new()).missing, needed);
    }

    #[test]
    fn root_has_every_right() {
        let needed = [Right::read("a")];
        assert!(compare(&needed, &found(&[("a", &["root"])])).missing.is_empty());
    }
}
