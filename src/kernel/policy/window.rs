//! Windows: when a rule holds. What the wall clock of a place shows decides, so that "07:00 to 19:00 in London" means
//! to a machine what it means to whoever wrote it.
//!
//! Daylight saving follows from that. A time that the clock skips never comes: a window that lies within the gap stays
//! shut that day. A time that the clock shows twice is in the window both times. A window across the change is an hour
//! shorter or longer, as the night is. The time zone data are those built into this binary; what the machine has
//! installed changes nothing.

use std::fmt;

use jiff::{
    Timestamp,
    civil::{Time, Weekday},
    tz::{TimeZone, TimeZoneDatabase},
};

/// When a rule holds: on which days, and between which times of day.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    zone: TimeZone,
    days: Days,
    from: Minute,
    to: Minute,
}

/// Days of the week, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days([bool; 7]);

/// Minutes since the day began; 1,440 is its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute(u16);

impl Window {
    /// A window that opens on `days` at `from` and shuts at `to`, on the day after where `to` is the earlier one.
    /// `None` where both are the same: that could mean all day or never.
    pub fn new(zone: TimeZone, days: Days, from: Minute, to: Minute) -> Option<Self> {
        (from != to).then_some(Self { zone, days, from, to })
    }

    /// Whether it is open. The first moment is inside, the last is not; what runs past midnight belongs to the day on
    /// which it began.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let local = self.zone.to_datetime(now);
        let minute = Minute::of(local.time());
        let (today, yesterday) = (self.days.has(local.weekday()), self.days.has(local.weekday().previous()));
        if self.from < self.to {
            today && self.from <= minute && minute < self.to
        } else {
            (today && self.from <= minute) || (yesterday && minute < self.to)
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.iana_name().unwrap_or("UTC");
        write!(f, "{} {} to {}, {zone}", self.days, self.from, self.to)
    }
}

impl Days {
    /// Every day.
    pub const ALL: Self = Self([true; 7]);

    /// None; add by [`Self::with`].
    pub const NONE: Self = Self([false; 7]);

    /// Adds the day that a word such as `mon` names; `None` where it names none, or one that is in it already.
    #[must_use]
    pub fn with(mut self, word: &str) -> Option<Self> {
        let at = WORDS.iter().position(|each| *each == word)?;
        let day = self.0.get_mut(at).filter(|day| !**day)?;
        *day = true;
        Some(self)
    }

    fn has(self, day: Weekday) -> bool {
        usize::try_from(day.to_monday_zero_offset())
            .ok()
            .and_then(|at| self.0.get(at))
            .is_some_and(|day| *day)
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> =
            WORDS.iter().zip(self.0).filter(|(_, is_in)| *is_in).map(|(word, _)| *word).collect();
        f.write_str(&words.join(","))
    }
}

impl Minute {
    /// The day's begin.
    pub const FIRST: Self = Self(0);
    /// The day's end, `24:00`.
    pub const END: Self = Self(24 * 60);

    /// Reads `07:00`, or `24:00` for the end of the day; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |at: std::ops::Range<usize>| {
            let part = text.get(at)?;
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok()).flatten()
        };
        let is_whole = text.len() == 5 && text.get(2..3) == Some(":");
        let (hour, minute) = is_whole.then(|| digits(0..2).zip(digits(3..5))).flatten()?;
        let parsed = Self(hour * 60 + minute);
        (minute < 60 && parsed <= Self::END).then_some(parsed)
    }

    fn of(time: Time) -> Self {
        let part = |number: i8| u16::try_from(number).unwrap_or_default();
        Self(part(time.hour()) * 60 + part(time.minute()))
    }
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// The zone of an IANA name in its own spelling; `None` for offsets, `localtime`, and what only looks alike.
pub fn zone(name: &str) -> Option<TimeZone> {
    let zone = TimeZoneDatabase::bundled().get(name).ok()?;
    let is_itself = zone.iana_name() == Some(name);
    (is_itself && !zone.is_unknown()).then_some(zone)
}

/// The days' words, Monday first.
pub const WORDS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

#[cfg(test)]
mod tests;
