//! The sockets that connections come from: TCP, or a unix socket for a proxy on the same machine.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::source::Network;

/// A bound socket.
pub enum Listening {
    /// TCP.
    Tcp {
        /// The socket.
        listener: TcpListener,
        /// The only peers beside this machine's own, where it is not open to all: without TLS, only trusted proxies
        /// may talk to us from elsewhere.
        only_from: Option<Vec<Network>>,
    },
    /// A unix socket. Its peers count as the loopback address.
    Unix(UnixSocket),
}

/// A unix socket with its file, which goes when it does.
pub struct UnixSocket {
    listener: UnixListener,
    file: PathBuf,
}

/// One accepted connection.
pub(super) enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

impl UnixSocket {
    /// Binds it, for its owner and group. The file of a process that is gone is replaced; one that is served, or is no
    /// socket, is not.
    ///
    /// # Errors
    ///
    /// Those of the system; `AddrInUse` where somebody serves it.
    pub fn bind(file: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(file).is_ok_and(|about| about.file_type().is_socket()) {
            if std::os::unix::net::UnixStream::connect(file).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(file)?;
        }
        let listener = UnixListener::bind(file)?;
        let socket = Self { listener, file: file.to_owned() };
        // To connect one must be able to write; the umask's usual 022 leaves that to the owner until here.
        fs::set_permissions(file, fs::Permissions::from_mode(0o660))?;
        Ok(socket)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if let Err(fault) = fs::remove_file(&self.file) {
            tracing::debug!(%fault, "the socket's file was not removed");
        }
    }
}

impl Listening {
    /// The next connection; `None` for one that may not be here.
    pub(super) async fn accept(&self) -> io::Result<Option<Accepted>> {
        match self {
            Self::Unix(socket) => Ok(Some(Accepted::Unix(socket.listener.accept().await?.0))),
            Self::Tcp { listener, only_from } => {
                let (socket, peer) = listener.accept().await?;
                let address = peer.ip().to_canonical();
                let is_welcome = is_welcome(address, only_from.as_deref());
                if !is_welcome {
                    tracing::debug!(%address, "a peer that is no trusted proxy was turned away");
                }
                Ok(is_welcome.then_some(Accepted::Tcp(socket, address)))
            }
        }
    }
}

/// Whether a peer may talk to us: anybody, or this machine itself and the networks named.
fn is_welcome(address: IpAddr, only_from: Option<&[Network]>) -> bool {
    address.is_loopback()
        || only_from.is_none_or(|networks| networks.iter().any(|network| network.contains(address)))
}

impl From<TcpListener> for Listening {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp { listener, only_from: None }
    }
}

impl Accepted {
    pub(super) fn address(&self) -> IpAddr {
        match self {
            Self::Tcp(_, address) => *address,
            Self::Unix(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_only_trusted_proxies_and_this_machine_are_let_in() {
        let proxies = [Network::parse("10.0.0.0/8").unwrap()];
        let welcome = |address: &str| is_welcome(address.parse().unwrap(), Some(&proxies));
        assert!(welcome("10.1.2.3") && welcome("127.0.0.1") && welcome("::1"));
        assert!(!welcome("192.0.2.1") && !welcome("2001:db8::1") && !welcome("11.0.0.1"));
        assert!(is_welcome("192.0.2.1".parse().unwrap(), None), "with TLS everybody is");
    }

    #[tokio::test]
    async fn socket_of_a_dead_process_is_replaced_and_a_served_one_or_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hallpass.sock");
        drop(std::os::unix::net::UnixListener::bind(&file).unwrap());
        let served = UnixSocket::bind(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(UnixSocket::bind(&file).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(served);
        assert!(!file.exists());
        fs::write(&file, "a diary").unwrap();
        assert!(UnixSocket::bind(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "a diary");
    }
}
