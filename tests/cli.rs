//! The binary as an operator, an auditor and a job's step use it: files, exit codes, what is printed, signals.

#![cfg(test)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::JoinHandle,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

// ------------------------------------------------------------------------------------------------------------ init

#[test]
fn init_makes_an_installation_that_passes_its_own_check() {
    let home = Home::new();
    for (name, mode) in [
        ("hallpass.yaml", 0o644),
        ("sealing.key", 0o600),
        ("auditor.token", 0o600),
        ("operator.token", 0o600),
        ("hallpass.db", 0o600),
        ("policies/issuers/github.yaml", 0o644),
        ("policies/grants/example.yaml", 0o644),
    ] {
        assert_eq!(fs::metadata(home.file(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    let checked = home.ok(&["config", "check", "--output", "json"]);
    let checked: Value = serde_json::from_str(&checked).unwrap();
    assert_eq!((checked["ok"].as_bool(), checked["issuers"].as_u64()), (Some(true), Some(1)));
    assert_eq!(checked["digest"].as_str().unwrap().len(), 64);
    assert_eq!(checked["warnings"], serde_json::json!([]));
}

#[test]
fn init_overwrites_nothing_and_makes_nothing_where_anything_is_in_its_way() {
    for name in
        ["hallpass.yaml", "sealing.key", "auditor.token", "policies", "ledger.seen", "hallpass.db-wal"]
    {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), "mine").unwrap();
        let output = finish(binary().args(["init", "--dir"]).arg(folder.path()), "");
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(stderr(&output).contains(name), "{name}: {output:?}");
        assert_eq!(names(folder.path()), [name], "something else was made");
        assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "mine");
    }
}

#[test]
fn init_names_the_service_wherever_it_is_named_and_takes_nothing_that_is_no_url() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("broker");
    let init = |url: &str| finish(binary().args(["init", "--url", url, "--dir"]).arg(&made), "");
    for bad in
        ["http://broker.test", "broker.test", "https://broker.test/path", "https://", "https://a b.test"]
    {
        let output = init(bad);
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert!(stderr(&output).contains("--url: write") && !made.exists(), "{bad}: {output:?}");
    }

    let output = init("https://broker.test:8443");

    assert!(output.status.success() && !stderr(&output).contains("public.url"), "{output:?}");
    let text = |name: &str| fs::read_to_string(made.join(name)).unwrap();
    let configuration = text("hallpass.yaml");
    for line in [
        "url: https://broker.test:8443 ",
        "origin: \"broker.test:8443/ledger\" ",
        "issuer: \"https://broker.test:8443\"",
    ] {
        assert!(configuration.contains(line), "{line}: {configuration}");
    }
    assert!(text("policies/issuers/github.yaml").contains("audience: https://broker.test:8443 "));
    let six = folder.path().join("six");
    let init = finish(binary().args(["init", "--url", "https://[2001:db8::1]", "--dir"]).arg(&six), "");
    assert!(init.status.success(), "{init:?}");
    for made in [made, six] {
        let checked = finish(binary().args(["config", "check"]).current_dir(&made), "");
        assert!(checked.status.success() && stderr(&checked).is_empty(), "{checked:?}");
    }
}

#[test]
fn init_names_the_file_of_the_databases_password_and_reads_it_not() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("broker");
    let store = "postgres://hallpass@db.test/hallpass";
    let mut init = binary();
    init.args(["init", "--store", store, "--password-file", "store.password", "--dir"]).arg(&made);
    assert!(finish(&mut init, "").status.success());
    let configuration = fs::read_to_string(made.join("hallpass.yaml")).unwrap();
    assert!(
        configuration.contains(&format!("store: {{ url: \"{store}\", password_file: \"store.password\" }}"))
    );
    let alone =
        finish(binary().args(["init", "--password-file", "x", "--dir"]).arg(folder.path().join("b")), "");
    assert_eq!(alone.status.code(), Some(2), "{alone:?}");
}

#[test]
fn every_init_makes_its_own_keys_and_tokens() {
    let (one, other) = (Home::new(), Home::new());
    for name in ["sealing.key", "auditor.token", "operator.token"] {
        assert_ne!(fs::read(one.file(name)).unwrap(), fs::read(other.file(name)).unwrap(), "{name}");
    }
    assert_ne!(one.ok(&["keys", "show", "ledger"]), other.ok(&["keys", "show", "ledger"]));
}

// ---------------------------------------------------------------------------------------------------------- config

#[test]
fn config_check_names_every_file_that_cannot_be_used() {
    for (name, spoil, place) in [
        ("sealing.key", "rubbish", "sealing-key"),
        ("auditor.token", "short", "token"),
        ("operator.token", "", "token"),
    ] {
        let home = Home::new();
        fs::write(home.file(name), spoil).unwrap();
        let refused = home.refused(&["config", "check"], 2);
        assert!(refused.contains(&format!("error[{place}]")) && refused.contains(name), "{refused}");
        fs::remove_file(home.file(name)).unwrap();
        let refused = home.refused(&["config", "check"], 2);
        assert!(refused.contains("error[file-unreadable]") && refused.contains(name), "{refused}");
    }
    let home = Home::new();
    fs::copy(home.file("auditor.token"), home.file("operator.token")).unwrap();
    assert!(home.refused(&["config", "check"], 2).contains("error[duplicate-token]"));
}

#[test]
fn config_check_reads_certificates() {
    let home = Home::new();
    let made = rcgen::generate_simple_self_signed(["hallpass.test".to_owned()]).unwrap();
    fs::write(home.file("tls.crt"), made.cert.pem()).unwrap();
    fs::write(home.file("tls.key"), made.signing_key.serialize_pem()).unwrap();
    home.replace(
        "listen: 127.0.0.1:8440",
        "listen: 0.0.0.0:0\n  tls: { certificate: tls.crt, key: tls.key }",
    );
    home.ok(&["config", "check"]);

    let other = rcgen::generate_simple_self_signed(["hallpass.test".to_owned()]).unwrap();
    fs::write(home.file("tls.key"), other.signing_key.serialize_pem()).unwrap();
    assert!(home.refused(&["config", "check"], 2).contains("error[tls]"));
    fs::write(home.file("tls.crt"), "no PEM").unwrap();
    assert!(home.refused(&["config", "check"], 2).contains("it holds no certificate"));
}

#[test]
fn config_check_tells_policy_by_its_own_code_and_path() {
    let home = Home::new();
    let path = home.file("policies/grants/example.yaml");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("enabled:", "enable:")).unwrap();
    let refused = home.refused(&["config", "check"], 20);
    assert!(
        refused.contains("policies/grants/example.yaml:") && refused.contains("did you mean"),
        "{refused}"
    );
}

#[test]
fn config_check_tells_programs_the_same() {
    let home = Home::new();
    home.replace("policies: policies/", "polices: policies/");
    let output = home.run(&["config", "check", "--output", "json"], "");
    assert_eq!(output.status.code(), Some(2));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &told["findings"][0];
    assert_eq!((told["ok"].as_bool(), finding["code"].as_str()), (Some(false), Some("unknown-key")));
    assert_eq!(finding["remedy"], "did you mean `policies`?");
    assert!(finding["line"].as_u64().is_some() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn config_check_warns_where_no_audience_is_what_clients_ask_for() {
    let home = Home::new();
    home.replace("url: https://hallpass.example.com ", "url: https://other.example.com ");
    let output = home.run(&["config", "check"], "");
    assert!(output.status.success());
    assert!(stderr(&output).contains("no issuer's audience is https://other.example.com"), "{output:?}");
}

#[test]
fn a_missing_configuration_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    for command in
        [&["serve"] as &[&str], &["config", "check"], &["secret", "list"], &["keys", "show", "ledger"]]
    {
        let output = finish(binary().args(command).current_dir(folder.path()), "");
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("hallpass init"), "{output:?}");
    }
}

// ----------------------------------------------------------------------------------------------------------- serve

#[test]
fn serve_invents_no_database() {
    let home = Home::new();
    fs::remove_file(home.file("hallpass.db")).unwrap();
    let refused = home.refused(&["serve"], 2);
    assert!(refused.contains("hallpass init"), "{refused}");
    assert!(!home.file("hallpass.db").exists());
}

#[test]
fn serve_with_another_sealing_key_says_so_and_touches_nothing() {
    let (home, other) = (Home::new(), Home::new());
    fs::copy(other.file("sealing.key"), home.file("sealing.key")).unwrap();
    let before = fs::read(home.file("hallpass.db")).unwrap();
    assert!(home.refused(&["serve"], 2).contains("sealing key is not the one"));
    assert_eq!(fs::read(home.file("hallpass.db")).unwrap(), before);
}

#[test]
fn one_database_has_one_serve_and_other_commands_write_beside_it() {
    let home = Home::new();
    let served = home.serve();
    // Also where the port is taken: the database is what the operator must hear of.
    assert!(home.refused(&["serve"], 2).contains("another `hallpass serve`"));
    home.ok_with(&["secret", "set", "npm-token"], "hunter2\n");
    home.ok_with(&["secret", "set", "npm-token"], "hunter3\n");
    home.ok_with(&["secret", "set", "db", "--json"], r#"{"user":"u","password":"p"}"#);
    let listed: Value = serde_json::from_str(&home.ok(&["secret", "list", "--output", "json"])).unwrap();
    let listed: Vec<(&str, u64, u64)> = listed["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|secret| {
            let number = |name: &str| secret[name].as_u64().unwrap();
            (secret["name"].as_str().unwrap(), number("version"), number("fields"))
        })
        .collect();
    assert_eq!(listed, [("db", 1, 2), ("npm-token", 2, 1)]);
    home.ok(&["secret", "remove", "db"]);
    served.stop();

    let codes = home.codes();
    assert_eq!(&codes[..3], ["STARTED", "CONFIG_LOADED", "POLICY_LOADED"]);
    assert_eq!(&codes[3..7], ["SECRET_SET", "SECRET_SET", "SECRET_SET", "SECRET_REMOVED"]);
    assert_eq!(codes.last().unwrap(), "STOPPED");
    let entry = home.entry(3);
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(entry["result"]["by"], format!("os:{uid}"));
    assert_eq!(entry["result"]["secret"], "npm-token");
    let database = fs::read(home.file("hallpass.db")).unwrap();
    assert!(!database.windows(7).any(|window| window == b"hunter2"), "the secret stands in the database");
}

#[test]
fn serve_waits_for_policy_that_holds_and_says_so() {
    let home = Home::new();
    let grant = home.file("policies/grants/example.yaml");
    let good = fs::read_to_string(&grant).unwrap();
    fs::write(&grant, "grant: [").unwrap();
    let mut served = Served::spawn(&home);
    served.wait_for_log("policy set refused");
    fs::write(&grant, good).unwrap();
    let line = served.ready_line();
    assert!(line.starts_with("hallpass ready public=http://127.0.0.1:"), "{line}");
    assert!(line.contains(" admin=http://127.0.0.1:") && line.contains(" policy="), "{line}");
    served.stop();
    let codes = home.codes();
    assert_eq!(&codes[2..5], ["POLICY_REJECTED", "ALERT_POLICY_REJECTED", "POLICY_LOADED"], "{codes:?}");
}

#[test]
fn a_hang_up_records_what_it_finds_also_where_that_was_refused_before() {
    let home = Home::new();
    let served = home.serve();
    fs::write(home.file("policies/grants/example.yaml"), "grant: [").unwrap();
    served.wait_for_log("policy set refused");
    let refusals = || home.codes().iter().filter(|code| *code == "POLICY_REJECTED").count();
    assert_eq!(refusals(), 1);
    kill_process(served.pid(), Signal::HUP).unwrap();
    eventually("the second refusal", || (refusals() == 2).then_some(()));
    served.stop();
}

#[test]
fn a_changed_certificate_is_served_and_a_broken_one_is_not() {
    let home = Home::new();
    let certificate = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (first, second) = (certificate(), certificate());
    let put = |name: &str, text: &str| {
        fs::write(home.file("draft"), text).unwrap();
        fs::rename(home.file("draft"), home.file(name)).unwrap();
    };
    put("first.crt", &first.cert.pem());
    put("second.crt", &second.cert.pem());
    put("tls.crt", &first.cert.pem());
    put("tls.key", &first.signing_key.serialize_pem());
    put("token", "x.y.z");
    home.replace(
        "listen: 127.0.0.1:8440",
        "listen: 127.0.0.1:0\n  tls: { certificate: tls.crt, key: tls.key }",
    );
    let mut served = Served::spawn(&home);
    let ready = served.ready_line();
    let url = ready.split(' ').find_map(|word| word.strip_prefix("public=")).unwrap().to_owned();
    assert!(url.starts_with("https://"), "{ready}");
    // 10: the broker was reached, and refuses the token.
    let asked = |ca: &str| {
        let arguments = ["whoami", "--url", &url, "--ca-file", ca, "--token-file", "token"];
        home.run(&arguments, "").status.code()
    };
    assert_eq!(asked("first.crt"), Some(10));

    put("tls.crt", "no PEM");
    served.wait_for_log("certificate was refused");
    assert_eq!(asked("first.crt"), Some(10));

    put("tls.crt", &second.cert.pem());
    put("tls.key", &second.signing_key.serialize_pem());
    kill_process(served.pid(), Signal::HUP).unwrap();
    served.wait_for_log("certificate was read again");
    assert_eq!(asked("second.crt"), Some(10));
    served.stop();
}

#[test]
fn a_database_that_was_set_back_is_not_served() {
    let home = Home::new();
    home.ok_with(&["secret", "set", "npm-token"], "one");
    fs::copy(home.file("hallpass.db"), home.file("old.db")).unwrap();
    home.serve().stop();
    assert!(home.file("ledger.seen").exists());
    fs::rename(home.file("old.db"), home.file("hallpass.db")).unwrap();
    let refused = home.refused(&["serve"], 30);
    assert!(refused.contains("ledger.seen") && refused.contains("set back"), "{refused}");
    assert_eq!(home.codes().last().unwrap(), "ALERT_ROLLBACK");
    let output = home.run(&["ledger", "verify"], "");
    assert_eq!(output.status.code(), Some(30), "{output:?}");
}

#[test]
fn a_ledger_takes_the_configured_origin_until_its_first_entry() {
    let home = Home::new();
    home.replace("origin: \"hallpass.example.com/ledger\"", "origin: ci.test/ledger");
    assert!(home.ok(&["keys", "show", "ledger"]).starts_with("ci.test/ledger+"));
    home.ok_with(&["secret", "set", "a"], "b");
    home.replace("origin: ci.test/ledger", "origin: other.test/ledger");
    let output = home.run(&["secret", "set", "a"], "b");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("keeps its own for ever"), "{output:?}");
}

// --------------------------------------------------------------------------------------------------------- secrets

#[test]
fn a_secret_is_never_an_argument_and_never_empty() {
    let home = Home::new();
    for (arguments, stdin) in [
        (&["secret", "set", "a", "hunter2"] as &[&str], ""),
        (&["secret", "set", "a"], ""),
        (&["secret", "set", "a"], "\n"),
        (&["secret", "set", "Not-A-Name"], "x"),
        (&["secret", "set", "a", "--json"], "x"),
        (&["secret", "set", "a", "--json", "--raw"], "{}"),
        (&["secret", "remove", "never-set"], ""),
    ] {
        assert_eq!(home.run(arguments, stdin).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(home.codes(), Vec::<String>::new(), "a refused command left an entry");
}

// ---------------------------------------------------------------------------------------------------------- ledger

#[test]
fn an_export_verifies_and_any_flipped_bit_is_found() {
    let home = Home::new();
    home.serve().stop();
    let key = home.ok(&["keys", "show", "ledger"]).trim().to_owned();
    home.ok(&["ledger", "export", "--out", "first"]);
    home.ok(&["ledger", "export", "--out", "second"]);
    let verify =
        |more: &[&str]| home.run(&[&["ledger", "verify", "second"], more].concat(), "").status.code();
    assert_eq!(verify(&[]), Some(31));
    assert_eq!(verify(&["--key", &key]), Some(31));
    assert_eq!(verify(&["--anchor", "first/checkpoint"]), Some(31));
    assert_eq!(verify(&["--key", &key, "--anchor", "first/checkpoint"]), Some(0));
    let json = home.ok(&[
        "ledger",
        "verify",
        "second",
        "--key",
        &key,
        "--anchor",
        "first/checkpoint",
        "--output",
        "json",
    ]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdict"], "anchored");
    assert_eq!(home.entry(json["size"].as_u64().unwrap() - 1)["code"], "EXPORTED");

    // The first export is the shorter one: an anchor that has seen more than it holds.
    let output = home.run(&["ledger", "verify", "first", "--key", &key, "--anchor", "second/checkpoint"], "");
    assert_eq!(output.status.code(), Some(30));

    let entries = home.file("second/entries.jsonl");
    let mut bytes = fs::read(&entries).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&entries, bytes).unwrap();
    let output = home.run(&["ledger", "verify", "second/entries.jsonl", "--key", &key], "");
    assert_eq!(output.status.code(), Some(30));
    assert!(String::from_utf8_lossy(&output.stdout).contains("the first bad entry is"), "{output:?}");
}

#[test]
fn an_export_overwrites_nothing() {
    let home = Home::new();
    fs::create_dir(home.file("out")).unwrap();
    fs::write(home.file("out/mine"), "mine").unwrap();
    assert!(home.refused(&["ledger", "export", "--out", "out"], 2).contains("not empty"));
    assert_eq!(names(&home.file("out")), ["mine"]);
    assert_eq!(home.codes(), Vec::<String>::new());
}

#[test]
fn the_live_database_verifies_and_verifying_writes_nothing() {
    let home = Home::new();
    home.serve().stop();
    let key = home.ok(&["keys", "show", "ledger"]).trim().to_owned();
    let before = fs::read(home.file("hallpass.db")).unwrap();
    assert_eq!(home.run(&["ledger", "verify"], "").status.code(), Some(31));
    home.ok(&["ledger", "verify", "--key", &key]);
    assert_eq!(fs::read(home.file("hallpass.db")).unwrap(), before);
    assert_eq!(home.run(&["ledger", "verify", "--key", "rubbish"], "").status.code(), Some(2));
    assert_eq!(home.run(&["ledger", "verify", "--anchor", "absent"], "").status.code(), Some(2));
}

#[test]
fn showing_an_entry_is_recorded() {
    let home = Home::new();
    home.ok_with(&["secret", "set", "a"], "b");
    let shown: Value = serde_json::from_str(&home.ok(&["ledger", "show", "0", "--output", "json"])).unwrap();
    assert_eq!(shown["items"][0]["entry"]["code"], "SECRET_SET");
    assert_eq!(home.codes(), ["SECRET_SET", "READ"]);
    for which in ["99", "dec_00000000000000000000000000", "rubbish"] {
        assert_eq!(home.run(&["ledger", "show", which], "").status.code(), Some(2), "{which}");
    }
}

// ---------------------------------------------------------------------------------------------------------- client

#[test]
fn a_client_without_a_token_ends_before_it_asks() {
    let home = Home::new();
    fs::write(home.file("empty"), "\n").unwrap();
    for file in ["--token-file empty", "--token-file absent", "--output json"] {
        for command in ["get g", "whoami"] {
            let arguments = format!("{command} --url http://127.0.0.1:9 {file}");
            let arguments: Vec<&str> = arguments.split(' ').collect();
            assert_eq!(home.run(&arguments, "").status.code(), Some(12), "{arguments:?}");
        }
    }
    fs::write(home.file("token"), "x.y.z").unwrap();
    let arguments = ["get", "g", "--url", "http://hallpass.example.com", "--token-file", "token"];
    assert!(home.refused(&arguments, 2).contains("in the clear"));
}

#[test]
fn every_refusal_of_the_broker_has_its_exit_code() {
    let problem = |code: &str| {
        format!(r#"{{"title":"Refused","detail":"so it is","code":"{code}","decision_id":"dec_1"}}"#)
    };
    for (status, code, exit) in [
        (401, "token_expired", 10),
        (403, "access_denied", 10),
        (409, "token_replayed", 10),
        (422, "ttl_out_of_range", 2),
        (429, "rate_limited", 15),
        (500, "internal", 1),
        (502, "backend_failed", 14),
        (503, "not_ready", 13),
        (504, "backend_timeout", 14),
    ] {
        // The broker asks for more patience than a client has, so that it gives up at once.
        let fake = Fake::answering(vec![(status, "60", problem(code))]);
        let refused = get(&fake, &[], exit);
        assert!(refused.contains("Refused: so it is") && refused.contains("dec_1"), "{refused}");
        assert_eq!(fake.requests().len(), 1);
    }
    // What no broker answers.
    for (status, body) in [(0, ""), (204, ""), (200, "<html>"), (302, ""), (502, "<html>")] {
        get(&Fake::answering(vec![(status, "60", body.to_owned())]), &["--output", "human"], 13);
    }
}

#[test]
fn what_passes_is_tried_again_under_one_idempotency_key() {
    let answer = r#"{"decision_id":"dec_1","issuances":[{"id":"iss_1","handle":"hdl_1","grant":"g","credential":"c","kind":"sealed","fields":{"value":"hunter2"},"secret_fields":["value"],"lifetime":"static","expires_at":null,"revocable":false}]}"#;
    let fake = Fake::answering(vec![
        (503, "0", r#"{"code":"not_ready"}"#.to_owned()),
        (409, "0", r#"{"code":"request_in_progress"}"#.to_owned()),
        (200, "", answer.to_owned()),
    ]);
    assert_eq!(get(&fake, &["--field", "value"], 0), "hunter2");
    let requests = fake.requests();
    let keys: Vec<&str> = requests
        .iter()
        .map(|request| request.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).unwrap())
        .collect();
    assert_eq!(keys.len(), 3);
    assert_eq!(keys[0].len(), 32);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[test]
fn a_client_comes_back_no_sooner_than_it_is_asked_to() {
    let limited = r#"{"title":"Slow down","code":"rate_limited"}"#.to_owned();
    let answer = r#"{"decision_id":"dec_1","issuances":[]}"#.to_owned();
    let fake = Fake::answering(vec![(429, "1", limited), (200, "", answer)]);
    let start = std::time::Instant::now();

    get(&fake, &[], 0);

    assert!(start.elapsed() >= std::time::Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(fake.requests().len(), 2);
}

#[test]
fn healthcheck_asks_the_broker_of_the_configuration() {
    let home = Home::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    home.replace("listen: 127.0.0.1:8440", &format!("listen: 127.0.0.1:{port}"));
    assert_eq!(home.run(&["healthcheck"], "").status.code(), Some(13));
    let served = Served::start(&home);
    home.ok(&["healthcheck"]);
    home.ok(&["healthcheck", "--url", &format!("http://127.0.0.1:{port}")]);
    served.stop();
}

#[test]
fn a_reader_that_went_away_is_no_panic() {
    let mut child = binary().arg("version").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!stderr(&output).contains("panicked"), "{output:?}");
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
}

#[test]
fn version_says_what_the_binary_is_made_of() {
    let output = finish(binary().args(["version", "--verbose", "--output", "json"]), "");
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sbom = &version["sbom"];
    assert_eq!((sbom["bomFormat"].as_str(), sbom["specVersion"].as_str()), (Some("CycloneDX"), Some("1.6")));
    let components = sbom["components"].as_array().unwrap();
    let rustls = components.iter().find(|each| each["name"] == "rustls").unwrap();
    assert!(rustls["purl"].as_str().unwrap().starts_with("pkg:cargo/rustls@0.23."), "{rustls}");
    assert!(
        components
            .iter()
            .all(|each| each["licenses"][0]["expression"].as_str().is_some_and(|text| !text.is_empty()))
    );
    let shown = finish(binary().args(["version", "--verbose"]), "");
    assert_eq!(String::from_utf8(shown.stdout).unwrap().lines().count(), components.len() + 1);
}

#[test]
fn version_says_what_this_binary_knows() {
    let output = finish(binary().args(["version", "--output", "json"]), "");
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["kinds"], serde_json::json!(["aws", "oidc", "sealed", "vault"]));
    assert_eq!(finish(binary().arg("no-such-command"), "").status.code(), Some(2));
}

// ------------------------------------------------------------------------------------------------------------ demo

#[test]
fn the_demo_tells_its_story_in_at_most_forty_lines() {
    let told = String::from_utf8(finish(binary().args(["demo", "--once"]), "").stdout).unwrap();
    assert!(told.lines().count() <= 40, "{told}");
    insta::assert_snapshot!("demo_once", redacted(&told));
}

#[test]
fn the_demo_keeps_running_and_its_commands_work_as_pasted() {
    let mut child = binary().arg("demo").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut told = Vec::new();
    while !told.last().is_some_and(|line: &String| line.contains(" ledger verify ")) {
        told.push(lines.next().expect("the demo ended before it said what to try"));
    }
    assert!(told.len() <= 40, "{told:#?}");
    let pasted = |which: &str| {
        let line = told.iter().find(|line| {
            line.trim_start().starts_with(env!("CARGO_BIN_EXE_hallpass")) && line.contains(which)
        });
        let words: Vec<&str> = line.unwrap().split_whitespace().skip(1).collect();
        finish(binary().args(words), "")
    };
    let folder =
        told.iter().find_map(|line| line.split("removes ").nth(1)).unwrap().trim_end_matches([')', ':', ';']);
    assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    let token = Path::new(folder).join("job.token");
    eventually("the job's token", || token.exists().then_some(()));
    let output = pasted(" get ");
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("npm_"),
        "{output:?}"
    );
    let output = pasted(" ledger verify ");
    assert!(output.status.success(), "{output:?}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!Path::new(folder).exists(), "the demo left its folder behind");
}

/// What varies from run to run, replaced by what it is.
fn redacted(text: &str) -> String {
    let word = |word: &str| {
        let core = word.trim_matches(|letter: char| ",()".contains(letter));
        let shown = if core.starts_with("dec_") {
            "dec_ID"
        } else if core.starts_with("http://127.0.0.1:") {
            "http://127.0.0.1:PORT"
        } else if core.len() >= 20 && core.ends_with('Z') && core.contains("T") {
            "TIME"
        } else if core.len() == 12 && core.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            "DIGEST"
        } else if core == env!("CARGO_PKG_VERSION") {
            "VERSION"
        } else {
            return word.to_owned();
        };
        word.replace(core, shown)
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

// ------------------------------------------------------------------------------------------------------------- kit

/// An installation as `init` makes it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = finish(binary().args(["init", "--dir"]).arg(folder.path()), "");
        assert!(output.status.success(), "{output:?}");
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    #[track_caller]
    fn replace(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.file("hallpass.yaml")).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} must stand in the configuration once");
        fs::write(self.file("hallpass.yaml"), text.replace(from, to)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command.args(arguments).current_dir(self.0.path());
        command
    }

    fn run(&self, arguments: &[&str], stdin: &str) -> Output {
        finish(&mut self.command(arguments), stdin)
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "")
    }

    #[track_caller]
    fn ok_with(&self, arguments: &[&str], stdin: &str) -> String {
        let output = self.run(arguments, stdin);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is said when a command ends with that code.
    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments, "");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        stderr(&output)
    }

    fn serve(&self) -> Served {
        Served::start(self)
    }

    /// The codes of all entries, oldest first, read beside whoever writes.
    fn codes(&self) -> Vec<String> {
        let conn = self.database();
        let mut codes = conn.prepare("SELECT code FROM entry ORDER BY idx").unwrap();
        codes.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn entry(&self, index: u64) -> Value {
        let sql = "SELECT bytes FROM entry WHERE idx = ?1";
        let index = i64::try_from(index).unwrap();
        let bytes: Vec<u8> = self.database().query_row(sql, [index], |row| row.get(0)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn database(&self) -> rusqlite::Connection {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        rusqlite::Connection::open_with_flags(self.file("hallpass.db"), flags).unwrap()
    }
}

/// A running `serve`; killed when dropped.
struct Served {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    log: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Served {
    /// Starts on ports of its own, and waits until it is ready.
    fn start(home: &Home) -> Self {
        let mut served = Self::spawn(home);
        served.ready_line();
        served
    }

    /// Starts, and waits for nothing.
    fn spawn(home: &Home) -> Self {
        let text = fs::read_to_string(home.file("hallpass.yaml")).unwrap();
        let text = text.replace("127.0.0.1:8440", "127.0.0.1:0").replace("127.0.0.1:8441", "127.0.0.1:0");
        fs::write(home.file("hallpass.yaml"), text).unwrap();
        let mut command = home.command(&["serve"]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stdout =
            std::thread::spawn(move || stdout.lines().map_while(Result::ok).next().unwrap_or_default());
        let log = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let (own, stderr) = (std::sync::Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                own.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self { child, stdout: Some(stdout), log }
    }

    fn ready_line(&mut self) -> String {
        let line = self.stdout.take().unwrap().join().unwrap();
        assert!(line.starts_with("hallpass ready "), "{line:?}: {}", self.log.lock().unwrap());
        line
    }

    fn wait_for_log(&self, text: &str) {
        eventually(text, || self.log.lock().unwrap().contains(text).then_some(()));
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn stop(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log.lock().unwrap());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A broker that answers what it was told to, one connection each; status 0 hangs up.
struct Fake {
    url: String,
    served: std::sync::Mutex<Option<JoinHandle<Vec<String>>>>,
}

impl Fake {
    fn answering(answers: Vec<(u16, &'static str, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let serve = |(status, retry_after, body): (u16, &str, String)| {
                let (mut stream, _) = listener.accept().unwrap();
                let request = read_request(&mut stream);
                if status > 0 {
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nretry-after: {retry_after}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                    );
                    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
                }
                request
            };
            answers.into_iter().map(serve).collect()
        });
        Self { url, served: std::sync::Mutex::new(Some(served)) }
    }

    /// What was asked of it; waits for the last.
    fn requests(&self) -> Vec<String> {
        self.served.lock().unwrap().take().unwrap().join().unwrap()
    }
}

fn read_request(stream: &mut std::net::TcpStream) -> String {
    let mut read = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if let Some(head) = text.find("\r\n\r\n")
            && read.len() >= head + 4 + length.unwrap_or(0)
        {
            return text;
        }
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "the client went away: {text}");
        read.extend_from_slice(&chunk[..count]);
    }
}

/// Runs `get` against a fake; what it printed where that was due to succeed, what it said otherwise.
#[track_caller]
fn get(fake: &Fake, more: &[&str], exit: i32) -> String {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "header.claims.signature\n").unwrap();
    let mut command = binary();
    command.args(["get", "payments-prod", "--url", &fake.url, "--token-file"]).arg(&token).args(more);
    let output = finish(&mut command, "");
    assert_eq!(output.status.code(), Some(exit), "{output:?}");
    if exit == 0 { String::from_utf8(output.stdout).unwrap() } else { stderr(&output) }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    // What a CI system sets for the job that runs these tests is not for the jobs within them.
    for name in [
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "ALL_PROXY",
        "BITBUCKET_BUILD_NUMBER",
        "BUILDKITE",
        "CIRCLECI",
        "GITHUB_ACTIONS",
        "GITLAB_CI",
        "HALLPASS_CONFIG",
        "HALLPASS_ID_TOKEN",
        "HALLPASS_LOG",
        "HALLPASS_TOKEN_FILE",
        "HALLPASS_URL",
        "HTTP_PROXY",
        "KUBERNETES_SERVICE_HOST",
        "TF_BUILD",
        "http_proxy",
    ] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    command
}

fn finish(command: &mut Command, stdin: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads no stdin may have ended already.
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
