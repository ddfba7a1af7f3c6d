//! Where the job's identity token comes from: [`search`] asks the detectors, one file a CI system, in a fixed order;
//! [`fetch`] goes and gets the token; [`look`] reads in it, unverified, what a broker would refuse.

mod azure;
mod bitbucket;
mod buildkite;
mod circleci;
mod environment;
mod explicit;
mod fetch;
mod github;
mod gitlab;
mod kubernetes;
mod look;
mod search;

use std::{fmt, path::PathBuf};

use super::super::{
    exit::{Exit, Failure},
    output,
};
use crate::{
    broker::ambient::Clock,
    kernel::{identity::profile::Profile, secret::Secret},
};

pub(super) use self::{
    environment::Environment,
    look::Look,
    search::{Found, Search, Way, Wish},
};

/// How a command finds the job's identity token.
#[derive(Debug, clap::Args)]
pub(super) struct Identity {
    /// The file that holds the job's token; `-` is stdin [env: HALLPASS_TOKEN_FILE]. Without it the CI system is found
    /// by what it sets.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The variable that holds it, where that is not HALLPASS_ID_TOKEN.
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    token_variable: Option<String>,
    /// The service connection that Azure Pipelines signs for [env: HALLPASS_SERVICE_CONNECTION].
    #[arg(long, value_name = "ID")]
    service_connection: Option<String>,
    /// The audience that the token must be for [default: the broker's URL as written].
    #[arg(long, value_name = "AUDIENCE", env = "HALLPASS_AUDIENCE")]
    audience: Option<String>,
}

/// A CI system, as far as a job's identity token goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum System {
    /// The person who wrote the step named where the token is.
    Explicit,
    /// GitHub Actions.
    GitHub,
    /// GitLab CI/CD.
    GitLab,
    /// Buildkite.
    Buildkite,
    /// CircleCI.
    CircleCi,
    /// Azure Pipelines.
    AzurePipelines,
    /// Bitbucket Pipelines.
    Bitbucket,
    /// A pod of Kubernetes, such as Tekton's or Argo's.
    Kubernetes,
}

/// Whom a token is to be for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Audience {
    /// The audience.
    pub(super) text: String,
    /// Whether somebody named it, instead of it being the broker's URL.
    pub(super) is_named: bool,
}

/// A place that gives the job's identity token.
pub(super) struct Source {
    system: System,
    way: Way,
    audience: Audience,
}

/// Variables by which a process of the job could get another token, or do more at the CI system than the step is meant
/// to; those that an option names are not here, [`Identity::minting_variables`] has them too.
const MINTING_VARIABLES: [&str; 18] = [
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_RUNTIME_TOKEN",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "BUILDKITE_AGENT_JOB_API_SOCKET",
    "BUILDKITE_AGENT_JOB_API_TOKEN",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    "CI_JOB_JWT",
    "CI_JOB_JWT_V1",
    "CI_JOB_JWT_V2",
    "CI_JOB_TOKEN",
    "HALLPASS_ID_TOKEN",
    "HALLPASS_TOKEN_FILE",
    "SYSTEM_ACCESSTOKEN",
    "SYSTEM_OIDCREQUESTURI",
    "TFC_WORKLOAD_IDENTITY_TOKEN",
];

impl Identity {
    /// Whether an option says where the token is.
    pub(super) fn is_named(&self) -> bool {
        self.token_file.is_some() || self.token_variable.is_some() || self.service_connection.is_some()
    }

    /// Finds the place. `broker` is its URL as written: the audience where none is named.
    ///
    /// # Errors
    ///
    /// [`Exit::NoToken`] where the job has none.
    pub(super) fn source(&self, broker: &str) -> Result<Source, Failure> {
        self.chosen(self.search(broker), broker)
    }

    /// Asks the detectors, and keeps what each said.
    pub(super) fn search(&self, broker: &str) -> Search {
        let wish = Wish {
            file: self.token_file.as_deref(),
            variable: self.token_variable.as_deref(),
            service_connection: self.service_connection.as_deref(),
            audience: self.audience.as_deref().unwrap_or(broker),
        };
        Search::run(&Environment::of_process(self.token_variable.as_deref()), &wish)
    }

    /// The place that a search came to.
    ///
    /// # Errors
    ///
    /// As [`Identity::source`].
    pub(super) fn chosen(&self, mut search: Search, broker: &str) -> Result<Source, Failure> {
        let audience = Audience {
            text: self.audience.as_deref().unwrap_or(broker).to_owned(),
            is_named: self.audience.is_some(),
        };
        let no_token = |text: String| Failure::new(Exit::NoToken, text);
        match search.tried.pop() {
            Some((system, Found::Fired(way))) => {
                Ok(Source { system, way, audience: system.audience(audience) })
            }
            Some((system, Found::Withheld(why))) => Err(no_token(format!(
                "no CI identity token: this is {system}, and {why}\n{}",
                indented(&system.setup(&audience.text))
            ))),
            Some((_, Found::Declined(_))) | None => Err(no_token(format!(
                "no CI identity token: no CI system was found (`hallpass whoami --explain` says what was looked for)\n{}",
                indented(&System::Explicit.setup(&audience.text))
            ))),
        }
    }

    /// The variables to keep from a process that is given credentials: with them it could get tokens of its own.
    pub(super) fn minting_variables(&self) -> Vec<String> {
        let fixed = MINTING_VARIABLES.into_iter().map(str::to_owned);
        fixed.chain(self.token_variable.clone()).collect()
    }
}

impl Source {
    /// The CI system that the token comes from.
    pub(super) fn system(&self) -> System {
        self.system
    }

    /// How the token is had; no secret.
    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// Whom the token is to be for.
    pub(super) fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Whether the CI system mints another token when asked again; where it does not, a job has one for all its life.
    /// A projected file is replaced now and then, but not when asked.
    pub(super) fn renews(&self) -> bool {
        match self.way {
            Way::Program { .. } | Way::Request(_) => true,
            Way::File(_) | Way::Stdin | Way::Variable(_) => false,
        }
    }

    /// A token, fresh where the source renews. What a broker would refuse in it is said beforehand; it is still the
    /// broker that decides.
    ///
    /// # Errors
    ///
    /// [`Exit::NoToken`] where there is none, or an empty one.
    pub(super) async fn token(&self) -> Result<Secret, Failure> {
        let token = fetch::token(self.system, &self.way, &self.audience).await?;
        let remarks =
            Look::at(&token).map(|look| look.remarks(self, Clock::System.now())).unwrap_or_default();
        for remark in remarks {
            output::say(&format!("hallpass: the broker will probably refuse the token: {remark}"));
        }
        Ok(token)
    }
}

#[cfg(test)]
impl Source {
    /// One that a test makes up.
    pub(super) fn of(system: System, way: Way, audience: Audience) -> Self {
        Self { system, way, audience }
    }
}

impl System {
    /// All, in the order in which they are looked for.
    pub(super) const ALL: [Self; 8] = [
        Self::Explicit,
        Self::GitHub,
        Self::GitLab,
        Self::Buildkite,
        Self::CircleCi,
        Self::AzurePipelines,
        Self::Bitbucket,
        Self::Kubernetes,
    ];

    fn detect(self, environment: &Environment, wish: &Wish<'_>) -> Found {
        match self {
            Self::Explicit => explicit::detect(environment, wish),
            Self::GitHub => github::detect(environment, wish),
            Self::GitLab => gitlab::detect(environment, wish),
            Self::Buildkite => buildkite::detect(environment, wish),
            Self::CircleCi => circleci::detect(environment, wish),
            Self::AzurePipelines => azure::detect(environment, wish),
            Self::Bitbucket => bitbucket::detect(environment, wish),
            Self::Kubernetes => kubernetes::detect(environment, wish),
        }
    }

    /// The whole of what a pipeline needs so that its jobs have a token for this audience, to paste.
    pub(super) fn setup(self, audience: &str) -> String {
        match self {
            Self::Explicit => explicit::setup(audience),
            Self::GitHub => github::setup(audience),
            Self::GitLab => gitlab::setup(audience),
            Self::Buildkite => buildkite::setup(audience),
            Self::CircleCi => circleci::setup(audience),
            Self::AzurePipelines => azure::setup(audience),
            Self::Bitbucket => bitbucket::setup(audience),
            Self::Kubernetes => kubernetes::setup(audience),
        }
    }

    /// What policy knows of its tokens.
    pub(super) fn profile(self) -> Option<&'static Profile> {
        let name = match self {
            Self::Explicit => return None,
            Self::GitHub => "github-actions",
            Self::GitLab => "gitlab",
            Self::Buildkite => "buildkite",
            Self::CircleCi => "circleci",
            Self::AzurePipelines => "azure-devops",
            Self::Bitbucket => "bitbucket",
            Self::Kubernetes => "kubernetes",
        };
        Profile::by_name(name)
    }

    /// The audience that tokens will have: the one that was chosen, but where the vendor signs one for all.
    fn audience(self, chosen: Audience) -> Audience {
        match self.profile().and_then(|profile| profile.fixed_audience) {
            Some(fixed) if !chosen.is_named => Audience { text: fixed.to_owned(), is_named: false },
            Some(_) | None => chosen,
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "a token that was pointed at",
            Self::GitHub => "GitHub Actions",
            Self::GitLab => "GitLab CI/CD",
            Self::Buildkite => "Buildkite",
            Self::CircleCi => "CircleCI",
            Self::AzurePipelines => "Azure Pipelines",
            Self::Bitbucket => "Bitbucket Pipelines",
            Self::Kubernetes => "a Kubernetes pod",
        })
    }
}

/// A block below a sentence.
pub(super) fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_mint_another_token_is_known_by_name() {
        let identity = Identity {
            token_file: None,
            token_variable: Some("DEPLOY_ID_TOKEN".to_owned()),
            service_connection: None,
            audience: None,
        };
        let variables = identity.minting_variables();
        for name in
            ["ACTIONS_ID_TOKEN_REQUEST_TOKEN", "SYSTEM_ACCESSTOKEN", "HALLPASS_ID_TOKEN", "DEPLOY_ID_TOKEN"]
        {
            assert!(variables.iter().any(|each| each == name), "{name}");
        }
    }

    #[test]
    fn only_who_mints_on_request_renews() {
        let audience = Audience { text: "a".to_owned(), is_named: false };
        let renews = |way: Way| Source::of(System::Explicit, way, audience.clone()).renews();
        assert!(renews(Way::Program { name: "buildkite-agent", arguments: Vec::new() }));
        assert!(!renews(Way::Variable("HALLPASS_ID_TOKEN".to_owned())));
        assert!(!renews(Way::File("t".into())) && !renews(Way::Stdin));
    }

    #[test]
    fn azure_signs_for_one_audience_unless_another_is_named() {
        let chosen = |is_named| Audience { text: "https://hallpass.example.com".to_owned(), is_named };
        assert_eq!(System::AzurePipelines.audience(chosen(false)).text, "api://AzureADTokenExchange");
        assert_eq!(System::AzurePipelines.audience(chosen(true)).text, "https://hallpass.example.com");
        assert_eq!(System::GitHub.audience(chosen(false)).text, "https://hallpass.example.com");
    }
}
