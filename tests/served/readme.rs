//! README.md is true: each of its shell commands is run as it stands there, and what it says the demo prints is what
//! the demo prints.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use super::support::{
    eventually,
    installation::{Running, binary, run},
};

#[test]
fn demo_prints_what_the_readme_shows() {
    let [first, ..] = &blocks("sh")[..] else { panic!("no command") };
    assert_eq!(first.trim(), "cargo run --locked -- demo");
    let shown = blocks("text").swap_remove(0);

    let demo = Running::spawn(binary().arg("demo"));
    let printed = whole(&demo);

    assert!(printed.lines().count() <= 40, "more than 40 lines:\n{printed}");
    let printed: Vec<String> = printed.trim().lines().map(blur).collect();
    let shown: Vec<String> = shown.trim().lines().map(blur).collect();
    assert_eq!(printed, shown);
    demo.stop();
}

#[test]
fn demo_that_is_to_end_ends_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();

    let printed = run(binary().args(["demo", "--once"]).env("TMPDIR", folder.path()), "");

    assert!(printed.contains("VERIFIED offline"), "{printed}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn operator_gets_what_the_readme_promises() {
    let folder = tempfile::tempdir().unwrap();
    let commands = blocks("sh");
    let [_, ci, make, serve, look, _, _, _, grant, emergency, keep] = &commands[..] else {
        panic!("other blocks than expected: {commands:?}")
    };
    assert_eq!(ci.trim(), ".ci/run");
    let ports = free_ports();

    shell(folder.path(), &ports, make);
    let broker = folder.path().join("broker");
    let server = Running::spawn(
        Command::new("bash")
            .args(["-c", &format!("exec {serve}")])
            .current_dir(&broker)
            .envs(environment(folder.path(), &ports)),
    );
    eventually("the line that says ready", || server.logs().contains("hallpass ready ").then_some(()));
    shell(&broker, &ports, look);
    shell(&broker, &ports, grant);
    shell(&broker, &ports, emergency);
    shell(&broker, &ports, keep);

    server.stop();
}

#[test]
fn sample_grant_is_a_grant() {
    let folder = tempfile::tempdir().unwrap();
    let broker = folder.path().join("broker");
    run(binary().args(["init", "--dir"]).arg(&broker), "");
    fs::write(broker.join("policies/grants/deploy.yaml"), &blocks("yaml")[0]).unwrap();

    let told = run(binary().args(["config", "check"]).current_dir(&broker), "");

    assert!(told.contains("1 issuer and 2 grants"), "{told}");
}

#[test]
fn ci_run_is_a_script_that_bash_can_read() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run");
    let status = Command::new("bash").arg("-n").arg(script).status().unwrap();
    assert!(status.success());
}

/// The fenced blocks of one language, in order.
pub(super) fn blocks(language: &str) -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let parts = readme.split("\n```").collect::<Vec<_>>();
    parts
        .into_iter()
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.strip_prefix(&format!("{language}\n")).map(str::to_owned))
        .collect()
}

/// Everything that a demo says before it waits: its last line is a command to verify the ledger.
fn whole(demo: &Running) -> String {
    eventually("the end of the demo's tale", || {
        let said = demo.logs();
        said.lines().last().is_some_and(|line| line.contains(" ledger verify ")).then_some(said)
    })
}

/// A line without what differs from run to run: ids, times, ports, keys, where the binary and the demo's folder are.
fn blur(line: &str) -> String {
    let differs = |word: &str| {
        word.contains(|each: char| each.is_ascii_digit() || each == '+') || word.contains("/hallpass-demo-")
    };
    let words = line.split_whitespace().map(|word| match word {
        // First: the folder of the build may hold digits too.
        word if word.ends_with("/hallpass") => "hallpass",
        word if differs(word) => "#",
        word => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Runs a block as a user pastes it; the first command that fails ends it.
fn shell(folder: &Path, ports: &[u16; 2], block: &str) {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", block]).current_dir(folder).envs(environment(folder, ports));
    run(command.stdin(Stdio::null()), "");
}

/// The built binary on the path, and ports that nobody else uses in the place of the default ones.
fn environment(folder: &Path, ports: &[u16; 2]) -> Vec<(&'static str, String)> {
    let tools = folder.join("bin");
    if !tools.exists() {
        fs::create_dir(&tools).unwrap();
        symlink(env!("CARGO_BIN_EXE_hallpass"), tools.join("hallpass")).unwrap();
    }
    let [public, admin] = ports;
    vec![
        ("PATH", format!("{}:{}", tools.display(), std::env::var("PATH").unwrap())),
        ("HALLPASS_PUBLIC_LISTEN", format!("127.0.0.1:{public}")),
        ("HALLPASS_ADMIN_LISTEN", format!("127.0.0.1:{admin}")),
        ("HALLPASS_URL", format!("http://127.0.0.1:{public}")),
        ("NPM_TOKEN", "npm_readme".to_owned()),
        ("NO_COLOR", "1".to_owned()),
    ]
}

/// Two ports that nobody listens on, below the range from which the system chooses for everybody else: one of those
/// could be gone before the broker binds it.
fn free_ports() -> [u16; 2] {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut free = (first..32_000).filter(is_free);
    [free.next().unwrap(), free.next().unwrap()]
}
