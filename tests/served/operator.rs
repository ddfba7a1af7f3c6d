//! The service that README.md describes, by its very commands: HAProxy in front, PostgreSQL behind, TLS on both listeners.
//! What a test cannot have is put in its place first: the names on the first lines, ports, and the CI system.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use reqwest::Certificate;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    readme::blocks,
    support::{
        AUDIENCE, Cluster, Issuer,
        authority::Authority,
        component::{Component, free_port},
        eventually,
        installation::{CANARY, Running, binary, finish, run},
        runtime,
    },
};

/// A shell that an operator pastes into; the first command that fails ends it.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    fn open(folder: &Path, path: &str, cluster: &Cluster) -> Self {
        let mut command = Command::new("bash");
        for (name, _) in binary().get_envs() {
            command.env_remove(name);
        }
        command.args(["-euo", "pipefail"]).current_dir(folder).envs(cluster.administrator());
        command.env("PATH", path).env("NPM_TOKEN", CANARY).env("NO_COLOR", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// Pastes a block; answers what it printed.
    #[track_caller]
    fn paste(&mut self, block: &str) -> String {
        // What was printed last may have no end of line.
        writeln!(self.stdin, "{block}\nprintf '\\nend-of-block\\n'").unwrap();
        let mut told = String::new();
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                panic!("{:?} after {told} in:\n{block}", self.child.wait().unwrap());
            }
            if line == "end-of-block\n" {
                return told;
            }
            told.push_str(&line);
        }
    }
}

/// `text` with each of those in the place of another, which must be there.
#[track_caller]
fn with(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in:\n{text}");
        text.replace(from, to)
    })
}

/// Tools that are on an operator's path: the built binary, and whatever Debian keeps elsewhere.
fn path(folder: &Path) -> String {
    let tools = folder.join("bin");
    fs::create_dir(&tools).unwrap();
    symlink(env!("CARGO_BIN_EXE_hallpass"), tools.join("hallpass")).unwrap();
    format!("{}:{}:/usr/sbin", tools.display(), std::env::var("PATH").unwrap())
}

struct Service {
    folder: tempfile::TempDir,
    issuer: Issuer,
    public: u16,
    admin: u16,
    proxy: u16,
}

impl Service {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("service").join(name)
    }

    fn edit(&self, name: &str, changes: &[(&str, &str)]) {
        fs::write(self.file(name), with(&fs::read_to_string(self.file(name)).unwrap(), changes)).unwrap();
    }

    /// What an operator writes: the CI system, a grant for it. Ports are those of this test.
    fn configure(&self) {
        let ports = [("127.0.0.1:8440", self.public), ("127.0.0.1:8441", self.admin)];
        let text = fs::read_to_string(self.file("hallpass.yaml")).unwrap();
        let github = text.lines().find(|line| line.starts_with("  github: ")).unwrap().to_owned();
        let url = &self.issuer.url;
        let ours =
            format!("  ci: {{ url: \"{url}\", profile: github-actions, allow_private_addresses: true }}");
        self.edit("hallpass.yaml", &[(&github, &ours)]);
        for (from, port) in ports {
            self.edit("hallpass.yaml", &[(from, &format!("127.0.0.1:{port}"))]);
        }
        fs::remove_file(self.file("policies/issuers/github.yaml")).unwrap();
        fs::remove_file(self.file("policies/grants/example.yaml")).unwrap();
        fs::remove_file(self.file("policies/grants/example.test.yaml")).unwrap();
        let issuer = format!("issuer: ci\nprofile: github-actions\nurl: {url}\naudience: {AUDIENCE}\n");
        fs::write(self.file("policies/issuers/ci.yaml"), issuer).unwrap();
        fs::write(self.file("policies/grants/deploy.yaml"), GRANT).unwrap();
    }

    /// A path behind the proxy.
    fn at(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.proxy)
    }

    /// A client on another address than the proxy's, which trusts the certificate of the service.
    fn client(&self) -> reqwest::Client {
        let pem = fs::read(self.file("tls.crt")).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .local_address(Some(CALLER.into()))
            .resolve(HOST, SocketAddr::from(([127, 0, 0, 1], 0)))
            .tls_certs_only([Certificate::from_pem(&pem).unwrap()])
            .build()
            .unwrap()
    }
}

#[test]
fn operator_has_a_service_behind_a_proxy_with_postgresql_by_the_readmes_commands() {
    let commands = blocks("sh");
    let [_, _, _, serve, _, make, front, look, ..] = &commands[..] else { panic!("{commands:?}") };
    let database = free_port();
    let cluster = Cluster::start(Some(database), "");
    let authority = Authority::new();
    let certified = authority.certify(&["localhost"], |_| {});
    cluster.use_certificate(&certified.certificate, &certified.key);
    let (public, admin) = (free_port(), free_port());
    let (folder, issuer) = (tempfile::tempdir().unwrap(), Issuer::start());
    let service = Service { folder, issuer, public, admin, proxy: free_port() };
    let root = service.folder.path();
    let (trusted, proxies) = (root.join("database-ca.pem"), root.join("haproxy"));
    fs::write(&trusted, &authority.certificate).unwrap();
    fs::create_dir(&proxies).unwrap();
    let path = path(root);
    let mut shell = Shell::open(root, &path, &cluster);

    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    shell.paste(&with(
        make,
        &[
            ("HOST=hallpass.example.com ", &format!("HOST={HOST} ")),
            ("DB=db.example.com ", &format!("DB=localhost:{database} ")),
            ("DB_CA=/etc/ssl/certs/ssl-cert-snakeoil.pem ", &format!("DB_CA={} ", trusted.display())),
            ("EXAMPLES=../hallpass/examples ", &format!("EXAMPLES={} ", examples.display())),
            ("PROXY=/etc/haproxy", &format!("PROXY={}", proxies.display())),
        ],
    ));
    service.configure();
    let mut serving = Command::new("bash");
    serving.args(["-c", &format!("exec {serve}")]).current_dir(service.file("")).env("PATH", &path);
    let broker = Running::spawn(&mut serving);
    eventually("the line that says ready", || broker.logs().contains("hallpass ready ").then_some(()));

    // The block's own check of what it wrote comes before ports are changed.
    shell.paste(front);
    let file = proxies.join("haproxy.cfg");
    let written = fs::read_to_string(&file).unwrap();
    let ports = [
        ("bind :443 ", format!("bind 127.0.0.1:{} ", service.proxy)),
        ("127.0.0.1:8440 check port 8441 ", format!("127.0.0.1:{public} check port {admin} ")),
    ];
    let ports: Vec<(&str, &str)> = ports.iter().map(|(from, to)| (*from, to.as_str())).collect();
    fs::write(&file, with(&written, &ports)).unwrap();
    let mut haproxy = Command::new("haproxy");
    let _proxy =
        Component::spawn("haproxy", haproxy.env("PATH", &path).arg("-db").arg("-f").arg(&file), root);

    let asked = with(
        look,
        &[
            ("https://127.0.0.1:8441", &format!("https://127.0.0.1:{admin}")),
            ("::127.0.0.1:443", &format!("::127.0.0.1:{}", service.proxy)),
        ],
    );
    eventually("the proxy", || {
        let asked = service.client().get(service.at("/livez")).send();
        runtime().block_on(asked).ok().filter(|answer| answer.status() == 200)
    });
    let told = shell.paste(&asked);

    // Swap is the machine's own.
    let amiss: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("failing") || line.starts_with("warning"))
        .filter(|line| !line.contains(" swap "))
        .collect();
    assert!(amiss.is_empty() && told.contains("it answers at postgres://"), "{told}");
    assert!(told.contains("\"status\":\"ready\""), "{told}");

    exchange_is_of_whom_the_proxy_saw(&service);
    certificate_is_changed_by_a_signal(&service, &broker);
    assert!(!broker.stop().contains(CANARY));
}

/// Through the proxy, from an address of its own, with a claim of another one.
fn exchange_is_of_whom_the_proxy_saw(service: &Service) {
    let answer: Value = runtime().block_on(async {
        let call = service.client().post(service.at("/v1/exchange"));
        let call = call.bearer_auth(service.issuer.token()).header("x-forwarded-for", "203.0.113.9");
        let answer = call.json(&json!({ "grants": ["deploy"] })).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    });
    assert_eq!(answer["issuances"][0]["fields"]["value"], CANARY);

    let auditor = fs::read_to_string(service.file("auditor.token")).unwrap();
    let pem = fs::read(service.file("tls.crt")).unwrap();
    let admin = reqwest::Client::builder().no_proxy().tls_certs_only([Certificate::from_pem(&pem).unwrap()]);
    let entries: Value = runtime().block_on(async {
        let url = format!("https://127.0.0.1:{}/v1/ledger/entries?q=outcome:ISSUED", service.admin);
        let asked = admin.build().unwrap().get(url).bearer_auth(auditor.trim()).send();
        asked.await.unwrap().json().await.unwrap()
    });
    let [issued] = entries["items"].as_array().unwrap().as_slice() else { panic!("{entries}") };
    let told = issued["personal"].to_string();
    assert!(told.contains(&CALLER.to_string()), "{issued}");
    assert!(!told.contains("203.0.113.9") && !told.contains("\"127.0.0.1\""), "{issued}");
}

/// The admin listener shows another certificate after SIGHUP, under the same names.
fn certificate_is_changed_by_a_signal(service: &Service, broker: &Running) {
    let before = fs::read_to_string(service.file("tls.crt")).unwrap();
    let mut again = Command::new("openssl");
    again.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "90",
    ]);
    again.args([
        "-subj",
        &format!("/CN={HOST}"),
        "-addext",
        &format!("subjectAltName=DNS:{HOST},IP:127.0.0.1"),
    ]);
    again.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "tls.key", "-out", "tls.crt"]);
    assert!(again.current_dir(service.file("")).stderr(Stdio::null()).status().unwrap().success());
    assert_ne!(fs::read_to_string(service.file("tls.crt")).unwrap(), before);

    broker.signal(Signal::HUP);

    let trusts = |pem: &str| {
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let client = client.tls_certs_only([Certificate::from_pem(pem.as_bytes()).unwrap()]).build().unwrap();
        let asked = client.get(format!("https://127.0.0.1:{}/readyz", service.admin)).send();
        runtime().block_on(asked).is_ok_and(|answer| answer.status() == 200)
    };
    let after = fs::read_to_string(service.file("tls.crt")).unwrap();
    eventually("the new certificate", || trusts(&after).then_some(()));
    assert!(!trusts(&before), "the old one is shown still");
}

/// What `public.url` is called; clients ask for tokens for it.
const HOST: &str = "hallpass.test";
/// Where the caller is, as the proxy sees it.
const CALLER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const GRANT: &str = r#"grant: deploy
allow:
  - name: from-main
    issuer: ci
    match: { repository_owner_id: "4216", repository_id: "70155112", ref: refs/heads/main }
credentials:
  npm: { sealed: { secret: npm-token } }
"#;

#[test]
fn first_mistakes_with_a_database_say_what_to_do() {
    let port = free_port();
    let cluster = Cluster::start(Some(port), "");
    let folder = tempfile::tempdir().unwrap();
    cluster.role("owner");
    cluster.psql("postgres", "CREATE DATABASE hallpass OWNER owner");
    let store = format!("postgres://writer@localhost:{port}/hallpass");
    run(binary().args(["init", "--store", &store]).current_dir(folder.path()), "");
    let told = |more: &str| {
        let url = format!("postgres://owner@localhost:{port}/hallpass?{more}");
        let mut init = binary();
        init.args(["store", "init", "--as", &url]).current_dir(folder.path()).env("PGPASSWORD", "another");
        let output = finish(&mut init, "");
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };

    let password = told("sslmode=disable");
    assert!(
        password.contains("password authentication failed") && password.contains("--password-file"),
        "{password}"
    );

    // What `openssl req -x509` makes where nobody says otherwise.
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "9",
    ]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem"]);
    openssl.args(["-out", "ca.pem"]).current_dir(folder.path()).stderr(Stdio::null());
    assert!(openssl.status().unwrap().success());
    let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    cluster.use_certificate(&text("ca.pem"), &text("key.pem"));
    let authority = eventually("the server's TLS", || {
        let told = told("sslrootcert=ca.pem");
        told.contains("CaUsedAsEndEntity").then_some(told)
    });
    assert!(authority.contains("basicConstraints=critical,CA:FALSE"), "{authority}");
}
