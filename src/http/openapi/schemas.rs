//! The schemas of bodies and parameters. They are strict: a member that is answered and does not stand here is found
//! by the test that asks a live server.

use serde_json::{Map, Value, json};

use crate::{
    broker::error::Code,
    http::problem::oauth_errors,
    kernel::{freeze::FreezeScope, lifetime::Lifetime, policy::target::Kind},
};

/// All, by name.
pub(super) fn all() -> Value {
    [requests(), exchanged(), shown(), emergency(), ledger(), refusals(), parameters()]
        .into_iter()
        .flatten()
        .collect::<Map<_, _>>()
        .into()
}

/// Members by name, in the order in which they are sent.
type Members<'a> = &'a [(&'a str, Value)];

/// An object that has all of these members and no other.
fn object(members: Members<'_>) -> Value {
    partly(members, members.len())
}

/// An object of which the first so many members are required.
fn partly(members: Members<'_>, required: usize) -> Value {
    let names: Vec<&str> = members.iter().take(required).map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "required": names, "properties": properties, "additionalProperties": false })
}

fn list(of: &Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn maybe(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn maybe_time() -> Value {
    json!({ "type": ["string", "null"], "format": "date-time" })
}

fn constant(value: impl Into<Value>) -> Value {
    json!({ "const": value.into() })
}

fn id(prefix: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{prefix}_[0-9a-hjkmnp-tv-z]{{26}}$") })
}

fn handle() -> Value {
    json!({
        "type": "string", "pattern": "^hdl_[0-9a-hjkmnp-tv-z]{52}$",
        "description": "the bearer right to look after that one issuance",
    })
}

fn name() -> Value {
    json!({ "$ref": "#/components/schemas/Name" })
}

fn kind() -> Value {
    json!({ "type": "string", "enum": Kind::ALL.map(Kind::as_str) })
}

fn lifetime() -> Value {
    let all = [Lifetime::Fixed, Lifetime::Leased, Lifetime::Static];
    json!({
        "type": "string", "enum": all.map(Lifetime::as_str),
        "description": "leased ends by the backend or our revoke, fixed by the backend alone, static never by itself",
    })
}

fn named(name: &str, schema: Value) -> (String, Value) {
    (name.to_owned(), schema)
}

fn requests() -> Vec<(String, Value)> {
    let inputs = json!({
        "type": "object", "description": "by credential; at most 16 KiB together",
        "additionalProperties": { "type": "object", "additionalProperties": { "type": "string" } },
    });
    let grant = partly(
        &[
            ("name", name()),
            (
                "credentials",
                json!({ "type": "array", "items": name(), "minItems": 1, "maxItems": 16, "uniqueItems": true }),
            ),
            ("ttl_seconds", json!({ "type": "integer", "minimum": 1, "maximum": 1_000_000_000 })),
            ("inputs", inputs),
        ],
        1,
    );
    let grants = json!({
        "type": "array", "minItems": 1, "maxItems": 8, "items": { "oneOf": [name(), grant] },
        "description": "each named once; at most 16 credentials together",
    });
    let exchange = partly(
        &[
            ("grants", grants),
            ("reason", json!({ "type": "string", "maxLength": 256 })),
            ("dry_run", json!({ "type": "boolean", "default": false })),
        ],
        1,
    );
    let types = ["urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"];
    let token = json!({
        "type": "object",
        "required": ["grant_type", "subject_token", "subject_token_type", "audience"],
        "properties": {
            "grant_type": { "const": "urn:ietf:params:oauth:grant-type:token-exchange" },
            "subject_token": { "type": "string", "maxLength": 8192, "description": "the job's CI token" },
            "subject_token_type": { "enum": types },
            "audience": name(),
            "scope": { "$ref": "#/components/schemas/Name", "description": "the credential, where the grant has several" },
            "requested_token_type": { "enum": ["urn:ietf:params:oauth:token-type:jwt", "urn:hallpass:token-type:secret"] },
        },
    });
    vec![named("ExchangeRequest", exchange), named("TokenRequest", token)]
}

fn maybe_seconds() -> Value {
    json!({ "type": ["integer", "null"], "minimum": 0 })
}

fn exchanged() -> Vec<(String, Value)> {
    let delivered = object(&[
        ("id", id("iss")),
        ("handle", handle()),
        ("grant", name()),
        ("credential", name()),
        ("kind", kind()),
        ("fields", json!({ "type": "object", "additionalProperties": { "type": "string" } })),
        ("secret_fields", list(&text())),
        ("lifetime", lifetime()),
        ("issued_at", time()),
        ("expires_at", maybe_time()),
        ("ttl_seconds", maybe_seconds()),
        ("revocable", json!({ "type": "boolean" })),
    ]);
    let receipt = object(&[
        ("issuance", id("iss")),
        ("index", json!({ "type": "integer", "minimum": 0 })),
        ("entry", json!({ "type": "string", "contentEncoding": "base64" })),
        ("proof", text()),
    ]);
    let preview = object(&[
        ("grant", name()),
        ("credential", name()),
        ("kind", kind()),
        ("lifetime", lifetime()),
        ("ttl_seconds", maybe_seconds()),
        ("revocable", json!({ "type": "boolean" })),
    ]);
    let issued =
        object(&[("decision_id", id("dec")), ("issuances", list(&delivered)), ("receipts", list(&receipt))]);
    let dry_run = object(&[
        ("decision_id", id("dec")),
        ("dry_run", constant(true)),
        ("issuances", list(&preview)),
        ("receipts", json!({ "type": "array", "maxItems": 0 })),
    ]);
    let token = partly(
        &[
            ("access_token", json!({ "type": "string", "description": "the secret" })),
            ("issued_token_type", text()),
            ("token_type", constant("N_A")),
            ("issuance_id", id("iss")),
            ("handle", handle()),
            ("expires_in", json!({ "type": "integer", "minimum": 0, "description": "absent where static" })),
        ],
        5,
    );
    vec![named("ExchangeAnswer", json!({ "oneOf": [issued, dry_run] })), named("TokenAnswer", token)]
}

fn shown() -> Vec<(String, Value)> {
    let states = ["live", "revoking", "revoked", "released", "expired", "unresolved", "failed"];
    let issuance = object(&[
        ("id", id("iss")),
        ("grant", name()),
        ("credential", name()),
        ("kind", text()),
        ("state", json!({ "type": "string", "enum": states })),
        ("lifetime", lifetime()),
        ("issued_at", time()),
        ("expires_at", maybe_time()),
        ("usable_until", maybe_time()),
        ("revocable", json!({ "type": "boolean" })),
    ]);
    let credential = object(&[("name", name()), ("kind", kind()), ("max_ttl_seconds", maybe_seconds())]);
    let grant = object(&[("name", name()), ("description", text()), ("credentials", list(&credential))]);
    let key = |kind, alg, own: &[&'static str]| {
        let own = own.iter().map(|name| (*name, text()));
        let common =
            [("kty", constant(kind)), ("use", constant("sig")), ("alg", constant(alg)), ("kid", text())];
        object(&common.into_iter().chain(own).collect::<Vec<_>>())
    };
    let key = json!({ "oneOf": [key("RSA", "RS256", &["n", "e"]), key("EC", "ES256", &["crv", "x", "y"])] });
    let ready = partly(
        &[
            ("status", constant("ready")),
            ("parts", parts()),
            ("issuers", issuers()),
            ("warnings", list(&text())),
        ],
        3,
    );
    let released = [("state", constant("released")), ("usable_until", maybe_time()), ("remedy", text())];
    vec![
        named("Issuance", issuance),
        named("Released", partly(&released, 2)),
        named("Job", job()),
        named("Grants", object(&[("grants", list(&grant))])),
        named("KeySet", object(&[("keys", list(&key))])),
        named("Document", json!({ "type": "object" })),
        named("Live", object(&[("status", constant("live"))])),
        named("Ready", ready),
        named("Bytes", json!({ "type": "string", "contentMediaType": "application/octet-stream" })),
        named("Text", text()),
    ]
}

fn emergency() -> Vec<(String, Value)> {
    let scopes = json!({ "type": "string", "enum": FreezeScope::WORDS });
    let reason = json!({ "type": "string", "minLength": 1, "maxLength": 256, "pattern": "\\S" });
    let target = json!({
        "type": "string",
        "description": "ISSUER, ISSUER/KID, GRANT or ISSUER/PROJECT-ID; absent for `all`",
    });
    let project = json!({ "type": "string", "description": "ISSUER/PROJECT-ID" });
    let since = json!({ "type": "string", "description": "a time, or a duration such as `2h`" });
    let revoke = json!({
        "type": "object", "required": ["reason"], "additionalProperties": false,
        "anyOf": [{ "required": ["grant"] }, { "required": ["project"] }, { "required": ["since"] }],
        "properties": {
            "reason": reason, "grant": name(), "project": project, "since": since,
            "dry_run": { "type": "boolean", "default": false },
        },
    });
    let ended = [("id", id("iss")), ("grant", name()), ("credential", name())];
    let mut usable = ended.to_vec();
    usable.extend([("usable_until", maybe_time()), ("remedy", text())]);
    let revocation = object(&[
        ("revoked", list(&object(&ended))),
        ("queued", list(&object(&ended))),
        ("irrevocable", list(&partly(&usable, 4))),
    ]);
    let freeze = |more: Members<'_>| {
        let mut members = vec![("scope", scopes.clone()), ("by", text()), ("reason", text()), ("at", time())];
        members.extend_from_slice(more);
        let required = members.len();
        members.push(("name", text()));
        members.push(("thumbprints", list(&text())));
        partly(&members, required)
    };
    let request = partly(&[("scope", scopes.clone()), ("reason", reason.clone()), ("name", target)], 2);
    vec![
        named("JobScope", object(&[("scope", constant("job"))])),
        named("FreezeRequest", request),
        named("RevokeRequest", revoke),
        named("Revocation", revocation),
        named("Freezes", object(&[("freezes", list(&freeze(&[])))])),
        named("ImposedFreeze", freeze(&[("known", json!({ "type": "boolean" }))])),
    ]
}

fn job() -> Value {
    let members = ["tenant", "project", "ref", "trigger", "environment", "runner", "actor", "run", "job_key"];
    let mut all = vec![("issuer", name()), ("profile", text()), ("subject", text())];
    all.extend(members.map(|member| (member, maybe("string"))));
    all.push(("claims", json!({ "type": "object" })));
    all.push(("unusable", list(&text())));
    all.push(("expires_at", time()));
    object(&all)
}

fn parts() -> Value {
    list(&partly(&[("name", text()), ("ready", json!({ "type": "boolean" })), ("fault", text())], 2))
}

fn issuers() -> Value {
    list(&partly(
        &[
            ("name", name()),
            ("ready", json!({ "type": "boolean" })),
            ("fault", text()),
            ("warnings", list(&text())),
        ],
        2,
    ))
}

fn ledger() -> Vec<(String, Value)> {
    let entry = object(&[
        ("index", json!({ "type": "integer", "minimum": 0 })),
        (
            "entry",
            json!({
                "type": "object", "required": ["v", "code", "at", "salt", "replica"],
                "description": "as it was hashed; the manual's page on entries lists each code with its members",
            }),
        ),
        (
            "personal",
            json!({
                "type": "object", "additionalProperties": { "type": "string" },
                "description": "values for which only commitments stand in the entry",
            }),
        ),
    ]);
    let page = object(&[
        ("items", list(&json!({ "$ref": "#/components/schemas/Entry" }))),
        ("next_cursor", maybe("string")),
    ]);
    vec![named("Entry", entry), named("EntryPage", page)]
}

fn refusals() -> Vec<(String, Value)> {
    let codes = Code::ALL.map(Code::as_str);
    let seconds = json!({ "type": "integer", "minimum": 1 });
    let problem = partly(
        &[
            ("type", json!({ "type": "string", "pattern": "^urn:hallpass:problem:[a-z_]+$" })),
            ("title", text()),
            ("status", json!({ "type": "integer", "minimum": 400, "maximum": 599 })),
            ("detail", text()),
            ("code", json!({ "type": "string", "enum": codes })),
            ("decision_id", id("dec")),
            ("request_id", id("req")),
            ("retry_after_seconds", seconds.clone()),
            ("failed_claims", list(&text())),
            ("parts", parts()),
            ("issuers", issuers()),
            ("warnings", list(&text())),
        ],
        5,
    );
    let oauth = partly(
        &[
            ("error", json!({ "type": "string", "enum": oauth_errors() })),
            ("error_description", text()),
            ("code", json!({ "type": "string", "enum": codes })),
            ("decision_id", id("dec")),
            ("request_id", id("req")),
            ("retry_after_seconds", seconds),
            ("failed_claims", list(&text())),
        ],
        3,
    );
    vec![named("Problem", problem), named("OAuthError", oauth)]
}

fn parameters() -> Vec<(String, Value)> {
    vec![
        named(
            "Name",
            json!({
                "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "maxLength": 63,
            }),
        ),
        named("IdempotencyKey", json!({ "type": "string", "pattern": "^[!-~]{16,64}$" })),
        named("IssuanceId", id("iss")),
        named("Index", json!({ "type": "integer", "minimum": 0 })),
        named(
            "TilePlace",
            json!({ "type": "string", "pattern": "^([0-5]|entries)/(x[0-9]{3}/)*[0-9]{3}(\\.p/[0-9]{1,3})?$" }),
        ),
        named("Query", json!({ "type": "string", "maxLength": 1024 })),
        named("Time", time()),
        named("Cursor", text()),
        named("Limit", json!({ "type": "integer", "minimum": 1, "maximum": 500 })),
    ]
}
