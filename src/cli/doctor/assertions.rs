//! The keys of our assertions: whether there is one that signs what is asked for, and, where a cloud must fetch them,
//! whether they stand where the assertions say.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{Look, aws};
use crate::{
    adapters::{
        http_client::{FetchFault, HttpClient, Reach, read_url},
        mint::{Assertions, aws::Way},
        store::Options,
    },
    broker::Clock,
    cli::{config::Config, exit::chain, installation, keys::assertions::settings as settings_of_assertions},
    kernel::assertion::{Algorithm, AssertionKey, KeyState},
};

const PART: &str = "assertions";
/// Discovery documents and sets of keys are small.
const MOST_BYTES: usize = 64 * 1024;

/// The keys of the store, and what signs with them.
struct Stored {
    keys: Vec<AssertionKey>,
    assertions: Assertions,
    now: Timestamp,
}

/// For whom assertions are made, as far as the configuration says.
struct Wanted<'a> {
    /// Of the connections to AWS.
    audiences: BTreeSet<&'a str>,
    /// Whether one of those is AWS itself, which fetches the keys from outside.
    is_for_the_world: bool,
}

pub(super) async fn look(config: &Config) -> Vec<Look> {
    let wanted = wanted(config);
    if wanted.audiences.is_empty() && config.assertions.es256.is_empty() {
        return Vec::new();
    }
    let stored = match stored(config).await {
        Ok(stored) => stored,
        Err(found) => {
            let found = format!("the keys that sign assertions cannot be read: {found}");
            return vec![Look::failing(PART, found, "look at `store` and `sealing_key`")];
        }
    };
    let algorithms: BTreeSet<Algorithm> = wanted
        .audiences
        .iter()
        .copied()
        .chain(config.assertions.es256.iter().map(String::as_str))
        .map(|audience| stored.assertions.algorithm(audience))
        .collect();
    let mut looks: Vec<Look> =
        algorithms.iter().filter_map(|algorithm| unready(&stored, *algorithm)).collect();
    if !wanted.audiences.is_empty() {
        looks.extend(issuer(config, &wanted, &stored).await);
    }
    looks
}

fn wanted(config: &Config) -> Wanted<'_> {
    let mut wanted = Wanted { audiences: BTreeSet::new(), is_for_the_world: false };
    for settings in aws::connections(config) {
        if let Way::WebIdentity { audience } = &settings.way {
            wanted.audiences.insert(audience);
            wanted.is_for_the_world |= settings.endpoint.is_none();
        }
    }
    wanted
}

/// The keys as a broker would sign with them now.
async fn stored(config: &Config) -> Result<Stored, String> {
    let options = Options { read_only: true, ..Options::default() };
    let store = installation::open_store(config, options).map_err(|failure| failure.message)?;
    let (keys, now) = (store.assertion_keys().await, Clock::System.now());
    store.close().await;
    let keys = keys.map_err(|fault| chain(&fault))?;
    let assertions = Assertions::of_store(settings_of_assertions(config), &keys, now);
    Ok(Stored { assertions: assertions.map_err(|fault| chain(&fault))?, keys, now })
}

/// Where no key of that algorithm signs now.
fn unready(stored: &Stored, algorithm: Algorithm) -> Option<Look> {
    let states = || {
        let own = stored.keys.iter().filter(|key| key.algorithm == algorithm);
        own.map(|key| (key.schedule.state(stored.now), key.schedule.active_at))
    };
    if states().any(|(state, _)| state == KeyState::Active) {
        return None;
    }
    let name = algorithm.as_str();
    let waiting = states().filter(|(state, _)| *state == KeyState::Published).map(|(_, from)| from).min();
    Some(match waiting {
        Some(from) => {
            let found = format!("the {name} key signs from {from} on, when every verifier has read it");
            Look::warning(PART, found, "until then audiences that want it are refused with 502; wait")
        }
        None => {
            let found = format!("there is no {name} key, since the database was made by an older version");
            let advice = "start `hallpass serve`: it publishes one, which signs after `assertions.key_lead`";
            Look::failing(PART, found, advice)
        }
    })
}

/// Our issuer as AWS meets it: the documents where the assertions say, with the keys that sign.
async fn issuer(config: &Config, wanted: &Wanted<'_>, stored: &Stored) -> Vec<Look> {
    let ours = &config.assertions.issuer;
    if wanted.is_for_the_world && ours.starts_with("http:") {
        let found = format!("the issuer {ours} is not https, and AWS takes no other");
        return vec![Look::failing(PART, found, "set `assertions.issuer` to an https URL")];
    }
    let mut looks = Vec::new();
    match published(config, wanted, &mut looks).await {
        Ok((uri, kids)) => looks.extend(keys(stored, wanted, &uri, &kids)),
        Err(look) => looks.push(look),
    }
    looks
}

/// The URI of the keys that the issuer's URL leads to, and the names of those.
async fn published(
    config: &Config,
    wanted: &Wanted<'_>,
    looks: &mut Vec<Look>,
) -> Result<(String, Vec<String>), Look> {
    let (ours, public) = (config.assertions.issuer.trim_end_matches('/'), &config.public_url);
    let advice = if ours == public.trim_end_matches('/') {
        "let the name in `public.url` lead to the public listener, with a certificate of a public authority"
    } else {
        "serve the folder of `assertions.publish`, or what `hallpass keys publish DIR` writes, at that URL"
    };
    let url = format!("{ours}/.well-known/openid-configuration");
    let discovery = document(config, &url, advice).await?;
    if discovery.is_private && wanted.is_for_the_world {
        let found =
            format!("{ours} leads to a private address from here, and AWS fetches the keys from outside");
        looks.push(Look::warning(PART, found, "see to it that it leads to the same documents out there"));
    }
    if discovery.text("issuer") != Some(&config.assertions.issuer) {
        let found = format!(
            "{url} is of the issuer {}, and assertions are of {ours}",
            discovery.text("issuer").unwrap_or("-")
        );
        return Err(Look::failing(PART, found, advice));
    }
    let Some(uri) = discovery.text("jwks_uri") else {
        return Err(Look::failing(PART, format!("{url} names no `jwks_uri`"), advice));
    };
    let set = document(config, uri, advice).await?;
    let keys = set.value.get("keys").and_then(Value::as_array);
    let kids = keys.into_iter().flatten().filter_map(|key| key.get("kid")?.as_str().map(str::to_owned));
    Ok((uri.to_owned(), kids.collect()))
}

/// The keys that must be among those.
fn keys(stored: &Stored, wanted: &Wanted<'_>, uri: &str, kids: &[String]) -> Vec<Look> {
    let mut looks = Vec::new();
    for audience in &wanted.audiences {
        let algorithm = stored.assertions.algorithm(audience);
        let Some(kid) = stored.assertions.kid(algorithm, stored.now) else { continue };
        let name = algorithm.as_str();
        looks.push(if kids.contains(&kid) {
            let issuer = stored.assertions.issuer();
            let found = format!(
                "the {name} key {kid} is published at {uri}; assertions are of {issuer}, for {audience}"
            );
            Look::fine(PART, found)
        } else {
            let found = format!(
                "the {name} key {kid}, which signs for {audience}, is not among the {} at {uri}",
                kids.len()
            );
            Look::failing(PART, found, STALE)
        });
    }
    // The first list is for those who look no further: what comes next must stand there in time, too.
    let coming = stored.assertions.jwks(stored.now);
    let coming = coming.get("keys").and_then(Value::as_array).into_iter().flatten();
    let missing =
        coming.filter_map(|key| key.get("kid")?.as_str()).filter(|kid| !kids.iter().any(|each| each == kid));
    if missing.count() > 0 && looks.iter().all(|look| look.advice != STALE) {
        let found = format!(
            "not all keys of assertions stand at {uri}: a later one would not be known when it signs"
        );
        looks.push(Look::warning(PART, found, STALE));
    }
    looks
}

/// A JSON document that an address answered.
struct Found {
    value: Value,
    /// Whether only a private address answered.
    is_private: bool,
}

impl Found {
    fn text(&self, name: &str) -> Option<&str> {
        self.value.get(name)?.as_str()
    }
}

async fn document(config: &Config, address: &str, advice: &str) -> Result<Found, Look> {
    let failing = |why: String| Look::failing(PART, format!("{address}: {why}"), advice);
    let url = read_url(address, true).map_err(|fault| failing(fault.to_string()))?;
    let deadline = config.deadlines.issuer;
    let reach = |allow_private_addresses| Reach { ca_pem: None, allow_private_addresses, deadline };
    let clients = if url.scheme() == "http" {
        [(HttpClient::loopback(deadline), true)].into_iter().collect::<Vec<_>>()
    } else {
        vec![(HttpClient::new(reach(false)), false), (HttpClient::new(reach(true)), true)]
    };
    for (client, is_private) in clients {
        let client = client.map_err(|fault| failing(chain(&fault)))?;
        match client.fetch(&url, MOST_BYTES).await {
            Err(FetchFault::Address) if !is_private => {}
            Err(fault) => return Err(failing(chain(&fault))),
            Ok(document) => {
                let value = serde_json::from_slice(&document.body);
                return Ok(Found {
                    value: value.map_err(|_| failing("it is no JSON".to_owned()))?,
                    is_private,
                });
            }
        }
    }
    Err(failing(chain(&FetchFault::Address)))
}

const STALE: &str = "copy the documents there anew (`hallpass keys publish DIR`), or let `assertions.publish` keep them current; \
                     and look whether something in front of them keeps them for longer than five minutes";
