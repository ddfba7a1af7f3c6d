//! SHA-256 digests and keyed digests, as a type that cannot be confused with other bytes.

use std::fmt;

/// 32 bytes of SHA-256 or HMAC-SHA-256. Shown as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// SHA-256 over the parts, each preceded by its length as eight big-endian bytes, so that no two lists of
    /// parts have the same input.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Self::finish(&context.finish())
    }

    /// Plain SHA-256 of the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
    }

    /// HMAC-SHA-256 of the bytes under a 32-byte key.
    pub fn keyed(key: &[u8; 32], bytes: &[u8]) -> Self {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        let tag = aws_lc_rs::hmac::sign(&key, bytes);
        let mut out = [0; 32];
        out.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Self(out)
    }

    /// Its lower-case hex, as it is shown.
    pub fn hex(&self) -> [u8; 64] {
        let mut text = [0; 64];
        text.chunks_exact_mut(2).zip(self.0).for_each(|(to, byte)| to.copy_from_slice(&hex_pair(byte)));
        text
    }

    fn finish(digest: &aws_lc_rs::digest::Digest) -> Self {
        let mut out = [0; 32];
        out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(out)
    }

    /// Reads 64 hex digits in lower or upper case.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut out = [0; 32];
        for (to, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            let high = char::from(*high).to_digit(16)?;
            let low = char::from(*low).to_digit(16)?;
            *to = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(out))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written at once: an exchange shows some fifteen digests, and the formatter costs more than hashing does.
        f.write_str(std::str::from_utf8(&self.hex()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| hex_pair(*byte)).map(char::from).collect()
}

/// The two lower-case hex digits of a byte.
pub(in crate::kernel) fn hex_pair(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| if digit < 10 { b'0' + digit } else { b'a' - 10 + digit })
}

#[cfg(test)]
mod tests {
    use super::{Digest, hex};

    #[test]
    fn digest_of_abc_is_the_published_vector() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), hex);
        assert_eq!(Digest::from_hex(hex), Some(Digest::of(b"abc")));
    }

    #[test]
    fn every_byte_is_shown_as_the_formatter_shows_it() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(hex(&all), all.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        for bytes in all.chunks_exact(32) {
            assert_eq!(Digest(bytes.try_into().unwrap()).to_string(), hex(bytes));
        }
    }

    #[test]
    fn parts_cannot_be_shifted_across_their_border() {
        assert_ne!(Digest::of_parts(&[b"ab", b"c"]), Digest::of_parts(&[b"a", b"bc"]));
    }
}
