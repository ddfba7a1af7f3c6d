//! The keys that Hallpass makes for itself and keeps in the store, sealed: the ledger's, the one that signs
//! assertions, and the one that makes pseudonyms.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};

use crate::kernel::{
    assertion::Algorithm,
    sealing::{Keyring, PURPOSE_KEY, RANDOM_BYTES, SealFault, Sealed, SealedRecord, SealingKey},
    secret::Secret,
    wiping::Zeroizing,
};

/// Why a key was not made.
#[derive(Debug, thiserror::Error)]
pub(in crate::adapters::store) enum KeyFault {
    /// There were no random bytes.
    #[error("no random bytes from the operating system")]
    NoEntropy,
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealFault),
}

/// The seed of the ledger's Ed25519 key.
pub(in crate::adapters::store) const LEDGER: &str = "ledger";
/// The first RSA key that signs assertions, PKCS#8; others have names that begin so.
pub(in crate::adapters::store) const ASSERTION: &str = "assertion";
/// The key of pseudonyms, 32 bytes.
pub(in crate::adapters::store) const PSEUDONYM: &str = "pseudonym";

/// The version of a key that was never rotated.
pub(in crate::adapters::store) const FIRST_VERSION: u64 = 1;

/// Makes a key that signs assertions, PKCS#8: RSA of 2048 bits, or P-256. Its randomness is the library's own; it takes
/// none from outside.
pub(in crate::adapters::store) fn new_signing_key(algorithm: Algorithm) -> Result<Secret, KeyFault> {
    match algorithm {
        Algorithm::Rs256 => {
            let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyFault::NoEntropy)?;
            let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| KeyFault::NoEntropy)?;
            Ok(Secret::new(der.as_ref().to_vec()))
        }
        Algorithm::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
            let der = pair.and_then(|pair| pair.to_pkcs8v1()).map_err(|_| KeyFault::NoEntropy)?;
            Ok(Secret::new(der.as_ref().to_vec()))
        }
    }
}

/// Fills a secret with random bytes.
pub(in crate::adapters::store) fn fresh(
    bytes: usize,
    random: &dyn Fn(&mut [u8]) -> bool,
) -> Result<Secret, KeyFault> {
    let mut fresh = vec![0; bytes];
    if random(&mut fresh) { Ok(Secret::new(fresh)) } else { Err(KeyFault::NoEntropy) }
}

/// Seals a new key.
pub(in crate::adapters::store) fn seal(
    sealing: &SealingKey,
    (purpose, key): (&str, &Secret),
    random: &dyn Fn(&mut [u8]) -> bool,
) -> Result<SealedRecord, KeyFault> {
    let of = Sealed { purpose: PURPOSE_KEY, name: purpose, version: FIRST_VERSION };
    Ok(sealing.seal(of, key, &fresh(RANDOM_BYTES, random)?)?)
}

/// Opens a key as stored: its version, and its record.
pub(in crate::adapters::store) fn open(
    sealing: &Keyring,
    purpose: &str,
    row: Option<(u64, SealedRecord)>,
) -> Result<Secret, &'static str> {
    let (version, record) = row.ok_or("one of the store's own keys is missing")?;
    sealing
        .open(Sealed { purpose: PURPOSE_KEY, name: purpose, version }, &record)
        .map_err(|_| "one of the store's own keys does not open")
}

/// Takes the 32 bytes of the pseudonym key.
pub(in crate::adapters::store) fn pseudonym(key: &Secret) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    let bytes = <[u8; 32]>::try_from(key.expose());
    bytes.map(Zeroizing::new).map_err(|_| "the pseudonym key has not 32 bytes")
}
