//! What an operator does with a store on a server: copies that go back, later schemas beside earlier brokers, policy sets
//! that are not the same everywhere; and what the store counts there.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use super::support::{
    Cluster, Installation, Server, eventually,
    installation::{CANARY, finish, run},
};

fn tell(installation: &Installation, arguments: &[&str]) -> String {
    run(&mut installation.command(arguments), "").trim().to_owned()
}

#[test]
fn backup_taken_while_brokers_write_verifies_and_goes_back_into_either_kind_of_store() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let server = installation.serve();
    let token = installation.issuer.token();
    server.only(&token, "npm");
    let key = tell(&installation, &["keys", "show", "ledger"]);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Bounded, so that a backup that fails ends the test.
            for _ in 0..1_000 {
                if is_done.load(Ordering::SeqCst) {
                    break;
                }
                server.only(&installation.issuer.token(), "npm");
            }
        });
        tell(&installation, &["backup", "--out", "kept"]);
        is_done.store(true, Ordering::SeqCst);
    });
    assert_eq!(server.entries("EXPORTED")[0]["result"]["what"], "backup");
    server.stop();

    tell(&installation, &["restore", "--from", "kept", "--verify"]);
    let file = fs::read(installation.file("kept/hallpass.db")).unwrap();
    assert!(!file.windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes()), "a secret in the open");
    // Nothing is overwritten.
    let owner = cluster.url("owner", "hallpass");
    let restore = ["restore", "--from", "kept", "--as", &owner, "--reader", "reader"];
    let taken = finish(&mut installation.command(&restore), "");
    assert!(
        !taken.status.success() && String::from_utf8_lossy(&taken.stderr).contains("already"),
        "{taken:?}"
    );

    // On the server, where the database was lost; what is missing is refused until it is given up.
    cluster.psql("hallpass", "DROP SCHEMA hallpass CASCADE");
    let restored = finish(&mut installation.command(&restore), "");
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(finish(&mut installation.command(&["serve"]), "").status.code(), Some(30));
    tell(&installation, &["restore", "--accept-loss", "--reason", "the disk of the server"]);
    let server = installation.serve();
    assert_eq!(server.only(&installation.issuer.token(), "npm")["fields"]["value"], CANARY);
    // A token that was used before the copy stays used.
    let ask = json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] });
    server.public.exchange(&token, &ask).problem(409, "token_replayed");
    server.stop();
    let verified = finish(&mut installation.command(&["ledger", "verify", "--key", &key]), "");
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");

    // On one machine.
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let (before, after) = text.split_once("store: ").unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    let text = format!("{before}store: {{ url: \"sqlite:moved.db\" }}\n{after}");
    installation.write("moved.yaml", &text.replace("seen: ledger.seen", "seen: moved.seen"));
    tell(&installation, &["restore", "--from", "kept", "--config", "moved.yaml"]);
    let server = installation.serve_by(&mut installation.command(&["serve", "--config", "moved.yaml"]));
    assert_eq!(server.only(&installation.issuer.token(), "npm")["fields"]["value"], CANARY);
    server.public.exchange(&token, &ask).problem(409, "token_replayed");
}

#[test]
fn backup_of_one_machine_goes_to_a_server() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    server.only(&token, "npm");
    server.stop();
    tell(&installation, &["freeze", "project", "ci/999", "--reason", "a leak"]);
    tell(&installation, &["backup", "--out", "kept"]);
    for role in ["owner", "writer"] {
        cluster.role(role);
    }
    cluster.psql("postgres", "CREATE DATABASE moved OWNER owner");
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let store = format!("store: {{ url: \"{}\" }}", cluster.url("writer", "moved"));
    installation.write("moved.yaml", &text.replace("store: { url: \"sqlite:hallpass.db\" }", &store));

    let owner = cluster.url("owner", "moved");
    tell(&installation, &["restore", "--from", "kept", "--as", &owner, "--config", "moved.yaml"]);

    let server = installation.serve_by(&mut installation.command(&["serve", "--config", "moved.yaml"]));
    assert_eq!(server.only(&installation.issuer.token(), "npm")["fields"]["value"], CANARY);
    let ask = json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] });
    server.public.exchange(&token, &ask).problem(409, "token_replayed");
    assert_eq!(server.entries("FROZEN").len(), 1);
    assert_eq!(cluster.psql("moved", "SELECT count(*) FROM hallpass.freeze").trim(), "1");
}

/// A broker of an earlier schema writes the columns that it knows. So a later schema must want no more of them, and must
/// not have changed what they are.
#[test]
fn later_schemas_want_nothing_that_an_earlier_broker_does_not_write() {
    let cluster = Cluster::start(None, "");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().unwrap().to_str().unwrap().starts_with("00"));
    files.sort();
    let columns = |database: &str| -> Vec<String> {
        let rows = cluster.psql(
            database,
            "SELECT table_name, column_name, data_type, is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'
             FROM information_schema.columns WHERE table_schema = 'hallpass' ORDER BY 1, 2",
        );
        rows.lines().map(str::to_owned).collect()
    };
    let mut schemas = Vec::new();
    for known in 1..=files.len() {
        let database = format!("schema_{known}");
        cluster.psql("postgres", &format!("CREATE DATABASE {database}"));
        for file in &files[..known] {
            cluster.psql(&database, &format!("BEGIN; {} COMMIT;", fs::read_to_string(file).unwrap()));
        }
        schemas.push(columns(&database));
    }
    assert!(schemas.len() > 3 && schemas[0].len() > 60, "{schemas:?}");
    for (earlier, later) in schemas.iter().zip(&schemas[1..]) {
        let tables: Vec<&str> = earlier.iter().map(|row| row.split('|').next().unwrap()).collect();
        for row in earlier {
            assert!(later.contains(row), "{row} is not as it was");
        }
        let fresh = later.iter().filter(|row| !earlier.contains(row));
        for row in fresh.filter(|row| tables.contains(&row.split('|').next().unwrap())) {
            assert!(row.ends_with("|f"), "{row} is wanted, and an earlier broker does not write it");
        }
    }
}

/// What a later version's migration may do beside this version's brokers: columns that may be empty or have a default,
/// tables, indices and triggers of its own. The number is above any that this version knows.
const LATER: &str = "
    SET search_path = hallpass;
    ALTER TABLE issuance ADD COLUMN later TEXT;
    ALTER TABLE head ADD COLUMN later BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE entry ADD COLUMN later BYTEA;
    ALTER TABLE replica ADD COLUMN later BOOLEAN NOT NULL DEFAULT false;
    CREATE TABLE later (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, issuance BYTEA NOT NULL);
    CREATE INDEX issuance_later ON issuance (later) WHERE later IS NOT NULL;
    CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN INSERT INTO hallpass.later (issuance) VALUES (NEW.id); RETURN NEW; END $$;
    CREATE TRIGGER issuance_is_followed AFTER INSERT ON issuance FOR EACH ROW EXECUTE FUNCTION follow();
    UPDATE meta SET value = '9000' WHERE name = 'schema';";

#[test]
fn broker_runs_on_while_a_later_version_brings_the_schema_up_and_beside_it() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let server = installation.replica(0);
    let (is_done, exchanges) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) && exchanges.load(Ordering::SeqCst) < 1_000 {
                server.only(&installation.issuer.token(), "npm");
                exchanges.fetch_add(1, Ordering::SeqCst);
            }
        });
        let some = |more: usize| {
            let least = exchanges.load(Ordering::SeqCst) + more;
            eventually("exchanges", || (exchanges.load(Ordering::SeqCst) >= least).then_some(()));
        };
        some(3);
        cluster.psql("hallpass", &format!("BEGIN; {LATER} COMMIT;"));
        some(3);
        // This version's commands and another broker of it start on the later schema; nothing brings that down again.
        let late = installation.replica(1);
        late.only(&installation.issuer.token(), "npm");
        let owner = cluster.url("owner", "hallpass");
        for what in ["migrate", "grant"] {
            let refused = finish(&mut installation.command(&["store", what, "--as", &owner]), "");
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && said.contains("a later version of hallpass made"), "{said}");
        }
        tell(&installation, &["keys", "rotate", "ledger"]);
        installation.set_secret("npm-token", CANARY);
        some(3);
        late.stop();
        is_done.store(true, Ordering::SeqCst);
    });
    server.stop();
    let schema = "SELECT convert_from(value, 'UTF8') FROM hallpass.meta WHERE name = 'schema'";
    assert_eq!(cluster.psql("hallpass", schema).trim(), "9000");
    let followed = "SELECT (SELECT count(*) FROM hallpass.later) <= (SELECT count(*) FROM hallpass.issuance)
                    AND (SELECT count(*) FROM hallpass.later) > 0";
    assert_eq!(cluster.psql("hallpass", followed).trim(), "t");
    let key = tell(&installation, &["keys", "show", "ledger"]);
    let verified = finish(&mut installation.command(&["ledger", "verify", "--key", &key]), "");
    assert!([Some(0), Some(31)].contains(&verified.status.code()), "{verified:?}");
}

#[test]
fn schema_that_took_something_away_is_refused_in_a_sentence_by_brokers_that_need_it() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let server = installation.replica(0);
    server.only(&installation.issuer.token(), "npm");
    cluster.psql(
        "hallpass",
        "BEGIN; ALTER TABLE hallpass.issuance RENAME COLUMN live_until TO alive_until;
         UPDATE hallpass.meta SET value = '9001' WHERE name = 'schema';
         INSERT INTO hallpass.meta (name, value) VALUES ('schema_least', '9001'); COMMIT;",
    );

    // The one that runs refuses, since it can record nothing.
    let token = installation.issuer.token();
    server
        .public
        .exchange(&token, &json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] }))
        .problem(503, "ledger_unavailable");
    for command in [&["serve"][..], &["secret", "list"], &["keys", "rotate", "ledger"]] {
        let refused = finish(&mut installation.command(command), "");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("takes brokers of schema 9001 and later only"), "{said}");
    }
}

#[test]
fn brokers_that_decide_by_different_sets_are_told_apart_on_every_one_of_them() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let servers: Vec<Server> = (0..2).map(|number| installation.replica(number)).collect();
    // A third one with one grant more.
    run(
        std::process::Command::new("cp")
            .arg("-r")
            .arg(installation.file("policies"))
            .arg(installation.file("others")),
        "",
    );
    let grant = fs::read_to_string(installation.file("policies/grants/deploy.yaml")).unwrap();
    installation.write("others/grants/more.yaml", &grant.replace("grant: deploy", "grant: more"));
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let text =
        text.replace("policies: policies/", "policies: others/").replace("seen: ledger.seen", "seen: seen-2");
    installation.write("third.yaml", &text);
    let third = installation.serve_by(&mut installation.command(&["serve", "--config", "third.yaml"]));
    let since = "SELECT count(*) FROM hallpass.policy_skew";
    eventually("the difference to be found", || {
        (cluster.psql("hallpass", since).trim() == "1").then_some(())
    });
    // It has stood for a minute.
    cluster.psql("hallpass", "UPDATE hallpass.policy_skew SET since = since - 61 * 1000000000::bigint");

    for server in servers.iter().chain([&third]) {
        eventually("the warning", || {
            let ready = server.admin.get("/readyz").send().json();
            let warnings = ready["warnings"].as_array().cloned().unwrap_or_default();
            warnings.iter().any(|said| said.as_str().unwrap().contains("2 by ")).then_some(())
        });
    }
    eventually("the alert", || (third.entries("ALERT_POLICY_SKEW").len() == 1).then_some(()));
    let sets: Value = third.entries("ALERT_POLICY_SKEW")[0]["result"]["sets"].clone();
    assert_eq!(sets.as_array().unwrap().len(), 2, "{sets}");
}

#[test]
fn store_counts_its_work_on_a_server_too() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let server = installation.serve();
    let value = |name: &str| -> f64 {
        let text = server.admin.get("/metrics").send().body;
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (before, entries) =
        (value("hallpass_store_commit_duration_seconds_count"), value("hallpass_ledger_entries"));
    for _ in 0..4 {
        server.only(&installation.issuer.token(), "npm");
    }
    assert!(value("hallpass_store_commit_duration_seconds_count") >= before + 4.0);
    assert!(value("hallpass_ledger_entries") >= entries + 8.0);
    assert!(value("hallpass_store_queue_commands").abs() < f64::EPSILON);
    cluster.stop();
    server
        .public
        .exchange(&installation.issuer.token(), &json!({ "grants": ["deploy"] }))
        .problem(503, "ledger_unavailable");
    eventually("the failure to count", || {
        let text = server.admin.get("/metrics").send().body;
        let line = text.lines().find(|line| {
            line.starts_with("hallpass_store") && line.contains("fail") && !line.starts_with('#')
        })?;
        line.rsplit(' ').next()?.parse::<f64>().ok().filter(|count| *count > 0.0)
    });
}
