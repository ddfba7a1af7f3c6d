//! Carries a child's output to ours, masked.
//!
//! A pipe ends when its last writer closes it, and that may be a grandchild that outlives the command. Once the command
//! has ended, what it wrote is carried to the last byte, and nobody is waited for much longer.

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};

use super::masks::{Masker, Masks};

/// A stream on its way, in a thread of its own.
pub(super) struct Relay {
    thread: JoinHandle<()>,
    /// Closed when the child has ended.
    running: Option<PipeWriter>,
}

/// For how long a pipe is read that somebody holds open after the child's end.
const GRACE: Duration = Duration::from_millis(500);
/// What is read after that, if it is there already: the greatest pipe (`/proc/sys/fs/pipe-max-size`).
const LEFT_BYTES: usize = 1024 * 1024;
/// One read: a pipe's usual size.
const PIECE_BYTES: usize = 64 * 1024;

impl Relay {
    /// Starts to carry `from` to `to`.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn start(from: PipeReader, to: File, masks: Arc<ArcSwap<Masks>>) -> io::Result<Self> {
        fcntl_setfl(&from, fcntl_getfl(&from)? | OFlags::NONBLOCK)?;
        let (ended, running) = io::pipe()?;
        let thread = thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || carry(from, &to, &ended, &masks))?;
        Ok(Self { thread, running: Some(running) })
    }

    /// Says that the child has ended.
    pub(super) fn child_ended(&mut self) {
        self.running = None;
    }

    /// Waits until everything is written.
    pub(super) fn end(self) {
        drop(self.running);
        // A panic was told already, by its own message.
        self.thread.join().ok();
    }

    /// The same for so long at most: where our own reader stands still, too.
    pub(super) fn end_within(self, bound: Duration) {
        drop(self.running);
        let late = Instant::now() + bound;
        while !self.thread.is_finished() && Instant::now() < late {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn carry(mut from: PipeReader, to: &File, ended: &PipeReader, masks: &ArcSwap<Masks>) {
    let mut masker = Masker::default();
    let mut piece = vec![0; PIECE_BYTES];
    let mut out = Vec::with_capacity(PIECE_BYTES);
    let mut late: Option<Instant> = None;
    let mut left = LEFT_BYTES;
    loop {
        if late.is_none() && is_closed(&from, ended) {
            late = Some(Instant::now() + GRACE);
        }
        match from.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => {
                masker.push(&masks.load(), piece.get(..length).unwrap_or_default(), &mut out);
                // Nobody reads any more: closing the pipe tells the child so, as it would have been told without us.
                if write(to, &out).is_err() {
                    return;
                }
                out.clear();
                if late.is_some_and(|late| Instant::now() >= late) {
                    left = left.saturating_sub(length);
                    if left == 0 {
                        break;
                    }
                }
            }
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => match late {
                None => {}
                Some(late) if Instant::now() >= late => break,
                Some(late) => wait(from.as_fd(), PollFlags::IN, Some(late)),
            },
            Err(_) => break,
        }
    }
    masker.finish(&masks.load(), &mut out);
    // Where nobody reads any more, nothing is owed.
    write(to, &out).ok();
}

/// Waits until there is output or the child has ended; whether it has.
fn is_closed(from: &PipeReader, ended: &PipeReader) -> bool {
    let mut both = [PollFd::new(from, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    // An interrupted wait is begun again by the caller.
    poll(&mut both, None).is_ok() && both.last().is_some_and(|ended| !ended.revents().is_empty())
}

fn wait(what: BorrowedFd<'_>, event: PollFlags, until: Option<Instant>) {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let left = left.map(|left| Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    match poll(&mut [PollFd::new(&what, event)], left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        // Nothing to wait for; the next read or write says what is wrong.
        Err(_) => thread::yield_now(),
    }
}

/// Writes everything, also where somebody made our output non-blocking: it is shared with whoever gave it to us.
fn write(mut to: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => wait(to.as_fd(), PollFlags::OUT, None),
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}
