//! Forgejo Actions. Any instance may be open to strangers, as codeberg.org is, so each rule pins its owner.
//!
//! **Only the ids say who it is.** The newer `sub` sets an id behind a name with a hyphen (`repo:acme-4216/app-701:…`),
//! which is a legal character in names: a repository that is really called so, under the older grammar, has the same
//! `sub` (attack class F-08). A rule that names it names the owner's id anyway.
//!
//! Source: Forgejo change 12355, seen through the history of a fork; read in 2026. UNVERIFIED: the issuer's path, the
//! algorithm, the lifetime, the default audience, and every claim but `actor_id`, `repository_id` and
//! `repository_owner_id`, of which the two of the repository are required. Whether a pull request of a fork can have a
//! token is UNVERIFIED too, so that `pull_request` is an unknown trigger, denied unless a rule names it.

use serde_json::{Map, Value};

use super::{
    address::is_at,
    github_actions::{DANGERS, dangerous, is_personal_subject},
};
use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimSpec, Profile, Tenant, View},
};

/// `forgejo`.
pub static FORGEJO: Profile = Profile {
    name: "forgejo",
    issuers: &["https://HOST/api/actions"],
    algorithms: &[Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: &[],
    open: false,
    is_shared: |_| true,
    tenant_pins: &["repository_owner_id"],
    anchors: &["repository_owner_id"],
    demands: &[],
    tenant: Tenant::Claim("repository_owner_id"),
    project: Some(("repository_id", Some("repository"))),
    jti_always: false,
    job_key: &[],
    view: View {
        git_ref: Some("ref"),
        ref_protected: Some("ref_protected"),
        trigger: Some("event_name"),
        actor: Some("actor"),
        run: Some("run_id"),
        ..View::EMPTY
    },
    refuses_audience: |url, audience| {
        url.strip_suffix("/api/actions").is_some_and(|site| is_at(site, audience))
    },
    fixed_audience: None,
    is_personal_subject,
    foreign: |_| None,
    trigger,
    ordinary: ORDINARY,
    dangers: DANGERS,
    advice: None,
};

fn trigger(claims: &Map<String, Value>) -> Trigger {
    let Some(event) = claims.get("event_name").and_then(Value::as_str) else { return Trigger::Unknown };
    match dangerous(event) {
        Some(word) => Trigger::Dangerous(word),
        None if ORDINARY.contains(&event) => Trigger::Ordinary,
        None => Trigger::Unknown,
    }
}

/// Events that take rights on the repository.
const ORDINARY: &[&str] = &["create", "delete", "push", "release", "schedule", "workflow_dispatch"];

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    ClaimSpec::text("actor").identity().personal(),
    ClaimSpec::text("actor_id").immutable().identity(),
    ClaimSpec::text("base_ref").attacker_controlled(),
    ClaimSpec::text("event_name"),
    ClaimSpec::text("head_ref").attacker_controlled(),
    ClaimSpec::text("ref"),
    ClaimSpec::text("ref_protected"),
    ClaimSpec::text("ref_type"),
    ClaimSpec::text("repository").identity(),
    ClaimSpec::text("repository_id").required().immutable().identity(),
    ClaimSpec::text("repository_owner").identity(),
    ClaimSpec::text("repository_owner_id").required().immutable().identity(),
    ClaimSpec::text("run_attempt").immutable(),
    ClaimSpec::text("run_id").immutable(),
    ClaimSpec::text("run_number").immutable(),
    ClaimSpec::text("sha").immutable(),
    ClaimSpec::text("workflow").attacker_controlled(),
    ClaimSpec::text("workflow_ref").file_at_ref(),
];
