//! What wraps the binary is kept honest where no container engine and no init system runs: the Dockerfile's last stage
//! is made by hand and entered, the unit is read by systemd's own analyser.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::support::{
    authority::Authority,
    eventually,
    installation::{Running, binary, run},
};

/// The libraries that distroless/cc-debian12 has of those that a Rust program may ask for.
const OF_THE_BASE: [&str; 5] = ["libc.so.6", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libdl.so.2"];

/// An instruction of the Dockerfile with its argument, continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("Dockerfile")).unwrap().replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (instruction, argument) = line.split_once(' ').unwrap();
            (instruction.to_owned(), argument.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

fn only(instruction: &str) -> String {
    let mut found: Vec<_> = instructions().into_iter().filter(|(name, _)| name == instruction).collect();
    assert_eq!(found.len(), 1, "{instruction}");
    found.remove(0).1
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The words of an instruction in its exec form.
fn words(argument: &str) -> Vec<String> {
    serde_json::from_str(argument).unwrap()
}

/// The folder that the last stage would be: the base's libraries, the binary, an empty `/data` that is nobody's.
fn image() -> tempfile::TempDir {
    let image = tempfile::Builder::new().prefix("hallpass-image-").tempdir().unwrap();
    let put = |from: &Path, to: &str| {
        let target = image.path().join(to.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from, target).unwrap();
    };
    let built = Path::new(env!("CARGO_BIN_EXE_hallpass"));
    put(built, "/usr/local/bin/hallpass");
    let asked = String::from_utf8(Command::new("ldd").arg(built).output().unwrap().stdout).unwrap();
    for line in asked.lines().map(str::trim).filter(|line| !line.starts_with("linux-vdso")) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let found = words.find(|word| word.starts_with('/')).unwrap_or(name);
        let is_loader = name.starts_with("/lib");
        assert!(is_loader || OF_THE_BASE.contains(&name), "the base image has no {name}");
        put(Path::new(found), found);
    }
    // The base has the public authorities here; any will do where nobody is asked.
    fs::create_dir_all(image.path().join("etc/ssl/certs")).unwrap();
    let authorities = image.path().join("etc/ssl/certs/ca-certificates.crt");
    fs::write(authorities, Authority::new().certificate).unwrap();
    let data = image.path().join("data");
    fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(USER), Some(USER)).unwrap();
    image
}

const USER: u32 = 65_532;

/// A command within the image, as its user.
fn within(image: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new("/usr/sbin/chroot");
    command.arg(format!("--userspec={}", only("USER"))).arg(image).args(arguments).env_clear();
    let (name, value) =
        only("ENV").split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    command.env(name, value);
    command
}

#[test]
fn image_of_the_dockerfile_makes_an_installation_serves_it_and_knows_that_it_is_well() {
    let entry = words(&only("ENTRYPOINT"));
    let image = image();
    let command = |more: &[&str]| {
        let mut all = entry.clone();
        all.extend(more.iter().map(|word| (*word).to_owned()));
        within(image.path(), &all)
    };
    run(&mut command(&["init", "--dir", "/data"]), "");
    // Free ports, so that tests can run beside each other.
    let file = image.path().join("data/hallpass.yaml");
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("127.0.0.1:8440", &free()).replace("127.0.0.1:8441", "127.0.0.1:0"))
        .unwrap();
    let serve = words(&only("CMD"));

    let serving = Running::spawn(&mut command(&serve.iter().map(String::as_str).collect::<Vec<_>>()));
    eventually("the line that says ready", || serving.logs().contains("hallpass ready").then_some(()));

    let health = only("HEALTHCHECK");
    let (_, health) = health.split_once("CMD ").unwrap();
    run(&mut within(image.path(), &words(health)), "");
    assert!(serving.logs().lines().any(|line| line.starts_with('{')), "its log is JSON: {}", serving.logs());
    let nobodys: Vec<PathBuf> =
        fs::read_dir(image.path().join("data")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(nobodys.len() > 3, "{nobodys:?}");
}

#[test]
fn dockerfile_builds_what_is_tested_and_with_the_oldest_compiler_that_is_promised() {
    let all = instructions();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let least =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    let bases: Vec<&str> =
        all.iter().filter(|(name, _)| name == "FROM").map(|(_, base)| base.as_str()).collect();
    assert_eq!(bases[0], format!("rust:{least}-bookworm AS build"));
    assert!(bases[1].ends_with(":nonroot"), "{bases:?}");
    let built =
        all.iter().find(|(name, argument)| name == "RUN" && argument.contains("cargo build")).unwrap();
    assert!(
        built.1.contains("cargo build --release --locked && cp target/release/hallpass /hallpass"),
        "{built:?}"
    );
    let copied = all.iter().any(|(name, argument)| {
        name == "COPY" && argument == "--from=build /hallpass /usr/local/bin/hallpass"
    });
    assert!(copied, "{all:?}");
    // What `COPY . .` takes is what the build reads: nothing that is ignored may be needed.
    let ignored = fs::read_to_string(root().join(".dockerignore")).unwrap();
    for needed in ["Cargo.toml", "Cargo.lock", "src", "migrations", "policies", "tests", "benches"] {
        assert!(root().join(needed).exists() && !ignored.lines().any(|line| line == needed), "{needed}");
    }
}

#[test]
fn unit_is_one_that_systemd_reads_and_calls_well_confined() {
    let unit = fs::read_to_string(root().join("examples/systemd/hallpass.service")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hallpass.service");
    let here = unit.replace("/usr/local/bin/hallpass", env!("CARGO_BIN_EXE_hallpass"));
    let here = here.lines().filter(|line| !line.starts_with("Documentation=")).collect::<Vec<_>>().join("\n");
    fs::write(&file, here).unwrap();
    let analyse = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&file).output();
        output.unwrap_or_else(|fault| panic!("systemd-analyze: {fault}; run .ci/run"))
    };

    let verified = analyse(&["verify"]);
    // In tenths: 2.0 of 10 is what systemd calls OK.
    let confined = analyse(&["security", "--offline=true", "--threshold=20", "--no-pager"]);

    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    assert!(confined.status.success(), "{}", String::from_utf8_lossy(&confined.stdout));
    let started =
        unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/hallpass ")).unwrap();
    let understood = binary().args(started.split_whitespace()).arg("--help").output().unwrap();
    assert!(understood.status.success(), "{understood:?}");
}
