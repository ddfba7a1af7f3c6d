//! A real Vault in its development mode: its identity tokens (`identity/oidc`), with keys by discovery over plain
//! HTTP on loopback.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    AUDIENCE, PATIENCE,
    component::{Component, built, folder, free_port},
    eventually, runtime,
};

const ROOT: &str = "the-root-token-of-this-test";

/// A running Vault with one entity that can ask for its identity tokens.
pub(crate) struct Vault {
    /// The issuer of its identity tokens.
    pub(crate) issuer: String,
    /// The entity's id: `sub` of its tokens.
    pub(crate) entity: String,
    api: String,
    token: String,
    client: reqwest::Client,
    // Stopped before its folder goes.
    _server: Component,
    _folder: TempDir,
}

impl Vault {
    pub(crate) fn start() -> Self {
        let folder = folder("vault");
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(built("vault", "HALLPASS_TEST_VAULT"));
        command.args(["server", "-dev", "-dev-no-store-token", &format!("-dev-root-token-id={ROOT}")]);
        command.arg(format!("-dev-listen-address={address}")).env("HOME", folder.path());
        let mut server = Component::spawn("vault", &mut command, folder.path());
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let api = format!("http://{address}/v1");
        let healthy = format!("{api}/sys/health");
        eventually("a healthy Vault", || {
            server.check_alive();
            let answer = runtime().block_on(async { client.get(&healthy).send().await.ok() })?;
            (answer.status() == 200).then_some(())
        });
        let mut vault = Self {
            issuer: format!("{api}/identity/oidc"),
            entity: String::new(),
            api,
            token: ROOT.to_owned(),
            client,
            _server: server,
            _folder: folder,
        };
        vault.furnish();
        vault
    }

    /// An entity with a way to log in: the root token has none, and so no identity.
    fn furnish(&mut self) {
        self.post("sys/auth/userpass", &json!({ "type": "userpass" }));
        let policy = r#"path "identity/oidc/token/*" { capabilities = ["read"] }"#;
        self.post("sys/policies/acl/identity", &json!({ "policy": policy }));
        let user = json!({ "password": "of-this-test", "token_policies": "identity" });
        self.post("auth/userpass/users/job", &user);
        let login = self.post("auth/userpass/login/job", &json!({ "password": "of-this-test" }));
        let entity = &login["auth"]["entity_id"];
        self.post(
            &format!("identity/entity/id/{}", entity.as_str().unwrap()),
            &json!({ "metadata": { "project": "payments" } }),
        );
        self.entity = entity.as_str().unwrap().to_owned();
        for algorithm in ["ES256", "ES384", "EdDSA", "RS256"] {
            self.role(algorithm, AUDIENCE, "5m", algorithm);
        }
        self.token = login["auth"]["client_token"].as_str().unwrap().to_owned();
    }

    /// A role that signs with a key of its own.
    fn role(&self, name: &str, audience: &str, ttl: &str, algorithm: &str) {
        let key = json!({ "algorithm": algorithm, "allowed_client_ids": "*", "verification_ttl": "1h" });
        self.post(&format!("identity/oidc/key/{name}"), &key);
        let template = r#"{"project": {{identity.entity.metadata.project}}}"#;
        let role = json!({ "key": name, "client_id": audience, "ttl": ttl, "template": template });
        self.post(&format!("identity/oidc/role/{name}"), &role);
    }

    /// A role whose tokens are spoiled: for another audience, or over in a moment.
    pub(crate) fn spoiled_role(&self, name: &str, audience: &str, ttl: &str) {
        let root = Self::by(self, ROOT);
        let key = json!({ "key": "ES256", "client_id": audience, "ttl": ttl });
        root.call(Method::POST, &format!("identity/oidc/role/{name}"), Some(&key));
    }

    /// An identity token of the role, as the entity asks for it.
    pub(crate) fn identity(&self, role: &str) -> String {
        let answer =
            Self::by(self, &self.token).call(Method::GET, &format!("identity/oidc/token/{role}"), None);
        answer["data"]["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Trusts an issuer of JWTs by its discovery document, for that audience and subject.
    pub(crate) fn trust(&self, (issuer, authority): (&str, &str), audience: &str, subject: &str) {
        let root = self.by(ROOT);
        let post = |path: &str, body: &Value| root.call(Method::POST, path, Some(body));
        post("sys/auth/jwt", &json!({ "type": "jwt" }));
        let discovery = json!({
            "oidc_discovery_url": issuer, "oidc_discovery_ca_pem": authority, "bound_issuer": issuer,
        });
        post("auth/jwt/config", &discovery);
        let role = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": [audience], "bound_subject": subject,
            "token_policies": "default",
        });
        post("auth/jwt/role/deploy", &role);
    }

    /// Logs in with a JWT; answers the status, and what it knows the bearer as or why it refuses.
    pub(crate) fn log_in(&self, jwt: &str) -> (u16, Value) {
        runtime().block_on(async {
            let body = json!({ "role": "deploy", "jwt": jwt }).to_string();
            let answer =
                self.client.post(format!("{}/auth/jwt/login", self.api)).body(body).send().await.unwrap();
            (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
        })
    }

    fn by<'a>(&'a self, token: &'a str) -> Caller<'a> {
        Caller { vault: self, token }
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.by(&self.token).call(Method::POST, path, Some(body))
    }
}

/// Somebody with a token of Vault's own.
struct Caller<'a> {
    vault: &'a Vault,
    token: &'a str,
}

impl Caller<'_> {
    #[track_caller]
    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let Self { vault, token } = self;
        let (status, text) = runtime().block_on(async {
            let request = vault.client.request(method, format!("{}/{path}", vault.api));
            let request = request.header("X-Vault-Token", *token);
            let request = body.map_or(request.try_clone().unwrap(), |body| request.body(body.to_string()));
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        });
        assert!(matches!(status, 200 | 204), "{path}: {status} {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }
}
