//! `kill -9` between intent, job token, lease and record, against a real Vault: each cycle ends the broker at one named
//! moment of one exchange. Afterwards Vault's own list of leases and the ledger agree, each row ended as its moment says,
//! and no lease of ours outlives its record by more than a minute.

use std::{
    collections::BTreeSet,
    fs,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::kit::{Act, Exported, Faults, Random, Rule, SEND, Told};
use crate::{
    support::{
        Cluster, Installation, Server,
        gate::{Gate, Side},
        vault_server::VaultServer,
    },
    vault_engines::{ask, database, get, installation, leases},
};

/// The moments of a leased exchange, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    /// INTENT is written and not confirmed by the disk.
    IntentUnconfirmed,
    /// A request to Vault is on its way.
    Request(Step, Fate),
    /// The job's token is there, and its accessor is written and not confirmed.
    AccessorUnconfirmed,
    /// The credential is there, and ISSUED is written and not confirmed.
    RecordUnconfirmed,
    /// ISSUED is durable, and the answer stands ready.
    Recorded,
    /// The answer has left.
    Answered,
}

/// The requests to Vault, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Token,
    Generate,
    Renew,
}

impl Step {
    fn path(self) -> &'static str {
        match self {
            Self::Token => "auth/token/create/hallpass",
            Self::Generate => "database/creds/app",
            Self::Renew => "sys/leases/renew",
        }
    }
}

/// What becomes of a request whose sender dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It never reaches Vault.
    Lost,
    /// It reaches Vault when its sender is dead.
    Late,
    /// Vault has done it, and its answer never arrives.
    Done,
}

const MOMENTS: [Moment; 14] = {
    use {Fate::*, Moment::*, Step::*};
    [
        IntentUnconfirmed,
        Request(Token, Lost),
        Request(Token, Late),
        Request(Token, Done),
        AccessorUnconfirmed,
        Request(Generate, Lost),
        Request(Generate, Late),
        Request(Generate, Done),
        Request(Renew, Lost),
        Request(Renew, Late),
        Request(Renew, Done),
        RecordUnconfirmed,
        Recorded,
        Answered,
    ]
};

/// How a row ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// There is none: nothing was durable.
    Absent,
    Failed,
    Issued,
    /// UNRESOLVED, then REVOKED.
    Undone,
}

impl Moment {
    /// How its row may end. What a dead process wrote is in the kernel's hands, and may be durable unconfirmed.
    fn ends(self) -> &'static [End] {
        match self {
            Self::IntentUnconfirmed => &[End::Absent, End::Failed],
            Self::Request(Step::Token, _) => &[End::Failed],
            Self::AccessorUnconfirmed => &[End::Failed, End::Undone],
            Self::Request(Step::Generate | Step::Renew, _) => &[End::Undone],
            Self::RecordUnconfirmed => &[End::Undone, End::Issued],
            Self::Recorded | Self::Answered => &[End::Issued],
        }
    }
}

/// Where a broker dies between intent, job token, generation and record, Vault and the ledger agree afterwards.
#[test]
fn vault_and_ledger_agree_after_a_crash_at_any_moment() {
    let cycles = std::env::var("HALLPASS_TEST_VAULT_CYCLES").map_or(CYCLES, |cycles| cycles.parse().unwrap());
    let mut random = Random::seeded();
    let mut told = Told { seed: random.seed(), last: String::new() };
    let mut ground = Ground::new();
    let mut moments = Vec::new();
    for cycle in 0..cycles {
        // Each of them once, in an order of the seed, before any comes again.
        if moments.is_empty() {
            moments = MOMENTS.to_vec();
        }
        let chosen = usize::try_from(random.below(moments.len() as u64)).unwrap();
        let moment = moments.swap_remove(chosen);
        told.last = format!("cycle {cycle}, {moment:?}");
        ground.cycle(moment);
    }
    told.last = "the look afterwards".to_owned();
    ground.agrees();
}

struct Ground {
    vault: VaultServer,
    cluster: Cluster,
    broker: Installation,
    gate: Gate,
    faults: Faults,
    /// Each crash with the row that it left, if any.
    left: Vec<(Moment, Option<String>)>,
    newest: Option<String>,
}

impl Ground {
    fn new() -> Self {
        let vault = VaultServer::on_raft();
        let (cluster, _) = database(&vault);
        let gate = Gate::before(&vault);
        // Longer than all cycles take, so that what was issued is there at the end; more than the role gives, so that
        // it is renewed.
        let broker = installation(
            &vault,
            "  db: { vault: { engine: database, path: database/creds/app }, ttl: 1h }\n",
        );
        let text = fs::read_to_string(broker.file("hallpass.yaml")).unwrap();
        let text = text.replace(&vault.url, &gate.url).replace("      ca_file: vault-ca.pem\n", "");
        let text = text.replace("exchange: 8s, mint: 5s", "exchange: 5s, mint: 4s");
        broker.write("hallpass.yaml", &text);
        let faults = Faults::new();
        // One that is whole.
        let server = faults.serve(&broker);
        get(&broker, &server, "db", &Value::Null);
        let newest = newest(&server);
        server.stop();
        Self { vault, cluster, broker, gate, faults, left: Vec::new(), newest }
    }

    fn cycle(&mut self, moment: Moment) {
        self.faults.disarm();
        let server = self.faults.serve(&self.broker);
        self.note(&server);
        let sends = Rule { calls: SEND, files: 0, skip: 0, act: Act::Kill, after: false, stays: false };
        let caller = match moment {
            Moment::IntentUnconfirmed => {
                self.faults.arm(&Rule::commit(Act::Kill));
                let caller = self.begin(&server);
                server.ended();
                caller
            }
            Moment::Request(step, fate) => self.dies_at(server, step, fate),
            Moment::AccessorUnconfirmed => self.dies_behind(server, Step::Token, &Rule::commit(Act::Kill)),
            Moment::RecordUnconfirmed => self.dies_behind(server, Step::Renew, &Rule::commit(Act::Kill)),
            Moment::Recorded => self.dies_behind(server, Step::Renew, &sends),
            Moment::Answered => self.dies_behind(server, Step::Renew, &Rule { after: true, ..sends }),
        };
        let has_answer = caller.join().unwrap();
        assert_eq!(has_answer, moment == Moment::Answered, "whether the client has its credential");
        self.left.push((moment, None));
    }

    /// A job that asks; whether it gets its credential.
    fn begin(&self, server: &Server) -> JoinHandle<bool> {
        let call = server.public.exchanging(&self.broker.issuer.token(), &ask("db", &Value::Null));
        std::thread::spawn(move || call.try_send().is_ok_and(|answer| answer.status == 200))
    }

    /// Ends the broker while a request of its own is on the way.
    fn dies_at(&self, server: Server, step: Step, fate: Fate) -> JoinHandle<bool> {
        let side = if fate == Fate::Done { Side::Answered } else { Side::Asked };
        let held = self.gate.hold(step.path(), side);
        let caller = self.begin(&server);
        held.wait();
        server.crash();
        match fate {
            Fate::Late => held.release(),
            Fate::Done | Fate::Lost => drop(held),
        }
        caller
    }

    /// The broker ends by itself, at its next call of that kind behind an answer of Vault's.
    fn dies_behind(&self, server: Server, step: Step, rule: &Rule) -> JoinHandle<bool> {
        let held = self.gate.hold(step.path(), Side::Answered);
        let caller = self.begin(&server);
        held.wait();
        self.faults.arm(rule);
        held.release();
        server.ended();
        caller
    }

    /// Which row the last crash left.
    fn note(&mut self, server: &Server) {
        let newest = newest(server);
        if let Some((_, row)) = self.left.last_mut()
            && newest != self.newest
        {
            row.clone_from(&newest);
            self.newest = newest;
        }
    }

    fn agrees(mut self) {
        self.faults.disarm();
        let server = self.faults.serve(&self.broker);
        self.note(&server);
        // `recover_after` is the deadline of an exchange and thirty seconds; then there is a minute (P2).
        let entries = within(Duration::from_secs(35 + 60), "all rows to be closed", || {
            let entries = Entries::read(&self.broker);
            let closed: BTreeSet<_> =
                ["FAILED", "ISSUED", "UNRESOLVED"].into_iter().flat_map(|code| entries.0.of(code)).collect();
            (entries.0.of("INTENT") == closed).then_some(entries)
        });
        let issued = entries.0.of("ISSUED");
        within(Duration::from_secs(60), "Vault to have what was issued and no more", || {
            (leases(&self.vault) == issued.len() && self.roles() == issued.len()).then_some(())
        });
        let living = self.living();
        assert!(issued.is_subset(&living), "the token of each that was issued is there");
        let unresolved = entries.0.of("UNRESOLVED");
        assert!(living.is_disjoint(&unresolved), "no token is left of one that was undone");
        let entries = within(Duration::from_secs(60), "each revoke to be recorded", || {
            let entries = Entries::read(&self.broker);
            (entries.0.of("REVOKED") == unresolved).then_some(entries)
        });
        for (moment, row) in &self.left {
            let end = entries.end(row.as_deref());
            assert!(moment.ends().contains(&end), "{moment:?} left {row:?} as {end:?}");
        }
        server.stop();
        Exported::verified(&self.broker, &[]).holds_all_of(&[]);
    }

    fn roles(&self) -> usize {
        let count = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'";
        self.cluster.psql("postgres", count).trim().parse().unwrap()
    }

    /// The issuances whose job tokens Vault knows.
    fn living(&self) -> BTreeSet<String> {
        let list = Method::from_bytes(b"LIST").unwrap();
        let accessors = self.vault.call(&self.vault.root, list, "auth/token/accessors", &Value::Null);
        let accessors = accessors["data"]["keys"].as_array().unwrap().clone();
        let meta = |accessor: Value| {
            let body = json!({ "accessor": accessor });
            let (_, answer) =
                self.vault.status(&self.vault.root, Method::POST, "auth/token/lookup-accessor", &body)?;
            Some(answer["data"]["meta"]["issuance_id"].as_str()?.to_owned())
        };
        accessors.into_iter().filter_map(meta).collect()
    }
}

struct Entries(Exported);

impl Entries {
    fn read(broker: &Installation) -> Self {
        Self(Exported::verified(broker, &[]))
    }

    fn end(&self, row: Option<&str>) -> End {
        let Some(row) = row else { return End::Absent };
        let is = |code: &str| self.0.of(code).contains(row);
        match (is("ISSUED"), is("FAILED"), is("UNRESOLVED") && is("REVOKED")) {
            (true, false, false) => End::Issued,
            (false, true, false) => End::Failed,
            (false, false, true) => End::Undone,
            ends => panic!("{row}: issued, failed, undone: {ends:?}"),
        }
    }
}

fn newest(server: &Server) -> Option<String> {
    Some(server.entries("INTENT").first()?["issuance"].as_str()?.to_owned())
}

/// Looks once a second, which is often enough for what takes many.
#[track_caller]
fn within<T>(bound: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < bound, "waited {bound:?} in vain for {what}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Cycles of the test command; `HALLPASS_TEST_VAULT_CYCLES` asks for more.
const CYCLES: u64 = 20;
