//! Parties that are not ours, from npm: installed once into cargo's own folder by the lock file, never into the
//! checkout. They speak lines of JSON.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

/// A running script.
pub(crate) struct Script {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// Starts one of the kit's scripts.
    pub(crate) fn start(name: &str, arguments: &[&str], environment: &[(&str, &Path)]) -> Self {
        let mut command = Command::new("node");
        command.arg(kit().join(name)).args(arguments).envs(environment.iter().copied());
        Self::spawn(&mut command)
    }

    /// Starts any program that speaks lines of JSON.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut child = spawned.unwrap_or_else(|fault| panic!("{command:?}: {fault}; run .ci/run"));
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { stdin: child.stdin.take().unwrap(), stdout, child }
    }

    /// The next line of JSON that it prints; its own notices are passed over.
    pub(crate) fn next(&mut self) -> Value {
        let line = self.stdout.by_ref().map(Result::unwrap).find(|line| line.starts_with('{'));
        serde_json::from_str(&line.expect("the script ended")).unwrap()
    }

    /// Says a line of any text and hears one.
    pub(crate) fn say(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        self.stdout.next().expect("the script ended").unwrap()
    }

    /// Says a line and hears one.
    pub(crate) fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.stdin, "{question}").unwrap();
        self.next()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sixteen letters that are others for every other text.
pub(crate) fn fingerprint(text: &str) -> String {
    let digest = format!("{:?}", hallpass::kernel::digest::Digest::of(text.as_bytes()));
    digest.chars().filter(char::is_ascii_hexdigit).take(16).collect()
}

/// The folder with the scripts and what they import.
fn kit() -> &'static Path {
    static KIT: OnceLock<PathBuf> = OnceLock::new();
    KIT.get_or_init(|| {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let provider = tests.join("oidc_provider");
        let lock = fs::read_to_string(provider.join("package-lock.json")).unwrap();
        let kit = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("npm-{}", fingerprint(&lock)));
        fs::create_dir_all(&kit).unwrap();
        for script in ["oidc_provider/server.mjs", "jose/sign.mjs", "jose/verify.mjs", "oauth/exchange.mjs"] {
            let script = tests.join(script);
            fs::copy(&script, kit.join(script.file_name().unwrap())).unwrap();
        }
        let installed = kit.join("installed");
        if !installed.exists() {
            for file in ["package.json", "package-lock.json"] {
                fs::copy(provider.join(file), kit.join(file)).unwrap();
            }
            let status = Command::new("npm")
                .args(["ci", "--no-audit", "--no-fund", "--silent"])
                .current_dir(&kit)
                .status()
                .expect("npm is installed");
            assert!(status.success(), "npm ci: {status}");
            fs::write(installed, "").unwrap();
        }
        kit
    })
}
