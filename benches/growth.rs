//! What an exchange costs when there is more of everything: the same load on three installations in turn, so that all see
//! the same machine: ten grants and an empty ledger, 10,000 grants, and a ledger of 1,000,000 entries. Then 250,000
//! exchanges on one broker, and what of its memory stays resident. The release binary over plain HTTP/1.1 on loopback, SQLite
//! on the disk that `TMPDIR` names. It asserts nothing about speed and takes some ten minutes.
//!
//! Run it with `cargo bench --bench growth`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints what it found and ends at the first thing that is not as it should be"
)]

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use hallpass::{
    adapters::store::{Options, Sqlite},
    broker::{Clock, Entropy, ports::Store as _},
    kernel::{
        id::{DecisionId, IssuanceId, ReplicaId},
        ledger::entry::{Draft, EntryCode},
        sealing::SealingKey,
        secret::Secret,
    },
};
use load::{Broker, Load, Tokens, add_grants, measure};
use serde_json::json;
use support::Installation;
use tokio::task::JoinSet;

#[expect(dead_code, reason = "the other bench of exchanges uses more of it")]
mod load;
#[expect(dead_code, reason = "the tests' kit serves more than this")]
#[path = "../tests/served/support/mod.rs"]
mod support;

fn main() {
    // Cargo also builds and runs benchmarks as tests (`cargo test --benches`); nothing is measured there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let [few, many, full] = [Installation::new(), Installation::new(), Installation::new()];
    add_grants(&few, 8);
    add_grants(&many, 10_000);
    fill(&full, 1_000_000);
    let sites = [("ten grants, empty ledger", &few), ("10,000 grants", &many), ("1,000,000 entries", &full)];
    let sites = sites.map(|(what, installation)| {
        let tokens = Arc::new(Tokens::mint(installation, TOKENS));
        (what, Broker::start(installation), Load::Exchange(tokens), Vec::new())
    });
    compare(sites);
    remember(&few);
}

/// The same load on each in turn, round by round.
fn compare(mut sites: [(&str, Broker, Load, Vec<Duration>); 3]) {
    for _ in 0..ROUNDS {
        for (_, broker, load, latencies) in &mut sites {
            latencies.extend(measure(broker.address, 1, load).latencies);
        }
    }
    let mut first = None;
    for (what, broker, _, mut latencies) in sites {
        latencies.sort_unstable();
        let median = latencies[latencies.len() / 2];
        let ratio = median.as_secs_f64() / first.get_or_insert(median).as_secs_f64();
        println!("{what}: p50 {median:.0?} of {} exchanges, ratio {ratio:.2}", latencies.len());
        broker.stop();
    }
}

/// Very many exchanges, and the memory that stays.
fn remember(installation: &Installation) {
    let broker = Broker::start(installation);
    println!("resident idle: {} kB", broker.resident_kb());
    let (mut done, start) = (0, Instant::now());
    while done < EXCHANGES {
        let tokens = Arc::new(Tokens::mint(installation, TOKENS));
        loop {
            let round = measure(broker.address, 32, &Load::Exchange(Arc::clone(&tokens))).latencies.len();
            done += round;
            // No token is left.
            if round == 0 {
                break;
            }
        }
        println!("resident after {done} exchanges: {} kB, {:.0?}", broker.resident_kb(), start.elapsed());
    }
    broker.stop();
}

/// Puts entries into an installation's ledger, by its own store.
fn fill(installation: &Installation, entries: usize) {
    let text = Secret::new(fs::read(installation.file("sealing.key")).unwrap());
    let sealing = Arc::new(SealingKey::parse(&text).unwrap());
    let store = Sqlite::open(&installation.file("hallpass.db"), sealing, Options::default()).unwrap();
    let now = Clock::System.now();
    let seal = |_| {
        let draft = Draft {
            decision: Some(DecisionId::new(now, fresh())),
            issuance: Some(IssuanceId::new(now, fresh())),
            policy: Some(json!({ "grant": "deploy" })),
            result: Some(json!({ "kind": "sealed", "lifetime": "static" })),
            ..Draft::of(EntryCode::Issued)
        };
        draft.seal(now, ReplicaId::from_bytes([7; 16]), &|out| Entropy::Os.fill(out).is_ok()).unwrap()
    };
    let batch: Vec<_> = (0..256).map(seal).collect();
    let start = Instant::now();
    support::runtime().block_on(async {
        let mut writers = JoinSet::new();
        for _ in 0..8 {
            let (store, batch) = (Arc::clone(&store), batch.clone());
            writers.spawn(async move {
                for _ in 0..entries.div_ceil(8 * 256) {
                    store.append(batch.clone()).await.unwrap();
                }
            });
        }
        writers.join_all().await;
        store.close().await;
    });
    println!("{entries} entries put into a ledger in {:.0?}", start.elapsed());
}

fn fresh<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    assert!(Entropy::Os.fill(&mut bytes).is_ok());
    bytes
}

const ROUNDS: usize = 5;
/// Of one round of minting; tokens live five minutes.
const TOKENS: usize = 16_000;
const EXCHANGES: usize = 250_000;
