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
    pub(super) fn enter(&self) -> Option<Leave<'_>> {
        let mut state = self.state();
        if let Some(until) = state.until {
            if Instant::now() < until || state.trying {
                return None;
            }
            state.trying = true;
        }
        Some(Leave { breaker: self, is_told: false })
    }

    /// Whether requests are refused now.
    pub(super) fn is_open(&self) -> bool {
        self.state().until.is_some_and(|until| Instant::now() < until)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.trying = false;
        if state.failures >= FAILURES {
            let doublings = (state.failures - FAILURES).min(8);
            let pause = PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
            state.until = Some(Instant::now() + pause);
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
            self.breaker.fail();
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

    fn fail(breaker: &Breaker, times: u32) {
        (0..times).for_each(|_| drop(breaker.enter().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_lets_one_request_try() {
        let breaker = Breaker::default();
        fail(&breaker, FAILURES - 1);
        breaker.enter().unwrap().succeeded();
        fail(&breaker, FAILURES - 1);
        assert!(!breaker.is_open());
        fail(&breaker, 1);
        assert!(breaker.is_open() && breaker.enter().is_none());

        tokio::time::advance(PAUSE).await;
        let trying = breaker.enter().unwrap();
        assert!(breaker.enter().is_none(), "two tried at once");
        trying.succeeded();
        assert!(breaker.enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_their_longest() {
        let breaker = Breaker::default();
        fail(&breaker, FAILURES);
        for pause in [1, 2, 4, 8, 15, 15] {
            tokio::time::advance(Duration::from_secs(pause) - Duration::from_millis(1)).await;
            assert!(breaker.enter().is_none(), "{pause}");
            tokio::time::advance(Duration::from_millis(1)).await;
            drop(breaker.enter().unwrap());
        }
    }
}
