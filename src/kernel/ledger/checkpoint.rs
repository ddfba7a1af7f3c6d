//! Signed checkpoints: C2SP tlog-checkpoint in a C2SP signed-note, Ed25519.
//!
//! A checkpoint is origin, size and root on three lines; a note adds a blank line and signature lines. The writer signs
//! one a batch, receipts carry it, the verifier opens it. Nothing of a note may be believed before [`VerifierKey::open`]
//! said that the key signed it. Sources: c2sp.org/tlog-checkpoint, c2sp.org/signed-note (read November 2026).

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::kernel::{digest::Digest, secret::Secret};

/// A tree head with the log's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's origin line.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The root.
    pub root: Digest,
}

/// The log's signing key. Has no `Debug`: it is a secret.
pub struct LogKey {
    origin: String,
    pair: Ed25519KeyPair,
}

/// The log's verifier key (`ORIGIN+HASH+BASE64`, C2SP signed-note).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    public: [u8; 32],
}

/// Why a note is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteFault {
    /// A signature by this key that does not hold.
    #[error("the signature does not hold")]
    Forged,
    /// It is not a signed checkpoint.
    #[error("not a signed checkpoint: {0}")]
    Malformed(&'static str),
    /// No signature by this key.
    #[error("no signature by the given key")]
    Unsigned,
}

impl LogKey {
    /// Takes a 32-byte seed (RFC 8032). `None` for another length, or for an origin that cannot be a key name: it must
    /// be non-empty, without white space, control characters or `+`.
    pub fn from_seed(origin: &str, seed: &Secret) -> Option<Self> {
        if !is_key_name(origin) {
            return None;
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).ok()?;
        Some(Self { origin: origin.to_owned(), pair })
    }

    /// The public half.
    pub fn verifier(&self) -> VerifierKey {
        let mut public = [0; 32];
        public.iter_mut().zip(self.pair.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        VerifierKey { id: key_id(&self.origin, &public), name: self.origin.clone(), public }
    }

    /// Signs a tree head: the whole note.
    pub fn sign(&self, size: u64, root: &Digest) -> String {
        let text = self.text(size, root);
        format!("{text}\n{}", self.signature(&text))
    }

    /// Signs a tree head together with the key that comes after this one: at the change both vouch for the log.
    pub fn sign_with(&self, next: &Self, size: u64, root: &Digest) -> String {
        let text = self.text(size, root);
        format!("{text}\n{}{}", self.signature(&text), next.signature(&text))
    }

    /// Hands the log over to another key: a checkpoint of the tree before the change, with the new key on a line that
    /// both signatures cover. Without that line whoever has a key of their own could sign beside an old checkpoint and
    /// say that the log is theirs now.
    pub fn hand_over(&self, next: &Self, size: u64, root: &Digest) -> String {
        let text = format!("{}{NEXT_KEY}{}\n", self.text(size, root), next.verifier());
        format!("{text}\n{}{}", self.signature(&text), next.signature(&text))
    }

    fn text(&self, size: u64, root: &Digest) -> String {
        format!("{}\n{size}\n{}\n", self.origin, BASE64.encode(root.0))
    }

    fn signature(&self, text: &str) -> String {
        let verifier = self.verifier();
        let mut signature = verifier.id.to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("\u{2014} {} {}\n", verifier.name, BASE64.encode(signature))
    }
}

impl VerifierKey {
    /// Reads `ORIGIN+HASH+BASE64`; `None` where the hash is not that of name and key, or the key is no Ed25519 one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '+');
        let (name, hash, key) = (parts.next()?, parts.next()?, parts.next()?);
        let key = BASE64.decode(key).ok()?;
        let (kind, public) = key.split_first()?;
        let public: [u8; 32] = public.try_into().ok()?;
        let id = key_id(name, &public);
        let written = hash == hex(&id);
        (is_key_name(name) && *kind == ED25519_TYPE && written).then(|| Self {
            name: name.to_owned(),
            id,
            public,
        })
    }

    /// The log's origin, which is the key's name.
    pub fn origin(&self) -> &str {
        &self.name
    }

    /// The key's id: the first four bytes of a digest of name and key, as eight hex digits.
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// How the line of this key begins in every note that it signs: its name, and as much of its id as whole characters
    /// of base64 hold. A note without such a line was not signed by it.
    pub fn line_start(&self) -> String {
        let id = BASE64.encode(self.id);
        format!("\u{2014} {} {}", self.name, id.get(..WHOLE_ID_CHARACTERS).unwrap_or_default())
    }

    /// Opens a note by which this key handed the log over to that one: both signed it, and it names the new one.
    ///
    /// # Errors
    ///
    /// [`NoteFault`].
    pub fn open_handover(&self, next: &Self, note: &str) -> Result<Checkpoint, NoteFault> {
        let checkpoint = self.open(note)?;
        next.open(note)?;
        let (text, _) = split(note)?;
        let named = text.strip_suffix('\n').and_then(|text| text.split('\n').nth(3)?.strip_prefix(NEXT_KEY));
        if text.split('\n').count() != 5 || named != Some(next.to_string().as_str()) {
            return Err(NoteFault::Malformed("it does not name the next key"));
        }
        Ok(checkpoint)
    }

    /// Opens a note: checks that this key signed it, and reads the checkpoint. Signatures by other keys are ignored, so
    /// that keys can be rotated and witnesses can cosign; at most 16 signatures are accepted. The origin must be the
    /// key's name. Extension lines are covered by the signature, and otherwise ignored.
    ///
    /// # Errors
    ///
    /// [`NoteFault`].
    pub fn open(&self, note: &str) -> Result<Checkpoint, NoteFault> {
        let (text, signatures) = split(note)?;
        let mut is_signed = false;
        for signature in signatures {
            let (name, id, bytes) = signature?;
            if name != self.name || id != self.id {
                continue;
            }
            if is_signed {
                return Err(NoteFault::Malformed("signed twice by one key"));
            }
            let key = UnparsedPublicKey::new(&ED25519, &self.public);
            key.verify(text.as_bytes(), &bytes).map_err(|_| NoteFault::Forged)?;
            is_signed = true;
        }
        if !is_signed {
            return Err(NoteFault::Unsigned);
        }
        let checkpoint = read_text(text)?;
        if checkpoint.origin != self.name {
            return Err(NoteFault::Malformed("the origin is not the key's name"));
        }
        Ok(checkpoint)
    }
}

impl Checkpoint {
    /// Reads a note WITHOUT looking at whose signatures it has: for tools that have no key, and say so.
    ///
    /// # Errors
    ///
    /// [`NoteFault::Malformed`].
    pub fn read_unverified(note: &str) -> Result<Self, NoteFault> {
        let (text, signatures) = split(note)?;
        for signature in signatures {
            signature?;
        }
        read_text(text)
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, hex(&self.id), BASE64.encode(key))
    }
}

/// Reads 32 bytes of standard base64; only the one spelling that an encoder gives.
pub(super) fn hash_from_base64(text: &str) -> Option<Digest> {
    BASE64.decode(text).ok()?.try_into().ok().map(Digest)
}

/// Reads a decimal number as the C2SP formats write it: no sign, no leading zero.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

type Signature<'a> = (&'a str, [u8; 4], Vec<u8>);

/// The signed text, with its last newline, and the signature lines.
fn split(note: &str) -> Result<(&str, impl Iterator<Item = Result<Signature<'_>, NoteFault>>), NoteFault> {
    if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
        return Err(NoteFault::Malformed("control characters"));
    }
    let blank = note.rfind("\n\n").ok_or(NoteFault::Malformed("no blank line"))?;
    let (text, rest) = note.split_at(blank + 1);
    let lines = rest.get(1..).unwrap_or_default();
    let lines = lines.strip_suffix('\n').ok_or(NoteFault::Malformed("no signature line"))?;
    if lines.split('\n').count() > MAX_SIGNATURES {
        return Err(NoteFault::Malformed("over 16 signatures"));
    }
    Ok((text, lines.split('\n').map(|line| signature(line).ok_or(NoteFault::Malformed("a signature line")))))
}

fn signature(line: &str) -> Option<Signature<'_>> {
    let (name, text) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = BASE64.decode(text).ok()?;
    let (id, bytes) = bytes.split_first_chunk::<4>()?;
    (is_key_name(name) && !bytes.is_empty()).then(|| (name, *id, bytes.to_vec()))
}

fn read_text(text: &str) -> Result<Checkpoint, NoteFault> {
    let lines = text.strip_suffix('\n').unwrap_or_default();
    if lines.split('\n').any(str::is_empty) {
        return Err(NoteFault::Malformed("an empty line in the text"));
    }
    let mut lines = lines.split('\n');
    let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(NoteFault::Malformed("fewer than three lines"));
    };
    let size = decimal(size).ok_or(NoteFault::Malformed("the size"))?;
    let root = hash_from_base64(root).ok_or(NoteFault::Malformed("the root"))?;
    Ok(Checkpoint { origin: origin.to_owned(), size, root })
}

/// SHA-256(name || 0x0A || type || key), the first four bytes (signed-note, "Ed25519 signatures").
fn key_id(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let mut input = name.as_bytes().to_vec();
    input.extend_from_slice(&[b'\n', ED25519_TYPE]);
    input.extend_from_slice(public);
    let [a, b, c, d, ..] = Digest::of(&input).0;
    [a, b, c, d]
}

fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|char| char.is_whitespace() || char.is_control() || char == '+')
}

fn hex(id: &[u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(*id))
}

/// How the line begins that names the next key (tlog-checkpoint, "Extension lines").
const NEXT_KEY: &str = "next-key ";

/// How many characters of base64 hold nothing but bits of an id, whatever follows it: 30 of its 32.
const WHOLE_ID_CHARACTERS: usize = 5;

/// The signature type of plain Ed25519 (signed-note, "Signature types").
const ED25519_TYPE: u8 = 1;

/// The least number of signatures that a verifier must accept is the most that we do (signed-note, "Format").
const MAX_SIGNATURES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(origin: &str, seed: u8) -> LogKey {
        LogKey::from_seed(origin, &Secret::new(vec![seed; 32])).unwrap()
    }

    fn note() -> (VerifierKey, String) {
        let key = key("hallpass.test/ledger", 7);
        (key.verifier(), key.sign(41, &Digest::of(b"root")))
    }

    /// The example of the signed-note specification is signed by a key of which the id is published; the vkey form is
    /// that of golang.org/x/mod/sumdb/note, whose documentation has this key.
    #[test]
    fn a_published_verifier_key_is_read_and_written_back() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = VerifierKey::parse(text).unwrap();
        assert_eq!(key.to_string(), text);
        let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        // The signature holds, and it is no checkpoint: only then is the text looked at.
        assert_eq!(key.open(note), Err(NoteFault::Malformed("fewer than three lines")));
        assert_eq!(key.open(&note.replace("problem,", "problem.")), Err(NoteFault::Forged));
        assert_eq!(key.line_start(), "\u{2014} PeterNeumann x08go");
    }

    #[test]
    fn a_line_begins_alike_in_all_notes_of_a_key_and_in_those_of_no_other() {
        let (own, other) = (key("hallpass.test/ledger", 7), key("hallpass.test/ledger", 8));
        let starts = |note: &str, key: &LogKey| note.contains(&format!("\n{}", key.verifier().line_start()));
        for size in 0..50 {
            let note = own.sign(size, &Digest::of(b"root"));
            assert!(starts(&note, &own) && !starts(&note, &other));
            let both = own.sign_with(&other, size, &Digest::of(b"root"));
            assert!(starts(&both, &own) && starts(&both, &other));
        }
    }

    #[test]
    fn a_note_has_exactly_the_lines_of_the_format() {
        let (key, note) = note();
        let lines: Vec<&str> = note.split('\n').collect();
        assert_eq!(
            lines[..4],
            ["hallpass.test/ledger", "41", "SBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=", ""]
        );
        assert!(lines[4].starts_with("\u{2014} hallpass.test/ledger "));
        assert_eq!(lines[5..], [""]);
        let opened = key.open(&note).unwrap();
        assert_eq!((opened.size, opened.root), (41, Digest::of(b"root")));
        assert_eq!(Checkpoint::read_unverified(&note), Ok(opened));
    }

    #[test]
    fn every_flipped_bit_of_a_note_is_refused() {
        let (key, note) = note();
        for at in 0..note.len() * 8 {
            let mut bytes = note.clone().into_bytes();
            bytes[at / 8] ^= 1 << (at % 8);
            if let Ok(spoilt) = String::from_utf8(bytes) {
                assert!(key.open(&spoilt).is_err(), "bit {at}: {spoilt}");
            }
        }
    }

    #[test]
    fn unknown_signatures_are_ignored_up_to_sixteen() {
        let (verifier, note) = note();
        let other = key("witness.test/w", 9).sign(1, &Digest::of(b""));
        let line = other.lines().last().unwrap();
        let with = |count: usize| format!("{note}{}", format!("{line}\n").repeat(count));
        assert!(verifier.open(&with(15)).is_ok());
        assert_eq!(verifier.open(&with(16)), Err(NoteFault::Malformed("over 16 signatures")));
    }

    #[test]
    fn a_known_key_that_fails_spoils_the_note_and_an_unknown_key_signs_nothing() {
        let (verifier, note) = note();
        assert_eq!(verifier.open(&note.replace("\n41\n", "\n42\n")), Err(NoteFault::Forged));
        let other = key("hallpass.test/ledger", 8);
        assert_eq!(other.verifier().open(&note), Err(NoteFault::Unsigned));
        let twice = format!("{note}{}\n", note.lines().last().unwrap());
        assert_eq!(verifier.open(&twice), Err(NoteFault::Malformed("signed twice by one key")));
    }

    #[test]
    fn sizes_and_names_have_one_spelling() {
        let (_, note) = note();
        for (from, to) in
            [("\n41\n", "\n041\n"), ("\n41\n", "\n+41\n"), ("\n41\n", "\n41\r\n"), ("\n41\n", "\n\n41\n")]
        {
            assert!(Checkpoint::read_unverified(&note.replace(from, to)).is_err(), "{to:?}");
        }
        for bad in ["", "a b", "a+b", "a\nb", "a\u{a0}b"] {
            assert!(LogKey::from_seed(bad, &Secret::new(vec![1; 32])).is_none(), "{bad:?}");
        }
        assert!(LogKey::from_seed("a", &Secret::new(vec![1; 31])).is_none());
    }

    #[test]
    fn a_verifier_key_must_match_its_own_hash() {
        let text = note().0.to_string();
        assert_eq!(VerifierKey::parse(&text), Some(note().0));
        let upper = text.replace("+a17b8b40+", "+A17B8B40+");
        let other_type = text.replacen("+AepK", "+BOpK", 1);
        let short = text.get(..text.len() - 4).unwrap().to_owned();
        for spoilt in
            [text.replace("hallpass.test", "hallpass.text"), upper, other_type, short, String::new()]
        {
            assert_ne!(spoilt, text);
            assert_eq!(VerifierKey::parse(&spoilt), None, "{spoilt}");
        }
    }
}
