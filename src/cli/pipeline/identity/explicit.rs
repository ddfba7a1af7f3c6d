//! A token that the step's author points at: a file, stdin, a variable. It wins over whatever is detected, and is how a
//! CI system without a detector works: Jenkins, Codefresh, Semaphore, Spacelift and others give a variable or a file.

use std::path::Path;

use super::{
    environment::Environment,
    search::{Found, Way, Wish},
};

/// The variable by our convention, such as of GitLab's `id_tokens:`.
pub(super) const VARIABLE: &str = "HALLPASS_ID_TOKEN";
/// The variable that names the file.
const FILE: &str = "HALLPASS_TOKEN_FILE";

pub(super) fn detect(environment: &Environment, wish: &Wish<'_>) -> Found {
    if let Some(file) = wish.file {
        return Found::Fired(if file == Path::new("-") { Way::Stdin } else { Way::File(file.into()) });
    }
    // A variable of a GitLab job is GitLab's, so that what is told of it is right.
    if !environment.says("GITLAB_CI") {
        if let Some(name) = wish.variable {
            return match environment.variable(name) {
                Some(value) => Found::Fired(held(name, value)),
                None => Found::Withheld(format!("--token-variable names {name}, which is not set or empty")),
            };
        }
        if let Some(value) = environment.variable(VARIABLE) {
            return Found::Fired(held(VARIABLE, value));
        }
    }
    match environment.variable(FILE) {
        Some(file) => Found::Fired(Way::File(file.into())),
        None => Found::Declined(format!(
            "neither --token-file nor {FILE} names a file, and {VARIABLE} is not set"
        )),
    }
}

/// A variable's token, or the file that it names, as GitLab's does with `file: true`. No token begins with a slash.
pub(super) fn held(name: &str, value: &str) -> Way {
    let value = value.trim();
    if value.starts_with('/') { Way::File(value.into()) } else { Way::Variable(name.to_owned()) }
}

pub(super) fn setup(audience: &str) -> String {
    format!(
        "have the CI system mint a token for the audience {audience}, and point at it with --token-file FILE, \
         HALLPASS_TOKEN_FILE or {VARIABLE}"
    )
}
