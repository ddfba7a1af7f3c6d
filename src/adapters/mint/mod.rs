//! The minters, one file a kind. A new kind is a file here, a variant in the kernel and a line where it is wired.

pub mod oidc;
pub mod sealed;
pub mod vault;

pub use oidc::{Assertions, Oidc};
pub use sealed::Sealed;
pub use vault::Vault;
