//! A backend that fails again and again is not asked for a moment: its grants fail at once instead of late, and it gets
//! room to recover. Nothing here waits, and no lock is held for longer than it takes to count.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The breaker of one backend.
#[derive(Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    /// Not before that time, where it is open.
    until: Option<Instant>,
    /// Whether the one request that tries is under way.
    trying: bool,
}

/// Leave to ask. Whoever drops it without a word has not had an answer, which counts as a failure.
pub(super) struct Leave<'a> {
    breaker: &'a Breaker,
    is_told: bool,
}

impl Breaker {
    /// Leave to ask, where there is any.
    pub(super) fn enter(&self, now: Instant) -> Option<Leave<'_>> {
        let mut state = self.state();
        if let Some(until) = state.until {
            if now < until || state.trying {
                return None;
            }
            state.trying = true;
        }
        Some(Leave { breaker: self, is_told: false })
    }

    /// Whether requests are refused now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.state().until.is_some_and(|until| now < until)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.trying = false;
        if state.failures >= FAILURES {
            let doublings = (state.failures - FAILURES).min(8);
            let pause = PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
            state.until = Some(now + pause);
        }
    }
}

impl Leave<'_> {
    /// The backend answered as one that is well.
    pub(super) fn succeeded(mut self) {
        self.is_told = true;
        *self.breaker.state() = State::default();
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if !self.is_told {
            self.breaker.fail(Instant::now());
        }
    }
}

/// One lost packet opens nothing; a dead backend does within a second under load.
const FAILURES: u32 = 5;
/// The first pause.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest one: a restarted Vault is back within half a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_lets_one_request_try() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        let fail = |times: u32| (0..times).for_each(|_| breaker.fail(now));
        fail(FAILURES - 1);
        breaker.enter(now).unwrap().succeeded();
        fail(FAILURES - 1);
        assert!(!breaker.is_open(now));
        fail(1);
        assert!(breaker.is_open(now) && breaker.enter(now).is_none());

        let later = now + PAUSE;
        let trying = breaker.enter(later).unwrap();
        assert!(breaker.enter(later).is_none(), "two tried at once");
        trying.succeeded();
        assert!(breaker.enter(later).is_some());
    }

    #[test]
    fn whoever_gives_up_waiting_has_failed() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES {
            drop(breaker.enter(now).unwrap());
        }
        assert!(breaker.enter(now).is_none());
    }

    #[test]
    fn pauses_grow_to_their_longest() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        (0..FAILURES).for_each(|_| breaker.fail(now));
        for pause in [1, 2, 4, 8, 15, 15] {
            let end = now + Duration::from_secs(pause);
            assert!(breaker.enter(end - Duration::from_millis(1)).is_none(), "{pause}");
            assert!(!breaker.is_open(end));
            breaker.fail(end);
            now = end;
        }
    }
}
