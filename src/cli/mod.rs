//! Composition root: arguments, configuration, wiring. One file per command group; no rule about who may get what.
//!
//! No secret is ever an argument, since arguments are visible to every process of the machine.

mod actor;
pub mod allocator;
mod backup;
mod check;
mod config;
mod demo;
mod doctor;
mod exit;
mod findings;
mod freeze;
mod healthcheck;
mod help;
mod init;
mod installation;
mod issuer_documents;
mod keys;
mod ledger;
mod openapi;
mod output;
mod pipeline;
mod policy;
mod process;
mod replica;
mod revoke;
mod secret;
mod serve;
mod store;
mod telemetry;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::exit::{Done, Exit};

/// A secrets broker for CI: a job's OIDC token in, a credential that lives for minutes out.
#[derive(Debug, Parser)]
#[command(name = "hallpass", version, propagate_version = false, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copies the database while `serve` runs; the sealing key is not in it.
    Backup(backup::Backup),
    /// Writes what a shell needs to complete commands.
    Completions(help::Completions),
    /// Looks at the configuration.
    #[command(subcommand)]
    Config(check::ConfigCommand),
    /// Answers other tools by the protocols of their credential helpers.
    #[command(subcommand)]
    Credential(pipeline::CredentialCommand),
    /// Shows everything in one process on loopback, and keeps running for a try.
    Demo(demo::Demo),
    /// Looks at machine, files, database, issuers and policies, and says what to do.
    Doctor(doctor::Doctor),
    /// Runs a command with the credentials of grants, and gives them back when it ends.
    Exec(pipeline::Exec),
    /// Stops an issuer, key, grant, project or everything at once; works while `serve` runs.
    #[command(subcommand)]
    Freeze(freeze::FreezeCommand),
    /// Trades a job's token for the credentials of a grant.
    Get(pipeline::Get),
    /// Lists the grants that a job's token may use now.
    Grants(pipeline::Grants),
    /// Asks whether the broker is alive, for containers.
    Healthcheck(healthcheck::Healthcheck),
    /// Makes an installation: configuration, keys, tokens, database, first policies.
    Init(init::Init),
    /// Lists and changes keys, and shows public ones.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Verifies, exports and shows the ledger.
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Writes the manual's pages.
    Man(help::Man),
    /// Prints the HTTP API's description, OpenAPI 3.1.
    Openapi(openapi::Openapi),
    /// Checks, tests and lets in policies.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Checks a backup, or puts it where there is no database.
    Restore(backup::Restore),
    /// Ends what this job was issued; or, for an operator, what a grant, a project or a time names.
    Revoke(revoke::Revoke),
    /// Sets, lists and removes sealed secrets; works while `serve` runs.
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Runs the broker.
    Serve(serve::Serve),
    /// Makes the schema of a PostgreSQL database, and gives its roles their privileges.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Ends a freeze.
    #[command(subcommand)]
    Thaw(freeze::ThawCommand),
    /// Shows the version.
    Version(version::Version),
    /// Shows what the broker reads in a job's token.
    Whoami(pipeline::Whoami),
}

/// Runs the command line.
pub fn run() -> ExitCode {
    #[cfg(hallpass_faults)]
    crate::kernel::wiping::switch(std::env::var_os("HALLPASS_FAULT_UNWIPED").is_none());
    process::choose_cryptography();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A reader that went away is no reason for another code.
            drop(error.print());
            let is_exec = std::env::args_os().nth(1).is_some_and(|command| command == "exec");
            return match (error.use_stderr(), is_exec) {
                (false, _) => ExitCode::SUCCESS,
                // Whatever else `exec` ends with could be its command's.
                (true, true) => pipeline::OWN_FAILURE.into(),
                (true, false) => Exit::Usage.into(),
            };
        }
    };
    match arguments.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::say(&format!("hallpass: {failure}"));
            }
            failure.exit.into()
        }
    }
}

impl Command {
    fn run(self) -> Done {
        match self {
            Self::Backup(backup) => backup.run(),
            Self::Completions(completions) => completions.run(),
            Self::Config(command) => command.run(),
            Self::Credential(command) => command.run(),
            Self::Demo(demo) => demo.run(),
            Self::Doctor(doctor) => doctor.run(),
            Self::Exec(exec) => exec.run(),
            Self::Freeze(command) => command.run(),
            Self::Get(get) => get.run(),
            Self::Grants(grants) => grants.run(),
            Self::Healthcheck(check) => check.run(),
            Self::Init(init) => init.run(),
            Self::Keys(command) => command.run(),
            Self::Ledger(command) => command.run(),
            Self::Man(man) => man.run(),
            Self::Openapi(openapi) => openapi.run(),
            Self::Policy(command) => command.run(),
            Self::Restore(restore) => restore.run(),
            Self::Revoke(revoke) => revoke.run(),
            Self::Secret(command) => command.run(),
            Self::Serve(serve) => serve.run(),
            Self::Store(command) => command.run(),
            Self::Thaw(command) => command.run(),
            Self::Version(version) => version.run(),
            Self::Whoami(whoami) => whoami.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    #[test]
    fn the_arguments_hold_together() {
        Arguments::command().debug_assert();
    }
}
