//! Where the job's identity token comes from.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::super::exit::{Exit, Failure};
use crate::kernel::secret::Secret;

/// How a command finds the job's identity token.
#[derive(Debug, clap::Args)]
pub(super) struct Identity {
    /// The file that holds the job's token; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
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

/// Variables by which a process of the job could get another token, or do more at the CI system than the step is meant
/// to; those that an option names are not here, [`Identity::minting_variables`] has them too.
const MINTING_VARIABLES: [&str; 13] = [
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_RUNTIME_TOKEN",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "BUILDKITE_AGENT_JOB_API_TOKEN",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    "CI_JOB_TOKEN",
    "HALLPASS_ID_TOKEN",
    "HALLPASS_TOKEN_FILE",
    "SYSTEM_ACCESSTOKEN",
    "SYSTEM_OIDCREQUESTURI",
];

/// A place that gives the job's identity token.
pub(super) struct Source {
    file: PathBuf,
}

impl Identity {
    /// Finds the place. `broker` is its URL as written: the audience where none is named.
    ///
    /// # Errors
    ///
    /// [`Exit::NoToken`] where the job has none.
    pub(super) fn source(&self, _broker: &str) -> Result<Source, Failure> {
        match &self.token_file {
            Some(file) => Ok(Source { file: file.clone() }),
            None => Err(Failure::new(
                Exit::NoToken,
                "no CI identity token: write the token that the CI system minted for this job into a file, and name it with --token-file",
            )),
        }
    }
}

impl Identity {
    /// The variables to keep from a process that is given credentials: with them it could get tokens of its own.
    pub(super) fn minting_variables(&self) -> Vec<String> {
        MINTING_VARIABLES.map(str::to_owned).to_vec()
    }
}

impl Source {
    /// The CI system that the token comes from.
    pub(super) fn system(&self) -> System {
        System::Explicit
    }

    /// Whether the CI system mints another token when asked again; where it does not, a job has one for all its life.
    pub(super) fn renews(&self) -> bool {
        false
    }

    /// A token, fresh where the source renews.
    ///
    /// # Errors
    ///
    /// [`Exit::NoToken`] where there is none, or an empty one.
    pub(super) async fn token(&self) -> Result<Secret, Failure> {
        read(&self.file)
    }
}

fn read(file: &Path) -> Result<Secret, Failure> {
    let missing = |why: String| Failure::new(Exit::NoToken, why);
    let text =
        if file == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
    let text = Secret::from_text(text.map_err(|fault| missing(format!("{}: {fault}", file.display())))?);
    let token = text.expose().trim_ascii();
    if token.is_empty() {
        return Err(missing(format!(
            "{} is empty: the CI system gave this job no identity token",
            file.display()
        )));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(missing(format!("{} holds no token, but several words or binary", file.display())));
    }
    Ok(Secret::new(token.to_vec()))
}
