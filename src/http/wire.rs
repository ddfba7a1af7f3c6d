//! Reads bodies strictly: from bytes to an [`Ask`], or what another call means, that needs no further checks, or a 400
//! that names the member at fault.
//!
//! Unknown members, doubled keys, `null` in place of an absent member and numbers with a fraction are refused: what
//! two readers could take differently must not decide about credentials (attack classes C-01, C-09, R-09).

use std::{collections::HashSet, time::Duration};

use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::problem::Problem;
use crate::{
    broker::{
        error::Code,
        exchange::{Ask, Given, RetryKey, Room},
    },
    kernel::{
        digest::Digest,
        freeze::FreezeScope,
        json::{self, Bounds},
        lifetime::Since,
        name::{GrantName, IssuerName, is_name},
        policy::decide::{GrantRequest, Request},
    },
};

/// Reads the body of an exchange, with the retry key that came beside it.
///
/// # Errors
///
/// 400 `request_malformed`.
pub(super) fn read_ask(body: &[u8], headers: &HeaderMap) -> Result<Ask, Problem> {
    let mut members = strict_object(body)?;
    let grants = members.remove("grants").ok_or_else(|| malformed("`grants` is missing"))?;
    let (grants, inputs) = read_grants(grants)?;
    let reason = members.remove("reason").map(read_reason).transpose()?;
    let dry_run = flag(&mut members, "dry_run")?;
    refuse_rest(&members, "")?;
    let retry = read_retry_key(headers, EXCHANGE, body)?;
    Ok(Ask { request: Request { grants }, reason, dry_run, inputs, retry, room: Room::Any })
}

/// Reads the body of a job's revocation, which says that it means the job.
///
/// # Errors
///
/// 400 `request_malformed`.
pub(super) fn read_job_scope(body: &[u8]) -> Result<(), Problem> {
    let mut members = strict_object(body)?;
    let scope = members.remove("scope").ok_or_else(|| malformed("`scope` is missing"))?;
    if scope != "job" {
        return Err(malformed("`scope` must be \"job\""));
    }
    refuse_rest(&members, "")
}

/// What is to be frozen or thawed, and why.
pub(super) struct FreezeBody {
    pub(super) scope: FreezeScope,
    pub(super) reason: String,
}

/// Reads `{scope, name, reason}`; `name` is absent for `all`.
///
/// # Errors
///
/// 400 `request_malformed`.
pub(super) fn read_freeze(body: &[u8]) -> Result<FreezeBody, Problem> {
    let mut members = strict_object(body)?;
    let word = text(&mut members, "scope")?.ok_or_else(|| malformed("`scope` is missing"))?;
    let name = text(&mut members, "name")?.unwrap_or_default();
    let reason = due_reason(&mut members)?;
    refuse_rest(&members, "")?;
    let scope = FreezeScope::read(&word, &name).ok_or_else(|| {
        malformed("`scope` must be issuer, kid, grant, project or all, and `name` NAME, ISSUER/KID, NAME, ISSUER/PROJECT-ID or absent")
    })?;
    Ok(FreezeBody { scope, reason })
}

/// Which issuances an operator revokes, and why.
pub(super) struct RevokeBody {
    pub(super) grant: Option<GrantName>,
    pub(super) project: Option<(IssuerName, String)>,
    pub(super) since: Option<Since>,
    pub(super) reason: String,
    pub(super) dry_run: bool,
}

/// Reads `{grant, project, since, reason, dry_run}`; at least one of the first three is due.
///
/// # Errors
///
/// 400 `request_malformed`.
pub(super) fn read_revoke(body: &[u8]) -> Result<RevokeBody, Problem> {
    let mut members = strict_object(body)?;
    let grant = text(&mut members, "grant")?
        .map(|name| GrantName::parse(&name).ok_or_else(|| malformed("`grant` is not a grant's name")))
        .transpose()?;
    let project = text(&mut members, "project")?
        .map(|name| match FreezeScope::read("project", &name) {
            Some(FreezeScope::Project { issuer, project }) => Ok((issuer, project)),
            Some(_) | None => Err(malformed("`project` must be ISSUER/PROJECT-ID")),
        })
        .transpose()?;
    let since = text(&mut members, "since")?
        .map(|since| {
            let detail = "`since` must be a time such as 2027-01-13T10:00:00Z, or a duration such as 2h";
            Since::parse(&since).ok_or_else(|| malformed(detail))
        })
        .transpose()?;
    let dry_run = flag(&mut members, "dry_run")?;
    let reason = due_reason(&mut members)?;
    refuse_rest(&members, "")?;
    if grant.is_none() && project.is_none() && since.is_none() {
        return Err(malformed("at least one of `grant`, `project` and `since` is due"));
    }
    Ok(RevokeBody { grant, project, since, reason, dry_run })
}

fn strict_object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let value = json::read_strict(body, BOUNDS)
        .map_err(|fault| malformed(format!("the body is not strict JSON: {fault}")))?;
    object(value, "the body")
}

fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(malformed(format!("`{name}` must be a text"))),
    }
}

fn flag(members: &mut Map<String, Value>, name: &str) -> Result<bool, Problem> {
    match members.remove(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(malformed(format!("`{name}` must be true or false"))),
    }
}

fn due_reason(members: &mut Map<String, Value>) -> Result<String, Problem> {
    let reason = text(members, "reason")?.filter(|reason| !reason.trim().is_empty());
    let reason =
        reason.ok_or_else(|| malformed("`reason` is due: whoever reads the ledger must know why"))?;
    read_reason(Value::String(reason))
}

/// The grants, and what is given to their credentials.
type Grants = (Vec<GrantRequest>, Vec<Given>);

fn read_grants(value: Value) -> Result<Grants, Problem> {
    let Value::Array(items) = value else { return Err(malformed("`grants` must be a list")) };
    if !(1..=MAX_GRANTS).contains(&items.len()) {
        return Err(malformed("`grants` must have 1 to 8 items"));
    }
    let mut grants = Vec::with_capacity(items.len());
    let mut inputs = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        grants.push(read_grant(item, &format!("grants[{index}]"), &mut inputs)?);
    }
    let mut seen = HashSet::new();
    if !grants.iter().all(|grant| seen.insert(grant.name.as_str())) {
        return Err(malformed("`grants` names one grant twice"));
    }
    let named: usize = grants.iter().filter_map(|grant| grant.credentials.as_ref()).map(Vec::len).sum();
    if named > MAX_CREDENTIALS {
        return Err(malformed("`credentials` of all grants must have at most 16 items together"));
    }
    Ok((grants, inputs))
}

fn read_grant(value: Value, path: &str, inputs: &mut Vec<Given>) -> Result<GrantRequest, Problem> {
    let named = |name: String| {
        if is_name(&name) { Ok(name) } else { Err(malformed(format!("`{path}` is not a grant's name"))) }
    };
    if let Value::String(name) = value {
        return Ok(GrantRequest { name: named(name)?, credentials: None, ttl: None });
    }
    let Value::Object(mut members) = value else {
        return Err(malformed(format!("`{path}` must be a grant's name, or an object with `name`")));
    };
    let Some(Value::String(name)) = members.remove("name") else {
        return Err(malformed(format!("`{path}.name` must be a text")));
    };
    let name = named(name)?;
    let credentials = members.remove("credentials").map(|each| read_credentials(each, path)).transpose()?;
    let ttl = members.remove("ttl_seconds").map(|each| read_ttl(&each, path)).transpose()?;
    if let Some(value) = members.remove("inputs") {
        read_inputs(value, path, &name, inputs)?;
    }
    refuse_rest(&members, path)?;
    Ok(GrantRequest { name, credentials, ttl })
}

fn read_credentials(value: Value, path: &str) -> Result<Vec<String>, Problem> {
    let fault = || malformed(format!("`{path}.credentials` must be a list of names, with at least one"));
    let Value::Array(items) = value else { return Err(fault()) };
    let names: Option<Vec<String>> = items
        .into_iter()
        .map(|item| match item {
            Value::String(name) if is_name(&name) => Some(name),
            Value::String(_)
            | Value::Array(_)
            | Value::Bool(_)
            | Value::Null
            | Value::Number(_)
            | Value::Object(_) => None,
        })
        .collect();
    let names = names.filter(|names| !names.is_empty()).ok_or_else(fault)?;
    let mut seen = HashSet::new();
    if !names.iter().all(|name| seen.insert(name.as_str())) {
        return Err(malformed(format!("`{path}.credentials` names one credential twice")));
    }
    Ok(names)
}

fn read_ttl(value: &Value, path: &str) -> Result<Duration, Problem> {
    let seconds = value.as_u64().filter(|seconds| (1..=MAX_TTL_SECONDS).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        malformed(format!("`{path}.ttl_seconds` must be a whole number from 1 to {MAX_TTL_SECONDS}"))
    })
}

/// Reads the shape of inputs; whether a credential takes any is decided after the permit (`input_invalid`).
fn read_inputs(value: Value, path: &str, grant: &str, inputs: &mut Vec<Given>) -> Result<(), Problem> {
    let fault = || malformed(format!("`{path}.inputs` must be an object of objects of texts, by credential"));
    if value.to_string().len() > MAX_INPUT_BYTES {
        return Err(malformed(format!("`{path}.inputs` has more than 16 KiB")));
    }
    let Value::Object(members) = value else { return Err(fault()) };
    for (credential, input) in members {
        let Value::Object(input) = input else { return Err(fault()) };
        for (name, value) in input {
            let Value::String(value) = value else { return Err(fault()) };
            inputs.push(Given { grant: grant.to_owned(), credential: credential.clone(), name, value });
        }
    }
    Ok(())
}

fn read_reason(value: Value) -> Result<String, Problem> {
    match value {
        Value::String(reason) if reason.chars().count() <= MAX_REASON_CHARS => Ok(reason),
        Value::Array(_)
        | Value::Bool(_)
        | Value::Null
        | Value::Number(_)
        | Value::Object(_)
        | Value::String(_) => Err(malformed("`reason` must be a text of at most 256 characters")),
    }
}

/// Reads `Idempotency-Key`, with the digest of what it stands for: route and body (P3).
pub(super) fn read_retry_key(
    headers: &HeaderMap,
    route: &'static str,
    body: &[u8],
) -> Result<Option<RetryKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bytes = value.as_bytes();
    let fits = (16..=64).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    let key = value.to_str().ok().filter(|_| fits && values.next().is_none()).ok_or_else(|| {
        malformed("there must be one `Idempotency-Key` header, of 16 to 64 visible ASCII characters")
    })?;
    let body = Digest::of_parts(&[route.as_bytes(), body]);
    Ok(Some(RetryKey { key: key.to_owned(), body }))
}

fn object(value: Value, what: &str) -> Result<Map<String, Value>, Problem> {
    match value {
        Value::Object(members) => Ok(members),
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {
            Err(malformed(format!("{what} must be a JSON object")))
        }
    }
}

/// Refuses what is left when every known member was taken out.
fn refuse_rest(members: &Map<String, Value>, path: &str) -> Result<(), Problem> {
    let Some(name) = members.keys().next() else { return Ok(()) };
    let place = if path.is_empty() { "the body" } else { path };
    // A name is shown where it can only be one: what else a caller sent is never repeated to it.
    let is_plain = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_plain {
        Err(malformed(format!("{place} has the unknown member `{name}`")))
    } else {
        Err(malformed(format!("{place} has an unknown member")))
    }
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(Code::RequestMalformed, detail)
}

/// The contract's limits (design: section 3).
const MAX_GRANTS: usize = 8;
const MAX_CREDENTIALS: usize = 16;
const MAX_INPUT_BYTES: usize = 16 * 1024;
const MAX_REASON_CHARS: usize = 256;
/// Thirty years; above it a number is a mistake (R-09), and below it no clock overflows.
const MAX_TTL_SECONDS: u64 = 1_000_000_000;
/// The deepest valid body has six levels; 512 nodes hold 8 grants with 16 credentials and their inputs many times.
const BOUNDS: Bounds = Bounds { depth: 8, nodes: 512, string_bytes: MAX_INPUT_BYTES };
const EXCHANGE: &str = "POST /v1/exchange";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "grants": [{
                "name": "payments-prod", "credentials": ["db", "cert"], "ttl_seconds": 600,
                "inputs": { "cert": { "csr": "text" } }
            }, "other"],
            "reason": "migration 42",
            "dry_run": false
        })
    }

    fn read(value: &Value) -> Result<Ask, String> {
        read_ask(value.to_string().as_bytes(), &HeaderMap::new()).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn reads_every_member_of_the_contract() {
        let ask = read(&good()).unwrap();
        assert_eq!(
            ask.request.grants,
            [
                GrantRequest {
                    name: "payments-prod".into(),
                    credentials: Some(vec!["db".into(), "cert".into()]),
                    ttl: Some(Duration::from_secs(600)),
                },
                GrantRequest { name: "other".into(), credentials: None, ttl: None },
            ]
        );
        assert_eq!(ask.reason.as_deref(), Some("migration 42"));
        let given =
            ask.inputs.iter().map(|given| [&*given.grant, &given.credential, &given.name, &given.value]);
        assert_eq!(given.collect::<Vec<_>>(), [["payments-prod", "cert", "csr", "text"]]);
        assert!(!ask.dry_run && ask.retry.is_none());
        let least = read(&json!({ "grants": ["a"] })).unwrap();
        assert!(least.reason.is_none() && !least.dry_run && least.inputs.is_empty());
        assert!(read(&json!({ "grants": ["a"], "dry_run": true })).unwrap().dry_run);
        assert!(read(&json!({ "grants": ["a"], "reason": "ä".repeat(256) })).is_ok());
    }

    #[test]
    fn refuses_one_spoiled_thing_and_names_it() {
        let long_input = "x".repeat(16 * 1024);
        let nine: Vec<String> = (0..9).map(|index| format!("g{index}")).collect();
        let many: Vec<String> = (0..17).map(|index| format!("c{index}")).collect();
        let cases = [
            ("", json!([]), "the body must be"),
            ("/grants", Value::Null, "`grants` must be a list"),
            ("/grants", json!({}), "`grants` must be a list"),
            ("/grants", json!([]), "1 to 8"),
            ("/grants", json!(nine), "1 to 8"),
            ("/grants", json!(["a", "a"]), "twice"),
            ("/grants", json!(["a", { "name": "a" }]), "twice"),
            ("/grants/0", json!(7), "`grants[0]` must be"),
            ("/grants/1", json!({}), "`grants[1].name`"),
            ("/grants/0/name", json!(1), "`grants[0].name`"),
            ("/grants/0/name", json!("../../etc/passwd"), "`grants[0]` is not a grant's name"),
            ("/grants/1", json!("Other"), "`grants[1]` is not a grant's name"),
            ("/grants/1", json!(""), "`grants[1]` is not a grant's name"),
            ("/grants/1", json!("a".repeat(64)), "`grants[1]` is not a grant's name"),
            ("/grants/0/credentials", json!(["d\u{0}b"]), "`grants[0].credentials`"),
            ("/grants/0/credentials", json!([]), "`grants[0].credentials`"),
            ("/grants/0/credentials", json!("db"), "`grants[0].credentials`"),
            ("/grants/0/credentials", json!(["db", "db"]), "twice"),
            ("/grants/0/credentials", json!(["db", null]), "`grants[0].credentials`"),
            ("/grants/0/credentials", json!(many), "at most 16"),
            ("/grants/0/ttl_seconds", json!(0), "`grants[0].ttl_seconds`"),
            ("/grants/0/ttl_seconds", json!(-1), "`grants[0].ttl_seconds`"),
            ("/grants/0/ttl_seconds", json!(1.5), "`grants[0].ttl_seconds`"),
            ("/grants/0/ttl_seconds", json!(600.0), "`grants[0].ttl_seconds`"),
            ("/grants/0/ttl_seconds", json!("600"), "`grants[0].ttl_seconds`"),
            ("/grants/0/ttl_seconds", json!(1_000_000_001), "`grants[0].ttl_seconds`"),
            ("/grants/0/ttl_seconds", Value::Null, "`grants[0].ttl_seconds`"),
            ("/grants/0/inputs", json!([]), "`grants[0].inputs`"),
            ("/grants/0/inputs/cert", json!("text"), "`grants[0].inputs`"),
            ("/grants/0/inputs/cert/csr", json!(1), "`grants[0].inputs`"),
            ("/grants/0/inputs/cert/csr", json!(long_input), "16 KiB"),
            ("/reason", json!("x".repeat(257)), "`reason`"),
            ("/reason", json!(42), "`reason`"),
            ("/dry_run", json!("true"), "`dry_run`"),
            ("/dry_run", Value::Null, "`dry_run`"),
        ];
        for (pointer, spoiled, told) in cases {
            let mut body = good();
            *body.pointer_mut(pointer).unwrap() = spoiled.clone();
            let text = read(&body).err().unwrap_or_default();
            assert!(text.contains(told), "{pointer} {spoiled}: {text}");
            assert!(text.contains("RequestMalformed"));
        }
    }

    #[test]
    fn refuses_unknown_members_and_shows_only_plain_names() {
        let mut body = good();
        body["grants"][0]["ttl"] = json!(1);
        assert!(read(&body).err().unwrap().contains("grants[0] has the unknown member `ttl`"));
        let mut body = good();
        body["eyJhbGciOiJub25lIn0.e30.x"] = json!(1);
        let text = read(&body).err().unwrap();
        assert!(text.contains("the body has an unknown member") && !text.contains("eyJ"));
    }

    #[test]
    fn refuses_what_is_not_strict_json() {
        for body in [
            "",
            "x",
            r#"{"grants":["a"],"grants":["b"]}"#,
            r#"{"grants":["a"],"\u0067rants":["b"]}"#,
            r#"{"grants":["a"]} {}"#,
            r#"{"grants":[{"name":"a","name":"b"}]}"#,
        ] {
            assert!(read_ask(body.as_bytes(), &HeaderMap::new()).is_err(), "{body}");
        }
    }

    #[test]
    fn reads_an_idempotency_key_and_binds_it_to_the_body() {
        let with = |keys: &[&str], body: &Value| {
            let mut headers = HeaderMap::new();
            for key in keys {
                headers.append(IDEMPOTENCY_KEY, HeaderValue::from_str(key).unwrap());
            }
            read_ask(body.to_string().as_bytes(), &headers).map(|ask| ask.retry.unwrap())
        };
        let key = "0123456789abcdef";
        let first = with(&[key], &good()).ok().unwrap();
        let other = with(&[key], &json!({ "grants": ["a"] })).ok().unwrap();
        assert_eq!(first.key, key);
        assert_ne!(first.body, other.body);
        assert!(with(&[&"x".repeat(64)], &good()).is_ok());
        for bad in [vec!["short"], vec![&"x".repeat(65)], vec!["0123456789 abcdef"], vec![key, key], vec![""]]
        {
            assert!(with(&bad, &good()).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics_whatever_the_bytes(bytes: Vec<u8>) {
            drop(read_ask(&bytes, &HeaderMap::new()));
        }
    }
}
