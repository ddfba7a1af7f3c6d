//! Parties that are not ours, from PyPI: installed once into cargo's own folder by pinned hashes, never into the
//! checkout.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use super::npm::{Script, fingerprint};

/// Starts a script below `tests/` with what the `requirements.txt` beside it names.
pub(crate) fn start(script: &str) -> Script {
    let (kit, _) = script.split_once('/').unwrap();
    // Its notices of deprecation are about names that CI systems use.
    Script::spawn(program(kit, "python").args(["-W", "ignore"]).arg(tests().join(script)))
}

/// A program of the folder that holds what `tests/NAME/requirements.txt` names, such as `python`.
pub(crate) fn program(kit: &str, name: &str) -> Command {
    Command::new(folder(kit).join("bin").join(name))
}

/// A virtual environment with pinned packages, made once.
fn folder(kit: &str) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _guard = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let pinned = tests().join(kit).join("requirements.txt");
    let key = fingerprint(&fs::read_to_string(&pinned).unwrap());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{key}"));
    let installed = folder.join("installed");
    if !installed.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let pip = ["-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r"];
        run(Command::new(folder.join("bin/python")).args(pip).arg(&pinned));
        fs::write(installed, "").unwrap();
    }
    folder
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|fault| panic!("{command:?}: {fault}; run .ci/run"));
    assert!(status.success(), "{command:?}: {status}; .ci/run installs python3-venv where it is missing");
}

/// The folder of the tests.
pub(crate) fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}
