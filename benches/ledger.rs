//! What a ledger takes, on SQLite and on PostgreSQL with 1, 2 and 4 brokers: entries a second by how many callers append at
//! once, beside what the machine's disk confirms a second, what a commit of the server takes, and what either database
//! alone does with the same bytes in the same batches. The brokers are stores of this process, each with its own
//! connections and writer; the server is one of its own on the same disk, and takes its share of the same cores. Entries are sealed beforehand;
//! what is measured is the store: columns, tree, signature, rows, one commit a batch, a receipt for each entry. It
//! prints the machine's load before and after, since on a busy one the figures say little, and asserts nothing about
//! speed.
//!
//! Run it with `cargo bench --bench ledger`; `TMPDIR` says which disk.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints what it found and ends at the first thing that is not as it should be"
)]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use hallpass::{
    adapters::store::{
        Genesis, Options, Postgres, Sqlite,
        postgres::{Place, Roles},
    },
    broker::{Entropy, ports::Store as _},
    kernel::{
        id::{DecisionId, IssuanceId, ReplicaId},
        ledger::{
            entry::{Draft, Entry, EntryCode},
            subject::Subject,
        },
        sealing::SealingKey,
        secret::Secret,
    },
};
use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde_json::json;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::task::JoinSet;

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/served/support/cluster.rs"]
mod cluster;

fn main() {
    // Cargo also builds and runs benchmarks as tests (`cargo test --benches`); nothing is measured there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    println!("load before: {}", load());
    fsync(folder.path());
    let entries = entries();
    println!("entries of {} bytes", entries[0].bytes.len());
    for batch in BATCHES {
        bare(folder.path(), &entries, batch);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("callers  entries a call  entries/s  us of processor each: all  writer");
    for (callers, at_once) in [(1, 1), (8, 1), (32, 1), (128, 1), (256, 1), (512, 1), (8, 64), (8, 256)] {
        runtime.block_on(measure(folder.path(), &entries, callers, at_once));
    }
    on_server(&runtime, &entries);
    println!("load after: {}", load());
}

/// The same on a server: what one commit takes, what it does alone, and what brokers do.
fn on_server(runtime: &tokio::runtime::Runtime, entries: &[Entry]) {
    // Deleted with the value, so it is started where the folder's disk is that is measured.
    let cluster = cluster::Cluster::start(None, "max_wal_size = 4GB");
    cluster.role("owner");
    let options = |database: &str| -> PgConnectOptions { cluster.url("owner", database).parse().unwrap() };
    cluster.psql("postgres", "CREATE DATABASE bare OWNER owner");
    runtime.block_on(async {
        let mut conn = PgConnection::connect_with(&options("bare")).await.unwrap();
        let create = "CREATE TABLE entry (idx BIGINT PRIMARY KEY, bytes BYTEA NOT NULL); CREATE TABLE tick (at BIGINT)";
        sqlx::raw_sql(create).execute(&mut conn).await.unwrap();
        let mut commits = Vec::new();
        for round in 0..400_i64 {
            let start = Instant::now();
            sqlx::query("INSERT INTO tick VALUES ($1)").bind(round).execute(&mut conn).await.unwrap();
            commits.push(start.elapsed());
        }
        commits.sort_unstable();
        println!("PostgreSQL, one row a commit: p50 {:.0?}, p99 {:.0?}", commits[200], commits[396]);
        let mut written = 0_i64;
        for batch in BATCHES {
            let (start, before) = (Instant::now(), written);
            while start.elapsed() < LOAD {
                let (indices, rows): (Vec<i64>, Vec<&[u8]>) = (written..)
                    .zip(entries.iter().cycle().take(batch).map(|entry| entry.bytes.as_slice()))
                    .unzip();
                written += i64::try_from(indices.len()).unwrap();
                let insert = "INSERT INTO entry SELECT * FROM unnest($1::bigint[], $2::bytea[])";
                sqlx::query(insert).bind(indices).bind(rows).execute(&mut conn).await.unwrap();
            }
            let rate = rate(written - before, start.elapsed());
            println!("PostgreSQL, bare append, {batch} a commit: {rate:.0} entries/s");
        }
    });
    println!("PostgreSQL: brokers  callers of each  entries a call  entries/s");
    for brokers in [1, 2, 4] {
        for (callers, at_once) in [(1, 1), (32, 1), (256, 1), (8, 256)] {
            let database = format!("ledger_{brokers}_{callers}_{at_once}");
            cluster.psql("postgres", &format!("CREATE DATABASE {database} OWNER owner"));
            let place = Place::parse(&cluster.url("owner", &database), Path::new("")).unwrap();
            let sealing = Arc::new(SealingKey::new(Secret::new(vec![1; 32])).unwrap());
            let genesis = Genesis { origin: "bench.example/ledger", now: moment(), random: &random };
            Postgres::create(&place, &sealing, genesis, Roles::default()).unwrap();
            let stores: Vec<_> = (0..brokers)
                .map(|_| Postgres::open(&place, Arc::clone(&sealing), Options::default()).unwrap())
                .collect();
            runtime.block_on(measure_server(&stores, entries, callers, at_once));
            cluster.psql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
        }
    }
}

async fn measure_server(stores: &[Arc<Postgres>], entries: &[Entry], callers: usize, at_once: usize) {
    let (start, mut all) = (Instant::now(), JoinSet::new());
    for (caller, store) in (0..callers).flat_map(|caller| stores.iter().map(move |store| (caller, store))) {
        let store = Arc::clone(store);
        let own: Vec<Entry> = entries.iter().cycle().skip(caller * 7).take(1_024).cloned().collect();
        all.spawn(async move {
            let mut written = 0;
            for chunk in own.chunks(at_once).cycle() {
                if start.elapsed() >= LOAD {
                    break;
                }
                // A turn that lost the head too often is told to its callers, as to a broker's.
                if let Ok(receipts) = store.append(chunk.to_vec()).await {
                    written += i64::try_from(receipts.len()).unwrap();
                }
            }
            written
        });
    }
    let written: i64 = all.join_all().await.into_iter().sum();
    let per_second = rate(written, start.elapsed());
    println!("{:>19}  {callers:>15}  {at_once:>14}  {per_second:>9.0}", stores.len());
    for store in stores {
        store.close().await;
    }
}

/// How long the disk takes to confirm 4 KiB, in a file that is long enough already and in one that grows.
fn fsync(folder: &Path) {
    let file = File::create(folder.join("fsync")).unwrap();
    let block = [7; 4096];
    file.write_all_at(&[0; 4096 * 64], 0).unwrap();
    file.sync_all().unwrap();
    let timed = |sync: &dyn Fn(u64)| {
        let mut all: Vec<Duration> = (0..400)
            .map(|round| {
                let start = Instant::now();
                sync(round);
                start.elapsed()
            })
            .collect();
        all.sort_unstable();
        (all[200], all[396])
    };
    for (what, is_whole, grows) in
        [("fsync", true, false), ("fdatasync", false, false), ("fsync, growing", true, true)]
    {
        let (median, tail) = timed(&|round| {
            let at = if grows { 64 + round } else { round % 64 };
            file.write_all_at(&block, at * 4096).unwrap();
            if is_whole { file.sync_all().unwrap() } else { file.sync_data().unwrap() }
        });
        println!("{what}: p50 {median:.0?}, p99 {tail:.0?}");
    }
}

/// The same bytes into a table of two columns.
fn bare(folder: &Path, entries: &[Entry], batch: usize) {
    let path = folder.join(format!("bare-{batch}.db"));
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE entry (idx INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;",
    )
    .unwrap();
    let (start, mut written) = (Instant::now(), 0_i64);
    while start.elapsed() < LOAD {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for entry in entries.iter().cycle().take(batch) {
            let mut insert = conn.prepare_cached("INSERT INTO entry (idx, bytes) VALUES (?1, ?2)").unwrap();
            insert.execute(params![written, entry.bytes]).unwrap();
            written += 1;
        }
        conn.execute_batch("COMMIT").unwrap();
    }
    println!("bare append, {batch} a commit: {:.0} entries/s", rate(written, start.elapsed()));
}

async fn measure(folder: &Path, entries: &[Entry], callers: usize, at_once: usize) {
    let path = folder.join(format!("store-{callers}-{at_once}.db"));
    let sealing = Arc::new(SealingKey::new(Secret::new(vec![1; 32])).unwrap());
    let genesis = Genesis { origin: "bench.example/ledger", now: moment(), random: &random };
    Sqlite::create(&path, &sealing, genesis).unwrap();
    let store = Sqlite::open(&path, sealing, Options::default()).unwrap();
    let (start, cpu, writer) = (Instant::now(), cpu("/proc/self/stat"), writer());
    let mut all = JoinSet::new();
    for caller in 0..callers {
        let (store, mut own) =
            (Arc::clone(&store), entries.iter().cycle().skip(caller * 7).take(4_096).cloned());
        let own: Vec<Entry> = own.by_ref().collect();
        all.spawn(async move {
            let mut written = 0;
            for chunk in own.chunks(at_once).cycle() {
                if start.elapsed() >= LOAD {
                    break;
                }
                written += i64::try_from(store.append(chunk.to_vec()).await.unwrap().len()).unwrap();
            }
            written
        });
    }
    let written: i64 = all.join_all().await.into_iter().sum();
    let per_second = rate(written, start.elapsed());
    let of = |micros: u64| micros as f64 / written as f64;
    println!(
        "{callers:>7}  {at_once:>14}  {per_second:>9.0}  {:>26.1}  {:>6.1}",
        of(self::cpu("/proc/self/stat") - cpu),
        of(self::writer() - writer),
    );
    store.close().await;
    fs::remove_file(path).unwrap();
}

/// The entry of an issuance, as an exchange writes it.
fn entries() -> Vec<Entry> {
    let claims = json!({
        "repository_id": "70155112", "repository_owner_id": "4216", "ref": "refs/heads/main",
        "event_name": "push", "environment": "production", "run_id": "18412345678", "run_attempt": "1",
        "workflow_ref": "acme/payments/.github/workflows/deploy.yml@refs/heads/main",
        "job_workflow_ref": "acme/ci-library/.github/workflows/deploy.yml@refs/tags/v4",
    });
    let named = [("issuer", "github"), ("project", "70155112"), ("environment", "production")];
    let mut members = named.map(|(name, value)| (name, value.into()));
    let subject = Arc::new(Subject::new(&mut members, claims.as_object().unwrap(), |_| false).unwrap());
    let seal = |_| {
        let draft = Draft {
            code: Some(EntryCode::Issued),
            decision: Some(DecisionId::new(moment(), fresh())),
            issuance: Some(IssuanceId::new(moment(), fresh())),
            subject: Some(Arc::clone(&subject)),
            policy: Some(json!({ "digest": "9f3182061f1e2cca4702c368cbc039b7", "grant": "deploy" })),
            request: Some(json!({ "id": "req_01k9x3v7e8f9g0h1j2k3m4n5p6", "credential": "npm" })),
            result: Some(json!({
                "kind": "sealed", "lifetime": "static", "issued_at": "2027-01-13T10:00:00Z", "expires_at": null,
                "revocable": false, "told": { "name": "npm-token", "version": 3 },
            })),
            ..Draft::default()
        };
        draft.seal(moment(), ReplicaId::from_bytes([7; 16]), &random).unwrap()
    };
    (0..1_024).map(seal).collect()
}

fn moment() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn random(out: &mut [u8]) -> bool {
    Entropy::Os.fill(out).is_ok()
}

fn fresh<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    assert!(random(&mut bytes));
    bytes
}

fn rate(written: i64, elapsed: Duration) -> f64 {
    written as f64 / elapsed.as_secs_f64()
}

fn load() -> String {
    let cores = std::thread::available_parallelism().unwrap();
    format!("{}, {cores} cores", fs::read_to_string("/proc/loadavg").unwrap().trim())
}

/// Microseconds of processor time, in user and system.
fn cpu(stat: &str) -> u64 {
    let stat = fs::read_to_string(stat).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    ticks * 10_000
}

/// The same of the writer's thread.
fn writer() -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let mut named = threads.filter(|thread| {
        fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "ledger-writer")
    });
    named.next().map_or(0, |thread| cpu(thread.join("stat").to_str().unwrap()))
}

const BATCHES: [usize; 2] = [32, 256];
const LOAD: Duration = Duration::from_secs(2);
