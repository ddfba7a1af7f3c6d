//! How long a credential lives, and who can end it.

use std::{fmt, time::Duration};

use jiff::Timestamp;

/// What bounds a credential's life (promise P4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lifetime {
    /// The backend alone decides; `expires_at` is its answer.
    Fixed,
    /// Ends at `expires_at`, by the backend or by our revoke.
    Leased,
    /// Never ends by itself; `expires_at` is null.
    Static,
}

impl Lifetime {
    /// The word in API and ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Leased => "leased",
            Self::Static => "static",
        }
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Fixed, Self::Leased, Self::Static].into_iter().find(|each| each.as_str() == text)
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Adds a duration to a moment, at the end of time where it would pass it.
pub fn after(moment: Timestamp, duration: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| moment.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Reads a duration as files write it: a whole number and one of `s m h d`. `None` for anything else, zero
/// included.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let plain = !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = plain.then(|| digits.parse().ok()).flatten().filter(|count| *count > 0)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    count.checked_mul(seconds).map(Duration::from_secs)
}

/// A moment in the past as people write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

impl Since {
    /// Reads a duration (`90m`) or an RFC 3339 time.
    pub fn parse(text: &str) -> Option<Self> {
        parse_duration(text).map(Self::Ago).or_else(|| text.parse().ok().map(Self::At))
    }

    /// The moment that it means.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(duration) => jiff::SignedDuration::try_from(duration)
                .ok()
                .and_then(|duration| now.checked_sub(duration).ok())
                .unwrap_or(Timestamp::MIN),
            Self::At(moment) => moment,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_duration_before_now() {
        let now: Timestamp = "2027-01-13T10:00:00Z".parse().unwrap();
        let at = |text: &str| Since::parse(text).map(|since| since.at(now).to_string());
        assert_eq!(at("90m").as_deref(), Some("2027-01-13T08:30:00Z"));
        assert_eq!(at("2027-01-12T00:00:00Z").as_deref(), Some("2027-01-12T00:00:00Z"));
        for bad in ["", "yesterday", "0s", "2027-01-12"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse_duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("15m"), Some(Duration::from_secs(900)));
        assert_eq!(parse_duration("30d"), Some(Duration::from_secs(2_592_000)));
        for bad in ["", "s", "0s", "-1s", "1.5h", "15", "15 m", "1e3s", "9999999999s", "1w", "15M", "é"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
