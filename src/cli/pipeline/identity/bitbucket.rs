//! Bitbucket Pipelines: a step with `oidc:` finds its token in a variable, once.
//!
//! Source: reference pages of Bitbucket's OIDC, 2026. UNVERIFIED: the variable's name against a live step.

use super::{
    environment::Environment,
    search::{Found, Way, Wish},
};

const VARIABLE: &str = "BITBUCKET_STEP_OIDC_TOKEN";

pub(super) fn detect(environment: &Environment, _: &Wish<'_>) -> Found {
    if environment.variable("BITBUCKET_BUILD_NUMBER").is_none() {
        return Found::Declined("BITBUCKET_BUILD_NUMBER is not set".to_owned());
    }
    match environment.variable(VARIABLE) {
        Some(_) => Found::Fired(Way::Variable(VARIABLE.to_owned())),
        None => Found::Withheld(format!("{VARIABLE} is not set: the step does not say `oidc:`")),
    }
}

pub(super) fn setup(audience: &str) -> String {
    format!("- step:\n    oidc:\n      audiences: [\"{audience}\"]")
}
