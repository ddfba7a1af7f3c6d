//! The ports: what the broker asks of the outside. Adapters implement them; the broker owns their words.

mod emergency;
mod minting;
mod query;
mod transit;

pub use self::{
    emergency::{Beat, Holder, Selection, Skew},
    minting::{
        Field, Held, MintFault, Minted, Minter, Minters, Opened, Order, RevokeFault, SealedRecords,
        SealedSecret, Subject,
    },
    query::{EntryQuery, Qualifier, StoredEntry, Term},
    transit::{Change, Ends, Transit, Transited, Transition},
};

use std::{future::Future, pin::Pin, sync::Arc};

use jiff::Timestamp;

use crate::kernel::{
    digest::Digest,
    freeze::{Freezable, Freeze, FreezeScope},
    id::{DecisionId, IssuanceId, ReplicaId},
    identity::{keys::VerificationKey, token::RawToken},
    issuance::State,
    ledger::{entry::Entry, tiles::Tile},
    lifetime::Lifetime,
    name::{CredentialName, GrantName, IssuerName},
    policy::target::{Kind, Making},
};

/// What a port answers: a boxed future, so that ports can be trait objects.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

// ---------------------------------------------------------------------------------------------------- issuers' keys

/// Where issuers' keys come from.
pub trait KeySource: Send + Sync {
    /// The key that a token names, from the issuer's cached set; fetches at most once per cool-down, and never for
    /// an issuer that is not configured.
    fn key<'a>(
        &'a self,
        issuer: &'a IssuerName,
        token: &'a RawToken,
    ) -> Answer<'a, Result<Arc<VerificationKey>, KeyFault>>;

    /// The RFC 7638 thumbprints of the held keys of that id; none where no such key is held. Fetches nothing.
    fn thumbprints(&self, issuer: &IssuerName, kid: &str) -> Vec<Digest>;

    /// How each issuer's keys stand, by name, for `/readyz`.
    fn standing(&self) -> Vec<KeyStanding>;

    /// What is counted of each issuer's keys, by name.
    fn figures(&self) -> Vec<KeyFigures>;
}

/// What is counted of one issuer's keys since the process began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFigures {
    /// The issuer.
    pub issuer: IssuerName,
    /// Refreshes that brought a set.
    pub refreshed: u64,
    /// Refreshes that brought none.
    pub failed: u64,
    /// When the refresh began that brought the set held; none where none was brought yet.
    pub held_since: Option<Timestamp>,
    /// Whether its tokens can be verified now.
    pub is_usable: bool,
}

/// How one issuer's keys stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStanding {
    /// The issuer.
    pub issuer: IssuerName,
    /// Why there are none now; its tokens are refused.
    pub fault: Option<String>,
    /// What somebody should look at before there are none.
    pub warnings: Vec<String>,
}

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The issuer's set could not be had, and none that is fresh enough is held: 503 `issuer_unavailable`.
    #[error("the issuer's keys cannot be had")]
    Unavailable {
        /// When it is worth asking again.
        retry_after_seconds: u32,
    },
    /// The issuer's set holds no such key for this algorithm: 401 `token_signature`.
    #[error("the issuer has no such key")]
    Unknown,
}

// ---------------------------------------------------------------------------------------------------- store

/// The durable store: issuance rows, once-claims, keys and the ledger, changed together or not at all.
pub trait Store: Send + Sync {
    /// Appends entries; they are durable when it answers. One receipt an entry, in order.
    fn append(&self, entries: Vec<Entry>) -> Answer<'_, Result<Vec<Receipt>, StoreFault>>;

    /// Records a refusal: as an entry, or in a summary row where the contract says so (more than 30 a minute for a
    /// project, a tenant that no rule names). Waits for a real commit either way.
    fn refuse(&self, refusal: Refusal) -> Answer<'_, Result<(), StoreFault>>;

    /// Whether an exchange's claims could be had now; claims nothing, and [`Store::issue`] decides again. For fetches
    /// that leave the process.
    fn foresee(
        &self,
        claims: Claims,
        now: Timestamp,
    ) -> Answer<'_, Result<Result<(), ClaimRefused>, StoreFault>>;

    /// The one durable step of an exchange: idempotency, once-claims, limits, rows and entries in one transaction.
    fn issue(&self, issue: Issue) -> Answer<'_, Result<IssueVerdict, StoreFault>>;

    /// Moves rows on, each by compare-and-swap with its entry, all in one transaction. A row to which the event cannot
    /// happen any more is left alone, and its entry is dropped. Where a decision has failed wholly by it, what that
    /// claimed is given back in the same transaction (P3).
    fn transit(&self, transit: Transit) -> Answer<'_, Result<Transited, StoreFault>>;

    /// Open rows whose owner should have closed them by now; at most so many.
    fn abandoned(&self, now: Timestamp, limit: u32) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>>;

    /// Rows whose revoke is due, and from now on theirs who asked: nobody else is given them before the back-off is
    /// over; at most so many.
    fn due(&self, now: Timestamp, limit: u32) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>>;

    /// The issuances of a selection, by id, past the one named; at most so many.
    fn issuances(
        &self,
        selection: Selection,
        past: Option<IssuanceId>,
        limit: u32,
    ) -> Answer<'_, Result<Vec<IssuanceRow>, StoreFault>>;

    /// The freezes that hold for a job now, widest first. Looked at without a claim; [`Store::issue`] decides again.
    fn frozen(&self, subject: Freezable) -> Answer<'_, Result<Vec<FreezeScope>, StoreFault>>;

    /// Freezes, with FROZEN in the same transaction; holds on every replica from its commit. Answers the freeze that
    /// stood already, if one did: then nothing is changed or recorded.
    fn freeze(&self, freeze: Freeze, entry: Entry) -> Answer<'_, Result<Option<Freeze>, StoreFault>>;

    /// Ends a freeze, with THAWED in the same transaction; false where there is none.
    fn thaw(&self, scope: FreezeScope, entry: Entry) -> Answer<'_, Result<bool, StoreFault>>;

    /// Gives a frozen key that was known by its name alone its thumbprints too, with FROZEN in the same transaction;
    /// false where there is no such freeze.
    fn complete_freeze(
        &self,
        scope: FreezeScope,
        thumbprints: Vec<Digest>,
        entry: Entry,
    ) -> Answer<'_, Result<bool, StoreFault>>;

    /// The freezes that stand, oldest first.
    fn freezes(&self) -> Answer<'_, Result<Vec<Freeze>, StoreFault>>;

    /// Posts that a broker lives; answers whether those that live decide by different policy sets.
    fn beat(&self, beat: Beat) -> Answer<'_, Result<Option<Skew>, StoreFault>>;

    /// Records the alert of a difference that began then; false where another broker did, or they agree by now.
    fn tell_skew(&self, since: Timestamp, entry: Entry) -> Answer<'_, Result<bool, StoreFault>>;

    /// Takes a broker off the list of those that live.
    fn leave(&self, replica: ReplicaId) -> Answer<'_, Result<(), StoreFault>>;

    /// Makes a policy set the newest accepted one, with its entry in the same transaction, unless it lacks a name of
    /// the one before and nobody lets it in.
    fn load_policy(&self, load: PolicyLoad) -> Answer<'_, Result<PolicyVerdict, StoreFault>>;

    /// One issuance row.
    fn issuance(&self, id: IssuanceId) -> Answer<'_, Result<Option<IssuanceRow>, StoreFault>>;

    /// Whether this token had its five denials (contract: section 6). Answered from memory.
    fn is_spent(&self, token: &Digest, now: Timestamp) -> bool;

    /// Turns every summary row into a SUMMARY entry, drops rows whose time is over; called every minute and at stop.
    /// `seal` makes the entry of one row.
    fn sweep<'a>(
        &'a self,
        now: Timestamp,
        seal: &'a (dyn Fn(Summary) -> Option<Entry> + Send + Sync),
    ) -> Answer<'a, Result<(), StoreFault>>;

    /// Ledger entries, newest first, filtered in the database.
    fn entries(&self, query: EntryQuery) -> Answer<'_, Result<Vec<StoredEntry>, StoreFault>>;

    /// One entry by its index.
    fn entry(&self, index: u64) -> Answer<'_, Result<Option<StoredEntry>, StoreFault>>;

    /// The proof that the entry is in the ledger of the newest checkpoint (C2SP tlog-proof); `None` where there is
    /// no such entry.
    fn proof(&self, index: u64) -> Answer<'_, Result<Option<String>, StoreFault>>;

    /// The newest signed checkpoint (C2SP tlog-checkpoint).
    fn checkpoint(&self) -> Answer<'_, Result<String, StoreFault>>;

    /// The bytes of a tile (C2SP tlog-tiles); `None` where the ledger has not all of it yet.
    fn tile(&self, tile: Tile) -> Answer<'_, Result<Option<Vec<u8>>, StoreFault>>;

    /// Whether the writer is alive and its last commit succeeded.
    fn health(&self) -> Result<(), StoreFault>;

    /// Writes what it counts of its own work; one that counts nothing shows nothing.
    fn expose(&self, _to: &mut super::metrics::Exposition) {}
}

/// Why the store did not do it. Nothing was changed, as far as anyone may rely on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// The queue is full.
    #[error("the ledger's queue is full")]
    Overloaded,
    /// The database refused, is full, locked, read-only or gone.
    #[error("the database cannot be written: {0}")]
    Unavailable(String),
}

/// An entry's place in the ledger, with its proof against the signed head of its own batch.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The entry's index.
    pub index: u64,
    /// The entry's bytes as stored.
    pub entry: Vec<u8>,
    /// The proof (C2SP tlog-proof text).
    pub proof: String,
}

/// A refusal to be recorded.
pub struct Refusal {
    /// The DENIED entry.
    pub entry: Entry,
    /// Who is counted: one summary row each.
    pub counted: Counted,
    /// Always an entry, whatever the rate (`token_replayed`).
    pub always: bool,
    /// The token's mark and end, where this refusal counts against it (denials and replays).
    pub against: Option<(Digest, Timestamp)>,
    /// The precise reason, kept as a sample in a summary row; never a secret, never longer than 200 characters.
    pub sample: String,
    /// The time.
    pub now: Timestamp,
}

/// The subject of a count.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Counted {
    /// A project of a tenant that some rule names.
    Project {
        /// The issuer.
        issuer: IssuerName,
        /// The immutable project id; empty where the issuer's profile knows no projects.
        project: String,
    },
    /// Authentic tokens of an issuer whose tenant no rule names.
    Strangers {
        /// The issuer.
        issuer: IssuerName,
    },
    /// Tokens that could not be verified; the issuer is the configured one that they claim, if any.
    Unverified {
        /// The issuer.
        issuer: Option<IssuerName>,
    },
}

/// What a summary row has counted.
pub struct Summary {
    /// Whose refusals.
    pub counted: Counted,
    /// How many.
    pub count: u64,
    /// The first and the last.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// At most five reasons.
    pub samples: Vec<String>,
}

/// The durable step of an exchange.
pub struct Issue {
    /// The decision.
    pub decision: DecisionId,
    /// What it takes.
    pub claims: Claims,
    /// Until when once-rows live: `exp` + 2L + 60 s.
    pub once_until: Timestamp,
    /// The rows; empty where `failed`.
    pub rows: Vec<NewIssuance>,
    /// INTENT and ISSUED (or FAILED) of every credential.
    pub entries: Vec<Entry>,
    /// What this step is.
    pub stage: Stage,
    /// The generation of the sealed store that fetches looked at, if any did.
    pub sealed_generation: Option<u64>,
    /// The time.
    pub now: Timestamp,
}

/// What a durable step records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// INTENT and FAILED: the verdict on claims still wins, but nothing is claimed or counted.
    Failed,
    /// INTENT alone, before anything is made.
    Intent,
    /// INTENT and ISSUED both.
    Whole,
}

/// What an exchange takes of what there is only so much of: all of it, or nothing.
#[derive(Clone)]
pub struct Claims {
    /// The idempotency key, where one was given.
    pub key: Option<KeyClaim>,
    /// For each credential the once-keys of its uses, in their order; the lowest free one is taken.
    pub once: Vec<Vec<Digest>>,
    /// The limits of its grants, one a grant that has some.
    pub quotas: Vec<Quota>,
    /// What a freeze may hold of it.
    pub freezable: Freezable,
}

/// A grant's limits, and what a call adds to what they count.
#[derive(Clone, Debug)]
pub struct Quota {
    /// The grant.
    pub grant: GrantName,
    /// Over what it is counted.
    pub over: QuotaScope,
    /// Intents within 60 minutes, this one's included.
    pub issuances_per_hour: Option<u32>,
    /// Credentials that are usable at one time.
    pub live: Option<u32>,
    /// Credentials that the call asks for.
    pub asked: u32,
    /// Those of them that are not static.
    pub asked_live: u32,
}

/// Over what a limit is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaScope {
    /// The grant.
    Grant,
    /// The grant, for one project.
    Project {
        /// The issuer.
        issuer: IssuerName,
        /// The immutable project id; empty where the issuer's profile knows no projects.
        project: String,
    },
}

/// A limit that a call would pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The grant.
    pub grant: GrantName,
    /// Which of its limits.
    pub limit: Limit,
    /// How much it allows.
    pub allowed: u32,
    /// How much of that is taken.
    pub used: u32,
    /// How much more the call asks for.
    pub asked: u32,
    /// When there will be room for it, if nobody else takes that; `None` where it asks for more than is allowed at all.
    pub room_at: Option<Timestamp>,
}

/// A grant's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `issuances_per_hour`
    IssuancesPerHour,
    /// `live`
    Live,
}

impl Limit {
    /// The word in policy files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IssuancesPerHour => "issuances_per_hour",
            Self::Live => "live",
        }
    }
}

/// A claimed idempotency key.
#[derive(Clone, Copy)]
pub struct KeyClaim {
    /// HMAC over issuer, token id and key.
    pub key: Digest,
    /// Digest of route and body.
    pub body: Digest,
}

/// A row to be.
#[derive(Clone)]
pub struct NewIssuance {
    /// Its id.
    pub id: IssuanceId,
    /// Its grant.
    pub grant: GrantName,
    /// Its credential.
    pub credential: CredentialName,
    /// Its kind.
    pub kind: Kind,
    /// SHA-256 of the handle.
    pub handle: Digest,
    /// The issuer of the job.
    pub issuer: IssuerName,
    /// The token's id.
    pub token: Digest,
    /// The immutable id of the job's project, where the profile knows projects.
    pub project: Option<String>,
    /// The job key's digest, where the profile gives one.
    pub job: Option<Digest>,
    /// What bounds its life.
    pub lifetime: Lifetime,
    /// Issued at.
    pub issued_at: Timestamp,
    /// Ends at.
    pub expires_at: Option<Timestamp>,
    /// Until when it counts as live, unless it is revoked before; `None` where static.
    pub live_until: Option<Timestamp>,
    /// Whether it can be revoked.
    pub revocable: bool,
    /// The replica that made it.
    pub owner: ReplicaId,
    /// Exchange deadline + 30 s.
    pub recover_after: Timestamp,
    /// What making it changes elsewhere.
    pub making: Making,
}

/// What the durable step found.
pub enum IssueVerdict {
    /// The sealed store changed since the fetch: fetch again.
    Moved,
    /// Durable; one receipt an entry, in order.
    Recorded(Vec<Receipt>),
    /// Its claims cannot be had; nothing is recorded or claimed.
    Refused(ClaimRefused),
}

/// Why claims cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub enum ClaimRefused {
    /// A limit of a grant is reached: 429.
    Exceeded(Exceeded),
    /// A freeze holds: 403.
    Frozen(FreezeScope),
    /// The first call under the same key is still running somewhere: 409.
    InProgress,
    /// Another body under the same key: 422.
    Mismatch,
    /// A retry under its key, and these of what the call got before can be revoked: that comes first.
    ReplaceFirst(Vec<IssuanceId>),
    /// No free use: 409.
    Replayed,
}

/// A policy set that is about to decide.
pub struct PolicyLoad {
    /// Its digest.
    pub digest: Digest,
    /// What later sets must not lose, such as `guardrail/base`; sorted.
    pub names: Vec<String>,
    /// What it lacks of the set before, as an earlier [`PolicyVerdict::Lacking`] said; the entry tells of it.
    pub lost: Vec<String>,
    /// POLICY_LOADED.
    pub entry: Entry,
    /// The time.
    pub now: Timestamp,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum PolicyVerdict {
    /// It lacks what the newest accepted set has, or something else than was said; nothing is recorded.
    Lacking {
        /// What.
        lost: Vec<String>,
        /// Whether an operator lets it in all the same.
        is_let_in: bool,
    },
    /// Durable: it may decide.
    Loaded,
}

/// A row as stored.
#[derive(Clone, Debug)]
pub struct IssuanceRow {
    /// Its id.
    pub id: IssuanceId,
    /// Its decision.
    pub decision: DecisionId,
    /// Its grant.
    pub grant: String,
    /// Its credential.
    pub credential: String,
    /// Its kind.
    pub kind: String,
    /// Where it stands.
    pub state: State,
    /// SHA-256 of the handle.
    pub handle: Digest,
    /// The issuer of the job.
    pub issuer: String,
    /// The token's id.
    pub token: Digest,
    /// The job key's digest.
    pub job: Option<Digest>,
    /// What bounds its life.
    pub lifetime: Lifetime,
    /// Issued at.
    pub issued_at: Timestamp,
    /// Ends at.
    pub expires_at: Option<Timestamp>,
    /// Until when it may be usable, where that is not `expires_at`.
    pub usable_until: Option<Timestamp>,
    /// Whether it can be revoked.
    pub revocable: bool,
    /// What making it changes elsewhere; `None` where it was whole at once.
    pub making: Option<Making>,
    /// What revokes it, sealed by whoever made it.
    pub held: Option<Vec<u8>>,
    /// Until when it counts as live.
    pub live_until: Option<Timestamp>,
    /// How often its revoke was tried.
    pub tries: u32,
    /// Whether it was told that its revoke is not confirmed in time.
    pub is_told: bool,
}
