//! Keys that change places on a server while several brokers serve: the ledger's, and the sealing key over all others.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    independent_ledger::accepts,
    support::{
        Cluster, Installation, Server, eventually,
        installation::{CANARY, Running, finish, run},
    },
};

fn tell(installation: &Installation, arguments: &[&str]) -> String {
    run(&mut installation.command(arguments), "").trim().to_owned()
}

/// Exit code and what it said.
fn refused(installation: &Installation, arguments: &[&str]) -> (i32, String) {
    let output = finish(&mut installation.command(arguments), "");
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn exchange(installation: &Installation, server: &Server) -> Value {
    server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["deploy"] })).ok()
}

/// Exchanges on every broker without a break while something else is done; none of them may fail, and each broker answers
/// some before, while and after.
fn under_load<T>(installation: &Installation, servers: &[Server], work: impl FnOnce() -> T) -> T {
    let is_done = AtomicBool::new(false);
    let counts: Vec<AtomicUsize> = servers.iter().map(|_| AtomicUsize::new(0)).collect();
    let some = || {
        let least: Vec<usize> = counts.iter().map(|count| count.load(Ordering::SeqCst) + 2).collect();
        eventually("exchanges on every broker", || {
            let mut both = counts.iter().zip(&least);
            both.all(|(count, least)| count.load(Ordering::SeqCst) >= *least).then_some(())
        });
    };
    std::thread::scope(|scope| {
        for (server, count) in servers.iter().zip(&counts) {
            let is_done = &is_done;
            scope.spawn(move || {
                // Bounded, so that a test that fails ends.
                while !is_done.load(Ordering::SeqCst) && count.load(Ordering::SeqCst) < 2_000 {
                    exchange(installation, server);
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            some();
            let done = work();
            some();
            done
        }));
        is_done.store(true, Ordering::SeqCst);
        done.unwrap_or_else(|fault| std::panic::resume_unwind(fault))
    })
}

#[test]
fn ledger_key_changes_while_two_brokers_serve_and_both_keys_vouch_for_the_whole_ledger() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let servers: Vec<Server> = (0..2).map(|number| installation.replica(number)).collect();
    let old = tell(&installation, &["keys", "show", "ledger"]);
    let before = exchange(&installation, &servers[0])["receipts"][0].to_string();
    installation.write("before.json", &before);

    let new = under_load(&installation, &servers, || tell(&installation, &["keys", "rotate", "ledger"]));

    assert_ne!(old, new);
    assert_eq!(tell(&installation, &["keys", "show", "ledger"]), new);
    let anchors: Vec<String> = (0..2).map(|number| format!("after-{number}.json")).collect();
    for (server, anchor) in servers.iter().zip(&anchors) {
        let after = exchange(&installation, server)["receipts"][0].to_string();
        installation.write(anchor, &after);
        let rotated = server.entries("KEY_ROTATED");
        assert_eq!((&rotated[0]["result"]["old"], &rotated[0]["result"]["new"]), (&json!(old), &json!(new)));
    }
    let listed: Value =
        serde_json::from_str(&tell(&installation, &["keys", "list", "--output", "json"])).unwrap();
    let ledger: Vec<_> =
        listed["items"].as_array().unwrap().iter().filter(|item| item["purpose"] == "ledger").collect();
    assert_eq!((&ledger[0]["state"], &ledger[1]["state"]), (&json!("retired"), &json!("active")));
    assert_eq!(ledger[1]["key"], new);
    for server in servers {
        server.stop();
    }
    tell(&installation, &["ledger", "export", "--out", "copy"]);
    let anchors = ["--anchor", "before.json", "--anchor", &anchors[0], "--anchor", &anchors[1]];
    for key in [&old, &new] {
        for place in [&[][..], &["copy"]] {
            let verify = [&["ledger", "verify"], place, &["--key", key.as_str()], &anchors].concat();
            let verified = finish(&mut installation.command(&verify), "");
            assert_eq!(verified.status.code(), Some(0), "{verified:?}");
        }
        assert!(accepts("export", key, &installation.file("copy")));
    }
    // The heads that they saw may be of before the change.
    installation.replica(0).stop();
}

#[test]
fn broker_that_was_paused_over_a_change_of_the_ledgers_key_signs_nothing_with_the_old_one() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let (awake, paused) = (installation.replica(0), installation.replica(1));
    exchange(&installation, &paused);
    paused.signal(Signal::STOP);
    // The one that stands still may hold the head's lock; then the server cuts it off.
    let new = eventually("the change", || {
        let output = finish(&mut installation.command(&["keys", "rotate", "ledger"]), "");
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    });
    exchange(&installation, &awake);
    paused.signal(Signal::CONT);
    eventually("the one that was paused", || {
        let ask = json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] });
        (paused.public.exchange(&installation.issuer.token(), &ask).status == 200).then_some(())
    });
    let last = exchange(&installation, &paused)["receipts"][0].to_string();
    installation.write("last.json", &last);
    let verify = ["ledger", "verify", "--key", &new, "--anchor", "last.json"];
    let verified = finish(&mut installation.command(&verify), "");
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}

/// Names the sealing keys in the configuration of every broker.
fn name(installation: &Installation, to: &str) {
    for file in ["hallpass.yaml", "replica-0.yaml", "replica-1.yaml"] {
        installation.name_sealing_keys(file, to);
    }
}

#[test]
fn broker_that_slept_through_a_change_of_sealing_keys_hands_out_nothing_until_it_reads_them() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let (awake, asleep) = (installation.replica(0), installation.replica(1));
    exchange(&installation, &asleep);
    let key = format!("hallpass-sealing-key-v1:{}", STANDARD.encode([7; 32]));
    installation.write("next.key", &key);
    name(&installation, "{ file: next.key, previous: { file: sealing.key } }");
    asleep.signal(Signal::STOP);
    // For longer than it is waited for.
    let slept = "UPDATE hallpass.replica SET seen = 0 WHERE sealing IS NOT NULL";
    eventually("it to be taken for dead", || cluster.try_psql("hallpass", slept).ok());
    awake.hang_up();
    eventually("the change", || (refused(&installation, &["keys", "rewrap"]).0 == 0).then_some(()));
    let npm = json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] });
    assert_eq!(awake.only(&installation.issuer.token(), "npm")["fields"]["value"], CANARY);

    asleep.signal(Signal::CONT);
    // It may answer once more from what it held, as a fetch that began before; then it has read the records anew.
    eventually("the refusal", || {
        let answer = asleep.public.exchange(&installation.issuer.token(), &npm);
        (answer.status == 502).then_some(answer)
    })
    .problem(502, "backend_failed");
    name(&installation, "{ file: next.key }");
    asleep.hang_up();
    eventually("service", || {
        (asleep.public.exchange(&installation.issuer.token(), &npm).status == 200).then_some(())
    });
    assert_eq!(asleep.entries("KEY_ROTATED").len(), 1);
}

#[test]
fn broker_whose_word_of_a_new_sealing_key_did_not_reach_the_server_says_it_again() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let server = installation.replica(0);
    installation.replica(1).stop();
    let key = format!("hallpass-sealing-key-v1:{}", STANDARD.encode([7; 32]));
    installation.write("next.key", &key);
    name(&installation, "{ file: next.key, previous: { file: sealing.key } }");
    cluster.psql(
        "hallpass",
        "ALTER TABLE hallpass.replica ADD CONSTRAINT stuck CHECK (length(sealing) <= 32) NOT VALID",
    );
    server.hang_up();
    eventually("the failure", || server.logs().contains("the sealing keys were not taken").then_some(()));
    assert!(!server.logs().contains("were read anew"));
    cluster.psql("hallpass", "ALTER TABLE hallpass.replica DROP CONSTRAINT stuck");
    assert_eq!(refused(&installation, &["keys", "rewrap"]).0, 2, "nobody said that the new key is known");
    eventually("the word", || {
        server.hang_up();
        server.logs().contains("were read anew").then_some(())
    });
    tell(&installation, &["keys", "rewrap"]);
    assert_eq!(server.only(&installation.issuer.token(), "npm")["fields"]["value"], CANARY);
}

#[test]
fn sealing_key_changes_while_two_brokers_serve_also_when_it_is_killed_in_the_middle() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    // Several times as many as are wrapped in one transaction.
    for number in 0..40 {
        installation.set_secret(&format!("other-{number}"), &format!("other-value-{number}"));
    }
    let servers: Vec<Server> = (0..2).map(|number| installation.replica(number)).collect();
    let key = format!("hallpass-sealing-key-v1:{}", STANDARD.encode([7; 32]));
    installation.write("next.key", &key);
    name(&installation, "{ file: next.key, previous: { file: sealing.key } }");
    let (exit, said) = refused(&installation, &["keys", "rewrap"]);
    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("SIGHUP"), "{said}");
    servers[0].hang_up();
    eventually("the first one to know it", || servers[0].logs().contains("were read anew").then_some(()));
    assert_eq!(refused(&installation, &["keys", "rewrap"]).0, 2, "the second one does not know it");
    servers[1].hang_up();
    eventually("the second one to know it", || servers[1].logs().contains("were read anew").then_some(()));

    let count = |what: &str| -> u64 { cluster.psql("hallpass", what).trim().parse().unwrap() };
    let wrapped = "SELECT count(*) FROM hallpass.secret s JOIN hallpass.before b USING (name) WHERE s.sealed <> b.sealed";
    under_load(&installation, &servers, || {
        // It takes a while, so that it can be killed in the middle.
        cluster.psql(
            "hallpass",
            "CREATE TABLE hallpass.before AS SELECT name, sealed FROM hallpass.secret;
             CREATE FUNCTION hallpass.wait() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$;
             CREATE TRIGGER slow AFTER UPDATE ON hallpass.secret FOR EACH STATEMENT EXECUTE FUNCTION hallpass.wait();",
        );
        let rewrap = Running::spawn(&mut installation.command(&["keys", "rewrap"]));
        eventually("some records to be wrapped", || (count(wrapped) > 0).then_some(()));
        rewrap.signal(Signal::KILL);
        drop(rewrap);
        let in_the_middle = count(wrapped);
        assert!((1..41).contains(&in_the_middle), "{in_the_middle} of 41");
        // In the middle everything goes on, and nobody starts who does not know both keys.
        for server in &servers {
            assert_eq!(server.only(&installation.issuer.token(), "npm")["fields"]["value"], CANARY);
        }
        installation.set_secret("npm-token", CANARY);
        name(&installation, "{ file: sealing.key }");
        let (exit, said) = refused(&installation, &["secret", "list"]);
        assert!(exit == 2 && said.contains("name both in `sealing_key`"), "{exit}: {said}");
        name(&installation, "{ file: next.key, previous: { file: sealing.key } }");
        cluster.psql("hallpass", "DROP TRIGGER slow ON hallpass.secret");
        tell(&installation, &["keys", "rewrap"]);
        assert!(tell(&installation, &["keys", "list"]).contains("active"));
        name(&installation, "{ file: next.key }");
        for server in &servers {
            let told = server.logs().matches("were read anew").count();
            server.hang_up();
            eventually("the old key to be given up", || {
                (server.logs().matches("were read anew").count() > told).then_some(())
            });
        }
    });

    fs::remove_file(installation.file("sealing.key")).unwrap();
    for server in &servers {
        assert_eq!(server.only(&installation.issuer.token(), "npm")["fields"]["value"], CANARY);
        let told = server.entries("KEY_ROTATED");
        // 41 secrets and four keys.
        assert_eq!(
            (told.len(), &told[0]["result"]["key"], &told[0]["result"]["records"]),
            (1, &json!("sealing"), &json!(45))
        );
    }
    for server in servers {
        server.stop();
    }
    installation.replica(0).only(&installation.issuer.token(), "npm");
    tell(&installation, &["keys", "rotate", "assertions"]);
    tell(&installation, &["keys", "rotate", "ledger"]);
    let server = installation.replica(1);
    assert_eq!(server.only(&installation.issuer.token(), "npm")["fields"]["value"], CANARY);
    let key = tell(&installation, &["keys", "show", "ledger"]);
    let verified = finish(&mut installation.command(&["ledger", "verify", "--key", &key]), "");
    assert!([Some(0), Some(31)].contains(&verified.status.code()), "{verified:?}");
}
