//! What an operator does so that the record outlives keys, disks and mistakes: other keys, backups, a system that goes on
//! from an older state. All of it with the built binary, most of it while it serves.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicBool, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::support::{
    Installation, Server, eventually,
    installation::{CANARY, finish, run},
};

fn tell(installation: &Installation, arguments: &[&str]) -> String {
    run(&mut installation.command(arguments), "").trim().to_owned()
}

/// Exit code and what it said.
fn refused(installation: &Installation, arguments: &[&str]) -> (i32, String) {
    let output = finish(&mut installation.command(arguments), "");
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn verify(installation: &Installation, arguments: &[&str]) -> (i32, Value) {
    let all = [&["ledger", "verify", "--output", "json"], arguments].concat();
    let output = finish(&mut installation.command(&all), "");
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

fn exchange(installation: &Installation, server: &Server) -> Value {
    server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["deploy"] })).ok()
}

/// Exchanges without a break while something else is done; none of them may fail.
fn under_load<T>(installation: &Installation, server: &Server, work: impl FnOnce() -> T) -> T {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut exchanges = 0;
            while !is_done.load(Ordering::Relaxed) || exchanges < 5 {
                exchange(installation, server);
                exchanges += 1;
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_done.store(true, Ordering::Relaxed);
        load.join().unwrap();
        done.unwrap_or_else(|fault| std::panic::resume_unwind(fault))
    })
}

#[test]
fn ledger_key_changes_while_it_serves_and_both_keys_vouch_for_the_whole_ledger() {
    let installation = Installation::new();
    let server = installation.serve();
    let old = tell(&installation, &["keys", "show", "ledger"]);
    let before = exchange(&installation, &server)["receipts"][0].to_string();
    installation.write("before.json", &before);

    let new = under_load(&installation, &server, || tell(&installation, &["keys", "rotate", "ledger"]));

    assert_ne!(old, new);
    assert_eq!(tell(&installation, &["keys", "show", "ledger"]), new);
    let after = exchange(&installation, &server)["receipts"][0].to_string();
    installation.write("after.json", &after);
    let rotated = server.entries("KEY_ROTATED");
    assert_eq!((&rotated[0]["result"]["old"], &rotated[0]["result"]["new"]), (&json!(old), &json!(new)));
    server.stop();
    tell(&installation, &["ledger", "export", "--out", "copy"]);
    let anchors = ["--anchor", "before.json", "--anchor", "after.json"];
    for key in [&old, &new] {
        let live = verify(&installation, &[&["--key", key.as_str()][..], &anchors].concat());
        assert_eq!(live.0, 0, "{}", live.1);
        let export = verify(&installation, &[&["copy", "--key", key.as_str()][..], &anchors].concat());
        assert_eq!(export.0, 0, "{}", export.1);
    }
    // The head that was seen may be one of before the change.
    installation.serve().stop();
}

#[test]
fn keys_are_listed_with_their_past_and_without_their_secret_parts() {
    let installation = Installation::new();
    tell(&installation, &["keys", "rotate", "ledger"]);

    let listed: Value =
        serde_json::from_str(&tell(&installation, &["keys", "list", "--output", "json"])).unwrap();

    let of = |purpose: &str| -> Vec<&Value> {
        listed["items"].as_array().unwrap().iter().filter(|item| item["purpose"] == purpose).collect()
    };
    let ledger = of("ledger");
    assert_eq!((&ledger[0]["state"], &ledger[0]["version"]), (&json!("retired"), &json!(1)));
    assert_eq!((&ledger[1]["state"], &ledger[1]["version"]), (&json!("active"), &json!(2)));
    assert_eq!(ledger[1]["key"], tell(&installation, &["keys", "show", "ledger"]));
    assert_eq!(ledger[0]["retired_at"], ledger[1]["made_at"]);
    assert_eq!(of("assertion")[0]["id"].as_str().unwrap().len(), 43, "an RFC 7638 thumbprint");
    assert_eq!((of("pseudonym").len(), of("sealing").len()), (1, 1));
    let table = tell(&installation, &["keys", "list"]);
    assert_eq!(table.lines().count(), 7, "{table}");
}

#[test]
fn broker_whose_word_of_a_new_sealing_key_was_not_written_says_it_again() {
    let installation = Installation::new();
    let server = installation.serve();
    let key = format!("hallpass-sealing-key-v1:{}", STANDARD.encode([7; 32]));
    installation.write("next.key", &key);
    installation.name_sealing_keys("hallpass.yaml", "{ file: next.key, previous: { file: sealing.key } }");
    let execute = |statement: &str| {
        let conn = rusqlite::Connection::open(installation.file("hallpass.db")).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        conn.execute_batch(statement).unwrap();
    };
    execute(
        "CREATE TRIGGER stuck BEFORE UPDATE ON meta WHEN NEW.name = 'sealing_served_with'
         BEGIN SELECT RAISE(ABORT, 'no room'); END",
    );
    server.hang_up();
    eventually("the failure", || server.logs().contains("the sealing keys were not taken").then_some(()));
    assert!(!server.logs().contains("were read anew"));
    execute("DROP TRIGGER stuck");
    assert_eq!(refused(&installation, &["keys", "rewrap"]).0, 2, "nobody said that the new key is known");
    eventually("the word", || {
        server.hang_up();
        server.logs().contains("were read anew").then_some(())
    });
    tell(&installation, &["keys", "rewrap"]);
    assert_eq!(server.only(&installation.issuer.token(), "npm")["fields"]["value"], CANARY);
}

#[test]
fn sealing_key_changes_while_it_serves_and_the_old_one_is_worth_nothing_then() {
    let installation = Installation::new();
    let server = installation.serve();
    let key = format!("hallpass-sealing-key-v1:{}", STANDARD.encode([7; 32]));
    installation.write("next.key", &key);
    let name = |to: &str| installation.name_sealing_keys("hallpass.yaml", to);
    name("{ file: next.key, previous: { file: sealing.key } }");

    let (exit, said) = refused(&installation, &["keys", "rewrap"]);
    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("SIGHUP"), "{said}");
    under_load(&installation, &server, || {
        server.hang_up();
        // Refused until the broker says that it knows the new key.
        eventually("the change of sealing keys", || {
            (refused(&installation, &["keys", "rewrap"]).0 == 0).then_some(())
        });
        installation.set_secret("npm-token", CANARY);
        name("{ file: next.key }");
        server.hang_up();
    });

    let value = &server.only(&installation.issuer.token(), "npm")["fields"]["value"];
    assert_eq!(value, CANARY);
    let told = server.entries("KEY_ROTATED");
    assert_eq!(
        (told.len(), &told[0]["result"]["key"], &told[0]["result"]["records"]),
        (1, &json!("sealing"), &json!(5))
    );
    server.stop();
    name("{ file: sealing.key }");
    assert_eq!(refused(&installation, &["secret", "list"]).0, 2);
    name("{ file: next.key }");
    installation.serve().stop();
}

/// One machine has one version at a time. Where a command of a later one was run beside `serve`, that goes on, and does
/// not start again.
#[test]
fn broker_of_one_machine_runs_on_under_a_later_schema_and_is_refused_there_in_a_sentence() {
    let installation = Installation::new();
    let server = installation.serve();
    under_load(&installation, &server, || {
        let conn = rusqlite::Connection::open(installation.file("hallpass.db")).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        conn.execute_batch(
            "BEGIN IMMEDIATE;
             ALTER TABLE issuance ADD COLUMN later TEXT;
             ALTER TABLE head ADD COLUMN later INTEGER NOT NULL DEFAULT 0;
             ALTER TABLE entry ADD COLUMN later BLOB;
             CREATE TABLE later (id INTEGER PRIMARY KEY, issuance BLOB NOT NULL);
             CREATE TRIGGER issuance_is_followed AFTER INSERT ON issuance
             BEGIN INSERT INTO later (issuance) VALUES (NEW.id); END;
             PRAGMA user_version = 9000; COMMIT;",
        )
        .unwrap();
    });
    exchange(&installation, &server);
    let receipt = exchange(&installation, &server)["receipts"][0].to_string();
    installation.write("receipt.json", &receipt);
    server.stop();
    for command in [&["serve"][..], &["secret", "list"], &["ledger", "verify"]] {
        let (exit, said) = refused(&installation, command);
        assert_eq!(exit, 2, "{said}");
        assert!(said.contains("9000"), "{said}");
    }
    // Nothing was touched: the later version finds a ledger that holds together.
    let conn = rusqlite::Connection::open(installation.file("hallpass.db")).unwrap();
    let followed: i64 = conn.query_row("SELECT count(*) FROM later", [], |row| row.get(0)).unwrap();
    assert!(followed > 0);
    conn.pragma_update(None, "user_version", 6).unwrap();
    drop(conn);
    let key = tell(&installation, &["keys", "show", "ledger"]);
    let told = verify(&installation, &["--key", &key, "--anchor", "receipt.json"]);
    assert_eq!(told.0, 0, "{}", told.1);
}

#[test]
fn backup_under_load_is_whole_for_its_owner_only_and_has_no_sealing_key() {
    let installation = Installation::new();
    let server = installation.serve();

    under_load(&installation, &server, || tell(&installation, &["backup", "--out", "copy"]));

    let head = tell(&installation, &["restore", "--from", "copy", "--verify"]);
    assert!(head.lines().nth(1).unwrap().parse::<u64>().unwrap() > 4, "{head}");
    let sealing = fs::read_to_string(installation.file("sealing.key")).unwrap();
    let raw = STANDARD.decode(sealing.trim().rsplit_once(':').unwrap().1).unwrap();
    let mut names = Vec::new();
    for file in fs::read_dir(installation.file("copy")).unwrap().map(Result::unwrap) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
        let bytes = fs::read(file.path()).unwrap();
        assert!(!bytes.windows(raw.len()).any(|window| window == raw));
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()));
        names.push(file.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["hallpass.db", "manifest.json"]);
    let (exit, said) = refused(&installation, &["backup", "--out", "copy"]);
    assert_eq!(exit, 2, "{said}");
    assert_eq!(server.entries("EXPORTED").len(), 1, "what is refused is not recorded as done");
    server.stop();
}

#[test]
fn backup_with_one_byte_changed_is_refused_and_nothing_is_touched() {
    let installation = Installation::new();
    tell(&installation, &["backup", "--out", "copy"]);
    fs::remove_file(installation.file("hallpass.db")).unwrap();
    for name in ["hallpass.db", "manifest.json"] {
        let path = installation.file("copy").join(name);
        let good = fs::read(&path).unwrap();
        for place in 0..12 {
            let mut bytes = good.clone();
            bytes[place * (good.len() - 1) / 11] ^= 4;
            fs::write(&path, bytes).unwrap();
            let (exit, said) = refused(&installation, &["restore", "--from", "copy", "--verify"]);
            assert_eq!(exit, 30, "{name} {place}: {said}");
            assert_eq!(refused(&installation, &["restore", "--from", "copy"]).0, 30);
            assert!(!installation.file("hallpass.db").exists());
        }
        fs::write(&path, good).unwrap();
    }
    tell(&installation, &["restore", "--from", "copy"]);
    installation.serve().stop();
}

#[test]
fn restore_refuses_a_database_that_is_there_or_in_use() {
    let installation = Installation::new();
    tell(&installation, &["backup", "--out", "copy"]);
    let before = fs::read(installation.file("hallpass.db")).unwrap();
    let (exit, said) = refused(&installation, &["restore", "--from", "copy"]);
    assert_eq!((exit, said.contains("is there already")), (2, true), "{said}");
    assert_eq!(fs::read(installation.file("hallpass.db")).unwrap(), before);
    let server = installation.serve();
    let (exit, said) = refused(&installation, &["restore", "--from", "copy"]);
    assert_eq!((exit, said.contains("serve")), (2, true), "{said}");
    server.stop();
}

#[test]
fn system_goes_on_from_an_older_backup_only_when_it_is_told_so_and_says_what_is_lost() {
    let installation = Installation::new();
    let server = installation.serve();
    exchange(&installation, &server);
    tell(&installation, &["backup", "--out", "copy"]);
    exchange(&installation, &server);
    server.stop();
    let seen = fs::read_to_string(installation.file("ledger.seen")).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(installation.file(&format!("hallpass.db{suffix}"))).ok();
    }

    let (exit, said) = refused(&installation, &["restore", "--from", "copy"]);
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("will refuse"), "{said}");
    let (exit, said) = refused(&installation, &["serve"]);
    assert_eq!(exit, 30, "{said}");
    assert!(said.contains("--accept-loss"), "{said}");
    let reason = "the disk of broker-1 died";
    assert_eq!(refused(&installation, &["restore", "--accept-loss"]).0, 2, "not without a reason");
    tell(&installation, &["restore", "--accept-loss", "--reason", reason]);

    let server = installation.serve();
    let told = server.entries("RESTORED").swap_remove(0);
    let lost: Vec<&str> = seen.lines().collect();
    assert_eq!(told["result"]["lost"]["size"].to_string(), lost[1]);
    assert_eq!(told["result"]["lost"]["checkpoint"], seen);
    assert!(told["result"]["resumed"]["size"].as_u64() < told["result"]["lost"]["size"].as_u64());
    assert!(!told.to_string().contains(reason), "a reason may name people");
    assert_eq!(server.entries("ALERT_ROLLBACK").len(), 1);
    exchange(&installation, &server);
    server.stop();
    let key = tell(&installation, &["keys", "show", "ledger"]);
    assert_eq!(verify(&installation, &["--key", &key]).0, 0);
    let (exit, said) = refused(&installation, &["restore", "--accept-loss", "--reason", reason]);
    assert_eq!((exit, said.contains("nothing is lost")), (2, true), "{said}");
}

#[test]
fn backup_of_another_installation_is_not_restored() {
    let (installation, other) = (Installation::new(), Installation::new());
    tell(&other, &["backup", "--out", "copy"]);
    let copy = other.file("copy");
    fs::remove_file(installation.file("hallpass.db")).unwrap();
    let (exit, said) = refused(&installation, &["restore", "--from", copy.to_str().unwrap()]);
    assert_eq!((exit, said.contains("sealing key")), (2, true), "{said}");
    assert!(!installation.file("hallpass.db").exists());
}
