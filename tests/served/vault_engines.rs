//! The engines of a real Vault, end to end: what a job gets works where it is meant for, ends when it is given back, and
//! what is not as the policy says is refused and undone.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{
    Cluster, Installation, Server,
    component::{Component, folder, free_port},
    eventually,
    installation::CANARY,
    kubernetes, runtime,
    slapd::{self, Slapd},
    vault_server::VaultServer,
};

/// What the tests' job tokens may do.
pub(super) const JOB_ACL: &str = r#"
path "database/creds/*" { capabilities = ["read"] }
path "pki/sign/*" { capabilities = ["update"] }
path "pki/issue/*" { capabilities = ["update"] }
path "ssh/sign/*" { capabilities = ["update"] }
path "transit/sign/*" { capabilities = ["update"] }
path "kv/ci/*" { capabilities = ["read"] }
path "kubernetes/creds/*" { capabilities = ["update"] }
path "ldap/creds/*" { capabilities = ["read"] }
"#;

const GRANT: &str = r#"grant: vault
allow:
  - name: main
    issuer: ci
    match: { repository_owner_id: "4216", repository_id: "70155112" }
credentials:
"#;

pub(crate) fn installation(vault: &VaultServer, credentials: &str) -> Installation {
    vault.by_root("sys/policies/acl/job", &json!({ "policy": JOB_ACL }));
    let installation = Installation::new();
    installation.write("vault-ca.pem", &vault.authority.certificate);
    let token = vault.token(&["hallpass"], "1h");
    installation.write("vault.token", token["client_token"].as_str().unwrap());
    let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let backends = format!(
        "backends:\n  main:\n    vault:\n      address: \"{}\"\n      ca_file: vault-ca.pem\n      \
         token_role: hallpass\n      auth: {{ token: {{ file: vault.token }} }}\n\
         deadlines: {{ exchange: 8s, mint: 5s }}\n",
        vault.url
    );
    installation.write("hallpass.yaml", &format!("{text}{backends}"));
    installation.write("policies/grants/vault.yaml", &format!("{GRANT}{credentials}"));
    installation
}

pub(crate) fn ask(credential: &str, inputs: &Value) -> Value {
    let mut grant = json!({ "name": "vault", "credentials": [credential] });
    if !inputs.is_null() {
        grant["inputs"] = json!({ credential: inputs });
    }
    json!({ "grants": [grant] })
}

#[track_caller]
pub(crate) fn get(broker: &Installation, server: &Server, credential: &str, inputs: &Value) -> Value {
    server.public.exchange(&broker.issuer.token(), &ask(credential, inputs)).ok()["issuances"][0].clone()
}

/// A PostgreSQL that Vault makes roles in, and a tenth of an hour for each.
pub(crate) fn database(vault: &VaultServer) -> (Cluster, u16) {
    let port = free_port();
    let cluster = Cluster::start(Some(port), "");
    cluster.psql("postgres", "CREATE ROLE vault SUPERUSER LOGIN PASSWORD 'pw-vault'");
    vault.by_root("sys/mounts/database", &json!({ "type": "database" }));
    vault.by_root(
        "database/config/main",
        &json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": "app",
            "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/postgres?sslmode=disable"),
            "username": "vault", "password": "pw-vault",
        }),
    );
    vault.by_root(
        "database/roles/app",
        &json!({
            "db_name": "main", "default_ttl": "2m", "max_ttl": "1h",
            "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"],
        }),
    );
    (cluster, port)
}

/// Whether a role can log in with its password, over TCP.
pub(super) fn logs_in(port: u16, fields: &Value) -> bool {
    let text = |name: &str| fields[name].as_str().unwrap();
    let url =
        format!("host=127.0.0.1 port={port} dbname=postgres user={} connect_timeout=5", text("username"));
    let psql = Command::new("psql")
        .env("PGPASSWORD", text("password"))
        .args(["-XqAt", "-d", &url, "-c", "SELECT 1"])
        .output();
    psql.unwrap().status.success()
}

pub(crate) fn leases(vault: &VaultServer) -> usize {
    let list = Method::from_bytes(b"LIST").unwrap();
    let (status, answer) =
        vault.status(&vault.root, list, "sys/leases/lookup/database/creds/app", &Value::Null).unwrap();
    if status == 404 { 0 } else { answer["data"]["keys"].as_array().map_or(0, Vec::len) }
}

#[test]
fn database_role_logs_in_until_it_is_given_back() {
    let vault = VaultServer::start();
    let (_cluster, port) = database(&vault);
    let broker =
        installation(&vault, "  db: { vault: { engine: database, path: database/creds/app }, ttl: 10m }\n");
    let server = broker.serve();

    let issuance = get(&broker, &server, "db", &Value::Null);
    assert_eq!((&issuance["lifetime"], &issuance["revocable"]), (&json!("leased"), &json!(true)));
    assert_eq!(issuance["secret_fields"], json!(["password"]));
    // The role gives two minutes; the lease was renewed to the policy's ten.
    let ttl = issuance["ttl_seconds"].as_u64().unwrap();
    assert!((590..=600).contains(&ttl), "{issuance}");
    assert!(logs_in(port, &issuance["fields"]));
    assert_eq!(leases(&vault), 1);

    let handle = issuance["handle"].as_str().unwrap();
    let path = format!("/v1/issuances/{}", issuance["id"].as_str().unwrap());
    assert_eq!(server.public.call("DELETE", &path).bearer(handle).send().status, 204);
    assert!(!logs_in(port, &issuance["fields"]));
    assert_eq!(leases(&vault), 0);
    assert_eq!(server.entries("REVOKED").len(), 1);
    // The token went with it: nothing of this job is left in Vault.
    let accessors =
        vault.call(&vault.root, Method::from_bytes(b"LIST").unwrap(), "auth/token/accessors", &Value::Null);
    let left = accessors["data"]["keys"].as_array().unwrap().iter().filter(|accessor| {
        let looked = vault.status(
            &vault.root,
            Method::POST,
            "auth/token/lookup-accessor",
            &json!({ "accessor": accessor }),
        );
        looked.is_some_and(|(_, answer)| answer["data"]["meta"]["issuance_id"].is_string())
    });
    assert_eq!(left.count(), 0);
    let logs = server.stop();
    assert!(!logs.contains(issuance["fields"]["password"].as_str().unwrap()), "a secret in the log");
}

#[test]
fn role_that_cannot_be_dropped_stays_revoking() {
    let vault = VaultServer::start();
    let (cluster, port) = database(&vault);
    let broker =
        installation(&vault, "  db: { vault: { engine: database, path: database/creds/app }, ttl: 10m }\n");
    let server = broker.serve();
    let issuance = get(&broker, &server, "db", &Value::Null);
    assert!(logs_in(port, &issuance["fields"]));
    let role = issuance["fields"]["username"].as_str().unwrap();
    cluster.psql("postgres", &format!("CREATE TABLE owned (); ALTER TABLE owned OWNER TO \"{role}\""));

    let handle = issuance["handle"].as_str().unwrap();
    let path = format!("/v1/issuances/{}", issuance["id"].as_str().unwrap());
    assert_eq!(server.public.call("DELETE", &path).bearer(handle).send().status, 202);
    assert_eq!(server.public.get(&path).bearer(handle).send().ok()["state"], "revoking");
    assert!(server.entries("REVOKED").is_empty());

    cluster.psql("postgres", "DROP TABLE owned");
    eventually("the revoke", || {
        (server.public.get(&path).bearer(handle).send().ok()["state"] == "revoked").then_some(())
    });
    assert!(!logs_in(port, &issuance["fields"]));
}

#[test]
fn kv_values_come_by_version_and_what_is_deleted_is_told_apart() {
    let vault = VaultServer::start();
    vault.by_root("secret/data/ci/npm", &json!({ "data": { "token": "second", "user": "ci" } }));
    let broker = installation(
        &vault,
        "  one: { vault: { engine: kv1, path: kv/ci/npm } }\n\
         \x20 first: { vault: { engine: kv2, path: secret/data/ci/npm, version: 1 } }\n\
         \x20 newest: { vault: { engine: kv2, path: secret/data/ci/npm, fields: [token] } }\n\
         \x20 own: { vault: { engine: kv2, path: \"secret/data/ci/${claims.repository_id}\" } }\n\
         \x20 lost: { vault: { engine: kv2, path: secret/data/ci/nothing } }\n\
         \x20 field: { vault: { engine: kv2, path: secret/data/ci/npm, fields: [nothing] } }\n\
         \x20 door: { vault: { engine: kv1, path: kv/elsewhere } }\n",
    );
    let server = broker.serve();
    assert_eq!(get(&broker, &server, "one", &Value::Null)["fields"], json!({ "token": CANARY }));
    let first = get(&broker, &server, "first", &Value::Null);
    assert_eq!(first["fields"], json!({ "token": CANARY }));
    assert_eq!((&first["lifetime"], &first["expires_at"]), (&json!("static"), &Value::Null));
    assert_eq!(get(&broker, &server, "newest", &Value::Null)["fields"], json!({ "token": "second" }));
    let told = server.entries("ISSUED").first().unwrap()["result"].to_string();
    assert!(told.contains("\"version\":2"), "{told}");

    vault.by_root("secret/data/ci/70155112", &json!({ "data": { "token": "mine" } }));
    assert_eq!(get(&broker, &server, "own", &Value::Null)["fields"], json!({ "token": "mine" }));

    vault.by_root("secret/delete/ci/npm", &json!({ "versions": [1] }));
    for (credential, reason) in [
        ("first", "version-deleted"),
        ("lost", "not-found"),
        ("field", "field-missing"),
        ("door", "backend-denied"),
    ] {
        let token = broker.issuer.token();
        server.public.exchange(&token, &ask(credential, &Value::Null)).problem(502, "backend_failed");
        let failed = server.entries("FAILED").first().unwrap()["result"].to_string();
        assert!(failed.contains(reason), "{credential}: {failed}");
    }
    // A dead Vault fails its own grants, and nothing else.
    vault.seal();
    server.public.exchange(&broker.issuer.token(), &ask("one", &Value::Null)).problem(502, "backend_failed");
    server.only(&broker.issuer.token(), "npm");
    vault.unseal();
    eventually("the backend again", || {
        let token = broker.issuer.token();
        (server.public.exchange(&token, &ask("one", &Value::Null)).status == 200).then_some(())
    });
    assert!(!server.stop().contains(CANARY));
}

#[test]
fn engine_that_is_not_what_the_policy_says_gives_nothing_and_leaves_nothing() {
    let vault = VaultServer::start();
    let (cluster, _) = database(&vault);
    let broker = installation(
        &vault,
        "  hidden: { vault: { engine: generic, path: database/creds/app, lifetime: fixed, secret_fields: [password] }, ttl: 10m }\n\
         \x20 plain: { vault: { engine: generic, path: kv/ci/npm, lifetime: leased, secret_fields: [token] }, ttl: 10m }\n",
    );
    let server = broker.serve();
    for (credential, reason) in [("hidden", "lease-undeclared"), ("plain", "lease-missing")] {
        let token = broker.issuer.token();
        server.public.exchange(&token, &ask(credential, &Value::Null)).problem(502, "backend_failed");
        let entries: Vec<Value> =
            ["FAILED", "UNRESOLVED"].iter().flat_map(|code| server.entries(code)).collect();
        assert!(entries.iter().any(|entry| entry["result"].to_string().contains(reason)), "{entries:?}");
    }
    assert_eq!(leases(&vault), 0);
    assert_eq!(
        cluster.psql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'").trim(),
        "0"
    );
}

#[track_caller]
fn good(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn openssl(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("openssl").current_dir(folder).args(arguments).output().unwrap()
}

#[test]
fn certificate_is_signed_for_the_name_of_the_policy_and_openssl_verifies_it() {
    let (vault, files) = (VaultServer::start(), folder("pki"));
    vault.by_root("sys/mounts/pki", &json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } }));
    let root =
        vault.by_root("pki/root/generate/internal", &json!({ "common_name": "test root", "ttl": "87600h" }));
    vault.by_root("pki/roles/ci", &json!({ "allowed_domains": "ci.test", "allow_subdomains": true, "max_ttl": "24h", "key_type": "any" }));
    let pair = json!({ "allowed_domains": "ci.test", "allow_subdomains": true, "max_ttl": "24h", "key_type": "ec", "key_bits": 256 });
    vault.by_root("pki/roles/pair", &pair);
    let broker = installation(
        &vault,
        "  cert: { vault: { engine: pki, path: pki/sign/ci, parameters: { common_name: a.ci.test } }, ttl: 1h }\n\
         \x20 pair: { vault: { engine: pki, path: pki/issue/pair, parameters: { common_name: b.ci.test } }, ttl: 1h }\n",
    );
    let server = broker.serve();
    fs::write(files.path().join("ca.pem"), root["data"]["certificate"].as_str().unwrap()).unwrap();
    good(openssl(
        files.path(),
        &[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "key.pem",
            "-subj",
            "/CN=a.ci.test",
            "-out",
            "csr.pem",
        ],
    ));
    let csr = fs::read_to_string(files.path().join("csr.pem")).unwrap();

    let token = broker.issuer.token();
    server.public.exchange(&token, &ask("cert", &Value::Null)).problem(422, "input_invalid");
    // A role of Vault would take the name of the request before that of the policy.
    good(openssl(
        files.path(),
        &["req", "-new", "-key", "key.pem", "-subj", "/CN=other.ci.test", "-out", "other.pem"],
    ));
    let other = fs::read_to_string(files.path().join("other.pem")).unwrap();
    server.public.exchange(&token, &ask("cert", &json!({ "csr": other }))).problem(422, "input_invalid");
    let signed = get(&broker, &server, "cert", &json!({ "csr": csr }));
    assert_eq!((&signed["lifetime"], &signed["revocable"]), (&json!("fixed"), &json!(false)));
    assert_eq!(signed["secret_fields"], json!([]));
    fs::write(files.path().join("cert.pem"), signed["fields"]["certificate"].as_str().unwrap()).unwrap();
    good(openssl(files.path(), &["verify", "-CAfile", "ca.pem", "cert.pem"]));
    let subject = good(openssl(
        files.path(),
        &["x509", "-in", "cert.pem", "-noout", "-subject", "-enddate", "-dateopt", "iso_8601"],
    ));
    assert!(subject.contains("a.ci.test") && !subject.contains("other"), "{subject}");
    // What is told is the certificate's own end.
    let end = signed["expires_at"].as_str().unwrap().replace('T', " ");
    assert!(subject.contains(end.get(..19).unwrap()), "{subject} {end}");

    let pair = get(&broker, &server, "pair", &Value::Null);
    assert_eq!(pair["secret_fields"], json!(["private_key"]));
    fs::write(files.path().join("b.pem"), pair["fields"]["certificate"].as_str().unwrap()).unwrap();
    good(openssl(files.path(), &["verify", "-CAfile", "ca.pem", "b.pem"]));
    assert!(!server.stop().contains("PRIVATE KEY"));
}

#[test]
fn ssh_certificate_opens_a_real_sshd_for_the_principal_of_the_policy() {
    let (vault, files) = (VaultServer::start(), folder("ssh"));
    vault.by_root("sys/mounts/ssh", &json!({ "type": "ssh" }));
    let authority =
        vault.by_root("ssh/config/ca", &json!({ "generate_signing_key": true, "key_type": "ed25519" }));
    vault.by_root(
        "ssh/roles/ci",
        &json!({ "key_type": "ca", "allow_user_certificates": true, "allowed_users": "*", "default_extensions": { "permit-pty": "" }, "allowed_extensions": "permit-pty", "max_ttl": "1h" }),
    );
    let user = good(Command::new("id").arg("-un").output().unwrap()).trim().to_owned();
    let broker = installation(
        &vault,
        &format!(
            "  door: {{ vault: {{ engine: ssh, path: ssh/sign/ci, parameters: {{ valid_principals: {user} }} }}, ttl: 5m }}\n\
             \x20 other: {{ vault: {{ engine: ssh, path: ssh/sign/ci, parameters: {{ valid_principals: nobody-else }} }}, ttl: 5m }}\n"
        ),
    );
    let server = broker.serve();
    let keygen = |file: &str| {
        good(
            Command::new("ssh-keygen")
                .current_dir(files.path())
                .args(["-q", "-t", "ed25519", "-N", "", "-f", file])
                .output()
                .unwrap(),
        )
    };
    keygen("host");
    keygen("job");
    fs::write(files.path().join("ca.pub"), authority["data"]["public_key"].as_str().unwrap()).unwrap();
    let (port, here) = (free_port(), files.path().display());
    fs::write(
        files.path().join("sshd_config"),
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nTrustedUserCAKeys {here}/ca.pub\n\
             AuthorizedKeysFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n"
        ),
    )
    .unwrap();
    // An error means that it is there already.
    fs::create_dir("/run/sshd").ok();
    let mut sshd = Command::new("/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f"]).arg(files.path().join("sshd_config"));
    let _sshd = Component::spawn("sshd", &mut sshd, files.path());
    let enters = || {
        let mut ssh = Command::new("ssh");
        ssh.args(["-p", &port.to_string(), "-i"]).arg(files.path().join("job"));
        ssh.args([
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        ssh.args(["-o", "IdentitiesOnly=yes", "-F", "none", "-o", "ConnectTimeout=5"]);
        let ran =
            ssh.arg(format!("{user}@127.0.0.1")).arg("echo inside").stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).contains("inside")
    };
    let public_key = fs::read_to_string(files.path().join("job.pub")).unwrap();
    let certify = |credential: &str| {
        let issuance = get(&broker, &server, credential, &json!({ "public_key": public_key.trim() }));
        fs::write(files.path().join("job-cert.pub"), issuance["fields"]["signed_key"].as_str().unwrap())
            .unwrap();
        issuance
    };
    certify("other");
    eventually("an sshd that answers", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    assert!(!enters(), "a certificate for somebody else");
    let issuance = certify("door");
    assert!(enters());
    let ttl = issuance["ttl_seconds"].as_u64().unwrap();
    assert!((290..=300).contains(&ttl), "{issuance}");
}

#[test]
fn transit_signs_the_digest_that_the_job_gives() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let (vault, files) = (VaultServer::start(), folder("transit"));
    vault.by_root("sys/mounts/transit", &json!({ "type": "transit" }));
    vault.by_root("transit/keys/release", &json!({ "type": "ecdsa-p256" }));
    let broker = installation(&vault, "  sign: { vault: { engine: transit, path: transit/sign/release } }\n");
    let server = broker.serve();
    fs::write(files.path().join("artifact"), "what is released").unwrap();
    good(openssl(files.path(), &["dgst", "-sha256", "-binary", "-out", "digest", "artifact"]));
    let digest = STANDARD.encode(fs::read(files.path().join("digest")).unwrap());
    let issuance = get(&broker, &server, "sign", &json!({ "input": digest }));
    let signature = issuance["fields"]["signature"].as_str().unwrap();
    let signature = STANDARD.decode(signature.strip_prefix("vault:v1:").unwrap()).unwrap();
    fs::write(files.path().join("signature"), signature).unwrap();
    let key = vault.call(&vault.root, Method::GET, "transit/keys/release", &Value::Null);
    fs::write(files.path().join("key.pem"), key["data"]["keys"]["1"]["public_key"].as_str().unwrap())
        .unwrap();
    let verified = good(openssl(
        files.path(),
        &["dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "artifact"],
    ));
    assert!(verified.contains("Verified OK"), "{verified}");
    let intent = server.entries("INTENT").first().unwrap().to_string();
    assert!(!intent.contains(&digest), "the ledger has the input's hash, not the input");
}

/// Status of a request to a real API server, by a bearer token.
fn kubernetes_says(cluster: &kubernetes::Cluster, token: &str, path: &str) -> u16 {
    let authority = reqwest::Certificate::from_pem(cluster.authority.as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
    let call =
        client.get(format!("{}{path}", cluster.url)).bearer_auth(token).timeout(super::support::PATIENCE);
    runtime().block_on(async { call.send().await.unwrap().status().as_u16() })
}

#[test]
fn service_account_of_a_real_api_server_does_what_its_role_says_until_it_is_given_back() {
    let (vault, cluster) = (VaultServer::start(), kubernetes::Cluster::shared());
    cluster.service_account("vault-creates");
    // Whoever makes roles must have what is in them; Vault is the cluster's administrator here.
    let binding = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: { name: vault-creates }\n\
                   roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin }\n\
                   subjects: [{ kind: ServiceAccount, name: vault-creates, namespace: ci }]\n";
    cluster.apply("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/vault-creates", binding);
    vault.by_root("sys/mounts/kubernetes", &json!({ "type": "kubernetes" }));
    vault.by_root(
        "kubernetes/config",
        &json!({
            "kubernetes_host": cluster.url, "kubernetes_ca_cert": cluster.authority, "disable_local_ca_jwt": true,
            "service_account_jwt": cluster.token_for("vault-creates", &cluster.url, None),
        }),
    );
    let rules = r#"{ "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] }] }"#;
    let role = json!({ "allowed_kubernetes_namespaces": ["ci"], "generated_role_rules": rules });
    vault.by_root("kubernetes/roles/pods", &role);
    let broker = installation(
        &vault,
        "  pods: { vault: { engine: kubernetes, path: kubernetes/creds/pods, parameters: { kubernetes_namespace: ci } }, ttl: 10m }\n\
         \x20 elsewhere: { vault: { engine: kubernetes, path: kubernetes/creds/pods, parameters: { kubernetes_namespace: default } }, ttl: 10m }\n",
    );
    let server = broker.serve();

    let issuance = get(&broker, &server, "pods", &Value::Null);
    assert_eq!((&issuance["lifetime"], &issuance["revocable"]), (&json!("leased"), &json!(true)));
    assert_eq!(issuance["secret_fields"], json!(["service_account_token"]));
    assert_eq!(issuance["fields"]["service_account_namespace"], "ci");
    let token = issuance["fields"]["service_account_token"].as_str().unwrap();
    let says = |path: &str| kubernetes_says(&cluster, token, path);
    eventually("the role's rights", || (says("/api/v1/namespaces/ci/pods") == 200).then_some(()));
    assert_eq!((says("/api/v1/namespaces/ci/secrets"), says("/api/v1/namespaces/default/pods")), (403, 403));
    // A namespace that the role does not have: nothing is made, and nothing is left.
    let refused = server.public.exchange(&broker.issuer.token(), &ask("elsewhere", &Value::Null));
    refused.problem(502, "backend_failed");

    let handle = issuance["handle"].as_str().unwrap();
    let path = format!("/v1/issuances/{}", issuance["id"].as_str().unwrap());
    assert_eq!(server.public.call("DELETE", &path).bearer(handle).send().status, 204);
    // The account went, and its token with it; the API server remembers a good one for some seconds.
    eventually("an end of the token", || (says("/api/v1/namespaces/ci/pods") == 401).then_some(()));
    assert!(!server.stop().contains(token));
}

#[test]
fn entry_of_a_real_directory_binds_until_it_is_given_back() {
    let (vault, directory) = (VaultServer::start(), Slapd::start());
    vault.by_root("sys/mounts/ldap", &json!({ "type": "ldap" }));
    vault.by_root(
        "ldap/config",
        &json!({
            "url": directory.url, "schema": "openldap",
            "binddn": slapd::ADMINISTRATOR, "bindpass": slapd::PASSWORD,
        }),
    );
    let entry = "dn: cn={{.Username}},ou=jobs,dc=test";
    vault.by_root(
        "ldap/role/ci",
        &json!({
            "creation_ldif": format!(
                "{entry}\nobjectClass: person\nobjectClass: top\ncn: {{{{.Username}}}}\nsn: job\nuserPassword: {{{{.Password}}}}"
            ),
            "deletion_ldif": format!("{entry}\nchangetype: delete"),
            "default_ttl": "2m", "max_ttl": "1h",
        }),
    );
    let broker =
        installation(&vault, "  entry: { vault: { engine: ldap, path: ldap/creds/ci }, ttl: 10m }\n");
    let server = broker.serve();

    let issuance = get(&broker, &server, "entry", &Value::Null);
    assert_eq!(issuance["secret_fields"], json!(["password"]));
    let ttl = issuance["ttl_seconds"].as_u64().unwrap();
    assert!((590..=600).contains(&ttl), "{issuance}");
    let text = |name: &str| issuance["fields"][name].as_str().unwrap();
    let name = format!("cn={},ou=jobs,dc=test", text("username"));
    assert!(text("distinguished_names").contains(&name), "{issuance}");
    assert!(directory.binds(&name, text("password")) && !directory.binds(&name, "another"));

    let handle = issuance["handle"].as_str().unwrap();
    let path = format!("/v1/issuances/{}", issuance["id"].as_str().unwrap());
    assert_eq!(server.public.call("DELETE", &path).bearer(handle).send().status, 204);
    assert!(!directory.binds(&name, text("password")));
    assert!(!server.stop().contains(text("password")));
}

#[test]
fn example_is_furnished_by_one_command_and_gives_what_it_says() {
    let vault = VaultServer::start();
    let broker = installation(&vault, "  db: { vault: { engine: kv1, path: kv/ci/npm } }\n");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/vault");
    let tools = folder("vault-cli");
    std::os::unix::fs::symlink(
        super::support::component::built("vault", "HALLPASS_TEST_VAULT"),
        tools.path().join("vault"),
    )
    .unwrap();
    let port = free_port();
    let cluster = Cluster::start(Some(port), "");
    cluster.psql("postgres", "CREATE ROLE vault SUPERUSER LOGIN PASSWORD 'pw-vault'");
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    // Twice is once.
    for _ in 0..2 {
        let mut setup = Command::new(example.join("setup.sh"));
        setup.env("PATH", &path).env("HOME", tools.path()).env("OUT", broker.file(""));
        setup
            .env("VAULT_ADDR", &vault.url)
            .env("VAULT_TOKEN", &vault.root)
            .env("VAULT_CACERT", broker.file("vault-ca.pem"));
        setup
            .env("POSTGRES", format!("127.0.0.1:{port}/postgres"))
            .env("POSTGRES_PASSWORD", "pw-vault")
            .env("SSLMODE", "disable");
        good(setup.output().unwrap());
    }
    vault.by_root("secret/data/ci/70155112/npm", &json!({ "data": { "token": "mine", "other": "x" } }));
    let text = fs::read_to_string(broker.file("hallpass.yaml")).unwrap();
    let approle = "auth: { approle: { role_id_file: role-id, secret_id_file: secret-id } }";
    broker.write("hallpass.yaml", &text.replace("auth: { token: { file: vault.token } }", approle));
    fs::remove_dir_all(broker.file("policies/grants")).unwrap();
    for file in
        ["guardrails/vault.yaml", "grants/payments/payments-ci.yaml", "grants/payments/payments-deploy.yaml"]
    {
        let text = fs::read_to_string(example.join("policies").join(file)).unwrap();
        let text = text.replace("issuer: github", "issuer: ci").replace("\"701\"", "\"70155112\"");
        broker.write(&format!("policies/{file}"), &text.replace("      environment: production\n", ""));
    }
    let server = broker.serve();
    let one = |grant: &str, credential: &str| {
        let body = json!({ "grants": [{ "name": grant, "credentials": [credential] }] });
        server.public.exchange(&broker.issuer.token(), &body).ok()["issuances"][0].clone()
    };
    assert_eq!(one("payments-ci", "npm")["fields"], json!({ "token": "mine" }));
    assert!(logs_in(port, &one("payments-deploy", "db")["fields"]));
    let doctor =
        super::support::installation::finish(&mut broker.command(&["doctor", "--output", "json"]), "");
    let told: Value = serde_json::from_slice(&doctor.stdout).unwrap_or_else(|_| panic!("{doctor:?}"));
    let looks = told["looks"].as_array().unwrap().iter().filter(|look| look["part"] == "backends");
    let bad: Vec<&Value> = looks.filter(|look| look["standing"] != "ok").collect();
    assert!(bad.is_empty(), "{bad:?}");
}
