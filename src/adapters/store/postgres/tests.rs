//! What only PostgreSQL promises: roles, other brokers, a server that goes and comes back. The laws of any store stand in
//! `laws`.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    adapters::store::{
        Database, Options,
        laws::{
            Cluster, OWNER, READER, WRITER, entry, issue, key, keyed, later, now, place_of, using, verdict,
            with_store,
        },
        shared::secrets::{Change, SecretFault},
    },
    broker::ports::{Counted, SealedRecords as _},
    kernel::{
        ledger::entry::EntryCode,
        name::{IssuerName, SecretName},
        secret::Secret,
    },
};

/// A server of its own, which a test may take away, with a store.
struct Own {
    cluster: Cluster,
    store: Arc<Database>,
}

impl Own {
    fn new() -> Self {
        let cluster = Cluster::start(None, "");
        with_store(&cluster, "own");
        let store = open(&cluster);
        Self { cluster, store }
    }

    fn sql(&self, statements: &str) -> String {
        self.cluster.psql("own", &format!("SET search_path = hallpass; {statements}"))
    }
}

fn open(cluster: &Cluster) -> Arc<Database> {
    let place = place_of(cluster, WRITER, "own");
    Arc::new(Database::Postgres(Postgres::open(&place, key(1), Options::default()).unwrap()))
}

async fn append(store: &Database) -> Result<u64, StoreFault> {
    Ok(store.append(vec![entry(EntryCode::Started)]).await?[0].index)
}

async fn until_well(store: &Database) {
    let well = async {
        while store.health().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), well).await.unwrap();
}

#[tokio::test]
async fn neither_writer_nor_owner_changes_an_entry_and_a_reader_sees_the_ledger_only() {
    let own = Own::new();
    assert_eq!(verdict(&own.store, issue()).await, "recorded");
    let told =
        |role: &str, statement: &str| own.cluster.try_psql_as(role, "own", statement).expect_err(statement);
    for statement in [
        "UPDATE hallpass.entry SET code = 'DENIED'",
        "DELETE FROM hallpass.entry",
        "TRUNCATE hallpass.entry",
        "UPDATE hallpass.subtree SET idx = 7",
        "DELETE FROM hallpass.subtree",
        "TRUNCATE hallpass.subtree",
        "DELETE FROM hallpass.head",
        "TRUNCATE hallpass.head",
    ] {
        // Privileges stop the one, triggers the other.
        assert!(told(WRITER, statement).contains("permission denied"), "{statement}");
        assert!(told(OWNER, statement).contains("the ledger is insert-only"), "{statement}");
    }
    for statement in [
        "DELETE FROM hallpass.meta",
        "UPDATE hallpass.keys SET purpose = 'mine'",
        "DELETE FROM hallpass.issuance",
        "DELETE FROM hallpass.personal",
        "ALTER TABLE hallpass.entry DISABLE TRIGGER ALL",
        "CREATE TABLE hallpass.mine (a INT)",
    ] {
        let refused = told(WRITER, statement);
        assert!(refused.contains("permission denied") || refused.contains("must be owner"), "{refused}");
    }
    let gap = "INSERT INTO hallpass.entry SELECT 9, leaf, code, at, decision, issuance, issuer, grants, bytes
               FROM hallpass.entry WHERE idx = 0";
    assert!(told(WRITER, gap).contains("the ledger is append-only"));
    // It may let go of keys of assertions, and of no other.
    for purpose in ["ledger", "pseudonym"] {
        let lost = format!("DELETE FROM hallpass.keys WHERE purpose = '{purpose}'");
        for role in [WRITER, OWNER] {
            assert!(told(role, &lost).contains("is never deleted"), "{purpose}");
        }
    }
    // Which key is the ledger's and which one seals is its to say, and no other fact.
    for fact in ["origin", "schema", "mine"] {
        let said = format!(
            "INSERT INTO hallpass.meta VALUES ('{fact}', '') ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        );
        assert!(told(WRITER, &said).contains("is the owner's"), "{fact}");
    }
    let renamed = "UPDATE hallpass.meta SET name = 'ledger_keys_past' WHERE name = 'origin'";
    assert!(told(WRITER, renamed).contains("is the owner's"));
    for (purpose, version) in [("pseudonym", 2), ("assertion", 2), ("ledger", 3), ("ledger", 0)] {
        let other = format!("UPDATE hallpass.keys SET version = {version} WHERE purpose = '{purpose}'");
        for role in [WRITER, OWNER] {
            assert!(told(role, &other).contains("cannot become another"), "{other}");
        }
    }
    // What is sealed stays while its number does; whether a wrap opens the database cannot know.
    for sealed in [
        "sealed || '\\x00'",
        "set_byte(sealed, 0, 2)",
        "set_byte(sealed, 61, get_byte(sealed, 61) # 1)",
        "''",
    ] {
        for purpose in ["pseudonym", "assertion", "ledger"] {
            let other = format!("UPDATE hallpass.keys SET sealed = {sealed} WHERE purpose = '{purpose}'");
            assert!(told(WRITER, &other).contains("cannot become another"), "{other}");
        }
    }
    for byte in [1, 60] {
        let wrapped = format!(
            "UPDATE hallpass.keys SET sealed = set_byte(sealed, {byte}, get_byte(sealed, {byte}) # 1)"
        );
        own.cluster.try_psql_as(WRITER, "own", &wrapped).unwrap();
    }
    for table in ["entry", "subtree", "personal", "head", "meta"] {
        let read = format!("SELECT count(*) FROM hallpass.{table}");
        own.cluster.try_psql_as(READER, "own", &read).unwrap();
    }
    for table in ["keys", "secret", "issuance", "once", "denied"] {
        let refused = told(READER, &format!("SELECT * FROM hallpass.{table}"));
        assert!(refused.contains("permission denied"), "{table}");
    }
    assert!(
        told(READER, "INSERT INTO hallpass.entry SELECT * FROM hallpass.entry").contains("permission denied")
    );
}

/// Who may make tables for its session puts them before the catalog's; the owner of another database than ours may allow it.
#[tokio::test]
async fn a_writer_with_a_catalog_of_its_own_is_refused_the_owners_facts() {
    let own = Own::new();
    let refused = own.cluster.try_psql_as(WRITER, "own", "CREATE TEMP TABLE pg_class (oid OID)").unwrap_err();
    assert!(refused.contains("permission denied to create temporary tables"), "{refused}");
    own.cluster.psql("own", &format!("GRANT TEMPORARY ON DATABASE own TO {WRITER}"));
    let catalog = format!(
        "CREATE TEMP TABLE pg_class AS SELECT c.oid, '{WRITER}'::regrole::oid AS relowner FROM pg_catalog.pg_class c;
         SET search_path = pg_temp, pg_catalog, hallpass;"
    );
    for fact in ["origin", "schema", "schema_least"] {
        let said = format!(
            "{catalog} INSERT INTO hallpass.meta VALUES ('{fact}', '')
             ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        );
        let refused = own.cluster.try_psql_as(WRITER, "own", &said).unwrap_err();
        assert!(refused.contains("is the owner's"), "{fact}: {refused}");
    }
    assert_eq!(append(&own.store).await.unwrap(), 0);
}

/// A backup reads the head's table for as long as it takes. A migration that waited for it would have every batch wait
/// behind itself.
#[tokio::test]
async fn a_migration_makes_no_batch_wait_behind_a_long_reading() {
    let own = Own::new();
    // The schema before the newest.
    own.sql(
        "ALTER TABLE head DROP COLUMN signer; ALTER TABLE replica DROP COLUMN sealing;
         DROP FUNCTION refuse_fact CASCADE; DROP FUNCTION refuse_key_change CASCADE;
         UPDATE meta SET value = '5' WHERE name = 'schema';",
    );
    let roles = || Roles { writer: Some(WRITER.to_owned()), reader: Some(READER.to_owned()) };
    let place = place_of(&own.cluster, OWNER, "own");
    let is_read =
        "SELECT count(*) FROM pg_locks WHERE relation = 'head'::regclass AND mode = 'AccessShareLock'";
    std::thread::scope(|scope| {
        let reading = "BEGIN; SELECT count(*) FROM head; SELECT pg_sleep(3); COMMIT;";
        let reading = scope.spawn(|| own.sql(reading));
        while own.sql(is_read).trim() == "0" {}
        let migrating = scope.spawn(|| Postgres::migrate(&place, roles()));
        // What each batch of a broker begins with, under its patience.
        while !migrating.is_finished() {
            own.sql("SET lock_timeout = '800ms'; SELECT size FROM head WHERE one = 1 FOR UPDATE");
        }
        assert_eq!(migrating.join().unwrap().unwrap(), (5, schema::SCHEMA));
        reading.join().unwrap();
    });
    // It looked at a schema that it does not know meanwhile.
    until_well(&own.store).await;
    assert_eq!(append(&own.store).await.unwrap(), 0);
    // One that does not end is told of, and nothing was changed.
    own.sql("ALTER TABLE head DROP COLUMN signer; UPDATE meta SET value = '5' WHERE name = 'schema';");
    std::thread::scope(|scope| {
        let endless = "BEGIN; SELECT count(*) FROM hallpass.head; SELECT pg_sleep(60); COMMIT;";
        let reading = scope.spawn(|| own.cluster.try_psql("own", endless));
        while own.sql(is_read).trim() == "0" {}
        let told = Postgres::migrate(&place, roles()).unwrap_err();
        assert!(matches!(told, CreateFault::Busy), "{told}");
        own.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        assert!(reading.join().unwrap().is_err());
    });
    assert_eq!(own.sql("SELECT convert_from(value, 'UTF8') FROM meta WHERE name = 'schema'").trim(), "5");
}

#[tokio::test]
async fn a_reader_opens_the_store_for_looking() {
    let own = Own::new();
    append(&own.store).await.unwrap();
    let store = Postgres::inspect(&place_of(&own.cluster, READER, "own")).unwrap();
    assert_eq!(store.verifier_key(), own.store.verifier_key());
    assert_eq!(store.checkpoint().await.unwrap(), own.store.checkpoint().await.unwrap());
    assert_eq!(store.ledger_rows(0, 10).await.unwrap().len(), 1);
    assert!(store.append(vec![entry(EntryCode::Started)]).await.is_err());
}

#[tokio::test]
async fn an_empty_database_and_a_wrong_key_are_told() {
    let own = Own::new();
    own.cluster.psql("postgres", "CREATE DATABASE empty");
    let empty = place_of(&own.cluster, WRITER, "empty");
    let fault = Postgres::open(&empty, key(1), Options::default()).err().unwrap();
    assert!(matches!(fault, OpenFault::Absent(_)), "{fault}");
    let own_place = place_of(&own.cluster, WRITER, "own");
    let fault = Postgres::open(&own_place, key(2), Options::default()).err().unwrap();
    assert!(matches!(fault, OpenFault::WrongSealingKey), "{fault}");
    let again = Postgres::create(
        &place_of(&own.cluster, OWNER, "own"),
        &key(1),
        crate::adapters::store::laws::genesis(),
        Roles::default(),
    );
    assert!(matches!(again, Err(CreateFault::Exists)));
}

#[tokio::test]
async fn what_another_broker_changed_is_seen() {
    let own = Own::new();
    let other = open(&own.cluster);
    let name = SecretName::parse("npm-token").unwrap();
    let (seen, _) = other.sealed(&name);
    let fields = [("value".to_owned(), Secret::from_text("one".to_owned()))];
    let told = |_| Some(entry(EntryCode::SecretSet));
    let random = |out: &mut [u8]| crate::broker::Entropy::Os.fill(out).is_ok();
    let change = Change { now: now(), random: &random, entry: &told };
    let set: Result<u64, SecretFault> = own.store.set_secret(&name, &fields, change).await;
    assert_eq!(set.unwrap(), 1);
    // Whoever read before the change fetches again, at once or after a look a second later.
    let step = || using(Issue { sealed_generation: Some(seen), ..issue() }, &["a use"]);
    assert_eq!(verdict(&other, step()).await, "moved");
    let (generation, record) = other.sealed(&name);
    assert!(generation > seen && record.is_some());
    let step = using(Issue { sealed_generation: Some(generation), ..issue() }, &["a use"]);
    assert_eq!(verdict(&other, step).await, "recorded");

    let token = Digest::of(b"token 1");
    let counted =
        Counted::Project { issuer: IssuerName::parse("github").unwrap(), project: "701".to_owned() };
    for turn in 0..5 {
        // Denials count together wherever they happen.
        let store = if turn % 2 == 0 { &own.store } else { &other };
        let refusal = Refusal {
            entry: entry(EntryCode::Denied),
            counted: counted.clone(),
            always: false,
            against: Some((token, later(600))),
            sample: "no-rule".to_owned(),
            now: now(),
        };
        store.refuse(refusal).await.unwrap();
    }
    let seen = async {
        while !(own.store.is_spent(&token, now()) && other.is_spent(&token, now())) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), seen).await.unwrap();
}

#[tokio::test]
async fn a_restarted_server_is_gone_on_with() {
    let own = Own::new();
    assert_eq!(append(&own.store).await.unwrap(), 0);
    own.cluster.stop();
    let refused = append(&own.store).await;
    assert!(matches!(refused, Err(StoreFault::Unavailable(_))));
    let asked = Instant::now();
    assert!(append(&own.store).await.is_err());
    assert!(own.store.issuance(IssuanceId::from_bytes([1; 16])).await.is_err());
    assert!(asked.elapsed() < Duration::from_secs(1));
    own.cluster.run();
    until_well(&own.store).await;
    assert_eq!(append(&own.store).await.unwrap(), 1);
    own.cluster.crash();
    own.cluster.run();
    until_well(&own.store).await;
    // What was answered before the crash is there, and what comes stands behind it.
    let recorded = verdict(&own.store, keyed(b"body", 0)).await;
    assert_eq!((recorded, own.sql("SELECT count(*) FROM entry").trim()), ("recorded", "4"));
}

#[tokio::test]
async fn cut_connections_cost_nobody_an_answer() {
    let own = Own::new();
    append(&own.store).await.unwrap();
    for index in 1..4 {
        own.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'writer'");
        assert_eq!(append(&own.store).await, Ok(index));
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_told_within_a_second_and_heals() {
    let own = Own::new();
    append(&own.store).await.unwrap();
    own.cluster.pause();
    for _ in 0..3 {
        let asked = Instant::now();
        assert!(append(&own.store).await.is_err());
        assert!(asked.elapsed() < Duration::from_millis(1_500), "{:?}", asked.elapsed());
    }
    own.cluster.resume();
    until_well(&own.store).await;
    // The turn that was cut may have been durable or not; either way the next stands behind it.
    let index = append(&own.store).await.unwrap();
    assert_eq!(own.sql("SELECT max(idx) FROM entry").trim(), index.to_string());
}

#[tokio::test]
async fn who_holds_the_lock_without_a_word_is_cut_off() {
    let own = Own::new();
    append(&own.store).await.unwrap();
    let place = place_of(&own.cluster, WRITER, "own");
    let options = schema::writing(&place.options().unwrap());
    let mut paused = schema::connect(&options).await.unwrap();
    sqlx::query("BEGIN").execute(&mut paused).await.unwrap();
    tree::lock(&mut paused).await.unwrap();
    let done = async {
        while append(&own.store).await.is_err() {
            until_well(&own.store).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), done).await.unwrap();
    // It wakes and writes nothing.
    assert!(sqlx::query("COMMIT").execute(&mut paused).await.is_err());
}

#[tokio::test]
async fn a_database_that_was_set_back_is_not_written_and_the_right_one_is_gone_on_with() {
    let own = Own::new();
    append(&own.store).await.unwrap();
    own.cluster.psql("postgres", "ALTER DATABASE own ALLOW_CONNECTIONS false");
    own.cluster.psql("postgres", CUT);
    own.cluster.psql("postgres", "CREATE DATABASE before TEMPLATE own");
    own.cluster.psql("postgres", "ALTER DATABASE own ALLOW_CONNECTIONS true");
    until_well(&own.store).await;
    append(&own.store).await.unwrap();
    swap(&own, "own", "newest", "before");
    let set_back = async {
        while !matches!(append(&own.store).await, Err(StoreFault::Unavailable(why)) if why.contains("not the one that was seen"))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), set_back).await.unwrap();
    assert_eq!(own.sql("SELECT count(*) FROM entry").trim(), "1");
    swap(&own, "own", "before", "newest");
    until_well(&own.store).await;
    assert_eq!(append(&own.store).await.unwrap(), 2);
}

/// Ends everybody else's connections.
const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()";

/// Puts another database in the place of one, which gets another name.
fn swap(own: &Own, name: &str, aside: &str, other: &str) {
    own.cluster.psql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    for rename in [(name, aside), (other, name)] {
        own.cluster.psql("postgres", CUT);
        own.cluster.psql("postgres", &format!("ALTER DATABASE {} RENAME TO {}", rename.0, rename.1));
    }
    for each in [name, aside] {
        own.cluster.psql("postgres", &format!("ALTER DATABASE {each} ALLOW_CONNECTIONS true"));
    }
}

#[test]
fn a_clock_that_is_five_seconds_off_is_told() {
    let at = |seconds: i64| jiff::Timestamp::from_second(1_800_000_000 + seconds).unwrap();
    let server = at(0).as_microsecond();
    for (asked, answered) in [(0, 0), (-5, -5), (5, 6), (-60, 60)] {
        assert!(writer::look_at_clock(at(asked), server, at(answered)).is_ok(), "{asked} {answered}");
    }
    for (asked, answered, off) in [(6, 6, 6), (-9, -7, 7)] {
        let told = writer::look_at_clock(at(asked), server, at(answered));
        assert!(matches!(told, Err(Trouble::Clock(seconds)) if seconds == off), "{asked} {answered}");
    }
}
