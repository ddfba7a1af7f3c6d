//! CircleCI: an issuer for each organisation, and one for all (`https://oidc.circleci.com`, for tokens with claims of the
//! job's choice).
//!
//! Claims have flat names with a slash in them, such as `oidc.circleci.com/org-id`; an object of that shape is another
//! claim (attack class C-13). With "pass secrets to forked pull requests" a fork's build carries the *upstream* project's
//! id, and `vcs-origin` alone shows the fork: so each rule says which origin it means. Pipelines of custom webhooks have
//! no `vcs-origin`, and cannot be granted anything. `ssh-rerun: true` means that a person has a shell in the job; a token
//! that does not say `false` is taken for one (F-06, F-15). Version 2 of `sub` has slashes inside its values and cannot
//! be taken apart. The injected tokens are for the organisation's UUID, that is for everybody: only a custom audience is
//! accepted (F-11).
//!
//! Source: circleci/circleci-docs `openid-connect-tokens.adoc`, pull request 9745; pypi/warehouse
//! `warehouse/oidc/models/circleci.py`; read in 2026. `jti` is not documented, so the signed bytes are the token id
//! where it is absent. UNVERIFIED: the flags with which the CLI asks for an audience, and CircleCI server's own host.

use serde_json::{Map, Value};

use super::address::Address;
use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimKind, ClaimSpec, Danger, Demand, DemandedBy, NamedBy, Profile, Tenant, View},
};

/// `circleci`.
pub static CIRCLECI: Profile = Profile {
    name: "circleci",
    issuers: &["https://oidc.circleci.com/org/ORG-UUID", "https://oidc.circleci.com"],
    algorithms: &[Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: &[],
    open: false,
    is_shared: |url| !Address::of(url).path().starts_with("/org/") && is_vendors(url),
    tenant_pins: &[ORG],
    anchors: &[ORG, PROJECT],
    demands: &[Demand {
        claim: ORIGIN,
        by: DemandedBy::Literals,
        why: "a fork's build has the project's own id, and only its origin shows whose code runs",
    }],
    tenant: Tenant::Claim(ORG),
    project: Some((PROJECT, Some(ORIGIN))),
    jti_always: false,
    job_key: &["oidc.circleci.com/job-id"],
    view: View {
        git_ref: Some("oidc.circleci.com/vcs-ref"),
        definition: Some("oidc.circleci.com/pipeline-definition-id"),
        run: Some("oidc.circleci.com/pipeline-id"),
        ..View::EMPTY
    },
    refuses_audience: |_, audience| is_uuid(audience),
    fixed_audience: None,
    is_personal_subject: |_| false,
    foreign,
    trigger,
    ordinary: &[],
    dangers: &[Danger { word: "human_shell", claim: SSH_RERUN, named_by: NamedBy::True }],
    advice: None,
};

fn is_vendors(url: &str) -> bool {
    Address::of(url).is_within("circleci.com")
}

/// An organisation's own issuer speaks of that organisation only.
fn foreign(claims: &Map<String, Value>) -> Option<&'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let named = text("iss").filter(|iss| is_vendors(iss))?;
    let named = Address::of(named).path().strip_prefix("/org/")?;
    (text(ORG) != Some(named)).then_some(ORG)
}

fn trigger(claims: &Map<String, Value>) -> Trigger {
    match claims.get(SSH_RERUN).and_then(Value::as_bool) {
        Some(false) => Trigger::Ordinary,
        Some(true) | None => Trigger::Dangerous("human_shell"),
    }
}

/// 8-4-4-4-12 hex digits.
fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

const ORG: &str = "oidc.circleci.com/org-id";
const PROJECT: &str = "oidc.circleci.com/project-id";
const ORIGIN: &str = "oidc.circleci.com/vcs-origin";
const SSH_RERUN: &str = "oidc.circleci.com/ssh-rerun";

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    // Restricted contexts are the gate that the vendor offers; in no order that anybody promises.
    ClaimSpec::of(ClaimKind::TextList, "oidc.circleci.com/context-ids").immutable(),
    ClaimSpec::text("oidc.circleci.com/job-id").required().immutable(),
    ClaimSpec::text(ORG).required().immutable().identity(),
    ClaimSpec::text("oidc.circleci.com/pipeline-definition-id").immutable(),
    ClaimSpec::text("oidc.circleci.com/pipeline-id").required().immutable(),
    ClaimSpec::text(PROJECT).required().immutable().identity(),
    ClaimSpec::of(ClaimKind::Boolean, SSH_RERUN),
    ClaimSpec::text(ORIGIN).identity(),
    ClaimSpec::text("oidc.circleci.com/vcs-ref").attacker_controlled(),
    ClaimSpec::text("oidc.circleci.com/workflow-id").required().immutable(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_audience_is_a_bare_uuid() {
        assert!(is_uuid("0f6e2b0a-6f0c-4c33-9a53-6cb6c2a3d111"));
        assert!(is_uuid("0F6E2B0A-6F0C-4C33-9A53-6CB6C2A3D111"));
        for other in [
            "https://hallpass.example.com",
            "0f6e2b0a-6f0c-4c33-9a53",
            "zf6e2b0a-6f0c-4c33-9a53-6cb6c2a3d111",
        ] {
            assert!(!is_uuid(other), "{other}");
        }
    }
}
