//! Lints of what credentials reach at Vault and AWS.

use std::time::Duration;

use serde_json::Value;

use crate::kernel::policy::{
    finding::Finding,
    set::{Credential, Grant},
    target::{AwsTarget, Making, Secrecy, Target, VaultTarget},
};

pub(super) fn of_grant(grant: &Grant, findings: &mut Vec<Finding>) {
    for (name, credential) in &grant.credentials {
        let name = name.as_str();
        let told = match &credential.target.0 {
            Target::Oidc { .. } | Target::Sealed { .. } => continue,
            Target::Aws(aws) => vec![wide_session(name, aws)],
            Target::Vault(vault) => {
                vec![
                    wide_certificate(name, vault),
                    root_account(name, vault),
                    door(vault),
                    shown(name, vault),
                ]
            }
        };
        let told = told.into_iter().chain([endless(name, credential)]).flatten();
        findings.extend(told.map(|Told { code, message, remedy }| {
            Finding::warning((&grant.file, credential.place), code, message, remedy)
        }));
    }
}

struct Told {
    code: &'static str,
    message: String,
    remedy: String,
}

/// A TTL of what nobody can take back, where its kind could give less.
fn endless(name: &str, credential: &Credential) -> Option<Told> {
    let target = &credential.target.0;
    let (least, _) = target.ttl_bounds()?;
    let most = LONG.max(least);
    let ttl = credential.ttl.filter(|ttl| target.making() == Making::Irrevocable && *ttl > most)?;
    Some(Told {
        code: "ttl-irrevocable",
        message: format!(
            "nobody can end `{name}` before its {}s are over, whatever happens meanwhile",
            ttl.as_secs()
        ),
        remedy: format!("write ttl: {}s or less; a job that takes longer can ask again", most.as_secs()),
    })
}

/// A star stands for every name below a domain, so whoever holds the key answers for all of them.
fn wide_certificate(name: &str, vault: &VaultTarget) -> Option<Told> {
    let named = |parameter: &&str| {
        vault.parameters.get(*parameter).is_some_and(|value| holds(value, &|each| each.contains('*')))
    };
    let parameter = ["common_name", "alt_names", "uri_sans"]
        .into_iter()
        .find(|parameter| vault.engine.name == "pki" && named(parameter))?;
    Some(Told {
        code: "certificate-wide",
        message: format!("`{parameter}` has a wildcard, so that `{name}` answers for every host below it"),
        remedy: "name the hosts that the job is for".to_owned(),
    })
}

fn root_account(name: &str, vault: &VaultTarget) -> Option<Told> {
    let principals = vault.parameters.get("valid_principals").filter(|_| vault.engine.name == "ssh")?;
    holds(principals, &|each| ADMINISTRATORS.contains(&each)).then(|| Told {
        code: "administrator",
        message: format!(
            "`{name}` opens an administrator's account on every host that trusts this authority"
        ),
        remedy: "name an account of the deploy's own, with the rights that it needs".to_owned(),
    })
}

/// The loader refuses paths that begin with one of Vault's own doors; behind a namespace they are the same doors. Where
/// an engine's operation is checked, such a word is only a name. So it is in most folders of `kv1`, of which only what
/// nobody calls a folder is told.
fn door(vault: &VaultTarget) -> Option<Told> {
    let doors: &[&str] = match vault.engine.name {
        "generic" => &DOORS,
        "kv1" => &STRANGE_FOLDERS,
        _ => return None,
    };
    let word = vault.path.split('/').skip(1).find(|segment| doors.contains(segment))?;
    Some(Told {
        code: "vault-door",
        message: format!(
            "with namespaces `{}` can be Vault's own `{word}/`, and no secrets engine",
            vault.path
        ),
        remedy:
            "use the engine that this is by its own name, or rename the secret; namespaces belong to backends"
                .to_owned(),
    })
}

/// What the policy calls no secret is shown in logs of wrappers, and in nobody's mask.
fn shown(name: &str, vault: &VaultTarget) -> Option<Told> {
    if vault.engine.secrecy != Secrecy::Declared {
        return None;
    }
    let speaks = |field: &&String| {
        let lower = field.to_ascii_lowercase();
        let is_about = lower.starts_with("public") || ABOUT.iter().any(|end| lower.ends_with(end));
        !vault.is_secret(field) && !is_about && SPEAKING.iter().any(|word| lower.contains(word))
    };
    let field = vault.fields.iter().flatten().find(speaks)?;
    Some(Told {
        code: "field-shown",
        message: format!("`{field}` of `{name}` is called like a secret, and is not among its secret_fields"),
        remedy: format!("add {field} to secret_fields, unless everybody may read it"),
    })
}

/// A session policy narrows the role; one that allows everything only looks as if it did. What a managed policy denies
/// is not known here, but for the one that AWS has for administrators.
fn wide_session(name: &str, aws: &AwsTarget) -> Option<Told> {
    let is_there = aws.session_policy.is_some() || !aws.managed_policies.is_empty();
    let is_open = aws.session_policy.as_deref().is_none_or(allows_everything)
        && aws.managed_policies.iter().all(|arn| arn.ends_with(":policy/AdministratorAccess"));
    (is_there && is_open).then(|| Told {
        code: "session-wide",
        message: format!(
            "the session policy of `{name}` allows everything that the role may, so it narrows nothing"
        ),
        remedy: "name actions and resources, or remove it".to_owned(),
    })
}

/// Whether a document allows everything and denies nothing.
fn allows_everything(document: &str) -> bool {
    let Ok(document) = serde_json::from_str::<Value>(document) else { return false };
    let Some(statements) = document.get("Statement") else { return false };
    let statements = statements.as_array().map_or(std::slice::from_ref(statements), Vec::as_slice);
    let is = |statement: &Value, effect: &str| {
        statement.get("Effect").and_then(Value::as_str).is_some_and(|it| it == effect)
    };
    let has = |statement: &Value, member: &str, stars: &[&str]| {
        statement.get(member).is_some_and(|it| holds(it, &|each| stars.contains(&each)))
    };
    let opens = |statement: &Value| {
        is(statement, "Allow")
            && has(statement, "Action", &["*", "*:*"])
            && has(statement, "Resource", &["*"])
            && statement.get("Condition").is_none()
    };
    statements.iter().any(opens) && !statements.iter().any(|statement| is(statement, "Deny"))
}

/// Whether a text, a list of texts with commas, or a list has one that is so.
fn holds(value: &Value, is_so: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => text.split(',').any(|each| is_so(each.trim())),
        Value::Array(items) => items.iter().any(|item| holds(item, is_so)),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) => false,
    }
}

/// The least that Google and AWS give for some roles, and more than most jobs take.
const LONG: Duration = Duration::from_secs(3_600);
const ADMINISTRATORS: [&str; 3] = ["Administrator", "admin", "root"];
const DOORS: [&str; 4] = ["auth", "cubbyhole", "identity", "sys"];
const STRANGE_FOLDERS: [&str; 2] = ["cubbyhole", "sys"];
/// Ends of names of what only speaks about a secret.
const ABOUT: [&str; 3] = ["_id", "_ttl", "_type"];
const SPEAKING: [&str; 5] = ["key", "passw", "private", "secret", "token"];
