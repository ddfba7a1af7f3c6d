//! What policies cost: how long 10,000 grants take to load, and what a decision among them costs beside one among ten.
//! The same grants are asked for in both sets, one after the other, so that the difference is what the others cost. It
//! asserts nothing about speed.
//!
//! Run it with `cargo bench --bench policy`.

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
    hint::black_box,
    time::{Duration, Instant},
};

use hallpass::kernel::{
    identity::{JobIdentity, profile::Profile},
    name::IssuerName,
    policy::{
        PolicySet,
        decide::{Decision, GrantRequest, Request, decide},
        load::load,
        set::Files,
    },
};
use jiff::Timestamp;

fn main() {
    // Cargo also builds and runs benchmarks as tests (`cargo test --benches`); nothing is measured there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let many = files(MANY);
    let mut loads: Vec<Duration> = (0..LOADS).map(|_| timed(|| drop(black_box(set(&many))))).collect();
    loads.sort_unstable();
    let bytes: usize = many.0.values().map(Vec::len).sum();
    println!(
        "load of {MANY} grants ({} kB, {GUARDRAILS} guardrails): {:.0?} (median)",
        bytes / 1_000,
        loads[LOADS / 2]
    );

    let (few, many) = (set(&files(FEW)), set(&many));
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let identity = identity(now);
    for (what, own) in [("permit", true), ("denial", false), ("unknown", false)] {
        let requests: Vec<Request> = (0..FEW).map(|at| request(what, at)).collect();
        let permits = matches!(decide(&many, &identity, &requests[0], now), Decision::Permit(_));
        assert_eq!(permits, own, "{what}");
        // Turn by turn, so that both see the same machine.
        let mut rounds: Vec<(Duration, Duration)> = (0..ROUNDS)
            .map(|_| (round(&few, &identity, &requests, now), round(&many, &identity, &requests, now)))
            .collect();
        let median = |pick: fn(&(Duration, Duration)) -> Duration, rounds: &mut Vec<(Duration, Duration)>| {
            rounds.sort_unstable_by_key(pick);
            pick(&rounds[ROUNDS / 2]) / (TURNS * FEW) as u32
        };
        let (among_few, among_many) =
            (median(|round| round.0, &mut rounds), median(|round| round.1, &mut rounds));
        let ratio = among_many.as_secs_f64() / among_few.as_secs_f64();
        println!("{what}: {among_few:.0?} among {FEW}, {among_many:.0?} among {MANY}, ratio {ratio:.2}");
    }
}

fn round(set: &PolicySet, identity: &JobIdentity, requests: &[Request], now: Timestamp) -> Duration {
    timed(|| {
        for _ in 0..TURNS {
            for request in requests {
                drop(black_box(decide(set, identity, request, now)));
            }
        }
    })
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// Every second grant is for the job's own repository, the others for one each.
fn request(what: &str, at: usize) -> Request {
    let name = match what {
        "permit" => format!("grant-{}", at / 2 * 2),
        "denial" => format!("grant-{}", at / 2 * 2 + 1),
        _ => format!("nobody-{at}"),
    };
    Request { grants: vec![GrantRequest { name, credentials: None, ttl: None }] }
}

fn identity(now: Timestamp) -> JobIdentity {
    let text = include_str!("../tests/fixtures/claims/github-actions.json");
    let claims = serde_json::from_str(text).expect("the fixture");
    let profile = Profile::by_name("github-actions").expect("the profile");
    JobIdentity::from_claims(IssuerName::parse("github").expect("a name"), profile, claims, now)
        .unwrap_or_else(|fault| panic!("{}", fault.reason))
}

fn set(files: &Files) -> PolicySet {
    load(files, None, None).unwrap_or_else(|findings| panic!("{}", findings[0])).set
}

fn files(grants: usize) -> Files {
    let mut files = BTreeMap::from([("issuers/github.yaml".to_owned(), ISSUER.to_owned())]);
    for at in 0..GUARDRAILS {
        let text = GUARDRAIL.replace("NUMBER", &at.to_string());
        files.insert(format!("guardrails/g{at}.yaml"), text);
    }
    for at in 0..grants {
        let repository = if at % 2 == 0 { "701".to_owned() } else { format!("9{at}") };
        let text = GRANT.replace("NUMBER", &at.to_string()).replace("REPOSITORY", &repository);
        files.insert(format!("grants/team-{}/grant-{at}.yaml", at % GUARDRAILS), text);
    }
    Files(files.into_iter().map(|(path, text)| (path, text.into_bytes())).collect())
}

const FEW: usize = 10;
const MANY: usize = 10_000;
/// One for each team's folder.
const GUARDRAILS: usize = 20;
const LOADS: usize = 5;
const ROUNDS: usize = 101;
const TURNS: usize = 200;

const ISSUER: &str = "issuer: github
profile: github-actions
url: https://token.actions.githubusercontent.com
audience: https://hallpass.example.com
";
const GUARDRAIL: &str = "guardrail: g-NUMBER
applies_to: { folder: team-NUMBER }
require: { max_ttl: 5m, issuers: [github], pinned: [project], runner: hosted }
targets: { sealed: \"npm-*\", oidc: \"https://**\" }
forbid: { triggers: [pull_request_target, workflow_run] }
";
const GRANT: &str = r#"grant: grant-NUMBER
description: What a deploy of one repository needs
owners: [team-payments]
class: production
allow:
  - name: deploy-from-main
    issuer: github
    match:
      repository_owner_id: "4216"
      repository_id: "REPOSITORY"
      ref: refs/heads/main
      event_name: [push, workflow_dispatch]
      environment: production
      job_workflow_ref: { glob: "acme/ci/.github/workflows/deploy.yml@refs/tags/v*" }
  - name: release
    issuer: github
    match:
      repository_owner_id: "4216"
      repository_id: "REPOSITORY"
      ref: { glob: "refs/tags/v*" }
      event_name: release
credentials:
  npm: { sealed: { secret: npm-NUMBER } }
  warehouse: { oidc: { audience: "https://warehouse.example.com/NUMBER" }, ttl: 5m }
limits: { issuances_per_hour: 20, live: 4, per: project }
valid_until: 2030-03-31
enabled: true
"#;
