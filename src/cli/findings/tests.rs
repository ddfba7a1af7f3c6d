use quick_xml::events::Event;
use serde_json::Value;

use super::{Format, Report, Source, junit, render};
use crate::kernel::policy::{Finding, Severity};

const TEXT: &str = "grant: deploy\nallow:\n  - enviroment: production # \u{e4}\n";

fn report(spoil: impl FnOnce(&mut Finding)) -> Report<'static> {
    let mut finding = Finding {
        file: "policies/grants/deploy.yaml".to_owned(),
        line: 3,
        column: 5,
        width: 10,
        severity: Severity::Error,
        code: "unknown-key",
        message: "the key `enviroment` is not known here".to_owned(),
        remedy: "did you mean `environment`?".to_owned(),
    };
    spoil(&mut finding);
    let source = Source { path: "policies/grants/deploy.yaml".to_owned(), bytes: TEXT.as_bytes() };
    Report { sources: vec![source], findings: vec![finding] }
}

fn json(report: &Report<'_>, format: Format) -> Value {
    serde_json::from_str(&render(report, format)).unwrap()
}

#[test]
fn a_person_sees_the_line_its_mark_and_the_fix() {
    let shown = render(&report(|_| {}), Format::Human);
    assert_eq!(
        shown,
        "error[unknown-key]: the key `enviroment` is not known here\n \
         --> policies/grants/deploy.yaml:3:5\n  \
         |\n3 |   - enviroment: production # \u{e4}\n  \
         |     ^^^^^^^^^^\n  |\n  = fix: did you mean `environment`?"
    );
}

#[test]
fn a_place_that_is_not_there_is_shown_without_an_excerpt() {
    for spoil in [
        (|finding: &mut Finding| finding.line = 99) as fn(&mut Finding),
        |finding| finding.file = "policies/issuers".to_owned(),
        |finding| finding.line = 0,
        |finding| finding.column = 999,
    ] {
        let report = report(spoil);
        for format in
            [Format::Human, Format::Json, Format::Sarif, Format::Github, Format::Gitlab, Format::Junit]
        {
            assert!(render(&report, format).contains("unknown-key") || format == Format::Junit, "{format:?}");
        }
    }
}

#[test]
fn what_a_file_says_cannot_speak_to_the_terminal() {
    let shown = render(&report(|finding| finding.message = "\u{1b}[2J\u{9b}x".to_owned()), Format::Human);
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{9b}'), "{shown:?}");
}

#[test]
fn github_gets_one_command_a_finding_whatever_the_text_says() {
    let report = report(|finding| {
        finding.file = "policies/a,b:c%d.yaml".to_owned();
        finding.message = "50% of\n::add-mask::x\r".to_owned();
    });
    assert_eq!(
        render(&report, Format::Github),
        "::error file=policies/a%2Cb%3Ac%25d.yaml,line=3,col=5,endColumn=15,title=unknown-key::\
         50%25 of%0A::add-mask::x%0D%0Afix: did you mean `environment`?"
    );
}

#[test]
fn sarif_names_rule_level_and_region() {
    let report = report(|finding| finding.severity = Severity::Warning);
    let sarif = json(&report, Format::Sarif);
    let run = &sarif["runs"][0];
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(run["tool"]["driver"]["rules"][0]["id"], "unknown-key");
    let result = &run["results"][0];
    assert_eq!((&result["ruleId"], &result["level"]), (&"unknown-key".into(), &"warning".into()));
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "policies/grants/deploy.yaml");
    assert_eq!(place["region"]["startLine"], 3);
    assert_eq!((&place["region"]["startColumn"], &place["region"]["endColumn"]), (&5.into(), &15.into()));
}

#[test]
fn fingerprint_stays_when_lines_move_and_changes_with_the_fault() {
    let of = |report: Report<'_>| json(&report, Format::Gitlab)[0]["fingerprint"].clone();
    let first = of(report(|_| {}));
    let mut moved = report(|finding| finding.line = 4);
    let text = format!("\n{TEXT}");
    moved.sources[0].bytes = text.as_bytes();
    assert_eq!(of(moved), first);
    assert_ne!(of(report(|finding| finding.code = "tab")), first);
    assert_ne!(of(report(|finding| finding.message.push('!'))), first);
}

#[test]
fn gitlab_tells_errors_from_warnings() {
    let of = |severity| json(&report(|finding| finding.severity = severity), Format::Gitlab)[0].clone();
    assert_eq!(of(Severity::Error)["severity"], "major");
    assert_eq!(of(Severity::Warning)["severity"], "minor");
    assert_eq!(of(Severity::Error)["location"]["lines"]["begin"], 3);
}

#[test]
fn junit_fails_the_file_with_errors_and_escapes() {
    let failing = render(&report(|finding| finding.message = "a<b>&\"\u{1}".to_owned()), Format::Junit);
    assert!(failing.contains("tests=\"1\" failures=\"1\""), "{failing}");
    assert!(failing.contains("a&lt;b&gt;&amp;&quot;\u{fffd}"), "{failing}");
    let warned = render(&report(|finding| finding.severity = Severity::Warning), Format::Junit);
    assert!(warned.contains("failures=\"0\""), "{warned}");
}

#[test]
fn junit_is_well_formed_whatever_the_names_say() {
    let case = |name: &str| junit::Case {
        suite: "s\"<".to_owned(),
        name: name.to_owned(),
        place: String::new(),
        failure: Some(("]]>".to_owned(), "\u{0}\n</failure>".to_owned())),
    };
    let text = junit::render(&[case("a"), case("<b attr='x'>")]);
    let mut reader = quick_xml::Reader::from_str(&text);
    let mut depth = 0_i32;
    loop {
        let event = reader.read_event().unwrap();
        depth += i32::from(matches!(event, Event::Start(_))) - i32::from(matches!(event, Event::End(_)));
        if matches!(event, Event::Eof) {
            break;
        }
    }
    assert_eq!(depth, 0);
    assert_eq!(text.matches("<testcase").count(), 2);
}
