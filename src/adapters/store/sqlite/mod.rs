//! The store on SQLite: one file, one writing thread a process, a few readers. WAL with `synchronous=FULL`; whatever
//! is answered is on the disk.
//!
//! The rooms: `create` makes a file, `open` opens one, `writer` takes turns, `batch` says what a turn is, `issue` (with
//! `freeze`, `claims` and `quota`), `transit`, `refuse`, `secrets` and `policy` are the commands of a turn, `head`
//! appends to the ledger, `reader` and `query` read, `files` looks after the files on their disk, `standing` tells how
//! the writer is. It never makes state that is missing, and it never sees a secret but in `secrets`, which seals it.
//!
//! Source: <https://www.sqlite.org/wal.html>, <https://www.sqlite.org/pragma.html> (SQLite 3.51, November 2026).

mod assertions;
mod backup;
mod batch;
mod begins;
mod claims;
mod create;
mod files;
mod freeze;
mod head;
mod issue;
mod keys;
mod looked;
mod open;
mod policy;
mod publication;
mod query;
mod quota;
mod reader;
mod refuse;
mod rename;
mod replicas;
mod rotation;
mod schema;
mod secrets;
mod standing;
mod transit;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
};

use jiff::Timestamp;
use tokio::sync::mpsc;

use self::{
    batch::{Append, Command, Step, Waiting},
    freeze::{Complete, Impose, Thaw},
    head::Committed,
    issue::{IssueFound, IssueStep},
    policy::Accept,
    reader::Readers,
    refuse::{Refuse, SetApart, Sweep},
    replicas::{Leave, Post, Tell},
    transit::TakeDue,
    writer::Shared,
};
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        publication::tile as tile_of,
        transit::{Steps, TransitFound},
    },
    broker::metrics::Exposition,
    broker::ports::{
        Answer, Beat, ClaimRefused, Claims, EntryQuery, IssuanceRow, Issue, IssueVerdict, PolicyLoad,
        PolicyVerdict, Receipt, Refusal, Selection, Skew, Store, StoreFault, StoredEntry, Summary, Transit,
        Transited,
    },
    kernel::{
        digest::Digest,
        freeze::{Freezable, Freeze, FreezeScope},
        id::{IssuanceId, ReplicaId},
        ledger::{checkpoint::VerifierKey, entry::Entry, tiles::Tile},
        sealing::Keyring,
        wiping::Zeroizing,
    },
};

pub(in crate::adapters::store) use self::backup::{begin_copy, end_copy, read_copy};
pub use self::{
    backup::CopyFault,
    create::{CreateFault, Genesis},
    looked::LedgerRow,
    open::{OpenFault, Options},
    policy::{AcceptedPolicy, LettingIn, PolicyStanding},
    secrets::{Change, SecretFault, SecretListing},
};

/// An open store.
pub struct Sqlite {
    /// The way to the writer; none where the store is closed or was opened for reading. A lock and not a cell,
    /// because `close` takes it away while others send.
    queue: RwLock<Option<mpsc::Sender<Box<dyn Step>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    origin: String,
    keys: Option<Keys>,
}

/// What the sealing key opened.
struct Keys {
    sealing: Keyring,
    pseudonym: Zeroizing<[u8; 32]>,
}

/// What can go wrong with the database, as this room tells it apart.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// It does not hold together.
    #[error("the database is damaged: {0}")]
    Damaged(&'static str),
    /// The files that are open are not those at their paths any more.
    #[error(
        "the database or its log was deleted or replaced under the running process; put it back, or start anew on what \
         is there"
    )]
    Misplaced,
    /// Another process changed the head under us.
    #[error("another process kept changing the ledger")]
    Moved,
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl Sqlite {
    /// The ledger's origin.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The ledger's public key.
    pub fn verifier_key(&self) -> VerifierKey {
        (**self.shared.verifier.load()).clone()
    }

    /// The key of pseudonyms; none where the store was opened without the sealing key.
    pub fn pseudonym_key(&self) -> Option<&[u8; 32]> {
        self.keys.as_ref().map(|keys| &*keys.pseudonym)
    }

    /// The sealing keys; none where the store was opened without.
    pub fn keyring(&self) -> Option<&Keyring> {
        self.keys.as_ref().map(|keys| &keys.sealing)
    }

    /// Takes no more commands, lets the writer end what waits, and closes the file. Asking again does nothing.
    pub async fn close(&self) {
        self.readers.close();
        drop(self.queue.write().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let ended = tokio::task::spawn_blocking(move || writer.join().is_ok()).await;
            if !matches!(ended, Ok(true)) {
                tracing::error!("the ledger's writer did not end in order");
            }
        }
    }

    /// Ends when a write was not confirmed by the disk: whoever runs this process ends it, and starts anew.
    pub async fn died(&self) {
        self.shared.standing.died().await;
    }

    /// Sends a command to the writer; answers when it is durable, or when the disk does not answer. Then it may become
    /// durable yet.
    async fn submit<C: Command>(&self, command: C) -> Result<(C::Found, Arc<Committed>), StoreFault> {
        tokio::select! {
            biased;
            answer = self.submit_and_wait(command) => answer,
            fault = self.shared.standing.delayed() => Err(fault),
        }
    }

    /// The same without an end of its patience: for what the caller must know, however late.
    async fn submit_and_wait<C: Command>(
        &self,
        command: C,
    ) -> Result<(C::Found, Arc<Committed>), StoreFault> {
        let (step, answered) = Waiting::new(command);
        self.send(step)?;
        answered.await.map_err(|_| closed())?
    }

    fn send(&self, step: Box<dyn Step>) -> Result<(), StoreFault> {
        if let Some(fault) = self.shared.standing.delay() {
            return Err(fault);
        }
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let waiting = &self.shared.metrics.waiting;
        // Before it is sent: the writer may have taken it by the time that `try_send` returns.
        waiting.add(1);
        let sent = queue.as_ref().ok_or_else(closed).and_then(|queue| {
            queue.try_send(step).map_err(|fault| match fault {
                mpsc::error::TrySendError::Full(_) => StoreFault::Overloaded,
                mpsc::error::TrySendError::Closed(_) => closed(),
            })
        });
        sent.inspect_err(|_| waiting.add(-1))
    }
}

fn closed() -> StoreFault {
    StoreFault::Unavailable("the store is closed, or was opened for reading".to_owned())
}

impl Store for Sqlite {
    fn append(&self, entries: Vec<Entry>) -> Answer<'_, Result<Vec<Receipt>, StoreFault>> {
        Box::pin(async move {
            let (places, committed) = self.submit(Append(Prepared::all(entries)?)).await?;
            Ok(committed.receipts(places))
        })
    }

    fn refuse(&self, refusal: Refusal) -> Answer<'_, Result<(), StoreFault>> {
        Box::pin(async move {
            self.submit(Refuse::new(refusal)?).await?;
            Ok(())
        })
    }

    fn foresee(
        &self,
        claims: Claims,
        now: Timestamp,
    ) -> Answer<'_, Result<Result<(), ClaimRefused>, StoreFault>> {
        Box::pin(self.read(move |conn| Ok::<_, Trouble>(claims::plan(conn, &claims, now)?.map(drop))))
    }

    fn issue(&self, mut issue: Issue) -> Answer<'_, Result<IssueVerdict, StoreFault>> {
        Box::pin(async move {
            let entries = Prepared::all(std::mem::take(&mut issue.entries))?;
            let (found, committed) = self.submit_and_wait(IssueStep { issue, entries }).await?;
            Ok(match found {
                IssueFound::Moved => IssueVerdict::Moved,
                IssueFound::Recorded(places) => IssueVerdict::Recorded(committed.receipts(places)),
                IssueFound::Refused(refused) => IssueVerdict::Refused(refused),
            })
        })
    }

    fn transit(&self, transit: Transit) -> Answer<'_, Result<Transited, StoreFault>> {
        Box::pin(async move {
            let steps = Steps::new(transit, Prepared::new)?;
            // Steps that stand or fall together are an exchange's own: it must know what became of them.
            let (found, committed) =
                if steps.together { self.submit_and_wait(steps).await? } else { self.submit(steps).await? };
            let TransitFound { moved, places, has_left, is_stale } = found;
            Ok(Transited { moved, receipts: committed.receipts(places), has_left, is_stale })
        })
    }

    fn abandoned(&self, now: Timestamp, limit: u32) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>> {
        Box::pin(self.read(move |conn| transit::abandoned(conn, now, limit)))
    }

    fn due(&self, now: Timestamp, limit: u32) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>> {
        Box::pin(async move {
            // Mostly there is nothing, and then nothing is written.
            if self.read(move |conn| transit::due(conn, now, 1)).await?.is_empty() {
                return Ok(Vec::new());
            }
            Ok(self.submit(TakeDue { now, limit }).await?.0)
        })
    }

    fn issuances(
        &self,
        selection: Selection,
        past: Option<IssuanceId>,
        limit: u32,
    ) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>> {
        Box::pin(self.read(move |conn| transit::select(conn, &selection, past, limit)))
    }

    fn frozen(&self, subject: Freezable) -> Answer<'_, Result<Vec<FreezeScope>, StoreFault>> {
        Box::pin(self.read(move |conn| freeze::holding(conn, &subject)))
    }

    fn freeze(&self, freeze: Freeze, entry: Entry) -> Answer<'_, Result<Option<Freeze>, StoreFault>> {
        Box::pin(async move {
            let entry = Prepared::new(entry)?;
            Ok(self.submit(Impose { freeze, entry }).await?.0)
        })
    }

    fn thaw(&self, scope: FreezeScope, entry: Entry) -> Answer<'_, Result<bool, StoreFault>> {
        Box::pin(async move {
            let entry = Prepared::new(entry)?;
            Ok(self.submit(Thaw { scope, entry }).await?.0)
        })
    }

    fn complete_freeze(
        &self,
        scope: FreezeScope,
        thumbprints: Vec<Digest>,
        entry: Entry,
    ) -> Answer<'_, Result<bool, StoreFault>> {
        Box::pin(async move {
            let entry = Prepared::new(entry)?;
            Ok(self.submit(Complete { scope, thumbprints, entry }).await?.0)
        })
    }

    fn freezes(&self) -> Answer<'_, Result<Vec<Freeze>, StoreFault>> {
        Box::pin(self.read(freeze::all))
    }

    fn beat(&self, beat: Beat) -> Answer<'_, Result<Option<Skew>, StoreFault>> {
        Box::pin(async move { Ok(self.submit(Post(beat)).await?.0) })
    }

    fn tell_skew(&self, since: Timestamp, entry: Entry) -> Answer<'_, Result<bool, StoreFault>> {
        Box::pin(async move {
            let entry = Prepared::new(entry)?;
            Ok(self.submit(Tell { since, entry }).await?.0)
        })
    }

    fn leave(&self, replica: ReplicaId) -> Answer<'_, Result<(), StoreFault>> {
        Box::pin(async move {
            self.submit(Leave(replica)).await?;
            Ok(())
        })
    }

    fn load_policy(&self, load: PolicyLoad) -> Answer<'_, Result<PolicyVerdict, StoreFault>> {
        Box::pin(async move {
            let (verdict, _) = self.submit(Accept::new(load)?).await?;
            Ok(verdict)
        })
    }

    fn issuance(&self, id: IssuanceId) -> Answer<'_, Result<Option<IssuanceRow>, StoreFault>> {
        Box::pin(self.read(move |conn| reader::issuance(conn, id)))
    }

    fn is_spent(&self, token: &Digest, now: Timestamp) -> bool {
        let spent = self.shared.spent.read().unwrap_or_else(PoisonError::into_inner);
        spent.get(token).is_some_and(|until| now < *until)
    }

    fn sweep<'a>(
        &'a self,
        now: Timestamp,
        seal: &'a (dyn Fn(Summary) -> Option<Entry> + Send + Sync),
    ) -> Answer<'a, Result<(), StoreFault>> {
        Box::pin(async move {
            let (apart, _) = self.submit(SetApart).await?;
            let mut closed = Vec::with_capacity(apart.len());
            for (key, summary) in apart {
                // A row whose entry cannot be made now stays for the next sweep.
                if let Some(entry) = seal(summary) {
                    closed.push((key, Prepared::new(entry)?));
                }
            }
            self.submit(Sweep { closed, now }).await?;
            self.shared.spent.write().unwrap_or_else(PoisonError::into_inner).retain(|_, until| now < *until);
            Ok(())
        })
    }

    fn entries(&self, query: EntryQuery) -> Answer<'_, Result<Vec<StoredEntry>, StoreFault>> {
        Box::pin(self.read(move |conn| reader::entries(conn, &query)))
    }

    fn entry(&self, index: u64) -> Answer<'_, Result<Option<StoredEntry>, StoreFault>> {
        Box::pin(self.read(move |conn| reader::entry(conn, index)))
    }

    fn proof(&self, index: u64) -> Answer<'_, Result<Option<String>, StoreFault>> {
        Box::pin(self.read(move |conn| reader::proof(conn, index)))
    }

    fn checkpoint(&self) -> Answer<'_, Result<String, StoreFault>> {
        Box::pin(self.read(reader::checkpoint))
    }

    fn tile(&self, tile: Tile) -> Answer<'_, Result<Option<Vec<u8>>, StoreFault>> {
        let (from, width) = (tile.range().0, u32::try_from(tile.width).unwrap_or(u32::MAX));
        Box::pin(tile_of(self, tile, self.ledger_rows(from, width)))
    }

    fn health(&self) -> Result<(), StoreFault> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        match &*queue {
            Some(queue) if !queue.is_closed() => self.shared.standing.health(),
            Some(_) | None => Err(closed()),
        }
    }

    fn expose(&self, to: &mut Exposition) {
        self.shared.metrics.expose(to);
    }
}
