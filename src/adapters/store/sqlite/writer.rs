//! The writer: one thread that owns the one writing connection and takes whatever waits as one transaction, without
//! lingering for more (reference: the throughput spike, part 2). It alone knows the tree; what it knows becomes true
//! only when COMMIT has returned.
//!
//! Other processes append to the same file by the same compare-and-swap (`secret set` while `serve` runs). A turn
//! begins with `PRAGMA data_version` inside its transaction; where another process committed since, head and sealed
//! records are read anew before any command runs.
//!
//! A turn that fails leaves nothing: everybody in it is told, and the next turn reads all state from the database.
//! While turns fail the writer tries by itself each second, so that service resumes when there is room again. A
//! failed fsync is the exception: what the disk then holds is unknown (see `files`), so this process never writes
//! again, and whoever runs it ends it.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Trouble,
    batch::{Batch, Step},
    files::{Files, checkpoint_if_due, count_frames, is_failed_fsync},
    head::{self, Committed, Head},
    keys::{self, LEDGER},
    schema::BUSY,
    secrets,
    standing::Standing,
};
use crate::{
    adapters::store::shared::{refusals::Rates, secrets::SealedMap},
    broker::{metrics::StoreMetrics, ports::StoreFault},
    kernel::{
        digest::Digest,
        ledger::checkpoint::{LogKey, VerifierKey},
        sealing::Keyring,
    },
};

/// Commands that may wait; one more is told that the queue is full.
pub(super) const QUEUE: usize = 4096;
/// Commands of one transaction.
const TURN: usize = 256;
/// How often an ailing writer tries by itself.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What the writer shares with those who only look.
pub(super) struct Shared {
    /// The sealed store.
    pub(super) sealed: ArcSwap<SealedMap>,
    /// Tokens that had their last denial. A lock and not a snapshot: it is changed a key at a time, and read once a
    /// request.
    pub(super) spent: RwLock<HashMap<Digest, Timestamp>>,
    /// What is counted.
    pub(super) metrics: StoreMetrics,
    /// How the writer is.
    pub(super) standing: Standing,
    /// The ledger's public key.
    pub(super) verifier: ArcSwap<VerifierKey>,
}

impl Shared {
    /// A writer that is well.
    pub(super) fn new(sealed: SealedMap, spent: HashMap<Digest, Timestamp>, verifier: VerifierKey) -> Self {
        Self {
            sealed: ArcSwap::from_pointee(sealed),
            spent: RwLock::new(spent),
            metrics: StoreMetrics::default(),
            standing: Standing::new(),
            verifier: ArcSwap::from_pointee(verifier),
        }
    }
}

/// What the writer signs with, and how it finds the key that comes after it.
pub(super) struct Signer {
    /// The ledger's key.
    pub(super) key: LogKey,
    /// Its version.
    pub(super) version: u64,
    /// What opens the next.
    pub(super) sealing: Keyring,
    /// The ledger's origin.
    pub(super) origin: String,
}

/// The writer's own state.
pub(super) struct Writer {
    conn: Connection,
    files: Files,
    signer: Signer,
    head: Head,
    rates: Rates,
    /// The `data_version` that `head` and the sealed records were read at; none where they must be read anew.
    seen: Option<i64>,
    shared: Arc<Shared>,
    /// Held as long as the writer lives: a second `serve` must not begin while this one still writes.
    _serving: Option<std::fs::File>,
}

impl Writer {
    /// A writer on that connection to those files.
    pub(super) fn new(
        (conn, files): (Connection, Files),
        signer: Signer,
        head: Head,
        shared: Arc<Shared>,
        serving: Option<std::fs::File>,
    ) -> Self {
        conn.wal_hook(Some(count_frames));
        shared.metrics.entries.set(head.frontier.size());
        Self { conn, files, signer, head, rates: Rates::default(), seen: None, shared, _serving: serving }
    }

    /// Takes turns until nobody can send any more, and the queue is empty.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Box<dyn Step>>, clock: &tokio::runtime::Runtime) {
        let mut steps: Vec<Box<dyn Step>> = Vec::with_capacity(TURN);
        loop {
            let standing = &self.shared.standing;
            let is_ailing = standing.ailment().is_some() && standing.death().is_none();
            let taken = if is_ailing {
                // The timer is made inside, since it belongs to the runtime that drives it.
                clock
                    .block_on(async {
                        tokio::time::timeout(PROBE_EVERY, queue.recv_many(&mut steps, TURN)).await
                    })
                    .ok()
            } else {
                Some(queue.blocking_recv_many(&mut steps, TURN))
            };
            if taken == Some(0) {
                break;
            }
            self.turn(&mut steps);
        }
        if self.shared.standing.death().is_some() {
            // Closed in order, SQLite would move the log into the database: writes on a disk that lost some already.
            std::mem::forget(self.conn);
        }
    }

    /// One turn: all or nothing. Without steps it is a probe.
    fn turn(&mut self, steps: &mut Vec<Box<dyn Step>>) {
        let shared = Arc::clone(&self.shared);
        let _turn = shared.standing.begin();
        let commands = steps.len();
        shared.metrics.waiting.add(-i64::try_from(commands).unwrap_or(0));
        let began = Instant::now();
        let outcome = match shared.standing.death() {
            Some(fault) => Err(fault),
            None => self.commit(steps).map(Arc::new).map_err(|trouble| self.ail(&trouble)),
        };
        if outcome.is_ok() {
            shared.metrics.commits.took(began.elapsed());
            shared.metrics.batches.observe(commands as u64);
            shared.metrics.entries.set(self.head.frontier.size());
            self.recover();
        } else {
            shared.metrics.failures.count();
        }
        for step in steps.drain(..) {
            step.answer(outcome.as_ref());
        }
    }

    /// Tries a second time where the head moved under the first: then state was read anew.
    fn commit(&mut self, steps: &mut [Box<dyn Step>]) -> Result<Committed, Trouble> {
        match self.try_commit(steps) {
            Err(Trouble::Moved) => self.try_commit(steps),
            outcome => outcome,
        }
    }

    fn try_commit(&mut self, steps: &mut [Box<dyn Step>]) -> Result<Committed, Trouble> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let outcome = self.fill(steps).and_then(|filled| {
            self.conn.prepare_cached("COMMIT")?.execute([])?;
            checkpoint_if_due(&self.conn)?;
            // Looked at behind the commit, so that nothing leaves which only this process can still read.
            if self.files.are_in_place() { Ok(filled) } else { Err(Trouble::Misplaced) }
        });
        match outcome {
            Ok(filled) => Ok(self.publish(filled)),
            Err(trouble) => {
                self.seen = None;
                // Some faults end the transaction by themselves; then there is nothing to roll back.
                if !self.conn.is_autocommit()
                    && let Err(fault) = self.conn.execute_batch("ROLLBACK")
                {
                    tracing::error!(%fault, "a ledger transaction could not be rolled back");
                }
                Err(trouble)
            }
        }
    }

    /// Runs the steps within the transaction and appends what they record.
    fn fill(&mut self, steps: &mut [Box<dyn Step>]) -> Result<Filled, Trouble> {
        if !self.files.are_in_place() {
            return Err(Trouble::Misplaced);
        }
        self.look_for_others()?;
        let generation = self.shared.sealed.load().generation;
        let mut batch = Batch {
            conn: &self.conn,
            rates: &mut self.rates,
            generation,
            sealed: Vec::new(),
            spent: Vec::new(),
            entries: Vec::new(),
            head: &self.head,
            signer: &self.signer,
            next_key: None,
        };
        if steps.is_empty() {
            probe(&self.conn)?;
        }
        for step in steps {
            step.run(&mut batch)?;
        }
        let Batch { entries, sealed, spent, generation, next_key, .. } = batch;
        let key = &self.signer.key;
        // The head behind a change of keys is signed by both, so that whoever knows one of them can go on from there.
        let sign = |size: u64, root: &Digest| match &next_key {
            Some((next, _)) => key.sign_with(next, size, root),
            None => key.sign(size, root),
        };
        let (head, committed) = head::append(&self.head, &self.conn, entries, &sign)?;
        let sealed = (!sealed.is_empty()).then(|| self.shared.sealed.load().changed(generation, sealed));
        Ok(Filled { head, committed, sealed, spent, next_key })
    }

    /// Reads head and sealed records anew, where another process may have changed them.
    fn look_for_others(&mut self) -> Result<(), Trouble> {
        let version: i64 =
            self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if self.seen != Some(version) {
            let head = head::load(&self.conn)?;
            // The database went back under us: another file in its place, or a restored backup. Appending would
            // fork the log that our receipts speak of.
            let (before, after) = (self.head.frontier.size(), head.frontier.size());
            if after < before || (after == before && head.root != self.head.root) {
                return Err(Trouble::Damaged("the ledger is not the one that this process wrote"));
            }
            self.head = head;
            self.look_for_key()?;
            self.shared.sealed.store(Arc::new(secrets::load(&self.conn)?));
            self.seen = Some(version);
        }
        Ok(())
    }

    fn sign_with(&mut self, key: LogKey, version: u64) {
        self.shared.verifier.store(Arc::new(key.verifier()));
        self.signer.key = key;
        self.signer.version = version;
    }

    /// Takes the ledger's newest key, where another process changed it: this turn's head must be signed with it.
    fn look_for_key(&mut self) -> Result<(), Trouble> {
        if keys::version(&self.conn, LEDGER)? == self.signer.version {
            return Ok(());
        }
        let (version, seed) = keys::open(&self.conn, &self.signer.sealing, LEDGER)?;
        let key = LogKey::from_seed(&self.signer.origin, &seed)
            .ok_or(Trouble::Damaged("the ledger key does not fit its origin"))?;
        tracing::info!(version, "the ledger's key was changed");
        self.sign_with(key, version);
        Ok(())
    }

    /// What became durable becomes true.
    fn publish(&mut self, filled: Filled) -> Committed {
        let Filled { head, committed, sealed, spent, next_key } = filled;
        self.head = head;
        if let Some((key, version)) = next_key {
            self.sign_with(key, version);
        }
        if let Some(sealed) = sealed {
            self.shared.sealed.store(Arc::new(sealed));
        }
        if !spent.is_empty() {
            self.shared.spent.write().unwrap_or_else(PoisonError::into_inner).extend(spent);
        }
        committed
    }

    fn ail(&self, trouble: &Trouble) -> StoreFault {
        let why = trouble.to_string();
        let standing = &self.shared.standing;
        if matches!(trouble, Trouble::Sqlite(fault) if is_failed_fsync(fault)) {
            tracing::error!(fault = %why, "the disk did not confirm a write; this process writes no more and ends");
            standing.die(&why);
        } else {
            if standing.ailment().is_none() {
                tracing::error!(fault = %why, "the ledger cannot be written");
            }
            standing.ail(&why);
            // Who asks while it is known to fail is told at once, and does not wait for the lock again.
            self.set_patience(Duration::ZERO);
        }
        StoreFault::Unavailable(why)
    }

    fn recover(&self) {
        if self.shared.standing.ailment().is_some() {
            tracing::info!("the ledger can be written again");
            self.shared.standing.recover();
            self.set_patience(BUSY);
        }
    }

    fn set_patience(&self, patience: Duration) {
        if let Err(fault) = self.conn.busy_timeout(patience) {
            tracing::error!(%fault, "the database's patience could not be set");
        }
    }
}

/// What a turn leaves when it is durable.
struct Filled {
    head: Head,
    committed: Committed,
    sealed: Option<SealedMap>,
    spent: Vec<(Digest, Timestamp)>,
    next_key: Option<(LogKey, u64)>,
}

/// Writes something that changes, since SQLite writes no page whose bytes stay the same.
fn probe(conn: &Connection) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO meta (name, value) VALUES ('probe', randomblob(16))
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?
    .execute([])?;
    Ok(())
}
