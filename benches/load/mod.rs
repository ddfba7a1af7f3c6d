//! Exchanges asked of a running broker over loopback, and what they took: what the benches of the whole binary share.

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

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{self, Installation};

/// What is asked.
#[derive(Clone)]
pub(crate) enum Load {
    /// Any token again and again: nobody keeps account.
    Bare(Arc<Tokens>),
    Exchange(Arc<Tokens>),
    Garbage(Arc<Vec<String>>),
    Livez,
}

/// When a client asks.
pub(crate) struct Pace {
    pub(crate) first: Instant,
    pub(crate) every: Duration,
}

/// Distinct tokens of a permitted job; each is handed out once.
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<String>,
    next: AtomicUsize,
    again: AtomicUsize,
}

impl Tokens {
    /// At most so many.
    pub(crate) fn mint(installation: &Installation, most: usize) -> Self {
        let start = Instant::now();
        drop(installation.issuer.token());
        let issuer = &installation.issuer;
        let mint_some = || {
            let mut minted = Vec::new();
            while minted.len() < most / 2 && start.elapsed() < MINTING {
                minted.push(issuer.token());
            }
            minted
        };
        let tokens = std::thread::scope(|scope| {
            let halves = [scope.spawn(mint_some), scope.spawn(mint_some)];
            halves.map(|half| half.join().unwrap()).concat()
        });
        Self { tokens, next: AtomicUsize::new(0), again: AtomicUsize::new(0) }
    }

    pub(crate) fn take(&self) -> Option<&str> {
        self.tokens.get(self.next.fetch_add(1, Ordering::Relaxed)).map(String::as_str)
    }

    pub(crate) fn any(&self) -> &str {
        &self.tokens[self.again.fetch_add(1, Ordering::Relaxed) % self.tokens.len()]
    }
}

/// A running `hallpass serve`.
pub(crate) struct Broker {
    pub(crate) process: Child,
    pub(crate) address: SocketAddr,
    pub(crate) start_to_ready: Duration,
}

impl Broker {
    /// Starts it and reads its output until the line that says ready.
    pub(crate) fn start(installation: &Installation) -> Self {
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
    pub(crate) fn stop(mut self) -> Duration {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
        self.start_to_ready
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    pub(crate) fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// What one load did.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Vec<Duration>,
    pub(crate) waste: BTreeMap<String, u64>,
}

impl Outcome {
    /// What several clients did together.
    pub(crate) async fn of(start: Instant, clients: JoinSet<Self>) -> Self {
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

    pub(crate) fn per_second(&self) -> f64 {
        let answers = u32::try_from(self.latencies.len()).unwrap();
        f64::from(answers) / self.elapsed.as_secs_f64()
    }

    /// Expects sorted latencies.
    pub(crate) fn quantile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().checked_sub(1).unwrap();
        self.latencies[last * percent / 100]
    }
}

/// A load, and the CPU time that the process took for it, in microseconds an answer.
pub(crate) fn costed(process: &Child, load: impl FnOnce() -> Outcome) -> (Outcome, f64) {
    let before = cpu_seconds(process);
    let outcome = load();
    let answers = u32::try_from(outcome.latencies.len()).unwrap();
    let cost = (cpu_seconds(process) - before) * 1e6 / f64::from(answers);
    (outcome, cost)
}

/// User and system time of a process until now (proc(5): fields 14 and 15 of `stat`, in ticks).
pub(crate) fn cpu_seconds(process: &Child) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    // The name stands in brackets and may hold anything; the state behind it is field 3.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u32 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    f64::from(ticks) / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap())
}

/// Asks on so many connections, one request at a time on each, until the time is up or no token is left.
pub(crate) fn measure(address: SocketAddr, connections: usize, load: &Load) -> Outcome {
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
pub(crate) async fn ask(address: SocketAddr, load: Load, end: Instant, pace: Option<Pace>) -> Outcome {
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

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) fn exchange_request(token: &str) -> String {
    let length = BODY.len();
    format!(
        "POST /v1/exchange HTTP/1.1\r\nhost: hallpass.test\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{BODY}"
    )
}

pub(crate) struct Answer {
    status: u16,
    is_last: bool,
}

/// Sends a request and reads its answer whole; nothing where the connection ended first.
pub(crate) async fn answer(stream: &mut TcpStream, request: &str) -> Option<Answer> {
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

pub(crate) fn field<'head>(head: &'head str, name: &str) -> Option<&'head str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// One sealed credential of the kit's sample grant.
pub(crate) const BODY: &str = r#"{"grants":[{"name":"deploy","credentials":["npm"]}]}"#;

/// How long each load lasts; twelve of them and the minting stay under a minute.
pub(crate) const LOAD: Duration = Duration::from_secs(3);

/// How long minting may take; a slow machine uses fewer tokens too.
pub(crate) const MINTING: Duration = Duration::from_secs(20);

/// Gives an installation so many grants, each for a project of its own, beside those that it has.
pub(crate) fn add_grants(installation: &Installation, grants: usize) {
    for number in 0..grants {
        let text = format!(
            "grant: project-{number}\ndescription: What project {number} needs\nallow:\n  - name: from-main\n    issuer: ci\n    \
             match:\n      repository_owner_id: \"4216\"\n      repository_id: \"{}\"\n      ref: refs/heads/main\n      \
             event_name: push\ncredentials:\n  npm:\n    sealed: {{ secret: npm-token }}\n",
            80_000_000 + number,
        );
        fs::write(installation.file(&format!("policies/grants/project-{number}.yaml")), text).unwrap();
    }
}
