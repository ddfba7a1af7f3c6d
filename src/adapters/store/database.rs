//! A store on either engine, as the commands open it: where it is, and what both can do. What only one of them can do is
//! asked of that one.

use std::{path::PathBuf, sync::Arc};

use jiff::Timestamp;

use super::{
    postgres::{Place, Postgres},
    shared::{
        assertions::{AssertionHandover, AssertionRotation, AssertionRotationFault},
        policy::{AcceptedPolicy, LettingIn, PolicyStanding},
        publication::Lease,
        rotation::{Handover, HeldKey, Random, Rotated, RotationFault, SealingHandover, Telling},
        rows::LedgerRow,
        secrets::{Change, SecretFault, SecretListing},
    },
    sqlite::Sqlite,
};
use crate::{
    broker::{
        audit::{Kept, KeptRow, Stray},
        metrics::Exposition,
        ports::{
            Answer, Beat, ClaimRefused, Claims, EntryQuery, IssuanceRow, Issue, IssueVerdict, PolicyLoad,
            PolicyVerdict, Receipt, Refusal, SealedRecords, SealedSecret, Selection, Skew, Store, StoreFault,
            StoredEntry, Summary, Transit, Transited,
        },
    },
    kernel::{
        assertion::AssertionKey,
        digest::Digest,
        freeze::{Freezable, Freeze, FreezeScope},
        id::{IssuanceId, ReplicaId},
        ledger::{
            checkpoint::{Checkpoint, NoteFault, VerifierKey},
            entry::Entry,
            tiles::Tile,
        },
        name::SecretName,
        sealing::Keyring,
        secret::Secret,
    },
};

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// A database of a server, for many brokers.
    Postgres(Place),
    /// A file of this machine.
    Sqlite(PathBuf),
}

/// A store that is open.
pub enum Database {
    /// On PostgreSQL.
    Postgres(Arc<Postgres>),
    /// On SQLite.
    Sqlite(Arc<Sqlite>),
}

/// Asks whichever it is.
macro_rules! either {
    ($database:expr, $store:ident => $asked:expr) => {
        match $database {
            Database::Postgres($store) => $asked,
            Database::Sqlite($store) => $asked,
        }
    };
}

impl Database {
    /// The ledger's origin.
    pub fn origin(&self) -> &str {
        either!(self, store => store.origin())
    }

    /// The ledger's public key.
    pub fn verifier_key(&self) -> VerifierKey {
        either!(self, store => store.verifier_key())
    }

    /// The key of pseudonyms; none where the store was opened without the sealing key.
    pub fn pseudonym_key(&self) -> Option<&[u8; 32]> {
        either!(self, store => store.pseudonym_key())
    }

    /// The keys of assertions, with their private halves where the store was opened with the sealing key.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn assertion_keys(&self) -> Result<Vec<AssertionKey>, StoreFault> {
        either!(self, store => store.assertion_keys().await)
    }

    /// Publishes a new key of assertions that follows the one that signs, with its entry in the same transaction.
    ///
    /// # Errors
    ///
    /// [`AssertionRotationFault`]; then nothing changed.
    pub async fn rotate_assertion_key(
        &self,
        rotation: AssertionRotation<'_>,
    ) -> Result<AssertionHandover, AssertionRotationFault> {
        either!(self, store => store.rotate_assertion_key(rotation).await)
    }

    /// Deletes private halves of keys of assertions that have signed their last.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn forget_assertion_keys(&self, now: Timestamp) -> Result<(), StoreFault> {
        either!(self, store => store.forget_assertion_keys(now).await)
    }

    /// Takes no more commands, lets the writer end what waits, and closes it. Asking again does nothing.
    pub async fn close(&self) {
        either!(self, store => store.close().await);
    }

    /// Waits until this process must never write again, since the disk did not confirm a write. A server that finds this
    /// ends by itself and recovers, so with PostgreSQL it never comes.
    pub async fn died(&self) {
        match self {
            Self::Postgres(_) => std::future::pending().await,
            Self::Sqlite(store) => store.died().await,
        }
    }

    /// Waits until the database turns out not to be the one that was seen while it was served: the size that was seen, and
    /// the one that was found. The file that SQLite has open stays the same one.
    pub async fn set_back(&self) -> (u64, u64) {
        match self {
            Self::Postgres(store) => store.set_back().await,
            Self::Sqlite(_) => std::future::pending().await,
        }
    }

    /// Whether the first entries of this ledger are those of that head, and how many entries this ledger has.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn begins_with(&self, seen: &Checkpoint) -> Result<(bool, u64), StoreFault> {
        either!(self, store => store.begins_with(seen).await)
    }

    /// The sealing keys; none where the store was opened without them.
    pub fn keyring(&self) -> Option<&Keyring> {
        either!(self, store => store.keyring())
    }

    /// Says which sealing keys a broker knows, so that nobody wraps what it then cannot open; reads the sealed records
    /// anew where they were wrapped under another.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn announce(&self, broker: Beat, known: &Keyring) -> Result<(), StoreFault> {
        match self {
            Self::Postgres(store) => store.announce(broker, known).await,
            // One broker serves a file.
            Self::Sqlite(store) => store.announce(known).await,
        }
    }

    /// Puts a new ledger key in the place of the one that there is. From this transaction on every process signs with
    /// it, or writes nothing.
    ///
    /// # Errors
    ///
    /// [`RotationFault`]; then nothing changed.
    pub async fn rotate_ledger_key(
        &self,
        now: Timestamp,
        random: Random,
        tell: Telling<Handover>,
    ) -> Result<Rotated<VerifierKey>, RotationFault> {
        either!(self, store => store.rotate_ledger_key(now, random, tell).await)
    }

    /// Wraps whatever is sealed under the newest sealing key. What it tells is how many records are under it.
    ///
    /// # Errors
    ///
    /// [`RotationFault`]; then the key that was the store's still is, and this can be asked again.
    pub async fn rewrap(
        &self,
        random: Random,
        tell: Telling<SealingHandover>,
    ) -> Result<Rotated<u64>, RotationFault> {
        either!(self, store => store.rewrap(random, tell).await)
    }

    /// The keys that the store holds, and those of the ledger that it held; oldest first within a purpose.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn held_keys(&self) -> Result<Vec<HeldKey>, StoreFault> {
        either!(self, store => store.held_keys().await)
    }

    /// What tells the key that the store is sealed with.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn sealed_with(&self) -> Result<Digest, StoreFault> {
        either!(self, store => store.sealed_with().await)
    }

    /// Opens a note that one of the ledger's keys signed, of today or before.
    ///
    /// # Errors
    ///
    /// [`StoreFault`]; within it [`NoteFault`].
    pub async fn open_checkpoint(&self, note: &str) -> Result<Result<Checkpoint, NoteFault>, StoreFault> {
        either!(self, store => store.open_checkpoint(note).await)
    }

    /// What is wrong with the columns that the writer goes on from.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn head_fault(&self) -> Result<Option<&'static str>, StoreFault> {
        either!(self, store => store.head_fault().await)
    }

    /// Entries in order from an index on, for exports and verification; at most 1000.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn ledger_rows(&self, from: u64, limit: u32) -> Result<Vec<LedgerRow>, StoreFault> {
        either!(self, store => store.ledger_rows(from, limit).await)
    }

    /// Takes the duty to publish for [`super::LEASE`], or keeps it for as long again; `None` while another replica has
    /// it. Its number is at least that one: whoever publishes has found it where it publishes.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn take_publication(
        &self,
        replica: ReplicaId,
        least: u64,
    ) -> Result<Option<Lease>, StoreFault> {
        either!(self, store => store.take_publication(replica, least).await)
    }

    /// Gives the duty to publish back, where this replica has it.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn leave_publication(&self, replica: ReplicaId) -> Result<(), StoreFault> {
        either!(self, store => store.leave_publication(replica).await)
    }

    /// The newest accepted policy set.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn accepted_policy(&self) -> Result<Option<AcceptedPolicy>, StoreFault> {
        either!(self, store => store.accepted_policy().await)
    }

    /// How a candidate stands.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn policy_standing(
        &self,
        candidate: Digest,
        now: Timestamp,
    ) -> Result<PolicyStanding, StoreFault> {
        either!(self, store => store.policy_standing(candidate, now).await)
    }

    /// Lets a set in, with its entry in the same transaction.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn let_policy_in(&self, letting: LettingIn) -> Result<(), StoreFault> {
        either!(self, store => store.let_policy_in(letting).await)
    }

    /// Seals a secret under its next version, with its entry in the same transaction. Answers the version.
    ///
    /// # Errors
    ///
    /// [`SecretFault`]; then nothing changed.
    pub async fn set_secret(
        &self,
        name: &SecretName,
        fields: &[(String, Secret)],
        change: Change<'_>,
    ) -> Result<u64, SecretFault> {
        either!(self, store => store.set_secret(name, fields, change).await)
    }

    /// Removes a secret, with its entry in the same transaction. Answers the version that was removed.
    ///
    /// # Errors
    ///
    /// [`SecretFault`]; then nothing changed.
    pub async fn remove_secret(&self, name: &SecretName, change: Change<'_>) -> Result<u64, SecretFault> {
        either!(self, store => store.remove_secret(name, change).await)
    }

    /// The secrets by name, without their values.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn list_secrets(&self) -> Result<Vec<SecretListing>, StoreFault> {
        either!(self, store => store.list_secrets().await)
    }
}

impl SealedRecords for Database {
    fn sealed(&self, name: &SecretName) -> (u64, Option<Arc<SealedSecret>>) {
        either!(self, store => store.sealed(name))
    }
}

impl Store for Database {
    fn append(&self, entries: Vec<Entry>) -> Answer<'_, Result<Vec<Receipt>, StoreFault>> {
        either!(self, store => store.append(entries))
    }

    fn refuse(&self, refusal: Refusal) -> Answer<'_, Result<(), StoreFault>> {
        either!(self, store => store.refuse(refusal))
    }

    fn foresee(
        &self,
        claims: Claims,
        now: Timestamp,
    ) -> Answer<'_, Result<Result<(), ClaimRefused>, StoreFault>> {
        either!(self, store => store.foresee(claims, now))
    }

    fn issue(&self, issue: Issue) -> Answer<'_, Result<IssueVerdict, StoreFault>> {
        either!(self, store => store.issue(issue))
    }

    fn transit(&self, transit: Transit) -> Answer<'_, Result<Transited, StoreFault>> {
        either!(self, store => store.transit(transit))
    }

    fn abandoned(&self, now: Timestamp, limit: u32) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>> {
        either!(self, store => store.abandoned(now, limit))
    }

    fn due(&self, now: Timestamp, limit: u32) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>> {
        either!(self, store => store.due(now, limit))
    }

    fn issuances(
        &self,
        selection: Selection,
        past: Option<IssuanceId>,
        limit: u32,
    ) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>> {
        either!(self, store => store.issuances(selection, past, limit))
    }

    fn frozen(&self, subject: Freezable) -> Answer<'_, Result<Vec<FreezeScope>, StoreFault>> {
        either!(self, store => store.frozen(subject))
    }

    fn freeze(&self, freeze: Freeze, entry: Entry) -> Answer<'_, Result<Option<Freeze>, StoreFault>> {
        either!(self, store => store.freeze(freeze, entry))
    }

    fn thaw(&self, scope: FreezeScope, entry: Entry) -> Answer<'_, Result<bool, StoreFault>> {
        either!(self, store => store.thaw(scope, entry))
    }

    fn complete_freeze(
        &self,
        scope: FreezeScope,
        thumbprints: Vec<Digest>,
        entry: Entry,
    ) -> Answer<'_, Result<bool, StoreFault>> {
        either!(self, store => store.complete_freeze(scope, thumbprints, entry))
    }

    fn freezes(&self) -> Answer<'_, Result<Vec<Freeze>, StoreFault>> {
        either!(self, store => store.freezes())
    }

    fn beat(&self, beat: Beat) -> Answer<'_, Result<Option<Skew>, StoreFault>> {
        either!(self, store => store.beat(beat))
    }

    fn tell_skew(&self, since: Timestamp, entry: Entry) -> Answer<'_, Result<bool, StoreFault>> {
        either!(self, store => store.tell_skew(since, entry))
    }

    fn leave(&self, replica: ReplicaId) -> Answer<'_, Result<(), StoreFault>> {
        either!(self, store => store.leave(replica))
    }

    fn load_policy(&self, load: PolicyLoad) -> Answer<'_, Result<PolicyVerdict, StoreFault>> {
        either!(self, store => store.load_policy(load))
    }

    fn issuance(&self, id: IssuanceId) -> Answer<'_, Result<Option<IssuanceRow>, StoreFault>> {
        either!(self, store => store.issuance(id))
    }

    fn is_spent(&self, token: &Digest, now: Timestamp) -> bool {
        either!(self, store => store.is_spent(token, now))
    }

    fn sweep<'a>(
        &'a self,
        now: Timestamp,
        seal: &'a (dyn Fn(Summary) -> Option<Entry> + Send + Sync),
    ) -> Answer<'a, Result<(), StoreFault>> {
        either!(self, store => store.sweep(now, seal))
    }

    fn entries(&self, query: EntryQuery) -> Answer<'_, Result<Vec<StoredEntry>, StoreFault>> {
        either!(self, store => store.entries(query))
    }

    fn entry(&self, index: u64) -> Answer<'_, Result<Option<StoredEntry>, StoreFault>> {
        either!(self, store => store.entry(index))
    }

    fn proof(&self, index: u64) -> Answer<'_, Result<Option<String>, StoreFault>> {
        either!(self, store => store.proof(index))
    }

    fn checkpoint(&self) -> Answer<'_, Result<String, StoreFault>> {
        either!(self, store => store.checkpoint())
    }

    fn tile(&self, tile: Tile) -> Answer<'_, Result<Option<Vec<u8>>, StoreFault>> {
        either!(self, store => store.tile(tile))
    }

    fn health(&self) -> Result<(), StoreFault> {
        either!(self, store => store.health())
    }

    fn expose(&self, to: &mut Exposition) {
        either!(self, store => store.expose(to));
    }
}

impl Kept for Database {
    fn own_key(&self) -> VerifierKey {
        either!(self, store => store.own_key())
    }

    fn head_note(&self) -> Answer<'_, Result<Vec<u8>, StoreFault>> {
        either!(self, store => store.head_note())
    }

    fn rows(&self, from: u64) -> Answer<'_, Result<Vec<KeptRow>, StoreFault>> {
        either!(self, store => store.rows(from))
    }

    fn subtrees(&self, places: Vec<(u8, u64)>) -> Answer<'_, Result<Vec<Option<Digest>>, StoreFault>> {
        either!(self, store => store.subtrees(places))
    }

    fn strays(&self) -> Answer<'_, Result<Vec<Stray>, StoreFault>> {
        either!(self, store => store.strays())
    }
}
