//! The SDK's way out: the broker's one HTTP stack, without redirects, proxies or connections that are used again, and
//! with a bound on what is read (design: P5; attack classes K-05, B-02).

use std::{error::Error, time::Duration};

use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE};
use reqwest::{Certificate, Client, redirect};

use super::{AwsSettings, probe::Reached};
use crate::adapters::http_client::read_date;

/// Sends what the SDK has made, and reads what comes back into memory.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    client: Client,
}

/// Why there is no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientFault {
    /// `ca_file` cannot be read.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        why: String,
    },
    /// `ca_file` holds no certificate that can be an authority.
    #[error("{0} holds no certificate that can be an authority")]
    Pem(String),
    /// The client cannot be built: as a rule this machine has no certificate authorities.
    #[error("no HTTPS client on this machine; name the authorities by `ca_file`")]
    Build,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireFault {
    /// Sent, and not answered in time.
    #[error("no answer in time")]
    Late,
    /// The answer is larger than any of this service's, or compressed.
    #[error("the answer is none of this service's")]
    TooLarge,
    /// Sent, perhaps in part, and the connection broke.
    #[error("the connection broke")]
    Torn,
    /// There was no connection, so nothing was sent.
    #[error("no connection")]
    Unconnected,
}

impl WireFault {
    /// The one that a chain of errors began with.
    pub(super) fn within(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(fault) = error.downcast_ref::<Self>() {
                return Some(*fault);
            }
            next = error.source();
        }
        None
    }

    fn of(error: &reqwest::Error) -> Self {
        if error.is_connect() || error.is_builder() {
            Self::Unconnected
        } else if error.is_timeout() {
            Self::Late
        } else {
            Self::Torn
        }
    }
}

impl Wire {
    /// For the service itself.
    pub(super) fn new(settings: &AwsSettings) -> Result<Self, ClientFault> {
        let is_plain = settings.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let authorities = match &settings.ca_file {
            // Plain loopback needs none, and a machine without authorities must not stop it.
            None if is_plain => Some(Vec::new()),
            None => None,
            Some(path) => {
                let shown = path.display().to_string();
                let pem = std::fs::read(path)
                    .map_err(|fault| ClientFault::File { path: shown.clone(), why: fault.to_string() })?;
                let read = Certificate::from_pem_bundle(&pem).ok().filter(|read| !read.is_empty());
                Some(read.ok_or(ClientFault::Pem(shown))?)
            }
        };
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .connect_timeout(settings.timeout.min(CONNECT))
            .timeout(settings.timeout)
            // A connection that brought a secret is not used again.
            .pool_max_idle_per_host(0);
        if let Some(authorities) = authorities {
            builder = builder.tls_certs_only(authorities);
        }
        Ok(Self { client: builder.build().map_err(|_| ClientFault::Build)? })
    }

    /// A call that nobody signed, for the status and the date of its answer.
    pub(super) async fn knock(&self, address: &str) -> Result<Reached, reqwest::Error> {
        let form = "Action=GetCallerIdentity&Version=2011-06-15";
        let asked = self.client.post(address).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = asked.body(form).send().await?;
        let date = answer.headers().get(DATE).and_then(|date| read_date(date.to_str().ok()?));
        Ok(Reached { status: answer.status().as_u16(), date })
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, WireFault> {
        let (parts, body) = request.try_into_http1x().map_err(|_| WireFault::Unconnected)?.into_parts();
        // The service takes forms only, and the SDK holds them whole.
        let body = body.bytes().ok_or(WireFault::Unconnected)?.to_vec();
        let asked =
            self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
        let mut answer = asked.send().await.map_err(|error| WireFault::of(&error))?;
        if answer.headers().get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
            return Err(WireFault::TooLarge);
        }
        // Set aside at once, so that no shorter copy is left behind.
        let mut read = Vec::with_capacity(MOST_BYTES);
        while let Some(chunk) = answer.chunk().await.map_err(|error| WireFault::of(&error))? {
            if read.len().saturating_add(chunk.len()) > MOST_BYTES {
                return Err(WireFault::TooLarge);
            }
            read.extend_from_slice(&chunk);
        }
        let mut building = http::Response::builder().status(answer.status());
        if let Some(headers) = building.headers_mut() {
            headers.extend(answer.headers().clone());
        }
        let whole = building.body(SdkBody::from(read)).map_err(|_| WireFault::Torn)?;
        HttpResponse::try_from(whole).map_err(|_| WireFault::Torn)
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let sending = self.clone().send(request);
        HttpConnectorFuture::new(async move {
            sending.await.map_err(|fault| match fault {
                WireFault::Late => ConnectorError::timeout(fault.into()),
                WireFault::TooLarge | WireFault::Torn => ConnectorError::io(fault.into()),
                WireFault::Unconnected => ConnectorError::io(fault.into()).never_connected(),
            })
        })
    }
}

impl HttpClient for Wire {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// A session is 2 kB as a rule; tokens grow, and nothing says how far.
const MOST_BYTES: usize = 64 * 1024;
/// As the SDK itself sets it, rounded.
const CONNECT: Duration = Duration::from_secs(3);
