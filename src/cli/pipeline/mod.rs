//! What pipeline steps run: find the job's identity token, ask the broker, hand on what it gives.
//!
//! [`identity`] finds the CI system and its token, [`ask`] says what is wanted, [`broker`] makes the calls and turns
//! refusals into exit codes, [`exchanged`] is what comes back. One file a command stands on these.

mod ask;
mod aws;
mod broker;
mod credential;
mod exchanged;
mod exec;
mod get;
mod identity;
mod whoami;

pub(super) use self::{
    broker::shown,
    credential::CredentialCommand,
    exec::{Exec, OWN_FAILURE},
    get::Get,
    whoami::Whoami,
};
