//! Commands against a broker that serves; `tests/cli.rs` has each of them alone.

use std::{fs, process::Output};

use rusqlite::Connection;
use serde_json::Value;

use super::{
    once::deploy,
    support::{
        Installation, Server,
        installation::{CANARY, finish, run},
    },
};

#[test]
fn get_prints_the_credentials_of_a_grant() {
    let installation = Installation::new();
    let server = installation.serve();

    let output = get(&installation, &server, "deploy", &installation.issuer.token());

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(printed.to_string().contains(CANARY), "{printed}");
    assert!(!text(&output.stderr).contains(CANARY), "talk holds no secret");
}

#[test]
fn denied_and_replayed_are_told_apart_from_faults() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();

    let denied = get(&installation, &server, "other-team", &token);
    let expired = installation.issuer.token_with(serde_json::json!({ "exp": 1 }));
    let refused = get(&installation, &server, "deploy", &expired);
    let failed = get(&installation, &server, "lost", &token);

    assert_eq!(denied.status.code(), Some(10), "{denied:?}");
    assert!(
        text(&denied.stderr).contains("access_denied") && text(&denied.stderr).contains("dec_"),
        "{denied:?}"
    );
    assert_eq!(refused.status.code(), Some(10), "{refused:?}");
    assert_eq!(failed.status.code(), Some(14), "{failed:?}");
    assert!([denied, refused, failed].iter().all(|output| output.stdout.is_empty()), "data only on stdout");
}

#[test]
fn whoami_shows_the_token_and_claims_nothing() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    installation.write("ci.token", &token);

    let mut command = installation.command(&["whoami", "--token-file", "ci.token", "--output", "json"]);
    let printed = run(command.env("HALLPASS_URL", format!("http://{}", server.public.address)), "");

    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["claims"]["repository"], "acme/payments");
    server.public.exchange(&token, &deploy()).ok();
}

#[test]
fn newest_version_of_a_secret_is_delivered_while_serving() {
    let installation = Installation::new();
    let server = installation.serve();
    server.only(&installation.issuer.token(), "npm");

    installation.set_secret("npm-token", "a new value\n");

    let issuance = server.only(&installation.issuer.token(), "npm");
    assert_eq!(issuance["fields"]["value"], "a new value", "one trailing newline is cut");
}

#[test]
fn changed_entry_is_found_in_the_live_database() {
    let installation = Installation::new();
    let server = installation.serve();
    server.public.exchange(&installation.issuer.token(), &deploy()).ok();
    server.stop();
    let clean = finish(&mut installation.command(&["ledger", "verify"]), "");
    assert!([Some(0), Some(31)].contains(&clean.status.code()), "{clean:?}");

    edit_one_entry(&installation);

    let found = finish(&mut installation.command(&["ledger", "verify"]), "");
    assert_eq!(found.status.code(), Some(30), "{found:?}");
}

#[test]
fn changed_tree_or_head_is_found_in_the_live_database() {
    let installation = Installation::new();
    let server = installation.serve();
    // Enough entries for a full subtree of 256.
    for _ in 0..64 {
        server.public.exchange(&installation.issuer.token(), &deploy()).ok();
    }
    server.stop();
    let database = installation.file("hallpass.db");
    let whole = fs::read(&database).unwrap();
    for edit in [
        "UPDATE subtree SET hash = zeroblob(32)",
        "DELETE FROM subtree",
        "UPDATE head SET size = size - 1",
        "UPDATE head SET root = zeroblob(32)",
        "UPDATE head SET peaks = zeroblob(length(peaks))",
    ] {
        tamper(&installation, edit);

        let found = finish(&mut installation.command(&["ledger", "verify"]), "");

        assert_eq!(found.status.code(), Some(30), "{edit}: {found:?}");
        fs::write(&database, &whole).unwrap();
    }
    let clean = finish(&mut installation.command(&["ledger", "verify"]), "");
    assert_eq!(clean.status.code(), Some(31), "{clean:?}");
}

/// Changes the database as somebody with it in hand would: the triggers that forbid it are no hindrance to its owner.
fn tamper(installation: &Installation, edit: &str) {
    let database = Connection::open(installation.file("hallpass.db")).unwrap();
    let triggers: Vec<String> = database
        .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for trigger in triggers {
        database.execute_batch(&format!("DROP TRIGGER \"{trigger}\"")).unwrap();
    }
    assert!(database.execute(edit, []).unwrap() > 0);
}

/// Changes one stored entry.
fn edit_one_entry(installation: &Installation) {
    tamper(
        installation,
        "UPDATE entry SET bytes = CAST(replace(CAST(bytes AS TEXT), 'ISSUED', 'ISSVED') AS BLOB) \
         WHERE instr(CAST(bytes AS TEXT), 'ISSUED') > 0",
    );
}

fn get(installation: &Installation, server: &Server, grant: &str, token: &str) -> Output {
    installation.write("ci.token", token);
    let mut command = installation.command(&["get", grant, "--token-file", "ci.token"]);
    finish(command.env("HALLPASS_URL", format!("http://{}", server.public.address)), "")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
