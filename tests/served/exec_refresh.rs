//! `hallpass exec --refresh`: credentials that are kept alive while a command runs. One test waits for the shortest
//! life that a real broker gives; the others ask a broker-shaped server whose credentials live for seconds.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    routing::{delete, get, post},
};
use jiff::Timestamp;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::{
    exec::{Job, Step, environ},
    support::{
        AUDIENCE, eventually,
        installation::{binary, finish},
        issuer::{KID, fresh_id, now, own_key, set, sign},
        npm::Script,
        python, runtime,
    },
};

/// GitHub's token endpoint, a new token for each call.
fn token_endpoint(mint: impl Fn(&str) -> String + Clone + Send + Sync + 'static) -> String {
    let answer = move |headers: HeaderMap, Query(query): Query<BTreeMap<String, String>>| {
        let answer = if headers["authorization"] == "bearer of-the-job"
            || headers["authorization"] == "Bearer of-the-job"
        {
            Ok(Json(json!({ "value": mint(&query["audience"]) })))
        } else {
            Err(StatusCode::UNAUTHORIZED)
        };
        std::future::ready(answer)
    };
    format!("{}/token?api-version=2.0", serve(Router::new().route("/token", get(answer))))
}

fn serve(router: Router) -> String {
    let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime().spawn(async move { axum::serve(listener, router).await });
    url
}

fn as_github(command: &mut Command, endpoint: &str) {
    command.env("GITHUB_ACTIONS", "true").env("HALLPASS_AUDIENCE", AUDIENCE);
    command.env("ACTIONS_ID_TOKEN_REQUEST_URL", endpoint).env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-job");
}

/// A broker-shaped server: it speaks the contract's answers, gives access keys that live for seconds, and remembers.
#[derive(Clone)]
pub(crate) struct Brief {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    life_s: i64,
    /// The token of each exchange.
    tokens: Vec<String>,
    /// The generation of each handle that came back, and when.
    given_back: Vec<(usize, Instant)>,
    refuses: bool,
}

impl Brief {
    pub(crate) fn start(life_s: i64) -> Self {
        let seen = Arc::new(Mutex::new(Seen { life_s, ..Seen::default() }));
        let router = Router::new()
            .route("/v1/exchange", post(exchange))
            .route("/v1/issuances/{id}", delete(give_back))
            .with_state(Arc::clone(&seen));
        Self { url: serve(router), seen }
    }

    fn exec(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command.args(["exec", "cloud", "--refresh"]).args(arguments);
        self.as_job(&mut command);
        command
    }

    /// Makes it a step of a job that gets a new token whenever it asks.
    pub(crate) fn as_job(&self, command: &mut Command) {
        let count = Arc::new(Mutex::new(0));
        let endpoint = token_endpoint(move |_| {
            let mut count = count.lock().unwrap();
            *count += 1;
            format!("eyJhbGciOiJub25lIn0.e30.token{count}")
        });
        command.env("HALLPASS_URL", &self.url);
        as_github(command, &endpoint);
    }

    fn exchanges(&self) -> usize {
        self.seen.lock().unwrap().tokens.len()
    }

    fn given_back(&self) -> Vec<usize> {
        self.seen.lock().unwrap().given_back.iter().map(|(generation, _)| *generation).collect()
    }
}

/// The access key of a generation.
pub(crate) fn access_key(generation: usize) -> Value {
    json!({
        "id": format!("ASIATEST{generation}"),
        "secret": format!("secret-of-generation-{generation}"),
        "session": format!("session/of+generation={generation}"),
    })
}

async fn exchange(State(seen): State<Arc<Mutex<Seen>>>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let mut seen = seen.lock().unwrap();
    if seen.refuses {
        let problem = json!({ "title": "Denied", "detail": "frozen", "code": "access_denied", "status": 403, "decision_id": "dec_0" });
        return (StatusCode::FORBIDDEN, Json(problem));
    }
    let token = headers["authorization"].to_str().unwrap().to_owned();
    assert!(!seen.tokens.contains(&token), "a token is good once");
    seen.tokens.push(token);
    let generation = seen.tokens.len();
    let key = access_key(generation);
    let moment = |seconds: i64| Timestamp::from_second(now() + seconds).unwrap().to_string();
    let answer = json!({
        "decision_id": format!("dec_{generation}"),
        "issuances": [{
            "id": format!("iss_{generation}"), "handle": format!("hdl_{generation}"), "grant": "cloud", "credential": "aws",
            "kind": "vault", "lifetime": "fixed", "revocable": false,
            "fields": { "access_key": key["id"], "secret_key": key["secret"], "security_token": key["session"] },
            "secret_fields": ["secret_key", "security_token"],
            "issued_at": moment(0), "expires_at": moment(seen.life_s), "ttl_seconds": seen.life_s,
        }],
        "receipts": [],
    });
    (StatusCode::OK, Json(answer))
}

async fn give_back(
    State(seen): State<Arc<Mutex<Seen>>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> StatusCode {
    let generation = id.strip_prefix("iss_").unwrap();
    assert_eq!(headers["authorization"], format!("Bearer hdl_{generation}"));
    seen.lock().unwrap().given_back.push((generation.parse().unwrap(), Instant::now()));
    StatusCode::NO_CONTENT
}

#[test]
fn a_job_with_one_token_for_all_its_life_is_told_at_the_start() {
    let job = Job::new();
    let mut command = job.step(&["exec", "work", "--refresh", "--", "touch", "ran"]);
    let output = finish(
        command.env("GITLAB_CI", "true").env("HALLPASS_ID_TOKEN", job.installation.issuer.token()),
        "",
    );

    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("this job has one for all its life"), "{told}");
    assert!(!job.workspace.path().join("ran").exists());
    assert_eq!(job.server.entries("ISSUED").len(), 0, "nothing was asked");
}

const CLOUD: &str = r#"grant: cloud
allow:
  - name: from-main
    issuer: ci
    match: { repository_owner_id: "4216", repository_id: "70155112", ref: refs/heads/main, event_name: push }
credentials:
  assertion:
    oidc: { audience: "https://cloud.test" }
    ttl: 1m
"#;

/// The shortest life of an assertion is a minute, so this takes two thirds of one.
#[test]
fn file_of_a_real_broker_is_renewed_with_a_new_token_and_replaced_whole() {
    let job = Job::with(&[("cloud", CLOUD)]);
    let claims = job.installation.issuer.valid_claims();
    let minting = job.installation.issuer.url.clone();
    let endpoint = token_endpoint(move |audience| {
        let mut claims = claims.clone();
        let fresh =
            json!({ "iss": minting, "aud": audience, "iat": now(), "exp": now() + 300, "jti": fresh_id() });
        set(&mut claims, fresh);
        sign(own_key(), &json!({ "alg": "RS256", "typ": "JWT", "kid": KID }), &claims)
    });
    let mapping = ["exec", "cloud", "--refresh", "--file", "TOKEN_FILE=cloud.assertion.token"];
    let mut command = job.step(&mapping);
    as_github(&mut command, &endpoint);
    let mut step = Step::start(command.args(["--", "sh", "-c", "echo $TOKEN_FILE; exec sleep 600"]));
    let file = PathBuf::from(step.line());
    let first = fs::read_to_string(&file).unwrap();

    let begun = Instant::now();
    let second = loop {
        let read = fs::read_to_string(&file).expect("there is always one");
        assert_eq!(read.split('.').count(), 3, "never half a token: {read}");
        if read != first {
            break read;
        }
        assert!(begun.elapsed() < Duration::from_secs(55), "it was not renewed before its end");
        std::thread::sleep(Duration::from_millis(20));
    };

    assert!(begun.elapsed() > Duration::from_secs(25), "not before it is due: {:?}", begun.elapsed());
    assert_ne!(first, second);
    assert_eq!(job.server.entries("ISSUED").len(), 2);
    kill_process(step.pid(), Signal::TERM).unwrap();
    step.end();
    assert_eq!(job.server.entries("RELEASED").len(), 2, "the old one and the new one");
    assert!(!file.exists());
}

#[test]
fn sdk_of_aws_signs_with_each_key_in_turn_and_old_ones_are_given_back_in_time() {
    let broker = Brief::start(9);
    let mut strict = Script::spawn(python::program("aws", "python").arg(python::tests().join("aws/sts.py")));
    let url = strict.next()["url"].as_str().unwrap().to_owned();
    let caller = python::program("aws", "python");
    let mut command = broker.exec(&["--"]);
    command.arg(caller.get_program()).arg(python::tests().join("aws/caller.py")).arg(url);
    command
        .env("AWS_PROFILE", "nobody")
        .env("AWS_ACCESS_KEY_ID", "of-the-job")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    (1..100).for_each(|generation| drop(strict.ask(&json!({ "accept": access_key(generation) }))));

    let mut sdk = Script::spawn(&mut command);

    let last = access_key(3)["id"].clone();
    eventually("a signature with the third key", || {
        let answer = sdk.ask(&json!({}));
        assert_eq!(answer["account"], "123456789012", "{answer}");
        for generation in broker.given_back() {
            // What was given back is never come with again.
            strict.ask(&json!({ "refuse": access_key(generation)["id"] }));
        }
        strict.ask(&json!({}))["signed"].as_array().unwrap().contains(&last).then_some(())
    });
    assert!(
        broker.given_back().contains(&1) && !broker.given_back().contains(&3),
        "{:?}",
        broker.given_back()
    );
    let told = strict.ask(&json!({}));
    assert!(
        (1..=3).all(|generation| told["signed"].as_array().unwrap().contains(&access_key(generation)["id"]))
    );
    assert_eq!(told["refused"], json!([]));
}

#[test]
fn endpoint_answers_only_who_shows_the_token_of_the_file() {
    let broker = Brief::start(600);
    let mut step = Step::start(broker.exec(&[]).args(["--", "sh", "-c", "echo $$; exec sleep 600"]));
    let given = environ(&step.line());
    let url = &given["AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    let token = fs::read_to_string(&given["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).unwrap();
    let ask = |token: Option<&str>| {
        let request = reqwest::Client::builder().no_proxy().build().unwrap().get(url);
        let request =
            token.into_iter().fold(request, |request, token| request.header("authorization", token));
        runtime().block_on(async {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        })
    };

    let (status, body) = ask(Some(&token));
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["AccessKeyId"], "ASIATEST1");
    assert_eq!(answer["Token"], access_key(1)["session"]);
    let end: Timestamp = answer["Expiration"].as_str().unwrap().parse().unwrap();
    assert!((400..=510).contains(&(end.as_second() - now())), "told five sixths of its life: {end}");
    for wrong in [None, Some(""), Some("x"), Some(&token[1..]), Some(&format!("Bearer {token}"))] {
        assert_eq!(ask(wrong), (401, String::new()), "{wrong:?}");
    }
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert!(
        !given.keys().any(|name| name == "AWS_ACCESS_KEY_ID" || name == "AWS_SECRET_ACCESS_KEY"),
        "{given:?}"
    );
}

#[test]
fn a_refused_renewal_is_told_and_the_command_runs_on() {
    let broker = Brief::start(4);
    let go = tempfile::tempdir().unwrap();
    let script =
        format!("echo ready; while [ ! -e {}/go ]; do sleep 0.02; done; exit 6", go.path().display());
    let mut step = Step::start(broker.exec(&[]).args(["--", "sh", "-c", &script]));
    assert_eq!(step.line(), "ready");
    broker.seen.lock().unwrap().refuses = true;

    let begun = Instant::now();
    // Past the end of the only key that there is.
    eventually("the end of the key", || (begun.elapsed() > Duration::from_millis(5_500)).then_some(()));
    assert_eq!(broker.given_back(), Vec::<usize>::new(), "without another one it is not taken away");
    fs::write(go.path().join("go"), "").unwrap();

    let (code, _, told) = step.end();
    assert_eq!(code, Some(6));
    assert!(told.contains("not renewed yet") && told.contains("access_denied"), "{told}");
    assert!(told.contains("the credentials have ended; the command runs on"), "{told}");
    assert_eq!(broker.given_back(), [1]);
}

#[test]
fn every_generation_is_masked() {
    let broker = Brief::start(3);
    let script = r#"while read -r _; do echo "secret-of-generation-1 secret-of-generation-2 secret-of-generation-9"; done"#;
    let mut command = broker.exec(&["--", "sh", "-c", script]);
    let mut step = Script::spawn(&mut command);
    let masked = eventually("the second generation", || {
        let line = step.say("next");
        assert!(line.starts_with("*** "), "{line}");
        (broker.exchanges() > 1 && line.starts_with("*** *** ")).then_some(line)
    });
    assert_eq!(masked, "*** *** secret-of-generation-9");
}

#[test]
fn what_ends_in_a_variable_cannot_be_renewed_and_is_given_back() {
    let broker = Brief::start(600);
    let mut command = broker.exec(&["--env", "KEY=cloud.aws.secret_key", "--", "true"]);
    let output = finish(&mut command, "");

    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("a variable cannot be renewed; use --file"), "{told}");
    assert_eq!(broker.given_back(), [1]);
}
