//! P5: a second after its connection closed, no copy of a delivered secret or of a used token is in the process. The
//! memory is read as root reads it, through `/proc/PID/mem`; without root these tests fail, they never skip.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{ClientBuilder, Version, tls};
use serde_json::json;

use super::{
    once::{deploy, only},
    record::{large_grant, send},
    support::{Installation, Server, authority::Authority, eventually, installation::CANARY, runtime},
    tls::secure,
};

/// Long enough that chance does not find one, short enough that an allocator's list pointers do not hide it.
const WINDOW: usize = 12;

/// The scan finds a secret that is on its way, so that finding none afterwards says something.
#[test]
fn delivered_secret_and_token_are_gone_a_second_after_the_close() {
    const SECRET: &str = "k7Qw-zX2v_canary_P9rT-51bLmNs0aH";
    let installation = Installation::new();
    large_grant(&installation);
    installation.set_secret("large", &format!("{}{SECRET}", "\u{1}".repeat(60 * 1024)));
    let server = installation.serve();
    let token = installation.issuer.token();
    let needles = needles(SECRET, &token);

    let mut connection = send(&server, &token, &json!({ "grants": ["large"] }));
    eventually("the secret in memory while it is sent", || found(&server, &needles).then_some(()));
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();

    assert!(String::from_utf8(answer).unwrap().contains(SECRET));
    assert_gone(&server, &needles);
}

/// Each protocol has buffers of its own: records of TLS, frames of HTTP/2. The client keeps its connection until the
/// broker ends it.
#[test]
fn delivered_secret_and_token_are_gone_over_every_protocol() {
    const SECRET: &str = "k7Qw-zX2v_canary_P9rT-51bLmNs0aH";
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

    gone_after(&plain, "http", SECRET, in_clear);
    gone_after(&secured, "https", SECRET, over_tls.into_iter().flatten());
}

fn gone_after(
    installation: &Installation,
    scheme: &str,
    secret: &str,
    clients: impl IntoIterator<Item = (ClientBuilder, Version)>,
) {
    installation.set_secret("npm-token", secret);
    let server = installation.serve();
    let url = format!("{scheme}://{}/v1/exchange", server.public.address);
    for (client, version) in clients {
        let client = client.build().unwrap();
        let token = installation.issuer.token();

        let answered = runtime().block_on(async {
            let answer = client.post(&url).bearer_auth(&token).json(&only("npm")).send().await.unwrap();
            (answer.version(), answer.text().await.unwrap())
        });

        assert!(answered.0 == version && answered.1.contains(secret), "{scheme} {version:?}: {answered:?}");
        let mut needles = needles(secret, &token);
        needles.extend(encoded(secret));
        assert_gone(&server, &needles);
        drop(client);
    }
}

/// Windows of the forms that a secret takes on its way elsewhere: base64 at each of its three places, hex, URL.
fn encoded(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let shifted = (0..3).map(|at| STANDARD.encode(&bytes[at..]));
    let by_byte = |form: fn(&u8) -> String| bytes.iter().map(form).collect::<String>();
    let others = [by_byte(|byte| format!("{byte:02x}")), by_byte(|byte| format!("%{byte:02X}"))];
    let windows = |text: String| text.as_bytes().chunks_exact(WINDOW).map(<[u8]>::to_vec).collect::<Vec<_>>();
    shifted.chain(others).flat_map(windows).collect()
}

#[test]
fn refused_replayed_and_retried_tokens_are_gone_too() {
    let installation = Installation::new();
    let server = installation.serve();
    let [used, refused, spoiled] = [(); 3].map(|()| installation.issuer.token());
    let key = "0123456789abcdef";

    server.public.exchanging(&used, &deploy()).header("Idempotency-Key", key).send().ok();
    server.public.exchanging(&used, &deploy()).header("Idempotency-Key", key).send().ok();
    server.public.exchange(&used, &only("npm")).problem(409, "token_replayed");
    server.public.exchange(&refused, &json!({ "grants": ["nobody-has-this"] })).problem(403, "access_denied");
    server.public.exchange(&spoiled, &json!({ "grants": [] })).problem(400, "request_malformed");

    let needles: Vec<Vec<u8>> =
        [used, refused, spoiled].iter().flat_map(|token| needles(CANARY, token)).collect();
    assert_gone(&server, &needles);
}

/// The token of a form is percent-decoded on the way; neither form of it stays, nor what a refusal does not look at.
#[test]
fn tokens_and_secret_of_the_oauth_endpoint_are_gone_too() {
    let installation = Installation::new();
    let server = installation.serve();
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
    let needles: Vec<Vec<u8>> =
        [used, denied, spoiled].iter().flat_map(|token| needles(CANARY, token)).collect();
    assert_gone(&server, &needles);
}

/// Windows of the secret, and of the parts of the token that nobody else's token has.
pub(crate) fn needles(secret: &str, token: &str) -> Vec<Vec<u8>> {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    // The payload begins alike in every token; its end holds what is this token's own.
    let payload = &signed[signed.len() - 3 * WINDOW..];
    [secret, payload, &signature[..4 * WINDOW]]
        .iter()
        .flat_map(|text| text.as_bytes().chunks_exact(WINDOW).map(<[u8]>::to_vec))
        .collect()
}

fn assert_gone(server: &Server, needles: &[Vec<u8>]) {
    let closed = Instant::now();
    loop {
        let looked = Instant::now();
        if !found(server, needles) {
            return;
        }
        // The client may not see the close; 500 ms after the first answer and 200 ms later it is there.
        let late = looked.duration_since(closed) > Duration::from_millis(1_000 + 700);
        assert!(!late, "a secret or token is still in memory");
    }
}

/// Whether one of the needles is in any resident region of the process.
fn found(server: &Server, needles: &[Vec<u8>]) -> bool {
    found_in(server.pid(), needles)
}

/// The same for any process.
pub(crate) fn found_in(pid: u32, needles: &[Vec<u8>]) -> bool {
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).expect("reading another process needs root");
    let mut is_first = [false; 256];
    needles.iter().for_each(|needle| is_first[usize::from(needle[0])] = true);
    regions(pid).into_iter().any(|(start, end)| {
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // A region that went away meanwhile holds nothing any more.
        if memory.seek(SeekFrom::Start(start)).is_err() || memory.read_exact(&mut bytes).is_err() {
            return false;
        }
        let mut rest = bytes.as_slice();
        while let Some(at) = rest.iter().position(|byte| is_first[usize::from(*byte)]) {
            rest = &rest[at..];
            if needles.iter().any(|needle| rest.starts_with(needle)) {
                return true;
            }
            rest = &rest[1..];
        }
        false
    })
}

/// Readable and resident regions; what was never touched holds nothing.
fn regions(pid: u32) -> Vec<(u64, u64)> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("reading another process needs root");
    let mut regions = Vec::new();
    let mut region = None;
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["Rss:", "0", "kB"] => region = None,
            ["Rss:", ..] => regions.extend(region.take()),
            [range, mode, ..] if mode.starts_with('r') && range.contains('-') => {
                let (start, end) = range.split_once('-').unwrap();
                let address = |text| u64::from_str_radix(text, 16).unwrap();
                region = (!line.ends_with("[vvar]")).then(|| (address(start), address(end)));
            }
            _ => {}
        }
    }
    assert!(!regions.is_empty(), "no memory was seen");
    regions
}
