//! The GitHub action under GitHub's contract: `action.yml` read as the runner reads it, its JavaScript run by Node in
//! processes of its own for the step and for its post part, a fake token service, a broker that runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{
    front::{Fate, Front, Proxy},
    github_runner::{Job, Step},
    token_service::{FakeGitHubTokens, REQUEST_TOKEN},
};
use crate::support::{
    AUDIENCE, Installation, Server,
    authority::Authority,
    installation::{CANARY, run},
};

/// A value that has broken encoders before: lines, commands, escapes, other alphabets.
const HOSTILE: &str = "-----BEGIN KEY-----\n::add-mask::nothing\nline%0Awith%25escapes\r\n::error::injected\n  indented \
                       pass🔑word\n{\n}\n##[error]old\nhallpass_EOF<<x\nNAME=value-of-the-key\n-----END KEY-----\n";

/// A broker, GitHub's token service, and where the action finds the broker.
struct Setting {
    installation: Installation,
    server: Server,
    tokens: FakeGitHubTokens,
    url: String,
}

impl Setting {
    fn new() -> Self {
        Self::with_claims(json!({}))
    }

    /// Tokens with some claims set otherwise.
    fn with_claims(claims: Value) -> Self {
        let installation = Installation::new();
        let server = installation.serve();
        let tokens = FakeGitHubTokens::start(&installation.issuer.url, claims);
        let url = format!("http://{}", server.public.address);
        Self { installation, server, tokens, url }
    }

    fn job(&self) -> Job {
        Job::new(Some(&self.tokens.url))
    }

    /// Inputs for `deploy` and its sealed credential.
    fn npm<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        npm(&self.url, more)
    }

    fn releases(&self) -> usize {
        self.server.entries("RELEASED").len()
    }
}

fn npm<'a>(url: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut with = vec![
        ("url", url),
        ("audience", AUDIENCE),
        ("grant", "deploy"),
        ("credentials", "npm"),
        ("expose", "env"),
    ];
    for (name, value) in more {
        with.retain(|(each, _)| each != name);
        with.push((name, value));
    }
    with
}

#[track_caller]
fn assert_passed(step: &Step) {
    assert!(step.passed, "{step:?}");
}

#[test]
fn later_steps_have_the_credential_and_the_end_of_the_job_gives_it_back() {
    let setting = Setting::new();
    let mut job = setting.job();
    let with = setting.npm(&[("env", "NPM_TOKEN=deploy.npm.value"), ("reason", "release 42")]);

    let step = job.uses(&with);

    assert_passed(&step);
    assert_eq!(job.exported["NPM_TOKEN"], CANARY);
    let issued = &setting.server.entries("ISSUED")[0];
    assert_eq!(step.outputs["decision_id"], issued["decision"].as_str().unwrap());
    assert_eq!(step.outputs["issuance_ids"], json!([issued["issuance"]]).to_string());
    assert_eq!(step.outputs["expires_at"], "", "a sealed one never ends by itself");
    let warned = step.told("warning");
    assert!(warned.contains("NPM_TOKEN") && warned.contains("every later step"), "{warned}");
    assert_eq!(warned.lines().count(), 1, "{warned}");
    let later = job.run("printf 'token=%s\\n' \"$NPM_TOKEN\"\nprintf '%s' \"$NPM_TOKEN\" | base64\n");
    assert!(later.log.contains("token=***"), "{later:?}");

    let post = job.post(&with, &step);

    assert_passed(&post);
    assert_eq!(setting.releases(), 1);
    assert!(post.annotations.is_empty(), "{post:?}");
    assert_eq!(job.exported["NPM_TOKEN"], "", "nothing is left for other actions' post steps");
    let handle = handle(&step);
    for secret in [CANARY, REQUEST_TOKEN, &setting.tokens.minted()[0], &handle] {
        assert!(!job.log().contains(secret), "{}", job.log());
    }
    assert_eq!(fs::read_dir(job.workspace()).unwrap().count(), 0, "nothing is written into the workspace");
}

/// The handle that the post step is told.
fn handle(step: &Step) -> String {
    let issuances: Value = serde_json::from_str(&step.state["issuances"]).unwrap();
    issuances[0]["handle"].as_str().unwrap().to_owned()
}

#[test]
fn no_line_of_any_secret_is_seen_in_a_log() {
    let setting = Setting::new();
    let long = "0123456789abcdef-🔑\n".repeat(2700);
    let fields = json!({
        "hostile": HOSTILE, "long": long, "emoji": "pass🔑wörd", "quoted": "a\"b\\c'd`e$f<g>&h",
        "percent": "%0A%0D%25::x", "json": "{\n  \"private\": \"value-of-it\"\n}\n", "spaces": "  padded secret  ",
    });
    run(&mut setting.installation.command(&["secret", "set", "npm-token", "--json"]), &fields.to_string());
    let mut job = setting.job();
    let with = setting.npm(&[]);

    let step = job.uses(&with);

    assert_passed(&step);
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&job.exported[&format!("NPM_{}", name.to_uppercase())], value.as_str().unwrap(), "{name}");
    }
    let later = job.run(
        "for name in HOSTILE LONG EMOJI QUOTED PERCENT JSON SPACES; do\n  variable=NPM_$name\n  value=${!variable}\n  \
         printf '%s\\n' \"$value\" | sed 's/^/> /; s/##\\[/#[/g'\n  printf '%s' \"$value\" | base64 -w0; echo\n  \
         printf '%s' \"$value\" | base64\n  printf 'user:%s' \"$value\" | base64 -w0; echo\ndone\n",
    );
    assert_passed(&later);
    assert_passed(&job.post(&with, &step));
    for value in fields.as_object().unwrap().values().map(|value| value.as_str().unwrap()) {
        for line in value.split(['\r', '\n']).map(str::trim) {
            let says = line.chars().count() >= 4 && line.chars().any(char::is_alphanumeric);
            // The runner itself takes the brackets of old commands apart.
            if says && !line.starts_with("##[") {
                assert!(!job.log().contains(line), "{line:?} is in the log");
            }
        }
    }
    assert!(job.log().contains("> {") && job.log().contains("> }"), "what stands everywhere is left alone");
}

#[test]
fn files_are_private_outside_of_the_workspace_and_gone_at_the_end() {
    let setting = Setting::new();
    setting.installation.set_secret("npm-token", HOSTILE);
    let mut job = setting.job();
    let with = setting.npm(&[("expose", "file"), ("env", "KEY_FILE=deploy.npm.value")]);

    let step = job.uses(&with);

    assert_passed(&step);
    let file = PathBuf::from(&job.exported["KEY_FILE"]);
    // `secret set` cuts one trailing newline.
    assert_eq!(fs::read_to_string(&file).unwrap(), HOSTILE.strip_suffix('\n').unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert!(file.starts_with("/dev/shm") || file.starts_with(job.temp()), "{file:?}");
    assert!(step.told("warning").is_empty(), "{step:?}");
    assert_passed(&job.run("grep -q BEGIN \"$KEY_FILE\""));

    assert_passed(&job.post(&with, &step));

    assert!(!file.parent().unwrap().exists());
    assert_eq!(setting.releases(), 1);
    assert_eq!(fs::read_dir(job.workspace()).unwrap().count(), 0);
}

#[test]
fn nothing_is_made_where_nothing_is_to_be_exposed() {
    let setting = Setting::new();
    let mut job = setting.job();
    let with = [("url", setting.url.as_str()), ("audience", AUDIENCE), ("grant", "deploy")];

    let step = job.uses(&with);

    assert_passed(&step);
    assert_eq!(setting.server.entries("DRY_RUN").len(), 1);
    assert_eq!(setting.server.entries("ISSUED").len(), 0);
    assert!(step.told("notice").contains("hallpass exec"), "{step:?}");
    assert!(step.log.contains("deploy/npm would be given"), "{step:?}");
    assert_eq!((step.outputs["issuance_ids"].as_str(), step.state.len()), ("[]", 0));
    assert!(job.exported.is_empty());
    assert_passed(&job.post(&with, &step));
}

#[test]
fn several_grants_are_asked_for_at_once_and_each_issuance_is_given_back() {
    let setting = Setting::new();
    setting.installation.set_secret("never-set", "now-it-is-set");
    let mut job = setting.job();
    let with = setting.npm(&[("grant", "deploy\nlost"), ("credentials", ""), ("ttl", "2m")]);

    let step = job.uses(&with);

    assert_passed(&step);
    assert_eq!(job.exported["NPM_VALUE"], CANARY);
    assert_eq!(job.exported["GONE_VALUE"], "now-it-is-set");
    assert!(job.exported.keys().any(|name| name.starts_with("CLOUD_")), "{:?}", job.exported.keys());
    let ids: Vec<String> = serde_json::from_str(&step.outputs["issuance_ids"]).unwrap();
    assert_eq!(ids.len(), 3);
    step.outputs["expires_at"].parse::<jiff::Timestamp>().unwrap();
    assert_eq!(setting.tokens.minted().len(), 1);

    assert_passed(&job.post(&with, &step));

    assert_eq!(setting.releases(), 3);
}

#[test]
fn job_without_the_permission_is_told_the_whole_block() {
    let setting = Setting::new();
    let mut job = Job::new(None);

    let step = job.uses(&setting.npm(&[]));

    assert!(!step.passed);
    let told = step.told("error");
    for line in
        ["permission `id-token: write` is missing", "permissions:\n  id-token: write", "contents: read"]
    {
        assert!(told.contains(line), "{told}");
    }
    assert!(step.summary.contains("```yaml\npermissions:\n  id-token: write"), "{}", step.summary);
    assert!(!told.contains("fork"), "{told}");
}

#[test]
fn pull_request_from_a_fork_is_told_apart_from_a_missing_permission() {
    let setting = Setting::new();
    let own = json!({ "id": 70155112, "full_name": "acme/payments" });
    let theirs = json!({ "id": 5, "full_name": "mallory/payments" });
    let told = |head: &Value| {
        let mut job = Job::new(None);
        job.event(
            "pull_request",
            &json!({ "pull_request": { "head": { "repo": head }, "base": { "repo": own } } }),
        );
        let step = job.uses(&setting.npm(&[]));
        assert!(!step.passed);
        step.told("error")
    };

    let of_fork = told(&theirs);

    assert!(
        of_fork.contains("the fork mallory/payments") && of_fork.contains("after the merge"),
        "{of_fork}"
    );
    assert!(!of_fork.contains("permissions:\n"), "no block would help: {of_fork}");
    assert!(told(&Value::Null).contains("a fork that is gone"));
    assert!(told(&own).contains("`id-token: write` is missing"), "a branch of its own is no fork");
}

#[test]
fn denied_job_learns_the_decision_and_nothing_of_policy() {
    let setting = Setting::with_claims(json!({ "ref": "refs/heads/dev|`<b>" }));
    let mut job = setting.job();

    let step = job.uses(&setting.npm(&[]));

    assert!(!step.passed);
    let denied = &setting.server.entries("DENIED")[0];
    let decision = denied["decision"].as_str().unwrap();
    let told = step.told("error");
    assert!(told.contains("access_denied (403) for deploy.") && told.contains(decision), "{told}");
    assert_eq!(step.outputs["decision_id"], decision);
    assert!(step.summary.contains(decision) && step.summary.contains("70155112"), "{}", step.summary);
    // Its own claims are shown as they are, and are no Markdown.
    assert!(step.summary.contains("dev&#124;&#96;&#60;b&#62;"), "{}", step.summary);
    assert!(
        !step.summary.contains("deploy-from-main") && !told.contains("deploy-from-main"),
        "a rule's name"
    );
    assert_eq!((job.exported.len(), step.state.len()), (0, 0));
    // Whoever is refused is not refused again: one request, one entry.
    assert_eq!(setting.server.entries("DENIED").len(), 1);
    assert_passed(&job.post(&setting.npm(&[]), &step));
}

#[test]
fn token_for_another_audience_is_explained() {
    let setting = Setting::new();
    let mut job = setting.job();

    let step = job.uses(&setting.npm(&[("audience", "")]));

    assert!(!step.passed);
    let told = step.told("error");
    assert!(told.contains("token_audience (401)") && told.contains("`audience`"), "{told}");
}

#[test]
fn what_was_issued_is_given_back_when_the_step_fails_after_it() {
    let setting = Setting::new();
    let mut job = setting.job();
    let with = setting.npm(&[("env", "TOKEN=deploy.npm.no-such-field")]);

    let step = job.uses(&with);

    assert!(!step.passed);
    assert!(step.told("error").contains("has no field `no-such-field`, but value"), "{step:?}");
    assert!(job.exported.is_empty());
    assert_passed(&job.post(&with, &step));
    assert_eq!(setting.releases(), 1);
}

#[test]
fn what_is_written_wrongly_costs_no_token() {
    let setting = Setting::new();
    let mut job = setting.job();

    let step = job.uses(&setting.npm(&[("ttl", "ten minutes")]));

    assert!(!step.passed);
    assert!(step.told("error").contains("`ttl: ten minutes` is no duration"), "{step:?}");
    assert_eq!(setting.tokens.minted().len(), 0);
}

#[test]
fn broker_that_is_away_at_the_end_fails_no_job() {
    let setting = Setting::new();
    let mut job = setting.job();
    let url = setting.url.clone();
    let with = npm(&url, &[("credentials", "")]);
    let step = job.uses(&with);
    assert_passed(&step);
    setting.server.crash();
    let start = Instant::now();

    let post = job.post(&with, &step);

    assert_passed(&post);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let ids: Vec<String> = serde_json::from_str(&step.outputs["issuance_ids"]).unwrap();
    for id in ids {
        assert!(post.told("notice").contains(&id), "{post:?}");
    }
    assert!(
        post.told("notice").contains("it ends 2") && post.told("notice").contains("does not end by itself")
    );
    assert_eq!(job.exported["NPM_VALUE"], "", "the rest of the work is done all the same");
    assert!(!job.log().contains(CANARY) && !job.log().contains(&handle(&step)));
}

#[test]
fn what_has_ended_or_is_given_back_already_is_fine() {
    let setting = Setting::new();
    let front = Front::plain(setting.server.public.address);
    let mut job = setting.job();
    let with = setting.npm(&[]);
    let mut step = job.uses(&with);
    step.state.insert("url".to_owned(), format!("http://{}/", front.address));

    let [first, second] = [(); 2].map(|()| job.post(&with, &step));

    assert!(first.log.contains("is released") && second.log.contains("is released"), "{second:?}");
    assert_eq!(setting.releases(), 1);
    let asked = front.heads().len();
    let mut issuances: Value = serde_json::from_str(&step.state["issuances"]).unwrap();
    issuances[0]["end"] = json!("2026-01-01T00:00:00Z");
    step.state.insert("issuances".to_owned(), issuances.to_string());
    let ended = job.post(&with, &step);
    assert!(ended.passed && ended.annotations.is_empty(), "{ended:?}");
    assert_eq!(front.heads().len(), asked, "nobody is asked for what has ended");
    issuances[0]["end"] = Value::Null;
    issuances[0]["handle"] = json!(format!("hdl_{}", "0".repeat(52)));
    step.state.insert("issuances".to_owned(), issuances.to_string());
    let foreign = job.post(&with, &step);
    assert!(
        foreign.passed && foreign.annotations.is_empty() && foreign.log.contains("is over already"),
        "{foreign:?}"
    );
}

#[test]
fn giving_back_is_tried_three_times_and_then_told() {
    let setting = Setting::new();
    let front = Front::plain(setting.server.public.address);
    let mut job = setting.job();
    let with = setting.npm(&[]);
    let mut step = job.uses(&with);
    step.state.insert("url".to_owned(), format!("http://{}/", front.address));
    front.plan((0..3).map(|_| Fate::Answered(NOT_READY)));

    let post = job.post(&with, &step);

    assert_passed(&post);
    assert_eq!(front.heads().len(), 3);
    let told = post.told("notice");
    assert!(told.contains("503 not_ready, asked 3 times") && told.contains("iss_"), "{told}");
    assert_passed(&job.post(&with, &step));
    assert_eq!(setting.releases(), 1);
}

#[test]
fn answer_that_was_lost_is_asked_for_again_under_one_key() {
    let setting = Setting::new();
    let front = Front::plain(setting.server.public.address);
    front.plan([Fate::Answered(NOT_READY), Fate::Lost]);
    let mut job = setting.job();
    let url = format!("http://{}", front.address);
    let with = setting.npm(&[("url", &url)]);

    let step = job.uses(&with);

    assert_passed(&step);
    assert_eq!(job.exported["NPM_VALUE"], CANARY);
    let keys: Vec<String> = front.heads().iter().filter_map(|head| header(head, "idempotency-key")).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0] && key.len() >= 16), "{keys:?}");
    assert_eq!(setting.tokens.minted().len(), 1, "one token, one use of it");
}

/// A header's text in a request's head.
fn header(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

const NOT_READY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 0\r\n\
                         content-length: 46\r\nconnection: close\r\n\r\n{\"code\":\"not_ready\",\"status\":503,\"title\":\"no\"}";

#[test]
fn what_is_no_broker_is_said_to_be_none() {
    let setting = Setting::new();
    let front = Front::plain(setting.server.public.address);
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 18\r\nconnection: close\r\n\r\n{\"issuances\":[{}]}",
    ];
    for answer in answers {
        front.plan([Fate::Answered(answer)]);
        let mut job = setting.job();
        let url = format!("http://{}", front.address);

        let step = job.uses(&setting.npm(&[("url", &url)]));

        assert!(!step.passed && job.exported.is_empty(), "{step:?}");
        assert!(step.told("error").contains("broker"), "{step:?}");
    }
    assert_eq!(front.heads().len(), answers.len(), "no redirect is followed, nothing is asked again");
}

#[test]
fn cancelled_job_gives_back_what_was_on_its_way() {
    let setting = Setting::new();
    let front = Front::plain(setting.server.public.address);
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    front.plan([Fate::Held(std::sync::Arc::clone(&go))]);
    let mut job = setting.job();
    let url = format!("http://{}", front.address);
    let with = setting.npm(&[("url", &url)]);

    let step = job.cancelled(&with, || {
        crate::support::eventually("the issuance", || {
            (!setting.server.entries("ISSUED").is_empty()).then_some(())
        });
        || go.notify_one()
    });

    assert!(!step.passed && job.exported.is_empty(), "{step:?}");
    assert!(step.told("error").contains("cancelled"), "{step:?}");
    assert_passed(&job.post(&with, &step));
    assert_eq!(setting.releases(), 1);
}

#[test]
fn private_authority_is_trusted_where_the_step_names_it_and_nowhere_else() {
    let setting = Setting::new();
    let [ours, other] = [Authority::new(), Authority::new()];
    let front = Front::tls(setting.server.public.address, ours.certify_loopback().acceptor());
    let url = format!("https://{}", front.address);
    let refused = |with: &[(&str, &str)], set: &[(&str, &str)]| {
        let mut job = setting.job();
        for (name, value) in set {
            job.environment.insert((*name).to_owned(), (*value).to_owned());
        }
        let step = job.uses(&setting.npm(with));
        assert!(!step.passed, "{step:?}");
        assert!(step.told("error").contains("its certificate is not trusted"), "{step:?}");
    };

    refused(&[("url", &url)], &[]);
    refused(&[("url", &url), ("ca", &other.certificate)], &[]);
    refused(&[("url", &url)], &[("NODE_TLS_REJECT_UNAUTHORIZED", "0")]);

    assert!(front.heads().is_empty(), "no token went to whom we do not trust");
    let mut job = setting.job();
    let with = setting.npm(&[("url", &url), ("ca", &ours.certificate)]);
    let step = job.uses(&with);
    assert_passed(&step);
    // The post step has no input of its own: the workflow's may have changed.
    assert_passed(&job.post(&[("url", "https://elsewhere.test"), ("grant", "other")], &step));
    assert_eq!(setting.releases(), 1);
    fs::write(job.temp().join("ca.pem"), &ours.certificate).unwrap();
    let file = job.temp().join("ca.pem");
    assert_passed(&job.uses(&setting.npm(&[("url", &url), ("ca-file", file.to_str().unwrap())])));
}

#[test]
fn proxy_of_the_environment_is_used_and_sees_no_token() {
    let setting = Setting::new();
    let authority = Authority::new();
    let certified = authority.certify(&["hallpass.example"], |_| {});
    let front = Front::tls(setting.server.public.address, certified.acceptor());
    let proxy = Proxy::to(front.address);
    let mut job = setting.job();
    let address = format!("http://me:p%40ss@{}", proxy.address);
    job.environment.insert("HTTPS_PROXY".to_owned(), address);
    job.environment.insert("NO_PROXY".to_owned(), "other.example,10.0.0.0/8".to_owned());
    let with = setting.npm(&[("url", "https://hallpass.example:8440"), ("ca", &authority.certificate)]);

    let step = job.uses(&with);

    assert_passed(&step);
    assert_passed(&job.post(&with, &step));
    assert_eq!(setting.releases(), 1);
    let heads = proxy.heads();
    assert_eq!(heads.len(), 2, "{heads:?}");
    for head in heads {
        assert!(head.starts_with("CONNECT hallpass.example:8440 HTTP/1.1\r\n"), "{head}");
        // `me:p@ss`
        assert_eq!(header(&head, "proxy-authorization").unwrap(), "Basic bWU6cEBzcw==");
        assert!(!head.contains("Bearer"), "{head}");
    }
    job.environment.insert("NO_PROXY".to_owned(), ".example".to_owned());
    let step = job.uses(&setting.npm(&[("url", "https://hallpass.example:8440"), ("timeout", "5s")]));
    assert!(!step.passed, "no such name without the proxy: {step:?}");
    assert_eq!(proxy.heads().len(), 2);
}

#[test]
fn token_service_is_asked_again_where_that_may_help() {
    let setting = Setting::new();
    setting.tokens.answer_once(StatusCode::SERVICE_UNAVAILABLE);
    let mut job = setting.job();
    assert_passed(&job.uses(&setting.npm(&[])));

    setting.tokens.answer_once(StatusCode::FORBIDDEN);
    let step = setting.job().uses(&setting.npm(&[]));

    assert!(!step.passed);
    assert!(step.told("error").contains("GitHub's token service answered 403"), "{step:?}");
    assert_eq!(setting.tokens.minted().len(), 1);
}

#[test]
fn action_imports_nothing_but_node_and_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("action");
    let files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 2);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("// "), "{file:?} says what it is for");
        for line in text.lines().filter(|line| line.starts_with("import ") || line.contains("import(")) {
            let from = line.rsplit('"').nth(1).unwrap_or_default();
            let is_own = from.strip_prefix("./").is_some_and(|name| folder.join(name).exists());
            assert!(from.starts_with("node:") || is_own, "{file:?}: {line}");
        }
        for unwanted in ["rejectUnauthorized: false", "eval(", "new Function", "child_process", "fetch("] {
            assert!(!text.contains(unwanted), "{file:?} has {unwanted}");
        }
    }
}

#[test]
fn laws_of_the_actions_own_functions_hold() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/action");
    let files = fs::read_dir(tests).unwrap().map(|entry| entry.unwrap().path());
    let output = Command::new("node").arg("--test").args(files).output().expect("node; run .ci/run");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let passed = told.lines().find_map(|line| line.rsplit_once("pass ")?.1.trim().parse::<usize>().ok());
    assert!(passed.is_some_and(|count| count >= 20), "{told}");
}
