//! What a job pays for a credential of Vault, when it asks Vault itself and when it asks Hallpass, in one run on one
//! machine: a real Vault (raft storage, a file audit device, TLS), a real PostgreSQL for its database engine, the release
//! binary with its own installation on disk (SQLite, TLS), a CI issuer on loopback. Every job is a job: a fresh CI token,
//! signed beforehand, and a TLS connection of its own, without resumption, since each runs in a process of its own.
//!
//! | row | what a job does |
//! |---|---|
//! | `direct` | `auth/jwt/login`, then the read, on one connection; Vault keeps a service token and its lease |
//! | `batch` | the same with batch tokens, which Vault does not store, and which nobody can revoke |
//! | `hallpass` | `POST /v1/exchange`: the token is once only, intent and record are durable, a receipt comes with it |
//!
//! Beside each row: the CPU time of both servers and the lines of Vault's audit log (two for each request that it gets),
//! all divided by the answers. Then, from some exchanges one after another and outside of any timing, the syncs of both
//! servers to the disk (by strace, where it is installed), what one costs on this machine, and the memory of both. It
//! asserts nothing about speed, and ends by itself in less than three minutes.
//!
//! Run it with `cargo bench --bench vault`; a number behind `--` is the seconds of each load. It wants PostgreSQL, and
//! Vault by `.ci/component vault`.

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
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::{Body, to_bytes};
use http::{Request, header::HOST};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use support::{AUDIENCE, Cluster, Installation, component, vault_server::VaultServer};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;

#[expect(dead_code, reason = "the tests' kit serves more than this")]
#[path = "../tests/served/support/mod.rs"]
mod support;

fn main() {
    // Cargo also builds and runs benchmarks as tests (`cargo test --benches`); nothing is measured there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let seconds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(SECONDS);
    let scratch = component::folder("vault-bench");
    println!("one sync of 4 KiB to this disk: {}", Syncs::measure(scratch.path()));

    let (vault, installation) = (VaultServer::on_raft(), Installation::new());
    let audit = scratch.path().join("audit.log");
    let _cluster = furnish(&vault, &installation, &audit);
    secure(&installation, &vault);
    let server = installation.serve();
    let place = Place {
        tls: connector(&vault.authority.certificate),
        vault: vault.url.strip_prefix("https://").unwrap().parse().unwrap(),
        hallpass: server.public.address,
        watched: [Process(child("vault")), Process(server.pid())],
        audit,
    };
    println!("resident idle: {}", place.memory());
    println!("{seconds} s each; CPU in ms of vault+hallpass, and lines of Vault's audit log, per answer");
    println!(
        "what      clients  row       jobs/s       p50       p99     CPU ms     lines   to direct: jobs/s  p50"
    );
    for what in [What::Kv, What::Database] {
        for clients in CLIENTS {
            let mut direct = None;
            for row in [Row::Direct, Row::Batch, Row::Hallpass] {
                let tokens =
                    Tokens::mint(&installation, row, seconds * if clients == 1 { MOST / 2 } else { MOST });
                let outcome = place.measure((what, row, clients), &tokens, Duration::from_secs(seconds));
                let first = direct.get_or_insert((outcome.per_second(), outcome.quantile(50)));
                println!("{}", outcome.line((what, row, clients), *first));
            }
        }
    }
    println!("resident after: {}", place.memory());
    place.print_syncs(&installation, scratch.path());
    assert_eq!(server.entries("FAILED").len(), 0, "no exchange failed");
}

/// What a job wants.
#[derive(Clone, Copy, Debug)]
enum What {
    Kv,
    Database,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Database => "database",
        }
    }

    /// Its path in Vault.
    fn path(self) -> &'static str {
        match self {
            Self::Kv => "secret/data/ci/npm",
            Self::Database => "database/creds/app",
        }
    }
}

/// How it gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Row {
    Direct,
    Batch,
    Hallpass,
}

impl Row {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Batch => "batch",
            Self::Hallpass => "hallpass",
        }
    }
}

/// Everything that both ways need: the same secret, the same role, the same trust in the issuer.
fn furnish(vault: &VaultServer, installation: &Installation, audit: &Path) -> Cluster {
    vault.by_root("sys/audit/file", &json!({ "type": "file", "options": { "file_path": audit } }));
    let port = component::free_port();
    let cluster = Cluster::start(Some(port), "");
    cluster.psql("postgres", "CREATE ROLE vault SUPERUSER LOGIN PASSWORD 'pw-vault'");
    vault.by_root("sys/mounts/database", &json!({ "type": "database" }));
    let url =
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/postgres?sslmode=disable");
    vault.by_root(
        "database/config/main",
        &json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": "app", "connection_url": url,
            "username": "vault", "password": "pw-vault", "max_open_connections": 32, "max_idle_connections": 32,
        }),
    );
    let creation = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
    // The lease that the policy wants, so that nobody has to renew it.
    let role = json!({
        "db_name": "main", "default_ttl": "10m", "max_ttl": "1h", "creation_statements": [creation],
    });
    vault.by_root("database/roles/app", &role);

    let acl = "path \"secret/data/ci/*\" { capabilities = [\"read\"] }\n\
               path \"database/creds/*\" { capabilities = [\"read\"] }";
    vault.by_root("sys/policies/acl/ci", &json!({ "policy": acl }));
    vault.by_root("sys/auth/jwt", &json!({ "type": "jwt" }));
    let issuer = &installation.issuer.url;
    vault
        .by_root("auth/jwt/config", &json!({ "jwks_url": format!("{issuer}/keys"), "bound_issuer": issuer }));
    for row in [Row::Direct, Row::Batch] {
        let token_type = if row == Row::Batch { "batch" } else { "service" };
        let role = json!({
            "role_type": "jwt", "user_claim": "repository_id", "bound_audiences": [AUDIENCE],
            "bound_claims": { "repository_owner_id": "4216", "repository_id": "70155112", "ref": "refs/heads/main" },
            "token_policies": "ci", "token_ttl": "10m", "token_type": token_type,
        });
        vault.by_root(&format!("auth/jwt/role/{}", row.name()), &role);
    }

    installation.write("vault-ca.pem", &vault.authority.certificate);
    let token = vault.token(&["hallpass"], "1h");
    installation.write("vault.token", token["client_token"].as_str().unwrap());
    let backend = format!(
        "backends:\n  main:\n    vault:\n      address: \"{}\"\n      ca_file: vault-ca.pem\n      token_role: \
         hallpass\n      auth: {{ token: {{ file: vault.token }} }}\n",
        vault.url
    );
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    installation.write("hallpass.yaml", &format!("{text}{backend}"));
    installation.write("policies/grants/ci.yaml", GRANT);
    cluster
}

/// Gives the public listener a certificate of the authority that vouches for Vault too.
fn secure(installation: &Installation, vault: &VaultServer) {
    let certified = vault.authority.certify_loopback();
    installation.write("tls.crt", &certified.certificate);
    installation.write("tls.key", &certified.key);
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let secured = text.replace("public: { ", "public: { tls: { certificate: tls.crt, key: tls.key }, ");
    assert_ne!(text, secured);
    installation.write("hallpass.yaml", &secured);
}

/// TLS as a fresh process speaks it: without what an earlier one learnt.
fn connector(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config).into()
}

/// CI tokens of a permitted job.
struct Tokens {
    tokens: Vec<String>,
    next: AtomicUsize,
}

impl Tokens {
    /// Vault keeps no account of tokens, so that some do for any number of logins; Hallpass takes each of them once.
    fn mint(installation: &Installation, row: Row, most: u64) -> Arc<Self> {
        let most = if row == Row::Hallpass { usize::try_from(most).unwrap() } else { 64 };
        let half = || (0..most.div_ceil(2)).map(|_| installation.issuer.token()).collect::<Vec<_>>();
        let tokens = std::thread::scope(|scope| {
            let halves = [scope.spawn(half), scope.spawn(half)];
            halves.map(|half| half.join().unwrap()).concat()
        });
        Arc::new(Self { tokens, next: AtomicUsize::new(0) })
    }

    fn take(&self, row: Row) -> Option<&str> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let at = if row == Row::Hallpass { next } else { next % self.tokens.len() };
        self.tokens.get(at).map(String::as_str)
    }
}

/// Where jobs go, and what is looked at meanwhile.
struct Place {
    tls: TlsConnector,
    vault: SocketAddr,
    hallpass: SocketAddr,
    watched: [Process; 2],
    audit: PathBuf,
}

impl Place {
    fn memory(&self) -> String {
        let [vault, hallpass] = self.watched.each_ref().map(Process::memory);
        format!("vault {vault}; hallpass {hallpass}")
    }

    fn measure(
        &self,
        (what, row, clients): (What, Row, usize),
        tokens: &Arc<Tokens>,
        load: Duration,
    ) -> Outcome {
        let cpu = self.watched.each_ref().map(Process::cpu_seconds);
        let audited = self.audited();
        let to = if row == Row::Hallpass { self.hallpass } else { self.vault };
        let mut outcome = support::runtime().block_on(async {
            let start = Instant::now();
            let mut all = JoinSet::new();
            for _ in 0..clients {
                let (tls, tokens) = (self.tls.clone(), Arc::clone(tokens));
                all.spawn(async move {
                    let mut latencies = Vec::new();
                    while start.elapsed() < load {
                        let Some(token) = tokens.take(row) else { break };
                        let began = Instant::now();
                        job(&tls, to, (what, row), token).await;
                        latencies.push(began.elapsed());
                    }
                    latencies
                });
            }
            let mut latencies = all.join_all().await.concat();
            let elapsed = start.elapsed();
            latencies.sort_unstable();
            Outcome { elapsed, latencies, cpu_ms: [0.0; 2], lines: 0.0 }
        });
        let cpu_after = self.watched.each_ref().map(Process::cpu_seconds);
        let answers = outcome.answers();
        outcome.cpu_ms = [0, 1].map(|at| (cpu_after[at] - cpu[at]) * 1e3 / answers);
        outcome.lines = f64::from(self.lines_since(audited)) / answers;
        outcome
    }

    fn audited(&self) -> u64 {
        fs::metadata(&self.audit).unwrap().len()
    }

    /// Lines of Vault's audit log behind that byte.
    fn lines_since(&self, audited: u64) -> u32 {
        let mut bytes = vec![0; usize::try_from(self.audited() - audited).unwrap()];
        fs::File::open(&self.audit).unwrap().read_exact_at(&mut bytes, audited).unwrap();
        u32::try_from(bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap()
    }

    /// How often each server asked the disk to keep what it has, per job, with nobody beside it to share that with.
    fn print_syncs(&self, installation: &Installation, scratch: &Path) {
        if Command::new("strace").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("syncs: not counted, strace is not installed");
            return;
        }
        for what in [What::Kv, What::Database] {
            for row in [Row::Direct, Row::Batch, Row::Hallpass] {
                let tokens = Tokens::mint(installation, row, COUNTED.into());
                let traces = self.watched.each_ref().map(|process| Trace::start(process, scratch));
                let to = if row == Row::Hallpass { self.hallpass } else { self.vault };
                support::runtime().block_on(async {
                    for _ in 0..COUNTED {
                        job(&self.tls, to, (what, row), tokens.take(row).unwrap()).await;
                    }
                });
                let [vault, hallpass] = traces.map(|trace| trace.stop() / f64::from(COUNTED));
                println!(
                    "syncs per job, {} {}: vault {vault:.1}, hallpass {hallpass:.1}",
                    what.name(),
                    row.name()
                );
            }
        }
    }
}

/// One job, from its first packet to the credential in its hand; panics where it does not get it.
async fn job(tls: &TlsConnector, to: SocketAddr, (what, row): (What, Row), token: &str) {
    let mut connection = connect(tls, to).await;
    let fields = match row {
        Row::Hallpass => {
            let asked = format!(r#"{{"grants":[{{"name":"ci","credentials":["{}"]}}]}}"#, what.name());
            let request = Request::post("/v1/exchange")
                .header("authorization", format!("Bearer {token}"))
                .header("content-type", "application/json");
            let answer = ask(&mut connection, request, asked).await;
            answer["issuances"][0]["fields"].clone()
        }
        Row::Batch | Row::Direct => {
            let login = json!({ "role": row.name(), "jwt": token }).to_string();
            let answer = ask(&mut connection, Request::post("/v1/auth/jwt/login"), login).await;
            let token = answer["auth"]["client_token"].as_str().unwrap();
            let request = Request::get(format!("/v1/{}", what.path())).header("x-vault-token", token);
            let data = ask(&mut connection, request, String::new()).await["data"].clone();
            match what {
                What::Kv => data["data"].clone(),
                What::Database => data,
            }
        }
    };
    let wanted = match what {
        What::Kv => "token",
        What::Database => "password",
    };
    assert!(fields[wanted].is_string(), "no {wanted} by {row:?}");
}

async fn connect(tls: &TlsConnector, to: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let stream = tls.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    // It ends with the sender; a server that hangs up after the answer is no fault.
    tokio::spawn(async move { connection.await.ok() });
    sender
}

async fn ask(connection: &mut SendRequest<Body>, request: http::request::Builder, body: String) -> Value {
    let request = request.header(HOST, "bench.test").body(Body::from(body)).unwrap();
    connection.ready().await.unwrap();
    let response = connection.send_request(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(Body::new(response.into_body()), 1 << 20).await.unwrap();
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

/// What one load did.
struct Outcome {
    elapsed: Duration,
    latencies: Vec<Duration>,
    cpu_ms: [f64; 2],
    lines: f64,
}

impl Outcome {
    fn answers(&self) -> f64 {
        f64::from(u32::try_from(self.latencies.len()).unwrap())
    }

    fn per_second(&self) -> f64 {
        self.answers() / self.elapsed.as_secs_f64()
    }

    /// Expects sorted latencies.
    fn quantile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().checked_sub(1).unwrap();
        self.latencies[last * percent / 100]
    }

    fn line(&self, (what, row, clients): (What, Row, usize), direct: (f64, Duration)) -> String {
        let [vault, hallpass] = self.cpu_ms;
        format!(
            "{:<8}  {clients:>7}  {:<8}  {:>6.0}  {:>8.2?}  {:>8.2?}  {vault:>4.1}+{hallpass:<4.1}  {:>8.1}  {:>18.2}  {:>3.2}",
            what.name(),
            row.name(),
            self.per_second(),
            self.quantile(50),
            self.quantile(99),
            self.lines,
            self.per_second() / direct.0,
            self.quantile(50).as_secs_f64() / direct.1.as_secs_f64(),
        )
    }
}

/// A process that is looked at (proc(5)).
struct Process(u32);

impl Process {
    /// What it holds now, and the most that it ever held.
    fn memory(&self) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u32>().unwrap() / 1024
        };
        format!("{} MiB, at most {} MiB", mib("VmRSS:"), mib("VmHWM:"))
    }

    /// User and system time until now: fields 14 and 15 of `stat`, in ticks.
    fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap();
        // The name stands in brackets and may hold anything; the state behind it is field 3.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: u32 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
        f64::from(ticks) / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap())
    }
}

/// The process of that name that this one started.
fn child(name: &str) -> u32 {
    let own = std::process::id().to_string();
    let is_it = |stat: &str| {
        let (head, fields) = stat.rsplit_once(") ")?;
        let (pid, found) = head.split_once(" (")?;
        (found == name && fields.split(' ').nth(1) == Some(&own)).then(|| pid.parse().ok())?
    };
    let mut stats = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        // One that ends meanwhile has none.
        fs::read_to_string(entry.unwrap().path().join("stat")).ok()
    });
    stats.find_map(|stat| is_it(&stat)).unwrap()
}

/// strace on one process, counting.
struct Trace {
    strace: std::process::Child,
    told: PathBuf,
}

impl Trace {
    fn start(process: &Process, scratch: &Path) -> Self {
        let told = scratch.join(format!("syncs-{}", process.0));
        let mut command = Command::new("strace");
        command
            .args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-p", &process.0.to_string(), "-o"])
            .arg(&told);
        let strace = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{}/status", process.0);
        let by = format!("TracerPid:\t{}\n", strace.id());
        support::eventually("strace", || fs::read_to_string(&status).unwrap().contains(&by).then_some(()));
        Self { strace, told }
    }

    /// Ends it; answers what it counted.
    fn stop(mut self) -> f64 {
        kill_process(Pid::from_child(&self.strace), Signal::INT).unwrap();
        self.strace.wait().unwrap();
        let told = fs::read_to_string(&self.told).unwrap();
        fs::remove_file(&self.told).unwrap();
        // `% time, seconds, usecs/call, calls, …, name`
        let of_call = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_it = words.last().is_some_and(|name| name.ends_with("sync"));
            is_it.then(|| words[3].parse::<f64>().unwrap())
        };
        // An empty sum is minus nought.
        told.lines().filter_map(of_call).sum::<f64>() + 0.0
    }
}

/// What it costs to have bytes on the disk.
struct Syncs {
    middle: Duration,
    late: Duration,
}

impl Syncs {
    fn measure(folder: &Path) -> Self {
        let mut file = fs::File::create(folder.join("sync")).unwrap();
        file.write_all(&[0; 4096]).unwrap();
        file.sync_all().unwrap();
        let mut took: Vec<Duration> = (0..200)
            .map(|_| {
                let began = Instant::now();
                file.write_all_at(&[1; 4096], 0).unwrap();
                file.sync_data().unwrap();
                began.elapsed()
            })
            .collect();
        took.sort_unstable();
        Self { middle: took[took.len() / 2], late: took[took.len() * 99 / 100] }
    }
}

impl std::fmt::Display for Syncs {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "p50 {:.2?}, p99 {:.2?}", self.middle, self.late)
    }
}

const GRANT: &str = r#"grant: ci
allow:
  - name: main
    issuer: ci
    match: { repository_owner_id: "4216", repository_id: "70155112", ref: refs/heads/main }
credentials:
  kv: { vault: { engine: kv2, path: secret/data/ci/npm } }
  database: { vault: { engine: database, path: database/creds/app }, ttl: 10m }
"#;

const CLIENTS: [usize; 3] = [1, 8, 32];

/// Of each of the eighteen loads.
const SECONDS: u64 = 5;

/// More exchanges a second than two cores do with a TLS handshake each.
const MOST: u64 = 1_000;

/// Jobs whose syncs are counted.
const COUNTED: u32 = 20;
