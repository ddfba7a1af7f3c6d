//! What a certificate request asks to be called. Vault's roles take the name of the request before that of the call
//! unless they are told otherwise (`use_csr_common_name`), so a job could choose any name that its role allows: names
//! stand in the policy (design: section 3, `inputs`), and a request that asks for another is unfit.
//!
//! Source: RFC 2986 (PKCS #10), RFC 5280 section 4.2.1.6; Vault's API of the pki engine, November 2026.

use std::collections::BTreeMap;

use serde_json::Value;
use x509_parser::{
    oid_registry::{OID_PKCS9_CHALLENGE_PASSWORD, OID_X509_EXT_SUBJECT_ALT_NAME},
    prelude::{
        ExtensionRequest, FromDer as _, GeneralName, ParsedCriAttribute, ParsedExtension,
        X509CertificationRequest, X509CriAttribute, X509Extension, parse_x509_pem,
    },
};

/// Whether a PEM request asks for nothing but what the parameters of its credential name. Vault reads it with a parser
/// of its own: whatever two could read differently (several blocks, several requests for extensions, a name that is no
/// plain text) is unfit.
pub(super) fn asks_only_for(request: &str, parameters: &BTreeMap<String, Value>) -> bool {
    let named: Vec<&str> = ["common_name", "alt_names", "ip_sans", "uri_sans"]
        .iter()
        .filter_map(|key| parameters.get(*key))
        .flat_map(texts)
        .flat_map(|text| text.split(','))
        .map(str::trim_ascii)
        .collect();
    let is_named = |name: &str| named.contains(&name);
    let request = request.trim_ascii();
    let is_one_block = request.matches("-----").count() == 4 && !request.contains(':');
    let Ok((_, pem)) = parse_x509_pem(request.as_bytes()) else { return false };
    let Ok((rest, request)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    let asked = &request.certification_request_info;
    is_one_block
        && rest.is_empty()
        && asked.subject.iter_common_name().all(|name| name.as_str().is_ok_and(is_named))
        && asked.attributes().iter().filter(|each| extensions(each).is_some()).count() <= 1
        && asked.attributes().iter().all(|attribute| match extensions(attribute) {
            Some(asked) => asked.extensions.iter().all(|extension| is_fit(extension, &is_named)),
            None => attribute.oid == OID_PKCS9_CHALLENGE_PASSWORD,
        })
}

fn extensions<'a>(attribute: &'a X509CriAttribute<'_>) -> Option<&'a ExtensionRequest<'a>> {
    match attribute.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(asked) => Some(asked),
        ParsedCriAttribute::ChallengePassword(_) | ParsedCriAttribute::UnsupportedAttribute => None,
    }
}

/// Only names are a job's to ask for; all else comes from the role, whatever the request says of it.
fn is_fit(extension: &X509Extension<'_>, is_named: &dyn Fn(&str) -> bool) -> bool {
    if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
        return names.general_names.iter().all(|name| is_allowed(name, is_named));
    }
    extension.oid != OID_X509_EXT_SUBJECT_ALT_NAME
}

fn is_allowed(name: &GeneralName<'_>, is_named: &dyn Fn(&str) -> bool) -> bool {
    if let GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) = name {
        return is_named(name);
    }
    // An address of IPv6 has many spellings; who needs one leaves it to the policy's `ip_sans`.
    let GeneralName::IPAddress([a, b, c, d]) = name else { return false };
    is_named(&format!("{a}.{b}.{c}.{d}"))
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(common_name: Option<&str>, names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn request_that_asks_for_another_name_is_unfit() {
        let parameters: BTreeMap<String, Value> = [
            ("common_name".to_owned(), json!("a.ci.test")),
            ("alt_names".to_owned(), json!("b.ci.test, c.ci.test")),
            ("ip_sans".to_owned(), json!(["192.0.2.1"])),
        ]
        .into();
        for (name, names, due) in [
            (Some("a.ci.test"), &["b.ci.test", "192.0.2.1"][..], true),
            (None, &[], true),
            (Some("other.ci.test"), &[], false),
            (Some("a.ci.test"), &["other.ci.test"], false),
            (Some("a.ci.test"), &["192.0.2.2"], false),
        ] {
            assert_eq!(asks_only_for(&request(name, names), &parameters), due, "{name:?} {names:?}");
        }
        assert!(!asks_only_for(
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
            &parameters
        ));
    }

    /// A second request for extensions: one parser reads the first of them, Go's reads all.
    #[test]
    fn request_that_asks_twice_for_extensions_is_unfit() {
        const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113_549, 1, 9, 14];
        let name = b"\x30\x0b\x82\x09evil.test";
        let extension = [b"\x30\x14\x06\x03\x55\x1d\x11\x04\x0d", &name[..]].concat();
        let values = [b"\x31\x18\x30\x16", &extension[..]].concat();
        let mut parameters = rcgen::CertificateParams::new(vec!["b.ci.test".to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = |attributes| {
            parameters.serialize_request_with_attributes(&key, attributes).unwrap().pem().unwrap()
        };
        let allowed = BTreeMap::from([("alt_names".to_owned(), json!("b.ci.test"))]);
        assert!(asks_only_for(&pem(Vec::new()), &allowed));
        let second = rcgen::Attribute { oid: EXTENSION_REQUEST, values };
        assert!(!asks_only_for(&pem(vec![second]), &allowed));
    }
}
