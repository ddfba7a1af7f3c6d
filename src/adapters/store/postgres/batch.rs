//! One turn of the writer: commands that run in one transaction, and what each is told when it is durable.
//!
//! Most are planned: they say what they must know, all of it is read in a few statements for the whole batch, each
//! decides in memory (seeing what those before it in the batch decided), and all changes are written in a few statements.
//! So a batch costs round trips, not a call. The rare ones run their own statements, before the others read anything.

use std::{ops::Range, sync::Arc};

use jiff::Timestamp;
use sqlx::PgConnection;
use tokio::sync::oneshot;

use super::{
    Trouble,
    changes::Changes,
    known::{Known, Needs},
    writer::Signer,
};
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        head::{Committed, Head},
        refusals::Rates,
    },
    broker::ports::{Answer, SealedSecret, StoreFault},
    kernel::{digest::Digest, ledger::checkpoint::LogKey, name::SecretName},
};

/// The state that commands of one batch see and change. It becomes true only when the transaction is durable.
pub(super) struct Batch<'a> {
    /// What was read for it, with the changes of the commands before.
    pub(super) known: Known,
    /// What is to be written.
    pub(super) changes: Changes,
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
    /// The head before them.
    pub(super) head: &'a Head,
    /// What signs the one behind them.
    pub(super) signer: &'a Signer,
    /// The ledger's key from the next batch on; that head is signed by both.
    pub(super) next_key: Option<LogKey>,
}

impl Batch<'_> {
    /// Puts entries into the ledger's line; answers their places in the batch.
    pub(super) fn append(&mut self, entries: &[Arc<Prepared>]) -> Range<usize> {
        let start = self.entries.len();
        self.entries.extend(entries.iter().map(Arc::clone));
        start..self.entries.len()
    }
}

/// A command that decides from what was read for the whole batch. One that is refused leaves nothing behind and aborts
/// no neighbour. It may be asked twice, where the connection was lost before the end.
pub(super) trait Planned: Send + 'static {
    /// What it found; told once the transaction is durable.
    type Found: Send + 'static;

    /// Says what it must know.
    fn needs(&self, needs: &mut Needs);

    /// Decides.
    fn decide(&self, batch: &mut Batch<'_>) -> Self::Found;
}

/// A command that runs statements of its own.
pub(super) trait Direct: Send + Sync + 'static {
    /// What it found; told once the transaction is durable.
    type Found: Send + 'static;

    /// Runs.
    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<Self::Found, Trouble>>;
}

/// What whoever sent a command is told.
pub(super) type Reply<F> = Result<(F, Arc<Committed>), StoreFault>;

/// A command of any type, as the writer's queue holds it.
pub(super) enum Step {
    /// With statements of its own.
    Direct(Box<dyn DirectStep>),
    /// With the batch's.
    Planned(Box<dyn PlannedStep>),
}

/// A planned command of any type.
pub(super) trait PlannedStep: Send {
    /// Says what it must know.
    fn needs(&self, needs: &mut Needs);

    /// Decides, and keeps what it found.
    fn decide(&mut self, batch: &mut Batch<'_>);

    /// Tells whoever sent it.
    fn answer(self: Box<Self>, outcome: Result<&Arc<Committed>, &StoreFault>);
}

/// A command with statements of its own, of any type.
pub(super) trait DirectStep: Send {
    /// Runs, and keeps what it found.
    fn run<'a>(
        &'a mut self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<(), Trouble>>;

    /// Tells whoever sent it.
    fn answer(self: Box<Self>, outcome: Result<&Arc<Committed>, &StoreFault>);
}

impl Step {
    /// A planned command, and where its answer is awaited.
    pub(super) fn planned<C: Planned>(command: C) -> (Self, oneshot::Receiver<Reply<C::Found>>) {
        let (reply, answered) = oneshot::channel();
        (Self::Planned(Box::new(Waiting { command, found: None, reply })), answered)
    }

    /// One with statements of its own, and where its answer is awaited.
    pub(super) fn direct<C: Direct>(command: C) -> (Self, oneshot::Receiver<Reply<C::Found>>) {
        let (reply, answered) = oneshot::channel();
        (Self::Direct(Box::new(Waiting { command, found: None, reply })), answered)
    }

    /// Tells whoever sent it.
    pub(super) fn answer(self, outcome: Result<&Arc<Committed>, &StoreFault>) {
        match self {
            Self::Direct(step) => step.answer(outcome),
            Self::Planned(step) => step.answer(outcome),
        }
    }
}

/// A command with its way back.
struct Waiting<C, F> {
    command: C,
    found: Option<F>,
    reply: oneshot::Sender<Reply<F>>,
}

impl<C, F> Waiting<C, F> {
    fn tell(self, outcome: Result<&Arc<Committed>, &StoreFault>) {
        let outcome = match (outcome, self.found) {
            (Ok(committed), Some(found)) => Ok((found, Arc::clone(committed))),
            (Ok(_), None) => Err(StoreFault::Unavailable("the command did not run".to_owned())),
            (Err(fault), _) => Err(fault.clone()),
        };
        // Whoever asked may be gone; what is durable stays so.
        drop(self.reply.send(outcome));
    }
}

impl<C: Planned> PlannedStep for Waiting<C, C::Found> {
    fn needs(&self, needs: &mut Needs) {
        self.command.needs(needs);
    }

    fn decide(&mut self, batch: &mut Batch<'_>) {
        self.found = Some(self.command.decide(batch));
    }

    fn answer(self: Box<Self>, outcome: Result<&Arc<Committed>, &StoreFault>) {
        self.tell(outcome);
    }
}

impl<C: Direct> DirectStep for Waiting<C, C::Found> {
    fn run<'a>(
        &'a mut self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<(), Trouble>> {
        Box::pin(async move {
            self.found = Some(self.command.run(conn, batch).await?);
            Ok(())
        })
    }

    fn answer(self: Box<Self>, outcome: Result<&Arc<Committed>, &StoreFault>) {
        self.tell(outcome);
    }
}

/// Appends entries and nothing else.
pub(super) struct Append(pub(super) Vec<Arc<Prepared>>);

impl Planned for Append {
    type Found = Range<usize>;

    fn needs(&self, _: &mut Needs) {}

    fn decide(&self, batch: &mut Batch<'_>) -> Self::Found {
        batch.append(&self.0)
    }
}
