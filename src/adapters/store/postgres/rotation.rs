//! Another ledger key in the place of the one that there is, in one transaction with its KEY_ROTATED entry. The head
//! names the key from then on, so that each broker takes it up before it signs anything more, and the database refuses a
//! head without its signature.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{
    Postgres, Trouble,
    batch::{Batch, Direct},
    open::open_key,
    reader::Patience,
    schema::{moment, signed, unsigned},
    writer::Signer,
};
use crate::{
    adapters::store::shared::{
        keys::LEDGER,
        rotation::{
            self, Found, Handover, HeldKey, NextSeed, PAST_KEYS, PastKey, Random, Rotated, RotationFault,
            SEALING_CHECK, TRIES, Telling,
        },
        secrets::read_only,
        stored::stored,
    },
    broker::ports::{Answer, StoreFault},
    kernel::{
        digest::Digest,
        ledger::checkpoint::{Checkpoint, LogKey, NoteFault, VerifierKey},
    },
};

/// The fact that tells the ledger's public key.
const LEDGER_KEY: &str = "ledger_key";

impl Postgres {
    /// Puts a new ledger key in the place of the one that there is. From this transaction on every broker signs with it.
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
        let keyring = self.keyring().ok_or_else(read_only)?;
        for _ in 0..TRIES {
            let standing = self.read(Patience::Short, |conn| Box::pin(standing(conn))).await?;
            let next = NextSeed::make(keyring, (standing.version, standing.check), &random)?;
            let rotate = RotateLedger { next, now, tell: Arc::clone(&tell) };
            match self.submit_direct(rotate).await? {
                (Found::Done(told, place), committed) => {
                    return Ok(Rotated { index: Some(committed.first.saturating_add(place)), told });
                }
                (Found::Moved, _) => {}
                (Found::Refused(fault), _) => return Err(fault),
            }
        }
        Err(RotationFault::Contended)
    }

    /// The keys that the store holds, and those of the ledger that it held; oldest first within a purpose.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn held_keys(&self) -> Result<Vec<HeldKey>, StoreFault> {
        self.read(Patience::Short, |conn| Box::pin(held_keys(conn))).await
    }

    /// Opens a note that one of the ledger's keys signed, of today or before.
    ///
    /// # Errors
    ///
    /// [`StoreFault`]; within it [`NoteFault`].
    pub async fn open_checkpoint(&self, note: &str) -> Result<Result<Checkpoint, NoteFault>, StoreFault> {
        // As the database has them now: this process may not have taken its turn since they were changed.
        let keys = self.read(Patience::Short, |conn| {
            Box::pin(async move {
                let own = public_key(conn).await?;
                let past = fact(conn, PAST_KEYS).await?;
                Ok((own, rotation::past_keys(past.as_deref()).map_err(Trouble::Damaged)?))
            })
        });
        let (own, past) = keys.await?;
        Ok(rotation::open_note(note, &own.unwrap_or_else(|| self.verifier_key()), &past))
    }
}

/// The ledger's key as it is kept.
pub(super) async fn own_key(conn: &mut PgConnection, signer: &Signer) -> Result<LogKey, Trouble> {
    let seed = open_key(conn, &signer.sealing, LEDGER).await?;
    LogKey::from_seed(&signer.origin, &seed).ok_or(Trouble::Damaged("the ledger key does not fit its origin"))
}

/// A fact about the database, where there is such a one.
pub(super) async fn fact(conn: &mut PgConnection, name: &str) -> sqlx::Result<Option<Vec<u8>>> {
    sqlx::query_scalar("SELECT value FROM meta WHERE name = $1").bind(name).fetch_optional(conn).await
}

/// Writes one.
pub(super) async fn set_fact(conn: &mut PgConnection, name: &str, value: &[u8]) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(conn)
    .await?;
    Ok(())
}

/// How the ledger's key stands.
struct Standing {
    version: u64,
    made_at: Timestamp,
    check: Vec<u8>,
}

async fn standing(conn: &mut PgConnection) -> Result<Standing, Trouble> {
    let row = sqlx::query("SELECT version, made_at FROM keys WHERE purpose = $1")
        .bind(LEDGER)
        .fetch_one(&mut *conn)
        .await?;
    let check = fact(conn, SEALING_CHECK).await?.unwrap_or_default();
    Ok(Standing { version: unsigned(&row, 0)?, made_at: moment(&row, 1)?, check })
}

/// The ledger's public key, where it can be read.
async fn public_key(conn: &mut PgConnection) -> sqlx::Result<Option<VerifierKey>> {
    let text = fact(conn, LEDGER_KEY).await?.and_then(|text| String::from_utf8(text).ok());
    Ok(text.and_then(|text| VerifierKey::parse(&text)))
}

async fn held_keys(conn: &mut PgConnection) -> Result<Vec<HeldKey>, Trouble> {
    let own = public_key(conn).await?;
    let past = rotation::past_keys(fact(conn, PAST_KEYS).await?.as_deref()).map_err(Trouble::Damaged)?;
    let rows = sqlx::query("SELECT purpose, version, made_at FROM keys").fetch_all(conn).await?;
    let read = |row: &PgRow| -> sqlx::Result<_> { Ok((row.try_get(0)?, unsigned(row, 1)?, moment(row, 2)?)) };
    let stored = rows.iter().map(read).collect::<sqlx::Result<_>>()?;
    Ok(rotation::held(past, own.as_ref(), stored))
}

struct RotateLedger {
    next: NextSeed,
    now: Timestamp,
    tell: Telling<Handover>,
}

impl RotateLedger {
    async fn rotate(
        &self,
        conn: &mut PgConnection,
        batch: &mut Batch<'_>,
    ) -> Result<Found<VerifierKey>, Trouble> {
        let before = standing(conn).await?;
        let is_same = before.version == self.next.before && before.check == self.next.check;
        if !is_same || batch.next_key.is_some() {
            return Ok(Found::Moved);
        }
        // The tree right before the entry, with what this batch appends before it.
        let leaves: Vec<Digest> = batch.entries.iter().map(|prepared| prepared.entry.leaf).collect();
        let place = leaves.len();
        let tree = batch.head.frontier.append(&leaves).frontier;
        let signer = (&batch.signer.key, batch.signer.origin.as_str());
        let (next, handover, entry) =
            match self.next.hand_over(signer, (tree.size(), &tree.root()), &self.tell) {
                Ok(made) => made,
                Err(fault) => return Ok(Found::Refused(fault)),
            };
        let Handover { version, old, new, .. } = handover;
        let past = fact(conn, PAST_KEYS).await?;
        let mut past = rotation::past_keys(past.as_deref()).map_err(Trouble::Damaged)?;
        past.push(PastKey {
            version: before.version,
            key: old.to_string(),
            made_at: before.made_at,
            retired_at: self.now,
        });
        set_fact(conn, PAST_KEYS, &serde_json::to_vec(&past).unwrap_or_default()).await?;
        set_fact(conn, LEDGER_KEY, new.to_string().as_bytes()).await?;
        sqlx::query("UPDATE keys SET version = $2, sealed = $3, made_at = $4 WHERE purpose = $1")
            .bind(LEDGER)
            .bind(signed(version))
            .bind(self.next.record.bytes.as_slice())
            .bind(stored(self.now))
            .execute(conn)
            .await?;
        batch.append(&[entry]);
        batch.next_key = Some(next);
        Ok(Found::Done(new, place as u64))
    }
}

impl Direct for RotateLedger {
    type Found = Found<VerifierKey>;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<Self::Found, Trouble>> {
        Box::pin(self.rotate(conn, batch))
    }
}
