//! GitLab's Code Quality report. Source: docs.gitlab.com, `ci/testing/code_quality`, "implement a custom tool".

use serde_json::{Value, json};

use super::Report;
use crate::kernel::{
    digest::Digest,
    policy::{Finding, Severity},
};

/// One object a finding.
pub(super) fn render(report: &Report<'_>) -> Value {
    report.findings.iter().map(|finding| object(finding, report.line(finding).unwrap_or_default())).collect()
}

fn object(finding: &Finding, line: &str) -> Value {
    let Finding { file, code, message, remedy, .. } = finding;
    let severity = match finding.severity {
        Severity::Error => "major",
        Severity::Warning => "minor",
    };
    json!({
        "description": format!("{message}; {remedy}"),
        "check_name": code,
        "fingerprint": fingerprint(finding, line),
        "severity": severity,
        "location": { "path": file, "lines": { "begin": finding.line } },
    })
}

/// Stays while lines move above it, so that a host can tell an old finding from a new one.
pub(super) fn fingerprint(finding: &Finding, line: &str) -> String {
    let Finding { file, code, message, .. } = finding;
    let parts = [file, *code, message, line.trim()];
    Digest::of_parts(&parts.map(str::as_bytes)).to_string()
}
