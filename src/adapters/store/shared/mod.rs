//! What both stores do alike: what a decision about claims is, how the tree grows, what a refusal counts, which keys
//! there are. It knows no database; the rooms beside it bring the rows and the SQL.

pub(super) mod assertions;
pub(super) mod claims;
pub(super) mod columns;
pub(super) mod head;
pub(super) mod keys;
#[cfg(test)]
mod model;
pub(super) mod policy;
pub(super) mod publication;
pub(super) mod quota;
pub(super) mod refusals;
pub(super) mod rotation;
pub(super) mod rows;
pub(super) mod secrets;
pub(super) mod stored;
pub(super) mod transit;
