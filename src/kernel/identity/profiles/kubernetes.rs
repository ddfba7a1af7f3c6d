//! Service accounts of a Kubernetes cluster, by projected volume or TokenRequest: also Tekton, Argo and self-hosted
//! runners that are pods. One issuer is one cluster.
//!
//! `sub` is `system:serviceaccount:NAMESPACE:NAME`; whoever may create pods in a namespace can use any account in it, and
//! accounts can be deleted and made again by the same name: the uid inside `kubernetes.io` is never given twice. A rule
//! names either `sub` or the uid; a guardrail that pins projects asks for the uid. Nothing ties such a token to a git
//! ref. A token that was asked for without a pod has no `pod`, hence no job key. `exp` may be a year away with the
//! cluster's extended expiry, which our bound of 24 h refuses. Legacy tokens from secrets have no `exp` and no `aud`.
//!
//! Source: Kubernetes documentation "Managing Service Accounts", sigstore/fulcio `config/identity/config.yaml`; read in
//! 2026. UNVERIFIED: from which version on `jti` and `node` are always there; they are optional.

use serde_json::{Map, Value};

use super::address::is_at;
use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimKind, ClaimSpec, Profile, Tenant, View},
};

/// `kubernetes`.
pub static KUBERNETES: Profile = Profile {
    name: "kubernetes",
    issuers: &[
        "https://oidc.eks.REGION.amazonaws.com/id/ID",
        "https://container.googleapis.com/v1/projects/P/locations/L/clusters/C",
        "https://REGION.oic.prod-aks.azure.com/TENANT/GUID/",
        "https://kubernetes.default.svc.cluster.local",
    ],
    algorithms: &[Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: &[],
    open: false,
    is_shared: |_| false,
    tenant_pins: &[],
    anchors: &["sub", UID],
    demands: &[],
    tenant: Tenant::Issuer,
    project: Some((UID, Some("sub"))),
    jti_always: false,
    job_key: &["/kubernetes.io/pod/uid"],
    view: View { run: Some("/kubernetes.io/pod/name"), ..View::EMPTY },
    refuses_audience,
    fixed_audience: None,
    is_personal_subject: |_| false,
    foreign,
    trigger: |_| Trigger::Ordinary,
    ordinary: &[],
    dangers: &[],
    advice: None,
};

/// The API server's own audiences, by default the issuer itself, and the one that every pod of EKS is given for AWS.
fn refuses_audience(url: &str, audience: &str) -> bool {
    let is_servers =
        |host: &str| is_at(&format!("https://{host}"), audience) || audience.eq_ignore_ascii_case(host);
    is_at(url, audience)
        || audience.eq_ignore_ascii_case("sts.amazonaws.com")
        || ["kubernetes", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
            .into_iter()
            .any(is_servers)
}

/// The API server signs for nodes and users too.
fn foreign(claims: &Map<String, Value>) -> Option<&'static str> {
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    (!subject.starts_with("system:serviceaccount:")).then_some("sub")
}

const UID: &str = "/kubernetes.io/serviceaccount/uid";

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    ClaimSpec::text("/kubernetes.io/namespace").required().identity(),
    ClaimSpec::text("/kubernetes.io/node/name"),
    ClaimSpec::text("/kubernetes.io/node/uid").immutable(),
    // Whoever creates the pod names it.
    ClaimSpec::text("/kubernetes.io/pod/name").attacker_controlled(),
    ClaimSpec::text("/kubernetes.io/pod/uid").immutable(),
    ClaimSpec::text("/kubernetes.io/secret/name"),
    ClaimSpec::text("/kubernetes.io/secret/uid").immutable(),
    ClaimSpec::text("/kubernetes.io/serviceaccount/name").required().identity(),
    ClaimSpec::text(UID).required().immutable().identity(),
    ClaimSpec::of(ClaimKind::Integer, "/kubernetes.io/warnafter"),
];
