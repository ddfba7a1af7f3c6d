//! Detection: the detectors in their order, what each says, and which one counts. Pure over an [`Environment`].

use std::{
    fmt,
    path::{Path, PathBuf},
};

use reqwest::Url;

use super::{System, environment::Environment};

/// What a command is told about the token by its options, and by whom it is to be accepted.
pub(in crate::cli::pipeline) struct Wish<'a> {
    /// The file that holds it; `-` is stdin.
    pub(in crate::cli::pipeline) file: Option<&'a Path>,
    /// The variable that holds it.
    pub(in crate::cli::pipeline) variable: Option<&'a str>,
    /// Azure's service connection.
    pub(in crate::cli::pipeline) service_connection: Option<&'a str>,
    /// Whom it is for.
    pub(in crate::cli::pipeline) audience: &'a str,
}

/// What a detector says.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::cli::pipeline) enum Found {
    /// This is not its CI system.
    Declined(String),
    /// It is, and a token is to be had so.
    Fired(Way),
    /// It is, and this job is given none: why.
    Withheld(String),
}

/// How a token is had. No secret stands here, only names of variables.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::cli::pipeline) enum Way {
    /// A file, read anew each time.
    File(PathBuf),
    /// The output of a program.
    Program {
        /// Its name, looked up on the path.
        name: &'static str,
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// The answer of the CI system's token endpoint.
    Request(Endpoint),
    /// Standard input.
    Stdin,
    /// A variable.
    Variable(String),
}

/// A token endpoint on https or loopback.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::cli::pipeline) struct Endpoint {
    /// How it is asked.
    pub(super) method: Method,
    /// Where.
    pub(super) url: Url,
    /// The variable whose value is the bearer token.
    pub(super) bearer: &'static str,
    /// The member of the answer that is the token.
    pub(super) member: &'static str,
}

/// How an endpoint is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::cli::pipeline) enum Method {
    /// As GitHub's is.
    Get,
    /// As Azure's is, without a body.
    Post,
}

/// What all detectors that were asked say: the last one fired, or was withheld a token, or nobody was.
pub(in crate::cli::pipeline) struct Search {
    /// Who was asked, in order.
    pub(in crate::cli::pipeline) tried: Vec<(System, Found)>,
}

impl Search {
    /// Asks until one fires. One that is withheld a token ends the search too: what stands behind it, such as the pod
    /// that a runner lives in, is another identity than the job's.
    pub(in crate::cli::pipeline) fn run(environment: &Environment, wish: &Wish<'_>) -> Self {
        let mut tried = Vec::new();
        for system in System::ALL {
            let found = system.detect(environment, wish);
            let is_last = !matches!(found, Found::Declined(_));
            tried.push((system, found));
            if is_last {
                break;
            }
        }
        Self { tried }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "reads {}", path.display()),
            Self::Program { name, arguments } => write!(f, "runs {name} {}", arguments.join(" ")),
            Self::Request(endpoint) => {
                let method = match endpoint.method {
                    Method::Get => "GET",
                    Method::Post => "POST",
                };
                let host = endpoint.url.host_str().unwrap_or_default();
                write!(f, "asks the token endpoint at {host} ({method}, bearer from {})", endpoint.bearer)
            }
            Self::Stdin => f.write_str("reads stdin"),
            Self::Variable(name) => write!(f, "reads the variable {name}"),
        }
    }
}

/// The endpoint that a variable names, where a token may be sent there.
///
/// # Errors
///
/// Why it may not.
pub(super) fn endpoint(environment: &Environment, variable: &str) -> Result<Url, String> {
    let text = environment.variable(variable).ok_or_else(|| format!("{variable} is not set"))?;
    let url = Url::parse(text).map_err(|fault| format!("{variable} holds no URL: {fault}"))?;
    if super::super::super::config::is_secure(&url) {
        Ok(url)
    } else {
        Err(format!("{variable} is neither https nor on loopback; a token would pass in the clear"))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::environment::PROJECTED_TOKEN, *};

    const AUDIENCE: &str = "https://hallpass.example.com";
    const NOTHING: &[(&str, &str)] = &[];
    const GITHUB: &[(&str, &str)] = &[
        ("GITHUB_ACTIONS", "true"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://run.actions.example.com/7?api-version=2.0"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request"),
    ];
    const GITLAB: &[(&str, &str)] = &[("GITLAB_CI", "true"), ("HALLPASS_ID_TOKEN", "eyJ.e.s")];
    const AZURE: &[(&str, &str)] = &[
        ("TF_BUILD", "True"),
        ("SYSTEM_OIDCREQUESTURI", "https://dev.azure.com/acme/1/oidctoken"),
        ("SYSTEM_ACCESSTOKEN", "access"),
    ];

    fn wish() -> Wish<'static> {
        Wish { file: None, variable: None, service_connection: None, audience: AUDIENCE }
    }

    fn variable(name: &str) -> Found {
        Found::Fired(Way::Variable(name.to_owned()))
    }

    fn program(name: &'static str, arguments: &[&str]) -> Found {
        let arguments = arguments.iter().map(|each| (*each).to_owned()).collect();
        Found::Fired(Way::Program { name, arguments })
    }

    fn request(method: Method, url: &str, bearer: &'static str, member: &'static str) -> Found {
        Found::Fired(Way::Request(Endpoint { method, url: url.parse().unwrap(), bearer, member }))
    }

    /// What the last of those who were asked says.
    fn end(environment: &Environment, wish: &Wish<'_>) -> (System, Found) {
        let mut tried = Search::run(environment, wish).tried;
        tried.pop().unwrap()
    }

    #[test]
    fn each_ci_system_is_found_by_what_it_sets() {
        let of = Environment::of;
        let asked =
            "https://run.actions.example.com/7?api-version=2.0&audience=https%3A%2F%2Fhallpass.example.com";
        let azure = "https://dev.azure.com/acme/1/oidctoken?api-version=7.1";
        let buildkite =
            ["oidc", "request-token", "--audience", AUDIENCE, "--claim", "organization_id,pipeline_id"];
        let circle = ["run", "oidc", "get", "--claims", r#"{"aud":"https://hallpass.example.com"}"#];
        let table = [
            (
                of(&[("HALLPASS_TOKEN_FILE", "/run/t")]),
                System::Explicit,
                Found::Fired(Way::File("/run/t".into())),
            ),
            (of(&[("HALLPASS_ID_TOKEN", "eyJ.e.s")]), System::Explicit, variable("HALLPASS_ID_TOKEN")),
            (
                of(GITHUB),
                System::GitHub,
                request(Method::Get, asked, "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "value"),
            ),
            (of(GITLAB), System::GitLab, variable("HALLPASS_ID_TOKEN")),
            (
                of(&[("GITLAB_CI", "true"), ("HALLPASS_ID_TOKEN", "/builds/acme.tmp/HALLPASS_ID_TOKEN")]),
                System::GitLab,
                Found::Fired(Way::File("/builds/acme.tmp/HALLPASS_ID_TOKEN".into())),
            ),
            (
                of(&[("BUILDKITE", "true")]).with_program("buildkite-agent"),
                System::Buildkite,
                program("buildkite-agent", &buildkite),
            ),
            (
                of(&[("CIRCLECI", "true"), ("CIRCLE_OIDC_TOKEN_V2", "eyJ.e.s")]).with_program("circleci"),
                System::CircleCi,
                program("circleci", &circle),
            ),
            (
                of(&[("CIRCLECI", "true"), ("CIRCLE_OIDC_TOKEN_V2", "eyJ.e.s")]),
                System::CircleCi,
                variable("CIRCLE_OIDC_TOKEN_V2"),
            ),
            (
                of(AZURE),
                System::AzurePipelines,
                request(Method::Post, azure, "SYSTEM_ACCESSTOKEN", "oidcToken"),
            ),
            (
                of(&[("BITBUCKET_BUILD_NUMBER", "7"), ("BITBUCKET_STEP_OIDC_TOKEN", "eyJ.e.s")]),
                System::Bitbucket,
                variable("BITBUCKET_STEP_OIDC_TOKEN"),
            ),
            (
                of(NOTHING).with_projected_token(),
                System::Kubernetes,
                Found::Fired(Way::File(PROJECTED_TOKEN.into())),
            ),
        ];
        for (environment, system, found) in table {
            assert_eq!(end(&environment, &wish()), (system, found));
        }
    }

    #[test]
    fn a_ci_system_that_gives_no_token_ends_the_search() {
        let of = Environment::of;
        let insecure = |name, value| {
            let given = GITHUB.iter().chain(AZURE).copied().filter(|(each, _)| *each != name);
            given.chain([(name, value)]).collect::<Vec<_>>()
        };
        let github = insecure("ACTIONS_ID_TOKEN_REQUEST_URL", "http://run.example.com/");
        let azure: Vec<_> = insecure("SYSTEM_OIDCREQUESTURI", "ftp://dev.azure.com/")
            .into_iter()
            .filter(|(name, _)| *name != "GITHUB_ACTIONS")
            .collect();
        for (environment, system, due) in [
            (of(&[("GITHUB_ACTIONS", "true")]), System::GitHub, "id-token: write"),
            (of(&github), System::GitHub, "in the clear"),
            (of(&[("GITLAB_CI", "true")]), System::GitLab, "HALLPASS_ID_TOKEN"),
            (of(&[("GITLAB_CI", "true"), ("HALLPASS_ID_TOKEN", " ")]), System::GitLab, "HALLPASS_ID_TOKEN"),
            (of(&[("BUILDKITE", "true")]), System::Buildkite, "buildkite-agent"),
            (of(&[("CIRCLECI", "true")]), System::CircleCi, "context"),
            (of(&[("TF_BUILD", "True")]), System::AzurePipelines, "SYSTEM_OIDCREQUESTURI"),
            (of(&azure), System::AzurePipelines, "in the clear"),
            (of(&[AZURE[0], AZURE[1]]), System::AzurePipelines, "SYSTEM_ACCESSTOKEN"),
            (of(&[("BITBUCKET_BUILD_NUMBER", "7")]), System::Bitbucket, "oidc"),
            (of(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]), System::Kubernetes, PROJECTED_TOKEN),
        ] {
            // What the runner's own pod is given is not the job's.
            let environment =
                if system == System::Kubernetes { environment } else { environment.with_projected_token() };
            let (last, found) = end(&environment, &wish());
            let Found::Withheld(why) = found else { panic!("{system}: {found:?}") };
            assert_eq!(last, system);
            assert!(why.contains(due), "{system}: {why}");
        }
    }

    #[test]
    fn who_says_where_the_token_is_is_believed_first() {
        let github = Environment::of(GITHUB);
        let file = Wish { file: Some(Path::new("t")), ..wish() };
        assert_eq!(end(&github, &file), (System::Explicit, Found::Fired(Way::File("t".into()))));
        let stdin = Wish { file: Some(Path::new("-")), ..wish() };
        assert_eq!(end(&github, &stdin), (System::Explicit, Found::Fired(Way::Stdin)));
        let absent = Wish { variable: Some("MY_TOKEN"), ..wish() };
        let (system, found) = end(&github, &absent);
        assert_eq!(system, System::Explicit);
        assert!(matches!(&found, Found::Withheld(why) if why.contains("MY_TOKEN")), "{found:?}");
        let mine = Environment::of(&[GITHUB, &[("MY_TOKEN", "eyJ.e.s")]].concat());
        assert_eq!(end(&mine, &absent), (System::Explicit, variable("MY_TOKEN")));
        // On GitLab a job names the variable, and the token is GitLab's.
        let gitlab = Environment::of(&[GITLAB, &[("MY_TOKEN", "eyJ.e.s")]].concat());
        assert_eq!(end(&gitlab, &absent), (System::GitLab, variable("MY_TOKEN")));
    }

    #[test]
    fn a_service_connection_is_named_to_azure() {
        let expected = "https://dev.azure.com/acme/1/oidctoken?api-version=7.1&serviceConnectionId=sc%2F1";
        let wish = Wish { service_connection: Some("sc/1"), ..wish() };
        let (_, found) = end(&Environment::of(AZURE), &wish);
        assert_eq!(found, request(Method::Post, expected, "SYSTEM_ACCESSTOKEN", "oidcToken"));
        let given =
            Environment::of(&[AZURE, &[("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", "sc/1")]].concat());
        assert_eq!(
            end(&given, &super::Wish { service_connection: None, ..wish }).1,
            request(Method::Post, expected, "SYSTEM_ACCESSTOKEN", "oidcToken")
        );
    }

    #[test]
    fn nobody_fires_where_nobody_is() {
        let tried = Search::run(&Environment::of(NOTHING), &wish()).tried;
        assert_eq!(tried.len(), System::ALL.len(), "each was asked");
        for (system, found) in tried {
            assert!(matches!(&found, Found::Declined(why) if !why.is_empty()), "{system}: {found:?}");
        }
    }

    #[test]
    fn what_is_told_of_a_way_holds_no_secret() {
        let (_, Found::Fired(way)) = end(&Environment::of(GITHUB), &wish()) else { panic!("it fires") };
        let told = way.to_string();
        assert_eq!(
            told,
            "asks the token endpoint at run.actions.example.com (GET, bearer from ACTIONS_ID_TOKEN_REQUEST_TOKEN)"
        );
    }
}
