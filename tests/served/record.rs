//! P1, P2, P5: nothing leaves without a record, nothing is left open, and no secret stands where it does not belong.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rusqlite::Connection;
use rustix::net::{AddressFamily, SocketType};
use serde_json::{Value, json};

use super::{
    once::{deploy, only},
    support::{
        Installation, Issuer, Server, eventually,
        installation::{CANARY, finish},
        trust::{Broker, Trust, release},
    },
};

#[test]
fn unwritable_ledger_mints_nothing_and_serves_again_by_itself() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    let before = server.entries("ISSUED").len();
    let lock = Connection::open(installation.file("hallpass.db")).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();

    let start = Instant::now();
    let answer = server.public.exchange(&token, &deploy());
    let refusal = server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["other-team"] }));

    answer.problem(503, "ledger_unavailable");
    // A refusal that could not be recorded is not told either: it would answer faster than one that was.
    refusal.problem(503, "ledger_unavailable");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert!(!answer.body.contains(CANARY));
    lock.execute_batch("ROLLBACK").unwrap();
    let body = eventually("service", || {
        let answer = server.public.exchange(&token, &deploy());
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(body["issuances"].as_array().unwrap().len(), 2, "the token was not used up");
    assert_eq!(server.entries("ISSUED").len(), before + 2);
}

#[test]
fn no_page_of_the_ledger_is_read_without_a_record() {
    let installation = Installation::new();
    let server = installation.serve();
    let auditor = installation.admin_token("auditor");
    let page = |query: &str| server.admin.get(&format!("/v1/ledger/entries?{query}")).bearer(&auditor).send();
    let first = page("limit=1&q=outcome:secret_set").ok();
    assert_eq!(first["next_cursor"], Value::Null, "one secret was set");
    let first = page("limit=1").ok();
    let cursor = first["next_cursor"].as_str().unwrap();

    let second = page(&format!("limit=1&cursor={cursor}")).ok();

    assert_eq!(second["items"][0]["index"], first["items"][0]["index"].as_u64().unwrap() - 1);
    let tampered = format!("i999999{}", &cursor[cursor.find('.').unwrap()..]);
    for query in [
        "cursor=i999999",
        "cursor=i999999.",
        &format!("cursor={tampered}"),
        &format!("cursor={cursor}&q=deploy"),
    ] {
        page(query).problem(400, "request_malformed");
    }
    // Of each query one, and not of its second page.
    assert_eq!(server.entries("READ").len(), 3);
}

#[test]
fn log_that_cannot_be_written_ends_no_answer() {
    let installation = Installation::new();
    let mut shell = std::process::Command::new("sh");
    let line = r#"exec "$0" serve 2>/dev/full"#;
    shell.args(["-c", line, env!("CARGO_BIN_EXE_hallpass")]).current_dir(installation.file(""));

    let server = installation.serve_by(&mut shell);

    server.public.exchange(&installation.issuer.token(), &deploy()).ok();
    server
        .public
        .exchange(&installation.issuer.token(), &json!({ "grants": ["other-team"] }))
        .problem(403, "access_denied");
}

#[test]
fn every_issued_entry_follows_its_intent() {
    let installation = Installation::new();
    let server = installation.serve();
    let body = server.public.exchange(&installation.issuer.token(), &deploy()).ok();

    let items = server.ledger("");

    for issuance in body["issuances"].as_array().unwrap() {
        let codes: Vec<&str> = items
            .iter()
            .rev()
            .filter(|item| item["entry"]["issuance"] == issuance["id"])
            .map(|item| item["entry"]["code"].as_str().unwrap())
            .collect();
        assert_eq!(codes, ["INTENT", "ISSUED"]);
    }
}

#[test]
fn receipts_show_nothing_of_policy_but_the_grant() {
    let installation = Installation::new();
    let server = installation.serve();
    let body = server.public.exchange(&installation.issuer.token(), &only("npm")).ok();

    let receipt = body["receipts"][0]["entry"].as_str().unwrap();
    let receipt: Value = serde_json::from_slice(&STANDARD.decode(receipt).unwrap()).unwrap();
    let intent = &server.entries("INTENT")[0];

    assert_eq!(intent["policy"]["rule"], "deploy-from-main");
    assert!(intent["policy"]["file"].as_str().unwrap().ends_with("grants/deploy.yaml"), "{intent}");
    assert_eq!(receipt["policy"]["grant"], "deploy");
    assert_eq!(receipt["policy"].get("rule"), None);
    assert_eq!(receipt["policy"].get("file"), None);
}

#[test]
fn personal_values_are_commitments_in_entries() {
    let installation = Installation::new();
    let server = installation.serve();
    let ask = json!({ "grants": ["deploy"], "reason": "asked-for-by-bob" });
    server.public.exchange(&installation.issuer.token(), &ask).ok();

    let intent = &server.entries("INTENT")[0];

    assert!(intent["subject"]["claims"]["actor"]["commitment"].is_string(), "{intent}");
    assert!(intent["commitments"]["reason"]["commitment"].is_string(), "{intent}");
    assert!(intent["commitments"]["address"]["commitment"].is_string(), "{intent}");
    for personal in ["alice-the-actor", "asked-for-by-bob", "127.0.0.1"] {
        assert!(!intent.to_string().replace(&installation.issuer.url, "").contains(personal), "{intent}");
    }
}

#[test]
fn client_that_hangs_up_is_recorded_as_undelivered() {
    let installation = Installation::new();
    // More than the buffers of a loopback connection take, so that the last byte cannot have left.
    let credentials = large_grant(&installation);
    let server = installation.serve();

    let mut connection = send(&server, &installation.issuer.token(), &json!({ "grants": ["large"] }));
    connection.read_exact(&mut [0; 16]).unwrap();
    drop(connection);

    let undelivered = eventually("UNDELIVERED", || {
        let entries = server.entries("UNDELIVERED");
        (entries.len() == credentials).then_some(entries)
    });
    let issued = server.entries("ISSUED");
    assert_eq!(issued.len(), credentials);
    for entry in undelivered {
        assert!(issued.iter().any(|issued| issued["issuance"] == entry["issuance"]), "{entry}");
    }
}

#[test]
fn client_that_is_gone_before_the_answer_is_recorded_as_undelivered() {
    let installation = Installation::new();
    let server = installation.serve();
    server.public.exchange(&installation.issuer.token(), &only("cloud")).ok();
    let lock = Connection::open(installation.file("hallpass.db")).unwrap();

    // A request that is read, but has not come to its decision when the client goes, is dropped and issues nothing; so
    // it takes a few until one is held at its durable step.
    let undelivered = eventually("UNDELIVERED", || {
        lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let connection = send(&server, &installation.issuer.token(), &only("npm"));
        eventually("the request to be read", || is_read(&connection).then_some(()));
        drop(connection);
        lock.execute_batch("ROLLBACK").unwrap();
        server.entries("UNDELIVERED").pop()
    });

    let issued = server.entries("ISSUED");
    assert!(issued.iter().any(|issued| issued["issuance"] == undelivered["issuance"]), "{undelivered}");
}

#[test]
fn life_of_a_broker_is_in_its_ledger() {
    let installation = Installation::new();
    installation.serve().stop();
    installation.set_secret("another", "value");
    let server = installation.serve();

    for (code, times) in [("STARTED", 2), ("STOPPED", 1), ("CONFIG_LOADED", 2), ("SECRET_SET", 2)] {
        assert_eq!(server.entries(code).len(), times, "{code}");
    }
}

#[test]
fn reading_the_ledger_is_in_the_ledger() {
    let installation = Installation::new();
    let server = installation.serve();
    server.ledger("repo:acme/payments");

    let reads = server.entries("READ");

    assert_eq!(reads[0]["result"]["reader"], "first-auditor", "{}", reads[0]);
    assert!(!reads[0].to_string().contains("acme"), "what was asked is personal: {}", reads[0]);
}

#[test]
fn crash_leaves_no_issuance_open() {
    let installation = Installation::new();
    let server = installation.serve();
    server.public.exchange(&installation.issuer.token(), &only("cloud")).ok();
    let connections: Vec<TcpStream> =
        (0..30).map(|_| send(&server, &installation.issuer.token(), &deploy())).collect();
    server.crash();
    drop(connections);

    let server = installation.serve();

    let items = server.ledger("");
    let of = |code: &str| {
        let mut ids: Vec<String> = items
            .iter()
            .filter(|item| item["entry"]["code"] == code)
            .map(|item| item["entry"]["issuance"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(of("INTENT"), of("ISSUED"));
    let verdict = finish(&mut installation.command(&["ledger", "verify"]), "");
    assert!([Some(0), Some(31)].contains(&verdict.status.code()), "{verdict:?}");
}

#[test]
fn refused_and_issued_are_told_to_the_ledger_once_each() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    server.public.exchange(&token, &only("npm")).ok();
    server.public.exchange(&token, &only("npm")).problem(409, "token_replayed");
    let denied = server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["other-team"] }));

    let entries = server.entries("DENIED");

    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["decision"], denied.json()["decision_id"]);
    assert_eq!(entries[0]["result"]["code"], "access_denied");
    assert!(
        entries[0]["result"]["reason"].is_string(),
        "the precise reason goes to the ledger: {}",
        entries[0]
    );
    assert_eq!(entries[1]["result"]["code"], "token_replayed");
}

#[test]
fn ledger_shows_itself_to_auditors_only() {
    let installation = Installation::new();
    let server = installation.serve();
    let read = |token: Option<&str>| {
        let call = server.admin.get("/v1/ledger/entries");
        token.map_or_else(|| server.admin.get("/v1/ledger/entries"), |token| call.bearer(token)).send().status
    };

    assert_eq!(read(None), 401);
    assert_eq!(read(Some("wrong")), 401);
    assert_eq!(read(Some(&installation.admin_token("operator"))), 403);
    assert_eq!(read(Some(&installation.admin_token("auditor"))), 200);
    assert_eq!(server.public.get("/v1/ledger/entries").send().status, 404);
}

#[test]
fn no_secret_is_in_logs_database_or_ledger() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let body = server.public.exchange(&token, &deploy()).ok();
    server.public.exchange(&token, &deploy()).problem(409, "token_replayed");
    server.public.exchange(&token, &json!({ "grants": ["other-team"] })).problem(403, "access_denied");
    let undone = installation.issuer.token();
    server.public.exchange(&undone, &json!({ "grants": ["deploy", "lost"] })).problem(502, "backend_failed");
    let ledger = format!("{:?}", server.ledger(""));
    let mut written = fs::read(installation.file("hallpass.db")).unwrap();
    for rest in ["hallpass.db-wal", "hallpass.db-shm"] {
        written.extend(fs::read(installation.file(rest)).unwrap_or_default());
    }
    let logs = server.stop();
    written.extend(fs::read(installation.file("hallpass.db")).unwrap());

    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let cloud =
        body["issuances"].as_array().unwrap().iter().find(|each| each["credential"] == "cloud").unwrap();
    let assertion = cloud["fields"][cloud["secret_fields"][0].as_str().unwrap()].as_str().unwrap();
    let handles =
        body["issuances"].as_array().unwrap().iter().map(|each| each["handle"].as_str().unwrap().to_owned());
    let mut secrets = vec![
        CANARY.to_owned(),
        STANDARD.encode(CANARY).trim_end_matches('=').to_owned(),
        signature(&token),
        signature(&undone),
        signature(assertion),
        installation.admin_token("auditor"),
        installation.admin_token("operator"),
    ];
    secrets.extend(handles);
    for secret in secrets {
        assert!(!logs.contains(&secret), "in the logs: {secret}");
        assert!(!ledger.contains(&secret), "in the ledger: {secret}");
        assert!(!contains(&written, secret.as_bytes()), "in the database: {secret}");
    }
}

/// A grant of sixteen large secrets; answers how many.
pub(crate) fn large_grant(installation: &Installation) -> usize {
    const MANY: usize = 16;
    let mut grant = "grant: large\ndescription: More than a socket's buffer\nallow:\n  - name: main\n    issuer: ci\n    \
        match: { repository_owner_id: \"4216\", repository_id: \"70155112\" }\ncredentials:\n"
        .to_owned();
    // Each of these characters is six in JSON; Linux lets a loopback connection send some 2.5 MB ahead.
    installation.set_secret("large", &"\u{1}".repeat(60 * 1024));
    for at in 0..MANY {
        grant.push_str(&format!("  c{at}:\n    sealed: {{ secret: large }}\n"));
    }
    installation.write("policies/grants/large.yaml", &grant);
    MANY
}

/// Sends an exchange on a connection of its own, with the smallest receive buffer, and reads nothing.
pub(crate) fn send(server: &Server, token: &str, body: &Value) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
    rustix::net::connect(&socket, &server.public.address).unwrap();
    let mut connection = TcpStream::from(socket);
    let body = body.to_string();
    write!(
        connection,
        "POST /v1/exchange HTTP/1.1\r\nHost: hallpass\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    connection
}

/// Whether the peer's process has taken all that was sent: its receive queue, as the kernel shows it, is empty.
fn is_read(connection: &TcpStream) -> bool {
    let shown = |address: SocketAddr| format!(":{:04X}", address.port());
    let (ours, theirs) = (shown(connection.local_addr().unwrap()), shown(connection.peer_addr().unwrap()));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let peer = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|columns| {
        columns.get(1).is_some_and(|local| local.ends_with(&theirs))
            && columns.get(2).is_some_and(|remote| remote.ends_with(&ours))
    });
    peer.is_some_and(|columns| columns[4].ends_with(":00000000"))
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Found by a fuzzer: to the parser of JSON underneath, such a member is no member but a message to itself.
#[test]
fn claim_with_a_name_of_the_parsers_own_is_recorded_and_read_as_it_is() {
    let issuer = Issuer::start();
    let conditions = ["sub: job-7".to_owned(), "/build/id: \"7\"".to_owned()];
    let trust = Trust { url: &issuer.url, profile: "generic", authority: None, conditions: &conditions };
    let broker = Broker::trusting(&trust);
    let build = json!({ "$serde_json::private::RawValue": "no JSON", "id": "7" });
    let token = issuer.token_with(json!({ "sub": "job-7", "build": build }));

    broker.server.public.exchange(&token, &release()).ok();

    assert_eq!(broker.server.entries("ISSUED")[0]["subject"]["claims"]["build"], build);
    let Broker { server, installation } = broker;
    server.stop();
    let verdict = finish(&mut installation.command(&["ledger", "verify"]), "");
    assert!(!String::from_utf8_lossy(&verdict.stdout).contains("not JSON"), "{verdict:?}");
    assert_eq!(verdict.status.code(), Some(31), "consistent, without an anchor: {verdict:?}");
}
