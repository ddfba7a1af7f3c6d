//! What our own assertions cost: how many one thread signs a second, RS256 and ES256, with everything that an assertion
//! takes but the ledger; then an exchange that ends in one, measured on what a user runs as in `exchange`: the release
//! binary, its own installation on disk, a CI issuer on loopback, distinct RS256 tokens minted beforehand. The same exchange
//! of a sealed secret stands beside it, turn by turn, so that the difference is the signature. It asserts nothing about
//! speed.
//!
//! Run it with `cargo bench --bench assertions`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints what it found and ends at the first thing that is not as it should be"
)]

use std::{
    collections::BTreeSet,
    fs,
    hint::black_box,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Mutex,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use hallpass::{
    adapters::mint::{AssertionSettings, Assertions},
    kernel::{
        assertion::{Algorithm, AssertionKey, Claims, MAX_LIFE, Schedule},
        id::IssuanceId,
        name::GrantName,
        secret::Secret,
    },
};
use jiff::Timestamp;
use support::{AUDIENCE, Installation};

#[expect(dead_code, reason = "the tests' kit serves more than this")]
#[path = "../tests/served/support/mod.rs"]
mod support;

/// How long each load lasts.
const LOAD: Duration = Duration::from_secs(6);
const CONNECTIONS: [usize; 3] = [1, 8, 32];
/// Tokens minted beforehand; enough for every load, else a load ends early and says so.
const TOKENS: usize = 90_000;
const CLOUD: &str = "https://cloud.test";

fn main() {
    // Cargo also builds and runs benchmarks as tests (`cargo test --benches`); nothing is measured there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    signing();
    let installations =
        [("oidc RS256", "cloud", false), ("oidc ES256", "cloud", true), ("sealed", "npm", false)];
    println!("{:<12} connections  exchanges/s      p50      p99", "");
    for (what, credential, is_es256) in installations {
        let installation = Installation::new();
        if is_es256 {
            let path = installation.file("hallpass.yaml");
            let text = fs::read_to_string(path).unwrap();
            let own = format!("assertions: {{ issuer: \"{AUDIENCE}\"");
            installation.write("hallpass.yaml", &text.replace(&own, &format!("{own}, es256: [\"{CLOUD}\"]")));
        }
        let tokens = Mutex::new(mint(&installation));
        let server = installation.serve();
        for connections in CONNECTIONS {
            let (latencies, elapsed) = exchange(server.public.address, credential, connections, &tokens);
            let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
            println!(
                "{what:<12} {connections:>11}  {:>11.0}  {:>7.2?}  {:>7.2?}",
                latencies.len() as f64 / elapsed.as_secs_f64(),
                at(50),
                at(99)
            );
        }
        server.stop();
    }
}

fn signing() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let schedule = Schedule::first(now);
    let rsa = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap().as_ref().to_vec();
    let elliptic = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let elliptic = elliptic.to_pkcs8v1().unwrap().as_ref().to_vec();
    let keys = [(Algorithm::Rs256, rsa), (Algorithm::Es256, elliptic)].map(|(algorithm, private)| {
        let private = Some(Secret::new(private));
        AssertionKey { algorithm, version: 1, schedule, private, public: None }
    });
    let settings = AssertionSettings {
        issuer: AUDIENCE.to_owned(),
        public_url: AUDIENCE.to_owned(),
        es256: BTreeSet::from([CLOUD.to_owned()]),
    };
    let signer = Assertions::of_store(settings, &keys, now).unwrap();
    let (grant, issuance) = (GrantName::parse("deploy").unwrap(), IssuanceId::from_bytes([1; 16]));
    for (what, audience) in [("RS256", "https://warehouse.example.com"), ("ES256", CLOUD)] {
        let claims = Claims { audience, grant: &grant, issuance, now, life: MAX_LIFE, aws: None };
        let (mut took, start) = (Vec::new(), Instant::now());
        while start.elapsed() < LOAD {
            let one = Instant::now();
            black_box(signer.sign(&claims).unwrap().token.len());
            took.push(one.elapsed());
        }
        let per_second = took.len() as f64 / start.elapsed().as_secs_f64();
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        println!(
            "{what}: {per_second:.0} assertions/s on one thread, p50 {:.1?}, p99 {:.1?}",
            at(50),
            at(99)
        );
    }
}

/// Distinct tokens of a permitted job, each good once.
fn mint(installation: &Installation) -> Vec<String> {
    let issuer = &installation.issuer;
    std::thread::scope(|scope| {
        let halves =
            [(); 2].map(|()| scope.spawn(|| (0..TOKENS / 6).map(|_| issuer.token()).collect::<Vec<_>>()));
        halves.map(|half| half.join().unwrap()).concat()
    })
}

/// Exchanges on so many connections, one at a time on each; answers the sorted latencies and how long it took.
fn exchange(
    address: SocketAddr,
    credential: &str,
    connections: usize,
    tokens: &Mutex<Vec<String>>,
) -> (Vec<Duration>, Duration) {
    let start = Instant::now();
    let mut latencies = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..connections).map(|_| scope.spawn(move || client(address, credential, tokens))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    (latencies, elapsed)
}

fn client(address: SocketAddr, credential: &str, tokens: &Mutex<Vec<String>>) -> Vec<Duration> {
    let body = format!("{{\"grants\":[{{\"name\":\"deploy\",\"credentials\":[\"{credential}\"]}}]}}");
    let (mut latencies, end) = (Vec::new(), Instant::now() + LOAD);
    let mut kept: Option<BufReader<TcpStream>> = None;
    while Instant::now() < end {
        // Out of tokens: what was asked until then counts.
        let Some(token) = tokens.lock().unwrap().pop() else { break };
        let request = format!(
            "POST /v1/exchange HTTP/1.1\r\nhost: hallpass.test\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let one = Instant::now();
        // The broker ends a connection 500 ms after its first secret; a request may cross that on the wire.
        let answered = kept.take().and_then(|stream| ask(stream, &request));
        let (status, stream) =
            answered.or_else(|| ask(connect(address), &request)).expect("a new connection answers");
        latencies.push(one.elapsed());
        assert_eq!(status, 200);
        kept = stream;
    }
    latencies
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

/// The status, and the connection where it goes on; none where it ended without an answer.
fn ask(mut stream: BufReader<TcpStream>, request: &str) -> Option<(u16, Option<BufReader<TcpStream>>)> {
    stream.get_mut().write_all(request.as_bytes()).ok()?;
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let (mut length, mut is_last) = (0, false);
    loop {
        line.clear();
        stream.read_line(&mut line).ok()?;
        let header = line.trim_end().to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(("connection", value)) => is_last |= value == "close",
            Some(_) => {}
            None => break,
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).ok()?;
    Some((status, (!is_last).then_some(stream)))
}
