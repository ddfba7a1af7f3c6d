//! What the child finds, and under which names.
//!
//! With `--env` or `--file` it gets what they name and nothing else. Without, it gets every field by the rule of
//! [`super::super::names`]; while credentials are renewed, an AWS access key is at an endpoint instead.

use std::{collections::BTreeSet, str::FromStr};

use serde_json::Value;

use super::super::{
    super::exit::Failure,
    aws::AccessKey,
    broker::shown,
    exchanged::{Exchanged, Issuance},
    names,
};
use crate::kernel::secret::Secret;

/// `NAME=grant.credential.field`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mapping {
    /// The variable.
    pub(super) variable: String,
    /// The grant.
    pub(super) grant: String,
    /// The credential within it.
    pub(super) credential: String,
    /// The field within that.
    pub(super) field: String,
}

/// What the child is to find.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Values in variables.
    pub(super) variables: Vec<Mapping>,
    /// Values in files, their paths in variables.
    pub(super) files: Vec<Mapping>,
}

/// A value under its name.
pub(super) struct Named {
    /// The variable.
    pub(super) variable: String,
    /// What it holds, or what the file holds whose path it holds.
    pub(super) value: Secret,
}

/// Everything that the child is to find.
#[derive(Default)]
pub(super) struct Delivery {
    /// Values in variables.
    pub(super) variables: Vec<Named>,
    /// Values in files, their paths in variables.
    pub(super) files: Vec<Named>,
    /// The place among the issuances of an access key that a loopback endpoint hands out.
    pub(super) endpoint: Option<usize>,
}

/// Whether credentials are renewed while the child runs; a variable cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Renewal {
    /// They stay as they are.
    Never,
    /// They are renewed.
    WhileRunning,
}

impl FromStr for Mapping {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (variable, source) = text.split_once('=').ok_or("it must be NAME=grant.credential.field")?;
        if !is_variable(variable) {
            return Err("a variable's name holds letters, digits and _, and begins with no digit");
        }
        // A field's name may hold dots, as those of key-value secrets do; the other two never do.
        let mut parts = source.splitn(3, '.').filter(|part| !part.is_empty());
        let (Some(grant), Some(credential), Some(field)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("it must be NAME=grant.credential.field");
        };
        Ok(Self {
            variable: variable.to_owned(),
            grant: grant.to_owned(),
            credential: credential.to_owned(),
            field: field.to_owned(),
        })
    }
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Names {
    /// Looks at what can be known before anything is asked; `body` is what will be.
    ///
    /// # Errors
    ///
    /// A usage failure for a name given twice, and for what is not asked for.
    pub(super) fn check(&self, body: &Value) -> Result<(), Failure> {
        let grant = |name: &str| {
            let mut grants = body.get("grants").and_then(Value::as_array).into_iter().flatten();
            grants.find(|grant| grant.get("name").and_then(Value::as_str) == Some(name))
        };
        let mut seen = BTreeSet::new();
        for mapping in self.all() {
            if !seen.insert(&mapping.variable) {
                return Err(Failure::usage(format!("{} is given twice", mapping.variable)));
            }
            let Some(asked) = grant(&mapping.grant) else {
                return Err(Failure::usage(format!(
                    "{} names the grant `{}`, which is not asked for",
                    mapping.variable, mapping.grant
                )));
            };
            let credentials = asked.get("credentials").and_then(Value::as_array);
            let is_left_out = |only: &Vec<Value>| !only.iter().any(|name| *name == mapping.credential);
            if credentials.is_some_and(is_left_out) {
                return Err(Failure::usage(format!(
                    "{} names the credential `{}`, which --credential leaves out",
                    mapping.variable, mapping.credential
                )));
            }
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Mapping> {
        self.variables.iter().chain(&self.files)
    }

    /// What the child is to find of an exchange.
    ///
    /// # Errors
    ///
    /// A usage failure where a named field is not there, two fields would have one name, a value fits no variable, or
    /// a variable's value would end while the child runs although it is to be renewed.
    pub(super) fn deliver(&self, exchanged: &Exchanged, renewal: Renewal) -> Result<Delivery, Failure> {
        let delivery = if self.all().next().is_none() {
            by_default(exchanged, renewal)?
        } else {
            self.named(exchanged, renewal)?
        };
        let mut seen = BTreeSet::new();
        for named in delivery.variables.iter().chain(&delivery.files) {
            if !seen.insert(&named.variable) {
                return Err(Failure::usage(format!(
                    "two credentials would both be {}; name them by --env or --file",
                    named.variable
                )));
            }
        }
        if let Some(named) = delivery.variables.iter().find(|named| named.value.expose().contains(&0)) {
            return Err(Failure::usage(format!(
                "{} holds a zero byte, which no variable can; use --file",
                named.variable
            )));
        }
        Ok(delivery)
    }

    fn named(&self, exchanged: &Exchanged, renewal: Renewal) -> Result<Delivery, Failure> {
        let variable = |mapping: &Mapping| {
            let (issuance, named) = find(exchanged, mapping)?;
            fits_variable(issuance, &named.variable, renewal)?;
            Ok(named)
        };
        Ok(Delivery {
            variables: self.variables.iter().map(variable).collect::<Result<_, Failure>>()?,
            files: self
                .files
                .iter()
                .map(|mapping| find(exchanged, mapping).map(|(_, named)| named))
                .collect::<Result<_, _>>()?,
            endpoint: None,
        })
    }
}

fn find<'a>(exchanged: &'a Exchanged, mapping: &Mapping) -> Result<(&'a Issuance, Named), Failure> {
    let Mapping { variable, grant, credential, field } = mapping;
    let mut issuances = exchanged.issuances.iter();
    let issuance = issuances
        .find(|issuance| issuance.grant == *grant && issuance.credential == *credential)
        .ok_or_else(|| Failure::usage(format!("{variable}: `{grant}` gave no credential `{credential}`")))?;
    let found = issuance.fields.iter().find(|each| each.name == *field).ok_or_else(|| {
        let names: Vec<&str> = issuance.fields.iter().map(|field| field.name.as_str()).collect();
        let names = shown(&names.join(", "));
        Failure::usage(format!("{variable}: `{grant}.{credential}` has no field `{field}`, but {names}"))
    })?;
    Ok((issuance, Named { variable: variable.clone(), value: copy(&found.value) }))
}

fn by_default(exchanged: &Exchanged, renewal: Renewal) -> Result<Delivery, Failure> {
    let mut delivery = Delivery::default();
    let is_key = |issuance: &Issuance| AccessKey::of(issuance).is_some();
    if renewal == Renewal::WhileRunning {
        delivery.endpoint = exchanged.issuances.iter().position(is_key);
    }
    // By this rule two access keys would have one name, so there is one at most.
    for named in names::by_rule(exchanged)? {
        let is_at_endpoint =
            delivery.endpoint.is_some() && names::AWS.iter().any(|(name, _)| *name == named.variable);
        if is_at_endpoint {
            continue;
        }
        let has = |issuance: &&Issuance| issuance.fields.iter().any(|field| std::ptr::eq(field, named.field));
        if let Some(issuance) = exchanged.issuances.iter().find(has) {
            fits_variable(issuance, &named.variable, renewal)?;
        }
        delivery.variables.push(Named { variable: named.variable, value: copy(&named.field.value) });
    }
    Ok(delivery)
}

fn fits_variable(issuance: &Issuance, variable: &str, renewal: Renewal) -> Result<(), Failure> {
    match (renewal, issuance.expires_at) {
        (Renewal::WhileRunning, Some(_)) => Err(Failure::usage(format!(
            "{variable} would end while the command runs, and a variable cannot be renewed; use --file {variable}={}.{}.FIELD",
            issuance.grant, issuance.credential
        ))),
        (Renewal::WhileRunning, None) | (Renewal::Never, _) => Ok(()),
    }
}

fn copy(value: &Secret) -> Secret {
    Secret::new(value.expose().to_vec())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn exchanged(issuances: &[(&str, Value)]) -> Exchanged {
        let issuances: Vec<Value> = issuances
            .iter()
            .map(|(credential, fields)| {
                json!({
                    "id": "iss_1", "handle": "hdl_1", "grant": "prod", "credential": credential, "kind": "sealed",
                    "fields": fields, "secret_fields": [], "expires_at": null, "revocable": false,
                    "lifetime": "static",
                })
            })
            .collect();
        let answer = json!({ "decision_id": "dec_1", "issuances": issuances });
        Exchanged::read(&Secret::from_text(answer.to_string())).ok().unwrap()
    }

    fn names(variables: &[&str], files: &[&str]) -> Names {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Names { variables: parse(variables), files: parse(files) }
    }

    fn pairs(named: &[Named]) -> Vec<(&str, &str)> {
        named.iter().map(|each| (each.variable.as_str(), each.value.expose_text().unwrap())).collect()
    }

    fn refusal(result: Result<Delivery, Failure>) -> String {
        result.err().unwrap().message
    }

    #[test]
    fn without_a_name_every_field_has_one_by_the_rule() {
        let exchanged = exchanged(&[
            ("db", json!({ "username": "u", "password": "p" })),
            ("npm-token", json!({ "value": "n" })),
            ("cloud", json!({ "access_key": "AKIA", "secret_key": "s", "security_token": "t", "arn": "a" })),
        ]);
        let delivery = Names::default().deliver(&exchanged, Renewal::Never).unwrap();
        assert_eq!(
            pairs(&delivery.variables),
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
        assert!(delivery.files.is_empty() && delivery.endpoint.is_none());
    }

    #[test]
    fn with_a_name_nothing_else_is_given() {
        let exchanged = exchanged(&[("db", json!({ "username": "u", "pass.word": "p" }))]);
        let names = names(&["PGUSER=prod.db.username"], &["PGPASSFILE=prod.db.pass.word"]);
        let delivery = names.deliver(&exchanged, Renewal::Never).unwrap();
        assert_eq!(pairs(&delivery.variables), [("PGUSER", "u")]);
        assert_eq!(pairs(&delivery.files), [("PGPASSFILE", "p")]);
    }

    #[test]
    fn two_fields_under_one_name_are_refused() {
        let keys = json!({ "access_key_id": "AKIA", "secret_access_key": "s" });
        let two_keys = exchanged(&[("one", keys.clone()), ("two", keys)]);
        for renewal in [Renewal::Never, Renewal::WhileRunning] {
            assert!(refusal(Names::default().deliver(&two_keys, renewal)).contains("AWS_ACCESS_KEY_ID"));
        }
        let fields = exchanged(&[("a-b", json!({ "c": "1" })), ("a", json!({ "b_c": "2" }))]);
        assert!(refusal(Names::default().deliver(&fields, Renewal::Never)).contains("A_B_C"));
    }

    #[test]
    fn what_cannot_be_is_told_before_anything_is_asked() {
        let all = json!({ "grants": [{ "name": "prod" }] });
        let check = |names: &Names, body: &Value| names.check(body).err().unwrap().message;
        assert!(check(&names(&["A=prod.db.x"], &["A=prod.db.y"]), &all).contains("A is given twice"));
        assert!(check(&names(&["A=test.db.x"], &[]), &all).contains("not asked for"));
        let one = json!({ "grants": [{ "name": "prod", "credentials": ["npm"] }] });
        assert!(check(&names(&["A=prod.db.x"], &[]), &one).contains("leaves out"));
        assert!(names(&["A=prod.db.x"], &["B=prod.db.x"]).check(&all).is_ok());
        for bad in ["A", "A=", "A=x.y", "A=x..z", "=x.y.z", "1A=x.y.z", "A-B=x.y.z", "A B=x.y.z"] {
            assert!(bad.parse::<Mapping>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_there_or_fits_no_variable_is_refused() {
        let exchanged =
            exchanged(&[("db", json!({ "key": "a\u{0}b", "user": "u" })), ("ld", json!({ "preload": "x" }))]);
        let deliver = |variable: &str| refusal(names(&[variable], &[]).deliver(&exchanged, Renewal::Never));
        assert!(deliver("A=prod.db.nothing").contains("key, user"), "it says what there is");
        assert!(deliver("A=prod.other.user").contains("no credential `other`"));
        assert!(deliver("A=prod.db.key").contains("zero byte"));
        assert!(refusal(Names::default().deliver(&exchanged, Renewal::Never)).contains("LD_PRELOAD"));
    }

    #[test]
    fn what_ends_cannot_be_renewed_in_a_variable() {
        let mut exchanged = exchanged(&[("cloud", json!({ "token": "t" }))]);
        assert!(Names::default().deliver(&exchanged, Renewal::WhileRunning).is_ok());
        exchanged.issuances[0].expires_at = Some(jiff::Timestamp::UNIX_EPOCH);
        assert!(refusal(Names::default().deliver(&exchanged, Renewal::WhileRunning)).contains("--file"));
        let file = names(&[], &["T=prod.cloud.token"]);
        assert_eq!(pairs(&file.deliver(&exchanged, Renewal::WhileRunning).unwrap().files), [("T", "t")]);
    }
}
