//! The broker's own fetches: small documents from places that the operator's configuration names.
//!
//! It never follows a redirect, never uses a proxy from the environment, never connects to an address that is not
//! public unless the configuration allows it, and never reads more than it was told to expect (attack classes K-01,
//! K-04, K-05, K-08). It asks for no compression and takes none, so that what was read is what was sent. The address
//! that is checked is the address that is connected to: the check stands in the resolver, so that a second DNS answer
//! cannot slip in between. Other adapters use it as their one way out.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    Certificate, Client, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{AGE, CACHE_CONTROL, CONTENT_ENCODING, DATE, HeaderMap},
    redirect,
};

/// What a client may reach, and how it knows whom it reached.
#[derive(Clone, Copy)]
pub struct Reach<'a> {
    /// The only authorities trusted, as PEM; the system's where absent.
    pub ca_pem: Option<&'a [u8]>,
    /// Whether addresses of private networks and of this machine may be connected to, and plain `http` to a
    /// literal loopback address.
    pub allow_private_addresses: bool,
    /// How long one fetch may take.
    pub deadline: Duration,
}

/// Fetches documents within one [`Reach`].
pub struct HttpClient {
    client: Client,
    addresses: Addresses,
}

/// What was fetched.
#[derive(Debug)]
pub struct Document {
    /// Its bytes.
    pub body: Vec<u8>,
    /// For how long the answer says that it stays true (RFC 9111 section 4.2); absent where it does not say.
    pub max_age: Option<Duration>,
    /// The sender's clock (RFC 9110 section 6.6.1), to the second; absent where it does not say.
    pub date: Option<Timestamp>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientFault {
    /// The PEM holds no certificate that can be an authority.
    #[error("the certificate authorities cannot be read")]
    Authorities,
    /// The client cannot be built: as a rule this machine has no certificate authorities.
    #[error("no HTTPS client on this machine: {0}")]
    Build(String),
}

/// Why there is no document. Its text names no content of an answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchFault {
    /// The host has no address that may be connected to.
    #[error(
        "no address of its host may be connected to: private ones need allow_private_addresses, and link-local and \
         metadata ones are never"
    )]
    Address,
    /// The body is compressed, which nobody asked for.
    #[error("the answer is compressed, which was not asked for")]
    Encoded,
    /// No answer within the deadline.
    #[error("no answer in time")]
    Late,
    /// Another status than 200; redirects among them.
    #[error("the answer has status {0}")]
    Status(u16),
    /// More bytes than a document of this kind has.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// No connection, no TLS, or a broken answer.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
}

/// Why an address in configuration or in a fetched document is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlFault(pub &'static str);

impl HttpClient {
    /// Builds the client.
    ///
    /// # Errors
    ///
    /// [`ClientFault`] where the authorities cannot be read, or the system has none.
    pub fn new(reach: Reach<'_>) -> Result<Self, ClientFault> {
        let addresses = if reach.allow_private_addresses { Addresses::Private } else { Addresses::Public };
        let authorities = match reach.ca_pem {
            None => None,
            Some(pem) => {
                let authorities = Certificate::from_pem_bundle(pem).map_err(|_| ClientFault::Authorities)?;
                if authorities.is_empty() {
                    return Err(ClientFault::Authorities);
                }
                Some(authorities)
            }
        };
        Self::build(addresses, Lookup::System, authorities, reach.deadline)
    }

    /// Builds a client for plain `http` to loopback: it trusts no authority, and so needs none on this machine.
    ///
    /// # Errors
    ///
    /// [`ClientFault::Build`] where the client cannot be set up at all.
    pub fn loopback(deadline: Duration) -> Result<Self, ClientFault> {
        Self::build(Addresses::Private, Lookup::System, Some(Vec::new()), deadline)
    }

    fn build(
        addresses: Addresses,
        lookup: Lookup,
        authorities: Option<Vec<Certificate>>,
        deadline: Duration,
    ) -> Result<Self, ClientFault> {
        let builder = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("hallpass/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Resolver { addresses, lookup }))
            .timeout(deadline)
            // Fetches are minutes apart: a kept connection would only be found dead.
            .pool_max_idle_per_host(0);
        let builder = match authorities {
            None => builder,
            Some(authorities) => builder.tls_certs_only(authorities),
        };
        let client = builder.build().map_err(|error| ClientFault::Build(chain(&error)))?;
        Ok(Self { client, addresses })
    }

    /// Fetches a document of at most so many bytes.
    ///
    /// # Errors
    ///
    /// [`FetchFault`]; nothing but status 200 is an answer.
    pub async fn fetch(&self, url: &Url, most_bytes: usize) -> Result<Document, FetchFault> {
        // Literal addresses do not pass the resolver.
        if literal(url).is_some_and(|address| !self.addresses.include(address)) {
            return Err(FetchFault::Address);
        }
        let mut response = self.client.get(url.clone()).send().await.map_err(fault)?;
        if response.status() != StatusCode::OK {
            return Err(FetchFault::Status(response.status().as_u16()));
        }
        if response.headers().get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
            return Err(FetchFault::Encoded);
        }
        let max_age = read_max_age(response.headers());
        let date = response.headers().get(DATE).and_then(|date| read_date(date.to_str().ok()?));
        if response
            .content_length()
            .is_some_and(|bytes| usize::try_from(bytes).is_ok_and(|bytes| bytes > most_bytes))
        {
            return Err(FetchFault::TooLarge(most_bytes));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(fault)? {
            if body.len().saturating_add(chunk.len()) > most_bytes {
                return Err(FetchFault::TooLarge(most_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Document { body, max_age, date })
    }
}

/// Reads an address that may be fetched: https, or http to a literal loopback address where private addresses are
/// allowed; no user, no fragment, nothing that a parser would silently take away.
///
/// # Errors
///
/// [`UrlFault`] with what is wrong.
pub fn read_url(text: &str, allow_private_addresses: bool) -> Result<Url, UrlFault> {
    if text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return Err(UrlFault("the address holds spaces or control characters"));
    }
    let url = Url::parse(text).map_err(|_| UrlFault("the address is not a URL"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(UrlFault("the address names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(UrlFault("the address holds a user or a fragment"));
    }
    let is_loopback = || literal(&url).is_some_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if allow_private_addresses && is_loopback() => Ok(url),
        "http" => Err(UrlFault(
            "http is for a literal loopback address only, with allow_private_addresses: true; use https",
        )),
        _ => Err(UrlFault("the address is not https")),
    }
}

/// The least that `Cache-Control` says, minus the time that the answer spent in caches. What says not to store or not
/// to use without asking, or says it wrongly, is good for no time at all (RFC 9111 sections 4.2.1 and 5.2.2).
fn read_max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut least: Option<u64> = None;
    for line in headers.get_all(CACHE_CONTROL) {
        for directive in line.to_str().unwrap_or("no-cache").split(',') {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = match name.trim().to_ascii_lowercase().as_str() {
                "max-age" => value.trim().trim_matches('"').parse().unwrap_or(0),
                "no-cache" | "no-store" => 0,
                _ => continue,
            };
            least = Some(least.map_or(seconds, |least| least.min(seconds)));
        }
    }
    let age =
        headers.get(AGE).map_or(0, |age| age.to_str().ok().and_then(|age| age.parse().ok()).unwrap_or(0));
    least.map(|seconds| Duration::from_secs(seconds.saturating_sub(age)))
}

/// A date as HTTP writes it; RFC 2822's form is the same for `GMT`.
pub(super) fn read_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// The host, where it is a literal address.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Which addresses may be connected to.
#[derive(Clone, Copy)]
enum Addresses {
    /// Those of private networks and of this machine, too.
    Private,
    /// Those that the whole internet reaches.
    Public,
}

impl Addresses {
    fn include(self, address: IpAddr) -> bool {
        let address = embedded_v4(address).map_or(address, IpAddr::V4);
        if METADATA.contains(&address) {
            return false;
        }
        match self {
            Self::Private => is_public(address) || is_private(address),
            Self::Public => is_public(address),
        }
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped (RFC 4291 section 2.5.5.2) or NAT64 (RFC 6052), where
/// the packet ends at the IPv4 host.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, e, f, high, low] = address.segments();
    let v4 = || Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    matches!([a, b, c, d, e, f], [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0]).then(v4)
}

/// Whether an address is globally reachable by the IANA special-purpose registries (read in November 2026);
/// tunnels (6to4, Teredo) are not, since they hide an IPv4 address.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            let special = matches!(
                (a, b, c),
                (0 | 10 | 127 | 224.., ..)
                    | (100, 64..=127, _)
                    | (169, 254, _)
                    | (172, 16..=31, _)
                    | (192, 168, _)
                    | (192, 0, 0 | 2)
                    | (192, 88, 99)
                    | (198, 18 | 19, _)
                    | (198, 51, 100)
                    | (203, 0, 113)
            );
            !special
        }
        IpAddr::V6(address) => {
            let [a, b, ..] = address.segments();
            let special = matches!((a, b), (0x2001, 0..=0x1ff | 0xdb8) | (0x2002, _) | (0x3fff, 0..=0xfff));
            (0x2000..=0x3fff).contains(&a) && !special
        }
    }
}

/// Whether an address is of a private network or of this machine. Link-local ones are not: no issuer lives there,
/// but clouds' metadata services do.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let shared = matches!(address.octets(), [100, 64..=127, ..]);
            address.is_loopback() || address.is_private() || shared
        }
        IpAddr::V6(address) => address == Ipv6Addr::LOCALHOST || address.is_unique_local(),
    }
}

/// Clouds' metadata services that live where `is_private` or `is_public` would allow them; whoever reaches one gets
/// the machine's own credentials (vendors' documentation, read in November 2026).
const METADATA: [IpAddr; 4] = [
    // Alibaba Cloud.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Azure's "wire server".
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // AWS.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    // Google Cloud.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Resolves, and keeps the addresses that may be connected to.
struct Resolver {
    addresses: Addresses,
    lookup: Lookup,
}

/// Who knows the addresses of a name.
#[derive(Clone)]
enum Lookup {
    /// A resolver of a test, which answers something else each time.
    #[cfg(test)]
    Answers(Arc<std::sync::Mutex<Vec<Vec<SocketAddr>>>>),
    /// The system.
    System,
}

impl Lookup {
    async fn all(self, name: Name) -> std::io::Result<Vec<SocketAddr>> {
        match self {
            #[cfg(test)]
            Self::Answers(answers) => Ok(answers.lock().unwrap().pop().unwrap()),
            Self::System => Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no address of this host may be connected to")]
struct NoAddress;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (addresses, lookup) = (self.addresses, self.lookup.clone());
        Box::pin(async move {
            let mut kept = lookup.all(name).await?;
            kept.retain(|address| addresses.include(address.ip()));
            if kept.is_empty() {
                return Err(NoAddress.into());
            }
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

fn fault(error: reqwest::Error) -> FetchFault {
    let mut source: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if cause.is::<NoAddress>() {
            return FetchFault::Address;
        }
        source = cause.source();
    }
    if error.is_timeout() { FetchFault::Late } else { FetchFault::Unreachable(chain(&error.without_url())) }
}

/// The last cause of an error: what an operator can act on (`connection refused`, `invalid peer certificate`).
fn chain(error: &reqwest::Error) -> String {
    let mut last: &dyn Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        Addresses::Public.include(text.parse().unwrap())
    }

    fn private(text: &str) -> bool {
        Addresses::Private.include(text.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_reached_either_way() {
        for text in
            ["1.1.1.1", "140.82.121.4", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::8c52:7904"]
        {
            assert!(public(text) && private(text), "{text}");
        }
    }

    #[test]
    fn private_addresses_are_reached_only_where_allowed() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
        ] {
            assert!(!public(text) && private(text), "{text}");
        }
    }

    #[test]
    fn special_addresses_are_never_reached() {
        for text in [
            "0.0.0.0",
            "169.254.169.254",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "64:ff9b:1::7f00:1",
            "64:ff9b:1:a9fe:a9:fe00::",
            "fec0::1",
            "fe80::a9fe:a9fe",
            "100.100.100.200",
            "::ffff:100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd20:ce::254",
            "239.255.255.250",
            "240.0.0.1",
            "::ffff:0.0.0.0",
            "::ffff:255.255.255.255",
            "::a9fe:a9fe",
            "2001:0:7f00:1::",
            "100::1",
            "5f00::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::127.0.0.1",
        ] {
            assert!(!public(text) && !private(text), "{text}");
        }
    }

    #[test]
    fn addresses_in_configuration_are_https_or_literal_loopback() {
        for text in ["https://issuer.test", "https://issuer.test:8443/a?b=c", "https://10.0.0.1"] {
            assert!(read_url(text, false).is_ok(), "{text}");
        }
        for text in ["http://127.0.0.1:8080", "http://[::1]:8080/x"] {
            assert!(read_url(text, true).is_ok(), "{text}");
            assert!(read_url(text, false).is_err(), "{text}");
        }
        for text in [
            "http://localhost:8080",
            "http://10.0.0.1",
            "http://127.0.0.1.evil.test",
            "ftp://issuer.test",
            "issuer.test",
            "https://",
            "https://user@issuer.test",
            "https://issuer.test#x",
            "https://issuer.test\n",
            " https://issuer.test",
            "file:///etc/passwd",
        ] {
            assert!(read_url(text, true).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn names_and_literals_of_private_addresses_are_refused_without_a_packet() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let deadline = Duration::from_secs(5);
        let pem = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        let reach = Reach { ca_pem: Some(pem.as_bytes()), allow_private_addresses: false, deadline };
        let client = HttpClient::new(reach).unwrap();
        for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
            let url = Url::parse(&format!("https://{host}:{port}/")).unwrap();
            let fault = client.fetch(&url, 1024).await.unwrap_err();
            assert!(matches!(fault, FetchFault::Address), "{host}: {fault}");
        }
        assert!(listener.accept().is_err(), "a connection came");
    }

    /// A client that may reach private addresses, and hears these answers for any name, the last one first.
    fn with_answers(addresses: Addresses, answers: &[&[&str]]) -> HttpClient {
        let read = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
        let answers = answers.iter().map(|answer| answer.iter().map(read).collect()).collect();
        let lookup = Lookup::Answers(Arc::new(std::sync::Mutex::new(answers)));
        HttpClient::build(addresses, lookup, Some(Vec::new()), Duration::from_secs(5)).unwrap()
    }

    /// Answers every request, and counts connections.
    fn counting_server() -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let mut stream = stream.unwrap();
                let read = stream.read(&mut [0; 4096]).unwrap();
                assert!(read > 0);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                    .unwrap();
            }
        });
        (port, count)
    }

    #[tokio::test]
    async fn of_the_addresses_of_a_name_only_checked_ones_are_connected_to() {
        let (port, count) = counting_server();
        let url = Url::parse(&format!("http://issuer.test:{port}/")).unwrap();
        let connections = || count.load(std::sync::atomic::Ordering::SeqCst);

        // A name with private and forbidden addresses, among them the metadata service under four disguises.
        let mixed: &[&str] = &[
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "127.0.0.1",
            "::",
        ];
        let document = with_answers(Addresses::Private, &[mixed]).fetch(&url, 1024).await.unwrap();
        assert_eq!((document.body.as_slice(), connections()), (b"ok".as_slice(), 1));

        // The same where only public addresses may be connected to.
        for answer in [mixed, &["127.0.0.1"], &["::1", "10.0.0.1"], &["::ffff:127.0.0.1", "64:ff9b::7f00:1"]]
        {
            let fault = with_answers(Addresses::Public, &[answer]).fetch(&url, 1024).await.err().unwrap();
            assert!(matches!(fault, FetchFault::Address), "{answer:?}: {fault}");
        }
        assert_eq!(connections(), 1, "a connection came");
    }

    #[tokio::test]
    async fn a_second_answer_for_a_name_is_checked_like_the_first() {
        let (port, count) = counting_server();
        let url = Url::parse(&format!("http://issuer.test:{port}/")).unwrap();
        let client =
            with_answers(Addresses::Private, &[&["127.0.0.1"], &["169.254.169.254"], &["127.0.0.1"]]);

        assert!(client.fetch(&url, 1024).await.is_ok());
        assert!(matches!(client.fetch(&url, 1024).await, Err(FetchFault::Address)));
        assert!(client.fetch(&url, 1024).await.is_ok());

        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 2);
    }

    #[test]
    fn public_addresses_of_a_name_are_kept_and_private_ones_beside_them_are_not() {
        let lookup = |answer: &[&str]| {
            let read = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
            Lookup::Answers(Arc::new(std::sync::Mutex::new(vec![answer.iter().map(read).collect()])))
        };
        let resolver = Resolver {
            addresses: Addresses::Public,
            lookup: lookup(&["10.0.0.1", "140.82.121.4", "127.0.0.1", "2606:4700::1111", "fd00::1"]),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let kept = runtime.block_on(resolver.resolve("issuer.test".parse().unwrap())).unwrap();
        let kept: Vec<String> = kept.map(|address| address.ip().to_string()).collect();
        assert_eq!(kept, ["140.82.121.4", "2606:4700::1111"]);
    }

    #[test]
    fn a_document_is_good_for_as_long_as_its_answer_says() {
        let read = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            read_max_age(&map).map(|age| age.as_secs())
        };
        let said = |value: &str| read(&[("cache-control", value)]);
        assert_eq!(read(&[]), None);
        assert_eq!(said("public"), None);
        assert_eq!(said("max-age=3600"), Some(3600));
        assert_eq!(said("Public, MAX-AGE=60 , must-revalidate"), Some(60));
        assert_eq!(said("max-age=\"90\""), Some(90));
        assert_eq!(said("max-age=0, private"), Some(0));
        assert_eq!(said("no-store, max-age=600"), Some(0));
        assert_eq!(said("no-cache"), Some(0));
        for wrong in ["max-age", "max-age=", "max-age=-1", "max-age=1e3", "max-age=99999999999999999999"] {
            assert_eq!(said(wrong), Some(0), "{wrong}");
        }
        assert_eq!(read(&[("cache-control", "max-age=300"), ("cache-control", "max-age=60")]), Some(60));
        assert_eq!(read(&[("cache-control", "max-age=300"), ("age", "200")]), Some(100));
        assert_eq!(read(&[("cache-control", "max-age=300"), ("age", "900")]), Some(0));
    }

    #[test]
    fn refuses_authorities_that_are_none() {
        let deadline = Duration::from_secs(5);
        for pem in ["", "not PEM"] {
            let reach = Reach { ca_pem: Some(pem.as_bytes()), allow_private_addresses: false, deadline };
            assert!(matches!(HttpClient::new(reach), Err(ClientFault::Authorities)), "{pem}");
        }
    }
}
