//! Kind `aws` from the job's token to the cloud: the built broker, a grant in policy files, and a real STS that fetches the
//! broker's own keys. A call that is broken off is told as what nobody knows.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::support::{
    Installation, Server,
    installation::{binary, run},
    issuer::{fresh_id, now},
    key::{Key, compact},
    npm::Script,
    python,
    radosgw::{AUDIENCE, Front, Keys, Radosgw},
    runtime,
};

/// One grant, with what the role asks for.
fn grant(role_arn: &str, team: &str) -> String {
    format!(
        "grant: payments-aws\nallow:\n  - name: from-main\n    issuer: ci\n    match: {{ repository_owner_id: \"4216\", \
         repository_id: \"70155112\", ref: refs/heads/main, event_name: push }}\ncredentials:\n  aws:\n    aws:\n      \
         role_arn: {role_arn}\n      tags: {{ team: {team}, run: \"${{claims.run_id}}\" }}\n      session_policy: >-\n        \
         {{ \"Version\": \"2012-10-17\", \"Statement\": [ {{ \"Effect\": \"Allow\", \"Resource\": [\"arn:aws:s3:::*\"],\n        \
         \"Action\": [\"s3:CreateBucket\", \"s3:PutObject\", \"s3:ListAllMyBuckets\"] }} ] }}\n    ttl: 15m\n"
    )
}

/// An installation with that connection and that grant; `issuer` is the `iss` of its assertions.
fn installation(issuer: &str, endpoint: &str, more: &str, grant: &str) -> Installation {
    let installation = Installation::new();
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let ours = text.lines().find(|line| line.starts_with("assertions: ")).unwrap();
    let text = text.replace(ours, &format!("assertions: {{ issuer: \"{issuer}\" }}"));
    let backends =
        format!("backends: {{ aws: {{ aws: {{ region: us-east-1, endpoint: \"{endpoint}\"{more} }} }} }}\n");
    installation.write("hallpass.yaml", &format!("{text}{backends}"));
    installation.write("policies/grants/payments-aws.yaml", grant);
    installation
}

fn ask() -> Value {
    json!({ "grants": ["payments-aws"] })
}

/// The front publishes what the broker itself publishes.
fn publish(front: &Front, server: &Server) {
    front.publish(&server.public.get("/.well-known/jwks.json").send().ok());
}

#[test]
fn job_gets_a_session_by_the_brokers_own_assertion_and_s3_takes_it() {
    let (gateway, front) = (Radosgw::shared(), Front::start());
    gateway.trust(&front);
    let role = gateway.role(
        "served-payments",
        &front,
        "payments-aws",
        &json!({ "aws:RequestTag/team": "payments" }),
    );
    let ours = installation(&front.url, &gateway.endpoint, "", &grant(&role, "payments"));
    let server = ours.serve();
    publish(&front, &server);

    let body = server.public.exchange(&ours.issuer.token(), &ask()).ok();

    let issuance = &body["issuances"][0];
    assert_eq!((&issuance["kind"], &issuance["lifetime"]), (&json!("aws"), &json!("fixed")));
    assert_eq!(issuance["revocable"], false);
    assert_eq!(issuance["secret_fields"], json!(["secret_access_key", "session_token"]));
    let keys = Keys::of(&issuance["fields"]);
    gateway.call(&keys, ("s3", "create_bucket"), &json!({ "Bucket": "served" })).unwrap();
    gateway
        .call(&keys, ("s3", "put_object"), &json!({ "Bucket": "served", "Key": "a", "Body": "1" }))
        .unwrap();
    let read = gateway.call(&keys, ("s3", "get_object"), &json!({ "Bucket": "served", "Key": "a" }));
    assert_eq!(read.unwrap_err(), "AccessDenied", "the session policy of the grant does not let it");
    let [issued] = server.entries("ISSUED").try_into().unwrap();
    let told = &issued["result"]["told"];
    assert_eq!(told["source_identity"], issuance["id"]);
    let arn = told["session_arn"].as_str().unwrap();
    assert!(arn.ends_with(issuance["id"].as_str().unwrap()), "{arn}");
    assert_eq!(server.entries("INTENT").len(), 1);
    let told = server.ledger("").iter().map(Value::to_string).collect::<String>() + &server.logs();
    for secret in [&keys.secret, keys.session.as_ref().unwrap()] {
        assert!(!told.contains(secret.as_str()), "a secret stands in ledger or log");
    }
}

#[test]
fn giving_back_says_until_when_it_works_and_what_an_operator_can_do() {
    let (gateway, front) = (Radosgw::shared(), Front::start());
    gateway.trust(&front);
    let role = gateway.role("served-released", &front, "payments-aws", &json!({}));
    let ours = installation(&front.url, &gateway.endpoint, "", &grant(&role, "payments"));
    let server = ours.serve();
    publish(&front, &server);
    let issuance = server.public.exchange(&ours.issuer.token(), &ask()).ok()["issuances"][0].clone();
    let path = format!("/v1/issuances/{}", issuance["id"].as_str().unwrap());

    let told = server.public.call("DELETE", &path).bearer(issuance["handle"].as_str().unwrap()).send().ok();

    assert_eq!((&told["state"], &told["usable_until"]), (&json!("released"), &issuance["expires_at"]));
    assert!(told["remedy"].as_str().unwrap().contains("aws:SourceIdentity"), "{told}");
    let [released] = server.entries("RELEASED").try_into().unwrap();
    assert_eq!(released["result"]["remedy"], told["remedy"]);
    let keys = Keys::of(&issuance["fields"]);
    gateway.call(&keys, ("s3", "list_buckets"), &json!({})).expect("nobody can end it from here");
}

#[test]
fn role_that_does_not_trust_the_grant_is_a_failure_for_certain_and_nothing_is_left_open() {
    let (gateway, front) = (Radosgw::shared(), Front::start());
    gateway.trust(&front);
    let role =
        gateway.role("served-denied", &front, "payments-aws", &json!({ "aws:RequestTag/team": "payments" }));
    let ours = installation(&front.url, &gateway.endpoint, "", &grant(&role, "search"));
    let server = ours.serve();
    publish(&front, &server);

    server.public.exchange(&ours.issuer.token(), &ask()).problem(502, "backend_failed");

    let [failed] = server.entries("FAILED").try_into().unwrap();
    assert_eq!(
        (&failed["result"]["reason"], &failed["result"]["minted"]),
        (&json!("access-denied"), &json!(false))
    );
    assert!(server.entries("UNRESOLVED").is_empty());
}

#[test]
fn broker_that_is_killed_while_sts_thinks_leaves_an_intent_that_another_closes_as_unresolved() {
    let (endpoint, asked) = silent();
    let ours = installation("https://hallpass.test", &endpoint, ", timeout: 30s", &grant(ROLE, "payments"));
    let text = fs::read_to_string(ours.file("hallpass.yaml")).unwrap();
    ours.write("hallpass.yaml", &format!("{text}deadlines: {{ exchange: 5s, mint: 5s, issuer: 2s }}\n"));
    let server = ours.serve();
    let (client, token) = (server.public.exchanging(&ours.issuer.token(), &ask()), Instant::now());
    let calling = std::thread::spawn(move || client.try_send().is_err());
    let form = asked.recv_timeout(Duration::from_secs(20)).expect("STS is asked");

    server.crash();

    assert!(calling.join().unwrap(), "it was answered");
    assert!(form.contains("Action=AssumeRoleWithWebIdentity"), "{form}");
    let server = ours.serve();
    let [intent] = server.entries("INTENT").try_into().unwrap();
    // Its deadline, half a minute for a broker that is merely slow, and the ten seconds between two looks.
    let unresolved = loop {
        if let Some(entry) = server.entries("UNRESOLVED").pop() {
            break entry;
        }
        assert!(token.elapsed() < Duration::from_secs(90), "it stays open");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(unresolved["issuance_id"], intent["issuance_id"]);
    let until: jiff::Timestamp = unresolved["result"]["usable_until"].as_str().unwrap().parse().unwrap();
    let made: jiff::Timestamp = intent["at"].as_str().unwrap().parse().unwrap();
    assert!(until.as_second() - made.as_second() >= 900, "{unresolved}");
    assert!(server.entries("ISSUED").is_empty() && server.entries("FAILED").is_empty());
}

#[test]
fn sts_that_does_not_answer_is_a_timeout_that_is_unresolved_at_once() {
    let (endpoint, _asked) = silent();
    let ours = installation("https://hallpass.test", &endpoint, ", timeout: 1s", &grant(ROLE, "payments"));
    let text = fs::read_to_string(ours.file("hallpass.yaml")).unwrap();
    ours.write("hallpass.yaml", &format!("{text}deadlines: {{ exchange: 5s, mint: 4s, issuer: 2s }}\n"));
    let server = ours.serve();

    server.public.exchange(&ours.issuer.token(), &ask()).problem(504, "backend_timeout");

    let [unresolved] = server.entries("UNRESOLVED").try_into().unwrap();
    assert!(unresolved["result"]["usable_until"].is_string(), "{unresolved}");
}

/// The second way, at an endpoint that works out every signature by itself.
#[test]
fn role_is_assumed_with_the_credentials_around_the_broker_tags_and_source_identity_as_parameters() {
    let mut strict = Script::spawn(python::program("aws", "python").arg(python::tests().join("aws/sts.py")));
    let endpoint = strict.next()["url"].as_str().unwrap().to_owned();
    strict
        .ask(&json!({ "accept": { "id": "AKIAAROUND", "secret": "around/the+broker", "session": "s/1+=" } }));
    let more = ", credentials: ambient, external_id: \"hallpass/1\"";
    let ours = installation("https://hallpass.test", &endpoint, more, &grant(ROLE, "payments"));
    let ambient = |secret: &str| {
        let mut command = ours.command(&["serve"]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", ours.file(""));
        if !secret.is_empty() {
            command.env("AWS_ACCESS_KEY_ID", "AKIAAROUND").env("AWS_SECRET_ACCESS_KEY", secret);
            command.env("AWS_SESSION_TOKEN", "s/1+=");
        }
        command
    };
    let exchange = |mut command: Command| {
        let server = ours.serve_by(&mut command);
        (server.public.exchange(&ours.issuer.token(), &ask()), server)
    };

    let (answer, server) = exchange(ambient("around/the+broker"));

    let issuance = answer.ok()["issuances"][0].clone();
    assert_eq!(issuance["fields"]["session_token"], "second-session");
    let told = strict.ask(&json!({ "assumed": true }));
    let form = &told["assumed"][0];
    assert_eq!(form["RoleArn"], ROLE);
    assert_eq!((&form["RoleSessionName"], &form["SourceIdentity"]), (&issuance["id"], &issuance["id"]));
    assert_eq!((&form["ExternalId"], &form["DurationSeconds"]), (&json!("hallpass/1"), &json!("900")));
    let tags: Vec<[&Value; 2]> =
        (1..=2).map(|n| ["Key", "Value"].map(|part| &form[format!("Tags.member.{n}.{part}")])).collect();
    assert_eq!(tags[1], [&json!("team"), &json!("payments")]);
    assert_eq!(tags[0][0], "run");
    server.stop();

    let (answer, server) = exchange(ambient("another"));
    answer.problem(502, "backend_failed");
    server.stop();
    let (answer, server) = exchange(ambient(""));
    answer.problem(502, "backend_failed");
    let reasons: Vec<Value> =
        server.entries("FAILED").iter().map(|entry| entry["result"]["reason"].clone()).collect();
    assert_eq!(reasons, [json!("no-ambient-credentials"), json!("credentials-refused")]);
}

#[test]
fn example_policies_load_hold_to_their_guardrail_and_pass_their_tests() {
    let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/aws/policies");
    for what in ["check", "test"] {
        run(binary().args(["policy", what]).arg(&policies), "");
    }
}

/// How long an exchange takes, how much of that the STS takes, and what is left for us.
#[test]
#[ignore = "a measurement, of a release build: cargo test --release --test served measured -- --ignored --nocapture"]
#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn measured() {
    let (gateway, front) = (Radosgw::shared(), Front::start());
    gateway.trust(&front);
    let role = gateway.role("served-measured", &front, "payments-aws", &json!({}));
    let ours = installation(&front.url, &gateway.endpoint, "", &grant(&role, "payments"));
    let server = ours.serve();
    publish(&front, &server);
    let tokens: Vec<String> = (0..ROUNDS).map(|_| ours.issuer.token()).collect();
    let whole = timed(tokens.iter(), |token| drop(server.public.exchange(token, &ask()).ok()));
    // The same call, by an assertion that is ready.
    let key = Key::rsa();
    let other = Front::start();
    other.publish(&json!({ "keys": [key.jwk("one")] }));
    gateway.trust(&other);
    let role = gateway.role("served-measured-by-hand", &other, "payments-aws", &json!({}));
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let assertions: Vec<String> = (0..ROUNDS).map(|_| by_hand(&other, &key)).collect();
    let sts = timed(assertions.iter(), |assertion| {
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &role),
            ("RoleSessionName", "by-hand"),
            ("DurationSeconds", "900"),
            ("WebIdentityToken", assertion),
        ];
        let form: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        runtime().block_on(async {
            let sent =
                client.post(&gateway.endpoint).header("content-type", "application/x-www-form-urlencoded");
            let answer = sent.body(form).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
        });
    });
    for (name, times) in [("exchange", &whole), ("radosgw alone", &sts)] {
        println!("{name}: p50 {:?}, p99 {:?}, of {ROUNDS}", times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    }
    println!("ours: p50 {:?}", whole[ROUNDS / 2].saturating_sub(sts[ROUNDS / 2]));
}

fn timed<'a>(each: impl Iterator<Item = &'a String>, call: impl Fn(&String)) -> Vec<Duration> {
    let mut times: Vec<Duration> = each
        .map(|text| {
            let start = Instant::now();
            call(text);
            start.elapsed()
        })
        .collect();
    times.sort();
    times
}

fn by_hand(front: &Front, key: &Key) -> String {
    let claims = json!({
        "iss": front.url, "sub": "grant:payments-aws", "aud": AUDIENCE, "jti": fresh_id(),
        "iat": now(), "nbf": now(), "exp": now() + 300,
    });
    compact(r#"{"alg":"RS256","typ":"JWT","kid":"one"}"#, &claims.to_string(), |bytes| key.sign(bytes))
}

/// Of one measurement.
const ROUNDS: usize = 300;

const ROLE: &str = "arn:aws:iam::123456789012:role/payments-deploy";

/// An STS that takes requests and never answers; what it was asked.
fn silent() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (tell, asked) = mpsc::channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = vec![0; 16 * 1024];
            let mut read = String::new();
            while !read.contains("Action=") {
                let count = stream.read(&mut bytes).unwrap();
                read.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
            // Nobody may be listening.
            tell.send(read).ok();
            held.push(stream);
        }
    });
    (endpoint, asked)
}
