//! What a certificate request asks to be called. Vault's roles take the name of the request before that of the call
//! unless they are told otherwise (`use_csr_common_name`), so a job could choose any name that its role allows: names
//! stand in the policy (design: section 3, `inputs`), and a request that asks for another is unfit.
//!
//! Source: RFC 2986 (PKCS #10), RFC 5280 section 4.2.1.6; Vault's API of the pki engine, November 2026.

use std::collections::BTreeMap;

use serde_json::Value;
use x509_parser::prelude::{
    FromDer as _, GeneralName, ParsedExtension, X509CertificationRequest, parse_x509_pem,
};

/// Whether a PEM request asks for nothing but what the parameters of its credential name.
pub(super) fn asks_only_for(request: &str, parameters: &BTreeMap<String, Value>) -> bool {
    let named: Vec<&str> = ["common_name", "alt_names", "ip_sans", "uri_sans"]
        .iter()
        .filter_map(|key| parameters.get(*key))
        .flat_map(texts)
        .flat_map(|text| text.split(','))
        .map(str::trim_ascii)
        .collect();
    let Ok((_, pem)) = parse_x509_pem(request.trim_ascii().as_bytes()) else { return false };
    let Ok((rest, request)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    let subject = &request.certification_request_info.subject;
    let is_named = |name: &str| named.contains(&name);
    rest.is_empty()
        && subject.iter_common_name().all(|name| name.as_str().is_ok_and(is_named))
        && request.requested_extensions().into_iter().flatten().all(|extension| {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { return true };
            names.general_names.iter().all(|name| is_allowed(name, &is_named))
        })
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
}
