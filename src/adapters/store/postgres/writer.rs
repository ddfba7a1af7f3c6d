//! The writer: one task that owns the one writing connection and takes whatever waits as one transaction, without
//! lingering for more. Any number of brokers append to one log: each turn locks the head's row, goes on from the head that
//! it finds there, and changes it by compare-and-swap.
//!
//! A head that is not the one this broker left is another broker's work, or another history: the broker proves that it
//! contains all that was there before, and otherwise writes nothing (ALERT_ROLLBACK: a standby that lagged, a backup).
//! The same look finds secrets and spent tokens that others changed. It is taken every second, also when nothing is to be
//! written, and after each new connection.
//!
//! A turn ends within its deadline or leaves nothing: its connection is given up, everybody in it is told, and who comes
//! while the database is known to be gone is told at once. The next look makes a new connection and, where all is proven,
//! ends that by itself. Only a COMMIT whose answer got lost is never tried again, since it may have been one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    Trouble,
    batch::{Batch, Step},
    changes::{Changes, write_entries},
    known::{Known, Needs},
    refuse::load_spent,
    rotation::own_key,
    schema, secrets,
    tree::{self, HeadRow},
};
use crate::{
    adapters::store::shared::{
        head::{Committed, Grown, Head},
        refusals::Rates,
        secrets::SealedMap,
    },
    broker::{Clock, metrics::StoreMetrics, ports::StoreFault},
    kernel::{
        digest::Digest,
        ledger::checkpoint::{LogKey, VerifierKey},
        sealing::Keyring,
    },
};

/// Commands that may wait; one more is told that the queue is full.
pub(super) const QUEUE: usize = 4096;
/// Commands of one transaction.
const TURN: usize = 512;
/// How often the writer looks by itself, and how often while nothing can be written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_WHEN_AILING: Duration = Duration::from_millis(250);
/// How long a turn may take: whoever waits for it is told within a second.
const DEADLINE: Duration = Duration::from_millis(900);
/// The same while nothing can be written, when nobody waits: a new connection to a busy server takes its time.
const DEADLINE_WHEN_AILING: Duration = Duration::from_secs(5);
/// How far this machine's clock may be off the database's (contract: section 2).
const MOST_SKEW_US: i64 = 5_000_000;

/// What the writer shares with those who only look.
pub(super) struct Shared {
    /// The sealed store.
    pub(super) sealed: ArcSwap<SealedMap>,
    /// Tokens that had their last denial. A lock and not a snapshot: it is changed a key at a time, and read once a
    /// request.
    pub(super) spent: RwLock<HashMap<Digest, Timestamp>>,
    /// What is counted of the writer's work.
    pub(super) metrics: StoreMetrics,
    /// The ledger's public key.
    pub(super) verifier: ArcSwap<VerifierKey>,
    /// Why the last turn failed, if it did.
    ailing: Mutex<Option<String>>,
    /// The size that was seen and the one that was found, while the database is not the one that was seen.
    set_back: watch::Sender<Option<(u64, u64)>>,
}

impl Shared {
    /// A writer that is well.
    pub(super) fn new(sealed: SealedMap, spent: HashMap<Digest, Timestamp>, verifier: VerifierKey) -> Self {
        Self {
            sealed: ArcSwap::from_pointee(sealed),
            spent: RwLock::new(spent),
            metrics: StoreMetrics::default(),
            verifier: ArcSwap::from_pointee(verifier),
            ailing: Mutex::default(),
            set_back: watch::Sender::new(None),
        }
    }

    /// Waits until the database is not the one that was seen.
    pub(super) async fn set_back(&self) -> (u64, u64) {
        let mut set_back = self.set_back.subscribe();
        match set_back.wait_for(Option::is_some).await.map(|found| *found) {
            Ok(Some(found)) => found,
            // The sender is our own.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Why nothing can be written now, if so.
    pub(super) fn ailing(&self) -> Option<StoreFault> {
        let ailing = self.ailing.lock().unwrap_or_else(PoisonError::into_inner);
        ailing.clone().map(StoreFault::Unavailable)
    }

    /// Sets it; answers whether it was otherwise before.
    fn set_ailing(&self, why: Option<String>) -> bool {
        let mut ailing = self.ailing.lock().unwrap_or_else(PoisonError::into_inner);
        let was = std::mem::replace(&mut *ailing, why);
        was.is_some() != ailing.is_some()
    }
}

/// What the writer signs with, and how it finds the key that comes after it.
pub(super) struct Signer {
    /// The ledger's key.
    pub(super) key: LogKey,
    /// What the head said of it.
    pub(super) named: Option<String>,
    /// What opens the next.
    pub(super) sealing: Keyring,
    /// The ledger's origin.
    pub(super) origin: String,
}

/// The writer's own state.
pub(super) struct Writer {
    options: PgConnectOptions,
    /// None where the last turn did not end in order.
    conn: Option<PgConnection>,
    signer: Signer,
    /// The largest head that was seen.
    head: Head,
    /// How many spent tokens are known.
    spent: i64,
    rates: Rates,
    shared: Arc<Shared>,
}

impl Writer {
    /// A writer on that connection, which goes on from that head.
    pub(super) fn new(
        (options, conn): (PgConnectOptions, PgConnection),
        signer: Signer,
        (head, spent): (Head, i64),
        shared: Arc<Shared>,
    ) -> Self {
        shared.metrics.entries.set(head.frontier.size());
        Self { options, conn: Some(conn), signer, head, spent, rates: Rates::default(), shared }
    }

    /// Takes turns until nobody can send any more, and the queue is empty.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Step>) {
        let mut steps: Vec<Step> = Vec::with_capacity(TURN);
        loop {
            let is_well = self.shared.ailing().is_none();
            let look_in = if is_well { LOOK_EVERY } else { LOOK_EVERY_WHEN_AILING };
            if tokio::time::timeout(look_in, queue.recv_many(&mut steps, TURN)).await == Ok(0) {
                return;
            }
            match self.shared.ailing() {
                // Nobody is sent here while it is so; these came a moment before.
                Some(fault) if !steps.is_empty() => {
                    self.taken(steps.len());
                    steps.drain(..).for_each(|step| step.answer(Err(&fault)));
                }
                Some(_) | None => self.turn(&mut steps).await,
            }
        }
    }

    /// One turn: all or nothing. Without steps it is a look.
    async fn turn(&mut self, steps: &mut Vec<Step>) {
        let deadline = if self.shared.ailing().is_none() { DEADLINE } else { DEADLINE_WHEN_AILING };
        let commands = steps.len();
        self.taken(commands);
        let began = Instant::now();
        let outcome = match tokio::time::timeout(deadline, self.commit(steps)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Trouble::Slow),
        };
        let outcome = outcome.map(Arc::new).map_err(|trouble| self.ail(&trouble));
        let metrics = &self.shared.metrics;
        if outcome.is_err() {
            metrics.failures.count();
        } else if commands > 0 {
            // A look by itself is no commit that anybody waits for.
            metrics.commits.took(began.elapsed());
            metrics.batches.observe(commands as u64);
        }
        metrics.entries.set(self.head.frontier.size());
        if outcome.is_ok() {
            self.shared.set_back.send_if_modified(|found| found.take().is_some());
            if self.shared.set_ailing(None) {
                tracing::info!("the ledger can be written again");
            }
        }
        for step in steps.drain(..) {
            step.answer(outcome.as_ref());
        }
    }

    /// So many wait no more.
    fn taken(&self, commands: usize) {
        self.shared.metrics.waiting.add(-i64::try_from(commands).unwrap_or(0));
    }

    /// Tries a second time where the connection was found to be dead, as after a restart of the server, or where the
    /// head moved.
    async fn commit(&mut self, steps: &mut [Step]) -> Result<Committed, Trouble> {
        let is_old = self.conn.is_some();
        match self.try_commit(steps).await {
            Err(Trouble::Moved) => self.try_commit(steps).await,
            Err(trouble) if is_old && trouble.is_lost_connection() => self.try_commit(steps).await,
            outcome => outcome,
        }
    }

    async fn try_commit(&mut self, steps: &mut [Step]) -> Result<Committed, Trouble> {
        // Taken out: whatever ends this turn early, also its deadline, leaves no half of it to the next one.
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => schema::connect(&self.options).await?,
        };
        sqlx::query("BEGIN").execute(&mut conn).await?;
        let filled = self.fill(&mut conn, steps).await?;
        sqlx::query("COMMIT").execute(&mut conn).await.map_err(Trouble::Uncertain)?;
        self.conn = Some(conn);
        Ok(self.publish(filled))
    }

    /// Runs the steps within the transaction and appends what they record.
    async fn fill(&mut self, conn: &mut PgConnection, steps: &mut [Step]) -> Result<Filled, Trouble> {
        let asked = Clock::System.now();
        let found = tree::lock(conn).await?;
        look_at_clock(asked, found.server_us, Clock::System.now())?;
        self.look_for_others(conn, &found).await?;
        let mut batch = Batch {
            known: Known::default(),
            changes: Changes::default(),
            rates: &mut self.rates,
            generation: found.generation,
            sealed: Vec::new(),
            spent: Vec::new(),
            entries: Vec::new(),
            head: &self.head,
            signer: &self.signer,
            next_key: None,
        };
        for step in steps.iter_mut() {
            if let Step::Direct(step) = step {
                step.run(conn, &mut batch).await?;
            }
        }
        decide(conn, steps, &mut batch).await?;
        let spent = number_spent(&mut batch, found.spent);
        let Batch { known, changes, generation, sealed, spent: tokens, entries, next_key, .. } = batch;
        changes.write(conn, &known).await?;
        let mut after = HeadRow { generation, spent, ..found };
        let is_same =
            entries.is_empty() && generation == held_generation(&self.shared) && spent == self.spent;
        let mut committed = Committed::nothing(self.head.frontier.size());
        if !entries.is_empty() {
            // The head behind a change of keys is signed by both, so that whoever knows one of them goes on from there.
            let key = &self.signer.key;
            let sign = |size: u64, root: &Digest| match &next_key {
                Some(next) => key.sign_with(next, size, root),
                None => key.sign(size, root),
            };
            let Grown { head, full, committed: grown } = self.head.grow(entries, &sign);
            write_entries(conn, grown.first, &grown.entries, &full).await?;
            (after.head, after.note) = (head, grown.note.clone());
            committed = grown;
        }
        if let Some(next) = &next_key {
            after.signer = Some(next.verifier().line_start());
        }
        if !is_same {
            tree::swap(conn, &self.head, &after).await?;
        }
        let sealed = (!sealed.is_empty()).then(|| self.shared.sealed.load().changed(generation, sealed));
        Ok(Filled { head: after.head, spent, committed, sealed, tokens, next_key })
    }

    /// Proves that the head goes on from the one that was seen, and reads what others changed.
    async fn look_for_others(&mut self, conn: &mut PgConnection, found: &HeadRow) -> Result<(), Trouble> {
        let seen = (self.head.frontier.size(), self.head.root);
        let now = (found.head.frontier.size(), found.head.root);
        if seen != now && !tree::begins_with(conn, (seen.0, &seen.1), (now.0, &now.1)).await? {
            return Err(Trouble::SetBack { seen: seen.0, found: now.0 });
        }
        if found.signer != self.signer.named {
            self.take_key(conn, found).await?;
        }
        if seen != now {
            found.head.check_note(&found.note, &self.signer.key.verifier()).map_err(Trouble::Damaged)?;
            self.head = found.head.clone();
        }
        if found.generation != held_generation(&self.shared) {
            self.shared.sealed.store(Arc::new(secrets::load(conn, found.generation).await?));
        }
        if found.spent != self.spent {
            let fresh = load_spent(conn, self.spent).await?;
            self.shared.spent.write().unwrap_or_else(PoisonError::into_inner).extend(fresh);
            self.spent = found.spent;
        }
        Ok(())
    }

    /// Takes the ledger's key that another process put in the place of this one: whatever is signed from here on must be
    /// signed with it.
    async fn take_key(&mut self, conn: &mut PgConnection, found: &HeadRow) -> Result<(), Trouble> {
        let key = own_key(conn, &self.signer).await?;
        if found.signer.as_ref().is_some_and(|named| *named != key.verifier().line_start()) {
            return Err(Trouble::Damaged("the ledger's key is not the one that its head names"));
        }
        tracing::info!(key = %key.verifier().id(), "the ledger's key was changed");
        self.sign_with(key, found.signer.clone());
        Ok(())
    }

    fn sign_with(&mut self, key: LogKey, named: Option<String>) {
        self.shared.verifier.store(Arc::new(key.verifier()));
        self.signer.key = key;
        self.signer.named = named;
    }

    /// What became durable becomes true.
    fn publish(&mut self, filled: Filled) -> Committed {
        let Filled { head, spent, committed, sealed, tokens, next_key } = filled;
        (self.head, self.spent) = (head, spent);
        if let Some(key) = next_key {
            let named = Some(key.verifier().line_start());
            self.sign_with(key, named);
        }
        if let Some(sealed) = sealed {
            self.shared.sealed.store(Arc::new(sealed));
        }
        if !tokens.is_empty() {
            self.shared.spent.write().unwrap_or_else(PoisonError::into_inner).extend(tokens);
        }
        committed
    }

    fn ail(&self, trouble: &Trouble) -> StoreFault {
        let why = trouble.to_string();
        let is_new = self.shared.set_ailing(Some(why.clone()));
        if let Trouble::SetBack { seen, found } = trouble {
            // Mostly the database was gone a moment before, so it is no news that nothing can be written.
            let (seen, found) = (*seen, *found);
            if self.shared.set_back.send_if_modified(|told| told.replace((seen, found)).is_none()) {
                tracing::error!(
                    alert = "ALERT_ROLLBACK",
                    seen,
                    found,
                    "the database was set back or exchanged; nothing is issued until it is the old one again"
                );
            }
        } else if is_new {
            tracing::error!(fault = %why, "the ledger cannot be written");
        }
        StoreFault::Unavailable(why)
    }
}

/// The generation of the sealed store that is held.
fn held_generation(shared: &Shared) -> u64 {
    shared.sealed.load().generation
}

/// Reads what the planned steps must know, and lets each decide.
async fn decide(conn: &mut PgConnection, steps: &mut [Step], batch: &mut Batch<'_>) -> Result<(), Trouble> {
    let mut needs = Needs::default();
    for step in steps.iter() {
        if let Step::Planned(step) = step {
            step.needs(&mut needs);
        }
    }
    batch.known = Known::load(conn, needs).await?;
    for step in steps.iter_mut() {
        if let Step::Planned(step) = step {
            step.decide(batch);
        }
    }
    Ok(())
}

/// Numbers the tokens that had their last denial in this batch, so that other brokers find them; answers the last number.
fn number_spent(batch: &mut Batch<'_>, mut last: i64) -> i64 {
    for (token, _) in &batch.spent {
        if let Some(denied) = batch.known.denied.get_mut(token)
            && denied.spent.is_none()
        {
            last = last.saturating_add(1);
            denied.spent = Some(last);
        }
    }
    last
}

/// Refuses where the server's time lies outside what passed here while it was asked, by more than is allowed.
pub(super) fn look_at_clock(asked: Timestamp, server_us: i64, answered: Timestamp) -> Result<(), Trouble> {
    let behind = asked.as_microsecond().saturating_sub(server_us);
    let ahead = server_us.saturating_sub(answered.as_microsecond());
    let skew = behind.max(ahead);
    if skew > MOST_SKEW_US { Err(Trouble::Clock(skew / 1_000_000)) } else { Ok(()) }
}

/// What a turn leaves when it is durable.
struct Filled {
    head: Head,
    spent: i64,
    committed: Committed,
    sealed: Option<SealedMap>,
    tokens: Vec<(Digest, Timestamp)>,
    next_key: Option<LogKey>,
}
