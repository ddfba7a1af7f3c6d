//! Another sealing key over all that is kept, while brokers serve: records are wrapped anew a few at a time, each few in a
//! transaction as short as an exchange's, and then one transaction says with its entry that the key is the store's.
//!
//! While it runs, records stand under two keys, and a fact says which the second one is: nobody opens the store without
//! both, and new records go on being sealed with the first, which every process knows. Whoever stops in the middle leaves
//! a store that works, and goes on by doing it again. No broker is left behind: each says which keys it knows, in a
//! transaction under the same lock as ours.

use std::sync::Arc;

use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{
    Postgres, Trouble,
    batch::{Batch, Direct},
    reader::Patience,
    replicas::post,
    rotation::{fact, set_fact},
    schema::unsigned,
    tree,
};
use crate::{
    adapters::store::shared::{
        columns::Prepared,
        rotation::{
            Found, Random, Rotated, RotationFault, SEALING_CHECK, SEALING_NEXT, SealingHandover, Telling,
        },
        secrets::read_only,
    },
    broker::{
        ports::{Answer, Beat, StoreFault},
        replicas::ALIVE,
    },
    kernel::{
        digest::Digest,
        sealing::{Keyring, PURPOSE_KEY, PURPOSE_SECRET, SealFault, Sealed, SealedRecord, SealingKey},
    },
};

/// Records of one transaction: it ends before anybody waits for it.
const RECORDS: i64 = 16;
/// How often all records are looked through before somebody who keeps changing them is told of.
const PASSES: usize = 20;

impl Postgres {
    /// Says in the store which sealing keys this broker knows, so that nobody wraps what it then cannot open.
    ///
    /// # Errors
    ///
    /// [`StoreFault`], also where records are sealed with a key that is none of these.
    pub async fn announce(&self, beat: Beat, known: &Keyring) -> Result<(), StoreFault> {
        let announce = Announce { beat, checks: known.checks() };
        if self.submit_direct(announce).await?.0 {
            return Ok(());
        }
        Err(StoreFault::Unavailable(
            "the database is sealed with a key that the configuration does not name".to_owned(),
        ))
    }

    /// What tells the key that the store is sealed with.
    ///
    /// # Errors
    ///
    /// [`StoreFault`].
    pub async fn sealed_with(&self) -> Result<Digest, StoreFault> {
        self.read(Patience::Short, |conn| {
            Box::pin(async move {
                let check = fact(conn, SEALING_CHECK).await?.unwrap_or_default();
                digest_of(&check).ok_or(Trouble::Damaged("what tells the sealing key is no digest"))
            })
        })
        .await
    }

    /// Wraps whatever is sealed under the newest sealing key. Stopped in the middle, it is gone on with when it is asked
    /// again.
    ///
    /// # Errors
    ///
    /// [`RotationFault`]; records that are wrapped anew by then stay so.
    pub async fn rewrap(
        &self,
        random: Random,
        tell: Telling<SealingHandover>,
    ) -> Result<Rotated<u64>, RotationFault> {
        let keyring = self.keyring().ok_or_else(read_only)?.clone();
        let newest = keyring.newest().ok_or(SealFault::WrongKey)?;
        let of = Arc::new(Wrapping { keyring, newest, random });
        for _ in 0..PASSES {
            let standing = self.read(Patience::Short, |conn| Box::pin(standing(conn))).await?;
            let (left, records) = self.pass(&of).await?;
            if left > 0 {
                continue;
            }
            if standing.next.is_empty() && standing.check == of.newest.check().0 {
                return Ok(Rotated { index: None, told: 0 });
            }
            let end = End { standing, records, of: Arc::clone(&of), tell: Arc::clone(&tell) };
            match self.submit_direct(end).await? {
                (Found::Done(told, place), committed) => {
                    return Ok(Rotated { index: Some(committed.first.saturating_add(place)), told });
                }
                (Found::Moved, _) => {}
                (Found::Refused(fault), _) => return Err(fault),
            }
        }
        Err(RotationFault::Contended)
    }

    /// Looks through all records and wraps those that are not yet; answers how many those were, and how many there are.
    async fn pass(&self, of: &Arc<Wrapping>) -> Result<(u64, u64), RotationFault> {
        let (mut left, mut records) = (0_u64, 0_u64);
        for table in [KEYS, SECRETS] {
            let mut past = String::new();
            loop {
                let from = past.clone();
                let page = self.read(Patience::Short, move |conn| {
                    Box::pin(async move { Ok(page(conn, table, &from).await?) })
                });
                let page = page.await?;
                let Some(last) = page.last() else { break };
                past.clone_from(&last.name);
                records = records.saturating_add(page.len() as u64);
                let changes = of.wrap(table, page)?;
                if changes.is_empty() {
                    continue;
                }
                left = left.saturating_add(changes.len() as u64);
                let part = Part { table, changes, check: of.newest.check() };
                match self.submit_direct(part).await?.0 {
                    Found::Done((), _) | Found::Moved => {}
                    Found::Refused(fault) => return Err(fault),
                }
            }
        }
        Ok((left, records))
    }
}

/// A table of sealed records, by name.
#[derive(Clone, Copy)]
struct Table {
    purpose: &'static str,
    select: &'static str,
    update: &'static str,
}

const KEYS: Table = Table {
    purpose: PURPOSE_KEY,
    select: "SELECT purpose, version, sealed FROM keys
             WHERE purpose COLLATE \"C\" > $1 ORDER BY purpose COLLATE \"C\" LIMIT $2",
    update: "UPDATE keys SET sealed = fresh.after
             FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS fresh (name, before, after)
             WHERE keys.purpose = fresh.name AND keys.sealed = fresh.before",
};
const SECRETS: Table = Table {
    purpose: PURPOSE_SECRET,
    select: "SELECT name, version, sealed FROM secret
             WHERE name COLLATE \"C\" > $1 AND sealed IS NOT NULL ORDER BY name COLLATE \"C\" LIMIT $2",
    update: "UPDATE secret SET sealed = fresh.after
             FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS fresh (name, before, after)
             WHERE secret.name = fresh.name AND secret.sealed = fresh.before",
};

/// One record as the tables have it.
struct Record {
    name: String,
    version: u64,
    record: SealedRecord,
}

async fn page(conn: &mut PgConnection, table: Table, past: &str) -> sqlx::Result<Vec<Record>> {
    let rows = sqlx::query(table.select).bind(past).bind(RECORDS).fetch_all(conn).await?;
    let read = |row: &PgRow| -> sqlx::Result<Record> {
        let record = SealedRecord { bytes: row.try_get(2)? };
        Ok(Record { name: row.try_get(0)?, version: unsigned(row, 1)?, record })
    };
    rows.iter().map(read).collect()
}

/// What wraps, and what opens what was wrapped before.
struct Wrapping {
    keyring: Keyring,
    newest: Arc<SealingKey>,
    random: Random,
}

/// A record before and after.
struct Changed {
    name: String,
    before: SealedRecord,
    after: SealedRecord,
}

impl Wrapping {
    /// Those of the records that the newest key does not wrap yet, wrapped by it.
    fn wrap(&self, table: Table, records: Vec<Record>) -> Result<Vec<Changed>, RotationFault> {
        let mut changes = Vec::new();
        for Record { name, version, record } in records {
            let of = Sealed { purpose: table.purpose, name: &name, version };
            if self.newest.wraps(of, &record) {
                continue;
            }
            let known = self.keyring.checks().into_iter().filter_map(|check| self.keyring.of(&check.0));
            let Some(key) = known.into_iter().find(|key| key.wraps(of, &record)) else {
                return Err(RotationFault::Unknown(name));
            };
            let mut nonce = [0; 12];
            if !(self.random)(&mut nonce) {
                return Err(RotationFault::NoEntropy);
            }
            let after = key.rewrap(of, &record, (&self.newest, &nonce))?;
            changes.push(Changed { name, before: record, after });
        }
        Ok(changes)
    }
}

/// What the store says of its sealing keys, and how often its secrets were changed.
struct Standing {
    check: Vec<u8>,
    next: Vec<u8>,
    generation: u64,
}

async fn standing(conn: &mut PgConnection) -> Result<Standing, Trouble> {
    let check = fact(conn, SEALING_CHECK).await?.unwrap_or_default();
    let next = fact(conn, SEALING_NEXT).await?.unwrap_or_default();
    Ok(Standing { check, next, generation: tree::load(conn).await?.generation })
}

/// Whether a broker is alive that did not say that it knows that key.
async fn is_unknown(conn: &mut PgConnection, check: Digest) -> sqlx::Result<bool> {
    let rows = sqlx::query(
        "SELECT sealing FROM replica
         WHERE seen > (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint - $1",
    )
    .bind(i64::try_from(ALIVE.as_nanos()).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await?;
    for row in &rows {
        let known: Option<Vec<u8>> = row.try_get(0)?;
        if !known.unwrap_or_default().chunks(check.0.len()).any(|known| known == check.0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Wraps some records.
struct Part {
    table: Table,
    changes: Vec<Changed>,
    check: Digest,
}

impl Part {
    async fn write(&self, conn: &mut PgConnection, batch: &mut Batch<'_>) -> Result<Found<()>, Trouble> {
        if is_unknown(conn, self.check).await? {
            return Ok(Found::Refused(RotationFault::NotServed));
        }
        // Somebody else wraps under another key. Both would go on for ever.
        let next = fact(conn, SEALING_NEXT).await?.unwrap_or_default();
        let is_used = fact(conn, SEALING_CHECK).await?.as_deref() == Some(&self.check.0);
        if !is_used && !next.is_empty() && next != self.check.0 {
            return Ok(Found::Refused(RotationFault::Contended));
        }
        if !is_used && next.is_empty() {
            set_fact(conn, SEALING_NEXT, &self.check.0).await?;
        }
        // Back to the key that is the store's, while another may be about to end: that one shall see that all moved.
        if is_used && !next.is_empty() {
            batch.generation = batch.generation.saturating_add(1);
        }
        sqlx::query(self.table.update)
            .bind(self.changes.iter().map(|each| each.name.as_str()).collect::<Vec<_>>())
            .bind(self.changes.iter().map(|each| each.before.bytes.as_slice()).collect::<Vec<_>>())
            .bind(self.changes.iter().map(|each| each.after.bytes.as_slice()).collect::<Vec<_>>())
            .execute(conn)
            .await?;
        Ok(Found::Done((), 0))
    }
}

impl Direct for Part {
    type Found = Found<()>;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<Self::Found, Trouble>> {
        Box::pin(self.write(conn, batch))
    }
}

/// Says that the newest key is the store's, unless anything changed since all was seen to be wrapped by it.
struct End {
    standing: Standing,
    records: u64,
    of: Arc<Wrapping>,
    tell: Telling<SealingHandover>,
}

impl End {
    async fn write(&self, conn: &mut PgConnection, batch: &mut Batch<'_>) -> Result<Found<u64>, Trouble> {
        let new = self.of.newest.check();
        if is_unknown(conn, new).await? {
            return Ok(Found::Refused(RotationFault::NotServed));
        }
        let now = standing(conn).await?;
        let seen = (&self.standing.check, &self.standing.next, self.standing.generation);
        // The batch counts what those before us in it changed.
        if (&now.check, &now.next, batch.generation) != seen || !self.wraps_all(KEYS, conn).await? {
            return Ok(Found::Moved);
        }
        // Whoever wraps the other way leaves no trace but the records.
        let is_going_back = !now.next.is_empty() && now.next != new.0;
        if is_going_back && !self.wraps_all(SECRETS, conn).await? {
            return Ok(Found::Moved);
        }
        let old = digest_of(&now.check).ok_or(Trouble::Damaged("what tells the sealing key is no digest"))?;
        let told = SealingHandover { old, new, records: self.records };
        let entry = (self.tell)(&told).ok_or(RotationFault::Entry);
        let entry = match entry.and_then(|entry| Ok(Prepared::new(entry)?)) {
            Ok(entry) => entry,
            Err(fault) => return Ok(Found::Refused(fault)),
        };
        set_fact(conn, SEALING_CHECK, &new.0).await?;
        set_fact(conn, SEALING_NEXT, &[]).await?;
        // All brokers read the secrets anew, so that none is left in memory that only the old key opens.
        batch.generation = batch.generation.saturating_add(1);
        let place = batch.append(&[entry]).start;
        Ok(Found::Done(self.records, place as u64))
    }

    /// Whether all records of a table are under the newest key now. The store's own keys need that look always: those of
    /// assertions come and go unseen.
    async fn wraps_all(&self, table: Table, conn: &mut PgConnection) -> sqlx::Result<bool> {
        let mut past = String::new();
        loop {
            let page = page(conn, table, &past).await?;
            let Some(last) = page.last() else { return Ok(true) };
            past.clone_from(&last.name);
            let is_wrapped = |each: &Record| {
                let of = Sealed { purpose: table.purpose, name: &each.name, version: each.version };
                self.of.newest.wraps(of, &each.record)
            };
            if !page.iter().all(is_wrapped) {
                return Ok(false);
            }
        }
    }
}

impl Direct for End {
    type Found = Found<u64>;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<Self::Found, Trouble>> {
        Box::pin(self.write(conn, batch))
    }
}

/// Says which keys a broker knows; false where it could not open all that there is.
struct Announce {
    beat: Beat,
    checks: Vec<Digest>,
}

impl Announce {
    async fn write(&self, conn: &mut PgConnection) -> Result<bool, Trouble> {
        for name in [SEALING_CHECK, SEALING_NEXT] {
            let used = fact(conn, name).await?.unwrap_or_default();
            if !used.is_empty() && !self.checks.iter().any(|check| check.0.as_slice() == used) {
                return Ok(false);
            }
        }
        post(conn, &self.beat, Some(&self.checks)).await?;
        sqlx::query("UPDATE replica SET sealing = $2 WHERE id = $1")
            .bind(self.beat.replica.bytes().as_slice())
            .bind(self.checks.iter().flat_map(|check| check.0).collect::<Vec<u8>>())
            .execute(conn)
            .await?;
        Ok(true)
    }
}

impl Direct for Announce {
    type Found = bool;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        _: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<bool, Trouble>> {
        Box::pin(self.write(conn))
    }
}

fn digest_of(bytes: &[u8]) -> Option<Digest> {
    <[u8; 32]>::try_from(bytes).ok().map(Digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapters::store::{
            Options,
            laws::{Cluster, WRITER, entry, key, now, place_of, random, with_store},
            shared::secrets::Change,
        },
        kernel::{ledger::entry::EntryCode, name::SecretName, secret::Secret},
    };

    /// Somebody who wraps records under the first of two keys.
    struct Wrapper {
        store: Arc<Postgres>,
        of: Arc<Wrapping>,
    }

    impl Wrapper {
        fn on(cluster: &Cluster, newest: u8, previous: u8) -> Self {
            let keyring = Keyring::new(key(newest), Some(key(previous)));
            let place = place_of(cluster, WRITER, "own");
            let store = Postgres::open(&place, keyring.clone(), Options::default()).unwrap();
            let of = Wrapping { keyring, newest: key(newest), random: Arc::new(random) };
            Self { store, of: Arc::new(of) }
        }

        /// Wraps until nothing is left, and what it then sees before it ends.
        async fn wrap_all(&self) -> Standing {
            loop {
                let standing =
                    self.store.read(Patience::Short, |conn| Box::pin(standing(conn))).await.unwrap();
                if self.store.pass(&self.of).await.unwrap().0 == 0 {
                    return standing;
                }
            }
        }

        /// The transaction that it is in when another one ends, which wraps the secrets and none of the keys.
        async fn wrap_secrets(&self) {
            let page = self
                .store
                .read(Patience::Short, |conn| Box::pin(async move { Ok(page(conn, SECRETS, "").await?) }));
            let changes = self.of.wrap(SECRETS, page.await.unwrap()).unwrap();
            assert_eq!(changes.len(), 1);
            let part = Part { table: SECRETS, changes, check: self.of.newest.check() };
            assert!(matches!(self.store.submit_direct(part).await.unwrap().0, Found::Done((), _)));
        }

        /// Whether it ended.
        async fn end(&self, standing: Standing) -> bool {
            let tell: Telling<SealingHandover> = Arc::new(|_| Some(entry(EntryCode::Started)));
            let end = End { standing, records: 5, of: Arc::clone(&self.of), tell };
            match self.store.submit_direct(end).await.unwrap().0 {
                Found::Done(..) => true,
                Found::Moved => false,
                Found::Refused(fault) => panic!("{fault}"),
            }
        }
    }

    #[tokio::test]
    async fn of_two_who_wrap_in_opposite_directions_neither_ends_over_what_the_other_wrapped() {
        let cluster = Cluster::start(None, "");
        with_store(&cluster, "own");
        let (forth, back) = (Wrapper::on(&cluster, 2, 1), Wrapper::on(&cluster, 1, 2));
        let name = SecretName::parse("npm-token").unwrap();
        let fields = [("value".to_owned(), Secret::from_text("one".to_owned()))];
        let told = |_| Some(entry(EntryCode::SecretSet));
        let change = Change { now: now(), random: &random, entry: &told };
        forth.store.set_secret(&name, &fields, change).await.unwrap();

        let seen = forth.wrap_all().await;
        back.wrap_secrets().await;
        assert!(!forth.end(seen).await);
        forth.wrap_all().await;
        let seen = back.wrap_all().await;
        forth.wrap_secrets().await;
        assert!(!back.end(seen).await);

        // Undisturbed, either one ends, and all is under its key.
        let seen = back.wrap_all().await;
        assert!(back.end(seen).await);
        let seen = forth.wrap_all().await;
        assert!(forth.end(seen).await);
        for who in [forth, back] {
            who.store.close().await;
        }
        let after = Postgres::open(&place_of(&cluster, WRITER, "own"), key(2), Options::default()).unwrap();
        let other =
            after.rotate_ledger_key(now(), Arc::new(random), Arc::new(|_| Some(entry(EntryCode::Started))));
        other.await.unwrap();
    }
}
