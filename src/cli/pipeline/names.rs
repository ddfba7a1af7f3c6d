//! Under which variables the fields of credentials stand: an AWS access key as AWS's tools read it, any other field as
//! `CREDENTIAL_FIELD` in capitals, what is no letter or digit becoming `_`. Two fields under one name are refused, never
//! one over the other.

use std::collections::BTreeSet;

use super::{
    super::exit::Failure,
    broker::shown,
    exchanged::{Exchanged, Field, Issuance},
};

/// A field under its name.
pub(super) struct Named<'a> {
    /// The variable.
    pub(super) variable: String,
    /// The field.
    pub(super) field: &'a Field,
}

/// Fields of an access key, by the names of STS and of Vault's `aws` engine, and what AWS's tools read.
pub(super) const AWS: [(&str, &[&str]); 3] = [
    ("AWS_ACCESS_KEY_ID", &["access_key_id", "access_key"]),
    ("AWS_SECRET_ACCESS_KEY", &["secret_access_key", "secret_key"]),
    ("AWS_SESSION_TOKEN", &["session_token", "security_token"]),
];

/// Names that a program obeys as code or as where to find code; whoever writes a secret's fields must not choose them.
const OBEYED: [&str; 8] = ["BASH_", "DYLD_", "GIT_", "LD_", "NODE_", "PERL5", "PYTHON", "RUBY"];

/// Every field under its name, in the order of the answer.
///
/// # Errors
///
/// A usage failure where two fields would have one name, or one would have a name that programs obey.
pub(super) fn by_rule(exchanged: &Exchanged) -> Result<Vec<Named<'_>>, Failure> {
    let mut named = Vec::new();
    let mut seen = BTreeSet::new();
    for issuance in &exchanged.issuances {
        for field in &issuance.fields {
            let variable = of_aws(issuance, &field.name)
                .map_or_else(|| variable(&issuance.credential, &field.name), |name| Ok(name.to_owned()))?;
            if !seen.insert(variable.clone()) {
                return Err(Failure::usage(format!(
                    "two fields would both be {variable}; choose by --credential GRANT.NAME, or name them by exec's --env"
                )));
            }
            named.push(Named { variable, field });
        }
    }
    Ok(named)
}

fn of_aws(issuance: &Issuance, field: &str) -> Option<&'static str> {
    let has = |names: &[&str]| issuance.fields.iter().any(|field| names.contains(&field.name.as_str()));
    let [(_, id), (_, secret), _] = AWS;
    let is_key = has(id) && has(secret);
    AWS.iter().find(|(_, names)| is_key && names.contains(&field)).map(|(variable, _)| *variable)
}

fn variable(credential: &str, field: &str) -> Result<String, Failure> {
    let letters = format!("{credential}_{field}");
    let name: String = letters
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' })
        .collect();
    if name.starts_with(|first: char| first.is_ascii_digit())
        || OBEYED.iter().any(|each| name.starts_with(each))
    {
        return Err(Failure::usage(format!(
            "{} is no name to give unasked; take the field alone by get's --field {}, or name it by exec's --env",
            shown(&name),
            shown(field)
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kernel::secret::Secret;

    fn exchanged(issuances: &[(&str, Value)]) -> Exchanged {
        let issuances: Vec<Value> = issuances
            .iter()
            .map(|(credential, fields)| {
                json!({
                    "id": "iss_1", "handle": "hdl_1", "grant": "prod", "credential": credential, "kind": "sealed",
                    "fields": fields, "secret_fields": [], "lifetime": "static", "expires_at": null, "revocable": false,
                })
            })
            .collect();
        let answer = json!({ "decision_id": "dec_1", "issuances": issuances });
        Exchanged::read(&Secret::from_text(answer.to_string())).ok().unwrap()
    }

    #[test]
    fn every_field_has_a_name_by_the_rule() {
        let exchanged = exchanged(&[
            ("db", json!({ "password": "p", "username": "u" })),
            ("npm-token", json!({ "value": "n" })),
            ("cloud", json!({ "access_key": "AKIA", "arn": "a", "secret_key": "s", "security_token": "t" })),
        ]);
        let named = by_rule(&exchanged).unwrap();
        let pairs: Vec<(&str, &str)> = named
            .iter()
            .map(|each| (each.variable.as_str(), each.field.value.expose_text().unwrap()))
            .collect();
        assert_eq!(
            pairs,
            [
                ("DB_PASSWORD", "p"),
                ("DB_USERNAME", "u"),
                ("NPM_TOKEN_VALUE", "n"),
                ("AWS_ACCESS_KEY_ID", "AKIA"),
                ("CLOUD_ARN", "a"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
                ("AWS_SESSION_TOKEN", "t"),
            ]
        );
    }

    #[test]
    fn a_name_is_never_given_twice_nor_one_that_programs_obey() {
        let told = |issuances: &[(&str, Value)]| by_rule(&exchanged(issuances)).err().unwrap().message;
        let twice = [("a-b", json!({ "c": "1" })), ("a", json!({ "b_c": "2" }))];
        assert!(told(&twice).contains("A_B_C"));
        for (credential, field) in [("ld", "preload"), ("bash", "env"), ("git", "ssh_command"), ("7z", "key")]
        {
            assert!(
                told(&[(credential, json!({ field: "x" }))]).contains("no name to give unasked"),
                "{credential}"
            );
        }
    }
}
