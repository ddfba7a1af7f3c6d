//! GitHub Actions: github.com, its enterprise issuers, GHE.com and GitHub Enterprise Server.
//!
//! The issuer of github.com is shared by everybody, so every rule pins a tenant. Names of owners and repositories
//! can be taken by others after a rename; the ids cannot. `sub` has two grammars and a template that repository
//! admins change: it is compared whole or not at all, never taken apart. For triggers that run a stranger's code
//! with the repository's rights `event_name` is the only mark.
//!
//! Source: github/docs `content/actions/reference/security/oidc.md`, read in 2026. `ref_protected` is in real
//! tokens and not in that page. GHES lacks newer claims (`check_run_id`, `enterprise*`, `runner_environment`), so
//! they are not required.

use serde_json::{Map, Value};

use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimSpec, Profile, View},
};

/// `github-actions`.
pub static GITHUB_ACTIONS: Profile = Profile {
    name: "github-actions",
    algorithms: &[Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: PREFIXES,
    open: false,
    shared: true,
    tenant_pins: &["repository_owner_id", "enterprise_id"],
    tenant: Some("repository_owner_id"),
    project: Some(("repository_id", Some("repository"))),
    jti_always: true,
    job_key: &["repository_id", "run_id", "run_attempt", "check_run_id"],
    view: View {
        git_ref: Some("ref"),
        ref_protected: Some("ref_protected"),
        trigger: Some("event_name"),
        definition: Some("job_workflow_ref"),
        environment: Some("environment"),
        runner: Some("runner_environment"),
        actor: Some("actor"),
        run: Some("run_id"),
    },
    is_default_audience,
    instance_site,
    is_personal_subject,
    trigger,
    must_name: &[],
};

/// The default is the owner's page: `https://github.com/OWNER`, on GHE.com `https://SUB.ghe.com/OWNER`.
fn is_default_audience(audience: &str) -> bool {
    let audience = audience.to_ascii_lowercase();
    let host = audience.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    host.is_some_and(|host| host == "github.com" || host.ends_with(".ghe.com"))
}

/// GHES signs as `https://HOST/_services/token` and defaults to `https://HOST/OWNER`.
fn instance_site(url: &str) -> Option<String> {
    url.strip_suffix("/_services/token").map(str::to_owned)
}

/// The default subjects hold no login; a customised one does where its template lists the actor, as `actor:NAME`.
fn is_personal_subject(subject: &str) -> bool {
    subject.split(':').any(|part| part == "actor")
}

/// Reads `event_name`. What is in neither list is unknown, which policy denies: an event that GitHub adds next
/// year, or one that any passer-by sets off (`issues`, `discussion`, `watch`), is not safe because it is new.
fn trigger(claims: &Map<String, Value>) -> Trigger {
    let Some(event) = claims.get("event_name").and_then(Value::as_str) else { return Trigger::Unknown };
    if let Some(word) = DANGEROUS.iter().find(|word| **word == event) {
        return Trigger::Dangerous(word);
    }
    if ORDINARY.contains(&event) { Trigger::Ordinary } else { Trigger::Unknown }
}

/// They run with the base repository's rights on code, artefacts or text of a stranger (attack class F-03); `fork`
/// is set off by whoever forks.
const DANGEROUS: &[&str] = &["pull_request_target", "workflow_run", "issue_comment", "fork"];

/// Events that take rights on the repository, or that run a pull request without its base's rights.
const ORDINARY: &[&str] = &[
    "branch_protection_rule",
    "create",
    "delete",
    "deployment",
    "deployment_status",
    "merge_group",
    "milestone",
    "page_build",
    "pull_request",
    "push",
    "registry_package",
    "release",
    "repository_dispatch",
    "schedule",
    "workflow_call",
    "workflow_dispatch",
];

/// Organisations' custom properties; set by admins of the organisation, at some also of the repository.
const PREFIXES: &[ClaimSpec] = &[ClaimSpec::text("repo_property_")];

/// Every claim but the times is a string, numbers and booleans too.
const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    ClaimSpec::text("actor").identity().personal(),
    ClaimSpec::text("actor_id").immutable().identity(),
    ClaimSpec::text("base_ref").attacker_controlled(),
    ClaimSpec::text("check_run_id").immutable(),
    ClaimSpec::text("enterprise").identity(),
    ClaimSpec::text("enterprise_id").immutable().identity(),
    ClaimSpec::text("environment").case_insensitive(),
    ClaimSpec::text("environment_node_id").immutable(),
    // Not required: without it the trigger is unknown, which is a denial of an authentic job, not a bad token.
    ClaimSpec::text("event_name"),
    ClaimSpec::text("head_ref").attacker_controlled(),
    ClaimSpec::text("job_workflow_ref"),
    ClaimSpec::text("job_workflow_sha").immutable(),
    // Empty for deployments of a bare commit.
    ClaimSpec::text("ref"),
    ClaimSpec::text("ref_protected"),
    ClaimSpec::text("ref_type"),
    ClaimSpec::text("repository").required().identity().case_insensitive(),
    ClaimSpec::text("repository_id").required().immutable().identity(),
    ClaimSpec::text("repository_owner").required().identity().case_insensitive(),
    ClaimSpec::text("repository_owner_id").required().immutable().identity(),
    ClaimSpec::text("repository_visibility"),
    ClaimSpec::text("run_attempt").required().immutable(),
    ClaimSpec::text("run_id").required().immutable(),
    ClaimSpec::text("run_number").immutable(),
    ClaimSpec::text("runner_environment"),
    ClaimSpec::text("sha").immutable(),
    ClaimSpec::text("workflow").attacker_controlled(),
    ClaimSpec::text("workflow_ref"),
    ClaimSpec::text("workflow_sha").immutable(),
];
