//! GitHub Actions: github.com, its enterprise issuers, GHE.com and GitHub Enterprise Server.
//!
//! The issuer of github.com is shared by everybody, so every rule pins a tenant. Names of owners and repositories
//! can be taken by others after a rename; the ids cannot. `sub` has two grammars and a template that repository
//! admins change: it is compared whole or not at all, never taken apart. For triggers that run a stranger's code
//! with the repository's rights `event_name` is the only mark.
//!
//! Source: github/docs `content/actions/reference/security/oidc.md`, read in 2026. `ref_protected` is in real
//! tokens and not in that page. GHES lacks newer claims (`check_run_id`, `enterprise*`, `runner_environment`), so
//! they are not required.

use serde_json::{Map, Value};

use super::address::{Address, is_at};
use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimSpec, Danger, Profile, Tenant, View},
};

/// `github-actions`.
pub static GITHUB_ACTIONS: Profile = Profile {
    name: "github-actions",
    issuers: &[
        "https://token.actions.githubusercontent.com",
        "https://token.actions.githubusercontent.com/ENTERPRISE",
        "https://token.actions.SUB.ghe.com",
        "https://HOST/_services/token",
    ],
    algorithms: &[Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: PREFIXES,
    open: false,
    is_shared,
    tenant_pins: &["repository_owner_id", "enterprise_id"],
    anchors: &["repository_id", "repository_owner_id", "enterprise_id"],
    demands: &[],
    tenant: Tenant::Claim("repository_owner_id"),
    project: Some(("repository_id", Some("repository"))),
    jti_always: true,
    job_key: &["repository_id", "run_id", "run_attempt", "check_run_id"],
    view: View {
        git_ref: Some("ref"),
        ref_protected: Some("ref_protected"),
        trigger: Some("event_name"),
        definition: Some("job_workflow_ref"),
        environment: Some("environment"),
        runner: Some("runner_environment"),
        hosted: Some("github-hosted"),
        actor: Some("actor"),
        run: Some("run_id"),
    },
    refuses_audience,
    fixed_audience: None,
    is_personal_subject,
    foreign: |_| None,
    trigger,
    ordinary: ORDINARY,
    dangers: DANGERS,
    advice: None,
};

/// The default `sub` of a token, taken apart for people to read. Both grammars are known: `repo:OWNER/REPO:CONTEXT`, and
/// since July 2026 `repo:OWNER@ID/REPO@ID:CONTEXT`. Nothing decides by it, since admins of a repository choose its
/// template (attack class F-08).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// The owner's name.
    pub owner: &'a str,
    /// The owner's id, in the newer grammar.
    pub owner_id: Option<&'a str>,
    /// The repository's name.
    pub repository: &'a str,
    /// The repository's id, in the newer grammar.
    pub repository_id: Option<&'a str>,
    /// What stands behind: `environment:NAME`, `pull_request` or `ref:REF`.
    pub context: &'a str,
}

impl<'a> Subject<'a> {
    /// Takes a `sub` apart; `None` where it follows another template.
    pub fn parse(subject: &'a str) -> Option<Self> {
        // Names hold neither `:` nor `@`, contexts may hold both: so from the left.
        let (name, context) = subject.strip_prefix("repo:")?.split_once(':')?;
        let (owner, repository) = name.split_once('/')?;
        let (owner, owner_id) = with_id(owner)?;
        let (repository, repository_id) = with_id(repository)?;
        let is_whole = owner_id.is_some() == repository_id.is_some() && !context.is_empty();
        is_whole.then_some(Self { owner, owner_id, repository, repository_id, context })
    }
}

/// `NAME` or `NAME@DIGITS`.
fn with_id(part: &str) -> Option<(&str, Option<&str>)> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match part.split_once('@') {
        None => is_name(part).then_some((part, None)),
        Some((name, id)) => {
            let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
            (is_name(name) && is_id).then_some((name, Some(id)))
        }
    }
}

/// Whether it is not plainly one tenant's: an enterprise's own issuer has its slug as path, GHE.com gives each
/// enterprise a host, and a GitHub Enterprise Server signs under `/_services/token`.
fn is_shared(url: &str) -> bool {
    let address = Address::of(url);
    let is_enterprise = address.is_host(GITHUB) && !address.path().is_empty();
    let is_ghe = address.is_within("ghe.com");
    let is_server = address.path() == SERVER_PATH && !address.is_host(GITHUB);
    !(is_enterprise || is_ghe || is_server)
}

/// The default is the owner's page: `https://github.com/OWNER`, on GHE.com `https://SUB.ghe.com/OWNER`, on a server
/// `https://HOST/OWNER`.
fn refuses_audience(url: &str, audience: &str) -> bool {
    let lower = audience.to_ascii_lowercase();
    let host = lower.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    host.is_some_and(|host| host == "github.com" || host.ends_with(".ghe.com"))
        || url.strip_suffix(SERVER_PATH).is_some_and(|site| is_at(site, audience))
}

/// The default subjects hold no login; a customised one does where its template lists the actor, as `actor:NAME`.
pub(super) fn is_personal_subject(subject: &str) -> bool {
    subject.split(':').any(|part| part == "actor")
}

const GITHUB: &str = "token.actions.githubusercontent.com";
const SERVER_PATH: &str = "/_services/token";

/// Reads `event_name`. What is in neither list is unknown, which policy denies: an event that GitHub adds next
/// year, or one that any passer-by sets off (`issues`, `discussion`, `watch`), is not safe because it is new.
fn trigger(claims: &Map<String, Value>) -> Trigger {
    let Some(event) = claims.get("event_name").and_then(Value::as_str) else { return Trigger::Unknown };
    if let Some(word) = dangerous(event) {
        return Trigger::Dangerous(word);
    }
    if ORDINARY.contains(&event) { Trigger::Ordinary } else { Trigger::Unknown }
}

/// The event as a dangerous one.
pub(super) fn dangerous(event: &str) -> Option<&'static str> {
    DANGERS.iter().map(|danger| danger.word).find(|word| *word == event)
}

/// They run with the base repository's rights on code, artefacts or text of a stranger (attack class F-03); `fork`
/// is set off by whoever forks.
pub(super) const DANGERS: &[Danger] = &[
    Danger::word("pull_request_target", "event_name"),
    Danger::word("workflow_run", "event_name"),
    Danger::word("issue_comment", "event_name"),
    Danger::word("fork", "event_name"),
];

/// Events that take rights on the repository, or that run a pull request without its base's rights.
const ORDINARY: &[&str] = &[
    "branch_protection_rule",
    "create",
    "delete",
    "deployment",
    "deployment_status",
    "merge_group",
    "milestone",
    "page_build",
    "pull_request",
    "push",
    "registry_package",
    "release",
    "repository_dispatch",
    "schedule",
    "workflow_call",
    "workflow_dispatch",
];

/// Organisations' custom properties; set by admins of the organisation, at some also of the repository.
const PREFIXES: &[ClaimSpec] = &[ClaimSpec::text("repo_property_")];

/// Every claim but the times is a string, numbers and booleans too.
const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::text("sub").required().identity(),
    ClaimSpec::text("actor").identity().personal(),
    ClaimSpec::text("actor_id").immutable().identity(),
    ClaimSpec::text("base_ref").attacker_controlled(),
    ClaimSpec::text("check_run_id").immutable(),
    ClaimSpec::text("enterprise").identity(),
    ClaimSpec::text("enterprise_id").immutable().identity(),
    ClaimSpec::text("environment").case_insensitive(),
    ClaimSpec::text("environment_node_id").immutable(),
    // Not required: without it the trigger is unknown, which is a denial of an authentic job, not a bad token.
    ClaimSpec::text("event_name"),
    ClaimSpec::text("head_ref").attacker_controlled(),
    ClaimSpec::text("job_workflow_ref").file_at_ref(),
    ClaimSpec::text("job_workflow_sha").immutable(),
    // Empty for deployments of a bare commit.
    ClaimSpec::text("ref"),
    ClaimSpec::text("ref_protected"),
    ClaimSpec::text("ref_type"),
    ClaimSpec::text("repository").required().identity().case_insensitive(),
    ClaimSpec::text("repository_id").required().immutable().identity(),
    ClaimSpec::text("repository_owner").required().identity().case_insensitive(),
    ClaimSpec::text("repository_owner_id").required().immutable().identity(),
    ClaimSpec::text("repository_visibility"),
    ClaimSpec::text("run_attempt").required().immutable(),
    ClaimSpec::text("run_id").required().immutable(),
    ClaimSpec::text("run_number").immutable(),
    ClaimSpec::text("runner_environment"),
    ClaimSpec::text("sha").immutable(),
    ClaimSpec::text("workflow").attacker_controlled(),
    ClaimSpec::text("workflow_ref").file_at_ref(),
    ClaimSpec::text("workflow_sha").immutable(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_grammars_of_the_subject_are_read() {
        let new = Subject::parse("repo:acme@4216/payments@701:environment:production").unwrap();
        assert_eq!((new.owner, new.owner_id), ("acme", Some("4216")));
        assert_eq!((new.repository, new.repository_id), ("payments", Some("701")));
        assert_eq!(new.context, "environment:production");
        let old = Subject::parse("repo:acme/payments:ref:refs/heads/a@b:c").unwrap();
        assert_eq!((old.owner, old.owner_id, old.repository_id), ("acme", None, None));
        assert_eq!(old.context, "ref:refs/heads/a@b:c");
        for custom in [
            "repository_id:74",
            "repo:acme/payments",
            "repo:acme/payments:",
            "repo:acme@/payments@701:pull_request",
            "repo:acme@4216/payments:pull_request",
            "repo:acme@42x/payments@701:pull_request",
            "repo:a/b/c:pull_request",
            "repo:/b:pull_request",
            "repository_owner:acme:repository_visibility:private",
        ] {
            assert_eq!(Subject::parse(custom), None, "{custom}");
        }
    }

    #[test]
    fn only_hosts_of_one_tenant_go_without_its_pin() {
        for shared in [
            "https://token.actions.githubusercontent.com",
            "https://token.actions.githubusercontent.com/",
            "https://TOKEN.actions.githubusercontent.com",
            "http://127.0.0.1:4000",
            "https://proxy.example.com/github",
            "https://token.actions.ghe.com.example.com",
        ] {
            assert!(is_shared(shared), "{shared}");
        }
        for own in [
            "https://token.actions.githubusercontent.com/acme-inc",
            "https://token.actions.acme.ghe.com",
            "https://token.actions.acme.ghe.com/acme",
            "https://ghe.acme.example/_services/token",
        ] {
            assert!(!is_shared(own), "{own}");
        }
    }
}
