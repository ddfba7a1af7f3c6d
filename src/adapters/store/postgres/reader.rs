//! Readers: a few connections that cannot write, each used by one caller at a time, in a snapshot of its own. They never
//! hold up the writer.

use std::time::Duration;

use sqlx::{
    PgConnection, PgPool, QueryBuilder, Row as _,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};

use super::{
    Postgres, Trouble, query,
    schema::{bytes, bytes_if_any, digest, moment, moment_if_any, signed, unsigned, word},
    tree,
};
use crate::{
    broker::ports::{Answer, EntryQuery, IssuanceRow, StoreFault, StoredEntry},
    kernel::{
        digest::Digest,
        id::{DecisionId, IssuanceId},
        issuance::State,
        ledger::{checkpoint::Checkpoint, proof::TlogProof},
        lifetime::Lifetime,
        policy::target::Making,
    },
};

/// Readers at once; more wait for one of them.
const READERS: u32 = 4;

/// How long a reading may take.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    /// A search or an export: ten seconds.
    Long,
    /// A few rows, on the way of an exchange: what takes longer is a database that is gone (contract: within a second).
    Short,
}

impl Patience {
    fn deadline(self) -> Duration {
        match self {
            Self::Long => Duration::from_secs(10),
            Self::Short => Duration::from_millis(900),
        }
    }
}

/// The pool; nothing is connected yet.
pub(super) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(Duration::from_millis(900))
        .idle_timeout(Duration::from_secs(60))
        .connect_lazy_with(options)
}

impl Postgres {
    /// Reads in a snapshot of its own. Where the database is known to be gone it answers at once.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        patience: Patience,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> Answer<'c, Result<T, Trouble>> + Send + 'static,
    ) -> Result<T, StoreFault> {
        if let Some(fault) = self.shared.ailing() {
            return Err(fault);
        }
        let pool = self.pool.clone();
        let mut task = self.engine.handle().spawn(async move {
            let mut snapshot = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let read = work(&mut snapshot).await?;
            snapshot.commit().await?;
            Ok::<T, Trouble>(read)
        });
        let Ok(ended) = tokio::time::timeout(patience.deadline(), &mut task).await else {
            task.abort();
            return Err(StoreFault::Unavailable("the reading took too long".to_owned()));
        };
        let read = ended.map_err(|_| StoreFault::Unavailable("a reader ended early".to_owned()))?;
        read.map_err(|trouble| StoreFault::Unavailable(trouble.to_string()))
    }

    /// Whether the first entries of this ledger are those of that head, and how many entries this ledger has.
    ///
    /// # Errors
    ///
    /// [`StoreFault::Unavailable`].
    pub async fn begins_with(&self, seen: &Checkpoint) -> Result<(bool, u64), StoreFault> {
        let seen = seen.clone();
        self.read(Patience::Long, move |conn| {
            Box::pin(async move {
                let now = tree::load(conn).await?.head;
                let size = now.frontier.size();
                let begins = tree::begins_with(conn, (seen.size, &seen.root), (size, &now.root)).await?;
                Ok((begins, size))
            })
        })
        .await
    }
}

/// Entries that a query asks for, newest first.
pub(super) async fn entries(
    conn: &mut PgConnection,
    query: &EntryQuery,
) -> Result<Vec<StoredEntry>, Trouble> {
    let rows = query::build(query).build().fetch_all(&mut *conn).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.push((unsigned(row, 0)?, row.try_get::<Vec<u8>, _>(1)?));
    }
    stored_entries(conn, found).await
}

/// One entry.
pub(super) async fn entry(conn: &mut PgConnection, index: u64) -> Result<Option<StoredEntry>, Trouble> {
    let row: Option<Vec<u8>> = sqlx::query_scalar("SELECT bytes FROM entry WHERE idx = $1")
        .bind(signed(index))
        .fetch_optional(&mut *conn)
        .await?;
    let Some(bytes) = row else { return Ok(None) };
    Ok(stored_entries(conn, vec![(index, bytes)]).await?.pop())
}

/// The proof that an entry is in the ledger of the newest head.
pub(super) async fn proof(conn: &mut PgConnection, index: u64) -> Result<Option<String>, Trouble> {
    let row = tree::load(conn).await?;
    let size = row.head.frontier.size();
    if index >= size {
        return Ok(None);
    }
    let hashes = tree::inclusion(conn, index, size).await?;
    Ok(Some(TlogProof { index, hashes, checkpoint: row.note }.to_string()))
}

/// The newest signed head.
pub(super) async fn checkpoint(conn: &mut PgConnection) -> Result<String, Trouble> {
    Ok(sqlx::query_scalar("SELECT note FROM head WHERE one = 1").fetch_one(conn).await?)
}

/// One issuance row.
pub(super) async fn issuance(
    conn: &mut PgConnection,
    id: IssuanceId,
) -> Result<Option<IssuanceRow>, Trouble> {
    let mut sql = QueryBuilder::new("SELECT ");
    sql.push(ISSUANCE_COLUMNS).push(" FROM issuance WHERE id = ").push_bind(id.bytes().to_vec());
    let row = sql.build().fetch_optional(conn).await?;
    Ok(row.map(|row| issuance_row(&row)).transpose()?)
}

async fn stored_entries(
    conn: &mut PgConnection,
    found: Vec<(u64, Vec<u8>)>,
) -> Result<Vec<StoredEntry>, Trouble> {
    let mut personal = personal_of(conn, found.iter().map(|(index, _)| *index).collect()).await?;
    let entry = |(index, bytes)| {
        let values = personal.remove(&index).unwrap_or_default().into_iter();
        StoredEntry { index, bytes, personal: values.map(|(field, _, value)| (field, value)).collect() }
    };
    Ok(found.into_iter().map(entry).collect())
}

/// Field, blinding bytes and value of each personal value, by the entry's index.
pub(super) type Personal = std::collections::HashMap<u64, Vec<(String, [u8; 32], String)>>;

pub(super) async fn personal_of(conn: &mut PgConnection, indices: Vec<u64>) -> sqlx::Result<Personal> {
    let rows = sqlx::query(
        "SELECT idx, field, blinding, value FROM personal WHERE idx = ANY($1) ORDER BY idx, ordinal",
    )
    .bind(indices.into_iter().map(signed).collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;
    let mut found = Personal::new();
    for row in &rows {
        let value = (row.try_get(1)?, bytes(row, 2)?, row.try_get(3)?);
        found.entry(unsigned(row, 0)?).or_default().push(value);
    }
    Ok(found)
}

/// What [`issuance_row`] reads, in its order.
pub(super) const ISSUANCE_COLUMNS: &str = "id, decision, grant_name, credential, kind, state, handle, issuer, \
     token, job, lifetime, issued_at, expires_at, usable_until, revocable, making, \
     held, live_until, tries, told";

/// An issuance of [`ISSUANCE_COLUMNS`].
pub(super) fn issuance_row(row: &PgRow) -> sqlx::Result<IssuanceRow> {
    Ok(IssuanceRow {
        id: IssuanceId::from_bytes(bytes(row, 0)?),
        decision: DecisionId::from_bytes(bytes(row, 1)?),
        grant: row.try_get(2)?,
        credential: row.try_get(3)?,
        kind: row.try_get(4)?,
        state: word(row, 5, State::parse)?,
        handle: digest(row, 6)?,
        issuer: row.try_get(7)?,
        token: digest(row, 8)?,
        job: bytes_if_any::<32>(row, 9)?.map(Digest),
        lifetime: word(row, 10, Lifetime::parse)?,
        issued_at: moment(row, 11)?,
        expires_at: moment_if_any(row, 12)?,
        usable_until: moment_if_any(row, 13)?,
        revocable: row.try_get(14)?,
        making: making(row, 15)?,
        held: row.try_get(16)?,
        live_until: moment_if_any(row, 17)?,
        tries: u32::try_from(unsigned(row, 18)?).unwrap_or(u32::MAX),
        is_told: row.try_get(19)?,
    })
}

fn making(row: &PgRow, at: usize) -> sqlx::Result<Option<Making>> {
    let found: Option<&str> = row.try_get(at)?;
    found.map(|_| word(row, at, Making::parse)).transpose()
}
