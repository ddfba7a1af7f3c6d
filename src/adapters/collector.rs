//! The way to an OpenTelemetry collector (feature `otel`): OTLP's requests over our own HTTP and TLS stack, since that of
//! the exporter would be a second one. It is the operator's environment that names the collector; a proxy is not used,
//! a redirect not followed, an answer not read beyond what OTLP says in one.
//!
//! A collector that is gone is told in the log once, and once when it is back. Nothing waits for it but the exporter's
//! own thread.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::{Certificate, Client, redirect};
use tokio::runtime::Handle;

/// Sends what an exporter has to say.
#[derive(Debug)]
pub struct Collector {
    client: Client,
    /// The exporter's thread has no runtime of its own.
    runtime: Handle,
    is_lost: AtomicBool,
    /// What is sent: `spans` or `log`.
    what: &'static str,
}

/// Why there is no way to a collector.
#[derive(Debug, thiserror::Error)]
pub enum CollectorFault {
    /// The PEM holds no certificate that can be an authority.
    #[error("the certificate authorities cannot be read")]
    Authorities,
    /// The client cannot be built.
    #[error("no HTTPS client on this machine: {0}")]
    Build(#[source] reqwest::Error),
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the collector's answer is larger than {MOST_BYTES} bytes")]
    TooLarge,
    #[error("the broker is ending")]
    Ending,
}

impl Collector {
    /// A way on this runtime, within that time a request; `ca_pem` are the only authorities trusted, the system's where
    /// absent.
    ///
    /// # Errors
    ///
    /// [`CollectorFault`].
    pub fn new(
        what: &'static str,
        runtime: Handle,
        ca_pem: Option<&[u8]>,
        deadline: Duration,
    ) -> Result<Self, CollectorFault> {
        let mut client = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(deadline);
        if let Some(pem) = ca_pem {
            let authorities = Certificate::from_pem_bundle(pem).map_err(|_| CollectorFault::Authorities)?;
            if authorities.is_empty() {
                return Err(CollectorFault::Authorities);
            }
            client = client.tls_certs_only(authorities);
        }
        let client = client.build().map_err(CollectorFault::Build)?;
        Ok(Self { client, runtime, is_lost: AtomicBool::new(false), what })
    }

    /// Tells the log when a collector is lost, and when it is back.
    fn tell(&self, fault: Option<&str>) {
        let is_lost = fault.is_some();
        if self.is_lost.swap(is_lost, Ordering::Relaxed) == is_lost {
            return;
        }
        match fault {
            Some(fault) => {
                tracing::warn!(
                    fault,
                    "the collector takes no {}; what it misses meanwhile is lost",
                    self.what
                );
            }
            None => tracing::info!("the collector takes the {} again", self.what),
        }
    }
}

async fn send(client: Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut answer = client.execute(request.try_into()?).await.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(Lost::TooLarge.into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(body.into());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

impl HttpClient for Collector {
    // What `async_trait` makes of `async fn send_bytes(&self, request: Request<Bytes>)`.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let sending = self.runtime.spawn(send(self.client.clone(), request));
        Box::pin(async move {
            let answer = sending.await.unwrap_or_else(|_| Err(Lost::Ending.into()));
            match &answer {
                Ok(answer) if answer.status().is_success() => self.tell(None),
                Ok(answer) => self.tell(Some(answer.status().as_str())),
                Err(fault) => self.tell(Some(&fault.to_string())),
            }
            answer
        })
    }
}

/// OTLP answers with nothing, or with how much it did not take and why.
const MOST_BYTES: usize = 64 * 1024;
