//! The backends: whether each answers and takes the broker's login, what its token may do, and whether engines and
//! limits there are what the policies say.

use std::{collections::BTreeMap, time::Duration};

use super::Look;
use crate::{
    adapters::vault::{Mount, NotFound, Right, TokenLimits, VaultClient, VaultFault, VaultPath},
    cli::{check, config::Config, installation},
    kernel::{
        lifetime::Lifetime,
        policy::{
            PolicySet,
            target::{Backend, Target, VaultTarget},
        },
    },
};

const PART: &str = "backends";

/// A credential of one backend, as a grant names it.
struct Offer<'a> {
    what: String,
    target: &'a VaultTarget,
    ttl: Option<Duration>,
}

pub(super) async fn look(config: &Config) -> Vec<Look> {
    let clients = match installation::vaults(config) {
        Ok(clients) => clients,
        Err(failure) => return vec![Look::failing(PART, failure.message, "mend the configuration")],
    };
    // Where the set does not load, that is told under its own part.
    let set = check::policies(config).ok().map(|loaded| loaded.set);
    let mut looks = Vec::new();
    for client in &clients {
        let offers =
            set.as_ref().map(|set| offers(set, client.name(), clients.len() == 1)).unwrap_or_default();
        looks.extend(look_at(client, &offers).await);
        client.close().await;
    }
    looks
}

async fn look_at(client: &VaultClient, offers: &[Offer<'_>]) -> Vec<Look> {
    let name = client.name();
    let mut looks = nodes(client).await;
    let mut needed = client.needed();
    needed.extend(offers.iter().filter_map(right));
    match client.rights(&needed).await {
        Err(fault) => {
            let found = format!("{name}: the broker cannot use it: {fault}");
            looks.push(Look::failing(PART, found, advice(fault)));
            return looks;
        }
        Ok(rights) => {
            let method = client.settings().login.method();
            looks.push(Look::fine(PART, format!("{name}: the broker is logged in by {method}")));
            looks.extend(rights.missing.iter().map(|right| {
                let found = format!(
                    "{name}: the broker's token may not {} {}",
                    right.any_of.join(" or "),
                    right.path
                );
                Look::failing(PART, found, "add this to the broker's policy in Vault")
            }));
            looks.extend(rights.surplus.iter().map(|(path, words)| {
                let found = format!("{name}: the broker's token may {} {path}", words.join(", "));
                Look::warning(
                    PART,
                    found,
                    "take this out of the broker's policy in Vault: no broker needs it",
                )
            }));
        }
    }
    let limits = match &client.settings().token_role {
        None => None,
        Some(role) => match client.token_limits(role).await {
            Ok(limits) => {
                looks.extend(role_looks(name, role, &limits));
                Some(limits)
            }
            // Reading the role is a right that the broker does not need.
            Err(VaultFault::Denied) => None,
            Err(fault) => {
                let found = format!("{name}: the token role `{role}` cannot be read: {fault}");
                looks.push(Look::failing(
                    PART,
                    found,
                    "make it: vault write auth/token/roles/ROLE orphan=true …",
                ));
                None
            }
        },
    };
    let mut mounts: BTreeMap<String, Result<Mount, VaultFault>> = BTreeMap::new();
    for offer in offers {
        let fixed = fixed_part(&offer.target.path);
        if !mounts.contains_key(&fixed) {
            let mount = match VaultPath::parse(&fixed) {
                Ok(path) => client.mount(&path).await,
                Err(_) => Err(VaultFault::NotFound(NotFound::Absent)),
            };
            mounts.insert(fixed.clone(), mount);
        }
        if let Some(mount) = mounts.get(&fixed) {
            looks.extend(offer_looks(name, offer, mount.as_ref(), limits.as_ref()));
        }
    }
    looks
}

/// How the nodes stand.
async fn nodes(client: &VaultClient) -> Vec<Look> {
    let name = client.name();
    let statuses = client.health().await;
    let addresses = &client.settings().addresses;
    let each = addresses.iter().zip(statuses).map(|(address, status)| match status {
        Some(200) => Look::fine(PART, format!("{name}: {address} is active")),
        Some(429 | 473) => Look::fine(PART, format!("{name}: {address} is a standby")),
        Some(503) => Look::failing(PART, format!("{name}: {address} is sealed"), "unseal it"),
        Some(501) => Look::failing(PART, format!("{name}: {address} is not initialised"), "initialise it"),
        Some(status) => {
            let found = format!("{name}: {address} answers sys/health with {status}");
            Look::failing(PART, found, "look at the address, and at Vault's own log")
        }
        None => {
            let found = format!("{name}: {address} does not answer");
            Look::failing(PART, found, "look at the address, the network, and ca_file")
        }
    });
    each.collect()
}

fn role_looks(name: &str, role: &str, limits: &TokenLimits) -> Vec<Look> {
    let mut looks = Vec::new();
    if !limits.orphan {
        let found = format!(
            "{name}: tokens of the role `{role}` are no orphans: the broker's own end takes them along"
        );
        looks.push(Look::failing(PART, found, format!("vault write auth/token/roles/{role} orphan=true …")));
    }
    if limits.is_batch {
        let found = format!("{name}: the role `{role}` makes batch tokens, which nobody can revoke");
        looks.push(Look::failing(
            PART,
            found,
            format!("vault write auth/token/roles/{role} token_type=service …"),
        ));
    }
    looks
}

fn is_made_by_job_token(target: &VaultTarget) -> bool {
    target.engine.lifetime != Lifetime::Static || target.engine.input.is_some()
}

/// What a grant offers against what is mounted.
fn offer_looks(
    name: &str,
    offer: &Offer<'_>,
    mount: Result<&Mount, &VaultFault>,
    limits: Option<&TokenLimits>,
) -> Vec<Look> {
    let Offer { what, target, ttl } = offer;
    let mount = match mount {
        Ok(mount) => mount,
        // What is made by job tokens needs no right of the broker's own there, so that it may see nothing of the mount.
        Err(VaultFault::Denied) if is_made_by_job_token(target) => {
            let found = format!(
                "{name}: {what}: not compared with what is mounted at {}, which only job tokens may see",
                target.path
            );
            return vec![Look::fine(PART, found)];
        }
        Err(fault) => {
            let found =
                format!("{name}: {what}: nothing that the broker may use is at {}: {fault}", target.path);
            return vec![Look::failing(PART, found, "mend the path, or the broker's policy in Vault")];
        }
    };
    let mut looks = Vec::new();
    if let Some(due) = due(target.engine.name)
        && !due.is_met(mount)
    {
        let version = mount.kv_version.map(|version| format!(" version {version}")).unwrap_or_default();
        let found = format!(
            "{name}: {what} says engine {}, and {} is {}{version}",
            target.engine.name, mount.path, mount.kind
        );
        looks.push(Look::failing(PART, found, "name the engine that is there"));
    }
    let Some(ttl) = ttl else { return looks };
    let token = limits.and_then(|limits| limits.max_ttl).map(|most| ("the token role", most));
    for (whose, most) in mount.max_lease.map(|most| ("the mount", most)).into_iter().chain(token) {
        if most < *ttl {
            let found = format!(
                "{name}: {what} has a ttl of {} s, and {whose} grants at most {} s",
                ttl.as_secs(),
                most.as_secs()
            );
            looks.push(Look::warning(PART, found, "lower the ttl, or raise the limit in Vault"));
        }
    }
    looks
}

/// The mount that an engine needs.
struct Due {
    kind: &'static str,
    kv_version: Option<u64>,
}

impl Due {
    fn is_met(&self, mount: &Mount) -> bool {
        self.kind == mount.kind && self.kv_version == mount.kv_version
    }
}

/// `None` for engines whose mount has any name.
fn due(engine: &str) -> Option<Due> {
    let (kind, kv_version) = match engine {
        "aws" | "aws-sts" => ("aws", None),
        "azure" => ("azure", None),
        "consul" => ("consul", None),
        "database" | "database-static" => ("database", None),
        "gcp-token" => ("gcp", None),
        "kubernetes" => ("kubernetes", None),
        "kv1" => ("kv", Some(1)),
        "kv2" => ("kv", Some(2)),
        "ldap" | "ldap-static" => ("ldap", None),
        "nomad" => ("nomad", None),
        "pki" => ("pki", None),
        "rabbitmq" => ("rabbitmq", None),
        "ssh" => ("ssh", None),
        "transit" => ("transit", None),
        _ => return None,
    };
    Some(Due { kind, kv_version })
}

/// The right that a harmless fetch needs of the broker's own token; all else is done under a job's.
fn right(offer: &Offer<'_>) -> Option<Right> {
    let is_own = matches!(offer.target.engine.name, "database-static" | "kv1" | "kv2" | "ldap-static");
    let path = &offer.target.path;
    (is_own && !path.contains("${")).then(|| Right::read(path.as_str()))
}

/// The part of a path in front of its first template.
fn fixed_part(path: &str) -> String {
    let fixed = path.split('/').take_while(|part| !part.contains("${"));
    fixed.collect::<Vec<_>>().join("/")
}

fn offers<'a>(set: &'a PolicySet, backend: &str, is_only: bool) -> Vec<Offer<'a>> {
    let mut offers = Vec::new();
    for grant in set.names.iter().filter_map(|name| set.grants.get(name)) {
        for (name, credential) in &grant.credentials {
            let Target::Vault(target) = &credential.target.0 else { continue };
            let is_here = match &target.backend {
                Backend::Named(named) => &**named == backend,
                Backend::Unnamed => is_only,
                Backend::BuiltIn => false,
            };
            if is_here {
                let what = format!("credential `{name}` of grant `{}`", grant.name);
                offers.push(Offer { what, target, ttl: credential.ttl });
            }
        }
    }
    offers
}

fn advice(fault: VaultFault) -> &'static str {
    match fault {
        VaultFault::Login(_) => "look at `auth`, at the files it names, and at the role in Vault",
        VaultFault::Denied => "let the broker's policy in Vault update sys/capabilities-self",
        VaultFault::Sealed => "unseal it",
        VaultFault::NotInitialised => "initialise it",
        VaultFault::BadRequest(_)
        | VaultFault::BreakerOpen
        | VaultFault::ControlGroup
        | VaultFault::Failed(_)
        | VaultFault::Late { .. }
        | VaultFault::Malformed(_)
        | VaultFault::NotFound(_)
        | VaultFault::Quota
        | VaultFault::RateLimited
        | VaultFault::Redirected
        | VaultFault::Stale
        | VaultFault::Torn
        | VaultFault::Unknown
        | VaultFault::Unreachable => "look at its address and at Vault's own log",
    }
}
