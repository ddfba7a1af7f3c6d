//! Who may get what: policy files in, one immutable [`PolicySet`] out, and one evaluator, [`decide::decide`],
//! that server, tests and tools share. There is no second path that could disagree.

pub mod decide;
pub mod finding;
pub mod load;
pub mod matcher;
pub mod set;
pub mod suite;
pub mod target;
pub mod template;
pub mod yaml;

pub use decide::{Decision, Denial, Permit};
pub use finding::{Finding, Severity};
pub use set::PolicySet;
