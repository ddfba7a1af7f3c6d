//! The client against a fake that speaks HTTP: each fault of `vaultrs` by its number, the retry rules, the login. What
//! a real Vault does stands among the tests of the built binary.

#[path = "../../../tests/served/support/fake_vault.rs"]
mod fake_vault;

mod faults;
mod login;
mod retries;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use serde_json::json;
use tempfile::TempDir;

use self::fake_vault::{FakeVault, Reply};
use super::*;
use crate::kernel::secret::Secret;

const TOKEN: &str = "hvs.cAnArY-token-of-the-broker";
const JOB: &str = "hvs.cAnArY-token-of-the-job";

/// A fake, a client that logs in there by a token file, and the folder of that file.
struct Bench {
    fake: FakeVault,
    client: VaultClient,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::changed(|_| {})
    }

    fn changed(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with_token(TOKEN, change)
    }

    fn with_token(token: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let fake = FakeVault::start();
        fake.on("auth/token/lookup-self", [json_reply(200, &looked(3_600, &["hallpass"]))]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, token).unwrap();
        let mut settings = settings(&fake.url, Login::Token { file });
        change(&mut settings);
        let client = VaultClient::new(settings, 7).unwrap();
        Self { fake, client, folder }
    }

    async fn get(&self, path: &str) -> Result<VaultAnswer, VaultFault> {
        self.asked(Verb::Get, path, Retry::Read).await
    }

    /// As something that is made, under a job's token.
    async fn make(&self, path: &str) -> Result<VaultAnswer, VaultFault> {
        let token = Secret::from_text(JOB.to_owned());
        let options = RequestOptions { by: By::Job(&token), retry: Retry::Never };
        self.client
            .request(Verb::Post, &path_of(path), Some(Secret::from_text("{}".to_owned())), options)
            .await
    }

    async fn asked(&self, verb: Verb, path: &str, retry: Retry) -> Result<VaultAnswer, VaultFault> {
        self.client.request(verb, &path_of(path), None, RequestOptions { by: By::Own, retry }).await
    }

    fn metrics(self) -> String {
        let mut text = crate::broker::metrics::Exposition::default();
        expose(&[Arc::new(self.client)], &mut text);
        text.into_text()
    }
}

fn settings(url: &str, login: Login) -> Settings {
    Settings {
        name: "main".to_owned(),
        addresses: vec![url.parse().unwrap()],
        namespace: None,
        tls: TlsFiles::default(),
        login,
        token_role: Some("ci".to_owned()),
        timeout: Duration::from_secs(5),
    }
}

fn path_of(path: &str) -> VaultPath {
    VaultPath::parse(path).unwrap()
}

fn json_reply(status: u16, body: &serde_json::Value) -> Reply {
    Reply::Json(status, body.to_string())
}

fn looked(ttl: u64, policies: &[&str]) -> serde_json::Value {
    json!({ "data": { "ttl": ttl, "renewable": true, "type": "service", "policies": policies } })
}

/// The envelope of a database's credential, as both servers write it.
fn creds() -> serde_json::Value {
    json!({
        "request_id": "b3f0", "lease_id": "database/creds/ci/AbCd", "renewable": true, "lease_duration": 900,
        "data": { "username": "v-ci", "password": "cAnArY-password" },
        "wrap_info": null, "warnings": null, "auth": null, "mount_type": "database",
    })
}

fn answer_fault(answer: Result<VaultAnswer, VaultFault>) -> VaultFault {
    answer.err().expect("an answer where none can be")
}
