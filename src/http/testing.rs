//! A whole broker on loopback for this floor's tests: real store, real policy, real keys, a clock that stands still.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::{AdminToken, Floor, Limits, OwnIssuer, Role, admin_router, public_router, serve};
use crate::{
    adapters::{
        issuer_keys::{IssuerKeys, IssuerKeysConfig, KeysFrom},
        mint::{Assertions, Oidc, Sealed, assertions::generate},
        store::sqlite::{Change, Genesis, Options, Sqlite},
    },
    broker::{Ambient, Broker, Clock, Entropy, Parts, Settings},
    kernel::{
        assertion::Algorithm,
        digest::Digest,
        id::ReplicaId,
        identity::profile::Profile,
        ledger::entry::{Draft, EntryCode},
        name::{IssuerName, SecretName},
        policy::{
            set::{Files, TrustedIssuer},
            target::Kind,
        },
        sealing::SealingKey,
        secret::Secret,
    },
};

pub(super) const SECRET: &str = "npm_s3cret-\"quoted\"";
pub(super) const AUDITOR: &str = "auditor-token-0123456789";
pub(super) const OPERATOR: &str = "operator-token-0123456789";

/// A running broker.
pub(super) struct World {
    pub(super) public: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) floor: Arc<Floor>,
    pub(super) store: Arc<Sqlite>,
    pub(super) stop: CancellationToken,
    pub(super) served: JoinHandle<()>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) async fn start() -> Self {
        Self::start_with(Limits { per_source_per_second: 10_000, in_flight: 1_024 }, None).await
    }

    pub(super) async fn start_with(limits: Limits, tls: Option<Arc<ServerConfig>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hallpass.db");
        std::fs::write(&path, template()).unwrap();
        let store = Sqlite::open(&path, sealing_key(), Options::default()).unwrap();
        seal_secret(&store).await;
        let jwks = folder.path().join("jwks.json");
        std::fs::write(&jwks, public_keys().to_string()).unwrap();
        let broker = broker(Arc::clone(&store), &jwks);
        broker.offer_policy(policy(), None).await.unwrap();
        let token = |name: &str, role, text: &str| AdminToken {
            name: name.to_owned(),
            roles: vec![role],
            digest: Digest::of(text.as_bytes()),
        };
        let assertions = assertions();
        let floor = Arc::new(Floor {
            broker,
            limits,
            own_issuer: OwnIssuer {
                configuration: Some(assertions.openid_configuration()),
                jwks: Box::new(move || assertions.jwks(now())),
                max_age: Duration::from_secs(300),
            },
            admin_tokens: vec![
                token("first-auditor", Role::Auditor, AUDITOR),
                token("first-operator", Role::Operator, OPERATOR),
            ],
            traffic: Arc::default(),
            process: Box::new(|_| {}),
            trusted_proxies: Vec::new(),
        });
        let stop = CancellationToken::new();
        let (listener, public) = listen().await;
        let served = tokio::spawn(serve(listener, public_router(Arc::clone(&floor)), tls, stop.clone()));
        let (listener, admin) = listen().await;
        tokio::spawn(serve(listener, admin_router(Arc::clone(&floor)), None, stop.clone()));
        Self { public, admin, floor, store, stop, served, path, _folder: folder }
    }

    /// The codes of all entries, in order.
    pub(super) fn codes(&self) -> Vec<String> {
        let conn = rusqlite::Connection::open(&self.path).unwrap();
        let mut rows = conn.prepare("SELECT code FROM entry ORDER BY idx").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// Waits until the newest entry has this code.
    pub(super) async fn until_newest_is(&self, code: &str) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while self.codes().last().is_none_or(|newest| newest != code) {
            assert!(tokio::time::Instant::now() < deadline, "no {code}: {:?}", self.codes());
            tokio::task::yield_now().await;
        }
    }
}

/// A token of the fixture's job with that `jti`.
pub(super) fn token(jti: &str) -> String {
    let mut claims: Value =
        serde_json::from_str(include_str!("../../tests/fixtures/claims/github-actions.json")).unwrap();
    let iat = now().as_second();
    claims["jti"] = jti.into();
    claims["nbf"] = iat.into();
    claims["iat"] = iat.into();
    claims["exp"] = (iat + 300).into();
    let header = json!({ "alg": "RS256", "kid": "k1", "typ": "JWT" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let mut signature = vec![0; issuer_key().public_modulus_len()];
    issuer_key().sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub(super) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn broker(store: Arc<Sqlite>, jwks: &Path) -> Arc<Broker> {
    let issuer = IssuerName::parse("github").unwrap();
    let profile = Profile::by_name("github-actions").unwrap();
    let url = "https://token.actions.githubusercontent.com".to_owned();
    let keys = IssuerKeys::new(
        vec![IssuerKeysConfig {
            name: issuer.clone(),
            url: url.clone(),
            profile,
            source: KeysFrom::File { path: jwks.to_owned(), valid_until: None },
            ca_pem: None,
            allow_private_addresses: false,
            deadline: Duration::from_secs(5),
        }],
        Arc::new(now),
    )
    .unwrap();
    let settings = Settings {
        replica: ReplicaId::new(now(), [0; 10]),
        trusted: BTreeMap::from([(issuer.clone(), TrustedIssuer { name: issuer, url, profile })]).into(),
        clock_leeway: Duration::from_secs(30),
        exchange_deadline: Duration::from_secs(15),
        mint_deadline: Duration::from_secs(8),
        per_project_per_minute: 10_000,
        pseudonym_key: *store.pseudonym_key().unwrap(),
    };
    let sealed = Sealed::new(Arc::clone(&store) as _, sealing_key());
    let oidc = Oidc::new(Arc::new(assertions()));
    Broker::new(Parts {
        ambient: Ambient { clock: Clock::Manual(Mutex::new(now())), entropy: Entropy::Os },
        store,
        keys: Arc::new(keys),
        minters: [(Kind::Sealed, Arc::new(sealed) as _), (Kind::Oidc, Arc::new(oidc) as _)].into(),
        settings,
    })
}

fn policy() -> Files {
    let grant = "grant: payments-prod\ndescription: Publishing payments\nowners: [team-payments]\nallow:\n  - name: main\n    issuer: github\n    match: { repository_owner_id: \"4216\", repository_id: \"701\" }\ncredentials:\n  npm:\n    sealed: { secret: npm-token }\n  warehouse:\n    oidc: { audience: \"https://warehouse.example.com\" }\n    ttl: 5m\n";
    let issuer = "issuer: github\nprofile: github-actions\nurl: https://token.actions.githubusercontent.com\naudience: https://hallpass.example.com\nmax_token_age: 10m\n";
    let file = |path: &str, text: &str| (path.to_owned(), text.as_bytes().to_vec());
    Files(BTreeMap::from([file("grants/payments.yaml", grant), file("issuers/github.yaml", issuer)]))
}

async fn seal_secret(store: &Sqlite) {
    let entry = |_| {
        let random = |out: &mut [u8]| Entropy::Os.fill(out).is_ok();
        Draft::of(EntryCode::SecretSet).seal(now(), ReplicaId::new(now(), [0; 10]), &random).ok()
    };
    let change = Change { now: now(), random: &random, entry: &entry };
    let fields = [("value".to_owned(), Secret::from_text(SECRET.to_owned()))];
    store.set_secret(&SecretName::parse("npm-token").unwrap(), &fields, change).await.unwrap();
}

fn assertions() -> Assertions {
    static KEY: OnceLock<Secret> = OnceLock::new();
    let key = KEY.get_or_init(|| generate(Algorithm::Rs256).unwrap());
    Assertions::new("https://hallpass.example.com", key).unwrap()
}

fn public_keys() -> Value {
    let public = issuer_key().public_key();
    json!({ "keys": [{
        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1",
        "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
        "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
    }]})
}

fn issuer_key() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).unwrap())
}

fn sealing_key() -> Arc<SealingKey> {
    Arc::new(SealingKey::new(Secret::new(vec![1; 32])).unwrap())
}

/// The bytes of a new database: made once, since its RSA key takes time.
fn template() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("template.db");
        let genesis = Genesis { origin: "hallpass.test/ledger", now: now(), random: &random };
        Sqlite::create(&path, &sealing_key(), genesis).unwrap();
        std::fs::read(path).unwrap()
    })
}

fn random(out: &mut [u8]) -> bool {
    Entropy::Os.fill(out).is_ok()
}

pub(super) fn now() -> Timestamp {
    "2027-01-13T10:00:00Z".parse().unwrap()
}
