//! GitLab CI/CD: gitlab.com and instances of one's own.
//!
//! The set of keys also signs ID tokens of people who log in with GitLab, under the same issuer, so what only a job has
//! (`job_id`, `pipeline_id`, …) is required (attack class F-12). For a merge request from a fork that runs in the
//! parent project, `project_*` name the *fork* and `job_project_*` the project that runs the job: where they differ, or
//! where `job_project_id` is absent, the trigger is `fork` (F-04). `user_access_level` is counted against the same fork,
//! so that an outsider is normally its `owner`: never a reason to let somebody in. `ref` of a merge request is its source
//! branch by name alone, which a stranger may call `main`; `ref_protected` tells (F-05). Paths compare without ASCII
//! case, as GitLab resolves them. `environment_protected` is always `"false"` on the Community Edition (F-14).
//! `ci_config_ref_uri` covers no `include:`, and is null where the file is in another project. Templates of `sub` are
//! the maintainers' to choose.
//!
//! `job_project_*` came with 18.4. An operator who has an older instance says so with `gitlab_min_version`, and gets
//! [`GITLAB_BEFORE_18_4`].
//!
//! Source: gitlabhq `doc/ci/secrets/id_token_authentication.md`, `lib/gitlab/ci/jwt.rb`,
//! `lib/json_web_token/user_project_token_claims.rb`; GitLab issue 563038; read in 2026.

use serde_json::{Map, Value};

use super::address::{Address, is_at};
use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimKind, ClaimSpec, Danger, Profile, Tenant, View},
};

/// `gitlab`.
pub static GITLAB: Profile = Profile {
    name: "gitlab",
    issuers: &["https://gitlab.com", "https://HOST"],
    algorithms: &[Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: &[],
    open: false,
    is_shared: |url| Address::of(url).is_host("gitlab.com"),
    tenant_pins: &["namespace_id"],
    anchors: &["namespace_id", "project_id", "job_namespace_id", "job_project_id"],
    demands: &[],
    tenant: Tenant::Claim("namespace_id"),
    project: Some(("project_id", Some("project_path"))),
    jti_always: true,
    job_key: &["job_id"],
    view: View {
        git_ref: Some("ref"),
        ref_protected: Some("ref_protected"),
        trigger: Some("pipeline_source"),
        definition: Some("ci_config_ref_uri"),
        environment: Some("environment"),
        runner: Some("runner_environment"),
        hosted: Some("gitlab-hosted"),
        actor: Some("user_login"),
        run: Some("pipeline_id"),
    },
    refuses_audience: |url, audience| is_at("https://gitlab.com", audience) || is_at(url, audience),
    fixed_audience: None,
    is_personal_subject: |subject| subject.contains('@'),
    foreign: |_| None,
    trigger: |claims| trigger(claims, Age::Current),
    ordinary: ORDINARY,
    dangers: &[Danger::word("fork", "pipeline_source")],
    advice: None,
};

/// `gitlab` for an instance that may be older than 18.4, by the operator's word: a job without `job_project_id` is
/// believed to run in its own project, but for pipelines of merge requests and their children, which may be a fork's.
pub static GITLAB_BEFORE_18_4: Profile =
    Profile { trigger: |claims| trigger(claims, Age::Before18_4), ..GITLAB };

/// What an instance can be expected to say.
#[derive(Clone, Copy, PartialEq)]
enum Age {
    Before18_4,
    Current,
}

fn trigger(claims: &Map<String, Value>, age: Age) -> Trigger {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let source = text("pipeline_source");
    let is_own = match (text("job_project_id"), text("project_id")) {
        (Some(running), Some(project)) => running == project,
        // A claim of another type is not an absent one.
        (None, _) if claims.contains_key("job_project_id") => false,
        (None, _) => age == Age::Before18_4 && !source.is_some_and(|source| MAYBE_A_FORK.contains(&source)),
        (Some(_), None) => false,
    };
    if !is_own {
        return Trigger::Dangerous("fork");
    }
    if source.is_some_and(|source| ORDINARY.contains(&source)) { Trigger::Ordinary } else { Trigger::Unknown }
}

/// On instances that do not tell whose pipeline it is; a child pipeline inherits its parent's commit.
const MAYBE_A_FORK: &[&str] = &["external_pull_request_event", "merge_request_event", "parent_pipeline"];

/// Sources that take rights on the project, or run in it for a merge request from itself.
const ORDINARY: &[&str] = &[
    "api",
    "chat",
    "merge_request_event",
    "parent_pipeline",
    "pipeline",
    "push",
    "schedule",
    "security_orchestration_policy",
    "trigger",
    "web",
    "webide",
];

/// Strings, but for `runner_id` and `groups_direct`. `user_identities` and `job_config` hold objects of which policy has
/// no use, and are left out.
const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    // Null where the file is in another project than the pipeline.
    ClaimSpec::text("ci_config_ref_uri").file_at_ref(),
    ClaimSpec::text("ci_config_sha").immutable(),
    ClaimSpec::text("deployment_tier"),
    ClaimSpec::text("environment"),
    ClaimSpec::text("environment_action"),
    ClaimSpec::text("environment_protected"),
    // Absent above 200 groups. Paths of the user's groups, which can be renamed.
    ClaimSpec::of(ClaimKind::TextList, "groups_direct").identity(),
    ClaimSpec::text("job_id").required().immutable(),
    ClaimSpec::text("job_namespace_id").immutable().identity(),
    ClaimSpec::text("job_namespace_path").identity().case_insensitive(),
    ClaimSpec::text("job_project_id").immutable().identity(),
    ClaimSpec::text("job_project_path").identity().case_insensitive(),
    ClaimSpec::text("job_source"),
    ClaimSpec::text("namespace_id").required().immutable().identity(),
    ClaimSpec::text("namespace_path").required().identity().case_insensitive(),
    ClaimSpec::text("pipeline_id").required().immutable(),
    ClaimSpec::text("pipeline_source").required(),
    ClaimSpec::text("project_id").required().immutable().identity(),
    ClaimSpec::text("project_path").required().identity().case_insensitive(),
    ClaimSpec::text("project_visibility"),
    // The source branch of a merge request, from forks too.
    ClaimSpec::text("ref").required().attacker_controlled(),
    ClaimSpec::text("ref_path").attacker_controlled(),
    ClaimSpec::text("ref_protected"),
    ClaimSpec::text("ref_type").required(),
    ClaimSpec::text("runner_environment"),
    ClaimSpec::of(ClaimKind::Integer, "runner_id").immutable(),
    ClaimSpec::text("sha").immutable(),
    ClaimSpec::text("target_audience"),
    // Of the fork where there is one; null where the user has none.
    ClaimSpec::text("user_access_level").attacker_controlled(),
    ClaimSpec::text("user_email").identity().personal(),
    ClaimSpec::text("user_id").immutable().identity(),
    ClaimSpec::text("user_login").identity().personal(),
];
