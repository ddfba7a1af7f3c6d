//! Types and names of claims (attack classes C-02, C-13): a profile's, inside objects too.

use super::*;
use crate::kernel::identity::job::Trigger;

#[test]
fn c02_types_are_the_profiles() {
    holds(&[
        ("github-actions", "github-actions", json!({"repository_id": 701}), "401 claim-type:repository_id"),
        ("github-actions", "github-actions", json!({"ref": 7}), "403 no-rule ref"),
        ("buildkite", "buildkite", json!({"step_key": 7}), "403 no-rule step_key"),
        ("gitlab", "gitlab", json!({"project_id": 20}), "401 claim-type:project_id"),
        (
            "kubernetes",
            "kubernetes",
            json!({"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "deployer", "uid": 7}}}),
            "401 claim-type:/kubernetes.io/serviceaccount/uid",
        ),
        (
            "kubernetes",
            "kubernetes",
            json!({"kubernetes.io": {"namespace": "ci", "serviceaccount": "deployer"}}),
            "401 missing-claim:/kubernetes.io/serviceaccount/name",
        ),
    ]);
    let numbered = Bench::with("buildkite", &format!("{}build_number: 1812\n", rule_text("buildkite")));
    assert_eq!(numbered.outcome(&fixture("buildkite")), "permit");
    assert_eq!(
        numbered.outcome(&spoilt("buildkite", json!({"build_number": "1812"}))),
        "403 no-rule build_number"
    );
    let bare = Bench::of("buildkite", "buildkite").outcome(&fixture("buildkite-bare"));
    assert_eq!(bare, "401 missing-claim:organization_id");
    let step = Bench::of("buildkite", "buildkite");
    let claims = step.identify(&json_null("buildkite", "step_key")).unwrap();
    assert_eq!(claims.unusable(), ["step_key"]);
    assert_eq!(step.outcome(&json_null("buildkite", "step_key")), "403 no-rule step_key");
    let absent = Bench::with(
        "buildkite",
        "organization_id: f892efa9-103e-4d28-97a1-3b8616a0994d\nstep_key: { present: false }\nbuild_source: webhook",
    );
    assert_eq!(absent.outcome(&json_null("buildkite", "step_key")), "403 no-rule step_key");

    for (golden, rule, due) in [
        ("buildkite", "organization_id: x\nbuild_number: \"12\"", "type"),
        ("gitlab", "namespace_id: \"72\"\nrunner_id: \"1\"", "type"),
        ("gitlab", "namespace_id: \"72\"\nref_protected: true", "literal-type"),
        ("gitlab", "namespace_id: \"72\"\ngroups_direct: acme/platform", "literal-type"),
        ("gitlab", "namespace_id: \"72\"\n/groups_direct/0: acme/platform", ""),
        (
            "circleci",
            "oidc.circleci.com/org-id: x\noidc.circleci.com/vcs-origin: z\noidc.circleci.com/ssh-rerun: \"false\"",
            "type",
        ),
        ("bitbucket", "workspaceUuid: 1c0b2a3d-0000-4000-8000-00000000cccc", "literal-type"),
        ("kubernetes", "sub: x\n/kubernetes.io/warnafter: \"1\"", "type"),
    ] {
        let found = codes(golden, None, rule);
        assert_eq!(found.first().copied().unwrap_or_default(), due, "{golden} {rule}: {found:?}");
    }
}

fn json_null(golden: &str, name: &str) -> Value {
    let mut claims = fixture(golden);
    claims[name] = Value::Null;
    claims
}

#[test]
fn c13_a_flat_name_is_not_a_path() {
    let nested = json!({"oidc.circleci.com/org-id": null, "oidc.circleci.com": {"org-id": "0f6e2b0a-6f0c-4c33-9a53-6cb6c2a3d111"}});
    holds(&[("circleci", "circleci", nested, "401 missing-claim:oidc.circleci.com/org-id")]);
    for (golden, rule, near) in [
        ("circleci", "/oidc.circleci.com/org-id: x", ""),
        ("circleci", "oidc.circleci.com/org_id: x", "oidc.circleci.com/org-id"),
        ("kubernetes", "/kubernetes.io/serviceaccount/uuid: x", "/kubernetes.io/serviceaccount/uid"),
        ("kubernetes", "kubernetes.io: x", ""),
        ("kubernetes", "/kubernetes.io/serviceaccount: x", ""),
        ("kubernetes", "/kubernetes.io/namespace/x: y", ""),
        ("google", "/google/compute_engine/project_ids: x", "/google/compute_engine/project_id"),
        ("gitlab", "/user_identities/0/provider: saml", ""),
    ] {
        let issuer = trusted(golden);
        let found = Bench::load(&issuer, audience(&fixture(golden)), rule).err().unwrap_or_default();
        let hit = found.iter().find(|finding| finding.code == "unknown-claim");
        let hit = hit.unwrap_or_else(|| panic!("{rule}: {found:?}"));
        assert!(hit.remedy.contains(near), "{rule}: {hit}");
    }
}

#[test]
fn inside_an_object_a_wrong_type_satisfies_nothing() {
    let sub = "sub: system:serviceaccount:ci:deployer";
    let account = json!({"name": "deployer", "uid": "f5720c1d-e152-4356-a897-11b07aff165d"});
    let with = |more: Value| {
        let mut object = json!({"namespace": "ci", "serviceaccount": account});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spoilt("kubernetes", json!({ "kubernetes.io": object }))
    };
    let absent = Bench::with("kubernetes", &format!("{sub}\n/kubernetes.io/pod/uid: {{ present: false }}"));
    assert_eq!(absent.outcome(&with(json!({}))), "permit");
    assert_eq!(absent.outcome(&with(json!({"pod": {}}))), "permit");
    for bad in [
        json!({"pod": null}),
        json!({"pod": "x"}),
        json!({"pod": []}),
        json!({"pod": {"uid": null}}),
        json!({"pod": {"uid": 7}}),
        json!({"pod": {"uid": "x"}}),
    ] {
        assert_eq!(absent.outcome(&with(bad.clone())), "403 no-rule /kubernetes.io/pod/uid", "{bad}");
    }
    let other = Bench::with("kubernetes", &format!("{sub}\n/kubernetes.io/pod/uid: {{ not: other }}"));
    assert_eq!(other.outcome(&with(json!({"pod": {"uid": "x"}}))), "permit");
    for bad in [json!({}), json!({"pod": {"uid": 7}}), json!({"pod": {"uid": ["x"]}})] {
        assert_eq!(other.outcome(&with(bad.clone())), "403 no-rule /kubernetes.io/pod/uid", "{bad}");
    }
    let job =
        absent.identify(&with(json!({"pod": {"uid": 7, "name": "p", "labels": {}}, "extra": 1}))).unwrap();
    assert_eq!(job.unusable(), ["/kubernetes.io/pod/uid"]);
    assert_eq!(
        job.claims()["kubernetes.io"],
        json!({"namespace": "ci", "serviceaccount": account, "pod": {"name": "p"}})
    );
    assert_eq!(job.trigger(), Trigger::Ordinary);
}
