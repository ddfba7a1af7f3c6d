//! An installation in a folder of its own, and the binary that serves it. What the kit runs is what a user runs: the
//! built `hallpass`, its files, its ports, its signals.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{AUDIENCE, Client, Cluster, Issuer, eventually};

/// The secret that must appear nowhere but in an answer.
pub(crate) const CANARY: &str = "npm_cAnArY-7f3d90b1e2-never-in-a-log";

/// The built binary, without anything of the caller's environment that speaks to it.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HALLPASS_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    command
}

/// Runs to the end with bytes on stdin; panics where that is not exit 0.
#[track_caller]
pub(crate) fn run(command: &mut Command, stdin: &str) -> String {
    let output = finish(command, stdin);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs to the end, whatever that is.
pub(crate) fn finish(command: &mut Command, stdin: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// A folder that `hallpass init` made, with sample policies and one sealed secret.
pub(crate) struct Installation {
    pub(crate) issuer: Issuer,
    folder: TempDir,
    origin: String,
    store: String,
}

impl Installation {
    pub(crate) fn new() -> Self {
        Self::made("{ url: \"sqlite:hallpass.db\" }", |_| {})
    }

    /// On a server: the schema is its owner's, brokers and commands log in as another role.
    pub(crate) fn on(cluster: &Cluster) -> Self {
        for role in ["owner", "writer", "reader"] {
            cluster.role(role);
        }
        cluster.psql("postgres", "CREATE DATABASE hallpass OWNER owner");
        let store = format!("{{ url: \"{}\" }}", cluster.url("writer", "hallpass"));
        Self::made(&store, |installation| {
            let owner = cluster.url("owner", "hallpass");
            run(&mut installation.command(&["store", "init", "--as", &owner, "--reader", "reader"]), "");
        })
    }

    fn made(store: &str, make_store: impl Fn(&Self)) -> Self {
        let issuer = Issuer::start();
        let folder = tempfile::Builder::new().prefix("hallpass-").tempdir().unwrap();
        let made = folder.path().join("broker");
        run(binary().args(["init", "--dir"]).arg(&made), "");
        let origin = origin(&fs::read_to_string(made.join("hallpass.yaml")).unwrap());
        let installation = Self { issuer, folder, origin, store: store.to_owned() };
        let configuration = format!(
            "issuers:\n  ci: {{ url: \"{}\", profile: github-actions, allow_private_addresses: true }}\n",
            installation.issuer.url
        );
        installation.configure(&configuration);
        make_store(&installation);
        let policies = installation.file("policies");
        fs::remove_dir_all(&policies).unwrap();
        installation.write("policies/issuers/ci.yaml", &issuer_policy(&installation.issuer.url));
        for (name, text) in SAMPLE_GRANTS {
            installation.write(&format!("policies/grants/{name}.yaml"), text);
        }
        installation.set_secret("npm-token", CANARY);
        installation
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("broker").join(name)
    }

    /// Writes a file as an editor does: whole, then renamed into place.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let draft = path.with_file_name(".draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, path).unwrap();
    }

    /// Writes `hallpass.yaml`: ports that the system chooses, and `more` for the issuers.
    pub(crate) fn configure(&self, more: &str) {
        let text = format!(
            "public: {{ listen: \"127.0.0.1:0\", url: {AUDIENCE} }}\n\
             admin:\n  listen: \"127.0.0.1:0\"\n  tokens:\n\
             \x20   - {{ name: first-auditor, roles: [auditor], file: auditor.token }}\n\
             \x20   - {{ name: first-operator, roles: [operator], file: operator.token }}\n\
             store: {}\n\
             policies: policies/\n\
             sealing_key: {{ file: sealing.key }}\n\
             ledger: {{ origin: {}, seen: ledger.seen }}\n\
             assertions: {{ issuer: \"{AUDIENCE}\" }}\n\
             limits: {{ per_source_per_second: 100000, per_project_per_minute: 100000 }}\n\
             {more}",
            self.store, self.origin
        );
        self.write("hallpass.yaml", &text);
    }

    /// Names the sealing keys in a configuration.
    pub(crate) fn name_sealing_keys(&self, file: &str, to: &str) {
        let text = fs::read_to_string(self.file(file)).unwrap();
        let lines = text.lines().map(|line| match line.strip_prefix("sealing_key:") {
            Some(_) => format!("sealing_key: {to}\n"),
            None => format!("{line}\n"),
        });
        self.write(file, &lines.collect::<String>());
    }

    /// Seals a secret, also while `serve` runs.
    pub(crate) fn set_secret(&self, name: &str, value: &str) {
        run(&mut self.command(&["secret", "set", name]), value);
    }

    /// The same with several fields.
    pub(crate) fn set_fields(&self, name: &str, fields: &Value) {
        run(&mut self.command(&["secret", "set", name, "--json"]), &fields.to_string());
    }

    /// A command in the installation's folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command.args(arguments).current_dir(self.file(""));
        command
    }

    /// The bearer token that `init` made for a role.
    pub(crate) fn admin_token(&self, role: &str) -> String {
        fs::read_to_string(self.file(&format!("{role}.token"))).unwrap().trim().to_owned()
    }

    /// Starts `hallpass serve` and waits until it has a policy set.
    pub(crate) fn serve(&self) -> Server {
        self.serve_by(&mut self.command(&["serve"]))
    }

    /// Starts another broker of the same database, which keeps the head that it has seen in a file of its own.
    pub(crate) fn replica(&self, number: usize) -> Server {
        self.serve_by(&mut self.replica_command(number))
    }

    /// Its command line.
    pub(crate) fn replica_command(&self, number: usize) -> Command {
        let file = format!("replica-{number}.yaml");
        let configuration = fs::read_to_string(self.file("hallpass.yaml")).unwrap();
        self.write(&file, &configuration.replace("seen: ledger.seen", &format!("seen: seen-{number}")));
        self.command(&["serve", "--config", &file])
    }

    /// The same by another command line, such as a shell's.
    pub(crate) fn serve_by(&self, command: &mut Command) -> Server {
        let server = Server::spawn(command, self.admin_token("auditor"));
        eventually("readiness", || (server.admin.get("/readyz").send().status == 200).then_some(()));
        server
    }
}

/// The name that `init` gave the ledger; it stands in the database and never changes.
fn origin(configuration: &str) -> String {
    let (_, rest) = configuration.split_once("origin: ").unwrap();
    rest.split([',', ' ', '}', '\n']).next().unwrap().trim_matches('"').to_owned()
}

fn issuer_policy(url: &str) -> String {
    format!("issuer: ci\nprofile: github-actions\nurl: {url}\naudience: {AUDIENCE}\nmax_token_age: 10m\n")
}

/// Grants of the sample set: one that the valid job may use, and some that it may not.
const SAMPLE_GRANTS: &[(&str, &str)] = &[
    (
        "deploy",
        r#"grant: deploy
description: What a deploy of payments needs
allow:
  - name: deploy-from-main
    issuer: ci
    match:
      repository_owner_id: "4216"
      repository_id: "70155112"
      ref: refs/heads/main
      event_name: [push, workflow_dispatch]
credentials:
  npm:
    sealed: { secret: npm-token }
  cloud:
    oidc: { audience: "https://cloud.test" }
    ttl: 5m
"#,
    ),
    (
        "other-team",
        r#"grant: other-team
description: Another team's
allow:
  - name: theirs
    issuer: ci
    match: { repository_owner_id: "4216", repository_id: "999" }
credentials:
  npm:
    sealed: { secret: npm-token }
"#,
    ),
    (
        "lost",
        r#"grant: lost
description: Its secret was never set
allow:
  - name: deploy-from-main
    issuer: ci
    match: { repository_owner_id: "4216", repository_id: "70155112" }
credentials:
  gone:
    sealed: { secret: never-set }
"#,
    ),
];

/// A process whose words are kept; killed when dropped.
pub(crate) struct Running {
    child: Child,
    logs: Arc<Mutex<String>>,
}

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let logs = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), &logs);
        collect(child.stderr.take().unwrap(), &logs);
        Self { child, logs }
    }

    /// Everything that it wrote to stdout and stderr until now.
    pub(crate) fn logs(&self) -> String {
        self.logs.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops in order and waits for the end.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "it ended with {status}");
        self.logs()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            show(&self.logs());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what the process said")]
fn show(logs: &str) {
    eprintln!("--- it said:\n{logs}---");
}

/// A running `hallpass serve`.
pub(crate) struct Server {
    pub(crate) public: Client,
    pub(crate) admin: Client,
    process: Running,
    auditor: String,
}

impl Server {
    fn spawn(command: &mut Command, auditor: String) -> Self {
        let mut process = Running::spawn(command);
        let ports = eventually("the line that says ready", || {
            let ended = process.child.try_wait().unwrap();
            let found = process.logs().lines().find_map(ready_ports);
            assert!(found.is_some() || ended.is_none(), "serve ended with {ended:?}");
            found
        });
        let [public, admin] = ports.map(Client::new);
        Self { public, admin, process, auditor }
    }

    /// Everything that it wrote to stdout and stderr until now.
    pub(crate) fn logs(&self) -> String {
        self.process.logs()
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Asks for a reload.
    pub(crate) fn hang_up(&self) {
        self.process.signal(Signal::HUP);
    }

    /// Stops in order, waits for the end and answers all that it wrote.
    pub(crate) fn stop(self) -> String {
        self.process.stop()
    }

    /// Ends at once, as a crash does.
    pub(crate) fn crash(mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it ends by itself; answers how, and all that it wrote.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = eventually("the process to end", || self.process.child.try_wait().unwrap());
        (status, self.process.logs())
    }

    /// Exchanges for one credential of the grant `deploy` and answers its issuance.
    #[track_caller]
    pub(crate) fn only(&self, token: &str, credential: &str) -> Value {
        let ask = json!({ "grants": [{ "name": "deploy", "credentials": [credential] }] });
        self.public.exchange(token, &ask).ok()["issuances"][0].clone()
    }

    /// The ledger's entries that match, newest first, as an auditor sees them: `{index, entry}`.
    pub(crate) fn ledger(&self, query: &str) -> Vec<Value> {
        let path = format!("/v1/ledger/entries?limit=500&q={}", query.replace(' ', "%20"));
        let page = self.admin.get(&path).bearer(&self.auditor).send().ok();
        page["items"].as_array().unwrap().clone()
    }

    /// The entries of one code, newest first.
    pub(crate) fn entries(&self, code: &str) -> Vec<Value> {
        let found = self.ledger(&format!("outcome:{code}"));
        found.into_iter().map(|item| item["entry"].clone()).filter(|entry| entry["code"] == code).collect()
    }
}

fn collect(stream: impl Read + Send + 'static, logs: &Arc<Mutex<String>>) {
    let logs = Arc::clone(logs);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut logs = logs.lock().unwrap();
            logs.push_str(&line);
            logs.push('\n');
        }
    });
}

/// The addresses of both listeners, public first, on the line that says ready.
fn ready_ports(line: &str) -> Option<[SocketAddr; 2]> {
    let line = line.strip_prefix("hallpass ready ")?;
    let addresses: Vec<SocketAddr> = line
        .split(|each: char| !(each.is_ascii_digit() || each == '.' || each == ':'))
        .filter_map(|word| word.trim_matches([':', '.']).parse().ok())
        .collect();
    addresses.try_into().ok()
}
