//! TLS as clients meet it: versions, the exchange of keys, and certificates that change under load. The other side is
//! rustls as a client, and reqwest on it.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use rustls::{
    ClientConfig, ClientConnection, NamedGroup, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};

use super::support::{
    Installation, PATIENCE,
    authority::{Authority, Certified},
    eventually, runtime,
};

/// Gives an installation's public listener a certificate.
pub(crate) fn secure(installation: &Installation, certified: &Certified) {
    put(installation, certified);
    let plain = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let secured = plain.replace("public: { ", "public: { tls: { certificate: tls.crt, key: tls.key }, ");
    assert_ne!(plain, secured);
    installation.write("hallpass.yaml", &secured);
}

fn put(installation: &Installation, certified: &Certified) {
    installation.write("tls.crt", &certified.certificate);
    installation.write("tls.key", &certified.key);
}

/// What a client sees of a handshake.
struct Seen {
    version: ProtocolVersion,
    group: NamedGroup,
    certificate: Vec<u8>,
}

fn shake(address: SocketAddr, authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> Seen {
    let mut roots = RootCertStore::empty();
    roots.add(der(&authority.certificate)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).unwrap();
    }
    Seen {
        version: connection.protocol_version().unwrap(),
        group: connection.negotiated_key_exchange_group().unwrap().name(),
        certificate: connection.peer_certificates().unwrap()[0].to_vec(),
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_keys_are_exchanged_beyond_quantum_computers() {
    let installation = Installation::new();
    let authority = Authority::new();
    secure(&installation, &authority.certify_loopback());
    let server = installation.serve();

    let newer = shake(server.public.address, &authority, &[&TLS13, &TLS12]);
    let older = shake(server.public.address, &authority, &[&TLS12]);

    assert_eq!((newer.version, newer.group), (ProtocolVersion::TLSv1_3, NamedGroup::X25519MLKEM768));
    // TLS 1.2 has no such exchange.
    assert_eq!((older.version, older.group), (ProtocolVersion::TLSv1_2, NamedGroup::X25519));
}

#[test]
fn certificate_changes_under_load_by_signal_and_by_file_and_no_request_is_dropped() {
    let installation = Installation::new();
    let authority = Authority::new();
    secure(&installation, &authority.certify_loopback());
    let server = installation.serve();
    let (address, trusted) = (server.public.address, authority.certificate.as_str());
    let (ended, answered) = (&AtomicBool::new(false), &AtomicUsize::new(0));

    thread::scope(|scope| {
        // Half of them open a connection for each request, half keep theirs.
        for kept in [0, 0, 1, 1] {
            scope.spawn(move || load(address, trusted, kept, ended, answered));
        }
        for is_told in [true, false] {
            let before = answered.load(Ordering::Relaxed);
            let next = authority.certify_loopback();
            put(&installation, &next);
            if is_told {
                server.hang_up();
            }
            eventually("the next certificate", || {
                let seen = shake(server.public.address, &authority, &[&TLS13]);
                (seen.certificate == *der(&next.certificate)).then_some(())
            });
            eventually("answers meanwhile", || {
                (answered.load(Ordering::Relaxed) >= before + 50).then_some(())
            });
        }
        ended.store(true, Ordering::Relaxed);
    });
}

/// Asks until it is told to end; each request must be answered.
fn load(address: SocketAddr, trusted: &str, kept: usize, ended: &AtomicBool, answered: &AtomicUsize) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(trusted.as_bytes()).unwrap()])
        .pool_max_idle_per_host(kept)
        .timeout(PATIENCE)
        .build()
        .unwrap();
    let url = format!("https://{address}/livez");
    while !ended.load(Ordering::Relaxed) {
        let answer = runtime().block_on(async { client.get(&url).send().await });
        match answer {
            Ok(answer) => assert_eq!(answer.status().as_u16(), 200),
            Err(fault) => {
                // The others end with it.
                ended.store(true, Ordering::Relaxed);
                panic!("a request was dropped: {fault:?}");
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
