//! The demo's stage: a folder with a whole installation, the CI issuer, the running broker, and a job that calls it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::{STOP, ci::CiIssuer, job};
use crate::{
    adapters::store::Database,
    cli::{
        actor::Actor,
        config::Config,
        exit::{Done, Exit, Failure, chain},
        init, installation,
        replica::{Bound, Listeners, Replica},
        secret,
    },
    kernel::{id::crockford, ledger::checkpoint::VerifierKey, name::SecretName, secret::Secret},
};

/// The sample policies for GitHub, as they stand in the repository; the issuer's file is made to fit the demo's own.
/// Those of other CI systems are left out: the demo trusts nobody whom it would have to ask over the network.
const ISSUER: &str = include_str!("../../../policies/issuers/github.yaml");
const POLICIES: [(&str, &str); 13] = [
    (
        "grants/billing/billing-reports-by-name.yaml",
        include_str!("../../../policies/grants/billing/billing-reports-by-name.yaml"),
    ),
    (
        "grants/billing/billing-reports.yaml",
        include_str!("../../../policies/grants/billing/billing-reports.yaml"),
    ),
    (
        "grants/payments/payments-migrate.yaml",
        include_str!("../../../policies/grants/payments/payments-migrate.yaml"),
    ),
    (
        "grants/payments/payments-prod.yaml",
        include_str!("../../../policies/grants/payments/payments-prod.yaml"),
    ),
    (
        "grants/payments/payments-test.yaml",
        include_str!("../../../policies/grants/payments/payments-test.yaml"),
    ),
    (
        "grants/platform/release-signing.yaml",
        include_str!("../../../policies/grants/platform/release-signing.yaml"),
    ),
    (
        "grants/vendor/vendor-migration.yaml",
        include_str!("../../../policies/grants/vendor/vendor-migration.yaml"),
    ),
    ("guardrails/base.yaml", include_str!("../../../policies/guardrails/base.yaml")),
    ("guardrails/payments.yaml", include_str!("../../../policies/guardrails/payments.yaml")),
    ("guardrails/pinned-projects.yaml", include_str!("../../../policies/guardrails/pinned-projects.yaml")),
    ("guardrails/production.yaml", include_str!("../../../policies/guardrails/production.yaml")),
    ("guardrails/signing.yaml", include_str!("../../../policies/guardrails/signing.yaml")),
    ("guardrails/vendors.yaml", include_str!("../../../policies/guardrails/vendors.yaml")),
];
/// What the sample says where the demo says its own.
const SAMPLE_URL: &str = "https://token.actions.githubusercontent.com";
const SAMPLE_AUDIENCE: &str = "https://hallpass.example.com";
/// The ledger's origin.
const ORIGIN: &str = "hallpass.demo/ledger";

/// A running demo.
pub(super) struct Scene {
    folder: Folder,
    issuer: CiIssuer,
    replica: Replica,
    actor: Actor,
    client: reqwest::Client,
    /// Where jobs find the broker, which is the audience of their tokens, too.
    pub(super) url: String,
    /// The ledger's key, noted before the first entry was written.
    pub(super) key: VerifierKey,
    /// The digest of the policy set.
    pub(super) policy: String,
}

/// What the broker answered.
pub(super) struct Answered {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Value,
}

/// A folder that only this user enters, removed when dropped.
struct Folder(PathBuf);

impl Scene {
    /// Builds it, on ports of loopback that the system chooses.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub(super) async fn set() -> Result<Self, Failure> {
        let actor = Actor::new()?;
        let folder = Folder::make(&actor)?;
        let issuer = CiIssuer::start().await?;
        let (public, public_url) = loopback().await?;
        let (admin, admin_url) = loopback().await?;
        let configuration = configuration(&public_url, &admin_url, issuer.url());
        let policy = ISSUER.replace(SAMPLE_URL, issuer.url()).replace(SAMPLE_AUDIENCE, &public_url);
        let mut policies = vec![("issuers/github.yaml", policy)];
        policies.extend(POLICIES.map(|(path, text)| (path, text.to_owned())));
        let plan = init::Plan {
            dir: &folder.0,
            configuration: &configuration,
            origin: ORIGIN,
            has_database: true,
            policies: &policies,
        };
        init::create(&plan, &actor)?;
        let config = Config::load(Some(&folder.file("hallpass.yaml")))?;
        let key = installation::inspect_store(&config)?.verifier_key();
        let value = Secret::from_text(format!("npm_{}", crockford(&actor.bytes::<20>()?)));
        let name = SecretName::parse("npm-token").ok_or_else(|| broken("the secret's name"))?;
        secret::seal(&config, &name, &[("value".to_owned(), value)]).await?;
        let listeners = Listeners { public: Bound::by(public)?, admin: Bound::by(admin)? };
        let mut replica = Replica::start(&config, async { Ok(listeners) }).await?;
        let policy = replica.ready().await?.to_string();
        // To ourselves only: no proxy, and no authorities needed.
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build();
        let client = client.map_err(|fault| Failure::new(Exit::Internal, chain(&fault)))?;
        Ok(Self { folder, issuer, replica, actor, client, url: public_url, key, policy })
    }

    /// Takes it down.
    ///
    /// # Errors
    ///
    /// [`Failure`] where the broker did not end in order.
    pub(super) async fn clear(self) -> Done {
        self.replica.stop(STOP).await
    }

    /// Waits until a part of the broker ends by itself.
    pub(super) async fn failed(&mut self) -> Failure {
        self.replica.failed().await
    }

    /// The store, for looking into.
    pub(super) fn store(&self) -> &Database {
        self.replica.store()
    }

    /// The claims of a job's token: the permitted one's, with some set otherwise.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub(super) fn claims(&self, otherwise: &[(&str, &str)]) -> Result<Map<String, Value>, Failure> {
        let token_id = uuid::Builder::from_random_bytes(self.actor.bytes()?).into_uuid().to_string();
        let mut claims = job::claims(&self.url, &token_id, self.actor.now());
        for (name, value) in otherwise {
            claims.insert((*name).to_owned(), (*value).into());
        }
        Ok(claims)
    }

    /// Has the CI system sign a token.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub(super) fn mint(&self, claims: &Map<String, Value>) -> Result<Secret, Failure> {
        Ok(Secret::from_text(self.issuer.mint(claims)?))
    }

    /// `POST /v1/exchange` for the demo's grant.
    ///
    /// # Errors
    ///
    /// [`Exit::Unreachable`].
    pub(super) async fn exchange(&self, token: &Secret) -> Result<Answered, Failure> {
        let body = json!({ "grants": [job::GRANT] }).to_string();
        let request = self.client.post(format!("{}/v1/exchange", self.url));
        let request = request.bearer_auth(token.expose_text().unwrap_or_default());
        let request = request.header("content-type", "application/json").body(body);
        let unreachable = |fault: reqwest::Error| Failure::new(Exit::Unreachable, chain(&fault));
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = serde_json::from_slice(&response.bytes().await.map_err(unreachable)?);
        Ok(Answered { status, body: body.map_err(|_| broken("the broker's answer"))? })
    }

    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        self.actor.now()
    }

    /// A document of the demo's own listener, as anybody gets it.
    ///
    /// # Errors
    ///
    /// [`Exit::Unreachable`].
    pub(super) async fn get(&self, url: &str) -> Result<Value, Failure> {
        let unreachable = |fault: reqwest::Error| Failure::new(Exit::Unreachable, chain(&fault));
        let response = self.client.get(url).send().await.map_err(unreachable)?;
        let bytes = response.bytes().await.map_err(unreachable)?;
        serde_json::from_slice(&bytes).map_err(|_| broken("the issuer's document"))
    }

    /// Puts a fresh token where the command to try expects it; whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub(super) fn mint_token_file(&self) -> Done {
        let (path, draft) = (self.token_file(), self.folder.file("job.token.draft"));
        let token = self.mint(&self.claims(&[])?)?;
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(token.expose())?;
            fs::rename(&draft, &path)
        };
        let written: std::io::Result<()> = write();
        written.map_err(|fault| Failure::file(&path, &fault))
    }

    /// The file with the job's token.
    pub(super) fn token_file(&self) -> PathBuf {
        self.folder.file("job.token")
    }

    /// The demo's configuration.
    pub(super) fn config_file(&self) -> PathBuf {
        self.folder.file("hallpass.yaml")
    }

    /// The demo's folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder.0
    }
}

fn configuration(public: &str, admin: &str, issuer: &str) -> String {
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    format!(
        "# The demo's installation; it is removed when the demo ends.\n\
         public: {{ listen: \"{}\", url: \"{public}\" }}\n\
         admin:\n\
         \x20 listen: \"{}\"\n\
         \x20 tokens:\n\
         \x20   - {{ name: first-auditor, roles: [auditor], file: auditor.token }}\n\
         \x20   - {{ name: first-operator, roles: [operator], file: operator.token }}\n\
         store: {{ url: \"sqlite:hallpass.db\" }}\n\
         policies: policies/\n\
         sealing_key: {{ file: sealing.key }}\n\
         issuers:\n\
         \x20 github: {{ url: \"{issuer}\", profile: github-actions, allow_private_addresses: true }}\n\
         ledger: {{ origin: {ORIGIN}, seen: ledger.seen }}\n\
         assertions: {{ issuer: \"{public}\" }}\n",
        address(public),
        address(admin)
    )
}

/// A listener on a free port of loopback, never elsewhere.
async fn loopback() -> Result<(TcpListener, String), Failure> {
    let fault = |fault| Failure::usage(format!("cannot listen on loopback: {fault}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(fault)?;
    let url = format!("http://{}", listener.local_addr().map_err(fault)?);
    Ok((listener, url))
}

impl Folder {
    fn make(actor: &Actor) -> Result<Self, Failure> {
        let name = format!("hallpass-demo-{}", crockford(&actor.bytes::<5>()?));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(|fault| Failure::file(&path, &fault))?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(fault) = fs::remove_dir_all(&self.0) {
            tracing::error!(%fault, folder = %self.0.display(), "the demo's folder could not be removed");
        }
    }
}

pub(super) fn broken(what: &str) -> Failure {
    Failure::new(Exit::Internal, format!("the demo does not understand {what}"))
}
