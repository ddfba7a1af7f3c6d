//! Freezing, thawing and revoking while a broker serves: the command line, the admin API and a job's own call. What is
//! shown here on SQLite is two processes on one file: the broker under load, and an operator's command beside it.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use serde_json::{Value, json};

use super::{
    once::{deploy, only},
    support::{
        AUDIENCE, Answer, Installation, Issuer, Server, eventually,
        installation::{finish, run},
        issuer::{KID, own_key, set, sign, valid_claims},
    },
};

const KEY: &str = "retry-0123456789abcdef";
const WHY: [&str; 2] = ["--reason", "incident 7"];

/// Each scope, with whether it holds another project's job that asks for another grant, too.
const SCOPES: [(&str, &str, bool); 5] = [
    ("grant", "deploy", false),
    ("project", "ci/70155112", false),
    ("kid", "ci/ci-2026-11", true),
    ("issuer", "ci", true),
    ("all", "", true),
];

#[test]
fn nothing_that_a_freeze_names_is_issued_between_its_commit_and_its_thaw() {
    let installation = Installation::new();
    let server = installation.serve();
    let load = Load::start(&installation, &server);

    for (scope, name, holds_neighbour) in SCOPES {
        load.issues_more();
        operator(&installation, "freeze", scope, name);
        load.is_frozen();
        let answer = server.public.exchange(&neighbour(&installation.issuer), &asking("other-team"));
        assert_eq!(answer.status, if holds_neighbour { 403 } else { 200 }, "{scope}: {answer:?}");
        operator(&installation, "thaw", scope, name);
    }
    load.issues_more();
    load.stop();

    let entries = exported(&installation);
    let mut frozen: Option<Value> = None;
    let (mut freezes, mut issued) = (0, 0);
    for entry in &entries {
        match entry["code"].as_str().unwrap() {
            "FROZEN" => {
                freezes += 1;
                frozen = Some(entry["result"].clone());
            }
            "THAWED" => frozen = None,
            "ISSUED" if entry["policy"]["grant"] == "deploy" => {
                issued += 1;
                assert_eq!(frozen, None, "issued while frozen: {entry}");
            }
            _ => {}
        }
    }
    assert_eq!((freezes, frozen), (SCOPES.len(), None));
    assert!(issued > 60, "{issued}");
    run(&mut installation.command(&["freeze", "list"]), "");
}

#[test]
fn a_frozen_answer_is_any_refusal_and_the_token_goes_on_once_thawed() {
    let installation = Installation::new();
    let server = installation.serve();
    let refused = server.public.exchange(&installation.issuer.token(), &asking("not-there"));
    let token = installation.issuer.token();
    operator(&installation, "freeze", "all", "");

    let frozen: Vec<Answer> = (0..6).map(|_| server.public.exchange(&token, &deploy())).collect();

    for answer in &frozen {
        assert_eq!(told(answer, "access_denied"), told(&refused, "access_denied"));
    }
    let denied = server.entries("DENIED");
    assert_eq!(denied[0]["result"]["reason"], "frozen");
    assert_eq!(denied[0]["result"]["freeze"], json!({ "scope": "all" }));
    let dry = json!({ "grants": ["deploy"], "dry_run": true });
    server.public.exchange(&installation.issuer.token(), &dry).problem(403, "access_denied");
    operator(&installation, "thaw", "all", "");
    server.public.exchange(&token, &deploy()).ok();
}

#[test]
fn a_freeze_stands_between_a_bad_input_and_a_replay() {
    let installation = Installation::new();
    let server = installation.serve();
    let used = installation.issuer.token();
    server.public.exchange(&used, &deploy()).ok();
    operator(&installation, "freeze", "grant", "deploy");

    server.public.exchange(&used, &deploy()).problem(403, "access_denied");
    let with_input = json!({ "grants": [{ "name": "deploy", "inputs": { "npm": { "csr": "x" } } }] });
    server.public.exchange(&installation.issuer.token(), &with_input).problem(422, "input_invalid");
    let short = json!({ "grants": [{ "name": "deploy", "credentials": ["cloud"], "ttl_seconds": 1 }] });
    server.public.exchange(&installation.issuer.token(), &short).problem(422, "ttl_out_of_range");
}

#[test]
fn a_frozen_key_is_refused_under_another_name_and_another_key_is_not() {
    let mut installation = Installation::new();
    let other = super::support::issuer::foreign_key();
    let keys = vec![own_key().jwk(KID), own_key().jwk("renamed"), other.jwk("other")];
    installation.issuer = Issuer::publishing(keys);
    let url = installation.issuer.url.clone();
    installation.configure(&format!(
        "issuers:\n  ci: {{ url: \"{url}\", profile: github-actions, allow_private_addresses: true }}\n"
    ));
    installation.write(
        "policies/issuers/ci.yaml",
        &format!(
            "issuer: ci\nprofile: github-actions\nurl: {url}\naudience: {AUDIENCE}\nmax_token_age: 10m\n"
        ),
    );
    let server = installation.serve();
    let signed =
        |key, kid: &str| sign(key, &json!({ "alg": "RS256", "typ": "JWT", "kid": kid }), &valid_claims(&url));
    operator(&installation, "freeze", "kid", &format!("ci/{KID}"));

    for kid in [KID, "renamed"] {
        server.public.exchange(&signed(own_key(), kid), &deploy()).problem(403, "access_denied");
    }
    server.public.exchange(&signed(other, "other"), &deploy()).ok();
    assert_eq!(server.entries("FROZEN")[0]["result"]["thumbprints"].as_array().unwrap().len(), 1);

    // Nobody publishes this one: told, and it holds by name.
    let output = finish(installation.command(&["freeze", "kid", "ci/gone"]).args(WHY), "");
    assert!(output.status.success() && text(&output.stderr).contains("no key of that id"), "{output:?}");
}

#[test]
fn whoever_shows_honours_a_freeze_and_whoever_revokes_does_not() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let issued = server.public.exchange(&token, &deploy()).ok();
    let path = format!("/v1/issuances/{}", issued["issuances"][0]["id"].as_str().unwrap());
    let handle = issued["issuances"][0]["handle"].as_str().unwrap();
    operator(&installation, "freeze", "issuer", "ci");

    for shown in ["/v1/whoami", "/v1/grants", &path] {
        server.public.get(shown).bearer(&token).send().problem(403, "access_denied");
    }
    server.public.get(&path).bearer(handle).send().ok();
    server.public.call("DELETE", &path).bearer(&token).send().ok();
    assert_eq!(ids(&revoke_job(&server, &token).ok()).len(), 2);
}

#[test]
fn commands_say_what_is_frozen_by_whom_and_why() {
    let installation = Installation::new();
    let server = installation.serve();
    let list = || -> Value {
        serde_json::from_str(&run(&mut installation.command(&["freeze", "list", "--output", "json"]), ""))
            .unwrap()
    };
    assert_eq!(list(), json!({ "freezes": [] }));

    operator(&installation, "freeze", "project", "ci/70155112");
    let again =
        run(installation.command(&["freeze", "project", "ci/70155112"]).args(["--reason", "again"]), "");

    assert!(again.starts_with("already frozen: project ci/70155112 since "), "{again}");
    let uid = format!("os:{}", rustix::process::getuid().as_raw());
    let listed = list()["freezes"][0].clone();
    assert_eq!((&listed["by"], &listed["reason"]), (&json!(uid), &json!("incident 7")));
    let item = server.ledger("outcome:FROZEN").remove(0);
    let result = json!({ "by": uid, "scope": "project", "issuer": "ci", "project": "70155112" });
    assert_eq!(item["entry"]["result"], result);
    assert_eq!(item["personal"]["reason"], "incident 7");
    assert_eq!(server.entries("FROZEN").len(), 1, "the second changed nothing");

    for (arguments, told) in [
        (vec!["freeze", "issuer", "nobody"], "no issuer `nobody`"),
        (vec!["freeze", "kid", "ci"], "ISSUER/KID"),
        (vec!["freeze", "grant", "Deploy"], "is not a name"),
        (vec!["thaw", "grant", "deploy"], "is not frozen"),
    ] {
        let output = finish(installation.command(&arguments).args(WHY), "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(told), "{arguments:?}: {output:?}");
    }
    assert_eq!(finish(&mut installation.command(&["freeze", "all"]), "").status.code(), Some(2), "no reason");
    let unknown = finish(installation.command(&["freeze", "grant", "deply"]).args(WHY), "");
    assert!(unknown.status.success() && text(&unknown.stderr).contains("no grant `deply`"), "{unknown:?}");
}

#[test]
fn admin_api_freezes_thaws_and_revokes_for_operators_only() {
    let installation = Installation::new();
    let server = installation.serve();
    let issued = server.public.exchange(&installation.issuer.token(), &deploy()).ok();
    let [auditor, operator] = ["auditor", "operator"].map(|role| installation.admin_token(role));
    let post = |path: &str, token: &str, body: &Value| {
        server.admin.call("POST", path).bearer(token).json(&body.to_string()).send()
    };
    let freeze = json!({ "scope": "grant", "name": "deploy", "reason": "incident 7" });

    for path in ["/v1/freezes", "/v1/thaws", "/v1/admin/revocations"] {
        post(path, &auditor, &freeze).problem(403, "access_denied");
        post(path, "nobody-nobody-nobody-nobody", &freeze).problem(401, "token_malformed");
        post(path, &operator, &json!({ "scope": "grant" })).problem(400, "request_malformed");
    }
    server.admin.get("/v1/freezes").bearer(&auditor).send().problem(403, "access_denied");
    assert_eq!(post("/v1/freezes", &operator, &freeze).status, 201);
    assert_eq!(post("/v1/freezes", &operator, &freeze).status, 200);
    server.public.exchange(&installation.issuer.token(), &deploy()).problem(403, "access_denied");
    let listed = server.admin.get("/v1/freezes").bearer(&operator).send().ok();
    assert_eq!(listed["freezes"][0]["by"], "first-operator");
    let unknown = json!({ "scope": "issuer", "name": "nobody", "reason": "incident 7" });
    post("/v1/freezes", &operator, &unknown).problem(400, "request_malformed");

    let revoke = json!({ "grant": "deploy", "since": "1h", "reason": "incident 7", "dry_run": true });
    let dry = post("/v1/admin/revocations", &operator, &revoke).ok();
    let done =
        post("/v1/admin/revocations", &operator, &json!({ "grant": "deploy", "reason": "incident 7" })).ok();
    assert_eq!((ids(&dry), ids(&done)), (own_ids(&issued), own_ids(&issued)));
    assert_eq!(server.entries("RELEASED").len(), 2, "a dry run ends nothing");

    assert_eq!(post("/v1/thaws", &operator, &freeze).status, 204);
    post("/v1/thaws", &operator, &freeze).problem(404, "not_found");
    server.public.exchange(&installation.issuer.token(), &deploy()).ok();
}

#[test]
fn a_job_ends_all_of_its_own_and_nobody_elses_and_retries_end_with_it() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuer = &installation.issuer;
    let token = issuer.token();
    let first = keyed(&server, &token).ok();
    let second = server.public.exchange(&issuer.token(), &only("npm")).ok();
    let foreign = issuer.token_with(json!({ "run_id": "1" }));
    let theirs = server.public.exchange(&foreign, &only("npm")).ok();

    let told = revoke_job(&server, &token).ok();

    let mut wanted = [own_ids(&first), own_ids(&second)].concat();
    wanted.sort();
    assert_eq!(ids(&told), wanted);
    assert_eq!((&told["revoked"], &told["queued"]), (&json!([]), &json!([])));
    let cloud =
        told["irrevocable"].as_array().unwrap().iter().find(|item| item["credential"] == "cloud").unwrap();
    let issued =
        first["issuances"].as_array().unwrap().iter().find(|item| item["credential"] == "cloud").unwrap();
    assert_eq!(cloud["usable_until"], issued["expires_at"]);
    keyed(&server, &token).problem(409, "token_replayed");
    assert_eq!(revoke_job(&server, &issuer.token()).ok(), told, "it repeats its answer");
    assert_eq!(server.entries("RELEASED").len(), 3);
    let path = format!("/v1/issuances/{}", own_ids(&theirs)[0]);
    assert_eq!(server.public.get(&path).bearer(&foreign).send().ok()["state"], "live");
}

#[test]
fn a_token_without_a_job_key_ends_its_own_only() {
    let installation = Installation::new();
    let server = installation.serve();
    let [one, other] = [(); 2].map(|()| installation.issuer.token_with(json!({ "check_run_id": null })));
    let [mine, _] = [&one, &other].map(|token| server.public.exchange(token, &only("npm")).ok());

    assert_eq!(ids(&revoke_job(&server, &one).ok()), own_ids(&mine));
    assert_eq!(server.entries("RELEASED").len(), 1);
    let stranger = installation.issuer.token_with(json!({ "check_run_id": null }));
    let nothing = json!({ "revoked": [], "queued": [], "irrevocable": [] });
    assert_eq!(revoke_job(&server, &stranger).ok(), nothing);
}

#[test]
fn revoking_a_job_follows_the_order_of_checks_and_heeds_neither_age_nor_use() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let send = |token: &str, body: &str| {
        server.public.call("POST", "/v1/revocations").bearer(token).json(body).send()
    };
    let good = r#"{"scope":"job"}"#;
    server.public.call("GET", "/v1/revocations").send().problem(405, "method_not_allowed");
    server
        .public
        .call("POST", "/v1/revocations")
        .body(good)
        .bearer(&token)
        .send()
        .problem(415, "unsupported_media_type");
    server.public.call("POST", "/v1/revocations").json("x").send().problem(401, "token_missing");
    send("a.b", "x").problem(401, "token_malformed");
    send(&installation.issuer.token_with(json!({ "exp": 1 })), "x").problem(401, "token_expired");
    for bad in ["", "{}", r#"{"scope":"run"}"#, r#"{"scope":"job","all":true}"#, r#"{"scope":null}"#, "[]"] {
        send(&token, bad).problem(400, "request_malformed");
    }
    let old =
        json!({ "iat": super::support::issuer::now() - 3_600, "nbf": super::support::issuer::now() - 3_600 });
    let old = installation.issuer.token_with(old);
    server.public.exchange(&old, &deploy()).problem(401, "token_too_old");
    send(&old, good).ok();
}

#[test]
fn a_keyed_retry_beside_a_revocation_is_ended_by_it_or_refused() {
    let installation = Installation::new();
    let server = installation.serve();
    for round in 0..12 {
        let token = installation.issuer.token_with(json!({ "run_id": format!("{round}") }));
        let first = keyed(&server, &token).ok();
        let gate = Barrier::new(2);
        let (retried, revoked) = std::thread::scope(|scope| {
            let retry = scope.spawn(|| {
                gate.wait();
                keyed(&server, &token)
            });
            let revoke = scope.spawn(|| {
                gate.wait();
                revoke_job(&server, &token)
            });
            (retry.join().unwrap(), revoke.join().unwrap())
        });

        let ended = ids(&revoked.ok());
        assert!(own_ids(&first).iter().all(|id| ended.contains(id)), "round {round}");
        match retried.status {
            200 => assert!(own_ids(&retried.ok()).iter().all(|id| ended.contains(id)), "round {round}"),
            _ => drop(retried.problem(409, "token_replayed")),
        }
        keyed(&server, &token).problem(409, "token_replayed");
        assert_eq!(ids(&revoke_job(&server, &token).ok()), ended, "round {round}");
    }
}

#[test]
fn revoke_has_two_sides_and_its_arguments_say_which() {
    let installation = Installation::new();
    let server = installation.serve();
    let url = format!("http://{}", server.public.address);
    let token = installation.issuer.token();
    installation.write("ci.token", &token);
    let issued = server.public.exchange(&token, &deploy()).ok();
    let wanted = own_ids(&issued);
    installation.write("one.handle", issued["issuances"][0]["handle"].as_str().unwrap());
    let one = issued["issuances"][0]["id"].as_str().unwrap();
    let job = |arguments: &[&str]| {
        let mut command = installation.command(&["revoke"]);
        command.args(arguments).args(["--output", "json"]).env("HALLPASS_URL", &url);
        serde_json::from_str::<Value>(&run(&mut command, "")).unwrap()
    };

    let dry = job(&["--grant", "deploy", "--dry-run"]);
    assert_eq!((ids(&dry), server.entries("RELEASED").len()), (wanted.clone(), 0));
    assert_eq!(ids(&job(&[one, "--handle-file", "one.handle"])), [one]);
    assert_eq!(ids(&job(&["--token-file", "ci.token"])), wanted);
    let again = server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    let swept = job(&["--project", "ci/70155112", "--since", "10m", "--reason", "incident 7"]);
    assert_eq!(ids(&swept), own_ids(&again), "those that were ended are not ended twice");
    assert_eq!(server.entries("RELEASED").len(), 3);

    for (arguments, told) in [
        (vec!["--grant", "deploy", "--reason", "x", "--token-file", "ci.token"], "one or the other"),
        (vec![one, "--reason", "x"], "one or the other"),
        (vec!["--grant", "deploy", "--reason", "x", "--url", "http://127.0.0.1:1"], "one or the other"),
        (vec!["--reason", "x"], "say what"),
        (vec!["--grant", "deploy"], "--reason is due"),
        (vec!["--since", "yesterday", "--reason", "x"], "neither a time"),
        (vec!["--project", "701", "--reason", "x"], "ISSUER/PROJECT-ID"),
        (vec!["iss_nonsense", "--token-file", "ci.token"], "no issuance"),
        (vec![one, "--handle-file", "ci.token"], "holds no handle"),
    ] {
        let output = finish(installation.command(&["revoke"]).args(&arguments).env("HALLPASS_URL", &url), "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains(told), "{arguments:?}: {output:?}");
    }
    let human =
        run(installation.command(&["revoke", "--token-file", "ci.token"]).env("HALLPASS_URL", &url), "");
    assert!(human.contains("it never ends by itself"), "{human}");
}

#[test]
fn a_broker_posts_its_policy_set_and_leaves_when_it_stops() {
    let installation = Installation::new();
    let server = installation.serve();
    let posted = || {
        let conn = rusqlite::Connection::open(installation.file("hallpass.db")).unwrap();
        conn.query_row("SELECT count(*) FROM replica", [], |row| row.get::<_, i64>(0)).unwrap()
    };

    eventually("its first beat", || (posted() == 1).then_some(()));
    server.stop();

    assert_eq!(posted(), 0);
}

/// Jobs that exchange all the time, each with a token of its own.
struct Load {
    issued: Arc<AtomicUsize>,
    frozen: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    jobs: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(installation: &Installation, server: &Server) -> Self {
        let (issued, frozen) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let ends = Arc::<AtomicBool>::default();
        let jobs = (0..6).map(|_| {
            let (issued, frozen, ends) = (Arc::clone(&issued), Arc::clone(&frozen), Arc::clone(&ends));
            let (client, url) = (server.public.clone(), installation.issuer.url.clone());
            std::thread::spawn(move || {
                while !ends.load(Ordering::SeqCst) {
                    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": KID });
                    let answer = client.exchange(&sign(own_key(), &header, &valid_claims(&url)), &deploy());
                    match answer.status {
                        200 => issued.fetch_add(1, Ordering::SeqCst),
                        403 => frozen.fetch_add(1, Ordering::SeqCst),
                        _ => panic!("{answer:?}"),
                    };
                }
            })
        });
        let jobs = jobs.collect();
        Self { issued, frozen, ends, jobs }
    }

    fn issues_more(&self) {
        let before = self.issued.load(Ordering::SeqCst);
        eventually("exchanges", || (self.issued.load(Ordering::SeqCst) >= before + 10).then_some(()));
    }

    /// Waits until every job that was under way when the freeze was committed has had its answer, and more were refused.
    fn is_frozen(&self) {
        let before = self.frozen.load(Ordering::SeqCst);
        eventually("refusals", || (self.frozen.load(Ordering::SeqCst) >= before + 15).then_some(()));
    }

    fn stop(self) {
        self.ends.store(true, Ordering::SeqCst);
        self.jobs.into_iter().for_each(|job| job.join().unwrap());
    }
}

fn operator(installation: &Installation, command: &str, scope: &str, name: &str) {
    let mut command = installation.command(&[command, scope]);
    if !name.is_empty() {
        command.arg(name);
    }
    run(command.args(WHY), "");
}

fn neighbour(issuer: &Issuer) -> String {
    let mut claims = issuer.valid_claims();
    set(&mut claims, json!({ "repository_id": "999", "repository": "acme/other", "run_id": "9" }));
    issuer.mint(claims)
}

fn asking(grant: &str) -> Value {
    json!({ "grants": [grant] })
}

fn keyed(server: &Server, token: &str) -> Answer {
    server.public.exchanging(token, &deploy()).header("idempotency-key", KEY).send()
}

fn revoke_job(server: &Server, token: &str) -> Answer {
    server.public.call("POST", "/v1/revocations").bearer(token).json(r#"{"scope":"job"}"#).send()
}

/// Every issuance of a revocation's answer, sorted.
fn ids(told: &Value) -> Vec<String> {
    let lists =
        ["revoked", "queued", "irrevocable"].into_iter().flat_map(|list| told[list].as_array().unwrap());
    let mut ids: Vec<String> = lists.map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// Every issuance of an exchange's answer, sorted.
fn own_ids(exchanged: &Value) -> Vec<String> {
    let issuances = exchanged["issuances"].as_array().unwrap().iter();
    let mut ids: Vec<String> = issuances.map(|each| each["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// A refusal without what differs from one to the next.
fn told(answer: &Answer, code: &str) -> Value {
    let mut body = answer.problem(403, code);
    assert!(body["decision_id"].take().as_str().unwrap().starts_with("dec_"));
    body
}

/// The ledger, oldest first.
fn exported(installation: &Installation) -> Vec<Value> {
    run(&mut installation.command(&["ledger", "export", "--out", "export"]), "");
    let lines = std::fs::read_to_string(installation.file("export/entries.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
