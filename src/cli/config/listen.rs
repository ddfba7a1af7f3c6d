//! `public` and `admin`: where we listen, and what clients see.

use std::net::SocketAddr;

use reqwest::Url;

use super::{
    AdminTokenFile, Listen, Listener, NamedFile, TlsFiles,
    environment::{ADMIN_LISTEN, Environment, PUBLIC_LISTEN, PUBLIC_URL},
    read::Folder,
};
use crate::{
    http::{Network, Role},
    kernel::{
        name::is_name,
        policy::{
            Finding, Severity,
            yaml::{Content, Fields, Findings, Node, nearest},
        },
    },
};

/// The default ports (contract: section 9).
const PUBLIC_PORT: u16 = 8440;
const ADMIN_PORT: u16 = 8441;

pub(super) fn public(
    findings: &mut Findings<'_>,
    node: &Node,
    folder: &Folder,
    environment: &Environment,
) -> Option<(Listener, String)> {
    let mut fields = findings.fields(node)?;
    let proxies = fields.take("trusted_proxies").map(|node| networks(findings, node));
    let proxies = proxies.unwrap_or_else(|| Some(Vec::new()));
    let at = (environment, PUBLIC_LISTEN, PUBLIC_PORT);
    let listener = listener(findings, &mut fields, folder, at, proxies);
    let field =
        if environment.has(PUBLIC_URL) { fields.take("url") } else { fields.require(findings, "url") };
    let url = environment.or(findings, PUBLIC_URL, field, web_address);
    fields.finish(findings);
    Some((listener?, url?))
}

pub(super) fn admin(
    findings: &mut Findings<'_>,
    node: Option<&Node>,
    folder: &Folder,
    environment: &Environment,
) -> Option<(Listener, Vec<AdminTokenFile>)> {
    let Some(node) = node else {
        let listen =
            environment.or(findings, ADMIN_LISTEN, None, |findings, node| place(findings, node, folder));
        let listen = if environment.has(ADMIN_LISTEN) { listen? } else { loopback(ADMIN_PORT) };
        return Some((Listener { listen, tls: None, trusted_proxies: Vec::new() }, Vec::new()));
    };
    let mut fields = findings.fields(node)?;
    let at = (environment, ADMIN_LISTEN, ADMIN_PORT);
    let listener = listener(findings, &mut fields, folder, at, Some(Vec::new()));
    let tokens = fields.take("tokens").map(|node| tokens(findings, node, folder));
    fields.finish(findings);
    Some((listener?, tokens.unwrap_or_else(|| Some(Vec::new()))?))
}

fn listener(
    findings: &mut Findings<'_>,
    fields: &mut Fields<'_>,
    folder: &Folder,
    (environment, variable, port): (&Environment, &'static str, u16),
    trusted_proxies: Option<Vec<Network>>,
) -> Option<Listener> {
    let node = fields.take("listen");
    let listen = match node {
        None if !environment.has(variable) => Some(loopback(port)),
        Some(_) | None => {
            environment.or(findings, variable, node, |findings, node| place(findings, node, folder))
        }
    };
    let tls = fields.take("tls");
    let tls_files = tls.map(|node| tls_files(findings, node, folder));
    let listen = listen?;
    let trusted_proxies = trusted_proxies?;
    if tls.is_none() && !listen.is_local() && trusted_proxies.is_empty() {
        let message = format!("{listen} is not on loopback, and without tls tokens would pass in the clear");
        let remedy = "add `tls: { certificate: …, key: … }`, or listen on 127.0.0.1";
        match node.filter(|_| !environment.has(variable)) {
            Some(node) => findings.at(node, "tls-due", message, remedy),
            None => findings.list.push(Finding {
                file: variable.to_owned(),
                line: 1,
                column: 1,
                width: 0,
                severity: Severity::Error,
                code: "tls-due",
                message,
                remedy: remedy.to_owned(),
            }),
        }
    }
    let tls = tls_files.map_or(Some(None), |files| files.map(Some))?;
    Some(Listener { listen, tls, trusted_proxies })
}

fn loopback(port: u16) -> Listen {
    Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn networks(findings: &mut Findings<'_>, node: &Node) -> Option<Vec<Network>> {
    let items = findings.list(node)?;
    if items.is_empty() {
        findings.at(node, "empty", "no proxy is named", "name networks, such as 10.0.0.0/8, or leave it out");
        return None;
    }
    let networks: Vec<Option<Network>> = items
        .iter()
        .map(|item| {
            let text = findings.filled(item)?;
            let network = Network::parse(text);
            if network.is_none() {
                let remedy =
                    "write an address, or a network without bits beyond its prefix, such as 10.0.0.0/8";
                findings.at(item, "network", format!("`{text}` is no network"), remedy);
            }
            network
        })
        .collect();
    networks.into_iter().collect()
}

/// Plain or quoted: YAML 1.1 would read `127.0.0.1:8440` as a number of base 60, but here it can mean one thing only.
fn place(findings: &mut Findings<'_>, node: &Node, folder: &Folder) -> Option<Listen> {
    let text = match &node.content {
        Content::Plain(text) | Content::Quoted(text) => text.as_str(),
        Content::Mapping(_) | Content::Sequence(_) => findings.filled(node)?,
    };
    if let Some(file) = text.strip_prefix("unix:") {
        // The kernel's own bound, its final NUL included (unix(7)).
        let file = folder.join(file);
        if text == "unix:" || file.as_os_str().len() >= 108 {
            let remedy = "name a file by at most 107 bytes, such as unix:/run/hallpass.sock";
            findings.at(node, "address", format!("`{text}` is no place for a unix socket"), remedy);
            return None;
        }
        return Some(Listen::Unix(file));
    }
    let address = text.parse();
    if address.is_err() {
        let remedy = "write a literal address and a port, such as 127.0.0.1:8440 or [::1]:8440, or unix:/run/hallpass.sock";
        findings.at(node, "address", format!("`{text}` is no address to listen on"), remedy);
    }
    address.ok().map(Listen::Tcp)
}

/// An address that others use: https, or http on loopback for a try on one machine.
pub(super) fn web_address(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = findings.filled(node)?;
    let parsed = Url::parse(text).ok().filter(|_| !text.contains(|letter: char| letter.is_whitespace()));
    let fault = match &parsed {
        None => Some("is not a URL"),
        Some(url) if !is_secure(url) => Some("is neither https nor http on a loopback address"),
        Some(url) if !url.username().is_empty() || url.password().is_some() => Some("names a user"),
        Some(url) if url.query().is_some() || url.fragment().is_some() => Some("has a query or a fragment"),
        Some(_) => None,
    };
    match fault {
        None => Some(text.to_owned()),
        Some(fault) => {
            let remedy = "write it as https://hallpass.example.com";
            findings.at(node, "url", format!("`{text}` {fault}"), remedy);
            None
        }
    }
}

/// Whether what is sent there cannot be read on the way.
pub(in crate::cli) fn is_secure(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => !host.is_empty(),
        "http" => is_loopback || host == "localhost",
        _ => false,
    }
}

fn tls_files(findings: &mut Findings<'_>, node: &Node, folder: &Folder) -> Option<TlsFiles> {
    let mut fields = findings.fields(node)?;
    let certificate = fields.require(findings, "certificate");
    let key = fields.require(findings, "key");
    fields.finish(findings);
    let certificate = folder.file(findings, certificate?);
    Some(TlsFiles { certificate: certificate?, key: folder.file(findings, key?)? })
}

fn tokens(findings: &mut Findings<'_>, node: &Node, folder: &Folder) -> Option<Vec<AdminTokenFile>> {
    let mut tokens: Vec<AdminTokenFile> = Vec::new();
    let mut all_read = true;
    for item in findings.list(node)? {
        match token(findings, item, folder) {
            Some(token) if tokens.iter().any(|other| other.name == token.name) => {
                let message = format!("the token `{}` is named twice", token.name);
                findings.at(item, "duplicate-name", message, "give each its own name");
            }
            Some(token) => tokens.push(token),
            None => all_read = false,
        }
    }
    all_read.then_some(tokens)
}

fn token(findings: &mut Findings<'_>, node: &Node, folder: &Folder) -> Option<AdminTokenFile> {
    let mut fields = findings.fields(node)?;
    let name = fields.require(findings, "name").and_then(|node| name(findings, node));
    let roles = fields.require(findings, "roles").and_then(|node| roles(findings, node));
    let file: Option<NamedFile> =
        fields.require(findings, "file").and_then(|node| folder.file(findings, node));
    fields.finish(findings);
    Some(AdminTokenFile { name: name?, roles: roles?, file: file? })
}

fn name(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = findings.filled(node)?;
    if is_name(text) {
        return Some(text.to_owned());
    }
    let remedy = "write 1 to 63 of a-z, 0-9 and -, no - at an end";
    findings.at(node, "name", format!("`{text}` is no name"), remedy);
    None
}

fn roles(findings: &mut Findings<'_>, node: &Node) -> Option<Vec<Role>> {
    let items = findings.list(node)?;
    if items.is_empty() {
        findings.at(node, "empty", "a token without roles can do nothing", "name a role, such as auditor");
        return None;
    }
    let roles: Vec<Option<Role>> = items.iter().map(|item| role(findings, item)).collect();
    roles.into_iter().collect()
}

fn role(findings: &mut Findings<'_>, node: &Node) -> Option<Role> {
    let text = findings.filled(node)?;
    let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
    if found.is_none() {
        let known = || Role::ALL.iter().map(|role| role.as_str());
        let remedy = nearest(text, known()).map_or_else(
            || format!("known here: {}", known().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        findings.at(node, "unknown-role", format!("there is no role `{text}`"), remedy);
    }
    found
}
