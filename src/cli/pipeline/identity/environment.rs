//! What detection looks at, read once: the variables that CI systems set, two programs and one file. The detectors are
//! pure functions of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io::Read as _,
    path::Path,
};

use serde_json::Value;

use crate::kernel::json::read_bounded;

/// The environment of a job, as far as it tells where its identity token is. It may hold tokens, so it has no `Debug`.
#[derive(Default)]
pub(in crate::cli::pipeline) struct Environment {
    variables: BTreeMap<String, String>,
    programs: BTreeSet<&'static str>,
    has_projected_token: bool,
    event: Option<Value>,
}

/// Where a pod's projected token is found unasked. The pod's own token, for the API server, stands elsewhere and is
/// never sent to anybody: what it opens is the cluster.
pub(super) const PROJECTED_TOKEN: &str = "/var/run/secrets/hallpass/token";

/// GitHub's webhook payloads have 25 MB at most; those of pull requests have some tens of kilobytes.
const MOST_EVENT_BYTES: u64 = 25 * 1024 * 1024;

/// Programs of CI systems that mint tokens.
const PROGRAMS: [&str; 2] = ["buildkite-agent", "circleci"];

/// Every variable that a detector or an explanation reads.
const VARIABLES: [&str; 19] = [
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID",
    "BITBUCKET_BUILD_NUMBER",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "BUILDKITE",
    "CIRCLECI",
    "CIRCLE_OIDC_TOKEN_V2",
    "CI_JOB_JWT",
    "GITHUB_ACTIONS",
    "GITHUB_EVENT_PATH",
    "GITLAB_CI",
    "HALLPASS_ID_TOKEN",
    "HALLPASS_SERVICE_CONNECTION",
    "HALLPASS_TOKEN_FILE",
    "KUBERNETES_SERVICE_HOST",
    "SYSTEM_ACCESSTOKEN",
    "SYSTEM_OIDCREQUESTURI",
    "TF_BUILD",
];

impl Environment {
    /// The process's own, with one more variable where an option names it.
    pub(in crate::cli::pipeline) fn of_process(more: Option<&str>) -> Self {
        let names = VARIABLES.into_iter().chain(more);
        let variables = names.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut environment = Self {
            variables: variables.collect(),
            programs: PROGRAMS.into_iter().filter(|program| is_on(&path, program)).collect(),
            has_projected_token: Path::new(PROJECTED_TOKEN).exists(),
            event: None,
        };
        // It explains why there is no token; a job that has one need not read a megabyte.
        if environment.variable("ACTIONS_ID_TOKEN_REQUEST_URL").is_none() {
            environment.event = environment.variable("GITHUB_EVENT_PATH").and_then(read_event);
        }
        environment
    }

    /// A variable; an empty one is none, since CI systems write those for what they do not have.
    pub(in crate::cli::pipeline) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }

    /// Whether a variable is `true`, however it is written.
    pub(in crate::cli::pipeline) fn says(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The event that started a run of GitHub Actions which is given no token.
    pub(super) fn event(&self) -> Option<&Value> {
        self.event.as_ref()
    }

    /// Whether a program is on the path.
    pub(super) fn has_program(&self, program: &str) -> bool {
        self.programs.contains(program)
    }

    /// Whether a token is projected to [`PROJECTED_TOKEN`].
    pub(super) fn has_projected_token(&self) -> bool {
        self.has_projected_token
    }
}

fn is_on(path: &OsStr, program: &str) -> bool {
    std::env::split_paths(path).any(|folder| folder.join(program).is_file())
}

/// What cannot be read explains nothing.
fn read_event(path: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MOST_EVENT_BYTES).read_to_end(&mut bytes).ok()?;
    read_bounded(&bytes).ok()
}

#[cfg(test)]
impl Environment {
    /// One that a test makes up.
    pub(in crate::cli::pipeline) fn of(variables: &[(&str, &str)]) -> Self {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self { variables: owned.collect(), ..Self::default() }
    }

    /// The same with a program on its path.
    pub(in crate::cli::pipeline) fn with_program(mut self, program: &'static str) -> Self {
        self.programs.insert(program);
        self
    }

    /// The same with a run's event.
    pub(super) fn with_event(self, event: Value) -> Self {
        Self { event: Some(event), ..self }
    }

    /// The same with a projected token.
    pub(in crate::cli::pipeline) fn with_projected_token(self) -> Self {
        Self { has_projected_token: true, ..self }
    }
}
