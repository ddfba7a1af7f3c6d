//! The keys that Hallpass makes for itself and keeps in the store, sealed: the ledger's, the one that signs
//! assertions, and the one that makes pseudonyms.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use rusqlite::{Connection, OptionalExtension, params};
use zeroize::Zeroizing;

use super::{
    Trouble,
    create::{CreateFault, Genesis},
    schema::{stored, unsigned},
};
use crate::kernel::{
    sealing::{Keyring, PURPOSE_KEY, RANDOM_BYTES, Sealed, SealedRecord, SealingKey},
    secret::Secret,
};

/// The seed of the ledger's Ed25519 key.
pub(super) const LEDGER: &str = "ledger";
/// The RSA key that signs assertions, PKCS#8.
pub(super) const ASSERTION: &str = "assertion";
/// The key of pseudonyms, 32 bytes.
pub(super) const PSEUDONYM: &str = "pseudonym";

/// The version of a key that was never rotated.
const FIRST_VERSION: u64 = 1;

/// Makes an RSA key of 2048 bits. Its randomness is the library's own; it takes none from outside.
pub(super) fn new_rsa_key() -> Result<Secret, CreateFault> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| CreateFault::NoEntropy)?;
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| CreateFault::NoEntropy)?;
    Ok(Secret::new(der.as_ref().to_vec()))
}

/// Fills a secret with random bytes.
pub(super) fn fresh(bytes: usize, random: &dyn Fn(&mut [u8]) -> bool) -> Result<Secret, CreateFault> {
    let mut fresh = vec![0; bytes];
    if random(&mut fresh) { Ok(Secret::new(fresh)) } else { Err(CreateFault::NoEntropy) }
}

/// Keeps a key, sealed.
pub(super) fn keep(
    conn: &Connection,
    sealing: &SealingKey,
    (purpose, key): (&str, &Secret),
    genesis: Genesis<'_>,
) -> Result<(), CreateFault> {
    let of = Sealed { purpose: PURPOSE_KEY, name: purpose, version: FIRST_VERSION };
    let record = sealing.seal(of, key, &fresh(RANDOM_BYTES, genesis.random)?)?;
    conn.execute(
        "INSERT INTO keys (purpose, version, sealed, made_at) VALUES (?1, ?2, ?3, ?4)",
        params![purpose, 1, record.bytes, stored(genesis.now)],
    )?;
    Ok(())
}

/// Opens a key; answers its version too.
pub(super) fn open(conn: &Connection, sealing: &Keyring, purpose: &str) -> Result<(u64, Secret), Trouble> {
    let row = conn
        .query_row("SELECT version, sealed FROM keys WHERE purpose = ?1", [purpose], |row| {
            Ok((unsigned(row, 0)?, SealedRecord { bytes: row.get(1)? }))
        })
        .optional()?;
    let (version, record) = row.ok_or(Trouble::Damaged("one of the store's own keys is missing"))?;
    let key = sealing.open(Sealed { purpose: PURPOSE_KEY, name: purpose, version }, &record);
    Ok((version, key.map_err(|_| Trouble::Damaged("one of the store's own keys does not open"))?))
}

/// The version of the newest key for that purpose; 0 where there is none.
pub(super) fn version(conn: &Connection, purpose: &str) -> rusqlite::Result<u64> {
    let mut row = conn.prepare_cached("SELECT version FROM keys WHERE purpose = ?1")?;
    Ok(row.query_row([purpose], |row| unsigned(row, 0)).optional()?.unwrap_or_default())
}

/// Takes the 32 bytes of the pseudonym key.
pub(super) fn pseudonym(key: &Secret) -> Result<Zeroizing<[u8; 32]>, Trouble> {
    let bytes = <[u8; 32]>::try_from(key.expose());
    bytes.map(Zeroizing::new).map_err(|_| Trouble::Damaged("the pseudonym key has not 32 bytes"))
}
