//! The floor over real sockets: the order of checks, answers, and when connections and deliveries end.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Limits,
    carrier::Stay,
    parcel::Parcel,
    serve,
    testing::{AUDITOR, OPERATOR, SECRET, World, listen, token},
};
use crate::kernel::secret::Secret;

// ------------------------------------------------------------------------------------------------------- the exchange

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_exchanged_and_its_delivery_confirmed_over_either_protocol() {
    let world = World::start().await;
    for (client, jti) in [(client(), "one"), (h2_client(), "two")] {
        let response = exchange(&world, &client, &token(jti)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_hardened(&response);
        let body: Value = response.json().await.unwrap();
        let issued = &body["issuances"];
        assert_eq!(issued[0]["fields"]["value"], SECRET);
        assert_eq!(issued[0]["secret_fields"], json!(["value"]));
        assert_eq!(issued[0]["expires_at"], Value::Null);
        assert_eq!(issued[1]["ttl_seconds"], 300);
        assert_eq!(body["receipts"].as_array().unwrap().len(), 2);
        assert_eq!(body["receipts"][0]["issuance"], issued[0]["id"]);
    }
    stop(&world).await;
    assert!(!world.codes().contains(&"UNDELIVERED".to_owned()), "{:?}", world.codes());
    assert_eq!(world.codes().iter().filter(|code| *code == "ISSUED").count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_client_never_takes_is_undelivered() {
    let world = World::start().await;
    // The client's window lets 16 bytes of the answer out, and it asks for no more.
    let client = Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .http2_initial_stream_window_size(16)
        .build()
        .unwrap();
    let response = exchange(&world, &client, &token("unread")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    drop(client);
    world.until_newest_is("UNDELIVERED").await;
    stop(&world).await;
    assert_eq!(world.codes().iter().filter(|code| *code == "UNDELIVERED").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_claims_nothing_and_a_second_use_is_a_replay() {
    let world = World::start().await;
    let client = client();
    let token = token("once");
    let body = json!({ "grants": ["payments-prod"], "dry_run": true });
    let dry = exchange(&world, &client, &token).json(&body).send().await.unwrap();
    let shown: Value = dry.json().await.unwrap();
    assert_eq!(shown["dry_run"], true);
    assert_eq!(shown["receipts"], json!([]));
    assert_eq!(
        shown["issuances"][1],
        json!({ "grant": "payments-prod", "credential": "warehouse", "kind": "oidc", "lifetime": "fixed", "ttl_seconds": 300, "revocable": false })
    );
    assert_eq!(exchange(&world, &client, &token).send().await.unwrap().status(), 200);
    let replay = exchange(&world, &client, &token).send().await.unwrap();
    assert_problem(replay, 409, "token_replayed").await;
    let denied = json!({ "grants": ["no-such-grant"] });
    let problem = exchange(&world, &client, &token).json(&denied).send().await.unwrap();
    let problem = assert_problem(problem, 403, "access_denied").await;
    assert!(problem["decision_id"].as_str().unwrap().starts_with("dec_"));
    assert!(problem.get("request_id").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_fault_wins_in_the_contracts_order() {
    let world = World::start().await;
    let url = |path: &str| format!("http://{}{path}", world.public);
    let client = client();
    let large = "x".repeat(33 * 1024);
    let post = |path: &str| client.post(url(path));
    let json_of = |request: RequestBuilder| request.header("content-type", "application/json");
    let good = token("order");
    let cases = [
        (client.post(url("/v1/nothing")).body(large.clone()), 404, "not_found"),
        (client.post(url("/v1/exchange/")), 404, "not_found"),
        (client.post(url("/v1/tokens")), 404, "not_found"),
        (client.post(url("/v1/whoami")).body(large.clone()), 405, "method_not_allowed"),
        (client.get(url("/v1/exchange")), 405, "method_not_allowed"),
        (post("/v1/exchange").body(large.clone()), 413, "request_too_large"),
        (client.get(url("/v1/whoami")).body(large.clone()), 413, "request_too_large"),
        (post("/v1/exchange").body("{}"), 415, "unsupported_media_type"),
        (json_of(post("/v1/exchange")).body("{"), 401, "token_missing"),
        (json_of(post("/v1/exchange?access_token=x")).body("{"), 400, "request_malformed"),
        (json_of(post("/v1/exchange")).body("{").basic_auth("a", Some("b")), 401, "token_missing"),
        (json_of(post("/v1/exchange")).body("{").bearer_auth("garbage"), 401, "token_malformed"),
        (json_of(post("/v1/exchange")).body("{").bearer_auth("x".repeat(9_000)), 401, "token_malformed"),
        (json_of(post("/v1/exchange")).body("{").bearer_auth(&good), 400, "request_malformed"),
        (
            json_of(post("/v1/exchange"))
                .body(r#"{"grants":["a"]}"#)
                .bearer_auth(&good)
                .header("idempotency-key", "short"),
            400,
            "request_malformed",
        ),
        (client.get(url("/v1/whoami")), 401, "token_missing"),
        (client.get(url("/v1/whoami?token=x")), 400, "request_malformed"),
        (
            client.get(url("/v1/whoami")).bearer_auth("a").header("authorization", "Bearer b"),
            400,
            "request_malformed",
        ),
    ];
    for (request, status, code) in cases {
        let request = request.build().unwrap();
        let shown = format!("{} {}", request.method(), request.url());
        let response = client.execute(request).await.unwrap_or_else(|fault| panic!("{shown}: {fault}"));
        assert_eq!(response.status(), status, "{shown}");
        assert_problem(response, status, code).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unknown_length_is_cut_at_its_cap_and_a_slow_one_in_time() {
    let world = World::start().await;
    let head = "POST /v1/exchange HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let mut socket = TcpStream::connect(world.public).await.unwrap();
    let chunk = format!("{head}transfer-encoding: chunked\r\n\r\n8100\r\n{}", "x".repeat(0x8100));
    socket.write_all(chunk.as_bytes()).await.unwrap();
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 413 "));
    let mut socket = TcpStream::connect(world.public).await.unwrap();
    socket.write_all(format!("{head}content-length: 20\r\n\r\n{{").as_bytes()).await.unwrap();
    let answer = timeout(Duration::from_secs(15), read_head(&mut socket)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_over_16_kib_is_refused_by_either_protocol() {
    let world = World::start().await;
    let response = client().get(format!("http://{}/livez", world.public));
    let response = response.header("x-large", "x".repeat(17 * 1024)).send().await.unwrap();
    assert_eq!(response.status(), 431);
    let response = h2_client().get(format!("http://{}/livez", world.public));
    match response.header("x-large", "x".repeat(17 * 1024)).send().await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(fault) => assert!(fault.is_request(), "{fault}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_asks_too_often_waits_and_livez_does_not() {
    let world = World::start_with(Limits { per_source_per_second: 1, in_flight: 8 }, None).await;
    let client = client();
    let url = format!("http://{}/v1/whoami", world.public);
    let mut refused = None;
    for _ in 0..8 {
        let response = client.get(&url).send().await.unwrap();
        if response.status() == 429 {
            refused = Some(response);
        }
    }
    let refused = refused.unwrap();
    let seconds: u32 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds), "{seconds}");
    assert_problem(refused, 429, "rate_limited").await;
    let live = client.get(format!("http://{}/livez", world.public)).send().await.unwrap();
    assert_eq!(live.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_are_what_allow_says_and_head_is_for_health_only() {
    let world = World::start().await;
    let client = client();
    let ask = async |method: Method, path: &str| {
        client.request(method, format!("http://{}{path}", world.public)).send().await.unwrap()
    };
    let response = ask(Method::PUT, "/v1/issuances/iss_0").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["allow"]),
        (405, &"GET, DELETE".parse().unwrap())
    );
    assert_eq!(ask(Method::HEAD, "/v1/whoami").await.status(), 405);
    assert_eq!(ask(Method::OPTIONS, "/v1/exchange").await.headers()["allow"], "POST");
    assert_eq!(ask(Method::HEAD, "/livez").await.status(), 200);
    assert!(ask(Method::OPTIONS, "/livez").await.headers().get("access-control-allow-origin").is_none());
}

// ------------------------------------------------------------------------------------------------ the other endpoints

#[tokio::test(flavor = "multi_thread")]
async fn whoami_and_grants_show_what_is_the_tokens_own() {
    let world = World::start().await;
    let get = async |path: &str| -> Value {
        let request = client().get(format!("http://{}{path}", world.public)).bearer_auth(token("who"));
        request.send().await.unwrap().json().await.unwrap()
    };
    let mut who = get("/v1/whoami").await;
    assert_eq!(who["claims"]["repository"], "acme/payments");
    who["claims"] = Value::Null;
    assert_eq!(
        who,
        json!({
            "issuer": "github", "profile": "github-actions",
            "subject": "repo:acme@4216/payments@701:environment:production",
            "tenant": "4216", "project": "701", "ref": "refs/heads/main", "trigger": "push",
            "environment": "production", "runner": "github-hosted", "actor": "alice",
            "run": "18412345678", "job_key": "github:701:18412345678:1:52412345678",
            "claims": null, "unusable": [], "expires_at": "2027-01-13T10:05:00Z",
        })
    );
    assert_eq!(
        get("/v1/grants").await,
        json!({ "grants": [{
            "name": "payments-prod", "description": "Publishing payments",
            "credentials": [
                { "name": "npm", "kind": "sealed", "max_ttl_seconds": null },
                { "name": "warehouse", "kind": "oidc", "max_ttl_seconds": 300 },
            ],
        }]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuance_is_looked_after_by_its_handle_or_its_job() {
    let world = World::start().await;
    let client = client();
    let body: Value = exchange(&world, &client, &token("owner")).send().await.unwrap().json().await.unwrap();
    let [npm, warehouse] = [&body["issuances"][0], &body["issuances"][1]];
    let ask = async |method: Method, id: &Value, bearer: Option<&str>| {
        let url = format!("http://{}/v1/issuances/{}", world.public, id.as_str().unwrap());
        let request = client.request(method, url);
        match bearer {
            Some(bearer) => request.bearer_auth(bearer).send().await.unwrap(),
            None => request.send().await.unwrap(),
        }
    };
    let handle = npm["handle"].as_str();
    let shown: Value = ask(Method::GET, &npm["id"], handle).await.json().await.unwrap();
    assert_eq!(
        shown,
        json!({
            "id": npm["id"], "grant": "payments-prod", "credential": "npm", "kind": "sealed", "state": "live",
            "lifetime": "static", "issued_at": "2027-01-13T10:00:00Z", "expires_at": null,
            "usable_until": null, "revocable": false,
        })
    );
    // Another token of the same job.
    assert_eq!(ask(Method::GET, &npm["id"], Some(&token("sibling"))).await.status(), 200);
    let foreign = assert_problem(ask(Method::GET, &warehouse["id"], handle).await, 404, "not_found").await;
    let unknown = assert_problem(ask(Method::GET, &json!("iss_no"), handle).await, 404, "not_found").await;
    assert_eq!(foreign["detail"], unknown["detail"]);
    assert_eq!(ask(Method::GET, &json!("%ff"), handle).await.status(), 404);
    assert_problem(ask(Method::GET, &npm["id"], None).await, 401, "token_missing").await;
    assert_problem(ask(Method::DELETE, &npm["id"], Some("hdl_short")).await, 401, "token_malformed").await;
    for _ in 0..2 {
        let given_back = ask(Method::DELETE, &npm["id"], handle).await;
        assert_eq!(given_back.status(), 200);
        let told: Value = given_back.json().await.unwrap();
        assert_eq!(told, json!({ "state": "released", "usable_until": null }));
    }
    let shown: Value = ask(Method::GET, &npm["id"], handle).await.json().await.unwrap();
    assert_eq!(shown["state"], "released");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_well_known_documents_are_our_own() {
    let world = World::start().await;
    let get = async |path: &str| client().get(format!("http://{}{path}", world.public)).send().await.unwrap();
    let configuration = get("/.well-known/openid-configuration").await;
    assert_eq!(configuration.headers()["content-type"], "application/json");
    let configuration: Value = configuration.json().await.unwrap();
    assert_eq!(configuration["issuer"], "https://hallpass.example.com");
    let jwks: Value = get("/.well-known/jwks.json").await.json().await.unwrap();
    assert!(jwks["keys"][0]["n"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_knows_its_tokens_and_their_roles() {
    let world = World::start().await;
    let client = client();
    let get = async |path: &str, bearer: &str| {
        client.get(format!("http://{}{path}", world.admin)).bearer_auth(bearer).send().await.unwrap()
    };
    let entries = "/v1/ledger/entries";
    assert_problem(get(entries, "guess").await, 401, "token_malformed").await;
    assert_problem(get(entries, OPERATOR).await, 403, "access_denied").await;
    let checkpoint = get("/v1/ledger/checkpoint", OPERATOR).await;
    assert_eq!(checkpoint.headers()["content-type"], "text/plain; charset=utf-8");
    assert!(checkpoint.text().await.unwrap().starts_with("hallpass.test/ledger\n"));
    let page: Value = get(&format!("{entries}?limit=1"), AUDITOR).await.json().await.unwrap();
    assert_eq!(page["items"][0]["entry"]["code"], "READ");
    assert!(page["items"][0]["index"].is_u64());
    assert!(page["next_cursor"].is_string());
    let first: Value = get(&format!("{entries}/0"), AUDITOR).await.json().await.unwrap();
    assert_eq!(first["entry"]["code"], "SECRET_SET");
    let proof = get(&format!("{entries}/0/proof"), AUDITOR).await.text().await.unwrap();
    assert!(proof.starts_with("c2sp.org/tlog-proof@v1\n"), "{proof}");
    for path in ["/999", "/x", "/+1", "/999/proof"] {
        assert_problem(get(&format!("{entries}{path}"), AUDITOR).await, 404, "not_found").await;
    }
    for query in [
        "q=color:red",
        "limit=0",
        "cursor=9",
        "cursor=i9.0",
        "from=noon",
        "page=1",
        "limit=1&limit=2",
        "token=x",
    ] {
        let response = get(&format!("{entries}?{query}"), AUDITOR).await;
        assert_problem(response, 400, "request_malformed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_says_by_part_what_is_wrong() {
    let world = World::start().await;
    let url = format!("http://{}/readyz", world.admin);
    let ready: Value = client().get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["status"], "ready");
    world.store.close().await;
    let response = client().get(&url).send().await.unwrap();
    let seconds: u32 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((5..=7).contains(&seconds), "{seconds}");
    let problem = assert_problem(response, 503, "not_ready").await;
    let parts = problem["parts"].as_array().unwrap();
    assert!(parts.iter().any(|part| part["name"] == "ledger" && part["ready"] == false), "{problem}");
}

// -------------------------------------------------------------------------------------------------------- connections

#[tokio::test(flavor = "multi_thread")]
async fn an_http1_connection_closes_half_a_second_after_it_answered_a_token() {
    let world = World::start().await;
    let mut marked = TcpStream::connect(world.public).await.unwrap();
    let mut plain = TcpStream::connect(world.public).await.unwrap();
    let begun = Instant::now();
    marked
        .write_all(b"GET /v1/whoami HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a.b.c\r\n\r\n")
        .await
        .unwrap();
    assert!(read_head(&mut marked).await.starts_with("HTTP/1.1 401 "));
    let live = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    marked.write_all(live).await.unwrap();
    assert!(read_head(&mut marked).await.starts_with("HTTP/1.1 200 "), "it lives for half a second");
    let mut rest = Vec::new();
    timeout(Duration::from_secs(3), marked.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(490), "{:?}", begun.elapsed());
    plain.write_all(live).await.unwrap();
    assert!(read_head(&mut plain).await.starts_with("HTTP/1.1 200 "), "no token, no end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_connection_gets_a_goaway_and_ends_though_its_client_never_answers_a_ping() {
    let world = World::start().await;
    let mut socket = TcpStream::connect(world.public).await.unwrap();
    let begun = Instant::now();
    socket.write_all(&h2_get("/v1/whoami")).await.unwrap();
    let mut received = Vec::new();
    timeout(Duration::from_secs(3), socket.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(490), "{:?}", begun.elapsed());
    let kinds = h2_frame_kinds(&received);
    assert!(kinds.contains(&H2_HEADERS) && kinds.contains(&H2_GOAWAY), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_due_waits_for_the_answers_it_carries() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (at_work, gate) = (Arc::clone(&begun), Arc::clone(&go));
    let slow = async move || {
        at_work.notify_one();
        gate.notified().await;
        "done"
    };
    let router = Router::new().route("/quick", get(async || "quick")).route("/slow", get(slow));
    let (address, stop) = served(router).await;
    let client = h2_client();
    let ask = |path: &str| client.get(format!("http://{address}{path}")).bearer_auth("t").send();
    assert_eq!(ask("/quick").await.unwrap().status(), 200);
    let first_answer = Instant::now();
    let slow = tokio::spawn(ask("/slow"));
    begun.notified().await;
    // A connection of its own shows that the time is over for one that answered as early.
    let mut witness = TcpStream::connect(address).await.unwrap();
    witness.write_all(b"GET /quick HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\n\r\n").await.unwrap();
    witness.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(first_answer.elapsed() >= Duration::from_millis(490));
    go.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().text().await.unwrap(), "done");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_what_is_under_way_be_answered_and_then_returns() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (at_work, gate) = (Arc::clone(&begun), Arc::clone(&go));
    let slow = async move || {
        at_work.notify_one();
        gate.notified().await;
        "done"
    };
    let (listener, address) = listen().await;
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, Router::new().route("/", get(slow)), None, stop.clone()));
    let idle = TcpStream::connect(address).await.unwrap();
    let asked = tokio::spawn(client().get(format!("http://{address}/")).send());
    begun.notified().await;
    stop.cancel();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    assert_eq!(asked.await.unwrap().unwrap().text().await.unwrap(), "done");
    timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_confirmed_when_it_left_and_not_when_the_client_hung_up() {
    // More than the kernel's buffers on both sides hold.
    const LARGE: usize = 64 * 1024 * 1024;
    let (told, mut is_told) = tokio::sync::mpsc::unbounded_channel();
    let deliver = move |request: Request| {
        let told = Told { told: told.clone(), is_confirmed: false };
        let size = if request.uri().path() == "/large" { LARGE } else { 1_000 };
        async move {
            let stay = request.extensions().get::<Arc<Stay>>().cloned();
            let confirm = Box::new(move || told.confirm());
            Response::new(Body::new(Parcel::new(Secret::new(vec![b'x'; size]), stay, confirm)))
        }
    };
    let (address, stop) = served(Router::new().fallback(deliver)).await;
    for client in [client(), h2_client()] {
        let response = client.get(format!("http://{address}/small")).send().await.unwrap();
        assert_eq!(response.bytes().await.unwrap().len(), 1_000);
        assert!(is_told.recv().await.unwrap());
        let response = client.get(format!("http://{address}/large")).send().await.unwrap();
        drop(response);
        drop(client);
        assert!(!is_told.recv().await.unwrap());
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_time_is_over_does_not_leave() {
    let (told, mut is_told) = tokio::sync::mpsc::unbounded_channel();
    let deliver = move |request: Request| {
        let told = Told { told: told.clone(), is_confirmed: false };
        async move {
            let stay = request.extensions().get::<Arc<Stay>>().cloned();
            let confirm = Box::new(move || told.confirm());
            let parcel = Parcel::new(Secret::new(vec![b'x'; 1_000]), stay, confirm);
            Response::new(Body::new(parcel.until(tokio::time::Instant::now())))
        }
    };
    let (address, stop) = served(Router::new().fallback(deliver)).await;
    for client in [client(), h2_client()] {
        let is_cut = match client.get(format!("http://{address}/")).send().await {
            Ok(response) => response.bytes().await.is_err(),
            Err(_) => true,
        };
        assert!(is_cut && !is_told.recv().await.unwrap());
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_before_the_answer_ends_its_request() {
    let (told, mut is_told) = tokio::sync::mpsc::unbounded_channel();
    let begun = Arc::new(Notify::new());
    let at_work = Arc::clone(&begun);
    let never = async move || {
        let told = Told { told, is_confirmed: false };
        at_work.notify_one();
        std::future::pending::<()>().await;
        told.confirm();
    };
    let (address, stop) = served(Router::new().route("/", get(never))).await;
    for request in [&b"GET / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\n\r\n"[..], &h2_get("/")] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request).await.unwrap();
        begun.notified().await;
        drop(socket);
        assert!(!is_told.recv().await.unwrap());
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stalls_keeps_nobody_out() {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let limits = Limits { per_source_per_second: 1_000, in_flight: 64 };
    let world = World::start_with(limits, Some(Arc::new(config))).await;
    let stalled = TcpStream::connect(world.public).await.unwrap();
    let client = Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_der(issued.cert.der()).unwrap()])
        .resolve("localhost", world.public)
        .build()
        .unwrap();
    let request = client.post(format!("https://localhost:{}/v1/exchange", world.public.port()));
    let body = json!({ "grants": ["payments-prod"] });
    let response = request.bearer_auth(token("tls")).json(&body).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, reqwest::Version::HTTP_2));
    assert_eq!(response.json::<Value>().await.unwrap()["issuances"][0]["fields"]["value"], SECRET);
    stop(&world).await;
    assert!(!world.codes().contains(&"UNDELIVERED".to_owned()));
    drop(stalled);
}

// ------------------------------------------------------------------------------------------------------------- helpers

/// Tells whether it was confirmed, when it is over.
struct Told {
    told: tokio::sync::mpsc::UnboundedSender<bool>,
    is_confirmed: bool,
}

impl Told {
    fn confirm(mut self) {
        self.is_confirmed = true;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.told.send(self.is_confirmed).ok();
    }
}

fn client() -> Client {
    Client::builder().no_proxy().http1_only().build().unwrap()
}

fn h2_client() -> Client {
    Client::builder().no_proxy().http2_prior_knowledge().build().unwrap()
}

fn exchange(world: &World, client: &Client, token: &str) -> RequestBuilder {
    let request = client.post(format!("http://{}/v1/exchange", world.public));
    request.bearer_auth(token).json(&json!({ "grants": ["payments-prod"] }))
}

async fn served(router: Router) -> (std::net::SocketAddr, CancellationToken) {
    let (listener, address) = listen().await;
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, router, None, stop.clone()));
    (address, stop)
}

/// Stops the public listener and waits for everything that was under way.
async fn stop(world: &World) {
    world.stop.cancel();
    while !world.served.is_finished() {
        tokio::task::yield_now().await;
    }
    assert!(world.floor.broker.drain(Duration::from_secs(10)).await);
}

async fn assert_problem(response: reqwest::Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status(), status);
    assert_hardened(&response);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status);
    problem
}

fn assert_hardened(response: &reqwest::Response) {
    let headers = response.headers();
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["pragma"], "no-cache");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(headers.get("server").is_none() && headers.get("etag").is_none());
}

/// Reads one HTTP/1.1 answer with its body, and answers its head.
async fn read_head(socket: &mut TcpStream) -> String {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return head.to_owned();
            }
        }
        assert!(socket.read_buf(&mut received).await.unwrap() > 0, "ended after {text:?}");
    }
}

const H2_HEADERS: u8 = 1;
const H2_GOAWAY: u8 = 7;

/// The preface, empty SETTINGS, and one request by hand (RFC 9113, RFC 7541 literals without indexing), so that
/// nothing in this client answers PING.
fn h2_get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(":path", path), (":authority", "x"), ("authorization", "Bearer a.b.c")] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), H2_HEADERS, 0x05, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    bytes
}

fn h2_frame_kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [high, middle, low, kind, rest @ ..] = bytes {
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        kinds.push(*kind);
        bytes = rest.get(5 + length..).unwrap_or_default();
    }
    kinds
}

// -------------------------------------------------------------------------------------------------- the description

#[test]
fn every_route_has_an_operation_and_every_operation_a_route() {
    use super::{
        admin_routes,
        layers::Gate,
        openapi::{Listener, OPERATIONS},
        public_routes,
    };
    let limits = Limits { per_source_per_second: 1, in_flight: 1 };
    let gate = |listener| Gate::new(limits, Arc::default(), listener);
    let mut routed = Vec::new();
    for (listener, routes) in [
        (Listener::Public, public_routes(&gate(Listener::Public))),
        (Listener::Admin, admin_routes(&gate(Listener::Admin))),
    ] {
        for (path, methods) in routes.1 {
            routed.extend(methods.split(", ").map(|method| (listener.as_str(), method, path)));
        }
    }
    let mut described: Vec<_> = OPERATIONS
        .iter()
        .flat_map(|each| each.listeners.iter().map(|on| (on.as_str(), each.method, each.path)))
        .collect();
    routed.sort_unstable();
    described.sort_unstable();
    assert_eq!(routed, described, "left the routes, right the operations");
}

#[test]
fn every_code_that_is_answered_is_described() {
    let written = super::openapi_document().to_string();
    for code in crate::broker::error::Code::ALL {
        let is_of_no_operation = code.as_str() == "method_not_allowed";
        assert_eq!(
            written.matches(&format!("`{}`", code.as_str())).count() == 0,
            is_of_no_operation,
            "{code:?}"
        );
    }
}
