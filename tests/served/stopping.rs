//! How `serve` stops: an answer under way is let out, a second signal does not wait for it.

use std::{io::Read as _, net::TcpStream};

use rustix::process::Signal;
use serde_json::json;

use super::{
    record::{large_grant, send},
    support::{Installation, Server, eventually, installation::CANARY},
};

/// A broker that was told to stop while an answer of many megabytes waits for its reader.
fn stopping(installation: &Installation) -> (Server, TcpStream) {
    large_grant(installation);
    let server = installation.serve();
    let connection = send(&server, &installation.issuer.token(), &json!({ "grants": ["large"] }));
    eventually("an issuance", || (!server.entries("ISSUED").is_empty()).then_some(()));
    server.signal(Signal::TERM);
    eventually("a closed listener", || TcpStream::connect(server.public.address).is_err().then_some(()));
    (server, connection)
}

#[test]
fn answer_under_way_is_let_out_before_the_end() {
    let installation = Installation::new();
    let (server, mut connection) = stopping(&installation);

    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();

    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.ends_with('}') && body.len() > 4 << 20, "{head}: {} bytes", body.len());
    let (status, logs) = server.ended();
    assert!(status.success(), "{status}: {logs}");
}

#[test]
fn second_signal_ends_at_once_whatever_is_under_way() {
    let installation = Installation::new();
    let (server, connection) = stopping(&installation);

    server.signal(Signal::TERM);

    let (status, logs) = server.ended();
    assert!(!status.success() && logs.contains("stopped at once"), "{status}: {logs}");
    assert!(!logs.contains(CANARY), "{logs}");
    drop(connection);
}
