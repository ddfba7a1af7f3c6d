//! What both stores do alike when a key takes the place of another: what is told of it, and the ledger's keys before
//! this one. Each change is one transaction with its KEY_ROTATED entry, so that a crash leaves the one or the other.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{columns::Prepared, keys::LEDGER};
use crate::{
    broker::ports::StoreFault,
    kernel::{
        digest::Digest,
        ledger::{
            checkpoint::{Checkpoint, LogKey, NoteFault, VerifierKey},
            entry::Entry,
        },
        sealing::{Keyring, PURPOSE_KEY, RANDOM_BYTES, SealFault, Sealed, SealedRecord},
        secret::Secret,
    },
};

/// The fact that tells which sealing key the store is sealed with.
pub(in crate::adapters::store) const SEALING_CHECK: &str = "sealing_check";
/// The fact that tells under which key records are being wrapped; absent or empty while none are.
pub(in crate::adapters::store) const SEALING_NEXT: &str = "sealing_next";
/// The fact that tells of the ledger's keys before this one.
pub(in crate::adapters::store) const PAST_KEYS: &str = "ledger_keys_past";
/// How often a change is tried again because somebody else changed the same key meanwhile.
pub(in crate::adapters::store) const TRIES: usize = 5;
/// The bytes of an Ed25519 seed.
const SEED_BYTES: usize = 32;

/// What the KEY_ROTATED entry of the ledger's key tells.
pub struct Handover {
    /// The version that comes.
    pub version: u64,
    /// The key that goes.
    pub old: VerifierKey,
    /// The key that comes.
    pub new: VerifierKey,
    /// A checkpoint of the tree before the entry that names the new key, signed by both.
    pub checkpoint: String,
}

/// What the KEY_ROTATED entry of the sealing key tells.
pub struct SealingHandover {
    /// The check of the key that goes.
    pub old: Digest,
    /// The check of the key that comes.
    pub new: Digest,
    /// How many records were wrapped anew.
    pub records: u64,
}

/// What a change of keys came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated<T> {
    /// The index of its entry; `None` where there was nothing to do.
    pub index: Option<u64>,
    /// What there is to tell.
    pub told: T,
}

/// A key that the store holds, or held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldKey {
    /// What it is for.
    pub purpose: String,
    /// Its version.
    pub version: u64,
    /// Its public half, where it is a key of the ledger.
    pub verifier: Option<VerifierKey>,
    /// When it was made.
    pub made_at: Timestamp,
    /// When another came in its place.
    pub retired_at: Option<Timestamp>,
}

/// Why no key was changed.
#[derive(Debug, thiserror::Error)]
pub enum RotationFault {
    /// Somebody else kept changing the same key.
    #[error("the key was changed by somebody else at the same time; try again")]
    Contended,
    /// Its entry could not be made.
    #[error("the ledger entry could not be made")]
    Entry,
    /// There were no random bytes.
    #[error("no random bytes from the operating system")]
    NoEntropy,
    /// A broker that serves this store does not know the new sealing key.
    #[error(
        "a broker that serves this database does not know the new sealing key, and could open nothing any more: send each \
         one SIGHUP, so that it reads its configuration, and try again"
    )]
    NotServed,
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealFault),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// Records that no known key opens.
    #[error("{0} is sealed with a key that is not at hand; nothing was changed")]
    Unknown(String),
}

/// Fills a slice with random bytes; false where there are none.
pub type Random = Arc<dyn Fn(&mut [u8]) -> bool + Send + Sync>;
/// Makes an entry of what there is to tell; none where it cannot be made.
pub type Telling<T> = Arc<dyn Fn(&T) -> Option<Entry> + Send + Sync>;

/// What a command that changes keys found.
pub(in crate::adapters::store) enum Found<T> {
    /// It was done; its entry has that place in the batch.
    Done(T, u64),
    /// The key is another than it was made for.
    Moved,
    /// It cannot be done.
    Refused(RotationFault),
}

/// A key of the ledger that was.
#[derive(Serialize, Deserialize)]
pub(in crate::adapters::store) struct PastKey {
    /// Its version.
    pub(in crate::adapters::store) version: u64,
    /// Its public half.
    pub(in crate::adapters::store) key: String,
    /// When it was made.
    pub(in crate::adapters::store) made_at: Timestamp,
    /// When another came in its place.
    pub(in crate::adapters::store) retired_at: Timestamp,
}

/// The ledger's next key: its seed, and the seed as it is kept.
pub(in crate::adapters::store) struct NextSeed {
    /// The version of the key that it follows.
    pub(in crate::adapters::store) before: u64,
    /// The seed.
    pub(in crate::adapters::store) seed: Secret,
    /// The same, sealed.
    pub(in crate::adapters::store) record: SealedRecord,
    /// What tells the key that it is sealed with.
    pub(in crate::adapters::store) check: Vec<u8>,
}

impl NextSeed {
    /// Makes one behind that version, under the key that all else is sealed with.
    pub(in crate::adapters::store) fn make(
        keyring: &Keyring,
        (before, check): (u64, Vec<u8>),
        random: &Random,
    ) -> Result<Self, RotationFault> {
        let seed = fresh(random, SEED_BYTES)?;
        let of = Sealed { purpose: PURPOSE_KEY, name: LEDGER, version: before.saturating_add(1) };
        let sealing = keyring.of(&check).ok_or(SealFault::WrongKey)?;
        let record = sealing.seal(of, &seed, &fresh(random, RANDOM_BYTES)?)?;
        Ok(Self { before, seed, record, check })
    }

    /// The key with what is told of it: the old one signs, together with it, the tree before the entry.
    pub(in crate::adapters::store) fn hand_over(
        &self,
        (old, origin): (&LogKey, &str),
        (size, root): (u64, &Digest),
        tell: &Telling<Handover>,
    ) -> Result<(LogKey, Handover, Arc<Prepared>), RotationFault> {
        let next = LogKey::from_seed(origin, &self.seed).ok_or(RotationFault::NoEntropy)?;
        let handover = Handover {
            version: self.before.saturating_add(1),
            old: old.verifier(),
            new: next.verifier(),
            checkpoint: old.hand_over(&next, size, root),
        };
        let entry = Prepared::new(tell(&handover).ok_or(RotationFault::Entry)?)?;
        Ok((next, handover, entry))
    }
}

/// Reads what is told of past keys.
pub(in crate::adapters::store) fn past_keys(fact: Option<&[u8]>) -> Result<Vec<PastKey>, &'static str> {
    let Some(text) = fact else { return Ok(Vec::new()) };
    serde_json::from_slice(text).map_err(|_| "what is told of past keys cannot be read")
}

/// Opens a note that the ledger's key signed, or one before it.
pub(in crate::adapters::store) fn open_note(
    note: &str,
    own: &VerifierKey,
    past: &[PastKey],
) -> Result<Checkpoint, NoteFault> {
    let mut outcome = own.open(note);
    for key in past.iter().rev().filter_map(|past| VerifierKey::parse(&past.key)) {
        if outcome == Err(NoteFault::Unsigned) {
            outcome = key.open(note);
        }
    }
    outcome
}

/// The ledger's past keys and those that the store holds (purpose, version, when it was made), oldest first within a
/// purpose.
pub(in crate::adapters::store) fn held(
    past: Vec<PastKey>,
    own: Option<&VerifierKey>,
    stored: Vec<(String, u64, Timestamp)>,
) -> Vec<HeldKey> {
    let past = past.into_iter().map(|past| HeldKey {
        purpose: LEDGER.to_owned(),
        version: past.version,
        verifier: VerifierKey::parse(&past.key),
        made_at: past.made_at,
        retired_at: Some(past.retired_at),
    });
    let stored = stored.into_iter().map(|(purpose, version, made_at)| {
        let verifier = own.filter(|_| purpose == LEDGER).cloned();
        HeldKey { purpose, version, verifier, made_at, retired_at: None }
    });
    let mut held: Vec<HeldKey> = past.chain(stored).collect();
    held.sort_by(|a, b| (&a.purpose, a.version).cmp(&(&b.purpose, b.version)));
    held
}

/// Fresh random bytes.
fn fresh(random: &Random, bytes: usize) -> Result<Secret, RotationFault> {
    let mut fresh = vec![0; bytes];
    if random(&mut fresh) { Ok(Secret::new(fresh)) } else { Err(RotationFault::NoEntropy) }
}
