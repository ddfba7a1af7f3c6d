//! Tokens of a real Kubernetes API server: workloads that take their turn at the exchange with the token of their
//! service account, bound to a pod, to a secret or to nothing. Keys over TLS with the cluster's own authority.

use std::sync::Arc;

use serde_json::json;

use super::support::{
    AUDIENCE,
    forgery::{Forged, claims, forgeries, refused_beside_good},
    installation::CANARY,
    issuer::now,
    kubernetes::Cluster,
    trust::{Broker, Trust, release},
};

#[test]
fn workload_gets_its_credential_once_whatever_its_token_is_bound_to() {
    let ours = Trusted::new();
    let [pod, secret] = [ours.cluster.pod("job-1"), ours.cluster.secret("binding")];
    for bound in [None, Some(("Pod", "job-1", pod.as_str())), Some(("Secret", "binding", secret.as_str()))] {
        let token = ours.cluster.token(bound);

        let body = ours.broker.server.public.exchange(&token, &release()).ok();

        assert_eq!(body["issuances"][0]["fields"]["value"], CANARY, "{bound:?}");
        ours.broker.server.public.exchange(&token, &release()).problem(409, "token_replayed");
    }
}

#[test]
fn ledger_names_the_workload_as_the_cluster_does() {
    let ours = Trusted::new();
    let pod = ours.cluster.pod("job-2");
    let token = ours.cluster.token(Some(("Pod", "job-2", &pod)));

    ours.broker.server.public.exchange(&token, &release()).ok();

    let issued = &ours.broker.server.entries("ISSUED")[0];
    assert_eq!(issued["subject"]["claims"]["sub"], "system:serviceaccount:ci:deployer", "{issued}");
    let workload = &issued["subject"]["claims"]["kubernetes.io"];
    assert_eq!(workload["namespace"], "ci", "{issued}");
    assert_eq!(workload["serviceaccount"]["uid"], ours.cluster.account, "{issued}");
    assert_eq!(workload["pod"]["uid"], pod, "{issued}");
}

#[test]
fn what_nobody_but_the_cluster_can_sign_is_refused() {
    let ours = Trusted::new();
    let good = ours.cluster.token(None);

    refused_beside_good(&ours.broker.server, &release(), forgeries(&good), &good);
}

#[test]
fn what_the_cluster_signs_for_others_is_refused() {
    let ours = Trusted::new();
    let good = ours.cluster.token(None);
    let now = now();
    let of_api = ours.cluster.token_for("deployer", &ours.cluster.url, None);
    let spoiled = [
        ("over", json!({ "iat": now - 700, "nbf": now - 700, "exp": now - 100 }), "token_expired"),
        ("not begun", json!({ "nbf": now + 120 }), "token_not_yet_valid"),
        ("too old", json!({ "iat": now - 700, "nbf": now - 700 }), "token_too_old"),
        ("another issuer", json!({ "iss": "https://kubernetes.default.svc" }), "token_issuer"),
        ("two audiences", json!({ "aud": [AUDIENCE, ours.cluster.url] }), "token_audience"),
        ("no end", json!({ "exp": null }), "token_malformed"),
    ];
    let mut forged = vec![Forged::new("a token for the API itself", of_api, "token_audience")];
    for (what, changes, code) in spoiled {
        forged.push(Forged::new(what, ours.cluster.signed_with(&good, changes), code));
    }

    refused_beside_good(&ours.broker.server, &release(), forged, &good);
}

#[test]
fn workload_of_another_service_account_is_denied() {
    let ours = Trusted::new();
    ours.cluster.service_account("stranger");
    let token = ours.cluster.token_for("stranger", AUDIENCE, None);

    ours.broker.server.public.exchange(&token, &release()).problem(403, "access_denied");
}

#[test]
fn service_account_made_anew_under_an_old_name_is_denied() {
    let ours = Trusted::new();
    let good = ours.cluster.token(None);
    let mut workload = claims(&good)["kubernetes.io"].clone();
    workload["serviceaccount"]["uid"] = json!("8c2e7f3a-0000-4000-8000-000000000000");
    let token = ours.cluster.signed_with(&good, json!({ "kubernetes.io": workload }));

    ours.broker.server.public.exchange(&token, &release()).problem(403, "access_denied");

    ours.broker.server.public.exchange(&good, &release()).ok();
}

#[test]
fn tokens_of_one_pod_may_look_after_what_the_other_got() {
    let ours = Trusted::new();
    let server = &ours.broker.server;
    let [first_pod, second_pod] = ["job-3", "job-4"].map(|name| (name, ours.cluster.pod(name)));
    let of = |(name, uid): &(&str, String)| ours.cluster.token(Some(("Pod", name, uid)));
    let answer = server.public.exchange(&of(&first_pod), &release()).ok();
    let path = format!("/v1/issuances/{}", answer["issuances"][0]["id"].as_str().unwrap());
    let look = |token: &str| server.public.get(&path).bearer(token).send();

    for stranger in [of(&second_pod), ours.cluster.token(None)] {
        look(&stranger).problem(404, "not_found");
    }
    assert_eq!(look(&of(&first_pod)).ok()["state"], "live", "another token of the same pod");
}

#[test]
fn whoami_tells_the_workload_of_its_pod() {
    let ours = Trusted::new();
    let pod = ours.cluster.pod("job-5");
    let token = ours.cluster.token(Some(("Pod", "job-5", &pod)));

    let identity = ours.broker.server.public.get("/v1/whoami").bearer(&token).send().ok();

    assert_eq!(identity["profile"], "kubernetes");
    assert_eq!(identity["run"], "job-5", "{identity}");
    assert!(identity["job_key"].as_str().is_some_and(|key| key.contains(&pod)), "{identity}");
    let unbound = ours.broker.server.public.get("/v1/whoami").bearer(&ours.cluster.token(None)).send().ok();
    assert_eq!(unbound["job_key"], serde_json::Value::Null, "{unbound}");
}

/// The cluster, and a broker that trusts it.
struct Trusted {
    broker: Broker,
    cluster: Arc<Cluster>,
}

impl Trusted {
    fn new() -> Self {
        let cluster = Cluster::shared();
        let conditions = [
            "sub: \"system:serviceaccount:ci:deployer\"".to_owned(),
            "/kubernetes.io/namespace: ci".to_owned(),
            format!("/kubernetes.io/serviceaccount/uid: \"{}\"", cluster.account),
        ];
        let trust = Trust {
            url: &cluster.url,
            profile: "kubernetes",
            authority: Some(&cluster.authority),
            conditions: &conditions,
        };
        Self { broker: Broker::trusting(&trust), cluster }
    }
}
