//! What an exchange costs, measured on what a user runs: the release binary, its own installation on disk, a CI issuer
//! on loopback, distinct RS256 tokens minted beforehand, one sealed credential each. Plain HTTP/1.1 over loopback, and
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
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::Installation;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

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
    let tokens = Arc::new(Tokens::mint(&installation));

    let first = Broker::start(&installation).stop();
    let mut later: Vec<Duration> = (0..LATER_STARTS).map(|_| Broker::start(&installation).stop()).collect();
    later.sort_unstable();
    println!("start to ready: first {first:.0?}, later {:.0?} (median)", later[later.len() / 2]);

    let broker = Broker::start(&installation);
    println!("resident idle: {} kB", broker.resident_kb());
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

/// What is asked.
#[derive(Clone)]
enum Load {
    /// Any token again and again: nobody keeps account.
    Bare(Arc<Tokens>),
    Exchange(Arc<Tokens>),
    Garbage(Arc<Vec<String>>),
    Livez,
}

/// When a client asks.
struct Pace {
    first: Instant,
    every: Duration,
}

/// Distinct tokens of a permitted job; each is handed out once.
struct Tokens {
    tokens: Vec<String>,
    next: AtomicUsize,
    again: AtomicUsize,
}

impl Tokens {
    fn mint(installation: &Installation) -> Self {
        let start = Instant::now();
        drop(installation.issuer.token());
        let issuer = &installation.issuer;
        let mint_some = || {
            let mut minted = Vec::new();
            while minted.len() < TOKENS / 2 && start.elapsed() < MINTING {
                minted.push(issuer.token());
            }
            minted
        };
        let tokens = std::thread::scope(|scope| {
            let halves = [scope.spawn(mint_some), scope.spawn(mint_some)];
            halves.map(|half| half.join().unwrap()).concat()
        });
        println!("{} tokens of {} bytes, minted in {:.1?}", tokens.len(), tokens[0].len(), start.elapsed());
        Self { tokens, next: AtomicUsize::new(0), again: AtomicUsize::new(0) }
    }

    fn take(&self) -> Option<&str> {
        self.tokens.get(self.next.fetch_add(1, Ordering::Relaxed)).map(String::as_str)
    }

    fn any(&self) -> &str {
        &self.tokens[self.again.fetch_add(1, Ordering::Relaxed) % self.tokens.len()]
    }
}

/// A running `hallpass serve`.
struct Broker {
    process: Child,
    address: SocketAddr,
    start_to_ready: Duration,
}

impl Broker {
    /// Starts it and reads its output until the line that says ready.
    fn start(installation: &Installation) -> Self {
        let mut command = installation.command(&["serve"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let start = Instant::now();
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.starts_with("hallpass ready ")).unwrap();
        let start_to_ready = start.elapsed();
        std::thread::spawn(move || lines.for_each(drop));
        let (_, rest) = ready.split_once("public=http://").unwrap();
        let address = rest.split(' ').next().unwrap().parse().unwrap();
        Self { process, address, start_to_ready }
    }

    /// Stops it in order; answers how long it took from start to ready.
    fn stop(mut self) -> Duration {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
        self.start_to_ready
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
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

/// What one load did.
#[derive(Default)]
struct Outcome {
    elapsed: Duration,
    latencies: Vec<Duration>,
    waste: BTreeMap<String, u64>,
}

impl Outcome {
    /// What several clients did together.
    async fn of(start: Instant, clients: JoinSet<Self>) -> Self {
        let mut all = Self::default();
        for outcome in clients.join_all().await {
            all.latencies.extend(outcome.latencies);
            for (what, count) in outcome.waste {
                *all.waste.entry(what).or_insert(0) += count;
            }
        }
        all.elapsed = start.elapsed();
        all.latencies.sort_unstable();
        all
    }

    fn per_second(&self) -> f64 {
        let answers = u32::try_from(self.latencies.len()).unwrap();
        f64::from(answers) / self.elapsed.as_secs_f64()
    }

    /// Expects sorted latencies.
    fn quantile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().checked_sub(1).unwrap();
        self.latencies[last * percent / 100]
    }
}

/// A load, and the CPU time that the process took for it, in microseconds an answer.
fn costed(process: &Child, load: impl FnOnce() -> Outcome) -> (Outcome, f64) {
    let before = cpu_seconds(process);
    let outcome = load();
    let answers = u32::try_from(outcome.latencies.len()).unwrap();
    let cost = (cpu_seconds(process) - before) * 1e6 / f64::from(answers);
    (outcome, cost)
}

/// User and system time of a process until now (proc(5): fields 14 and 15 of `stat`, in ticks).
fn cpu_seconds(process: &Child) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    // The name stands in brackets and may hold anything; the state behind it is field 3.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u32 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    f64::from(ticks) / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap())
}

/// Asks on so many connections, one request at a time on each, until the time is up or no token is left.
fn measure(address: SocketAddr, connections: usize, load: &Load) -> Outcome {
    support::runtime().block_on(async {
        let start = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            clients.spawn(ask(address, load.clone(), start + LOAD, None));
        }
        Outcome::of(start, clients).await
    })
}

/// One client. A latency is from the request's first byte to the answer's last, a reconnect included.
async fn ask(address: SocketAddr, load: Load, end: Instant, pace: Option<Pace>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut kept: Option<TcpStream> = None;
    for turn in 0.. {
        let due = pace.as_ref().map(|pace| pace.first + pace.every * turn);
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
        if Instant::now() >= end {
            break;
        }
        let request = match &load {
            Load::Exchange(tokens) => {
                let Some(token) = tokens.take() else { break };
                exchange_request(token)
            }
            Load::Bare(tokens) => exchange_request(tokens.any()),
            Load::Garbage(tokens) => exchange_request(&tokens[usize::try_from(turn).unwrap() % tokens.len()]),
            Load::Livez => "GET /livez HTTP/1.1\r\nhost: hallpass.test\r\n\r\n".to_owned(),
        };
        let wanted = if matches!(load, Load::Garbage(_)) { 401 } else { 200 };
        let start = due.unwrap_or_else(Instant::now);
        let mut is_again = false;
        loop {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => connect(address).await,
            };
            match answer(&mut stream, &request).await {
                // The broker ends a connection 500 ms after its first token; a request may cross that on the wire.
                None if !is_again => is_again = true,
                None => panic!("two connections in a row ended without an answer"),
                Some(answer) => {
                    if answer.status == wanted {
                        outcome.latencies.push(start.elapsed());
                    } else {
                        *outcome.waste.entry(format!("status {}", answer.status)).or_insert(0) += 1;
                    }
                    kept = (!answer.is_last).then_some(stream);
                    break;
                }
            }
        }
        if is_again {
            *outcome.waste.entry("reconnected and sent again".to_owned()).or_insert(0) += 1;
        }
    }
    outcome
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn exchange_request(token: &str) -> String {
    let length = BODY.len();
    format!(
        "POST /v1/exchange HTTP/1.1\r\nhost: hallpass.test\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{BODY}"
    )
}

struct Answer {
    status: u16,
    is_last: bool,
}

/// Sends a request and reads its answer whole; nothing where the connection ended first.
async fn answer(stream: &mut TcpStream, request: &str) -> Option<Answer> {
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut bytes = Vec::with_capacity(8 * 1024);
    loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = std::str::from_utf8(&bytes[..at]).unwrap().to_ascii_lowercase();
            let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
            while bytes.len() < at + 4 + length {
                assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "half an answer: {head}");
            }
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            return Some(Answer { status, is_last: field(&head, "connection") == Some("close") });
        }
        match stream.read_buf(&mut bytes).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

fn field<'head>(head: &'head str, name: &str) -> Option<&'head str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// One sealed credential of the kit's sample grant.
const BODY: &str = r#"{"grants":[{"name":"deploy","credentials":["npm"]}]}"#;

/// Set to a JWK, it makes this program the bare route.
const BARE: &str = "HALLPASS_BENCH_BARE";

const CONNECTIONS: [usize; 4] = [1, 8, 32, 128];

/// How long each load lasts; twelve of them and the minting stay under a minute.
const LOAD: Duration = Duration::from_secs(3);

/// Few enough that a machine of two cores is idle but for them.
const GOOD_PER_SECOND: u32 = 100;

const GARBAGE_PER_SECOND: u32 = 5_000;

const IDLE: usize = 4_000;

const LATER_STARTS: usize = 5;

/// More than a small machine uses in four loads; tokens live five minutes.
const TOKENS: usize = 60_000;

/// How long minting may take; a slow machine uses fewer tokens too.
const MINTING: Duration = Duration::from_secs(20);
