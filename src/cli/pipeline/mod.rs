//! What pipeline steps run: find the job's identity token, ask the broker, hand on what it gives.
//!
//! [`identity`] finds the CI system and its token, [`ask`] says what is wanted, [`broker`] makes the calls and turns
//! refusals into exit codes, [`exchanged`] is what comes back, and [`denial`] explains what does not. One file a command
//! stands on these.

mod ask;
mod aws;
mod broker;
mod call;
mod credential;
mod denial;
mod exchanged;
mod exec;
mod get;
mod grants;
mod identity;
mod names;
mod quoting;
mod revoke;
mod whoami;

pub(super) use self::{
    broker::shown,
    credential::CredentialCommand,
    exec::{Exec, OWN_FAILURE},
    get::Get,
    grants::Grants,
    revoke::JobSide,
    whoami::Whoami,
};
