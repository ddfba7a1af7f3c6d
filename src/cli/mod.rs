//! Composition root: arguments, configuration, wiring. One file per command group; no rule about who may get what.
//!
//! No secret is ever an argument, since arguments are visible to every process of the machine.

mod actor;
pub mod allocator;
mod check;
mod client;
mod config;
mod demo;
mod exit;
mod findings;
mod get;
mod healthcheck;
mod init;
mod installation;
mod keys;
mod ledger;
mod output;
mod policy;
mod process;
mod replica;
mod secret;
mod serve;
mod store;
mod telemetry;
mod version;
mod whoami;

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
    /// Looks at the configuration.
    #[command(subcommand)]
    Config(check::ConfigCommand),
    /// Shows everything in one process on loopback, and keeps running for a try.
    Demo(demo::Demo),
    /// Trades a job's token for the credentials of a grant.
    Get(get::Get),
    /// Asks whether the broker is alive, for containers.
    Healthcheck(healthcheck::Healthcheck),
    /// Makes an installation: configuration, keys, tokens, database, first policies.
    Init(init::Init),
    /// Shows public keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Verifies, exports and shows the ledger.
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Checks, tests and lets in policies.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Sets, lists and removes sealed secrets; works while `serve` runs.
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Runs the broker.
    Serve(serve::Serve),
    /// Makes the schema of a PostgreSQL database, and gives its roles their privileges.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Shows the version.
    Version(version::Version),
    /// Shows what the broker reads in a job's token.
    Whoami(whoami::Whoami),
}

/// Runs the command line.
pub fn run() -> ExitCode {
    process::choose_cryptography();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A reader that went away is no reason for another code.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
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
            Self::Config(command) => command.run(),
            Self::Demo(demo) => demo.run(),
            Self::Get(get) => get.run(),
            Self::Healthcheck(check) => check.run(),
            Self::Init(init) => init.run(),
            Self::Keys(command) => command.run(),
            Self::Ledger(command) => command.run(),
            Self::Policy(command) => command.run(),
            Self::Secret(command) => command.run(),
            Self::Serve(serve) => serve.run(),
            Self::Store(command) => command.run(),
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
