//! Sets that a leased credential and one that nobody can take back share: a real Vault and a real STS behind one grant.
//! Whatever breaks, what can be undone is undone, and of the rest it is told until when it may be used.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    support::{
        Cluster, Installation, Server, eventually,
        radosgw::{Front, Keys, Radosgw},
        vault_server::VaultServer,
    },
    vault_engines::{JOB_ACL, database, leases, logs_in},
};

/// Vault with a database, the STS, and a broker's files with one grant of both.
struct Mixed {
    vault: VaultServer,
    cluster: Cluster,
    port: u16,
    gateway: &'static Radosgw,
    front: Front,
    broker: Installation,
}

impl Mixed {
    /// `team` is the tag that the grant gives; the role takes `payments` alone. `endpoint` is another address of the STS.
    fn new(role: &str, team: &str, endpoint: Option<&str>) -> Self {
        let (vault, gateway, front) = (VaultServer::start(), Radosgw::shared(), Front::start());
        let (cluster, port) = database(&vault);
        vault.by_root("sys/policies/acl/job", &json!({ "policy": JOB_ACL }));
        gateway.trust(&front);
        let role = gateway.role(role, &front, "release", &json!({ "aws:RequestTag/team": "payments" }));
        let broker = Installation::new();
        broker.write("vault-ca.pem", &vault.authority.certificate);
        broker.write("vault.token", vault.token(&["hallpass"], "1h")["client_token"].as_str().unwrap());
        let text = fs::read_to_string(broker.file("hallpass.yaml")).unwrap();
        let ours = text.lines().find(|line| line.starts_with("assertions: ")).unwrap();
        let text = text.replace(ours, &format!("assertions: {{ issuer: \"{}\" }}", front.url));
        let backends = format!(
            "backends:\n  main:\n    vault:\n      address: \"{}\"\n      ca_file: vault-ca.pem\n      \
             token_role: hallpass\n      auth: {{ token: {{ file: vault.token }} }}\n  \
             cloud: {{ aws: {{ region: us-east-1, endpoint: \"{}\", timeout: 30s }} }}\n\
             deadlines: {{ exchange: 10s, mint: 8s, issuer: 2s }}\n",
            vault.url,
            endpoint.unwrap_or(&gateway.endpoint),
        );
        broker.write("hallpass.yaml", &format!("{text}{backends}"));
        let grant = format!(
            "grant: release\nallow:\n  - name: main\n    issuer: ci\n    \
             match: {{ repository_owner_id: \"4216\", repository_id: \"70155112\" }}\ncredentials:\n  \
             aws: {{ aws: {{ role_arn: \"{role}\", tags: {{ team: {team} }} }}, ttl: 15m }}\n  \
             db: {{ vault: {{ engine: database, path: database/creds/app }}, ttl: 10m }}\n"
        );
        broker.write("policies/grants/release.yaml", &grant);
        Self { vault, cluster, port, gateway, front, broker }
    }

    fn serve(&self) -> Server {
        let server = self.broker.serve();
        self.front.publish(&server.public.get("/.well-known/jwks.json").send().ok());
        server
    }

    /// Nothing of a job is left in Vault, and no role of its in the database.
    fn is_undone(&self) -> bool {
        let roles = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'";
        leases(&self.vault) == 0
            && self.job_tokens() == 0
            && self.cluster.psql("postgres", roles).trim() == "0"
    }

    fn job_tokens(&self) -> usize {
        let (vault, list) = (&self.vault, Method::from_bytes(b"LIST").unwrap());
        let all = vault.call(&vault.root, list, "auth/token/accessors", &Value::Null);
        let is_jobs = |accessor: &&Value| {
            let body = json!({ "accessor": accessor });
            let looked = vault.status(&vault.root, Method::POST, "auth/token/lookup-accessor", &body);
            looked.is_some_and(|(_, answer)| answer["data"]["meta"]["issuance_id"].is_string())
        };
        all["data"]["keys"].as_array().unwrap().iter().filter(is_jobs).count()
    }
}

fn ask() -> Value {
    json!({ "grants": ["release"] })
}

/// The one entry of that code that is about the credential.
#[track_caller]
fn entry(server: &Server, code: &str, credential: &str) -> Value {
    let found = server.entries(code);
    let mut ours = found.iter().filter(|entry| entry["request"]["credential"] == credential);
    let one = ours.next().unwrap_or_else(|| panic!("no {code} of {credential}: {found:?}"));
    assert!(ours.next().is_none(), "{found:?}");
    one.clone()
}

fn by_name<'a>(issuances: &'a Value, credential: &str) -> &'a Value {
    issuances.as_array().unwrap().iter().find(|each| each["credential"] == credential).unwrap()
}

#[test]
fn session_that_is_refused_takes_the_lease_along_and_nothing_is_given() {
    let mixed = Mixed::new("mixed-refused", "search", None);
    let server = mixed.serve();

    let answer = server.public.exchange(&mixed.broker.issuer.token(), &ask());

    answer.problem(502, "backend_failed");
    assert!(!answer.body.contains("password") && !answer.body.contains("v-"), "{}", answer.body);
    let (lease, session) = (entry(&server, "FAILED", "db"), entry(&server, "FAILED", "aws"));
    assert_eq!(lease["result"]["minted"], true, "there was no lease to undo: {lease}");
    assert_eq!(
        (&session["result"]["minted"], &session["result"]["reason"]),
        (&json!(false), &json!("access-denied"))
    );
    assert!(mixed.is_undone());
    for code in ["ISSUED", "UNRESOLVED"] {
        assert!(server.entries(code).is_empty(), "{code}");
    }
}

#[test]
fn killed_while_the_sts_answers_the_session_is_unresolved_and_recovery_revokes_the_lease() {
    let (endpoint, answers) = withholding(&Radosgw::shared().endpoint);
    let mixed = Mixed::new("mixed-killed", "payments", Some(&endpoint));
    let server = mixed.serve();
    let (client, started) = (server.public.exchanging(&mixed.broker.issuer.token(), &ask()), Instant::now());
    let calling = std::thread::spawn(move || client.try_send().is_err());
    let answer = answers.recv_timeout(Duration::from_secs(20)).expect("the STS is asked");
    assert_eq!(leases(&mixed.vault), 1, "the lease comes first");

    server.crash();

    assert!(calling.join().unwrap(), "it was answered");
    let server = mixed.serve();
    // The exchange's deadline, half a minute for a broker that is merely slow, and the ten seconds between two looks.
    while server.entries("REVOKED").is_empty() || server.entries("UNRESOLVED").len() < 2 {
        assert!(started.elapsed() < Duration::from_secs(120), "it stays open");
        std::thread::sleep(Duration::from_millis(200));
    }
    let intent = entry(&server, "INTENT", "aws");
    let unresolved = entry(&server, "UNRESOLVED", "aws");
    assert_eq!(unresolved["issuance"], intent["issuance"]);
    let moment = |text: &Value| text.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let until = moment(&unresolved["result"]["usable_until"]);
    // A session was made, whose keys nobody has but this test. It may live no longer than the entry says.
    let keys = session(&answer);
    mixed.gateway.call(&keys, ("s3", "list_buckets"), &json!({})).expect("the session that nobody was given");
    assert!(until >= moment(&json!(part(&answer, "Expiration"))), "{unresolved} {answer}");
    assert_eq!(entry(&server, "REVOKED", "db")["issuance"], entry(&server, "INTENT", "db")["issuance"]);
    assert!(mixed.is_undone());
    for code in ["ISSUED", "FAILED"] {
        assert!(server.entries(code).is_empty(), "{code}");
    }
}

#[test]
fn giving_back_a_whole_set_ends_the_lease_and_tells_what_an_operator_can_do_of_the_session() {
    let mixed = Mixed::new("mixed-returned", "payments", None);
    let server = mixed.serve();
    let issuances = server.public.exchange(&mixed.broker.issuer.token(), &ask()).ok()["issuances"].clone();
    let (db, aws) = (by_name(&issuances, "db"), by_name(&issuances, "aws"));
    assert!(logs_in(mixed.port, &db["fields"]));
    let keys = Keys::of(&aws["fields"]);
    let lists = || mixed.gateway.call(&keys, ("s3", "list_buckets"), &json!({}));
    lists().unwrap();
    let give_back = |issuance: &Value| {
        let path = format!("/v1/issuances/{}", issuance["id"].as_str().unwrap());
        server.public.call("DELETE", &path).bearer(issuance["handle"].as_str().unwrap()).send()
    };

    assert_eq!(give_back(db).status, 204);
    let told = give_back(aws).ok();

    assert!(!logs_in(mixed.port, &db["fields"]));
    assert!(mixed.is_undone());
    assert_eq!((&told["state"], &told["usable_until"]), (&json!("released"), &aws["expires_at"]));
    let remedy = told["remedy"].as_str().unwrap();
    assert!(remedy.contains("aws:SourceIdentity"), "{told}");
    assert_eq!(entry(&server, "RELEASED", "aws")["result"]["remedy"], remedy);
    assert_eq!(entry(&server, "REVOKED", "db")["issuance"], db["id"]);
    lists().expect("nobody can end it from here, and nothing else was said");
}

#[test]
fn job_that_ends_all_of_its_own_is_told_apart_what_is_over_and_what_is_not() {
    let mixed = Mixed::new("mixed-job", "payments", None);
    let server = mixed.serve();
    let token = mixed.broker.issuer.token();
    let issuances = server.public.exchange(&token, &ask()).ok()["issuances"].clone();
    let (db, aws) = (by_name(&issuances, "db"), by_name(&issuances, "aws"));

    let call = server.public.call("POST", "/v1/revocations").bearer(&token);
    let told = call.json(&json!({ "scope": "job" }).to_string()).send().ok();

    // It is queued where the backend's word is not waited for.
    let ending: Vec<&Value> =
        ["revoked", "queued"].iter().flat_map(|list| told[list].as_array().unwrap()).collect();
    let [ending] = ending.as_slice() else { panic!("{told}") };
    assert_eq!(ending["id"], db["id"]);
    let left = &told["irrevocable"][0];
    assert_eq!((&left["id"], &left["usable_until"]), (&aws["id"], &aws["expires_at"]));
    assert!(left["remedy"].as_str().unwrap().contains("aws:SourceIdentity"), "{told}");
    eventually("the end of all in Vault", || mixed.is_undone().then_some(()));
    assert!(!logs_in(mixed.port, &db["fields"]));
    eventually("its entry", || (!server.entries("REVOKED").is_empty()).then_some(()));
}

/// In front of an STS: hands it each request, and keeps its answer to itself.
fn withholding(behind: &str) -> (String, mpsc::Receiver<String>) {
    let behind: SocketAddr = behind.trim_start_matches("http://").parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (tell, answers) = mpsc::channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut server = TcpStream::connect(behind).unwrap();
            server.write_all(&message(&mut client)).unwrap();
            // Nobody may be listening.
            tell.send(String::from_utf8(message(&mut server)).unwrap()).ok();
            held.push(client);
        }
    });
    (endpoint, answers)
}

/// One HTTP message with a length, whole.
fn message(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).unwrap();
        read.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(count > 0, "it ended: {text}");
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
        if body.len() >= length.trim().parse().unwrap() {
            return read;
        }
        assert!(count > 0, "it ended: {text}");
    }
}

/// A part of an answer in XML.
fn part<'a>(answer: &'a str, name: &str) -> &'a str {
    let (_, rest) = answer.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{name}: {answer}"));
    rest.split('<').next().unwrap()
}

fn session(answer: &str) -> Keys {
    Keys {
        id: part(answer, "AccessKeyId").to_owned(),
        secret: part(answer, "SecretAccessKey").to_owned(),
        session: Some(part(answer, "SessionToken").to_owned()),
    }
}
