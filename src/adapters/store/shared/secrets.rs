//! The sealed store's words, and how it stands in memory: as ciphertext, so that no exchange reads a row for a secret.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    broker::ports::{SealedSecret, StoreFault},
    kernel::{
        ledger::entry::Entry,
        name::SecretName,
        sealing::{PURPOSE_SECRET, RANDOM_BYTES, SealFault, Sealed, SealedRecord, SealingKey},
        secret::Secret,
    },
};

/// How often a change is tried again because another process changed the same secret meanwhile.
pub(in crate::adapters::store) const TRIES: usize = 5;

/// Who changes a secret: the time, fresh random bytes, and the entry that tells of it.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// The time.
    pub now: Timestamp,
    /// Fills a slice with random bytes; false where there are none.
    pub random: &'a (dyn Fn(&mut [u8]) -> bool + Send + Sync),
    /// Makes SECRET_SET or SECRET_REMOVED for that version; none where it cannot be made.
    pub entry: &'a (dyn Fn(u64) -> Option<Entry> + Send + Sync),
}

/// Why a secret was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SecretFault {
    /// Another process kept changing the same secret.
    #[error("the secret was changed by somebody else at the same time; try again")]
    Contended,
    /// Its entry could not be made.
    #[error("the ledger entry could not be made")]
    Entry,
    /// There is no such secret.
    #[error("there is no such secret")]
    Missing,
    /// There were no random bytes.
    #[error("no random bytes from the operating system")]
    NoEntropy,
    /// A field is not UTF-8.
    #[error("a field of the secret is not UTF-8 text")]
    NotText,
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealFault),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// A secret as `secret list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretListing {
    /// Its name.
    pub name: SecretName,
    /// Its version.
    pub version: u64,
    /// When it was set.
    pub set_at: Timestamp,
    /// How many fields it has.
    pub fields: u64,
}

/// Seals a content as that version of a secret.
pub(in crate::adapters::store) fn next(
    key: &SealingKey,
    (name, version): (&SecretName, u64),
    content: &Secret,
    change: Change<'_>,
) -> Result<SealedRecord, SecretFault> {
    let of = Sealed { purpose: PURPOSE_SECRET, name: name.as_str(), version };
    let mut random = vec![0; RANDOM_BYTES];
    if !(change.random)(&mut random) {
        return Err(SecretFault::NoEntropy);
    }
    Ok(key.seal(of, content, &Secret::new(random))?)
}

/// What a store without its keys says to a change.
pub(in crate::adapters::store) fn read_only() -> StoreFault {
    StoreFault::Unavailable("the store was opened for reading only".to_owned())
}

/// The sealed store in memory.
#[derive(Clone, Default)]
pub(in crate::adapters::store) struct SealedMap {
    /// Counts its changes: each raises it by one.
    pub(in crate::adapters::store) generation: u64,
    /// The records by name.
    pub(in crate::adapters::store) records: HashMap<SecretName, Arc<SealedSecret>>,
}

impl SealedMap {
    /// The same after changes.
    pub(in crate::adapters::store) fn changed(
        &self,
        generation: u64,
        changes: Vec<(SecretName, Option<Arc<SealedSecret>>)>,
    ) -> Self {
        let mut records = self.records.clone();
        for (name, record) in changes {
            match record {
                Some(record) => records.insert(name, record),
                None => records.remove(&name),
            };
        }
        Self { generation, records }
    }
}
