//! What a process that holds secrets does before it holds any: no core, no debugger of the same user, one choice of
//! cryptography, stacks that are wiped whenever a thread rests (promise P5).
//!
//! Known hole: swap. Nothing is locked into memory, since an ordinary user may lock 8 MiB only.

use std::hint::black_box;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use super::exit::{Exit, Failure};
use crate::{
    broker::metrics::{Exposition, families},
    kernel::wiping,
};

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

/// Writes what the kernel says of this process, and the version. What cannot be read is left out.
pub(crate) fn expose(to: &mut Exposition) {
    to.family(&families::BUILD);
    to.value(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let field = |number: usize| {
        // The second field is the name in parentheses, which may hold spaces; the third comes after the last one.
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.split(' ').nth(number.checked_sub(3)?)?.parse::<u64>().ok()
    };
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let seconds = |ticks_spent: u64| {
        let hundredths = ticks_spent.saturating_mul(100) / ticks;
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    };
    to.family(&families::PROCESS_CPU);
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        to.value(&[], seconds(user.saturating_add(system)));
    }
    to.family(&families::PROCESS_START);
    let machine = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = machine.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
    if let (Some(booted), Some(after)) = (booted, field(22)) {
        to.value(&[], booted.saturating_add(after / ticks));
    }
    to.family(&families::PROCESS_RESIDENT);
    if let Some(pages) = field(24) {
        to.value(&[], pages.saturating_mul(rustix::param::page_size() as u64));
    }
    to.family(&families::PROCESS_FDS);
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The folder itself is open while it is read.
        to.value(&[], open.count().saturating_sub(1));
    }
    to.family(&families::PROCESS_MAX_FDS);
    if let Some(most) = getrlimit(Resource::Nofile).current {
        to.value(&[], most);
    }
}

#[inline(never)]
fn scrub_stack() {
    if !wiping::is_on() {
        return;
    }
    let mut space = [0_u8; SCRUBBED_BYTES];
    black_box(&mut space);
}
