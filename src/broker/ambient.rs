//! Clock and entropy: the only place that touches them.

use std::sync::Mutex;

use jiff::Timestamp;

/// Time and randomness, handed to every use case.
pub struct Ambient {
    /// The clock.
    pub clock: Clock,
    /// The source of random bytes.
    pub entropy: Entropy,
}

/// What time it is.
pub enum Clock {
    /// A clock that tests move.
    Manual(Mutex<Timestamp>),
    /// The machine's.
    System,
}

/// Random bytes.
pub enum Entropy {
    /// The operating system's, through aws-lc.
    Os,
    /// A seeded stream for tests: SHA-256 in counter mode. Predictable, hence never wired by `serve`.
    Seeded(Mutex<(u64, u64)>),
}

impl Clock {
    /// The time now, in whole milliseconds: the ledger keeps no more, and what an answer says must be what an entry
    /// says.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Manual(moment) => *moment.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
            Self::System => {
                let now = Timestamp::now();
                Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
            }
        }
    }
}

/// The random source of the operating system answered with an error: nothing can be issued.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no random bytes from the operating system")]
pub struct NoEntropy;

impl Entropy {
    /// Fills an array with random bytes.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] where the operating system has none.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    /// Fills a slice with random bytes.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] where the operating system has none.
    pub fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        match self {
            Self::Os => aws_lc_rs::rand::fill(out).map_err(|_| NoEntropy),
            Self::Seeded(state) => {
                let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                for chunk in out.chunks_mut(32) {
                    let block = crate::kernel::digest::Digest::of_parts(&[
                        &state.0.to_be_bytes(),
                        &state.1.to_be_bytes(),
                    ]);
                    state.1 = state.1.wrapping_add(1);
                    chunk.iter_mut().zip(block.0).for_each(|(to, from)| *to = from);
                }
                Ok(())
            }
        }
    }
}
