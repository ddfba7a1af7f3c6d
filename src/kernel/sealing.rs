//! Envelope encryption of what the store keeps: AES-256-GCM, one data key a record, wrapped by the sealing key;
//! associated data binds purpose, name and version, so that records cannot be swapped or rolled back unnoticed.
//!
//! Nothing here makes randomness: the caller hands in [`RANDOM_BYTES`] fresh bytes a record, used for its data key
//! and its two nonces and never again. A nonce is 96 random bits (NIST SP 800-38D section 8.2.2): the sealing key
//! wraps one data key a record, far below the 2^32 that the standard allows under one key.
//!
//! A record is, in this order: format (1 byte, `0x01`), nonce of the wrap (12), wrapped data key (32 + 16), nonce of
//! the content (12), content (as long as the plain one) and its tag (16).

use std::sync::Arc;

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce};
use arc_swap::ArcSwap;
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::kernel::{digest::Digest, secret::Secret};

/// How many random bytes one record takes: a data key and two nonces.
pub const RANDOM_BYTES: usize = KEY_BYTES + 2 * NONCE_BYTES;

/// The text form of a sealing key starts with this; standard base64 of the 32 bytes follows.
pub const KEY_PREFIX: &str = "hallpass-sealing-key-v1:";

/// The purpose of a secret's record.
pub const PURPOSE_SECRET: &str = "secret";

/// The purpose of the record of a key that Hallpass made for itself.
pub const PURPOSE_KEY: &str = "key";

/// The key that wraps all data keys. It comes from outside the store and never goes into it.
pub struct SealingKey(Secret);

/// The sealing keys that a process knows: the newest first and, while they change, the one before it. Copies share what
/// they know, so that a running broker can be given another key.
#[derive(Clone)]
pub struct Keyring(Arc<ArcSwap<Vec<Arc<SealingKey>>>>);

/// What a record is, bound to it as associated data.
#[derive(Clone, Copy)]
pub struct Sealed<'a> {
    /// What it is kept for: [`PURPOSE_SECRET`] or [`PURPOSE_KEY`].
    pub purpose: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: u64,
}

/// A sealed record as stored: ciphertext, not secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedRecord {
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why a text is no sealing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It is not 32 bytes.
    #[error("a sealing key has 32 bytes")]
    Length,
    /// It is not the prefix and base64.
    #[error("a sealing key's text is `hallpass-sealing-key-v1:` and standard base64 of 32 bytes")]
    Shape,
}

/// Why a record cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    /// It was sealed as this, by this key, but its content was changed.
    #[error("the sealed record was changed")]
    Changed,
    /// It is shorter than any record, or of a format that this version does not know.
    #[error("not a sealed record of a known format")]
    Format,
    /// The caller did not hand in [`RANDOM_BYTES`] bytes, or the content passes what AES-GCM takes.
    #[error("the record cannot be sealed: wrong number of random bytes, or too long")]
    Input,
    /// Its data key does not unwrap: another sealing key, or a record that stands in another's place.
    #[error("the sealed record does not open: it was sealed with another key, or as another record")]
    WrongKey,
}

impl SealingKey {
    /// Takes the 32 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyFault::Length`].
    pub fn new(bytes: Secret) -> Result<Self, KeyFault> {
        if bytes.len() == KEY_BYTES { Ok(Self(bytes)) } else { Err(KeyFault::Length) }
    }

    /// Reads the text form; white space at its ends, as editors leave it, is cut.
    ///
    /// # Errors
    ///
    /// [`KeyFault`].
    pub fn parse(text: &Secret) -> Result<Self, KeyFault> {
        let text = text.expose_text().ok_or(KeyFault::Shape)?.trim_ascii();
        let body = text.strip_prefix(KEY_PREFIX).ok_or(KeyFault::Shape)?;
        Self::new(Secret::new(STANDARD.decode(body).map_err(|_| KeyFault::Shape)?))
    }

    /// The text form, as a key file holds it, without a newline.
    pub fn to_text(&self) -> Secret {
        let mut text = String::with_capacity(KEY_PREFIX.len() + KEY_BYTES.div_ceil(3) * 4);
        text.push_str(KEY_PREFIX);
        STANDARD.encode_string(self.0.expose(), &mut text);
        Secret::from_text(text)
    }

    /// A digest that tells this key from others and tells nothing else about it: kept beside what it sealed, so that
    /// a wrong key is known before anything is touched.
    pub fn check(&self) -> Digest {
        match <&[u8; KEY_BYTES]>::try_from(self.0.expose()) {
            Ok(key) => Digest::keyed(key, CHECK),
            // Not reached: `new` looked at the length. A digest of nothing matches no key's.
            Err(_) => Digest::of(CHECK),
        }
    }

    /// Seals. `random` must be fresh.
    ///
    /// # Errors
    ///
    /// [`SealFault::Input`].
    pub fn seal(&self, of: Sealed<'_>, plain: &Secret, random: &Secret) -> Result<SealedRecord, SealFault> {
        let (data_key, nonces) = random.expose().split_at_checked(KEY_BYTES).ok_or(SealFault::Input)?;
        let (wrap_nonce, nonce) = nonces.split_at_checked(NONCE_BYTES).ok_or(SealFault::Input)?;
        // The whole length is set aside at once: a buffer that grew would leave parts of the content behind.
        let mut bytes = Vec::with_capacity(OVERHEAD + plain.len());
        bytes.push(FORMAT);
        append_sealed(&mut bytes, self.0.expose(), wrap_nonce, &of.bound(WRAP), data_key)?;
        append_sealed(&mut bytes, data_key, nonce, &of.bound(CONTENT), plain.expose())?;
        Ok(SealedRecord { bytes })
    }

    /// Opens, decrypting in place in the buffer that becomes the secret.
    ///
    /// # Errors
    ///
    /// [`SealFault`], but never [`SealFault::Input`].
    pub fn open(&self, of: Sealed<'_>, record: &SealedRecord) -> Result<Secret, SealFault> {
        let (format, rest) = record.bytes.split_first().ok_or(SealFault::Format)?;
        let (wrap, content) = rest.split_at_checked(WRAP_BYTES).ok_or(SealFault::Format)?;
        if *format != FORMAT || content.len() < NONCE_BYTES + TAG_BYTES {
            return Err(SealFault::Format);
        }
        let data_key = open_part(self.0.expose(), &of.bound(WRAP), wrap).ok_or(SealFault::WrongKey)?;
        open_part(data_key.expose(), &of.bound(CONTENT), content).ok_or(SealFault::Changed)
    }

    /// Whether this key wraps the record's data key.
    pub fn wraps(&self, of: Sealed<'_>, record: &SealedRecord) -> bool {
        self.unwrap(of, record).is_ok()
    }

    /// Wraps the record's data key under another sealing key. The content stays as it is and is not opened. `nonce` are
    /// twelve fresh random bytes.
    ///
    /// # Errors
    ///
    /// [`SealFault`].
    pub fn rewrap(
        &self,
        of: Sealed<'_>,
        record: &SealedRecord,
        (next, nonce): (&Self, &[u8; NONCE_BYTES]),
    ) -> Result<SealedRecord, SealFault> {
        let data_key = self.unwrap(of, record)?;
        let content = record.bytes.get(1 + WRAP_BYTES..).ok_or(SealFault::Format)?;
        let mut bytes = Vec::with_capacity(record.bytes.len());
        bytes.push(FORMAT);
        append_sealed(&mut bytes, next.0.expose(), nonce, &of.bound(WRAP), data_key.expose())?;
        bytes.extend_from_slice(content);
        Ok(SealedRecord { bytes })
    }

    fn unwrap(&self, of: Sealed<'_>, record: &SealedRecord) -> Result<Secret, SealFault> {
        let (format, rest) = record.bytes.split_first().ok_or(SealFault::Format)?;
        let (wrap, _) = rest.split_at_checked(WRAP_BYTES).ok_or(SealFault::Format)?;
        if *format != FORMAT {
            return Err(SealFault::Format);
        }
        open_part(self.0.expose(), &of.bound(WRAP), wrap).ok_or(SealFault::WrongKey)
    }
}

impl Keyring {
    /// The newest key, and the one before it where records may still be sealed under that.
    pub fn new(newest: Arc<SealingKey>, previous: Option<Arc<SealingKey>>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee([newest].into_iter().chain(previous).collect())))
    }

    /// Knows from now on what the other knows, and nothing else. So do all copies.
    pub fn replace(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    /// Knows from now on what the other knows, too, the other's newest key first. So do all copies.
    pub fn learn(&self, other: &Self) {
        let (own, others) = (self.0.load_full(), other.0.load_full());
        let is_fresh = |key: &&Arc<SealingKey>| others.iter().all(|other| other.check() != key.check());
        self.0.store(Arc::new(others.iter().chain(own.iter().filter(is_fresh)).cloned().collect()));
    }

    /// The newest key; none only of a ring that was made without one, which cannot be.
    pub fn newest(&self) -> Option<Arc<SealingKey>> {
        self.0.load().first().cloned()
    }

    /// The key that this check tells of.
    pub fn of(&self, check: &[u8]) -> Option<Arc<SealingKey>> {
        self.0.load().iter().find(|key| key.check().0 == check).cloned()
    }

    /// The check of each key, newest first.
    pub fn checks(&self) -> Vec<Digest> {
        self.0.load().iter().map(|key| key.check()).collect()
    }

    /// Opens a record by whichever key it was sealed with.
    ///
    /// # Errors
    ///
    /// As [`SealingKey::open`].
    pub fn open(&self, of: Sealed<'_>, record: &SealedRecord) -> Result<Secret, SealFault> {
        let mut outcome = Err(SealFault::WrongKey);
        for key in self.0.load().iter() {
            match key.open(of, record) {
                Err(SealFault::WrongKey) => {}
                opened => outcome = opened,
            }
        }
        outcome
    }
}

impl From<Arc<SealingKey>> for Keyring {
    fn from(key: Arc<SealingKey>) -> Self {
        Self::new(key, None)
    }
}

impl Sealed<'_> {
    /// The associated data: every part behind its length, so that none can borrow from its neighbour.
    fn bound(&self, part: &[u8]) -> Vec<u8> {
        let version = self.version.to_be_bytes();
        let mut bytes = Vec::new();
        for piece in [part, self.purpose.as_bytes(), self.name.as_bytes(), &version] {
            bytes.extend_from_slice(&(piece.len() as u64).to_be_bytes());
            bytes.extend_from_slice(piece);
        }
        bytes
    }
}

/// Writes the fields of one secret, in order, as the content of a record: a JSON array of pairs. `None` where a value
/// is not UTF-8, since the API delivers texts.
pub fn write_fields(fields: &[(String, Secret)]) -> Option<Secret> {
    let pairs: Option<Vec<(&str, &str)>> =
        fields.iter().map(|(name, value)| Some((name.as_str(), value.expose_text()?))).collect();
    write_pairs(&pairs?)
}

/// The same of texts that somebody else keeps.
pub fn write_pairs(pairs: &[(&str, &str)]) -> Option<Secret> {
    // Twice the length takes what JSON escapes in ordinary texts, so that the buffer does not grow.
    let room = pairs.iter().map(|(name, value)| 2 * (name.len() + value.len()) + 16).sum();
    let mut bytes = Vec::with_capacity(room);
    serde_json::to_writer(&mut bytes, &pairs).ok()?;
    Some(Secret::new(bytes))
}

/// Reads what [`write_fields`] wrote; `None` for anything else.
pub fn read_fields(content: &Secret) -> Option<Vec<(String, Secret)>> {
    let pairs: Vec<(String, String)> = serde_json::from_slice(content.expose()).ok()?;
    Some(pairs.into_iter().map(|(name, value)| (name, Secret::from_text(value))).collect())
}

fn append_sealed(
    bytes: &mut Vec<u8>,
    key: &[u8],
    nonce: &[u8],
    bound: &[u8],
    plain: &[u8],
) -> Result<(), SealFault> {
    let cipher = Aes256Gcm::new_from_slice(key).map_err(|_| SealFault::Input)?;
    let nonce_array = Nonce::try_from(nonce).map_err(|_| SealFault::Input)?;
    bytes.extend_from_slice(nonce);
    let start = bytes.len();
    bytes.extend_from_slice(plain);
    let place = bytes.get_mut(start..).ok_or(SealFault::Input)?;
    let tag =
        cipher.encrypt_inout_detached(&nonce_array, bound, place.into()).map_err(|_| SealFault::Input)?;
    bytes.extend_from_slice(&tag);
    Ok(())
}

fn open_part(key: &[u8], bound: &[u8], sealed: &[u8]) -> Option<Secret> {
    let cipher = Aes256Gcm::new_from_slice(key).ok()?;
    let (nonce, rest) = sealed.split_at_checked(NONCE_BYTES)?;
    let (content, tag) = rest.split_at_checked(rest.len().checked_sub(TAG_BYTES)?)?;
    let mut place = content.to_vec();
    cipher
        .decrypt_inout_detached(
            &Nonce::try_from(nonce).ok()?,
            bound,
            place.as_mut_slice().into(),
            &tag.try_into().ok()?,
        )
        .ok()?;
    Some(Secret::new(place))
}

const FORMAT: u8 = 1;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const WRAP_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;
const OVERHEAD: usize = 1 + WRAP_BYTES + NONCE_BYTES + TAG_BYTES;
/// What tells the two parts of a record apart.
const WRAP: &[u8] = b"hallpass sealing v1 data key";
const CONTENT: &[u8] = b"hallpass sealing v1 content";
/// What the key check digests.
const CHECK: &[u8] = b"hallpass sealing key check v1";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ring_that_learns_keeps_what_it_knew_and_no_key_twice() {
        let key = |byte: u8| Arc::new(SealingKey::new(Secret::new(vec![byte; 32])).unwrap());
        let ring = Keyring::new(key(1), None);
        let copy = ring.clone();
        ring.learn(&Keyring::new(key(2), Some(key(1))));
        assert_eq!(copy.checks(), [key(2).check(), key(1).check()]);
        ring.learn(&Keyring::new(key(3), None));
        assert_eq!(copy.checks(), [key(3).check(), key(2).check(), key(1).check()]);
    }

    const NPM: Sealed<'_> = Sealed { purpose: "secret", name: "npm-token", version: 3 };

    fn key(byte: u8) -> SealingKey {
        SealingKey::new(Secret::new(vec![byte; 32])).unwrap()
    }

    fn random(byte: u8) -> Secret {
        Secret::new(vec![byte; RANDOM_BYTES])
    }

    fn record() -> SealedRecord {
        key(1).seal(NPM, &Secret::from_text("hunter2".to_owned()), &random(7)).unwrap()
    }

    #[test]
    fn a_record_opens_as_what_it_was_sealed_as() {
        assert_eq!(key(1).open(NPM, &record()).ok().unwrap().expose(), b"hunter2");
        assert_eq!(record().bytes.len(), OVERHEAD + 7);
    }

    #[test]
    fn a_record_does_not_open_under_another_key_name_version_or_purpose() {
        let fault = |key: &SealingKey, of| key.open(of, &record()).err();
        assert_eq!(fault(&key(2), NPM), Some(SealFault::WrongKey));
        assert_eq!(fault(&key(1), Sealed { name: "other", ..NPM }), Some(SealFault::WrongKey));
        assert_eq!(fault(&key(1), Sealed { version: 4, ..NPM }), Some(SealFault::WrongKey));
        assert_eq!(fault(&key(1), Sealed { purpose: "key", ..NPM }), Some(SealFault::WrongKey));
    }

    #[test]
    fn no_bit_of_a_record_can_be_changed() {
        for at in 0..record().bytes.len() {
            let mut changed = record();
            changed.bytes[at] ^= 1;
            assert!(key(1).open(NPM, &changed).is_err(), "byte {at}");
        }
        let mut short = record();
        short.bytes.truncate(OVERHEAD - 1);
        assert_eq!(key(1).open(NPM, &short).err(), Some(SealFault::Format));
    }

    #[test]
    fn the_data_key_and_the_content_do_not_stand_in_the_record() {
        let random = Secret::new((0..56).collect());
        let bytes = key(1).seal(NPM, &Secret::from_text("hunter2hunter2".to_owned()), &random).unwrap().bytes;
        assert!(!bytes.windows(8).any(|window| window == &random.expose()[..8]));
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    }

    #[test]
    fn the_text_form_reads_back_and_nothing_else_does() {
        let text = key(9).to_text();
        assert!(SealingKey::parse(&text).ok().unwrap().check() == key(9).check());
        let spoiled = |text: String| SealingKey::parse(&Secret::from_text(text)).err();
        let good = text.expose_text().unwrap().to_owned();
        assert_eq!(spoiled(format!("{good}\n")), None);
        assert_eq!(spoiled(good.replace("v1", "v2")), Some(KeyFault::Shape));
        assert_eq!(spoiled(good.replace('=', "")), Some(KeyFault::Shape));
        assert_eq!(spoiled(format!("{KEY_PREFIX}AAAA")), Some(KeyFault::Length));
    }

    #[test]
    fn a_record_that_is_wrapped_anew_opens_under_the_new_key_only_and_its_content_is_the_same_bytes() {
        let rewrapped = key(1).rewrap(NPM, &record(), (&key(2), &[5; NONCE_BYTES])).unwrap();
        assert_eq!(key(2).open(NPM, &rewrapped).ok().unwrap().expose(), b"hunter2");
        assert_eq!(key(1).open(NPM, &rewrapped).err(), Some(SealFault::WrongKey));
        assert!(key(2).wraps(NPM, &rewrapped) && !key(1).wraps(NPM, &rewrapped));
        assert_eq!(rewrapped.bytes[1 + WRAP_BYTES..], record().bytes[1 + WRAP_BYTES..]);
        let other = Sealed { version: 4, ..NPM };
        assert_eq!(
            key(1).rewrap(other, &record(), (&key(2), &[5; NONCE_BYTES])).err(),
            Some(SealFault::WrongKey)
        );
    }

    #[test]
    fn a_ring_opens_what_either_of_its_keys_sealed_and_copies_learn_what_it_learns() {
        let ring = Keyring::new(Arc::new(key(2)), Some(Arc::new(key(1))));
        let copy = ring.clone();
        assert!(copy.open(NPM, &record()).is_ok());
        ring.replace(&Arc::new(key(2)).into());
        assert_eq!(copy.open(NPM, &record()).err(), Some(SealFault::WrongKey));
        assert_eq!(copy.checks(), [key(2).check()]);
    }

    #[test]
    fn the_key_check_tells_keys_apart() {
        assert_ne!(key(1).check(), key(2).check());
    }

    #[test]
    fn seals_only_with_as_many_random_bytes_as_it_takes() {
        for length in [0, RANDOM_BYTES - 1, RANDOM_BYTES + 1] {
            let sealed = key(1).seal(NPM, &Secret::new(Vec::new()), &Secret::new(vec![0; length]));
            assert_eq!(sealed.err(), Some(SealFault::Input));
        }
    }

    #[test]
    fn fields_keep_their_order_and_their_text() {
        let fields = vec![
            ("user".to_owned(), Secret::from_text("z\"\n".to_owned())),
            ("password".to_owned(), Secret::from_text("ä".to_owned())),
        ];
        let read = read_fields(&write_fields(&fields).unwrap()).unwrap();
        assert!(read == fields);
        assert!(write_fields(&[("value".to_owned(), Secret::new(vec![0xff]))]).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_sealed_opens(plain in proptest::collection::vec(any::<u8>(), 0..300), fresh in any::<[u8; 28]>()) {
            let random = Secret::new([fresh, fresh].concat());
            let sealed = key(5).seal(NPM, &Secret::new(plain.clone()), &random).unwrap();
            let opened = key(5).open(NPM, &sealed).ok().unwrap();
            prop_assert_eq!(opened.expose(), plain.as_slice());
        }
    }
}
