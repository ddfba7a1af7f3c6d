//! Requests that are not as they should be, byte by byte: too slow, too large, said twice, framed twice, or no HTTP at
//! all (attack classes B-05, B-07, B-09, R-12). Each is answered or ended within a bound, none is served, none is
//! read as two, and good ones go on.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::support::{
    Installation, Server,
    raw::{
        CONTINUATION, DATA, END, END_HEADERS, Frames, HEADERS, PREFACE, SETTINGS, Wire, block, frame, say,
    },
};

/// For a connection's first bytes, and for a head (the server's own bound).
const HEAD: Duration = Duration::from_secs(10);
/// For a body (the server's own bound), and for what is left of it.
const BODY: Duration = Duration::from_secs(5);
/// What a busy machine may add to a bound.
const LATE: Duration = Duration::from_secs(4);

const BODY_TEXT: &str = r#"{"grants":[{"name":"deploy","credentials":["npm"]}]}"#;

#[test]
fn slow_senders_are_told_and_let_go() {
    let installation = Installation::new();
    let server = installation.serve();
    let secured = Installation::new();
    secure(&secured);
    let secure = secured.serve();
    let (address, token) = (server.public.address, installation.issuer.token());
    let head = |rest: &str| {
        format!(
            "POST /v1/exchange HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n{rest}"
        )
    };
    let slow = |first: String, bound: Duration, detail: &'static str| {
        move || {
            let start = Instant::now();
            let mut wire = Wire::open(address);
            wire.send(first);
            // A byte now and then: what comes late must not count as life.
            while !wire.ends_within(Duration::from_millis(400)) {
                wire.send("a");
                assert!(start.elapsed() < bound + LATE, "{detail}: still open");
            }
            assert!(start.elapsed() >= bound, "{detail}: {:?}", start.elapsed());
            let answer = wire.answer().unwrap_or_else(|| panic!("{detail}: no answer"));
            assert_eq!(answer.problem(408, "request_malformed")["detail"], detail);
            assert_eq!(answer.header("connection"), "close");
            assert_eq!(wire.rest(), b"");
        }
    };
    let late_head = "the head of the request did not arrive in time";
    let late_body = "the body did not arrive in time";

    thread::scope(|scope| {
        scope.spawn(slow("POST /v1/exchange HTTP/1.1\r\nx: ".to_owned(), HEAD, late_head));
        scope.spawn(slow(head("x: "), HEAD, late_head));
        scope.spawn(slow("P".to_owned(), HEAD, late_head));
        scope.spawn(slow(head("content-length: 1000\r\n\r\n{"), BODY, late_body));
        scope.spawn(slow(head("transfer-encoding: chunked\r\n\r\n3e8\r\n{"), BODY, late_body));
        scope.spawn(|| {
            let start = Instant::now();
            let mut wire = Wire::open(address);
            assert!(wire.ends_within(HEAD + LATE), "silence is let go");
            assert!(start.elapsed() >= HEAD, "and not before: {:?}", start.elapsed());
            assert_eq!(wire.rest(), b"", "without a word, since nothing was asked");
        });
        for (opening, dribble) in http2_openings() {
            scope.spawn(move || lets_go_without_an_answer(address, &opening, dribble));
        }
        let secure = secure.public.address;
        for (opening, dribble) in [(&b""[..], ""), (b"\x16\x03\x01\x02\x00\x01\x00", "\0")] {
            scope.spawn(move || lets_go_without_an_answer(secure, opening, dribble));
        }
        scope.spawn(|| {
            let mut wire = Wire::open(address);
            wire.send("GET /livez HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(wire.answer().unwrap().status, 200);
            assert!(wire.ends_within(HEAD + LATE), "idle after an answer is let go");
            assert_eq!(wire.rest(), b"");
        });
        scope.spawn(|| {
            let start = Instant::now();
            let mut frames = Frames::open(address, &[]);
            frames.ask(1, 0, &fields(&format!("Bearer {token}"), &[]));
            frames.send(DATA, 0, 1, b"{");
            let body: Value = serde_json::from_str(&frames.body(1).unwrap()).unwrap();
            assert_eq!((&body["status"], &body["detail"]), (&json!(408), &json!(late_body)));
            assert!((BODY..BODY + LATE).contains(&start.elapsed()), "{:?}", start.elapsed());
        });
        scope.spawn(|| {
            let start = Instant::now();
            while start.elapsed() < HEAD {
                good(&installation, &server);
                thread::sleep(Duration::from_millis(500));
            }
        });
    });

    good(&installation, &server);
    assert_eq!(server.entries("DENIED"), [] as [Value; 0], "a request that never came whole is no decision");
}

/// Beginnings of HTTP/2 that never become a request, each with what is dribbled after it.
fn http2_openings() -> [(Vec<u8>, &'static str); 4] {
    let settings = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let head = block(&[(":method", "GET"), (":path", "/livez"), (":scheme", "http"), (":authority", "a")]);
    let half_a_head = [&settings[..], &frame(HEADERS, 0, 1, &head)].concat();
    let half_a_frame = [&settings[..], &frame(HEADERS, END, 1, &[0; 100])[..9]].concat();
    [(PREFACE[..20].to_vec(), ""), (settings, ""), (half_a_head, ""), (half_a_frame, "\0")]
}

/// Opens a connection and dribbles; it ends within the bound for heads, not before, and nothing was answered but
/// frames of HTTP/2.
fn lets_go_without_an_answer(address: SocketAddr, opening: &[u8], dribble: &str) {
    let start = Instant::now();
    let mut wire = Wire::open(address);
    wire.send(opening);
    while !wire.ends_within(Duration::from_millis(800)) {
        wire.send(dribble);
        assert!(start.elapsed() < HEAD + LATE, "{opening:?}: still open");
    }
    assert!(start.elapsed() >= HEAD, "{opening:?}: {:?}", start.elapsed());
    let rest = String::from_utf8_lossy(&wire.rest()).into_owned();
    assert!(!rest.contains("live"), "{rest:?}");
}

/// Gives an installation a certificate.
fn secure(installation: &Installation) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    installation.write("tls.crt", &issued.cert.pem());
    installation.write("tls.key", &issued.signing_key.serialize_pem());
    let plain = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let secured = plain.replace("public: { ", "public: { tls: { certificate: tls.crt, key: tls.key }, ");
    assert_ne!(plain, secured);
    installation.write("hallpass.yaml", &secured);
}

#[test]
fn bodies_may_have_32_kib_and_no_byte_more() {
    let installation = Installation::new();
    let server = installation.serve();
    let address = server.public.address;
    let padded = |bytes: usize| format!("{BODY_TEXT}{}", " ".repeat(bytes - BODY_TEXT.len()));
    let head = |more: &str| post(&installation.issuer.token(), "application/json", more);
    let whole = |bytes: usize| format!("{}{}", head(&format!("content-length: {bytes}\r\n")), padded(bytes));
    let chunked = |bytes: usize| {
        let body = padded(bytes);
        let chunks: String = body
            .as_bytes()
            .chunks(1000)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap()))
            .collect();
        format!("{}{chunks}0\r\n\r\n", head("transfer-encoding: chunked\r\n"))
    };
    let refused = |request: String| {
        let (answer, rest) = say(address, request);
        answer.unwrap().problem(413, "request_too_large");
        assert_eq!(rest, b"");
    };

    assert_eq!(say(address, whole(32 * 1024)).0.unwrap().status, 200);
    assert_eq!(say(address, chunked(32 * 1024)).0.unwrap().status, 200);
    refused(whole(32 * 1024 + 1));
    refused(chunked(32 * 1024 + 1));
    refused(chunked(200 * 1024));
    refused(head("content-length: 1000000000000\r\n"));
    let endless = "fffffffffffffffe\r\n".to_owned() + &padded(40 * 1024);
    refused(head("transfer-encoding: chunked\r\n") + &endless);
    // By the length alone: nothing of the body is waited for, and nobody is asked to send it.
    refused(head("content-length: 32769\r\n"));
    refused(head("expect: 100-continue\r\ncontent-length: 32769\r\n"));
    for length in ["32769", ""] {
        let mut frames = Frames::open(address, &[]);
        let token = format!("Bearer {}", installation.issuer.token());
        let length = [("content-length", length)];
        frames.ask(1, 0, &fields(&token, if length[0].1.is_empty() { &[] } else { &length }));
        for chunk in padded(32 * 1024 + 1).as_bytes().chunks(16 * 1024) {
            frames.send(DATA, if chunk.len() == 1 { END } else { 0 }, 1, chunk);
        }
        let body: Value = serde_json::from_str(&frames.body(1).unwrap()).unwrap();
        assert_eq!(body["status"], 413);
    }
    good(&installation, &server);
}

#[test]
fn heads_may_have_16_kib_and_whoever_sends_more_is_told() {
    let installation = Installation::new();
    let server = installation.serve();
    let address = server.public.address;
    let with = |more: &str| say(address, format!("GET /livez HTTP/1.1\r\nhost: a\r\n{more}\r\n")).0.unwrap();
    let long = |bytes: usize| with(&format!("x: {}\r\n", "y".repeat(bytes)));

    assert_eq!(long(16 * 1024 - 32).status, 200);
    let refused = long(16 * 1024);
    refused.problem(431, "request_too_large");
    assert_eq!(refused.header("connection"), "close");
    long(31 * 1024).problem(431, "request_too_large");
    assert_eq!(with(&"x: y\r\n".repeat(99)).status, 200);
    with(&"x: y\r\n".repeat(100)).problem(431, "request_too_large");
    let uri = |bytes: usize| {
        say(address, format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(bytes))).0.unwrap()
    };
    uri(15 * 1024).problem(404, "not_found");
    uri(17 * 1024).problem(414, "request_too_large");

    // Beyond twice the cap hyper answers, with the status alone.
    for (answer, status) in [
        (long(40 * 1024), 431),
        (long(400 * 1024), 431),
        (uri(70 * 1024), 431),
        (with(&"x: y\r\n".repeat(300)), 431),
    ] {
        assert_eq!((answer.status, answer.body.as_str()), (status, ""), "{answer:?}");
        assert_eq!(answer.header("connection"), "close");
    }
    for (bytes, status) in [(16 * 1024 - 200, "live"), (16 * 1024, "431")] {
        let mut frames = Frames::open(address, &[]);
        let value = "y".repeat(bytes);
        let mut head =
            vec![(":method", "GET"), (":path", "/livez"), (":scheme", "http"), (":authority", "a")];
        // Frames have at most 16 KiB too.
        let (first, second) = value.split_at(bytes / 2);
        head.extend([("x", first), ("y", second)]);
        let sent = block(&head);
        let (first, second) = sent.split_at(9_000);
        frames.send(HEADERS, END, 1, first);
        frames.send(CONTINUATION, END_HEADERS, 1, second);
        let body = frames.body(1).unwrap();
        assert!(body.contains(status), "{body}");
    }
    good(&installation, &server);
}

#[test]
fn bodies_are_json_and_say_so_once() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let with = |types: &str| {
        let length = BODY_TEXT.len();
        let head = format!(
            "POST /v1/exchange HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{types}content-length: {length}\r\n\r\n"
        );
        say(server.public.address, head + BODY_TEXT).0.unwrap()
    };
    let of = |value: &str| with(&format!("content-type: {value}\r\n"));

    for bad in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/problem+json",
        "application/*",
        "*/*",
        "application/json; charset=utf-16",
        "application/json; charset=utf-7",
        "application/json; charset=latin1",
        "application/json; boundary=x",
        "application/json, text/plain",
        "application/json; charset=utf-8; charset=utf-16",
        "json",
    ] {
        of(bad).problem(415, "unsupported_media_type");
    }
    with("").problem(415, "unsupported_media_type");
    with("content-type: application/json\r\ncontent-encoding: gzip\r\n")
        .problem(415, "unsupported_media_type");
    with("content-type: application/json\r\ncontent-encoding: identity\r\n")
        .problem(415, "unsupported_media_type");
    with("content-type: application/json\r\ncontent-type: application/json\r\n")
        .problem(400, "request_malformed");
    with("content-type: text/plain\r\ncontent-type: application/json\r\n").problem(400, "request_malformed");
    assert_eq!(of("Application/JSON; charset=\"UTF-8\"").status, 200, "and the token was not used up");
}

#[test]
fn bodies_are_strict_json_of_known_members() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let ask = |body: &[u8]| {
        let mut request =
            post(&token, "application/json", &format!("content-length: {}\r\n", body.len())).into_bytes();
        request.extend_from_slice(body);
        say(server.public.address, request).0.unwrap()
    };
    let nested =
        |depth: usize| format!(r#"{{"grants":["deploy"],"x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));

    for text in NO_STRICT_BODIES {
        let answer = ask(text.as_bytes());
        assert_eq!(answer.status, 400, "{text}: {answer:?}");
        answer.problem(400, "request_malformed");
    }
    for depth in [7, 100, 16_000] {
        ask(nested(depth).as_bytes()).problem(400, "request_malformed");
    }
    let bytes: [&[u8]; 6] = [
        b"{\"grants\":[\"deploy\xff\"]}",
        b"{\"grants\":[\"deploy\"],\"reason\":\"\xc0\x80\"}",
        b"{\"grants\":[\"deploy\"],\"reason\":\"\xed\xa0\x80\"}",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{\"grants\":[\"deploy\"]}",
        b"\x80",
    ];
    for body in bytes {
        ask(body).problem(400, "request_malformed");
    }
    assert_eq!(
        ask(b" \r\n\t{ \"gr\\u0061nts\" : [ \"deploy\" ] }\n").status,
        200,
        "and the token was not used up"
    );
    assert_eq!(server.entries("DENIED"), [] as [Value; 0], "none of it was a decision");
}

/// None is strict JSON of known members, each once.
const NO_STRICT_BODIES: &[&str] = &[
    "",
    " ",
    "null",
    "true",
    "0",
    "\"deploy\"",
    "[]",
    "[[]]",
    "{}",
    "{",
    "}",
    "{]",
    "NaN",
    "Infinity",
    r#"{"grants":NaN}"#,
    r#"{"grants":["deploy"],"dry_run":NaN}"#,
    r#"{"grants":["deploy"],"dry_run":1}"#,
    r#"{"grants":["deploy"],"x":1}"#,
    r#"{"grants":["deploy"],"Grants":["deploy"]}"#,
    r#"{"grants":["deploy"],"token":"a.b.c"}"#,
    r#"{"grants":["deploy"],"__proto__":{}}"#,
    r#"{"grants":["deploy"],"grants":["deploy"]}"#,
    r#"{"grants":["deploy"],"\u0067rants":["other-team"]}"#,
    r#"{"\u0067rants":["deploy"],"gr\u0061nts":["deploy"]}"#,
    r#"{"grants":[{"name":"deploy","name":"deploy"}]}"#,
    r#"{"grants":[{"name":"deploy","n\u0061me":"x"}]}"#,
    r#"{"grants":[{"name":"deploy","ttl_seconds":60,"ttl_seconds":61}]}"#,
    r#"{"grants":[{"name":"deploy","ttl_seconds":1e2}]}"#,
    r#"{"grants":[{"name":"deploy","ttl_seconds":60.0}]}"#,
    r#"{"grants":[{"name":"deploy","ttl_seconds":-0}]}"#,
    r#"{"grants":[{"name":"deploy","ttl_seconds":1e999}]}"#,
    r#"{"grants":[{"name":"deploy","ttl_seconds":18446744073709551676}]}"#,
    r#"{"grants":[{"name":"deploy","ttl_seconds":060}]}"#,
    r#"{"grants":[{"name":"deploy","ttl_seconds":null}]}"#,
    r#"{"grants":["deploy"],"reason":null}"#,
    r#"{"grants":["deploy"]} {}"#,
    r#"{"grants":["deploy"]},"#,
    r#"{"grants":["deploy"]}x"#,
    "{\"grants\":[\"deploy\"]}\0",
    r#"{"grants":["deploy"],}"#,
    r#"{"grants":["deploy",]}"#,
    r#"{'grants':['deploy']}"#,
    r#"{grants:["deploy"]}"#,
    r#"{"grants":["deploy"]/**/}"#,
    "// x\n{\"grants\":[\"deploy\"]}",
    "{\"grants\":[\"dep\nloy\"]}",
    r#"{"grants":["\ud800"]}"#,
    r#"{"grants":["deploy\u0000"]}"#,
    r#"{"grants":["deploy "]}"#,
    r#"{"grants":["Deploy"]}"#,
    r#"{"grants":[["deploy"]]}"#,
    r#"{"grants":{"name":"deploy"}}"#,
    r#"{"grants":"deploy"}"#,
    "grants=deploy",
    "\u{feff}{\"grants\":[\"deploy\"]}",
];

#[test]
fn headers_that_decide_are_said_once() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let other = installation.issuer.token();
    let key = "0123456789abcdef";
    let with = |more: &str| {
        let length = BODY_TEXT.len();
        let head = format!(
            "POST /v1/exchange HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{more}content-length: {length}\r\n\r\n"
        );
        say(server.public.address, head + BODY_TEXT).0.unwrap()
    };
    let bearer = format!("authorization: Bearer {token}\r\n");

    for twice in [
        format!("{bearer}{bearer}"),
        format!("{bearer}authorization: Bearer {other}\r\n"),
        format!("authorization: Basic YTpi\r\n{bearer}"),
        format!("{bearer}AUTHORIZATION: \r\n"),
        format!("{bearer}idempotency-key: {key}\r\nidempotency-key: {key}\r\n"),
        format!("{bearer}idempotency-key: {key}\r\nidempotency-key: {key}x\r\n"),
        format!("{bearer}idempotency-key: {key}, {key}\r\n"),
        format!("{bearer}host: a\r\n"),
    ] {
        with(&twice).problem(400, "request_malformed");
    }
    // One header with two tokens holds one text that is no token.
    with(&format!("authorization: Bearer {token}, Bearer {other}\r\n")).problem(401, "token_malformed");
    with(&format!("authorization: Bearer {token} {other}\r\n")).problem(401, "token_malformed");
    with(&format!("x-authorization: Bearer {token}\r\ncookie: token={token}\r\n"))
        .problem(401, "token_missing");
    assert_eq!(
        with(&format!("{bearer}idempotency-key: {key}\r\n")).status,
        200,
        "and the token was not used up"
    );
}

#[test]
fn what_is_no_http_is_ended_and_never_read_as_two_requests() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    for (name, rest) in no_framings() {
        let head = format!(
            "POST /v1/exchange HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        );
        ends_with_one_refusal(&server, name, &format!("{head}{rest}"));
    }
    for (name, request) in NO_HTTP {
        ends_with_one_refusal(&server, name, request);
    }
    assert_eq!(server.entries("ISSUED"), [] as [Value; 0], "none was served");

    good(&installation, &server);
    assert!(!server.logs().contains("panic"), "{}", server.logs());
}

/// Rests of an exchange's head with its body, none of which says where the request ends in one way only.
fn no_framings() -> Vec<(&'static str, String)> {
    let length = BODY_TEXT.len();
    let plain = format!("content-length: {length}\r\n\r\n{BODY_TEXT}");
    let chunks = format!("\r\n{length:x}\r\n{BODY_TEXT}\r\n0\r\n\r\n");
    let in_chunks = |coding: &str| format!("transfer-encoding:{coding}\r\n{chunks}");
    let body = |chunks: &str| format!("transfer-encoding: chunked\r\n\r\n{chunks}");
    vec![
        ("two lengths", format!("content-length: 0\r\n{plain}")),
        ("a list of lengths", format!("content-length: {length}, {length}\r\n\r\n{BODY_TEXT}")),
        ("a signed length", format!("content-length: +{length}\r\n\r\n{BODY_TEXT}")),
        ("a negative length", format!("content-length: -1\r\n\r\n{BODY_TEXT}")),
        ("a hexadecimal length", format!("content-length: 0x{length:x}\r\n\r\n{BODY_TEXT}")),
        ("a length that overflows", format!("content-length: 99999999999999999999999\r\n\r\n{BODY_TEXT}")),
        ("chunked twice", in_chunks(" chunked, chunked")),
        ("chunked twice in two lines", format!("transfer-encoding: chunked\r\n{}", in_chunks(" chunked"))),
        ("almost chunked", in_chunks(" xchunked")),
        ("quoted chunked", in_chunks(" \"chunked\"")),
        ("chunked with a parameter", in_chunks(" chunked;x=y")),
        ("chunked after identity", in_chunks(" identity, chunked")),
        ("identity", in_chunks(" identity")),
        ("compressed", in_chunks(" gzip, chunked")),
        ("chunked and something", in_chunks(" chunked, gzip")),
        ("a vertical tab before chunked", in_chunks(" \u{b}chunked")),
        ("no coding", in_chunks("")),
        ("a space before the colon", format!("transfer-encoding : chunked\r\n{chunks}")),
        ("a tab before the colon", format!("content-length\t: {length}\r\n\r\n{BODY_TEXT}")),
        ("a folded line", format!("x: a\r\n b\r\n{plain}")),
        ("a folded coding", format!("transfer-encoding:\r\n chunked\r\n{chunks}")),
        ("a bare CR in a value", format!("x: a\rb\r\n{plain}")),
        ("a bare CR as a line's end", format!("x: a\r{plain}")),
        ("a NUL in a value", format!("x: a\0b\r\n{plain}")),
        ("a NUL in a name", format!("x\0: a\r\n{plain}")),
        ("a control in a value", format!("x: a\u{1}b\r\n{plain}")),
        ("a name that is none", format!("x y: a\r\n{plain}")),
        ("a line without a colon", format!("x\r\n{plain}")),
        ("an empty name", format!(": x\r\n{plain}")),
        ("a name outside of ASCII", format!("ä: x\r\n{plain}")),
        ("a chunk whose size overflows", body("ffffffffffffffffff\r\nx\r\n0\r\n\r\n")),
        ("a chunk whose size is no number", body("x\r\nx\r\n0\r\n\r\n")),
        ("a chunk whose size is signed", body("+1\r\nx\r\n0\r\n\r\n")),
        ("a chunk whose size has a prefix", body("0x1\r\nx\r\n0\r\n\r\n")),
        ("a chunk that ends with a bare LF", body(&format!("{length:x}\n{BODY_TEXT}\r\n0\r\n\r\n"))),
        ("a chunk longer than it says", body(&format!("{:x}\r\n{BODY_TEXT}\r\n0\r\n\r\n", length - 1))),
        (
            "a chunk with a bare LF in its extension",
            body(&format!("{length:x};a\nb\r\n{BODY_TEXT}\r\n0\r\n\r\n")),
        ),
        ("a flood of chunk extensions", body(&format!("1;{}\r\n", "x".repeat(64 * 1024)))),
        (
            "a flood of trailers",
            body(&format!("{length:x}\r\n{BODY_TEXT}\r\n0\r\n{}\r\n", "x: y\r\n".repeat(4096))),
        ),
        (
            "a trailer without an end",
            body(&format!("{length:x}\r\n{BODY_TEXT}\r\n0\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024))),
        ),
        ("a body that breaks off", format!("content-length: {}\r\n\r\n{BODY_TEXT}", length + 1)),
    ]
}

/// None is HTTP that we speak.
const NO_HTTP: &[(&str, &str)] = &[
    ("HTTP/0.9", "GET /livez\r\n\r\n"),
    ("HTTP/1.2", "GET /livez HTTP/1.2\r\nhost: a\r\n\r\n"),
    ("HTTP/2 in a line", "GET /livez HTTP/2.0\r\nhost: a\r\n\r\n"),
    ("HTTP/1.0 with chunks", "POST /livez HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("two spaces", "GET  /livez HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a tab", "GET\t/livez HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("no path", "GET HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a NUL in the path", "GET /livez\0 HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a bare CR in the path", "GET /livez\r/x HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a method that is none", "G(ET /livez HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}"),
    ("another protocol", "SSH-2.0-OpenSSH_9.9\r\n"),
    ("PROXY protocol", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /livez HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a preface that breaks off", "PRI * HTTP/2.0\r\n\r\nSMX\r\n\r\n"),
    (
        "an HTTP/2 preface with HTTP/1 after it",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    ("no host", "GET /livez HTTP/1.1\r\n\r\n"),
];

/// Whatever follows what is framed by chunks would be a request to us, and a body to a proxy that went by the length
/// beside them.
#[test]
fn what_is_framed_by_chunks_ends_its_connection() {
    let installation = Installation::new();
    let server = installation.serve();
    let length = BODY_TEXT.len();
    let in_chunks =
        |coding: &str| format!("transfer-encoding:{coding}\r\n\r\n{length:x}\r\n{BODY_TEXT}\r\n0\r\n\r\n");
    let head = |token: &str| post(token, "application/json", "").strip_suffix("\r\n").unwrap().to_owned();

    for both in [
        format!("content-length: 6\r\n{}", in_chunks(" chunked")),
        in_chunks(" chunked").replacen("\r\n\r\n", "\r\ncontent-length: 6\r\n\r\n", 1),
        in_chunks(" chunked"),
        in_chunks("\tChunked "),
        format!(
            "transfer-encoding: chunked\r\n\r\n{length:x};name=\"value\"\r\n{BODY_TEXT}\r\n0\r\nx-trailer: y\r\n\r\n"
        ),
    ] {
        let request = head(&installation.issuer.token()) + &both;
        let (answer, rest) = say(server.public.address, request + "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{both}: {answer:?}");
        assert_eq!(rest, b"", "{both}");
    }
    good(&installation, &server);
}

#[test]
fn paths_are_read_as_they_are_written() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let at = |target: &str| {
        let request = post(&token, "application/json", &format!("content-length: {}\r\n", BODY_TEXT.len()));
        say(server.public.address, request.replacen("/v1/exchange", target, 1) + BODY_TEXT).0.unwrap()
    };

    for target in [
        "/v1%2fexchange",
        "/v1%2Fexchange",
        "/v1/%65xchange",
        "/v1/exchange%00",
        "/v1/exchange/",
        "//v1/exchange",
        "/v1//exchange",
        "/v1/./exchange",
        "/v1/../v1/exchange",
        "/v1/x/../exchange",
        "/v1/%2e%2e/v1/exchange",
        "/V1/EXCHANGE",
        "/v1/exchange;x=y",
        "/v1/exchange/..",
        "/../../../etc/passwd",
        "/v1/\\exchange",
        "/",
        "/v1/issuances/",
        "/v1/issuances/a/b",
        "*",
        "http://a",
        "http://a/",
        "/v1/exchange%20",
        "/v1/exchange%",
    ] {
        let answer = at(target);
        assert_eq!(answer.status, 404, "{target}: {answer:?}");
        answer.problem(404, "not_found");
    }
    for target in [
        "/v1/issuances/%2e%2e",
        "/v1/issuances/%2fa",
        "/v1/issuances/%00",
        "/v1/issuances/%ff",
        "/v1/issuances/iss_..%2f",
    ] {
        let answer = server.public.get(target).bearer(&installation.issuer.token()).send();
        answer.problem(404, "not_found");
    }
    for target in ["http://b/v1/exchange", "http://a:80/v1/exchange", "http://user@a/v1/exchange"] {
        at(target).problem(400, "request_malformed");
    }
    at("/v1/exchange?x=y").problem(400, "request_malformed");
    assert_eq!(
        at("http://A/v1/exchange").status,
        200,
        "the absolute form is HTTP too, and the token was not used up"
    );
}

#[test]
fn every_path_takes_its_methods_and_no_other() {
    let installation = Installation::new();
    let server = installation.serve();
    let public = [
        ("/livez", "GET, HEAD"),
        ("/v1/exchange", "POST"),
        ("/v1/grants", "GET"),
        ("/v1/openapi.json", "GET"),
        ("/v1/revocations", "POST"),
        ("/v1/token", "POST"),
        ("/v1/whoami", "GET"),
        ("/v1/issuances/iss_00000000000000000000000000", "GET, DELETE"),
        ("/.well-known/jwks.json", "GET"),
        ("/.well-known/openid-configuration", "GET"),
    ];
    let admin = [
        ("/livez", "GET, HEAD"),
        ("/metrics", "GET"),
        ("/readyz", "GET, HEAD"),
        ("/v1/admin/revocations", "POST"),
        ("/v1/freezes", "GET, POST"),
        ("/v1/thaws", "POST"),
        ("/v1/ledger/checkpoint", "GET"),
        ("/ledger/checkpoint", "GET"),
        ("/ledger/tile/0/000.p/1", "GET"),
        ("/v1/ledger/entries", "GET"),
        ("/v1/ledger/entries/0", "GET"),
        ("/v1/ledger/entries/0/proof", "GET"),
    ];
    let methods = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "Post",
        "PROPFIND", "PRI", "X-ANY",
    ];
    let listeners = [(&server.public, &public[..], &admin[..]), (&server.admin, &admin[..], &public[..])];

    for (client, own, others) in listeners {
        for (path, allow) in own {
            for method in methods.iter().filter(|method| !allow.split(", ").any(|each| each == **method)) {
                let request =
                    format!("{method} {path} HTTP/1.1\r\nhost: a\r\nx-http-method-override: POST\r\n\r\n");
                let answer = say(client.address, request).0.unwrap();
                assert_eq!(
                    (answer.status, answer.header("allow")),
                    (405, *allow),
                    "{method} {path}: {answer:?}"
                );
                if *method != "HEAD" {
                    answer.problem(405, "method_not_allowed");
                }
            }
        }
        for (path, allow) in others.iter().filter(|(path, _)| !own.iter().any(|(each, _)| each == path)) {
            let (method, _) = allow.split_once(", ").unwrap_or((allow, ""));
            let call = client.call(method, path).bearer(&server_token(&installation)).json(BODY_TEXT);
            call.send().problem(404, "not_found");
        }
        for path in ["/debug", "/debug/pprof", "/v1/policy", "/console", "/v1/sys/health"] {
            client.get(path).bearer(&server_token(&installation)).send().problem(404, "not_found");
        }
    }
    let (answer, rest) = say(
        server.public.address,
        "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\nGET /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    assert_eq!(answer.unwrap().status, 404, "there is no tunnel");
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1 5"), "{rest:?}");
    good(&installation, &server);
}

#[test]
fn http_1_0_is_served_and_ends_by_itself() {
    let installation = Installation::new();
    let server = installation.serve();
    let length = BODY_TEXT.len();
    for host in ["", "host: a\r\n"] {
        let token = installation.issuer.token();
        let request = format!(
            "POST /v1/exchange HTTP/1.0\r\n{host}authorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{BODY_TEXT}"
        );
        let mut wire = Wire::open(server.public.address);
        wire.send(request);
        assert_eq!(wire.answer().unwrap().status, 200);
        assert_eq!(wire.rest(), b"");
    }
}

#[test]
fn requests_in_a_row_are_answered_in_order_until_half_a_second_after_a_token() {
    let installation = Installation::new();
    let server = installation.serve();
    let exchange = || {
        post(
            &installation.issuer.token(),
            "application/json",
            &format!("content-length: {}\r\n", BODY_TEXT.len()),
        ) + BODY_TEXT
    };
    let live = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";

    let mut wire = Wire::open(server.public.address);
    wire.send(format!("{live}{}{live}{}", exchange(), exchange()));
    let answers = [(); 4].map(|()| wire.answer().unwrap());
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200; 4]);
    assert_eq!(answers[0].body, answers[2].body);
    assert_ne!(answers[1].json()["decision_id"], answers[3].json()["decision_id"]);
    assert!(wire.ends_within(Duration::from_secs(3)), "a connection that carried tokens ends (P5)");
    wire.send(live);
    assert_eq!(wire.rest(), b"", "and takes nothing more");

    let mut plain = Wire::open(server.public.address);
    plain.send(live);
    assert_eq!(plain.answer().unwrap().status, 200);
    assert!(!plain.ends_within(Duration::from_secs(2)), "one that carried none stays");
    plain.send(live.repeat(50));
    for _ in 0..50 {
        assert_eq!(plain.answer().unwrap().status, 200);
    }

    // A bare LF ends a line of a head, for all that is read of it (RFC 9112 section 2.2).
    let mut bare = Wire::open(server.public.address);
    bare.send(live.replace('\r', "").repeat(2));
    assert_eq!([(); 2].map(|()| bare.answer().unwrap().status), [200; 2]);

    // What is pipelined behind a refused head is not looked at.
    let (answer, rest) = say(server.public.address, format!("GET /livez HTTP/1.1\r\n\r\n{live}"));
    answer.unwrap().problem(400, "request_malformed");
    assert_eq!(rest, b"");
}

#[test]
fn a_body_is_asked_for_where_it_is_wanted_and_no_protocol_is_changed() {
    let installation = Installation::new();
    let server = installation.serve();
    let expecting = |token: &str| {
        post(
            token,
            "application/json",
            &format!("expect: 100-continue\r\ncontent-length: {}\r\n", BODY_TEXT.len()),
        )
    };

    let mut wire = Wire::open(server.public.address);
    wire.send(expecting(&installation.issuer.token()));
    assert_eq!(wire.answer().unwrap().status, 100);
    wire.send(BODY_TEXT);
    assert_eq!(wire.answer().unwrap().status, 200);

    let mut wire = Wire::open(server.public.address);
    wire.send("POST /v1/nothing HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(wire.answer().unwrap().status, 404, "nobody is asked for a body that nobody reads");
    assert!(wire.ends_within(Duration::from_secs(3)));

    for upgrade in [
        "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n",
        "upgrade: TLS/1.2\r\nconnection: upgrade\r\n",
    ] {
        let answer =
            say(server.public.address, format!("GET /livez HTTP/1.1\r\nhost: a\r\n{upgrade}\r\n")).0.unwrap();
        assert_eq!((answer.status, answer.header("upgrade")), (200, ""));
    }
}

#[test]
fn nothing_is_kept_by_a_cache_and_no_token_in_a_url_is_used_or_logged() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let mut answers = Vec::new();
    for name in ["access_token", "token", "id_token", "subject_token", "jwt", "Bearer"] {
        let query = format!("?{name}={token}");
        for (method, path) in [
            ("POST", "/v1/exchange"),
            ("GET", "/v1/whoami"),
            ("GET", "/v1/grants"),
            ("GET", "/v1/issuances/x"),
        ] {
            let call = server.public.call(method, &format!("{path}{query}"));
            let plain = call.json(BODY_TEXT).send();
            plain.problem(400, "request_malformed");
            let both =
                server.public.call(method, &format!("{path}{query}")).bearer(&token).json(BODY_TEXT).send();
            both.problem(400, "request_malformed");
            answers.extend([plain, both]);
        }
    }
    let conditional = server.public.get("/.well-known/jwks.json").header("if-none-match", "*");
    let conditional = conditional
        .header("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")
        .header("range", "bytes=0-1")
        .send();
    // Our own keys may be kept, and are whole all the same.
    let told = ["cache-control", "etag", "content-range"].map(|name| conditional.header(name));
    assert_eq!((conditional.status, told), (200, ["public, max-age=300", "", ""]));
    answers.push(server.public.exchange(&token, &serde_json::from_str(BODY_TEXT).unwrap()));
    assert_eq!(answers.last().unwrap().status, 200, "the token was not used up");
    answers.push(server.public.exchange("a.b.c", &json!({})));
    answers.push(server.public.get("/v1/exchange").send());

    for answer in &answers {
        let told =
            ["cache-control", "pragma", "vary", "etag", "last-modified", "age", "expires", "content-range"]
                .map(|name| answer.header(name));
        assert_eq!(told, ["no-store", "no-cache", "Authorization", "", "", "", "", ""], "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(!answer.body.contains(&token), "{answer:?}");
    }
    let signature = token.rsplit('.').next().unwrap();
    assert!(!server.stop().contains(signature), "a token stands in the log");
}

/// One permitted exchange, as a job makes it.
#[track_caller]
fn good(installation: &Installation, server: &Server) {
    server.only(&installation.issuer.token(), "npm");
}

/// The head of an exchange.
fn post(token: &str, media: &str, more: &str) -> String {
    format!(
        "POST /v1/exchange HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-type: {media}\r\n{more}\r\n"
    )
}

/// The same for HTTP/2.
fn fields<'a>(bearer: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/exchange"),
        (":authority", "a"),
        ("authorization", bearer),
        ("content-type", "application/json"),
    ];
    fields.extend(more);
    fields
}

/// Sends it with a good request right behind; what comes back is one refusal or none, and the end.
#[track_caller]
fn ends_with_one_refusal(server: &Server, name: &str, request: &str) {
    let mut wire = Wire::open(server.public.address);
    wire.send(request);
    if name.ends_with("breaks off") {
        wire.finish();
    } else {
        wire.send("GET /livez HTTP/1.1\r\nhost: smuggled\r\n\r\n");
    }
    let rest = wire.rest();
    let text = String::from_utf8_lossy(&rest);
    assert!(text.matches("HTTP/1.1 ").count() <= 1, "{name} was read as two: {text}");
    let status = text.strip_prefix("HTTP/1.1 ").map(|rest| &rest[..3]);
    assert!(matches!(status, None | Some("400" | "413" | "431")), "{name}: {text}");
    assert!(!text.contains("\"live\""), "{name}: {text}");
}

fn server_token(installation: &Installation) -> String {
    installation.admin_token("auditor")
}
