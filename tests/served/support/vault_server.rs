//! A real Vault as a backend, as an operator runs it: TLS, storage on disk, sealed after each start. It has what a broker
//! needs and no more: the ACL `hallpass`, the token role `hallpass` with the ACL `job`, KV of both versions.

use std::{fs, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Certificate, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    PATIENCE,
    authority::{Authority, Certified},
    component::{Component, built, folder, free_port},
    eventually, runtime,
};

/// The least that the broker's own token needs.
pub(crate) const BROKER_ACL: &str = r#"
path "auth/token/create/hallpass" { capabilities = ["update"] }
path "auth/token/roles/hallpass" { capabilities = ["read"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
path "auth/token/lookup-accessor" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }
path "kv/ci/*" { capabilities = ["read"] }
path "secret/data/ci/*" { capabilities = ["read"] }
"#;

/// What job tokens may do.
pub(crate) const JOB_ACL: &str = r#"
path "database/creds/*" { capabilities = ["read"] }
path "pki/issue/*" { capabilities = ["update"] }
path "ssh/*" { capabilities = ["update"] }
path "transit/sign/*" { capabilities = ["update"] }
"#;

/// A running Vault.
pub(crate) struct VaultServer {
    /// Its address, without path.
    pub(crate) url: String,
    /// Whom its clients trust, and who certifies them.
    pub(crate) authority: Authority,
    /// The root token.
    pub(crate) root: String,
    unseal: String,
    client: reqwest::Client,
    server: Option<Component>,
    folder: TempDir,
}

impl VaultServer {
    pub(crate) fn start() -> Self {
        Self::on("storage \"file\" { path = \"data\" }\n")
    }

    /// The same on integrated storage, which an operator would choose.
    pub(crate) fn on_raft() -> Self {
        // One node elects itself; the default waits five times as long for others.
        Self::on("storage \"raft\" { path = \"data\"\n node_id = \"one\"\n performance_multiplier = 1 }\n")
    }

    fn on(storage: &str) -> Self {
        let (folder, authority) = (folder("vault"), Authority::new());
        let port = free_port();
        let (address, cluster) = (format!("127.0.0.1:{port}"), port + 1);
        fs::create_dir(folder.path().join("data")).unwrap();
        let Certified { certificate, key, .. } = &authority.certify_loopback();
        fs::write(folder.path().join("tls.crt"), certificate).unwrap();
        fs::write(folder.path().join("tls.key"), key).unwrap();
        let configuration = format!(
            "{storage}listener \"tcp\" {{\n  address = \"{address}\"\n  tls_cert_file = \"tls.crt\"\n  tls_key_file = \"tls.key\"\n}}\n\
             disable_mlock = true\napi_addr = \"https://{address}\"\ncluster_addr = \"https://127.0.0.1:{cluster}\"\n"
        );
        fs::write(folder.path().join("vault.hcl"), configuration).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([Certificate::from_pem(authority.certificate.as_bytes()).unwrap()])
            .timeout(PATIENCE)
            .build()
            .unwrap();
        let mut vault = Self {
            url: format!("https://{address}"),
            authority,
            root: String::new(),
            unseal: String::new(),
            client,
            server: None,
            folder,
        };
        vault.spawn();
        let made =
            vault.call("", Method::PUT, "sys/init", &json!({ "secret_shares": 1, "secret_threshold": 1 }));
        vault.root = made["root_token"].as_str().unwrap().to_owned();
        vault.unseal = made["keys_base64"][0].as_str().unwrap().to_owned();
        vault.unseal();
        vault.furnish();
        vault
    }

    fn spawn(&mut self) {
        let mut command = Command::new(built("vault", "HALLPASS_TEST_VAULT"));
        command.args(["server", "-config=vault.hcl"]).env("HOME", self.folder.path());
        let mut server = Component::spawn("vault", &mut command, self.folder.path());
        eventually("a Vault that answers", || {
            server.check_alive();
            self.status("", Method::GET, "sys/seal-status", &Value::Null)
        });
        self.server = Some(server);
    }

    fn furnish(&self) {
        for (name, policy) in [("hallpass", BROKER_ACL), ("job", JOB_ACL)] {
            self.by_root(&format!("sys/policies/acl/{name}"), &json!({ "policy": policy }));
        }
        self.by_root(
            "auth/token/roles/hallpass",
            &json!({ "orphan": true, "allowed_policies": ["job"], "token_explicit_max_ttl": "1h", "renewable": false }),
        );
        self.by_root("sys/mounts/kv", &json!({ "type": "kv", "options": { "version": "1" } }));
        self.by_root("sys/mounts/secret", &json!({ "type": "kv", "options": { "version": "2" } }));
        self.by_root("kv/ci/npm", &json!({ "token": super::installation::CANARY }));
        // A new mount of version 2 upgrades itself for a moment, and refuses until then.
        eventually("the KV store", || {
            let data = json!({ "data": { "token": super::installation::CANARY } });
            let (status, _) = self.status(&self.root, Method::POST, "secret/data/ci/npm", &data)?;
            (status == 200).then_some(())
        });
    }

    /// Ends it at once, and starts it again: sealed, on the same storage.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.spawn();
    }

    /// Ends it at once.
    pub(crate) fn stop(&mut self) {
        self.server = None;
    }

    pub(crate) fn seal(&self) {
        self.by_root("sys/seal", &json!({}));
    }

    pub(crate) fn unseal(&self) {
        let key: Vec<u8> = STANDARD.decode(&self.unseal).unwrap();
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.call("", Method::PUT, "sys/unseal", &json!({ "key": hex }));
        // It answers before its mounts do.
        eventually("an active Vault", || {
            (self.status("", Method::GET, "sys/health", &Value::Null)?.0 == 200).then_some(())
        });
    }

    /// As an administrator.
    #[track_caller]
    pub(crate) fn by_root(&self, path: &str, body: &Value) -> Value {
        self.call(&self.root, Method::POST, path, body)
    }

    /// A token with these policies.
    pub(crate) fn token(&self, policies: &[&str], ttl: &str) -> Value {
        let body = json!({ "policies": policies, "ttl": ttl });
        self.by_root("auth/token/create", &body)["auth"].clone()
    }

    /// AppRole with a role `hallpass`; answers role id and secret id.
    pub(crate) fn approle(&self, ttl: &str) -> (String, String) {
        if self.status(&self.root, Method::GET, "auth/approle/role/hallpass", &Value::Null).unwrap().0 != 200
        {
            self.by_root("sys/auth/approle", &json!({ "type": "approle" }));
        }
        self.by_root(
            "auth/approle/role/hallpass",
            &json!({ "token_policies": "hallpass", "token_ttl": ttl }),
        );
        let role_id = self.call(&self.root, Method::GET, "auth/approle/role/hallpass/role-id", &Value::Null);
        let secret_id = self.by_root("auth/approle/role/hallpass/secret-id", &json!({}));
        let text = |answer: &Value, name: &str| answer["data"][name].as_str().unwrap().to_owned();
        (text(&role_id, "role_id"), text(&secret_id, "secret_id"))
    }

    /// Whatever it answers, as long as that is good.
    #[track_caller]
    pub(crate) fn call(&self, token: &str, method: Method, path: &str, body: &Value) -> Value {
        let (status, answer) = self.status(token, method, path, body).unwrap();
        assert!(matches!(status, 200 | 204), "{path}: {status} {answer}");
        answer
    }

    /// Status and body; `None` where there is no answer.
    pub(crate) fn status(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        self.sent(token, method, path, body, None)
    }

    /// The same with the answer wrapped; the wrapping token.
    pub(crate) fn wrapped(&self, path: &str, body: &Value) -> String {
        let (_, answer) = self.sent(&self.root, Method::POST, path, body, Some("60s")).unwrap();
        answer["wrap_info"]["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    fn sent(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: &Value,
        wrap: Option<&str>,
    ) -> Option<(u16, Value)> {
        runtime().block_on(async {
            let mut request = self.client.request(method, format!("{}/v1/{path}", self.url));
            if !token.is_empty() {
                request = request.header("X-Vault-Token", token);
            }
            if let Some(ttl) = wrap {
                request = request.header("X-Vault-Wrap-TTL", ttl);
            }
            if !body.is_null() {
                request = request.body(body.to_string());
            }
            let answer = request.send().await.ok()?;
            let (status, text) = (answer.status().as_u16(), answer.text().await.ok()?);
            Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
        })
    }
}
