//! How the writer is, for those who only look: well, ailing, dead, or held up by a disk that does not answer.
//!
//! A turn that fails is told to everybody in it. One that neither fails nor ends is noticed here, by the time that it
//! takes: a disk that hangs must not make jobs hang (P7).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::ports::StoreFault;

/// How long a turn may take before everybody is told that the disk does not answer (contract: refuse within a second).
const LONGEST_TURN: Duration = Duration::from_millis(800);
/// How often whoever waits for a turn looks at how long it takes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The writer's standing.
pub(super) struct Standing {
    health: Mutex<Health>,
    /// When the turn began that is under way.
    turn: Mutex<Option<Instant>>,
    died: CancellationToken,
}

/// How the last turn ended.
#[derive(Clone)]
enum Health {
    /// It failed.
    Ailing(String),
    /// The disk lied: never again in this process.
    Dead(String),
    /// It was durable.
    Well,
}

/// Stands for a turn that is under way.
pub(super) struct Turn<'a>(&'a Standing);

impl Standing {
    /// Of a writer that is well.
    pub(super) fn new() -> Self {
        Self { health: Mutex::new(Health::Well), turn: Mutex::new(None), died: CancellationToken::new() }
    }

    /// Whether the last turn was durable, and none takes too long.
    pub(super) fn health(&self) -> Result<(), StoreFault> {
        match &*self.health.lock().unwrap_or_else(PoisonError::into_inner) {
            Health::Well => self.delay().map_or(Ok(()), Err),
            Health::Ailing(why) | Health::Dead(why) => Err(StoreFault::Unavailable(why.clone())),
        }
    }

    /// Whether the last turn failed, whatever the one under way does.
    pub(super) fn ailment(&self) -> Option<StoreFault> {
        match &*self.health.lock().unwrap_or_else(PoisonError::into_inner) {
            Health::Ailing(why) | Health::Dead(why) => Some(StoreFault::Unavailable(why.clone())),
            Health::Well => None,
        }
    }

    /// Why the writer writes no more, if that is so.
    pub(super) fn death(&self) -> Option<StoreFault> {
        match &*self.health.lock().unwrap_or_else(PoisonError::into_inner) {
            Health::Dead(why) => Some(StoreFault::Unavailable(why.clone())),
            Health::Ailing(_) | Health::Well => None,
        }
    }

    /// The fault of a turn that takes too long.
    pub(super) fn delay(&self) -> Option<StoreFault> {
        let since = *self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let is_late = since.is_some_and(|since| since.elapsed() > LONGEST_TURN);
        is_late.then(|| StoreFault::Unavailable("the disk does not answer".to_owned()))
    }

    /// Ends when a turn takes too long.
    pub(super) async fn delayed(&self) -> StoreFault {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(fault) = self.delay() {
                return fault;
            }
        }
    }

    /// Ends when the writer writes no more.
    pub(super) async fn died(&self) {
        self.died.cancelled().await;
    }

    /// A turn begins; it ends when what is answered is dropped.
    pub(super) fn begin(&self) -> Turn<'_> {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Turn(self)
    }

    /// A turn failed.
    pub(super) fn ail(&self, why: &str) {
        self.set(Health::Ailing(why.to_owned()));
    }

    /// The disk lost something, and nobody knows what.
    pub(super) fn die(&self, why: &str) {
        self.set(Health::Dead(why.to_owned()));
        self.died.cancel();
    }

    /// A turn was durable.
    pub(super) fn recover(&self) {
        self.set(Health::Well);
    }

    fn set(&self, now: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.turn.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
