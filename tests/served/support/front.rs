//! TLS in front of a listener on loopback, as a proxy or a CDN stands there: verifiers that insist on https reach our
//! issuer at a URL that is known before the broker starts.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use super::{authority::Authority, runtime};

/// A running front; it lives until the process ends.
pub(crate) struct Front {
    /// Its URL, without a slash.
    pub(crate) url: String,
    /// The authority that vouches for it, as PEM.
    pub(crate) authority: String,
    behind: Arc<Mutex<Option<SocketAddr>>>,
}

impl Front {
    pub(crate) fn start() -> Self {
        let authority = Authority::new();
        let acceptor = authority.certify_loopback().acceptor();
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let behind: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let found = Arc::clone(&behind);
        runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, to) = (acceptor.clone(), *found.lock().unwrap());
                tokio::spawn(async move {
                    // Whoever gives up on either side is that side's own business.
                    if let (Ok(mut client), Some(to)) = (acceptor.accept(stream).await, to)
                        && let Ok(mut server) = TcpStream::connect(to).await
                    {
                        copy_bidirectional(&mut client, &mut server).await.ok();
                    }
                });
            }
        });
        Self { url, authority: authority.certificate, behind }
    }

    /// Leads to that address from now on.
    pub(crate) fn lead_to(&self, address: SocketAddr) {
        *self.behind.lock().unwrap() = Some(address);
    }
}
