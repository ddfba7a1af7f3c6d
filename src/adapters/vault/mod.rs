//! The client of one configured Vault or OpenBao (design: sections 2, 5 and 9).
//!
//! Requests take their shape from `vaultrs` where it has one, and go out by our own transport on the reqwest that the
//! rest of the broker uses. The crate's own client is not used, since most of what is wrong with it cannot be mended
//! from outside. The faults are numbered here as comments and tests number them:
//!
//! | # | fault of `vaultrs` 0.8 | closed by |
//! |---|---|---|
//! | 1 | drops `lease_id`, `lease_duration`, `renewable` | [`VaultAnswer`] has the whole envelope |
//! | 2 | no call renews or revokes a lease | [`VaultClient::renew_lease`], [`VaultClient::revoke_lease`] |
//! | 3 | cannot read the health of OpenBao, knows no 474 and 530 | only the status of `sys/health` is read |
//! | 4 | a parse error carries the body | [`VaultFault`] has no text of an answer |
//! | 5 | settings and requests print their tokens; the token's header is not marked | nothing of it is formatted; the header is marked |
//! | 6 | follows a redirect anywhere, with the token | only to another configured address |
//! | 7 | a token with a trailing newline panics | tokens are checked where they are read |
//! | 8 | `auth` without `token_policies` or with null `policies` is no answer | all but `client_token` may be absent |
//! | 9 | database credentials must be a password, AWS ones must have an `arn` | [`Data`] is what the engine gave |
//! | 10 | mangles a base URL with a path, sends `a/../b` as `a/b` | [`VaultPath`] is checked, and appended as it is |
//! | 11 | a new token needs `&mut`; hides `Retry-After` and a 404's body; logs error texts | shared by `&`; see [`VaultFault`] |
//!
//! A further one: its `renew-self` begins with a tab, and its TLS login sends `cert_name` for `name`.
//!
//! What is retried, and when, stands in `wire`; who the broker is at Vault in `session`.

mod answer;
mod breaker;
mod calls;
mod client;
mod fault;
mod figures;
mod login;
mod path;
mod rights;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod transport;
mod wire;

pub use self::{
    answer::{Auth, Data, VaultAnswer},
    calls::{JobToken, JobTokenOrder, Lease, Mount, TokenLimits},
    client::{By, RequestOptions, Retry, VaultClient},
    fault::{LoginFault, NotFound, VaultFault},
    figures::expose,
    path::{PathFault, VaultPath, Verb},
    rights::{Right, Rights},
    settings::{Login, Settings, SettingsFault, TlsFiles},
};
