//! A forward proxy: `CONNECT` (RFC 9110 section 9.3.6) to the places that it is told of, and a record of what it was
//! asked.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::runtime;

/// A running proxy; it lives until the process ends.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one that leads `host:port` to an address, and refuses every other place.
    pub(crate) fn to(places: &[(&str, SocketAddr)]) -> Self {
        let places: Arc<BTreeMap<String, SocketAddr>> =
            Arc::new(places.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::clone(&heads);
        runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (places, seen) = (Arc::clone(&places), Arc::clone(&seen));
                tokio::spawn(async move { serve(stream, &places, &seen).await });
            }
        });
        Self { address, heads }
    }

    /// The heads of all requests that it got.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Serves one connection; `None` where the client went away.
async fn serve(
    mut client: TcpStream,
    places: &BTreeMap<String, SocketAddr>,
    seen: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    seen.lock().unwrap().push(head.clone());
    let mut words = head.split(' ');
    let place =
        (words.next() == Some("CONNECT")).then(|| words.next()).flatten().and_then(|name| places.get(name));
    let Some(place) = place else {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.ok();
    };
    let mut server = TcpStream::connect(place).await.ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    // It ends when either end does.
    copy_bidirectional(&mut client, &mut server).await.ok();
    Some(())
}
