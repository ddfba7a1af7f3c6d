//! The child's environment before its credentials: the job's, without what could mint another identity token.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
};

/// Variables by name.
pub(super) type Variables = BTreeMap<OsString, OsString>;

/// What a program needs to run at all, and no more.
const PRISTINE: [&str; 12] = [
    "COLORTERM",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "NO_COLOR",
    "PATH",
    "PWD",
    "SHELL",
    "TERM",
    "TZ",
    "USER",
];

/// Other ways in which AWS's tools find credentials; beside a key of ours they would be mixed with it, or win.
/// Source: AWS SDKs and Tools Reference Guide, "Standardized credential providers".
const AWS_RIVALS: [&str; 14] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_DEFAULT_PROFILE",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// The job's environment as the child may have it; `minting` are the variables that could mint another token.
pub(super) fn inherited(is_pristine: bool, minting: &[String], keep: &[OsString]) -> Variables {
    let may_have = |name: &OsStr| {
        let is_minting = || minting.iter().any(|each| each.as_str() == name);
        let is_basic =
            || PRISTINE.iter().any(|each| *each == name) || name.as_encoded_bytes().starts_with(b"LC_");
        keep.iter().any(|kept| kept == name) || (!is_minting() && (!is_pristine || is_basic()))
    };
    env::vars_os().filter(|(name, _)| may_have(name)).collect()
}

/// Removes the other ways to find credentials for AWS.
pub(super) fn remove_rivals(variables: &mut Variables, keep: &[OsString]) {
    for rival in AWS_RIVALS {
        if !keep.iter().any(|kept| kept == rival) {
            variables.remove(OsStr::new(rival));
        }
    }
}
