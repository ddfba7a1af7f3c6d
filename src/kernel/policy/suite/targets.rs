//! What can be taken away from a target: the path or role that it is, a field that is chosen, a version that is pinned, a
//! parameter that binds the engine, a session's policy. Each of them decides what a job holds in the end, and none of
//! them who gets it, so that no denial ever notices.

use std::sync::Arc;

use serde_json::Value;

use super::{
    mutants::{Around, permit},
    neighbour,
    places::Place,
    reach::{Facts, facts},
    write::{scalar, value},
};
use crate::kernel::{
    name::CredentialName,
    policy::{
        engines::EngineSpec,
        set::Grant,
        target::{AwsTarget, Backend, Target, VaultTarget},
        template::{TargetTemplate, with_others},
    },
};

/// A credential of a grant that reaches something else. Only a table that names what it reaches may notice that: a
/// guardrail or a class that happens to tell the two apart does it for this other target and not for the next.
pub(super) struct Elsewhere {
    pub(super) place: Place,
    /// What is otherwise, as a fact.
    pub(super) what: String,
    /// The case that would notice.
    pub(super) case: String,
    pub(super) credential: CredentialName,
    pub(super) target: TargetTemplate,
}

/// A target with one thing otherwise.
struct Other {
    /// The word that grants have for it, and tables.
    word: &'static str,
    what: String,
    target: Target,
}

/// Every mutant of what a grant's credentials reach.
pub(super) fn of_grant(grant: &Grant, around: &Around<'_>) -> Vec<Elsewhere> {
    let mut mutants = Vec::new();
    // What only a permit shows, nobody sees of a grant that is switched off.
    if !grant.enabled {
        return mutants;
    }
    for (name, credential) in &grant.credentials {
        let mut others = match &credential.target.0 {
            // Another secret, or another audience, is another target and no weaker one.
            Target::Oidc { .. } | Target::Sealed { .. } => continue,
            Target::Aws(aws) => of_aws(aws),
            Target::Vault(vault) => of_vault(vault),
        };
        let kind = credential.target.0.kind().as_str();
        let job = &around.from(None).identity;
        let whole =
            credential.target.expand(job).map_or_else(|| facts(&credential.target.0), |it| facts(&it.0));
        let steps =
            |word: &'static str| ["credentials".into(), name.as_str().into(), kind.into(), word.into()];
        // The only backend of its kind is the configuration's word, and a set has one score with it and without.
        if around.places.has(&steps("backend")) {
            others.extend(at_another_backend(&credential.target.0));
        }
        mutants.extend(others.into_iter().map(|Other { word, what, target }| Elsewhere {
            place: around.places.key(&steps(word)),
            what: format!("`{name}` {what}"),
            case: permit(around, &due(name, word, &whole)),
            credential: name.clone(),
            target: TargetTemplate(target),
        }));
    }
    mutants
}

fn at_another_backend(target: &Target) -> Option<Other> {
    let Backend::Named(name) = target.backend() else { return None };
    let backend = Backend::Named(format!("{name}-other").into());
    let target = match target {
        Target::Aws(aws) => Target::Aws(Arc::new(AwsTarget { backend, ..(**aws).clone() })),
        Target::Oidc { .. } | Target::Sealed { .. } => return None,
        Target::Vault(vault) => Target::Vault(Arc::new(VaultTarget { backend, ..(**vault).clone() })),
    };
    Some(Other { word: "backend", what: "at another backend".to_owned(), target })
}

fn due(name: &CredentialName, word: &'static str, whole: &Facts) -> String {
    let fact = whole.get(word).map_or_else(|| "…".to_owned(), value);
    format!("reaches: {{ {}: {{ {word}: {fact} }} }}", scalar(name.as_str()))
}

fn of_vault(vault: &VaultTarget) -> Vec<Other> {
    let mut others = Vec::new();
    let mut push = |word, what: String, weaken: &dyn Fn(&mut VaultTarget)| {
        let mut weaker = vault.clone();
        weaken(&mut weaker);
        others.push(Other { word, what, target: Target::Vault(Arc::new(weaker)) });
    };
    push("path", "at another path".to_owned(), &|weaker| weaker.path = with_others(&vault.path));
    if vault.fields.is_some() {
        push("fields", "with every field that is there".to_owned(), &|weaker| weaker.fields = None);
    }
    if vault.version.is_some() {
        push("version", "in whatever version is the newest".to_owned(), &|weaker| weaker.version = None);
    }
    let required = EngineSpec::by_name(vault.engine.name).map_or(&[] as &[&str], |spec| spec.required);
    for (name, value) in &vault.parameters {
        if required.contains(&name.as_str()) {
            push("parameters", format!("with another `{name}`"), &|weaker| {
                weaker.parameters.insert(name.clone(), other(value));
            });
        } else {
            push("parameters", format!("without its parameter `{name}`"), &|weaker| {
                weaker.parameters.remove(name);
            });
        }
    }
    for field in &vault.secret_fields {
        push("secret_fields", format!("with `{field}` as no secret"), &|weaker| {
            weaker.secret_fields.retain(|each| each != field);
        });
    }
    others
}

fn of_aws(aws: &AwsTarget) -> Vec<Other> {
    let mut others = Vec::new();
    let mut push = |word, what: String, weaken: &dyn Fn(&mut AwsTarget)| {
        let mut weaker = aws.clone();
        weaken(&mut weaker);
        others.push(Other { word, what, target: Target::Aws(Arc::new(weaker)) });
    };
    push("role_arn", "of another role".to_owned(), &|weaker| weaker.role_arn.push_str("-other"));
    if aws.session_policy.is_some() {
        push("session_policy", "without its session policy".to_owned(), &|weaker| {
            weaker.session_policy = None
        });
    }
    for policy in &aws.managed_policies {
        push("managed_policies", format!("without the managed policy `{policy}`"), &|weaker| {
            weaker.managed_policies.retain(|each| each != policy);
        });
    }
    for tag in aws.tags.keys() {
        push("tags", format!("without its tag `{tag}`"), &|weaker| {
            weaker.tags.remove(tag);
        });
    }
    others
}

fn other(is: &Value) -> Value {
    match is {
        Value::Array(_) | Value::Object(_) => Value::from("other"),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => neighbour::other(is),
    }
}
