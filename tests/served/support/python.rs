//! A party that is not ours, from PyPI: installed once into cargo's own folder by pinned hashes, never into the
//! checkout. It speaks lines of JSON.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use super::npm::{Script, fingerprint};

/// Starts a script below `tests/` with what the `requirements.txt` beside it names.
pub(crate) fn start(script: &str) -> Script {
    let script = tests().join(script);
    let python = interpreter(&script.with_file_name("requirements.txt"));
    // Its notices of deprecation are about names that CI systems use.
    Script::spawn(Command::new(python).args(["-W", "ignore"]).arg(script))
}

/// A Python with the libraries that a file pins.
pub(crate) fn interpreter(pinned: &Path) -> PathBuf {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let key = fingerprint(&fs::read_to_string(pinned).unwrap());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{key}"));
    let installed = folder.join("installed");
    let python = folder.join("bin/python");
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if !installed.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let pip = ["-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r"];
        run(Command::new(&python).args(pip).arg(pinned));
        fs::write(installed, "").unwrap();
    }
    python
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|fault| panic!("{command:?}: {fault}; run .ci/run"));
    assert!(status.success(), "{command:?}: {status}; .ci/run installs python3-venv where it is missing");
}

/// The folder of the tests.
pub(crate) fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}
