//! Issuers' public keys: JWK sets (RFC 7517) read strictly, bad keys left out, good ones kept.

use jiff::Timestamp;

use super::profile::Algorithm;
use crate::kernel::digest::Digest;

/// One usable public key, bound to exactly one algorithm.
pub struct VerificationKey {
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    pub(super) thumbprint: Digest,
    pub(super) key: jsonwebtoken::DecodingKey,
}

/// The usable keys of one issuer.
pub struct KeySet {
    pub(super) keys: Vec<std::sync::Arc<VerificationKey>>,
}

/// Why a whole set is refused; the one held before stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeySetFault(pub &'static str);

impl KeySet {
    /// Reads a JWK set of at most 64 keys.
    ///
    /// # Errors
    ///
    /// [`KeySetFault`] where it is not a JWK set, or holds no usable key.
    pub fn parse(_bytes: &[u8], _algorithms: &[Algorithm]) -> Result<Self, KeySetFault> {
        todo!()
    }

    /// The key of that id and algorithm.
    pub fn find(&self, _kid: &str, _algorithm: Algorithm) -> Option<std::sync::Arc<VerificationKey>> {
        todo!()
    }
}

impl VerificationKey {
    /// RFC 7638 thumbprint (SHA-256).
    pub fn thumbprint(&self) -> Digest {
        self.thumbprint
    }
}

/// Unused marker so that the module's imports stay honest while it is written.
pub type NotAfter = Timestamp;
