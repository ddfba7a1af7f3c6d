//! Buildkite. One issuer for all of its customers.
//!
//! The job asks for the optional claims (`buildkite-agent oidc request-token --claim organization_id,pipeline_id`) and
//! for the shape of `sub`, so the ids that say whose job it is are required: a token without them names slugs only,
//! which can be renamed and taken. `sub` may be a bare UUID of anything; a rule on it must fix which kind, by the ids.
//! Branch and commit of a build started over the API are what its caller typed. No claim tells a fork's pull request
//! apart: the pipeline's own setting decides whether those are built. No `jti`: the signed bytes are the token id.
//!
//! Source: buildkite/docs `pages/agent/cli/reference/oidc.md`, `help/_oidc_request_token.md`; read in 2026.
//! UNVERIFIED: whether a branch of an API build is always a legal git ref; it is treated as free text.

use serde_json::{Map, Value};

use super::address::is_at;
use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimKind, ClaimSpec, Profile, Tenant, View},
};

/// `buildkite`.
pub static BUILDKITE: Profile = Profile {
    name: "buildkite",
    issuers: &["https://agent.buildkite.com"],
    algorithms: &[Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: PREFIXES,
    open: false,
    is_shared: |_| true,
    tenant_pins: &["organization_id"],
    anchors: &["organization_id"],
    demands: &[],
    tenant: Tenant::Claim("organization_id"),
    project: Some(("pipeline_id", Some("pipeline_slug"))),
    jti_always: false,
    job_key: &["job_id"],
    view: View {
        git_ref: Some("build_branch"),
        trigger: Some("build_source"),
        runner: Some("runner_environment"),
        hosted: Some("buildkite-hosted"),
        run: Some("build_id"),
        ..View::EMPTY
    },
    refuses_audience: |_, audience| is_at("https://buildkite.com", audience),
    fixed_audience: None,
    is_personal_subject: |_| false,
    foreign: |_| None,
    trigger,
    ordinary: SOURCES,
    dangers: &[],
    advice: Some("mint it with `buildkite-agent oidc request-token --claim organization_id,pipeline_id`"),
};

fn trigger(claims: &Map<String, Value>) -> Trigger {
    match claims.get("build_source").and_then(Value::as_str) {
        Some(source) if SOURCES.contains(&source) => Trigger::Ordinary,
        Some(_) | None => Trigger::Unknown,
    }
}

const SOURCES: &[&str] = &["api", "schedule", "trigger_job", "ui", "webhook"];

/// Tags of the agent, set by whoever starts it.
const PREFIXES: &[ClaimSpec] = &[ClaimSpec::text("agent_tag:").attacker_controlled()];

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    ClaimSpec::text("agent_id").immutable(),
    ClaimSpec::text("build_branch").attacker_controlled(),
    ClaimSpec::text("build_commit").attacker_controlled(),
    ClaimSpec::text("build_id").immutable(),
    ClaimSpec::of(ClaimKind::Integer, "build_number").immutable(),
    ClaimSpec::text("build_source"),
    ClaimSpec::text("build_tag").attacker_controlled(),
    ClaimSpec::text("cluster_id").immutable(),
    ClaimSpec::text("cluster_name"),
    ClaimSpec::text("job_id").required().immutable(),
    ClaimSpec::text("organization_id").required().immutable().identity(),
    ClaimSpec::text("organization_slug").required().identity(),
    ClaimSpec::text("pipeline_id").required().immutable().identity(),
    ClaimSpec::text("pipeline_slug").required().identity(),
    ClaimSpec::text("queue_id").immutable(),
    ClaimSpec::text("queue_key"),
    ClaimSpec::text("runner_environment"),
    // Null for a step without a key; the pipeline's file says it.
    ClaimSpec::text("step_key").attacker_controlled(),
];
