//! As a compiler shows it: the words, the place, the line with its mark, the fix.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::Report;
use crate::kernel::policy::{Finding, Severity};

/// One paragraph a finding.
pub(super) fn render(report: &Report<'_>) -> String {
    let shown: Vec<String> =
        report.findings.iter().map(|finding| paragraph(finding, report.line(finding))).collect();
    shown.join("\n\n")
}

fn paragraph(finding: &Finding, line: Option<&str>) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let group = level.primary_title(printable(&finding.message)).id(finding.code);
    let group: Group<'_> = match line {
        Some(line) => group.element(
            Snippet::source(line)
                .path(&finding.file)
                .line_start(finding.line)
                .annotation(AnnotationKind::Primary.span(span(finding, line))),
        ),
        None => group.element(Origin::path(&finding.file)),
    };
    let group = group.element(Level::HELP.with_name("fix").message(printable(&finding.remedy)));
    Renderer::plain().render(&[group])
}

/// Where the finding stands in its line, in bytes.
fn span(finding: &Finding, line: &str) -> Range<usize> {
    let byte = |at: usize| line.char_indices().nth(at).map_or(line.len(), |(byte, _)| byte);
    let from = finding.column.saturating_sub(1);
    let width =
        if finding.width == 0 && finding.column == 1 { line.chars().count() } else { finding.width.max(1) };
    byte(from)..byte(from.saturating_add(width))
}

/// Findings quote files; a terminal obeys escape characters in them.
pub(crate) fn printable(text: &str) -> String {
    let shown = |letter: char| {
        let is_shown = letter == '\n' || !letter.is_control();
        if is_shown { letter.to_string() } else { letter.escape_unicode().to_string() }
    };
    text.chars().map(shown).collect()
}
