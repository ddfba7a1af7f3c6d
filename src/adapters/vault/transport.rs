//! One request on the wire, one answer into memory that is wiped.
//!
//! It goes round `vaultrs` for the faults that cannot be closed from outside: its client reads a body of any size into
//! memory (none of the eleven), follows redirects with the token (6), joins addresses by its own rules (10), and keeps
//! `Retry-After`, the body of a 404 and the envelope to itself (1, 11).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{
    HeaderMap, HeaderValue, Method,
    header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use reqwest::{Certificate, Client, Identity, Response, Url, redirect};
use tokio::time::Instant;

use super::{
    fault::VaultFault,
    path::{VaultPath, Verb},
    settings::{Settings, SettingsFault, TlsFiles},
};
use crate::kernel::{secret::Secret, wiping::Zeroizing};

/// The way to one configured Vault, whatever the number of its nodes.
pub(super) struct Transport {
    nodes: Vec<Url>,
    active: AtomicUsize,
    namespace: Option<HeaderValue>,
    tls: TlsFiles,
    clients: ArcSwap<Clients>,
}

/// Two clients on one TLS stack.
struct Clients {
    /// Its connections are used again: nothing that is delivered passes them.
    kept: Client,
    /// A connection that fetched a secret is not used again (design: P5).
    once: Client,
    /// What the files held.
    files: Arc<Files>,
}

/// The files of TLS as they were read.
#[derive(PartialEq, Eq)]
struct Files {
    ca: Option<Vec<u8>>,
    identity: Option<Zeroizing<Vec<u8>>>,
}

/// One request.
pub(super) struct Request<'a> {
    pub(super) verb: Verb,
    pub(super) path: &'a VaultPath,
    pub(super) body: Option<&'a Secret>,
    pub(super) token: Option<&'a Secret>,
    /// Whether the answer, or the token, is to be forgotten when it was used.
    pub(super) is_secret: bool,
}

/// What came back.
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
    pub(super) retry_after: Option<Duration>,
    /// The node that a redirect names, if it is one of ours.
    pub(super) elsewhere: Option<usize>,
}

impl Transport {
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsFault> {
        let namespace = settings.namespace.as_deref().map(HeaderValue::from_str).transpose();
        let files = Files::read(&settings.tls)?;
        let is_plain = settings.addresses.iter().all(|address| address.scheme() == "http");
        Ok(Self {
            nodes: settings.addresses.clone(),
            active: AtomicUsize::new(0),
            namespace: namespace.map_err(|_| SettingsFault::Namespace)?,
            tls: settings.tls.clone(),
            clients: ArcSwap::from_pointee(Clients::new(files, &settings.tls, is_plain)?),
        })
    }

    /// Reads the files of TLS again; answers whether they had changed. What cannot be used leaves all as it is.
    pub(super) fn refresh(&self) -> Result<bool, SettingsFault> {
        let files = Files::read(&self.tls)?;
        if *self.clients.load().files == files {
            return Ok(false);
        }
        let is_plain = self.nodes.iter().all(|address| address.scheme() == "http");
        self.clients.store(Arc::new(Clients::new(files, &self.tls, is_plain)?));
        Ok(true)
    }

    /// The node that is asked first.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// From now on that node is asked first.
    pub(super) fn prefer(&self, node: usize) {
        self.active.store(node, Ordering::Relaxed);
    }

    /// The nodes beside that one.
    pub(super) fn others(&self, node: usize) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(move |each| *each != node)
    }

    /// Sends to one node, and reads what it answers, both until `end`.
    pub(super) async fn send(
        &self,
        node: usize,
        request: &Request<'_>,
        end: Instant,
    ) -> Result<Received, VaultFault> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(VaultFault::Late { sent: false });
        }
        let address = self.nodes.get(node).ok_or(VaultFault::Unreachable)?;
        let clients = self.clients.load_full();
        let client = if request.is_secret { &clients.once } else { &clients.kept };
        let method =
            Method::from_bytes(request.verb.as_str().as_bytes()).map_err(|_| VaultFault::BadRequest(405))?;
        let mut headers = HeaderMap::new();
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = &self.namespace {
            headers.insert("x-vault-namespace", namespace.clone());
        }
        if let Some(token) = request.token {
            // Tokens are checked where they are read; this cannot fail for one of those (fault 7).
            let mut value = HeaderValue::from_bytes(token.expose()).map_err(|_| VaultFault::Denied)?;
            // It stays out of the Debug of whatever holds the headers, and out of HPACK's tables (fault 5).
            value.set_sensitive(true);
            headers.insert("x-vault-token", value);
        }
        let mut building = client.request(method, url(address, request.path)).headers(headers).timeout(left);
        if let Some(body) = request.body {
            building = building.header(CONTENT_TYPE, "application/json").body(body.expose().to_vec());
        }
        let response = building.send().await.map_err(|error| fault(&error))?;
        self.receive(response).await
    }

    /// The status of a node by `sys/health`, which needs no token. The body is not read: OpenBao's and Vault's differ
    /// (fault 3).
    pub(super) async fn health(&self, node: usize, within: Duration) -> Option<u16> {
        let address = self.nodes.get(node)?;
        let path = VaultPath::parse("sys/health").ok()?;
        let clients = self.clients.load_full();
        let asked = clients.kept.head(url(address, &path)).header("x-vault-request", "true").timeout(within);
        Some(asked.send().await.ok()?.status().as_u16())
    }

    async fn receive(&self, mut response: Response) -> Result<Received, VaultFault> {
        let status = response.status().as_u16();
        if response.headers().get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
            return Err(VaultFault::Malformed("compressed, which was not asked for"));
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let elsewhere = self.redirected(&response);
        let announced = response.content_length().unwrap_or(0);
        if announced > MOST_BYTES as u64 {
            return Err(VaultFault::Malformed("larger than 4 MiB"));
        }
        let mut body = Zeroizing::new(Vec::with_capacity(usize::try_from(announced).unwrap_or(0)));
        while let Some(chunk) = response.chunk().await.map_err(|error| torn(&error))? {
            if body.len().saturating_add(chunk.len()) > MOST_BYTES {
                return Err(VaultFault::Malformed("larger than 4 MiB"));
            }
            grow(&mut body, chunk.len());
            body.extend_from_slice(&chunk);
        }
        Ok(Received { status, body, retry_after, elsewhere })
    }

    /// The node that a redirect leads to. Scheme, host and port must be those of a configured address; of the rest
    /// nothing is taken, so that a proxy cannot choose the path (fault 6).
    fn redirected(&self, response: &Response) -> Option<usize> {
        if !matches!(response.status().as_u16(), 307 | 308) {
            return None;
        }
        let location = response.headers().get(LOCATION)?.to_str().ok()?;
        let origin = response.url().join(location).ok()?.origin();
        self.nodes.iter().position(|node| node.origin() == origin)
    }
}

/// Enlarges a buffer without leaving a copy behind.
fn grow(body: &mut Zeroizing<Vec<u8>>, more: usize) {
    let needed = body.len().saturating_add(more);
    if needed > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(body.capacity().saturating_mul(2))));
        larger.extend_from_slice(body);
        *body = larger;
    }
}

/// The base, `/v1/`, and the path as it is: every part was checked, and nothing is joined by rules of relative
/// addresses (fault 10).
fn url(base: &Url, path: &VaultPath) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/v1/{}", base.path().trim_end_matches('/'), path.as_str()));
    if let Some(version) = path.version() {
        url.set_query(Some(&format!("version={version}")));
    }
    url
}

/// What an error before the first byte of an answer means. Its text may name the address, and is not kept.
fn fault(error: &reqwest::Error) -> VaultFault {
    if error.is_connect() || error.is_builder() {
        VaultFault::Unreachable
    } else if error.is_timeout() {
        VaultFault::Late { sent: true }
    } else {
        VaultFault::Torn
    }
}

fn torn(error: &reqwest::Error) -> VaultFault {
    if error.is_timeout() { VaultFault::Late { sent: true } } else { VaultFault::Torn }
}

impl Files {
    fn read(tls: &TlsFiles) -> Result<Self, SettingsFault> {
        let read = |path: &std::path::PathBuf| {
            std::fs::read(path).map_err(|fault| SettingsFault::File {
                path: path.display().to_string(),
                why: fault.to_string(),
            })
        };
        let ca = tls.ca.as_ref().map(read).transpose()?;
        let identity = match &tls.identity {
            None => None,
            Some((certificate, key)) => {
                let (certificate, key) = (read(certificate)?, Zeroizing::new(read(key)?));
                let mut both = Zeroizing::new(Vec::with_capacity(certificate.len() + key.len() + 1));
                both.extend_from_slice(&certificate);
                both.push(b'\n');
                both.extend_from_slice(&key);
                Some(both)
            }
        };
        Ok(Self { ca, identity })
    }
}

impl Clients {
    fn new(files: Files, tls: &TlsFiles, is_plain: bool) -> Result<Self, SettingsFault> {
        let shown = |path: Option<&std::path::PathBuf>| {
            path.map(|path| path.display().to_string()).unwrap_or_default()
        };
        let pem_fault = |path: Option<&std::path::PathBuf>| SettingsFault::Pem(shown(path));
        let authorities = match &files.ca {
            // Plain loopback needs none, and a machine without authorities must not stop it.
            None if is_plain => Some(Vec::new()),
            None => None,
            Some(pem) => {
                let fault = || pem_fault(tls.ca.as_ref());
                let authorities = Certificate::from_pem_bundle(pem).map_err(|_| fault())?;
                if authorities.is_empty() {
                    return Err(fault());
                }
                Some(authorities)
            }
        };
        let identity = files.identity.as_ref().map(|pem| Identity::from_pem(pem)).transpose();
        let identity =
            identity.map_err(|_| pem_fault(tls.identity.as_ref().map(|(certificate, _)| certificate)))?;
        let build = |idle: usize| {
            // For one request HTTP/2 is only more to say.
            let builder = if idle == 0 { Client::builder().http1_only() } else { Client::builder() };
            let mut builder = builder
                .redirect(redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .user_agent(concat!("hallpass/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .pool_max_idle_per_host(idle)
                .pool_idle_timeout(IDLE);
            if let Some(authorities) = &authorities {
                builder = builder.tls_certs_only(authorities.clone());
            }
            if let Some(identity) = &identity {
                builder = builder.identity(identity.clone());
            }
            builder.build().map_err(|_| SettingsFault::Build)
        };
        Ok(Self { kept: build(KEPT)?, once: build(0)?, files: Arc::new(files) })
    }
}

/// No answer of Vault's that a broker asks for is larger; a larger one is an attack or a mistake.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// A node that does not take a connection by then is left for the next one.
const CONNECT: Duration = Duration::from_secs(2);
/// Vault closes idle connections after five minutes (`http_idle_timeout`).
const IDLE: Duration = Duration::from_secs(60);
/// Revokes and renewals at once.
const KEPT: usize = 8;
