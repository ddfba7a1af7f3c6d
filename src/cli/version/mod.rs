//! `hallpass version`: which version this is, what it knows, and with `--verbose` what it is made of.

use serde_json::{Value, json};

use super::{
    exit::Done,
    output::{self, Output},
};
use crate::kernel::{identity::profiles, policy::target::Kind};

/// `version`
#[derive(Debug, clap::Args)]
pub(crate) struct Version {
    /// Also the libraries within this binary, with their licences; in JSON as a bill of materials (CycloneDX 1.6).
    #[arg(long)]
    verbose: bool,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A line a library: name, version, licence (SPDX), with spaces between. `tests/components.rs` keeps it true.
const COMPONENTS: &str = include_str!("components.txt");

impl Version {
    /// Shows the version; in JSON also what this version knows.
    ///
    /// # Errors
    ///
    /// Where stdout cannot be written.
    pub(crate) fn run(self) -> Done {
        let version = env!("CARGO_PKG_VERSION");
        match self.output {
            Output::Human => {
                output::line(&format!("hallpass {version}"))?;
                if self.verbose { output::data(COMPONENTS) } else { Ok(()) }
            }
            Output::Json => {
                let mut told = json!({
                    "version": version,
                    "kinds": Kind::ALL.map(Kind::as_str),
                    "profiles": profiles::ALL.iter().map(|profile| profile.name).collect::<Vec<_>>(),
                });
                if let (Value::Object(members), true) = (&mut told, self.verbose) {
                    members.insert("sbom".to_owned(), bill_of_materials(version));
                }
                output::json(&told)
            }
        }
    }
}

fn bill_of_materials(version: &str) -> Value {
    let components = COMPONENTS.lines().filter_map(|line| {
        let mut words = line.splitn(3, ' ');
        let (name, version, licence) = (words.next()?, words.next()?, words.next()?);
        Some(json!({
            "type": "library", "name": name, "version": version, "purl": format!("pkg:cargo/{name}@{version}"),
            "licenses": [{ "expression": licence }],
        }))
    });
    json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": { "component": { "type": "application", "name": "hallpass", "version": version } },
        "components": components.collect::<Vec<_>>(),
    })
}
