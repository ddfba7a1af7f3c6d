//! Each CI system, emulated as strictly as it is: the token that it would give reaches the broker, without one word in
//! the step that says where it is.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    http::{StatusCode, header::LOCATION},
    response::IntoResponse as _,
};
use serde_json::{Value, json};

use super::super::{
    profiles::{Trusted, serve},
    support::{
        AUDIENCE, Installation,
        ci::{BEARER, Step, TokenEndpoint},
        installation::{CANARY, finish},
        issuer::now,
    },
};

/// What a step is given by GitHub.
fn github(step: Step, endpoint: &TokenEndpoint) -> Step {
    step.env("CI", "true")
        .env("GITHUB_ACTIONS", "true")
        .env("ACTIONS_ID_TOKEN_REQUEST_URL", &endpoint.url)
        .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", BEARER)
}

/// What a step is given by Azure Pipelines, where it maps its access token.
fn azure(step: Step, endpoint: &TokenEndpoint) -> Step {
    step.env("TF_BUILD", "True").env("SYSTEM_OIDCREQUESTURI", &endpoint.url).env("SYSTEM_ACCESSTOKEN", BEARER)
}

#[test]
fn a_github_job_asks_for_its_token() {
    let installation = Installation::new();
    let trusted = Trusted::new("github-actions");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let endpoint = TokenEndpoint::github(move |audience| trusted.token(&json!({ "aud": audience })));

    let mut step = github(Step::new(&server, &["get", "github-actions", "--field", "value"]), &endpoint);

    assert_eq!(step.ok(), CANARY);
    assert_eq!(step.ok(), CANARY, "a second step has a token of its own");
    let asked = "/91/idtoken/5?api-version=2.0&audience=https%3A%2F%2Fhallpass.test";
    assert_eq!(endpoint.asked(), [asked, asked]);
}

#[test]
fn the_brokers_url_is_the_audience_where_none_is_named() {
    let installation = Installation::new();
    let trusted = Trusted::new("github-actions");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    // Whatever is asked for, this one is minted for the broker.
    let endpoint = TokenEndpoint::github(move |_| trusted.token(&json!({})));
    let url = format!("http://{}", server.public.address);

    github(Step::new(&server, &["whoami"]), &endpoint).without("HALLPASS_AUDIENCE").ok();

    let asked = endpoint.asked().remove(0);
    let query = reqwest::Url::parse(&format!("http://x{asked}")).unwrap();
    let audience = query.query_pairs().find(|(name, _)| name == "audience").unwrap().1.into_owned();
    assert_eq!(audience, url);
}

#[test]
fn gitlab_jobs_find_theirs_in_a_variable_or_in_the_file_that_it_names() {
    let installation = Installation::new();
    let trusted = Trusted::new("gitlab");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let get = ["get", "gitlab", "--field", "value"];
    let step = |arguments: &[&str]| Step::new(&server, arguments).env("GITLAB_CI", "true").env("CI", "true");

    assert_eq!(step(&get).env("HALLPASS_ID_TOKEN", trusted.token(&json!({}))).ok(), CANARY);
    let file = step(&get);
    let path = file.file("HALLPASS_ID_TOKEN", &trusted.token(&json!({})));
    assert_eq!(file.env("HALLPASS_ID_TOKEN", path).ok(), CANARY);
    let other = [&get[..], &["--token-variable", "DEPLOY_ID_TOKEN"]].concat();
    assert_eq!(step(&other).env("DEPLOY_ID_TOKEN", trusted.token(&json!({}))).ok(), CANARY);
}

#[test]
fn a_buildkite_job_asks_its_agent() {
    let installation = Installation::new();
    let trusted = Trusted::new("buildkite");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let step = |script: &str| {
        Step::new(&server, &["get", "buildkite", "--field", "value"])
            .env("BUILDKITE", "true")
            .program("buildkite-agent", script)
    };
    // A fake of the agent: it takes this and nothing else, and says on stderr what agents say.
    let agent = format!(
        "[ \"$*\" = 'oidc request-token --audience {AUDIENCE} --claim organization_id,pipeline_id' ] || {{ echo \"fatal: $*\" >&2; exit 1; }}\n\
         echo 'INFO requesting token' >&2\necho '{}'",
        trusted.token(&json!({}))
    );

    assert_eq!(step(&agent).ok(), CANARY);

    let told = step("echo 'fatal: no job api socket' >&2; exit 7").refused(12);
    assert!(told.contains("exit status: 7: fatal: no job api socket"), "{told}");
    assert!(told.contains("mount-buildkite-agent: true"), "{told}");
}

#[test]
fn a_circleci_job_asks_its_command_and_else_reads_its_variable() {
    let installation = Installation::new();
    let trusted = Trusted::new("circleci");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let step = || Step::new(&server, &["get", "circleci", "--field", "value"]).env("CIRCLECI", "true");
    let command = format!(
        "[ \"$*\" = 'run oidc get --claims {{\"aud\":\"{AUDIENCE}\"}}' ] || {{ echo \"unknown: $*\" >&2; exit 1; }}\n\
         printf %s '{}'",
        trusted.token(&json!({}))
    );
    // The variable's token is for the organisation; where the command is, it is not looked at.
    let of_all = trusted.token(&json!({ "aud": "0f6e2b0a-6f0c-4c33-9a53-6cb6c2a3d111" }));

    assert_eq!(step().program("circleci", &command).env("CIRCLE_OIDC_TOKEN_V2", &of_all).ok(), CANARY);
    // Its tokens have no `jti`: two of one second with the same claims would be one token.
    let other = trusted.token(&json!({ "iat": now() - 5 }));
    assert_eq!(step().env("CIRCLE_OIDC_TOKEN_V2", other).ok(), CANARY);

    let told = step().env("CIRCLE_OIDC_TOKEN_V2", &of_all).refused(10);
    assert!(told.contains("token_audience") && told.contains("0f6e2b0a-6f0c"), "{told}");
}

#[test]
fn an_azure_job_posts_to_its_endpoint() {
    let installation = Installation::new();
    let trusted = Trusted::new("azure-devops");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let endpoint = TokenEndpoint::azure(move |connection| {
        let subject = connection.map(|id| json!({ "sub": format!("sc://acme/payments/{id}") }));
        trusted.token(&subject.unwrap_or(json!({})))
    });
    let step =
        |arguments: &[&str]| azure(Step::new(&server, arguments).without("HALLPASS_AUDIENCE"), &endpoint);
    let get = ["get", "azure-devops", "--field", "value"];

    assert_eq!(step(&get).ok(), CANARY);

    let whoami = ["whoami", "--output", "json", "--service-connection", "prod"];
    let subject: Value = serde_json::from_str(&step(&whoami).ok()).unwrap();
    assert_eq!(subject["subject"], "sc://acme/payments/prod");
    let path = "/acme/_apis/distributedtask/hubs/build/plans/1/jobs/2/oidctoken?api-version=7.1";
    assert_eq!(endpoint.asked(), [path.to_owned(), format!("{path}&serviceConnectionId=prod")]);
}

#[test]
fn a_bitbucket_step_finds_its_token_in_a_variable() {
    let installation = Installation::new();
    let trusted = Trusted::new("bitbucket");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let mut step = Step::new(&server, &["get", "bitbucket", "--field", "value"])
        .env("BITBUCKET_BUILD_NUMBER", "7")
        .env("BITBUCKET_STEP_OIDC_TOKEN", trusted.token(&json!({})));

    assert_eq!(step.ok(), CANARY);
}

#[test]
fn a_pod_finds_its_token_where_it_is_projected() {
    let installation = Installation::new();
    let trusted = Trusted::new("kubernetes");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let step = Step::new(&server, &["get", "kubernetes", "--field", "value"])
        .env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let token = step.file("projected", &trusted.token(&json!({})));
    // A place of its own for the file: nobody else on this machine is to find it.
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/secrets/hallpass && cp {} /run/secrets/hallpass/token && exec \"$@\"",
        token.display()
    );
    let mut pod = Command::new("unshare");
    pod.args(["--mount", "--map-root-user", "sh", "-c", &script, "sh"]);
    pod.arg(step.command().get_program()).args(step.command().get_args()).env_clear();
    pod.envs(step.command().get_envs().filter_map(|(name, value)| Some((name, value?))));

    let output = finish(pod.current_dir(step.folder()), "");

    assert_eq!(String::from_utf8_lossy(&output.stdout), CANARY, "{output:?}");
}

#[test]
fn who_points_at_a_token_is_believed_before_the_ci_system() {
    let installation = Installation::new();
    let trusted = Trusted::new("generic");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let endpoint = TokenEndpoint::github(|_| panic!("it is not asked"));
    let step = |arguments: &[&str]| github(Step::new(&server, arguments), &endpoint);
    let get = ["get", "generic", "--field", "value"];

    assert_eq!(step(&get).env("HALLPASS_ID_TOKEN", trusted.token(&json!({}))).ok(), CANARY);
    let file = step(&get);
    let path = file.file("token", &trusted.token(&json!({})));
    assert_eq!(file.env("HALLPASS_TOKEN_FILE", path).ok(), CANARY);
    let file = step(&[&get[..], &["--token-file", "token"]].concat());
    file.file("token", &trusted.token(&json!({})));
    assert_eq!(file.env("HALLPASS_TOKEN_FILE", "/nowhere").ok(), CANARY);
    assert!(endpoint.asked().is_empty());
}

#[test]
fn a_token_endpoint_that_passes_is_asked_again_and_no_redirect_is_followed() {
    let installation = Installation::new();
    let trusted = Trusted::new("github-actions");
    let server = serve(&installation, std::slice::from_ref(&trusted));
    let tries = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&tries);
    let mint = move || {
        let body = json!({ "value": trusted.token(&json!({})) });
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            _ => axum::Json(body).into_response(),
        }
    };
    let passing = TokenEndpoint::rude(mint);
    github(Step::new(&server, &["whoami"]), &passing).ok();
    assert_eq!(tries.load(Ordering::SeqCst), 2);

    let elsewhere = TokenEndpoint::rude(|| panic!("it is not asked"));
    let away = elsewhere.url.clone();
    let redirecting =
        TokenEndpoint::rude(move || (StatusCode::FOUND, [(LOCATION, away.clone())]).into_response());
    let told = github(Step::new(&server, &["whoami"]), &redirecting).refused(12);
    assert!(told.contains("answered 302"), "{told}");
    assert!(elsewhere.asked().is_empty());

    for (body, due) in [
        ("x".repeat(70 * 1024), "too large"),
        ("{\"count\":1}".to_owned(), "without `value`"),
        ("{\"value\":\"\"}".to_owned(), "is empty"),
        ("{\"value\":7}".to_owned(), "without `value`"),
    ] {
        let rude = TokenEndpoint::rude(move || body.clone().into_response());
        let told = github(Step::new(&server, &["whoami"]), &rude).refused(12);
        assert!(told.contains(due), "{told}");
        assert_eq!(rude.asked().len(), 1, "it is not asked again");
    }
}
