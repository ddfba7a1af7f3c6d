//! Each CI system's contract with the code that it runs (environment, files, token service, end of the job), and our
//! wrapper for it really run under that contract, against a running broker. What stands for a CI system is a fake, and
//! named so; it is strict where the system is.

mod front;
mod github;
mod github_runner;
mod shell;
mod token_service;
