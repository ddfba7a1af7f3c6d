//! A real Vault as a backend: each way to log in, rights, seal, restart, quota, leases. What cannot be brought about with
//! a real one stands beside the client, against a fake.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use hallpass::{
    adapters::vault::{
        By, JobTokenOrder, Login, LoginFault, NotFound, RequestOptions, Retry, Settings, TlsFiles,
        VaultAnswer, VaultClient, VaultFault, VaultPath, Verb,
    },
    kernel::secret::Secret,
};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{
    Cluster, Installation, Issuer, component, eventually,
    installation::{CANARY, finish},
    kubernetes, runtime,
    vault_server::{BROKER_ACL, VaultServer},
};

/// An installation with this Vault as its backend; `auth` is its `auth`.
fn installation(vault: &VaultServer, auth: &str, more: &str) -> Installation {
    let installation = Installation::new();
    fs::remove_file(installation.file("policies/grants/lost.yaml")).unwrap();
    installation.write("vault-ca.pem", &vault.authority.certificate);
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let backends = format!(
        "backends:\n  main:\n    vault:\n      address: \"{}\"\n      ca_file: vault-ca.pem\n      \
         token_role: hallpass\n{more}      auth: {{ {auth} }}\n",
        vault.url
    );
    installation.write("hallpass.yaml", &format!("{text}{backends}"));
    installation
}

/// What `doctor` says of the backends.
fn looks(installation: &Installation) -> Vec<(String, String)> {
    let output = finish(&mut installation.command(&["doctor", "--output", "json"]), "");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let shown = |look: &Value, name: &str| look[name].as_str().unwrap().to_owned();
    let looks = told["looks"].as_array().unwrap().iter().filter(|look| look["part"] == "backends");
    looks.map(|look| (shown(look, "standing"), shown(look, "found"))).collect()
}

#[track_caller]
fn logged_in(installation: &Installation, method: &str) {
    let looks = looks(installation);
    assert!(looks.iter().all(|(standing, _)| standing == "ok"), "{looks:?}");
    let found = format!("main: the broker is logged in by {method}");
    assert!(looks.iter().any(|(_, each)| *each == found), "{looks:?}");
}

#[test]
fn logs_in_by_token_file_and_by_approle_plain_and_wrapped() {
    let vault = VaultServer::start();
    let with_token = installation(&vault, "token: { file: vault.token }", "");
    let token = vault.token(&["hallpass"], "1h");
    with_token.write("vault.token", &format!("{}\n", token["client_token"].as_str().unwrap()));
    logged_in(&with_token, "token");

    let (role_id, secret_id) = vault.approle("1h");
    let files = "role_id_file: role-id, secret_id_file: secret-id";
    let with_approle = installation(&vault, &format!("approle: {{ {files} }}"), "");
    with_approle.write("role-id", &format!("{role_id}\n"));
    with_approle.write("secret-id", &format!("{secret_id}\n"));
    logged_in(&with_approle, "approle");

    let wrapped = installation(&vault, &format!("approle: {{ {files}, wrapped: true }}"), "");
    wrapped.write("role-id", &role_id);
    wrapped.write("secret-id", &vault.wrapped("auth/approle/role/hallpass/secret-id", &json!({})));
    logged_in(&wrapped, "approle");
    // It opens once; whoever comes second hears what to do.
    let second = looks(&wrapped);
    assert!(second.iter().any(|(_, found)| found.contains("put a fresh one into its file")), "{second:?}");
    // And one that somebody planted is not opened at all.
    wrapped.write("secret-id", &vault.wrapped("sys/wrapping/wrap", &json!({ "secret_id": secret_id })));
    let planted = looks(&wrapped);
    assert!(planted.iter().any(|(_, found)| found.contains("its creation path is another")), "{planted:?}");
}

#[test]
fn logs_in_by_jwt() {
    let (vault, issuer) = (VaultServer::start(), Issuer::start());
    vault.by_root("sys/auth/jwt", &json!({ "type": "jwt" }));
    vault.by_root("auth/jwt/config", &json!({ "oidc_discovery_url": issuer.url }));
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": [super::support::AUDIENCE],
        "bound_claims": { "repository_owner_id": "4216" }, "token_policies": "hallpass", "token_ttl": "1h",
    });
    vault.by_root("auth/jwt/role/broker", &role);
    let installation = installation(&vault, "jwt: { role: broker, token_file: broker.jwt }", "");
    installation.write("broker.jwt", &issuer.token());
    logged_in(&installation, "jwt");

    installation.write("broker.jwt", &issuer.token_with(json!({ "repository_owner_id": "1" })));
    let refused = looks(&installation);
    assert!(refused.iter().any(|(_, found)| found.contains("Vault refuses the login")), "{refused:?}");
}

#[test]
fn logs_in_by_a_service_account_of_a_real_api_server() {
    let (vault, cluster) = (VaultServer::start(), kubernetes::Cluster::shared());
    cluster.service_account("vault-reviewer");
    cluster.delegate("vault-reviewer");
    vault.by_root("sys/auth/kubernetes", &json!({ "type": "kubernetes" }));
    vault.by_root(
        "auth/kubernetes/config",
        &json!({
            "kubernetes_host": cluster.url, "kubernetes_ca_cert": cluster.authority, "disable_local_ca_jwt": true,
            "token_reviewer_jwt": cluster.token_for("vault-reviewer", &cluster.url, None),
        }),
    );
    let role = json!({
        "bound_service_account_names": "deployer", "bound_service_account_namespaces": "ci",
        "audience": "vault", "token_policies": "hallpass", "token_ttl": "1h",
    });
    vault.by_root("auth/kubernetes/role/broker", &role);
    let auth = "kubernetes: { role: broker, token_file: pod.token }";
    let installation = installation(&vault, auth, "");
    installation.write("pod.token", &cluster.token_for("deployer", "vault", None));
    logged_in(&installation, "kubernetes");

    installation.write("pod.token", &cluster.token_for("deployer", "another", None));
    let refused = looks(&installation);
    assert!(refused.iter().any(|(_, found)| found.contains("Vault refuses the login")), "{refused:?}");
}

#[test]
fn logs_in_by_a_client_certificate_and_takes_a_new_one_without_a_restart() {
    let vault = VaultServer::start();
    vault.by_root("sys/auth/cert", &json!({ "type": "cert" }));
    let role = json!({
        "certificate": vault.authority.certificate, "allowed_common_names": "broker",
        "token_policies": "hallpass", "token_ttl": "1h",
    });
    vault.by_root("auth/cert/certs/broker", &role);
    let named = |name: &str| {
        vault.authority.certify(&["broker.test"], |params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        })
    };
    let more = "      client_certificate: { certificate: broker.crt, key: broker.key }\n";
    let installation = installation(&vault, "cert: { role: broker }", more);
    let stranger = named("stranger");
    installation.write("broker.key", &stranger.key);
    installation.write("broker.crt", &stranger.certificate);
    let refused = looks(&installation);
    assert!(refused.iter().any(|(_, found)| found.contains("Vault refuses the login")), "{refused:?}");

    let server = installation.serve();
    eventually("a refused login", || logins(&server, "failed").then_some(()));
    let broker = named("broker");
    installation.write("broker.key", &broker.key);
    installation.write("broker.crt", &broker.certificate);

    eventually("a login by the new certificate", || logins(&server, "succeeded").then_some(()));
    logged_in(&installation, "cert");
    server.stop();
}

/// Whether such logins were counted.
fn logins(server: &super::support::Server, outcome: &str) -> bool {
    let metrics = server.admin.get("/metrics").send().body;
    let line = format!("hallpass_backend_logins_total{{backend=\"main\",outcome=\"{outcome}\"}} ");
    metrics.lines().any(|each| each.strip_prefix(&line).is_some_and(|count| count != "0"))
}

#[test]
fn doctor_names_missing_and_surplus_rights_and_refuses_root() {
    let vault = VaultServer::start();
    let installation = installation(&vault, "token: { file: vault.token }", "");
    installation.write("vault.token", &vault.root);
    let root = looks(&installation);
    assert!(
        root.iter().any(|(standing, found)| standing == "failing" && found.contains("root token")),
        "{root:?}"
    );

    let acl = BROKER_ACL.replace("auth/token/revoke-accessor", "auth/token/revoke-nothing");
    let acl =
        format!("{acl}\npath \"sys/leases/revoke-prefix/*\" {{ capabilities = [\"update\", \"sudo\"] }}");
    vault.by_root("sys/policies/acl/odd", &json!({ "policy": acl }));
    installation.write("vault.token", vault.token(&["odd"], "1h")["client_token"].as_str().unwrap());
    let odd = looks(&installation);
    let is_said =
        |standing: &str, part: &str| odd.iter().any(|(each, found)| each == standing && found.contains(part));
    assert!(is_said("failing", "may not update or create auth/token/revoke-accessor"), "{odd:?}");
    assert!(is_said("warning", "sys/leases/revoke-prefix/any"), "{odd:?}");
    assert_eq!(odd.iter().filter(|(standing, _)| standing != "ok").count(), 2, "{odd:?}");
}

#[test]
fn doctor_compares_grants_with_mounts_rights_and_limits() {
    let vault = VaultServer::start();
    vault
        .by_root("sys/mounts/database", &json!({ "type": "database", "config": { "max_lease_ttl": "10m" } }));
    let acl = format!("{BROKER_ACL}\npath \"database/creds/*\" {{ capabilities = [\"read\"] }}");
    vault.by_root("sys/policies/acl/broad", &json!({ "policy": acl }));
    let installation = installation(&vault, "token: { file: vault.token }", "");
    installation.write("vault.token", vault.token(&["broad"], "1h")["client_token"].as_str().unwrap());
    let grant = |npm: &str, ttl: &str| {
        let text = format!(
            "grant: vaulted\ndescription: What comes from Vault\nallow:\n  - name: main\n    issuer: ci\n    match:\n      \
             {{ repository_owner_id: \"4216\", repository_id: \"70155112\" }}\ncredentials:\n  npm:\n    \
             vault: {{ backend: main, {npm} }}\n  db:\n    \
             vault: {{ backend: main, engine: database, path: database/creds/ci }}\n    ttl: {ttl}\n"
        );
        installation.write("policies/grants/vaulted.yaml", &text);
        looks(&installation)
    };
    let good = grant("engine: kv2, path: secret/data/ci/npm", "5m");
    assert!(good.iter().all(|(standing, _)| standing == "ok"), "{good:?}");

    let is_said = |looks: &[(String, String)], standing: &str, part: &str| {
        assert!(
            looks.iter().any(|(each, found)| each == standing && found.contains(part)),
            "{part}: {looks:?}"
        );
    };
    is_said(&grant("engine: kv1, path: secret/data/ci/npm", "5m"), "failing", "secret/ is kv version 2");
    is_said(&grant("engine: kv1, path: nothing/ci/npm", "5m"), "failing", "nothing that the broker may use");
    is_said(
        &grant("engine: kv2, path: secret/data/other/npm", "5m"),
        "failing",
        "may not read secret/data/other/npm",
    );
    is_said(
        &grant("engine: kv2, path: secret/data/ci/npm", "30m"),
        "warning",
        "the mount grants at most 600 s",
    );
    vault.by_root("sys/mounts/database/tune", &json!({ "max_lease_ttl": "24h" }));
    is_said(
        &grant("engine: kv2, path: secret/data/ci/npm", "2h"),
        "warning",
        "the token role grants at most 3600 s",
    );
}

#[test]
fn sealed_vault_stops_neither_start_nor_readiness_and_is_used_when_it_is_unsealed() {
    let mut vault = VaultServer::start();
    let (role_id, secret_id) = vault.approle("1h");
    let installation =
        installation(&vault, "approle: { role_id_file: role-id, secret_id_file: secret-id }", "");
    installation.write("role-id", &role_id);
    installation.write("secret-id", &secret_id);
    vault.restart();
    let sealed = looks(&installation);
    assert!(
        sealed.iter().any(|(standing, found)| standing == "failing" && found.contains("is sealed")),
        "{sealed:?}"
    );

    let server = installation.serve();
    eventually("a failed login", || logins(&server, "failed").then_some(()));
    assert_eq!(server.admin.get("/readyz").send().status, 200);
    server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["deploy"] })).ok();

    vault.unseal();
    eventually("a login", || logins(&server, "succeeded").then_some(()));
    let logs = server.stop();
    for secret in [&role_id, &secret_id] {
        assert!(!logs.contains(secret), "the log shows how the broker logs in");
    }
    // What a stop gave back is no token any more: only the root token is left of those that can be listed.
    let left =
        vault.call(&vault.root, Method::from_bytes(b"LIST").unwrap(), "auth/token/accessors", &Value::Null);
    assert_eq!(left["data"]["keys"].as_array().unwrap().len(), 1, "{left}");
}

/// A client of the library, logged in by AppRole, and its folder.
struct Ours {
    client: VaultClient,
    _folder: TempDir,
}

impl Ours {
    fn of(vault: &VaultServer, ttl: &str) -> Self {
        let folder = component::folder("broker");
        let (role_id, secret_id) = vault.approle(ttl);
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let login = Login::AppRole {
            mount: "approle".to_owned(),
            role_id: file("role-id", &role_id),
            secret_id: file("secret-id", &secret_id),
            wrapped: false,
        };
        let ca = file("ca.pem", &vault.authority.certificate);
        let settings = settings(vault, login, &ca);
        // Built within the runtime that its connections live in.
        let client = runtime().block_on(async { VaultClient::new(settings, 7) }).unwrap();
        Self { client, _folder: folder }
    }

    fn get(&self, path: &str) -> Result<VaultAnswer, VaultFault> {
        self.by(By::Own, Verb::Get, path, Retry::Read)
    }

    fn by(&self, by: By<'_>, verb: Verb, path: &str, retry: Retry) -> Result<VaultAnswer, VaultFault> {
        let path = VaultPath::parse(path).unwrap();
        runtime().block_on(self.client.request(verb, &path, None, RequestOptions { by, retry }))
    }
}

fn settings(vault: &VaultServer, login: Login, ca: &Path) -> Settings {
    Settings {
        name: "main".to_owned(),
        addresses: vec![vault.url.parse().unwrap()],
        namespace: None,
        tls: TlsFiles { ca: Some(ca.to_owned()), identity: None },
        login,
        token_role: Some("hallpass".to_owned()),
        timeout: Duration::from_secs(5),
    }
}

#[test]
fn versions_of_a_secret_are_read_and_what_was_deleted_is_told_from_what_never_was() {
    let vault = VaultServer::start();
    let ours = Ours::of(&vault, "1h");
    vault.by_root("secret/data/ci/npm", &json!({ "data": { "token": "second" } }));
    let version = |version: u64| {
        let path = VaultPath::parse("secret/data/ci/npm").unwrap().at_version(version);
        let options = RequestOptions { by: By::Own, retry: Retry::Read };
        runtime().block_on(ours.client.request(Verb::Get, &path, None, options))
    };
    let token = |answer: VaultAnswer| answer.data.get("data").unwrap()["token"].as_str().unwrap().to_owned();

    assert_eq!(token(version(1).ok().unwrap()), CANARY);
    assert_eq!(token(version(2).ok().unwrap()), "second");
    assert_eq!(ours.get("kv/ci/npm").ok().unwrap().data.get("token").unwrap(), CANARY);

    vault.by_root("secret/delete/ci/npm", &json!({ "versions": [1] }));
    assert_eq!(version(1).err(), Some(VaultFault::NotFound(NotFound::Deleted)));
    vault.by_root("secret/destroy/ci/npm", &json!({ "versions": [1] }));
    assert_eq!(version(1).err(), Some(VaultFault::NotFound(NotFound::Destroyed)));
    assert_eq!(version(9).err(), Some(VaultFault::NotFound(NotFound::Absent)));
    assert_eq!(ours.get("secret/data/ci/none").err(), Some(VaultFault::NotFound(NotFound::Absent)));
    assert_eq!(ours.get("secret/data/other").err(), Some(VaultFault::Denied));
}

#[test]
fn mounts_are_known_by_engine_and_version() {
    let vault = VaultServer::start();
    let ours = Ours::of(&vault, "1h");
    let mount = |path: &str| {
        let path = VaultPath::parse(path).unwrap();
        runtime().block_on(ours.client.mount(&path))
    };
    let found = mount("secret/data/ci/npm").unwrap();
    assert_eq!((found.kind.as_str(), found.path.as_str(), found.kv_version), ("kv", "secret/", Some(2)));
    let found = mount("kv/ci/npm").unwrap();
    assert_eq!((found.kind.as_str(), found.kv_version), ("kv", Some(1)));
    assert_eq!(mount("nothing/here"), Err(VaultFault::Denied));
    let limits = runtime().block_on(ours.client.token_limits("hallpass")).unwrap();
    assert_eq!(
        (limits.orphan, limits.max_ttl, limits.is_batch),
        (true, Some(Duration::from_secs(3_600)), false)
    );
}

#[test]
fn job_token_ends_with_its_leases_and_leases_are_renewed() {
    let vault = VaultServer::start();
    let port = component::free_port();
    let database = Cluster::start(Some(port), "");
    database.psql("postgres", "ALTER ROLE pgroot PASSWORD 'of-this-test'");
    vault.by_root("sys/mounts/database", &json!({ "type": "database" }));
    let connection = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "ci", "username": "pgroot",
        "password": "of-this-test", "password_authentication": "scram-sha-256",
        "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/postgres?sslmode=disable"),
    });
    vault.by_root("database/config/pg", &connection);
    let role = json!({
        "db_name": "pg", "default_ttl": "60s", "max_ttl": "1h",
        "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"],
    });
    vault.by_root("database/roles/ci", &role);
    let ours = Ours::of(&vault, "1h");
    let exists = |name: &str| {
        let asked = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{name}'");
        database.psql("postgres", &asked).contains('1')
    };
    let meta = BTreeMap::from([("issuance".to_owned(), "iss_1".to_owned())]);
    let policies = ["job".to_owned()];
    let order =
        JobTokenOrder { role: "hallpass", policies: &policies, ttl: Duration::from_secs(900), meta: &meta };

    let job = runtime().block_on(ours.client.create_job_token(&order)).ok().unwrap();
    assert_eq!(job.ttl, Duration::from_secs(900));
    let made = || ours.by(By::Job(&job.token), Verb::Get, "database/creds/ci", Retry::Never).ok().unwrap();
    let (first, second) = (made(), made());
    let name = |answer: &VaultAnswer| answer.data.get("username").unwrap().as_str().unwrap().to_owned();
    assert!(exists(&name(&first)) && exists(&name(&second)));

    let lease = first.lease_id.as_ref().unwrap();
    let renewed = runtime().block_on(ours.client.renew_lease(lease, Duration::from_secs(600))).unwrap();
    assert!(renewed.duration > Duration::from_secs(500) && renewed.renewable, "{renewed:?}");
    for _ in 0..2 {
        assert_eq!(runtime().block_on(ours.client.revoke_lease(lease, true)), Ok(()));
    }
    assert!(!exists(&name(&first)) && exists(&name(&second)));

    assert!(runtime().block_on(ours.client.lookup_accessor(&job.accessor)).unwrap().is_some());
    for _ in 0..2 {
        assert_eq!(runtime().block_on(ours.client.revoke_accessor(&job.accessor)), Ok(()));
    }
    eventually("the end of the role", || (!exists(&name(&second))).then_some(()));
    assert_eq!(runtime().block_on(ours.client.lookup_accessor(&job.accessor)), Ok(None));
    let denied = ours.by(By::Job(&job.token), Verb::Get, "database/creds/ci", Retry::Never);
    assert_eq!(denied.err(), Some(VaultFault::Denied));

    let foreign = ["default".to_owned()];
    let order = JobTokenOrder { policies: &foreign, ..order };
    let refused = runtime().block_on(ours.client.create_job_token(&order)).err();
    assert!(matches!(refused, Some(VaultFault::BadRequest(400) | VaultFault::Denied)), "{refused:?}");
}

#[test]
fn rate_limit_of_a_real_quota_is_waited_for_or_told() {
    let vault = VaultServer::start();
    let ours = Ours::of(&vault, "1h");
    assert!(ours.get("kv/ci/npm").is_ok());
    vault.by_root("sys/quotas/rate-limit/brief", &json!({ "path": "kv/", "rate": 1, "interval": "1s" }));
    let answers: Vec<_> = (0..3).map(|_| ours.get("kv/ci/npm").err()).collect();
    assert_eq!(answers, [None, None, None], "a second is waited for");

    let long = json!({ "path": "kv/", "rate": 1, "interval": "1s", "block_interval": "60s" });
    vault.by_root("sys/quotas/rate-limit/brief", &long);
    let limited = eventually("the quota", || ours.get("kv/ci/npm").err());
    assert_eq!(limited, VaultFault::RateLimited);
    assert!(ours.get("secret/data/ci/npm").is_ok(), "another path is not limited");
}

#[test]
fn sealed_stopped_and_restarted_vault_fails_in_bounded_time_and_is_used_again() {
    let mut vault = VaultServer::start();
    let ours = Ours::of(&vault, "1h");
    assert!(ours.get("kv/ci/npm").is_ok());

    vault.seal();
    assert_eq!(ours.get("kv/ci/npm").err(), Some(VaultFault::Sealed));
    vault.stop();
    assert_eq!(ours.get("kv/ci/npm").err(), Some(VaultFault::Unreachable));
    while !ours.client.is_breaker_open() {
        assert!(ours.get("kv/ci/npm").is_err());
    }
    assert_eq!(ours.get("kv/ci/npm").err(), Some(VaultFault::BreakerOpen));

    vault.restart();
    vault.unseal();
    eventually("an answer", || ours.get("kv/ci/npm").ok());
}

#[test]
fn token_that_vault_revoked_is_had_again_within_the_same_request() {
    let vault = VaultServer::start();
    let ours = Ours::of(&vault, "1h");
    assert!(ours.get("kv/ci/npm").is_ok());
    // Every token of the role, as an operator does who suspects a leak.
    vault.by_root("sys/leases/revoke-prefix/auth/approle", &json!({ "sync": true }));

    assert!(ours.get("kv/ci/npm").is_ok());

    // And where the role has gone too, it is told what is the matter.
    vault.call(&vault.root, Method::DELETE, "auth/approle/role/hallpass", &Value::Null);
    vault.by_root("sys/leases/revoke-prefix/auth/approle", &json!({ "sync": true }));
    assert_eq!(ours.get("kv/ci/npm").err(), Some(VaultFault::Login(LoginFault::Refused)));
}

#[test]
fn token_is_renewed_before_it_ends() {
    let vault = VaultServer::start();
    let ours = Ours::of(&vault, "6s");
    let keeping = runtime().spawn(ours.client.keep());
    let seen = || {
        let list = Method::from_bytes(b"LIST").unwrap();
        let all = vault.call(&vault.root, list, "auth/token/accessors", &Value::Null);
        let accessors: Vec<String> = all["data"]["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|each| each.as_str().unwrap().to_owned())
            .collect();
        accessors.iter().find_map(|accessor| {
            let looked = vault.status(
                &vault.root,
                Method::POST,
                "auth/token/lookup-accessor",
                &json!({ "accessor": accessor }),
            )?;
            let data = &looked.1["data"];
            data["path"].as_str()?.starts_with("auth/approle").then(|| (accessor.clone(), data.clone()))
        })
    };
    let (accessor, _) = eventually("the broker's token", seen);

    let renewed = eventually("a renewal", || seen().filter(|(_, data)| data["last_renewal"].is_string()));

    assert_eq!(renewed.0, accessor, "it was renewed, not replaced");
    keeping.abort();
}

#[test]
fn foreign_certificate_is_not_trusted() {
    let vault = VaultServer::start();
    let folder = component::folder("broker");
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, super::support::authority::Authority::new().certificate).unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "hvs.some").unwrap();
    let settings = settings(&vault, Login::Token { file }, &ca);
    let client = runtime().block_on(async { VaultClient::new(settings, 7) }).unwrap();
    let path = VaultPath::parse("kv/ci/npm").unwrap();
    let options = RequestOptions { by: By::Own, retry: Retry::Read };

    let fault = runtime().block_on(client.request(
        Verb::Get,
        &path,
        Some(Secret::from_text("{}".to_owned())),
        options,
    ));

    assert_eq!(fault.err(), Some(VaultFault::Login(LoginFault::Unanswered)));
}
