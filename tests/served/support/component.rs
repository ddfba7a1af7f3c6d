//! Servers that are not ours: real ones, built or installed by `.ci/run`, each with a folder of its own and on ports
//! of loopback that nobody else is given. They are killed when dropped, also by a test that fails.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use tempfile::TempDir;

/// A process with its words in a file; killed when dropped.
pub(crate) struct Component {
    child: Child,
    log: PathBuf,
}

impl Component {
    /// Starts it; stdout and stderr go into `NAME.log` of the folder.
    pub(crate) fn spawn(name: &str, command: &mut Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let (out, err) = {
            let file = fs::File::create(&log).unwrap();
            (file.try_clone().unwrap(), file)
        };
        let spawned = command.current_dir(folder).stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = spawned.unwrap_or_else(|fault| panic!("{command:?}: {fault}; run .ci/run"));
        Self { child, log }
    }

    /// Everything that it wrote until now.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Panics with its last words where it has ended.
    pub(crate) fn check_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it ended with {status}:\n{}", last_lines(&self.log()));
        }
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            show(&last_lines(&self.log()));
        }
    }
}

/// A binary that `.ci/component` builds: where the variable says, or in the cache. There is no way around it: a test
/// without its party would show nothing.
pub(crate) fn built(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
        return path;
    }
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/component");
    let output = Command::new(&tool).args(["--find", name]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name} is missing: run .ci/run, or .ci/component {name}, or set {variable}: {told}"
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Another build of our own binary, which `.ci/variant` makes. There is no way around it either.
pub(crate) fn variant(name: &str, variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    let path = path.unwrap_or_else(|| panic!("run .ci/run, or export {variable}=$(.ci/variant {name})"));
    assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
    path
}

/// A folder for one component.
pub(crate) fn folder(name: &str) -> TempDir {
    tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().unwrap()
}

/// A port that nobody listens on, below the range from which the system chooses for everybody else; no two calls of
/// this process answer the same one. The port after it is free, too, and nobody else's: Vault takes it unasked.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 9_000).unwrap();
    loop {
        let port = first + NEXT.fetch_add(2, Ordering::SeqCst);
        assert!(port < 20_000, "no free port is left");
        if [port, port + 1].into_iter().all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[expect(clippy::print_stderr, reason = "a failed test shows what the process said")]
fn show(log: &str) {
    eprintln!("--- it said last:\n{log}\n---");
}
