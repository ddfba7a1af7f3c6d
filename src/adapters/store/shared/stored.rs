//! How moments stand in a database: as nanoseconds since 1970 UTC.

use jiff::Timestamp;

/// A moment as stored, at the ends of what 64 bits hold (the year 2262) where it would pass them.
pub(in crate::adapters::store) fn stored(moment: Timestamp) -> i64 {
    let nanoseconds = moment.as_nanosecond();
    i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })
}

/// A stored moment.
pub(in crate::adapters::store) fn from_stored(nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}
