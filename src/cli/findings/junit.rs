//! JUnit XML, which every CI system shows as a list of tests.

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};

use super::Report;
use crate::kernel::policy::Severity;

/// One test case.
pub(crate) struct Case {
    /// The suite that it belongs to; cases of one suite stand together.
    pub(crate) suite: String,
    /// Its name.
    pub(crate) name: String,
    /// Its place, as `FILE:LINE`, or empty.
    pub(crate) place: String,
    /// Where it failed: one line, and the whole text.
    pub(crate) failure: Option<(String, String)>,
}

/// One case a file: it fails by the errors in it, and tells the warnings.
pub(super) fn cases(report: &Report<'_>) -> Vec<Case> {
    let mut files: Vec<&str> = report.sources.iter().map(|source| source.path.as_str()).collect();
    files.extend(report.findings.iter().map(|finding| finding.file.as_str()));
    files.sort_unstable();
    files.dedup();
    let case = |file: &str| {
        let of_file = || report.findings.iter().filter(|finding| finding.file == file);
        let fails = of_file().find(|finding| finding.severity == Severity::Error);
        let text = of_file().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        Case {
            suite: "hallpass policy check".to_owned(),
            name: file.to_owned(),
            place: file.to_owned(),
            failure: fails.map(|first| (first.message.clone(), text)),
        }
    };
    files.into_iter().map(case).collect()
}

/// The whole document.
pub(crate) fn render(cases: &[Case]) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    // Writing into memory does not fail; what was written is the answer either way.
    drop(document(&mut writer, cases));
    String::from_utf8(writer.into_inner()).unwrap_or_default()
}

fn document(writer: &mut Writer<Vec<u8>>, cases: &[Case]) -> std::io::Result<()> {
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer.create_element("testsuites").write_inner_content(|writer| {
        for suite in cases.chunk_by(|left, right| left.suite == right.suite) {
            suite_element(writer, suite)?;
        }
        Ok(())
    })?;
    Ok(())
}

fn suite_element(writer: &mut Writer<Vec<u8>>, cases: &[Case]) -> std::io::Result<()> {
    let name = cases.first().map_or("", |case| case.suite.as_str());
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let element = writer.create_element("testsuite").with_attributes([
        ("name", legal(name).as_str()),
        ("tests", cases.len().to_string().as_str()),
        ("failures", failures.to_string().as_str()),
        ("errors", "0"),
        ("skipped", "0"),
    ]);
    element.write_inner_content(|writer| {
        for case in cases {
            case_element(writer, case)?;
        }
        Ok(())
    })?;
    Ok(())
}

fn case_element(writer: &mut Writer<Vec<u8>>, case: &Case) -> std::io::Result<()> {
    let (name, suite, place) = (legal(&case.name), legal(&case.suite), legal(&case.place));
    let element = writer.create_element("testcase").with_attributes([
        ("name", name.as_str()),
        ("classname", suite.as_str()),
        ("file", place.as_str()),
    ]);
    let Some((message, text)) = &case.failure else { return element.write_empty().map(drop) };
    element.write_inner_content(|writer| {
        let failure = writer.create_element("failure").with_attribute(("message", legal(message).as_str()));
        failure.write_text_content(BytesText::new(&legal(text)))?;
        Ok(())
    })?;
    Ok(())
}

/// XML 1.0 has no way to write most control characters (section 2.2).
fn legal(text: &str) -> String {
    let is_legal = |letter: char| matches!(letter, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().map(|letter| if is_legal(letter) { letter } else { '\u{fffd}' }).collect()
}
