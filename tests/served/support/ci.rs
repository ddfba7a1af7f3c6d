//! A CI system around a job's step: its environment, its token endpoint, its command on the path. Each is as strict as
//! the real one: what the vendor would refuse is refused, and what it mints is for whom it was asked for.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{AUDIENCE, Server, installation::finish, runtime};

/// What GitHub's and Azure's endpoints take as bearer token.
pub(crate) const BEARER: &str = "ghs_the-jobs-own-request-token";

/// A step of a job: the binary in an empty folder, with an environment of its own and nothing of ours.
pub(crate) struct Step {
    folder: TempDir,
    command: Command,
}

impl Step {
    /// A step that runs the binary against a broker, for the audience that the kit's brokers want.
    pub(crate) fn new(server: &Server, arguments: &[&str]) -> Self {
        Self::at(&format!("http://{}", server.public.address), arguments)
    }

    /// The same against any URL.
    pub(crate) fn at(url: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("step-").tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().join("bin").display()))
            .env("HALLPASS_URL", url)
            .env("HALLPASS_AUDIENCE", AUDIENCE)
            .current_dir(folder.path());
        Self { folder, command }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// A file of the step, mode 0600; answers its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A program on the step's path: a fake of the CI system's own.
    pub(crate) fn program(self, name: &str, script: &str) -> Self {
        let bin = self.folder.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        // Written whole before it has its name: a script that is open for writing cannot be run.
        let draft = bin.join(".draft");
        fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(draft, bin.join(name)).unwrap();
        self
    }

    /// Runs it to the end.
    pub(crate) fn run(&mut self) -> Output {
        finish(&mut self.command, "")
    }

    /// Runs it; what it printed, where that was due to succeed.
    #[track_caller]
    pub(crate) fn ok(&mut self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it; what it said, where that was due to fail so. Nothing is on stdout then.
    #[track_caller]
    pub(crate) fn refused(&mut self, exit: i32) -> String {
        let output = self.run();
        assert_eq!(output.status.code(), Some(exit), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The command, to be run in another way.
    pub(crate) fn command(&self) -> &Command {
        &self.command
    }

    /// The step's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A CI system's token endpoint on loopback.
pub(crate) struct TokenEndpoint {
    /// Its URL, as the CI system puts it into the job's environment.
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TokenEndpoint {
    /// GitHub's: `GET …?api-version=2.0&audience=…`, answered with `{"count", "value"}`. `mint` is given the audience.
    pub(crate) fn github(mint: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let answer = move |request: &Asked| {
            let Some(audience) = request.parameter("audience") else { return Err("no audience") };
            if request.method != "GET" || request.parameter("api-version").as_deref() != Some("2.0") {
                return Err("not as GitHub is asked");
            }
            Ok(json!({ "count": 1994, "value": mint(&audience) }))
        };
        Self::start("/91/idtoken/5?api-version=2.0", answer)
    }

    /// Azure's: `POST …?api-version=7.1[&serviceConnectionId=…]`, answered with `{"oidcToken"}`. `mint` is given the
    /// service connection.
    pub(crate) fn azure(mint: impl Fn(Option<&str>) -> String + Send + Sync + 'static) -> Self {
        let answer = move |request: &Asked| {
            let is_api = request.parameter("api-version").as_deref() == Some("7.1");
            if request.method != "POST" || !is_api || !request.suppresses {
                return Err("not as Azure is asked");
            }
            Ok(json!({ "oidcToken": mint(request.parameter("serviceConnectionId").as_deref()) }))
        };
        Self::start("/acme/_apis/distributedtask/hubs/build/plans/1/jobs/2/oidctoken", answer)
    }

    /// One that answers as it likes, whatever it is asked.
    pub(crate) fn rude(respond: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            seen.lock().unwrap().push(request.uri().to_string());
            std::future::ready(respond())
        });
        Self { url: format!("{}/token?api-version=2.0", listen(router)), asked }
    }

    fn start(
        place: &'static str,
        answer: impl Fn(&Asked) -> Result<Value, &'static str> + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        let path = place.split('?').next().unwrap();
        let router = Router::new().fallback(move |request: Request| {
            seen.lock().unwrap().push(request.uri().to_string());
            let header =
                |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let is_ours = header("authorization").is_some_and(|value| value == format!("Bearer {BEARER}"));
            let asked = Asked {
                method: request.method().to_string(),
                query: request.uri().query().unwrap_or_default().to_owned(),
                suppresses: header("x-tfs-fedauthredirect").is_some_and(|value| value == "Suppress"),
            };
            let response = if !is_ours {
                (StatusCode::UNAUTHORIZED, "no bearer token of this job").into_response()
            } else if request.uri().path() != path {
                StatusCode::NOT_FOUND.into_response()
            } else {
                match answer(&asked) {
                    Ok(body) => Json(body).into_response(),
                    Err(why) => (StatusCode::BAD_REQUEST, why).into_response(),
                }
            };
            std::future::ready(response)
        });
        Self { url: format!("{}{place}", listen(router)), asked }
    }

    /// The paths and queries that it was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A request, as far as an endpoint looks at it.
struct Asked {
    method: String,
    query: String,
    suppresses: bool,
}

impl Asked {
    fn parameter(&self, name: &str) -> Option<String> {
        let url = reqwest::Url::parse(&format!("http://x/?{}", self.query)).unwrap();
        let values: Vec<String> =
            url.query_pairs().filter(|(each, _)| each == name).map(|(_, value)| value.into_owned()).collect();
        assert!(values.len() <= 1, "{name} is given twice: {}", self.query);
        values.into_iter().next()
    }
}

fn listen(router: Router) -> String {
    let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime().spawn(async move { axum::serve(listener, router).await });
    url
}
