//! What the ledger's table repeats of an entry, for queries. It is taken before the writer's lock is held, and whoever
//! reads the ledger whole looks whether the entry's own bytes say the same.

use std::{borrow::Cow, sync::Arc};

use serde::Deserialize;

use crate::{
    broker::ports::StoreFault,
    kernel::ledger::entry::{Entry, MAX_ENTRY_BYTES},
};

/// An entry made ready for the writer.
pub(in crate::adapters::store) struct Prepared {
    /// The entry.
    pub(in crate::adapters::store) entry: Entry,
    /// The grants that it speaks of, as a JSON array; none where it speaks of none.
    pub(in crate::adapters::store) grants: Option<String>,
}

impl Prepared {
    /// Makes an entry ready. What could break the writer's transaction is refused here, where it breaks only the
    /// caller's own call.
    pub(in crate::adapters::store) fn new(entry: Entry) -> Result<Arc<Self>, StoreFault> {
        if entry.bytes.len() > MAX_ENTRY_BYTES {
            return Err(StoreFault::Unavailable("an entry passes 16384 bytes".to_owned()));
        }
        let grants = listed(&entry.grants);
        Ok(Arc::new(Self { entry, grants }))
    }

    /// Makes entries ready.
    pub(in crate::adapters::store) fn all(entries: Vec<Entry>) -> Result<Vec<Arc<Self>>, StoreFault> {
        entries.into_iter().map(Self::new).collect()
    }
}

/// Issuer and grants of an entry's bytes.
pub(in crate::adapters::store) fn spoken_of(bytes: &[u8]) -> (Option<String>, Option<String>) {
    let Ok(members) = serde_json::from_slice::<Members<'_>>(bytes) else { return (None, None) };
    let Members { subject, policy, request, result, token } = members;
    let issuer = [subject, token].into_iter().flatten().find_map(|member| member.issuer);
    let (result_issuer, result_grant, would) =
        result.map(|result| (result.issuer, result.grant, result.would_issue)).unwrap_or_default();
    let mut grants: Vec<Cow<'_, str>> = Vec::new();
    let requested = request.and_then(|request| request.grants).unwrap_or_default();
    let named = policy.and_then(|policy| policy.grant).into_iter().chain(result_grant);
    let others = requested.into_iter().chain(would.unwrap_or_default());
    for grant in named.chain(others.filter_map(|grant| grant.name)) {
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }
    (issuer.or(result_issuer).map(Cow::into_owned), listed(&grants))
}

fn listed<T: serde::Serialize>(grants: &[T]) -> Option<String> {
    if grants.is_empty() { None } else { serde_json::to_string(grants).ok() }
}

/// The members of an entry that columns are taken from; all others are skipped without being kept.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    subject: Option<OfIssuer<'a>>,
    policy: Option<OfGrant<'a>>,
    request: Option<Request<'a>>,
    result: Option<Outcome<'a>>,
    token: Option<OfIssuer<'a>>,
}

#[derive(Deserialize)]
struct OfIssuer<'a> {
    #[serde(borrow)]
    issuer: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct OfGrant<'a> {
    #[serde(borrow)]
    grant: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    grants: Option<Vec<Named<'a>>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, alias = "grant")]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow)]
    issuer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    grant: Option<Cow<'a, str>>,
    would_issue: Option<Vec<Named<'a>>>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::spoken_of;

    fn of(value: &serde_json::Value) -> (Option<String>, Option<String>) {
        spoken_of(value.to_string().as_bytes())
    }

    #[test]
    fn names_issuer_and_every_grant_once() {
        let denied = json!({
            "code": "DENIED", "subject": { "issuer": "github", "claims": {} }, "policy": { "digest": "00" },
            "request": { "grants": [{ "name": "a" }, { "name": "b\"" }, { "name": "a" }] },
            "result": { "code": "access_denied", "tried": [{ "grant": "a" }] },
        });
        assert_eq!(of(&denied), (Some("github".to_owned()), Some(r#"["a","b\""]"#.to_owned())));
        let issued = json!({ "policy": { "grant": "a" }, "request": { "credential": "db" } });
        assert_eq!(of(&issued), (None, Some(r#"["a"]"#.to_owned())));
        let summary = json!({ "result": { "issuer": "gitlab", "count": 3 } });
        assert_eq!(of(&summary), (Some("gitlab".to_owned()), None));
        let dry_run = json!({ "result": { "would_issue": [{ "grant": "a", "credential": "db" }] } });
        assert_eq!(of(&dry_run), (None, Some(r#"["a"]"#.to_owned())));
    }
}
