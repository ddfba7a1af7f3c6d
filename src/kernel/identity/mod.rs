//! Who is calling: from the text of a token to a [`JobIdentity`], in an order that types prove:
//! [`token::RawToken`] -> [`verify::VerifiedToken`] -> [`job::JobIdentity`].
//!
//! Nothing here fetches a key or reads a clock. aws-lc checks signatures; registered claims are checked
//! by [`verify`] alone, since libraries let through what we must refuse (wrong types, several audiences, `crit`).

pub mod discovery;
pub mod job;
pub mod keys;
pub mod profile;
pub mod profiles;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;
pub mod verify;

pub use job::JobIdentity;
