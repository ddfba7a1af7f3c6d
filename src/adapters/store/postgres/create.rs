//! Making a store: the schema in an empty database, with its keys and an empty, signed ledger, and what the roles beside
//! the owner may do. `hallpass store init` calls it, as the owner; nothing else makes state.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{
    PasswordFault, Place,
    assertions::insert,
    engine::Engine,
    open::{OpenFault, advice},
    schema::{self, MIGRATIONS, ROLES, SCHEMA},
};
use crate::{
    adapters::store::{
        shared::{
            assertions,
            head::peaks_of,
            keys::{self, FIRST_VERSION, KeyFault, LEDGER, PSEUDONYM},
            stored::stored,
        },
        sqlite::Genesis,
    },
    kernel::{
        assertion::{Algorithm, Schedule},
        ledger::{checkpoint::LogKey, tree::Frontier},
        sealing::{SealFault, SealingKey},
    },
};

/// The roles that get their privileges; the owner has all and is not named.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// Of the brokers.
    pub writer: Option<String>,
    /// Of auditors.
    pub reader: Option<String>,
}

/// Why no store was made. Then nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CreateFault {
    /// Somebody reads a table that is to get a column, and goes on reading.
    #[error(
        "the tables are in use by a long reading, such as a backup; nothing was changed, try again when that is over"
    )]
    Busy,
    /// The database.
    #[error("the schema cannot be made{}", advice(.0))]
    Database(#[source] sqlx::Error),
    /// There is a schema already.
    #[error("the database has a schema `hallpass` already; nothing was changed")]
    Exists,
    /// A later version made the schema. What roles may do there is that version's to say.
    #[error(
        "the database has schema {found}, which a later version of hallpass made, and this one knows {known}: use that \
         version; nothing was changed"
    )]
    Newer {
        /// The database's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// There were no random bytes.
    #[error("no random bytes from the operating system")]
    NoEntropy,
    /// A checkpoint cannot carry this origin.
    #[error("{0:?} cannot be a ledger's origin")]
    Origin(String),
    /// The password could not be had.
    #[error(transparent)]
    Password(#[from] PasswordFault),
    /// A key could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealFault),
    /// It took too long, or its thread could not be started.
    #[error(transparent)]
    Start(#[from] OpenFault),
}

impl From<KeyFault> for CreateFault {
    fn from(fault: KeyFault) -> Self {
        match fault {
            KeyFault::NoEntropy => Self::NoEntropy,
            KeyFault::Seal(fault) => Self::Seal(fault),
        }
    }
}

impl From<sqlx::Error> for CreateFault {
    fn from(fault: sqlx::Error) -> Self {
        let code = fault.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref() {
            // duplicate_schema
            Some("42P06") => Self::Exists,
            // lock_not_available
            Some("55P03") => Self::Busy,
            Some(_) | None => Self::Database(fault),
        }
    }
}

impl super::Postgres {
    /// Makes a store in the database, as the role that shall own it: a ledger key, keys of assertions and a pseudonym key,
    /// sealed.
    ///
    /// # Errors
    ///
    /// [`CreateFault`]; then nothing changed.
    pub fn create(
        place: &Place,
        sealing: &SealingKey,
        genesis: Genesis<'_>,
        roles: Roles,
    ) -> Result<(), CreateFault> {
        let first = First::make(sealing, genesis)?;
        let options = place.options()?;
        Engine::start()?.wait(async move {
            let mut conn = schema::connect(&options).await?;
            sqlx::query("BEGIN").execute(&mut conn).await?;
            for migration in MIGRATIONS {
                sqlx::raw_sql(migration).execute(&mut conn).await?;
            }
            first.write(&mut conn).await?;
            grant(&mut conn, &roles).await?;
            sqlx::query("COMMIT").execute(&mut conn).await?;
            Ok(())
        })?
    }

    /// Brings the schema up, as the owner; answers the one that was found and the one that is there now.
    ///
    /// # Errors
    ///
    /// [`CreateFault`]; then nothing changed.
    pub fn migrate(place: &Place, roles: Roles) -> Result<(i64, i64), CreateFault> {
        let options = place.options()?;
        Engine::start()?.wait_for(MIGRATE_DEADLINE, async move {
            let mut conn = schema::connect(&options).await?;
            for _ in 0..MIGRATE_TRIES {
                sqlx::query("BEGIN").execute(&mut conn).await?;
                match bring_up(&mut conn, &roles).await {
                    Ok(found) => {
                        sqlx::query("COMMIT").execute(&mut conn).await?;
                        return Ok((found, SCHEMA));
                    }
                    Err(CreateFault::Busy) => {
                        sqlx::query("ROLLBACK").execute(&mut conn).await?;
                        tokio::time::sleep(MIGRATE_PAUSE).await;
                    }
                    Err(fault) => return Err(fault),
                }
            }
            Err(CreateFault::Busy)
        })?
    }

    /// Gives the roles their privileges, as the owner; done again, it changes nothing.
    ///
    /// # Errors
    ///
    /// [`CreateFault`].
    pub fn grant(place: &Place, roles: Roles) -> Result<(), CreateFault> {
        let options = place.options()?;
        Engine::start()?.wait(async move {
            let mut conn = schema::connect(&options).await?;
            sqlx::query("BEGIN").execute(&mut conn).await?;
            known_schema(&mut conn).await?;
            grant(&mut conn, &roles).await?;
            sqlx::query("COMMIT").execute(&mut conn).await?;
            Ok(())
        })?
    }
}

/// Brings the schema up within the caller's transaction; answers the one that was found.
async fn bring_up(conn: &mut PgConnection, roles: &Roles) -> Result<i64, CreateFault> {
    // Every batch queues behind a statement that waits for a whole table, and a broker's patience is 800 ms.
    sqlx::query("SET LOCAL lock_timeout = '300ms'").execute(&mut *conn).await?;
    let found = known_schema(conn).await?;
    for migration in MIGRATIONS.into_iter().skip(usize::try_from(found).unwrap_or(0)) {
        sqlx::raw_sql(migration).execute(&mut *conn).await?;
    }
    sqlx::query("UPDATE hallpass.meta SET value = convert_to($1, 'UTF8') WHERE name = 'schema'")
        .bind(SCHEMA.to_string())
        .execute(&mut *conn)
        .await?;
    grant(conn, roles).await?;
    Ok(found)
}

/// The schema that is there, held until the transaction ends; one that this version does not know is refused.
async fn known_schema(conn: &mut PgConnection) -> Result<i64, CreateFault> {
    let found: String = sqlx::query_scalar(
        "SELECT convert_from(value, 'UTF8') FROM hallpass.meta WHERE name = 'schema' FOR UPDATE",
    )
    .fetch_one(conn)
    .await?;
    let found = found.parse().unwrap_or(0);
    if found > SCHEMA { Err(CreateFault::Newer { found, known: SCHEMA }) } else { Ok(found) }
}

pub(super) async fn grant(conn: &mut PgConnection, roles: &Roles) -> sqlx::Result<()> {
    sqlx::query("SELECT set_config('hallpass.writer', $1, true), set_config('hallpass.reader', $2, true)")
        .bind(roles.writer.as_deref().unwrap_or_default())
        .bind(roles.reader.as_deref().unwrap_or_default())
        .execute(&mut *conn)
        .await?;
    sqlx::raw_sql(ROLES).execute(conn).await?;
    Ok(())
}

/// How often a migration comes back for tables that are being read, and how long it leaves them alone between: twelve
/// seconds in all.
const MIGRATE_TRIES: u32 = 16;
const MIGRATE_PAUSE: Duration = Duration::from_millis(450);
/// How long it may take: an index over a large table is made in one go.
const MIGRATE_DEADLINE: Duration = Duration::from_secs(600);

/// What stands in a new store.
struct First {
    keys: Vec<(String, Vec<u8>)>,
    meta: Vec<(&'static str, Vec<u8>)>,
    note: String,
    now: Timestamp,
}

impl First {
    fn make(sealing: &SealingKey, genesis: Genesis<'_>) -> Result<Self, CreateFault> {
        let seed = keys::fresh(32, genesis.random)?;
        let log = LogKey::from_seed(genesis.origin, &seed)
            .ok_or_else(|| CreateFault::Origin(genesis.origin.to_owned()))?;
        let pseudonym = keys::fresh(32, genesis.random)?;
        let mut sealed = Vec::new();
        for (purpose, key) in [(LEDGER, &seed), (PSEUDONYM, &pseudonym)] {
            sealed.push((purpose.to_owned(), keys::seal(sealing, (purpose, key), genesis.random)?.bytes));
        }
        for (algorithm, key) in assertions::first_keys()? {
            let purpose = assertions::purpose(algorithm, FIRST_VERSION);
            let record = keys::seal(sealing, (&purpose, &key), genesis.random)?;
            sealed.push((purpose, record.bytes));
        }
        let meta = vec![
            ("origin", genesis.origin.as_bytes().to_vec()),
            ("ledger_key", log.verifier().to_string().into_bytes()),
            ("sealing_check", sealing.check().0.to_vec()),
            ("schema", SCHEMA.to_string().into_bytes()),
        ];
        let note = log.sign(0, &Frontier::default().root());
        Ok(Self { keys: sealed, meta, note, now: genesis.now })
    }

    async fn write(self, conn: &mut PgConnection) -> sqlx::Result<()> {
        for (purpose, sealed) in self.keys {
            sqlx::query(
                "INSERT INTO hallpass.keys (purpose, version, sealed, made_at) VALUES ($1, $2, $3, $4)",
            )
            .bind(purpose)
            .bind(schema::signed(FIRST_VERSION))
            .bind(sealed)
            .bind(stored(self.now))
            .execute(&mut *conn)
            .await?;
        }
        for algorithm in Algorithm::ALL {
            let dates = Schedule::first(self.now);
            insert(conn, (algorithm, FIRST_VERSION), None, &dates).await?;
        }
        for (name, value) in self.meta {
            sqlx::query("INSERT INTO hallpass.meta (name, value) VALUES ($1, $2)")
                .bind(name)
                .bind(value)
                .execute(&mut *conn)
                .await?;
        }
        let empty = Frontier::default();
        sqlx::query(
            "INSERT INTO hallpass.head (one, size, root, peaks, note, generation, spent) VALUES (1, 0, $1, $2, $3, 0, 0)",
        )
        .bind(empty.root().0.as_slice())
        .bind(peaks_of(&empty))
        .bind(self.note)
        .execute(conn)
        .await?;
        Ok(())
    }
}
