//! `hallpass policy schema`: JSON Schemas for editors, on stdout or beside the policies.

use std::{fs, path::PathBuf};

use crate::{
    cli::{
        exit::{Done, Failure},
        output,
    },
    kernel::policy::schema,
};

/// `policy schema`
#[derive(Debug, clap::Args)]
pub(crate) struct Schema {
    /// Which files: grant, guardrail, issuer or test [default: all, as one object].
    #[arg(value_name = "KIND", conflicts_with = "dir")]
    kind: Option<String>,
    /// Writes every schema into DIR/.schemas/, where the modelines of the samples look for them. What has a leading
    /// dot is no part of the policy set.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The folder in a policy directory.
pub(crate) const FOLDER: &str = ".schemas";

impl Schema {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`super::super::exit::Exit::Usage`] for an unknown kind, or a directory that cannot be written.
    pub(crate) fn run(self) -> Done {
        if let Some(dir) = &self.dir {
            return write(dir);
        }
        let all = schema::all();
        match self.kind.as_deref() {
            None => output::line(&format!("{:#}", serde_json::Value::from_iter(all))),
            Some(kind) => match all.get(kind) {
                Some(schema) => output::line(&format!("{schema:#}")),
                None => {
                    let known: Vec<&str> = all.keys().copied().collect();
                    Err(Failure::usage(format!(
                        "there is no schema of that kind; known: {}",
                        known.join(", ")
                    )))
                }
            },
        }
    }
}

/// Writes every schema into a policy directory. They are generated, so one that is there is replaced.
///
/// # Errors
///
/// [`super::super::exit::Exit::Usage`] where the directory cannot be written.
pub(crate) fn write(dir: &std::path::Path) -> Done {
    let folder = dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|fault| Failure::file(&folder, &fault))?;
    for (kind, schema) in schema::all() {
        let path = folder.join(format!("{kind}.json"));
        fs::write(&path, format!("{schema:#}\n")).map_err(|fault| Failure::file(&path, &fault))?;
    }
    output::say(&format!("wrote the schemas into {}", folder.display()));
    Ok(())
}
