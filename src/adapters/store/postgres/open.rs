//! Opening a store: what is looked at before it may be written, and the writer's start.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use sqlx::{
    PgConnection, PgPool, Row as _,
    postgres::{PgConnectOptions, PgRow},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    Keys, PasswordFault, Place, Postgres, Trouble,
    batch::Step,
    engine::Engine,
    reader,
    refuse::load_spent,
    schema::{self, LEAST, SCHEMA, unsigned},
    secrets, tree,
    writer::{QUEUE, Shared, Signer, Writer, look_at_clock},
};
use crate::{
    adapters::store::{
        shared::{
            keys::{self, LEDGER, PSEUDONYM},
            rotation::{SEALING_CHECK, SEALING_NEXT},
            secrets::SealedMap,
        },
        sqlite::Options,
    },
    broker::Clock,
    kernel::{
        ledger::checkpoint::{LogKey, VerifierKey},
        sealing::{Keyring, SealedRecord},
        secret::Secret,
    },
};

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// The database holds no schema of ours; none is made in its place.
    #[error("{0} has no schema of Hallpass; `hallpass store init` makes one")]
    Absent(Box<Place>),
    /// The clock is off.
    #[error("the clock of this machine is {0} s off the database's")]
    Clock(i64),
    /// It does not hold together.
    #[error("the database is damaged: {0}")]
    Damaged(&'static str),
    /// It cannot be reached or read. The driver's words never hold a password.
    #[error("the database cannot be opened{}", advice(.0))]
    Database(#[source] sqlx::Error),
    /// It was brought up to a schema that a broker of this version cannot write any more.
    #[error(
        "the database was brought up to a schema that takes brokers of schema {least} and later only, and this version \
         knows {known}: install a later version of hallpass; nothing was touched"
    )]
    Newer {
        /// The least schema that a broker must know.
        least: i64,
        /// Ours.
        known: i64,
    },
    /// It was made by an earlier version.
    #[error(
        "the database has schema {found}, this version needs {known}; `hallpass store migrate` brings it up"
    )]
    Older {
        /// The database's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The password could not be had.
    #[error(transparent)]
    Password(#[from] PasswordFault),
    /// It did not answer in time.
    #[error("the database does not answer")]
    Slow,
    /// Records are sealed with two keys, and only one is at hand.
    #[error(
        "`keys rewrap` was begun on this database and did not end, so its records are sealed with two keys: name both in \
         `sealing_key`, the second one as `previous`, and run it again"
    )]
    TwoSealingKeys,
    /// Threads could not be started.
    #[error("the threads of the store cannot be started")]
    Thread(#[source] io::Error),
    /// The sealing key is not the one that this store was made with.
    #[error("the sealing key is not the one that this database was made with; nothing was touched")]
    WrongSealingKey,
}

/// What to do about the faults that a new installation meets first.
pub(super) fn advice(fault: &sqlx::Error) -> &'static str {
    match fault.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        // invalid_authorization_specification, invalid_password (PostgreSQL, appendix A).
        Some("28000" | "28P01") => {
            " (the password is that of `store.password_file` or --password-file, else of PGPASSWORD or PGPASSFILE)"
        }
        // The name that rustls gives it; there is no type to ask.
        None if fault.to_string().contains("CaUsedAsEndEntity") => {
            " (the server's certificate is an authority's own: have one made with basicConstraints=critical,CA:FALSE)"
        }
        Some(_) | None => "",
    }
}

impl From<Trouble> for OpenFault {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Clock(seconds) => Self::Clock(seconds),
            Trouble::Damaged(what) => Self::Damaged(what),
            Trouble::Moved | Trouble::SetBack { .. } => Self::Damaged("the head moved while it was read"),
            Trouble::Slow => Self::Slow,
            Trouble::Sql(fault) | Trouble::Uncertain(fault) => Self::Database(fault),
        }
    }
}

impl From<sqlx::Error> for OpenFault {
    fn from(fault: sqlx::Error) -> Self {
        Self::Database(fault)
    }
}

/// What a look at the database found.
struct Found {
    origin: String,
    verifier: VerifierKey,
    keys: Option<Keys>,
    log: Option<LogKey>,
}

/// A writer at work.
struct Started {
    queue: mpsc::Sender<Step>,
    writer: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Postgres {
    /// Opens a store. Any number of brokers and commands may have it open.
    ///
    /// # Errors
    ///
    /// [`OpenFault`]. A wrong sealing key is told before anything is touched.
    pub fn open(
        place: &Place,
        sealing: impl Into<Keyring>,
        options: Options,
    ) -> Result<Arc<Self>, OpenFault> {
        let sealing = sealing.into();
        if options.read_only {
            return Self::open_reading(place, Some(sealing));
        }
        let engine = Engine::start()?;
        let from = place.options()?;
        let (writing, reading, place) = (schema::writing(&from), schema::reading(&from), place.clone());
        let (found, pool, started) = engine.wait(async move {
            let mut conn = connect(&writing).await?;
            // One snapshot of it all: keys may change places while a broker starts.
            sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut conn).await?;
            let mut found = look(&mut conn, &place, Some(sealing.clone())).await?;
            let key = found.log.take().ok_or(OpenFault::Damaged("the ledger's key is missing"))?;
            let signer = Signer { key, named: None, sealing, origin: found.origin.clone() };
            let started = start((writing, conn), signer).await?;
            Ok::<_, OpenFault>((found, reader::pool(reading), started))
        })??;
        Ok(Self::opened(engine, pool, found, Some(started)))
    }

    /// Opens a store for reading without the sealing key: what an auditor may do. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`OpenFault`], but never [`OpenFault::WrongSealingKey`].
    pub fn inspect(place: &Place) -> Result<Arc<Self>, OpenFault> {
        Self::open_reading(place, None)
    }

    fn open_reading(place: &Place, sealing: Option<Keyring>) -> Result<Arc<Self>, OpenFault> {
        let engine = Engine::start()?;
        let (reading, place) = (schema::reading(&place.options()?), place.clone());
        let (found, pool) = engine.wait(async move {
            let mut conn = connect(&reading).await?;
            Ok::<_, OpenFault>((look(&mut conn, &place, sealing).await?, reader::pool(reading)))
        })??;
        Ok(Self::opened(engine, pool, found, None))
    }

    fn opened(engine: Engine, pool: PgPool, found: Found, started: Option<Started>) -> Arc<Self> {
        let (queue, writer, shared) = match started {
            Some(Started { queue, writer, shared }) => (Some(queue), Some(writer), shared),
            None => (None, None, Arc::new(Shared::new(SealedMap::default(), HashMap::new(), found.verifier))),
        };
        Arc::new(Self {
            queue: RwLock::new(queue),
            writer: Mutex::new(writer),
            shared,
            pool,
            engine,
            origin: found.origin,
            keys: found.keys,
        })
    }
}

/// A connection, unless the database does not answer.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, OpenFault> {
    let connecting = tokio::time::timeout(CONNECT_DEADLINE, schema::connect(options));
    Ok(connecting.await.map_err(|_| OpenFault::Slow)??)
}

/// Looks whether it is ours and the key's, and reads what never changes.
async fn look(conn: &mut PgConnection, place: &Place, sealing: Option<Keyring>) -> Result<Found, OpenFault> {
    let meta = match read_meta(conn).await {
        Err(sqlx::Error::Database(fault)) if is_absent(&*fault) => {
            return Err(OpenFault::Absent(Box::new(place.clone())));
        }
        read => read?,
    };
    let fact = |name: &str| meta.get(name).ok_or(OpenFault::Damaged("the database lacks facts about itself"));
    let text = |name: &str| {
        let text = std::str::from_utf8(fact(name)?).map(str::to_owned);
        text.map_err(|_| OpenFault::Damaged("a fact about the database is no text"))
    };
    let number = |name: &str| -> Result<i64, OpenFault> {
        text(name)?.parse().map_err(|_| OpenFault::Damaged("its schema is no number"))
    };
    // Schemas only grow, so that brokers of two versions run beside each other; one that is older lacks what we write. One
    // that took something away says from which version on a broker does without it.
    let schema = number("schema")?;
    let least = if meta.contains_key(LEAST) { number(LEAST)? } else { 0 };
    if least > SCHEMA {
        return Err(OpenFault::Newer { least, known: SCHEMA });
    }
    if schema < SCHEMA {
        return Err(OpenFault::Older { found: schema, known: SCHEMA });
    }
    let published = VerifierKey::parse(&text("ledger_key")?)
        .ok_or(OpenFault::Damaged("the ledger's public key cannot be read"))?;
    let origin = text("origin")?;
    let Some(sealing) = sealing else {
        return Ok(Found { origin, verifier: published, keys: None, log: None });
    };
    if sealing.of(fact(SEALING_CHECK)?).is_none() {
        return Err(OpenFault::WrongSealingKey);
    }
    // Empty while no records are being wrapped under another key.
    let next = meta.get(SEALING_NEXT).filter(|next| !next.is_empty());
    if next.is_some_and(|next| sealing.of(next).is_none()) {
        return Err(OpenFault::TwoSealingKeys);
    }
    let log = LogKey::from_seed(&origin, &open_key(conn, &sealing, LEDGER).await?)
        .ok_or(OpenFault::Damaged("the ledger key does not fit its origin"))?;
    if log.verifier() != published {
        return Err(OpenFault::Damaged("the ledger's public key is not that of its own key"));
    }
    let pseudonym =
        keys::pseudonym(&open_key(conn, &sealing, PSEUDONYM).await?).map_err(OpenFault::Damaged)?;
    let keys = Some(Keys { sealing, pseudonym });
    Ok(Found { origin, verifier: published, keys, log: Some(log) })
}

async fn read_meta(conn: &mut PgConnection) -> sqlx::Result<HashMap<String, Vec<u8>>> {
    let rows = sqlx::query("SELECT name, value FROM meta").fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// undefined_table, invalid_schema_name
fn is_absent(fault: &dyn sqlx::error::DatabaseError) -> bool {
    fault.code().is_some_and(|code| ["42P01", "3F000"].contains(&&*code))
}

/// Opens one of the store's own keys.
pub(super) async fn open_key(
    conn: &mut PgConnection,
    sealing: &Keyring,
    purpose: &'static str,
) -> Result<Secret, Trouble> {
    let row = sqlx::query("SELECT version, sealed FROM keys WHERE purpose = $1")
        .bind(purpose)
        .fetch_optional(conn)
        .await?;
    let read =
        |row: PgRow| -> sqlx::Result<_> { Ok((unsigned(&row, 0)?, SealedRecord { bytes: row.try_get(1)? })) };
    keys::open(sealing, purpose, row.map(read).transpose()?).map_err(Trouble::Damaged)
}

/// Looks at everything that the writer goes on from, ends the snapshot, and starts it.
async fn start(
    (options, mut conn): (PgConnectOptions, PgConnection),
    signer: Signer,
) -> Result<Started, OpenFault> {
    let asked = Clock::System.now();
    let row = tree::load(&mut conn).await?;
    look_at_clock(asked, row.server_us, Clock::System.now())?;
    let verifier = signer.key.verifier();
    tree::check(&mut conn, &row, &verifier).await?;
    let sealed = secrets::load(&mut conn, row.generation).await?;
    let spent = load_spent(&mut conn, 0).await?;
    let fsync: String = sqlx::query_scalar("SHOW fsync").fetch_one(&mut conn).await?;
    sqlx::query("COMMIT").execute(&mut conn).await?;
    if fsync != "on" {
        tracing::warn!("the database runs with fsync off: a power cut loses entries of credentials in use");
    }
    let shared = Arc::new(Shared::new(sealed, spent, verifier));
    let signer = Signer { named: row.signer, ..signer };
    let (queue, receive) = mpsc::channel(QUEUE);
    let writer = Writer::new((options, conn), signer, (row.head, row.spent), Arc::clone(&shared));
    Ok(Started { queue, writer: tokio::spawn(writer.run(receive)), shared })
}

/// How long one connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
