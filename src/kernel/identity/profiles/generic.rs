//! The guarded profile for an issuer that we know nothing of.
//!
//! Nothing says which of its claims identify whom, so a rule must name `sub` by a literal, no claim counts as
//! immutable (hence none can stand in a path template), and there is no tenant, project or job key. Claims are
//! usable by the JSON type that they come with.
//!
//! Known hole: personal data is recognised by the usual names of claims and by an e-mail address in `sub` only; a
//! login under a name of its own is recorded as it is.

use serde_json::{Map, Value};

use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimSpec, Profile, Tenant, View},
};

/// `generic`.
pub static GENERIC: Profile = Profile {
    name: "generic",
    issuers: &["any"],
    algorithms: &[Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Ps256, Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: &[],
    open: true,
    is_shared: |_| false,
    tenant_pins: &[],
    anchors: &["sub"],
    demands: &[],
    tenant: Tenant::Issuer,
    project: None,
    jti_always: false,
    job_key: &[],
    view: View::EMPTY,
    refuses_audience: |_, _| false,
    fixed_audience: None,
    is_personal_subject: |subject| subject.contains('@'),
    foreign: |_| None,
    trigger: no_trigger,
    ordinary: &[],
    dangers: &[],
    advice: None,
};

/// It knows no triggers, so there is none that could be dangerous or missing.
fn no_trigger(_claims: &Map<String, Value>) -> Trigger {
    Trigger::Ordinary
}

/// `sub`, and the names under which OpenID Connect Core section 5.1 and CI systems carry personal data.
const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    ClaimSpec::text("actor").personal(),
    ClaimSpec::text("email").personal(),
    ClaimSpec::text("name").personal(),
    ClaimSpec::text("nickname").personal(),
    ClaimSpec::text("preferred_username").personal(),
    ClaimSpec::text("user_email").personal(),
    ClaimSpec::text("user_login").personal(),
];
