//! CircleCI: its command mints tokens for any audience; the variables hold one whose audience is the organisation, which
//! every relying party of that organisation accepts, so a broker wants the other.
//!
//! Source: CircleCI docs, "OIDC tokens with custom claims"; read in 2026.

use serde_json::json;

use super::{
    environment::Environment,
    search::{Found, Way, Wish},
};

const COMMAND: &str = "circleci";
/// Of the two, the one whose `sub` names the repository too.
const VARIABLE: &str = "CIRCLE_OIDC_TOKEN_V2";

pub(super) fn detect(environment: &Environment, wish: &Wish<'_>) -> Found {
    if !environment.says("CIRCLECI") {
        return Found::Declined("CIRCLECI is not true".to_owned());
    }
    let has_token = environment.variable(VARIABLE).is_some();
    if environment.has_program(COMMAND) {
        let claims = json!({ "aud": wish.audience }).to_string();
        let arguments = ["run", "oidc", "get", "--claims", &claims];
        return Found::Fired(Way::Program {
            name: COMMAND,
            arguments: arguments.map(str::to_owned).to_vec(),
        });
    }
    if has_token {
        return Found::Fired(Way::Variable(VARIABLE.to_owned()));
    }
    Found::Withheld(format!(
        "the command `{COMMAND}` is not on the path, and {VARIABLE} is not set: only jobs with a context have one"
    ))
}

pub(super) fn setup(_: &str) -> String {
    "workflows:\n\
     \x20 your-workflow:\n\
     \x20   jobs:\n\
     \x20     - your-job: { context: [your-context] }   # any context: jobs without one are given no token"
        .to_owned()
}
