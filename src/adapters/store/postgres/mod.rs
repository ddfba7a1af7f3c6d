//! The store on PostgreSQL: any number of brokers on one database, one writing connection and a few reading ones each.
//! What is answered is durable on the server; no other service coordinates the brokers.
//!
//! The rooms: `place` is the way to the server, `create` makes a schema, `open` opens a store, `writer` takes turns, `batch`
//! says what a turn is, `known` and `changes` are what it reads and writes for all its commands, `issue`, `refuse`,
//! `secrets` and `policy` are the commands, `tree` is the ledger's head and proofs, `reader` and `query` read. It never
//! makes state that is missing, and it never sees a secret but in `secrets`, which seals it.
//!
//! Source: <https://www.postgresql.org/docs/15/transaction-iso.html>,
//! <https://www.postgresql.org/docs/15/explicit-locking.html> (November 2026).

mod assertions;
mod batch;
mod changes;
mod copy;
mod create;
mod engine;
mod freeze;
mod issue;
mod known;
mod looked;
mod open;
mod place;
mod policy;
mod publication;
mod query;
mod reader;
mod refuse;
mod replicas;
mod rewrap;
mod rotation;
mod schema;
mod secrets;
#[cfg(test)]
mod tests;
mod transit;
mod tree;
mod writer;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use sqlx::PgPool;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use self::{
    batch::{Append, Direct, Planned, Reply, Step},
    engine::Engine,
    freeze::{Complete, Impose, Thaw},
    issue::{IssueFound, IssueStep},
    known::{Known, Needs},
    policy::Accept,
    reader::Patience,
    refuse::{Refuse, SetApart, Sweep},
    replicas::{Leave, Post, Tell},
    transit::TakeDue,
    writer::Shared,
};
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        publication::tile as tile_of,
        secrets::read_only,
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
        sealing::{Keyring, SealingKey},
        wiping::Zeroizing,
    },
};

pub use self::{
    copy::ServerCopyFault,
    create::{CreateFault, Roles},
    open::OpenFault,
    place::{PasswordFault, Place, PlaceFault},
};

/// An open store.
pub struct Postgres {
    /// The way to the writer; none where the store is closed or was opened for reading. A lock and not a cell,
    /// because `close` takes it away while others send.
    queue: RwLock<Option<mpsc::Sender<Step>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
    pool: PgPool,
    engine: Engine,
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
    /// This machine's clock is off the database's.
    #[error("the clock of this machine is {0} s off the database's")]
    Clock(i64),
    /// It does not hold together.
    #[error("the database is damaged: {0}")]
    Damaged(&'static str),
    /// Another broker changed the head under us.
    #[error("another broker kept changing the ledger")]
    Moved,
    /// It is not the ledger that was seen.
    #[error(
        "the ledger is not the one that was seen: that had {seen} entries, this has {found} and does not contain it"
    )]
    SetBack {
        /// The size that was seen.
        seen: u64,
        /// The size that is there.
        found: u64,
    },
    /// It did not answer within the deadline.
    #[error("the database does not answer in time")]
    Slow,
    /// PostgreSQL, or the way there.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// Nobody knows whether it was committed.
    #[error("the answer to a commit was lost: {0}")]
    Uncertain(#[source] sqlx::Error),
}

impl Trouble {
    /// Whether the connection was gone before anything was committed on it.
    fn is_lost_connection(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => true,
            // admin_shutdown, crash_shutdown, idle_in_transaction_session_timeout, idle_session_timeout
            Self::Sql(sqlx::Error::Database(fault)) => {
                fault.code().is_some_and(|code| ["57P01", "57P02", "25P03", "57P05"].contains(&&*code))
            }
            Self::Clock(_)
            | Self::Damaged(_)
            | Self::Moved
            | Self::SetBack { .. }
            | Self::Slow
            | Self::Sql(_)
            | Self::Uncertain(_) => false,
        }
    }
}

impl Postgres {
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

    /// The sealing keys; none where the store was opened without them.
    pub fn keyring(&self) -> Option<&Keyring> {
        self.keys.as_ref().map(|keys| &keys.sealing)
    }

    /// Waits until the database turns out not to be the one that was seen: the size that was seen, and the one found.
    pub async fn set_back(&self) -> (u64, u64) {
        self.shared.set_back().await
    }

    /// The key that the store is sealed with, of those at hand. Another one may not be known to every process yet.
    async fn sealing_key(&self) -> Result<Arc<SealingKey>, StoreFault> {
        let keyring = self.keyring().ok_or_else(read_only)?;
        let missing =
            || StoreFault::Unavailable("the database is sealed with a key that is not at hand".to_owned());
        keyring.of(&self.sealed_with().await?.0).ok_or_else(missing)
    }

    /// Takes no more commands, lets the writer end what waits, and closes the connections. Asking again does nothing.
    pub async fn close(&self) {
        drop(self.queue.write().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && !matches!(tokio::time::timeout(CLOSE_DEADLINE, writer).await, Ok(Ok(())))
        {
            tracing::error!("the ledger's writer did not end in order");
        }
        // A reader that is still at work holds nothing that matters.
        drop(tokio::time::timeout(CLOSE_DEADLINE, self.pool.close()).await);
    }

    /// Sends a command to the writer; answers when it is durable.
    async fn submit<C: Planned>(&self, command: C) -> Reply<C::Found> {
        self.answered(Step::planned(command)).await
    }

    /// The same for one with statements of its own.
    async fn submit_direct<C: Direct>(&self, command: C) -> Reply<C::Found> {
        self.answered(Step::direct(command)).await
    }

    async fn answered<F>(&self, (step, answered): (Step, oneshot::Receiver<Reply<F>>)) -> Reply<F> {
        self.send(step)?;
        answered.await.map_err(|_| closed())?
    }

    fn send(&self, step: Step) -> Result<(), StoreFault> {
        // Who asks while it is known to fail is told at once; the writer looks by itself.
        if let Some(fault) = self.shared.ailing() {
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

/// Makes an entry ready. PostgreSQL's texts hold every character but one; an entry whose columns have it would break
/// the batch, so it breaks only the caller's own call.
fn prepare(entry: Entry) -> Result<Arc<Prepared>, StoreFault> {
    let prepared = Prepared::new(entry)?;
    let personal = prepared.entry.personal.iter().flat_map(|(field, _, value)| [field, value]);
    let texts = personal.chain(&prepared.entry.issuer).chain(&prepared.grants);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(StoreFault::Unavailable("an entry holds a character that no text may have".to_owned()));
    }
    Ok(prepared)
}

fn prepare_all(entries: Vec<Entry>) -> Result<Vec<Arc<Prepared>>, StoreFault> {
    entries.into_iter().map(prepare).collect()
}

impl Store for Postgres {
    fn append(&self, entries: Vec<Entry>) -> Answer<'_, Result<Vec<Receipt>, StoreFault>> {
        Box::pin(async move {
            let (places, committed) = self.submit(Append(prepare_all(entries)?)).await?;
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
        Box::pin(self.read(Patience::Short, move |conn| {
            Box::pin(async move {
                let mut needs = Needs::default();
                needs.claims(&claims, now);
                let known = Known::load(conn, needs).await?;
                Ok(issue::plan(&known, &claims, now).map(drop))
            })
        }))
    }

    fn issue(&self, mut issue: Issue) -> Answer<'_, Result<IssueVerdict, StoreFault>> {
        Box::pin(async move {
            let entries = prepare_all(std::mem::take(&mut issue.entries))?;
            let (found, committed) = self.submit(IssueStep::new(issue, entries)).await?;
            Ok(match found {
                IssueFound::Moved => IssueVerdict::Moved,
                IssueFound::Recorded(places) => IssueVerdict::Recorded(committed.receipts(places)),
                IssueFound::Refused(refused) => IssueVerdict::Refused(refused),
            })
        })
    }

    fn transit(&self, transit: Transit) -> Answer<'_, Result<Transited, StoreFault>> {
        Box::pin(async move {
            let (found, committed) = self.submit_direct(Steps::new(transit, prepare)?).await?;
            let TransitFound { moved, places, has_left, is_stale } = found;
            Ok(Transited { moved, receipts: committed.receipts(places), has_left, is_stale })
        })
    }

    fn abandoned(&self, now: Timestamp, limit: u32) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>> {
        Box::pin(self.read(Patience::Short, move |conn| {
            Box::pin(async move { transit::abandoned(conn, now, limit).await })
        }))
    }

    fn due(&self, now: Timestamp, limit: u32) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>> {
        Box::pin(async move {
            // Mostly there is nothing, and then nobody waits for the head's lock.
            let one = self
                .read(Patience::Short, move |conn| Box::pin(async move { transit::due(conn, now, 1).await }));
            if one.await?.is_empty() {
                return Ok(Vec::new());
            }
            Ok(self.submit_direct(TakeDue { now, limit }).await?.0)
        })
    }

    fn issuances(
        &self,
        selection: Selection,
        past: Option<IssuanceId>,
        limit: u32,
    ) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>> {
        Box::pin(self.read(Patience::Long, move |conn| {
            Box::pin(async move { transit::select(conn, &selection, past, limit).await })
        }))
    }

    fn frozen(&self, subject: Freezable) -> Answer<'_, Result<Vec<FreezeScope>, StoreFault>> {
        Box::pin(self.read(Patience::Short, move |conn| {
            Box::pin(async move { Ok(freeze::Standing::load(conn).await?.holding(&subject)) })
        }))
    }

    fn freeze(&self, freeze: Freeze, entry: Entry) -> Answer<'_, Result<Option<Freeze>, StoreFault>> {
        Box::pin(async move {
            let entry = prepare(entry)?;
            Ok(self.submit_direct(Impose { freeze, entry }).await?.0)
        })
    }

    fn thaw(&self, scope: FreezeScope, entry: Entry) -> Answer<'_, Result<bool, StoreFault>> {
        Box::pin(async move {
            let entry = prepare(entry)?;
            Ok(self.submit_direct(Thaw { scope, entry }).await?.0)
        })
    }

    fn complete_freeze(
        &self,
        scope: FreezeScope,
        thumbprints: Vec<Digest>,
        entry: Entry,
    ) -> Answer<'_, Result<bool, StoreFault>> {
        Box::pin(async move {
            let entry = prepare(entry)?;
            Ok(self.submit_direct(Complete { scope, thumbprints, entry }).await?.0)
        })
    }

    fn freezes(&self) -> Answer<'_, Result<Vec<Freeze>, StoreFault>> {
        Box::pin(self.read(Patience::Long, |conn| Box::pin(freeze::all(conn))))
    }

    fn beat(&self, beat: Beat) -> Answer<'_, Result<Option<Skew>, StoreFault>> {
        let sealing = self.keyring().map(Keyring::checks);
        Box::pin(async move { Ok(self.submit_direct(Post { beat, sealing }).await?.0) })
    }

    fn tell_skew(&self, since: Timestamp, entry: Entry) -> Answer<'_, Result<bool, StoreFault>> {
        Box::pin(async move {
            let entry = prepare(entry)?;
            Ok(self.submit_direct(Tell { since, entry }).await?.0)
        })
    }

    fn leave(&self, replica: ReplicaId) -> Answer<'_, Result<(), StoreFault>> {
        Box::pin(async move {
            self.submit_direct(Leave(replica)).await?;
            Ok(())
        })
    }

    fn load_policy(&self, load: PolicyLoad) -> Answer<'_, Result<PolicyVerdict, StoreFault>> {
        Box::pin(async move {
            let (verdict, _) = self.submit_direct(Accept::new(load)?).await?;
            Ok(verdict)
        })
    }

    fn issuance(&self, id: IssuanceId) -> Answer<'_, Result<Option<IssuanceRow>, StoreFault>> {
        Box::pin(self.read(Patience::Short, move |conn| Box::pin(reader::issuance(conn, id))))
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
            let (apart, _) = self.submit_direct(SetApart).await?;
            let mut closed = Vec::with_capacity(apart.len());
            for (key, summary) in apart {
                // A row whose entry cannot be made now stays for the next sweep.
                if let Some(entry) = seal(summary) {
                    closed.push((key, prepare(entry)?));
                }
            }
            self.submit_direct(Sweep { closed, now }).await?;
            self.shared.spent.write().unwrap_or_else(PoisonError::into_inner).retain(|_, until| now < *until);
            Ok(())
        })
    }

    fn entries(&self, query: EntryQuery) -> Answer<'_, Result<Vec<StoredEntry>, StoreFault>> {
        Box::pin(
            self.read(Patience::Long, move |conn| {
                Box::pin(async move { reader::entries(conn, &query).await })
            }),
        )
    }

    fn entry(&self, index: u64) -> Answer<'_, Result<Option<StoredEntry>, StoreFault>> {
        Box::pin(self.read(Patience::Long, move |conn| Box::pin(reader::entry(conn, index))))
    }

    fn proof(&self, index: u64) -> Answer<'_, Result<Option<String>, StoreFault>> {
        Box::pin(self.read(Patience::Long, move |conn| Box::pin(reader::proof(conn, index))))
    }

    fn checkpoint(&self) -> Answer<'_, Result<String, StoreFault>> {
        Box::pin(self.read(Patience::Short, |conn| Box::pin(reader::checkpoint(conn))))
    }

    fn tile(&self, tile: Tile) -> Answer<'_, Result<Option<Vec<u8>>, StoreFault>> {
        let (from, width) = (tile.range().0, u32::try_from(tile.width).unwrap_or(u32::MAX));
        Box::pin(tile_of(self, tile, self.ledger_rows(from, width)))
    }

    fn expose(&self, to: &mut Exposition) {
        self.shared.metrics.expose(to);
    }

    fn health(&self) -> Result<(), StoreFault> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        match (&*queue, self.shared.ailing()) {
            (Some(queue), None) if !queue.is_closed() => Ok(()),
            (Some(_), Some(fault)) => Err(fault),
            (Some(_) | None, _) => Err(closed()),
        }
    }
}

/// How long what waits may take at the end.
const CLOSE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(2);
