//! Every profile as its users meet it: one broker that trusts an issuer of each, on loopback, with the full payload of a
//! job as that system signs it. What depends on an issuer's real address is tested beside the profiles.

use std::fs;

use serde_json::{Value, json};

use super::support::{
    AUDIENCE, Installation, Issuer, Server,
    installation::finish,
    issuer::{fresh_id, now},
};

/// Changes to a payload; `null` takes a claim away.
type Changes = fn() -> Vec<Value>;

/// Profile; what makes another job's token of it (403); what makes no job's token of it (401).
const PROFILES: &[(&str, Changes, Changes)] = &[
    (
        "github-actions",
        || {
            vec![
                json!({"repository_id": "702"}),
                json!({"event_name": "pull_request_target"}),
                json!({"ref": 7}),
            ]
        },
        || {
            vec![
                json!({"repository_id": 701}),
                json!({"jti": null}),
                json!({"aud": "https://github.com/acme"}),
            ]
        },
    ),
    (
        "gitlab",
        || {
            vec![
                json!({"ref_protected": "false"}),
                json!({"job_project_id": null}),
                json!({"job_project_id": "77"}),
                json!({"environment": "Production"}),
            ]
        },
        || {
            vec![
                json!({"job_id": null}),
                json!({"project_id": 20}),
                json!({"aud": [AUDIENCE, "https://other.test"]}),
            ]
        },
    ),
    (
        "buildkite",
        || vec![json!({"step_key": "other"}), json!({"build_source": "new"}), json!({"pipeline_id": "x"})],
        || vec![json!({"organization_id": null}), json!({"aud": "https://buildkite.com/acme-inc"})],
    ),
    (
        "circleci",
        || {
            vec![
                json!({"oidc.circleci.com/vcs-origin": "github.com/mallory/payments"}),
                json!({"oidc.circleci.com/ssh-rerun": true}),
                json!({"oidc.circleci.com/ssh-rerun": null}),
            ]
        },
        || vec![json!({"oidc.circleci.com/org-id": null, "oidc.circleci.com": {"org-id": "x"}})],
    ),
    (
        "kubernetes",
        || vec![json!({"kubernetes.io": account("ci", "deployer", json!("again"))})],
        || {
            vec![
                json!({"kubernetes.io": account("ci", "deployer", json!(7))}),
                json!({"sub": "system:node:ip-10-0-1-7"}),
                json!({"kubernetes.io": null}),
            ]
        },
    ),
    (
        "azure-devops",
        || {
            vec![
                json!({"sub": "sc://acme/payments/deploy-prod"}),
                json!({"def_id": "38"}),
                json!({"rpo_ref": "refs/pull/17/merge"}),
            ]
        },
        || vec![json!({"org_id": null}), json!({"aud": AUDIENCE})],
    ),
    (
        "bitbucket",
        || vec![json!({"deploymentEnvironmentUuid": null}), json!({"workspaceUuid": "{0}"})],
        || vec![json!({"stepUuid": null})],
    ),
    (
        "hcp-terraform",
        || vec![json!({"terraform_run_phase": "plan"}), json!({"terraform_organization_id": "org-1"})],
        || vec![json!({"terraform_workspace_id": null}), json!({"jti": ""})],
    ),
    (
        "google",
        || vec![json!({"sub": "104"}), json!({"email": "other@acme-prod.iam.gserviceaccount.com"})],
        || {
            vec![
                json!({"azp": "32555940559.apps.googleusercontent.com"}),
                json!({"email": "alice@acme.example"}),
            ]
        },
    ),
    (
        "spiffe",
        || vec![json!({"sub": "spiffe://dev.acme.example/ns/ci/sa/deployer"})],
        || vec![json!({"sub": "deployer"}), json!({"iat": null})],
    ),
    (
        "forgejo",
        || vec![json!({"repository_id": "5"}), json!({"event_name": "pull_request"})],
        || vec![json!({"repository_owner_id": null})],
    ),
    (
        "generic",
        || vec![json!({"build_number": "4711"}), json!({"sub": "pipeline:tools/mirror"})],
        || vec![json!({"sub": null}), json!({"sub": 7})],
    ),
];

fn account(namespace: &str, name: &str, uid: Value) -> Value {
    json!({ "namespace": namespace, "serviceaccount": { "name": name, "uid": uid } })
}

/// One profile's issuer, and the payload of its permitted job.
#[derive(Clone)]
pub(crate) struct Trusted {
    pub(crate) profile: &'static str,
    issuer: Issuer,
    claims: Value,
}

impl Trusted {
    pub(crate) fn new(profile: &'static str) -> Self {
        let issuer = Issuer::start();
        let mut claims: Value = serde_json::from_str(&fixture(&format!("claims/{profile}.json"))).unwrap();
        claims["iss"] = json!(issuer.url);
        if profile != "azure-devops" {
            claims["aud"] = if claims["aud"].is_array() { json!([AUDIENCE]) } else { json!(AUDIENCE) };
        }
        Self { profile, issuer, claims }
    }

    pub(crate) fn audience(&self) -> &str {
        self.claims["aud"].as_str().or_else(|| self.claims["aud"][0].as_str()).unwrap()
    }

    /// A token minted now, with some claims set otherwise; `null` takes one away.
    pub(crate) fn token(&self, changes: &Value) -> String {
        let mut claims = self.claims.clone();
        let (now, life) = (now(), claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap());
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + life);
        if let Some(jti) = claims.get_mut("jti") {
            *jti = json!(fresh_id());
        }
        if let Some(nbf) = claims.get_mut("nbf") {
            *nbf = json!(now);
        }
        super::support::issuer::set(&mut claims, changes.clone());
        self.issuer.mint(claims)
    }

    fn grant(&self) -> String {
        let rule = fixture(&format!("rules/{}.yaml", self.profile));
        let rule: String = rule.lines().map(|line| format!("      {line}\n")).collect();
        let name = self.profile;
        format!(
            "grant: {name}\nallow:\n  - name: r\n    issuer: {name}\n    match:\n{rule}\
             credentials:\n  npm: {{ sealed: {{ secret: npm-token }} }}\n"
        )
    }
}

fn fixture(name: &str) -> String {
    fs::read_to_string(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Serves an installation that trusts these and no other, each with a grant of the profile's name.
pub(crate) fn serve(installation: &Installation, trusted: &[Trusted]) -> Server {
    let mut issuers = "issuers:\n".to_owned();
    fs::remove_dir_all(installation.file("policies")).unwrap();
    for Trusted { profile, issuer, .. } in trusted {
        let url = &issuer.url;
        issuers += &format!(
            "  {profile}: {{ url: \"{url}\", profile: {profile}, allow_private_addresses: true }}\n"
        );
    }
    for each in trusted {
        let (profile, url, audience) = (each.profile, &each.issuer.url, each.audience());
        let policy = format!("issuer: {profile}\nprofile: {profile}\nurl: {url}\naudience: \"{audience}\"\n");
        installation.write(&format!("policies/issuers/{profile}.yaml"), &policy);
        installation.write(&format!("policies/grants/{profile}.yaml"), &each.grant());
    }
    installation.configure(&issuers);
    installation.serve()
}

#[test]
fn every_profile_lets_its_job_in_and_keeps_others_out() {
    let installation = Installation::new();
    let trusted: Vec<Trusted> = PROFILES.iter().map(|(profile, ..)| Trusted::new(profile)).collect();
    let server = serve(&installation, &trusted);
    for (each, (profile, others, strangers)) in trusted.iter().zip(PROFILES) {
        let ask = json!({ "grants": [profile] });
        let told = server.public.get("/v1/whoami").bearer(&each.token(&json!({}))).send().ok();
        assert_eq!((told["profile"].as_str(), told["issuer"].as_str()), (Some(*profile), Some(*profile)));

        let body = server.public.exchange(&each.token(&json!({})), &ask).ok();
        assert_eq!(body["issuances"][0]["grant"], *profile);

        for changes in others() {
            let answer = server.public.exchange(&each.token(&changes), &ask);
            assert_eq!(answer.status, 403, "{profile} {changes}: {answer:?}");
        }
        for changes in strangers() {
            let answer = server.public.exchange(&each.token(&changes), &ask);
            assert_eq!(answer.status, 401, "{profile} {changes}: {answer:?}");
        }
        // Another issuer's job, whatever it is called there.
        let foreign = trusted.iter().find(|other| other.profile != *profile).unwrap();
        assert_eq!(server.public.exchange(&foreign.token(&json!({})), &ask).status, 403, "{profile}");
    }
    let issued = server.entries("ISSUED");
    assert_eq!(issued.len(), PROFILES.len());
    for (profile, ..) in PROFILES {
        assert!(issued.iter().any(|entry| entry["subject"]["profile"] == *profile), "{profile}");
    }
}

#[test]
fn a_buildkite_job_is_told_how_to_ask_for_its_ids() {
    let installation = Installation::new();
    let trusted = [Trusted::new("buildkite")];
    let server = serve(&installation, &trusted);
    let token = trusted[0].token(&json!({"organization_id": null, "pipeline_id": null}));
    let answer = server.public.exchange(&token, &json!({ "grants": ["buildkite"] }));
    assert_eq!(answer.status, 401);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("--claim organization_id,pipeline_id"), "{detail}");
}

#[test]
fn jobs_of_an_older_gitlab_are_let_in_by_the_operators_word_alone() {
    let installation = Installation::new();
    let trusted = [Trusted::new("gitlab")];
    let older = json!({"job_project_id": null, "job_project_path": null, "job_namespace_id": null, "job_namespace_path": null});
    let ask = json!({ "grants": ["gitlab"] });
    {
        let server = serve(&installation, &trusted);
        assert_eq!(server.public.exchange(&trusted[0].token(&older), &ask).status, 403);
        server.stop();
    }
    let url = &trusted[0].issuer.url;
    installation.configure(&format!(
        "issuers:\n  gitlab: {{ url: \"{url}\", profile: gitlab, gitlab_min_version: \"18.1\", allow_private_addresses: true }}\n"
    ));
    let server = installation.serve();
    assert_eq!(server.public.exchange(&trusted[0].token(&older), &ask).status, 200);
    let mut merge = older;
    merge["pipeline_source"] = json!("merge_request_event");
    assert_eq!(server.public.exchange(&trusted[0].token(&merge), &ask).status, 403);
}

#[test]
fn an_audience_that_everybody_gets_is_told_before_it_serves() {
    let installation = Installation::new();
    let trusted = [Trusted::new("azure-devops")];
    drop(serve(&installation, &trusted));
    let said = finish(&mut installation.command(&["config", "check"]), "");
    let said = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
    assert!(said.contains("api://AzureADTokenExchange") && said.contains("warning"), "{said}");
}
