//! `hallpass healthcheck`: asks `/livez`, for containers that have no other program.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use reqwest::Client;

use super::{
    config::{Config, Listen},
    exit::{Done, Exit, Failure, chain},
    process,
};

/// `healthcheck`
#[derive(Debug, clap::Args)]
pub(crate) struct Healthcheck {
    /// The broker; without it the public listener of the configuration is asked.
    #[arg(long, value_name = "URL", env = "HALLPASS_URL")]
    url: Option<String>,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// An orchestrator's own patience is seconds.
const DEADLINE: Duration = Duration::from_secs(3);

impl Healthcheck {
    /// Asks once.
    ///
    /// # Errors
    ///
    /// [`Exit::Unreachable`] where the broker is not alive.
    pub(crate) fn run(self) -> Done {
        let builder = Client::builder().no_proxy().timeout(DEADLINE);
        let (base, builder) = match &self.url {
            Some(url) => (url.trim_end_matches('/').to_owned(), builder),
            None => {
                let config = Config::load(self.config.as_deref())?;
                let scheme = if config.public.tls.is_some() { "https" } else { "http" };
                let (host, builder) = match &config.public.listen {
                    Listen::Unix(file) => ("localhost".to_owned(), builder.unix_socket(file.as_path())),
                    Listen::Tcp(address) => (reached(*address).to_string(), builder),
                };
                // To ourselves, without a secret: a certificate that lapsed or names another host says nothing about
                // whether we live, and `/livez` depends on nothing.
                (format!("{scheme}://{host}"), builder.tls_danger_accept_invalid_certs(true))
            }
        };
        let builder = if base.starts_with("http:") { builder.tls_certs_only([]) } else { builder };
        let client = builder.build().map_err(|fault| Failure::usage(chain(&fault)))?;
        let asked = async { client.get(format!("{base}/livez")).send().await };
        match process::runtime()?.block_on(asked) {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                let message = format!("{base}/livez answered {}", response.status().as_u16());
                Err(Failure::new(Exit::Unreachable, message))
            }
            Err(fault) => Err(Failure::new(Exit::Unreachable, chain(&fault))),
        }
    }
}

/// Where one's own listener is reached.
fn reached(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
