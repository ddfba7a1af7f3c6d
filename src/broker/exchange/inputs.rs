//! What a job gives to the making of a credential: a request to be signed, a key, a digest (design: section 3). It comes
//! after the permit, so that nobody learns from it what a grant has.

use super::Ask;
use crate::kernel::policy::decide::{Permit, PermittedCredential, PermittedGrant};

/// One input.
#[derive(Debug, PartialEq, Eq)]
pub struct Given {
    /// For which grant.
    pub grant: String,
    /// For which of its credentials.
    pub credential: String,
    /// `csr`, `public_key` or `input`.
    pub name: String,
    /// What is given; never a secret.
    pub value: String,
}

impl Ask {
    /// What is given to that credential, under whatever name.
    pub(super) fn input_of(
        &self,
        grant: &PermittedGrant,
        credential: &PermittedCredential,
    ) -> Option<&Given> {
        self.inputs
            .iter()
            .find(|given| given.grant == grant.name.as_str() && given.credential == credential.name.as_str())
    }
}

/// Whether every permitted credential has what it takes, and nothing else; otherwise what the caller is told, and what
/// the ledger.
pub(super) fn fit(ask: &Ask, permit: &Permit) -> Result<(), (&'static str, &'static str)> {
    let mut used = 0;
    for (grant, credential) in
        permit.grants().iter().flat_map(|grant| grant.credentials.iter().map(move |each| (grant, each)))
    {
        let of_it = ask.inputs.iter().filter(|given| {
            given.grant == grant.name.as_str() && given.credential == credential.name.as_str()
        });
        let mut given = of_it;
        match (credential.target.input(), given.next(), given.next()) {
            (None, None, _) => {}
            (Some(wanted), Some(one), None) if one.name == wanted.as_str() => {
                if !credential.target.takes(wanted, &one.value) {
                    return Err((
                        "an input is not what its credential takes: a PEM certificate request that asks for no name but the policy's, an OpenSSH public key, or the base64 of a digest",
                        "input-unfit",
                    ));
                }
                used += 1;
            }
            (Some(_), None, _) => {
                return Err((
                    "a credential of this request takes an input; give it under `inputs` by the credential's name",
                    "input-missing",
                ));
            }
            (Some(_) | None, Some(_), _) => return Err((EXTRA, "input-extra")),
        }
    }
    if used == ask.inputs.len() { Ok(()) } else { Err((EXTRA, "input-extra")) }
}

const EXTRA: &str = "an input is given that no credential of this request takes; remove it from `inputs`";
