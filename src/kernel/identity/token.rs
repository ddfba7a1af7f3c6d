//! A token as it came: split, sized, decoded; nothing of it may be believed yet but where to look for its key.

use super::{profile::Algorithm, verify::TokenFault};
use crate::kernel::secret::Secret;

/// A compact JWS (RFC 7515 section 7.1) whose shape is right and whose signature nobody has checked.
pub struct RawToken {
    pub(super) compact: Secret,
    pub(super) kid: String,
    pub(super) algorithm: Result<Algorithm, String>,
    pub(super) unverified_issuer: String,
}

impl RawToken {
    /// Reads the text of an `Authorization: Bearer` header.
    ///
    /// # Errors
    ///
    /// [`TokenFault`] of the shape only: over 8 KiB, not three base64url parts, header or claims that are not
    /// strict JSON, `crit`, `b64`, `zip`, a foreign `typ`, a `kid` that is missing or over 256 bytes, an `iss` that
    /// is not a string.
    pub fn read(_compact: Secret) -> Result<Self, TokenFault> {
        todo!()
    }

    /// The issuer that the token claims.
    pub fn unverified_issuer(&self) -> &str {
        &self.unverified_issuer
    }

    /// The key that the token claims.
    pub fn unverified_kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm that the token claims, where it is one that we know.
    pub fn unverified_algorithm(&self) -> Option<Algorithm> {
        self.algorithm.as_ref().ok().copied()
    }
}
