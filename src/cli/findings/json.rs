//! One JSON value for programs of one's own.

use serde_json::{Value, json};

use super::Report;
use crate::kernel::policy::Finding;

pub(super) fn render(report: &Report<'_>) -> Value {
    json!({ "findings": report.findings.iter().map(members).collect::<Vec<_>>() })
}

/// A finding: `{severity, code, file, line, column, width, message, remedy}`. Lines and columns count from 1, columns
/// and widths in characters; a width of 0 is a place, or more than a line.
pub(crate) fn members(finding: &Finding) -> Value {
    let Finding { file, line, column, width, severity, code, message, remedy } = finding;
    json!({
        "severity": severity.as_str(), "code": code, "file": file, "line": line, "column": column, "width": width,
        "message": message, "remedy": remedy,
    })
}
