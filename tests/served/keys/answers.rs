//! What an issuer may answer, and what is taken from it.

use serde_json::json;

use super::{deploy, fetch_again, trusting, until_told, until_well};
use crate::support::hostile_issuer::{HostileIssuer, Reply, Trap};

/// One bad answer: what it is, which document it stands in for, and what `/readyz` says of it.
struct Row {
    what: String,
    discovery: Option<Reply>,
    keys: Option<Reply>,
    told: &'static str,
}

fn discovery(what: impl Into<String>, reply: Reply, told: &'static str) -> Row {
    Row { what: what.into(), discovery: Some(reply), keys: None, told }
}

fn keys(what: impl Into<String>, reply: Reply, told: &'static str) -> Row {
    Row { what: what.into(), discovery: None, keys: Some(reply), told }
}

/// The old key serves through every row, the right answer is taken after each, and nobody else is connected to.
#[track_caller]
fn nothing_is_taken(rows: &[Row], issuer: &HostileIssuer, traps: &[&Trap]) {
    let installation = trusting(&[("ci", issuer, "")], "deadlines: { issuer: 2s }\n");
    let server = installation.serve();
    until_well(&server, "ci");
    for Row { what, discovery, keys, told } in rows {
        let before = issuer.connections();
        if let Some(reply) = discovery {
            issuer.answer_discovery(reply.clone());
        }
        if let Some(reply) = keys {
            issuer.answer_keys(reply.clone());
        }
        fetch_again(&server);
        let standing = until_told(&server, "ci", told);
        assert_eq!(standing["ready"], true, "{what}: {standing}");
        let asked = issuer.connections() - before;
        assert_eq!(asked, if keys.is_some() { 2 } else { 1 }, "{what}: connections");
        assert_eq!(deploy(&server, &issuer.token()).status, 200, "{what}: the old key is kept");

        issuer.be_right();
        fetch_again(&server);
        until_well(&server, "ci");
    }
    for trap in traps {
        assert_eq!(trap.connections(), 0, "somebody came to {}", trap.address);
    }
    for head in issuer.asked() {
        for header in ["accept-encoding", "authorization", "cookie", "referer"] {
            assert!(!head.contains(header), "{header} was sent: {head}");
        }
    }
}

#[test]
fn redirects_are_not_followed() {
    let issuer = HostileIssuer::start();
    let trap = Trap::set();
    let (url, to) = (issuer.url.clone(), trap.address);
    let targets = [
        format!("http://{to}/keys"),
        format!("http://localhost:{}/keys", to.port()),
        format!("https://{to}/keys"),
        format!("//{to}/keys"),
        format!("http://[::ffff:127.0.0.1]:{}/", to.port()),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        // One of a chain of ten, had the first been followed.
        format!("{url}/keys/1"),
        "/keys".to_owned(),
    ];
    let mut rows = Vec::new();
    for status in [301, 302, 303, 307, 308] {
        let told = ["status 301", "status 302", "status 303", "status 307", "status 308"]
            .into_iter()
            .find(|told| told.ends_with(&status.to_string()))
            .unwrap();
        // Every target with one status, and one target with every other.
        let targets = if status == 302 { &targets[..] } else { &targets[..1] };
        for target in targets {
            let what = format!("{status} to {target}");
            rows.push(discovery(format!("discovery: {what}"), Reply::redirect(status, target), told));
            rows.push(keys(format!("keys: {what}"), Reply::redirect(status, target), told));
        }
    }
    nothing_is_taken(&rows, &issuer, &[&trap]);
}

#[test]
fn discovery_speaks_of_its_issuer_and_sends_nowhere_else() {
    let issuer = HostileIssuer::start();
    let trap = Trap::set();
    let (url, elsewhere) = (issuer.url.clone(), trap.address);
    let names = |issuer: String| Reply::Json(json!({ "issuer": issuer, "jwks_uri": format!("{url}/keys") }));
    let sends = |jwks_uri: String| Reply::Json(json!({ "issuer": url, "jwks_uri": jwks_uri }));
    let port = url.rsplit_once(':').unwrap().1;
    let doubled = format!(
        "{{\"issuer\":\"{url}\",\"jwks_uri\":\"{url}/keys\",\"jwks_uri\":\"http://{elsewhere}/keys\"}}"
    );
    let mut rows = vec![
        discovery("no object", Reply::Json(json!([])), "is not a strict JSON object"),
        discovery("HTML", Reply::status(200, "", b"<html>Sign in</html>"), "is not a strict JSON object"),
        discovery(
            "two of one member",
            Reply::status(200, "", doubled.as_bytes()),
            "is not a strict JSON object",
        ),
        discovery("no jwks_uri", Reply::Json(json!({ "issuer": url })), "has no jwks_uri"),
        discovery("a file", sends("file:///etc/passwd".to_owned()), "the jwks_uri of the discovery document"),
        discovery("a user", sends(format!("http://x@127.0.0.1:{port}/keys")), "holds a user"),
        discovery("a name", sends(format!("http://localhost:{port}/keys")), "the jwks_uri of the discovery"),
        discovery(
            "metadata",
            sends("http://169.254.169.254/keys".to_owned()),
            "the jwks_uri of the discovery",
        ),
        discovery("not found", Reply::status(404, "", b"{}"), "status 404"),
        discovery("no content", Reply::status(204, "", b""), "status 204"),
        discovery(
            "in parts",
            Reply::status(206, "", issuer.discovery().to_string().as_bytes()),
            "status 206",
        ),
    ];
    for other in [format!("{url}/"), url.to_uppercase(), "https://token.actions.githubusercontent.com".into()]
    {
        rows.push(discovery(format!("names {other}"), names(other), "names another issuer"));
    }
    for other in [
        format!("http://{elsewhere}/keys"),
        format!("https://{elsewhere}/"),
        format!("https://127.0.0.1:{port}/keys"),
    ] {
        rows.push(discovery(format!("sends to {other}"), sends(other), "names a jwks_uri of another origin"));
    }
    nothing_is_taken(&rows, &issuer, &[&trap]);
}

#[test]
fn a_set_is_taken_whole_or_not_at_all() {
    let issuer = HostileIssuer::start();
    let set = json!({ "keys": [HostileIssuer::own_jwk()] }).to_string();
    let encoded = |coding: &str| {
        let head = format!("content-encoding: {coding}\r\n");
        Reply::status(200, &head, set.as_bytes())
    };
    let short = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9999\r\n\r\n{set}");
    let headers = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\n{{}}", "x".repeat(2 << 20));
    let rows = [
        keys(
            "HTML",
            Reply::status(200, "content-type: text/html\r\n", b"<html></html>"),
            "is not strict JSON",
        ),
        keys("nothing", Reply::status(200, "", b""), "is not strict JSON"),
        keys("no keys", Reply::Json(json!({ "keys": [] })), "has no usable key"),
        keys("no list", Reply::Json(json!({ "keys": HostileIssuer::own_jwk() })), "has no list of keys"),
        keys(
            "only bad keys",
            Reply::Json(json!({ "keys": [{ "kty": "oct", "kid": "k", "k": "c2VjcmV0" }] })),
            "has no usable key",
        ),
        keys(
            "65 keys",
            Reply::Json(json!({ "keys": vec![HostileIssuer::own_jwk(); 65] })),
            "more than 64 keys",
        ),
        keys("500", Reply::status(500, "", set.as_bytes()), "status 500"),
        keys("gzip", encoded("gzip"), "the answer is compressed"),
        keys("deflate", encoded("deflate"), "the answer is compressed"),
        keys("br, gzip", encoded("br, gzip"), "the answer is compressed"),
        keys(
            "a gzip bomb",
            Reply::status(200, "content-encoding: gzip\r\n", GZIP),
            "the answer is compressed",
        ),
        keys("gzip that does not say so", Reply::status(200, "", GZIP), "is not strict JSON"),
        keys("cut short", Reply::Bytes(short.into_bytes()), "cannot be reached"),
        keys("headers of 2 MiB", Reply::Bytes(headers.into_bytes()), "cannot be reached"),
        keys("not HTTP", Reply::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()), "cannot be reached"),
        keys("5 MiB", Reply::status(200, "", &vec![b' '; 5 << 20]), "larger than 262144 bytes"),
    ];
    nothing_is_taken(&rows, &issuer, &[]);
}

#[test]
fn an_endless_document_is_left_at_the_cap_and_a_slow_one_at_the_deadline() {
    let issuer = HostileIssuer::start();
    let rows = [keys("endless", Reply::Endless(SPACES), "larger than 262144 bytes")];
    nothing_is_taken(&rows, &issuer, &[]);
    // What was taken of it: the cap, and what fits into the sockets' buffers on the way, which Linux lets grow to 4 MiB
    // on one side and 6 MiB on the other.
    assert!((256 << 10..12 << 20).contains(&issuer.written()), "{} bytes", issuer.written());
    assert_eq!(issuer.cut_off(), 1);

    let rows = [
        keys("keys drip", Reply::Drip, "no answer in time"),
        discovery("discovery drips", Reply::Drip, "no answer in time"),
        keys("keys never come", Reply::Silence, "no answer in time"),
        discovery("discovery never comes", Reply::Silence, "no answer in time"),
    ];
    nothing_is_taken(&rows, &HostileIssuer::start(), &[]);
}

const SPACES: &str = match std::str::from_utf8(&[b' '; 4096]) {
    Ok(spaces) => spaces,
    Err(_) => unreachable!(),
};

/// `{}`, in the format of RFC 1952.
const GZIP: &[u8] =
    &[0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0x03, 0xab, 0xae, 0x05, 0, 0x43, 0xbf, 0xa6, 0xa3, 0x02, 0, 0, 0];
