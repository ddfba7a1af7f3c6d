//! Writes the document from the operations.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Answer, Content, Listener, OPERATIONS, Operation, Parameter, Right, schemas};
use crate::{
    broker::error::Code,
    http::problem::{self, PROBLEM_JSON_TYPE},
};

/// The whole document.
pub fn document() -> Value {
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Hallpass",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A secrets broker for CI",
            "description": "Bodies have at most 32 KiB, heads at most 16 KiB and 100 headers, tokens at most 8 KiB. \
                Members and parameters that are not described are refused, but for parameters of `/v1/token`, which \
                are ignored as OAuth wants it. No answer may be kept: each has `Cache-Control: no-store`, but for the \
                documents of our own issuer. A path that is not described is 404, another method 405 with `Allow`. Retry \
                connect errors, 409 `request_in_progress`, 429, 502, 503 and 504 only.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "the public listener" }],
        "tags": [
            { "name": "public", "description": "for pipeline steps" },
            { "name": "admin", "description": "for auditors and operators, on the admin listener" },
        ],
        "paths": paths(),
        "components": {
            "schemas": schemas::all(),
            "headers": headers(),
            "securitySchemes": {
                "job": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "the job's CI token" },
                "handle": { "type": "http", "scheme": "bearer", "description": "the handle of the issuance, `hdl_…`" },
                "admin": { "type": "http", "scheme": "bearer", "description": "a named token of the configuration" },
            },
        },
    })
}

fn paths() -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path.replace("{*", "{")).or_default();
        if operation.listeners == [Listener::Admin] {
            path.insert("servers".to_owned(), admin_server());
        }
        path.insert(operation.method.to_ascii_lowercase(), written(operation));
    }
    json!(paths)
}

fn admin_server() -> Value {
    json!([{
        "url": "{admin}",
        "description": "the admin listener",
        "variables": { "admin": { "default": "http://127.0.0.1:8441", "description": "`admin.listen`" } },
    }])
}

fn written(operation: &Operation) -> Value {
    let tags: Vec<_> = operation.listeners.iter().map(|listener| listener.as_str()).collect();
    let mut members = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": tags,
        "security": security(operation.right),
        "responses": responses(operation),
    });
    if let Right::Role(role) = operation.right {
        add(&mut members, "description", format!("Needs the role `{}`.", role.as_str()));
    }
    if !operation.parameters.is_empty() {
        add(&mut members, "parameters", operation.parameters.iter().map(parameter).collect::<Value>());
    }
    if let Some(body) = &operation.body {
        add(&mut members, "requestBody", json!({ "required": true, "content": content(body) }));
    }
    members
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name, "in": parameter.place, "required": parameter.place == "path",
        "description": parameter.means, "schema": reference(parameter.schema),
    })
}

fn security(right: Right) -> Value {
    match right {
        Right::Nobody | Right::JobInBody => json!([]),
        Right::Job => json!([{ "job": [] }]),
        Right::Holder => json!([{ "handle": [] }, { "job": [] }]),
        Right::Role(_) => json!([{ "admin": [] }]),
    }
}

/// What is refused for each status, and in which words.
#[derive(Default)]
struct Refusals {
    problems: BTreeSet<&'static str>,
    in_oauth: BTreeSet<&'static str>,
}

fn responses(operation: &Operation) -> Value {
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
    for Answer { status, means, content: body } in operation.answers {
        let headers = if operation.is_keepable { keepable() } else { always() };
        let mut response = json!({ "description": means, "headers": headers });
        if let Some(body) = body {
            add(&mut response, "content", content(body));
        }
        responses.insert(status.to_string(), response);
    }
    for (status, Refusals { problems, in_oauth }) in refusals(operation) {
        let mut headers = always();
        if status == 401 {
            add(&mut headers, "WWW-Authenticate", json!({ "$ref": "#/components/headers/WWW-Authenticate" }));
        }
        if status == 429 || status == 503 {
            add(&mut headers, "Retry-After", json!({ "$ref": "#/components/headers/Retry-After" }));
        }
        let codes: BTreeSet<_> = problems.union(&in_oauth).copied().collect();
        let codes: Vec<_> = codes.into_iter().map(|code| format!("`{code}`")).collect();
        let mut response = json!({ "description": codes.join(", "), "headers": headers });
        if operation.method != "HEAD" {
            let mut content = Map::new();
            let mut told = |media_type: &str, schema: &str, codes: &BTreeSet<&str>| {
                if !codes.is_empty() {
                    let narrowed = json!({ "properties": { "code": { "enum": codes } } });
                    let schema = json!({ "allOf": [reference(schema), narrowed] });
                    content.insert(media_type.to_owned(), json!({ "schema": schema }));
                }
            };
            told(PROBLEM_JSON_TYPE, "Problem", &problems);
            told("application/json", "OAuthError", &in_oauth);
            add(&mut response, "content", content);
        }
        responses.insert(status.to_string(), response);
    }
    json!(responses)
}

fn refusals(operation: &Operation) -> BTreeMap<u16, Refusals> {
    let mut all: BTreeMap<u16, Refusals> = BTreeMap::new();
    // What is found in the head, before the route is asked, is never told in OAuth's words.
    for code in HEAD {
        for status in problem::statuses_of_problem(*code) {
            all.entry(status.as_u16()).or_default().problems.insert(code.as_str());
        }
    }
    let mut codes: BTreeSet<&'static str> = BTreeSet::new();
    let brought: &[&[Code]] = &[
        operation.codes,
        match operation.right {
            Right::Nobody => &[],
            Right::Job | Right::JobInBody | Right::Holder => JOB,
            Right::Role(_) => ADMIN,
        },
        if operation.gated { &[Code::RateLimited, Code::Overloaded] } else { &[] },
    ];
    for code in brought.iter().copied().flatten().copied().chain([Code::RequestMalformed]) {
        if !codes.insert(code.as_str()) {
            continue;
        }
        let (status, is_oauth) = problem::shown_by(code, operation.in_oauth);
        let refusals = all.entry(status.as_u16()).or_default();
        let words = if is_oauth { &mut refusals.in_oauth } else { &mut refusals.problems };
        words.insert(code.as_str());
    }
    if operation.in_oauth {
        // A body that comes too late, and what breaks off.
        all.entry(408).or_default().in_oauth.insert(Code::RequestMalformed.as_str());
        all.entry(500).or_default().in_oauth.insert(Code::Internal.as_str());
    }
    all
}

/// Adds a member to what is an object.
fn add(to: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(members) = to {
        members.insert(name.to_owned(), value.into());
    }
}

fn content(content: &Content) -> Value {
    let mut written = Map::new();
    written.insert(content.media_type.to_owned(), json!({ "schema": reference(content.schema) }));
    written.into()
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn always() -> Value {
    let names = ["Cache-Control", "Pragma", "Vary", "X-Content-Type-Options"];
    let of = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    names.into_iter().map(|name| (name.to_owned(), of(name))).collect::<Map<_, _>>().into()
}

/// Of an answer that a cache may keep.
fn keepable() -> Value {
    let of = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    json!({
        "Cache-Control": of("Cache-Control-Of-Keys"), "X-Content-Type-Options": of("X-Content-Type-Options"),
    })
}

fn headers() -> Value {
    let fixed = |value: &str, means: &str| json!({ "description": means, "required": true, "schema": { "type": "string", "const": value } });
    json!({
        "Cache-Control": fixed("no-store", "nothing may keep it"),
        "Cache-Control-Of-Keys": {
            "description": "anybody may keep it for so long, which is far less than a new key is known before it signs",
            "required": true, "schema": { "type": "string", "pattern": "^public, max-age=[0-9]+$" },
        },
        "Pragma": fixed("no-cache", "the same for HTTP/1.0"),
        "Vary": fixed("Authorization", "it is for whoever asked"),
        "X-Content-Type-Options": fixed("nosniff", "it is of the type that it says"),
        "Retry-After": {
            "description": "seconds to wait", "required": true, "schema": { "type": "integer", "minimum": 1 },
        },
        "WWW-Authenticate": {
            "description": "without `error` where no token came (RFC 6750 section 3.1)", "required": true,
            "schema": { "type": "string", "enum": ["Bearer", "Bearer error=\"invalid_token\""] },
        },
    })
}

/// What every request can be refused for.
const HEAD: &[Code] = &[Code::RequestMalformed, Code::RequestTooLarge, Code::Internal, Code::Overloaded];

/// What a CI token brings.
const JOB: &[Code] = &[
    Code::TokenMissing,
    Code::TokenMalformed,
    Code::TokenSignature,
    Code::TokenExpired,
    Code::TokenNotYetValid,
    Code::TokenAudience,
    Code::TokenIssuer,
    Code::TokenAlgorithm,
    Code::TokenTooOld,
    Code::IssuerUnavailable,
    Code::NotReady,
    Code::RateLimited,
];

/// What a token of the admin API brings.
const ADMIN: &[Code] = &[Code::TokenMissing, Code::TokenMalformed, Code::AccessDenied];
