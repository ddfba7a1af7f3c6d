//! GitLab CI/CD: the job says in `id_tokens:` which tokens it wants, and finds them in variables of these names, once
//! per job. Source: GitLab docs, "OIDC Authentication Using ID Tokens"; read in 2026.

use super::{
    environment::Environment,
    explicit::{VARIABLE, held},
    search::{Found, Wish},
};

pub(super) fn detect(environment: &Environment, wish: &Wish<'_>) -> Found {
    if !environment.says("GITLAB_CI") {
        return Found::Declined("GITLAB_CI is not true".to_owned());
    }
    let name = wish.variable.unwrap_or(VARIABLE);
    match environment.variable(name) {
        Some(value) => Found::Fired(held(name, value)),
        None if environment.variable("CI_JOB_JWT").is_some() => Found::Withheld(format!(
            "the variable {name} is not set; CI_JOB_JWT is, but names no audience and is gone since GitLab 17.0"
        )),
        None => Found::Withheld(format!("the job's `id_tokens:` name no {name}")),
    }
}

pub(super) fn setup(audience: &str) -> String {
    format!("your-job:\n  id_tokens:\n    {VARIABLE}:\n      aud: \"{audience}\"")
}
