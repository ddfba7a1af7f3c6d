//! The minters, one file a kind, and the signer of our own assertions. A new kind is a file here, a variant in the kernel
//! and a line where it is wired.

pub mod assertions;
pub mod aws;
pub mod oidc;
pub mod sealed;
pub mod vault;

pub use assertions::{Assertion, AssertionFault, AssertionSettings, Assertions};
pub use aws::{Aws, AwsSettings};
pub use oidc::Oidc;
pub use sealed::Sealed;
pub use vault::Vault;
