//! JSON Schemas of the policy files, for editors: completion and a word about each key where it is typed.
//!
//! An editor's schema helps to write; it does not decide. The loader is stricter (places, ids, pins), and a test holds
//! that both know the same keys. Draft-07, since YAML editors know no newer one well.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{engines::ENGINES, target::Kind};
use crate::kernel::identity::profiles;

/// Every schema by the word that begins its file: `grant`, `guardrail`, `issuer`, `test`.
pub fn all() -> BTreeMap<&'static str, Value> {
    BTreeMap::from([("grant", grant()), ("guardrail", guardrail()), ("issuer", issuer()), ("test", test())])
}

fn issuer() -> Value {
    document(
        "An issuer whose tokens the rules may speak of; hallpass.yaml has the same name, URL and profile",
        object(
            &["issuer", "profile", "url", "audience"],
            [
                ("issuer", described("Its name in rules and ledger", name())),
                ("profile", described("The kind of CI system", json!({ "enum": profile_names() }))),
                ("url", text("The `iss` of its tokens, byte for byte")),
                (
                    "audience",
                    described(
                        "The one audience that jobs ask for; never the vendor's default",
                        json!({ "anyOf": [filled(), { "type": "array", "items": filled(), "minItems": 1, "maxItems": 1 }] }),
                    ),
                ),
                ("max_token_age", described("The greatest age of a token; 10m where absent", duration())),
            ],
        ),
    )
}

fn grant() -> Value {
    let mut schema = document(
        "A grant: which jobs may get which credentials",
        object(
            &["grant", "allow", "credentials"],
            [
                ("grant", described("Its name, which jobs ask for", name())),
                ("description", text("For people")),
                ("owners", described("Who answers for it", texts())),
                ("class", described("May only raise what guardrails say of the targets", class())),
                (
                    "allow",
                    described(
                        "Any rule that matches permits",
                        json!({ "type": "array", "minItems": 1, "items": rule() }),
                    ),
                ),
                ("credentials", credentials()),
                ("limits", limits()),
                ("valid_until", described("The last day, UTC", date())),
                ("enabled", described("false switches it off", json!({ "type": "boolean" }))),
                (
                    "disclose",
                    described(
                        "owner: its own projects are told which claims failed",
                        json!({ "enum": ["owner"] }),
                    ),
                ),
            ],
        ),
    );
    define(&mut schema, [("matcher", matcher()), ("item", list_item())]);
    schema
}

fn rule() -> Value {
    object(
        &["name", "issuer", "match"],
        [
            ("name", described("Its name in the ledger", name())),
            ("issuer", described("One of issuers/*.yaml", name())),
            ("match", conditions()),
            ("window", window()),
        ],
    )
}

/// Every claim of every profile is offered; others stand for profiles whose claims only begin in a known way, and for
/// issuers whose claims nobody knows beforehand.
fn conditions() -> Value {
    let mut claims: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for profile in profiles::ALL {
        for claim in profile.claims {
            claims.entry(claim.name).or_default().push(profile.name);
        }
    }
    let property = |(name, profiles): (&str, Vec<&str>)| {
        let about = format!("A claim of {}", profiles.join(", "));
        (name.to_owned(), json!({ "description": about, "allOf": [reference("matcher")] }))
    };
    json!({
        "type": "object",
        "description": "All must hold",
        "minProperties": 1,
        "properties": claims.into_iter().map(property).collect::<Map<_, _>>(),
        "additionalProperties": reference("matcher"),
    })
}

fn matcher() -> Value {
    json!({ "anyOf": [
        scalar(),
        { "type": "array", "minItems": 1, "items": reference("item") },
        operator("glob", "`*` inside one segment, `**` across; always the whole text", filled()),
        operator("not", "Present, and not this", json!({ "anyOf": [
            scalar(), { "type": "array", "minItems": 1, "items": reference("item") },
            operator("glob", "A pattern", filled()),
        ] })),
        operator("present", "Whether the claim is there", json!({ "type": "boolean" })),
    ] })
}

fn list_item() -> Value {
    json!({ "anyOf": [
        scalar(),
        operator("glob", "`*` inside one segment, `**` across", filled()),
        operator("present", "false: it may be absent", json!({ "enum": [false] })),
    ] })
}

fn operator(key: &'static str, about: &str, value: Value) -> Value {
    object(&[key], [(key, described(about, value))])
}

fn window() -> Value {
    let time = json!({ "type": "string", "pattern": "^([01][0-9]|2[0-4]):[0-5][0-9]$" });
    let days = json!({
        "type": "array", "minItems": 1, "uniqueItems": true,
        "items": { "enum": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] },
    });
    described(
        "When the rule holds; `from` after `to` crosses midnight and belongs to the day it starts",
        object(
            &["timezone"],
            [
                ("timezone", text("A name of the IANA database, such as Europe/London")),
                ("days", described("Every day where absent", days)),
                ("from", described("The first minute, such as \"07:00\"", time.clone())),
                ("to", described("The minute at which it is over, such as \"19:00\"", time)),
            ],
        ),
    )
}

fn credentials() -> Value {
    let mut properties = Map::new();
    properties.insert("ttl".to_owned(), described("How long it lives; none for a static one", duration()));
    properties.insert(
        Kind::Sealed.as_str().to_owned(),
        described(
            "A secret of Hallpass's own store",
            object(&["secret"], [("secret", described("Its name; set it by `hallpass secret set`", name()))]),
        ),
    );
    properties.insert(
        Kind::Oidc.as_str().to_owned(),
        described(
            "An assertion signed by Hallpass, at most 300 s",
            object(&["audience"], [("audience", text("Who shall accept it"))]),
        ),
    );
    properties.insert(Kind::Vault.as_str().to_owned(), vault());
    properties.insert(Kind::Aws.as_str().to_owned(), aws());
    let one_kind: Vec<Value> =
        Kind::ALL.into_iter().map(|kind| json!({ "required": [kind.as_str()] })).collect();
    json!({
        "type": "object",
        "description": "What the grant yields, by name",
        "minProperties": 1,
        "maxProperties": 16,
        "propertyNames": name(),
        "additionalProperties": {
            "type": "object", "additionalProperties": false, "properties": properties, "oneOf": one_kind,
        },
    })
}

fn vault() -> Value {
    let engines: Vec<&str> = ENGINES.iter().map(|spec| spec.engine.name).collect();
    let lifetimes = json!({ "enum": ["leased", "fixed", "static"] });
    described(
        "A path of Vault",
        object(
            &["engine", "path"],
            [
                ("backend", text("One of `backends` in hallpass.yaml; due where there are several of Vault")),
                ("engine", described("What stands behind the path", json!({ "enum": engines }))),
                ("path", text("MOUNT/OPERATION/NAME, without v1; a segment may hold ${claims.NAME}")),
                (
                    "version",
                    described(
                        "The version of a kv2 secret; the newest where absent",
                        json!({ "type": "integer", "minimum": 1 }),
                    ),
                ),
                ("fields", described("The chosen fields; all where absent", texts())),
                (
                    "parameters",
                    described("What the engine is told, such as common_name", json!({ "type": "object" })),
                ),
                ("lifetime", described("generic: how long it lives", lifetimes)),
                ("secret_fields", described("generic: what of the answer is secret", texts())),
                (
                    "method",
                    described(
                        "generic: how it is asked; get where absent",
                        json!({ "enum": ["get", "post"] }),
                    ),
                ),
            ],
        ),
    )
}

fn aws() -> Value {
    let tags = json!({ "type": "object", "maxProperties": 50, "additionalProperties": filled() });
    described(
        "A session of a role of AWS, 15 minutes to 12 hours",
        object(
            &["role_arn"],
            [
                ("backend", text("One of `backends` in hallpass.yaml; due where there are several of AWS")),
                (
                    "role_arn",
                    text("arn:aws:iam::ACCOUNT:role/NAME; its trust policy names `sub: grant:NAME`"),
                ),
                ("tags", described("Session tags; a value may hold ${claims.NAME}", tags)),
                (
                    "session_policy",
                    text("The JSON of a policy, which can only narrow; at most 2,048 characters"),
                ),
                ("managed_policies", described("ARNs of managed session policies, at most 10", texts())),
            ],
        ),
    )
}

fn limits() -> Value {
    let count = |most: u32| json!({ "type": "integer", "minimum": 1, "maximum": most });
    described(
        "How much of it at once",
        object(
            &[],
            [
                ("issuances_per_hour", described("In any hour", count(1_000_000))),
                ("live", described("Usable at one time; static ones do not count", count(1_000_000))),
                (
                    "per",
                    described(
                        "Counted for each project, else over the whole grant",
                        json!({ "enum": ["project"] }),
                    ),
                ),
                (
                    "uses_per_token",
                    described("For CI systems that mint one token a job; 1 where absent", count(8)),
                ),
            ],
        ),
    )
}

fn guardrail() -> Value {
    let mut schema = document(
        "A guardrail: a limit above all grants; it can only narrow",
        object(
            &["guardrail"],
            [
                ("guardrail", described("Its name", name())),
                ("applies_to", selector()),
                ("require", requirements()),
                (
                    "targets",
                    described("What may be reached at all; a kind that is not listed may not", targets()),
                ),
                (
                    "forbid",
                    described(
                        "What no rule may name its way around",
                        object(
                            &["triggers"],
                            [("triggers", described("Words of CI systems", one_or_more(filled())))],
                        ),
                    ),
                ),
                ("classify", classification()),
                (
                    "mode",
                    described(
                        "report: permits stand, and their entries say would_deny",
                        json!({ "enum": ["enforce", "report"] }),
                    ),
                ),
                ("report_until", described("The last day of reporting; after it, it denies", date())),
            ],
        ),
    );
    define(&mut schema, [("patterns", patterns())]);
    schema
}

fn selector() -> Value {
    described(
        "Which grants; all that is given must hold. Every grant where absent",
        object(
            &[],
            [
                ("class", one_or_more(class())),
                ("folder", described("Below grants/", one_or_more(filled()))),
                ("issuer", one_or_more(name())),
                ("backend", one_or_more(filled())),
                ("target", targets()),
            ],
        ),
    )
}

fn requirements() -> Value {
    let lifetime = json!({ "enum": ["leased", "fixed", "static"] });
    described(
        "What must hold",
        object(
            &[],
            [
                ("max_ttl", described("Cuts; it does not speak of static credentials", duration())),
                ("issuers", one_or_more(name())),
                (
                    "pinned",
                    described(
                        "project: every rule names the project's immutable id",
                        one_or_more(json!({ "enum": ["project"] })),
                    ),
                ),
                ("protected_ref", json!({ "enum": [true] })),
                ("runner", json!({ "enum": ["hosted"] })),
                ("lifetime", one_or_more(lifetime)),
                (
                    "grant_names",
                    described("Patterns, for clouds that trust `sub: grant:<name>`", one_or_more(filled())),
                ),
            ],
        ),
    )
}

fn targets() -> Value {
    json!({
        "type": "object",
        "minProperties": 1,
        "additionalProperties": false,
        "properties": by_kind(|| json!({ "anyOf": [{ "enum": ["any"] }, reference("patterns")] })),
    })
}

fn classification() -> Value {
    let mut properties = by_kind(|| json!({ "anyOf": [{ "enum": ["any"] }, reference("patterns")] }));
    properties.insert("class".to_owned(), class());
    json!({
        "type": "array",
        "description": "The least class of a target, for all grants; the highest match wins",
        "minItems": 1,
        "items": {
            "type": "object", "additionalProperties": false, "properties": properties,
            "required": ["class"], "minProperties": 2, "maxProperties": 2,
        },
    })
}

fn by_kind(value: impl Fn() -> Value) -> Map<String, Value> {
    Kind::names().map(|kind| (kind.to_owned(), value())).collect()
}

fn patterns() -> Value {
    let of_backend = object(&["backend", "match"], [("backend", filled()), ("match", filled())]);
    one_or_more(json!({ "anyOf": [filled(), of_backend] }))
}

fn test() -> Value {
    let claims = json!({ "type": "object" });
    let fixture = object(
        &["issuer"],
        [
            ("issuer", described("One of issuers/*.yaml", name())),
            ("at", text("The moment, RFC 3339; due where the grant has a window or a date")),
            ("claims", described("The token's claims", claims.clone())),
            ("file", text("A JSON file with the token's claims, below the policy directory")),
        ],
    );
    document(
        "Tests of a grant",
        object(
            &["test", "fixtures", "cases"],
            [
                ("test", described("The grant", name())),
                ("given", described("A grant that stands in no file, as if it stood in this folder", claims)),
                (
                    "fixtures",
                    json!({ "type": "object", "minProperties": 1, "additionalProperties": fixture }),
                ),
                ("cases", json!({ "type": "array", "minItems": 1, "items": case() })),
            ],
        ),
    )
}

fn case() -> Value {
    let claims = json!({ "type": "object" });
    let longest = json!({ "anyOf": [duration(), { "type": "object", "additionalProperties": duration() }] });
    let breaches = json!({ "anyOf": [texts(), { "type": "object", "additionalProperties": texts() }] });
    let reached = json!({ "anyOf": [{ "type": "string" }, { "type": "object" }] });
    let reached = json!({ "type": "object", "additionalProperties": reached });
    let counts = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "issuances_per_hour": { "type": "integer" }, "live": { "type": "integer" },
            "per": { "enum": ["grant", "project"] }, "uses_per_token": { "type": "integer" },
        },
    });
    object(
        &["name", "use", "expect"],
        [
            ("name", text("What happens")),
            ("use", text("A fixture")),
            ("set", described("Claims set otherwise", claims)),
            ("remove", described("Claims taken away", texts())),
            ("at", text("The moment, in place of the fixture's")),
            ("credentials", described("The credentials asked for; all where absent", texts())),
            ("expect", json!({ "enum": ["permit", "deny"] })),
            ("rule", text("The rule that is meant")),
            ("failed", described("Deny: the claims that failed", texts())),
            ("reason", text("Deny: the reason, as the ledger has it")),
            ("guardrails", described("Deny: the guardrails that refuse", breaches.clone())),
            ("disclosed", described("Deny: the claims that the caller is told", texts())),
            ("ttl_max", described("Permit: no credential, or none of these, lives longer", longest)),
            ("class", described("Permit: the grant's class", class())),
            ("limits", described("Permit: the grant's limits", counts)),
            (
                "reaches",
                described("Permit: what credentials reach, each by its target or by more of it", reached),
            ),
            ("would_deny", described("Permit: the guardrails that only report", breaches)),
        ],
    )
}

fn document(about: &str, schema: Value) -> Value {
    let mut members = Map::new();
    members.insert("$schema".to_owned(), "http://json-schema.org/draft-07/schema#".into());
    members.insert("title".to_owned(), about.into());
    if let Value::Object(rest) = schema {
        members.extend(rest);
    }
    Value::Object(members)
}

fn define<const N: usize>(schema: &mut Value, definitions: [(&'static str, Value); N]) {
    if let Value::Object(members) = schema {
        let definitions = definitions.into_iter().map(|(name, schema)| (name.to_owned(), schema));
        members.insert("definitions".to_owned(), Value::Object(definitions.collect()));
    }
}

fn object<const N: usize>(required: &[&str], properties: [(&'static str, Value); N]) -> Value {
    let properties = properties.into_iter().map(|(name, schema)| (name.to_owned(), schema));
    let properties = Value::Object(properties.collect());
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}

fn described(about: &str, mut schema: Value) -> Value {
    if let Value::Object(members) = &mut schema {
        members.insert("description".to_owned(), about.into());
    }
    schema
}

fn one_or_more(item: Value) -> Value {
    json!({ "anyOf": [item.clone(), { "type": "array", "minItems": 1, "items": item }] })
}

fn reference(definition: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{definition}") })
}

fn profile_names() -> Vec<&'static str> {
    profiles::ALL.iter().map(|profile| profile.name).collect()
}

fn name() -> Value {
    json!({ "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" })
}

fn class() -> Value {
    json!({ "enum": super::class::Class::ALL.map(super::class::Class::as_str) })
}

fn duration() -> Value {
    json!({ "type": "string", "pattern": "^[1-9][0-9]*[smhd]$" })
}

fn date() -> Value {
    json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" })
}

fn filled() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn text(about: &str) -> Value {
    described(about, filled())
}

fn texts() -> Value {
    json!({ "type": "array", "items": filled() })
}

fn scalar() -> Value {
    json!({ "type": ["string", "integer", "boolean"] })
}

#[cfg(test)]
mod tests;
