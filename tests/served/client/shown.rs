//! What a step is shown: credentials in every form, read back by those who read it, and the grants that it may use.

use std::process::Command;

use serde_json::{Value, json};

use super::super::support::{
    Installation, Server,
    ci::Step,
    installation::{CANARY, finish},
    python,
};

const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMIIB+/='\"$x\n\n-----END PRIVATE KEY-----\n";

fn step(installation: &Installation, server: &Server, arguments: &[&str]) -> Step {
    let step = Step::new(server, &[arguments, &["--token-file", "token"]].concat());
    step.file("token", &installation.issuer.token());
    step
}

#[test]
fn a_shell_reads_back_what_get_wrote_for_it() {
    let installation = Installation::new();
    installation.set_secret("npm-token", &format!("{PEM}\n"));
    let server = installation.serve();
    let get = ["get", "deploy", "--credential", "npm", "--output", "env"];
    let step = step(&installation, &server, &get);
    let words: Vec<&str> = step.command().get_args().map(|word| word.to_str().unwrap()).collect();
    let script = format!(
        "lines=$({} {}) || exit 9\neval \"$lines\"\nsh -c 'printf %s \"$NPM_VALUE\"'",
        env!("CARGO_BIN_EXE_hallpass"),
        words.join(" ")
    );

    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).env_clear().current_dir(step.folder());
    shell.envs(step.command().get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = finish(&mut shell, "");

    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        PEM,
        "{:?}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn dotenv_is_written_where_every_reader_agrees_and_refused_elsewhere() {
    let installation = Installation::new();
    let server = installation.serve();
    let get = ["get", "deploy", "--credential", "deploy.npm", "--output", "dotenv"];

    assert_eq!(step(&installation, &server, &get).ok(), format!("NPM_VALUE='{CANARY}'\n"));

    installation.set_secret("npm-token", "it's \"both\" ${HOME}");
    let told = step(&installation, &server, &get).refused(2);
    assert!(told.contains("the value of NPM_VALUE cannot be written") && !told.contains("both"), "{told}");
}

#[test]
fn python_dotenv_reads_back_what_get_wrote_for_it() {
    let installation = Installation::new();
    let server = installation.serve();
    let mut reader = python::start("dotenv/read.py");
    let get = ["get", "deploy", "--credential", "npm", "--output", "dotenv"];
    for value in [
        "-----BEGIN KEY-----\nMIIB+/=\n\n-----END KEY-----\n",
        "it's",
        "a\\nb # $HOME `id`",
        "say \"no\"",
        " x ",
    ] {
        installation.set_secret("npm-token", &format!("{value}\n"));
        let text = step(&installation, &server, &get).ok();

        let read = reader.ask(&json!({ "text": text }));

        assert_eq!(read["values"], json!({ "NPM_VALUE": value }), "{text}");
    }
}

#[test]
fn one_field_is_written_as_it_is() {
    let installation = Installation::new();
    installation.set_secret("npm-token", &format!("{PEM}\n"));
    let server = installation.serve();
    for field in ["value", "npm.value"] {
        let get = ["get", "deploy", "--credential", "npm", "--field", field];
        assert_eq!(step(&installation, &server, &get).ok(), PEM);
    }
}

#[test]
fn a_wish_is_cut_to_what_was_asked() {
    let installation = Installation::new();
    let server = installation.serve();
    let get = ["get", "deploy", "--credential", "deploy.cloud", "--ttl", "2m", "--reason", "migration 42"];

    let answer: Value = serde_json::from_str(&step(&installation, &server, &get).ok()).unwrap();

    assert_eq!(answer["issuances"].as_array().unwrap().len(), 1);
    assert_eq!(answer["issuances"][0]["ttl_seconds"], 120);
    let told = step(&installation, &server, &["get", "deploy", "--credential", "other.npm"]).refused(2);
    assert!(told.contains("not asked for"), "{told}");
    assert_eq!(server.entries("ISSUED").len(), 1, "nothing was asked");
}

#[test]
fn an_input_that_no_credential_takes_is_refused_by_the_broker() {
    let installation = Installation::new();
    let server = installation.serve();
    let get = ["get", "deploy", "--input", "deploy.npm=@request.pem"];
    let step = step(&installation, &server, &get);
    step.file(
        "request.pem",
        "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n",
    );
    let mut step = step;

    let told = step.refused(2);

    assert!(told.contains("(input_invalid)"), "{told}");
}

#[test]
fn grants_lists_what_the_job_may_use() {
    let installation = Installation::new();
    let server = installation.serve();

    let told = step(&installation, &server, &["grants"]).ok();
    let json: Value =
        serde_json::from_str(&step(&installation, &server, &["grants", "--output", "json"]).ok()).unwrap();

    assert!(told.contains("deploy: What a deploy of payments needs\n  cloud (oidc), at most 5m\n"), "{told}");
    assert!(told.contains("  npm (sealed), never ends by itself\n"), "{told}");
    assert!(!told.contains("other-team"), "{told}");
    let names: Vec<&Value> = json["grants"].as_array().unwrap().iter().map(|grant| &grant["name"]).collect();
    assert!(names.contains(&&json!("deploy")), "{json}");
    server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["deploy"] })).ok();
}

#[test]
fn a_terminal_is_shown_no_secret_unasked() {
    let installation = Installation::new();
    let server = installation.serve();
    let in_terminal = |arguments: &[&str]| {
        let step = step(&installation, &server, arguments);
        let words: Vec<&str> = step.command().get_args().map(|word| word.to_str().unwrap()).collect();
        let line = format!("{} {}", env!("CARGO_BIN_EXE_hallpass"), words.join(" "));
        // util-linux's `script` gives its child a terminal.
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(step.folder());
        terminal.env_clear().envs(step.command().get_envs().filter_map(|(name, value)| Some((name, value?))));
        finish(&mut terminal, "")
    };

    let refused = in_terminal(&["get", "deploy", "--credential", "npm"]);
    let revealed = in_terminal(&["get", "deploy", "--credential", "npm", "--reveal"]);

    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(
        !text(&refused.stdout).contains(CANARY) && text(&refused.stdout).contains("--reveal"),
        "{refused:?}"
    );
    assert!(text(&revealed.stdout).contains(CANARY), "{revealed:?}");
    assert_eq!(server.entries("ISSUED").len(), 1, "what is not shown is not used up");
}
