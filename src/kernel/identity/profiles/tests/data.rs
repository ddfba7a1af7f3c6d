//! Laws of the profiles as data, and what each makes of its own job.

use std::collections::BTreeSet;

use super::*;
use crate::kernel::identity::profile::{ClaimKind, Tenant};

#[test]
fn profiles_are_the_contracts() {
    let names: Vec<_> = ALL.iter().map(|profile| profile.name).collect();
    let contract = "github-actions gitlab buildkite circleci kubernetes azure-devops bitbucket hcp-terraform google \
                    spiffe forgejo generic";
    assert_eq!(names.join(" "), contract);
}

#[test]
fn every_claim_that_a_profile_speaks_of_is_in_its_table() {
    for profile in ALL {
        let name = profile.name;
        let tenant = match profile.tenant {
            Tenant::Claim(claim) | Tenant::Part { of: claim, .. } => Some(claim),
            Tenant::Issuer => None,
        };
        let (project, readable) = profile.project.map_or((None, None), |(id, name)| (Some(id), name));
        let spoken = [tenant, project, readable].into_iter().flatten();
        let spoken = spoken.chain(profile.tenant_pins.iter().copied()).chain(profile.anchors.iter().copied());
        let spoken = spoken.chain(profile.job_key.iter().copied()).chain(profile.view.claims());
        let spoken = spoken.chain(profile.demands.iter().map(|demand| demand.claim));
        for claim in spoken.chain(profile.dangers.iter().map(|danger| danger.claim)) {
            assert!(profile.claim(claim).is_some(), "{name}: {claim}");
        }
        for claim in profile.tenant_pins.iter().chain(profile.job_key).copied().chain(project) {
            assert!(profile.claim(claim).unwrap().immutable, "{name}: {claim}");
        }
        let required: BTreeSet<_> = profile.required().collect();
        for claim in ["iss", "aud", "exp", "iat", "sub"].into_iter().chain(tenant).chain(project) {
            assert!(required.contains(claim), "{name} requires {claim}");
        }
        let claims: BTreeSet<_> = profile.claims.iter().map(|claim| claim.name).collect();
        assert_eq!(claims.len(), profile.claims.len(), "{name} says each claim once");
        assert_eq!((profile.claims[0].name, profile.claims[0].identity), ("sub", true), "{name}");
        assert!(profile.view.hosted.is_none() || profile.view.runner.is_some());
        let pins_some = !profile.anchors.is_empty() || profile.demands.len() > 1;
        assert!(pins_some, "a rule of {name} could name nobody");
    }
}

#[test]
fn no_claim_is_both_fixed_and_chosen_and_nested_ones_are_plain() {
    for profile in ALL {
        for claim in profile.claims.iter().chain(profile.prefixes) {
            let place = format!("{}: {}", profile.name, claim.name);
            assert!(!(claim.immutable && claim.attacker_controlled), "{place}");
            // `ClaimSpec::path` undoes no escapes, and the ledger's erasable table knows claims only.
            assert!(!claim.name.contains('~') && !REGISTERED.contains(&claim.name), "{place}");
            assert!(!claim.is_nested() || (!claim.personal && claim.kind != ClaimKind::TextList), "{place}");
            assert!(!claim.case_insensitive || claim.kind == ClaimKind::Text, "{place}");
        }
    }
}

#[test]
fn every_claim_of_the_fixtures_is_known_to_its_profile_and_usable() {
    // GitLab's lists of objects, and null for a file of another project.
    let left_out = ["user_identities", "ci_config_ref_uri", "ci_config_sha"];
    for (golden, rule) in PERMITTED {
        let claims = fixture(golden);
        let profile = trusted(golden).profile;
        let mut leaves = Vec::new();
        Leaf::all(&claims, &[], &mut leaves);
        for leaf in leaves {
            let root = leaf.0[0].as_str();
            let known = leaf.is_usable(profile) || REGISTERED.contains(&root) || left_out.contains(&root);
            assert!(known, "{golden}: {}", leaf.key());
        }
        let job = Bench::of(golden, rule).identify(&claims).unwrap();
        let unusable = job.unusable().iter().filter(|name| !left_out.contains(&name.as_str())).cloned();
        let due: &[&str] = if profile.open { &["step_key"] } else { &[] };
        assert_eq!(unusable.collect::<Vec<_>>(), due, "{golden}");
        assert!(REGISTERED.iter().all(|name| !job.claims().contains_key(*name)), "{golden}");
    }
}

#[test]
fn each_job_is_seen_as_its_system_names_it() {
    let rows = PERMITTED.iter().map(|(golden, rule)| {
        let job = Bench::of(golden, rule).identify(&fixture(golden)).unwrap();
        let seen = [
            job.tenant(),
            job.project().map(|(id, _)| id),
            job.project().and_then(|(_, name)| name),
            job.git_ref(),
            job.trigger_word(),
            job.definition(),
            job.environment(),
            job.runner(),
            job.actor(),
            job.run(),
        ];
        let protected = job.ref_protected().map_or("-".to_owned(), |is| is.to_string());
        let hosted = job.is_hosted().map_or("-".to_owned(), |is| is.to_string());
        let personal: Vec<_> = job.personal().map(|(name, _)| name).collect();
        format!(
            "{golden}: {} | protected {protected} | hosted {hosted} | personal {} | {}\n",
            seen.map(|each| each.unwrap_or("-")).join(" "),
            personal.join(","),
            job.job_key().as_deref().unwrap_or("-"),
        )
    });
    insta::assert_snapshot!(rows.collect::<String>());
}

#[test]
fn the_token_id_is_jti_where_it_is_and_the_signed_bytes_where_it_is_not() {
    for (golden, rule) in PERMITTED {
        let bench = Bench::of(golden, rule);
        let claims = fixture(golden);
        let first = bench.identify(&claims).unwrap().token().id;
        let without = bench.identify(&spoilt(golden, json!({ "jti": null })));
        if trusted(golden).profile.jti_always {
            assert_eq!(without.err().unwrap().1, "missing-claim:jti", "{golden}");
        }
        let again =
            bench.identify(&spoilt(golden, json!({ "exp": claims["exp"].as_i64().unwrap() - 1 }))).unwrap();
        assert_eq!(again.token().id == first, claims.get("jti").is_some(), "{golden}");
        assert_eq!(bench.identify(&claims).unwrap().token().id, first, "{golden}");
    }
}

#[test]
fn tokens_of_one_job_share_its_key_and_those_of_others_do_not() {
    for (golden, parts) in [
        ("github-actions", vec!["repository_id", "run_id", "run_attempt", "check_run_id"]),
        ("gitlab", vec!["job_id"]),
        ("buildkite", vec!["job_id"]),
        ("circleci", vec!["oidc.circleci.com/job-id"]),
    ] {
        let bench = Bench::of(golden, trusted(golden).profile.name);
        assert_eq!(trusted(golden).profile.job_key, parts);
        let key = |changes: Value| bench.identify(&spoilt(golden, changes)).unwrap().job_key();
        let own = key(json!({})).unwrap();
        assert_eq!(key(json!({ "jti": "another", "iat": 1_790_000_001 })), Some(own.clone()), "{golden}");
        for part in parts {
            assert_ne!(key(json!({ part: "77" })), Some(own.clone()), "{golden} {part}");
        }
    }
    let pod = Bench::of("kubernetes", "kubernetes").identify(&fixture("kubernetes")).unwrap();
    assert_eq!(pod.job_key().as_deref(), Some("ci:49ad3572-b3dd-43a6-8d77-5858d3660275"));
    let without = Bench::of("kubernetes-without-pod", "kubernetes");
    assert_eq!(without.identify(&fixture("kubernetes-without-pod")).unwrap().job_key(), None);
}

/// Every danger can happen, by the words of its own profile, and nothing else is called dangerous.
#[test]
fn a_trigger_answers_only_the_words_of_its_profile() {
    use crate::kernel::identity::job::Trigger;
    let mut seen = BTreeSet::new();
    let cases = [
        (
            "github-actions",
            "event_name",
            vec!["pull_request_target", "workflow_run", "issue_comment", "fork"],
        ),
        ("forgejo", "event_name", vec!["pull_request_target", "workflow_run", "issue_comment", "fork"]),
        ("gitlab", "job_project_id", vec!["1"]),
        ("hcp-terraform", "terraform_run_phase", vec!["plan"]),
        ("azure-devops", "rpo_ref", vec!["refs/pull/1/merge"]),
        ("azure-devops", "sub", vec!["sc://a/b/c"]),
        ("circleci", "oidc.circleci.com/ssh-rerun", vec!["x"]),
    ];
    for (golden, claim, values) in cases {
        for value in values {
            let job = Bench::of(golden, golden).identify(&spoilt(golden, json!({ claim: value }))).unwrap();
            let Trigger::Dangerous(word) = job.trigger() else { panic!("{golden} {claim} {value}") };
            let danger = job.profile().dangers.iter().find(|danger| danger.word == word);
            assert_eq!(danger.map(|danger| danger.claim), Some(job.trigger_claim()));
            seen.insert((golden, word));
        }
    }
    let all = ALL.iter().flat_map(|profile| profile.dangers.iter().map(|danger| (profile.name, danger.word)));
    assert_eq!(seen, all.collect());
}

#[test]
fn the_ordinary_words_of_a_profile_are_ordinary() {
    use crate::kernel::identity::job::Trigger;
    for profile in ALL {
        let Some(claim) = profile.view.trigger else {
            assert_eq!(profile.ordinary, [""; 0], "{}", profile.name);
            continue;
        };
        let bench = Bench::of(profile.name, profile.name);
        for word in profile.ordinary {
            let job = bench.identify(&spoilt(profile.name, json!({ claim: word }))).unwrap();
            assert_eq!(job.trigger(), Trigger::Ordinary, "{} {word}", profile.name);
        }
        assert!(!profile.has_trigger("brand_new") && !profile.ordinary.is_empty());
    }
}

/// A first policy can be drafted from one token of each system, and its tests notice every condition.
#[test]
fn a_job_of_each_profile_can_be_drafted_a_policy() {
    use crate::kernel::{
        name::{GrantName, SecretName},
        policy::suite::draft::{Wish, draft},
    };
    let mut refused = Vec::new();
    for (golden, _) in PERMITTED {
        let (issuer, claims) = (trusted(golden), fixture(golden));
        let text = format!(
            "issuer: ci\nprofile: {}\nurl: {}\naudience: \"{}\"\n",
            issuer.profile.name,
            issuer.url,
            audience(&claims)
        );
        let files = Files(BTreeMap::from([("issuers/ci.yaml".to_owned(), text.into_bytes())]));
        let wish = Wish {
            issuer: &issuer.name,
            profile: issuer.profile,
            claims: claims.as_object().unwrap(),
            grant: &GrantName::parse("drafted").unwrap(),
            secret: &SecretName::parse("npm-token").unwrap(),
        };
        if let Err(fault) = draft(&wish, &files) {
            refused.push(format!("{golden}: {fault:?}"));
        }
    }
    assert_eq!(refused, [""; 0], "{refused:#?}");
}
