//! Wiping of secret bytes before their memory is given back (promise P5). Whatever of ours wipes does it through here:
//! [`super::secret::Secret`], buffers of answers and of requests outward, the allocator (see `cli`).
//!
//! A build for tests, with `--cfg hallpass_faults`, can be told to leave it all out, so that the scan of a process's
//! memory (`tests/served/wiped.rs`) is seen to find what nobody wiped. No other build has that switch.

#[cfg(hallpass_faults)]
pub use self::switched::{Zeroizing, is_on, switch};
#[cfg(not(hallpass_faults))]
pub use zeroize::Zeroizing;

/// Whether what is freed is wiped: always, but in a build for tests.
#[cfg(not(hallpass_faults))]
pub const fn is_on() -> bool {
    true
}

/// Overwrites a value in place with zeros.
pub fn wipe(value: &mut (impl zeroize::Zeroize + ?Sized)) {
    if is_on() {
        value.zeroize();
    }
}

/// Overwrites a whole buffer in one sweep: `zeroize` writes byte by byte, which took a fiftieth of an exchange (measured
/// November 2026). The compiler must take it that `black_box` reads the buffer, so it cannot leave the sweep out.
pub fn sweep(buffer: &mut Vec<u8>) {
    if is_on() {
        buffer.clear();
        buffer.resize(buffer.capacity(), 0);
        std::hint::black_box(buffer.as_mut_slice());
    }
}

/// The same with a switch for all of it.
#[cfg(hallpass_faults)]
mod switched {
    use std::{
        ops::{Deref, DerefMut},
        sync::atomic::{AtomicBool, Ordering},
    };

    use zeroize::Zeroize;

    static IS_ON: AtomicBool = AtomicBool::new(true);

    /// Whether what is freed is wiped.
    pub fn is_on() -> bool {
        IS_ON.load(Ordering::Relaxed)
    }

    /// Wipes from now on, or leaves it.
    pub fn switch(is_on: bool) {
        IS_ON.store(is_on, Ordering::Relaxed);
    }

    /// A value that is wiped when it is dropped, unless that is switched off.
    #[derive(PartialEq, Eq)]
    pub struct Zeroizing<T: Zeroize>(T);

    impl<T: Zeroize> Zeroizing<T> {
        /// Takes the value.
        pub fn new(value: T) -> Self {
            Self(value)
        }
    }

    impl<T: Zeroize> Deref for Zeroizing<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T: Zeroize> DerefMut for Zeroizing<T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }

    impl<T: Zeroize> Drop for Zeroizing<T> {
        fn drop(&mut self) {
            super::wipe(&mut self.0);
        }
    }
}
