//! A real Apache with its OpenID Connect module (C, Debian's packages) that lets in whoever brings one of our assertions:
//! keys by the issuer's discovery document over TLS.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use super::{
    Client, PATIENCE,
    component::{Component, folder, free_port},
    eventually,
};

/// A running Apache; it knows no keys when it starts.
pub(crate) struct Apache {
    client: Client,
    // Stopped before its folder goes.
    _server: Component,
    _folder: TempDir,
}

impl Apache {
    /// Starts one that takes assertions of that issuer for that audience.
    pub(crate) fn trusting(issuer: &str, authority: &str, audience: &str) -> Self {
        let folder = folder("apache");
        // Started as root it serves as nobody, who must be able to enter.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        fs::write(folder.path().join("ca.pem"), authority).unwrap();
        fs::create_dir(folder.path().join("htdocs")).unwrap();
        fs::write(folder.path().join("htdocs/index.html"), "let in").unwrap();
        let configuration = folder.path().join("httpd.conf");
        fs::write(&configuration, configured(folder.path(), port, issuer, audience)).unwrap();
        let mut command = Command::new("/usr/sbin/apache2");
        // One process, which ends with the test.
        command.arg("-f").arg(&configuration).arg("-X");
        let mut server = Component::spawn("apache", &mut command, folder.path());
        let client = Client::new(SocketAddr::from(([127, 0, 0, 1], port)));
        eventually("Apache", || {
            server.check_alive();
            client.get("/").try_send().ok().map(drop)
        });
        Self { client, _server: server, _folder: folder }
    }

    /// What it answers to whoever brings that: 200 or 401.
    pub(crate) fn status(&self, assertion: &str) -> u16 {
        self.client.get("/").bearer(assertion).send().status
    }
}

fn configured(folder: &Path, port: u16, issuer: &str, audience: &str) -> String {
    let folder = folder.display();
    let modules = ["mpm_event", "authn_core", "authz_core", "authz_user", "dir", "auth_openidc"];
    let modules: String = modules
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat();
    let user = if rustix::process::geteuid().is_root() { "User nobody\nGroup nogroup\n" } else { "" };
    format!(
        "ServerRoot {folder}\nServerName 127.0.0.1\nPidFile {folder}/httpd.pid\nDefaultRuntimeDir {folder}\n\
         Mutex file:{folder}\nErrorLog {folder}/error.log\nListen 127.0.0.1:{port}\n{modules}{user}\
         StartServers 1\nThreadsPerChild 8\nMaxRequestWorkers 8\n\
         DocumentRoot {folder}/htdocs\nDirectoryIndex index.html\n\
         OIDCOAuthServerMetadataURL {issuer}/.well-known/openid-configuration\n\
         OIDCOAuthSSLValidateServer On\nOIDCCABundlePath {folder}/ca.pem\n\
         OIDCOAuthTokenExpiryClaim exp absolute mandatory\nOIDCCacheType shm\n\
         OIDCHTTPTimeoutLong {}\n\
         <Location />\n  AuthType oauth20\n  <RequireAll>\n    Require claim iss:{issuer}\n    Require claim aud:{audience}\n\
         \x20 </RequireAll>\n  OIDCOAuthAcceptTokenAs header\n</Location>\n",
        PATIENCE.as_secs()
    )
}
