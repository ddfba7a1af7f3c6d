//! Buildkite: the agent mints a token when asked, for any audience. The optional claims say whose job it is, and a
//! broker demands them. Source: buildkite/docs, `pages/agent/cli/reference/oidc.md`; read in 2026.

use super::{
    environment::Environment,
    search::{Found, Way, Wish},
};

const AGENT: &str = "buildkite-agent";

pub(super) fn detect(environment: &Environment, wish: &Wish<'_>) -> Found {
    if !environment.says("BUILDKITE") {
        return Found::Declined("BUILDKITE is not true".to_owned());
    }
    if !environment.has_program(AGENT) {
        return Found::Withheld(format!(
            "{AGENT}, which mints the token, is not on the path; a container must be given it"
        ));
    }
    let arguments =
        ["oidc", "request-token", "--audience", wish.audience, "--claim", "organization_id,pipeline_id"];
    Found::Fired(Way::Program { name: AGENT, arguments: arguments.map(str::to_owned).to_vec() })
}

pub(super) fn setup(_: &str) -> String {
    "plugins:                    # where the step runs in a container; elsewhere nothing is needed\n\
     \x20 - docker:\n\
     \x20     mount-buildkite-agent: true"
        .to_owned()
}
