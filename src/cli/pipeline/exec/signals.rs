//! The signals that a run hears: before there is a command they end it, afterwards they are passed on.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
        mpsc::Sender,
    },
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::{SignalsInfo, exfiltrator::WithOrigin},
    low_level::siginfo::{Cause, Origin},
};
use tokio::sync::Notify;

use super::super::super::exit::{Exit, Failure};

/// Something that a run waits for.
#[derive(Debug)]
pub(super) enum Event {
    /// A signal for the child.
    Signal(i32),
    /// The child has ended.
    Ended,
}

/// The first signal that asked for an end.
#[derive(Default)]
pub(super) struct Interruption {
    signal: AtomicI32,
    heard: Notify,
}

/// What is passed on.
const PASSED_ON: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];
/// What ends a run that has no command yet.
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

impl Interruption {
    /// The signal, where one asked for an end.
    pub(super) fn signal(&self) -> Option<i32> {
        Some(self.signal.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }

    /// Waits for one.
    pub(super) async fn wait(&self) -> i32 {
        loop {
            let heard = self.heard.notified();
            if let Some(signal) = self.signal() {
                return signal;
            }
            heard.await;
        }
    }

    fn hear(&self, signal: i32) {
        if ENDING.contains(&signal) {
            // The first one counts.
            self.signal.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).ok();
            self.heard.notify_waiters();
        }
    }
}

/// Hears signals from now on.
///
/// # Errors
///
/// [`Exit::Internal`] where the system refuses.
pub(super) fn listen(events: Sender<Event>) -> Result<Arc<Interruption>, Failure> {
    let refused = |fault| Failure::new(Exit::Internal, format!("no signals: {fault}"));
    // What was ignored when we came (nohup) is the child's to be ignored, too: a handler would take that from it.
    let ignored = ignored();
    let heard = PASSED_ON.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = SignalsInfo::<WithOrigin>::new(heard).map_err(refused)?;
    let interruption = Arc::new(Interruption::default());
    let told = Arc::clone(&interruption);
    let listening = move || {
        for origin in signals.forever() {
            told.hear(origin.signal);
            if !went_to_the_group(&origin) && events.send(Event::Signal(origin.signal)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(listening).map_err(refused)?;
    Ok(interruption)
}

/// Whether a terminal's key sent it: then the whole foreground group has it, the child among them, and a second one
/// would make many programs end without order.
fn went_to_the_group(origin: &Origin) -> bool {
    origin.cause == Cause::Kernel && [SIGINT, SIGQUIT, SIGWINCH].contains(&origin.signal)
}

/// The signals that this process ignores, as a mask; none where the kernel does not say.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
