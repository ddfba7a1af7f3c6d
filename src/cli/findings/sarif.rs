//! SARIF 2.1.0 (OASIS), as GitHub code scanning and others take it in.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Report, gitlab::fingerprint};
use crate::kernel::policy::{Finding, finding::CODES, lint::LINT_CODES, suite::TEST_CODES};

/// One run.
pub(super) fn render(report: &Report<'_>) -> Value {
    let used: BTreeSet<&str> = report.findings.iter().map(|finding| finding.code).collect();
    let results: Vec<Value> = report.findings.iter().map(|finding| result(finding, report)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "columnKind": "unicodeCodePoints",
            "tool": { "driver": {
                "name": "hallpass",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": used.into_iter().map(rule).collect::<Vec<_>>(),
            }},
            "results": results,
        }],
    })
}

fn rule(code: &str) -> Value {
    let mut codes = CODES.iter().chain(LINT_CODES).chain(TEST_CODES);
    let meaning = codes.find(|(name, _)| *name == code).map_or(code, |(_, meaning)| meaning);
    json!({ "id": code, "shortDescription": { "text": meaning } })
}

fn result(finding: &Finding, report: &Report<'_>) -> Value {
    let Finding { file, line, column, width, severity, code, message, remedy } = finding;
    let text = report.line(finding);
    let mut region = Map::new();
    region.insert("startLine".to_owned(), (*line).into());
    region.insert("startColumn".to_owned(), (*column).into());
    if *width > 0 {
        region.insert("endColumn".to_owned(), column.saturating_add(*width).into());
    }
    if let Some(text) = text {
        region.insert("snippet".to_owned(), json!({ "text": text }));
    }
    json!({
        "ruleId": code,
        "level": severity.as_str(),
        "message": { "text": format!("{message}\nfix: {remedy}") },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri(file) },
            "region": region,
        }}],
        "partialFingerprints": { "finding/v1": fingerprint(finding, text.unwrap_or_default()) },
    })
}

/// A path as a relative reference (RFC 3986), byte by byte.
fn uri(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    path.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
