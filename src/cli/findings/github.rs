//! Workflow commands of GitHub Actions. Source: actions/toolkit, `packages/core/src/command.ts`, for what is escaped.

use super::Report;
use crate::kernel::policy::Finding;

/// One command a finding.
pub(super) fn render(report: &Report<'_>) -> String {
    report.findings.iter().map(command).collect::<Vec<_>>().join("\n")
}

fn command(finding: &Finding) -> String {
    let Finding { file, line, column, width, severity, code, message, remedy } = finding;
    let end =
        if *width == 0 { String::new() } else { format!(",endColumn={}", column.saturating_add(*width)) };
    format!(
        "::{} file={},line={line},col={column}{end},title={}::{}",
        severity.as_str(),
        property(file),
        property(code),
        data(&format!("{message}\nfix: {remedy}"))
    )
}

/// The text of a command: what would end the line is escaped.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a command: what would end the property, too.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
