//! Keys of assertions as both stores keep them: their dates in one table, their private halves sealed among the other
//! keys. A rotation writes dates that lie ahead, in one transaction with its entry; nothing else makes a key change its
//! state, so replicas agree without a word between them.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    columns::Prepared,
    keys::{self, KeyFault},
};
use crate::{
    broker::ports::StoreFault,
    kernel::{
        assertion::{self, Algorithm, AssertionKey, Schedule},
        ledger::entry::Entry,
        sealing::{Keyring, PURPOSE_KEY, RANDOM_BYTES, SealFault, Sealed, SealedRecord, SealingKey},
        secret::Secret,
    },
};

/// How often a rotation is tried again because somebody else rotated the same keys meanwhile.
pub(in crate::adapters::store) const TRIES: usize = 5;

/// For how long a private half stays after its last signature: a broker whose clock is behind may still want it.
pub(in crate::adapters::store) const FORGET_AFTER: Duration = Duration::from_secs(60);

/// A rotation of the keys of one algorithm.
#[derive(Clone, Copy)]
pub struct AssertionRotation<'a> {
    /// Whose keys.
    pub algorithm: Algorithm,
    /// How long a new key is known before it signs, and an old one after nothing that it signed is good.
    pub lead: Duration,
    /// Whether the keys before are known to somebody else: then they hold no longer, whatever breaks.
    pub is_compromised: bool,
    /// The time.
    pub now: Timestamp,
    /// Fills a slice with random bytes; false where there are none.
    pub random: &'a (dyn Fn(&mut [u8]) -> bool + Send + Sync),
    /// The public half of a private key, as a JWK; none where it is no key of that algorithm.
    pub public_half: fn(Algorithm, &Secret) -> Option<String>,
    /// Makes KEY_ROTATED; none where it cannot be made.
    pub entry: &'a (dyn Fn(&AssertionHandover) -> Option<Entry> + Send + Sync),
}

/// What a rotation comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionHandover {
    /// Whose keys.
    pub algorithm: Algorithm,
    /// The number of the key that comes.
    pub version: u64,
    /// Its public half.
    pub public: String,
    /// Its dates.
    pub schedule: Schedule,
    /// The keys before whose dates change, with the new dates.
    pub before: Vec<(u64, Schedule)>,
}

/// Why no key of assertions was rotated. Then nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum AssertionRotationFault {
    /// Somebody else kept rotating the same keys.
    #[error("the keys were rotated by somebody else at the same time; try again")]
    Contended,
    /// Its entry could not be made.
    #[error("the ledger entry could not be made")]
    Entry,
    /// A key that is stored is none of its algorithm.
    #[error("a key of assertions is damaged")]
    Key,
    /// There were no random bytes.
    #[error("no random bytes from the operating system")]
    NoEntropy,
    /// The rotation before is not over.
    #[error("a new {algorithm} key is published already and signs from {from} on; rotate again after that")]
    Pending {
        /// Whose.
        algorithm: &'static str,
        /// From when.
        from: Timestamp,
    },
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealFault),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

impl From<KeyFault> for AssertionRotationFault {
    fn from(fault: KeyFault) -> Self {
        match fault {
            KeyFault::NoEntropy => Self::NoEntropy,
            KeyFault::Seal(fault) => Self::Seal(fault),
        }
    }
}

/// A key as its rows have it.
pub(in crate::adapters::store) struct Row {
    pub(in crate::adapters::store) algorithm: Algorithm,
    pub(in crate::adapters::store) version: u64,
    pub(in crate::adapters::store) public: Option<String>,
    pub(in crate::adapters::store) schedule: Schedule,
    pub(in crate::adapters::store) sealed: Option<SealedRecord>,
}

/// What a rotation writes, if the newest key is still the one that it was made for.
pub(in crate::adapters::store) struct Rotate {
    /// The newest number before.
    pub(in crate::adapters::store) before: u64,
    /// The sealed private half of the new key.
    pub(in crate::adapters::store) sealed: SealedRecord,
    /// What tells the key that it is sealed with.
    pub(in crate::adapters::store) check: Vec<u8>,
    /// The new key and the dates of those before.
    pub(in crate::adapters::store) handover: AssertionHandover,
    /// Public halves of keys before that the store lacks.
    pub(in crate::adapters::store) publics: Vec<(u64, String)>,
    /// KEY_ROTATED.
    pub(in crate::adapters::store) entry: Arc<Prepared>,
    /// The time.
    pub(in crate::adapters::store) now: Timestamp,
}

/// The first keys of a new store, one of each algorithm: nobody knows the issuer yet, so both sign at once, and whoever
/// asks for ES256 later asks for a key that every cache has.
pub(in crate::adapters::store) fn first_keys() -> Result<Vec<(Algorithm, Secret)>, KeyFault> {
    Algorithm::ALL.into_iter().map(|algorithm| Ok((algorithm, keys::new_signing_key(algorithm)?))).collect()
}

/// The name of a key among the others: that of the first RSA key is older than its siblings.
pub(in crate::adapters::store) fn purpose(algorithm: Algorithm, version: u64) -> String {
    match (algorithm, version) {
        (Algorithm::Rs256, 1) => keys::ASSERTION.to_owned(),
        (Algorithm::Rs256 | Algorithm::Es256, _) => {
            format!("{}-{}-{version}", keys::ASSERTION, algorithm.as_str().to_ascii_lowercase())
        }
    }
}

/// Opens what the rows hold, as far as there is a key for it.
pub(in crate::adapters::store) fn open(
    rows: Vec<Row>,
    keyring: Option<&Keyring>,
) -> Result<Vec<AssertionKey>, StoreFault> {
    let open = |row: Row| {
        let Row { algorithm, version, public, schedule, sealed } = row;
        let purpose = purpose(algorithm, version);
        let private = match (sealed, keyring) {
            (Some(sealed), Some(keyring)) => Some(keys::open(keyring, &purpose, Some((version, sealed)))?),
            (None, _) | (_, None) => None,
        };
        Ok(AssertionKey { algorithm, version, schedule, private, public })
    };
    let opened: Result<_, &'static str> = rows.into_iter().map(open).collect();
    opened.map_err(|damage| StoreFault::Unavailable(format!("the database is damaged: {damage}")))
}

/// Makes the new key and says what changes, from how the keys stand.
pub(in crate::adapters::store) fn rotate(
    standing: &[AssertionKey],
    sealing: &SealingKey,
    rotation: AssertionRotation<'_>,
) -> Result<Rotate, AssertionRotationFault> {
    let AssertionRotation { algorithm, lead, is_compromised, now, random, public_half, entry } = rotation;
    let own: Vec<&AssertionKey> = standing.iter().filter(|key| key.algorithm == algorithm).collect();
    let dates: Vec<(u64, Schedule)> = own.iter().map(|key| (key.version, key.schedule)).collect();
    let (schedule, changed) = if is_compromised {
        assertion::withdraw(&dates, now)
    } else {
        assertion::rotate(&dates, now, lead)
            .map_err(|from| AssertionRotationFault::Pending { algorithm: algorithm.as_str(), from })?
    };
    let before = own.iter().map(|key| key.version).max().unwrap_or(0);
    let version = before.saturating_add(1);
    let publics = own.iter().filter(|key| key.public.is_none()).filter_map(|key| {
        let private = key.private.as_ref()?;
        Some(public_half(algorithm, private).map(|public| (key.version, public)))
    });
    let publics = publics.collect::<Option<_>>().ok_or(AssertionRotationFault::Key)?;
    let private = keys::new_signing_key(algorithm)?;
    let public = public_half(algorithm, &private).ok_or(AssertionRotationFault::Key)?;
    let purpose = purpose(algorithm, version);
    let of = Sealed { purpose: PURPOSE_KEY, name: &purpose, version };
    let sealed = sealing.seal(of, &private, &keys::fresh(RANDOM_BYTES, random)?)?;
    let handover = AssertionHandover { algorithm, version, public, schedule, before: changed };
    let entry = Prepared::new(entry(&handover).ok_or(AssertionRotationFault::Entry)?)?;
    Ok(Rotate { before, sealed, check: sealing.check().0.to_vec(), handover, publics, entry, now })
}
