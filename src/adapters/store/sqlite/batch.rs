//! One turn of the writer: commands that run in one transaction, and what each is told when it is durable.

use std::{ops::Range, sync::Arc};

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::writer::Signer;
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        head::{Committed, Head},
        refusals::Rates,
    },
    broker::ports::{SealedSecret, StoreFault},
    kernel::{digest::Digest, ledger::checkpoint::LogKey, name::SecretName},
};

/// The state that commands of one batch see and change. It becomes true only when the transaction is durable.
pub(super) struct Batch<'a> {
    /// The writer's connection, within its transaction.
    pub(super) conn: &'a Connection,
    /// Refusals of the last minute.
    pub(super) rates: &'a mut Rates,
    /// The generation of the sealed store, with the changes of this batch.
    pub(super) generation: u64,
    /// Changes to the sealed store.
    pub(super) sealed: Vec<(SecretName, Option<Arc<SealedSecret>>)>,
    /// Tokens that had their last denial.
    pub(super) spent: Vec<(Digest, Timestamp)>,
    /// Entries to be appended.
    pub(super) entries: Vec<Arc<Prepared>>,
    /// The head before this batch.
    pub(super) head: &'a Head,
    /// What signed it.
    pub(super) signer: &'a Signer,
    /// The ledger's key from now on, where this batch changes it, and its version.
    pub(super) next_key: Option<(LogKey, u64)>,
}

impl Batch<'_> {
    /// Puts entries into the ledger's line; answers their places in the batch.
    pub(super) fn append(&mut self, entries: &[Arc<Prepared>]) -> Range<usize> {
        let start = self.entries.len();
        self.entries.extend(entries.iter().map(Arc::clone));
        start..self.entries.len()
    }
}

/// What a command does within the batch's transaction. Verdicts are found by reading before anything is written, so
/// that a command which is refused leaves nothing behind and aborts no neighbour; only the database's own fault ends
/// the batch for all. It may run twice, where the head moved.
pub(super) trait Command: Send + 'static {
    /// What it found; told once the transaction is durable.
    type Found: Send + 'static;

    /// Runs.
    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Self::Found>;
}

/// What whoever sent a command is told.
pub(super) type Reply<C> = Result<(<C as Command>::Found, Arc<Committed>), StoreFault>;

/// A command of any type, as the writer's queue holds it.
pub(super) trait Step: Send {
    /// Runs the command and keeps what it found.
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()>;

    /// Tells whoever sent it.
    fn answer(self: Box<Self>, outcome: Result<&Arc<Committed>, &StoreFault>);
}

/// A command with its way back.
pub(super) struct Waiting<C: Command> {
    command: C,
    found: Option<C::Found>,
    reply: oneshot::Sender<Reply<C>>,
}

impl<C: Command> Waiting<C> {
    /// A command and where its answer is awaited.
    pub(super) fn new(command: C) -> (Box<Self>, oneshot::Receiver<Reply<C>>) {
        let (reply, answered) = oneshot::channel();
        (Box::new(Self { command, found: None, reply }), answered)
    }
}

impl<C: Command> Step for Waiting<C> {
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        self.found = Some(self.command.run(batch)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<&Arc<Committed>, &StoreFault>) {
        let outcome = match (outcome, self.found) {
            (Ok(committed), Some(found)) => Ok((found, Arc::clone(committed))),
            (Ok(_), None) => Err(StoreFault::Unavailable("the command did not run".to_owned())),
            (Err(fault), _) => Err(fault.clone()),
        };
        // Whoever asked may be gone; what is durable stays so.
        drop(self.reply.send(outcome));
    }
}

/// Appends entries and nothing else.
pub(super) struct Append(pub(super) Vec<Arc<Prepared>>);

impl Command for Append {
    type Found = Range<usize>;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Self::Found> {
        Ok(batch.append(&self.0))
    }
}
