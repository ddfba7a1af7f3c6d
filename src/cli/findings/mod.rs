//! Findings, shown: to a person as a compiler does, and in the formats that code hosts turn into marks on a change.
//!
//! Texts come from policy files, which anybody who may open a pull request writes, so each format escapes what it
//! would read as its own (attack class A-01).

mod github;
mod gitlab;
mod human;
mod json;
pub(crate) mod junit;
mod sarif;

use crate::kernel::policy::{Finding, Severity};

/// How findings are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people: the line, and what to do about it.
    #[default]
    Human,
    /// One JSON value.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// Workflow commands of GitHub Actions, which mark the lines of a pull request.
    Github,
    /// A Code Quality report of GitLab.
    Gitlab,
    /// JUnit XML, one test case a file.
    Junit,
}

/// One file of a set as the report names it, with its text for excerpts.
pub(crate) struct Source<'a> {
    /// The path as people see it; findings name the same.
    pub(crate) path: String,
    /// Its bytes.
    pub(crate) bytes: &'a [u8],
}

/// What was found in some files.
pub(crate) struct Report<'a> {
    /// Every file that was looked at, sorted by path.
    pub(crate) sources: Vec<Source<'a>>,
    /// What was found, sorted by place. Paths are those of `sources`, or of what is missing.
    pub(crate) findings: Vec<Finding>,
}

impl Report<'_> {
    /// The findings of one severity.
    pub(crate) fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// The text of a line, without its end; `None` where there is no such line, or where it is no text.
    fn line(&self, finding: &Finding) -> Option<&str> {
        let at = self.sources.binary_search_by(|source| source.path.as_str().cmp(&finding.file)).ok()?;
        let text = std::str::from_utf8(self.sources.get(at)?.bytes).ok()?;
        text.lines().nth(finding.line.checked_sub(1)?)
    }
}

/// Shows a report in a format that has no members of its own; what goes with it (the digest, what stayed unchecked)
/// is the command's.
pub(crate) fn render(report: &Report<'_>, format: Format) -> String {
    match format {
        Format::Human => human::render(report),
        Format::Json => json::render(report).to_string(),
        Format::Sarif => sarif::render(report).to_string(),
        Format::Github => github::render(report),
        Format::Gitlab => gitlab::render(report).to_string(),
        Format::Junit => junit::render(&junit::cases(report)),
    }
}

pub(crate) use self::{human::printable, json::members};

#[cfg(test)]
mod tests;
