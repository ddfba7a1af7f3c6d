//! An issuer's discovery document (OpenID Connect Discovery 1.0, section 4.2), read strictly.
//!
//! Two members of it are read, and nothing else is believed. Whether the address that it names may be fetched is
//! decided by whoever fetches.

use serde_json::Value;

use crate::kernel::json::{Bounds, read_strict};

/// Why a document says nothing that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DiscoveryFault(pub &'static str);

/// The `jwks_uri` of a document that speaks of this issuer, byte for byte (attack class K-05).
///
/// # Errors
///
/// [`DiscoveryFault`] where it is no strict JSON object, names another issuer or names no `jwks_uri`.
pub fn read_jwks_uri(document: &[u8], issuer: &str) -> Result<String, DiscoveryFault> {
    let Ok(Value::Object(members)) = read_strict(document, DOCUMENT) else {
        return Err(DiscoveryFault("is not a strict JSON object"));
    };
    if members.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(DiscoveryFault("names another issuer"));
    }
    let jwks_uri = members.get("jwks_uri").and_then(Value::as_str);
    jwks_uri.map(str::to_owned).ok_or(DiscoveryFault("has no jwks_uri"))
}

/// Discovery documents list scopes, claims and algorithms; the largest seen have about 150 items.
const DOCUMENT: Bounds = Bounds { depth: 8, nodes: 4096, string_bytes: 8 * 1024 };

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://issuer.test";

    fn read(document: &str) -> Result<String, &'static str> {
        read_jwks_uri(document.as_bytes(), ISSUER).map_err(|fault| fault.0)
    }

    #[test]
    fn reads_the_address_of_the_keys_past_all_else() {
        let document = r#"{"issuer":"https://issuer.test","jwks_uri":"https://issuer.test/keys","claims_supported":["sub",{"x":1}]}"#;
        assert_eq!(read(document), Ok("https://issuer.test/keys".to_owned()));
    }

    #[test]
    fn refuses_what_two_readers_could_take_differently() {
        let cases = [
            ("", "is not a strict JSON object"),
            ("[]", "is not a strict JSON object"),
            (
                r#"{"issuer":"https://issuer.test","issuer":"https://evil.test","jwks_uri":"x"}"#,
                "is not a strict JSON object",
            ),
            (
                r#"{"issuer":"https://issuer.test","jwks_uri":"x","jwks\u005furi":"y"}"#,
                "is not a strict JSON object",
            ),
            (r#"{"jwks_uri":"x"}"#, "names another issuer"),
            (r#"{"issuer":"https://issuer.test/","jwks_uri":"x"}"#, "names another issuer"),
            (r#"{"issuer":"HTTPS://issuer.test","jwks_uri":"x"}"#, "names another issuer"),
            (r#"{"issuer":["https://issuer.test"],"jwks_uri":"x"}"#, "names another issuer"),
            (r#"{"issuer":"https://issuer.test"}"#, "has no jwks_uri"),
            (r#"{"issuer":"https://issuer.test","jwks_uri":["x"]}"#, "has no jwks_uri"),
        ];
        for (document, expected) in cases {
            assert_eq!(read(document), Err(expected), "{document}");
        }
    }
}
