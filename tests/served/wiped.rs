//! P5: a second after its connection closed, no copy of a delivered secret or of a used token is in the process.
//!
//! Each law is shown on the ordinary build and, where `HALLPASS_TEST_RELEASE` names one, on a release build. And the
//! other way round on a build for tests that was told to wipe nothing, so that finding nothing says something.

use std::{
    io::Read as _,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use reqwest::{ClientBuilder, Version, tls};
use serde_json::json;

use super::{
    once::{deploy, only},
    record::{large_grant, send},
    support::{
        Installation, Server,
        authority::Authority,
        component::variant,
        eventually,
        installation::{CANARY, binary},
        memory::Needles,
        raw::{DATA, END, Frame, Frames, WINDOW_UPDATE, Wire},
        runtime,
    },
    tls::secure,
};

/// 32 bytes, none of which has a form of its own in JSON.
const SECRET: &str = "k7Qw-zX2v_canary_P9rT-51bLmNs0aH";

/// A build of the binary.
struct Build {
    program: PathBuf,
    /// Whether it was told to wipe nothing.
    is_unwiped: bool,
}

impl Build {
    /// What is shipped: as it was built for the tests, and as it is released.
    fn shipped() -> Vec<Self> {
        let release = std::env::var_os("HALLPASS_TEST_RELEASE").map(PathBuf::from);
        let tested = PathBuf::from(env!("CARGO_BIN_EXE_hallpass"));
        [Some(tested), release]
            .into_iter()
            .flatten()
            .map(|program| Self { program, is_unwiped: false })
            .collect()
    }

    fn for_tests(is_unwiped: bool) -> Self {
        Self { program: variant("faults", "HALLPASS_TEST_FAULTS"), is_unwiped }
    }

    fn serve(&self, installation: &Installation) -> Server {
        let ordinary = binary();
        let mut command = Command::new(&self.program);
        for (name, value) in ordinary.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if self.is_unwiped {
            command.env("HALLPASS_FAULT_UNWIPED", "1");
        }
        installation.serve_by(command.arg("serve").current_dir(installation.file("")))
    }

    /// The law: gone within a second of the close. Of a build that wipes nothing, that each of these is still there then.
    fn assert_wiped<const N: usize>(&self, server: &Server, closed: Instant, needles: [&Needles; N]) {
        let due = closed + SECOND;
        if self.is_unwiped {
            eventually("the second to pass", || (Instant::now() > due).then_some(()));
            let found = needles.map(|needles| needles.are_in(server.pid()));
            assert_eq!(found, [true; N], "the scan sees nothing of what was not wiped");
            return;
        }
        let all = needles.into_iter().cloned().reduce(Needles::and).unwrap();
        loop {
            let looked = Instant::now();
            if !all.are_in(server.pid()) {
                return;
            }
            assert!(looked < due, "a secret or token is still in memory");
        }
    }
}

/// P5's second, and what a look may take to see all of the memory.
const SECOND: Duration = Duration::from_secs(1);
/// A client may not see the close: 500 ms after the first answer and 200 ms later it is there.
const CLOSE: Duration = Duration::from_millis(700);

/// When a connection whose answer has just come will have closed at the latest.
fn close() -> Instant {
    Instant::now() + CLOSE
}

/// The scan finds a secret that is on its way, so that finding none afterwards says something.
#[test]
fn delivered_secret_and_token_are_gone_a_second_after_the_close() {
    for build in Build::shipped() {
        let installation = Installation::new();
        large_grant(&installation);
        installation.set_secret("large", &format!("{}{SECRET}", "\u{1}".repeat(60 * 1024)));
        let server = build.serve(&installation);
        let token = installation.issuer.token();
        let needles = [Needles::of_secret(SECRET), Needles::of_token(&token)];

        let mut connection = send(&server, &token, &json!({ "grants": ["large"] }));
        eventually("the secret in memory while it is sent", || needles[0].are_in(server.pid()).then_some(()));
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();

        assert!(String::from_utf8(answer).unwrap().contains(SECRET));
        build.assert_wiped(&server, Instant::now(), needles.each_ref());
    }
}

/// Each protocol has buffers of its own: records of TLS, frames of HTTP/2. The client keeps its connection until the
/// broker ends it.
#[test]
fn delivered_secret_and_token_are_gone_over_every_protocol() {
    for build in Build::shipped() {
        exchange_by_every_protocol(&build);
    }
}

/// The same build and the same exchanges as above, but for the switch: what is found then is what wiping takes away.
#[test]
fn without_wiping_the_same_scan_finds_secret_and_token_over_every_protocol() {
    exchange_by_every_protocol(&Build::for_tests(false));
    exchange_by_every_protocol(&Build::for_tests(true));
}

fn exchange_by_every_protocol(build: &Build) {
    let authority = Authority::new();
    let trusted = reqwest::Certificate::from_pem(authority.certificate.as_bytes()).unwrap();
    let client = || reqwest::Client::builder().no_proxy();
    let trusting = |version| {
        client().tls_certs_only([trusted.clone()]).tls_version_min(version).tls_version_max(version)
    };
    let [plain, secured] = [(); 2].map(|()| Installation::new());
    secure(&secured, &authority.certify_loopback());
    let in_clear =
        [(client().http1_only(), Version::HTTP_11), (client().http2_prior_knowledge(), Version::HTTP_2)];
    let over_tls = [tls::Version::TLS_1_2, tls::Version::TLS_1_3].map(|version| {
        [(trusting(version).http1_only(), Version::HTTP_11), (trusting(version), Version::HTTP_2)]
    });

    wiped_after(build, &plain, "http", in_clear);
    wiped_after(build, &secured, "https", over_tls.into_iter().flatten());
}

fn wiped_after(
    build: &Build,
    installation: &Installation,
    scheme: &str,
    clients: impl IntoIterator<Item = (ClientBuilder, Version)>,
) {
    installation.set_secret("npm-token", SECRET);
    for (client, version) in clients {
        // A process of its own, so that what is found is this exchange's.
        let server = build.serve(installation);
        let url = format!("{scheme}://{}/v1/exchange", server.public.address);
        let client = client.build().unwrap();
        let token = installation.issuer.token();

        let answered = runtime().block_on(async {
            let answer = client.post(&url).bearer_auth(&token).json(&only("npm")).send().await.unwrap();
            (answer.version(), answer.text().await.unwrap())
        });

        assert!(answered.0 == version && answered.1.contains(SECRET), "{scheme} {version:?}: {answered:?}");
        build.assert_wiped(&server, close(), [&Needles::of_secret(SECRET), &Needles::of_token(&token)]);
        drop(client);
    }
}

/// A broker is never at rest: other exchanges go on, on the same connection until it closes, and on others throughout.
#[test]
fn delivered_secret_is_gone_while_its_connection_and_others_keep_exchanging() {
    for build in Build::shipped() {
        for exchange_on_one in [keep_exchanging_by_http_1, keep_exchanging_by_http_2] {
            let installation = Installation::new();
            installation.set_secret("npm-token", SECRET);
            let server = build.serve(&installation);
            let (is_over, others) = (AtomicBool::new(false), AtomicUsize::new(0));

            thread::scope(|scope| {
                // A pool: it keeps a connection as long as the broker does, and opens another then.
                scope.spawn(|| {
                    let client = reqwest::Client::builder().no_proxy().build().unwrap();
                    let url = format!("http://{}/v1/exchange", server.public.address);
                    while !is_over.load(Ordering::Relaxed) {
                        let token = installation.issuer.token();
                        let ask = client.post(&url).bearer_auth(&token).json(&only("cloud"));
                        // A request may cross the end of its connection.
                        let answer = runtime().block_on(async { ask.send().await?.text().await });
                        if answer.is_ok_and(|answer| answer.contains("\"issuances\"")) {
                            others.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
                let over = Over(&is_over);
                eventually("other exchanges", || (others.load(Ordering::Relaxed) > 2).then_some(()));
                let token = installation.issuer.token();

                let exchanged = exchange_on_one(&installation, &server, &token);
                let closed = Instant::now();
                let before = others.load(Ordering::Relaxed);
                let needles = [Needles::of_secret(SECRET), Needles::of_token(&token)];
                build.assert_wiped(&server, closed, needles.each_ref());

                assert!(exchanged > 1, "the connection took no other exchange");
                eventually("more exchanges", || (others.load(Ordering::Relaxed) > before).then_some(()));
                drop(over);
            });
        }
    }
}

/// Tells the others that it is over, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Exchanges for the canary, and then for something else until the broker ends the connection; answers how often.
fn keep_exchanging_by_http_1(installation: &Installation, server: &Server, token: &str) -> usize {
    let mut wire = Wire::open(server.public.address);
    let mut ask = |token: &str, credential| {
        let body = only(credential).to_string();
        wire.send(format!(
            "POST /v1/exchange HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        wire.answer()
    };
    let first = ask(token, "npm").unwrap();
    assert!(first.body.contains(SECRET), "{first:?}");
    let mut exchanged = 1;
    while let Some(answer) = ask(&installation.issuer.token(), "cloud") {
        assert_eq!(answer.status, 200, "{answer:?}");
        exchanged += 1;
    }
    exchanged
}

/// The same on the streams of one connection.
fn keep_exchanging_by_http_2(installation: &Installation, server: &Server, token: &str) -> usize {
    let mut frames = Frames::open(server.public.address, &[]);
    let mut ask = |stream, token: &str, credential| {
        ask_on(&mut frames, stream, token, credential);
        let body = frames.body(stream)?;
        frames.send(WINDOW_UPDATE, 0, 0, &u32::try_from(body.len().max(1)).unwrap().to_be_bytes());
        Some(body)
    };
    let first = ask(1, token, "npm").unwrap();
    assert!(first.contains(SECRET), "{first}");
    let mut exchanged = 1;
    for stream in (3..).step_by(2) {
        let Some(_) = ask(stream, &installation.issuer.token(), "cloud") else { break };
        exchanged += 1;
    }
    assert_eq!(frames.end().last(), None, "it said all that it had to say");
    exchanged
}

/// Asks for one credential on a stream of HTTP/2.
fn ask_on(frames: &mut Frames, stream: u32, token: &str, credential: &str) {
    begin_on(frames, stream, token);
    frames.send(DATA, END, stream, only(credential).to_string().as_bytes());
}

/// Sends an exchange's head.
fn begin_on(frames: &mut Frames, stream: u32, token: &str) {
    let bearer = format!("Bearer {token}");
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/exchange"),
        (":authority", "a"),
        ("content-type", "application/json"),
        ("authorization", &bearer),
    ];
    frames.ask(stream, 0, &fields);
}

/// A client of HTTP/2 that was given its secret and never says another word: no acknowledgement of settings or of a
/// PING, no window, no end of its own. Its connection closes all the same.
#[test]
fn delivered_secret_is_gone_when_a_client_of_http_2_never_answers() {
    for build in Build::shipped() {
        let installation = Installation::new();
        installation.set_secret("npm-token", SECRET);
        let server = build.serve(&installation);
        let [read, unread] = [(); 2].map(|()| installation.issuer.token());
        let needles = |token: &str| [Needles::of_secret(SECRET), Needles::of_token(token)];

        let mut reads = Frames::open(server.public.address, &[]);
        ask_on(&mut reads, 1, &read, "npm");
        assert!(reads.body(1).unwrap().contains(SECRET));
        build.assert_wiped(&server, close(), needles(&read).each_ref());

        // It does not even look at what comes.
        let mut looks_away = Frames::open(server.public.address, &[]);
        ask_on(&mut looks_away, 1, &unread, "npm");
        eventually("its exchange", || (server.entries("ISSUED").len() == 2).then_some(()));
        build.assert_wiped(&server, close(), needles(&unread).each_ref());

        assert!(
            reads.0.ends_within(SECOND) && looks_away.0.ends_within(SECOND),
            "a connection is still open"
        );
    }
}

/// Exchanges that a client began beside it and never finished are answered too, with 408: until then they keep the
/// connection, and that for no longer than a body may take.
#[test]
fn delivered_secret_is_gone_when_a_client_of_http_2_leaves_exchanges_unfinished() {
    // Five for a body, and one for what is left of it.
    const BODY: Duration = Duration::from_secs(6);
    for build in Build::shipped() {
        let installation = Installation::new();
        installation.set_secret("npm-token", SECRET);
        let server = build.serve(&installation);
        let [token, unfinished] = [(); 2].map(|()| installation.issuer.token());
        let needles = [Needles::of_secret(SECRET), Needles::of_token(&token), Needles::of_token(&unfinished)];

        let mut frames = Frames::open(server.public.address, &[]);
        begin_on(&mut frames, 1, &unfinished);
        ask_on(&mut frames, 3, &token, "npm");
        assert!(frames.body(3).unwrap().contains(SECRET));
        let answered = Instant::now();
        frames.end();

        let closed = Instant::now();
        assert!(closed - answered < BODY + CLOSE, "kept for {:?}", closed - answered);
        build.assert_wiped(&server, closed, needles.each_ref());
    }
}

/// A window of nothing holds the whole answer in our hands. It is there while it is held, and no longer than five seconds.
#[test]
fn secret_that_a_client_of_http_2_never_takes_is_gone_when_its_connection_is() {
    const HELD: Duration = Duration::from_secs(5);
    const INITIAL_WINDOW_SIZE: u16 = 4;
    for build in Build::shipped() {
        let installation = Installation::new();
        installation.set_secret("npm-token", SECRET);
        let server = build.serve(&installation);
        let token = installation.issuer.token();
        let needles = [Needles::of_secret(SECRET), Needles::of_token(&token)];

        let mut frames = Frames::open(server.public.address, &[(INITIAL_WINDOW_SIZE, 0)]);
        ask_on(&mut frames, 1, &token, "npm");
        eventually("the secret while it is held", || needles[0].are_in(server.pid()).then_some(()));
        let held = Instant::now();
        while let Some(Frame { kind, .. }) = frames.next() {
            assert_ne!(kind, DATA, "nothing fits into the window");
        }

        let closed = Instant::now();
        assert!(closed - held < HELD + CLOSE, "held for {:?}", closed - held);
        build.assert_wiped(&server, closed, needles.each_ref());
        eventually("UNDELIVERED", || server.entries("UNDELIVERED").pop());
    }
}

#[test]
fn refused_replayed_and_retried_tokens_are_gone_too() {
    for build in Build::shipped() {
        let installation = Installation::new();
        let server = build.serve(&installation);
        let [used, refused, spoiled] = [(); 3].map(|()| installation.issuer.token());
        let key = "0123456789abcdef";

        server.public.exchanging(&used, &deploy()).header("Idempotency-Key", key).send().ok();
        server.public.exchanging(&used, &deploy()).header("Idempotency-Key", key).send().ok();
        server.public.exchange(&used, &only("npm")).problem(409, "token_replayed");
        let ask = json!({ "grants": ["nobody-has-this"] });
        server.public.exchange(&refused, &ask).problem(403, "access_denied");
        server.public.exchange(&spoiled, &json!({ "grants": [] })).problem(400, "request_malformed");

        let tokens = [used, refused, spoiled].map(|token| Needles::of_token(&token));
        build.assert_wiped(&server, close(), tokens.each_ref());
        build.assert_wiped(&server, close(), [&Needles::of_secret(CANARY)]);
    }
}

/// The token of a form is percent-decoded on the way; neither form of it stays, nor what a refusal does not look at.
#[test]
fn tokens_and_secret_of_the_oauth_endpoint_are_gone_too() {
    for build in Build::shipped() {
        let installation = Installation::new();
        let server = build.serve(&installation);
        let [used, denied, spoiled] = [(); 3].map(|()| installation.issuer.token());
        let post = |token: &str, audience: &str, kind: &str| {
            let body = format!(
                "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={token}\
                 &subject_token_type=urn:ietf:params:oauth:token-type:{kind}&audience={audience}&scope=npm"
            );
            let call = server.public.call("POST", "/v1/token");
            call.header("content-type", "application/x-www-form-urlencoded").body(&body).send().status
        };

        let statuses = [
            post(&used, "deploy", "jwt"),
            post(&denied, "nobody-has-this", "jwt"),
            post(&spoiled, "deploy", "saml2"),
        ];

        assert_eq!(statuses, [200, 400, 400]);
        let tokens = [used, denied, spoiled].map(|token| Needles::of_token(&token));
        build.assert_wiped(&server, close(), tokens.each_ref());
        build.assert_wiped(&server, close(), [&Needles::of_secret(CANARY)]);
    }
}
