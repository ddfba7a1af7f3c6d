//! Publishing the ledger (contract: section 6): the replica that has the duty proves its head consistent with the
//! checkpoint in the directory, writes every tile that is missing, then puts a larger checkpoint in place.
//!
//! The duty is a row of the store with an end and a number: [`Published`] says what the number is for. Whoever dies is
//! missed for [`LEASE`]; whoever stops gives it back.

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

use super::seen::{self, Rollback};
use crate::{
    adapters::{
        published::{Published, PublishedFault, Replaced},
        store::{Database, LEASE, Lease},
    },
    broker::{
        Broker,
        ports::{Store as _, StoreFault},
    },
    kernel::ledger::{
        checkpoint::Checkpoint,
        entry::EntryCode,
        tiles::{TILE_WIDTH, Tile, tiles_between},
    },
};

/// How long one turn may take but for the tiles of a long ledger: a directory that does not answer is told of.
const PATIENCE: Duration = Duration::from_secs(10);

/// Publishes, where this replica has the duty.
pub(crate) struct Publisher {
    directory: Published,
    store: Arc<Database>,
    broker: Arc<Broker>,
    lease: Option<Lease>,
    /// When the duty was last taken.
    taken: Instant,
    /// The size up to which this process knows every tile to be there.
    whole_to: u64,
    /// What is to be known of the guard against a rollback while all goes well.
    standing: Option<String>,
}

/// Why the ledger was not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishFault {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] PublishedFault),
    /// The checkpoint there is of what was given up.
    #[error(
        "the checkpoint in {0} is of entries that were given up when the database was restored, and what was published is \
         never taken back: name an empty directory by `ledger.publish`"
    )]
    GivenUp(String),
    /// The store has not what its head promises.
    #[error("the ledger lacks a part of {0}")]
    Lacking(String),
    /// The store's ledger is not the one that was published.
    #[error(transparent)]
    Rollback(#[from] Rollback),
    /// The directory does not answer.
    #[error("the directory {0} does not answer")]
    Slow(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// A publisher that works by and by, and once more at the end, never both at once.
pub(crate) type Shared = Arc<Mutex<Publisher>>;

/// Tells that the store's ledger turned out to be another one than was published.
#[derive(Clone)]
pub(crate) struct Forked(watch::Sender<Option<String>>);

impl Default for Forked {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Forked {
    /// Waits for it; answers what is to be said.
    pub(crate) async fn wait(&self) -> String {
        let mut told = self.0.subscribe();
        match told.wait_for(Option::is_some).await.map(|told| told.clone()) {
            Ok(Some(rollback)) => rollback,
            // The sender is our own.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

/// Publishes as often as that; keeps the duty in between.
pub(crate) async fn follow(publisher: Shared, every: Duration, forked: Forked) {
    let tick = every.min(LEASE / 3);
    let (mut published, mut is_told) = (None::<Instant>, false);
    loop {
        let mut publisher = publisher.lock().await;
        let is_due = published.is_none_or(|at| at.elapsed() + tick / 2 >= every);
        let done = if is_due { publisher.turn().await } else { publisher.take().await.map(drop) };
        match done {
            Ok(()) => {
                if is_due {
                    published = Some(Instant::now());
                }
                if std::mem::take(&mut is_told) {
                    tracing::info!("the ledger is published again");
                    publisher.broker.warn_of_rollback(publisher.standing.clone());
                }
            }
            Err(PublishFault::Rollback(rollback @ Rollback::Behind { .. })) if publisher.is_well() => {
                publisher.alert(&rollback).await;
                forked.0.send_replace(Some(rollback.to_string()));
                return std::future::pending().await;
            }
            Err(fault) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%fault, "the ledger is not published");
                }
                let warning = format!("rollback unguarded: the ledger is not published: {fault}");
                publisher.broker.warn_of_rollback(Some(warning));
            }
        }
        drop(publisher);
        tokio::time::sleep(tick).await;
    }
}

impl Publisher {
    /// Of that broker, into that directory.
    pub(crate) fn new(directory: &Path, store: Arc<Database>, broker: Arc<Broker>) -> Self {
        let (directory, standing) = (Published::new(directory), broker.rollback_warning());
        Self { directory, store, broker, lease: None, taken: Instant::now(), whole_to: 0, standing }
    }

    /// Whether the store can be written: where not, it tells by itself what is wrong.
    fn is_well(&self) -> bool {
        self.store.health().is_ok()
    }

    async fn alert(&self, rollback: &Rollback) {
        let (seen, found) = match rollback {
            Rollback::Behind { seen, found, .. } => (Some(*seen), Some(*found)),
            Rollback::Store(_) | Rollback::Unreadable { .. } => (None, None),
        };
        tracing::error!(alert = "ALERT_ROLLBACK", seen, found, "{rollback}");
        let result = json!({ "seen": seen, "found": found });
        if let Err(refused) = self.broker.note(EntryCode::AlertRollback, result).await {
            tracing::warn!(reason = refused.detail, "ALERT_ROLLBACK was not recorded");
        }
    }

    /// Publishes once, where the duty is this replica's or free.
    ///
    /// # Errors
    ///
    /// [`PublishFault`]; what is published already stays.
    pub(crate) async fn turn(&mut self) -> Result<(), PublishFault> {
        let Some(lease) = self.take().await? else { return Ok(()) };
        // First what is there, then the head: the other way round another replica's newer one would look like a fork.
        let from = self.published_size().await?;
        let note = self.store.checkpoint().await?;
        let head = Checkpoint::read_unverified(&note)
            .map_err(|fault| StoreFault::Unavailable(format!("the ledger's head cannot be read: {fault}")))?;
        if head.size == self.whole_to && from == head.size {
            return Ok(());
        }
        let mut filled = Vec::new();
        for tile in tiles_between(self.whole_to.min(from), head.size) {
            if self.taken.elapsed() > LEASE / 3 && self.take().await? != Some(lease) {
                return Ok(());
            }
            self.put(tile, lease).await?;
            if tile.width == TILE_WIDTH {
                filled.push(tile);
            }
        }
        if from < head.size {
            let (size, fence) = (head.size, lease.fence);
            match self.in_directory(move |directory| directory.replace(size, &note, fence)).await? {
                Replaced::Fenced => {
                    self.lose();
                    return Ok(());
                }
                Replaced::Larger | Replaced::Placed => {}
            }
        }
        self.whole_to = head.size;
        self.in_directory(move |directory| filled.iter().try_for_each(|tile| directory.drop_parts(tile)))
            .await
    }

    /// Publishes a last time, and gives the duty back.
    ///
    /// # Errors
    ///
    /// [`PublishFault`].
    pub(crate) async fn stop(&mut self) -> Result<(), PublishFault> {
        let published = if self.lease.is_some() { self.turn().await } else { Ok(()) };
        self.store.leave_publication(self.broker.replica()).await?;
        published
    }

    /// Takes the duty, or keeps it; says so where it publishes, so that whoever had it before changes nothing any more.
    async fn take(&mut self) -> Result<Option<Lease>, PublishFault> {
        let there = self.in_directory(|directory| directory.fence()).await?;
        let is_known = self.lease.is_some_and(|lease| lease.fence == there);
        let least = if is_known { there } else { there.saturating_add(1) };
        let Some(lease) = self.store.take_publication(self.broker.replica(), least).await? else {
            self.lose();
            return Ok(None);
        };
        self.taken = Instant::now();
        if self.lease == Some(lease) {
            return Ok(self.lease);
        }
        self.lose();
        if self.in_directory(move |directory| directory.raise(lease.fence)).await? {
            tracing::info!(fence = lease.fence, directory = %self.directory.path().display(), "this replica publishes the ledger");
            self.lease = Some(lease);
        }
        Ok(self.lease)
    }

    fn lose(&mut self) {
        self.lease = None;
        self.whole_to = 0;
    }

    /// The size of the checkpoint that is there; the store's ledger continues it.
    async fn published_size(&self) -> Result<u64, PublishFault> {
        let Some(note) = self.in_directory(|directory| directory.checkpoint()).await? else { return Ok(0) };
        let path = self.directory.checkpoint_file();
        if !seen::continues(&path, &note, &self.store).await? {
            return Err(PublishFault::GivenUp(path.display().to_string()));
        }
        // It was opened a moment ago.
        let read = Checkpoint::read_unverified(&note);
        Ok(read.map_err(|_| PublishedFault::Checkpoint(path.display().to_string()))?.size)
    }

    async fn put(&self, tile: Tile, lease: Lease) -> Result<(), PublishFault> {
        if self.in_directory(move |directory| directory.has(&tile)).await? {
            return Ok(());
        }
        let bytes = self.store.tile(tile).await?.ok_or_else(|| PublishFault::Lacking(tile.path()))?;
        self.in_directory(move |directory| directory.put(&tile, &bytes, lease.fence)).await
    }

    /// Does something in the directory, which may lie on a volume that does not answer: whoever waits for it goes on.
    async fn in_directory<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Published) -> Result<T, PublishedFault> + Send + 'static,
    ) -> Result<T, PublishFault> {
        let directory = self.directory.clone();
        let task = tokio::task::spawn_blocking(move || work(&directory));
        let slow = || PublishFault::Slow(self.directory.path().display().to_string());
        let ended = tokio::time::timeout(PATIENCE, task).await.map_err(|_| slow())?;
        Ok(ended.map_err(|_| slow())??)
    }
}
