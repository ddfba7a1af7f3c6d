//! What an exchange costs, measured on what a user runs: the release binary, its own installation on disk, a CI issuer
//! on loopback, distinct RS256 tokens minted beforehand, one sealed credential each, among
//! 10,000 grants. Plain HTTP/1.1 over loopback, and
//! client, issuer and broker share the machine, so the figures are a floor. Beside each load, in the same run, stand
//! `GET /livez` and a bare axum route in a process of its own, which verifies the same tokens with the same library and
//! reads their claims, and nothing else: what the transport costs, and what any broker must pay. The CPU time of each
//! process, divided by its answers, moves least with what else the machine does. Then what strangers cost: the latency of a few good exchanges alone and under a
//! flood of tokens that are right but for their signature, and the memory of an idle connection. It ends by itself in
//! about a minute and a half and asserts nothing about speed.
//!
//! Run it with `cargo bench --bench exchange`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints what it found and ends at the first thing that is not as it should be"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{rsa::PublicKeyComponents, signature::RSA_PKCS1_2048_8192_SHA256};
use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
    serve::ListenerExt as _,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use load::{BODY, Broker, LOAD, Load, Outcome, Pace, Tokens, add_grants, ask, costed, measure};
use serde_json::Value;
use support::Installation;
use tokio::task::JoinSet;

mod load;
#[expect(dead_code, reason = "the tests' kit serves more than this")]
#[path = "../tests/served/support/mod.rs"]
mod support;

fn main() {
    if let Ok(public) = std::env::var(BARE) {
        return serve_bare(&public);
    }
    // Cargo also builds and runs benchmarks as tests (`cargo test --benches`); nothing is measured there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let installation = Installation::new();
    let tokens = Arc::new(Tokens::mint(&installation, TOKENS));
    println!("{} tokens of {} bytes", tokens.tokens.len(), tokens.tokens[0].len());

    let first = Broker::start(&installation).stop();
    let mut later: Vec<Duration> = (0..LATER_STARTS).map(|_| Broker::start(&installation).stop()).collect();
    later.sort_unstable();
    println!("start to ready: first {first:.0?}, later {:.0?} (median)", later[later.len() / 2]);

    add_grants(&installation, GRANTS);
    let broker = Broker::start(&installation);
    println!("resident idle, {GRANTS} grants more: {} kB", broker.resident_kb());
    let bare = Bare::start();
    println!(
        "connections  exchanges/s      p50      p99  CPU us   bare/s  CPU us    livez/s  CPU us  to bare  to livez"
    );
    let mut waste = BTreeMap::new();
    for connections in CONNECTIONS {
        let (exchanges, of_exchange) = costed(&broker.process, || {
            measure(broker.address, connections, &Load::Exchange(Arc::clone(&tokens)))
        });
        let (bares, of_bare) =
            costed(&bare.process, || measure(bare.address, connections, &Load::Bare(Arc::clone(&tokens))));
        let (lives, of_livez) =
            costed(&broker.process, || measure(broker.address, connections, &Load::Livez));
        println!(
            "{connections:>11}  {:>11.0}  {:>7.2?}  {:>7.2?}  {of_exchange:>6.0}  {:>7.0}  {of_bare:>6.0}  {:>9.0}  \
             {of_livez:>6.0}  {:>7.3}  {:>8.3}",
            exchanges.per_second(),
            exchanges.quantile(50),
            exchanges.quantile(99),
            bares.per_second(),
            lives.per_second(),
            exchanges.per_second() / bares.per_second(),
            exchanges.per_second() / lives.per_second(),
        );
        *waste.entry("bare, not 200".to_owned()).or_insert(0) += bares.waste.values().sum::<u64>();
        for (what, count) in exchanges.waste.into_iter().chain(lives.waste) {
            *waste.entry(what).or_insert(0) += count;
        }
    }
    drop(bare);
    flood(&installation, &broker, &tokens, &mut waste);
    println!("not counted: {waste:?}");
    println!("resident after: {} kB", broker.resident_kb());
    idle(&broker);
    broker.stop();
}

/// Good exchanges at a steady rate, without and with garbage beside them. Latencies count from the moment at which a
/// request was due, so that one that had to wait for its turn is slow too.
fn flood(
    installation: &Installation,
    broker: &Broker,
    tokens: &Arc<Tokens>,
    waste: &mut BTreeMap<String, u64>,
) {
    let good = Load::Exchange(Arc::clone(tokens));
    let garbage = Load::Garbage(Arc::new(garbage(&installation.issuer.token())));
    for garbage_per_second in [0, GARBAGE_PER_SECOND / 5, GARBAGE_PER_SECOND] {
        let (address, end) = (broker.address, Instant::now() + LOAD);
        let [good, garbage] = support::runtime().block_on(async {
            let good = paced(address, (&good, GOOD_PER_SECOND, 4), end);
            let garbage = paced(address, (&garbage, garbage_per_second, 32), end);
            let (good, garbage) = tokio::join!(good, garbage);
            [good, garbage]
        });
        println!(
            "{garbage_per_second}/s garbage wanted, {:.0}/s refused; {:.0}/s good: p50 {:.2?}, p99 {:.2?}",
            garbage.per_second(),
            good.per_second(),
            good.quantile(50),
            good.quantile(99),
        );
        for (what, count) in good.waste.into_iter().chain(garbage.waste) {
            *waste.entry(what).or_insert(0) += count;
        }
    }
}

/// Clients that together ask so often.
async fn paced(address: SocketAddr, (load, per_second, clients): (&Load, u32, u32), end: Instant) -> Outcome {
    let start = Instant::now();
    let mut all = JoinSet::new();
    if per_second > 0 {
        for client in 0..clients {
            let pace = Pace {
                first: start + client * Duration::from_secs(1) / per_second,
                every: Duration::from_secs(1) * clients / per_second,
            };
            all.spawn(ask(address, load.clone(), end, Some(pace)));
        }
    }
    Outcome::of(start, all).await
}

/// Tokens of the issuer's own key and claims, under signatures that do not hold.
fn garbage(token: &str) -> Vec<String> {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let turned = |by: usize| {
        let (head, tail) = signature.split_at(by);
        format!("{signed}.{tail}{head}")
    };
    // An RSA signature's first character has six bits of a number below the modulus: a low one keeps it below.
    (8..200).map(turned).collect()
}

/// What a connection costs that says nothing.
fn idle(broker: &Broker) {
    let before = broker.resident_kb();
    let connections: Vec<_> =
        (0..IDLE).map(|_| std::net::TcpStream::connect(broker.address).unwrap()).collect();
    support::eventually("all to be accepted", || (broker.descriptors() > IDLE).then_some(()));
    let bytes = (broker.resident_kb() - before) * 1024 / u64::try_from(IDLE).unwrap();
    println!("resident for one of {IDLE} idle connections: {bytes} bytes");
    drop(connections);
}

/// The bare route, in this program run a second time.
struct Bare {
    process: Child,
    address: SocketAddr,
}

impl Bare {
    fn start() -> Self {
        let public = support::issuer::own_key().jwk("bare").to_string();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.env(BARE, public).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, address: line.trim().parse().unwrap() }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Answers 200 where a token's RS256 signature holds and its claims are JSON, until it is killed.
fn serve_bare(public: &str) {
    let jwk: Value = serde_json::from_str(public).unwrap();
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let key = PublicKeyComponents { n: part("n"), e: part("e") };
    let key = Arc::new(key.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).unwrap());
    let verified = move |headers: HeaderMap, body: Bytes| async move {
        let claims = headers.get("authorization").and_then(|header| {
            let (signed, signature) = header.to_str().ok()?.strip_prefix("Bearer ")?.rsplit_once('.')?;
            let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
            key.verify_sig(signed.as_bytes(), &signature).ok()?;
            let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?;
            serde_json::from_slice::<Value>(&claims).ok()
        });
        let Some(claims) = claims.filter(|_| body.as_ref() == BODY.as_bytes()) else {
            return (StatusCode::UNAUTHORIZED, String::new());
        };
        (StatusCode::OK, claims["repository"].to_string())
    };
    let router = Router::new().route("/v1/exchange", post(verified));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        axum::serve(listener.tap_io(|stream| stream.set_nodelay(true).unwrap()), router).await.unwrap();
    });
}

/// Set to a JWK, it makes this program the bare route.
const BARE: &str = "HALLPASS_BENCH_BARE";

const CONNECTIONS: [usize; 4] = [1, 8, 32, 128];

/// Few enough that a machine of two cores is idle but for them.
const GOOD_PER_SECOND: u32 = 100;

const GARBAGE_PER_SECOND: u32 = 5_000;

const IDLE: usize = 4_000;

const LATER_STARTS: usize = 5;

/// Beside those of the kit's installation.
const GRANTS: usize = 10_000;

/// More than a small machine uses in four loads; tokens live five minutes.
const TOKENS: usize = 60_000;
