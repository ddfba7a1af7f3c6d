//! `hallpass policy test`: the tests beside the grants, run by the broker's own evaluator on the files as they are.
//! It needs no configuration, opens no database and fetches nothing.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    adapters::policy_source::PolicySource,
    cli::{
        exit::{Done, Exit, Failure, chain},
        output::{self, Output},
    },
    kernel::policy::{
        Finding, PolicySet,
        finding::Severity,
        load,
        set::Files,
        suite::{Mutation, OUTSIDE, Suites, Survivor, Told},
    },
};

/// `policy test`
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The policy directory.
    #[arg(value_name = "DIR", default_value = "policies")]
    dir: PathBuf,
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
pub(super) struct Report {
    grants: usize,
    cases: Vec<Told>,
    findings: Vec<Finding>,
    mutation: Option<Mutation>,
    least: usize,
}

impl Test {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::PolicyInvalid`] where the set does not load, [`Exit::PolicyTestsFailed`] where a case fails, the tests
    /// themselves are at fault, or they would notice too little.
    pub(crate) fn run(self) -> Done {
        let (files, set) = self.read()?;
        let report = self.test(Suites::read(files, set));
        if let Some(file) = &self.junit {
            fs::write(file, report.junit()).map_err(|fault| Failure::file(file, &fault))?;
        }
        match self.output {
            Output::Human => output::data(&report.text())?,
            Output::Json => output::json(&report.json())?,
        }
        if report.is_good() { Ok(()) } else { Err(Failure::silent(Exit::PolicyTestsFailed)) }
    }

    fn read(&self) -> Result<(Files, PolicySet), Failure> {
        let (files, commit) = PolicySource::new(&self.dir).read().map_err(|fault| {
            Failure::new(Exit::PolicyInvalid, format!("error[{}]: {}", fault.code(), chain(&fault)))
        })?;
        let set = load::load(&files, commit, None).map_err(|mut findings| {
            findings.iter_mut().for_each(|finding| finding.file = self.path(&finding.file));
            Failure::findings(Exit::PolicyInvalid, &findings)
        })?;
        Ok((files, set))
    }

    fn test(&self, mut suites: Suites) -> Report {
        let mut findings = suites.findings().to_vec();
        findings.iter_mut().for_each(|finding| finding.file = self.path(&finding.file));
        let mut cases = suites.run();
        cases.iter_mut().for_each(|case| case.file = self.path(&case.file).into());
        let grants = suites.grants();
        let mut report =
            Report { grants, cases, findings, mutation: None, least: usize::from(self.min_score) };
        // A score of tests that fail says nothing.
        if self.mutate && report.is_good() {
            let mut mutation = suites.mutate();
            mutation.survivors.iter_mut().for_each(|each| each.file = self.path(&each.file));
            report.mutation = Some(mutation);
        }
        report
    }

    /// Files speak of the set's own paths; a person needs those of the machine.
    fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }
}

impl Report {
    fn is_good(&self) -> bool {
        self.cases.iter().all(|case| case.fault.is_none())
            && self.findings.iter().all(|finding| finding.severity == Severity::Warning)
            && self.mutation.as_ref().is_none_or(|mutation| mutation.score() >= self.least)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            text.push_str(&format!("{finding}\n"));
        }
        for case in &self.cases {
            let Told { file, line, column, grant, name, fault } = case;
            if let Some(fault) = fault {
                let (message, remedy) = (&fault.message, &fault.remedy);
                text.push_str(&format!(
                    "{file}:{line}:{column}: FAILED {grant}, {name}: {message}\n  fix: {remedy}\n"
                ));
            }
        }
        for Survivor { file, line, column, what, remedy } in self.survivors() {
            text.push_str(&format!("{file}:{line}:{column}: NOT NOTICED: {what}\n  fix: {remedy}\n"));
        }
        let failed = self.cases.iter().filter(|case| case.fault.is_some()).count();
        let passed = self.cases.len().saturating_sub(failed);
        let errors = self.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        text.push_str(&format!("{}: {passed} passed, {failed} failed", counted(self.cases.len(), "case")));
        if errors > 0 {
            text.push_str(&format!(", {} in the tests themselves", counted(errors, "fault")));
        }
        text.push_str(&format!("; {}\n", counted(self.grants, "grant")));
        if let Some(mutation) = &self.mutation {
            let noticed = mutation.mutants.saturating_sub(mutation.survivors.len());
            text.push_str(&format!(
                "mutation score {} %: {noticed} of {} noticed\n",
                mutation.score(),
                counted(mutation.mutants, "weakening")
            ));
            OUTSIDE.iter().for_each(|outside| text.push_str(&format!("  not weakened: {outside}\n")));
        }
        text
    }

    fn json(&self) -> Value {
        let cases = self.cases.iter().map(|case| {
            let Told { file, line, column, grant, name, fault } = case;
            let fault =
                fault.as_ref().map(|fault| json!({ "message": fault.message, "remedy": fault.remedy }));
            json!({
                "file": &**file, "line": line, "column": column, "grant": grant.as_str(), "name": name,
                "passed": fault.is_none(), "fault": fault,
            })
        });
        let findings = self.findings.iter().map(|finding| {
            let Finding { file, line, column, width, severity, code, message, remedy } = finding;
            json!({
                "file": file, "line": line, "column": column, "width": width, "severity": severity.as_str(),
                "code": code, "message": message, "remedy": remedy,
            })
        });
        let mutation = self.mutation.as_ref().map(|mutation| {
            let survivors = mutation.survivors.iter().map(|survivor| {
                let Survivor { file, line, column, what, remedy } = survivor;
                json!({ "file": file, "line": line, "column": column, "what": what, "remedy": remedy })
            });
            json!({
                "score": mutation.score(), "mutants": mutation.mutants,
                "survivors": survivors.collect::<Vec<_>>(), "outside": OUTSIDE,
            })
        });
        json!({
            "ok": self.is_good(), "grants": self.grants, "cases": cases.collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(), "mutation": mutation,
        })
    }

    fn survivors(&self) -> &[Survivor] {
        self.mutation.as_ref().map_or(&[], |mutation| &mutation.survivors)
    }

    fn junit(&self) -> String {
        String::new()
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
