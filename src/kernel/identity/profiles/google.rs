//! Google's service accounts, by the metadata server or the IAM API. One issuer for all of Google, people included.
//!
//! Any customer can mint a token for our audience, so each rule pins `sub`, the account's number, which is never given
//! twice; an `email` can be made again by others and is only a name beside it (attack class F-01). A token of a person,
//! or for an application, is another kind: its `azp` is no number, and its `email` does not end in
//! `.gserviceaccount.com`. `google.compute_engine` is there for virtual machines with `format=full`. There is no `jti`:
//! the signed bytes are the token id.
//!
//! Source: Google Cloud, "Verify the identity of Compute Engine instances"; read in 2026. The keys are on another host
//! than the issuer. UNVERIFIED: how often the keys change.

use serde_json::{Map, Value};

use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimKind, ClaimSpec, Profile, Tenant, View},
};

/// `google`.
pub static GOOGLE: Profile = Profile {
    name: "google",
    issuers: &["https://accounts.google.com"],
    algorithms: &[Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: &[],
    open: false,
    is_shared: |_| true,
    tenant_pins: &["sub"],
    anchors: &["sub"],
    demands: &[],
    tenant: Tenant::Claim("sub"),
    project: Some(("sub", Some("email"))),
    jti_always: false,
    job_key: &[],
    view: View::EMPTY,
    refuses_audience: |_, _| false,
    fixed_audience: None,
    is_personal_subject: |_| false,
    foreign,
    trigger: |_| Trigger::Ordinary,
    ordinary: &[],
    dangers: &[],
    advice: None,
};

fn foreign(claims: &Map<String, Value>) -> Option<&'static str> {
    let is_number = |name: &str| {
        let text = claims.get(name).and_then(Value::as_str);
        text.is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_account =
        |email: &Value| email.as_str().is_some_and(|email| email.ends_with(".gserviceaccount.com"));
    if !is_number("sub") {
        return Some("sub");
    }
    if !is_number("azp") {
        return Some("azp");
    }
    claims.get("email").is_some_and(|email| !is_account(email)).then_some("email")
}

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().immutable().identity(),
    ClaimSpec::text("azp").required().immutable().identity(),
    // A service account's, or the token is refused: no person's.
    ClaimSpec::text("email").identity(),
    ClaimSpec::of(ClaimKind::Boolean, "email_verified"),
    ClaimSpec::of(ClaimKind::Integer, "/google/compute_engine/instance_creation_timestamp"),
    ClaimSpec::text("/google/compute_engine/instance_id").immutable().identity(),
    // Whoever starts the machine names it.
    ClaimSpec::text("/google/compute_engine/instance_name").attacker_controlled(),
    ClaimSpec::text("/google/compute_engine/project_id").immutable().identity(),
    ClaimSpec::of(ClaimKind::Integer, "/google/compute_engine/project_number").immutable().identity(),
    ClaimSpec::text("/google/compute_engine/zone"),
];
