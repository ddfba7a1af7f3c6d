//! The pure floor: identity, policy, ledger, secrets. No I/O, no async, no clock, no randomness: whoever calls
//! hands in the time and the random bytes, so that every law here can be tested as a function.

pub mod assertion;
pub mod digest;
pub mod freeze;
pub mod id;
pub mod identity;
pub mod issuance;
pub mod json;
pub mod ledger;
pub mod lifetime;
pub mod name;
pub mod policy;
pub mod sealing;
pub mod secret;
pub mod wiping;
