//! The preloaded library and its control file, clients that keep what they were given, and the look at a ledger after
//! a fault.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Answer, Client, Installation, Server,
    installation::{finish, run},
};

/// Calls of the process to the system, as bits.
pub(super) const WRITE: u64 = 1;
pub(super) const SYNC: u64 = 2;
pub(super) const SEND: u64 = 4;

/// The database's files, as bits.
pub(super) const DATABASE: u64 = 1;
pub(super) const LOG: u64 = 2;

/// What happens at such a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// It fails with that number.
    Fail(i32),
    /// The process ends as by `kill -9`.
    Kill,
    /// The process stands still as by SIGSTOP.
    Stop,
    /// The call does not return before the rule is withdrawn.
    Hang,
}

/// Which call, and what happens there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) calls: u64,
    pub(super) files: u64,
    /// So many such calls pass before.
    pub(super) skip: u64,
    pub(super) act: Act,
    /// Whether it happens behind the call instead of before it.
    pub(super) after: bool,
    /// Whether it happens at every such call from then on.
    pub(super) stays: bool,
}

impl Rule {
    /// The next sync of the log: the moment at which a transaction becomes durable.
    pub(super) fn commit(act: Act) -> Self {
        Self { calls: SYNC, files: LOG, skip: 0, act, after: false, stays: false }
    }

    /// The same, behind it.
    pub(super) fn committed(act: Act) -> Self {
        Self { after: true, ..Self::commit(act) }
    }

    /// Every write of the database's files.
    pub(super) fn writes(act: Act) -> Self {
        Self { calls: WRITE, files: DATABASE | LOG, skip: 0, act, after: false, stays: true }
    }
}

/// The control file of one installation's processes.
pub(super) struct Faults {
    control: File,
    folder: tempfile::TempDir,
}

impl Faults {
    pub(super) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hallpass-faults-").tempdir().unwrap();
        let path = folder.path().join("control");
        let control = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        control.set_len(WORDS * 8).unwrap();
        Self { control, folder }
    }

    /// `hallpass serve` under them; nothing happens before a rule is armed.
    pub(super) fn serve(&self, installation: &Installation) -> Server {
        installation.serve_by(&mut self.command(installation))
    }

    /// The command line of it.
    pub(super) fn command(&self, installation: &Installation) -> Command {
        let mut command = installation.command(&["serve"]);
        command.env("LD_PRELOAD", library()).env("FAULTS", self.folder.path().join("control"));
        command
    }

    pub(super) fn arm(&self, rule: &Rule) {
        let (action, error) = match rule.act {
            Act::Fail(number) => (1, number.unsigned_abs().into()),
            Act::Kill => (2, 0),
            Act::Stop => (3, 0),
            Act::Hang => (4, 0),
        };
        let words =
            [rule.calls, rule.files, rule.skip, action, error, rule.after.into(), rule.stays.into(), 0];
        for (at, word) in (1..).zip(words) {
            self.set(at, word);
        }
        self.set(ARMED, 1);
    }

    pub(super) fn disarm(&self) {
        self.set(ARMED, 0);
    }

    /// How often it happened since it was armed.
    pub(super) fn hits(&self) -> u64 {
        let mut word = [0; 8];
        self.control.read_exact_at(&mut word, HITS * 8).unwrap();
        u64::from_ne_bytes(word)
    }

    fn set(&self, at: u64, word: u64) {
        self.control.write_all_at(&word.to_ne_bytes(), at * 8).unwrap();
    }
}

const ARMED: u64 = 0;
const HITS: u64 = 8;
const WORDS: u64 = 9;

fn library() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/served/support/faults.c");
        let built =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}.so", std::process::id()));
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&built)
            .args([source, "-ldl"])
            .status()
            .expect("a C compiler, which aws-lc wants too");
        assert!(status.success(), "cc: {status}");
        built
    })
}

/// Random numbers of a seed (splitmix64), so that a failure can be run again.
pub(super) struct Random(u64);

impl Random {
    /// Of `HALLPASS_TEST_SEED` where it is set; the test that fails says which it was.
    pub(super) fn seeded() -> Self {
        let given = std::env::var("HALLPASS_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
        Self(given.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            aws_lc_rs::rand::fill(&mut bytes).unwrap();
            u64::from_ne_bytes(bytes)
        }))
    }

    /// What makes the same numbers again from here on.
    pub(super) fn seed(&self) -> u64 {
        self.0
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Says at the end of a test that failed how to see it fail again.
pub(super) struct Told {
    pub(super) seed: u64,
    pub(super) last: String,
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(self);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test says how to run it again")]
fn say(told: &Told) {
    eprintln!("HALLPASS_TEST_SEED={} failed at {}", told.seed, told.last);
}

/// One call of a client, and what became of it as far as the client knows.
pub(super) struct Called {
    pub(super) token: String,
    pub(super) key: String,
    /// None where the connection broke.
    pub(super) answer: Option<Answer>,
}

impl Called {
    /// Asks for one credential under a key of its own.
    pub(super) fn now(client: &Client, token: String) -> Self {
        let key = crate::support::issuer::fresh_id();
        let answer = client.exchanging(&token, &npm()).header("idempotency-key", &key).try_send().ok();
        Self { token, key, answer }
    }

    /// The same call again under its key.
    pub(super) fn again(&self, client: &Client) -> Answer {
        client.exchanging(&self.token, &npm()).header("idempotency-key", &self.key).send()
    }

    /// The answer that carried a secret.
    pub(super) fn received(&self) -> Option<Value> {
        self.answer.as_ref().filter(|answer| answer.status == 200).map(Answer::json)
    }
}

/// What every call asks for.
pub(super) fn npm() -> Value {
    json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] })
}

/// Clients that ask without a pause until they are told to stop, or get no answer.
pub(super) struct Load {
    clients: Vec<JoinHandle<Vec<Called>>>,
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    /// Tokens are made beforehand, so that it is the broker that is at work. It ends by itself when they are used up.
    pub(super) fn start(server: &Server, tokens: Vec<String>) -> Self {
        let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tokens = Arc::new(Mutex::new(tokens));
        let clients = (0..CLIENTS).map(|_| {
            let (client, tokens) = (server.public.clone(), Arc::clone(&tokens));
            let (ends, answered) = (Arc::clone(&ends), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut calls = Vec::new();
                while !ends.load(Ordering::SeqCst) {
                    let Some(token) = tokens.lock().unwrap().pop() else { break };
                    let call = Called::now(&client, token);
                    let is_broken = call.answer.is_none();
                    calls.push(call);
                    answered.fetch_add(1, Ordering::SeqCst);
                    if is_broken {
                        break;
                    }
                }
                calls
            })
        });
        Self { clients: clients.collect(), ends, answered }
    }

    /// How many calls came to their end.
    pub(super) fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Waits for all clients; answers every call.
    pub(super) fn stop(self) -> Vec<Called> {
        self.ends.store(true, Ordering::SeqCst);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

const CLIENTS: usize = 6;

/// A ledger as an auditor takes it away.
pub(super) struct Exported {
    entries: Vec<Value>,
}

impl Exported {
    /// Verifies it against its key and two heads that were seen: that of `ledger.seen`, which serves by itself, and that
    /// of the newest receipt that a client holds. Then exports it.
    #[track_caller]
    pub(super) fn verified(installation: &Installation, calls: &[Called]) -> Self {
        let key = run(&mut installation.command(&["keys", "show", "ledger"]), "");
        let folder = tempfile::tempdir().unwrap();
        let (out, receipt) = (folder.path().join("export"), folder.path().join("receipt.json"));
        let mut verify = installation.command(&["ledger", "verify", "--key", key.trim()]);
        let receipts = calls.iter().filter_map(Called::received);
        let newest = receipts
            .filter_map(|body| body["receipts"].as_array().unwrap().last().cloned())
            .max_by_key(|receipt| receipt["index"].as_u64());
        if let Some(newest) = newest {
            fs::write(&receipt, newest.to_string()).unwrap();
            verify.arg("--anchor").arg(receipt);
        }
        let verdict = finish(&mut verify, "");
        assert!(verdict.status.success(), "{verdict:?}");
        run(installation.command(&["ledger", "export", "--out"]).arg(&out), "");
        let lines = fs::read_to_string(out.join("entries.jsonl")).unwrap();
        Self { entries: lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect() }
    }

    /// The issuances that it has under a code.
    pub(super) fn of(&self, code: &str) -> BTreeSet<String> {
        let of_code = self.entries.iter().filter(|entry| entry["code"] == code);
        of_code.map(|entry| entry["issuance"].as_str().unwrap().to_owned()).collect()
    }

    /// The laws that hold after any fault: what clients received is recorded, and nothing is open.
    #[track_caller]
    pub(super) fn holds_all_of(&self, calls: &[Called]) {
        let issued = self.of("ISSUED");
        for body in calls.iter().filter_map(Called::received) {
            for each in body["issuances"].as_array().unwrap() {
                let id = each["id"].as_str().unwrap();
                assert!(issued.contains(id), "a client received {id}, and the ledger does not know it");
            }
        }
        let closed: BTreeSet<_> =
            ["ISSUED", "FAILED", "UNRESOLVED"].into_iter().flat_map(|code| self.of(code)).collect();
        assert_eq!(self.of("INTENT"), closed, "intents and their ends");
    }
}

/// Asks, and holds the answer to the contract: refused within a second, as the ledger's fault, with nothing told.
/// On a machine that does other work too, the second is the broker's and the bound is wider.
#[track_caller]
pub(super) fn refused_within_a_second(client: &Client, token: String) -> Called {
    let asked = Instant::now();
    let call = Called::now(client, token);
    let took = asked.elapsed();
    let answer = call.answer.as_ref().expect("an answer, though the ledger is not to be had");
    answer.problem(503, "ledger_unavailable");
    assert!(took < Duration::from_secs(1) + SLACK, "refused after {took:?}");
    call
}

/// What a busy machine adds to the second.
const SLACK: Duration = Duration::from_millis(500);
