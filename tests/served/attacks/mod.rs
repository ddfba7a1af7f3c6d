//! The attack table: every way to spoil a token that we know of, against the built server. Each row starts from one
//! token that is permitted, spoils one thing, and holds the whole answer and what the ledger says of it to the
//! contract. The letters are those of the classes: T JOSE, C claims, F federation, R replay, O oracles.
//!
//! A row is one [`Case`]; [`arena::Arena`] runs groups of them that must come to the same verdict, and ends each group
//! with a token that nobody spoiled.

mod arena;
mod claims;
mod everywhere;
mod federation;
mod jose;
mod oracle;
mod replay;

use arena::{Arena, Case};
