//! Ids: a prefix and a UUIDv7 (RFC 9562 section 5.7) in 26 characters of lower-case Crockford base32.

use std::fmt;

use jiff::Timestamp;

/// Crockford's alphabet in lower case: no `i`, `l`, `o`, `u`.
pub const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Writes bytes as lower-case Crockford base32, most significant bit first, zero bits added IN FRONT, so that the
/// text sorts as the number does. 16 bytes give 26 characters, 32 bytes give 52.
pub fn crockford(bytes: &[u8]) -> String {
    let mut text = vec![b'0'; (bytes.len() * 8).div_ceil(5)];
    let (mut held, mut bits) = (0_usize, 0_u32);
    let mut bytes = bytes.iter().rev();
    for place in text.iter_mut().rev() {
        if bits < 5
            && let Some(byte) = bytes.next()
        {
            held |= usize::from(*byte) << bits;
            bits += 8;
        }
        *place = CROCKFORD.get(held & 31).copied().unwrap_or(b'0');
        held >>= 5;
        bits = bits.saturating_sub(5);
    }
    text.into_iter().map(char::from).collect()
}

/// Reads what [`crockford`] wrote for `N` bytes; `None` for any other text.
pub fn from_crockford<const N: usize>(text: &str) -> Option<[u8; N]> {
    let chars = (N * 8).div_ceil(5);
    if text.len() != chars {
        return None;
    }
    let pad = chars * 5 - N * 8;
    let mut out = [0_u8; N];
    for (index, byte) in text.bytes().enumerate() {
        let value = CROCKFORD.iter().position(|letter| *letter == byte)?;
        for bit in 0..5 {
            let set = u8::from(value >> (4 - bit) & 1 == 1);
            match (index * 5 + bit).checked_sub(pad) {
                None if set == 1 => return None,
                None => {}
                Some(at) => *out.get_mut(at / 8)? |= set << (7 - at % 8),
            }
        }
    }
    Some(out)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Makes the id of a moment from ten random bytes.
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().into_bytes())
            }

            /// The sixteen bytes, as stored; they sort by time.
            pub fn bytes(&self) -> [u8; 16] {
                self.0
            }

            /// Takes stored bytes back.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Reads the text form; `None` for anything that is not exactly it.
            pub fn parse(text: &str) -> Option<Self> {
                from_crockford(text.strip_prefix($prefix)?).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, crockford(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

id!(
    /// Names one decision, permit or deny: `dec_…`.
    DecisionId, "dec_"
);
id!(
    /// Names one delivered credential: `iss_…`.
    IssuanceId, "iss_"
);
id!(
    /// Names a request that led to no decision: `req_…`.
    RequestId, "req_"
);
id!(
    /// Names one boot of one replica: `rep_…`.
    ReplicaId, "rep_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let early = IssuanceId::new(Timestamp::from_second(1_790_000_000).unwrap(), [9; 10]);
        let late = IssuanceId::new(Timestamp::from_second(1_790_000_001).unwrap(), [0; 10]);
        assert!(early.to_string() < late.to_string());
        assert_eq!(early.to_string().len(), 4 + 26);
        assert_eq!(IssuanceId::parse(&early.to_string()), Some(early));
        assert_eq!(IssuanceId::parse(&early.to_string().to_uppercase()), None);
        assert_eq!(DecisionId::parse(&early.to_string()), None);
    }

    #[test]
    fn thirty_two_bytes_give_fifty_two_characters() {
        let text = crockford(&[0xff; 32]);
        assert_eq!(text.len(), 52);
        assert_eq!(from_crockford::<32>(&text), Some([0xff; 32]));
    }
}
