//! A broker of an earlier version beside this one on one server: its binary, built from its own source, on the schema that
//! this version brings its database up to.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use super::support::{
    Cluster, Installation, Server, eventually,
    installation::{CANARY, finish, run},
};

fn npm() -> Value {
    json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] })
}

/// The binary of the earlier version: `git worktree add ../older COMMIT`, and `cargo build` there.
fn older(installation: &Installation, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("HALLPASS_TEST_OLDER").expect("HALLPASS_TEST_OLDER"));
    command.args(arguments).current_dir(installation.file("")).env("NO_COLOR", "1");
    command
}

/// Exchanges on every broker while something is done.
fn under_load(installation: &Installation, servers: &[&Server], work: impl FnOnce()) -> usize {
    let (is_done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for server in servers {
            let (is_done, count) = (&is_done, &count);
            scope.spawn(move || {
                while !is_done.load(Ordering::SeqCst) && count.load(Ordering::SeqCst) < 2_000 {
                    server.only(&installation.issuer.token(), "npm");
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let some = || {
            let least = count.load(Ordering::SeqCst) + 20;
            eventually("exchanges", || (count.load(Ordering::SeqCst) >= least).then_some(()));
        };
        some();
        work();
        some();
        is_done.store(true, Ordering::SeqCst);
    });
    count.load(Ordering::SeqCst)
}

#[test]
#[ignore = "HALLPASS_TEST_OLDER names the binary of a version that has an earlier schema"]
#[expect(clippy::print_stdout, reason = "how much was done at once")]
fn broker_of_an_earlier_schema_serves_beside_this_one_until_the_ledgers_key_changes() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let owner = cluster.url("owner", "hallpass");
    let as_owner = ["--as", owner.as_str(), "--reader", "reader"];
    cluster.psql("hallpass", "DROP SCHEMA hallpass CASCADE");
    run(&mut older(&installation, &[&["store", "init"][..], &as_owner].concat()), "");
    run(&mut older(&installation, &["secret", "set", "npm-token"]), CANARY);
    // Writes the configuration of a broker with a head of its own.
    drop(installation.replica_command(0));
    let old = installation.serve_by(&mut older(&installation, &["serve", "--config", "replica-0.yaml"]));
    let refused = finish(&mut installation.command(&["serve"]), "");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("store migrate"), "{said}");

    let alone = under_load(&installation, &[&old], || {
        run(&mut installation.command(&[&["store", "migrate"][..], &as_owner].concat()), "");
    });
    let new = installation.replica(1);
    let both = under_load(&installation, &[&old, &new], || {
        installation.set_secret("npm-token", "another-value-0123456789");
    });
    println!("{alone} exchanges over the migration, {both} on both brokers");
    for (first, second) in [(&old, &new), (&new, &old)] {
        let token = installation.issuer.token();
        assert_eq!(first.only(&token, "npm")["fields"]["value"], "another-value-0123456789");
        second.public.exchange(&token, &npm()).problem(409, "token_replayed");
    }
    let issued = |server: &Server| server.entries("ISSUED").len();
    assert_eq!(issued(&old), issued(&new));

    let before = run(&mut installation.command(&["keys", "show", "ledger"]), "");
    run(&mut installation.command(&["keys", "rotate", "ledger"]), "");
    for _ in 0..3 {
        old.public.exchange(&installation.issuer.token(), &npm()).problem(503, "ledger_unavailable");
        new.only(&installation.issuer.token(), "npm");
    }
    drop(old);
    new.stop();
    let after = run(&mut installation.command(&["keys", "show", "ledger"]), "");
    for key in [before, after] {
        let verified = finish(&mut installation.command(&["ledger", "verify", "--key", key.trim()]), "");
        assert!([Some(0), Some(31)].contains(&verified.status.code()), "{verified:?}");
    }
}
