//! Denials that help: what the client says when there is no token, or the broker refuses it. Never a part of a token,
//! and of policy nothing that the broker did not say.

use std::fs;

use serde_json::{Value, json};

use super::super::{
    profiles::{Trusted, serve},
    support::{
        AUDIENCE, Installation,
        ci::{BEARER, Step, TokenEndpoint},
        installation::run,
        issuer::now,
    },
};

#[track_caller]
fn assert_holds(text: &str, due: &[&str]) {
    for due in due {
        assert!(text.contains(due), "no {due:?} in:\n{text}");
    }
}

#[test]
fn a_github_job_without_the_permission_is_told_the_whole_block() {
    let step = Step::at("https://hallpass.example.com", &["get", "deploy"]).env("GITHUB_ACTIONS", "true");
    let summary = step.file("summary", "from an earlier step\n");

    let mut step = step.env("GITHUB_STEP_SUMMARY", &summary);
    let told = step.refused(12);

    let block = "  permissions:                # of the workflow or the job; a caller of a reusable workflow needs them too\n    \
                 id-token: write           # lets the job ask for its identity token\n    contents: read ";
    assert_holds(
        &told,
        &["this is GitHub Actions, and the job lacks the permission `id-token: write`\n", block],
    );
    let annotation = told.lines().find(|line| line.starts_with("::error title=Hallpass::")).unwrap();
    assert_holds(annotation, &["no CI identity token", "%0A    id-token: write"]);
    let summary = fs::read_to_string(summary).unwrap();
    assert_holds(
        &summary,
        &["from an earlier step\n### Hallpass: no identity token\n\n```text\n", block, "\n```\n"],
    );
}

#[test]
fn a_forks_pull_request_is_told_from_a_missing_permission() {
    let event = |head: &str| {
        let repository = |name: &str| json!({ "repo": { "full_name": name } });
        json!({ "pull_request": { "head": repository(head), "base": repository("acme/payments") } })
            .to_string()
    };
    let told = |head: &str| {
        let step = Step::at("https://hallpass.example.com", &["get", "deploy"]).env("GITHUB_ACTIONS", "true");
        let path = step.file("event.json", &event(head));
        step.env("GITHUB_EVENT_PATH", path).refused(12)
    };
    assert_holds(
        &told("mallory/payments"),
        &["pull request from the fork mallory/payments", "if: github.event"],
    );
    assert_holds(&told("acme/payments"), &["lacks the permission"]);
}

#[test]
fn every_ci_system_that_gives_no_token_says_what_to_paste_for_this_broker() {
    for (variable, system, due) in [
        ("GITLAB_CI", "GitLab CI/CD", "HALLPASS_ID_TOKEN:\n        aud: \"https://hallpass.test\""),
        ("BUILDKITE", "Buildkite", "mount-buildkite-agent: true"),
        ("CIRCLECI", "CircleCI", "context: [your-context]"),
        ("TF_BUILD", "Azure Pipelines", "SYSTEM_ACCESSTOKEN: $(System.AccessToken)"),
        ("BITBUCKET_BUILD_NUMBER", "Bitbucket Pipelines", "audiences: [\"https://hallpass.test\"]"),
        (
            "KUBERNETES_SERVICE_HOST",
            "a Kubernetes pod",
            "serviceAccountToken: { audience: \"https://hallpass.test\"",
        ),
    ] {
        let told =
            Step::at("https://hallpass.example.com", &["get", "deploy"]).env(variable, "true").refused(12);
        assert_holds(&told, &[&format!("this is {system}, and "), due]);
    }
    let nowhere = Step::at("https://hallpass.example.com", &["grants"]).refused(12);
    assert_holds(&nowhere, &["no CI system was found", "whoami --explain", AUDIENCE]);
}

#[test]
fn a_token_for_somebody_else_is_said_to_be_so_beforehand_and_with_what_to_paste() {
    let installation = Installation::new();
    let trusted = Trusted::new("gitlab");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let token = trusted.token(&json!({ "aud": "https://vault.example.com" }));

    let told = Step::new(&server, &["get", "gitlab"])
        .env("GITLAB_CI", "true")
        .env("HALLPASS_ID_TOKEN", &token)
        .refused(10);

    assert_holds(
        &told,
        &[
            "the broker will probably refuse the token: it is for `https://vault.example.com`",
            "(token_audience)",
            "request_id: req_",
            "the token: GitLab CI/CD, which reads the variable HALLPASS_ID_TOKEN",
            "is for `https://vault.example.com`; this broker wants `https://hallpass.test`, as --audience or HALLPASS_AUDIENCE",
            "HALLPASS_ID_TOKEN:\n        aud: \"https://hallpass.test\"",
        ],
    );
    assert!(!told.contains(&token[..40]), "{told}");
}

#[test]
fn who_asks_for_the_brokers_url_where_it_wants_another_audience_is_told_to_name_it() {
    let installation = Installation::new();
    let trusted = Trusted::new("github-actions");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let endpoint = TokenEndpoint::github(move |audience| trusted.token(&json!({ "aud": audience })));

    let told = Step::new(&server, &["get", "github-actions"])
        .without("HALLPASS_AUDIENCE")
        .env("GITHUB_ACTIONS", "true")
        .env("ACTIONS_ID_TOKEN_REQUEST_URL", &endpoint.url)
        .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", BEARER)
        .refused(10);

    assert_holds(
        &told,
        &["(token_audience)", "wants another audience from this issuer", "set HALLPASS_AUDIENCE to it"],
    );
    assert!(!told.contains(BEARER), "{told}");
}

#[test]
fn an_expired_token_is_said_to_be_so_in_seconds() {
    let installation = Installation::new();
    let trusted = Trusted::new("gitlab");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let token = trusted.token(&json!({ "iat": now() - 1000, "nbf": now() - 1000, "exp": now() - 400 }));

    let told = Step::new(&server, &["get", "gitlab"])
        .env("GITLAB_CI", "true")
        .env("HALLPASS_ID_TOKEN", token)
        .refused(10);

    let advance = told.lines().find(|line| line.contains("will probably refuse")).unwrap();
    assert!(advance.contains("it expired 40"), "{told}");
    assert_holds(&told, &["(token_expired)", "max_token_age"]);
}

#[test]
fn a_denied_job_is_told_whom_to_give_which_decision() {
    let installation = Installation::new();
    let server = installation.serve();
    let step =
        Step::new(&server, &["get", "other-team", "--token-file", "token"]).env("GITHUB_ACTIONS", "true");
    let token = installation.issuer.token();
    step.file("token", &token);
    let summary = step.file("summary", "");

    let mut step = step.env("GITHUB_STEP_SUMMARY", &summary);
    let told = step.refused(10);

    let decision = server.entries("DENIED")[0]["decision"].as_str().unwrap().to_owned();
    let command = format!("hallpass ledger show {decision}");
    assert_holds(
        &told,
        &["(access_denied)", "repository acme/payments, ref refs/heads/main, event_name push", &command],
    );
    assert!(!told.contains("theirs") && !told.contains("repository_id"), "nothing of policy: {told}");
    assert!(!told.contains(&token[..40]), "{told}");
    assert_eq!(told.matches("::error").count(), 1, "{told}");
    assert_holds(&fs::read_to_string(summary).unwrap(), &["### Hallpass: denied", &decision]);
    // The command that it names tells the administrator the reason.
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    assert_holds(&run(&mut installation.command(&words), ""), &["DENIED", &decision]);
}

#[test]
fn an_owner_is_told_the_names_of_the_claims_and_a_stranger_is_not() {
    let installation = Installation::new();
    let grant = "grant: ours\ndescription: Tells its own project\ndisclose: owner\nallow:\n  - name: r\n    issuer: ci\n    \
                 match: { repository_owner_id: \"4216\", repository_id: \"70155112\", ref: refs/heads/release }\n\
                 credentials:\n  npm: { sealed: { secret: npm-token } }\n";
    installation.write("policies/grants/ours.yaml", grant);
    let server = installation.serve();
    let told = |token: &str| {
        let step = Step::new(&server, &["get", "ours", "--token-file", "token"]);
        step.file("token", token);
        let mut step = step;
        step.refused(10)
    };

    let owner = told(&installation.issuer.token());
    let stranger = told(&installation.issuer.token_with(json!({ "repository_id": "999" })));

    assert_holds(&owner, &["claims that no rule of the grant takes as they are: ref"]);
    assert!(!owner.contains("refs/heads/release"), "names only: {owner}");
    assert!(!stranger.contains("takes as they are"), "{stranger}");
}

#[test]
fn a_dangerous_trigger_is_named_as_the_likely_reason() {
    let installation = Installation::new();
    let trusted = Trusted::new("github-actions");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let changes = json!({ "event_name": "pull_request_target" });
    let endpoint = TokenEndpoint::github(move |_| trusted.token(&changes));

    let told = Step::new(&server, &["get", "github-actions"])
        .env("GITHUB_ACTIONS", "true")
        .env("ACTIONS_ID_TOKEN_REQUEST_URL", &endpoint.url)
        .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", BEARER)
        .refused(10);

    assert_holds(&told, &["its trigger is `pull_request_target`", "denied unless a rule names it"]);
}

#[test]
fn a_search_is_explained_step_by_step() {
    let installation = Installation::new();
    let trusted = Trusted::new("gitlab");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let step = |arguments: &[&str]| {
        Step::new(&server, arguments)
            .env("GITLAB_CI", "true")
            .env("HALLPASS_ID_TOKEN", trusted.token(&json!({})))
    };

    let told = step(&["whoami", "--explain"]).ok();
    assert_holds(
        &told,
        &[
            "looked for:\n  a token that was pointed at: declined, neither --token-file nor HALLPASS_TOKEN_FILE",
            "  GitHub Actions: declined, GITHUB_ACTIONS is not true\n",
            "  GitLab CI/CD: fired, reads the variable HALLPASS_ID_TOKEN\n",
            "token, unverified:\n",
            "    project_path: acme/payments\n",
            "  is_for_it: true\n",
            "verified:\n",
            "  profile: gitlab\n",
        ],
    );

    let told: Value = serde_json::from_str(&step(&["whoami", "--explain", "--output", "json"]).ok()).unwrap();
    assert_eq!(told["detectors"][2]["verdict"], "fired");
    assert_eq!(told["token"]["claims"]["project_path"], "acme/payments");
    assert_eq!(told["whoami"]["profile"], "gitlab");

    // It explains also where nothing comes of it.
    let output = Step::new(&server, &["whoami", "--explain"]).env("CIRCLECI", "true").run();
    assert_eq!(output.status.code(), Some(12), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_holds(
        &shown,
        &["  Buildkite: declined", "  CircleCI: no token, the command `circleci` is not on the path"],
    );
    assert!(!shown.contains("Azure"), "{shown}");
}
