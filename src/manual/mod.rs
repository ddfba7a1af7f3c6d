//! The manual: prose that outlives a change, kept beside the code so that its links and examples are checked.

pub mod ledger;
