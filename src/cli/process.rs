//! What a process that holds secrets does before it holds any: no core, no debugger of the same user, one choice of
//! cryptography, stacks that are wiped whenever a thread rests (promise P5).
//!
//! Known hole: swap. Nothing is locked into memory, since an ordinary user may lock 8 MiB only.

use std::hint::black_box;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::exit::{Exit, Failure};

/// How much of a resting thread's stack is wiped. Measured: a stray copy lay 8 KiB below the stack pointer.
const SCRUBBED_BYTES: usize = 128 * 1024;

/// Chooses aws-lc for everything that asks for a provider, before anything does.
pub(crate) fn choose_cryptography() {
    // An error means that it was chosen already, and by whom else but us: both libraries know no other provider here.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default().ok();
}

/// Makes the process unreadable for others of its user, and leaves no core behind.
///
/// # Errors
///
/// [`Exit::Internal`] where the kernel refuses.
pub(crate) fn harden() -> Result<(), Failure> {
    let refused =
        |what: &str, errno| Failure::new(Exit::Internal, format!("the kernel refuses {what}: {errno}"));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|errno| refused("RLIMIT_CORE 0", errno))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|errno| refused("PR_SET_DUMPABLE 0", errno))
}

/// The runtime of commands that hold secrets: one thread a core, each wiping its stack before it rests.
///
/// # Errors
///
/// [`Exit::Internal`] where threads cannot be started.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("hallpass")
        .on_thread_park(scrub_stack)
        .build()
        .map_err(|fault| Failure::new(Exit::Internal, format!("no threads: {fault}")))
}

/// The runtime of commands that run in a job's step: one thread, since they wait for one answer at a time and are to
/// start at once and stay small; it wipes its stack before it rests.
///
/// # Errors
///
/// [`Exit::Internal`] where the kernel refuses.
pub(crate) fn light_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(scrub_stack)
        .build()
        .map_err(|fault| Failure::new(Exit::Internal, format!("no runtime: {fault}")))
}

#[inline(never)]
fn scrub_stack() {
    let mut space = [0_u8; SCRUBBED_BYTES];
    black_box(&mut space);
}
