//! `backends`: the connections that mint credentials, and how the broker logs in at each.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{NamedFile, aws, read::Folder};
use crate::{
    adapters::{
        http_client::read_url,
        mint::{AwsSettings, aws::Way},
        vault::{Login, Settings, TlsFiles, VaultPath},
    },
    kernel::{
        name::is_name,
        policy::{
            target::Kind,
            yaml::{Content, Fields, Findings, Key, Node},
        },
    },
};

/// One configured connection.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// AWS STS.
    Aws {
        /// What it is.
        settings: Box<AwsSettings>,
        /// Where the configuration names it.
        place: NamedFile,
    },
    /// A Vault or OpenBao.
    Vault {
        /// What it is.
        settings: Box<Settings>,
        /// Where the configuration names it.
        place: NamedFile,
    },
}

impl Backend {
    /// The kind of credential that it makes.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Aws { .. } => Kind::Aws,
            Self::Vault { .. } => Kind::Vault,
        }
    }
}

pub(super) fn read_all(
    findings: &mut Findings<'_>,
    node: &Node,
    folder: &Folder,
) -> Option<BTreeMap<String, Backend>> {
    let mut backends = BTreeMap::new();
    for (key, node) in findings.fields(node)?.rest() {
        if !is_name(&key.text) {
            let remedy = "write 1 to 63 of a-z, 0-9 and -, no - at an end";
            findings.at_key(key, "name", format!("`{}` is no name", key.text), remedy);
        }
        if let Some(backend) = read(findings, (key, node), folder) {
            backends.insert(key.text.clone(), backend);
        }
    }
    Some(backends)
}

/// Refuses assertions for this broker itself, under any of its names: they are never signed.
pub(super) fn not_for_ourselves<'a>(
    findings: &mut Findings<'_>,
    backends: impl Iterator<Item = &'a BTreeMap<String, Backend>>,
    names: impl Iterator<Item = &'a str> + Clone,
) {
    let plain = |url: &str| url.trim_end_matches('/').to_ascii_lowercase();
    for backend in backends.flat_map(BTreeMap::values) {
        let Backend::Aws { settings, place } = backend else { continue };
        let Way::WebIdentity { audience } = &settings.way else { continue };
        if names.clone().any(|ours| plain(ours) == plain(audience)) {
            let message = format!("`audience: {audience}` of `{}` is this broker itself", settings.name);
            let remedy = "name a client id of the provider in AWS, or leave it out: sts.amazonaws.com";
            findings.list.push(place.finding("aws-audience", message, remedy));
        }
    }
}

fn read(findings: &mut Findings<'_>, (key, node): (&Key, &Node), folder: &Folder) -> Option<Backend> {
    let mut fields = findings.fields(node)?;
    let kinds = KINDS.map(|kind| (kind, fields.take_entry(kind)));
    let is_empty = fields.is_empty();
    fields.finish(findings);
    let mut given = kinds.into_iter().filter_map(|(kind, entry)| Some((kind, entry?)));
    let (kind, (at, node)) = match (given.next(), given.next()) {
        (Some(one), None) => one,
        (None, _) => {
            if is_empty {
                let message = format!("`{}` does not say what it is", key.text);
                let remedy = "add `vault: { address: …, auth: … }` or `aws: { region: … }`";
                findings.at_key(key, "missing-key", message, remedy);
            }
            return None;
        }
        (Some(_), Some((kind, (second, _)))) => {
            let message = format!("`{}` is of two kinds", key.text);
            findings.at_key(second, "two-kinds", message, format!("give `{kind}` a name of its own"));
            return None;
        }
    };
    let place = folder.named_at(PathBuf::from(&key.text), at);
    if kind == "aws" {
        let settings = Box::new(aws::settings(findings, (&key.text, node), folder)?);
        return Some(Backend::Aws { settings, place });
    }
    let settings = Box::new(vault_settings(findings, (&key.text, node), folder)?);
    Some(Backend::Vault { settings, place })
}

fn vault_settings(
    findings: &mut Findings<'_>,
    (name, node): (&str, &Node),
    folder: &Folder,
) -> Option<Settings> {
    let mut fields = findings.fields(node)?;
    let addresses = fields.require(findings, "address").and_then(|node| addresses(findings, node));
    let namespace = fields.take("namespace").map(|node| namespace(findings, node));
    let ca = fields.take("ca_file").map(|node| folder.path(findings, node));
    let identity = fields.take_entry("client_certificate");
    let has_identity = identity.is_some();
    let identity = identity.map(|(_, node)| client_certificate(findings, node, folder));
    let token_role = fields.take("token_role").map(|node| segment(findings, node, "token_role"));
    let timeout = fields.take("timeout").map(|node| timeout(findings, node));
    let login = fields.require(findings, "auth").and_then(|node| auth(findings, node, folder, has_identity));
    fields.finish(findings);
    Some(Settings {
        name: name.to_owned(),
        addresses: addresses?,
        namespace: namespace.map_or(Some(None), |read| read.map(Some))?,
        tls: TlsFiles {
            ca: ca.map_or(Some(None), |read| read.map(Some))?,
            identity: identity.map_or(Some(None), |read| read.map(Some))?,
        },
        login: login?,
        token_role: token_role.map_or(Some(None), |read| read.map(Some))?,
        timeout: timeout.unwrap_or(Some(DEFAULT_TIMEOUT))?,
    })
}

/// One address, or one for each node of a cluster.
fn addresses(findings: &mut Findings<'_>, node: &Node) -> Option<Vec<reqwest::Url>> {
    let nodes = match &node.content {
        Content::Sequence(nodes) if nodes.is_empty() => {
            findings.at(node, "empty", "there is no address", "write the address, or one for each node");
            return None;
        }
        Content::Sequence(nodes) => nodes.as_slice(),
        Content::Plain(_) | Content::Quoted(_) | Content::Mapping(_) => std::slice::from_ref(node),
    };
    let mut read = Vec::new();
    for node in nodes {
        let Some(url) = address(findings, node) else { continue };
        if read.contains(&url) {
            let message = format!("`{url}` stands here twice");
            findings.at(node, "duplicate-url", message, "name each node once");
        }
        read.push(url);
    }
    (read.len() == nodes.len()).then_some(read)
}

fn address(findings: &mut Findings<'_>, node: &Node) -> Option<reqwest::Url> {
    let text = findings.filled(node)?;
    let remedy = "write Vault's https address, such as https://vault.example.com:8200; http is for a literal \
                  loopback address only";
    // Vault stands in a private network as a rule, and who says where it is may say anything else here.
    let url = match read_url(text, true) {
        Ok(url) => url,
        Err(fault) => {
            findings.at(node, "url", format!("`{text}`: {fault}"), remedy);
            return None;
        }
    };
    let path = url.path().trim_end_matches('/');
    if url.query().is_some() || path.ends_with("/v1") || text.contains("/.") || text.contains('%') {
        let message = format!("`{text}` has a query, a `/v1`, or a path that would be tidied up");
        findings.at(node, "url", message, "write the part in front of /v1/ only");
        return None;
    }
    Some(url)
}

fn namespace(findings: &mut Findings<'_>, node: &Node) -> Option<String> {
    let text = findings.filled(node)?;
    let trimmed = text.trim_end_matches('/');
    let is_reserved = |part: &str| RESERVED.contains(&part);
    if VaultPath::parse(trimmed).is_err() || trimmed.split('/').any(is_reserved) {
        let message = format!("`{text}` can be no namespace");
        let remedy = format!("write its path, such as team/payments; never {}", RESERVED.join(", "));
        findings.at(node, "namespace", message, remedy);
        return None;
    }
    Some(trimmed.to_owned())
}

fn client_certificate(
    findings: &mut Findings<'_>,
    node: &Node,
    folder: &Folder,
) -> Option<(PathBuf, PathBuf)> {
    let mut fields = findings.fields(node)?;
    let certificate = fields.require(findings, "certificate").and_then(|node| folder.path(findings, node));
    let key = fields.require(findings, "key").and_then(|node| folder.path(findings, node));
    fields.finish(findings);
    Some((certificate?, key?))
}

fn timeout(findings: &mut Findings<'_>, node: &Node) -> Option<Duration> {
    let read = findings.duration(node)?;
    if !(LEAST_TIMEOUT..=MOST_TIMEOUT).contains(&read) {
        let message = "a call to Vault takes from 1 s to 60 s";
        findings.at(node, "out-of-range", message, "write a duration from 1s to 60s");
        return None;
    }
    Some(read)
}

/// One part of a path.
fn segment(findings: &mut Findings<'_>, node: &Node, what: &str) -> Option<String> {
    let text = findings.filled(node)?;
    if VaultPath::parse(text).is_err() || text.contains('/') {
        let message = format!("`{text}` is no {what}");
        findings.at(
            node,
            "vault-path",
            message,
            "write its name: letters, digits and . _ @ : = ~ -, no slash",
        );
        return None;
    }
    Some(text.to_owned())
}

fn auth(findings: &mut Findings<'_>, node: &Node, folder: &Folder, has_identity: bool) -> Option<Login> {
    let mut fields = findings.fields(node)?;
    let methods = METHODS.map(|method| (method, fields.take_entry(method)));
    fields.finish(findings);
    let mut given = methods.into_iter().filter_map(|(method, entry)| Some((method, entry?)));
    let (first, second) = (given.next(), given.next());
    let (Some((method, (_, entry))), None) = (first, second) else {
        let message = "the broker logs in by exactly one method";
        findings.at(node, "vault-auth", message, format!("write one of {}", METHODS.join(", ")));
        return None;
    };
    let mut fields = findings.fields(entry)?;
    let login = match method {
        "approle" => approle(findings, &mut fields, folder),
        "cert" => {
            if !has_identity {
                let message = "a login by certificate needs the certificate";
                let remedy = "add `client_certificate: { certificate: …, key: … }` beside `auth`";
                findings.at(entry, "vault-auth", message, remedy);
            }
            let role = fields.take("role").map(|node| segment(findings, node, "role"));
            let mount = mount(findings, &mut fields, "cert");
            role.map_or(Some(None), |read| read.map(Some))
                .and_then(|role| Some(Login::Cert { mount: mount?, role }))
        }
        "token" => {
            let file = fields.require(findings, "file").and_then(|node| folder.path(findings, node));
            file.map(|file| Login::Token { file })
        }
        jwt_or_kubernetes => by_jwt(findings, &mut fields, folder, jwt_or_kubernetes),
    };
    fields.finish(findings);
    login
}

fn approle(findings: &mut Findings<'_>, fields: &mut Fields<'_>, folder: &Folder) -> Option<Login> {
    let role_id = fields.require(findings, "role_id_file").and_then(|node| folder.path(findings, node));
    let secret_id = fields.require(findings, "secret_id_file").and_then(|node| folder.path(findings, node));
    let wrapped = fields.take("wrapped").map(|node| findings.boolean(node));
    let mount = mount(findings, fields, "approle");
    Some(Login::AppRole {
        mount: mount?,
        role_id: role_id?,
        secret_id: secret_id?,
        wrapped: wrapped.unwrap_or(Some(false))?,
    })
}

fn by_jwt(
    findings: &mut Findings<'_>,
    fields: &mut Fields<'_>,
    folder: &Folder,
    method: &'static str,
) -> Option<Login> {
    let is_kubernetes = method == "kubernetes";
    let role = fields.require(findings, "role").and_then(|node| segment(findings, node, "role"));
    let file = match fields.take("token_file") {
        Some(node) => folder.path(findings, node),
        None if is_kubernetes => Some(PathBuf::from(PROJECTED)),
        None => {
            fields.require(findings, "token_file");
            None
        }
    };
    let mount = mount(findings, fields, method)?;
    let (role, token) = (role?, file?);
    Some(if is_kubernetes {
        Login::Kubernetes { mount, role, token }
    } else {
        Login::Jwt { mount, role, token }
    })
}

/// Where the method is mounted below `auth/`.
fn mount(findings: &mut Findings<'_>, fields: &mut Fields<'_>, usual: &str) -> Option<String> {
    let Some(node) = fields.take("mount") else { return Some(usual.to_owned()) };
    let text = findings.filled(node)?;
    if VaultPath::parse(text).is_err() {
        let message = format!("`{text}` can be no mount");
        findings.at(node, "vault-path", message, "write the path below auth/, without slashes at its ends");
        return None;
    }
    Some(text.to_owned())
}

const KINDS: [&str; 2] = ["aws", "vault"];
const METHODS: [&str; 5] = ["approle", "cert", "jwt", "kubernetes", "token"];
/// Words that begin paths of the API, and so name no namespace (Vault's documentation, November 2026).
const RESERVED: [&str; 6] = ["audit", "auth", "cubbyhole", "identity", "root", "sys"];
/// Where Kubernetes puts a pod's token.
const PROJECTED: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// The exchange's own deadlines come first as a rule.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);
const MOST_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        cli::config::{Config, environment::Environment},
        kernel::policy::Finding,
    };

    const INIT: &str = include_str!("../init/hallpass.yaml");
    const VALID: &str = "
backends:
  main:
    vault:
      address: \"https://vault.example.com:8200/behind\"
      namespace: team/payments
      ca_file: ca.pem
      client_certificate: { certificate: vault.crt, key: vault.key }
      token_role: hallpass
      timeout: 5s
      auth: { approle: { role_id_file: role-id, secret_id_file: secret-id } }
";

    fn read(backends: &str) -> Result<Config, Vec<Finding>> {
        let text = format!("{INIT}{backends}");
        Config::read(Path::new("/etc/hallpass/hallpass.yaml"), text.as_bytes(), &Environment::default())
    }

    fn settings(backends: &str) -> Settings {
        let config = read(backends).unwrap_or_else(|findings| panic!("{findings:?}"));
        match config.backends["main"].clone() {
            Backend::Vault { settings, .. } => *settings,
            Backend::Aws { .. } => panic!("another kind"),
        }
    }

    fn login(auth: &str) -> Login {
        settings(&VALID.replace("approle: { role_id_file: role-id, secret_id_file: secret-id }", auth)).login
    }

    fn file(name: &str) -> PathBuf {
        Path::new("/etc/hallpass").join(name)
    }

    #[test]
    fn a_backend_is_read_whole() {
        let settings = settings(VALID);
        assert_eq!(settings.addresses[0].as_str(), "https://vault.example.com:8200/behind");
        assert_eq!(settings.namespace.as_deref(), Some("team/payments"));
        assert_eq!(settings.tls.ca, Some(file("ca.pem")));
        assert_eq!(settings.tls.identity, Some((file("vault.crt"), file("vault.key"))));
        assert_eq!(settings.token_role.as_deref(), Some("hallpass"));
        assert_eq!(settings.timeout, Duration::from_secs(5));
        let (mount, role_id, secret_id) = ("approle".to_owned(), file("role-id"), file("secret-id"));
        assert_eq!(settings.login, Login::AppRole { mount, role_id, secret_id, wrapped: false });
    }

    #[test]
    fn every_method_has_its_own_keys() {
        let (role, token) = ("ci".to_owned(), file("jwt"));
        assert_eq!(
            login("jwt: { role: ci, token_file: jwt, mount: gh/east }"),
            Login::Jwt { mount: "gh/east".to_owned(), role: role.clone(), token }
        );
        let token = PathBuf::from(PROJECTED);
        let mount = "kubernetes".to_owned();
        assert_eq!(login("kubernetes: { role: ci }"), Login::Kubernetes { mount, role: role.clone(), token });
        assert_eq!(login("cert: {}"), Login::Cert { mount: "cert".to_owned(), role: None });
        assert_eq!(login("cert: { role: ci }"), Login::Cert { mount: "cert".to_owned(), role: Some(role) });
        assert_eq!(login("token: { file: sink }"), Login::Token { file: file("sink") });
    }

    #[test]
    fn what_init_writes_beside_it_is_read_too() {
        let start = INIT.find("# backends:").unwrap();
        let end = INIT.find("ledger:\n").unwrap();
        let shown: Vec<String> = INIT[start..end]
            .lines()
            .filter_map(|line| line.strip_prefix("# ").or_else(|| line.strip_prefix('#')))
            .map(str::to_owned)
            .collect();

        let settings = settings(&shown.join("\n"));

        assert_eq!(settings.token_role.as_deref(), Some("hallpass"));
        // And each line that is commented out within it is one that is known.
        for line in shown.iter().filter_map(|line| line.trim_start().strip_prefix("# ")) {
            let key = line.split(':').next().unwrap();
            let known = [
                "namespace",
                "client_certificate",
                "timeout",
                "jwt",
                "kubernetes",
                "cert",
                "token",
                "fips",
                "endpoint",
                "audience",
                "credentials",
            ];
            assert!(known.contains(&key), "{line}");
        }
    }

    #[test]
    fn several_addresses_are_nodes_of_one_cluster() {
        let nodes = "[\"https://a.test:8200\", \"https://b.test:8200\"]";
        let settings = settings(&VALID.replace("\"https://vault.example.com:8200/behind\"", nodes));
        assert_eq!(settings.addresses.len(), 2);
    }

    #[test]
    fn each_mistake_is_found_where_it_stands() {
        let spoiled: &[(&str, &str, &str, &str)] = &[
            ("  main:", "  Main:", "name", "Main"),
            ("    vault:", "    vualt:", "unknown-key", "vualt"),
            ("token_role: hallpass", "token_rule: hallpass", "unknown-key", "token_rule"),
            ("token_role: hallpass", "token_role: a/b", "vault-path", "a/b"),
            ("token_role: hallpass", "token_role: \"..\"", "vault-path", "\"..\""),
            ("team/payments", "team/../root", "namespace", "team/../root"),
            ("team/payments", "team/sys", "namespace", "team/sys"),
            ("team/payments", "\"a team\"", "namespace", "\"a team\""),
            ("https://vault.example.com:8200/behind", "http://vault.example.com", "url", "\"http"),
            ("https://vault.example.com:8200/behind", "https://vault.test/v1", "url", "\"https"),
            ("https://vault.example.com:8200/behind", "https://vault.test/a/../b", "url", "\"https"),
            ("https://vault.example.com:8200/behind", "https://vault.test?a=b", "url", "\"https"),
            ("https://vault.example.com:8200/behind", "https://user@vault.test", "url", "\"https"),
            ("\"https://vault.example.com:8200/behind\"", "[]", "empty", "[]"),
            (
                "\"https://vault.example.com:8200/behind\"",
                "[\"https://a.test\", \"https://a.test\"]",
                "duplicate-url",
                "\"https",
            ),
            ("timeout: 5s", "timeout: 5m", "out-of-range", "5m"),
            ("timeout: 5s", "timeout: 5", "duration", "5"),
            (", key: vault.key", "", "missing-key", "{ cert"),
            ("auth: { approle", "auth: { aprole", "unknown-key", "aprole"),
            ("role_id_file: role-id, ", "", "missing-key", "{ secret"),
            ("secret_id_file: secret-id", "secret_id_file: secret-id, wraped: true", "unknown-key", "wraped"),
            ("secret_id_file: secret-id", "secret_id_file: secret-id, mount: /a", "vault-path", "/a"),
            ("secret-id } }", "secret-id }, token: { file: t } }", "vault-auth", "{ approle"),
        ];
        for (from, to, code, at) in spoiled {
            assert_eq!(VALID.matches(from).count(), 1, "{from}");
            let backends = VALID.replace(from, to);
            let text = format!("{INIT}{backends}");
            let findings = read(&backends).err().unwrap_or_else(|| panic!("{to:?} was accepted"));
            let found: Vec<(&str, String)> = findings
                .iter()
                .map(|finding| {
                    let line = text.lines().nth(finding.line - 1).unwrap();
                    (finding.code, line.chars().skip(finding.column - 1).collect())
                })
                .collect();
            assert!(
                found.iter().any(|(each, place)| each == code && place.starts_with(at)),
                "{to:?}: {found:?}"
            );
            assert!(findings.iter().all(|finding| !finding.remedy.is_empty()), "{findings:?}");
        }
    }

    #[test]
    fn a_login_by_certificate_needs_one() {
        let without =
            VALID.replace("      client_certificate: { certificate: vault.crt, key: vault.key }\n", "");
        let without =
            without.replace("approle: { role_id_file: role-id, secret_id_file: secret-id }", "cert: {}");
        let findings = read(&without).err().unwrap();
        assert_eq!(findings[0].code, "vault-auth");
    }
}
