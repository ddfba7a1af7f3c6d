//! Attack classes F-01 to F-15, as far as they are a profile's: one thing spoiled a row.

use super::*;
use crate::kernel::identity::profiles::gitlab::GITLAB_BEFORE_18_4;

#[test]
fn f01_shared_issuers_want_their_tenant_and_others_an_id() {
    let none: &[&str] = &[];
    for (golden, url, rule, due) in [
        ("github-actions", None, "repository_id: \"701\"", &["tenant-pin"][..]),
        ("github-actions", None, "repository_owner_id: { not: \"9\" }", &["tenant-pin"]),
        ("github-actions", None, "repository_owner_id: \"4216\"", none),
        ("github-actions", None, "enterprise_id: \"311\"", none),
        ("github-actions", Some("http://127.0.0.1:1"), "repository_id: \"701\"", &["tenant-pin"]),
        ("github-actions-ghes", None, "repository_id: \"701\"", none),
        ("github-actions-ghes", None, "repository: acme/payments", &["must-name"]),
        ("github-actions-ghe-com", None, "repository_id: \"701\"", none),
        ("github-actions-enterprise", None, "repository_id: \"702\"", none),
        ("github-actions-enterprise", None, "repository: acme/ledger", &["must-name"]),
        ("gitlab", None, "project_id: \"20\"", &["tenant-pin"]),
        ("gitlab", None, "namespace_id: \"72\"", none),
        ("gitlab-self-managed", None, "project_id: \"20\"", none),
        ("gitlab-self-managed", None, "project_path: acme/payments", &["must-name"]),
        ("gitlab-self-managed", Some("https://GitLab.com"), "project_id: \"20\"", &["tenant-pin"]),
        ("buildkite", None, "organization_slug: acme-inc", &["tenant-pin"]),
        ("buildkite", None, "pipeline_id: 0184990a-4782-42b5-afc1-16715b10b1a0", &["tenant-pin"]),
        ("buildkite", Some("https://buildkite.acme.example"), "pipeline_slug: payments", &["tenant-pin"]),
        ("hcp-terraform", None, "terraform_workspace_id: ws-mbsd5E3Ktt5Rg2Xm", &["tenant-pin"]),
        (
            "hcp-terraform",
            Some("https://app.eu.terraform.io"),
            "terraform_workspace_id: ws-1",
            &["tenant-pin"],
        ),
        ("hcp-terraform-enterprise", None, "terraform_workspace_id: ws-mbsd5E3Ktt5Rg2Xm", none),
        ("hcp-terraform-enterprise", None, "terraform_workspace_name: payments-prod", &["must-name"]),
        ("google", None, "email: ci@acme-prod.iam.gserviceaccount.com", &["tenant-pin"]),
        ("google", None, "/google/compute_engine/project_id: acme-prod", &["tenant-pin"]),
        ("google", Some("https://sts.acme.example"), "email: x@y.gserviceaccount.com", &["tenant-pin"]),
        ("google", None, "sub: \"117043202020202020202\"", none),
        ("bitbucket", None, "repositoryUuid: \"{a1b2c3d4-0000-4000-8000-000000000001}\"", &["tenant-pin"]),
        ("forgejo", None, "repository_id: \"701\"", &["tenant-pin"]),
        ("forgejo", None, "sub: \"repo:acme-4216/payments-701:ref:refs/heads/main\"", &["tenant-pin"]),
        ("kubernetes", None, "/kubernetes.io/namespace: ci", &["must-name"]),
        ("kubernetes", None, "/kubernetes.io/serviceaccount/uid: f5720c1d", none),
        ("spiffe", None, "sub: { present: true }", &["must-name"]),
        ("spiffe", None, "sub: spiffe://prod.acme.example/ns/ci/sa/deployer", none),
        ("generic", None, "pipeline: tools/mirror", &["must-name"]),
    ] {
        assert_eq!(codes(golden, url, rule), due, "{golden} {rule}");
    }
    let circle = "oidc.circleci.com/vcs-origin: github.com/acme/payments\noidc.circleci.com/project-id: x";
    assert_eq!(codes("circleci", None, circle), none);
    assert_eq!(codes("circleci-root", None, circle), ["tenant-pin"]);
    let nobody = "oidc.circleci.com/vcs-origin: github.com/acme/payments";
    assert_eq!(codes("circleci", None, nobody), ["must-name"]);
}

#[test]
fn f01_f07_foreign_ids_are_denied_whatever_the_names_say() {
    holds(&[
        ("github-actions", "github-actions", json!({}), "permit"),
        (
            "github-actions",
            "github-actions",
            json!({"repository_owner_id": "9999"}),
            "403 no-rule repository_owner_id",
        ),
        ("github-actions", "github-actions", json!({"repository_id": "702"}), "403 no-rule repository_id"),
        ("github-actions", "github-actions", json!({"repository": "acme/renamed"}), "403 no-rule repository"),
        ("gitlab", "gitlab", json!({"namespace_id": "73"}), "403 no-rule namespace_id"),
        ("gitlab", "gitlab", json!({"project_path": "ACME/PAYMENTS"}), "permit"),
        ("gitlab", "gitlab", json!({"project_path": "acme/payments2"}), "403 no-rule project_path"),
        ("buildkite", "buildkite", json!({"organization_id": "0"}), "403 no-rule organization_id"),
        ("buildkite", "buildkite", json!({"organization_slug": "renamed"}), "permit"),
        (
            "hcp-terraform",
            "hcp-terraform",
            json!({"terraform_organization_id": "org-1"}),
            "403 no-rule terraform_organization_id",
        ),
        ("google", "google", json!({"sub": "104", "azp": "104"}), "403 no-rule sub"),
        (
            "bitbucket",
            "bitbucket",
            json!({"workspaceUuid": "{1c0b2a3d-0000-4000-8000-00000000dddd}"}),
            "403 no-rule workspaceUuid",
        ),
        (
            "kubernetes",
            "kubernetes",
            json!({"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "deployer", "uid": "again"}}}),
            "403 no-rule /kubernetes.io/serviceaccount/uid",
        ),
    ]);
    let ids_only = Bench::with("github-actions", "repository_owner_id: \"4216\"\nrepository_id: \"701\"");
    assert_eq!(ids_only.outcome(&spoilt("github-actions", json!({"repository": "acme/renamed"}))), "permit");
}

#[test]
fn f02_f06_no_pattern_says_who_it_is() {
    for (golden, rule) in [
        ("github-actions", "sub: { glob: \"repo:acme*\" }"),
        ("github-actions", "repository: { glob: \"acme/*\" }"),
        ("circleci", "sub: { glob: \"org/*/project/**\" }"),
        ("circleci", "oidc.circleci.com/vcs-origin: { glob: \"github.com/acme/*\" }"),
        ("spiffe", "sub: { glob: \"spiffe://prod.acme.example/**\" }"),
        ("google", "email: { glob: \"*@acme-prod.iam.gserviceaccount.com\" }"),
        ("kubernetes", "/kubernetes.io/namespace: { glob: \"ci-*\" }"),
        ("azure-devops", "sub: { glob: \"p://acme/**\" }"),
        ("gitlab", "groups_direct: { glob: \"acme/*\" }"),
    ] {
        assert_eq!(codes(golden, None, rule), ["glob-on-identity"], "{golden} {rule}");
    }
    let rule = "repository_owner_id: \"4216\"\nref: { glob: \"refs/heads/release/*\" }";
    let bench = Bench::with("github-actions", rule);
    let of = |name: &str| bench.outcome(&spoilt("github-actions", json!({ "ref": name })));
    assert_eq!(of("refs/heads/release/1"), "permit");
    assert_eq!(of("refs/heads/release/1/evil"), "403 no-rule ref");
}

#[test]
fn f03_triggers_of_strangers_are_denied_unless_named() {
    for golden in ["github-actions", "forgejo"] {
        let open = Bench::with(golden, "repository_owner_id: \"4216\"\nrepository_id: \"701\"");
        let of = |event: Value| open.outcome(&spoilt(golden, json!({ "event_name": event })));
        assert_eq!(of(json!("push")), "permit");
        for event in
            ["pull_request_target", "workflow_run", "issue_comment", "fork", "brand_new_event", "PUSH"]
        {
            assert_eq!(of(json!(event)), "403 trigger event_name", "{golden} {event}");
            let named = format!("repository_owner_id: \"4216\"\nevent_name: [push, {event}]");
            let named = Bench::with(golden, &named);
            assert_eq!(
                named.outcome(&spoilt(golden, json!({ "event_name": event }))),
                "permit",
                "{golden} {event}"
            );
        }
        assert_eq!(of(Value::Null), "403 trigger event_name");
        assert_eq!(of(json!(["push"])), "403 trigger event_name");
    }
    let target = fixture("github-actions-pull-request-target");
    assert_eq!(
        Bench::of("github-actions", "github-actions").outcome(&target),
        "403 no-rule environment,event_name"
    );
    let open = Bench::with("github-actions", "repository_owner_id: \"4216\"\nref_protected: \"true\"");
    assert_eq!(open.outcome(&target), "403 trigger event_name");
    assert_eq!(open.outcome(&fixture("github-actions-pull-request")), "403 no-rule ref_protected");
    let tests = Bench::with("github-actions", "repository_owner_id: \"4216\"\nrepository_id: \"701\"");
    assert_eq!(tests.outcome(&fixture("github-actions-pull-request")), "permit");
    // On Forgejo it is not known whether a fork's pull request can have a token.
    let forgejo = Bench::with("forgejo", "repository_owner_id: \"4216\"");
    let outcome = forgejo.outcome(&spoilt("forgejo", json!({ "event_name": "pull_request" })));
    assert_eq!(outcome, "403 trigger event_name");
}

#[test]
fn f04_jobs_of_a_fork_are_denied_unless_named() {
    // A rule that is as wide as one can be: whatever is permitted here is permitted by the profile.
    let open = Bench::with("gitlab", "namespace_id: [\"72\", \"901\"]");
    let of = |changes: Value| open.outcome(&spoilt("gitlab", changes));
    assert_eq!(of(json!({})), "permit");
    assert_eq!(of(json!({"pipeline_source": "merge_request_event", "ref_protected": "false"})), "permit");
    assert_eq!(open.outcome(&fixture("gitlab-fork-merge-request")), "403 trigger pipeline_source");
    for changes in [
        json!({"project_id": "77"}),
        json!({"project_id": "77", "user_access_level": "owner"}),
        json!({"job_project_id": null}),
        json!({"job_project_id": null, "pipeline_source": "push"}),
        json!({"job_project_id": 20}),
        json!({"job_project_id": ["20"]}),
        json!({"job_project_id": ""}),
        json!({"job_project_id": "20 "}),
        json!({"pipeline_source": "external_pull_request_event"}),
        json!({"pipeline_source": "brand_new"}),
    ] {
        assert_eq!(of(changes.clone()), "403 trigger pipeline_source", "{changes}");
    }
    let named = Bench::with("gitlab", "namespace_id: \"901\"\npipeline_source: [merge_request_event, fork]");
    assert_eq!(named.outcome(&fixture("gitlab-fork-merge-request")), "permit");
    let only_the_event = Bench::with("gitlab", "namespace_id: \"901\"\npipeline_source: merge_request_event");
    assert_eq!(only_the_event.outcome(&fixture("gitlab-fork-merge-request")), "403 trigger pipeline_source");
}

#[test]
fn f04_an_older_instance_is_believed_by_the_operators_word_alone() {
    let rule = rule_text("gitlab");
    let current = trusted("gitlab-before-18-4");
    let older = TrustedIssuer { profile: &GITLAB_BEFORE_18_4, ..current.clone() };
    let bench = |issuer: &TrustedIssuer, rule: &str| {
        Bench::load(issuer, audience(&fixture("gitlab-before-18-4")), rule)
            .unwrap_or_else(|found| panic!("{found:?}"))
    };
    let claims = fixture("gitlab-before-18-4");
    assert_eq!(bench(&current, &rule).outcome(&claims), "403 trigger pipeline_source");
    assert_eq!(bench(&older, &rule).outcome(&claims), "permit");
    let open = bench(&older, "project_id: \"20\"");
    for source in ["merge_request_event", "external_pull_request_event", "parent_pipeline"] {
        let changed = spoilt("gitlab-before-18-4", json!({ "pipeline_source": source }));
        assert_eq!(open.outcome(&changed), "403 trigger pipeline_source", "{source}");
    }
    // Where the claims are there, they count.
    for (running, due) in [
        (json!("20"), "permit"),
        (json!("21"), "403 trigger pipeline_source"),
        (json!(20), "403 trigger pipeline_source"),
    ] {
        let changed = spoilt("gitlab-before-18-4", json!({ "job_project_id": running }));
        assert_eq!(open.outcome(&changed), due, "{running}");
    }
}

#[test]
fn f05_a_branch_that_is_only_called_main_is_not_protected() {
    holds(&[
        ("gitlab", "gitlab", json!({"ref_protected": "false"}), "403 no-rule ref_protected"),
        ("gitlab", "gitlab", json!({"ref_protected": true}), "403 no-rule ref_protected"),
        ("gitlab", "gitlab", json!({"ref_protected": null}), "403 no-rule ref_protected"),
        ("gitlab", "gitlab", json!({"ref_type": "tag"}), "403 no-rule ref_type"),
        ("github-actions", "github-actions", json!({"ref_protected": "false"}), "403 no-rule ref_protected"),
    ]);
    // What a stranger chooses narrows nothing.
    for (golden, rule) in [
        ("github-actions", "repository_owner_id: \"4216\"\nhead_ref: main"),
        ("github-actions", "repository_owner_id: \"4216\"\nworkflow: Deploy"),
        ("gitlab", "namespace_id: \"72\"\nref: main"),
        ("gitlab", "namespace_id: \"72\"\nuser_access_level: owner"),
        ("buildkite", "organization_id: f892efa9\nbuild_branch: main\nstep_key: deploy"),
        ("buildkite", "organization_id: f892efa9\n\"agent_tag:queue\": deploy"),
        ("bitbucket", "workspaceUuid: \"{1c0b2a3d}\"\nbranchName: main"),
        ("forgejo", "repository_owner_id: \"4216\"\nworkflow: deploy.yml"),
    ] {
        assert_eq!(codes(golden, None, rule), ["attacker-controlled"], "{golden} {rule}");
    }
}

#[test]
fn f06_f15_a_fork_or_a_shell_on_circleci_is_denied() {
    let origin = "403 no-rule oidc.circleci.com/vcs-origin";
    let shell = "403 trigger oidc.circleci.com/ssh-rerun";
    for golden in ["circleci", "circleci-root"] {
        holds(&[
            (
                golden,
                "circleci",
                json!({"oidc.circleci.com/vcs-origin": "github.com/mallory/payments"}),
                origin,
            ),
            (golden, "circleci", json!({"oidc.circleci.com/vcs-origin": null}), origin),
            (
                golden,
                "circleci",
                json!({"oidc.circleci.com/vcs-ref": "refs/heads/x/vcs-ref/refs/heads/main"}),
                "403 no-rule oidc.circleci.com/vcs-ref",
            ),
            (golden, "circleci", json!({"oidc.circleci.com/ssh-rerun": true}), shell),
            (golden, "circleci", json!({"oidc.circleci.com/ssh-rerun": null}), shell),
            (golden, "circleci", json!({"oidc.circleci.com/ssh-rerun": "false"}), shell),
            (golden, "circleci", json!({"oidc.circleci.com/ssh-rerun": []}), shell),
        ]);
    }
    let named = Bench::with(
        "circleci",
        &format!("{}oidc.circleci.com/ssh-rerun: [true, false]\n", rule_text("circleci")),
    );
    assert_eq!(named.outcome(&spoilt("circleci", json!({"oidc.circleci.com/ssh-rerun": true}))), "permit");
    assert_eq!(
        named.outcome(&spoilt("circleci", json!({"oidc.circleci.com/ssh-rerun": null}))),
        "403 no-rule oidc.circleci.com/ssh-rerun"
    );
    let without = "oidc.circleci.com/org-id: x\noidc.circleci.com/project-id: z";
    assert_eq!(codes("circleci", None, without), ["must-name"]);
    let negated = format!("{without}\noidc.circleci.com/vcs-origin: {{ not: github.com/mallory/payments }}");
    assert_eq!(codes("circleci", None, &negated), ["must-name"]);
}

#[test]
fn f08_no_grammar_of_the_subject_decides() {
    let bench = Bench::of("github-actions", "github-actions");
    for golden in ["github-actions", "github-actions-old-sub"] {
        assert_eq!(bench.outcome(&fixture(golden)), "permit");
    }
    // An environment that spells a ref, unescaped as before GHES 3.19.
    let spelt = json!({"sub": "repo:acme/payments:environment:x:ref:refs/heads/main", "environment": "x:ref:refs/heads/main", "ref": "refs/heads/evil"});
    assert_eq!(bench.outcome(&spoilt("github-actions", spelt)), "403 no-rule environment,ref");
    holds(&[("forgejo", "forgejo", json!({"repository_id": "5"}), "403 no-rule repository_id")]);
}

#[test]
fn f09_a_reusable_workflow_is_one_file_at_one_ref_and_needs_its_caller() {
    let bench = Bench::of("github-actions", "github-actions");
    let of = |name: &str| bench.outcome(&spoilt("github-actions", json!({ "job_workflow_ref": name })));
    assert_eq!(of("acme/ci/.github/workflows/deploy.yml@refs/tags/v4.2"), "permit");
    for other in [
        "acme/ci/.github/workflows/deploy.yml@refs/heads/main",
        "acme/ci/.github/workflows/deploy.yml@refs/heads/x/.github/workflows/deploy.yml@refs/tags/v4",
        "acme/ci/.github/workflows/deploy.yml@refs/heads/x@refs/tags/v4",
        "acme/ci/.github/workflows/deploy.yml@refs/tags/v4/evil",
        "mallory/x/acme/ci/.github/workflows/deploy.yml@refs/tags/v4",
    ] {
        assert_eq!(of(other), "403 no-rule job_workflow_ref", "{other}");
    }
    // A right file is no reason without the caller, and a digest is compared as such.
    let caller =
        bench.outcome(&spoilt("github-actions", json!({"repository_id": "1", "repository_owner_id": "2"})));
    assert_eq!(caller, "403 no-rule repository_id,repository_owner_id");
    let pinned = Bench::with(
        "github-actions",
        "repository_owner_id: \"4216\"\njob_workflow_sha: 27b0e1a44b6bd6c1b4f1a0d3e5ffb6d1f0c1a2b3",
    );
    assert_eq!(
        pinned.outcome(&spoilt("github-actions", json!({"job_workflow_sha": "0"}))),
        "403 no-rule job_workflow_sha"
    );
    for (golden, claim) in [
        ("github-actions", "job_workflow_ref"),
        ("github-actions", "workflow_ref"),
        ("gitlab", "ci_config_ref_uri"),
    ] {
        let pin = if golden == "gitlab" { "namespace_id: \"72\"" } else { "repository_owner_id: \"4216\"" };
        let crossing = format!("{pin}\n{claim}: {{ glob: \"acme/ci/**@refs/tags/v*\" }}");
        assert_eq!(codes(golden, None, &crossing), ["glob"], "{claim}");
        let behind = format!("{pin}\n{claim}: {{ glob: \"acme/ci/*@refs/**\" }}");
        assert_eq!(codes(golden, None, &behind), [""; 0], "{claim}");
    }
}

#[test]
fn f11_audiences_of_the_vendors_are_refused_at_load() {
    for (golden, bad) in [
        ("github-actions", "https://github.com/acme"),
        ("github-actions-ghes", "https://ghe.acme.example/acme"),
        ("github-actions-ghe-com", "https://acme.ghe.com/acme"),
        ("gitlab", "https://gitlab.com"),
        ("gitlab-self-managed", "https://gitlab.acme.example"),
        ("gitlab-self-managed", "https://gitlab.com"),
        ("buildkite", "https://buildkite.com/acme-inc"),
        ("circleci", "0f6e2b0a-6f0c-4c33-9a53-6cb6c2a3d111"),
        ("circleci-root", "0F6E2B0A-6F0C-4C33-9A53-6CB6C2A3D111"),
        ("bitbucket", "ari:cloud:bitbucket::workspace/1c0b2a3d-0000-4000-8000-00000000cccc"),
        ("kubernetes", "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E"),
        ("kubernetes", "https://kubernetes.default.svc"),
        ("kubernetes", "https://kubernetes.default.svc.cluster.local"),
        ("kubernetes", "sts.amazonaws.com"),
        ("forgejo", "https://code.acme.example/acme"),
    ] {
        let found = Bench::load(&trusted(golden), bad, &rule_text(trusted(golden).profile.name))
            .err()
            .unwrap_or_default();
        assert!(found.iter().any(|finding| finding.code == "audience-default"), "{golden} {bad}: {found:?}");
    }
    // No token of Azure DevOps has another audience, and policy says it out loud.
    let rule = rule_text("azure-devops");
    for other in ["https://hallpass.example.com", "api://azureadtokenexchange", "api://AzureADTokenExchange/"]
    {
        let found = Bench::load(&trusted("azure-devops"), other, &rule).err().unwrap_or_default();
        assert_eq!(
            found.iter().map(|finding| finding.code).collect::<Vec<_>>(),
            ["audience-fixed"],
            "{other}"
        );
    }
    assert!(Bench::load(&trusted("azure-devops"), "api://AzureADTokenExchange", &rule).is_ok());
}

#[test]
fn f12_other_tokens_of_the_same_issuer_are_no_jobs() {
    let circle = "401 another-kind:oidc.circleci.com/org-id";
    holds(&[
        (
            "google",
            "google",
            json!({"azp": "32555940559.apps.googleusercontent.com"}),
            "401 another-kind:azp",
        ),
        ("google", "google", json!({"email": "alice@acme.example"}), "401 another-kind:email"),
        ("google", "google", json!({"email": "a@gserviceaccount.com.evil.test"}), "401 another-kind:email"),
        ("google", "google", json!({"sub": "x1"}), "401 another-kind:sub"),
        ("google", "google", json!({"azp": null}), "401 missing-claim:azp"),
        ("kubernetes", "kubernetes", json!({"sub": "system:serviceaccount:ci:other"}), "403 no-rule sub"),
        ("kubernetes", "kubernetes", json!({"sub": "system:node:ip-10-0-1-7"}), "401 another-kind:sub"),
        (
            "kubernetes",
            "kubernetes",
            json!({"kubernetes.io": null}),
            "401 missing-claim:/kubernetes.io/namespace",
        ),
        ("spiffe", "spiffe", json!({"sub": "deployer"}), "401 another-kind:sub"),
        ("spiffe", "spiffe", json!({"sub": "spiffe://prod.acme.example"}), "401 another-kind:sub"),
        (
            "spiffe",
            "spiffe",
            json!({"sub": "spiffe://dev.acme.example/ns/ci/sa/deployer"}),
            "403 no-rule sub",
        ),
        ("spiffe", "spiffe", json!({"iat": null}), "401 missing-claim:iat"),
        (
            "circleci",
            "circleci",
            json!({"oidc.circleci.com/org-id": "1f6e2b0a-6f0c-4c33-9a53-6cb6c2a3d111"}),
            circle,
        ),
        (
            "azure-devops",
            "azure-devops",
            json!({"org_id": "1d2c3b4a-0000-4000-8000-00000000bbbb"}),
            "401 another-kind:org_id",
        ),
    ]);
    let google = Bench::of("google", "google");
    assert_eq!(google.outcome(&fixture("google-user-login")), "401 another-kind:azp");
    let by_number = Bench::with("google", "sub: \"117043202020202020202\"");
    assert_eq!(by_number.outcome(&fixture("google-without-email")), "permit");
    let login = Bench::of("gitlab", "gitlab").outcome(&fixture("gitlab-user-login"));
    assert_eq!(login, "401 missing-claim:jti");
    let mut login = fixture("gitlab-user-login");
    login["jti"] = json!("0b8f6f0e");
    assert_eq!(Bench::of("gitlab", "gitlab").outcome(&login), "401 missing-claim:job_id");
}

#[test]
fn f12_a_service_connection_is_no_pipeline() {
    let bench = Bench::of("azure-devops", "azure-devops");
    assert_eq!(bench.outcome(&fixture("azure-devops-service-connection")), "403 trigger sub");
    assert_eq!(bench.outcome(&fixture("azure-devops-pull-request")), "403 no-rule rpo_ref");
    for subject in [
        "p://acme/payments",
        "p:///payments/deploy",
        "x://acme/payments/deploy",
        "P://acme/payments/deploy",
        "p://",
    ] {
        let outcome = bench.outcome(&spoilt("azure-devops", json!({ "sub": subject })));
        assert_eq!(outcome, "403 trigger trigger", "{subject}");
    }
    let ids = rule_text("azure-devops");
    let connection =
        Bench::with("azure-devops", &format!("{ids}sub: \"sc://acme/payments/prod-connection\"\n"));
    assert_eq!(connection.outcome(&fixture("azure-devops-service-connection")), "permit");
    assert_eq!(connection.outcome(&fixture("azure-devops")), "403 no-rule sub");
    let wide = ids.replace("refs/heads/**", "refs/**");
    let wide = Bench::with("azure-devops", &wide);
    assert_eq!(wide.outcome(&fixture("azure-devops-pull-request")), "403 trigger rpo_ref");
    assert_eq!(wide.outcome(&spoilt("azure-devops", json!({"rpo_ref": null}))), "403 no-rule rpo_ref");
    // Two dangers at once are named by nothing.
    let both = Bench::with(
        "azure-devops",
        &ids.replace("{ glob: \"refs/heads/**\" }", "refs/pull/17/merge")
            .replace("org_id", "sub: \"sc://acme/payments/prod-connection\"\norg_id"),
    );
    let claims = spoilt("azure-devops-pull-request", json!({"sub": "sc://acme/payments/prod-connection"}));
    assert_eq!(both.outcome(&claims), "403 trigger trigger");
    for gone in ["org_id", "prj_id", "def_id", "rpo_ref"] {
        let rest: String =
            ids.lines().filter(|line| !line.starts_with(gone)).map(|line| format!("{line}\n")).collect();
        assert_eq!(codes("azure-devops", None, &rest), ["must-name"], "{gone}");
        let negated = format!("{rest}{gone}: {{ not: x }}\n");
        assert_eq!(codes("azure-devops", None, &negated), ["must-name"], "{gone}");
    }
}

#[test]
fn f13_a_rule_is_for_its_issuer_alone() {
    let claims = fixture("gitlab-self-managed");
    let mut issuer = trusted("gitlab-self-managed");
    let bench = Bench::load(&issuer, audience(&claims), &rule_text("gitlab")).unwrap_or_else(|_| panic!());
    issuer.name = IssuerName::parse("other").unwrap();
    let Value::Object(members) = claims else { panic!() };
    let identity = JobIdentity::from_claims(issuer.name, issuer.profile, members, now()).ok().unwrap();
    let asked = GrantRequest { name: "a".to_owned(), credentials: None, ttl: None };
    let Decision::Deny(denial) = decide(&bench.set, &identity, &Request { grants: vec![asked] }, now())
    else {
        panic!("a permit for another issuer's job")
    };
    assert_eq!(denial.trace[0].failed, ["iss"]);
}

#[test]
fn f14_environments_are_compared_as_their_system_does() {
    holds(&[
        ("github-actions", "github-actions", json!({"environment": "PRODUCTION"}), "permit"),
        ("github-actions", "github-actions", json!({"environment": null}), "403 no-rule environment"),
        (
            "github-actions",
            "github-actions",
            json!({"environment": "production "}),
            "403 no-rule environment",
        ),
        ("gitlab", "gitlab", json!({"environment": "Production"}), "403 no-rule environment"),
        ("gitlab", "gitlab", json!({"environment_protected": "false"}), "403 no-rule environment_protected"),
        (
            "gitlab",
            "gitlab",
            json!({"environment": null, "environment_protected": null}),
            "403 no-rule environment,environment_protected",
        ),
    ]);
}

#[test]
fn a_plan_is_no_apply() {
    let bench = Bench::of("hcp-terraform", "hcp-terraform");
    assert_eq!(bench.outcome(&fixture("hcp-terraform-plan")), "403 trigger terraform_run_phase");
    let named = format!("{}terraform_run_phase: plan\n", rule_text("hcp-terraform"));
    assert_eq!(Bench::with("hcp-terraform", &named).outcome(&fixture("hcp-terraform-plan")), "permit");
    let newer = spoilt("hcp-terraform", json!({"terraform_run_phase": "test"}));
    assert_eq!(bench.outcome(&newer), "403 trigger terraform_run_phase");
}
