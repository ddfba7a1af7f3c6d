//! `kill -9` under load: at random moments, and at each point at which something is half done.

use std::time::Duration;

use super::kit::{Act, Called, Exported, Faults, LOG, Load, Random, Rule, SEND, SYNC, Told, WRITE};
use crate::support::{Installation, Server, eventually};

/// Where a process ends.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After so many answers, and that long.
    Random(usize, Duration),
    /// By itself, at the call that the rule names.
    Point(Rule),
}

/// Everything is fetched, and no byte of the transaction is written.
const FETCHED_NOT_RECORDED: Rule =
    Rule { calls: WRITE, files: LOG, skip: 0, act: Act::Kill, after: false, stays: false };
/// Some bytes of the transaction are written.
const HALF_WRITTEN: Rule = Rule { skip: 3, after: true, ..FETCHED_NOT_RECORDED };
/// All bytes are written and none is confirmed.
const BEFORE_DURABLE: Rule = Rule { calls: SYNC, ..FETCHED_NOT_RECORDED };
/// The entry is durable and nobody was told.
const RECORDED_NOT_ANSWERED: Rule = Rule { after: true, ..BEFORE_DURABLE };
/// The answer stands ready and has not left.
const BEFORE_ANSWER: Rule =
    Rule { calls: SEND, files: 0, skip: 0, act: Act::Kill, after: false, stays: false };
/// The answer left and the broker does not know it yet.
const ANSWERED_NOT_CONFIRMED: Rule = Rule { after: true, ..BEFORE_ANSWER };

const POINTS: [Rule; 6] = [
    FETCHED_NOT_RECORDED,
    HALF_WRITTEN,
    BEFORE_DURABLE,
    RECORDED_NOT_ANSWERED,
    BEFORE_ANSWER,
    ANSWERED_NOT_CONFIRMED,
];

/// Cycles of the test command; `HALLPASS_TEST_CYCLES` asks for more.
const CYCLES: u64 = 20;
/// More than six clients use up before the end comes, also where each batch has one of each client.
const TOKENS: usize = 120;

#[test]
fn nothing_is_issued_unrecorded_by_a_broker_that_is_killed() {
    let cycles = std::env::var("HALLPASS_TEST_CYCLES").map_or(CYCLES, |cycles| cycles.parse().unwrap());
    let mut random = Random::seeded();
    let mut told = Told { seed: random.seed(), last: String::new() };
    let mut ground = Ground::new();
    for cycle in 0..cycles {
        // A ledger that grows for ever would make this a test of exports.
        if cycle % 50 == 49 {
            ground = Ground::new();
        }
        let moment = draw(&mut random, cycle);
        told.last = format!("cycle {cycle}, {moment:?}");
        ground.cycle(moment);
    }
}

/// Every second one is random; the others are the points in turn, at a random one of such calls.
fn draw(random: &mut Random, cycle: u64) -> Moment {
    if cycle.is_multiple_of(2) {
        let answers = usize::try_from(random.below(30)).unwrap();
        return Moment::Random(answers, Duration::from_micros(random.below(8_000)));
    }
    let rule = POINTS[usize::try_from(cycle / 2).unwrap() % POINTS.len()];
    Moment::Point(Rule { skip: rule.skip + random.below(12), ..rule })
}

/// One installation through its crashes, with everything that clients were ever given.
struct Ground {
    installation: Installation,
    faults: Faults,
    calls: Vec<Called>,
}

impl Ground {
    fn new() -> Self {
        Self { installation: Installation::new(), faults: Faults::new(), calls: Vec::new() }
    }

    fn cycle(&mut self, moment: Moment) {
        self.faults.disarm();
        let server = self.faults.serve(&self.installation);
        let issuer = &self.installation.issuer;
        // The issuer's keys are fetched before anything is counted.
        self.calls.push(Called::now(&server.public, issuer.token()));
        let tokens = (0..TOKENS).map(|_| issuer.token()).collect();
        if let Moment::Point(rule) = moment {
            self.faults.arm(&rule);
        }
        let load = Load::start(&server, tokens);
        if let Moment::Random(answers, more) = moment {
            eventually("answers", || (load.answered() >= answers).then_some(()));
            std::thread::sleep(more);
            server.crash();
        } else {
            server.ended();
        }
        let calls = load.stop();
        self.faults.disarm();

        let server = self.faults.serve(&self.installation);
        self.repeat(&server, &calls);
        self.calls.extend(calls);
        server.stop();
        Exported::verified(&self.installation, &self.calls).holds_all_of(&self.calls);
    }

    /// What a job does that got no answer: it asks again under its key, and must be served. One that got its answer
    /// and asks again without a key must not be.
    fn repeat(&mut self, server: &Server, calls: &[Called]) {
        for call in calls.iter().filter(|call| call.answer.is_none()) {
            let again = call.again(&server.public);
            again.ok();
            let Called { token, key, .. } = call;
            self.calls.push(Called { token: token.clone(), key: key.clone(), answer: Some(again) });
        }
        if let Some(call) = calls.iter().find(|call| call.received().is_some()) {
            let unkeyed = server.public.exchange(&call.token, &super::kit::npm());
            unkeyed.problem(409, "token_replayed");
        }
    }
}
