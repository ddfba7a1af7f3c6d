//! Many brokers, one history: several `hallpass serve` on one PostgreSQL, which is killed, stopped and started again, and
//! so are they.

use std::{
    collections::HashSet,
    fs,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    independent_ledger::accepts,
    support::{
        Client, Cluster, Installation, Server,
        authority::Authority,
        component::free_port,
        eventually,
        installation::{binary, finish, run},
    },
};

fn npm() -> Value {
    json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] })
}

/// The live ledger and an export hold together, in our eyes and in those of a program that shares no line with ours.
#[track_caller]
fn assert_one_log(installation: &Installation) {
    let key = run(&mut installation.command(&["keys", "show", "ledger"]), "");
    let live = finish(&mut installation.command(&["ledger", "verify", "--key", key.trim()]), "");
    assert!([Some(0), Some(31)].contains(&live.status.code()), "{live:?}");
    run(&mut installation.command(&["ledger", "export", "--out", "copy"]), "");
    assert!(accepts("export", &key, &installation.file("copy")));
}

/// The issuances of the export's ISSUED entries.
fn issued(installation: &Installation) -> Vec<String> {
    let entries = fs::read_to_string(installation.file("copy/entries.jsonl")).unwrap();
    let entries = entries.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let issued = entries.filter(|entry| entry["code"] == "ISSUED");
    issued.map(|entry| entry["issuance"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_command_works_on_a_server_and_what_it_leaves_verifies() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let server = installation.serve();
    let issuance = server.only(&installation.issuer.token(), "npm");
    let token = installation.issuer.token();
    server.only(&token, "cloud");
    server.public.exchange(&token, &json!({ "grants": ["other-team"] })).problem(403, "access_denied");
    assert_eq!(server.entries("ISSUED").len(), 2);
    assert_eq!(server.ledger("outcome:denied grant:other-team").len(), 1);

    let says = |arguments: &[&str]| run(&mut installation.command(arguments), "");
    assert!(says(&["secret", "list"]).contains("npm-token"));
    let id = issuance["id"].as_str().unwrap();
    assert!(says(&["ledger", "show", id]).contains("ISSUED"));
    installation.set_secret("npm-token", "another-value-0123456789");
    let again = server.only(&installation.issuer.token(), "npm");
    assert_eq!(again["fields"]["value"], "another-value-0123456789");
    says(&["secret", "remove", "npm-token"]);
    server.public.exchange(&installation.issuer.token(), &npm()).problem(502, "backend_failed");
    says(&["policy", "check"]);
    server.stop();
    let key = says(&["keys", "show", "ledger"]);
    says(&["ledger", "verify", "--key", key.trim()]);
    assert_one_log(&installation);
    // The next start goes on from the head that was kept.
    installation.serve().stop();
}

#[test]
fn hundred_requests_with_one_token_on_three_brokers_are_one_issuance() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let servers: Vec<Server> = (0..3).map(|number| installation.replica(number)).collect();
    // Fetches the issuer's keys, so that all meet at the claim.
    servers.iter().for_each(|server| drop(server.only(&installation.issuer.token(), "cloud")));
    let token = Arc::new(installation.issuer.token());
    let start = Arc::new(Barrier::new(100));
    let threads: Vec<_> = (0..100)
        .map(|turn: usize| {
            let (start, token, client) =
                (Arc::clone(&start), Arc::clone(&token), servers[turn % 3].public.clone());
            std::thread::spawn(move || {
                start.wait();
                client.exchange(&token, &npm()).status
            })
        })
        .collect();
    let statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();

    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 409, 429].contains(status)), "{statuses:?}");
    assert_eq!(servers[1].entries("ISSUED").len(), 4);
    // Five replays spend the token, and every broker knows it.
    for server in &servers {
        eventually("the token to be refused everywhere", || {
            (server.public.exchange(&token, &npm()).status == 429).then_some(())
        });
    }
    drop(servers);
    assert_one_log(&installation);
}

#[test]
fn a_retry_under_its_key_is_answered_by_another_broker() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let (first, second) = (installation.replica(0), installation.replica(1));
    let token = installation.issuer.token();
    let keyed = |server: &Server| {
        server.public.exchanging(&token, &npm()).header("idempotency-key", "retry-0123456789abcdef").send()
    };

    let answered = keyed(&first).ok();
    let again = keyed(&second).ok();

    assert_ne!(answered["issuances"][0]["id"], again["issuances"][0]["id"]);
    assert_eq!(answered["issuances"][0]["fields"], again["issuances"][0]["fields"]);
    second.public.exchange(&token, &npm()).problem(409, "token_replayed");
    let handle = answered["issuances"][0]["handle"].as_str().unwrap();
    let path = format!("/v1/issuances/{}", answered["issuances"][0]["id"].as_str().unwrap());
    assert_eq!(second.public.get(&path).bearer(handle).send().ok()["state"], "live");
    second.public.call("DELETE", &path).bearer(handle).send().ok();
    // What one broker released ends the retries at the other.
    keyed(&first).problem(409, "token_replayed");
}

#[test]
fn what_an_operator_freezes_and_revokes_holds_on_every_broker_from_its_commit() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let servers: Vec<Server> = (0..2).map(|number| installation.replica(number)).collect();
    let says = |arguments: &[&str]| run(&mut installation.command(arguments), "");
    let issued = servers[0].only(&installation.issuer.token(), "npm");

    says(&["freeze", "grant", "deploy", "--reason", "incident 7"]);
    for server in &servers {
        server.public.exchange(&installation.issuer.token(), &npm()).problem(403, "access_denied");
    }
    says(&["thaw", "grant", "deploy", "--reason", "incident 7 is over"]);
    for server in &servers {
        server.only(&installation.issuer.token(), "npm");
    }

    says(&["revoke", "--grant", "deploy", "--reason", "incident 7"]);
    let path = format!("/v1/issuances/{}", issued["id"].as_str().unwrap());
    let handle = issued["handle"].as_str().unwrap();
    for server in &servers {
        assert_eq!(server.public.get(&path).bearer(handle).send().ok()["state"], "released");
    }
    let doctor = finish(&mut installation.command(&["doctor"]), "");
    let said = String::from_utf8([doctor.stdout, doctor.stderr].concat()).unwrap();
    assert!(said.contains("it answers at postgres://"), "{said}");
    drop(servers);
    assert_one_log(&installation);
}

#[test]
fn a_database_that_is_gone_is_503_within_a_second_and_comes_back_by_itself() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let server = installation.serve();
    server.only(&installation.issuer.token(), "npm");
    for (away, back) in [("stop", "start"), ("pause", "resume"), ("crash", "start")] {
        match away {
            "stop" => cluster.stop(),
            "crash" => cluster.crash(),
            _ => cluster.pause(),
        }
        let tokens: Vec<String> = (0..3).map(|_| installation.issuer.token()).collect();
        for token in &tokens {
            let asked = Instant::now();
            server.public.exchange(token, &npm()).problem(503, "ledger_unavailable");
            // A second, and what a machine under load takes for the rest.
            assert!(asked.elapsed() < Duration::from_secs(3), "{away}: {:?}", asked.elapsed());
        }
        eventually("/readyz to tell", || (server.admin.get("/readyz").send().status == 503).then_some(()));
        match back {
            "start" => cluster.run(),
            _ => cluster.resume(),
        }
        eventually("readiness", || (server.admin.get("/readyz").send().status == 200).then_some(()));
        server.only(&installation.issuer.token(), "npm");
    }
    server.stop();
    assert_one_log(&installation);
}

/// The newest entries of a server that failed are lost on its standby: a broker that saw them, running or started anew,
/// issues nothing there.
#[test]
fn standby_that_lags_is_refused_by_every_broker_and_the_alert_is_recorded_where_it_belongs() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let standby = cluster.standby();
    let servers: Vec<Server> = (0..2).map(|number| installation.replica(number)).collect();
    servers.iter().for_each(|server| drop(server.only(&installation.issuer.token(), "npm")));
    eventually("the standby to have all", || cluster.is_replicated().then_some(()));
    standby.stop();
    servers.iter().for_each(|server| drop(server.only(&installation.issuer.token(), "npm")));
    // Every broker keeps the head that it has seen.
    let newest = servers[0].ledger("").first().unwrap()["index"].as_u64().unwrap();
    eventually("the heads to be kept", || {
        let kept = (0..2).map(|number| fs::read_to_string(installation.file(&format!("seen-{number}"))));
        let sizes = kept.map(|note| note.ok()?.lines().nth(1)?.parse::<u64>().ok());
        sizes.into_iter().all(|size| size.is_some_and(|size| size > newest)).then_some(())
    });

    cluster.crash();
    standby.run();
    standby.take_over(&cluster);

    let alerts = |server: &Server| {
        let metrics = server.admin.get("/metrics").bearer(&installation.admin_token("operator")).send().body;
        metrics.contains("hallpass_alerts_total{kind=\"rollback\"} 1")
    };
    for server in &servers {
        eventually("the alert", || server.logs().contains("ALERT_ROLLBACK").then_some(()));
        server.public.exchange(&installation.issuer.token(), &npm()).problem(503, "ledger_unavailable");
        eventually("the alert to count", || alerts(server).then_some(()));
    }
    let mut started = installation.replica_command(0);
    let refused = finish(&mut started, "");
    assert_eq!(refused.status.code(), Some(30), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("set back"), "{refused:?}");

    // The right one comes back: service goes on by itself, and the alert is an entry of it.
    standby.stop();
    cluster.run();
    for server in &servers {
        eventually("service", || {
            (server.public.exchange(&installation.issuer.token(), &npm()).status == 200).then_some(())
        });
    }
    eventually("the alerts to be recorded", || {
        (servers[0].entries("ALERT_ROLLBACK").len() == 2).then_some(())
    });
    drop(servers);
    assert_one_log(&installation);
}

#[test]
fn older_copy_of_the_servers_data_is_refused_by_every_broker() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let servers: Vec<Server> = (0..2).map(|number| installation.replica(number)).collect();
    servers.iter().for_each(|server| drop(server.only(&installation.issuer.token(), "npm")));
    cluster.stop();
    cluster.keep_copy();
    cluster.run();
    for server in &servers {
        eventually("service", || {
            (server.public.exchange(&installation.issuer.token(), &npm()).status == 200).then_some(())
        });
    }
    servers.iter().for_each(|server| drop(server.only(&installation.issuer.token(), "npm")));

    cluster.stop();
    cluster.bring_copy_back();
    cluster.run();

    for server in &servers {
        eventually("the alert", || server.logs().contains("ALERT_ROLLBACK").then_some(()));
        server.public.exchange(&installation.issuer.token(), &npm()).problem(503, "ledger_unavailable");
        assert_eq!(server.admin.get("/readyz").send().status, 503);
    }
}

/// Says that it is over when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Eight brokers under load; one of them is killed at random every moment, and another one starts in its place.
#[test]
fn eight_brokers_that_are_killed_at_random_write_one_log() {
    const BROKERS: usize = 8;
    // `.ci/run --long` asks for ten minutes.
    let lasts = std::env::var("HALLPASS_TEST_BROKERS_SECONDS").map_or(30, |text| text.parse().unwrap());
    let lasts = Duration::from_secs(lasts);
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let tokens = Mutex::new((0..3_000).map(|_| installation.issuer.token()).collect::<Vec<_>>());
    let servers: Vec<Mutex<Option<Server>>> =
        (0..BROKERS).map(|number| Mutex::new(Some(installation.replica(number)))).collect();
    let (is_over, received) = (AtomicBool::new(false), Mutex::new(HashSet::new()));
    let client = |number: usize| -> Option<Client> {
        servers[number].lock().unwrap().as_ref().map(|server| server.public.clone())
    };
    std::thread::scope(|scope| {
        // Also where this thread ends early: the others would never hear of it.
        let _over = Over(&is_over);
        for number in 0..BROKERS {
            let (client, is_over, received, tokens) = (&client, &is_over, &received, &tokens);
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    let Some(client) = client(number) else {
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    };
                    let Some(token) = tokens.lock().unwrap().pop() else {
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    };
                    // One that was killed meanwhile answers nothing.
                    let Ok(answer) = client.exchanging(&token, &npm()).try_send() else { continue };
                    assert!([200, 503].contains(&answer.status), "{answer:?}");
                    if answer.status == 200 {
                        let id = answer.json()["issuances"][0]["id"].as_str().unwrap().to_owned();
                        assert!(received.lock().unwrap().insert(id), "an issuance is delivered once");
                    }
                }
            });
        }
        let (start, mut random, mut killed) = (Instant::now(), 0x2545_f491_4f6c_dd1d_u64, 0);
        while start.elapsed() < lasts {
            let waiting = tokens.lock().unwrap().len();
            if waiting < 1_000 {
                let fresh: Vec<_> = (0..500).map(|_| installation.issuer.token()).collect();
                drop(tokens.lock().unwrap().splice(0..0, fresh));
            }
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis(100 + (random >> 33) % 300));
            let number = usize::try_from(random >> 40).unwrap() % BROKERS;
            let server = servers[number].lock().unwrap().take();
            server.unwrap().crash();
            killed += 1;
            *servers[number].lock().unwrap() = Some(installation.replica(number));
        }
        assert!(killed > 2, "only {killed} were killed");
    });
    // Whatever was killed around it, no broker grows.
    for server in &servers {
        let pid = server.lock().unwrap().as_ref().unwrap().pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident_kb: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(resident_kb < 256 << 10, "a broker holds {resident_kb} kB");
    }
    drop(servers);

    assert_one_log(&installation);
    let issued = issued(&installation);
    let recorded: HashSet<&String> = issued.iter().collect();
    assert_eq!(recorded.len(), issued.len(), "an issuance is recorded once");
    let received = received.into_inner().unwrap();
    assert!(received.len() > 20, "only {} were received", received.len());
    assert!(received.iter().all(|id| recorded.contains(id)), "what was received is recorded");
    let in_rows = cluster.psql("hallpass", "SELECT count(*) FROM hallpass.issuance");
    assert_eq!(in_rows.trim(), issued.len().to_string());
    let contiguous = "SELECT count(*) = max(idx) + 1 AND max(idx) + 1 = (SELECT size FROM hallpass.head) FROM hallpass.entry";
    assert_eq!(cluster.psql("hallpass", contiguous).trim(), "t");
}

#[test]
fn a_password_comes_from_a_file_and_is_never_shown() {
    let port = free_port();
    let cluster = Cluster::start(Some(port), "");
    let installation = Installation::on(&cluster);
    let by_port = |more: &str| {
        let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
        let (before, after) = text.split_once("store: ").unwrap();
        let (_, after) = after.split_once('\n').unwrap();
        let store = format!("{{ url: \"postgres://writer@127.0.0.1:{port}/hallpass\"{more} }}");
        installation.write("by-port.yaml", &format!("{before}store: {store}\n{after}"));
    };
    let list = || installation.command(&["secret", "list", "--config", "by-port.yaml"]);
    by_port("");
    for (name, value, works) in [
        ("PGPASSWORD", "pw-writer", true),
        ("PGPASSWORD", "wrong-canary", false),
        ("PGPASSFILE", "passfile", true),
    ] {
        installation.write("passfile", &format!("127.0.0.1:{port}:*:writer:pw-writer\n"));
        let ended = finish(list().env(name, value), "");
        assert_eq!(ended.status.success(), works, "{name}: {ended:?}");
        assert!(!String::from_utf8_lossy(&ended.stderr).contains("canary"), "{ended:?}");
    }
    by_port(", password_file: pw");
    installation.write("pw", "pw-writer\n");
    run(&mut list(), "");
    installation.write("pw", "wrong-canary\n");
    let ended = finish(&mut list(), "");
    assert!(!ended.status.success());
    assert!(!String::from_utf8_lossy(&ended.stderr).contains("canary"), "{ended:?}");
}

#[test]
fn a_server_is_believed_by_its_certificate_only() {
    let port = free_port();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let certificate = ours.certify(&["localhost"], |_| {});
    let cluster = Cluster::start(Some(port), "");
    let installation = Installation::on(&cluster);
    installation.write("ours.pem", &ours.certificate);
    installation.write("theirs.pem", &theirs.certificate);
    let verified = |host: &str, authority: &str| {
        let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
        let (before, after) = text.split_once("store: ").unwrap();
        let (_, after) = after.split_once('\n').unwrap();
        let url =
            format!("postgres://writer@{host}:{port}/hallpass?sslmode=verify-full&sslrootcert={authority}");
        installation.write("by-tls.yaml", &format!("{before}store: {{ url: \"{url}\" }}\n{after}"));
        let mut list = installation.command(&["secret", "list", "--config", "by-tls.yaml"]);
        finish(list.env("PGPASSWORD", "pw-writer"), "").status.success()
    };
    assert!(!verified("localhost", "ours.pem"), "a server without TLS");

    cluster.use_certificate(&certificate.certificate, &certificate.key);

    assert!(verified("localhost", "ours.pem"));
    assert!(!verified("localhost", "theirs.pem"), "another authority");
    assert!(!verified("127.0.0.1", "ours.pem"), "another name");
}

#[test]
fn an_installation_for_a_server_is_made_without_a_database_file() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("broker");
    let init = |url: &str| finish(binary().args(["init", "--store", url, "--dir"]).arg(&made), "");
    let refused = init("postgres://w:canary@db.example.com/hallpass");
    assert_eq!(refused.status.code(), Some(2));
    assert!(!String::from_utf8_lossy(&refused.stderr).contains("canary"), "{refused:?}");
    assert!(!made.exists());

    assert!(init("postgres://hallpass@db.example.com/hallpass?sslrootcert=ca.pem").status.success());

    assert!(!made.join("hallpass.db").exists());
    let check = finish(binary().args(["config", "check", "--config"]).arg(made.join("hallpass.yaml")), "");
    assert!(check.status.success(), "{check:?}");
}

#[test]
fn a_database_without_a_schema_is_told_with_the_command_that_makes_it() {
    let cluster = Cluster::start(None, "");
    let installation = Installation::on(&cluster);
    let told = |arguments: &[&str]| {
        let ended = finish(&mut installation.command(arguments), "");
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let owner = cluster.url("owner", "hallpass");
    let (code, said) = told(&["store", "init", "--as", &owner]);
    assert!(code == Some(2) && said.contains("already"), "{said}");
    run(&mut installation.command(&["store", "grant", "--as", &owner, "--reader", "reader"]), "");
    run(&mut installation.command(&["store", "migrate", "--as", &owner]), "");
    cluster.psql("hallpass", "DROP SCHEMA hallpass CASCADE");
    let (code, said) = told(&["serve"]);
    assert!(code == Some(2) && said.contains("hallpass store init"), "{said}");
}
