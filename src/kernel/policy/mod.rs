//! Who may get what: policy files in, one immutable [`PolicySet`] out, and one evaluator, [`decide::decide`],
//! that server, tests and tools share. There is no second path that could disagree.

pub mod breaches;
pub mod catalogue;
pub mod class;
mod csr;
pub mod decide;
pub mod engines;
pub mod explain;
pub mod finding;
pub mod guardrail;
pub mod lint;
pub mod load;
pub mod matcher;
pub mod schema;
pub mod set;
pub mod suite;
pub mod target;
pub mod template;
mod weigh;
pub mod window;
pub mod yaml;

pub use decide::{Decision, Denial, Permit};
pub use finding::{Finding, Severity};
pub use set::PolicySet;

#[cfg(test)]
mod tests;
