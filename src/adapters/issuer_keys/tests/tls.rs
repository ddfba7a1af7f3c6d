//! Whom an issuer's certificate must be from.

use super::*;

/// A TLS server with a certificate of a private authority.
async fn tls_issuer(keys: Value) -> (String, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(params, authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let private = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let issuer = url.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let is_discovery = String::from_utf8_lossy(&request[..length]).contains("openid-configuration");
            let body = if is_discovery {
                json!({"issuer": issuer, "jwks_uri": format!("{issuer}/jwks")}).to_string()
            } else {
                keys.to_string()
            };
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (url, authority.pem())
}

#[tokio::test]
async fn tls_is_checked_against_the_configured_authority_alone() {
    let (url, authority) = tls_issuer(keys(&["k1"])).await;
    let with = |pem: String| {
        let mut config = config(url.clone(), KeysFrom::Discovery);
        config.ca_pem = Some(pem.into_bytes());
        IssuerKeys::new(vec![config], TestClock::default().now()).unwrap()
    };
    assert_eq!(find(&with(authority), "k1").await, Ok(()));

    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let keys = with(stranger);
    assert_eq!(find(&keys, "k1").await, UNAVAILABLE);
    assert!(faults(&keys)[0].contains("invalid peer certificate"), "{:?}", faults(&keys));
}
