//! SPIFFE JWT-SVIDs. The tenant is the trust domain, the host of `sub`.
//!
//! The standard asks for `sub`, `aud` and `exp` only. **We ask for `iss` and `iat` too**: the issuer chooses the keys, byte
//! for byte, and the age is counted from `iat`. So the trust domain's server must set `iss` (SPIRE: `jwt_issuer`), to
//! the address under which its OIDC discovery provider, or a bundle in a file, has the keys. Of the standard's algorithms those with 512 bits, and RSA with
//! 384, are not supported. A rule names whole SPIFFE IDs: the path is case-sensitive, and who gets which is registered by
//! the operator of the trust domain. There is no `jti`: the signed bytes are the token id. An SVID is not tied to a git
//! ref or to one run.
//!
//! Source: SPIFFE "JWT-SVID" and "SPIFFE ID" standards as generally known, UNVERIFIED here but for the rule that the
//! trust domain is compared exactly (sigstore/fulcio). UNVERIFIED too: keys with `use: jwt-svid`, as a trust bundle has
//! them, are no signature keys to us; the discovery provider publishes plain ones.

use serde_json::{Map, Value};

use crate::kernel::identity::{
    job::Trigger,
    profile::{Algorithm, ClaimSpec, Profile, Tenant, View},
};

/// `spiffe`.
pub static SPIFFE: Profile = Profile {
    name: "spiffe",
    issuers: &["https://HOST"],
    algorithms: &[Algorithm::Es256, Algorithm::Es384, Algorithm::Ps256, Algorithm::Rs256],
    claims: CLAIMS,
    prefixes: &[],
    open: false,
    is_shared: |_| false,
    tenant_pins: &[],
    anchors: &["sub"],
    demands: &[],
    tenant: Tenant::Part { of: "sub", what: "trust domain", cut: |sub| Some(take_apart(sub)?.0) },
    project: None,
    jti_always: false,
    job_key: &[],
    view: View::EMPTY,
    refuses_audience: |_, _| false,
    fixed_audience: None,
    is_personal_subject: |_| false,
    foreign,
    trigger: |_| Trigger::Ordinary,
    ordinary: &[],
    dangers: &[],
    advice: None,
};

fn foreign(claims: &Map<String, Value>) -> Option<&'static str> {
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    take_apart(subject).is_none().then_some("sub")
}

/// Trust domain and path of a workload's SPIFFE ID, which has a path without empty and dotted segments.
fn take_apart(id: &str) -> Option<(&str, &str)> {
    let (domain, path) = id.strip_prefix("spiffe://").filter(|_| id.len() <= ID_BYTES)?.split_once('/')?;
    let in_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let in_segment = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(in_segment);
    let is_domain = !domain.is_empty() && domain.len() <= 255 && domain.bytes().all(in_domain);
    (is_domain && path.split('/').all(is_segment)).then_some((domain, path))
}

/// The standard's bound on an ID.
const ID_BYTES: usize = 2048;

const CLAIMS: &[ClaimSpec] = &[ClaimSpec::text("sub").required().identity()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_of_a_workload_is_taken_apart() {
        assert_eq!(
            take_apart("spiffe://prod.acme.example/ns/ci/sa/x"),
            Some(("prod.acme.example", "ns/ci/sa/x"))
        );
        for bad in [
            "spiffe://prod.acme.example",
            "spiffe://prod.acme.example/",
            "spiffe:///ns/ci",
            "spiffe://Prod.acme.example/ns",
            "spiffe://prod.acme.example:8443/ns",
            "spiffe://user@prod.acme.example/ns",
            "spiffe://prod.acme.example/ns//x",
            "spiffe://prod.acme.example/ns/../x",
            "spiffe://prod.acme.example/ns?x",
            "SPIFFE://prod.acme.example/ns",
            "https://prod.acme.example/ns",
        ] {
            assert_eq!(take_apart(bad), None, "{bad}");
        }
    }
}
