//! TLS for a listener: the certificate is read again on `SIGHUP` and when its files change, and a bad one never
//! replaces a good one.

use std::{os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::{
    cli::{config::TlsFiles, installation::read},
    kernel::policy::Finding,
};

/// A certificate that can be exchanged while connections are served.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: ArcSwap<CertifiedKey>,
    seen: ArcSwap<Vec<Seen>>,
}

/// What a file looked like when it was read.
type Seen = Option<(u64, i64, i64, u64)>;

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// A finding where the configuration names them.
    pub(crate) fn load(files: &TlsFiles) -> Result<Arc<Self>, Finding> {
        let seen = ArcSwap::from_pointee(seen(files));
        let current = ArcSwap::from_pointee(certified(files)?);
        Ok(Arc::new(Self { files: files.clone(), current, seen }))
    }

    /// The Unix time at which the certificate that is served ends; none where it cannot be read.
    pub(crate) fn ends(&self) -> Option<i64> {
        let current = self.current.load();
        let (_, read) = x509_parser::parse_x509_certificate(current.cert.first()?).ok()?;
        Some(read.validity().not_after.timestamp())
    }

    /// The configuration of a listener.
    pub(crate) fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Reads the files again, where asked or where they changed. A fault is told once and changes nothing.
    pub(crate) fn refresh(&self, is_asked: bool) {
        let now = seen(&self.files);
        if !is_asked && **self.seen.load() == now {
            return;
        }
        self.seen.store(Arc::new(now));
        match certified(&self.files) {
            Ok(key) => {
                self.current.store(Arc::new(key));
                tracing::info!("the TLS certificate was read again");
            }
            Err(finding) => tracing::warn!(%finding, "the TLS certificate was refused; the one before stays"),
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn seen(files: &TlsFiles) -> Vec<Seen> {
    let look = |path: &Path| {
        let about = std::fs::metadata(path).ok()?;
        Some((about.ino(), about.mtime(), about.mtime_nsec(), about.size()))
    };
    vec![look(&files.certificate.path), look(&files.key.path)]
}

fn certified(files: &TlsFiles) -> Result<CertifiedKey, Finding> {
    let TlsFiles { certificate, key } = files;
    let refused = |file: &crate::cli::config::NamedFile, what: &str| {
        file.finding(
            "tls",
            format!("{}: {what}", file.path.display()),
            "write PEM: the chain, its key beside it",
        )
    };
    let pem = read(certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.expose()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| refused(certificate, "it holds no certificate"))?;
    let pem = read(key)?;
    let private =
        PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| refused(key, "it holds no private key"))?;
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())
        .map_err(|fault| refused(key, &format!("it does not fit the certificate: {fault}")))
}
