//! How long keys are good for, and when an issuer is asked again. The clock is handed in; nothing here waits.
//! `src/manual/issuers.rs` shows these times in one table, and a test holds it to them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::kernel::{digest::Digest, name::IssuerName};

/// How long a set is taken for true: what the answer's `Cache-Control` says, within our bounds (attack class K-07).
#[derive(Clone, Copy)]
pub(super) struct Life(SignedDuration);

impl Life {
    /// By what an answer said, if anything.
    pub(super) fn said(max_age: Option<Duration>) -> Self {
        let said = max_age.map_or(LONGEST_LIFE, |age| SignedDuration::try_from(age).unwrap_or(LONGEST_LIFE));
        Self(said.clamp(COOL_DOWN, LONGEST_LIFE))
    }

    /// From this age on a request waits until somebody has asked again.
    pub(super) fn greatest(self) -> SignedDuration {
        self.0
    }

    /// From this age on it is asked again beside the requests: early enough that none has to wait.
    pub(super) fn refresh(self) -> SignedDuration {
        (self.0 / 2).max(COOL_DOWN)
    }
}

/// How long to wait after so many failures in a row, one at least, where no request asks before.
pub(super) fn retry(failures: u32) -> SignedDuration {
    let doublings = failures.saturating_sub(1).min(8);
    COOL_DOWN.saturating_mul(1 << doublings).min(LONGEST_RETRY)
}

/// Up to a quarter more, by the draw, so that many brokers do not all come back to an issuer at once.
pub(super) fn jittered(wait: SignedDuration, draw: u8) -> SignedDuration {
    wait.saturating_add(wait / 1024 * i32::from(draw))
}

/// The draw of one attempt: another for each replica, issuer and attempt, and the same when it is looked at again.
pub(super) fn draw(seed: u64, issuer: &IssuerName, attempt: u64) -> u8 {
    let parts = [&seed.to_be_bytes(), issuer.as_str().as_bytes(), &attempt.to_be_bytes()];
    let [draw, ..] = Digest::of_parts(&parts).0;
    draw
}

/// Whether a moment lies within that time before now. One that lies ahead by more than the clock's usual
/// corrections does not: the clock was set back.
pub(super) fn is_within(moment: Timestamp, time: SignedDuration, now: Timestamp) -> bool {
    let elapsed = now.duration_since(moment);
    elapsed < time && elapsed > -CLOCK_STEP
}

/// Contract, section 12: counted from the beginning of an attempt, whether it succeeded or failed.
pub(super) const COOL_DOWN: SignedDuration = SignedDuration::from_secs(60);

/// Contract, section 12: a withdrawn key is refused within 1 h; a minute of it is for the refresh itself.
pub(super) const LONGEST_LIFE: SignedDuration = SignedDuration::from_mins(59);

/// Contract, section 12: the keys of an issuer that cannot be reached stay usable for 24 h.
pub(super) const GREATEST_AGE: SignedDuration = SignedDuration::from_hours(24);

/// An issuer that was away for a night is back in `/readyz` within minutes; a job that needs it asks by itself.
pub(super) const LONGEST_RETRY: SignedDuration = SignedDuration::from_mins(5);

/// Long enough for a change that has to be announced.
pub(super) const FOREWARNING: SignedDuration = SignedDuration::from_hours(14 * 24);

/// How often a key file is looked at, as policy files and certificates are.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Attack class C-07: corrections by NTP are far smaller.
const CLOCK_STEP: SignedDuration = SignedDuration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(minutes: i64) -> SignedDuration {
        SignedDuration::from_mins(minutes)
    }

    #[test]
    fn a_set_lives_as_long_as_its_answer_says_within_bounds() {
        let life = |seconds: Option<u64>| Life::said(seconds.map(Duration::from_secs)).greatest();
        assert_eq!(life(None), minutes(59));
        for (said, expected) in [(0, 1), (59, 1), (600, 10), (3600, 59), (u64::MAX, 59)] {
            assert_eq!(life(Some(said)), minutes(expected), "{said}");
        }
    }

    #[test]
    fn it_is_asked_again_before_a_request_must_wait_but_not_within_the_cool_down() {
        for said in [0, 60, 61, 120, 600, 3600] {
            let life = Life::said(Some(Duration::from_secs(said)));
            assert!(life.refresh() >= COOL_DOWN, "{said}");
            assert!(life.refresh() <= life.greatest(), "{said}");
        }
        let longest = Life::said(None);
        assert!(jittered(longest.refresh(), u8::MAX) < longest.greatest());
    }

    #[test]
    fn retries_come_later_each_time_and_never_within_the_cool_down() {
        let waits: Vec<i64> = [1, 2, 3, 4, 5, 100, u32::MAX].map(|n| retry(n).as_mins()).into();
        assert_eq!(waits, [1, 2, 4, 5, 5, 5, 5]);
        for failures in 1..10 {
            for drawn in [0, 128, u8::MAX] {
                let wait = jittered(retry(failures), drawn);
                assert!(wait >= COOL_DOWN && wait <= retry(failures) * 5 / 4, "{failures} {drawn}");
            }
        }
    }

    #[test]
    fn replicas_issuers_and_attempts_draw_differently() {
        let (ci, other) = (IssuerName::parse("ci").unwrap(), IssuerName::parse("other").unwrap());
        let draws: std::collections::BTreeSet<u8> =
            (0..64).flat_map(|n| [draw(n, &ci, 1), draw(1, &ci, n), draw(n, &other, 1)]).collect();
        assert!(draws.len() > 64, "{}", draws.len());
        assert_eq!(draw(7, &ci, 3), draw(7, &ci, 3));
    }
}
