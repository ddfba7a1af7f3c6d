//! A real Kubernetes API server over etcd: its service accounts' tokens by TokenRequest, its keys by discovery over
//! TLS with its own authority. There is no scheduler and no kubelet, so a pod is an object that never runs; a token
//! that is bound to it is the same.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    AUDIENCE, PATIENCE,
    component::{Component, built, folder, free_port},
    eventually,
    forgery::{claims, header},
    issuer::{Key, set},
    key::compact,
    runtime,
};

const ADMIN: &str = "the-administrator-of-this-test";

/// A running cluster with the namespace `ci` and the service account `deployer` in it.
pub(crate) struct Cluster {
    pub(crate) url: String,
    /// The cluster's authority, as PEM.
    pub(crate) authority: String,
    /// The uid of the service account `deployer`.
    pub(crate) account: String,
    key: Key,
    client: reqwest::Client,
    // Stopped in this order: the server before its store, both before their folder goes.
    _server: Component,
    _store: Component,
    _folder: TempDir,
}

/// What a token is bound to: its kind and its name in the namespace `ci`.
pub(crate) type Bound<'a> = (&'a str, &'a str, &'a str);

impl Cluster {
    /// The cluster of all tests that run now: starting one takes seconds. The last one who holds it stops it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Self::start());
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    fn start() -> Self {
        let folder = folder("kubernetes");
        let key = Key::rsa();
        write_keys(&key, folder.path());
        let store_url = format!("http://127.0.0.1:{}", free_port());
        let mut store = Component::spawn("etcd", &mut etcd(folder.path(), &store_url), folder.path());
        let port = free_port();
        let url = format!("https://127.0.0.1:{port}");
        let mut command = apiserver(folder.path(), &store_url, port);
        let mut server = Component::spawn("kube-apiserver", &mut command, folder.path());
        let chain = folder.path().join("certs/apiserver.crt");
        let authority = eventually("the API server's certificate", || {
            store.check_alive();
            server.check_alive();
            // Its own certificate stands first, its authority's last.
            fs::read_to_string(&chain).ok().filter(|pem| pem.matches("BEGIN CERT").count() == 2)
        });
        let authority = format!("-----BEGIN{}", authority.rsplit_once("-----BEGIN").unwrap().1);
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(authority.as_bytes()).unwrap()])
            .timeout(PATIENCE)
            .build()
            .unwrap();
        let mut cluster = Self {
            url,
            authority,
            account: String::new(),
            key,
            client,
            _server: server,
            _store: store,
            _folder: folder,
        };
        eventually("a ready API server", || {
            cluster._server.check_alive();
            (cluster.call(Method::GET, "/readyz", None)?.0 == 200).then_some(())
        });
        cluster.furnish();
        cluster
    }

    /// A namespace, a service account, and discovery for everybody, as an administrator sets it up for outsiders.
    fn furnish(&mut self) {
        self.create("/api/v1/namespaces", &json!({ "metadata": { "name": "ci" } }));
        let account = self
            .create("/api/v1/namespaces/ci/serviceaccounts", &json!({ "metadata": { "name": "deployer" } }));
        self.account = account["metadata"]["uid"].as_str().unwrap().to_owned();
        self.create(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            &json!({
                "metadata": { "name": "discovery-for-everybody" },
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": "system:service-account-issuer-discovery",
                },
                "subjects": [
                    { "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated" },
                ],
            }),
        );
    }

    /// Makes a pod of the service account `deployer`; answers its uid.
    pub(crate) fn pod(&self, name: &str) -> String {
        let pod = json!({
            "metadata": { "name": name },
            "spec": { "serviceAccountName": "deployer", "containers": [{ "name": "job", "image": "job" }] },
        });
        self.create("/api/v1/namespaces/ci/pods", &pod)["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// Makes a secret; answers its uid.
    pub(crate) fn secret(&self, name: &str) -> String {
        let secret = self.create("/api/v1/namespaces/ci/secrets", &json!({ "metadata": { "name": name } }));
        secret["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// Makes another service account in the same namespace.
    pub(crate) fn service_account(&self, name: &str) {
        self.create("/api/v1/namespaces/ci/serviceaccounts", &json!({ "metadata": { "name": name } }));
    }

    /// Lets a service account review tokens, as Vault's is.
    pub(crate) fn delegate(&self, account: &str) {
        self.create(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            &json!({
                "metadata": { "name": format!("{account}-reviews") },
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator",
                },
                "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": "ci" }],
            }),
        );
    }

    /// TokenRequest for `deployer`, as its own workload or an operator of the cluster asks.
    pub(crate) fn token(&self, bound: Option<Bound<'_>>) -> String {
        self.token_for("deployer", AUDIENCE, bound)
    }

    pub(crate) fn token_for(&self, account: &str, audience: &str, bound: Option<Bound<'_>>) -> String {
        // Ten minutes is the least that the API grants.
        let mut spec = json!({ "audiences": [audience], "expirationSeconds": 600 });
        if let Some((kind, name, uid)) = bound {
            spec["boundObjectRef"] = json!({ "apiVersion": "v1", "kind": kind, "name": name, "uid": uid });
        }
        let path = format!("/api/v1/namespaces/ci/serviceaccounts/{account}/token");
        let answer = self.create(&path, &json!({ "spec": spec }));
        answer["status"]["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// A token as the cluster would sign it if its claims were such, by its own key; `null` takes a claim away.
    pub(crate) fn signed_with(&self, good: &str, changes: Value) -> String {
        let mut payload = claims(good);
        set(&mut payload, changes);
        compact(&header(good).to_string(), &payload.to_string(), |signed| self.key.sign(signed))
    }

    #[track_caller]
    fn create(&self, path: &str, object: &Value) -> Value {
        let (status, body) = self.call(Method::POST, path, Some(object)).unwrap();
        assert_eq!(status, 201, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// What the server would make of a manifest, as by `kubectl apply --server-side --dry-run=server`: it goes through
    /// validation and admission, an unknown field is a fault, and nothing is kept.
    #[track_caller]
    pub(crate) fn dry_run(&self, path: &str, manifest: &str) -> Value {
        self.patch(path, "&dryRun=All", manifest)
    }

    /// The same for good.
    #[track_caller]
    pub(crate) fn apply(&self, path: &str, manifest: &str) -> Value {
        self.patch(path, "", manifest)
    }

    /// Status and body of a pod's creation, without one.
    pub(crate) fn pod_in(&self, namespace: &str, pod: &Value) -> (u16, String) {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        self.call(Method::POST, &path, Some(pod)).unwrap()
    }

    #[track_caller]
    fn patch(&self, path: &str, more: &str, manifest: &str) -> Value {
        let url = format!("{}{path}?fieldManager=operator&fieldValidation=Strict{more}", self.url);
        let (status, body) = runtime().block_on(async {
            let request = self.client.patch(url).bearer_auth(ADMIN).timeout(PATIENCE);
            let request = request.header("content-type", "application/apply-patch+yaml");
            let answer = request.body(manifest.to_owned()).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        });
        assert!([200, 201].contains(&status), "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Status and body; `None` where there is no answer.
    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Option<(u16, String)> {
        runtime().block_on(async {
            let mut request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(ADMIN);
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_string());
            }
            let answer = request.timeout(Duration::from_secs(20)).send().await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        })
    }
}

fn etcd(folder: &Path, url: &str) -> Command {
    let peer = format!("http://127.0.0.1:{}", free_port());
    let mut command = Command::new("etcd");
    command.args(["--name", "a", "--unsafe-no-fsync", "--initial-cluster", &format!("a={peer}")]);
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", url, "--advertise-client-urls", url]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command
}

fn apiserver(folder: &Path, store: &str, port: u16) -> Command {
    let url = format!("https://127.0.0.1:{port}");
    let file = |name: &str| folder.join(name).display().to_string();
    let mut command = Command::new(built("kube-apiserver", "HALLPASS_TEST_KUBE_APISERVER"));
    command.args([
        format!("--etcd-servers={store}"),
        format!("--cert-dir={}", file("certs")),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        format!("--service-account-issuer={url}"),
        format!("--service-account-jwks-uri={url}/openid/v1/jwks"),
        format!("--api-audiences={url}"),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
    ]);
    command
}

fn write_keys(key: &Key, folder: &Path) {
    let Key::Rsa(pair) = key else { panic!("an RSA key") };
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let private = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(private.as_ref())
    );
    fs::write(folder.join("accounts.key"), private).unwrap();
    let (_, public) = &key.public_encodings()[0];
    fs::write(folder.join("accounts.pub"), public).unwrap();
    fs::write(folder.join("tokens.csv"), format!("{ADMIN},admin,1,\"system:masters\"\n")).unwrap();
}
