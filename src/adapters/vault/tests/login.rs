//! The broker's own login: by files, one at a time, again when it must.

use std::path::Path;

use super::*;

/// A fake at which these logins succeed, and a folder with these files.
fn files(fake: &FakeVault, mount: &str, ttl: u64) -> TempDir {
    let auth = json!({
        "client_token": TOKEN, "accessor": "acc", "policies": ["default", "hallpass"], "lease_duration": ttl,
        "renewable": true, "token_type": "service",
    });
    fake.on(&format!("auth/{mount}/login"), [json_reply(200, &json!({ "auth": auth }))]);
    fake.on("kv/a", [json_reply(200, &creds())]);
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("role-id", "the-role\n"), ("secret-id", "the-secret\n"), ("jwt", "ey.ey.sig\n")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn client(fake: &FakeVault, login: Login) -> VaultClient {
    VaultClient::new(settings(&fake.url, login), 7).unwrap()
}

fn approle(folder: &Path, wrapped: bool) -> Login {
    let (role_id, secret_id) = (folder.join("role-id"), folder.join("secret-id"));
    Login::AppRole { mount: "approle".to_owned(), role_id, secret_id, wrapped }
}

async fn read(client: &VaultClient) -> Result<VaultAnswer, VaultFault> {
    let options = RequestOptions { by: By::Own, retry: Retry::Read };
    client.request(Verb::Get, &path_of("kv/a"), None, options).await
}

fn body(fake: &FakeVault, path: &str) -> serde_json::Value {
    serde_json::from_str(&fake.seen(path)[0].body).unwrap()
}

#[tokio::test]
async fn each_method_sends_what_vault_reads() {
    let path = |folder: &TempDir, name: &str| -> PathBuf { folder.path().join(name) };
    let fake = FakeVault::start();
    let folder = files(&fake, "approle", 60);
    assert!(read(&client(&fake, approle(folder.path(), false))).await.is_ok());
    assert_eq!(
        body(&fake, "auth/approle/login"),
        json!({ "role_id": "the-role", "secret_id": "the-secret" })
    );

    let folder = files(&fake, "jwt", 60);
    let login = Login::Jwt { mount: "jwt".to_owned(), role: "ci".to_owned(), token: path(&folder, "jwt") };
    assert!(read(&client(&fake, login)).await.is_ok());
    assert_eq!(body(&fake, "auth/jwt/login"), json!({ "role": "ci", "jwt": "ey.ey.sig" }));

    let folder = files(&fake, "k8s/east", 60);
    let (mount, role, token) = ("k8s/east".to_owned(), "ci".to_owned(), path(&folder, "jwt"));
    assert!(read(&client(&fake, Login::Kubernetes { mount, role, token })).await.is_ok());
    assert_eq!(body(&fake, "auth/k8s/east/login"), json!({ "role": "ci", "jwt": "ey.ey.sig" }));

    let _folder = files(&fake, "cert", 60);
    let login = Login::Cert { mount: "cert".to_owned(), role: Some("ci".to_owned()) };
    assert!(read(&client(&fake, login)).await.is_ok());
    assert_eq!(body(&fake, "auth/cert/login"), json!({ "name": "ci" }));
    assert!(fake.seen("auth/cert/login")[0].header("x-vault-token").is_none());
    assert!(fake.faults().is_empty());
}

#[tokio::test]
async fn a_root_token_is_refused() {
    let bench = Bench::new();
    bench.fake.on("auth/token/lookup-self", [json_reply(200, &looked(0, &["root"]))]);
    bench.fake.on("kv/a", [json_reply(200, &creds())]);

    assert_eq!(answer_fault(bench.get("kv/a").await), VaultFault::Login(LoginFault::Root));

    assert!(bench.fake.seen("kv/a").is_empty());
}

#[tokio::test]
async fn a_login_that_needs_a_second_factor_says_so() {
    let fake = FakeVault::start();
    let folder = files(&fake, "approle", 60);
    let auth = json!({ "client_token": "", "policies": null, "mfa_requirement": { "mfa_request_id": "x" } });
    fake.on("auth/approle/login", [json_reply(200, &json!({ "auth": auth }))]);

    let fault = answer_fault(read(&client(&fake, approle(folder.path(), false))).await);

    assert_eq!(fault, VaultFault::Login(LoginFault::SecondFactor));
}

#[tokio::test]
async fn many_who_need_a_token_log_in_once() {
    let fake = FakeVault::start();
    let folder = files(&fake, "approle", 60);
    let client = Arc::new(client(&fake, approle(folder.path(), false)));

    let mut all = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let client = Arc::clone(&client);
        all.spawn(async move { read(&client).await.is_ok() });
    }
    assert!(all.join_all().await.into_iter().all(|is_ok| is_ok));

    assert_eq!(fake.seen("auth/approle/login").len(), 1);
}

#[tokio::test]
async fn many_who_meet_a_forgotten_token_log_in_once_more() {
    let fake = FakeVault::start();
    let folder = files(&fake, "approle", 60);
    let client = Arc::new(client(&fake, approle(folder.path(), false)));
    assert!(read(&client).await.is_ok());
    let denied = json_reply(403, &json!({ "errors": ["permission denied"] }));
    fake.on("auth/token/lookup-self", [denied.clone()]);
    fake.on("kv/a", std::iter::repeat_n(denied, 20).chain([json_reply(200, &creds())]));

    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let client = Arc::clone(&client);
        all.spawn(async move { read(&client).await.map(|_| ()) });
    }
    let answers = all.join_all().await;

    // One login for all that met the old token; those that met the last denials with the new one are denied.
    assert!(answers.iter().filter(|answer| answer.is_ok()).count() >= 1, "{answers:?}");
    let logins = fake.seen("auth/approle/login").len();
    assert!((2..6).contains(&logins), "{logins} logins");
}

#[tokio::test]
async fn a_refused_login_is_not_repeated_by_everybody_who_waits() {
    let fake = FakeVault::start();
    let folder = files(&fake, "approle", 60);
    fake.on("auth/approle/login", [json_reply(400, &json!({ "errors": ["invalid role or secret ID"] }))]);
    let client = Arc::new(client(&fake, approle(folder.path(), false)));

    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let client = Arc::clone(&client);
        all.spawn(async move { answer_fault(read(&client).await) });
    }
    let faults = all.join_all().await;

    assert!(faults.iter().all(|fault| *fault == VaultFault::Login(LoginFault::Refused)), "{faults:?}");
    assert_eq!(fake.seen("auth/approle/login").len(), 1);
}

#[tokio::test]
async fn a_wrapped_secret_id_is_opened_once_and_only_where_the_role_made_it() {
    let fake = FakeVault::start();
    let folder = files(&fake, "approle", 60);
    let made_at =
        |path: &str| json_reply(200, &json!({ "data": { "creation_path": path, "creation_ttl": 60 } }));
    let denied = json_reply(403, &json!({ "errors": ["permission denied"] }));
    fake.on("sys/wrapping/unwrap", [json_reply(200, &json!({ "data": { "secret_id": "unwrapped" } }))]);
    for path in [
        "cubbyhole/response",
        "sys/wrapping/wrap",
        "auth/approle/role/a/b/secret-id",
        "auth/other/role/ci/secret-id",
        "auth/approle/role//secret-id",
        "",
    ] {
        fake.on("sys/wrapping/lookup", [made_at(path)]);
        let fault = answer_fault(read(&client(&fake, approle(folder.path(), true))).await);
        assert_eq!(fault, VaultFault::Login(LoginFault::WrappedElsewhere), "{path}");
    }
    assert!(fake.seen("sys/wrapping/unwrap").is_empty());

    fake.on("sys/wrapping/lookup", [made_at("auth/approle/role/ci/secret-id")]);
    let client = client(&fake, approle(folder.path(), true));
    assert!(read(&client).await.is_ok());
    assert_eq!(body(&fake, "auth/approle/login")["secret_id"], "unwrapped");
    assert_eq!(fake.seen("sys/wrapping/unwrap")[0].header("x-vault-token"), Some("the-secret"));

    // The token is forgotten; the wrapping token is used up, but what was in it is still known.
    fake.on("auth/token/lookup-self", [denied.clone()]);
    fake.on("kv/a", [denied, json_reply(200, &creds())]);
    assert!(read(&client).await.is_ok());
    assert_eq!((fake.seen("sys/wrapping/unwrap").len(), fake.seen("auth/approle/login").len()), (1, 2));
}

#[tokio::test]
async fn a_used_wrapping_token_says_what_to_do() {
    let fake = FakeVault::start();
    let folder = files(&fake, "approle", 60);
    let gone = json!({ "errors": ["wrapping token is not valid or does not exist"] });
    fake.on("sys/wrapping/lookup", [json_reply(400, &gone)]);

    let fault = answer_fault(read(&client(&fake, approle(folder.path(), true))).await);

    assert_eq!(fault, VaultFault::Login(LoginFault::Wrapping));
    assert!(fault.to_string().contains("put a fresh one into its file"));
}

#[tokio::test]
async fn files_are_read_anew_at_every_login() {
    let fake = FakeVault::start();
    let folder = files(&fake, "approle", 60);
    let client = client(&fake, approle(folder.path(), false));
    assert!(read(&client).await.is_ok());
    std::fs::write(folder.path().join("secret-id"), "rotated").unwrap();
    let denied = json_reply(403, &json!({ "errors": ["permission denied"] }));
    fake.on("auth/token/lookup-self", [denied.clone()]);
    fake.on("kv/a", [denied, json_reply(200, &creds())]);

    assert!(read(&client).await.is_ok());

    let second: serde_json::Value = serde_json::from_str(&fake.seen("auth/approle/login")[1].body).unwrap();
    assert_eq!(second["secret_id"], "rotated");
}

#[tokio::test]
async fn a_token_is_renewed_in_time_and_replaced_where_it_stops_growing() {
    let fake = FakeVault::start();
    let folder = files(&fake, "approle", 3);
    let grown = |ttl: u64| {
        let auth =
            json!({ "client_token": TOKEN, "accessor": "acc", "lease_duration": ttl, "renewable": true });
        json_reply(200, &json!({ "auth": auth }))
    };
    fake.on("auth/token/renew-self", [grown(3), grown(1)]);
    let client = Arc::new(client(&fake, approle(folder.path(), false)));
    let keeping = tokio::spawn(client.keep());

    let is_seen =
        || fake.seen("auth/token/renew-self").len() >= 2 && fake.seen("auth/approle/login").len() >= 2;
    let patience = std::time::Instant::now();
    while !is_seen() {
        assert!(patience.elapsed() < Duration::from_secs(20), "waited in vain for a second login");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    keeping.abort();
    fake.on("auth/token/revoke-self", [Reply::Json(204, String::new())]);
    client.close().await;
    assert_eq!(fake.seen("auth/token/revoke-self").len(), 1);
    assert!(fake.faults().is_empty(), "{:?}", fake.faults());
}

#[tokio::test]
async fn a_token_file_that_changes_is_taken_without_a_word() {
    let bench = Bench::new();
    bench.fake.on("kv/a", [json_reply(200, &creds())]);
    let keeping = tokio::spawn(bench.client.keep());
    let patience = std::time::Instant::now();
    let mut last = String::new();
    while last != "hvs.fresh" {
        assert!(patience.elapsed() < Duration::from_secs(20), "waited in vain for the fresh token");
        assert!(bench.get("kv/a").await.is_ok());
        last = bench.fake.seen("kv/a").last().unwrap().header("x-vault-token").unwrap().to_owned();
        if last == TOKEN {
            std::fs::write(bench.folder.path().join("token"), "hvs.fresh\n").unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    keeping.abort();
}
