//! GitHub's runner as far as a JavaScript action meets it, re-implemented from its source (actions/runner, November
//! 2026): `ActionCommand.cs` and `ActionCommandManager.cs` for commands on stdout, `FileCommandManager.cs` for files,
//! `NodeScriptActionHandler.cs` for the environment, `SecretMasker.cs` for the log. Its automatic encodings of masked
//! values (base64, JSON, URL) are left out on purpose: a log is clean here by what the action itself has masked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use hallpass::kernel::policy::yaml::{self, Content, Node};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::token_service::REQUEST_TOKEN;

/// Variables in order of their names.
pub(crate) type Variables = BTreeMap<String, String>;

/// The files by which a step speaks to the runner.
const FILES: [&str; 5] =
    ["GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_STEP_SUMMARY", "GITHUB_PATH"];

/// One job on one machine.
pub(crate) struct Job {
    folder: TempDir,
    /// What GitHub and the workflow set.
    pub(crate) environment: Variables,
    /// What steps added by GITHUB_ENV.
    pub(crate) exported: Variables,
    masks: BTreeSet<String>,
    log: String,
}

/// What a step did.
#[derive(Debug)]
pub(crate) struct Step {
    /// Whether it exited with 0.
    pub(crate) passed: bool,
    /// What the runner shows of it, masked.
    pub(crate) log: String,
    /// Annotations, `level: text`, masked.
    pub(crate) annotations: Vec<String>,
    /// `steps.ID.outputs`.
    pub(crate) outputs: Variables,
    /// What its post step will find.
    pub(crate) state: Variables,
    /// The part of the job's summary.
    pub(crate) summary: String,
}

/// What the metadata file says.
struct Action {
    main: String,
    post: String,
    post_if: String,
    defaults: Variables,
    required: Vec<String>,
}

impl Job {
    /// A job of a repository whose workflow was pushed; `token_url` is there if it may ask for identity tokens.
    pub(crate) fn new(token_url: Option<&str>) -> Self {
        let folder = tempfile::Builder::new().prefix("runner-").tempdir().unwrap();
        for name in
            ["work/payments/payments", "work/_temp/_runner_file_commands", "work/_temp/_github_workflow"]
        {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let mut environment: Variables = [
            ("CI", "true"),
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_EVENT_NAME", "push"),
            ("GITHUB_REPOSITORY", "acme/payments"),
            ("GITHUB_REF", "refs/heads/main"),
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("RUNNER_OS", "Linux"),
            ("ACTIONS_RUNTIME_TOKEN", "runtime-token"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        environment.insert("GITHUB_WORKSPACE".to_owned(), path("work/payments/payments"));
        environment.insert("RUNNER_TEMP".to_owned(), path("work/_temp"));
        if let Some(url) = token_url {
            environment.insert("ACTIONS_ID_TOKEN_REQUEST_URL".to_owned(), url.to_owned());
            environment.insert("ACTIONS_ID_TOKEN_REQUEST_TOKEN".to_owned(), REQUEST_TOKEN.to_owned());
        }
        let mut job = Self {
            folder,
            environment,
            exported: Variables::new(),
            masks: BTreeSet::new(),
            log: String::new(),
        };
        job.event("push", &json!({ "ref": "refs/heads/main", "repository": { "id": 70155112 } }));
        job
    }

    /// Lets another event have started the job.
    pub(crate) fn event(&mut self, name: &str, payload: &Value) {
        let file = self.temp().join("_github_workflow/event.json");
        fs::write(&file, payload.to_string()).unwrap();
        self.environment.insert("GITHUB_EVENT_NAME".to_owned(), name.to_owned());
        self.environment.insert("GITHUB_EVENT_PATH".to_owned(), file.to_str().unwrap().to_owned());
    }

    /// The step's main part: `uses: hallpass/hallpass` with these inputs.
    pub(crate) fn uses(&mut self, with: &[(&str, &str)]) -> Step {
        let action = Action::read();
        let inputs = action.inputs(with);
        let (command, environment) = self.node(&action.main, inputs, &Variables::new());
        self.step(command, environment)
    }

    /// The step's main part in a job that is cancelled. `ready` waits for the moment, then the runner sends SIGINT, and
    /// what `ready` answers lets the rest happen.
    pub(crate) fn cancelled<Go: FnOnce()>(
        &mut self,
        with: &[(&str, &str)],
        ready: impl FnOnce() -> Go,
    ) -> Step {
        let action = Action::read();
        let (mut command, environment) = self.node(&action.main, action.inputs(with), &Variables::new());
        self.prepare(&mut command, environment);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let go = ready();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        // The rest happens only once the signal has been heard.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut stdout = String::new();
        while !stdout.contains("cancelled:") {
            stdout.push_str(&(lines.next().expect("it ended without hearing the signal") + "\n"));
        }
        go();
        lines.for_each(|line| stdout.push_str(&(line + "\n")));
        let mut output = child.wait_with_output().unwrap();
        output.stdout = stdout.into_bytes();
        self.finish(&output)
    }

    /// Its post part, which the runner runs at the end of the job.
    pub(crate) fn post(&mut self, with: &[(&str, &str)], step: &Step) -> Step {
        let action = Action::read();
        assert_eq!(action.post_if, "always()", "also after a failure");
        let inputs = action.inputs(with);
        let state: Variables =
            step.state.iter().map(|(name, value)| (format!("STATE_{name}"), value.clone())).collect();
        let (command, environment) = self.node(&action.post, inputs, &state);
        self.step(command, environment)
    }

    /// A later step of the job: `run:` under bash, as the runner calls it.
    pub(crate) fn run(&mut self, script: &str) -> Step {
        self.run_by("bash --noprofile --norc -e -o pipefail {0}", script)
    }

    /// The same with a `shell:` of its own.
    pub(crate) fn run_by(&mut self, shell: &str, script: &str) -> Step {
        let file = self.temp().join("script.sh");
        fs::write(&file, script).unwrap();
        let words: Vec<String> =
            shell.split(' ').map(|word| word.replace("{0}", file.to_str().unwrap())).collect();
        // Looked up on the job's path, not on ours.
        let mut command = Command::new("/usr/bin/env");
        command.args(&words);
        let mut environment = self.environment.clone();
        // Scripts are not given it; only actions are.
        environment.remove("ACTIONS_RUNTIME_TOKEN");
        environment.extend(self.exported.clone());
        self.step(command, environment)
    }

    /// Everything that the runner showed until now.
    pub(crate) fn log(&self) -> &str {
        &self.log
    }

    /// The folder that the job's own files are in.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.folder.path().join("work/payments/payments")
    }

    /// `RUNNER_TEMP`.
    pub(crate) fn temp(&self) -> PathBuf {
        self.folder.path().join("work/_temp")
    }

    /// A text as the runner shows it: every mask is three stars, overlapping ones together.
    pub(crate) fn masked(&self, text: &str) -> String {
        let mut hidden = vec![false; text.len()];
        for mask in self.masks.iter().filter(|mask| mask.len() <= text.len()) {
            for (at, _) in text.match_indices(mask.as_str()) {
                hidden[at..at + mask.len()].fill(true);
            }
        }
        let mut shown = String::new();
        for (at, letter) in text.char_indices() {
            match (hidden[at], at > 0 && hidden[at - 1]) {
                (false, _) => shown.push(letter),
                (true, false) => shown.push_str("***"),
                (true, true) => {}
            }
        }
        shown
    }

    fn node(&self, script: &str, inputs: Variables, state: &Variables) -> (Command, Variables) {
        // The runner has a Node of its own, whatever the job's path is.
        let path = std::env::var_os("PATH").unwrap();
        let node = std::env::split_paths(&path).map(|folder| folder.join("node")).find(|file| file.exists());
        let mut command = Command::new(node.expect("there is no node; run .ci/run"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
        let mut environment = self.environment.clone();
        environment.extend(self.exported.clone());
        environment.extend(inputs);
        environment.extend(state.clone());
        (command, environment)
    }

    fn step(&mut self, mut command: Command, environment: Variables) -> Step {
        self.prepare(&mut command, environment);
        let output = command.output().unwrap_or_else(|fault| panic!("{command:?}: {fault}; run .ci/run"));
        self.finish(&output)
    }

    fn prepare(&self, command: &mut Command, mut environment: Variables) {
        for name in FILES {
            let file = self.commands().join(name);
            fs::write(&file, "").unwrap();
            environment.insert(name.to_owned(), file.to_str().unwrap().to_owned());
        }
        environment.entry("PATH".to_owned()).or_insert_with(|| std::env::var("PATH").unwrap());
        command.env_clear().envs(&environment).current_dir(self.workspace());
        command.stdin(Stdio::null());
    }

    fn commands(&self) -> PathBuf {
        self.temp().join("_runner_file_commands")
    }

    fn finish(&mut self, output: &Output) -> Step {
        let commands = self.commands();
        let read = |name: &str| fs::read_to_string(commands.join(name)).unwrap();
        let mut step = Step {
            passed: output.status.success(),
            log: String::new(),
            annotations: Vec::new(),
            outputs: entries(&read("GITHUB_OUTPUT")),
            state: entries(&read("GITHUB_STATE")),
            summary: String::new(),
        };
        for stream in [&output.stdout, &output.stderr] {
            self.lines(&String::from_utf8_lossy(stream), &mut step);
        }
        let exported = entries(&read("GITHUB_ENV"));
        // What a runner with debug logging on shows of the files.
        for (kind, found) in [("env", &exported), ("state", &step.state), ("output", &step.outputs)] {
            for (name, value) in found {
                step.log
                    .push_str(&format!("##[debug]{kind} {}\n", self.masked(&format!("{name}='{value}'"))));
            }
        }
        assert!(!exported.contains_key("NODE_OPTIONS"), "the runner refuses it");
        self.exported.extend(exported);
        // The summary goes up masked line by line.
        step.summary = read("GITHUB_STEP_SUMMARY").lines().map(|line| self.masked(line) + "\n").collect();
        self.log.push_str(&step.log);
        step
    }

    /// As the runner handles the lines of a process: a command is carried out, anything else is shown.
    fn lines(&mut self, text: &str, step: &mut Step) {
        for line in
            text.split("\r\n").flat_map(|part| part.split(['\r', '\n'])).filter(|line| !line.is_empty())
        {
            match command(line) {
                Some((name, data)) if name == "add-mask" => {
                    assert!(!data.trim().is_empty(), "the runner warns of an empty mask");
                    let parts = data.split(['\r', '\n']).map(str::trim).filter(|part| !part.is_empty());
                    self.masks.extend(parts.map(str::to_owned));
                    self.masks.insert(data);
                }
                Some((name, data)) if ["error", "warning", "notice"].contains(&name.as_str()) => {
                    let text = format!("{name}: {}", self.masked(&data));
                    step.log.push_str(&format!("##[{name}]{}\n", self.masked(&data)));
                    step.annotations.push(text);
                }
                Some((name, data)) => panic!("the command {name} with {data:?}"),
                // The runner looks for its older form of commands next, anywhere in a line.
                None if line.contains("##[") => panic!("what could be an old command: {line}"),
                None => step.log.push_str(&(self.masked(line) + "\n")),
            }
        }
    }
}

impl Step {
    /// The annotations of one level, joined.
    pub(crate) fn told(&self, level: &str) -> String {
        let start = format!("{level}: ");
        let found: Vec<&str> = self.annotations.iter().filter_map(|text| text.strip_prefix(&start)).collect();
        found.join("\n")
    }
}

/// Reads a command as `ActionCommand.TryParseV2` does; nothing where the line is none.
fn command(line: &str) -> Option<(String, String)> {
    const KNOWN: [&str; 14] = [
        "add-mask",
        "add-matcher",
        "add-path",
        "debug",
        "echo",
        "endgroup",
        "error",
        "group",
        "notice",
        "remove-matcher",
        "save-state",
        "set-env",
        "set-output",
        "warning",
    ];
    let rest = line.trim_start().strip_prefix("::")?;
    let (head, data) = rest.split_once("::")?;
    let name = head.split(' ').next().unwrap();
    let is_known = KNOWN.contains(&name) || name == "stop-commands";
    is_known.then(|| (name.to_owned(), data.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")))
}

/// Reads a file of entries as the runner does on Linux; a file that it would refuse is a panic.
fn entries(text: &str) -> Variables {
    let mut found = Variables::new();
    let mut lines = text.split('\n');
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, delimiter) = match (line.find('='), line.find("<<")) {
            (equals, Some(at)) if equals.is_none_or(|equals| at < equals) => (&line[..at], &line[at + 2..]),
            _ => panic!("a plain entry: {line}"),
        };
        assert!(!name.is_empty() && delimiter.len() >= 32, "a delimiter that can be guessed: {line}");
        let mut value: Vec<&str> = Vec::new();
        loop {
            match lines.next() {
                Some(line) if line == delimiter => break,
                Some(line) => value.push(line),
                None => panic!("no end of {name}"),
            }
        }
        found.insert(name.to_owned(), value.join("\n"));
    }
    found
}

impl Action {
    fn read() -> Self {
        let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("action.yml")).unwrap();
        let root = yaml::read("action.yml", &text).unwrap_or_else(|fault| panic!("{fault:?}"));
        let runs = member(&root, "runs").unwrap();
        // Of what GitHub offers in November 2026; older ones are gone from its runners.
        assert_eq!(scalar(runs, "using").unwrap(), "node24");
        let Content::Mapping(inputs) = &member(&root, "inputs").unwrap().content else { panic!("no inputs") };
        let default = |name: &str, node: &Node| Some((name.to_owned(), scalar(node, "default")?));
        let required = inputs.iter().filter(|(_, node)| scalar(node, "required").as_deref() == Some("true"));
        Self {
            main: scalar(runs, "main").unwrap(),
            post: scalar(runs, "post").unwrap(),
            post_if: scalar(runs, "post-if").unwrap(),
            required: required.map(|(key, _)| key.text.clone()).collect(),
            defaults: inputs
                .iter()
                .map(|(key, node)| default(&key.text, node).unwrap_or((key.text.clone(), String::new())))
                .collect(),
        }
    }

    /// The inputs as variables: `INPUT_` and the name in capitals, with `_` for spaces and hyphens as they are.
    fn inputs(&self, with: &[(&str, &str)]) -> Variables {
        let mut inputs = self.defaults.clone();
        for (name, value) in with {
            assert!(
                inputs.insert((*name).to_owned(), (*value).to_owned()).is_some(),
                "no input is called {name}"
            );
        }
        for name in &self.required {
            assert!(!inputs[name].is_empty(), "{name} is required");
        }
        let variable = |name: &str| format!("INPUT_{}", name.replace(' ', "_").to_uppercase());
        inputs.iter().map(|(name, value)| (variable(name), value.clone())).collect()
    }
}

/// A member of a mapping.
pub(crate) fn member<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let Content::Mapping(members) = &node.content else { return None };
    members.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
}

/// The text of a member.
pub(crate) fn scalar(node: &Node, name: &str) -> Option<String> {
    match &member(node, name)?.content {
        Content::Plain(text) | Content::Quoted(text) => Some(text.clone()),
        Content::Mapping(_) | Content::Sequence(_) => None,
    }
}
