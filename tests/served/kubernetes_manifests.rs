//! The manifests of `examples/kubernetes`, held against a real API server by a server-side dry run with strict fields, its
//! pods against the admission of a namespace that enforces the restricted standard, and its configuration against
//! `hallpass config check` in folders as the pods mount them.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::support::{
    authority::Authority,
    installation::{binary, run},
    kubernetes::Cluster,
};

const NAMESPACE: &str = "hallpass";

/// Each object of a file: its kind and its text.
fn manifests(file: &str) -> Vec<(String, String)> {
    let text = example(file);
    let objects = text.split("\n---\n").map(str::to_owned);
    objects.map(|object| (field(&object, "kind: "), object)).collect()
}

fn example(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kubernetes");
    fs::read_to_string(folder.join(file)).unwrap()
}

/// The first line that begins so, without that.
fn field(object: &str, prefix: &str) -> String {
    let found = object.lines().find_map(|line| line.strip_prefix(prefix));
    found.unwrap_or_else(|| panic!("no {prefix:?} in {object}")).to_owned()
}

/// Where the API server keeps an object.
fn path(kind: &str, object: &str) -> String {
    let group = match field(object, "apiVersion: ").as_str() {
        "v1" => "/api/v1".to_owned(),
        version => format!("/apis/{version}"),
    };
    let name = field(object, "  name: ");
    if kind == "Namespace" {
        return format!("{group}/namespaces/{name}");
    }
    assert_eq!(field(object, "  namespace: "), NAMESPACE, "{object}");
    let plural = match kind {
        "NetworkPolicy" => "networkpolicies".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    format!("{group}/namespaces/{NAMESPACE}/{plural}/{name}")
}

/// What the server makes of all of them, for one test at a time: they make the same namespace.
fn admitted(cluster: &Cluster) -> Vec<Value> {
    static ONE: Mutex<()> = Mutex::new(());
    let _guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let all = ["broker.yaml", "postgres.yaml"].into_iter().flat_map(manifests);
    all.map(|(kind, object)| {
        let path = path(&kind, &object);
        // What others need for their own admission has to be there.
        if ["Namespace", "ServiceAccount"].contains(&kind.as_str()) {
            cluster.apply(&path, &object)
        } else {
            cluster.dry_run(&path, &object)
        }
    })
    .collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn api_server_takes_every_object_and_admits_every_pod_under_the_restricted_standard() {
    let cluster = Cluster::shared();

    let objects = admitted(&cluster);

    let workloads: Vec<&Value> =
        ["Deployment", "StatefulSet", "Job"].iter().flat_map(|kind| of_kind(&objects, kind)).collect();
    assert_eq!(workloads.len(), 3);
    for workload in workloads {
        let template = &workload["spec"]["template"];
        let mut pod = json!({ "metadata": { "name": "one" }, "spec": template["spec"] });
        // What the controller of a set would put in the claim's place.
        if workload["kind"] == "StatefulSet" {
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            volumes
                .push(json!({ "name": "data", "persistentVolumeClaim": { "claimName": "data-postgres-0" } }));
        }
        let (status, body) = cluster.pod_in(NAMESPACE, &pod);
        assert_eq!(status, 201, "{body}");
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{container}");
        // The standard is enforced indeed: the same pod with one thing spoilt is refused.
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
        let (status, body) = cluster.pod_in(NAMESPACE, &pod);
        assert!(status == 403 && body.contains("PodSecurity"), "{status}: {body}");
    }
}

#[test]
fn budget_and_policies_choose_the_pods_that_there_are_and_secrets_are_files() {
    let cluster = Cluster::shared();
    let objects = admitted(&cluster);
    let readme = example("README.md");
    let [deployment] = of_kind(&objects, "Deployment")[..] else { panic!("one deployment") };
    let [budget] = of_kind(&objects, "PodDisruptionBudget")[..] else { panic!("one budget") };

    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    let least = budget["spec"]["minAvailable"].as_u64().unwrap();
    assert!(deployment["spec"]["replicas"].as_u64().unwrap() > least && least >= 1);
    let policies = of_kind(&objects, "NetworkPolicy");
    assert!(policies.iter().any(|policy| policy["spec"]["podSelector"] == json!({})), "{policies:?}");
    assert!(policies.iter().any(|policy| &policy["spec"]["podSelector"]["matchLabels"] == labels));
    for kind in ["Deployment", "StatefulSet", "Job"] {
        let [workload] = of_kind(&objects, kind)[..] else { panic!("one {kind}") };
        let pod = &workload["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().unwrap() {
            let variables = container["env"].as_array().unwrap();
            assert!(variables.iter().all(|variable| variable["valueFrom"].is_null()), "{variables:?}");
            assert!(container["envFrom"].is_null(), "{container}");
        }
        for volume in pod["volumes"].as_array().unwrap() {
            if let Some(secret) = volume["secret"]["secretName"].as_str() {
                assert!(readme.contains(&format!(" {secret} --")), "the README makes no {secret}");
            }
        }
    }
}

#[test]
fn configuration_and_policies_are_good_as_the_pods_mount_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run(binary().args(["init", "--dir"]).arg(at("keys")), "");
    for name in ["config", "policies/issuers", "policies/grants", "tls", "state"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    let authority = Authority::new();
    let certified = authority.certify(&["hallpass.example.com"], |_| {});
    fs::write(at("tls/tls.crt"), &certified.certificate).unwrap();
    fs::write(at("tls/tls.key"), &certified.key).unwrap();
    fs::write(at("keys/postgres-ca.crt"), &authority.certificate).unwrap();
    fs::write(at("keys/store.password"), "a-password").unwrap();
    let cluster = Cluster::shared();
    let objects = admitted(&cluster);
    for (key, text) in of_kind(&objects, "ConfigMap").iter().flat_map(|map| map["data"].as_object().unwrap())
    {
        let file = match key.as_str() {
            "hallpass.yaml" => "config/hallpass.yaml".to_owned(),
            "roles.sh" => continue,
            key => format!("policies/{}", key.replacen('.', "/", 1)),
        };
        fs::write(at(&file), text.as_str().unwrap()).unwrap();
    }

    let checked = run(binary().args(["config", "check", "--config"]).arg(at("config/hallpass.yaml")), "");

    assert!(!checked.contains("warning"), "{checked}");
}
