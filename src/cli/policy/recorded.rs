//! A decision as the ledger keeps it: whose claims, which grants, when, by which set. Reading one is recorded.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    adapters::store::Options,
    broker::ports::{EntryQuery, Qualifier, Store as _, StoredEntry, Term},
    cli::{
        actor::Actor,
        config::Config,
        exit::{Exit, Failure},
        installation, process,
    },
    kernel::{json::read_bounded, ledger::entry::EntryCode, name::IssuerName, policy::decide::GrantRequest},
};

/// A decision of the ledger.
pub(crate) struct Recorded {
    /// The issuer of the job.
    pub(crate) issuer: IssuerName,
    /// The claims that policy saw, with personal ones that were not erased.
    pub(crate) claims: Map<String, Value>,
    /// What was asked for.
    pub(crate) grants: Vec<GrantRequest>,
    /// When.
    pub(crate) at: Timestamp,
    /// The set that decided.
    pub(crate) digest: Option<String>,
    /// What is not as it was.
    pub(crate) caveats: Vec<String>,
}

/// Finds a decision. The READ entry comes first: what could not be recorded is not read.
///
/// # Errors
///
/// [`Exit::Usage`] where the ledger has no such decision, or none with claims.
pub(crate) fn find(config: &Config, id: &str) -> Result<Recorded, Failure> {
    if !id.starts_with("dec_") {
        return Err(Failure::usage("a decision's id begins with dec_"));
    }
    let found = process::runtime()?.block_on(async {
        let store = installation::open_store(config, Options::default())?;
        let read = Actor::new()?.entry(EntryCode::Read, json!({ "what": "explain", "decision": id }))?;
        store.append(vec![read]).await?;
        let term = Term { qualifier: Qualifier::Text, value: id.to_owned(), negated: false };
        let query = EntryQuery { terms: vec![term], limit: MOST, ..EntryQuery::default() };
        let found = store.entries(query).await;
        store.close().await;
        Ok::<_, Failure>(found?)
    })?;
    let of_decision = |stored: &&StoredEntry| {
        let entry = read_bounded(&stored.bytes).unwrap_or_default();
        text(&entry, "/decision") == Some(id) && entry.pointer("/request/grants").is_some()
    };
    let stored = found.iter().find(of_decision);
    let stored = stored.ok_or_else(|| Failure::usage(format!("the ledger has no decision {id}")))?;
    read(stored)
}

fn read(stored: &StoredEntry) -> Result<Recorded, Failure> {
    let damaged =
        || Failure::new(Exit::Integrity, format!("entry {} does not hold a decision", stored.index));
    let entry = read_bounded(&stored.bytes).map_err(|_| damaged())?;
    let issuer = text(&entry, "/subject/issuer").and_then(IssuerName::parse).ok_or_else(damaged)?;
    let at = text(&entry, "/at").and_then(|at| at.parse().ok()).ok_or_else(damaged)?;
    let Some(Value::Object(mut claims)) = entry.pointer("/subject/claims").cloned() else {
        return Err(Failure::usage(
            "this decision's claims did not fit into its entry, so it cannot be explained",
        ));
    };
    let mut caveats =
        vec![format!("as recorded in entry {}; the broker had checked the token then", stored.index)];
    let mut erased: Vec<String> = Vec::new();
    for (name, value) in &mut claims {
        if value.get("commitment").is_none() {
            continue;
        }
        match stored.personal.iter().find(|(field, _)| field == name) {
            Some((_, text)) => *value = text.clone().into(),
            None => erased.push(name.clone()),
        }
    }
    claims.retain(|name, _| !erased.contains(name));
    if !erased.is_empty() {
        caveats.push(format!("ERASED: {}; conditions on them cannot be judged", erased.join(", ")));
    }
    // Null is of no claim's type, as what stood there was not.
    let unusable = entry.pointer("/subject/unusable").and_then(Value::as_array);
    for name in unusable.into_iter().flatten().filter_map(Value::as_str) {
        claims.insert(name.to_owned(), Value::Null);
    }
    let digest = text(&entry, "/policy/digest").map(str::to_owned);
    Ok(Recorded { issuer, claims, grants: grants(&entry), at, digest, caveats })
}

fn grants(entry: &Value) -> Vec<GrantRequest> {
    let asked = entry.pointer("/request/grants").and_then(Value::as_array).into_iter().flatten();
    asked
        .filter_map(|grant| {
            let names =
                |list: &Vec<Value>| list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let ttl = grant.get("ttl_seconds").and_then(Value::as_u64);
            Some(GrantRequest {
                name: text(grant, "/name")?.to_owned(),
                credentials: grant.get("credentials").and_then(Value::as_array).map(names),
                ttl: ttl.map(std::time::Duration::from_secs),
            })
        })
        .collect()
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// Sixteen credentials with INTENT, ISSUED and what became of them.
const MOST: u32 = 200;
