//! Bitbucket Pipelines. One issuer is one workspace, by a slug that can be renamed and then taken by others, so each rule
//! pins the workspace's UUID as on a shared issuer.
//!
//! Braces are part of every UUID, and of the literals that compare with it. It is the poorest of tokens: no actor, no
//! mark of a pull request, no commit, no file. `branchName` can be any branch that somebody could push; a deployment
//! environment is the gate that the vendor offers. The default audience is the workspace's and everybody's (F-11): only
//! a custom one, by the step's `oidc` block, is accepted.
//!
//! Source: Atlassian's pages on pipelines and OpenID Connect; gravitational/teleport `lib/bitbucket`; read in 2026.
//! UNVERIFIED: the algorithm (RS256 is taken), the lifetime, whether `jti` is there (the signed bytes are the token id
//! where it is not), whether `branchName` is absent in builds of a tag, and the form of `sub` in a deployment.

use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimSpec, Profile, Tenant, View},
};

/// `bitbucket`.
pub static BITBUCKET: Profile = Profile {
    name: "bitbucket",
    issuers: &["https://api.bitbucket.org/2.0/workspaces/WORKSPACE/pipelines-config/identity/oidc"],
    algorithms: &[Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: &[],
    open: false,
    is_shared: |_| true,
    tenant_pins: &["workspaceUuid"],
    anchors: &["workspaceUuid"],
    demands: &[],
    tenant: Tenant::Claim("workspaceUuid"),
    project: Some(("repositoryUuid", None)),
    jti_always: false,
    job_key: &[],
    view: View {
        git_ref: Some("branchName"),
        environment: Some("deploymentEnvironmentUuid"),
        run: Some("pipelineUuid"),
        ..View::EMPTY
    },
    refuses_audience: |_, audience| audience.to_ascii_lowercase().starts_with("ari:cloud:bitbucket:"),
    fixed_audience: None,
    is_personal_subject: |_| false,
    foreign: |_| None,
    trigger: |_| Trigger::Ordinary,
    ordinary: &[],
    dangers: &[],
    advice: None,
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    ClaimSpec::text("branchName").attacker_controlled(),
    ClaimSpec::text("deploymentEnvironmentUuid").immutable().braced(),
    ClaimSpec::text("pipelineUuid").required().immutable().braced(),
    ClaimSpec::text("repositoryUuid").required().immutable().identity().braced(),
    ClaimSpec::text("stepUuid").required().immutable().braced(),
    ClaimSpec::text("workspaceUuid").required().immutable().identity().braced(),
];
