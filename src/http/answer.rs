//! Writes answers. The one that holds secrets is written into a buffer of exactly its size, so that no growth leaves
//! a copy behind, and the secrets go from where they are held straight into it.

use axum::{body::Body, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;

use super::problem::Problem;
use crate::{
    broker::{
        error::Code,
        exchange::{Delivered, DryRun},
        ports::Receipt,
    },
    kernel::{
        id::{DecisionId, IssuanceId},
        json::write_text,
        secret::Secret,
    },
};

/// An ordinary JSON answer.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value)
        .map_err(|_| Problem::new(Code::Internal, "the answer could not be written"))?;
    Ok(with_type(status, JSON, Body::from(body)))
}

/// An answer in plain text.
pub(super) fn text(text: String) -> Response {
    with_type(StatusCode::OK, TEXT, Body::from(text))
}

/// An answer in bytes.
pub(super) fn bytes(bytes: Vec<u8>) -> Response {
    with_type(StatusCode::OK, BYTES, Body::from(bytes))
}

/// A 200 with a JSON body that was written elsewhere.
pub(super) fn json_body(body: Body) -> Response {
    with_type(StatusCode::OK, JSON, body)
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn with_type(status: StatusCode, media_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// The answer to a dry run.
pub(super) fn dry_run(answer: &DryRun) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer<'a> {
        decision_id: String,
        dry_run: bool,
        issuances: Vec<Issuance<'a>>,
        receipts: [(); 0],
    }
    #[derive(Serialize)]
    struct Issuance<'a> {
        grant: &'a str,
        credential: &'a str,
        kind: &'static str,
        lifetime: &'static str,
        ttl_seconds: Option<u64>,
        revocable: bool,
    }
    let issuances = answer.previews.iter().map(|each| Issuance {
        grant: each.grant.as_str(),
        credential: each.credential.as_str(),
        kind: each.kind.as_str(),
        lifetime: each.lifetime.as_str(),
        ttl_seconds: each.ttl_seconds,
        revocable: each.revocable,
    });
    let decision_id = answer.decision.to_string();
    let body = Answer { decision_id, dry_run: true, issuances: issuances.collect(), receipts: [] };
    json(StatusCode::OK, &body)
}

/// The body of an exchange, in one buffer whose capacity is its length; `None` where a field is not UTF-8, which
/// JSON cannot carry.
pub(super) fn exchanged(
    decision: DecisionId,
    issuances: &[Delivered],
    receipts: &[(IssuanceId, Receipt)],
) -> Option<Secret> {
    let entries: Vec<String> = receipts.iter().map(|(_, receipt)| STANDARD.encode(&receipt.entry)).collect();
    let write = |json: &mut Json<'_>| {
        json.raw(r#"{"decision_id":"#);
        json.text(&decision.to_string());
        json.raw(r#","issuances":["#);
        for (index, issuance) in issuances.iter().enumerate() {
            json.comma(index);
            write_issuance(issuance, json)?;
        }
        json.raw(r#"],"receipts":["#);
        write_receipts(receipts, &entries, json);
        json.raw("]}");
        Some(())
    };
    let mut bytes = 0;
    write(&mut Json(&mut |part| bytes += part.len()))?;
    let mut buffer = Vec::with_capacity(bytes);
    write(&mut Json(&mut |part| buffer.extend_from_slice(part)))?;
    Some(Secret::new(buffer))
}

fn write_receipts(receipts: &[(IssuanceId, Receipt)], entries: &[String], json: &mut Json<'_>) {
    for (index, ((issuance, receipt), entry)) in receipts.iter().zip(entries).enumerate() {
        json.comma(index);
        json.raw(r#"{"issuance":"#);
        json.text(&issuance.to_string());
        json.raw(r#","index":"#);
        json.raw(&receipt.index.to_string());
        json.raw(r#","entry":""#);
        json.raw(entry);
        json.raw(r#"","proof":"#);
        json.text(&receipt.proof);
        json.raw("}");
    }
}

fn write_issuance(issuance: &Delivered, json: &mut Json<'_>) -> Option<()> {
    let member = |json: &mut Json<'_>, name: &str, value: &str| {
        json.raw(name);
        json.text(value);
    };
    member(json, r#"{"id":"#, &issuance.id.to_string());
    member(json, r#","handle":"#, issuance.handle.expose_text()?);
    member(json, r#","grant":"#, issuance.grant.as_str());
    member(json, r#","credential":"#, issuance.credential.as_str());
    member(json, r#","kind":"#, issuance.kind.as_str());
    json.raw(r#","fields":{"#);
    for (index, field) in issuance.fields.iter().enumerate() {
        json.comma(index);
        json.text(&field.name);
        json.raw(":");
        json.text(field.value.expose_text()?);
    }
    json.raw(r#"},"secret_fields":["#);
    for (index, field) in issuance.fields.iter().filter(|field| field.is_secret).enumerate() {
        json.comma(index);
        json.text(&field.name);
    }
    member(json, r#"],"lifetime":"#, issuance.lifetime.as_str());
    member(json, r#","issued_at":"#, &issuance.issued_at.to_string());
    json.raw(r#","expires_at":"#);
    match issuance.expires_at {
        Some(at) => json.text(&at.to_string()),
        None => json.raw("null"),
    }
    json.raw(r#","ttl_seconds":"#);
    json.raw(&issuance.ttl_seconds.map_or_else(|| "null".to_owned(), |seconds| seconds.to_string()));
    json.raw(r#","revocable":"#);
    json.raw(if issuance.revocable { "true}" } else { "false}" });
    Some(())
}

/// Writes JSON in parts to wherever they go; holds nothing itself.
pub(super) struct Json<'a>(pub(super) &'a mut dyn FnMut(&[u8]));

impl Json<'_> {
    /// What is JSON already.
    pub(super) fn raw(&mut self, text: &str) {
        (self.0)(text.as_bytes());
    }

    /// A comma before every item but the first.
    pub(super) fn comma(&mut self, index: usize) {
        if index > 0 {
            self.raw(",");
        }
    }

    /// A string.
    pub(super) fn text(&mut self, text: &str) {
        write_text(text, self.0);
    }
}

/// A time, or null.
pub(super) fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::ports::Field,
        kernel::{
            lifetime::Lifetime,
            name::{CredentialName, GrantName},
            policy::target::Kind,
            secret::Secret,
        },
    };

    fn delivered(fields: Vec<Field>) -> Delivered {
        Delivered {
            id: IssuanceId::new(Timestamp::UNIX_EPOCH, [1; 10]),
            handle: Secret::from_text(format!("hdl_{}", "0".repeat(52))),
            grant: GrantName::parse("payments-prod").unwrap(),
            credential: CredentialName::parse("npm").unwrap(),
            kind: Kind::Sealed,
            fields,
            lifetime: Lifetime::Static,
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            ttl_seconds: None,
            revocable: false,
        }
    }

    fn field(name: &str, value: &[u8], is_secret: bool) -> Field {
        Field { name: name.to_owned(), value: Secret::new(value.to_vec()), is_secret }
    }

    #[test]
    fn an_answer_fills_its_buffer_exactly_and_has_the_contracts_order() {
        let decision = DecisionId::new(Timestamp::UNIX_EPOCH, [2; 10]);
        let mut second = delivered(vec![]);
        second.expires_at = Some("2027-01-13T10:05:00Z".parse().unwrap());
        second.ttl_seconds = Some(300);
        second.revocable = true;
        let first = delivered(vec![
            field("user", b"ci", false),
            field("value", "s\"e\ncret \u{1f511}".as_bytes(), true),
        ]);
        let receipt = Receipt { index: 41, entry: b"{}".to_vec(), proof: "line\nline\n".to_owned() };
        let id = first.id;
        let buffer = exchanged(decision, &[first, second], &[(id, receipt)]).unwrap();
        assert_eq!(buffer.spare(), 0);
        let expected = format!(
            concat!(
                r#"{{"decision_id":"{decision}","issuances":["#,
                r#"{{"id":"{id}","handle":"hdl_{zeros}","grant":"payments-prod","credential":"npm","kind":"sealed","#,
                r#""fields":{{"user":"ci","value":"s\"e\ncret 🔑"}},"secret_fields":["value"],"#,
                r#""lifetime":"static","issued_at":"1970-01-01T00:00:00Z","expires_at":null,"ttl_seconds":null,"revocable":false}},"#,
                r#"{{"id":"{id}","handle":"hdl_{zeros}","grant":"payments-prod","credential":"npm","kind":"sealed","#,
                r#""fields":{{}},"secret_fields":[],"#,
                r#""lifetime":"static","issued_at":"1970-01-01T00:00:00Z","expires_at":"2027-01-13T10:05:00Z","ttl_seconds":300,"revocable":true}}"#,
                r#"],"receipts":[{{"issuance":"{id}","index":41,"entry":"e30=","proof":"line\nline\n"}}]}}"#,
            ),
            decision = decision,
            id = id,
            zeros = "0".repeat(52),
        );
        assert_eq!(buffer.expose_text().unwrap(), expected);
        assert!(serde_json::from_slice::<serde_json::Value>(buffer.expose()).is_ok());
    }

    #[test]
    fn a_field_that_is_no_text_makes_no_answer() {
        let decision = DecisionId::new(Timestamp::UNIX_EPOCH, [2; 10]);
        assert!(exchanged(decision, &[delivered(vec![field("value", &[0xff], true)])], &[]).is_none());
    }

    fn written(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Json(&mut |part| out.extend_from_slice(part)).text(text);
        out
    }

    proptest::proptest! {
        #[test]
        fn strings_read_back_as_they_were(text: String) {
            let read: String = serde_json::from_slice(&written(&text)).unwrap();
            proptest::prop_assert_eq!(read, text);
        }
    }

    #[test]
    fn escapes_every_control_character() {
        for code in 0..=0x9f_u8 {
            let text = char::from(code).to_string();
            assert_eq!(serde_json::from_slice::<String>(&written(&text)).unwrap(), text);
        }
    }
}
