//! The order of checks: each request here has two faults, and the one that the contract looks at first is told.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    once::{deploy, only},
    support::{
        AUDIENCE, Answer, Client, Installation,
        issuer::{KID, foreign_key, now, own_key, sign, sign_text},
    },
};

#[test]
fn first_fault_wins_before_the_token() {
    let installation = Installation::new();
    let server = installation.serve();
    let huge = "x".repeat(33 * 1024);
    let call = |method: &str, path: &str| server.public.call(method, path);
    let post = || call("POST", "/v1/exchange");

    let told = [
        ("path before size", 404, "not_found", call("POST", "/v1/nothing").body(&huge)),
        ("method before size", 405, "method_not_allowed", call("PUT", "/v1/exchange").body(&huge)),
        (
            "size before media type",
            413,
            "request_too_large",
            post().header("content-type", "text/plain").body(&huge),
        ),
        (
            "media type before token",
            415,
            "unsupported_media_type",
            post().header("content-type", "text/plain").body("{}"),
        ),
        ("token before body", 401, "token_missing", post().json("no json")),
        ("shape before body", 401, "token_malformed", post().bearer("a.b").json("no json")),
    ];

    for (name, status, code, call) in told {
        expect(name, status, code, &call.send());
    }
}

#[test]
fn source_rate_before_body_size() {
    let installation = Installation::new();
    let right = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let slow = right.replace("per_source_per_second: 100000", "per_source_per_second: 1");
    assert_ne!(slow, right);
    installation.write("hallpass.yaml", &slow);
    let server = installation.serve();
    let call = || server.public.call("POST", "/v1/exchange").body(&"x".repeat(33 * 1024)).send();

    let answers = [(); 4].map(|()| call());

    // The machine may be slow enough for a second to pass now and then, not for all of them.
    let limited = answers.iter().find(|answer| answer.status == 429).unwrap();
    limited.problem(429, "rate_limited");
    answers.iter().find(|answer| answer.status == 413).unwrap();
    assert_eq!(server.public.get("/livez").send().status, 200, "it depends on nothing");
}

#[test]
fn first_fault_of_the_token_wins() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuer = &installation.issuer;
    let with = |spoiled: Value| issuer.token_with(spoiled);
    let other = "https://other.test";
    let signed = |key, header: Value| sign(key, &header, &expired(issuer.valid_claims()));

    let told = [
        ("issuer before algorithm", "token_issuer", unsigned(json!({ "iss": "https://evil.test" }))),
        (
            "algorithm before keys",
            "token_algorithm",
            signed(own_key(), json!({ "alg": "HS256", "kid": "none" })),
        ),
        ("none is no algorithm", "token_algorithm", unsigned(issuer.valid_claims())),
        (
            "unknown key before claims",
            "token_signature",
            signed(own_key(), json!({ "alg": "RS256", "kid": "x" })),
        ),
        (
            "signature before claims",
            "token_signature",
            signed(foreign_key(), json!({ "alg": "RS256", "kid": KID })),
        ),
        ("changed payload", "token_signature", tamper(&issuer.token())),
        ("claims before audience", "token_malformed", with(json!({ "repository_id": null, "aud": other }))),
        ("their types too", "token_malformed", with(json!({ "repository_id": 70_155_112, "aud": other }))),
        ("jti is required", "token_malformed", with(json!({ "jti": null }))),
        ("audience before exp", "token_audience", with(json!({ "aud": other, "exp": now() - 60 }))),
        ("exp before nbf", "token_expired", with(json!({ "exp": now() - 60, "nbf": now() + 600 }))),
        ("nbf before age", "token_not_yet_valid", with(json!({ "nbf": now() + 600, "iat": now() - 700 }))),
        ("iat in the future", "token_not_yet_valid", with(json!({ "iat": now() + 120 }))),
        ("age before body", "token_too_old", with(json!({ "iat": now() - 700 }))),
        ("a life of more than a day", "token_too_old", with(json!({ "exp": now() + 90_000 }))),
    ];

    for (name, code, token) in told {
        let call = server.public.call("POST", "/v1/exchange").bearer(&token).json("no json");
        expect(name, 401, code, &call.send());
    }
}

#[test]
fn first_fault_wins_after_the_token() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = || installation.issuer.token();
    let used = token();
    server.public.exchange(&used, &only("npm")).ok();
    let call = |token: &str, body: Value| server.public.exchanging(token, &body);
    let input = |grant: &str| json!({ "grants": [{ "name": grant, "credentials": ["npm"], "inputs": { "npm": { "csr": "x" } } }] });
    let unknown = json!({ "grants": ["no-such-grant"] });

    let told = [
        (
            "body before policy",
            400,
            "request_malformed",
            call(&token(), json!({ "grants": ["none"], "more": 1 })),
        ),
        (
            "key before policy",
            400,
            "request_malformed",
            call(&token(), unknown).header("idempotency-key", "short"),
        ),
        ("policy before input", 403, "access_denied", call(&token(), input("other-team"))),
        ("input before replay", 422, "input_invalid", call(&used, input("deploy"))),
        ("replay of the used token", 409, "token_replayed", call(&used, only("npm"))),
        ("backend last", 502, "backend_failed", call(&token(), json!({ "grants": ["lost"] }))),
    ];

    for (name, status, code, call) in told {
        expect(name, status, code, &call.send());
    }
}

#[test]
fn replay_wins_over_a_backend_that_lost_the_secret() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    server.public.exchange(&token, &only("npm")).ok();
    super::support::installation::run(&mut installation.command(&["secret", "remove", "npm-token"]), "");

    server.public.exchange(&token, &only("npm")).problem(409, "token_replayed");
}

#[test]
fn unauthorised_answers_say_how_to_authenticate() {
    let installation = Installation::new();
    let server = installation.serve();
    let ask = |client: &Client, token: Option<&str>| {
        let call = client.call("POST", "/v1/exchange").json(&deploy().to_string());
        token
            .map_or_else(|| client.call("POST", "/v1/exchange").json("{}"), |token| call.bearer(token))
            .send()
    };

    let none = ask(&server.public, None);
    let bad = ask(&server.public, Some("not-a-token"));

    assert_eq!(none.problem(401, "token_missing")["code"], "token_missing");
    assert_eq!(none.header("www-authenticate"), "Bearer");
    bad.problem(401, "token_malformed");
    assert_eq!(bad.header("www-authenticate"), r#"Bearer error="invalid_token""#);
}

#[test]
fn bearer_is_read_in_any_case() {
    let installation = Installation::new();
    let server = installation.serve();
    for scheme in ["bearer", "BEARER", "Bearer"] {
        let token = installation.issuer.token();
        let call = server.public.call("POST", "/v1/exchange").json(&only("npm").to_string());
        call.header("authorization", &format!("{scheme} {token}")).send().ok();
    }
}

#[test]
fn no_answer_is_kept_by_a_cache_or_shown_to_another_site() {
    let installation = Installation::new();
    let server = installation.serve();
    let token = installation.issuer.token();
    let answers = [
        server.public.exchanging(&token, &deploy()).header("origin", "https://evil.test").send(),
        server.public.exchange(&token, &deploy()),
        server.public.get("/v1/whoami").bearer(&token).send(),
        server.public.get("/v1/whoami").send(),
        server.public.get("/v1/nothing").send(),
    ];

    for answer in answers {
        assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{answer:?}");
        assert_eq!(answer.header("content-encoding"), "", "{answer:?}");
    }
}

#[test]
fn heads_that_a_proxy_could_read_otherwise_are_refused() {
    let installation = Installation::new();
    let server = installation.serve();
    let body = r#"{"grants":["deploy"]}"#;
    let plain = format!("Host: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunked = format!("\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let send = |rest: &str| {
        let token = installation.issuer.token();
        let mut stream = TcpStream::connect(server.public.address).unwrap();
        let head = "POST /v1/exchange HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer";
        write!(stream, "{head} {token}\r\n{rest}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].to_owned()
    };

    assert_eq!(send(&plain), "200");
    assert_eq!(send(&format!("Host: a\r\nTransfer-Encoding: Chunked\r\n{chunked}")), "200");
    assert_eq!(send(&format!("Host: b\r\n{plain}")), "400", "two hosts");
    assert_eq!(send(plain.strip_prefix("Host: a\r\n").unwrap()), "400", "no host");
    assert_eq!(send(&format!("Content-Encoding: gzip\r\n{plain}")), "415");
    for coding in ["gzip, chunked", "chunked, chunked", "chunked\r\nTransfer-Encoding: chunked"] {
        assert_eq!(send(&format!("Host: a\r\nTransfer-Encoding: {coding}\r\n{chunked}")), "400", "{coding}");
    }
}

#[test]
fn requests_that_mean_nothing_are_refused() {
    let installation = Installation::new();
    let server = installation.serve();
    let names = |many: usize| (0..many).map(|at| format!("c{at}")).collect::<Vec<_>>();
    let grants = |many: usize| (0..many).map(|at| format!("g{at}")).collect::<Vec<_>>();
    let one = |more: Value| {
        let mut grant = json!({ "name": "deploy" });
        super::support::issuer::set(&mut grant, more);
        json!({ "grants": [grant] })
    };
    let bodies = [
        json!([]),
        json!({}),
        json!({ "grants": [] }),
        json!({ "grants": "deploy" }),
        json!({ "grants": [7] }),
        json!({ "grants": ["deploy", "deploy"] }),
        json!({ "grants": ["deploy"], "unknown": true }),
        json!({ "grants": grants(9) }),
        json!({ "grants": ["deploy"], "dry_run": "yes" }),
        json!({ "grants": ["deploy"], "reason": "r".repeat(257) }),
        one(json!({ "credentials": ["npm", "npm"] })),
        one(json!({ "credentials": names(17) })),
        one(json!({ "ttl_seconds": 0 })),
        one(json!({ "ttl_seconds": -1 })),
        one(json!({ "ttl_seconds": 1.5 })),
        one(json!({ "ttl_seconds": "60" })),
        one(json!({ "unknown": 1 })),
    ];
    for body in bodies {
        let answer = server.public.exchange(&installation.issuer.token(), &body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        answer.problem(400, "request_malformed");
    }
    for text in ["", "{", "null", r#"{"grants":["deploy"],"grants":["lost"]}"#, r#"{"grants":["deploy"]} x"#]
    {
        let call = server.public.call("POST", "/v1/exchange").bearer(&installation.issuer.token()).json(text);
        call.send().problem(400, "request_malformed");
    }
}

#[test]
fn tokens_that_say_a_thing_twice_are_malformed() {
    let installation = Installation::new();
    let server = installation.serve();
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": KID }).to_string();
    let claims = installation.issuer.valid_claims().to_string();
    let twice = claims.replacen('{', r#"{"repository_id":"70155112","#, 1);

    let answer = server.public.exchange(&sign_text(own_key(), &header, &twice), &deploy());

    answer.problem(401, "token_malformed");
}

#[test]
fn tokens_of_another_type_or_with_critical_headers_are_malformed() {
    let installation = Installation::new();
    let server = installation.serve();
    let headers = [
        json!({ "alg": "RS256", "typ": "at+jwt", "kid": KID }),
        json!({ "alg": "RS256", "typ": "JWT", "kid": KID, "crit": ["exp"] }),
        json!({ "alg": "RS256", "typ": "JWT", "kid": KID, "b64": false }),
    ];
    for header in headers {
        let token = sign(own_key(), &header, &installation.issuer.valid_claims());
        let answer = server.public.exchange(&token, &deploy());
        assert_eq!(answer.status, 401, "{header}: {answer:?}");
        answer.problem(401, "token_malformed");
    }
}

#[test]
fn audience_may_be_an_array_of_just_us() {
    let installation = Installation::new();
    let server = installation.serve();

    let answer =
        server.public.exchange(&installation.issuer.token_with(json!({ "aud": [AUDIENCE] })), &only("npm"));

    answer.ok();
}

#[test]
fn leeway_is_thirty_seconds_and_no_more() {
    let installation = Installation::new();
    let server = installation.serve();
    let at = now();
    // Five seconds of distance from the edge: the machine may be slow between minting and reading.
    let permitted =
        [json!({ "iat": at - 200, "exp": at - 20 }), json!({ "nbf": at + 25 }), json!({ "iat": at + 25 })];
    let refused =
        [json!({ "iat": at - 200, "exp": at - 31 }), json!({ "nbf": at + 90 }), json!({ "iat": at + 90 })];
    for spoiled in permitted {
        let answer = server.public.exchange(&installation.issuer.token_with(spoiled.clone()), &only("npm"));
        assert_eq!(answer.status, 200, "{spoiled}: {answer:?}");
    }
    for spoiled in refused {
        let answer = server.public.exchange(&installation.issuer.token_with(spoiled.clone()), &only("npm"));
        assert_eq!(answer.status, 401, "{spoiled}: {answer:?}");
    }
}

#[test]
fn issuer_that_is_down_is_unavailable_not_a_bad_token() {
    let installation = Installation::new();
    installation.issuer.go_down();
    let server = installation.serve();

    let answer = server.public.exchange(&installation.issuer.token(), &deploy());

    answer.problem(503, "issuer_unavailable");
}

#[test]
fn keys_stay_usable_while_their_issuer_is_down() {
    let installation = Installation::new();
    let server = installation.serve();
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    installation.issuer.go_down();

    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
}

#[test]
fn strangers_make_no_packet_leave() {
    let installation = Installation::new();
    let server = installation.serve();
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    let before = installation.issuer.fetches();
    for kid in 0..20 {
        let header = json!({ "alg": "RS256", "kid": format!("unknown-{kid}") });
        server.public.exchange(&sign(foreign_key(), &header, &installation.issuer.valid_claims()), &deploy());
    }

    // Unknown keys cost one refresh in a cool-down at most: discovery and keys.
    assert!(
        installation.issuer.fetches() - before <= 2,
        "{} fetches",
        installation.issuer.fetches() - before
    );
}

#[track_caller]
fn expect(name: &str, status: u16, code: &str, answer: &Answer) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{name}: {answer:?}");
    answer.problem(status, code);
}

fn expired(mut claims: Value) -> Value {
    claims["exp"] = (now() - 600).into();
    claims
}

fn unsigned(claims: Value) -> String {
    let [header, payload] =
        [json!({ "alg": "none", "kid": KID }), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{payload}.")
}

/// The same token with another payload under the old signature.
fn tamper(token: &str) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(&parts[1]).unwrap()).unwrap();
    parts[1] = URL_SAFE_NO_PAD.encode(claims.replace("alice-the-actor", "mallory-an-actor"));
    parts.join(".")
}
