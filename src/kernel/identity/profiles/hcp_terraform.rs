//! HCP Terraform, whose issuer is everybody's, and Terraform Enterprise on a host of its own.
//!
//! A token is for one phase of a run. A plan executes the providers and data sources of any configuration that is
//! proposed, speculative plans of pull requests among them: it is denied unless a rule names it. Names can be changed,
//! and those of projects may hold spaces; the ids with `org-`, `prj-`, `ws-` and `run-` cannot.
//!
//! Source: a workshop that quotes the vendor's page "Workload identity"; read in 2026. UNVERIFIED: the algorithm (RS256
//! is taken), the path of the keys, and what tokens of Stacks hold, which have no workspace and are refused.

use serde_json::{Map, Value};

use super::address::Address;
use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimSpec, Danger, Profile, Tenant, View},
};

/// `hcp-terraform`.
pub static HCP_TERRAFORM: Profile = Profile {
    name: "hcp-terraform",
    issuers: &["https://app.terraform.io", "https://HOST"],
    algorithms: &[Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: &[],
    open: false,
    is_shared: |url| Address::of(url).is_within("terraform.io"),
    tenant_pins: &["terraform_organization_id"],
    anchors: &["terraform_organization_id", "terraform_project_id", "terraform_workspace_id"],
    demands: &[],
    tenant: Tenant::Claim("terraform_organization_id"),
    project: Some(("terraform_workspace_id", Some("terraform_workspace_name"))),
    jti_always: true,
    job_key: &[],
    view: View { trigger: Some(PHASE), run: Some("terraform_run_id"), ..View::EMPTY },
    refuses_audience: |_, _| false,
    fixed_audience: None,
    is_personal_subject: |_| false,
    foreign: |_| None,
    trigger,
    ordinary: &["apply"],
    dangers: &[Danger::word("plan", PHASE)],
    advice: None,
};

fn trigger(claims: &Map<String, Value>) -> Trigger {
    match claims.get(PHASE).and_then(Value::as_str) {
        Some("apply") => Trigger::Ordinary,
        Some("plan") => Trigger::Dangerous("plan"),
        Some(_) | None => Trigger::Unknown,
    }
}

const PHASE: &str = "terraform_run_phase";

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    ClaimSpec::text("terraform_full_workspace").identity(),
    ClaimSpec::text("terraform_organization_id").required().immutable().identity(),
    ClaimSpec::text("terraform_organization_name").required().identity(),
    ClaimSpec::text("terraform_project_id").required().immutable().identity(),
    ClaimSpec::text("terraform_project_name").required().identity(),
    ClaimSpec::text("terraform_run_id").required().immutable(),
    ClaimSpec::text(PHASE).required(),
    ClaimSpec::text("terraform_workspace_id").required().immutable().identity(),
    ClaimSpec::text("terraform_workspace_name").required().identity(),
];
