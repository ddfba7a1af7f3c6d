//! `hallpass exec` as a pipeline step runs it: the built binary, a broker that serves, real commands, real signals.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, Signal, kill_process, test_kill_process},
};
use tempfile::TempDir;

use super::support::{
    Installation, PATIENCE, Server, eventually,
    installation::{CANARY, binary, finish, run},
    issuer::fresh_id,
    memory::Needles,
};

const PASSWORD: &str = "pässword & \"quotes\" <7f>";
const KEY: &str = "-----BEGIN KEY-----\nb25seSBhIHRlc3Q\nc2Vjb25kIGxpbmU\n-----END KEY-----\n";

/// A grant with secrets of several shapes.
const WORK: &str = r#"grant: work
allow:
  - name: from-main
    issuer: ci
    match: { repository_owner_id: "4216", repository_id: "70155112", ref: refs/heads/main, event_name: push }
credentials:
  npm:
    sealed: { secret: npm-token }
  db:
    sealed: { secret: db }
  ssh:
    sealed: { secret: ssh }
"#;

/// A job with a workspace of its own, beside a broker.
pub(crate) struct Job {
    pub(crate) installation: Installation,
    pub(crate) server: Server,
    pub(crate) workspace: TempDir,
}

impl Job {
    pub(crate) fn new() -> Self {
        Self::with(&[("work", WORK)])
    }

    pub(crate) fn with(grants: &[(&str, &str)]) -> Self {
        let installation = Installation::new();
        for (name, text) in grants {
            installation.write(&format!("policies/grants/{name}.yaml"), text);
        }
        installation.set_secret("ssh", KEY);
        installation.set_fields("db", &serde_json::json!({ "username": "ci", "password": PASSWORD }));
        let server = installation.serve();
        let workspace = tempfile::Builder::new().prefix("workspace-").tempdir().unwrap();
        fs::write(workspace.path().join("Makefile"), "all:\n").unwrap();
        Self { installation, server, workspace }
    }

    /// A command of a step, in the workspace.
    pub(crate) fn step(&self, arguments: &[&str]) -> Command {
        let plain = binary();
        // A shell has what it runs in the background ignore these two, and these tests with it; a CI system does not.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,QUIT").arg(plain.get_program());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(arguments).current_dir(self.workspace.path());
        command.env("HALLPASS_URL", format!("http://{}", self.server.public.address));
        command
    }

    /// `exec` with a fresh token, before `--`.
    pub(crate) fn exec(&self, arguments: &[&str]) -> Command {
        let mut command = self.step(&["exec"]);
        command.args(arguments).arg("--token-file").arg(self.token());
        command
    }

    /// A file with a fresh token, for its owner alone.
    pub(crate) fn token(&self) -> PathBuf {
        let path = self.installation.file(&format!("{}.token", fresh_id()));
        fs::write(&path, self.installation.issuer.token()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The same for the grant `work` and a script of the shell.
    pub(crate) fn script(&self, script: &str) -> Command {
        let mut command = self.exec(&["work"]);
        command.args(["--", "sh", "-c", script]);
        command
    }

    fn given_back(&self) -> usize {
        self.server.entries("RELEASED").len()
    }
}

/// A run in the background whose output is read line by line.
pub(crate) struct Step {
    child: Child,
    out: Output,
}

/// What a child prints, never waited for without end: a fault must fail its test, not hang the run.
pub(crate) struct Output(BufReader<ChildStdout>);

impl Output {
    pub(crate) fn of(child: &mut Child) -> Self {
        Self(BufReader::new(child.stdout.take().unwrap()))
    }

    /// The next line with its end; nothing where there is none any more.
    pub(crate) fn line(&mut self) -> String {
        self.until(|bytes| bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1))
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> String {
        self.until(|_| None)
    }

    fn until(&mut self, end: impl Fn(&[u8]) -> Option<usize>) -> String {
        let start = Instant::now();
        let mut read = Vec::new();
        loop {
            if self.0.buffer().is_empty() {
                self.wait(start, &read);
            }
            let bytes = self.0.fill_buf().unwrap();
            let (taken, is_whole) = end(bytes).map_or((bytes.len(), bytes.is_empty()), |at| (at, true));
            read.extend_from_slice(&bytes[..taken]);
            self.0.consume(taken);
            if is_whole {
                return String::from_utf8(read).unwrap();
            }
        }
    }

    /// Waits for more, or for the end.
    fn wait(&self, start: Instant, read: &[u8]) {
        let mut look = [PollFd::new(self.0.get_ref(), PollFlags::IN)];
        let left = PATIENCE.saturating_sub(start.elapsed());
        let ready = poll(&mut look, Some(&left.try_into().unwrap())).unwrap();
        assert!(ready > 0, "waited in vain for output behind {:?}", String::from_utf8_lossy(read));
    }
}

impl Step {
    pub(crate) fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let out = Output::of(&mut child);
        Self { child, out }
    }

    pub(crate) fn line(&mut self) -> String {
        let line = self.out.line();
        assert!(line.ends_with('\n'), "it ended: {line:?}, {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// What it ended with, what was left of stdout, and stderr.
    pub(crate) fn end(mut self) -> (Option<i32>, String, String) {
        let status = eventually("the end of the step", || self.child.try_wait().unwrap());
        let (out, mut err) = (self.out.rest(), String::new());
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (status.code(), out, err)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn command_finds_credentials_by_the_rule_of_names() {
    let job = Job::new();

    let mut step = Step::start(&mut job.script("echo $$; exec sleep 60"));
    let given = environ(&step.line());

    assert_eq!(given["NPM_VALUE"], CANARY);
    assert_eq!((given["DB_USERNAME"].as_str(), given["DB_PASSWORD"].as_str()), ("ci", PASSWORD));
    // `secret set` cut the last newline.
    assert_eq!(given["SSH_VALUE"], KEY.trim_end());
    step.signal(Signal::TERM);
    assert_eq!(step.end().0, Some(128 + 15));
}

#[test]
fn with_names_the_command_gets_those_alone() {
    let job = Job::new();
    let mapping = ["work", "--env", "PGPASSWORD=work.db.password", "--file", "KEY_FILE=work.ssh.value"];

    let mut step = Step::start(job.exec(&mapping).args(["--", "sh", "-c", "echo $$; exec sleep 60"]));
    let given = environ(&step.line());

    assert_eq!(given["PGPASSWORD"], PASSWORD);
    assert_eq!(fs::read_to_string(&given["KEY_FILE"]).unwrap(), KEY.trim_end());
    assert!(!given.contains_key("NPM_VALUE") && !given.contains_key("DB_PASSWORD"), "{given:?}");
    assert!(!given.values().any(|value| value.contains(CANARY)), "{given:?}");
}

#[test]
fn what_could_mint_another_token_is_kept_from_the_command() {
    let minting = [
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "ACTIONS_RUNTIME_TOKEN",
        "BUILDKITE_AGENT_ACCESS_TOKEN",
        "CIRCLE_OIDC_TOKEN_V2",
        "HALLPASS_ID_TOKEN",
        "SYSTEM_ACCESSTOKEN",
    ];
    let job = Job::new();
    let given = |options: &[&str]| {
        let mut command = job.exec(&[&["work"], options].concat());
        command.envs(minting.map(|name| (name, "of-the-job"))).env("OF_THE_STEP", "1");
        let mut step = Step::start(command.args(["--", "sh", "-c", "echo $$; exec sleep 60"]));
        environ(&step.line())
    };

    let plain = given(&[]);
    let kept = given(&["--keep", "SYSTEM_ACCESSTOKEN"]);
    let pristine = given(&["--pristine", "--keep", "OF_THE_STEP"]);

    assert!(!minting.iter().any(|name| plain.contains_key(*name)), "{plain:?}");
    assert_eq!(plain["OF_THE_STEP"], "1");
    assert_eq!(kept["SYSTEM_ACCESSTOKEN"], "of-the-job");
    assert!(!kept.contains_key("ACTIONS_RUNTIME_TOKEN"));
    for name in ["NPM_VALUE", "OF_THE_STEP", "PATH"] {
        assert!(pristine.contains_key(name), "{name}: {pristine:?}");
    }
    assert!(
        !pristine.keys().any(|name| name.starts_with("CARGO") || name.starts_with("HALLPASS")),
        "{pristine:?}"
    );
}

#[test]
fn output_is_masked_in_every_shape_and_otherwise_untouched() {
    let job = Job::new();
    let script = r#"
        echo "plain $NPM_VALUE end"
        printf 'encoded %s\n' "$(printf %s "$NPM_VALUE" | base64 -w 0)"
        printf 'shifted %s\n' "$(printf 'x%s' "$NPM_VALUE" | base64 -w 0)"
        printf 'hex %s\n' "$(printf %s "$NPM_VALUE" | od -An -v -tx1 | tr -d ' \n')"
        python3 -c 'import json, os, urllib.parse as u; p = os.environ["DB_PASSWORD"]; print(u.quote(p)); print(json.dumps(p))'
        echo "$SSH_VALUE"
        printf %s "${NPM_VALUE%????????}"; printf %s "${NPM_VALUE#"${NPM_VALUE%????????}"}"; echo
        echo "user $DB_USERNAME" >&2
        echo "error $NPM_VALUE" >&2
        printf 'no newline at the end'
    "#;

    let output = finish(&mut job.script(script), "");

    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{err}");
    let shifted = out.lines().find(|line| line.starts_with("shifted")).unwrap();
    // The first and the last characters hold bits of what stands beside the secret.
    assert!(shifted.len() <= "shifted eG***==".len() + 2, "{shifted}");
    let rest: Vec<&str> = out.lines().filter(|line| !line.starts_with("shifted")).collect();
    let expected =
        ["plain *** end", "encoded ***", "hex ***", "***", "\"***\"", "***", "***", "no newline at the end"];
    assert_eq!(rest, expected);
    assert!(!out.ends_with('\n'));
    // What a sealed secret with several fields says of them: all are secret, but a name of two letters hides nothing.
    assert_eq!(err, "user ci\nerror ***\n");
}

#[test]
fn order_is_kept_where_both_streams_go_to_one_place() {
    let job = Job::new();
    let mut command = job.script("for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done");
    let log = job.installation.file("log");
    let file = fs::File::create(&log).unwrap();
    let status =
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();

    assert!(status.success());
    let expected: String = (1..10).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(fs::read_to_string(log).unwrap(), expected);
}

#[test]
fn much_output_passes_whole_and_masked() {
    let job = Job::new();
    let script = "import os, sys\nfor i in range(20000): sys.stdout.write('%d %s\\n' % (i, os.environ['NPM_VALUE'] * (i % 3)))";
    let mut command = job.exec(&["work"]);
    let out = text(&finish(command.args(["--", "python3", "-c", script]), "").stdout);

    let expected: String = (0..20_000).map(|i| format!("{i} {}\n", "***".repeat(i % 3))).collect();
    assert!(out == expected, "{} bytes", out.len());
}

#[test]
fn exit_code_and_stdin_pass_through() {
    let job = Job::new();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 125", 125), ("kill -KILL $$", 128 + 9)] {
        let output = finish(&mut job.script(script), "");
        assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
        assert_eq!(text(&output.stderr), "", "nothing is said where nothing is wrong");
    }
    let mut command = job.exec(&["work"]);
    assert_eq!(run(command.args(["--", "cat"]), "from stdin\n"), "from stdin\n");
}

#[test]
fn what_cannot_run_is_told_as_a_shell_does_and_nothing_is_asked() {
    let job = Job::new();
    let missing = finish(job.exec(&["work"]).args(["--", "no-such-command"]), "");
    let denied = finish(job.exec(&["work"]).args(["--", "./Makefile"]), "");

    assert_eq!((missing.status.code(), denied.status.code()), (Some(127), Some(126)));
    assert!(text(&missing.stderr).contains("no-such-command"), "{missing:?}");
    assert_eq!(job.server.entries("ISSUED").len(), 0);
}

#[test]
fn own_failures_end_with_125_and_say_which_they_are() {
    let job = Job::new();
    let fails = |command: &mut Command, words: &[&str]| {
        let output = finish(command.args(["--", "touch", "ran"]), "");
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let told = text(&output.stderr);
        assert!(words.iter().all(|word| told.contains(word)), "{words:?}: {told}");
        assert!(!job.workspace.path().join("ran").exists(), "the command ran");
    };
    fails(&mut job.exec(&["other-team"]), &["access_denied", "dec_", "the failure is 10, denied"]);
    fails(&mut job.exec(&["lost"]), &["backend_failed", "the failure is 14"]);
    let mut unreachable = job.exec(&["work", "--timeout", "1s"]);
    fails(unreachable.env("HALLPASS_URL", "http://127.0.0.1:1"), &["the failure is 13"]);
    fails(&mut job.exec(&["work", "--env", "A=other.db.password"]), &["not asked for", "is 2, usage"]);
    fails(
        &mut job.exec(&["work", "--env", "A=work.db.nothing"]),
        &["no field `nothing`", "password, username"],
    );
    fails(&mut job.exec(&["work", "--no-such-option"]), &["--no-such-option"]);
    // What was issued before the fault was found is given back.
    assert_eq!(job.given_back(), 3);
}

#[test]
fn credentials_are_given_back_when_the_command_ends_however_it_does() {
    let job = Job::new();
    for (turn, script) in ["true", "exit 3", "kill -TERM $$"].into_iter().enumerate() {
        finish(&mut job.script(script), "");
        assert_eq!(job.given_back(), 3 * (turn + 1), "{script}");
    }
}

#[test]
fn a_signal_reaches_the_command_and_everything_is_cleaned_up() {
    let job = Job::new();
    let script = r#"trap 'echo got; exit 3' TERM INT HUP; echo "$KEY_FILE"; while :; do sleep 0.05; done"#;
    for (turn, signal) in [Signal::TERM, Signal::INT, Signal::HUP].into_iter().enumerate() {
        let mut command = job.exec(&["work", "--file", "KEY_FILE=work.ssh.value"]);
        let mut step = Step::start(command.args(["--", "sh", "-c", script]));
        let file = PathBuf::from(step.line());
        assert!(file.exists());

        step.signal(signal);

        assert_eq!(step.line(), "got");
        assert_eq!(step.end().0, Some(3));
        assert!(!file.parent().unwrap().exists(), "{signal:?}");
        assert_eq!(job.given_back(), 3 * (turn + 1), "{signal:?}");
    }
}

#[test]
fn every_signal_a_step_may_get_is_passed_on() {
    let job = Job::new();
    let script = r#"for s in HUP INT QUIT USR1 USR2 WINCH; do trap "echo $s" $s; done
        trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done"#;
    let mut step = Step::start(&mut job.script(script));
    assert_eq!(step.line(), "ready");
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
    ] {
        step.signal(signal);
        assert_eq!(step.line(), name);
    }
    step.signal(Signal::TERM);
    assert_eq!(step.end().0, Some(9));
}

#[test]
fn what_was_ignored_before_stays_ignored() {
    let job = Job::new();
    let line = job.script("exec grep SigIgn /proc/self/status");
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(line.get_program()).args(line.get_args());
    shell
        .envs(line.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(job.workspace.path());

    let out = run(&mut shell, "");

    let mask = u64::from_str_radix(out.trim().rsplit('\t').next().unwrap(), 16).unwrap();
    assert_eq!(mask & 1, 1, "nohup holds for the command: {out}");
}

#[test]
fn a_signal_before_the_command_ends_the_step_without_it() {
    let job = Job::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = job.script("touch ran");
    command.env("HALLPASS_URL", format!("http://{}", silent.local_addr().unwrap()));
    let step = Step::start(&mut command);
    let (asked, _) = silent.accept().unwrap();

    step.signal(Signal::TERM);

    let (code, _, told) = step.end();
    assert_eq!(code, Some(128 + 15));
    assert!(told.contains("before the command began"), "{told}");
    assert!(!job.workspace.path().join("ran").exists());
    drop(asked);
}

#[test]
fn killed_step_takes_its_command_along_and_the_next_one_cleans_up() {
    let job = Job::new();
    let start = || {
        let mut command = job.exec(&["work", "--file", "KEY_FILE=work.ssh.value"]);
        Step::start(command.args(["--", "sh", "-c", "echo $$; echo $KEY_FILE; exec sleep 600"]))
    };
    let [mut killed, mut alive] = [start(), start()];
    let [(child, file), (_, other)] =
        [&mut killed, &mut alive].map(|step| (step.line(), PathBuf::from(step.line())));

    killed.signal(Signal::KILL);

    let child = Pid::from_raw(child.parse().unwrap()).unwrap();
    eventually("the end of the command", || test_kill_process(child).is_err().then_some(()));
    let mut next = start();
    next.line();
    next.line();
    assert!(!file.parent().unwrap().exists(), "the next one does");
    assert!(other.exists(), "whose owner lives is not touched");
}

#[test]
fn files_are_in_memory_for_their_owner_alone() {
    let job = Job::new();
    let mut command = job.exec(&["work", "--file", "KEY_FILE=work.ssh.value"]);
    let mut step = Step::start(command.args(["--", "sh", "-c", "echo $KEY_FILE; exec sleep 600"]));
    let file = PathBuf::from(step.line());

    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert!(file.starts_with("/dev/shm"), "{}", file.display());
}

#[test]
fn files_are_never_in_the_workspace() {
    let job = Job::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = job.exec(&["work", "--file", "KEY_FILE=work.ssh.value"]);
    command.env("GITHUB_WORKSPACE", "/dev/shm").env_remove("XDG_RUNTIME_DIR");
    command.env("RUNNER_TEMP", job.workspace.path()).env("TMPDIR", elsewhere.path());
    let out = run(command.args(["--", "sh", "-c", "echo $KEY_FILE"]), "");
    assert!(Path::new(out.trim()).starts_with(elsewhere.path()), "{out}");

    let mut command = job.exec(&["work", "--file", "KEY_FILE=work.ssh.value"]);
    command.env("GITHUB_WORKSPACE", "/dev/shm").env("WORKSPACE", "/tmp");
    for place in ["XDG_RUNTIME_DIR", "RUNNER_TEMP", "TMPDIR"] {
        command.env_remove(place);
    }
    let output = finish(command.args(["--", "touch", "ran"]), "");
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("/tmp: it is in the workspace"), "{output:?}");
    assert!(!job.workspace.path().join("ran").exists(), "where there is no place, nothing runs");
}

#[test]
fn nothing_is_written_into_the_workspace() {
    let job = Job::new();
    let before = snapshot(job.workspace.path());
    let mapping = ["work", "--env", "A=work.db.password", "--file", "B=work.ssh.value", "--pristine"];
    finish(job.exec(&mapping).args(["--", "sh", "-c", "echo $A; cat $B; kill -SEGV $$"]), "");
    finish(job.exec(&["other-team"]).args(["--", "true"]), "");
    let step = Step::start(&mut job.script("echo ready; sleep 600"));
    step.signal(Signal::QUIT);
    step.end();
    assert_eq!(snapshot(job.workspace.path()), before);
}

#[test]
fn a_grandchild_that_keeps_the_output_open_holds_nobody_up() {
    let job = Job::new();
    let started = Instant::now();
    let output = finish(&mut job.script("sleep 25 & echo done $NPM_VALUE"), "");

    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "done ***\n"));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(job.given_back(), 3);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_as_it_would_without_us() {
    let job = Job::new();
    let mut step = Step::start(&mut job.script("while :; do echo line; done"));
    assert_eq!(step.line(), "line");

    let Step { child, out } = &mut step;
    drop(std::mem::replace(out, Output(BufReader::new(child_stdout()))));

    let status = eventually("the end of the step", || child.try_wait().unwrap());
    // The shell may tell of the broken pipe or die of it.
    assert!([Some(1), Some(2), Some(128 + 13)].contains(&status.code()), "{status}");
}

#[test]
fn a_broker_that_went_away_changes_no_exit_code_and_is_told() {
    let job = Job::new();
    let go = job.installation.file("go");
    let script = format!("echo ready; while [ ! -e {} ]; do sleep 0.02; done; exit 4", go.display());
    let mut step = Step::start(&mut job.script(&script));
    assert_eq!(step.line(), "ready");

    job.server.crash();
    fs::write(&go, "").unwrap();

    let started = Instant::now();
    let (code, _, told) = step.end();
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("warning: work/db (sealed, iss_"), "{told}");
    assert!(told.contains("could not be released, it ends never"), "{told}");
    assert!(!told.contains("hdl_") && !told.contains(CANARY), "{told}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn exec_cannot_be_read_by_its_own_user_and_the_command_leaves_no_core() {
    const NOBODY: u32 = 65_534;
    let job = Job::new();
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = place.path().join("hallpass");
    fs::copy(env!("CARGO_BIN_EXE_hallpass"), &copy).unwrap();
    let token = place.path().join("token");
    fs::write(&token, job.installation.issuer.token()).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--clear-groups"])
        .arg(copy)
        .args(["exec", "work", "--token-file"])
        .arg(token);
    command.args(["--", "sh", "-c", "echo $$; exec sleep 600"]).current_dir("/");
    command.env("HALLPASS_URL", format!("http://{}", job.server.public.address));

    let mut step = Step::start(&mut command);
    let child = step.line();

    // Of a process that is not dumpable, /proc belongs to root, and so does the right to trace it.
    let owner = |pid: &str| {
        let found = fs::metadata(format!("/proc/{pid}/environ")).expect("this test needs root");
        std::os::unix::fs::MetadataExt::uid(&found)
    };
    assert_eq!(owner(&step.pid().as_raw_nonzero().to_string()), 0);
    assert_eq!(owner(&child), NOBODY, "the command is an ordinary one");
    let limits = fs::read_to_string(format!("/proc/{child}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "a core would hold the credentials: {core}");
    step.signal(Signal::TERM);
    step.end();
}

/// The run passes signals on in order, so a key that it wrongly passed on would come before what ends the command: no
/// wait for a second key is needed.
#[test]
fn a_terminal_is_passed_through_and_its_keys_are_heard_once() {
    let job = Job::new();
    let script = r#"n=0; end=; trap 'n=$((n+1)); echo got' INT; trap 'end=1' USR1
        test -t 1 && echo terminal; echo $NPM_VALUE; echo "run $PPID ready"
        while [ -z "$end" ]; do sleep 0.02; done; echo count $n"#;
    let (mut child, mut out) = on_a_terminal(&job, &job.script(script));
    let mut seen = String::new();
    let mut until = |word: &str| loop {
        let line = out.line();
        assert_ne!(line, "", "it ended before {word:?}: {seen}");
        seen.push_str(&line);
        if line.contains(word) {
            return line;
        }
    };
    let ready = until("ready");
    let run = ready.split_whitespace().nth(1).unwrap().parse().unwrap();

    // Ctrl-C, as the terminal's driver reads it.
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\x03").unwrap();
    until("got");
    kill_process(Pid::from_raw(run).unwrap(), Signal::USR1).unwrap();

    seen.push_str(&out.rest());
    assert!(child.wait().unwrap().success(), "{seen}");
    assert!(seen.contains("terminal") && seen.contains(CANARY), "{seen}");
    assert!(seen.contains("count 1"), "{seen}");
    assert_eq!(job.given_back(), 3, "{seen}");
}

/// P5: what was used is wiped, although the run goes on. On a terminal nothing is masked, so nothing is kept for that.
#[test]
fn token_and_credentials_are_gone_from_memory_while_the_command_runs() {
    let job = Job::new();
    let line = job.script("echo $PPID; exec sleep 600");
    let words: Vec<String> = line.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
    let at = words.iter().position(|word| word == "--token-file").unwrap();
    let token = fs::read_to_string(&words[at + 1]).unwrap();

    let (mut child, mut out) = on_a_terminal(&job, &line);
    let pid = out.line();

    let needles = Needles::of_secret(CANARY).and(Needles::of_token(&token));
    let pid = pid.trim().parse().unwrap();
    eventually("a memory without token and credential", || (!needles.are_in(pid)).then_some(()));
    // The same look finds what is there: the command's environment holds the credential.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert!(needles.are_in(children.trim().parse().unwrap()), "the look sees nothing");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Runs a command on a terminal of its own. util-linux' `script` gives up 10 ms after the command's end and loses what
/// the kernel has not carried to it by then; this reads on until nobody has the terminal open.
fn on_a_terminal(job: &Job, line: &Command) -> (Child, Output) {
    const TERMINAL: &str = r"
import os, pty, select, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    ready, _, _ = select.select([terminal, 0], [], [])
    if 0 in ready:
        keys = os.read(0, 4096)
        if not keys:
            sys.exit(1)
        os.write(terminal, keys)
    if terminal in ready:
        try:
            shown = os.read(terminal, 65536)
        except OSError:
            break
        while shown:
            shown = shown[os.write(1, shown):]
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
";
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL]).arg(line.get_program()).args(line.get_args());
    command.current_dir(job.workspace.path());
    command.envs(line.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let out = Output::of(&mut child);
    (child, out)
}

/// The environment of a running process, as the kernel has it.
pub(crate) fn environ(pid: &str) -> BTreeMap<String, String> {
    // There is none for the moment in which it becomes another program.
    let bytes = eventually("an environment", || {
        Some(fs::read(format!("/proc/{pid}/environ")).unwrap()).filter(|bytes| !bytes.is_empty())
    });
    let pairs = bytes.split(|byte| *byte == 0).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = std::str::from_utf8(pair).unwrap().split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// Every path below a folder, with its content.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                snapshot(&path)
            } else {
                BTreeMap::from([(path.clone(), fs::read(path).unwrap())])
            }
        })
        .collect()
}

/// An output that is none.
fn child_stdout() -> ChildStdout {
    Command::new("true").stdout(Stdio::piped()).spawn().unwrap().stdout.unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
