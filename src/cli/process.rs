//! What a process that holds secrets does before it holds any: no core, no debugger of the same user, one choice of
//! cryptography, stacks that are wiped whenever a thread rests (promise P5).
//! And a broker's memory is locked, where that is allowed: then no page of it goes to swap.

use std::hint::black_box;

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};

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

/// Locks what the process has and will have in memory, page by page as it is used, and says in the log where it may not.
/// Nothing fails for that: a small limit would let some later allocation fail, so nothing is locked then.
pub(crate) fn lock_memory() {
    let refused = match lockable() {
        Ok(()) => match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
            Ok(()) => return tracing::debug!("memory is locked"),
            Err(errno) => format!("the kernel refuses: {errno}"),
        },
        Err(limit) => limit.to_string(),
    };
    let has_swap = swap_areas().is_none_or(|areas| !areas.is_empty());
    if has_swap {
        tracing::warn!(reason = refused, "memory is not locked and may be swapped; {LOCKABLE}");
    } else {
        tracing::info!(reason = refused, "memory is not locked; there is no swap it could go to");
    }
}

/// Why memory may not be locked as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("only {} kB may be locked (RLIMIT_MEMLOCK)", .0 / 1024)]
pub(crate) struct LockLimit(u64);

#[cfg(test)]
impl LockLimit {
    pub(crate) fn of_kilobytes(kilobytes: u64) -> Self {
        Self(kilobytes * 1024)
    }
}

/// Whether all memory may be locked, whatever it grows to: no limit, or the capability that knows none.
///
/// # Errors
///
/// [`LockLimit`].
pub(crate) fn lockable() -> Result<(), LockLimit> {
    let Some(limit) = getrlimit(Resource::Memlock).current else { return Ok(()) };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let users = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if is_privileged(&status, &users) { Ok(()) } else { Err(LockLimit(limit)) }
}

/// Whether CAP_IPC_LOCK counts: the kernel asks for it in the first user namespace only, where every id is itself.
fn is_privileged(status: &str, users: &str) -> bool {
    const IPC_LOCK: u32 = 14;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let is_first = users.split_whitespace().eq(["0", "0", "4294967295"]);
    is_first && effective >> IPC_LOCK & 1 == 1
}

/// The swap areas that are on a disk; nothing where they cannot be seen.
pub(crate) fn swap_areas() -> Option<Vec<String>> {
    std::fs::read_to_string("/proc/swaps").ok().map(|table| areas_of(&table))
}

/// The kernel's table has a line each below its head. Swap that lies in compressed memory (zram) reaches no disk.
pub(crate) fn areas_of(table: &str) -> Vec<String> {
    let areas = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    areas.filter(|area| !area.starts_with("/dev/zram")).map(str::to_owned).collect()
}

/// What to do, so that memory may be locked.
pub(crate) const LOCKABLE: &str =
    "set LimitMEMLOCK=infinity in its unit, --ulimit memlock=-1 for a container, or turn swap off";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_to_lock_counts_in_the_first_user_namespace_only() {
        let status = "Name:\thallpass\nCapEff:\t0000000000004000\n";
        let first = "         0          0 4294967295\n";
        assert!(is_privileged(status, first));
        assert!(!is_privileged(&status.replace("4000", "3fff"), first), "all others");
        assert!(!is_privileged(status, "         0       1000          1\n"), "a rootless container");
        assert!(!is_privileged("", first) && !is_privileged(status, ""));
    }
}
