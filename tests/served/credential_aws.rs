//! `hallpass credential aws-process` behind the real AWS CLI and SDK, against an endpoint that works out every signature
//! by itself.

use std::{fs, process::Command};

use serde_json::{Value, json};

use super::{
    exec::{Job, text},
    support::{eventually, installation::finish, npm::Script, python},
};

const SESSION: &str = "session/token+with=signs";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

const CLOUD: &str = r#"grant: cloud
allow:
  - name: from-main
    issuer: ci
    match: { repository_owner_id: "4216", repository_id: "70155112", ref: refs/heads/main, event_name: push }
credentials:
  keys:
    sealed: { secret: aws-keys }
  npm:
    sealed: { secret: npm-token }
"#;

/// A job that has an access key, and a configuration of AWS that asks us for it.
struct Cloud {
    job: Job,
    strict: Script,
    url: String,
}

impl Cloud {
    fn new() -> Self {
        let job = Job::with(&[("cloud", CLOUD)]);
        let fields =
            json!({ "access_key_id": "AKIATEST", "secret_access_key": SECRET, "session_token": SESSION });
        job.installation.set_fields("aws-keys", &fields);
        let mut strict =
            Script::spawn(python::program("aws", "python").arg(python::tests().join("aws/sts.py")));
        let url = strict.next()["url"].as_str().unwrap().to_owned();
        strict.ask(&json!({ "accept": { "id": "AKIATEST", "secret": SECRET, "session": SESSION } }));
        let process = format!(
            "[default]\nregion = eu-west-2\ncredential_process = {} credential aws-process cloud --credential keys --token-file {}\n",
            env!("CARGO_BIN_EXE_hallpass"),
            job.installation.file("ci.token").display(),
        );
        job.installation.write("aws.config", &process);
        Self { job, strict, url }
    }

    /// A program of AWS's in the job's environment, with a token that was not used.
    fn aws(&self, program: &str) -> Command {
        fs::rename(self.job.token(), self.job.installation.file("ci.token")).unwrap();
        let mut command = python::program("aws", program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("AWS_CONFIG_FILE", self.job.installation.file("aws.config"));
        command.env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null").env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("HALLPASS_URL", format!("http://{}", self.job.server.public.address));
        command
    }
}

#[test]
fn aws_cli_signs_with_what_it_is_given() {
    let mut cloud = Cloud::new();
    let mut command = cloud.aws("aws");
    command.args(["sts", "get-caller-identity", "--output", "json", "--endpoint-url", &cloud.url]);

    let output = finish(&mut command, "");

    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["Account"], "123456789012");
    assert_eq!(cloud.strict.ask(&json!({})), json!({ "signed": ["AKIATEST"], "refused": [] }));
}

/// What the test above shows is worth something: another secret is refused by the same endpoint.
#[test]
fn aws_cli_with_another_secret_is_refused() {
    let mut cloud = Cloud::new();
    let other =
        json!({ "access_key_id": "AKIATEST", "secret_access_key": "other", "session_token": SESSION });
    cloud.job.installation.set_fields("aws-keys", &other);
    let mut command = cloud.aws("aws");
    let output = finish(command.args(["sts", "get-caller-identity", "--endpoint-url", &cloud.url]), "");

    assert!(!output.status.success(), "{output:?}");
    assert_eq!(cloud.strict.ask(&json!({}))["signed"], json!([]));
}

#[test]
fn sdk_signs_with_what_it_is_given() {
    let cloud = Cloud::new();
    let mut command = cloud.aws("python");
    let mut sdk = Script::spawn(command.arg(python::tests().join("aws/caller.py")).arg(&cloud.url));

    for _ in 0..3 {
        assert_eq!(sdk.ask(&json!({})), json!({ "account": "123456789012" }));
    }

    // A key without an end is asked for once.
    assert_eq!(cloud.job.server.entries("ISSUED").len(), 1);
}

#[test]
fn answer_is_what_aws_documents_and_talk_holds_no_secret() {
    let cloud = Cloud::new();
    let mut command =
        cloud.job.step(&["credential", "aws-process", "cloud", "--credential", "keys", "--token-file"]);

    let output = finish(command.arg(cloud.job.token()), "");

    assert_eq!(text(&output.stderr), "");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({ "Version": 1, "AccessKeyId": "AKIATEST", "SecretAccessKey": SECRET, "SessionToken": SESSION });
    assert_eq!(answer, expected, "no Expiration where there is no end");
}

#[test]
fn what_is_no_access_key_is_refused_without_a_word_of_it() {
    let job = Job::with(&[("cloud", CLOUD)]);
    let token = job.installation.file("ci.token");
    fs::write(&token, job.installation.issuer.token()).unwrap();
    let mut command =
        job.step(&["credential", "aws-process", "cloud", "--credential", "npm", "--token-file"]);

    let output = finish(command.arg(job.token()), "");

    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
    assert!(!text(&output.stderr).contains(super::support::installation::CANARY));
}

/// A key that ends: the SDK asks again by itself, and signs with the new one.
#[test]
fn sdk_asks_again_when_the_end_is_near() {
    let broker = super::exec_refresh::Brief::start(3);
    let mut strict = Script::spawn(python::program("aws", "python").arg(python::tests().join("aws/sts.py")));
    let url = strict.next()["url"].as_str().unwrap().to_owned();
    for generation in 1..200 {
        strict.ask(&json!({ "accept": super::exec_refresh::access_key(generation) }));
    }
    let folder = tempfile::tempdir().unwrap();
    let process = format!(
        "[default]\ncredential_process = {} credential aws-process cloud\n",
        env!("CARGO_BIN_EXE_hallpass")
    );
    let config = folder.path().join("config");
    fs::write(&config, process).unwrap();
    let mut command = python::program("aws", "python");
    broker.as_job(&mut command);
    command.arg(python::tests().join("aws/caller.py")).arg(url);
    command.env("AWS_CONFIG_FILE", config).env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");

    let mut sdk = Script::spawn(&mut command);

    eventually("signatures with two keys", || {
        assert_eq!(sdk.ask(&json!({})), json!({ "account": "123456789012" }));
        let mut signed = strict.ask(&json!({}))["signed"].as_array().unwrap().clone();
        signed.dedup();
        (signed.len() > 1).then_some(())
    });
}
