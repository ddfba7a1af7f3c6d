//! Floods: of frames, of connections, of requests and of garbage tokens (attack classes B-07, B-08, O-03, O-05). Each
//! is ended, limited or borne; memory stays within a stated bound, and a good exchange succeeds meanwhile and after.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::support::{
    Installation, Server, eventually,
    raw::{
        CONTINUATION, DATA, END, END_HEADERS, Frames, GOAWAY, HEADERS, PING, PUSH_PROMISE, RST_STREAM,
        SETTINGS, WINDOW_UPDATE, Wire, block, frame, say,
    },
};

const LIVE: &str = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";

/// Error codes of RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Attacks once, and answers the error codes of the GOAWAY and RST_STREAM frames that it was told.
type Attack = fn(SocketAddr) -> Vec<(u8, u32)>;

#[test]
fn floods_of_frames_end_their_connection_and_no_other() {
    /// What all attacks together may add to the process's peak, in kB.
    const BOUND_KB: u64 = 48 * 1024;
    let installation = Installation::new();
    let server = installation.serve();
    let address = server.public.address;
    good(&installation, &server);
    let before = memory_kb(&server, "VmHWM");
    let attacks: [(&str, Attack, &[u32]); 14] = [
        ("rapid reset", rapid_reset, &[ENHANCE_YOUR_CALM]),
        ("empty DATA", empty_data, &[ENHANCE_YOUR_CALM]),
        ("CONTINUATION without end", continuations, &[ENHANCE_YOUR_CALM]),
        ("HPACK bomb", hpack_bomb, &[ENHANCE_YOUR_CALM, COMPRESSION_ERROR]),
        ("HPACK table size beyond ours", hpack_table, &[PROTOCOL_ERROR, COMPRESSION_ERROR]),
        ("streams beyond the limit", many_streams, &[REFUSED_STREAM, ENHANCE_YOUR_CALM]),
        ("window of zero added", |to| stray(to, WINDOW_UPDATE, 0, &[0; 4]), &[PROTOCOL_ERROR]),
        ("window beyond 2^31", window_overflow, &[FLOW_CONTROL_ERROR]),
        ("more DATA than the window", too_much_data, &[FLOW_CONTROL_ERROR, ENHANCE_YOUR_CALM]),
        ("frame beyond its size", |to| stray(to, DATA, 1, &vec![0; 17_000]), &[FRAME_SIZE_ERROR]),
        ("SETTINGS on a stream", |to| stray(to, SETTINGS, 1, &[]), &[PROTOCOL_ERROR]),
        ("PUSH_PROMISE by a client", |to| stray(to, PUSH_PROMISE, 1, &[0, 0, 0, 2]), &[PROTOCOL_ERROR]),
        ("DATA on no stream", |to| stray(to, DATA, 1, b"x"), &[PROTOCOL_ERROR, STREAM_CLOSED]),
        ("a stream of the server's", |to| stray(to, HEADERS, 2, &block(&head())), &[PROTOCOL_ERROR]),
    ];

    meanwhile(&installation, &server, || {
        for (name, attack, codes) in attacks {
            let told = attack(address);
            assert!(!told.is_empty(), "{name}: nothing was refused");
            for (_, code) in &told {
                assert!(codes.contains(code), "{name}: {told:?}");
            }
        }
    });
    let after = memory_kb(&server, "VmHWM");
    report(&format!("floods of frames: peak {before} kB before, {after} kB after"));
    assert!(after < before + BOUND_KB, "{before} kB became {after} kB");
    assert!(!server.logs().contains("panic"), "{}", server.logs());
}

#[test]
fn peers_that_do_not_read_are_not_waited_for() {
    const BOUND_KB: u64 = 48 * 1024;
    let installation = Installation::new();
    let server = installation.serve();
    let address = server.public.address;
    good(&installation, &server);
    let before = memory_kb(&server, "VmHWM");

    meanwhile(&installation, &server, || {
        thread::scope(|scope| {
            let attacks: [fn(&mut Frames) -> bool; 2] = [settings_flood, ping_flood];
            for attack in attacks {
                scope.spawn(move || {
                    let mut frames = Frames::open(address, &[]);
                    let start = Instant::now();
                    // The server stops reading what it cannot acknowledge, so that writing blocks; or it ends.
                    frames.0.give_up_after(Duration::from_secs(2));
                    while start.elapsed() < Duration::from_secs(4) && attack(&mut frames) {}
                });
            }
            // Answers that never fit into the window: one of nothing, and one of a byte.
            for window in [0, 1] {
                scope.spawn(move || {
                    let mut frames = Frames::open(address, &[(4, window)]);
                    for stream in (1..=127).step_by(2) {
                        let mut fields = head();
                        fields.push(("authorization", "Bearer a.b.c"));
                        frames.ask(stream, END, &fields);
                    }
                    let start = Instant::now();
                    frames.end();
                    assert!(start.elapsed() < Duration::from_secs(9), "unread answers were held");
                });
            }
            // HTTP/1.1: requests without end, of which no answer is read.
            scope.spawn(move || {
                let mut wire = Wire::open(address);
                let start = Instant::now();
                wire.give_up_after(Duration::from_secs(1));
                while start.elapsed() < Duration::from_secs(4) && wire.try_send(LIVE.repeat(100)) {}
            });
        });
    });

    let after = memory_kb(&server, "VmHWM");
    report(&format!("peers that do not read: peak {before} kB before, {after} kB after"));
    assert!(after < before + BOUND_KB, "{before} kB became {after} kB");
    good(&installation, &server);
}

#[test]
fn heads_of_http_2_that_are_malformed_reset_their_stream() {
    let installation = Installation::new();
    let server = installation.serve();
    let address = server.public.address;
    let good_head = head();
    let with = |more: &[(&'static str, &'static str)]| [&good_head[..], more].concat();
    let without = |name: &str| {
        good_head.iter().copied().filter(|(each, _)| *each != name).collect::<Vec<(&str, &str)>>()
    };
    let first = |more: (&'static str, &'static str)| [&[more], &good_head[..]].concat();
    let malformed = [
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("two methods", first((":method", "POST"))),
        ("two paths", first((":path", "/v1/exchange"))),
        ("two authorities", first((":authority", "b"))),
        ("an unknown pseudo header", first((":protocol2", "x"))),
        ("a pseudo header of answers", first((":status", "200"))),
        ("extended CONNECT", first((":protocol", "websocket"))),
        ("a pseudo header after a header", with(&[("x", "y"), (":path", "/v1/exchange")])),
        ("an empty path", [&without(":path")[..], &[(":path", "")]].concat()),
        ("a path that is none", [&without(":path")[..], &[(":path", "livez")]].concat()),
        ("a header in upper case", with(&[("X", "y")])),
        ("a header with a space", with(&[("x y", "z")])),
        ("an empty header", with(&[("", "y")])),
        ("a line in a value", with(&[("x", "y\r\nauthorization: Bearer a")])),
        ("a NUL in a value", with(&[("x", "y\0")])),
        ("connection", with(&[("connection", "keep-alive")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("te but trailers", with(&[("te", "gzip")])),
        ("a length and no body", with(&[("content-length", "5")])),
    ];

    for (name, fields) in malformed {
        let mut frames = Frames::open(address, &[]);
        frames.ask(1, END, &fields);
        let body = frames.body(1);
        // What hyper lets through is refused by us.
        let status =
            body.as_deref().map(|body| serde_json::from_str::<Value>(body).unwrap()["status"].clone());
        assert!(
            matches!(status.as_ref().and_then(Value::as_u64), None | Some(400 | 404)),
            "{name}: {body:?}"
        );
        assert_ne!(body.as_deref(), Some(r#"{"status":"live"}"#), "{name}");
    }
    for (name, more) in [("another host", ("host", "b")), ("two hosts", ("host", "a"))] {
        let mut frames = Frames::open(address, &[]);
        let mut fields = with(&[more]);
        if name == "two hosts" {
            fields.push(("host", "a"));
        }
        frames.ask(1, END, &fields);
        let body: Value = serde_json::from_str(&frames.body(1).unwrap()).unwrap();
        assert_eq!(body["status"], 400, "{name}");
    }
    for fields in [good_head.clone(), with(&[("te", "trailers")]), with(&[("host", "a")])] {
        let mut frames = Frames::open(address, &[]);
        frames.ask(1, END, &fields);
        assert_eq!(frames.body(1).unwrap(), r#"{"status":"live"}"#);
    }
    assert!(!server.logs().contains("panic"), "{}", server.logs());
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_out() {
    /// What a connection may cost, in bytes, with a debug build's futures.
    const BOUND: u64 = 32 * 1024;
    let own = raise_descriptors();
    let wanted = usize::try_from(own).unwrap().saturating_sub(1_000).min(10_000);
    let installation = Installation::new();
    let server = installation.serve();
    let address = server.public.address;
    good(&installation, &server);
    let before = memory_kb(&server, "VmRSS");

    let mut idle: Vec<Wire> = Vec::with_capacity(wanted);
    let start = Instant::now();
    while idle.len() < wanted {
        let at = u32::try_from(idle.len()).unwrap();
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 1, 1)) + at % 64);
        let mut wire = Wire::open_from(source, address);
        // Some say nothing, some begin a request, some had an answer.
        match at % 3 {
            0 => {}
            1 => drop(wire.try_send("GET /livez HTTP/1.1\r\nho")),
            _ => drop(wire.try_send(LIVE)),
        }
        idle.push(wire);
        if idle.len().is_multiple_of(1_000) {
            good(&installation, &server);
        }
    }
    let opened = start.elapsed();
    let after = memory_kb(&server, "VmRSS");
    let kept = open_sockets(&server);
    good(&installation, &server);
    let cost = after.saturating_sub(before) * 1024 / u64::try_from(kept.max(1)).unwrap();
    report(&format!(
        "{wanted} idle connections in {opened:.1?}, {kept} kept by the server: {before} kB became {after} kB, {cost} bytes each"
    ));
    // Some are let go after ten seconds: a machine that needs longer to open them holds fewer.
    assert!(kept >= wanted.min(4_000) || opened > Duration::from_secs(8), "{kept}");
    assert!(cost < BOUND, "{cost} bytes each");

    // Those who were let go for others were the oldest, and were not reset in the midst of anything.
    drop(idle);
    eventually("the end of all", || (open_sockets(&server) < 50).then_some(()));
    good(&installation, &server);
}

#[test]
fn a_source_that_asks_too_often_is_told_when_to_come_back_and_no_other_is() {
    let installation = Installation::new();
    spoil(&installation, "per_source_per_second: 100000", "per_source_per_second: 5");
    let server = installation.serve();
    let address = server.public.address;
    let spoofed = "203.0.113.77";
    let ask = |source: Ipv4Addr, at: usize| {
        let mut wire = Wire::open_from(source, address);
        // Whoever asks may claim to be anybody: without trusted proxies nobody is believed (B-08).
        wire.send(format!(
            "GET /v1/whoami HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {spoofed}, 10.0.0.{at}\r\nforwarded: for={spoofed}\r\n\
             x-real-ip: 10.0.0.{at}\r\ntrue-client-ip: 10.1.0.{at}\r\ncf-connecting-ip: 10.2.0.{at}\r\n\r\n"
        ));
        wire.answer().unwrap()
    };
    let before = entries(&server);

    let answers: Vec<_> = (0..80).map(|at| ask(Ipv4Addr::new(127, 0, 0, 9), at)).collect();

    let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    // A slow machine gives more of them time.
    assert!(limited.len() >= 20, "{} of 80 were limited", limited.len());
    let mut seconds = BTreeMap::new();
    for answer in &limited {
        let body = answer.problem(429, "rate_limited");
        let wait = body["retry_after_seconds"].as_u64().unwrap();
        assert!((1..=3).contains(&wait), "{body}");
        *seconds.entry(wait).or_insert(0) += 1;
        let id = body["request_id"].as_str().unwrap();
        assert_eq!(
            answer.body,
            format!(
                r#"{{"type":"urn:hallpass:problem:rate_limited","title":"Rate limited","status":429,"detail":"this address asks too often; slow down","code":"rate_limited","request_id":"{id}","retry_after_seconds":{wait}}}"#
            )
        );
    }
    assert!(seconds.len() > 1, "all were told the same: {seconds:?}");
    assert_eq!(answers.iter().filter(|answer| answer.status == 401).count(), 80 - limited.len());
    ask(Ipv4Addr::new(127, 0, 0, 10), 0).problem(401, "token_missing");
    good(&installation, &server);
    assert_eq!(say(address, LIVE).0.unwrap().status, 200, "it depends on nothing");
    // The exchange above made its two entries (INTENT and ISSUED) and nothing else did.
    assert_eq!(entries(&server), before + 2, "refusals by rate are no entries");
    assert!(!server.ledger("").iter().any(|item| item.to_string().contains(spoofed)));
    assert!(!server.logs().contains(spoofed));
    server.stop();
    for file in ["hallpass.db", "hallpass.db-wal"] {
        let bytes = fs::read(installation.file(file)).unwrap_or_default();
        assert!(!bytes.windows(spoofed.len()).any(|window| window == spoofed.as_bytes()), "{file}");
    }
}

#[test]
fn a_project_that_asks_too_often_waits_and_no_other_does() {
    let installation = Installation::new();
    spoil(&installation, "per_project_per_minute: 100000", "per_project_per_minute: 5");
    let server = installation.serve();
    let ask = |claims: Value| {
        server.public.get("/v1/whoami").bearer(&installation.issuer.token_with(claims)).send()
    };
    let before = entries(&server);

    let answers = [(); 12].map(|()| ask(json!({ "repository_id": "8" })));

    let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!((5..=7).contains(&limited.len()), "{} of 12 were limited", limited.len());
    for answer in limited {
        let body = answer.problem(429, "rate_limited");
        assert!((60..=90).contains(&body["retry_after_seconds"].as_u64().unwrap()), "{body}");
    }
    assert_eq!(ask(json!({ "repository_id": "9" })).status, 200, "another project");
    assert_eq!(entries(&server), before, "refusals by rate are no entries");
    good(&installation, &server);
}

#[test]
fn load_beyond_the_places_is_shed_and_livez_goes_on() {
    let installation = Installation::new();
    spoil(&installation, "limits: { ", "limits: { in_flight: 1, ");
    let server = installation.serve();
    let address = server.public.address;
    let (mut slow, refused) = eventually("a full house", || {
        let mut slow = Wire::open(address);
        slow.send(exchange("a.b.c", 5));
        // A good one that came first may have had the place, and then the slow one was sent away: it comes again.
        (0..20)
            .find_map(|_| {
                let answer =
                    say(address, exchange(&installation.issuer.token(), BODY.len()) + BODY).0.unwrap();
                (answer.status == 503).then_some(answer)
            })
            .map(|answer| (slow, answer))
    });

    let before = entries(&server);
    let body = refused.problem(503, "overloaded");
    assert!((1..=3).contains(&body["retry_after_seconds"].as_u64().unwrap()), "{body}");
    assert_eq!(body["detail"], "too many requests are in flight; try again shortly");
    for path in ["/v1/whoami", "/v1/grants", "/.well-known/jwks.json"] {
        server.public.get(path).send().problem(503, "overloaded");
    }
    assert_eq!(say(address, LIVE).0.unwrap().status, 200);
    assert_eq!(server.admin.get("/readyz").send().status, 200, "each listener has its own places");
    slow.send("{}   ");
    slow.answer().unwrap().problem(401, "token_malformed");
    good(&installation, &server);
    assert!(entries(&server) <= before + 4, "what is shed is no entry");
}

#[test]
fn garbage_tokens_keep_no_good_one_out() {
    let installation = Installation::new();
    let server = installation.serve();
    let address = server.public.address;
    good(&installation, &server);
    let fetched = installation.issuer.fetches();
    let before = entries(&server);
    let garbage = garbage(&installation.issuer.token());
    let (is_over, sent) = (Over(AtomicBool::new(false)), AtomicU64::new(0));

    let mut slowest = Duration::ZERO;
    let mut exchanges = 0;
    thread::scope(|scope| {
        for client in 0..4 {
            let (garbage, is_over, sent) = (&garbage, &is_over, &sent);
            scope.spawn(move || {
                for (token, code) in garbage.iter().cycle().skip(client) {
                    if is_over.0.load(Ordering::Relaxed) {
                        return;
                    }
                    let answer = say(address, exchange(token, BODY.len()) + BODY).0.unwrap();
                    answer.problem(401, code);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _ending = Ending(&is_over);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            let each = Instant::now();
            good(&installation, &server);
            slowest = slowest.max(each.elapsed());
            exchanges += 1;
        }
    });

    let sent = sent.load(Ordering::Relaxed);
    report(&format!(
        "garbage: {sent} refused in 3 s, {exchanges} good exchanges meanwhile, slowest {slowest:.1?}"
    ));
    assert!(sent > 100 && exchanges > 10, "{sent} garbage, {exchanges} good");
    assert_eq!(installation.issuer.fetches(), fetched, "no packet left for any of it");
    // Strangers cannot grow the ledger: a minute's SUMMARY entries may fall into this test, one for each issuer and one
    // for all others.
    assert_eq!(server.entries("DENIED"), [] as [Value; 0]);
    assert!(entries(&server) <= before + 2 * exchanges + 2);
}

/// Tokens that prove nothing, each refused at another step, with the code of that step.
fn garbage(token: &str) -> Vec<(String, &'static str)> {
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let other_key = encode(json!({ "alg": "RS256", "typ": "JWT", "kid": super::support::issuer::KID }));
    let random = URL_SAFE_NO_PAD.encode([0x5a; 256]);
    vec![
        (format!("{other_key}.{payload}.{random}"), "token_signature"),
        (format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode([0; 256])), "token_signature"),
        (format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode([0xff; 256])), "token_signature"),
        (format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode([1; 4096])), "token_signature"),
        (format!("{header}.{}.{signature}", encode(json!({ "iss": "https://evil.test" }))), "token_issuer"),
        ("a".repeat(8 * 1024 + 1), "token_malformed"),
        ("a.b.c".to_owned(), "token_malformed"),
        (".".repeat(4_000), "token_malformed"),
    ]
}

fn rapid_reset(address: SocketAddr) -> Vec<(u8, u32)> {
    let mut frames = Frames::open(address, &[]);
    for stream in (1..20_001).step_by(2) {
        let mut both = frame(HEADERS, END | END_HEADERS, stream, &block(&head()));
        both.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        if !frames.0.send(both) {
            break;
        }
    }
    goaways(frames)
}

fn empty_data(address: SocketAddr) -> Vec<(u8, u32)> {
    let mut frames = Frames::open(address, &[]);
    frames.ask(1, 0, &posting());
    let many = frame(DATA, 0, 1, &[]).repeat(1_000);
    for _ in 0..200 {
        if !frames.0.send(&many) {
            break;
        }
    }
    goaways(frames)
}

fn continuations(address: SocketAddr) -> Vec<(u8, u32)> {
    let mut frames = Frames::open(address, &[]);
    frames.send(HEADERS, 0, 1, &block(&head()));
    let some = block(&[("x", &"y".repeat(8_000))]);
    for _ in 0..2_000 {
        if !frames.send(CONTINUATION, 0, 1, &some) {
            break;
        }
    }
    goaways(frames)
}

/// One long header in the table, and then a byte for each time it is meant: 16 KiB that stand for 50 MB.
fn hpack_bomb(address: SocketAddr) -> Vec<(u8, u32)> {
    let mut frames = Frames::open(address, &[]);
    let mut bomb = block(&head());
    bomb.push(0x40);
    super::support::raw::text(&mut bomb, "x");
    super::support::raw::text(&mut bomb, &"y".repeat(4_000));
    bomb.extend(std::iter::repeat_n(0xbe, 12_000));
    for stream in (1..200).step_by(2) {
        if !frames.send(HEADERS, END | END_HEADERS, stream, &bomb) {
            break;
        }
    }
    goaways(frames)
}

fn hpack_table(address: SocketAddr) -> Vec<(u8, u32)> {
    // A table of a gigabyte (RFC 7541 section 6.3).
    stray(address, HEADERS, 1, &[0x3f, 0xe1, 0xff, 0xff, 0xff, 0x03])
}

fn many_streams(address: SocketAddr) -> Vec<(u8, u32)> {
    let mut frames = Frames::open(address, &[]);
    for stream in (1..2_001).step_by(2) {
        // None ends its body: each stays open.
        if !frames.ask(stream, 0, &posting()) {
            break;
        }
    }
    let mut codes = Vec::new();
    while let Some(frame) = frames.next() {
        match frame.kind {
            RST_STREAM => codes.push((RST_STREAM, u32::from_be_bytes(*frame.payload.first_chunk().unwrap()))),
            GOAWAY => codes.push((GOAWAY, u32::from_be_bytes(*frame.payload[4..].first_chunk().unwrap()))),
            _ => {}
        }
        if codes.len() >= 900 {
            break;
        }
    }
    codes
}

fn window_overflow(address: SocketAddr) -> Vec<(u8, u32)> {
    stray(address, WINDOW_UPDATE, 0, &0x7fff_ffff_u32.to_be_bytes())
}

fn too_much_data(address: SocketAddr) -> Vec<(u8, u32)> {
    let mut frames = Frames::open(address, &[]);
    frames.ask(1, 0, &posting());
    let chunk = vec![b' '; 16 * 1024];
    for _ in 0..64 {
        if !frames.send(DATA, 0, 1, &chunk) {
            break;
        }
    }
    goaways(frames)
}

/// One frame that must not be.
fn stray(address: SocketAddr, kind: u8, stream: u32, payload: &[u8]) -> Vec<(u8, u32)> {
    let mut frames = Frames::open(address, &[]);
    let flags = if kind == HEADERS { END | END_HEADERS } else { 0 };
    frames.send(kind, flags, stream, payload);
    goaways(frames)
}

/// What a connection was ended or a stream reset with.
fn goaways(mut frames: Frames) -> Vec<(u8, u32)> {
    frames.0.finish();
    let mut codes = frames.end();
    codes.retain(|(_, code)| *code != 0);
    codes
}

fn settings_flood(frames: &mut Frames) -> bool {
    frames.0.try_send(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(1_000))
}

fn ping_flood(frames: &mut Frames) -> bool {
    frames.0.try_send(frame(PING, 0, 0, &[7; 8]).repeat(1_000))
}

fn head() -> Vec<(&'static str, &'static str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":path", "/livez"), (":authority", "a")]
}

fn posting() -> Vec<(&'static str, &'static str)> {
    vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/exchange"),
        (":authority", "a"),
        ("content-type", "application/json"),
    ]
}

const BODY: &str = r#"{"grants":[{"name":"deploy","credentials":["npm"]}]}"#;

/// The head of an exchange.
fn exchange(token: &str, body_bytes: usize) -> String {
    format!(
        "POST /v1/exchange HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {body_bytes}\r\n\r\n"
    )
}

/// One permitted exchange.
#[track_caller]
fn good(installation: &Installation, server: &Server) {
    server.only(&installation.issuer.token(), "npm");
}

/// Attacks, while one good exchange after another succeeds.
fn meanwhile(installation: &Installation, server: &Server, attack: impl FnOnce()) {
    let is_over = Over(AtomicBool::new(false));
    thread::scope(|scope| {
        let job = scope.spawn(|| {
            let mut exchanges = 0;
            while !is_over.0.load(Ordering::Relaxed) {
                good(installation, server);
                exchanges += 1;
            }
            exchanges
        });
        let guard = Ending(&is_over);
        attack();
        drop(guard);
        assert!(job.join().unwrap() > 0, "no good exchange had time");
    });
}

/// Whether an attack is over.
struct Over(AtomicBool);

/// Says so when it is dropped, also by a panic.
struct Ending<'a>(&'a Over);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// How many entries the ledger has, but for those of looking at it.
fn entries(server: &Server) -> usize {
    server.ledger("").iter().filter(|item| item["entry"]["code"] != "READ").count()
}

/// Changes one thing in `hallpass.yaml`.
fn spoil(installation: &Installation, from: &str, to: &str) {
    let right = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let spoiled = right.replace(from, to);
    assert_ne!(spoiled, right);
    installation.write("hallpass.yaml", &spoiled);
}

/// A line of the process's memory, in kB.
fn memory_kb(server: &Server, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let found = status.lines().find_map(|each| each.strip_prefix(line)?.strip_prefix(':')).unwrap();
    found.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How many sockets the server has open.
fn open_sockets(server: &Server) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let links = open.filter_map(|each| fs::read_link(each.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Raises the soft limit of descriptors to the hard one, for us and whom we start; answers it.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    limit.maximum.unwrap_or(1 << 20)
}

#[expect(clippy::print_stderr, reason = "a bound is worth more beside the figure")]
fn report(text: &str) {
    eprintln!("{text}");
}
