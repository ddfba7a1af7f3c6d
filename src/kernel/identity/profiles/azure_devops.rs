//! Azure DevOps pipelines. One issuer is one organisation, by its GUID.
//!
//! **The audience cannot be chosen**: every token is for `api://AzureADTokenExchange`, so that ours is good at Entra and
//! Entra's is good here, until it expires. Policy opts in by writing that audience out; no other one is accepted, since
//! no token has it. Because of it each rule names organisation, project and pipeline by their ids, and says which ref.
//! Only a pipeline's own identity is one: `sub` `p://ORG/PROJECT/PIPELINE`. A service connection's, `sc://…`, is issued
//! for somewhere else, and is denied unless a rule names that very `sub`. Names in `sub` can all be changed. Pull
//! requests, forks' among them, have a `rpo_ref` below `refs/pull/`: they are denied as `fork` unless a rule names such a
//! ref. There is no environment, runner or actor.
//!
//! Source: gravitational/teleport `lib/azuredevops`; azure-identity `azure_pipelines.py`; read in 2026. UNVERIFIED: the
//! algorithm (RS256 is taken), the lifetime, whether `jti` is there (the signed bytes are the token id where it is not),
//! and the newer service connections whose tokens Entra issues, which this profile does not know.

use serde_json::{Map, Value};

use super::address::Address;
use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimSpec, Danger, Demand, DemandedBy, NamedBy, Profile, Tenant, View},
};

/// `azure-devops`.
pub static AZURE_DEVOPS: Profile = Profile {
    name: "azure-devops",
    issuers: &["https://vstoken.dev.azure.com/ORG-GUID"],
    algorithms: &[Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: &[],
    open: false,
    is_shared: |_| false,
    tenant_pins: &["org_id"],
    anchors: &[],
    demands: &[
        Demand { claim: "org_id", by: DemandedBy::Literals, why: SHARED },
        Demand { claim: "prj_id", by: DemandedBy::Literals, why: SHARED },
        Demand { claim: "def_id", by: DemandedBy::Literals, why: SHARED },
        Demand {
            claim: "rpo_ref",
            by: DemandedBy::Match,
            why: "nothing else tells a release from anybody's branch",
        },
    ],
    tenant: Tenant::Claim("org_id"),
    project: Some(("prj_id", Some("sub"))),
    jti_always: false,
    job_key: &[],
    view: View { git_ref: Some("rpo_ref"), definition: Some("def_id"), run: Some("run_id"), ..View::EMPTY },
    refuses_audience: |_, _| false,
    fixed_audience: Some("api://AzureADTokenExchange"),
    is_personal_subject: |_| false,
    foreign,
    trigger,
    ordinary: &[],
    dangers: &[
        Danger { word: "fork", claim: "rpo_ref", named_by: NamedBy::Beginning(PULL) },
        Danger { word: "service_connection", claim: "sub", named_by: NamedBy::Beginning("sc://") },
    ],
    advice: None,
};

/// The organisation's GUID stands in the issuer too.
fn foreign(claims: &Map<String, Value>) -> Option<&'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let address = Address::of(text("iss")?);
    let named = address.is_host("vstoken.dev.azure.com").then(|| address.path().strip_prefix('/'))??;
    (text("org_id") != Some(named)).then_some("org_id")
}

fn trigger(claims: &Map<String, Value>) -> Trigger {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let is_pipeline = text("sub").and_then(|sub| sub.strip_prefix("p://")).is_some_and(is_three_names);
    let is_connection = text("sub").is_some_and(|sub| sub.starts_with("sc://"));
    // Without a ref it cannot be told from a pull request.
    let is_pull = text("rpo_ref").is_none_or(|rpo_ref| rpo_ref.is_empty() || rpo_ref.starts_with(PULL));
    match (is_pipeline, is_connection, is_pull) {
        (true, _, false) => Trigger::Ordinary,
        (true, _, true) => Trigger::Dangerous("fork"),
        (false, true, false) => Trigger::Dangerous("service_connection"),
        // Two dangers at once, or neither kind: nothing names that.
        (false, _, _) => Trigger::Unknown,
    }
}

/// Organisation, project, pipeline; a folder of pipelines may stand between.
fn is_three_names(rest: &str) -> bool {
    rest.split('/').count() >= 3 && rest.split('/').all(|part| !part.is_empty())
}

const PULL: &str = "refs/pull/";
const SHARED: &str = "tokens of this vendor have one audience for all relying parties, so the ids must tell";

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    ClaimSpec::text("def_id").required().immutable().identity(),
    ClaimSpec::text("org_id").required().immutable().identity(),
    ClaimSpec::text("prj_id").required().immutable().identity(),
    // A GUID for code in Azure Repos, `owner/repo` for code elsewhere.
    ClaimSpec::text("rpo_id").identity(),
    ClaimSpec::text("rpo_ref"),
    ClaimSpec::text("rpo_uri").identity(),
    ClaimSpec::text("rpo_ver").immutable(),
    ClaimSpec::text("run_id").required().immutable(),
];
