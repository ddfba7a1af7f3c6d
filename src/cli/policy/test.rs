//! `hallpass policy test`: the tests beside the grants, run by the broker's own evaluator on the files as they are.
//! It needs no configuration, opens no database and fetches nothing.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::set::{Place, Stand, trusted};
use crate::{
    cli::{
        exit::{Done, Exit, Failure},
        findings::{Format, Report, Source, junit, members, render},
        output::{self, Output},
    },
    kernel::policy::{
        Finding, Severity, load,
        suite::{Mutation, OUTSIDE, Suites, Told},
    },
};

/// `policy test`
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    #[command(flatten)]
    place: Place,
    /// Also weakens every condition and bound in turn, and demands that some case notices.
    #[arg(long)]
    mutate: bool,
    /// How many of a hundred weakenings must be noticed.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u8).range(0..=100),
        requires = "mutate"
    )]
    min_score: u8,
    /// Also writes the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Everything that came of it; paths are those of the machine.
struct Results {
    grants: usize,
    cases: Vec<Told>,
    mutations: Vec<Mutation>,
}

impl Test {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::PolicyInvalid`] where a set does not load, [`Exit::PolicyTestsFailed`] where a case fails, the tests
    /// themselves are at fault, or they would notice too little.
    pub(crate) fn run(self) -> Done {
        let config = self.place.configuration()?;
        let trusted = trusted(config.as_ref());
        let stands = self.place.read(config.as_ref())?;
        let mut report = report(&stands);
        let mut results = Results { grants: 0, cases: Vec::new(), mutations: Vec::new() };
        for stand in &stands {
            match load::load(&stand.files, stand.commit.clone(), trusted.as_ref()) {
                Ok(loaded) => {
                    self.test(
                        stand,
                        Suites::read(stand.files.clone(), loaded.set),
                        &mut report,
                        &mut results,
                    );
                }
                Err(mut findings) => {
                    findings.iter_mut().for_each(|finding| finding.file = stand.shown(&finding.file));
                    report.findings = findings;
                    output::data(&render(&report, Format::Human))?;
                    return Err(Failure::silent(Exit::PolicyInvalid));
                }
            }
        }
        if let Some(file) = &self.junit {
            let document = junit::render(&results.junit(&report));
            fs::write(file, document).map_err(|fault| Failure::file(file, &fault))?;
        }
        let is_good = self.is_good(&report, &results);
        match self.output {
            Output::Human => output::data(&results.text(&mut report))?,
            Output::Json => output::json(&self.json(&report, &results))?,
        }
        if is_good { Ok(()) } else { Err(Failure::silent(Exit::PolicyTestsFailed)) }
    }

    fn test(&self, stand: &Stand, mut suites: Suites, report: &mut Report<'_>, results: &mut Results) {
        let before = report.findings.len();
        report.findings.extend(suites.findings().iter().cloned());
        report.findings.iter_mut().skip(before).for_each(|finding| finding.file = stand.shown(&finding.file));
        let mut cases = suites.run();
        cases.iter_mut().for_each(|case| case.file = stand.shown(&case.file).into());
        let is_sound = report.count(Severity::Error) == 0 && cases.iter().all(|case| case.fault.is_none());
        // A score of tests that fail says nothing.
        if self.mutate && is_sound {
            let mut mutation = suites.mutate();
            mutation.survivors.iter_mut().for_each(|each| each.file = stand.shown(&each.file));
            results.mutations.push(mutation);
        }
        results.cases.append(&mut cases);
        results.grants += suites.grants();
    }

    fn is_good(&self, report: &Report<'_>, results: &Results) -> bool {
        let least = usize::from(self.min_score);
        report.count(Severity::Error) == 0
            && results.failed() == 0
            && results.mutations.iter().all(|mutation| mutation.score() >= least)
    }

    fn json(&self, report: &Report<'_>, results: &Results) -> Value {
        let cases = results.cases.iter().map(|case| {
            let Told { file, line, column, grant, name, fault } = case;
            let fault =
                fault.as_ref().map(|fault| json!({ "message": fault.message, "remedy": fault.remedy }));
            json!({
                "file": &**file, "line": line, "column": column, "grant": grant.as_str(), "name": name,
                "passed": fault.is_none(), "fault": fault,
            })
        });
        let mutation = self.mutate.then(|| results.mutations.first()).flatten().map(|_| {
            let survivors = results.mutations.iter().flat_map(|mutation| &mutation.survivors);
            let survivors = survivors.map(|each| {
                json!({
                    "file": each.file, "line": each.line, "column": each.column, "what": each.what,
                    "remedy": each.remedy,
                })
            });
            let weakened: usize = results.mutations.iter().map(|mutation| mutation.weakened).sum();
            let score = results.mutations.iter().map(Mutation::score).min();
            json!({
                "score": score, "weakened": weakened, "survivors": survivors.collect::<Vec<_>>(),
                "outside": OUTSIDE,
            })
        });
        json!({
            "ok": self.is_good(report, results),
            "grants": results.grants,
            "cases": cases.collect::<Vec<_>>(),
            "findings": report.findings.iter().map(members).collect::<Vec<_>>(),
            "mutation": mutation,
        })
    }
}

fn report(stands: &[Stand]) -> Report<'_> {
    let sources = stands.iter().flat_map(|stand| {
        stand.files.0.iter().map(|(file, bytes)| Source { path: stand.shown(file), bytes })
    });
    let mut sources: Vec<Source<'_>> = sources.collect();
    sources.sort_by(|left, right| left.path.cmp(&right.path));
    Report { sources, findings: Vec::new() }
}

impl Results {
    fn failed(&self) -> usize {
        self.cases.iter().filter(|case| case.fault.is_some()).count()
    }

    /// What failed and what nobody noticed as findings, so that people see the line.
    fn found(&self) -> impl Iterator<Item = Finding> {
        let failed = self.cases.iter().filter_map(|case| {
            let fault = case.fault.as_ref()?;
            let message = format!("{}, {}: {}", case.grant, case.name, fault.message);
            Some(error(&case.file, (case.line, case.column), "test-failed", message, &fault.remedy))
        });
        let survivors = self.mutations.iter().flat_map(|mutation| &mutation.survivors).map(|each| {
            let message = format!("no case notices {}", each.what);
            error(&each.file, (each.line, each.column), "test-blind", message, &each.remedy)
        });
        failed.chain(survivors)
    }

    fn text(&self, report: &mut Report<'_>) -> String {
        let faults = report.count(Severity::Error);
        report.findings.extend(self.found());
        let mut text = render(report, Format::Human);
        if !text.is_empty() {
            text = format!("{}\n\n", text.trim_end());
        }
        let (all, failed) = (self.cases.len(), self.failed());
        text.push_str(&format!(
            "{}, {}: {} passed, {failed} failed",
            counted(self.grants, "grant"),
            counted(all, "case"),
            all.saturating_sub(failed)
        ));
        if faults > 0 {
            text.push_str(&format!("; {} in the tests themselves", counted(faults, "fault")));
        }
        text.push('\n');
        for mutation in &self.mutations {
            let noticed = mutation.weakened.saturating_sub(mutation.survivors.len());
            let (score, weakened) = (mutation.score(), counted(mutation.weakened, "weakening"));
            text.push_str(&format!("mutation score {score} %: {noticed} of {weakened} noticed\n"));
        }
        if !self.mutations.is_empty() {
            OUTSIDE.iter().for_each(|outside| text.push_str(&format!("not weakened: {outside}\n")));
        }
        text
    }

    /// A suite a grant with its cases, one for the test files, one for what was not noticed.
    fn junit(&self, report: &Report<'_>) -> Vec<junit::Case> {
        let case = |case: &Told| junit::Case {
            suite: format!("hallpass policy test: {}", case.grant),
            name: case.name.clone(),
            place: format!("{}:{}", case.file, case.line),
            failure: case
                .fault
                .as_ref()
                .map(|fault| (fault.message.clone(), format!("{}\n{}", fault.message, fault.remedy))),
        };
        let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let fault = errors.map(|finding| junit::Case {
            suite: "hallpass policy test: test files".to_owned(),
            name: format!("{} at {}:{}", finding.code, finding.file, finding.line),
            place: format!("{}:{}", finding.file, finding.line),
            failure: Some((finding.message.clone(), finding.to_string())),
        });
        let survivors = self.mutations.iter().flat_map(|mutation| &mutation.survivors);
        let survivor = survivors.map(|each| junit::Case {
            suite: "hallpass policy test: mutation".to_owned(),
            name: format!("notices {}", each.what),
            place: format!("{}:{}", each.file, each.line),
            failure: Some((format!("no case notices {}", each.what), each.remedy.clone())),
        });
        let mut cases: Vec<junit::Case> = self.cases.iter().map(case).collect();
        cases.sort_by(|left, right| left.suite.cmp(&right.suite));
        cases.extend(fault);
        cases.extend(survivor);
        cases
    }
}

fn error(
    file: &str,
    (line, column): (usize, usize),
    code: &'static str,
    message: String,
    remedy: &str,
) -> Finding {
    let (file, remedy, severity) = (file.to_owned(), remedy.to_owned(), Severity::Error);
    Finding { file, line, column, width: 0, severity, code, message, remedy }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
