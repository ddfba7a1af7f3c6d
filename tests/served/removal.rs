//! Removal protection: a set that lacks a guardrail or an issuer of the set before is refused by every broker, until
//! somebody at the machine lets it in.

use std::fs;

use serde_json::{Value, json};

use super::{
    once::only,
    support::{
        AUDIENCE, Client, Installation, Issuer, Server, eventually,
        installation::{Running, finish, run},
    },
};

/// What goes in these tests.
const SECOND: &str = "policies/issuers/second.yaml";

#[test]
fn running_broker_keeps_its_set_and_says_what_lets_the_new_one_in() {
    let installation = guarded();
    let server = installation.serve();
    let digest = newest(&server)["result"]["digest"].clone();
    remove(&installation);

    server.hang_up();

    let rejected = rejected(&server);
    assert_eq!(rejected["result"]["lost"], json!(["issuer/second"]));
    let command = format!("hallpass policy accept {}", rejected["result"]["digest"].as_str().unwrap());
    assert_eq!(rejected["result"]["command"], command);
    assert_eq!(server.entries("ALERT_POLICY_REJECTED").len(), 1);
    eventually("the warning", || server.logs().contains(&command).then_some(()));
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    assert_eq!(server.entries("INTENT")[0]["policy"]["digest"], digest);
}

#[test]
fn set_that_is_let_in_decides_and_its_entry_says_what_it_lacks() {
    let installation = guarded();
    let server = installation.serve();
    remove(&installation);
    server.hang_up();
    let digest = rejected(&server)["result"]["digest"].clone();

    let told = accept(&installation, &digest);
    server.hang_up();

    let loaded =
        eventually("the set", || Some(newest(&server)).filter(|each| each["result"]["digest"] == digest));
    assert_eq!(loaded["result"]["lost"], json!(["issuer/second"]));
    let accepted = server.entries("POLICY_ACCEPTED").pop().unwrap();
    assert_eq!(accepted["result"]["digest"], digest);
    assert_eq!(accepted["result"]["by"], format!("os:{}", rustix::process::getuid().as_raw()));
    assert_eq!(accepted["result"]["until"], told["until"]);
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    assert_eq!(server.entries("INTENT")[0]["policy"]["digest"], digest);
}

#[test]
fn starting_broker_is_not_ready_until_its_set_is_let_in() {
    let installation = guarded();
    installation.serve().stop();
    let digest = checked_digest(&installation);
    remove(&installation);

    let waiting = Waiting::start(&installation);

    eventually("the refusal", || waiting.process.logs().contains("hallpass policy accept").then_some(()));
    waiting.public.exchange(&installation.issuer.token(), &only("npm")).problem(503, "not_ready");
    waiting.admin.get("/readyz").send().problem(503, "not_ready");
    accept(&installation, &digest);
    // Nobody tells the broker: it looks again by itself.
    eventually("readiness", || (waiting.admin.get("/readyz").send().status == 200).then_some(()));
    waiting.public.exchange(&installation.issuer.token(), &only("npm")).ok();
}

#[test]
fn word_may_come_before_the_set_and_is_of_that_set_alone() {
    let installation = guarded();
    let digest = checked_digest(&installation);
    let server = installation.serve();
    accept(&installation, &digest);

    installation.write("policies/README", "Not the set that was meant.");
    remove(&installation);
    server.hang_up();

    rejected(&server);
    fs::remove_file(installation.file("policies/README")).unwrap();
    server.hang_up();
    eventually("the set", || (newest(&server)["result"]["digest"] == digest).then_some(()));
}

#[test]
fn letting_in_is_no_bypass_of_mistakes() {
    let installation = guarded();
    let server = installation.serve();
    installation.write("policies/grants/bad.yaml", "grant: bad\n");
    remove(&installation);
    server.hang_up();
    let digest = rejected(&server)["result"]["digest"].clone();

    accept(&installation, &digest);
    server.hang_up();

    eventually("the second refusal", || (server.entries("POLICY_REJECTED").len() == 2).then_some(()));
    assert_eq!(server.entries("POLICY_LOADED").len(), 1);
}

#[test]
fn what_was_removed_and_comes_back_needs_no_word() {
    let installation = guarded();
    let server = installation.serve();
    let text = fs::read_to_string(installation.file(SECOND)).unwrap();
    remove(&installation);
    server.hang_up();
    rejected(&server);

    installation.write(SECOND, &text);
    installation.write("policies/README", "Another set.");
    server.hang_up();

    eventually("the set", || (server.entries("POLICY_LOADED").len() == 2).then_some(()));
}

#[test]
fn deleted_guardrail_is_missed_by_name_whatever_file_it_stood_in() {
    let installation = Installation::new();
    let text = "guardrail: base\nrequire: { max_ttl: 1h }\n";
    installation.write("policies/guardrails/base.yaml", text);
    let server = installation.serve();

    fs::remove_file(installation.file("policies/guardrails/base.yaml")).unwrap();
    server.hang_up();

    assert_eq!(rejected(&server)["result"]["lost"], json!(["guardrail/base"]));
    installation.write("policies/guardrails/moved.yaml", &text.replace("1h", "30m"));
    server.hang_up();
    eventually("the set", || (server.entries("POLICY_LOADED").len() == 2).then_some(()));
}

#[test]
fn what_is_no_digest_is_refused_and_recorded_nowhere() {
    let installation = guarded();
    for text in ["", "latest", "0123", &"g".repeat(64)] {
        let output = finish(&mut installation.command(&["policy", "accept", text]), "");
        assert_eq!(output.status.code(), Some(2), "{text}");
    }
    let server = installation.serve();
    assert!(server.entries("POLICY_ACCEPTED").is_empty());
}

/// An installation that trusts two issuers.
fn guarded() -> Installation {
    let installation = Installation::new();
    let second = Issuer::start();
    let entry = |name: &str, url: &str| {
        format!("  {name}: {{ url: \"{url}\", profile: github-actions, allow_private_addresses: true }}\n")
    };
    let issuers = entry("ci", &installation.issuer.url) + &entry("second", &second.url);
    installation.configure(&format!("issuers:\n{issuers}"));
    installation.write(
        SECOND,
        &format!("issuer: second\nprofile: github-actions\nurl: {}\naudience: {AUDIENCE}\n", second.url),
    );
    installation
}

fn remove(installation: &Installation) {
    fs::remove_file(installation.file(SECOND)).unwrap();
}

/// The digest of the set without what goes, before it does.
fn checked_digest(installation: &Installation) -> Value {
    let text = fs::read_to_string(installation.file(SECOND)).unwrap();
    remove(installation);
    let checked = run(&mut installation.command(&["config", "check", "--output", "json"]), "");
    installation.write(SECOND, &text);
    serde_json::from_str::<Value>(&checked).unwrap()["digest"].clone()
}

fn accept(installation: &Installation, digest: &Value) -> Value {
    let arguments = ["policy", "accept", digest.as_str().unwrap(), "--output", "json"];
    serde_json::from_str(&run(&mut installation.command(&arguments), "")).unwrap()
}

fn rejected(server: &Server) -> Value {
    eventually("the refusal", || server.entries("POLICY_REJECTED").into_iter().next())
}

fn newest(server: &Server) -> Value {
    server.entries("POLICY_LOADED").remove(0)
}

/// A broker that listens and has no policy set.
pub(super) struct Waiting {
    pub(super) process: Running,
    pub(super) public: Client,
    pub(super) admin: Client,
}

impl Waiting {
    pub(super) fn start(installation: &Installation) -> Self {
        let process = Running::spawn(&mut installation.command(&["serve"]));
        let [public, admin] = eventually("the listeners", || {
            let logs = process.logs();
            let line = logs.lines().find(|line| line.contains("listening; ready once"))?;
            let address = |name: &str| line.split_once(name)?.1.split_whitespace().next()?.parse().ok();
            Some([address("public=")?, address("admin=")?])
        })
        .map(Client::new);
        Self { process, public, admin }
    }
}
