//! moto, a server in the shape of AWS: it checks nothing of what it is told, and so shows nothing but that the SDK and the
//! service's forms fit.

use std::time::Duration;

use tempfile::TempDir;

use super::{
    component::{Component, folder, free_port},
    eventually, python,
};

/// A running server.
pub(crate) struct Moto {
    pub(crate) endpoint: String,
    // Stopped before its folder goes.
    _server: Component,
    _folder: TempDir,
}

impl Moto {
    pub(crate) fn start() -> Self {
        let folder = folder("moto");
        let port = free_port();
        let mut command = python::program("moto", "moto_server");
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let mut server = Component::spawn("moto", &mut command, folder.path());
        let address = ([127, 0, 0, 1], port).into();
        eventually("moto", || {
            server.check_alive();
            std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
        });
        Self { endpoint: format!("http://127.0.0.1:{port}"), _server: server, _folder: folder }
    }
}
