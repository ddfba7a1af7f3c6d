//! The wrappers that are a few lines of shell around `hallpass exec`: each file under `examples/` is read as its CI system
//! reads it, and its own lines are run by the shell and in the environment that the system gives them, as they stand
//! there but for the broker's address.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use hallpass::kernel::policy::yaml::{self, Content, Node};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    super::profiles::{Trusted, serve},
    github_runner::{Job, member, scalar},
    token_service::FakeGitHubTokens,
};
use crate::support::{
    AUDIENCE, Installation, Server,
    ci::{BEARER, TokenEndpoint},
    eventually,
    installation::CANARY,
};

/// What the examples call the broker.
const EXAMPLE: &str = "https://hallpass.example.com";
const PASSWORD: &str = "pa$$ \"word\" & <7f>";

/// What the examples call `deploy.sh`: it shows what it has, as careless scripts do, and writes it down for the test.
const DEPLOY: &str = "#!/bin/sh\nenv -0 > \"$SEEN\"\n[ -z \"$KILLED\" ] || { kill -9 \"$PPID\"; sleep 60; }\necho \"token $NPM_VALUE$NODE_AUTH_TOKEN\"\n\
                      echo \"password $DB_PASSWORD$PGPASSWORD\"\nexit \"${EXIT_WITH:-0}\"\n";

/// A broker that trusts one CI system, for its own address as the audience where the system allows that.
struct Setting {
    server: Server,
    trusted: Trusted,
    url: String,
    // Dropped last: the server works in its folder.
    _installation: Installation,
}

impl Setting {
    fn new(profile: &'static str) -> Self {
        let installation = Installation::new();
        installation.set_fields("db", &json!({ "username": "payments", "password": PASSWORD }));
        let trusted = Trusted::new(profile);
        let server = serve(&installation, std::slice::from_ref(&trusted));
        let url = format!("http://{}", server.public.address);
        let grant = read(&installation.file(&format!("policies/grants/{profile}.yaml")));
        let grant = grant.replace(&format!("grant: {profile}\n"), "grant: payments-prod\n");
        installation
            .write("policies/grants/payments-prod.yaml", &(grant + "  db: { sealed: { secret: db } }\n"));
        retarget(&installation, &server, profile, &url);
        Self { server, trusted, url, _installation: installation }
    }

    /// A file of `examples/`, with this broker's address.
    fn example(&self, name: &str) -> String {
        example(name, &self.url)
    }

    fn releases(&self) -> usize {
        self.server.entries("RELEASED").len()
    }

    /// `work` ends as one does whose `hallpass` is killed, and gives nothing back; `end` does.
    #[track_caller]
    fn left_then_given_back(&self, work: impl FnOnce(&[(&str, &str)]) -> Ended, end: impl FnOnce() -> Ended) {
        let killed = work(&[("KILLED", "yes")]);
        assert_ne!(killed.code, Some(0), "{killed:?}");
        assert_eq!((self.server.entries("ISSUED").len(), self.releases()), (2, 0), "{killed:?}");

        let ended = end();

        assert_eq!((ended.code, self.releases()), (Some(0), 2), "{ended:?}");
        ended.silent();
    }

    /// Why its jobs asked, as an auditor reads it.
    fn reasons(&self) -> Vec<String> {
        let items = self.server.ledger("outcome:INTENT");
        items.iter().map(|item| item["personal"]["reason"].as_str().unwrap().to_owned()).collect()
    }
}

fn example(name: &str, url: &str) -> String {
    let text = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name));
    text.replace(EXAMPLE, url)
}

/// Lets tokens be for the broker's own address, as an operator would; Azure's audience is nobody's choice.
fn retarget(installation: &Installation, server: &Server, issuer: &str, url: &str) {
    let name = format!("policies/issuers/{issuer}.yaml");
    installation.write(&name, &read(&installation.file(&name)).replace(AUDIENCE, url));
    server.hang_up();
    eventually("the new policies", || (server.entries("POLICY_LOADED").len() == 2).then_some(()));
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

fn parsed(name: &str, text: &str) -> Node {
    yaml::read(name, text.as_bytes()).unwrap_or_else(|fault| panic!("{fault:?}"))
}

/// A machine of a CI system: the binary on the path, a workspace with `deploy.sh`, an environment of its own.
struct Machine {
    folder: TempDir,
    environment: BTreeMap<String, String>,
}

impl Machine {
    fn new(environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("machine-").tempdir().unwrap();
        for name in ["bin", "home", "workspace"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_hallpass"), folder.path().join("bin/hallpass")).unwrap();
        let mut machine = Self { folder, environment: BTreeMap::new() };
        machine.program("workspace/deploy.sh", DEPLOY);
        let path = format!("{}:/usr/bin:/bin", machine.path("bin").display());
        for (name, value) in [
            ("PATH", path.as_str()),
            ("HOME", machine.path("home").to_str().unwrap()),
            ("SEEN", machine.path("seen").to_str().unwrap()),
            ("CI", "true"),
        ] {
            machine.set(name, value);
        }
        for (name, value) in environment {
            machine.set(name, value);
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// A program of this machine.
    fn program(&self, name: &str, script: &str) {
        // Written whole before it has its name: a script that is open for writing cannot be run.
        let draft = self.path(".draft");
        fs::write(&draft, script).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(draft, self.path(name)).unwrap();
    }

    /// Runs a program in the workspace.
    fn run(&self, command: &[&str], more: &[(&str, &str)]) -> Ended {
        let output = Command::new(command[0])
            .args(&command[1..])
            .env_clear()
            .envs(&self.environment)
            .envs(more.iter().copied())
            .current_dir(self.path("workspace"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let kept: Vec<_> =
            fs::read_dir(self.path("workspace")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(kept, ["deploy.sh"], "nothing is written into the workspace");
        Ended::of(&output)
    }

    /// Runs a script by a shell that reads it from a file.
    fn script(&self, shell: &[&str], script: &str, more: &[(&str, &str)]) -> Ended {
        let file = self.path("script");
        fs::write(&file, script).unwrap();
        self.run(&[shell, &[file.to_str().unwrap()]].concat(), more)
    }

    /// The environment in which `deploy.sh` ran.
    fn seen(&self) -> BTreeMap<String, String> {
        let text = read(&self.path("seen"));
        let variables = text.split('\0').filter_map(|variable| variable.split_once('='));
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// How something ended, and all that it printed.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    log: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        let log = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        Self { code: output.status.code(), log: String::from_utf8(log).unwrap() }
    }

    /// It went well, and shows no secret where the script showed some.
    #[track_caller]
    fn clean(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(self.log.contains("token ***\n") && self.log.contains("password ***\n"), "{self:?}");
        self.silent();
    }

    #[track_caller]
    fn silent(&self) {
        for secret in [CANARY, PASSWORD] {
            assert!(!self.log.contains(secret), "{self:?}");
        }
    }
}

/// What a job could mint tokens with is not what the command finds.
#[track_caller]
fn assert_confined(seen: &BTreeMap<String, String>, withheld: &[&str]) {
    for name in withheld {
        assert!(!seen.contains_key(*name), "{name} is in {:?}", seen.keys());
    }
}

/// A node's text.
fn text(node: &Node) -> &str {
    match &node.content {
        Content::Plain(text) | Content::Quoted(text) => text,
        Content::Mapping(_) | Content::Sequence(_) => panic!("no text: {node:?}"),
    }
}

fn items(node: &Node) -> &[Node] {
    match &node.content {
        Content::Sequence(items) => items,
        Content::Mapping(_) | Content::Plain(_) | Content::Quoted(_) => panic!("no sequence: {node:?}"),
    }
}

fn members(node: &Node) -> Vec<(&str, &Node)> {
    match &node.content {
        Content::Mapping(members) => members.iter().map(|(key, node)| (key.text.as_str(), node)).collect(),
        Content::Sequence(_) | Content::Plain(_) | Content::Quoted(_) => panic!("no mapping: {node:?}"),
    }
}

fn at<'a>(node: &'a Node, path: &[&str]) -> &'a Node {
    path.iter().fold(node, |node, name| member(node, name).unwrap_or_else(|| panic!("no {name} in {path:?}")))
}

/// The lines of a sequence of scripts, as CI systems join them.
fn lines(node: &Node) -> String {
    items(node).iter().map(|line| text(line).to_owned() + "\n").collect()
}

// GitHub

#[test]
fn github_workflow_of_the_examples_works_as_it_stands() {
    let installation = Installation::new();
    let grant = "grant: payments-prod\nallow:\n  - { name: main, issuer: ci, match: { repository_owner_id: \"4216\", \
                 repository_id: \"70155112\", ref: refs/heads/main } }\ncredentials:\n  npm: { sealed: { secret: npm-token } }\n";
    installation.write("policies/grants/payments-prod.yaml", grant);
    let server = installation.serve();
    let url = format!("http://{}", server.public.address);
    retarget(&installation, &server, "ci", &url);
    let tokens = FakeGitHubTokens::start(&installation.issuer.url, json!({}));
    // Our reader takes no word for a key that YAML 1.1 takes for a boolean; GitHub's does.
    let workflow = example("github/deploy.yml", &url).replace("\non:", "\n\"on\":");
    let workflow = parsed("deploy.yml", &workflow);
    let permissions: Vec<&str> =
        members(at(&workflow, &["permissions"])).into_iter().map(|(name, _)| name).collect();
    assert_eq!(permissions, ["id-token", "contents"]);
    let mut job = Job::new(Some(&tokens.url));
    let tools = Machine::new(&[]);
    job.environment.insert("PATH".to_owned(), tools.environment["PATH"].clone());
    job.environment.insert("SEEN".to_owned(), tools.environment["SEEN"].clone());
    for (name, value) in members(at(&workflow, &["jobs", "deploy", "env"])) {
        job.environment.insert(name.to_owned(), text(value).to_owned());
    }
    fs::copy(tools.path("workspace/deploy.sh"), job.workspace().join("deploy.sh")).unwrap();
    let steps = items(at(&workflow, &["jobs", "deploy", "steps"]));
    let step = |name: &str| steps.iter().find(|step| scalar(step, "name").as_deref() == Some(name)).unwrap();

    let (shell, script) = (scalar(step("Deploy"), "shell").unwrap(), scalar(step("Deploy"), "run").unwrap());
    let ran = job.run_by(&shell, &script);

    assert!(ran.passed, "{ran:?}");
    assert!(ran.log.contains("token ***") && !ran.log.contains(CANARY), "{ran:?}");
    let seen = tools.seen();
    assert_eq!(seen["NPM_VALUE"], CANARY);
    assert_confined(&seen, &["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"]);
    assert!(job.exported.is_empty());
    assert_eq!(server.entries("RELEASED").len(), 1, "given back when the script ended");

    let with = members(at(step("Credentials"), &["with"]));
    let inputs: Vec<(&str, String)> = with
        .into_iter()
        .map(|(name, value)| (name, text(value).replace("${{ env.HALLPASS_URL }}", &url)))
        .collect();
    let inputs: Vec<(&str, &str)> = inputs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let used = job.uses(&inputs);
    assert!(used.passed, "{used:?}");
    assert_eq!(job.exported["NODE_AUTH_TOKEN"], CANARY);
    assert!(job.run("./deploy.sh").log.contains("token ***"));
    assert!(job.post(&inputs, &used).passed);
    assert_eq!(server.entries("RELEASED").len(), 2);
    assert!(!job.log().contains(CANARY), "{}", job.log());
}

#[test]
fn readme_shows_steps_that_there_are() {
    let readme = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let (_, section) = readme.split_once("## Ready-made steps").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks: Vec<&str> =
        section.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [github, gitlab, buildkite, circleci, azure, bitbucket] = blocks[..] else { panic!("{blocks:?}") };
    let names =
        |node: &Node| -> Vec<String> { members(node).into_iter().map(|(name, _)| name.to_owned()).collect() };
    let declared = |file: &str, path: &[&str]| names(at(&parsed(file, &example(file, EXAMPLE)), path));
    let step = |text: &str| items(at(&parsed("README.md", text), &["steps"]))[0].clone();

    let action = parsed("action.yml", &example("../action.yml", EXAMPLE));
    let orb = declared("circleci/orb.yml", &["commands", "exec", "parameters"]);
    let template = parsed("hallpass.yml", &example("azure-pipelines/hallpass.yml", EXAMPLE));
    let template =
        items(at(&template, &["parameters"])).iter().map(|each| scalar(each, "name").unwrap()).collect();
    let component = example("gitlab/templates/hallpass.yml", EXAMPLE);
    let (component, _) = component.split_once("\n---\n").unwrap();
    let include = items(at(&parsed("README.md", gitlab), &["include"]))[0].clone();
    let plugins = step(buildkite);
    let (_, plugin) = members(&items(at(&plugins, &["plugins"]))[0])[0];
    let (circleci, azure) = (step(circleci), step(azure));
    let given: [(Vec<String>, Vec<String>); 5] = [
        (names(at(&step(github), &["with"])), names(at(&action, &["inputs"]))),
        (names(at(&include, &["inputs"])), names(at(&parsed("component", component), &["spec", "inputs"]))),
        (names(plugin), declared(&format!("{PLUGIN}/plugin.yml"), &["configuration", "properties"])),
        (names(at(&circleci, &["hallpass/exec"])), orb),
        (names(at(&azure, &["parameters"])), template),
    ];
    for (given, declared) in given {
        assert!(given.iter().all(|name| declared.contains(name)), "{given:?} of {declared:?}");
    }
    assert!(bitbucket.contains("hallpass exec deploy --url"), "{bitbucket}");
}

// GitLab

/// A job that extends the component's hidden job: its variables, `script` and `after_script`.
struct GitLabJob {
    variables: Vec<(String, String)>,
    script: String,
    after: String,
}

impl GitLabJob {
    /// `changes` are made to the claims of its tokens.
    fn of(setting: &Setting, changes: &Value) -> Self {
        let pipeline = parsed(".gitlab-ci.yml", &setting.example("gitlab/.gitlab-ci.yml"));
        let include = &items(at(&pipeline, &["include"]))[0];
        let component = setting.example("gitlab/templates/hallpass.yml");
        let (header, body) = component.split_once("\n---\n").unwrap();
        let mut body = body.to_owned();
        for (name, input) in members(at(&parsed("component", header), &["spec", "inputs"])) {
            let given = member(at(include, &["inputs"]), name).or_else(|| member(input, "default"));
            let value = text(given.unwrap_or_else(|| panic!("the input {name} is missing")));
            body = body.replace(&format!("$[[ inputs.{name} ]]"), value);
        }
        assert!(!body.contains("$[["), "an input that is not declared: {body}");
        let hidden = parsed("component", &body);
        let job = at(&pipeline, &["deploy"]);
        let parent = at(&hidden, &[&scalar(job, "extends").unwrap()]);
        let mut variables = Vec::new();
        for (name, value) in members(at(parent, &["variables"])) {
            variables.push((name.to_owned(), text(value).to_owned()));
        }
        for (name, token) in members(at(parent, &["id_tokens"])) {
            let mut claims = changes.clone();
            claims["aud"] = json!([text(at(token, &["aud"]))]);
            variables.push((name.to_owned(), setting.trusted.token(&claims)));
        }
        Self { variables, script: lines(at(job, &["script"])), after: lines(at(parent, &["after_script"])) }
    }

    fn machine(&self) -> Machine {
        let mut machine = Machine::new(&[
            ("GITLAB_CI", "true"),
            ("CI_JOB_ID", "302"),
            ("CI_JOB_TOKEN", "glcbt-of-the-job"),
        ]);
        let workspace = machine.path("workspace").to_str().unwrap().to_owned();
        machine.set("CI_PROJECT_DIR", &workspace);
        for (name, value) in &self.variables {
            machine.set(name, value);
        }
        machine
    }

    /// As the runner's shell executor runs a part of a job.
    fn part(machine: &Machine, script: &str, more: &[(&str, &str)]) -> Ended {
        machine.script(&["bash"], &format!("set -eo pipefail\nset +o noclobber\n{script}"), more)
    }
}

#[test]
fn gitlab_component_gives_a_job_its_credentials() {
    let setting = Setting::new("gitlab");
    let job = GitLabJob::of(&setting, &json!({}));
    let machine = job.machine();

    let ended = GitLabJob::part(&machine, &job.script, &[]);

    ended.clean();
    let seen = machine.seen();
    assert_eq!((seen["NPM_VALUE"].as_str(), seen["DB_PASSWORD"].as_str()), (CANARY, PASSWORD));
    assert_confined(&seen, &["HALLPASS_ID_TOKEN", "CI_JOB_TOKEN"]);
    assert_eq!(setting.releases(), 2);
    assert_eq!(GitLabJob::part(&machine, &job.after, &[]).code, Some(0));
}

#[test]
fn gitlab_job_ends_as_its_command_does() {
    let setting = Setting::new("gitlab");
    let job = GitLabJob::of(&setting, &json!({}));

    let ended = GitLabJob::part(&job.machine(), &job.script, &[("EXIT_WITH", "7")]);

    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert_eq!(setting.releases(), 2);
}

#[test]
fn gitlab_job_gives_back_at_its_end_what_a_killed_script_left() {
    let setting = Setting::new("gitlab");
    let job = GitLabJob::of(&setting, &json!({}));
    let machine = job.machine();

    setting.left_then_given_back(
        |more| GitLabJob::part(&machine, &job.script, more),
        || GitLabJob::part(&machine, &job.after, &[]),
    );
}

#[test]
fn gitlab_job_that_is_refused_runs_nothing() {
    let setting = Setting::new("gitlab");
    let job = GitLabJob::of(&setting, &json!({ "ref_protected": "false" }));
    let machine = job.machine();

    let ended = GitLabJob::part(&machine, &job.script, &[]);

    assert_eq!(ended.code, Some(125), "{ended:?}");
    let decision = setting.server.entries("DENIED")[0]["decision"].as_str().unwrap().to_owned();
    assert!(ended.log.contains(&decision), "{ended:?}");
    assert!(!machine.path("seen").exists());
    assert_eq!(GitLabJob::part(&machine, &job.after, &[]).code, Some(0), "the end of a job fails nothing");
}

// Buildkite

const PLUGIN: &str = "buildkite/hallpass-buildkite-plugin";

/// A step with the plugin as `pipeline.yml` has it: the options are variables, as the agent makes them.
fn buildkite(setting: &Setting) -> Machine {
    let pipeline = parsed("pipeline.yml", &setting.example("buildkite/pipeline.yml"));
    let step = &items(at(&pipeline, &["steps"]))[0];
    let (_, options) = members(&items(at(step, &["plugins"]))[0])[0];
    let plugin = parsed("plugin.yml", &setting.example(&format!("{PLUGIN}/plugin.yml")));
    let configuration = at(&plugin, &["configuration"]);
    for required in items(at(configuration, &["required"])) {
        assert!(member(options, text(required)).is_some(), "{} is required", text(required));
    }
    let command = scalar(step, "command").unwrap();
    let mut machine = Machine::new(&[
        ("BUILDKITE", "true"),
        ("BUILDKITE_COMMAND", &command),
        ("BUILDKITE_SHELL", "/bin/bash -e -c"),
        ("BUILDKITE_AGENT_ACCESS_TOKEN", "bkat-of-the-job"),
        ("BUILDKITE_AGENT_JOB_API_SOCKET", "/run/job-api.sock"),
        ("BUILDKITE_AGENT_JOB_API_TOKEN", "job-api-of-the-job"),
    ]);
    for (name, option) in members(options) {
        member(at(configuration, &["properties"]), name)
            .unwrap_or_else(|| panic!("no option is called {name}"));
        let variable = format!("BUILDKITE_PLUGIN_HALLPASS_{}", name.replace('-', "_").to_uppercase());
        match &option.content {
            Content::Sequence(values) => {
                for (index, value) in values.iter().enumerate() {
                    machine.set(&format!("{variable}_{index}"), text(value));
                }
            }
            Content::Mapping(_) | Content::Plain(_) | Content::Quoted(_) => {
                machine.set(&variable, text(option))
            }
        }
    }
    // A fake of the agent: it takes these two and nothing else, and needs what the real one needs for each.
    let agent = format!(
        "#!/bin/sh\ncase \"$*\" in\n  'oidc request-token --audience {} --claim organization_id,pipeline_id')\n    \
         [ -n \"$BUILDKITE_AGENT_ACCESS_TOKEN\" ] || exit 3\n    echo '{}' ;;\n  'redactor add')\n    \
         [ -n \"$BUILDKITE_AGENT_JOB_API_SOCKET$BUILDKITE_AGENT_JOB_API_TOKEN\" ] || exit 4\n    \
         cat >> '{}' ;;\n  *) echo \"fatal: $*\" >&2; exit 1 ;;\nesac\n",
        setting.url,
        setting.trusted.token(&json!({ "aud": setting.url })),
        machine.path("redacted").display(),
    );
    machine.program("bin/buildkite-agent", &agent);
    machine
}

/// A hook of the plugin, as the agent runs it.
fn hook(machine: &Machine, name: &str, more: &[(&str, &str)]) -> Ended {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(PLUGIN).join("hooks").join(name);
    assert!(fs::metadata(&file).unwrap().permissions().mode() & 0o111 != 0, "{file:?} can be executed");
    machine.run(&[file.to_str().unwrap()], more)
}

#[test]
fn buildkite_plugin_wraps_the_command_and_tells_the_agent_what_to_hide() {
    let setting = Setting::new("buildkite");
    let machine = buildkite(&setting);

    let ended = hook(&machine, "command", &[]);

    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.silent();
    assert!(ended.log.contains("password ***\n"), "{ended:?}");
    let seen = machine.seen();
    assert_eq!(seen["PGPASSWORD"], PASSWORD);
    assert!(!seen.contains_key("NPM_VALUE"), "only what is named");
    let withheld =
        ["BUILDKITE_AGENT_ACCESS_TOKEN", "BUILDKITE_AGENT_JOB_API_TOKEN", "BUILDKITE_AGENT_JOB_API_SOCKET"];
    assert_confined(&seen, &withheld);
    assert_eq!(read(&machine.path("redacted")), PASSWORD);
    assert_eq!(setting.releases(), 2);
    assert_eq!(hook(&machine, "pre-exit", &[]).code, Some(0));
}

#[test]
fn buildkite_plugin_gives_back_at_the_end_what_a_killed_command_left() {
    let setting = Setting::new("buildkite");
    let machine = buildkite(&setting);

    setting.left_then_given_back(|more| hook(&machine, "command", more), || hook(&machine, "pre-exit", &[]));
}

#[test]
fn buildkite_plugin_takes_one_value_or_several_and_ends_as_the_command_does() {
    let setting = Setting::new("buildkite");
    let mut machine = buildkite(&setting);
    machine.environment.retain(|name, _| !name.starts_with("BUILDKITE_PLUGIN_HALLPASS_"));
    machine.set("BUILDKITE_PLUGIN_HALLPASS_URL", &setting.url);
    machine.set("BUILDKITE_PLUGIN_HALLPASS_GRANTS", "payments-prod");
    machine.set("BUILDKITE_PLUGIN_HALLPASS_CREDENTIALS_0", "npm");
    machine.set("BUILDKITE_PLUGIN_HALLPASS_CREDENTIALS_1", "db");
    machine.set("BUILDKITE_PLUGIN_HALLPASS_REASON", "release 42; with $(care)");

    let ended = hook(&machine, "command", &[("EXIT_WITH", "9")]);

    assert_eq!(ended.code, Some(9), "{ended:?}");
    ended.silent();
    assert_eq!((machine.seen()["NPM_VALUE"].as_str(), setting.releases()), (CANARY, 2));
    assert_eq!(setting.reasons(), ["release 42; with $(care)"; 2]);
}

#[test]
fn buildkite_plugin_without_a_grant_or_agent_says_so() {
    let setting = Setting::new("buildkite");
    let mut machine = buildkite(&setting);
    machine.program("bin/buildkite-agent", "#!/bin/sh\necho 'fatal: no token for you' >&2\nexit 1\n");

    let ended = hook(&machine, "command", &[]);

    assert_eq!(ended.code, Some(125), "{ended:?}");
    assert!(ended.log.contains("no token for you"), "{ended:?}");
    machine.environment.retain(|name, _| !name.contains("_GRANTS"));
    let ended = hook(&machine, "command", &[]);
    assert!(ended.code == Some(2) && ended.log.contains("`grants` is missing"), "{ended:?}");
    assert_eq!(hook(&machine, "pre-exit", &[]).code, Some(0), "the end of a job fails nothing");
}

// CircleCI

/// A command of the orb with its parameters filled in, as `circleci config process` does.
fn circleci(setting: &Setting, command: &str, given: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
    let orb = parsed("orb.yml", &setting.example("circleci/orb.yml"));
    let command = at(&orb, &["commands", command]);
    let parameters = members(at(command, &["parameters"]));
    for (name, _) in given {
        assert!(parameters.iter().any(|(each, _)| each == name), "no parameter is called {name}");
    }
    let filled = |text: &str| {
        let mut text = text.to_owned();
        for (name, parameter) in &parameters {
            let value = given.iter().find(|(each, _)| each == name).map(|(_, value)| *value);
            let value = value.map(str::to_owned).or_else(|| scalar(parameter, "default"));
            let value = value.unwrap_or_else(|| panic!("the parameter {name} is missing"));
            text = text.replace(&format!("<< parameters.{name} >>"), &value);
        }
        assert!(!text.replace("\\<<", "").contains("<<"), "a parameter that is not declared: {text}");
        text.replace("\\<<", "<<")
    };
    let run = at(&items(at(command, &["steps"]))[0], &["run"]);
    let environment = members(at(run, &["environment"]));
    let environment =
        environment.into_iter().map(|(name, value)| (name.to_owned(), filled(text(value)))).collect();
    (filled(&scalar(run, "command").unwrap()), environment)
}

/// Runs a command of the orb as a step.
fn circleci_step(setting: &Setting, machine: &Machine, command: &str, given: &[(&str, &str)]) -> Ended {
    let (script, environment) = circleci(setting, command, given);
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    machine.script(&["/bin/bash", "-eo", "pipefail"], &script, &environment)
}

fn circleci_machine(setting: &Setting) -> Machine {
    let mut machine =
        Machine::new(&[("CIRCLECI", "true"), ("CIRCLE_OIDC_TOKEN_V2", "eyJ.of-the-organisation.x")]);
    let environment = machine.path("bash.env").to_str().unwrap().to_owned();
    fs::write(&environment, "").unwrap();
    machine.set("BASH_ENV", &environment);
    let command = format!(
        "#!/bin/sh\n[ \"$*\" = 'run oidc get --claims {{\"aud\":\"{}\"}}' ] || {{ echo \"unknown: $*\" >&2; exit 1; }}\n\
         printf %s '{}'\n",
        setting.url,
        setting.trusted.token(&json!({ "aud": setting.url })),
    );
    machine.program("bin/circleci", &command);
    machine
}

#[test]
fn circleci_orb_runs_a_command_with_its_credentials() {
    let setting = Setting::new("circleci");
    let machine = circleci_machine(&setting);
    let orb = parsed("orb.yml", &setting.example("circleci/orb.yml"));
    let steps = at(&orb, &["examples", "deploy", "usage", "jobs", "deploy", "steps"]);
    let (_, used) = members(&items(steps)[1])[0];
    let mut given: Vec<(&str, &str)> =
        members(used).into_iter().map(|(name, value)| (name, text(value))).collect();
    given.push(("url", &setting.url));

    let ended = circleci_step(&setting, &machine, "exec", &given);

    ended.clean();
    let seen = machine.seen();
    assert_eq!(seen["NPM_VALUE"], CANARY);
    assert_confined(&seen, &["CIRCLE_OIDC_TOKEN_V2", "CIRCLE_OIDC_TOKEN"]);
    assert_eq!(setting.releases(), 2);
}

#[test]
fn circleci_parameters_are_texts_and_never_a_part_of_the_script() {
    let setting = Setting::new("circleci");
    let machine = circleci_machine(&setting);
    let escaped = machine.path("escaped");
    let touch = format!("x\"; touch {}; \"$(touch {})", escaped.display(), escaped.display());
    let given = [
        ("grants", "payments-prod"),
        ("command", "./deploy.sh && exit 6"),
        ("url", &setting.url),
        ("credentials", "npm payments-prod.db"),
        ("env", "PGPASSWORD=payments-prod.db.password\nNODE_AUTH_TOKEN=payments-prod.npm.value\n"),
        ("reason", &touch),
        ("ttl", "5m"),
    ];

    let ended = circleci_step(&setting, &machine, "exec", &given);

    assert_eq!(ended.code, Some(6), "{ended:?}");
    ended.silent();
    let seen = machine.seen();
    assert_eq!((seen["PGPASSWORD"].as_str(), seen["NODE_AUTH_TOKEN"].as_str()), (PASSWORD, CANARY));
    assert!(!escaped.exists(), "a parameter was run");
    assert_eq!(setting.reasons(), [touch.as_str(); 2]);
}

#[test]
fn circleci_orb_installs_only_the_binary_that_was_looked_at() {
    let setting = Setting::new("circleci");
    let machine = circleci_machine(&setting);
    let binary = env!("CARGO_BIN_EXE_hallpass");
    let sum = Command::new("sha256sum").arg(binary).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap().split(' ').next().unwrap().to_owned();
    let from = format!("file://{binary}");
    let install =
        |sum: &str| circleci_step(&setting, &machine, "install", &[("from", from.as_str()), ("sha256", sum)]);
    let installed = machine.path("home/.local/bin");

    let ended = install(&sum.replace(|digit: char| digit.is_ascii_digit(), "0"));

    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert_eq!(fs::read_dir(&installed).unwrap().count(), 0, "nothing is left");
    let ended = install(&sum);
    assert!(ended.code == Some(0) && ended.log.contains(env!("CARGO_PKG_VERSION")), "{ended:?}");
    fs::remove_file(machine.path("bin/hallpass")).unwrap();
    assert_eq!(machine.script(&["/bin/bash", "-eo", "pipefail"], "hallpass version", &[]).code, Some(0));
}

// Azure Pipelines

#[test]
fn azure_template_runs_a_command_with_its_credentials() {
    let setting = Setting::new("azure-devops");
    let template = parsed("hallpass.yml", &setting.example("azure-pipelines/hallpass.yml"));
    let pipeline = parsed("azure-pipelines.yml", &setting.example("azure-pipelines/azure-pipelines.yml"));
    let given = at(&items(at(&pipeline, &["steps"]))[0], &["parameters"]);
    let declared = items(at(&template, &["parameters"]));
    for (name, _) in members(given) {
        assert!(
            declared.iter().any(|each| scalar(each, "name").as_deref() == Some(name)),
            "no parameter {name}"
        );
    }
    let filled = |text: &str| {
        let mut text = text.replace("$(System.AccessToken)", BEARER);
        for parameter in declared {
            let name = scalar(parameter, "name").unwrap();
            let value = scalar(given, &name).or_else(|| scalar(parameter, "default"));
            let value = value.unwrap_or_else(|| panic!("the parameter {name} is missing"));
            text = text.replace(&format!("${{{{ parameters.{name} }}}}"), &value);
        }
        assert!(!text.contains("${{"), "{text}");
        text
    };
    let trusted = setting.trusted.clone();
    let endpoint = TokenEndpoint::azure(move |connection| {
        assert_eq!(connection, None, "an empty one is none");
        trusted.token(&json!({}))
    });
    let mut machine = Machine::new(&[("TF_BUILD", "True"), ("SYSTEM_OIDCREQUESTURI", &endpoint.url)]);
    let step = &items(at(&template, &["steps"]))[0];
    for (name, value) in members(at(step, &["env"])) {
        machine.set(name, &filled(text(value)));
    }
    let script = scalar(step, "bash").unwrap();
    assert!(!script.contains("${{"), "parameters come as variables, never as a part of the script");

    let ended = machine.script(&["bash", "--noprofile", "--norc"], &script, &[]);

    ended.clean();
    let seen = machine.seen();
    assert_eq!(seen["NPM_VALUE"], CANARY);
    assert_confined(&seen, &["SYSTEM_ACCESSTOKEN", "SYSTEM_OIDCREQUESTURI"]);
    assert_eq!((endpoint.asked().len(), setting.releases()), (1, 2));
}

// Bitbucket

/// A step of the examples, on a machine with its token.
fn bitbucket(setting: &Setting) -> (Machine, Node) {
    let pipeline = parsed("bitbucket-pipelines.yml", &setting.example("bitbucket/bitbucket-pipelines.yml"));
    let step = at(&items(at(&pipeline, &["pipelines", "branches", "main"]))[0], &["step"]).clone();
    let audiences: Vec<&str> = items(at(&step, &["oidc", "audiences"])).iter().map(text).collect();
    let token = setting.trusted.token(&json!({ "aud": audiences }));
    (Machine::new(&[("BITBUCKET_BUILD_NUMBER", "7"), ("BITBUCKET_STEP_OIDC_TOKEN", &token)]), step)
}

/// A part of it; the step's image need not have more than a POSIX shell.
fn bitbucket_part(machine: &Machine, step: &Node, name: &str, more: &[(&str, &str)]) -> Ended {
    machine.script(&["dash", "-e"], &lines(at(step, &[name])), more)
}

#[test]
fn bitbucket_step_of_the_examples_works_as_it_stands() {
    let setting = Setting::new("bitbucket");
    let (machine, step) = bitbucket(&setting);

    let ended = bitbucket_part(&machine, &step, "script", &[]);

    ended.clean();
    let seen = machine.seen();
    assert_eq!(seen["NPM_VALUE"], CANARY);
    assert_confined(&seen, &["BITBUCKET_STEP_OIDC_TOKEN"]);
    assert_eq!(setting.releases(), 2);
    assert_eq!(bitbucket_part(&machine, &step, "after-script", &[]).code, Some(0));
}

#[test]
fn bitbucket_step_gives_back_at_its_end_what_a_killed_script_left() {
    let setting = Setting::new("bitbucket");
    let (machine, step) = bitbucket(&setting);

    setting.left_then_given_back(
        |more| bitbucket_part(&machine, &step, "script", more),
        || bitbucket_part(&machine, &step, "after-script", &[]),
    );
}
