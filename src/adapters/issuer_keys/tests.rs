//! Against a real HTTP server on loopback, which counts what it is asked; the clock is moved, never slept.

use std::{
    future::IntoFuture as _,
    net::SocketAddr,
    sync::atomic::{AtomicI64, AtomicUsize, Ordering},
};

use axum::{
    Router,
    http::{
        StatusCode, Uri,
        header::{CACHE_CONTROL, LOCATION},
    },
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{source::DOCUMENT_BYTES, *};
use crate::kernel::{
    identity::testing::{TestKey, encode},
    secret::Secret,
};

mod kept;
mod profiles;
mod tls;

const START: i64 = 1_790_000_000;
const MINUTE: i64 = 60;
const HOUR: i64 = 3600;

/// What the pretended issuer answers.
#[derive(Clone)]
enum Answers {
    /// A key set, by discovery and directly.
    Keys(Value),
    /// Anything, on every path.
    Body(StatusCode, String),
    /// Discovery as given, then a key set.
    Discovery(Value, Value),
    /// Keys with a `Cache-Control` of their own.
    Kept(Value, &'static str),
    /// A redirect.
    Redirect(String),
}

/// A pretended issuer.
struct Server {
    address: SocketAddr,
    answers: Mutex<Answers>,
    /// Requests for documents other than discovery.
    asked: AtomicUsize,
    /// Requests of any kind.
    requests: AtomicUsize,
    /// While true, no answer is given.
    held: watch::Sender<bool>,
}

impl Server {
    async fn start(answers: Answers) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            answers: Mutex::new(answers),
            asked: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            held: watch::Sender::new(false),
        });
        let state = Arc::clone(&server);
        let router = Router::new().fallback(move |uri: Uri| Arc::clone(&state).answer(uri));
        tokio::spawn(axum::serve(listener, router).into_future());
        server
    }

    async fn answer(self: Arc<Self>, uri: Uri) -> Response {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let is_discovery = uri.path().ends_with("/.well-known/openid-configuration");
        if !is_discovery {
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        let answers = self.answers.lock().unwrap().clone();
        match answers {
            Answers::Body(status, body) => (status, body).into_response(),
            Answers::Discovery(document, _) if is_discovery => document.to_string().into_response(),
            Answers::Keys(_) | Answers::Kept(..) if is_discovery => {
                self.discovery().to_string().into_response()
            }
            Answers::Discovery(_, keys) | Answers::Keys(keys) => keys.to_string().into_response(),
            Answers::Kept(keys, control) => ([(CACHE_CONTROL, control)], keys.to_string()).into_response(),
            Answers::Redirect(to) => (StatusCode::MOVED_PERMANENTLY, [(LOCATION, to)]).into_response(),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn discovery(&self) -> Value {
        json!({"issuer": self.url(), "jwks_uri": format!("{}/jwks", self.url())})
    }

    fn now_answers(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A clock that tests move, in seconds since [`START`].
#[derive(Clone, Default)]
struct TestClock(Arc<AtomicI64>);

impl TestClock {
    fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    fn now(&self) -> Now {
        let seconds = Arc::clone(&self.0);
        Arc::new(move || Timestamp::from_second(START + seconds.load(Ordering::SeqCst)).unwrap())
    }
}

fn ci() -> IssuerName {
    IssuerName::parse("ci").unwrap()
}

fn config(url: String, source: KeysFrom) -> IssuerKeysConfig {
    IssuerKeysConfig {
        name: ci(),
        url,
        profile: Profile::by_name("generic").unwrap(),
        source,
        ca_pem: None,
        allow_private_addresses: true,
        deadline: Duration::from_secs(20),
    }
}

/// An issuer with one key `k1`, known by discovery.
struct Scene {
    server: Arc<Server>,
    keys: Arc<IssuerKeys>,
    clock: TestClock,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut IssuerKeysConfig)) -> Self {
        let server = Server::start(Answers::Keys(keys(&["k1"]))).await;
        let clock = TestClock::default();
        let mut config = config(server.url(), KeysFrom::Discovery);
        change(&mut config);
        let keys = Arc::new(IssuerKeys::new(vec![config], clock.now()).unwrap());
        Self { server, keys, clock }
    }

    async fn find(&self, kid: &str) -> Result<(), Fault> {
        find(&self.keys, kid).await
    }

    /// Waits until no refresh runs.
    async fn settle(&self) {
        let issuer = self.keys.issuers.get(&ci()).unwrap();
        let running = || issuer.attempts().running.then(|| Refresh(issuer.ended.subscribe()));
        while let Some(refresh) = running() {
            refresh.ended().await;
        }
    }
}

/// A set of fresh P-256 keys under these names.
fn keys(kids: &[&str]) -> Value {
    json!({"keys": kids.iter().map(|kid| TestKey::p256().jwk(kid)).collect::<Vec<_>>()})
}

fn token(kid: &str, alg: &str) -> RawToken {
    let header = json!({"alg": alg, "kid": kid}).to_string();
    let text = format!("{}.{}.AA", encode(header.as_bytes()), encode(br#"{"iss":"x"}"#));
    RawToken::read(Secret::from_text(text)).unwrap()
}

/// What a lookup comes to; how long to wait is looked at where it matters.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Unavailable,
    Unknown,
}

const UNAVAILABLE: Result<(), Fault> = Err(Fault::Unavailable);

async fn find(keys: &IssuerKeys, kid: &str) -> Result<(), Fault> {
    match keys.key(&ci(), &token(kid, "ES256")).await {
        Ok(key) => {
            assert_eq!(key.kid(), kid);
            Ok(())
        }
        Err(KeyFault::Unknown) => Err(Fault::Unknown),
        Err(KeyFault::Unavailable { retry_after_seconds }) => {
            assert!((1..=60).contains(&retry_after_seconds), "{retry_after_seconds}");
            Err(Fault::Unavailable)
        }
    }
}

/// Why there are no keys now.
fn faults(keys: &IssuerKeys) -> Vec<String> {
    keys.standing().into_iter().filter_map(|issuer| issuer.fault).collect()
}

#[tokio::test]
async fn finds_a_key_by_discovery_and_keeps_the_set() {
    let scene = Scene::new().await;
    for _ in 0..3 {
        assert_eq!(scene.find("k1").await, Ok(()));
    }
    assert_eq!(scene.server.requests.load(Ordering::SeqCst), 2, "discovery and keys, once");
    assert!(faults(&scene.keys).is_empty());
}

#[tokio::test]
async fn finds_a_key_at_a_pinned_address() {
    let server = Server::start(Answers::Keys(keys(&["k1"]))).await;
    let source = KeysFrom::Uri(format!("{}/elsewhere", server.url()));
    let config = config("https://issuer.test".to_owned(), source);
    let keys = IssuerKeys::new(vec![config], TestClock::default().now()).unwrap();
    assert_eq!(find(&keys, "k1").await, Ok(()));
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nothing_is_fetched_for_issuers_and_algorithms_that_are_not_configured() {
    let scene = Scene::new().await;
    let other = IssuerName::parse("other").unwrap();
    assert_eq!(scene.keys.key(&other, &token("k1", "ES256")).await.err(), Some(KeyFault::Unknown));
    for alg in ["none", "HS256", "RS512"] {
        assert_eq!(scene.keys.key(&ci(), &token("k1", alg)).await.err(), Some(KeyFault::Unknown));
    }
    assert_eq!(scene.server.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_thousand_waiters_share_one_fetch() {
    let scene = Scene::new().await;
    scene.server.held.send_replace(true);
    let mut waiters = JoinSet::new();
    for _ in 0..1000 {
        let keys = Arc::clone(&scene.keys);
        waiters.spawn(async move { find(&keys, "k1").await });
    }
    let waiting = || scene.keys.issuers.get(&ci()).unwrap().ended.receiver_count();
    while waiting() < 1000 {
        tokio::task::yield_now().await;
    }
    scene.server.held.send_replace(false);
    assert!(waiters.join_all().await.iter().all(|found| *found == Ok(())));
    assert_eq!(scene.server.asked(), 1);
}

#[tokio::test]
async fn a_flood_of_invented_key_ids_costs_one_fetch() {
    let scene = Scene::new().await;
    assert_eq!(scene.find("k1").await, Ok(()));
    scene.clock.set(MINUTE);
    for n in 0..1000 {
        assert_eq!(scene.find(&format!("invented-{n}")).await, Err(Fault::Unknown));
    }
    assert_eq!(scene.server.asked(), 2, "one to begin with, one for the flood");
    assert_eq!(scene.find("k1").await, Ok(()));
}

#[tokio::test]
async fn a_new_key_is_found_once_the_cool_down_is_over() {
    let scene = Scene::new().await;
    assert_eq!(scene.find("k1").await, Ok(()));
    scene.server.now_answers(Answers::Keys(keys(&["k1", "k2"])));
    scene.clock.set(MINUTE - 1);
    assert_eq!(scene.find("k2").await, Err(Fault::Unknown));
    scene.clock.set(MINUTE);
    assert_eq!(scene.find("k2").await, Ok(()));
}

#[tokio::test]
async fn a_withdrawn_key_is_refused_within_the_hour() {
    let scene = Scene::new().await;
    assert_eq!(scene.find("k1").await, Ok(()));
    scene.server.now_answers(Answers::Keys(keys(&["k2"])));
    scene.clock.set(29 * MINUTE);
    assert_eq!(scene.find("k1").await, Ok(()), "nobody asked again yet");
    scene.clock.set(HOUR);
    assert_eq!(scene.find("k1").await, Err(Fault::Unknown));
    assert_eq!(scene.server.asked(), 2);
}

#[tokio::test]
async fn a_busy_issuer_is_asked_again_beside_the_requests() {
    let scene = Scene::new().await;
    assert_eq!(scene.find("k1").await, Ok(()));
    scene.server.now_answers(Answers::Keys(keys(&["k2"])));
    scene.server.held.send_replace(true);
    scene.clock.set(30 * MINUTE);
    for _ in 0..3 {
        assert_eq!(scene.find("k1").await, Ok(()), "served while the issuer does not answer");
    }
    scene.server.held.send_replace(false);
    scene.settle().await;
    assert_eq!(scene.find("k1").await, Err(Fault::Unknown));
    assert_eq!(scene.server.asked(), 2);
}

#[tokio::test]
async fn known_keys_are_served_while_others_wait_for_unknown_ones() {
    let scene = Scene::new().await;
    assert_eq!(scene.find("k1").await, Ok(()));
    scene.clock.set(MINUTE);
    scene.server.held.send_replace(true);
    let keys = Arc::clone(&scene.keys);
    let unknown = tokio::spawn(async move { find(&keys, "invented").await });
    while scene.server.requests.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.find("k1").await, Ok(()));
    assert!(!unknown.is_finished());
    scene.server.held.send_replace(false);
    assert_eq!(unknown.await.unwrap(), Err(Fault::Unknown));
}

#[tokio::test]
async fn keys_of_an_issuer_that_is_down_are_good_for_a_day_and_it_may_come_back() {
    let scene = Scene::new().await;
    assert_eq!(scene.find("k1").await, Ok(()));
    scene.server.now_answers(Answers::Body(StatusCode::BAD_GATEWAY, String::new()));
    for seconds in [2 * HOUR, 10 * HOUR, 24 * HOUR - 1] {
        scene.clock.set(seconds);
        assert_eq!(scene.find("k1").await, Ok(()), "{seconds}");
        assert_eq!(scene.find("invented").await, Err(Fault::Unknown), "{seconds}");
        scene.settle().await;
        assert!(faults(&scene.keys).is_empty());
    }
    scene.clock.set(24 * HOUR);
    assert_eq!(scene.find("k1").await, UNAVAILABLE);
    let fault = "the discovery document: the answer has status 502".to_owned();
    assert_eq!(faults(&scene.keys), [fault]);

    scene.server.now_answers(Answers::Keys(keys(&["k1"])));
    scene.clock.set(24 * HOUR + 2 * MINUTE);
    assert_eq!(scene.find("k1").await, Ok(()));
    assert!(faults(&scene.keys).is_empty());
}

#[tokio::test]
async fn a_failed_fetch_cools_down_like_a_good_one() {
    let scene = Scene::new().await;
    scene.server.now_answers(Answers::Body(StatusCode::BAD_GATEWAY, String::new()));
    for _ in 0..100 {
        assert_eq!(scene.find("k1").await, UNAVAILABLE);
    }
    assert_eq!(scene.server.requests.load(Ordering::SeqCst), 1);
    scene.server.now_answers(Answers::Keys(keys(&["k1"])));
    scene.clock.set(MINUTE);
    assert_eq!(scene.find("k1").await, Ok(()));
}

#[tokio::test]
async fn an_issuer_that_never_answers_is_given_up_in_time() {
    let scene = Scene::with(|config| config.deadline = Duration::from_millis(100)).await;
    scene.server.held.send_replace(true);
    assert_eq!(scene.find("k1").await, UNAVAILABLE);
    assert_eq!(faults(&scene.keys).len(), 1);
}

#[tokio::test]
async fn a_refresh_survives_the_request_that_began_it() {
    let scene = Scene::new().await;
    scene.server.held.send_replace(true);
    let keys = Arc::clone(&scene.keys);
    let first = tokio::spawn(async move { find(&keys, "k1").await });
    while scene.server.requests.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    scene.server.held.send_replace(false);
    assert_eq!(scene.find("k1").await, Ok(()));
    assert_eq!(scene.server.asked(), 1);
}

#[tokio::test]
async fn a_bad_answer_replaces_nothing() {
    let big = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(5 << 20));
    let other = Server::start(Answers::Keys(keys(&["k1"]))).await;
    let scene = Scene::new().await;
    let good = scene.server.discovery();
    let with = |name: &str, value: Value| {
        let mut document = good.clone();
        document[name] = value;
        Answers::Discovery(document, keys(&["k1"]))
    };
    let bad = [
        ("redirect to another host", Answers::Redirect(format!("{}/jwks", other.url()))),
        ("redirect to itself", Answers::Redirect(format!("{}/other", scene.server.url()))),
        ("status 204", Answers::Body(StatusCode::NO_CONTENT, String::new())),
        ("HTML", Answers::Body(StatusCode::OK, "<html>".to_owned())),
        ("too large", Answers::Body(StatusCode::OK, big)),
        ("issuer mismatch", with("issuer", json!(format!("{}/", scene.server.url())))),
        ("no issuer", with("issuer", json!(null))),
        ("jwks_uri of another origin", with("jwks_uri", json!(format!("{}/jwks", other.url())))),
        ("jwks_uri that is none", with("jwks_uri", json!("file:///etc/passwd"))),
        ("no jwks_uri", with("jwks_uri", json!(null))),
        ("no keys", Answers::Discovery(good.clone(), json!({"keys": []}))),
        ("too many keys", Answers::Discovery(good.clone(), json!({"keys": vec![json!({}); 10_000]}))),
        ("no key set", Answers::Discovery(good.clone(), json!([]))),
    ];
    assert_eq!(scene.find("k1").await, Ok(()));
    for (n, (what, answers)) in bad.into_iter().enumerate() {
        scene.server.now_answers(answers);
        scene.clock.set(HOUR * (n as i64 + 1));
        let before = scene.server.requests.load(Ordering::SeqCst);
        assert_eq!(scene.find("k1").await, Ok(()), "{what}");
        scene.settle().await;
        assert!(scene.server.requests.load(Ordering::SeqCst) > before, "{what} was not asked for");
        let failure = scene.keys.issuers.get(&ci()).unwrap().attempts().failure.clone();
        assert!(failure.is_some(), "{what} was taken");
    }
    assert_eq!(other.requests.load(Ordering::SeqCst), 0, "no packet left for another place");
}

#[tokio::test]
async fn a_document_without_a_length_is_cut_off_too() {
    // Written by hand: chunked, and without an end.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    });
    let config = config("https://issuer.test".to_owned(), KeysFrom::Uri(url));
    let keys = IssuerKeys::new(vec![config], TestClock::default().now()).unwrap();
    assert_eq!(find(&keys, "k1").await, UNAVAILABLE);
    assert_eq!(faults(&keys)[0], "the key set: the answer is larger than 262144 bytes");
}

#[tokio::test]
async fn one_issuer_does_not_wait_for_another() {
    let slow = Server::start(Answers::Keys(keys(&["k1"]))).await;
    slow.held.send_replace(true);
    let fast = Server::start(Answers::Keys(keys(&["k1"]))).await;
    let mut slow_config = config(slow.url(), KeysFrom::Discovery);
    slow_config.name = IssuerName::parse("slow").unwrap();
    let configs = vec![slow_config, config(fast.url(), KeysFrom::Discovery)];
    let keys = Arc::new(IssuerKeys::new(configs, TestClock::default().now()).unwrap());
    let waiting = Arc::clone(&keys);
    let stuck = tokio::spawn(async move {
        waiting.key(&IssuerName::parse("slow").unwrap(), &token("k1", "ES256")).await.is_ok()
    });
    while slow.requests.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(find(&keys, "k1").await, Ok(()));
    assert!(!stuck.is_finished());
    slow.held.send_replace(false);
    assert!(stuck.await.unwrap());
}

#[tokio::test]
async fn a_clock_that_steps_back_makes_a_refresh_due() {
    let scene = Scene::new().await;
    scene.clock.set(10 * HOUR);
    assert_eq!(scene.find("k1").await, Ok(()));
    scene.server.now_answers(Answers::Keys(keys(&["k2"])));
    scene.clock.set(0);
    assert_eq!(scene.find("k1").await, Err(Fault::Unknown));
}

#[tokio::test]
async fn refresh_fetches_before_the_first_job() {
    let scene = Scene::new().await;
    scene.keys.refresh().await;
    scene.keys.refresh().await;
    assert_eq!(scene.server.asked(), 1);
    scene.server.held.send_replace(true);
    assert_eq!(scene.find("k1").await, Ok(()));

    let down = Scene::new().await;
    down.server.now_answers(Answers::Body(StatusCode::NOT_FOUND, String::new()));
    assert_eq!(faults(&down.keys), ["its keys were not fetched yet"]);
    down.keys.refresh().await;
    assert_eq!(faults(&down.keys), ["the discovery document: the answer has status 404"]);
}

#[tokio::test]
async fn keys_of_a_file_are_good_until_its_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let end = Timestamp::from_second(START + 2 * HOUR).unwrap();
    let source = || KeysFrom::File { path: path.clone(), valid_until: Some(end) };
    let clock = TestClock::default();
    let new =
        || IssuerKeys::new(vec![config("https://issuer.test".to_owned(), source())], clock.now()).unwrap();

    let absent = new();
    assert_eq!(find(&absent, "k1").await, UNAVAILABLE);
    assert!(faults(&absent)[0].starts_with("the key file cannot be read"));

    std::fs::write(&path, keys(&["k1"]).to_string()).unwrap();
    let present = new();
    assert_eq!(find(&present, "k1").await, Ok(()));
    clock.set(2 * HOUR - 1);
    assert_eq!(find(&present, "k1").await, Ok(()));
    clock.set(2 * HOUR);
    assert_eq!(find(&present, "k1").await, UNAVAILABLE);
    assert_eq!(faults(&present), ["the date of the key file is over"]);

    clock.set(0);
    std::fs::write(&path, " ".repeat(DOCUMENT_BYTES + 1)).unwrap();
    let large = new();
    assert_eq!(find(&large, "k1").await, UNAVAILABLE);
    assert_eq!(faults(&large)[0], "the key file is larger than 262144 bytes");
}

#[test]
fn addresses_that_may_not_be_fetched_are_refused_at_once() {
    let refused = |change: fn(&mut IssuerKeysConfig)| {
        let mut config = config("https://issuer.test".to_owned(), KeysFrom::Discovery);
        config.ca_pem =
            Some(rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem().into_bytes());
        change(&mut config);
        IssuerKeys::new(vec![config], TestClock::default().now()).err().map(|fault| fault.reason)
    };
    assert_eq!(refused(|_| {}), None);
    assert!(refused(|config| config.url = "http://issuer.test".to_owned()).is_some());
    assert!(refused(|config| config.url = "http://10.0.0.1".to_owned()).is_some());
    assert!(refused(|config| config.url = "https://issuer.test?x=y".to_owned()).is_some());
    assert!(refused(|config| config.source = KeysFrom::Uri("http://issuer.test/jwks".to_owned())).is_some());
    assert!(refused(|config| config.ca_pem = Some(b"no PEM".to_vec())).is_some());
    let loopback = |config: &mut IssuerKeysConfig| config.url = "http://127.0.0.1:1".to_owned();
    assert_eq!(refused(loopback), None);
    assert!(
        refused(|config| {
            config.url = "http://127.0.0.1:1".to_owned();
            config.allow_private_addresses = false;
        })
        .is_some()
    );
}
