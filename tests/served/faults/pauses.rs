//! A process that is held still for longer than an exchange may take, and then goes on as if nothing had been.

use std::{thread, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use super::kit::{Act, Called, Exported, Faults, Rule};
use crate::support::{Installation, Server, eventually, installation::CANARY};

/// The shortest deadline that leaves a quiet exchange room on a busy machine.
const DEADLINE: Duration = Duration::from_secs(2);

fn ground() -> (Installation, Faults) {
    let installation = Installation::new();
    let url = &installation.issuer.url;
    installation.configure(&format!(
        "deadlines: {{ exchange: {}s, mint: 1s, issuer: 1s }}\nissuers:\n  ci: {{ url: \"{url}\", profile: github-actions, \
         allow_private_addresses: true }}\n",
        DEADLINE.as_secs()
    ));
    (installation, Faults::new())
}

/// Holds a process still at the call that the rule names, with one exchange under way, until its deadline is past.
fn held_still(rule: &Rule) -> (Installation, Server, Called) {
    let (installation, faults) = ground();
    let server = faults.serve(&installation);
    Called::now(&server.public, installation.issuer.token()).received().unwrap();
    faults.arm(rule);
    let (client, token) = (server.public.clone(), installation.issuer.token());
    let call = thread::spawn(move || Called::now(&client, token));
    eventually("the process to stand still", || is_stopped(&server).then_some(()));
    assert_eq!(faults.hits(), 1);
    // Time itself is what is waited for: the deadline runs on while the process does not.
    thread::sleep(DEADLINE + Duration::from_millis(200));
    server.signal(Signal::CONT);
    let call = call.join().unwrap();
    // The turn that was held still counts as one that takes too long, until it ends.
    eventually("readiness", || (server.admin.get("/readyz").send().status == 200).then_some(()));
    (installation, server, call)
}

fn is_stopped(server: &Server) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

#[test]
fn what_was_recorded_before_a_long_pause_is_not_released_after_it() {
    let (installation, server, call) = held_still(&Rule::committed(Act::Stop));

    let answer = call.answer.as_ref().unwrap();
    answer.problem(503, "ledger_unavailable");
    assert!(!answer.body.contains(CANARY));
    let undelivered = eventually("UNDELIVERED", || server.entries("UNDELIVERED").pop());
    let issued = &server.entries("ISSUED")[0];
    assert_eq!(undelivered["issuance"], issued["issuance"], "{undelivered}");
    // The job's own retry is served as ever.
    call.again(&server.public).ok();
    server.stop();
    Exported::verified(&installation, &[call]);
}

#[test]
fn what_was_not_durable_before_a_long_pause_is_not_released_after_it() {
    let (installation, server, call) = held_still(&Rule::commit(Act::Stop));

    call.answer.as_ref().unwrap().problem(503, "ledger_unavailable");
    eventually("UNDELIVERED", || server.entries("UNDELIVERED").pop());
    server.stop();
    Exported::verified(&installation, &[]).holds_all_of(&[call]);
}

#[test]
fn a_pause_without_anything_under_way_harms_nobody() {
    let (installation, faults) = ground();
    let server = faults.serve(&installation);
    Called::now(&server.public, installation.issuer.token()).received().unwrap();
    server.signal(Signal::STOP);
    thread::sleep(DEADLINE + Duration::from_millis(200));
    server.signal(Signal::CONT);

    let ask = json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] });
    server.public.exchange(&installation.issuer.token(), &ask).ok();
}
